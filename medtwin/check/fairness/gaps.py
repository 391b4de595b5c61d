"""The group that fares worst, in units of what chance explains, from resampled values of each and of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.check.estimates import LEVEL, Estimate, Measure
from medtwin.check.fairness.frames import interval_around
from medtwin.check.group_rows import FairnessRow

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gap:
    """One metric in one group.

    Attributes:
        metric, division, group, sizes: As in `FairnessRow`.
        value, reference: The metric in the group, and of all others.
        draws, reference_draws: (resamples,) the same of resampled patients.
        noise: Standard deviation of value - reference where no group fares worse than another.
    """

    metric: str
    division: str
    group: str
    sizes: tuple[int, int]
    value: float
    reference: float
    draws: Floats
    reference_draws: Floats
    noise: float

    @property
    def gap(self) -> float:
        """How much worse the group fares."""
        return self.value - self.reference

    def row(self) -> FairnessRow:
        """What is told of it."""
        ends = interval_around(self.value, self.draws)
        gap_ends = interval_around(self.gap, self.draws - self.reference_draws)
        numbers = self.value, *ends, self.reference, self.gap, *gap_ends
        return FairnessRow(self.metric, self.division, self.group, *self.sizes, *numbers)


def worst_gap(name: str, title: str, gaps: Sequence[Gap], reason: str, *, applicable: bool = True) -> Measure:
    """The gap that is most times its own noise, beside what 95 % of the worst of so many stay within (Bonferroni).

    Args:
        name: Of the measure.
        title: In words.
        gaps: Of every metric in every judged group.
        reason: Why there is none, where there is none.
        applicable: Whether there might have been.
    """
    if not gaps:
        return Measure(name, title, None, 0, reason=reason, applicable=applicable)
    one = max(gaps, key=lambda each: each.gap / each.noise)
    low, high = interval_around(one.gap, one.draws - one.reference_draws)
    usual = float(norm.ppf(1 - (1 - LEVEL) / len(gaps))) * one.noise
    estimate = Estimate(one.gap, low, high, 0.0, usual)
    return Measure(name, f"{title} ({one.metric}, {one.division}: {one.group})", estimate, len(gaps))
