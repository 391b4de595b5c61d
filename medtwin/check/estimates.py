"""A measured number with its interval and baseline, and what it is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LEVEL = 0.95
"""Level of every interval."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured number beside what real data reaches against itself.

    Attributes:
        value: Synthetic against real (train).
        low, high: 95 % interval, from resampling whole subjects of both sides.
        baseline: Mean of the same number between random halves of the real subjects, scaled to these sample sizes.
        baseline_worst: What 95 % of those halves stay within.
        control: The same number of the control subjects (real, unseen in training) against train; None where they are
            too few.
    """

    value: float
    low: float
    high: float
    baseline: float
    baseline_worst: float
    control: float | None = None

    def complement(self) -> Estimate:
        """One minus everything: turns an unexplained share into R2."""
        control = None if self.control is None else 1 - self.control
        return Estimate(
            1 - self.value, 1 - self.high, 1 - self.low, 1 - self.baseline, 1 - self.baseline_worst, control
        )


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of fidelity.

    Attributes:
        name: Stable name, `family.what`.
        title: What it is, in words.
        estimate: None where nothing could be compared.
        num_compared: How many codes, pairs or images stand behind it.
        better: Whether lower or higher is better.
        reason: Why there is no estimate. applicable: False where the real data has nothing of the kind at all.
    """

    name: str
    title: str
    estimate: Estimate | None
    num_compared: int
    better: Literal["lower", "higher"] = "lower"
    reason: str = ""
    applicable: bool = True


@dataclass(frozen=True)
class Distribution:
    """A one-dimensional distribution on both sides, for drawing: cumulative shares at some points."""

    name: str
    label: str
    support: Sequence[float]
    cdf_real: Sequence[float]
    cdf_synthetic: Sequence[float]
