"""Tests whose normal statistic has one deviation under the null and another under the alternative: power, patients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from scipy.stats import norm

_SAME = 1e-12  # an effect no further from the null is none


class NormalTest(ABC):
    """A test that takes its variance from the null: what the effect and its two deviations say of power and size."""

    @property
    @abstractmethod
    def effect(self) -> float:
        """The alternative less the null, on the scale that is tested."""

    @property
    @abstractmethod
    def null_deviation(self) -> float:
        """Standard deviation of the effect for one patient in all, as the test takes it."""

    @property
    @abstractmethod
    def deviation(self) -> float:
        """The same under the alternative."""

    def drift(self, subjects: float, alpha: float) -> float:
        """The expectation of a z statistic of variance 1 that rejects as often as this test; signed.

        Args:
            subjects: Patients in all.
            alpha: One-sided.
        """
        return math.copysign(1.0, self.effect) * self._drift(subjects, alpha)

    def _drift(self, subjects: float, alpha: float) -> float:
        """Towards the alternative; below 0 where the test rejects less often than a z statistic under the null."""
        bound = float(norm.isf(alpha))
        shift = abs(self.effect) * math.sqrt(subjects)
        return bound + (shift - bound * self.null_deviation) / self.deviation

    def power(self, subjects: float, alpha: float) -> float:
        """The probability to reject in the direction of the alternative with so many patients at one look.

        Args:
            subjects: Patients in all.
            alpha: One-sided.
        """
        return float(norm.sf(norm.isf(alpha) - self._drift(subjects, alpha)))

    def subjects(self, alpha: float, power: float) -> float:
        """Patients in all, fractional, that a single look needs.

        Args:
            alpha: One-sided.
            power: That is wanted.

        Raises:
            ValueError: If the alternative is the null.
        """
        if abs(self.effect) < _SAME:
            raise ValueError(f"the alternative must differ from the null, got {self!r}")
        quantiles = norm.isf(alpha) * self.null_deviation + norm.ppf(power) * self.deviation
        return float((quantiles / self.effect) ** 2)
