"""Tests of rates: power, patients, and the drift that carries them into group-sequential designs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.stats import binom

from medtwin.trials.design.normal_tests import NormalTest
from medtwin.trials.restricted_rates import Scale, restricted_rates


@dataclass(frozen=True)
class RatesTest(NormalTest):
    """A z test of two rates, its variance estimated under the null by restricted maximum likelihood.

    Attributes:
        experimental, control: Rates under the alternative.
        null: Difference or ratio under the null; None: no difference.
        scale: Of the null.
        allocation_ratio: Experimental : control.

    Raises:
        ValueError: If the rates are no shares, or the null makes no sense.

    Source: Farrington & Manning 1990, Stat Med 9:1447; without a margin Fleiss, Levin & Paik 2003, section 4.2.
    """

    experimental: float
    control: float
    null: float | None = None
    scale: Scale = "difference"
    allocation_ratio: float = 1.0

    def __post_init__(self) -> None:
        if not all(0 < rate < 1 for rate in (self.experimental, self.control)):
            raise ValueError(f"rates must be between 0 and 1, got {self.experimental!r} and {self.control!r}")
        if self.scale == "odds_ratio":
            raise ValueError("scale must be difference or ratio: see LogRatesTest")
        _ = self.null_rates  # a null that makes no sense is refused there

    @property
    def null_value(self) -> float:
        """Difference or ratio under the null."""
        return (0.0 if self.scale == "difference" else 1.0) if self.null is None else self.null

    @property
    def null_rates(self) -> tuple[float, float]:
        """The rates under the null that the alternative is nearest to."""
        rates = self.experimental, self.control
        return restricted_rates(rates, self.null_value, scale=self.scale, allocation_ratio=self.allocation_ratio)

    @property
    def effect(self) -> float:
        """The alternative on the scale that is tested: difference minus null, or p1 - null p2."""
        if self.scale == "difference":
            return self.experimental - self.control - self.null_value
        return self.experimental - self.null_value * self.control

    def _deviation(self, rates: tuple[float, float]) -> float:
        """Standard deviation of the effect for one patient in all."""
        r, (p1, p2) = self.allocation_ratio, rates
        weight = 1.0 if self.scale == "difference" else self.null_value
        return math.sqrt((1 + r) / r * p1 * (1 - p1) + weight**2 * (1 + r) * p2 * (1 - p2))

    @property
    def null_deviation(self) -> float:
        """Under the null."""
        return self._deviation(self.null_rates)

    @property
    def deviation(self) -> float:
        """Under the alternative."""
        return self._deviation((self.experimental, self.control))

    def effect_at(self, z: float, subjects: float) -> float:
        """The difference or ratio whose test statistic is z when the control rate is as assumed; nan if none is.

        Args:
            z: A bound, positive where the experimental rate is above that of the null.
            subjects: Patients in all.
        """
        if not math.isfinite(z):
            return math.nan

        def excess(rate: float) -> float:
            test = RatesTest(rate, self.control, self.null, self.scale, self.allocation_ratio)
            return test.effect * math.sqrt(subjects) / test.null_deviation - z

        low, high = 1e-9, 1 - 1e-9
        if excess(low) > 0 or excess(high) < 0:
            return math.nan
        rate = float(brentq(excess, low, high, xtol=1e-13))
        return rate - self.control if self.scale == "difference" else rate / self.control


@dataclass(frozen=True)
class OneRateTest(NormalTest):
    """A test of one rate against a value.

    Attributes:
        rate: Under the alternative. null: Under the null.

    Raises:
        ValueError: If they are no shares.
    """

    rate: float
    null: float

    def __post_init__(self) -> None:
        if not all(0 < each < 1 for each in (self.rate, self.null)):
            raise ValueError(f"rates must be between 0 and 1, got {self.rate!r} and {self.null!r}")

    @property
    def effect(self) -> float:
        """The rate less that of the null."""
        return self.rate - self.null

    @property
    def null_deviation(self) -> float:
        """Under the null."""
        return math.sqrt(self.null * (1 - self.null))

    @property
    def deviation(self) -> float:
        """Under the alternative."""
        return math.sqrt(self.rate * (1 - self.rate))

    def effect_at(self, z: float, subjects: float) -> float:
        """The observed rate that a z bound stands for."""
        return self.null + z * self.null_deviation / math.sqrt(subjects)

    def exact_power(self, subjects: int, alpha: float) -> float:
        """Power of the exact one-sided binomial test."""
        if self.rate > self.null:
            least = int(binom.isf(alpha, subjects, self.null)) + 1
            return float(binom.sf(least - 1, subjects, self.rate))
        most = int(binom.ppf(alpha, subjects, self.null))
        most -= binom.cdf(most, subjects, self.null) > alpha
        return float(binom.cdf(most, subjects, self.rate))

    def exact_subjects(self, alpha: float, power: float, *, most: int = 100_000) -> int:
        """The least number of patients whose exact test has the power; the power of more may fall below again.

        Raises:
            ValueError: If no number up to `most` has it.
        """
        for number in range(1, most + 1):
            if self.exact_power(number, alpha) >= power:
                return number
        raise ValueError(f"no number of patients up to {most} has the power {power!r}")

    def lasting_exact_subjects(self, alpha: float, power: float) -> int:
        """The least number of patients from which on the exact test of every number has the power.

        The search comes down from well above the normal approximation, where the power is past its ups and downs.

        Raises:
            ValueError: If the rate is that of the null.

        >>> OneRateTest(0.25, 0.15).lasting_exact_subjects(0.05, 0.8)
        110
        """
        subjects = 2 * math.ceil(self.subjects(alpha, power)) + 20
        while self.exact_power(subjects, alpha) < power:
            subjects *= 2
        while self.exact_power(subjects - 1, alpha) >= power:
            subjects -= 1
        return subjects
