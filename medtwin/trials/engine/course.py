"""The patients of simulated trials with a time-to-event endpoint: who comes when, to which arm, what becomes of them.

Patient j of trial i depends on (seed, i, j) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.survival_batch import Ordered, order_continuous, order_continuous_in_strata
from medtwin.trials.design.group_sequential import SurvivalDesign
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.engine.levels import levels_of
from medtwin.trials.enrolment.accrual import Accrual
from medtwin.trials.enrolment.adherence import ChangeDraws, Dropout, TreatmentChange, event_months
from medtwin.trials.enrolment.draws import TRIALS_PER_STREAM, TrialDraws
from medtwin.trials.enrolment.factors import Factor, strata
from medtwin.trials.enrolment.intercurrent import Strategy, handled, strategies_of
from medtwin.trials.enrolment.randomisation import PermutedBlocks, Randomisation, assign_in_order, ratio_parts
from medtwin.trials.outcome.prognosis import PatientPool

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
BLOCK = TRIALS_PER_STREAM
MAX_SUBJECTS = 20_000
"""Patients that a trial may need, whatever its endpoint."""


@dataclass(frozen=True)
class TrialPlan:
    """Everything that a simulated trial needs but its hazard ratio.

    Attributes:
        design: Looks at event counts, bounds. pool: Where patients come from.
        num_subjects: Patients to enrol. accrual: How they come.
        dropout: How they leave. max_months: The trial is analysed for the last time then, whatever its events.
        randomisation: To the arms, in the design's ratio.
        analysis_strata: Factors in whose strata the log-rank test and the Cox model compare; none: no strata.
        changes: Of the treatment that patients take.
        strategies: How the analysis handles each kind of change (`enrolment.intercurrent`); patients are followed on
            after one that it does not name.

    Raises:
        ValueError: If there are fewer patients than events wanted, so many can never be enrolled, the randomisation
            cannot allocate in the ratio.
    """

    design: SurvivalDesign
    pool: PatientPool
    num_subjects: int
    accrual: Accrual
    dropout: Dropout
    max_months: float
    randomisation: Randomisation = field(default_factory=lambda: PermutedBlocks(4, ("sex",)))
    analysis_strata: Sequence[Factor] = ()
    changes: Sequence[TreatmentChange] = ()
    strategies: Mapping[str, Strategy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_subjects < self.design.events[-1]:
            raise ValueError(
                f"num_subjects must be at least the {self.design.events[-1]} events wanted, got {self.num_subjects}"
            )
        self.accrual.of_size(self.num_subjects)
        self.randomisation.check(self.parts)
        nobody = np.zeros((1, 0), dtype=np.int64)
        levels_of([*self.randomisation.balanced, *self.analysis_strata], self.pool, nobody, nobody)

    @property
    def handling(self) -> tuple[Strategy, ...]:
        """How the analysis handles each change of treatment."""
        return strategies_of(self.changes, self.strategies)

    @property
    def parts(self) -> tuple[int, int]:
        """Of the allocation ratio, the control's first."""
        return ratio_parts(self.design.allocation_ratio)

    @cached_property
    def enroll_rate(self) -> PiecewiseRate:
        """Patients randomised per month, in expectation."""
        return self.accrual.enroll_rate(self.num_subjects)


@dataclass(frozen=True)
class Patients:
    """The patients of a block of trials before treatment acts, (trials, patients) each, in order of screening.

    Attributes:
        index: Into the pool.
        arm: 1 experimental.
        enrolled: Calendar month.
        site: Number of the site.
        stratum: Of the analysis.
        amount: Cumulative baseline hazard at which the event comes in the control arm.
        leaving: Cumulative hazard of dropout at which the patient leaves.
        changes: What each change of treatment needs.
    """

    index: Ints
    arm: Ints
    enrolled: Floats
    site: Ints
    stratum: Ints
    amount: Floats
    leaving: Floats
    changes: Sequence[ChangeDraws] = ()

    def doubled(self) -> Patients:
        """Every patient in both arms, with the same draws."""
        twice = self._each(lambda values: np.hstack([values] * 2))
        return replace(twice, arm=np.hstack([np.zeros_like(self.arm), np.ones_like(self.arm)]))

    def rows(self, trials: slice | Ints) -> Patients:
        """The patients of some of the trials."""
        return self._each(lambda values: values[trials])

    def _each(self, made: Callable[[NDArray[Any]], NDArray[Any]]) -> Patients:
        """Every array replaced by what is made of it."""
        arrays = {name: made(getattr(self, name)) for name in Patients.__annotations__ if name != "changes"}
        return Patients(**arrays, changes=[ChangeDraws(made(c.amount), made(c.uniform)) for c in self.changes])


def draw_patients(plan: TrialPlan, seed: int, block: int, scope: str = "trial", num_blocks: int = 1) -> Patients:
    """The patients of blocks of trials: the same for every hazard ratio.

    Args:
        plan: The trial.
        seed: Of the run.
        block: Which hundred trials come first.
        scope: Draws of different scopes are independent.
        num_blocks: How many hundred trials; a trial's patients do not depend on it.
    """
    draws, count = TrialDraws(seed, num_blocks * BLOCK, block * BLOCK, scope), plan.num_subjects
    size = len(plan.pool.log_risk)
    nothing: Ints = np.broadcast_to(np.int64(0), (draws.num_trials, count))
    index = (draws.uniform(count, "patient") * size).astype(np.int64) if size > 1 else nothing
    enrolment = plan.accrual.enrol(draws, count)
    levels = levels_of(plan.randomisation.balanced, plan.pool, index, enrolment.site)
    order = None if plan.accrual.screening.lag is None else enrolment.order
    arm = assign_in_order(plan.randomisation, levels, plan.parts, draws, order)
    amount = draws.exponential(count, "event")
    if plan.pool.log_risk.any():
        amount *= np.exp(-plan.pool.log_risk)[index]
    leaving = draws.exponential(count, "dropout")
    changes = [ChangeDraws.of(draws, count, number) for number in range(len(plan.changes))]
    stratum = nothing
    if plan.analysis_strata:
        stratum, _ = strata(levels_of(plan.analysis_strata, plan.pool, index, enrolment.site))
    return Patients(index, arm, enrolment.enrolled, enrolment.site, stratum, amount, leaving, changes)


@dataclass(frozen=True)
class Course:
    """What becomes of patients under a hazard ratio, (trials, patients).

    Attributes:
        patients: Who they are.
        event, dropout: Months from enrolment to each, were there no other.
        leaves: Months from enrolment to the first of them.
        is_event: Whether it is the event.
        calendar: Calendar month of the event; inf where it never comes.
    """

    patients: Patients
    event: Floats
    dropout: Floats
    leaves: Floats
    is_event: Bools
    calendar: Floats


def course_of(plan: TrialPlan, patients: Patients, hazard_ratio: float) -> Course:
    """The course of the patients in the arms that they are in."""
    arm = patients.arm
    dropout = plan.dropout.months(patients.leaving, arm)
    own = plan.pool.effect
    ratio = hazard_ratio if own is None else np.exp(plan.pool.log_hazard_ratios(hazard_ratio))[patients.index]
    if plan.changes:
        risk = np.exp(plan.pool.log_risk)[patients.index]
        changes = [
            (change.months(draws, arm, patients.enrolled, risk), change.effect)
            for change, draws in zip(plan.changes, patients.changes, strict=True)
        ]
        event = event_months(plan.pool.hazard, patients.amount, ratio, arm, changes)
        event, dropout = handled(event, dropout, [months for months, _ in changes], plan.handling)
    elif own is not None:
        event = plan.pool.hazard.time_at(patients.amount / np.where(arm == 1, ratio, 1.0))
    else:
        amount = np.take(np.array([1.0, 1.0 / hazard_ratio]), arm, mode="clip")  # twice as fast as the other modes
        amount *= patients.amount
        event = plan.pool.hazard.time_at(amount)
    is_event = event <= dropout
    calendar = patients.enrolled + event
    with np.errstate(divide="ignore"):
        calendar /= is_event
    return Course(patients, event, dropout, np.minimum(event, dropout), is_event, calendar)


@dataclass(frozen=True)
class Snapshot:
    """What is known at a calendar time, (trials, patients): time at risk, event seen by then; 0 if not yet enrolled."""

    time: Floats
    event: Bools


def snapshot(course: Course, rows: Ints, months: Floats) -> Snapshot:
    """The data of some trials at a calendar time each.

    Args:
        course: Of the block.
        rows: (some,) which trials.
        months: (some,) calendar time of each.
    """
    until = np.maximum(months[:, None] - course.patients.enrolled[rows], 0.0)
    return Snapshot(np.minimum(course.leaves[rows], until), course.calendar[rows] <= months[:, None])


def in_order(plan: TrialPlan, data: Snapshot, arm: Ints, stratum: Ints) -> Ordered:
    """The data in order of time, with the risk sets of the trial's analysis."""
    if plan.analysis_strata:
        return order_continuous_in_strata(data.time, data.event, arm, stratum)
    return order_continuous(data.time, data.event, arm)
