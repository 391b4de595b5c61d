"""Standardised effects and effective sizes of stages to come, for conditional power."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from medtwin.trials.design.survival_size import information_per_event
from medtwin.trials.restricted_rates import restricted_rates

Floats = NDArray[np.float64]


def effective_sizes(subjects: ArrayLike, allocation_ratio: float = 1.0) -> Floats:
    """n1 n2 / (n1 + n2) of stages with so many patients in both arms, in the shape of `subjects`.

    Args:
        subjects: Of each stage.
        allocation_ratio: Experimental : control.

    Raises:
        ValueError: If the ratio is not above 0.
    """
    return np.asarray(subjects, dtype=np.float64) * information_per_event(allocation_ratio)


def rate_effect(
    rates: tuple[float, float | None],
    null: float,
    conditional_error: float,
    planned: ArrayLike,
    allocation_ratio: float = 1.0,
) -> float:
    """The effect of rates in standard deviations, so that later stages' score tests have their power.

    A score test takes its variance from the null: a z statistic of variance 1 rejects as often at the level of the
    conditional error if its expectation is shifted by that quantile times one minus the ratio of the deviations.

    Args:
        rates: Of the experimental arm and of control under the alternative; None: one arm.
        null: Difference, or rate of the one arm, under the null.
        conditional_error: P(rejection at a later look) under the null, given the data.
        planned: Effective sizes of the later stages, (later,).
        allocation_ratio: Experimental : control.

    Raises:
        ValueError: If the rates are not between 0 and 1.
    """
    p1, p2 = rates
    if not 0 < p1 < 1 or not (p2 is None or 0 < p2 < 1):
        raise ValueError(f"rates must be between 0 and 1, got {rates!r}")
    if p2 is None:
        effect, under_null, under_rates = p1 - null, null * (1 - null), p1 * (1 - p1)
    else:
        r = allocation_ratio
        q1, q2 = restricted_rates((p1, p2), null, allocation_ratio=r)
        effect = p1 - p2 - null
        under_null = (q1 * (1 - q1) + r * q2 * (1 - q2)) / (1 + r)
        under_rates = (p1 * (1 - p1) + r * p2 * (1 - p2)) / (1 + r)
    shift = float(norm.isf(conditional_error)) * (1 - math.sqrt(under_null / under_rates))
    return effect / math.sqrt(under_rates) + shift / math.sqrt(float(np.sum(planned)))
