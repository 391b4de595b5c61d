"""Rates of rejection, as trials_errors_means_rates.py and trials_errors_survival.py count and judge them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NOMINAL_TOLERANCE, AGREEMENT_ERRORS = 0.003, 4.0


def standard_error(rate: float, trials: int) -> float:
    """Monte-Carlo standard error of a rate, above 0 even where none or all of the trials reject."""
    return math.sqrt(max(rate * (1 - rate), 1 / trials) / trials)


def nominal_tolerance(rate: float, trials: int) -> float:
    """How far an error rate may lie from its nominal value: 0.003, with fewer than 100,000 trials 4 standard errors."""
    return max(NOMINAL_TOLERANCE, AGREEMENT_ERRORS * standard_error(rate, trials) if trials < 100_000 else 0.0)


def do_agree(one: tuple[float, int], other: tuple[float, int]) -> bool:
    """Whether two simulations, rate and trials of each, lie within 4 standard errors of their difference."""
    spread = math.hypot(standard_error(*one), standard_error(*other))
    return abs(one[0] - other[0]) <= AGREEMENT_ERRORS * spread


def rejections(
    z: NDArray[np.float64], places: Sequence[int], upper: Sequence[float], lower: Sequence[float] | None
) -> NDArray[np.bool_]:
    """Whether each trial rejects at some look, (trials,), before which it has not stopped for futility.

    Args:
        z: (trials, looks) statistics; nan crosses no bound.
        places: (looks of the design,) columns of z.
        upper: (looks of the design,) efficacy bounds.
        lower: (looks of the design,) futility bounds, which are obeyed; None: there are none.
    """
    rejected, running = np.zeros(len(z), dtype=bool), np.ones(len(z), dtype=bool)
    for look, (place, bound) in enumerate(zip(places, upper, strict=True)):
        crosses = running & (z[:, place] >= bound)
        rejected |= crosses
        running &= ~crosses
        if lower is not None:
            running &= ~(z[:, place] <= lower[look])
    return rejected
