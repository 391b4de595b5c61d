"""Tests of means: power, patients, and the drift that carries them into group-sequential designs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.stats import f, ncf, nct, norm, t

_MOST_SUBJECTS = 1e9


@dataclass(frozen=True)
class MeansTest:
    """A test of one mean against a value, or of two means.

    Attributes:
        effect: Under the alternative: mean, difference experimental - control, or ratio of means.
        sd: Of one patient's value; for a ratio the coefficient of variation of the control arm.
        null: The same under the null, such as a margin of non-inferiority.
        groups: 1 or 2.
        is_ratio: Whether effect and null are ratios of means.
        allocation_ratio: Experimental : control.
        known_sd: Whether the standard deviation is known, a z test; else a t test.
        num_covariates: Of an analysis of covariance, whose `sd` is what they leave of it. Each costs a degree of
            freedom, and chance differences between the arms cost information: of normal covariates the variance of the
            effect is 1 + q / (n - q - groups - 1) times as large, the mean of Hotelling's statistic.

    Raises:
        ValueError: If the effect is that of the null, the deviation not positive, or the rest makes no sense.
    """

    effect: float
    sd: float
    null: float = 0.0
    groups: int = 2
    is_ratio: bool = False
    allocation_ratio: float = 1.0
    known_sd: bool = False
    num_covariates: int = 0

    def __post_init__(self) -> None:
        if not self.sd > 0:
            raise ValueError(f"sd must be above 0, got {self.sd!r}")
        if self.num_covariates < 0 or (self.num_covariates and (self.groups == 1 or self.known_sd or self.is_ratio)):
            raise ValueError(
                "num_covariates must be 0 or more, and 0 but of a t test of two means' difference, got "
                f"{self.num_covariates!r}"
            )
        if self.groups not in (1, 2):
            raise ValueError(f"groups must be 1 or 2, got {self.groups!r}")
        if self.is_ratio and (self.groups == 1 or not self.null > 0):
            raise ValueError(f"a ratio of means needs two groups and a null above 0, got {self.groups}, {self.null!r}")
        if not self.allocation_ratio > 0:
            raise ValueError(f"allocation_ratio must be above 0, got {self.allocation_ratio!r}")

    @property
    def standard_error(self) -> float:
        """Of the effect for one patient in all; falls with the root of their number."""
        if self.groups == 1:
            return self.sd
        r = self.allocation_ratio
        weight = self.null if self.is_ratio else 1.0
        return self.sd * math.sqrt((1 + r) / r + weight**2 * (1 + r))

    def noncentrality(self, subjects: float) -> float:
        """Of the test statistic with so many patients in all; positive where the effect is above the null."""
        left = 1.0
        if self.num_covariates:
            free = subjects - self.groups - 1
            left = max(free - self.num_covariates, 0.0) / free if free > 0 else 0.0
        return (self.effect - self.null) / self.standard_error * math.sqrt(subjects * left)

    def degrees_of_freedom(self, subjects: float) -> float:
        """Of the t test with so many patients in all."""
        return subjects - self.groups - self.num_covariates

    def rejects(self, subjects: float, alpha: float, *, both_sides: bool = False) -> float:
        """The probability to reject in the direction of the alternative.

        Args:
            subjects: Patients in all, may be fractional.
            alpha: One-sided.
            both_sides: Whether a rejection on the wrong side counts too.
        """
        shift, df = abs(self.noncentrality(subjects)), self.degrees_of_freedom(subjects)
        if self.known_sd:
            bound = norm.isf(alpha)
            return float(norm.sf(bound - shift) + both_sides * norm.cdf(-bound - shift))
        if df <= 0:
            return 0.0
        bound = t.isf(alpha, df)
        # By symmetry: far in the lower tail the distribution function itself is not computed.
        wrong = nct.sf(bound, df, -shift) if both_sides else 0.0
        return float(nct.sf(bound, df, shift) + wrong)

    def drift(self, subjects: float, alpha: float) -> float:
        """The expectation of a z statistic that rejects as often as this test with so many patients; signed.

        For a known deviation it is the non-centrality. Group-sequential designs of t tests rest on it.
        """
        shift = self.noncentrality(subjects)
        if self.known_sd or shift == 0:
            return shift
        return math.copysign(float(norm.isf(alpha) - norm.isf(self.rejects(subjects, alpha))), shift)

    def subjects(self, alpha: float, power: float, *, both_sides: bool = False) -> float:
        """Patients in all, fractional, that a single look needs.

        Args:
            alpha: One-sided.
            power: That is wanted.
            both_sides: Whether a rejection on the wrong side counts as power.

        Raises:
            ValueError: If the effect is that of the null, or no number of patients is enough.
        """
        if self.effect == self.null:
            raise ValueError(f"effect must differ from the null {self.null!r}, got {self.effect!r}")

        def excess(n: float) -> float:
            return self.rejects(n, alpha, both_sides=both_sides) - power

        low, high = self.groups + 1e-6, 4.0 * self.groups
        while excess(high) < 0:
            low, high = high, 2 * high
            if high > _MOST_SUBJECTS:
                raise ValueError(f"no number of patients has the power {power!r}")
        return low if excess(low) > 0 else float(brentq(excess, low, high, xtol=1e-9, rtol=1e-13))

    def effect_at(self, z: float, subjects: float) -> float:
        """The observed effect that a z bound stands for; for a t test the bound of the same one-sided level."""
        if not self.known_sd and math.isfinite(z):
            z = float(t.isf(norm.sf(z), self.degrees_of_freedom(subjects)))
        return self.null + z * self.standard_error / math.sqrt(subjects)


def anova_power(
    num_groups: float, per_group: float, between_variance: float, within_variance: float, alpha: float
) -> float:
    """Power of the one-way analysis of variance.

    Args:
        num_groups: Groups of equal size.
        per_group: Patients in each.
        between_variance: Of the group means, with num_groups - 1 below the bar.
        within_variance: Of a patient's value.
        alpha: Of the F test.

    Source: Cohen 1988, Statistical Power Analysis, chapter 8.
    """
    first, second = num_groups - 1, (per_group - 1) * num_groups
    shift = first * per_group * between_variance / within_variance
    return float(ncf.sf(f.isf(alpha, first, second), first, second, shift))
