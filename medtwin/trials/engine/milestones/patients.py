"""The patients of a block of simulated trials, and how what is changed at a milestone changes when they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.survival_batch import packed_keys
from medtwin.trials.engine.milestones.plan import SITE, EndpointScenario, MilestoneTrial
from medtwin.trials.enrolment.draws import TrialDraws
from medtwin.trials.outcome.several_endpoints import Drawn, Draws, Group, draw_endpoints

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Patients:
    """Who may take part and what becomes of them, (trials, patients) each; nothing done at a milestone changes it.

    Attributes:
        group: Arm and biomarker. drawn: Their endpoints. dropout: Months from enrolment to leaving.
        screened: Calendar month at the planned rates. lag: From there to randomisation; None: none.
        leaves: Packed keys, by endpoint, of the months from enrolment to event or leaving.
        event: By endpoint, months from enrolment to the event; inf where it is not seen.
    """

    group: Group
    drawn: Drawn
    dropout: Floats
    screened: Floats
    lag: Floats | None
    leaves: dict[str, Ints]
    event: dict[str, Floats]


def draw_patients(trial: MilestoneTrial, scenario: EndpointScenario, seed: int, first: int, count: int) -> Patients:
    """The patients of consecutive trials: as many as the trial may ever want.

    Args:
        trial: The trial.
        scenario: The truth.
        seed: Of the run.
        first: Number of the first trial.
        count: How many trials.
    """
    draws, size = TrialDraws(seed, count, first), trial.most_subjects
    enrolment = trial.accrual_as_planned.enrol(draws, size)
    inside = None
    if trial.biomarker is not None:
        inside = draws.uniform(size, "biomarker") < trial.biomarker.prevalence
    levels = np.zeros((len(trial.allocation.balanced), count, size), dtype=np.int64)
    for number, factor in enumerate(trial.allocation.balanced):
        levels[number] = enrolment.site if factor.name == SITE else cast(Bools, inside)
    group = Group(trial.allocation.assign(levels, trial.parts, draws), inside)
    drawn = draw_endpoints(scenario.outcomes, cast(Draws, draws), group)
    dropout = trial.dropout.months(draws.exponential(size, "dropout"), group.arm)
    leaves, event = {}, {}
    for name, months in drawn.months.items():
        is_event = months <= dropout
        leaves[name] = packed_keys(np.minimum(months, dropout), is_event, group.arm)
        event[name] = np.where(is_event, months, np.inf)
    has_lag = trial.accrual_as_planned.screening.lag is not None
    lag = enrolment.enrolled - enrolment.screened if has_lag else None
    return Patients(group, drawn, dropout, np.ascontiguousarray(enrolment.screened), lag, leaves, event)


class Enrolment:
    """Who comes when in each trial, as it stands: what is done at a milestone changes who comes later.

    Patients come as a Poisson process in the integrated rate, so that number j comes when the rate since the last
    change has brought what is left of j's amount: a change of rate moves patients and keeps their amounts.

    Attributes:
        enrolled: Calendar month of randomisation, (trials, patients); inf for who is not wanted.
        wanted: (trials,) patients.
    """

    def __init__(self, trial: MilestoneTrial, patients: Patients) -> None:
        accrual = trial.accrual_as_planned
        self._rate = accrual.screening_rate.scaled(1 - accrual.screening.failure)
        self._screened, self._lag = patients.screened, patients.lag
        count = len(self._screened)
        self._amount: Floats | None = None
        self._from, self._at, self._factor = np.zeros(count), np.zeros(count), np.ones(count)
        self.wanted = np.full(count, trial.num_subjects)
        self.enrolled = np.empty_like(self._screened)
        self._settle(np.arange(count))

    def _settle(self, rows: Ints) -> None:
        found = self._screened[rows] if self._lag is None else self._screened[rows] + self._lag[rows]
        if (self.wanted[rows] < found.shape[1]).any():
            found = np.where(np.arange(found.shape[1]) < self.wanted[rows][:, None], found, np.inf)
        self.enrolled[rows] = found

    def is_open(self, rows: Ints, months: Floats) -> Bools:
        """Whether patients are still to enter screening, (rows,)."""
        return np.asarray(self._screened[rows, self.wanted[rows] - 1] > months)

    def _anchor(self, rows: Ints, months: Floats) -> None:
        """Amounts are counted from now on, or from the end of a pause, at the rate that holds."""
        if self._amount is None:
            self._screened = self._screened.copy()  # those of the patients stay as planned
            known = np.isfinite(self._screened)
            self._amount = np.where(known, self._rate.cumulative(np.where(known, self._screened, 0.0)), np.inf)
        start = np.maximum(months, self._from[rows])
        passed = self._rate.cumulative(start) - self._rate.cumulative(self._from[rows])
        self._at[rows] += self._factor[rows] * passed
        self._from[rows] = start

    def _move(self, rows: Ints) -> None:
        """Those whose amount is still to come, at the rate that holds from now on."""
        amount = cast(Floats, self._amount)[rows]
        left = (amount - self._at[rows][:, None]) / self._factor[rows][:, None]
        start = self._from[rows]
        later = self._rate.time_at(self._rate.cumulative(start)[:, None] + np.maximum(left, 0.0))
        self._screened[rows] = np.where(left > 0, np.maximum(later, start[:, None]), self._screened[rows])
        self._settle(rows)

    def change_rate(self, rows: Ints, months: Floats, factor: float) -> None:
        """Patients enter screening at the planned rate times a factor."""
        self._anchor(rows, months)
        self._factor[rows] = factor
        self._move(rows)

    def pause(self, rows: Ints, months: Floats, length: float) -> None:
        """Nobody enters screening for some months."""
        self._anchor(rows, months)
        self._from[rows] = np.maximum(self._from[rows], months + length)
        self._move(rows)

    def resize(self, rows: Ints, months: Floats, num_subjects: int) -> None:
        """Another number is wanted; where enrolment had ended it begins anew."""
        self._anchor(rows, months)
        ended = ~self.is_open(rows, months)
        last = cast(Floats, self._amount)[rows, self.wanted[rows] - 1]
        self._at[rows[ended]] = last[ended]
        here = np.arange(self._screened.shape[1]) < self.wanted[rows][:, None]
        there = (here & (self._screened[rows] <= months[:, None])).sum(axis=1)
        self.wanted[rows] = np.maximum(num_subjects, there)
        self._move(rows)
