"""Monte-Carlo estimates: shares and means over simulated trials, with their intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A Monte-Carlo estimate with its standard error and interval."""

    value: float
    standard_error: float
    low: float
    high: float
    level: float = 0.95


def share_of(hits: int, total: int, level: float = 0.95) -> Estimate:
    """A proportion, with the Wilson interval. Source: Wilson 1927, J Am Stat Assoc 22:209.

    >>> share = share_of(5, 10)
    >>> share.value, round(share.low, 3), round(share.high, 3)
    (0.5, 0.237, 0.763)
    """
    p, z = hits / total, float(norm.ppf(0.5 + level / 2))
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    low, high = max(centre - half, 0.0) if hits else 0.0, min(centre + half, 1.0) if hits < total else 1.0
    return Estimate(p, math.sqrt(p * (1 - p) / total), low, high, level)


def mean_of(values: Floats, level: float = 0.95) -> Estimate:
    """A mean, with the normal interval; missing values are left out."""
    kept = values[~np.isnan(values)]
    if len(kept) < 2:
        return Estimate(math.nan, math.nan, math.nan, math.nan, level)
    mean, error = float(kept.mean()), float(kept.std(ddof=1) / math.sqrt(len(kept)))
    half = float(norm.ppf(0.5 + level / 2)) * error
    return Estimate(mean, error, mean - half, mean + half, level)


def difference_of(first: Estimate, second: Estimate) -> Estimate:
    """The difference of two independent estimates."""
    value, error = first.value - second.value, math.hypot(first.standard_error, second.standard_error)
    half = float(norm.ppf(0.5 + first.level / 2)) * error
    return Estimate(value, error, value - half, value + half, first.level)
