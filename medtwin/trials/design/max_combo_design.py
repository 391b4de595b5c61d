"""The power of the largest of several weighted log-rank statistics, and the patients that it needs.

The statistics at one look are jointly normal with the correlation of their scores; the test rejects when the largest
exceeds a critical value of their joint null distribution.

Source: Karrison 2016, Stata J 16:678; Ghosh, Ristl, Koenig, Posch et al. 2022, Biom J 64:1178.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

from medtwin.trials.design.two_arm_survival import TwoArmSurvival
from medtwin.trials.design.weighted_logrank_design import score_covariance, weighted_score
from medtwin.trials.survival_weights import FlemingHarrington

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MaxCombo:
    """The joint law of weighted log-rank statistics at one look.

    Attributes:
        means: (tests,) E Z under the alternative, above 0 where the experimental arm does better.
        correlation: (tests, tests).
    """

    means: Floats
    correlation: Floats

    def below(self, bound: float, means: Floats) -> float:
        """P(all statistics are below a bound)."""
        if len(means) == 1:
            return float(norm.cdf(bound - means[0]))
        law = multivariate_normal(cov=self.correlation, allow_singular=True, abseps=1e-7, releps=1e-7, seed=0)
        return float(law.cdf(bound - means))

    def critical_value(self, alpha: float) -> float:
        """The bound that the largest statistic exceeds with probability alpha under the null.

        Raises:
            ValueError: If alpha is not one-sided.
        """
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha must be one-sided, between 0 and 0.5, got {alpha!r}")
        low, high = float(norm.isf(alpha)), float(norm.isf(alpha / len(self.means))) + 1e-9
        if len(self.means) == 1:
            return low
        none = np.zeros(len(self.means))
        return float(brentq(lambda c: 1 - self.below(c, none) - alpha, low - 1e-6, high, xtol=1e-9))

    def power(self, alpha: float, factor: float = 1.0) -> float:
        """The power with so many times the patients."""
        return 1 - self.below(self.critical_value(alpha), self.means * np.sqrt(factor))

    def enrolment_factor(self, alpha: float, power: float) -> float:
        """What the number of patients is to be multiplied with for the power.

        Raises:
            ValueError: If no statistic speaks for the experimental arm.
        """
        if self.means.max() <= 0:
            raise ValueError(f"means must be above 0 for some test, got {self.means.tolist()}")
        critical, best = self.critical_value(alpha), float(self.means.max())
        high = ((critical + norm.ppf(power)) / best) ** 2
        return float(
            brentq(
                lambda f: 1 - self.below(critical, self.means * np.sqrt(f)) - power, 1e-9, high * (1 + 1e-9), xtol=1e-9
            )
        )


def max_combo(trial: TwoArmSurvival, time: float, weights: Sequence[FlemingHarrington]) -> MaxCombo:
    """The joint law of weighted log-rank statistics at a calendar month.

    Args:
        trial: Who is followed.
        time: Calendar months.
        weights: One for each test, all different.

    Raises:
        ValueError: If there is none or two are the same.
    """
    if not len(weights) or len(set(weights)) < len(weights):
        raise ValueError(f"weights must be at least one and all different, got {list(weights)!r}")
    covariance = score_covariance(trial, time, weights)
    spread = np.sqrt(np.diag(covariance))
    means = np.array([weighted_score(trial, time, weight).z for weight in weights])
    return MaxCombo(means, covariance / np.outer(spread, spread))
