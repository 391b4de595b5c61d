"""How well trials of means and rates estimate: bias and coverage against the true value from counterfactual twins.

The truth is the mean difference, or the risk difference, of the same patients under both arms. Each way to estimate it
is scored on the same trials, as of their stops, with an interval that knows of no looks.

Source: Morris, White & Crowther 2019, Stat Med 38:2074 (scores and their Monte-Carlo errors).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.engine.course import BLOCK
from medtwin.trials.engine.estimates import Estimate, mean_of
from medtwin.trials.engine.response_batch import (
    ResponsePatients,
    ResponsePlan,
    ResponseStops,
    draw_patients,
    responses_of,
)
from medtwin.trials.engine.response_tests import (
    CovarianceAnalysis,
    ResponseTest,
    ScoreTestOfRates,
    StandardisedRates,
    StudentTest,
    analyse,
)
from medtwin.trials.engine.scoring import Score, scores_by_group
from medtwin.trials.outcome.response import SCORE

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
MEAN_DIFFERENCE, RISK_DIFFERENCE = "mean_difference", "risk_difference"
Seen = Callable[[Floats, ResponsePatients], Bools]
_GROUP = 10  # trials whose patients make one estimate


def estimators_of(plan: ResponsePlan) -> dict[str, ResponseTest]:
    """Ways to estimate the trial's difference, by name: its own, and the usual one without covariates or with them."""
    named = plan.test.covariates or (SCORE,)
    if plan.test.is_binary:
        return {"difference of rates": ScoreTestOfRates(), "g-computation": StandardisedRates(named)}
    return {"t test": StudentTest(), "analysis of covariance": CovarianceAnalysis(named)}


def measure_of(plan: ResponsePlan) -> str:
    """What the trial's difference is."""
    return RISK_DIFFERENCE if plan.test.is_binary else MEAN_DIFFERENCE


def true_difference(plan: ResponsePlan, seed: int, effect: float, *, num_blocks: int = 4) -> Estimate:
    """The difference between the same patients under both arms, with the same noise.

    Args:
        plan: The trial.
        seed: Of the draws, apart from the trials'.
        effect: Of the scenario.
        num_blocks: Blocks of 100 trials' patients, each under both arms.
    """
    drawn = []
    for block in range(num_blocks):
        patients = draw_patients(plan, seed, block, "both arms")
        control, treated = (responses_of(plan, patients, effect, np.full_like(patients.arm, arm)) for arm in (0, 1))
        drawn.append((treated - control).reshape(BLOCK // _GROUP, -1).mean(axis=1))
    return mean_of(np.concatenate(drawn))


def response_scores(
    plan: ResponsePlan,
    seed: int,
    effect: float,
    stops: ResponseStops,
    truth: Estimate,
    *,
    seen: Seen | None = None,
    least: int = 20,
) -> list[Score]:
    """Every score of a scenario: of all trials, of those that stopped early for efficacy, and of the others.

    Args:
        plan: The trial.
        seed: Of the run.
        effect: Of the scenario.
        stops: How whole blocks of trials ended, from the first.
        truth: As `true_difference` gives it.
        seen: Of responses and patients, who of those whose outcome is read is analysed; None: all.
        least: Groups of fewer trials are left out.

    Raises:
        ValueError: If the stops are not whole blocks.
    """
    blocks = stops.blocks()
    tests = estimators_of(plan)
    level = 1 - 2 * plan.design.plan.alpha
    limit = float(norm.ppf(0.5 + level / 2))
    estimate, covers = np.full((len(tests), len(stops.look)), np.nan), np.zeros((len(tests), len(stops.look)), np.bool_)
    for block, rows in enumerate(blocks):
        patients = draw_patients(plan, seed, block)
        response = responses_of(plan, patients, effect)
        known = patients.is_observed & (patients.resolved <= stops.months[rows, None])
        if seen is not None:
            known &= seen(response, patients)
        for place, test in enumerate(tests.values()):
            x = plan.pool.columns(test.covariates)[patients.index]
            found = analyse(test, (response, patients.arm, known, x), plan.design.null, truth.value)
            estimate[place, rows] = np.where(np.isnan(found.z_truth), np.nan, found.estimate)
            covers[place, rows] = np.abs(found.z_truth) <= limit
    judged = {name: (estimate[place], covers[place]) for place, name in enumerate(tests)}
    ends = stops.is_rejected, stops.is_last
    return scores_by_group(judged, *ends, truth, level, least=least, measure=measure_of(plan))
