"""Simulates many two-arm trials with an endpoint that is read some months after randomisation, patient by patient.

Patient j of trial i depends on (seed, i, j) alone and keeps its draws at every look, in either arm and under every
effect. An early look comes with as many outcomes as planned; the last when every patient has an outcome or has left, or
by the calendar, with as many outcomes as there are then: it spends the rest of alpha at the information observed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.engine.course import BLOCK
from medtwin.trials.engine.estimates import Estimate, mean_of, share_of
from medtwin.trials.engine.levels import SEX, levels_of
from medtwin.trials.engine.response_design import ResponseDesign
from medtwin.trials.engine.response_tests import ResponseTest, StudentTest, analyse
from medtwin.trials.engine.stopped import (
    Stopped,
    StoppedCharacteristics,
    no_counts,
    no_marks,
    no_numbers,
    still_running,
)
from medtwin.trials.enrolment.accrual import Accrual
from medtwin.trials.enrolment.adherence import Dropout
from medtwin.trials.enrolment.draws import TrialDraws
from medtwin.trials.enrolment.randomisation import PermutedBlocks, Randomisation, assign_in_order, ratio_parts
from medtwin.trials.outcome.response import Response, ResponsePool

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_NEARLY_1 = 2.0**-54
_LEVEL_95 = 1.959963984540054


@dataclass(frozen=True)
class ResponsePlan:
    """Everything that a simulated trial needs but its effect.

    Attributes:
        design: Looks at outcomes, bounds. pool: Where patients come from.
        num_subjects: Patients to enrol. accrual: How they come. dropout: How they leave, without an outcome then.
        max_months: The trial is analysed for the last time then, whatever its outcomes.
        test: Of each look. randomisation: To the arms, in the design's ratio.
        truth: The endpoint as it is where that is not as it was planned; None: as planned.

    Raises:
        ValueError: If there are no more patients than an early look wants outcomes, so many can never be enrolled, the
            randomisation cannot allocate in the ratio, or the pool lacks a covariate.
    """

    design: ResponseDesign
    pool: ResponsePool
    num_subjects: int
    accrual: Accrual
    dropout: Dropout
    max_months: float
    test: ResponseTest = field(default_factory=StudentTest)
    randomisation: Randomisation = field(default_factory=lambda: PermutedBlocks(4, (SEX,)))
    truth: Response | None = None

    def __post_init__(self) -> None:
        early = self.design.outcomes[-2] if len(self.design.outcomes) > 1 else 1
        if self.num_subjects <= early:
            raise ValueError(
                f"num_subjects must be above the {early} outcomes of an early look, got {self.num_subjects}"
            )
        self.accrual.of_size(self.num_subjects)
        self.randomisation.check(self.parts)
        nobody = np.zeros((1, 0), dtype=np.int64)
        levels_of(self.randomisation.balanced, self.pool, nobody, nobody)
        _ = self.covariates

    @property
    def response(self) -> Response:
        """The endpoint as it is."""
        return self.design.response if self.truth is None else self.truth

    @cached_property
    def law(self) -> ResponseDesign:
        """The design's tests under the endpoint as it is; its looks and bounds are `design`'s."""
        return self.design if self.truth is None else replace(self.design, response=self.truth)

    @property
    def parts(self) -> tuple[int, int]:
        """Of the allocation ratio, the control's first."""
        return ratio_parts(self.design.allocation_ratio)

    @cached_property
    def enroll_rate(self) -> PiecewiseRate:
        """Patients randomised per month, in expectation."""
        return self.accrual.enroll_rate(self.num_subjects)

    @cached_property
    def covariates(self) -> Floats:
        """Of everyone in the pool, (pool, covariates), as the test adjusts for them."""
        return self.pool.columns(self.test.covariates)

    @cached_property
    def retained(self) -> float:
        """The share of patients who stay until their outcome is read."""
        shares = [float(np.exp(-each.cumulative(self.design.response.months))) for each in self.dropout.arms]
        return float(np.average(shares, weights=self.parts))


@dataclass(frozen=True)
class ResponsePatients:
    """The patients of a block of trials before treatment acts, (trials, patients) each, in order of screening.

    Attributes:
        index: Into the pool. arm: 1 experimental. enrolled: Calendar month. site: Number of the site.
        chance: In (0, 1), what the response is drawn by. leaves: Months from randomisation to leaving, if in the arm.
        is_observed: Stays until the outcome is read. resolved: Calendar month of the outcome or of leaving before it.
    """

    index: Ints
    arm: Ints
    enrolled: Floats
    site: Ints
    chance: Floats
    leaves: Floats
    is_observed: Bools
    resolved: Floats


def draw_patients(plan: ResponsePlan, seed: int, block: int, scope: str = "trial") -> ResponsePatients:
    """The patients of one block of trials: the same under every effect.

    Args:
        plan: The trial.
        seed: Of the run.
        block: Which hundred trials.
        scope: Draws of different scopes are independent.
    """
    draws, count = TrialDraws(seed, BLOCK, block * BLOCK, scope), plan.num_subjects
    index = (draws.uniform(count, "patient") * len(plan.pool.score)).astype(np.int64)
    enrolment = plan.accrual.enrol(draws, count)
    levels = levels_of(plan.randomisation.balanced, plan.pool, index, enrolment.site)
    order = None if plan.accrual.screening.lag is None else enrolment.order
    arm = assign_in_order(plan.randomisation, levels, plan.parts, draws, order)
    leaves = plan.dropout.months(draws.exponential(count, "dropout"), arm)
    chance = draws.uniform(count, "response") + _NEARLY_1
    months = plan.design.response.months
    resolved = enrolment.enrolled + np.minimum(leaves, months)
    return ResponsePatients(index, arm, enrolment.enrolled, enrolment.site, chance, leaves, leaves >= months, resolved)


def responses_of(plan: ResponsePlan, patients: ResponsePatients, effect: float, arm: Ints | None = None) -> Floats:
    """The responses of all patients, those who leave among them, (trials, patients).

    Args:
        plan: The trial.
        patients: Of a block.
        effect: True difference.
        arm: Of each; None: the one that they are in.
    """
    response = plan.response
    expected = response.expected(plan.pool.score, effect)
    return response.drawn(expected[patients.arm if arm is None else arm, patients.index], patients.chance)


@dataclass(frozen=True)
class ResponseStops(Stopped):
    """How a block of trials with an endpoint that is read once ended, (trials,) each.

    Attributes:
        is_last: Came to its last look. outcomes: Read by the stop.
        estimate: Difference then, nan where there is none. is_covered: Whether its 95 % interval, which knows of no
            other looks, holds the true one.
    """

    is_last: Bools
    outcomes: Ints
    estimate: Floats
    is_covered: Floats


def run_trials(
    plan: ResponsePlan, patients: ResponsePatients, effect: float, *, obeys_futility: bool = True
) -> ResponseStops:
    """Simulates trials of given patients to their ends.

    Args:
        plan: The trial.
        patients: Of a block.
        effect: True difference, experimental less control.
        obeys_futility: Whether a trial stops at a futility bound.
    """
    design, bounds = plan.design, plan.design.bounds
    response = responses_of(plan, patients, effect)
    read = np.where(patients.is_observed, patients.resolved, np.inf)
    in_time = np.sort(read, axis=1)
    end = np.minimum(patients.resolved.max(axis=1), plan.max_months)
    in_all = (read <= end[:, None]).sum(axis=1)
    num = len(read)
    stops = ResponseStops(
        *still_running(num, len(design.outcomes)), no_marks(num), no_counts(num), no_numbers(num), no_numbers(num)
    )
    running = np.arange(len(read))
    for k, wanted in enumerate(design.outcomes):
        is_last = (in_all[running] <= wanted) | (k + 1 == len(design.outcomes))
        months = np.where(is_last, end[running], in_time[running, min(wanted, in_time.shape[1]) - 1])
        known = read[running] <= months[:, None]
        outcomes = known.sum(axis=1)
        data = response[running], patients.arm[running], known, plan.covariates[patients.index[running]]
        found = analyse(plan.test, data, design.null, effect)
        z = design.sign * found.z
        limit = np.full(len(running), bounds.efficacy[k])
        for count in np.unique(outcomes[is_last]).tolist():
            limit[is_last & (outcomes == count)] = design.last_bound(k, count)
        is_rejected = z >= limit
        is_futile = ~is_rejected & ~is_last & (z <= bounds.futility[k]) & obeys_futility
        stops.z[running, k] = z
        is_stopped = is_last | is_rejected | is_futile
        rows = running[is_stopped]
        stops.look[rows] = k
        for mine, values in (
            (stops.is_rejected, is_rejected),
            (stops.is_futile, is_futile),
            (stops.is_last, is_last),
            (stops.outcomes, outcomes),
            (stops.months, months),
            (stops.estimate, found.estimate),
            (stops.is_covered, np.where(np.isnan(found.z_truth), np.nan, np.abs(found.z_truth) <= _LEVEL_95)),
        ):
            mine[rows] = values[is_stopped]
        running = running[~is_stopped]
        if not len(running):
            break
    np.sum(patients.enrolled <= stops.months[:, None], axis=1, out=stops.subjects)
    return stops


@dataclass(frozen=True)
class ResponseCharacteristics(StoppedCharacteristics):
    """The operating characteristics under one effect.

    Attributes:
        effect: True difference. stops: How every trial ended.
    """

    effect: float
    stops: ResponseStops

    @cached_property
    def outcomes(self) -> Estimate:
        """Mean outcomes at the stop."""
        return mean_of(self.stops.outcomes.astype(np.float64))

    @cached_property
    def estimate(self) -> Estimate:
        """Mean estimated difference at the stop."""
        return mean_of(self.stops.estimate)

    @cached_property
    def bias(self) -> Estimate:
        """Mean estimate at the stop less the true difference."""
        return mean_of(self.stops.estimate - self.effect)

    @cached_property
    def coverage(self) -> Estimate:
        """Share of the 95 % intervals at the stop that hold the true difference."""
        known = self.stops.is_covered[~np.isnan(self.stops.is_covered)]
        return share_of(int(known.sum()), max(len(known), 1))
