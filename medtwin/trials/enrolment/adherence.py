"""Dropout, non-adherence and treatment switching: hazards that act on a patient, and change with the treatment taken.

A patient of the control arm has the hazard h0(t) risk; one who takes the treatment has HR times that. In between, a
patient has the part phi of the treatment's effect: h(t) = h0(t) risk HR^phi(t). phi starts at the arm (0 or 1) and
jumps when treatment stops or is switched. Under HR = 1 changes of treatment thus change nothing, and all courses of a
patient come from the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.hazard import PiecewiseRate, WeibullHazard, dropout_rate
from medtwin.trials.enrolment.draws import TrialDraws

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Dropout:
    """Leaving the trial without an event, at a hazard over the months since enrolment.

    Attributes:
        control: Hazard per month in the control arm.
        experimental: In the experimental one; None: as in the control arm.
    """

    control: PiecewiseRate
    experimental: PiecewiseRate | None = None

    @staticmethod
    def of_share(share: float, months: float = 12.0) -> Dropout:
        """The constant hazard at which a share of either arm leaves within some months.

        Raises:
            ValueError: If the share is not in [0, 1).
        """
        return Dropout(PiecewiseRate((0.0,), (dropout_rate(share, months),)))

    @property
    def arms(self) -> tuple[PiecewiseRate, PiecewiseRate]:
        """Hazards of the control and the experimental arm."""
        return self.control, self.control if self.experimental is None else self.experimental

    def months(self, leaving: Floats, arm: Ints) -> Floats:
        """Months from enrolment to leaving, (trials, patients); inf where never.

        Args:
            leaving: Exponential of mean 1, (trials, patients).
            arm: 0 control, 1 experimental.
        """
        if self.experimental is None:
            return self.control.time_at(leaving)
        return np.where(arm == 1, self.experimental.time_at(leaving), self.control.time_at(leaving))


@dataclass(frozen=True)
class ChangeDraws:
    """What a change of treatment needs of each patient, (trials, patients) each.

    Attributes:
        amount: Exponential of mean 1: the integrated hazard at which the change is due.
        uniform: In [0, 1): whether it is taken.
    """

    amount: Floats
    uniform: Floats

    @staticmethod
    def of(draws: TrialDraws, count: int, number: int) -> ChangeDraws:
        """Those of one of a trial's changes, the same whatever the change is."""
        return ChangeDraws(
            draws.exponential(count, "treatment change", number), draws.uniform(count, "treatment taken", number)
        )


class TreatmentChange(Protocol):
    """A change of the treatment that a patient takes."""

    @property
    def effect(self) -> float:
        """The part of the treatment's effect, on the log hazard, from then on."""
        ...

    def months(self, draws: ChangeDraws, arm: Ints, enrolled: Floats, risk: Floats) -> Floats:
        """Months from enrolment to the change, (trials, patients); inf where there is none.

        Args:
            draws: Of the patients.
            arm: 0 control, 1 experimental.
            enrolled: Calendar month.
            risk: Hazard of the event relative to that at log risk 0.
        """
        ...


@dataclass(frozen=True)
class Discontinuation:
    """Non-adherence: patients of the experimental arm stop the treatment.

    Attributes:
        hazard: Of stopping, per month since enrolment.
        effect: The part of the treatment's effect that stays, from 0 (none) to 1.

    Raises:
        ValueError: If the effect is not in [0, 1].
    """

    hazard: PiecewiseRate
    effect: float = 0.0

    def __post_init__(self) -> None:
        _check_share("effect", self.effect)

    def months(self, draws: ChangeDraws, arm: Ints, enrolled: Floats, risk: Floats) -> Floats:
        """Months from enrolment to stopping; see `TreatmentChange`."""
        return np.where(arm == 1, self.hazard.time_at(draws.amount), np.inf)


class _Switch:
    """Some patients of an arm take the other arm's treatment from some time on."""

    probability: float
    part: float | None
    from_arm: int

    def _check(self) -> None:
        _check_share("probability", self.probability)
        if self.from_arm not in (0, 1):
            raise ValueError(f"from_arm must be 0 or 1, got {self.from_arm!r}")
        _check_share("part", self.effect)

    @property
    def effect(self) -> float:
        """The part of the treatment's effect after the switch."""
        return float(1 - self.from_arm) if self.part is None else self.part

    def _switches(self, draws: ChangeDraws, arm: Ints) -> NDArray[np.bool_]:
        """Whose switch comes, (trials, patients)."""
        return np.asarray((arm == self.from_arm) & (draws.uniform < self.probability))


@dataclass(frozen=True)
class SwitchAtProgression(_Switch):
    """Patients switch to the other arm's treatment when their disease progresses.

    Attributes:
        hazard: Of progression per month since enrolment, at log risk 0; it is multiplied by each patient's risk.
        probability: That a patient switches then.
        part: The part of the treatment's effect from then on; None: all for controls who switch, none for others.
        from_arm: Who may switch: 0 controls, 1 the experimental arm.

    Raises:
        ValueError: If a share is not in [0, 1] or there is no such arm.
    """

    hazard: PiecewiseRate
    probability: float = 1.0
    part: float | None = None
    from_arm: int = 0

    def __post_init__(self) -> None:
        self._check()

    def months(self, draws: ChangeDraws, arm: Ints, enrolled: Floats, risk: Floats) -> Floats:
        """Months from enrolment to the switch; see `TreatmentChange`."""
        return np.where(self._switches(draws, arm), self.hazard.time_at(draws.amount / risk), np.inf)


@dataclass(frozen=True)
class SwitchAtMonth(_Switch):
    """Patients switch to the other arm's treatment in a calendar month; those who enrol later do at once.

    Attributes:
        month: Of the trial, 0 or more.
        probability: That a patient switches.
        part: The part of the treatment's effect from then on; None: all for controls who switch, none for others.
        from_arm: Who may switch: 0 controls, 1 the experimental arm.

    Raises:
        ValueError: If the month is negative, a share is not in [0, 1] or there is no such arm.
    """

    month: float
    probability: float = 1.0
    part: float | None = None
    from_arm: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.month < math.inf:
            raise ValueError(f"month must be 0 or more, got {self.month!r}")
        self._check()

    def months(self, draws: ChangeDraws, arm: Ints, enrolled: Floats, risk: Floats) -> Floats:
        """Months from enrolment to the switch; see `TreatmentChange`."""
        return np.where(self._switches(draws, arm), np.maximum(self.month - enrolled, 0.0), np.inf)


def event_months(
    hazard: PiecewiseRate | WeibullHazard,
    amount: Floats,
    hazard_ratio: float | Floats,
    arm: Ints,
    changes: Sequence[tuple[Floats, float]],
) -> Floats:
    """Months from enrolment to the event under changes of treatment, in the shape of `amount`; inf where never.

    The event comes when the integral of h0(t) HR^phi(t) reaches the patient's amount. Changes act in order of time; of
    two at the same time the later one of the list stays.

    Args:
        hazard: h0 over the months since enrolment.
        amount: Exponential of mean 1 over the patient's risk.
        hazard_ratio: Of the whole effect, above 0; of all patients or of each, in the shape of `amount`.
        arm: 0 control, 1 experimental: phi at first.
        changes: Month of each (inf: never), in the shape of `amount`, and phi from then on.

    Raises:
        ValueError: If the hazard ratio is not above 0.
    """
    if not (np.asarray(hazard_ratio) > 0).all():
        raise ValueError(f"hazard_ratio must be above 0, got {hazard_ratio!r}")
    at = np.stack([np.asarray(months, dtype=np.float64) for months, _ in changes] + [np.full(amount.shape, np.inf)])
    order = np.argsort(at, axis=0, kind="stable")
    at = np.take_along_axis(at, order, axis=0)
    effect = np.array([effect for _, effect in changes] + [0.0])[order]
    ends = np.where(np.isfinite(at), hazard.cumulative(np.where(np.isfinite(at), at, 0.0)), np.inf)
    phi, left = arm.astype(np.float64), np.array(amount, dtype=np.float64)
    start, due = np.zeros(amount.shape), np.full(amount.shape, np.inf)  # of the integral of h0
    for end, after in zip(ends, effect, strict=True):
        factor = hazard_ratio**phi
        is_open = np.isinf(due)
        reaches = start + left / factor
        due = np.where(is_open & (reaches <= end), reaches, due)
        left = left - factor * np.where(np.isfinite(end), end - start, 0.0)
        start, phi = np.where(np.isfinite(end), end, start), after
    return hazard.time_at(due)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
