"""The engine: simulates many two-arm group-sequential trials patient by patient, and sums up what they did.

Patient j of trial i depends on (seed, i, j) alone: any trial can be replayed, no result depends on the number of
workers, and every design and hazard ratio is tried on the same patients with the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.analysis.survival_batch import (
    Ordered,
    cox_log_hazard_ratio_continuous,
    logrank_z_continuous,
    order_continuous,
    order_continuous_in_strata,
    order_keys,
    packed_keys,
)
from medtwin.trials.design.boundaries import observed_bounds
from medtwin.trials.design.group_sequential import SurvivalDesign
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.levels import levels_of
from medtwin.trials.enrolment.accrual import Accrual
from medtwin.trials.enrolment.adherence import ChangeDraws, Dropout, TreatmentChange, event_months
from medtwin.trials.enrolment.draws import TRIALS_PER_STREAM, TrialDraws
from medtwin.trials.enrolment.factors import Factor, strata
from medtwin.trials.enrolment.intercurrent import Strategy, handled, strategies_of
from medtwin.trials.enrolment.randomisation import PermutedBlocks, Randomisation, ratio_parts
from medtwin.trials.outcome.prognosis import PatientPool

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
BLOCK = TRIALS_PER_STREAM


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
        twice = {name: np.hstack([getattr(self, name)] * 2) for name in Patients.__annotations__ if name != "changes"}
        twice["arm"] = np.hstack([np.zeros_like(self.arm), np.ones_like(self.arm)])
        changes = [ChangeDraws(*(np.hstack([each] * 2) for each in (c.amount, c.uniform))) for c in self.changes]
        return Patients(**twice, changes=changes)


@dataclass(frozen=True)
class Stops:
    """How a block of trials ended, (trials,) each.

    Attributes:
        look: Index of the look at which it stopped. is_rejected: The null was rejected there.
        is_futile: Stopped at a futility bound. is_capped: The last look came by the calendar, short of events.
        events, subjects: Seen by then. months: Calendar time then. log_hazard_ratio: Cox estimate then.
        z: (trials, looks) the statistic at each look; nan after the stop.
    """

    look: Ints
    is_rejected: Bools
    is_futile: Bools
    is_capped: Bools
    events: Ints
    subjects: Ints
    months: Floats
    log_hazard_ratio: Floats
    z: Floats

    @staticmethod
    def join(parts: Sequence[Stops]) -> Stops:
        """The blocks, one after the other."""
        return Stops(*(np.concatenate([getattr(part, name) for part in parts]) for name in Stops.__annotations__))


def draw_patients(plan: TrialPlan, seed: int, block: int, scope: str = "trial") -> Patients:
    """The patients of one block of trials: the same for every hazard ratio.

    Args:
        plan: The trial.
        seed: Of the run.
        block: Which hundred trials.
        scope: Draws of different scopes are independent.
    """
    draws, count = TrialDraws(seed, BLOCK, block * BLOCK, scope), plan.num_subjects
    size = len(plan.pool.log_risk)
    nothing: Ints = np.broadcast_to(np.int64(0), (BLOCK, count))
    index = (draws.uniform(count, "patient") * size).astype(np.int64) if size > 1 else nothing
    enrolment = plan.accrual.enrol(draws, count)
    levels = levels_of(plan.randomisation.balanced, plan.pool, index, enrolment.site)
    if plan.accrual.screening.lag is None:
        arm = plan.randomisation.assign(levels, plan.parts, draws)
    else:  # those who are screened first need not be randomised first
        order, arm = enrolment.order, np.empty(index.shape, dtype=np.int64)
        in_order = np.take_along_axis(levels, np.broadcast_to(order, levels.shape), axis=2)
        np.put_along_axis(arm, order, plan.randomisation.assign(in_order, plan.parts, draws), axis=1)
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
        amount = np.array([1.0, 1.0 / hazard_ratio])[arm]
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


@dataclass(frozen=True)
class _Follow:
    """The data of trials at any calendar times, for the log-rank test without strata; (trials, patients) each.

    Attributes:
        arm: 1 experimental. enrolled: Calendar month. leaves: Packed keys of leaving, by an event or without.
    """

    arm: Ints
    enrolled: Floats
    leaves: Ints

    @staticmethod
    def of(course: Course) -> _Follow:
        """That of a course."""
        arm = course.patients.arm
        return _Follow(arm, course.patients.enrolled, packed_keys(course.leaves, course.is_event, arm))

    def rows(self, kept: Bools) -> _Follow:
        """Some of the trials."""
        return self if kept.all() else _Follow(self.arm[kept], self.enrolled[kept], self.leaves[kept])

    def at(self, months: Floats) -> Ordered:
        """The data at a calendar time of each trial, (trials,), in order of time: as `snapshot` in `in_order`.

        Follow-up ends a little later, so that rounding does not hide the event which brings the look.
        """
        until = (months * (1 + 2.0**-48))[:, None] - self.enrolled
        np.maximum(until, 0.0, out=until)
        keys = packed_keys(until, 0, self.arm, out=until.view(np.int64))
        return order_keys(np.minimum(keys, self.leaves, out=keys))


def run_block(plan: TrialPlan, seed: int, block: int, hazard_ratio: float, *, obeys_futility: bool = True) -> Stops:
    """Simulates the trials of one block to their ends.

    Args:
        plan: The trial.
        seed: Of the run.
        block: Which hundred trials; the draws depend on the seed and it.
        hazard_ratio: Experimental / control.
        obeys_futility: Whether a trial stops at a futility bound.
    """
    return run_trials(plan, draw_patients(plan, seed, block), hazard_ratio, obeys_futility=obeys_futility)


def run_trials(plan: TrialPlan, patients: Patients, hazard_ratio: float, *, obeys_futility: bool = True) -> Stops:
    """Simulates trials of given patients to their ends.

    Args:
        plan: The trial.
        patients: Of a block.
        hazard_ratio: Experimental / control.
        obeys_futility: Whether a trial stops at a futility bound.
    """
    course = course_of(plan, patients, hazard_ratio)
    calendar = np.sort(course.calendar, axis=1)
    follow = None if plan.analysis_strata else _Follow.of(course)
    planned, bounds = plan.design.events, plan.design.bounds
    stops = _open_stops(len(calendar), len(planned))
    running = np.arange(len(calendar))
    for k, wanted in enumerate(planned):
        months, events = calendar[running, wanted - 1], np.full(len(running), wanted)
        is_capped = months > plan.max_months
        if is_capped.any():
            events[is_capped] = (calendar[running[is_capped]] <= plan.max_months).sum(axis=1)
            months[is_capped] = plan.max_months
        if follow is None:
            data = snapshot(course, running, months)
            ordered = in_order(plan, data, patients.arm[running], patients.stratum[running])
        else:
            ordered = follow.at(months)
        z = logrank_z_continuous(ordered)
        is_last = is_capped | (k + 1 == len(planned))
        limit = np.full(len(running), bounds.efficacy[k])
        for short in np.unique(events[is_capped]):
            limit[is_capped & (events == short)] = _last_bound(plan.design, k, int(short))
        is_rejected = z >= limit
        is_futile = ~is_rejected & ~is_last & (z <= bounds.futility[k]) & obeys_futility
        stops.z[running, k] = z
        is_stopped = is_last | is_rejected | is_futile
        rows = running[is_stopped]
        stops.look[rows], stops.events[rows], stops.months[rows] = k, events[is_stopped], months[is_stopped]
        stops.is_rejected[rows], stops.is_futile[rows] = is_rejected[is_stopped], is_futile[is_stopped]
        stops.is_capped[rows] = is_capped[is_stopped]
        stops.log_hazard_ratio[rows] = cox_log_hazard_ratio_continuous(ordered.rows(is_stopped)).estimate
        running = running[~is_stopped]
        if not len(running):
            break
        follow = follow and follow.rows(~is_stopped)
    np.sum(patients.enrolled <= stops.months[:, None], axis=1, out=stops.subjects)
    return stops


def _open_stops(num_trials: int, num_looks: int) -> Stops:
    def ints() -> Ints:
        return np.zeros(num_trials, dtype=np.int64)

    def bools() -> Bools:
        return np.zeros(num_trials, dtype=np.bool_)

    def floats() -> Floats:
        return np.full(num_trials, np.nan)

    z = np.full((num_trials, num_looks), np.nan)
    return Stops(ints(), bools(), bools(), bools(), ints(), ints(), floats(), floats(), z)


@lru_cache(maxsize=4096)
def _last_bound_of(looks: tuple[int, ...], planned: int, alpha: float, spending: Spending) -> float:
    return float(observed_bounds(planned, looks, alpha, spending, is_final=True)[-1])


def _last_bound(design: SurvivalDesign, look: int, events: int) -> float:
    """The efficacy bound of a last look that came short of its events: it spends the rest of alpha."""
    past = design.events[:look]
    if events <= (past[-1] + 0.001 * design.events[-1] if past else 0):
        return math.inf  # nothing new since the look before: there is nothing left to test
    return _last_bound_of((*past, events), design.events[-1], design.plan.alpha, design.plan.efficacy)


@dataclass(frozen=True)
class Estimate:
    """A Monte-Carlo estimate with its standard error and interval."""

    value: float
    standard_error: float
    low: float
    high: float
    level: float = 0.95


def share_of(hits: int, total: int, level: float = 0.95) -> Estimate:
    """A proportion, with the Wilson interval. Source: Wilson 1927, J Am Stat Assoc 22:209.

    >>> share = share_of(5, 10)
    >>> share.value, round(share.low, 3), round(share.high, 3)
    (0.5, 0.237, 0.763)
    """
    p, z = hits / total, float(norm.ppf(0.5 + level / 2))
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    low, high = max(centre - half, 0.0) if hits else 0.0, min(centre + half, 1.0) if hits < total else 1.0
    return Estimate(p, math.sqrt(p * (1 - p) / total), low, high, level)


def mean_of(values: Floats, level: float = 0.95) -> Estimate:
    """A mean, with the normal interval; missing values are left out."""
    kept = values[~np.isnan(values)]
    if len(kept) < 2:
        return Estimate(math.nan, math.nan, math.nan, math.nan, level)
    mean, error = float(kept.mean()), float(kept.std(ddof=1) / math.sqrt(len(kept)))
    half = float(norm.ppf(0.5 + level / 2)) * error
    return Estimate(mean, error, mean - half, mean + half, level)


@dataclass(frozen=True)
class Characteristics:
    """The operating characteristics under one hazard ratio.

    Attributes:
        hazard_ratio: Simulated, of each patient. stops: How every trial ended.
    """

    hazard_ratio: float
    stops: Stops

    @property
    def num_trials(self) -> int:
        """Trials simulated."""
        return len(self.stops.look)

    @cached_property
    def power(self) -> Estimate:
        """Share of trials that rejected the null: the type I error where the hazard ratio is 1."""
        return share_of(int(self.stops.is_rejected.sum()), self.num_trials)

    def rejected_at(self, look: int) -> Estimate:
        """Share of trials that rejected the null at a look."""
        return share_of(int((self.stops.is_rejected & (self.stops.look == look)).sum()), self.num_trials)

    def futile_at(self, look: int) -> Estimate:
        """Share of trials that stopped for futility at a look."""
        return share_of(int((self.stops.is_futile & (self.stops.look == look)).sum()), self.num_trials)

    @cached_property
    def capped(self) -> Estimate:
        """Share of trials that ended by the calendar, short of events."""
        return share_of(int(self.stops.is_capped.sum()), self.num_trials)

    @cached_property
    def events(self) -> Estimate:
        """Mean events at the stop."""
        return mean_of(self.stops.events.astype(np.float64))

    @cached_property
    def subjects(self) -> Estimate:
        """Mean patients enrolled at the stop."""
        return mean_of(self.stops.subjects.astype(np.float64))

    @cached_property
    def months(self) -> Estimate:
        """Mean calendar duration."""
        return mean_of(self.stops.months)

    @cached_property
    def log_hazard_ratio(self) -> Estimate:
        """Mean Cox estimate at the stop."""
        return mean_of(self.stops.log_hazard_ratio)


def marginal_log_hazard_ratio(plan: TrialPlan, seed: int, hazard_ratio: float, *, num_blocks: int = 2) -> Estimate:
    """What a Cox model would find in trials of this kind that never stop early: each patient under both arms.

    It lies nearer to 0 than the log hazard ratio of each patient where risks differ: that is what the estimates at the
    stop are to be compared with. Counterfactual pairs cut its Monte-Carlo error.

    Args:
        plan: The trial.
        seed: Of the draws, apart from the trials'.
        hazard_ratio: Of each patient.
        num_blocks: Blocks of 100 trials' patients, all under both arms.
    """
    if hazard_ratio == 1:
        return Estimate(0.0, 0.0, 0.0, 0.0)  # both arms of a patient are the same
    estimates = []
    for block in range(num_blocks):
        course = course_of(plan, draw_patients(plan, seed, block, "both arms").doubled(), hazard_ratio)
        wanted = min(2 * plan.design.events[-1], course.calendar.shape[1]) - 1
        months = np.minimum(np.partition(course.calendar, wanted, axis=1)[:, wanted], plan.max_months)
        data = snapshot(course, np.arange(BLOCK), months)
        ordered = in_order(plan, data, course.patients.arm, course.patients.stratum)
        estimates.append(cox_log_hazard_ratio_continuous(ordered).estimate)
    return mean_of(np.concatenate(estimates))
