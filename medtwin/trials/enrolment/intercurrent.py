"""Intercurrent events: what happens after randomisation and changes what the endpoint means, and how it is handled.

Source: ICH E9(R1) 2019, addendum on estimands and sensitivity analysis, A.3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.enrolment.adherence import Discontinuation, SwitchAtMonth, SwitchAtProgression, TreatmentChange

Floats = NDArray[np.float64]
Strategy = Literal["treatment_policy", "hypothetical", "while_on_treatment", "composite"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
DISCONTINUATION, SWITCHING = "discontinuation", "switching"


def intercurrent_event(change: TreatmentChange) -> str | None:
    """The kind of intercurrent event that a change of treatment is; None where it is none, as of a delayed effect."""
    if isinstance(change, Discontinuation):
        return DISCONTINUATION
    return SWITCHING if isinstance(change, SwitchAtProgression | SwitchAtMonth) else None


def strategies_of(changes: Sequence[TreatmentChange], named: Mapping[str, Strategy]) -> tuple[Strategy, ...]:
    """How each change is handled: as its kind is named, else by treatment policy."""
    policy: Strategy = "treatment_policy"
    return tuple(named.get(intercurrent_event(change) or "", policy) for change in changes)


def handled(
    event: Floats, dropout: Floats, changes: Sequence[Floats], strategies: Sequence[Strategy]
) -> tuple[Floats, Floats]:
    """Months to the event and to the end of follow-up, as the analysis of the trial sees them.

    Treatment policy follows patients on; the composite counts the change as the event; the hypothetical strategy and
    that of while on treatment end follow-up at the change, the former as if it said nothing of the patient's risk.

    Args:
        event: Months to the event, inf where never.
        dropout: Months to leaving.
        changes: Months to each change of treatment, in the same shape.
        strategies: Of each.
    """
    for months, strategy in zip(changes, strategies, strict=True):
        if strategy == "composite":
            event = np.minimum(event, months)
        elif strategy != "treatment_policy":
            dropout = np.minimum(dropout, months)
    return event, dropout
