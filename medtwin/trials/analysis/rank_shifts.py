"""Shifts in location that normal approximations of rank tests do not reject, for data with ties or of many rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from medtwin.trials.analysis.follow_up import as_level
from medtwin.trials.analysis.means import RankStatistic, as_sample, rank_sum, signed_rank_sum
from medtwin.trials.analysis.rates import RootFinder, exact_root
from medtwin.trials.analysis.results import Interval

_Score = Callable[[float], RankStatistic]


def rank_sum_normal_shift(
    first: ArrayLike,
    second: ArrayLike,
    *,
    level: float = 0.95,
    continuity: bool = True,
    find_root: RootFinder = exact_root,
) -> Interval:
    """The shift first - second at which the rank sum is as expected, with limits of its normal approximation.

    Args:
        first: (rows,).
        second: (rows,).
        level: Of the limits.
        continuity: Whether the limits are corrected by one half; the estimate is not.
        find_root: Of a decreasing step function, between two numbers.

    Raises:
        ValueError: If a group is empty, or the level does not lie between 0 and 1.

    Source: Hodges & Lehmann 1963, Ann Math Stat 34:598.
    """
    x, y = as_sample("first", first), as_sample("second", second)

    def score(shift: float) -> RankStatistic:
        return rank_sum(x - shift, y)

    return _shift(score, float(x.min() - y.max()), float(x.max() - y.min()), level, continuity, find_root)


def signed_rank_normal_shift(
    differences: ArrayLike, *, level: float = 0.95, continuity: bool = True, find_root: RootFinder = exact_root
) -> Interval:
    """The centre at which the sum of signed ranks is as expected, with limits of its normal approximation.

    Args:
        differences: (rows,).
        level: Of the limits.
        continuity: Whether the limits are corrected by one half; the estimate is not.
        find_root: Of a decreasing step function, between two numbers.

    Raises:
        ValueError: If there are none, or the level does not lie between 0 and 1.
    """
    x = as_sample("differences", differences)

    def score(shift: float) -> RankStatistic:
        return signed_rank_sum(x - shift)

    return _shift(score, float(x.min()), float(x.max()), level, continuity, find_root)


def _shift(score: _Score, low: float, high: float, level: float, continuity: bool, find_root: RootFinder) -> Interval:
    bound = float(norm.isf((1 - as_level("level", level)) / 2))

    def root(at: float, correction: float) -> float:
        def excess(shift: float) -> float:
            found = score(shift)
            gap = found.statistic - found.mean
            return (
                float((gap - np.sign(gap) * correction) / np.sqrt(found.variance) - at) if found.variance > 0 else -at
            )

        if excess(low) <= 0:
            return low
        return high if excess(high) >= 0 else find_root(excess, low, high)

    correction = 0.5 if continuity else 0.0
    return Interval(root(0.0, 0.0), root(bound, correction), root(-bound, correction), level)
