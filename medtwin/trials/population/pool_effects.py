"""Effects among the subjects of a pool, with how much each subject moves them.

The sum of the squared influences is the variance of the estimate over repeated samples of subjects (the infinitesimal
jackknife), and the difference of two pools' influences that of their difference, whoever is in both.

Source: Jaeckel 1972, Bell Laboratories memorandum (infinitesimal jackknife); Efron 1982, The Jackknife, the Bootstrap
and Other Resampling Plans, chapter 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.cox import cox_model

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Linearised:
    """An estimate among the subjects of a pool.

    Attributes:
        value: The estimate.
        influence: (pool,) how much each subject moves it; the sum of the squares is its variance.
    """

    value: float
    influence: Floats


Estimator = Callable[[Ints], Linearised]


def mean_outcome(outcome: Floats) -> Estimator:
    """Estimates the mean of (subjects,) an outcome, nan where it is missing."""

    def estimate(subjects: Ints) -> Linearised:
        value = outcome[subjects]
        return _mean(value, ~np.isnan(value))

    return estimate


def difference_in_means(outcome: Floats, is_experimental: Bools) -> Estimator:
    """Estimates the mean outcome of the experimental less that of the control arm.

    Args:
        outcome: (subjects,) nan where it is missing.
        is_experimental: (subjects,).
    """

    def estimate(subjects: Ints) -> Linearised:
        value, arm = outcome[subjects], is_experimental[subjects]
        has = ~np.isnan(value)
        experimental, control = _mean(value, has & arm), _mean(value, has & ~arm)
        return Linearised(experimental.value - control.value, experimental.influence - control.influence)

    return estimate


def log_hazard_ratio(months: Floats, event: Bools, is_experimental: Bools) -> Estimator:
    """Estimates the log hazard ratio, experimental / control, of a Cox model with the arm alone.

    Args:
        months: (subjects,) at risk.
        event: (subjects,) whether the event ended them.
        is_experimental: (subjects,).

    Source: Lin & Wei 1989 for the influence, score residuals times the inverse information.
    """

    def estimate(subjects: Ints) -> Linearised:
        arm = is_experimental[subjects]
        happened = event[subjects]
        if not (happened[arm].any() and happened[~arm].any()):
            return Linearised(math.nan, np.zeros(len(subjects)))
        model = cox_model(months[subjects], happened, arm.astype(np.float64))
        return Linearised(float(model.coefficients[0]), (model.residuals @ model.naive_covariance)[:, 0])

    return estimate


def event_rate(time: Floats, event: Bools) -> Estimator:
    """Estimates events per unit of time at risk.

    Args:
        time: (subjects,) at risk, above 0.
        event: (subjects,) whether the event ended it.
    """

    def estimate(subjects: Ints) -> Linearised:
        t, d = time[subjects], event[subjects].astype(np.float64)
        if not d.any():
            return Linearised(math.nan, np.zeros(len(subjects)))
        rate = float(d.sum() / t.sum())
        return Linearised(rate, (d - rate * t) / t.sum())

    return estimate


def _mean(value: Floats, has: Bools) -> Linearised:
    count = int(has.sum())
    if not count:
        return Linearised(math.nan, np.zeros(len(value)))
    mean = float(value[has].mean())
    return Linearised(mean, np.where(has, (np.where(has, value, mean) - mean) / count, 0.0))
