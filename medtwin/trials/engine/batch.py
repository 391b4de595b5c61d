"""The engine: simulates many two-arm group-sequential trials patient by patient, and sums up what they did.

Patient j of trial i depends on (seed, i, j) alone: any trial can be replayed, no result depends on the number of
workers, and every design and hazard ratio is tried on the same patients with the same draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.event_shares import cox_log_hazard_ratio_of_shares
from medtwin.trials.analysis.survival_batch import cox_log_hazard_ratio_continuous
from medtwin.trials.design.boundaries import observed_bounds
from medtwin.trials.design.group_sequential import SurvivalDesign
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.course import (
    BLOCK,
    Course,
    Patients,
    Snapshot,
    TrialPlan,
    course_of,
    draw_patients,
    in_order,
    snapshot,
)
from medtwin.trials.engine.estimates import Estimate, mean_of, share_of
from medtwin.trials.engine.looks import look_data
from medtwin.trials.engine.stopped import (
    Stopped,
    StoppedCharacteristics,
    no_counts,
    no_marks,
    no_numbers,
    still_running,
)

__all__ = [
    "BLOCK",
    "Characteristics",
    "Course",
    "Estimate",
    "Patients",
    "Snapshot",
    "Stops",
    "TrialPlan",
    "course_of",
    "draw_patients",
    "in_order",
    "marginal_log_hazard_ratio",
    "mean_of",
    "run_block",
    "run_trials",
    "share_of",
    "snapshot",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Stops(Stopped):
    """How a block of trials of times to an event ended, (trials,) each.

    Attributes:
        is_capped: The last look came by the calendar, short of events. events: Seen by the stop.
        log_hazard_ratio: Cox estimate then.
    """

    is_capped: Bools
    events: Ints
    log_hazard_ratio: Floats


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
    planned, bounds = plan.design.events, plan.design.bounds
    data = look_data(plan, patients, hazard_ratio)
    due = data.due
    num = len(due)
    stops = Stops(*still_running(num, len(planned)), no_marks(num), no_counts(num), no_numbers(num))
    running = np.arange(len(due))
    for k, wanted in enumerate(planned):
        months, events = due[running, k], np.full(len(running), wanted)
        is_capped = months > plan.max_months
        if is_capped.any():
            late = course_of(plan, patients.rows(running[is_capped]), hazard_ratio)
            events[is_capped] = (late.calendar <= plan.max_months).sum(axis=1)
            months[is_capped] = plan.max_months
        shares = data.at(running, months, events)
        z = shares.z
        is_last = is_capped | (k + 1 == len(planned))
        limit = np.full(len(running), bounds.efficacy[k])
        for short in set(events[is_capped].tolist()):
            limit[is_capped & (events == short)] = _last_bound(plan.design, k, int(short))
        is_rejected = z >= limit
        is_futile = ~is_rejected & ~is_last & (z <= bounds.futility[k]) & obeys_futility
        stops.z[running, k] = z
        is_stopped = is_last | is_rejected | is_futile
        rows = running[is_stopped]
        stops.look[rows], stops.events[rows], stops.months[rows] = k, events[is_stopped], months[is_stopped]
        stops.is_rejected[rows], stops.is_futile[rows] = is_rejected[is_stopped], is_futile[is_stopped]
        stops.is_capped[rows] = is_capped[is_stopped]
        stops.log_hazard_ratio[rows] = cox_log_hazard_ratio_of_shares(shares.rows(is_stopped)).estimate
        running = running[~is_stopped]
        if not len(running):
            break
    np.sum(patients.enrolled <= stops.months[:, None], axis=1, out=stops.subjects)
    return stops


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
class Characteristics(StoppedCharacteristics):
    """The operating characteristics under one hazard ratio.

    Attributes:
        hazard_ratio: Simulated, of each patient. stops: How every trial ended.
    """

    hazard_ratio: float
    stops: Stops

    @cached_property
    def capped(self) -> Estimate:
        """Share of trials that ended by the calendar, short of events."""
        return share_of(int(self.stops.is_capped.sum()), self.num_trials)

    @cached_property
    def events(self) -> Estimate:
        """Mean events at the stop."""
        return mean_of(self.stops.events.astype(np.float64))

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
