"""What a trial waits for, and what became of a cohort's subjects after their day of entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.hazard import DAYS_PER_MONTH
from medtwin.trials.population.cohort import NEVER, Cohort, first_after
from medtwin.trials.population.criteria import Candidates

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Endpoint:
    """What the trial waits for: the first of any of the codes after entry, or death.

    Attributes:
        name: In words. codes: `SYSTEM//code`, those below them included; empty: death only.
        death: Whether death counts. If not, death ends follow-up as if the patient had left (a cause-specific hazard).
        competing: `cause_specific` says so: a trial whose endpoint leaves death out has to.
        horizon_months: For records that end with a discharge: whoever left alive is taken to be free of the event until
            then, and events after it do not count. None: a record's end says nothing of what came later.
    """

    name: str = "death"
    codes: Sequence[str] = ()
    death: bool = True
    horizon_months: float | None = None
    competing: Literal["cause_specific"] | None = None

    def __post_init__(self) -> None:
        if self.competing not in (None, "cause_specific"):
            raise ValueError(
                "endpoint.competing must be cause_specific (a composite is death: true; subdistribution hazards are "
                f"analysed by medtwin.trials.analysis.competing, not simulated), got {self.competing!r}"
            )
        if self.competing is not None and self.death:
            raise ValueError("endpoint.competing must be null where death counts as an event, got 'cause_specific'")
        if not self.codes and not self.death:
            raise ValueError("endpoint needs codes, or death: true")
        if self.horizon_months is not None and not self.horizon_months > 0:
            raise ValueError(f"horizon_months must be above 0, got {self.horizon_months!r}")


@dataclass(frozen=True)
class FollowedUp:
    """The cohort's own course after entry: (subjects,) months at risk, and whether they end with the endpoint."""

    months: Floats
    event: Bools


def follow_up(cohort: Cohort, entry: Candidates, endpoint: Endpoint) -> FollowedUp:
    """What became of the eligible subjects, in the record.

    Raises:
        ConfigError: If the endpoint has codes, the cohort has none of them, and death does not count.
    """
    if endpoint.codes and not endpoint.death:
        cohort.require_known(endpoint.codes, f"endpoint {endpoint.name}")
    death = cohort.death[entry.subject]
    end = np.minimum(np.maximum(cohort.last[entry.subject], entry.day), death)
    happened = np.full(len(entry.day), NEVER)
    if endpoint.codes:
        happened = first_after(cohort.rows_of(endpoint.codes), entry.subject, entry.day)
    if endpoint.death:
        happened = np.minimum(happened, death)
    is_event = happened != NEVER
    last = np.where(is_event, happened, end)
    months = np.maximum(last - entry.day, 0.5) / DAYS_PER_MONTH
    if endpoint.horizon_months is None:
        return FollowedUp(months, is_event)
    is_early = is_event & (months <= endpoint.horizon_months)
    died = (death != NEVER) & ~is_event
    return FollowedUp(
        np.where(is_early | died, np.minimum(months, endpoint.horizon_months), endpoint.horizon_months), is_early
    )
