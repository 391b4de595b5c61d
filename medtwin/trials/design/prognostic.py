"""Sizes of trials whose analysis is adjusted for a prognostic score fixed before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import norm


@dataclass(frozen=True)
class PrognosticAdjustment:
    """A trial of two means, analysed by a linear model with the treatment and a prognostic score.

    The score takes the share correlation^2 of the variance within the arms. Planning trusts it less: the correlation
    is multiplied by deflation and the standard deviation by inflation.

    Attributes:
        effect: Difference of means under the alternative.
        sd: Of a patient's value within an arm.
        correlation: Of the score with the value, within an arm.
        allocation_ratio: Experimental : control.
        deflation: Of the correlation, at most 1. inflation: Of the standard deviation, at least 1.

    Raises:
        ValueError: If one makes no sense.

    Source: Schuler et al. 2022, Int J Biostat 18:329.

    >>> round(PrognosticAdjustment(0.3, 1.0, 0.5).control_subjects(0.025, 0.9), 3)
    175.124
    """

    effect: float
    sd: float
    correlation: float
    allocation_ratio: float = 1.0
    deflation: float = 1.0
    inflation: float = 1.0

    def __post_init__(self) -> None:
        if not (self.effect != 0 and math.isfinite(self.effect)):
            raise ValueError(f"effect must be finite and not 0, got {self.effect!r}")
        if not (self.sd > 0 and self.allocation_ratio > 0):
            raise ValueError(f"sd and allocation_ratio must be above 0, got {self.sd!r}, {self.allocation_ratio!r}")
        if not -1 < self.correlation < 1:
            raise ValueError(f"correlation must be between -1 and 1, got {self.correlation!r}")
        if not 0 <= self.deflation <= 1 or not self.inflation >= 1:
            raise ValueError(
                f"deflation must be a share and inflation at least 1, got {self.deflation!r}, {self.inflation!r}"
            )

    @property
    def planned_correlation(self) -> float:
        """The correlation after deflation."""
        return self.correlation * self.deflation

    @property
    def reduction(self) -> float:
        """The share of patients that the adjustment saves."""
        return self.planned_correlation**2

    @property
    def residual_variance(self) -> float:
        """Of a patient's value, given the score."""
        return (self.sd * self.inflation) ** 2 * (1 - self.reduction)

    def control_subjects(self, alpha: float, power: float) -> float:
        """Patients of the control arm, fractional.

        Args:
            alpha: One-sided.
            power: That is wanted.

        Raises:
            ValueError: If they are no probabilities, or the power is below alpha.
        """
        if not 0 < alpha < power < 1:
            raise ValueError(f"power must be between alpha and 1, got {power!r} for the alpha {alpha!r}")
        z = float(norm.isf(alpha) + norm.ppf(power))
        return z**2 * self.residual_variance * (1 + 1 / self.allocation_ratio) / self.effect**2

    def subjects(self, alpha: float, power: float) -> float:
        """Patients in all, fractional; arguments and errors as of `control_subjects`."""
        return self.control_subjects(alpha, power) * (1 + self.allocation_ratio)

    def power(self, control_subjects: float, alpha: float) -> float:
        """Power of a one-sided test.

        Args:
            control_subjects: Patients of the control arm.
            alpha: One-sided.
        """
        spread = math.sqrt(self.residual_variance * (1 + 1 / self.allocation_ratio) / control_subjects)
        return float(norm.cdf(abs(self.effect) / spread - norm.isf(alpha)))
