"""How often the score test of two rates crosses a bound, of all tables: what a normal mean is only near to."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtri
from scipy.stats import binom

from medtwin.trials.analysis.batched.rates import Counts, miettinen_nurminen_z

_NEAR = (-1, 0, 1)
"""Patients by which arms differ from the allocation: chance splits them so, and smooths what is discrete."""
_SURE = 1e-12


def crossing_probability(rates: tuple[float, float], sizes: tuple[int, int], null: float, bound: float) -> float:
    """The probability that Miettinen and Nurminen's statistic is at the bound or above it.

    For each number of events in the control arm it rises with those of the other, so that one of them is the least that
    crosses.

    Args:
        rates: Experimental, control.
        sizes: Patients, experimental, control.
        null: Difference of rates.
        bound: For z, positive in favour of a higher experimental rate.
    """
    n, m = sizes
    least, below = np.full(m + 1, n + 1), np.full(m + 1, -1)
    control = np.arange(m + 1)
    while (least - below > 1).any():
        middle = np.clip((least + below) // 2, 0, n)
        is_open = least - below > 1
        crosses = miettinen_nurminen_z(Counts.of((middle, control), (n, m)), null) >= bound
        least, below = np.where(is_open & crosses, middle, least), np.where(is_open & ~crosses, middle, below)
    return float(binom.pmf(control, m, rates[1]) @ binom.sf(least - 1, n, rates[0]))


@lru_cache(maxsize=4096)
def score_test_mean(
    rates: tuple[float, float], subjects: int, allocation_ratio: float, null: float, bound: float
) -> float | None:
    """The mean of a normal statistic that crosses the bound as often; None where next to all or no tables do.

    Args:
        rates: Experimental, control.
        subjects: In all; arms are the three splits next to the allocation, each as likely.
        allocation_ratio: Experimental : control.
        null: Difference of rates.
        bound: As of `crossing_probability`.
    """
    control = round(subjects / (1 + allocation_ratio))
    splits = [(subjects - control - k, control + k) for k in _NEAR if 0 < control + k < subjects]
    probability = float(np.mean([crossing_probability(rates, split, null, bound) for split in splits]))
    return bound + float(ndtri(probability)) if _SURE < probability < 1 - _SURE else None
