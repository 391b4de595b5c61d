"""Who takes part in simulated trials, and what becomes of them: representation of groups, disposition by arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.engine.batch import BLOCK, Estimate, Stops, TrialPlan, course_of, draw_patients, mean_of
from medtwin.trials.enrolment.effect_over_time import EffectFrom
from medtwin.trials.population.attrition import Division

Floats = NDArray[np.float64]
ARMS = ("control", "experimental")
STATES = ("randomised", "had the event", "left before the end", "still followed at the end", "changed treatment")


@dataclass(frozen=True)
class Spread:
    """A number that differs between trials: its mean, and between what 90 % of the trials lie."""

    mean: Estimate
    low: float
    high: float

    @staticmethod
    def of(values: Floats) -> Spread:
        """That of (trials,) values."""
        low, high = np.quantile(values, [0.05, 0.95])
        return Spread(mean_of(values), float(low), float(high))


@dataclass(frozen=True)
class Enrolled:
    """The patients of simulated trials, as of the analysis at which each trial ended.

    Attributes:
        num_trials: On which this rests.
        disposition: Arm to state to patients in it; each patient has had the event, left, or is still followed.
        representation: Division to group to its share of a trial's patients.
    """

    num_trials: int
    disposition: Mapping[str, Mapping[str, Spread]]
    representation: Mapping[str, Mapping[str, Spread]]


def enrolled_in(
    plan: TrialPlan, seed: int, hazard_ratio: float, stops: Stops, divisions: Mapping[str, Division], blocks: int = 2
) -> Enrolled:
    """The patients of the first simulated trials, drawn again.

    Args:
        plan: The trial.
        seed: Of the run.
        hazard_ratio: Under which they were simulated.
        stops: How they ended.
        divisions: Of the pool's subjects into groups.
        blocks: How many hundred trials, at most as many as there are.
    """
    blocks = min(blocks, len(stops.months) // BLOCK)
    states = {arm: {state: np.empty(blocks * BLOCK) for state in STATES} for arm in ARMS}
    shares = {name: np.empty((blocks * BLOCK, len(each.labels))) for name, each in divisions.items()}
    for block in range(blocks):
        rows = slice(block * BLOCK, (block + 1) * BLOCK)
        patients = draw_patients(plan, seed, block)
        course, months = course_of(plan, patients, hazard_ratio), stops.months[rows, None]
        is_in = patients.enrolled <= months
        left = patients.enrolled + course.leaves <= months
        changed = np.zeros(is_in.shape, dtype=np.bool_)
        risk = np.exp(plan.pool.log_risk)[patients.index]
        for change, draws in zip(plan.changes, patients.changes, strict=True):
            if isinstance(change, EffectFrom):
                continue  # nobody changes treatment
            due = change.months(draws, patients.arm, patients.enrolled, risk)
            changed |= due < np.minimum(course.leaves, months - patients.enrolled)
        for number, arm in enumerate(ARMS):
            mine = is_in & (patients.arm == number)
            event, gone = mine & left & course.is_event, mine & left & ~course.is_event
            for state, holds in zip(STATES, (mine, event, gone, mine & ~left, mine & changed), strict=True):
                states[arm][state][rows] = holds.sum(axis=1)
        for name, division in divisions.items():
            group = division.number[patients.index]
            for label in range(len(division.labels)):
                shares[name][rows, label] = (is_in & (group == label)).sum(axis=1) / is_in.sum(axis=1)
    return Enrolled(
        blocks * BLOCK,
        {arm: {state: Spread.of(counts) for state, counts in each.items()} for arm, each in states.items()},
        {
            name: {label: Spread.of(shares[name][:, number]) for number, label in enumerate(division.labels)}
            for name, division in divisions.items()
        },
    )
