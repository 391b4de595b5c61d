"""Differences of survival, means and rates scored against their true values, with controls that must fail."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from medtwin.trials import BinaryResponse, ContinuousResponse, GroupSequential, ResponseTrial, prepare_responses
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.batch import Estimate, Stops, TrialPlan, run_block
from medtwin.trials.engine.counterfactual import Measure, Question, true_estimands
from medtwin.trials.engine.measure_scoring import SCORED, difference_scores
from medtwin.trials.engine.response_batch import (
    ResponsePatients,
    ResponsePlan,
    ResponseStops,
    draw_patients,
    run_trials,
)
from medtwin.trials.engine.response_scoring import response_scores, true_difference
from medtwin.trials.engine.scoring import ALL, EARLY, Score

HEAD = ("design", "measure", "trials", "estimate", "n", "truth", "bias", "root mean squared error", "coverage")
POCOCK = GroupSequential(looks=(0.5, 1.0), power=0.85, efficacy=Spending("pocock"))
ONE = GroupSequential(looks=(1.0,), power=0.85)
NUMBER = ContinuousResponse("pain", 3.0, 0.8, 2.0, 5.0, 0.6)
ANSWER = BinaryResponse("response", 3.0, 0.3, 0.15, 2.0)


def survival_rows(plans: Mapping[str, TrialPlan], seed: int, ratio: float, tau: float, blocks: int) -> Iterator[str]:
    """Lines of designs of times to events; then of the first against the truths of a quarter of the horizon.

    Args:
        plans: Name to design.
        seed: Of the run.
        ratio: Hazard ratio.
        tau: Horizon.
        blocks: Of 100 trials.
    """
    for number, (name, plan) in enumerate(plans.items()):
        stops = Stops.join([run_block(plan, seed, block, ratio) for block in range(blocks)])
        truths = true_estimands(plan, seed, ratio, Question(SCORED, tau), num_blocks=20)
        yield from _survival(name, plan, stops, truths, (seed, ratio, tau), (ALL, EARLY))
        if not number:
            other = true_estimands(plan, seed, ratio, Question(SCORED, tau / 4), num_blocks=20)
            what = f"**wrong**: of month {tau / 4:g}"
            yield from _survival(what, plan, stops, other, (seed, ratio, tau), (ALL,))


def _survival(
    name: str,
    plan: TrialPlan,
    stops: Stops,
    truths: Mapping[Measure, Estimate],
    run: tuple[int, float, float],
    groups: Sequence[str],
) -> Iterator[str]:
    seed, ratio, tau = run
    for each in difference_scores(plan, seed, ratio, stops, truths, tau):
        if each.trials in groups:
            yield row(name, each)


def response_rows(seed: int, blocks: int) -> Iterator[str]:
    """Lines of means and rates, with one look and two; then of those whose analysis or estimand is wrong.

    Args:
        seed: Of the run.
        blocks: Of 100 trials.
    """
    for response in (NUMBER, ANSWER):
        for name, design in (("one look", ONE), ("two looks, pocock", POCOCK)):
            plan = prepare_responses(ResponseTrial(name, design, response), None).plan
            effect = response.effect
            parts = [run_trials(plan, draw_patients(plan, seed, block), effect) for block in range(blocks)]
            stops, truth = ResponseStops.join(parts), true_difference(plan, seed, effect, num_blocks=20)
            for each in response_scores(plan, seed, effect, stops, truth):
                if each.trials in (ALL, EARLY):
                    yield row(name, each)
            if design is ONE:
                yield from _wrong_rows(plan, seed, stops, truth)


def _wrong_rows(plan: ResponsePlan, seed: int, stops: ResponseStops, truth: Estimate) -> Iterator[str]:
    effect = plan.design.response.effect
    wrong = {"who fares badly with treatment leaves": response_scores(plan, seed, effect, stops, truth, seen=well)}
    if plan.test.is_binary:
        wrong["difference for the average patient"] = response_scores(plan, seed, effect, stops, of_average(plan))
    for what, found in wrong.items():
        yield from (row(f"**wrong**: {what}", each) for each in found if each.trials == ALL)


def well(response: np.ndarray, patients: ResponsePatients) -> np.ndarray:
    """Of the controls all, of the others those in the upper 70 % of the responses, or who respond."""
    return (response >= np.quantile(response, 0.3)) & (response > response.min()) | (patients.arm == 0)


def of_average(plan: ResponsePlan) -> Estimate:
    """The risk difference of a patient whose score is 0: logistic models do not collapse."""
    control, treated = plan.response.expected(plan.pool.score, plan.response.effect)
    place = int(np.argmin(np.abs(plan.pool.score)))
    value = float(treated[place] - control[place])
    return Estimate(value, 0.0, value, value)


def row(what: str, each: Score) -> str:
    """A line of the table."""
    return (
        f"| {what} | {each.measure.replace('_', ' ')} | {each.trials} | {each.estimator} | {each.num_trials:,} | "
        f"{each.truth.value:.4f} | {each.bias.value:+.4f} ± {each.bias.standard_error:.4f} | "
        f"{math.sqrt(each.mean_squared_error.value):.4f} | "
        f"{each.coverage.value:.4f} ± {each.coverage.standard_error:.4f} |"
    )
