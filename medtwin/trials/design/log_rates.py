"""Wald tests of the logarithm of a ratio of rates, or of an odds ratio: power and patients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medtwin.trials.design.normal_tests import NormalTest
from medtwin.trials.restricted_rates import restricted_rates


@dataclass(frozen=True)
class LogRatesTest(NormalTest):
    """A test of log(ratio) of two rates or of their odds.

    Attributes:
        experimental, control: Rates under the alternative.
        null: Ratio or odds ratio under the null.
        scale: Which of them.
        allocation_ratio: Experimental : control.
        null_variance: Whether the test takes its variance from the rates under the null that the alternative is
            nearest to; else from the rates as they are.

    Raises:
        ValueError: If the rates are no shares, or the null is not above 0.

    >>> round(LogRatesTest(0.5, 0.3, scale="odds_ratio").subjects(0.025, 0.9), 2)
    256.48

    Source: Chow, Shao, Wang & Lokhnygina 2018, Sample Size Calculations in Clinical Research, 4.6; Woolf 1955, Ann Hum
    Genet 19:251; Katz et al. 1978, Biometrics 34:469.
    """

    experimental: float
    control: float
    null: float = 1.0
    scale: Literal["ratio", "odds_ratio"] = "ratio"
    allocation_ratio: float = 1.0
    null_variance: bool = False

    def __post_init__(self) -> None:
        if not all(0 < rate < 1 for rate in (self.experimental, self.control)):
            raise ValueError(f"rates must be between 0 and 1, got {self.experimental!r} and {self.control!r}")
        if self.scale not in ("ratio", "odds_ratio"):
            raise ValueError(f"scale must be ratio or odds_ratio, got {self.scale!r}")
        if not self.null > 0:
            raise ValueError(f"null must be above 0, got {self.null!r}")

    @property
    def effect(self) -> float:
        """Logarithm of the ratio under the alternative over that under the null."""
        p1, p2 = self.experimental, self.control
        ratio = p1 / p2 if self.scale == "ratio" else p1 * (1 - p2) / (p2 * (1 - p1))
        return math.log(ratio / self.null)

    def _deviation(self, p1: float, p2: float) -> float:
        r = self.allocation_ratio
        if self.scale == "ratio":
            return math.sqrt((1 + r) / r * (1 - p1) / p1 + (1 + r) * (1 - p2) / p2)
        return math.sqrt((1 + r) / r / (p1 * (1 - p1)) + (1 + r) / (p2 * (1 - p2)))

    @property
    def deviation(self) -> float:
        """Standard deviation of the effect for one patient in all, under the alternative."""
        return self._deviation(self.experimental, self.control)

    @property
    def null_deviation(self) -> float:
        """What the test takes it for."""
        if not self.null_variance:
            return self.deviation
        rates = self.experimental, self.control
        return self._deviation(
            *restricted_rates(rates, self.null, scale=self.scale, allocation_ratio=self.allocation_ratio)
        )
