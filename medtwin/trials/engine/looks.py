"""The data of simulated trials at their looks: when the events have come, who is at risk at each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.event_shares import EventShares, exact_shares
from medtwin.trials.engine.course import Course, Patients, TrialPlan, course_of, in_order, snapshot
from medtwin.trials.engine.followed import ROWS, Followed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class LookData(Protocol):
    """The data of trials at their looks."""

    @property
    def due(self) -> Floats:
        """The calendar month by which trials have the events of each look, (trials, looks)."""
        ...

    def at(self, rows: Ints, months: Floats, events: Ints) -> EventShares:
        """The risk sets of some trials.

        Args:
            rows: (some,) which.
            months: (some,) calendar time of each.
            events: (some,) seen by then; put right where there are more.
        """
        ...


@dataclass(frozen=True)
class _InStrata:
    """Those of trials that are analysed in strata."""

    plan: TrialPlan
    course: Course
    due: Floats

    @staticmethod
    def of(plan: TrialPlan, patients: Patients, hazard_ratio: float) -> _InStrata:
        """Those of patients."""
        course = course_of(plan, patients, hazard_ratio)
        return _InStrata(plan, course, _months_of_events(course.calendar.copy(), plan.design.events))

    def at(self, rows: Ints, months: Floats, events: Ints) -> EventShares:
        """The risk sets of some trials; see `LookData`."""
        data, patients = snapshot(self.course, rows, months), self.course.patients
        return EventShares.of_ordered(in_order(self.plan, data, patients.arm[rows], patients.stratum[rows]))


@dataclass(frozen=True)
class _Packed:
    """Those of trials without strata, whose patients are sorted as whole numbers.

    Where the times of a trial lie too close to each other, or to the look, they are compared in full precision.
    """

    plan: TrialPlan
    patients: Patients
    hazard_ratio: float
    due: Floats
    followed: Followed

    @staticmethod
    def of(plan: TrialPlan, patients: Patients, hazard_ratio: float) -> _Packed:
        """Those of patients."""
        due, followed = [], []
        for start in range(0, len(patients.arm), ROWS):
            course = course_of(plan, patients.rows(slice(start, start + ROWS)), hazard_ratio)
            due.append(_months_of_events(course.calendar, plan.design.events))
            horizon = min(float(due[-1][:, -1].max()), plan.max_months)
            some = course.patients
            followed.append(Followed.of(some.enrolled, course.leaves, course.is_event, some.arm, horizon))
        return _Packed(plan, patients, hazard_ratio, np.concatenate(due), Followed.join(followed))

    def at(self, rows: Ints, months: Floats, events: Ints) -> EventShares:
        """The risk sets of some trials; see `LookData`."""
        shares, is_unclear = self.followed.at(rows, months)
        is_unclear |= shares.events != events
        if is_unclear.any():
            course = course_of(self.plan, self.patients.rows(rows[is_unclear]), self.hazard_ratio)
            data = snapshot(course, np.arange(len(course.leaves)), months[is_unclear])
            exact = exact_shares(data.time, data.event, course.patients.arm)
            shares.put(is_unclear, exact)
            events[is_unclear] = exact.events
        return shares


def _months_of_events(calendar: Floats, events: Sequence[int]) -> Floats:
    """The calendar month by which trials have so many events, (trials, looks); leaves the calendar in another order."""
    months = np.empty((len(calendar), len(events)))
    for k, wanted in reversed(list(enumerate(events))):
        calendar.partition(wanted - 1, axis=1)
        months[:, k] = calendar[:, wanted - 1]
        calendar = calendar[:, : wanted - 1]
    return months


def look_data(plan: TrialPlan, patients: Patients, hazard_ratio: float) -> LookData:
    """The data of trials of given patients.

    Args:
        plan: The trial.
        patients: Of the trials.
        hazard_ratio: Experimental / control.
    """
    return (_InStrata if plan.analysis_strata else _Packed).of(plan, patients, hazard_ratio)
