from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.repeated_intervals import stagewise_inference
from medtwin.trials.design.spending import Spending
from medtwin.trials.design.stagewise_batch import stagewise_drifts
from medtwin.trials.engine.batch import Stops, TrialPlan, mean_of, run_block
from medtwin.trials.engine.counterfactual import Question, true_estimands
from medtwin.trials.engine.scoring import ALL, COX, EARLY, Reported, Score, score_of, scores
from medtwin.trials.enrolment.accrual import RampedAccrual
from medtwin.trials.enrolment.adherence import Dropout
from medtwin.trials.outcome.prognosis import AssumedOutcome

NAME = "marginal_log_hazard_ratio"


def plan(looks: tuple[float, ...], sd: float = 0.0) -> TrialPlan:
    design = SurvivalDesign(GroupSequential(looks=looks, power=0.8, efficacy=Spending("pocock")), 0.6)
    pool = AssumedOutcome(12.0, sd).pool(np.random.default_rng(0), 400)
    return TrialPlan(design, pool, 240, RampedAccrual(12, 3).of_size(240), Dropout.of_share(0.05), 90.0)


def scored(
    made: TrialPlan, blocks: int, hazard_ratio: float = 0.6, wrong: float | None = None
) -> dict[tuple[str, str], Score]:
    stops = Stops.join([run_block(made, 1, block, hazard_ratio) for block in range(blocks)])
    truth = true_estimands(made, 1, hazard_ratio, Question())[NAME]
    if wrong is not None:
        truth = replace(truth, value=wrong)
    return {(each.trials, each.estimator): each for each in scores(made, 1, hazard_ratio, stops, truth)}


def test_tables_agree_with_the_inversion_of_one_trial() -> None:
    bounds = GroupSequential(looks=(0.4, 0.7, 1.0)).bounds.efficacy
    look = np.array([0, 1, 1, 2, 2, 2])
    z, information = np.array([3.4, 2.5, 0.3, 1.2, 2.6, -1.5]), np.tile([40.0, 70.0, 100.0], (6, 1))
    found = stagewise_drifts(look, z, information, bounds)
    for row in range(6):
        one = stagewise_inference(int(look[row]) + 1, z[row], information[row], bounds)
        scale = np.sqrt(information[row, look[row]])
        np.testing.assert_allclose(found[row] / scale, [one.lower, one.estimate, one.upper], atol=1e-3 / scale)


def test_a_design_without_looks_covers_as_it_claims() -> None:
    found = scored(plan((1.0,)), 12)
    naive = found[ALL, "naive"]
    assert abs(naive.coverage.value - 0.95) < 4 * naive.coverage.standard_error
    assert abs(naive.bias.value) < 4 * naive.bias.standard_error + 0.01
    for name in ("bias", "coverage", "mean_squared_error"):  # without looks all three are the same
        assert getattr(found[ALL, "stagewise"], name).value == pytest.approx(getattr(naive, name).value, abs=1e-9)


def test_trials_that_stop_early_exaggerate_and_the_adjusted_estimate_does_less() -> None:
    found = scored(plan((0.33, 0.67, 1.0)), 16)
    naive, adjusted, repeated = (found[ALL, name] for name in ("naive", "stagewise", "repeated"))
    assert naive.bias.high < 0  # log hazard ratio too low: the effect too large
    assert abs(adjusted.bias.value) < 0.75 * abs(naive.bias.value)  # unbiased is its median, not its mean
    assert found[EARLY, "naive"].bias.value < 2 * naive.bias.value
    assert abs(adjusted.coverage.value - 0.95) < 4 * adjusted.coverage.standard_error
    assert repeated.coverage.low > 0.95
    assert abs(adjusted.above.value - 0.5) < 4 * adjusted.above.standard_error
    assert naive.above.value < 0.5 - 2 * naive.above.standard_error


def test_against_a_wrong_truth_coverage_falls() -> None:
    """Where risks differ much, the hazard ratio of each patient is not what the trial estimates."""
    made = plan((1.0,), 1.5)
    right, wrong = scored(made, 8), scored(made, 8, wrong=float(np.log(0.6)))
    assert abs(right[ALL, "naive"].coverage.value - 0.95) < 4 * right[ALL, "naive"].coverage.standard_error
    assert wrong[ALL, "naive"].coverage.high < 0.93
    assert wrong[ALL, "naive"].bias.low > 0.05


def test_scores_by_hand() -> None:
    estimate = np.array([0.0, 1.0, np.nan, 2.0])
    found = Reported(estimate, estimate - 0.5, estimate + 0.5, np.ones(4))
    truth = replace(mean_of(np.array([1.0, 1.0])), standard_error=0.0)
    judged, about = (found.estimate, found.covers(truth.value)), ("naive", ALL, COX)
    one = score_of(about, judged, truth, 0.95)
    assert (one.num_trials, one.bias.value, one.coverage.value) == (3, 0.0, pytest.approx(1 / 3))
    assert one.mean_squared_error.value == pytest.approx(2 / 3)
    assert one.above.value == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="trials with an estimate must be 2 or more, got 1"):
        score_of(about, (estimate[::2], judged[1][::2]), truth, 0.95)
