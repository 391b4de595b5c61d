"""An effect of treatment that comes late, or wanes: hazards that are not proportional.

A patient of the experimental arm has the hazard h0(t) risk HR^phi(t), t months after enrolment, with phi constant in
pieces: 0 is no effect, 1 the whole effect, below 0 harm. It is told to the engine as changes that befall everyone of
that arm; nobody changes treatment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.enrolment.adherence import ChangeDraws

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EffectFrom:
    """From a month after enrolment on, the treatment has another part of its effect.

    Attributes:
        month: Since enrolment, 0 or more.
        effect: The part of the treatment's effect, on the log hazard, from then on.

    Raises:
        ValueError: If the month is negative or a number is not finite.
    """

    month: float
    effect: float

    def __post_init__(self) -> None:
        if not 0 <= self.month < math.inf or not math.isfinite(self.effect):
            raise ValueError(f"effect must be (month, part) with month 0 or more, got {(self.month, self.effect)!r}")

    def months(self, draws: ChangeDraws, arm: Ints, enrolled: Floats, risk: Floats) -> Floats:
        """Months from enrolment to it, (trials, patients); see `TreatmentChange`."""
        return np.where(arm == 1, self.month, np.inf)


def effect_over_time(pieces: Sequence[Sequence[float]]) -> list[EffectFrom]:
    """An effect that is constant in pieces.

    Args:
        pieces: (month since enrolment, part of the log hazard ratio from then on) of each; the first month is 0, the
            last piece holds for ever. None at all: the whole effect throughout.

    Raises:
        ValueError: If they are no such pairs, or months do not increase from 0.

    >>> effect_over_time([[0, 0.0], [4, 1.0]])
    [EffectFrom(month=0.0, effect=0.0), EffectFrom(month=4.0, effect=1.0)]
    """
    if any(len(piece) != 2 for piece in pieces):
        raise ValueError(f"effect must be pairs of a month and a part, got {[list(piece) for piece in pieces]}")
    months = [float(month) for month, _ in pieces]
    if months and (months[0] != 0 or any(low >= high for low, high in pairwise(months))):
        raise ValueError(f"effect must have months that begin with 0 and increase, got {months}")
    return [EffectFrom(float(month), float(part)) for month, part in pieces]
