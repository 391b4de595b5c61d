"""How well trials estimate differences of survival, each against its own true value from counterfactual twins.

As of a trial's stop: the difference of restricted means and that of survival at a milestone, by Kaplan and Meier's
curves with Wald's interval that knows of no looks. A trial that stops before both arms are followed so long has none.

Source: Uno et al. 2014, J Clin Oncol 32:2380; Klein et al. 2007, Stat Med 26:4505 (survival at a milestone).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.analysis.batched.survival_curves import restricted_mean_difference, survival_at
from medtwin.trials.analysis.batched.survival_order import order_trials
from medtwin.trials.engine.batch import BLOCK, Stops, TrialPlan, course_of, draw_patients, snapshot
from medtwin.trials.engine.counterfactual import Measure
from medtwin.trials.engine.estimates import Estimate
from medtwin.trials.engine.scoring import Reported, Score, scores_of

Floats = NDArray[np.float64]
SCORED: tuple[Measure, ...] = ("restricted_mean_difference", "milestone_difference")
KAPLAN_MEIER = "Kaplan-Meier"


def reported_differences(
    plan: TrialPlan, seed: int, hazard_ratio: float, stops: Stops, tau: float
) -> dict[Measure, Reported]:
    """What each trial reports of the differences of survival, from its patients as of its stop.

    Args:
        plan: The trial.
        seed: Of the run.
        hazard_ratio: Under which it was simulated.
        stops: How whole blocks of trials ended, from the first.
        tau: Months since randomisation.

    Raises:
        ValueError: If the stops are not whole blocks, or tau is not above 0.
    """
    blocks = stops.blocks()
    estimate, error = np.full((2, len(SCORED), len(stops.look)), np.nan)
    for block, rows in enumerate(blocks):
        patients = draw_patients(plan, seed, block)
        data = snapshot(course_of(plan, patients, hazard_ratio), np.arange(BLOCK), stops.months[rows])
        trials = order_trials(data.time, data.event, patients.arm)
        means, curves = restricted_mean_difference(trials, tau), survival_at(trials, [tau])
        estimate[0, rows], error[0, rows] = means.estimate, means.standard_error
        estimate[1, rows] = (curves.experimental - curves.control)[:, 0]
        error[1, rows] = np.hypot(curves.experimental_error, curves.control_error)[:, 0]
    half = float(norm.isf(plan.design.plan.alpha)) * error
    is_known = ~np.isnan(estimate + half)
    found = np.where(is_known, estimate, np.nan)
    return {name: Reported(found[n], found[n] - half[n], found[n] + half[n], error[n]) for n, name in enumerate(SCORED)}


def difference_scores(
    plan: TrialPlan,
    seed: int,
    hazard_ratio: float,
    stops: Stops,
    truths: Mapping[Measure, Estimate],
    tau: float,
    *,
    least: int = 20,
) -> list[Score]:
    """The scores of the differences that have a truth: of all trials, those that stopped early, and the others.

    Args:
        plan: The trial.
        seed: Of the run.
        hazard_ratio: Of the scenario.
        stops: How whole blocks of trials ended.
        truths: As `true_estimands` gives them until tau.
        tau: Months since randomisation.
        least: Groups of fewer trials with an estimate are left out.
    """
    found = reported_differences(plan, seed, hazard_ratio, stops, tau)
    level, num_looks = 1 - 2 * plan.design.plan.alpha, len(plan.design.events)
    names: Sequence[Measure] = [name for name in SCORED if name in truths]
    return [
        each
        for name in names
        for each in scores_of(
            {KAPLAN_MEIER: found[name]}, stops, truths[name], level, num_looks, least=least, measure=name
        )
    ]
