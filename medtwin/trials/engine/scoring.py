"""How well a design estimates: bias, mean squared error and coverage of its estimates against the true estimand.

Three ways to report a trial that may stop early: the Cox estimate with Wald's interval as if it had not looked (naive),
the median-unbiased estimate with the stagewise interval, and the Cox estimate with the repeated interval, which holds
at every look whatever the reason to stop.

Source: Jennison & Turnbull 2000, Group Sequential Methods, chapters 8 and 9; Morris, White & Crowther 2019, Stat Med
38:2074 (Monte-Carlo errors of the scores).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.analysis.survival_batch import cox_log_hazard_ratio_continuous
from medtwin.trials.design.stagewise_batch import stagewise_drifts
from medtwin.trials.engine.batch import (
    BLOCK,
    Stops,
    TrialPlan,
    course_of,
    draw_patients,
    in_order,
    snapshot,
)
from medtwin.trials.engine.estimates import Estimate, difference_of, mean_of, share_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
ESTIMATORS = ("naive", "stagewise", "repeated")
COX = "marginal_log_hazard_ratio"
ALL, EARLY, TO_THE_END = "all trials", "stopped early for efficacy", "went to the last look"


@dataclass(frozen=True)
class Reported:
    """What trials report of the log hazard ratio, (trials,) each; nan where there is no estimate.

    Attributes:
        estimate, low, high: With the interval. standard_error: Of the Cox estimate.
    """

    estimate: Floats
    low: Floats
    high: Floats
    standard_error: Floats

    def covers(self, truth: float) -> Bools:
        """Whether the interval holds the truth."""
        return np.asarray((self.low <= truth) & (truth <= self.high))


def reported(plan: TrialPlan, seed: int, hazard_ratio: float, stops: Stops) -> dict[str, Reported]:
    """What each trial reports in each of the three ways, from its patients as of its stop.

    Args:
        plan: The trial.
        seed: Of the run.
        hazard_ratio: Under which it was simulated.
        stops: How whole blocks of trials ended, from the first.

    Raises:
        ValueError: If the stops are not whole blocks.
    """
    blocks = stops.blocks()
    estimate, error = np.empty(len(stops.look)), np.empty(len(stops.look))
    for block, rows in enumerate(blocks):
        patients = draw_patients(plan, seed, block)
        data = snapshot(course_of(plan, patients, hazard_ratio), np.arange(BLOCK), stops.months[rows])
        found = cox_log_hazard_ratio_continuous(in_order(plan, data, patients.arm, patients.stratum))
        estimate[rows], error[rows] = found.estimate, found.standard_error
    return intervals(plan, stops, estimate, error)


def intervals(plan: TrialPlan, stops: Stops, estimate: Floats, error: Floats) -> dict[str, Reported]:
    """The three reports of Cox estimates and their standard errors, (trials,).

    The statistic of the stagewise ordering is the estimate over its error; the information of earlier looks is in
    proportion to their events. The repeated interval of a trial that the calendar ends has the planned last look's
    bound, which is wider than that at fewer events.
    """
    alpha, bounds = plan.design.plan.alpha, plan.design.bounds
    half = float(norm.isf(alpha)) * error
    naive = Reported(estimate, estimate - half, estimate + half, error)
    repeated_half = np.where(stops.is_capped, np.maximum(bounds.efficacy[-1], norm.isf(alpha)), 0.0)
    repeated_half = np.where(stops.is_capped, repeated_half, bounds.efficacy[stops.look]) * error
    repeated = Reported(estimate, estimate - repeated_half, estimate + repeated_half, error)
    events = np.tile(np.array(plan.design.events, dtype=np.float64), (len(estimate), 1))
    events[np.arange(len(estimate)), stops.look] = stops.events
    low, middle, high = np.full((3, len(estimate)), np.nan)
    is_known = ~np.isnan(estimate)
    drifts = stagewise_drifts(
        stops.look[is_known],
        -estimate[is_known] / error[is_known],
        events[is_known],
        bounds.efficacy,
        (alpha, 0.5, 1 - alpha),
    )
    high[is_known], middle[is_known], low[is_known] = (-drifts * error[is_known, None]).T
    return {"naive": naive, "stagewise": Reported(middle, low, high, error), "repeated": repeated}


@dataclass(frozen=True)
class Score:
    """How well trials estimate the truth, each score with its Monte-Carlo error.

    Attributes:
        estimator: Which one, such as those of `ESTIMATORS`. trials: Which of them. num_trials: How many.
        truth: Against which, of ratios the logarithm.
        bias: Mean estimate less the truth, whose Monte-Carlo error is counted in.
        mean_squared_error: Of the estimate.
        coverage: Share of the intervals that hold the truth. level: That they claim.
        above: Share of the estimates above the truth: one half where they are median-unbiased.
        measure: Of which it is the truth.
    """

    estimator: str
    trials: str
    num_trials: int
    truth: Estimate
    bias: Estimate
    mean_squared_error: Estimate
    coverage: Estimate
    level: float
    above: Estimate
    measure: str = COX


def score_of(about: tuple[str, str, str], found: tuple[Floats, Bools], truth: Estimate, level: float) -> Score:
    """The scores of some trials' estimates.

    Args:
        about: The estimator, which trials they are, and what they estimate.
        found: Estimates, nan where a trial has none, and whether their intervals hold the truth, (trials,) each.
        truth: Against which.
        level: That the intervals claim.

    Raises:
        ValueError: If fewer than two of them have an estimate.
    """
    estimator, trials, measure = about
    is_known = ~np.isnan(found[0])
    estimate, covers = found[0][is_known], found[1][is_known]
    count = len(estimate)
    if count < 2:
        raise ValueError(f"trials with an estimate must be 2 or more, got {count}")
    return Score(
        estimator,
        trials,
        count,
        truth,
        difference_of(mean_of(estimate), truth),
        mean_of((estimate - truth.value) ** 2),
        share_of(int(covers.sum()), count),
        level,
        share_of(int((estimate > truth.value).sum()), count),
        measure,
    )


def scores(
    plan: TrialPlan, seed: int, hazard_ratio: float, stops: Stops, truth: Estimate, *, least: int = 20
) -> list[Score]:
    """Every score of a scenario: of all trials, of those that stopped early for efficacy, and of the others.

    Args:
        plan: The trial.
        seed: Of the run.
        hazard_ratio: Under which it was simulated.
        stops: How whole blocks of trials ended.
        truth: The log hazard ratio that the trial is to estimate, as `true_estimands` gives it.
        least: Groups of fewer trials are left out.
    """
    found = reported(plan, seed, hazard_ratio, stops)
    return scores_of(found, stops, truth, 1 - 2 * plan.design.plan.alpha, len(plan.design.events), least=least)


def scores_of(
    found: Mapping[str, Reported],
    stops: Stops,
    truth: Estimate,
    level: float,
    num_looks: int,
    *,
    least: int = 20,
    measure: str = COX,
) -> list[Score]:
    """The same of what trials reported already, by estimator."""
    is_last = (stops.look == num_looks - 1) | stops.is_capped
    judged = {name: (each.estimate, each.covers(truth.value)) for name, each in found.items()}
    return scores_by_group(judged, stops.is_rejected, is_last, truth, level, least=least, measure=measure)


def scores_by_group(
    found: Mapping[str, tuple[Floats, Bools]],
    is_rejected: Bools,
    is_last: Bools,
    truth: Estimate,
    level: float,
    *,
    least: int,
    measure: str,
) -> list[Score]:
    """The scores of all trials, of those that stopped early for efficacy, and of those that came to their last look.

    Args:
        found: By estimator, as `score_of` takes them.
        is_rejected: (trials,) the null was rejected at the stop.
        is_last: (trials,) the stop was at the last look.
        truth: Against which.
        level: That the intervals claim.
        least: Groups of fewer trials with an estimate are left out.
        measure: What is estimated.
    """
    groups = {ALL: np.ones(len(is_last), dtype=np.bool_), EARLY: is_rejected & ~is_last, TO_THE_END: is_last}
    return [
        score_of((name, group, measure), (estimate[members], covers[members]), truth, level)
        for group, members in groups.items()
        for name, (estimate, covers) in found.items()
        if (~np.isnan(estimate[members])).sum() >= least
    ]
