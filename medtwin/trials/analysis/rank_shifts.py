"""Shifts in location that normal approximations of rank tests do not reject, for data with ties or of many rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata

from medtwin.trials.analysis.follow_up import Floats, as_level
from medtwin.trials.analysis.rates import RootFinder, exact_root
from medtwin.trials.analysis.results import Interval

_Score = Callable[[float], tuple[float, float]]


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
    x, y = _sample("first", first), _sample("second", second)
    n, m = len(x), len(y)

    def score(shift: float) -> tuple[float, float]:
        ranks = rankdata(np.concatenate([x - shift, y]))
        variance = n * m / 12 * (n + m + 1 - _ties(ranks) / ((n + m) * (n + m - 1)))
        return float(ranks[:n].sum()) - n * (n + 1) / 2 - n * m / 2, variance

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
    x = _sample("differences", differences)

    def score(shift: float) -> tuple[float, float]:
        gaps = x - shift
        gaps = gaps[gaps != 0]
        n, ranks = len(gaps), rankdata(np.abs(gaps))
        variance = n * (n + 1) * (2 * n + 1) / 24 - _ties(ranks) / 48
        return float(ranks[gaps > 0].sum()) - n * (n + 1) / 4, variance

    return _shift(score, float(x.min()), float(x.max()), level, continuity, find_root)


def _sample(name: str, values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"{name} must be finite numbers, got the shape {x.shape!r}")
    return x


def _ties(ranks: Floats) -> float:
    counts = np.unique(ranks, return_counts=True)[1].astype(np.float64)
    return float((counts**3 - counts).sum())


def _shift(score: _Score, low: float, high: float, level: float, continuity: bool, find_root: RootFinder) -> Interval:
    bound = float(norm.isf((1 - as_level("level", level)) / 2))

    def root(at: float, correction: float) -> float:
        def excess(shift: float) -> float:
            gap, variance = score(shift)
            return float((gap - np.sign(gap) * correction) / np.sqrt(variance) - at) if variance > 0 else -at

        if excess(low) <= 0:
            return low
        return high if excess(high) >= 0 else find_root(excess, low, high)

    correction = 0.5 if continuity else 0.0
    return Interval(root(0.0, 0.0), root(bound, correction), root(-bound, correction), level)
