"""Wilcoxon's tests of many trials at once, (trials, patients), by the normal approximation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from medtwin.trials.analysis.batched.arms import as_matrix, as_observed, seen, two_arms
from medtwin.trials.analysis.follow_up import Floats


@dataclass(frozen=True)
class RankStatistics:
    """A sum of ranks in each trial, with its moments where location does not differ.

    Attributes:
        statistic: (trials,) Mann and Whitney's count, or the sum of positive ranks; mean, variance: Given the ties.
    """

    statistic: Floats
    mean: Floats
    variance: Floats

    def z(self, *, continuity: bool = False) -> Floats:
        """The normal statistic, (trials,), above 0 where the experimental arm is higher; nan where nothing varies.

        Args:
            continuity: Whether the excess is corrected by one half as for a one-sided test of a higher location.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (self.statistic - self.mean - 0.5 * continuity) / np.sqrt(self.variance)
        return np.where(self.variance > 0, found, np.nan)

    def p_greater(self, *, continuity: bool = True) -> Floats:
        """One-sided p values, (trials,), against a higher location."""
        return np.asarray(ndtr(-self.z(continuity=continuity)))


def rank_sum_tests(
    response: ArrayLike, experimental: ArrayLike, *, observed: ArrayLike | None = None
) -> RankStatistics:
    """Wilcoxon's rank-sum test of every trial, which is Mann and Whitney's.

    Args:
        response: (trials, patients).
        experimental: (trials, patients) or (patients,): 1 experimental, 0 control.
        observed: The same of who is analysed; None: everybody.

    Raises:
        ValueError: If shapes do not fit, values are not finite, or an arm is empty.

    Source: Wilcoxon 1945, Biometrics Bull 1:80; Mann & Whitney 1947, Ann Math Stat 18:50.

    >>> rank_sum_tests([[4.0, 5.0, 6.0, 1.0, 2.0, 3.0]], [1, 1, 1, 0, 0, 0]).statistic.tolist()
    [9.0]
    """
    y = as_matrix("response", response)
    arms = two_arms(y.shape, experimental, observed)
    here = arms.observed
    ranks, ties, order = _midranks(np.where(here > 0, seen("response", y, here), np.inf), here)
    n, m, total = arms.num_experimental, arms.num_control, arms.total
    ranked = np.einsum("tn,tn->t", ranks, np.take_along_axis(arms.experimental, order, axis=1))
    variance = n * m / 12 * (total + 1 - ties / np.maximum(total * (total - 1), 1))
    return RankStatistics(ranked - n * (n + 1) / 2, n * m / 2, variance)


def signed_rank_tests(differences: ArrayLike, *, observed: ArrayLike | None = None) -> RankStatistics:
    """Wilcoxon's signed-rank test of every trial; differences of 0 are left out.

    Args:
        differences: (trials, patients) of a pair, or of one value from the null.
        observed: (trials, patients) or (patients,) who is analysed; None: everybody.

    Raises:
        ValueError: If shapes do not fit or values are not finite.
    """
    x = as_matrix("differences", differences)
    x = seen("differences", x, as_observed(observed, x.shape).astype(np.float64))
    here = (x != 0).astype(np.float64)
    ranks, ties, order = _midranks(np.where(here > 0, np.abs(x), np.inf), here)
    n = here.sum(axis=1)
    positive = np.take_along_axis(x > 0, order, axis=1)
    variance = n * (n + 1) * (2 * n + 1) / 24 - ties / 48
    return RankStatistics((ranks * positive).sum(axis=1), n * (n + 1) / 4, variance)


def _midranks(values: Floats, here: Floats) -> tuple[Floats, Floats, np.ndarray]:
    """Ranks in ascending order with means for ties, (trials, patients), sums of count^3 - count, and the order.

    Those who are not analysed come last, at infinity, and have the rank 0.
    """
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    size = values.shape[1]
    place = np.arange(1.0, size + 1)
    analysed = place <= here.sum(axis=1)[:, None]
    with np.errstate(invalid="ignore"):
        tied = ordered[:, 1:] == ordered[:, :-1]
    if not (tied & analysed[:, 1:]).any():
        return place * analysed, np.zeros(len(values)), order
    edge = np.zeros((len(values), 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, tied]), 1.0, place), axis=1)
    last_place = np.where(np.hstack([tied, edge]), float(size), place)
    last = np.minimum.accumulate(last_place[:, ::-1], axis=1)[:, ::-1]
    ties = (((last - first + 1) ** 2 - 1) * analysed).sum(axis=1)
    return (first + last) / 2 * analysed, ties, order
