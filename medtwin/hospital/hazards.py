"""Onset by proportional hazards: a baseline that rises with age, multiplied by hazard ratios that switch on in life.

Every chronic course, pneumonia and death use the same three lines of mathematics. With a baseline cumulative hazard
H0(a) and a hazard ratio m(a) that is constant between switches, the event happens at the age a where the integral of
m dH0 reaches a unit exponential draw. So the share affected at age a under a constant ratio m is 1 - exp(-m H0(a)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

NEVER = math.inf
Switch = tuple[float, float]
"""(age in years, factor by which the hazard is multiplied from that age on)."""


class Baseline(Protocol):
    """The cumulative hazard of a person with every hazard ratio at 1."""

    def cumulative(self, age: float) -> float:
        """H0 at an age in years."""

    def age_at(self, cumulative: float) -> float:
        """The age where H0 reaches a value; infinite where it never does."""


@dataclass(frozen=True)
class LogisticRise:
    """A baseline under which plateau / (1 + exp(-slope (age - midpoint) / 10)) of the people are affected at an age.

    Attributes:
        plateau: Share ever affected, below 1.
        midpoint: Age in years where half of them are.
        slope: Log-odds per decade.
    """

    plateau: float
    midpoint: float
    slope: float

    def share(self, age: float) -> float:
        """The share affected at an age, with every hazard ratio at 1."""
        return self.plateau / (1.0 + math.exp(-self.slope * (age - self.midpoint) / 10.0))

    def cumulative(self, age: float) -> float:
        """H0(age) = -log(1 - share)."""
        return -math.log1p(-(self.plateau if age == NEVER else self.share(age)))

    def age_at(self, cumulative: float) -> float:
        """The inverse of `cumulative`."""
        share = -math.expm1(-cumulative)
        if share >= self.plateau:
            return NEVER
        return self.midpoint + 10.0 / self.slope * math.log(share / (self.plateau - share))


@dataclass(frozen=True)
class Gompertz:
    """A baseline hazard per year of rate_at_60 exp(growth (age - 60)).

    >>> round(Gompertz(0.01, 0.08).hazard(70.0), 4)
    0.0223
    """

    rate_at_60: float
    growth: float

    def hazard(self, age: float) -> float:
        """The hazard per year at an age."""
        return self.rate_at_60 * math.exp(self.growth * (age - 60.0))

    def cumulative(self, age: float) -> float:
        """H0(age), the integral of the hazard from minus infinity."""
        return NEVER if age == NEVER else self.hazard(age) / self.growth

    def age_at(self, cumulative: float) -> float:
        """The inverse of `cumulative`."""
        return 60.0 + math.log(cumulative * self.growth / self.rate_at_60) / self.growth


def risk_steps(start: float, ratio: float, switches: Iterable[Switch] = ()) -> list[Switch]:
    """The hazard ratio in force from each age on: `ratio` from `start`, then multiplied at every switch.

    >>> risk_steps(18.0, 2.0, [(50.0, 3.0), (10.0, 1.5)])
    [(18.0, 3.0), (50.0, 9.0)]
    """
    steps = [(start, ratio)]
    for age, factor in sorted(switches):
        if age <= start:
            steps[0] = (start, steps[0][1] * factor)
        elif age < NEVER:
            steps.append((age, steps[-1][1] * factor))
    return steps


def accumulated(baseline: Baseline, steps: Sequence[Switch], until: float) -> float:
    """The cumulative hazard of a person from the first step up to an age: its expected number of events."""
    ends = [age for age, _ in steps[1:]] + [NEVER]
    return sum(
        ratio * (baseline.cumulative(min(end, until)) - baseline.cumulative(age))
        for (age, ratio), end in zip(steps, ends, strict=True)
        if age < until
    )


def event_age(baseline: Baseline, draw: float, steps: Sequence[Switch]) -> float:
    """The age at which the accumulated hazard reaches a unit exponential draw; infinite if it never does.

    Args:
        baseline: The hazard at ratio 1.
        draw: A draw from Exp(1).
        steps: From `risk_steps`, ages ascending; no event before the first.
    """
    ends = [age for age, _ in steps[1:]] + [NEVER]
    left = draw
    for (age, ratio), end in zip(steps, ends, strict=True):
        at_start = baseline.cumulative(age)
        gained = ratio * (baseline.cumulative(end) - at_start)
        if left < gained:
            return baseline.age_at(at_start + left / ratio)
        left -= gained
    return NEVER
