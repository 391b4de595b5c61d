"""Tests of rates: power, patients, and the drift that carries them into group-sequential designs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.stats import binom, norm

from medtwin.trials.design.log_rates import LogRatesTest
from medtwin.trials.restricted_rates import Scale, restricted_rates


@dataclass(frozen=True)
class RatesTest:
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
            raise ValueError("scale must be difference or ratio: see odds_ratio_subjects")
        self.null_rates  # noqa: B018

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

    def drift(self, subjects: float, alpha: float) -> float:
        """The expectation of a z statistic of variance 1 that rejects as often as this test; signed.

        Args:
            subjects: Patients in all.
            alpha: One-sided.
        """
        bound = float(norm.isf(alpha))
        shift = abs(self.effect) * math.sqrt(subjects)
        return math.copysign(bound + (shift - bound * self.null_deviation) / self.deviation, self.effect)

    def power(self, subjects: float, alpha: float) -> float:
        """The probability to reject with so many patients at one look."""
        return float(norm.sf(norm.isf(alpha) - abs(self.drift(subjects, alpha))))

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

    def subjects(self, alpha: float, power: float) -> float:
        """Patients in all, fractional, that a single look needs.

        Raises:
            ValueError: If the alternative is the null.
        """
        if self.effect == 0:
            raise ValueError("the rates must differ from those under the null")
        quantiles = norm.isf(alpha) * self.null_deviation + norm.ppf(power) * self.deviation
        return float((quantiles / self.effect) ** 2)


@dataclass(frozen=True)
class OneRateTest:
    """A test of one rate against a value.

    Attributes:
        rate: Under the alternative. null: Under the null.

    Raises:
        ValueError: If they are no shares, or equal.
    """

    rate: float
    null: float

    def __post_init__(self) -> None:
        if not all(0 < each < 1 for each in (self.rate, self.null)):
            raise ValueError(f"rates must be between 0 and 1, got {self.rate!r} and {self.null!r}")

    @property
    def _deviations(self) -> tuple[float, float]:
        return math.sqrt(self.null * (1 - self.null)), math.sqrt(self.rate * (1 - self.rate))

    def drift(self, subjects: float, alpha: float) -> float:
        """The expectation of a z statistic of variance 1 that rejects as often as the normal test; signed."""
        (under_null, under_rate), bound = self._deviations, float(norm.isf(alpha))
        shift = abs(self.rate - self.null) * math.sqrt(subjects)
        return math.copysign(bound + (shift - bound * under_null) / under_rate, self.rate - self.null)

    def effect_at(self, z: float, subjects: float) -> float:
        """The observed rate that a z bound stands for."""
        return self.null + z * self._deviations[0] / math.sqrt(subjects)

    def subjects(self, alpha: float, power: float) -> float:
        """Patients, fractional, of the test by the normal approximation, its variance that of the null.

        Raises:
            ValueError: If the rate is that of the null.
        """
        if self.rate == self.null:
            raise ValueError(f"rate must differ from the null, got {self.rate!r}")
        under_null, under_rate = self._deviations
        return float(((norm.isf(alpha) * under_null + norm.ppf(power) * under_rate) / (self.rate - self.null)) ** 2)

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


def odds_ratio_subjects(
    rates: tuple[float, float],
    alpha: float,
    power: float,
    *,
    null: float = 1.0,
    allocation_ratio: float = 1.0,
    null_variance: bool = False,
) -> float:
    """Patients in all, fractional, of a Wald test of the log odds ratio.

    Args:
        rates: Experimental, control.
        alpha: One-sided.
        power: That is wanted.
        null: Odds ratio under the null.
        allocation_ratio: Experimental : control.
        null_variance: Whether the test takes its variance from the rates under the null.

    Source: Chow, Shao, Wang & Lokhnygina 2018, Sample Size Calculations in Clinical Research, 4.6.
    """
    test = LogRatesTest(
        rates[0], rates[1], null, "odds_ratio", allocation_ratio=allocation_ratio, null_variance=null_variance
    )
    return test.subjects(alpha, power)
