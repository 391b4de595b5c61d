"""Group-sequential designs: looks, error, power; and the events that a log-rank test needs for them.

Conventions (docs/trials.md): alpha one-sided, hazard ratio experimental / control, z > 0 favours the experimental arm,
allocation experimental : control, months.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.boundaries import Bounds, efficacy_only, inflation, spending_both, spending_bounds
from medtwin.trials.design.spending import Spending, SpendingFunction
from medtwin.trials.design.survival_size import effect_per_event, events_for_drift, information_per_event

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GroupSequential:
    """When a trial looks at its data and how it spends its errors.

    Attributes:
        alpha: One-sided type I error. power: Under the alternative.
        looks: Information fractions, the last 1; one look is a fixed design.
        efficacy: How alpha is spent. futility: How 1 - power is spent; None: no futility bounds.
        binding: Whether alpha counts on stopping at the futility bounds.

    Raises:
        ValueError: If the looks do not increase to 1, or the errors are no errors.
    """

    alpha: float = 0.025
    power: float = 0.9
    looks: Sequence[float] = (0.5, 0.75, 1.0)
    efficacy: SpendingFunction = field(default_factory=Spending)
    futility: SpendingFunction | None = None
    binding: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha must be one-sided, between 0 and 0.5, got {self.alpha!r}")
        if not self.alpha < self.power < 1:
            raise ValueError(f"power must be between alpha and 1, got {self.power!r}")
        if not len(self.looks) or self.looks[0] <= 0 or self.looks[-1] != 1 or (np.diff(self.looks) <= 0).any():
            raise ValueError(f"looks must be increasing information fractions that end with 1, got {list(self.looks)}")
        if self.binding and self.futility is None:
            raise ValueError("binding needs futility bounds")

    def bounds_at(self, fractions: Sequence[float]) -> Bounds:
        """The bounds at other information fractions, such as those of whole events."""
        if self.futility is not None:
            both = (self.efficacy, self.futility)
            return spending_both(fractions, self.alpha, 1 - self.power, both, binding=self.binding)
        return efficacy_only(fractions, spending_bounds(fractions, self.alpha, self.efficacy), self.power)

    @cached_property
    def bounds(self) -> Bounds:
        """The bounds at the planned looks."""
        return self.bounds_at(tuple(self.looks))

    @property
    def inflation(self) -> float:
        """Maximal information relative to a fixed design with the same errors."""
        return inflation(self.bounds, self.alpha, self.power)


@dataclass(frozen=True)
class SurvivalDesign:
    """A two-arm log-rank design.

    Attributes:
        plan: Looks, errors, power. hazard_ratio: The alternative, below 1.
        allocation_ratio: Experimental : control.
    """

    plan: GroupSequential
    hazard_ratio: float
    allocation_ratio: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.hazard_ratio < 1:
            margin = (
                "; non-inferiority has a null of its own, a margin above 1, which a test against 1 does not see: "
                "medtwin.trials.analysis.batched.survival_hazard_ratio takes null_hazard_ratio=margin"
            )
            is_no_benefit = self.hazard_ratio >= 1
            raise ValueError(
                f"hazard_ratio must be between 0 and 1, got {self.hazard_ratio!r}{margin if is_no_benefit else ''}"
            )
        information_per_event(self.allocation_ratio)

    @cached_property
    def max_events(self) -> float:
        """Events at the last look, fractional."""
        return events_for_drift(self.plan.bounds.drift, self.hazard_ratio, self.allocation_ratio)

    @cached_property
    def events(self) -> tuple[int, ...]:
        """Whole events at each look, rounded up.

        Raises:
            ValueError: If two looks fall on the same event.
        """
        counts = tuple(math.ceil(self.max_events * t - 1e-9) for t in self.plan.looks)
        if len(set(counts)) < len(counts):
            raise ValueError(f"looks must be an event apart, got {list(counts)} events")
        return counts

    @cached_property
    def bounds(self) -> Bounds:
        """The bounds at whole events."""
        return self.plan.bounds_at(tuple(d / self.events[-1] for d in self.events))

    def drift(self, hazard_ratio: float) -> float:
        """E Z at the last look under a hazard ratio."""
        return -effect_per_event(hazard_ratio, self.allocation_ratio) * math.sqrt(self.events[-1])


def hazard_ratio_at_bound(z: float, events: float, allocation_ratio: float = 1.0) -> float:
    """The observed hazard ratio that a z value stands for, by Schoenfeld's approximation."""
    return math.exp(-z / math.sqrt(events * information_per_event(allocation_ratio)))
