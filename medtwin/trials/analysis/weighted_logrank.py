"""Weighted log-rank tests of two arms, and the largest of several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from medtwin.trials.analysis.follow_up import Floats, as_flags
from medtwin.trials.analysis.logrank import EventTable, Weight, event_table
from medtwin.trials.analysis.normal_maximum import upper_tail_of_maximum
from medtwin.trials.survival_weights import FlemingHarrington

USUAL_WEIGHTS = tuple(FlemingHarrington(rho, gamma) for rho, gamma in ((0, 0), (0, 1), (1, 0), (1, 1)))
"""For proportional, late, early and middle effects."""


@dataclass(frozen=True)
class WeightedLogRankTest:
    """A weighted log-rank test of two arms.

    Attributes:
        score: Weighted events of the experimental arm less those expected under equal hazards.
        standard_error: Of the score. z: Positive where the experimental arm fares better.
        p_value: One-sided, of a better experimental arm.
    """

    score: float
    standard_error: float
    z: float
    p_value: float


@dataclass(frozen=True)
class MaxComboTest:
    """The largest of several weighted log-rank tests of two arms.

    Attributes:
        tests: One for each weight. correlation: (tests, tests) of their z under equal hazards.
        z: The largest. p_value: One-sided: that any of them reaches it under equal hazards.
    """

    tests: tuple[WeightedLogRankTest, ...]
    correlation: Floats
    z: float
    p_value: float


def _two_arms(
    time: ArrayLike, event: ArrayLike, arm: ArrayLike, strata: ArrayLike | None
) -> tuple[EventTable, Floats, Floats]:
    """The event table, and observed less expected and its variance of the experimental arm, (rows,) each."""
    arm = as_flags("arm", arm, len(np.asarray(time)))
    table = event_table(time, event, arm, strata=strata)
    return table, table.observed_minus_expected()[:, 1], table.covariance()[:, 1, 1]


def _test(score: float, variance: float) -> WeightedLogRankTest:
    if not variance > 0:
        raise ValueError(f"weight must be above 0 at an event with both arms at risk, got a variance of {variance!r}")
    sd = variance**0.5
    z = -score / sd
    return WeightedLogRankTest(score, sd, z, float(norm.sf(z)))


def weighted_logrank_test(
    time: ArrayLike,
    event: ArrayLike,
    arm: ArrayLike,
    weight: Weight | None = None,
    *,
    strata: ArrayLike | None = None,
) -> WeightedLogRankTest:
    """A weighted log-rank test of two arms.

    Args:
        time: (subjects,) time to event or censoring.
        event: (subjects,) whether it is an event.
        arm: (subjects,) 1 experimental, 0 control.
        weight: Of each event time, see `medtwin.trials.survival_weights`; one by default.
        strata: (subjects,) labels of strata: scores and variances are summed over them.

    Raises:
        ValueError: For data that make no sense, or weights of 0 wherever both arms are at risk.

    Source: Harrington & Fleming 1982.

    >>> weighted_logrank_test([1, 2, 3, 4], [1, 1, 1, 1], [0, 0, 1, 1]).z.__round__(3)
    1.698
    """
    table, excess, variance = _two_arms(time, event, arm, strata)
    w = np.ones(len(table.time)) if weight is None else weight(table)
    return _test(float(w @ excess), float(w**2 @ variance))


def max_combo_test(
    time: ArrayLike,
    event: ArrayLike,
    arm: ArrayLike,
    weights: Sequence[Weight] = USUAL_WEIGHTS,
    *,
    strata: ArrayLike | None = None,
) -> MaxComboTest:
    """The MaxCombo test of two arms: the largest z of several weights, judged by their joint normal law.

    Args:
        time: (subjects,) time to event or censoring.
        event: (subjects,) whether it is an event.
        arm: (subjects,) 1 experimental, 0 control.
        weights: Of the tests; `USUAL_WEIGHTS` by default.
        strata: (subjects,) labels of strata: scores and variances are summed over them.

    Raises:
        ValueError: As `weighted_logrank_test`; or without any weight.

    Source: Lin et al. 2020; Karrison 2016.
    """
    if not weights:
        raise ValueError(f"weights must be one or more, got {weights!r}")
    table, excess, variance = _two_arms(time, event, arm, strata)
    w = np.stack([each(table) for each in weights])
    covariance = (w * variance) @ w.T
    tests = tuple(_test(float(s), float(v)) for s, v in zip(w @ excess, np.diag(covariance), strict=True))
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd)
    z = max(each.z for each in tests)
    return MaxComboTest(tests, correlation, z, upper_tail_of_maximum(z, correlation))
