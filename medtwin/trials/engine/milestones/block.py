"""A block of simulated trials on their way from milestone to milestone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.engine.milestones.conditions import ROUNDING
from medtwin.trials.engine.milestones.graph_tests import GraphTests
from medtwin.trials.engine.milestones.patients import Enrolment, Patients
from medtwin.trials.engine.milestones.plan import Hypothesis, MilestoneTrial
from medtwin.trials.engine.milestones.two_arm_tests import Tested, compare_responses, compare_times

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)
RUNS_OUT = "final analysis"


@dataclass(frozen=True)
class Records:
    """What became of trials.

    Attributes:
        months: (trials, milestones) calendar month of each; nan where it did not come.
        ended_at: (trials,) number of the milestone that ended it. reason: (trials,) text why.
        is_capped: (trials,) the last milestone came by the calendar.
        subjects: (trials,) patients randomised by the end.
        rejected_at: (trials, hypotheses) number of the milestone, -1: not.
        z, information, estimate: (trials, hypotheses, milestones); nan where it is not tested.
        acted: (trials, actions).
    """

    months: Floats
    ended_at: Ints
    reason: NDArray[np.str_]
    is_capped: Bools
    subjects: Ints
    rejected_at: Ints
    z: Floats
    information: Floats
    estimate: Floats
    acted: Bools


class Block:
    """Trials side by side; rows are trials. It is what conditions ask and actions change."""

    def __init__(self, trial: MilestoneTrial, patients: Patients, tests: GraphTests) -> None:
        self.trial, self.patients, self.tests = trial, patients, tests
        count = len(patients.screened)
        self.enrolment = Enrolment(trial, patients)
        self.running = np.ones(count, dtype=np.bool_)
        self._now, self._last = np.zeros(count), np.full(count, float(trial.max_months))
        looks, hypotheses = len(trial.milestones), len(trial.hypotheses)
        self._place = {name: number for number, name in enumerate(trial.names)}
        self._hypothesis = {each.name: number for number, each in enumerate(trial.hypotheses)}
        self.months = np.full((count, looks), np.nan)
        self.ended_at = np.full(count, -1, dtype=np.int64)
        reasons = [RUNS_OUT, *(action.label for _, action in trial.actions)]
        self.reason = np.full(count, RUNS_OUT, dtype=f"<U{max(map(len, reasons))}")
        self.is_capped = np.zeros(count, dtype=np.bool_)
        self.rejected_at = np.full((count, hypotheses), -1, dtype=np.int64)
        self.z, self.information, self.estimate = (np.full((count, hypotheses, looks), np.nan) for _ in range(3))
        self.acted = np.zeros((count, len(trial.actions)), dtype=np.bool_)
        self._sorted: dict[tuple[str, str | None], Floats] = {}
        self._in_order: Floats | None = None
        self._found: dict[tuple[str, str | None], Tested] = {}
        self._visited: Ints = np.zeros(0, dtype=np.int64)

    # what conditions ask

    def month_of_event(self, endpoint: str, population: str | None, count: int, rows: Ints) -> Floats:
        """See `Course`."""
        key = (endpoint, population)
        if key not in self._sorted:
            self._sorted[key] = self._calendar(endpoint, population, np.arange(len(self.running)))
        months = self._sorted[key]
        if count > months.shape[1]:
            return np.full(len(rows), np.inf)
        return np.asarray(months[rows, count - 1])

    def _calendar(self, endpoint: str, population: str | None, rows: Ints) -> Floats:
        """Calendar months of the events in order."""
        found = self.enrolment.enrolled[rows] + self.patients.event[endpoint][rows]
        if population is not None and self.patients.group.inside is not None:
            found[~self.patients.group.inside[rows]] = np.inf
        found.sort(axis=1)
        return found

    def month_of_patient(self, count: int | None, rows: Ints) -> Floats:
        """See `Course`."""
        if self._in_order is None:
            self._in_order = np.sort(self.enrolment.enrolled, axis=1)
        place = self.enrolment.wanted[rows] if count is None else np.full(len(rows), count)
        is_there = place <= self._in_order.shape[1]
        return np.where(is_there, self._in_order[rows, np.where(is_there, place, 1) - 1], np.inf)

    def month_of_milestone(self, name: str, rows: Ints) -> Floats:
        """See `Course`."""
        return np.asarray(np.nan_to_num(self.months[rows, self._place[name]], nan=np.inf))

    def z_value(self, endpoint: str, population: str | None, rows: Ints, months: Floats) -> Floats:
        """See `Seen`."""
        key = (endpoint, population)
        if key not in self._found:
            here = self._visited
            self._found[key] = self._test(endpoint, population, here, self._now[here])
        return np.asarray(self._found[key].z[np.searchsorted(self._visited, rows)])

    def is_rejected(self, hypothesis: str, rows: Ints) -> Bools:
        """See `Seen`."""
        return np.asarray(self.rejected_at[rows, self._hypothesis[hypothesis]] >= 0)

    # what actions change

    def stop(self, rows: Ints, months: Floats, reason: str) -> None:
        """See `Changeable`."""
        self.running[rows] = False
        self.reason[rows] = f"stop for {reason}"

    def end_by(self, rows: Ints, months: Floats, last: float) -> None:
        """See `Changeable`."""
        self._last[rows] = np.maximum(last, months)

    def change_rate(self, rows: Ints, months: Floats, factor: float) -> None:
        """See `Changeable`."""
        self.enrolment.change_rate(rows, months, factor)
        self._enrolled_anew(rows)

    def pause(self, rows: Ints, months: Floats, length: float) -> None:
        """See `Changeable`."""
        self.enrolment.pause(rows, months, length)
        self._enrolled_anew(rows)

    def resize(self, rows: Ints, months: Floats, num_subjects: int) -> None:
        """See `Changeable`."""
        self.enrolment.resize(rows, months, num_subjects)
        self._enrolled_anew(rows)

    def _enrolled_anew(self, rows: Ints) -> None:
        for endpoint, population in self._sorted:
            self._sorted[endpoint, population][rows] = self._calendar(endpoint, population, rows)
        self._in_order = None

    # from milestone to milestone

    def run(self) -> Records:
        """All trials to their ends."""
        while self.running.any():
            rows = np.flatnonzero(self.running)
            due = self._due(rows)
            first = np.argmin(due, axis=0)
            for number in np.unique(first):
                here = first == number
                self._visit(int(number), rows[here], due[number, here])
        ends = self.months[np.arange(len(self.months)), self.ended_at]
        subjects = (self.enrolment.enrolled <= ends[:, None] * ROUNDING).sum(axis=1)
        return Records(
            self.months,
            self.ended_at,
            self.reason,
            self.is_capped,
            subjects,
            self.rejected_at,
            self.z,
            self.information,
            self.estimate,
            self.acted,
        )

    def _due(self, rows: Ints) -> Floats:
        """The month of each milestone still to come, (milestones, rows)."""
        due = np.full((len(self.trial.milestones), len(rows)), np.inf)
        for number, milestone in enumerate(self.trial.milestones):
            is_open = np.isnan(self.months[rows, number])
            if is_open.any():
                due[number, is_open] = milestone.when.due(self, rows[is_open])
        np.maximum(due, self._now[rows], out=due)
        due[-1] = np.minimum(due[-1], self._last[rows])
        return due

    def _visit(self, number: int, rows: Ints, months: Floats) -> None:
        """A milestone of some trials: tests, then actions."""
        milestone, is_last = self.trial.milestones[number], number + 1 == len(self.trial.milestones)
        self._now[rows] = self.months[rows, number] = months
        self.ended_at[rows] = number
        self._found, self._visited = {}, rows
        if is_last:
            self.is_capped[rows] = milestone.when.due(self, rows) > months * ROUNDING
        tested = [each for each in self.trial.hypotheses if milestone.name in each.at]
        if tested:
            self._test_hypotheses(number, tested, rows, months)
        before = sum(len(each.actions) for each in self.trial.milestones[:number])
        for place, action in enumerate(milestone.actions, before):
            still = self.running[rows]
            if action.when is not None:
                still &= action.when.answer(self, rows, months)
            if still.any():
                self.acted[rows[still], place] = True
                action.act(self, rows[still], months[still])
        if is_last:
            self.running[rows] = False

    def _test_hypotheses(self, number: int, tested: list[Hypothesis], rows: Ints, months: Floats) -> None:
        for each in tested:
            self.z_value(each.endpoint, each.population, rows, months)
            found, place = self._found[each.endpoint, each.population], self._hypothesis[each.name]
            self.z[rows, place, number] = found.z
            self.information[rows, place, number] = found.information
            self.estimate[rows, place, number] = found.estimate
        places = [self._hypothesis[each.name] for each in tested]
        self.rejected_at[rows] = self.tests.after(
            number, places, self.z[rows], self.information[rows], self.rejected_at[rows]
        )

    def _test(self, endpoint: str, population: str | None, rows: Ints, months: Floats) -> Tested:
        """The test of an endpoint by now."""
        patients, everyone = self.patients, len(rows) == len(self.running)

        def of_rows(values: NDArray[Scalar]) -> NDArray[Scalar]:
            return values if everyone else values[rows]

        group = patients.group
        inside = of_rows(group.inside) if population is not None and group.inside is not None else None
        enrolled = of_rows(self.enrolment.enrolled)
        if endpoint in patients.leaves:
            return compare_times(of_rows(group.arm), inside, enrolled, of_rows(patients.leaves[endpoint]), months)
        month = patients.drawn.response_month[endpoint]
        assessed = (enrolled + month <= (months * ROUNDING)[:, None]) & (of_rows(patients.dropout) >= month)
        if inside is not None:
            assessed &= inside
        return compare_responses(of_rows(group.arm), assessed, of_rows(patients.drawn.response[endpoint]))
