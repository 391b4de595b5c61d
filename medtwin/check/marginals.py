"""Distances between one-dimensional distributions whose observations come in clusters: the subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import xlogy

from medtwin.check.resample import Distance, Plan, Sums, weighted_sums

MAX_POINTS = 256
"""Points of a distribution's support. Up to so many distinct values the distances are exact; above, the support is so
many quantiles of both sides, and a distance is off by at most 1/256."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Observations:
    """Values and whose they are, (values,) each; of `num_subjects` subjects."""

    subject: NDArray[np.int64]
    value: Floats
    num_subjects: int

    def histogram(self, support: Floats) -> sparse.csr_array:
        """How many values of each subject lie at each point, (subjects, points); a value counts at the next point."""
        point = np.minimum(np.searchsorted(support, self.value), len(support) - 1)
        shape = (self.num_subjects, len(support))
        ones = np.ones(len(point), np.float32)
        return sparse.csr_array(sparse.coo_array((ones, (self.subject, point)), shape=shape))


def common_support(*sides: Floats) -> Floats:
    """Ascending points that both sides are described by, (points,), the largest value among them.

    >>> common_support(np.array([1.0, 2.0]), np.array([2.0, 5.0])).tolist()
    [1.0, 2.0, 5.0]
    """
    distinct = np.unique(np.concatenate(sides))
    if len(distinct) <= MAX_POINTS:
        return distinct
    share = np.linspace(0, 1, MAX_POINTS // len(sides) + 1)
    points = np.unique(np.concatenate([np.quantile(side, share, method="lower") for side in sides if len(side)]))
    return np.unique(np.append(points, distinct[-1]))


def shared_support(sides: Sequence[Floats]) -> Floats:
    """Points that the two sides and the control, if there is one, are described by, (points,).

    Without its own points a control's values would count at points that may lie far above them.
    """
    parts = [part for part in (sides[:2], sides[2:]) if part]
    return np.unique(np.concatenate([common_support(*part) for part in parts]))


def cumulative(sums: Sums) -> Floats:
    """Cumulative shares, (draws, points), of sums of histograms; NaN where a draw holds nothing."""
    total = sums.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.cumsum(sums, axis=1) / total)


def ks_distance(real: Sums, synthetic: Sums) -> Floats:
    """Kolmogorov-Smirnov distance, (draws,): largest gap of the cumulative shares; 1 where a side holds nothing."""
    gap = np.abs(cumulative(real) - cumulative(synthetic)).max(axis=1)
    return np.where(np.isnan(gap), 1.0, gap)


def wasserstein(support: Floats, unit: float) -> Distance:
    """The Wasserstein-1 distance on a support, in multiples of `unit`; where a side holds nothing, the whole range."""
    widths = np.diff(support) / unit

    def distance(real: Sums, synthetic: Sums) -> Floats:
        gap = np.abs(cumulative(real) - cumulative(synthetic))[:, :-1] @ widths
        return np.where(np.isnan(gap), widths.sum(), gap)

    return distance


def js_divergence(first: Sums, second: Sums) -> Floats:
    """Jensen-Shannon divergence in bits, (draws,): 0 of equal distributions, 1 of those that share no code.

    Of sums (draws, bins) or (draws, codes), nothing added; a side without any is at 1.

    Source: Lin 1991, IEEE Trans Inf Theory 37:145.
    """
    totals = [side.sum(axis=1, keepdims=True) for side in (first, second)]
    p, q = (side / np.maximum(total, 1e-12) for side, total in zip((first, second), totals, strict=True))
    middle = np.maximum((p + q) / 2, 1e-300)
    nats = (xlogy(p, p / middle) + xlogy(q, q / middle)).sum(axis=1) / 2
    is_empty = (totals[0][:, 0] == 0) | (totals[1][:, 0] == 0)
    return np.where(is_empty, 1.0, np.clip(nats / np.log(2), 0.0, 1.0))


def total_variation(first: Sums, second: Sums) -> Floats:
    """Half the sum of absolute differences of shares, (draws,).

    >>> total_variation(np.array([[3.0, 1.0]]), np.array([[1.0, 1.0]])).tolist()
    [0.25]
    """
    shares = [side / np.maximum(side.sum(axis=1, keepdims=True), 1e-12) for side in (first, second)]
    return np.asarray(np.abs(shares[0] - shares[1]).sum(axis=1) / 2)


def interquartile_range(value: Floats) -> float:
    """The interquartile range; where it is 0, the standard deviation; where that is 0, 1."""
    low, high = np.quantile(value, [0.25, 0.75])
    return float(high - low) or float(np.std(value)) or 1.0


def total_cdf(plan: Plan, real: sparse.csr_array, synthetic: sparse.csr_array) -> tuple[list[float], list[float]]:
    """Cumulative shares of both sides, everybody weighed once, (points,) each; zeros where a side holds nothing."""
    curves = (
        cumulative(weighted_sums(plan.real[:1], real))[0],
        cumulative(weighted_sums(plan.synthetic[:1], synthetic))[0],
    )
    first, second = (np.nan_to_num(curve).tolist() for curve in curves)
    return first, second
