"""Bounds of a group-sequential trial at the information that its looks really have, one look after the other.

At each look the errors that the plan's functions allow by that information and were not spent before are spent: alpha
under the null, beta under the alternative of the plan. The last look spends the rest of alpha, whether information fell
short of the plan or went beyond it.

Source: Lan & DeMets 1983, Biometrika 70:659 and 1989, Biometrics 45:1017; Jennison & Turnbull 2000, Group Sequential
Methods, section 7.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from medtwin.trials.design.boundaries import Density, lower_bound, upper_bound
from medtwin.trials.design.group_sequential import GroupSequential

MIN_STEP = 1e-3
"""Fractions of the planned maximum by which information must grow from look to look."""


@dataclass(frozen=True)
class Monitoring:
    """A trial at its latest look; `Monitoring(plan)` before the first.

    Information is in fractions of the planned maximum, at which the plan has its power; it may go beyond 1.

    Attributes:
        plan: Errors and how they are spent; its looks do not matter.
        drift: E Z at the planned maximum under the alternative, at which beta is spent; None: the plan's.
        fractions: Of the looks so far. efficacy, futility: Their z bounds, inf and -inf for none.
        null, alternative: The density of the statistic at the look before the latest on going on.

    >>> look = Monitoring(GroupSequential(looks=(0.5, 1.0))).after(0.4).after(1.1, is_final=True)
    >>> [round(bound, 3) for bound in look.efficacy]
    [3.357, 1.963]
    """

    plan: GroupSequential
    drift: float | None = None
    fractions: tuple[float, ...] = ()
    efficacy: tuple[float, ...] = ()
    futility: tuple[float, ...] = ()
    null: Density = field(default_factory=Density)
    alternative: Density = field(default_factory=Density)

    @property
    def theta(self) -> float:
        """E Z at the planned maximum under the alternative."""
        return self.plan.bounds.drift if self.drift is None else self.drift

    def after(self, fraction: float, *, is_final: bool = False) -> Monitoring:
        """The trial at its next look.

        Args:
            fraction: Information then over the planned maximum.
            is_final: Whether it is the last: then all of alpha is spent, and what is not rejected is accepted.

        Raises:
            ValueError: If the information has not grown by a thousandth of the maximum, or a look was the last.
        """
        before = self.fractions[-1] if self.fractions else 0.0
        if not before + MIN_STEP <= fraction < math.inf:
            raise ValueError(f"information must grow from look to look, got {[*self.fractions, fraction]}")
        if self.futility and self.futility[-1] == self.efficacy[-1]:
            raise ValueError(f"no look may follow the last, got {fraction!r} after {before!r}")
        now = self._advanced(fraction - before)
        upper = upper_bound(now.null, fraction, self._newly_spent(fraction, is_final=is_final))
        lower = upper if is_final else now._lower(fraction, upper)
        return replace(
            now,
            fractions=(*self.fractions, fraction),
            efficacy=(*self.efficacy, upper),
            futility=(*self.futility, lower),
        )

    def _newly_spent(self, fraction: float, *, is_final: bool) -> float:
        """Alpha for the next look."""
        before = self.fractions[-1] if self.fractions else 0.0
        at = np.array([min(before, 1.0), 1.0 if is_final else min(fraction, 1.0)])
        spent = self.plan.efficacy.spent(at, self.plan.alpha)
        return float(spent[1] - (spent[0] if before else 0.0))

    def _lower(self, fraction: float, upper: float) -> float:
        if self.plan.futility is None:
            return -math.inf
        before = self.fractions[-1] if self.fractions else 0.0
        spent = self.plan.futility.spent(np.minimum([before, fraction], 1.0), 1 - self.plan.power)
        newly = float(spent[1] - (spent[0] if before else 0.0))
        return min(lower_bound(self.alternative, fraction, self.theta, newly), upper)

    def _advanced(self, step: float) -> Monitoring:
        """The densities carried to the latest look, on nodes that resolve the step to the next."""
        if not self.fractions:
            return self
        at, upper, lower = self.fractions[-1], self.efficacy[-1], self.futility[-1]
        counted = lower if self.plan.binding else -math.inf
        null = self.null.advance(counted, upper, at, 0.0, step)
        if self.plan.futility is None:
            return replace(self, null=null)
        return replace(self, null=null, alternative=self.alternative.advance(lower, upper, at, self.theta, step))


def bounds_at_looks(plan: GroupSequential, fractions: Sequence[float], drift: float | None = None) -> Monitoring:
    """The bounds at the information of all looks, the last of them the trial's last.

    Args:
        plan: Errors and how they are spent.
        fractions: (looks,) information over the planned maximum.
        drift: E Z at the planned maximum under the alternative; None: that of the plan's bounds.

    Raises:
        ValueError: If there is no look or information does not grow.
    """
    if not len(fractions):
        raise ValueError("fractions must be one or more, got none")
    state = Monitoring(plan, drift)
    for number, fraction in enumerate(fractions, 1):
        state = state.after(float(fraction), is_final=number == len(fractions))
    return state
