"""Bias and coverage of differences, of survival, means and rates, each against its own truth; and what must fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from medtwin.trials import BinaryResponse, ContinuousResponse, GroupSequential, ResponseTrial, prepare_responses
from medtwin.trials.engine.batch import Stops, run_block
from medtwin.trials.engine.counterfactual import Question, true_estimands
from medtwin.trials.engine.estimates import Estimate
from medtwin.trials.engine.measure_scoring import SCORED, difference_scores
from medtwin.trials.engine.response_batch import ResponsePatients
from medtwin.trials.engine.response_scoring import Seen, response_scores, true_difference
from medtwin.trials.engine.response_trial import ResponseStudy
from medtwin.trials.engine.scoring import ALL, EARLY, Score
from tests.trials.engine.response_trials import simulated
from tests.trials.engine.test_scoring import plan

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
TAU = 15.0


def of_survival(
    looks: tuple[float, ...], blocks: int, ratio_of_truth: float = 0.6, tau: float = TAU
) -> dict[tuple[str, str], Score]:
    made = plan(looks)
    stops = Stops.join([run_block(made, 1, block, 0.6) for block in range(blocks)])
    truths = true_estimands(made, 1, ratio_of_truth, Question(SCORED, tau))
    return {(each.trials, each.measure): each for each in difference_scores(made, 1, 0.6, stops, truths, tau)}


def test_differences_of_survival_cover_their_truths_without_looks() -> None:
    """The negative control: the same trials against the truths of a hazard ratio of 0.9."""
    found, wrong = of_survival((1.0,), 6), of_survival((1.0,), 6, 0.9)
    assert {measure for _, measure in found} == set(SCORED)
    for measure in SCORED:
        right = found[ALL, measure]
        assert abs(right.coverage.value - 0.95) < 4 * right.coverage.standard_error
        assert abs(right.bias.value) < 4 * right.bias.standard_error
        assert right.truth.value > 0
        assert wrong[ALL, measure].coverage.value < 0.7
        assert wrong[ALL, measure].bias.value > 10 * wrong[ALL, measure].bias.standard_error


def test_trials_that_stop_early_exaggerate_differences_of_survival_too() -> None:
    found = of_survival((0.5, 1.0), 4, tau=5.0)
    for measure in SCORED:
        early = found[EARLY, measure]
        assert early.bias.value > 4 * early.bias.standard_error


def test_a_trial_without_so_long_a_follow_up_has_no_estimate() -> None:
    made = plan((1.0,))
    stops = run_block(made, 1, 0, 0.6)
    truths = {name: Estimate(0.0, 0.0, 0.0, 0.0) for name in SCORED}
    assert difference_scores(made, 1, 0.6, stops, truths, 400.0) == []
    with pytest.raises(ValueError, match="whole blocks of 100"):
        difference_scores(made, 1, 0.6, replace(stops, look=stops.look[:50]), truths, TAU)


FIXED = GroupSequential(looks=(1.0,), power=0.8)
MEAN = prepare_responses(ResponseTrial("m", FIXED, ContinuousResponse("pain", 3.0, 0.8, 1.6, 5.0, 0.6)), None)
RATE = prepare_responses(ResponseTrial("r", FIXED, BinaryResponse("response", 3.0, 0.3, 0.15, 2.0)), None)


def of_responses(study: ResponseStudy, blocks: int, truth: Estimate, seen: Seen | None = None) -> dict[str, Score]:
    effect = study.plan.design.response.effect
    stops = simulated(study, effect, blocks).stops
    found = response_scores(study.plan, 1, effect, stops, truth, seen=seen)
    return {each.estimator: each for each in found if each.trials == ALL}


def test_the_truth_is_that_of_the_same_patients_under_both_arms() -> None:
    mean, rate = (true_difference(each.plan, 1, each.plan.design.response.effect) for each in (MEAN, RATE))
    assert mean.value == pytest.approx(0.8)
    assert mean.standard_error < 1e-12  # the treatment adds the same to everybody
    assert abs(rate.value - 0.15) < 4 * rate.standard_error
    assert 0 < rate.standard_error < 0.005


@pytest.mark.parametrize("study", [MEAN, RATE])
def test_means_and_rates_cover_their_truths(study: ResponseStudy) -> None:
    """The negative controls: another difference; and an analysis of those who fare well, whatever the arm."""
    truth = true_difference(study.plan, 1, study.plan.design.response.effect, num_blocks=10)
    found = of_responses(study, 6, truth)
    names = list(found)
    assert names in (["t test", "analysis of covariance"], ["difference of rates", "g-computation"])
    for each in found.values():
        assert abs(each.coverage.value - 0.95) < 4 * each.coverage.standard_error + 0.003
        assert abs(each.bias.value) < 4 * each.bias.standard_error
    plain, adjusted = (found[name].mean_squared_error.value for name in names)
    assert adjusted < 0.95 * plain
    other = replace(truth, value=0.25 * truth.value)
    assert max(each.coverage.value for each in of_responses(study, 3, other).values()) < 0.75

    def fare_well(response: Floats, patients: ResponsePatients) -> Bools:
        return (response > response.mean()) | (patients.arm == 0)

    assert max(each.coverage.value for each in of_responses(study, 3, truth, fare_well).values()) < 0.5
