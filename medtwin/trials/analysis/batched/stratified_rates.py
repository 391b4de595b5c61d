"""Tests of two rates in strata of many trials at once, from counts: (trials, strata)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.special import ndtri

from medtwin.trials.analysis.batched.rates import Counts
from medtwin.trials.analysis.batched.restricted_rates import restricted_rates
from medtwin.trials.analysis.follow_up import Floats, as_level

Weights = Literal["mantel_haenszel", "sample_size"]
_STEPS = 50


def stratified_z(counts: Counts) -> Floats:
    """Cochran, Mantel and Haenszel's signed statistic, (trials,), without correction; 0 where no stratum says anything.

    Args:
        counts: Of (trials, strata); a stratum with an empty arm says nothing.

    Source: Mantel & Haenszel 1959, J Natl Cancer Inst 22:719.
    """
    n, m, total = counts.num_experimental, counts.num_control, counts.total
    events = counts.events_experimental + counts.events_control
    size = np.maximum(total, 2.0)
    gap = (counts.events_experimental - n * events / size).sum(axis=1, where=total > 1)
    variance = (n * m * events * (total - events) / (size**2 * (size - 1))).sum(axis=1)
    return np.asarray(gap / np.sqrt(np.where(variance > 0, variance, np.inf)))


def stratified_miettinen_nurminen_z(
    counts: Counts, null: float = 0.0, *, weights: Weights = "mantel_haenszel", bias_corrected: bool = True
) -> Floats:
    """The score statistic of a difference of rates common to the strata, (trials,).

    Args:
        counts: Of (trials, strata); a stratum with an empty arm has no weight.
        null: Difference experimental - control.
        weights: Of the strata: n m / (n + m) of the patients of its arms, or n + m.
        bias_corrected: Whether the variance of a stratum is enlarged by N/(N - 1).

    Raises:
        ValueError: If the null is impossible, or every stratum of a trial has an empty arm.

    Source: Miettinen & Nurminen 1985, Stat Med 4:213; Farrington & Manning 1990, Stat Med 9:1447.
    """
    return _z(counts, np.full((len(counts.total), 1), null), _weights(counts, weights), bias_corrected=bias_corrected)


def stratified_miettinen_nurminen_limits(
    counts: Counts, *, weights: Weights = "mantel_haenszel", level: float = 0.95, bias_corrected: bool = True
) -> tuple[Floats, Floats]:
    """The limits of the common differences that the score test does not reject, (trials,) each, by bisection.

    Args:
        counts: Of (trials, strata); a stratum with an empty arm has no weight.
        weights: As of `stratified_miettinen_nurminen_z`.
        level: Of the limits.
        bias_corrected: Whether the variance of a stratum is enlarged by N/(N - 1).

    Raises:
        ValueError: If the level does not lie between 0 and 1, or every stratum of a trial has an empty arm.
    """
    bound, shares = -float(ndtri((1 - as_level("level", level)) / 2)), _weights(counts, weights)
    limits = []
    for sign in (1.0, -1.0):
        low = np.full((len(counts.total), 1), -1 + 1e-12)
        high = -low
        for _ in range(_STEPS):
            middle = (low + high) / 2
            above = (_z(counts, middle, shares, bias_corrected=bias_corrected) > sign * bound)[:, None]
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        limits.append(np.round((low + high)[:, 0] / 2, 14))
    return limits[0], limits[1]


def _weights(counts: Counts, weights: Weights) -> Floats:
    """Shares of the strata, (trials, strata)."""
    n, m = counts.num_experimental, counts.num_control
    if weights not in ("mantel_haenszel", "sample_size"):
        raise ValueError(f"weights must be mantel_haenszel or sample_size, got {weights!r}")
    both = np.minimum(n, m) > 0
    found = np.where(both, n * m / np.maximum(n + m, 1) if weights == "mantel_haenszel" else n + m, 0.0)
    if not (found.sum(axis=1) > 0).all():
        raise ValueError("a stratum must have patients of both arms, got a trial without such")
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _z(counts: Counts, null: Floats, shares: Floats, *, bias_corrected: bool) -> Floats:
    n, m = np.maximum(counts.num_experimental, 1), np.maximum(counts.num_control, 1)
    p, q = counts.events_experimental / n, counts.events_control / m
    p1, p2 = restricted_rates(p, q, null, scale="difference", allocation_ratio=n / m)
    correction = (n + m) / (n + m - 1) if bias_corrected else 1.0
    variance = (shares**2 * (p1 * (1 - p1) / n + p2 * (1 - p2) / m) * correction).sum(axis=1)
    gap = (shares * (p - q - null)).sum(axis=1)
    none = np.where(gap == 0, 0.0, np.copysign(np.inf, gap))
    return np.where(variance > 0, gap / np.sqrt(np.where(variance > 0, variance, 1.0)), none)
