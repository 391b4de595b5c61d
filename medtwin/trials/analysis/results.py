"""What tests and estimates of one trial give: an estimate with limits, a comparison of arms, chi-square and F tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.stats import chi2, f, norm

from medtwin.trials.analysis.follow_up import Floats, as_level

Estimate = TypeVar("Estimate", float, Floats)


def wald_limits(estimate: Estimate, standard_error: Estimate, level: float) -> tuple[Estimate, Estimate]:
    """Limits of estimates of a normal law, of the shape of these.

    Raises:
        ValueError: If the level does not lie between 0 and 1.
    """
    half = float(norm.ppf(0.5 + as_level("level", level) / 2)) * standard_error
    return estimate - half, estimate + half


@dataclass(frozen=True)
class Interval:
    """An estimate with its limits; level: of the limits, at least."""

    estimate: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Comparison:
    """A contrast of two arms with its limits and the two-sided p value of no difference.

    Attributes:
        estimate: Experimental less or by control. standard_error: Of the estimate, or of the logarithm of a ratio.
        z: As large as that of the estimate, or of the logarithm of a ratio.
    """

    estimate: float
    standard_error: float
    low: float
    high: float
    level: float
    z: float
    p_value: float

    @classmethod
    def of_difference(cls, estimate: float, standard_error: float, level: float) -> Comparison:
        """Wald's test and limits of a difference."""
        low, high = wald_limits(estimate, standard_error, level)
        z = estimate / standard_error
        return cls(estimate, standard_error, low, high, level, z, float(2 * norm.sf(abs(z))))

    @classmethod
    def of_ratio(cls, log_ratio: float, standard_error: float, level: float) -> Comparison:
        """Wald's test and limits of a ratio, from its logarithm."""
        log = cls.of_difference(log_ratio, standard_error, level)
        ratio, low, high = (math.exp(each) for each in (log_ratio, log.low, log.high))
        return cls(ratio, standard_error, low, high, level, log.z, log.p_value)


@dataclass(frozen=True)
class ChiSquare:
    """A chi-square test."""

    chi_square: float
    degrees_of_freedom: int
    p_value: float

    @classmethod
    def of(cls, statistic: float, degrees_of_freedom: int) -> ChiSquare:
        """The test with such a statistic."""
        return cls(statistic, degrees_of_freedom, float(chi2.sf(statistic, degrees_of_freedom)))

    @classmethod
    def of_scores(cls, score: Floats, variance: Floats) -> ChiSquare:
        """That scores, (groups,), with a variance of any rank, (groups, groups), are 0."""
        statistic = float(score @ np.linalg.pinv(variance, hermitian=True) @ score)
        return cls.of(statistic, int(np.linalg.matrix_rank(variance, hermitian=True)))


@dataclass(frozen=True)
class FTest:
    """An F test."""

    f: float
    numerator_df: float
    denominator_df: float
    p_value: float

    @classmethod
    def of(cls, statistic: float, numerator_df: float, denominator_df: float) -> FTest:
        """The test with such a statistic."""
        return cls(statistic, numerator_df, denominator_df, float(f.sf(statistic, numerator_df, denominator_df)))
