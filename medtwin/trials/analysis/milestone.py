"""Difference of survival between two arms at one time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from medtwin.trials.analysis.follow_up import as_flags, as_level
from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.analysis.results import wald_limits

Scale = Literal["naive", "log-log"]


@dataclass(frozen=True)
class MilestoneTest:
    """Survival of two arms at one time, compared.

    Attributes:
        experimental, control: Survival of each arm. difference: Experimental less control.
        low, high: Limits of the difference, from the standard errors of both. level: Of the limits.
        estimate: What is tested: the difference, or that of log(-log survival), control less experimental.
        standard_error: Of the estimate. z: Positive where the experimental arm fares better.
        p_value: One-sided, of a better experimental arm.
    """

    experimental: float
    control: float
    difference: float
    low: float
    high: float
    level: float
    estimate: float
    standard_error: float
    z: float
    p_value: float


def milestone_test(
    time: ArrayLike,
    event: ArrayLike,
    arm: ArrayLike,
    at: float,
    *,
    scale: Scale = "log-log",
    level: float = 0.95,
) -> MilestoneTest:
    """A test of survival at one time, by Kaplan-Meier curves and Greenwood's standard errors.

    Args:
        time: (subjects,) time to event or censoring.
        event: (subjects,) whether it is an event.
        arm: (subjects,) 1 experimental, 0 control.
        at: The time.
        scale: "naive" tests the difference itself, "log-log" that of log(-log survival), which keeps its size better.
        level: Of the limits of the difference.

    Raises:
        ValueError: For data or a scale that make no sense; if an arm is not observed until then; if nobody of an arm,
            or everybody, had the event by then, which leaves no standard error.

    Source: Klein et al. 2007, equations 1 and 3.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"scale must be one of {get_args(Scale)}, got {scale!r}")
    as_level("level", level)
    t, d = np.asarray(time, dtype=np.float64), np.asarray(event)
    experimental = as_flags("arm", arm, len(t))
    found = []
    for here in (experimental, ~experimental):
        if not here.any() or at > t[here].max():
            raise ValueError(f"at must be within the observation of both arms, got {at!r}")
        curve = kaplan_meier(t[here], d[here])
        found.append((float(curve.at(at)), float(curve.step(curve.standard_error, at, before=0.0))))
    (s1, e1), (s0, e0) = found
    if not (0 < s1 < 1 and 0 < s0 < 1):
        raise ValueError(f"at must leave survival of both arms between 0 and 1, got {(s1, s0)!r}")
    difference, spread = s1 - s0, math.hypot(e1, e0)
    if scale == "naive":
        estimate, error = difference, spread
    else:
        estimate = math.log(-math.log(s0)) - math.log(-math.log(s1))
        error = math.hypot(e1 / (s1 * math.log(s1)), e0 / (s0 * math.log(s0)))
    low, high = wald_limits(difference, spread, level)
    z = estimate / error
    return MilestoneTest(s1, s0, difference, low, high, level, estimate, error, z, float(norm.sf(z)))
