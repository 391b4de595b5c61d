"""What a simulated trial of means or rates estimates, and how well: its true values, bias and coverage; scores.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtwin.pipelines.simulate_tables import number
from medtwin.report import Section, Table
from medtwin.trials.engine.response_batch import ResponseCharacteristics
from medtwin.trials.engine.response_scenarios import EffectScenario
from medtwin.trials.engine.response_scoring import response_scores, true_difference
from medtwin.trials.engine.response_trial import ResponseStudy
from medtwin.trials.engine.scoring import Score

Cell = str | int | float | None
_MOST_BLOCKS = 20
_MAIN = ("alternative", "null")


@dataclass(frozen=True)
class ResponseScore:
    """A score, and under which scenario and difference."""

    scenario: str
    difference: float
    score: Score


def scores_of_responses(
    study: ResponseStudy, pairs: Sequence[tuple[EffectScenario, ResponseCharacteristics]], seed: int
) -> list[ResponseScore]:
    """How well the trial's difference is estimated, by up to 2,000 trials of the alternative and the null.

    Args:
        study: The trial on its patients, as it is.
        pairs: Scenarios with what was found.
        seed: Of the run.
    """
    found = []
    for scenario, each in pairs:
        if scenario.name not in _MAIN:
            continue
        stops = each.stops.first_blocks(_MOST_BLOCKS)
        truth = true_difference(study.plan, seed, scenario.effect)
        for score in response_scores(study.plan, seed, scenario.effect, stops, truth):
            found.append(ResponseScore(scenario.name, scenario.effect, score))
    return found


def response_score_columns(found: Sequence[ResponseScore]) -> dict[str, Sequence[object]]:
    """The columns of scores.csv, those of trials of times to events with a difference for the hazard ratio."""
    rows = [_record(each) for each in found]
    names = [
        "scenario", "difference", "measure", "trials", "estimate", "num_trials", "true_value",
        "truth_mc_standard_error", "bias", "bias_mc_standard_error", "mean_squared_error", "coverage",
        "coverage_mc_standard_error", "level", "share_above_truth",
    ]  # fmt: skip
    return {name: [row[name] for row in rows] for name in names}


def response_score_records(found: Sequence[ResponseScore]) -> list[Mapping[str, Any]]:
    """The same for report.json."""
    return [_record(each) for each in found]


def _record(each: ResponseScore) -> Mapping[str, Any]:
    score = each.score
    return {
        "scenario": each.scenario,
        "difference": number(each.difference),
        "measure": score.measure,
        "trials": score.trials,
        "estimate": score.estimator,
        "num_trials": score.num_trials,
        "true_value": number(score.truth.value),
        "truth_mc_standard_error": number(score.truth.standard_error),
        "bias": number(score.bias.value),
        "bias_mc_standard_error": number(score.bias.standard_error),
        "mean_squared_error": number(score.mean_squared_error.value),
        "coverage": number(score.coverage.value),
        "coverage_mc_standard_error": number(score.coverage.standard_error),
        "level": number(score.level),
        "share_above_truth": number(score.above.value),
    }


def response_score_section(found: Sequence[ResponseScore]) -> Section:
    """The section of the report."""
    rows: list[list[Cell]] = [
        [
            f"difference {each.difference:g}",
            each.score.trials,
            each.score.estimator,
            each.score.num_trials,
            f"{each.score.truth.value:.4f} ± {each.score.truth.standard_error:.4f}",
            f"{each.score.bias.value:+.4f} ± {each.score.bias.standard_error:.4f}",
            f"{math.sqrt(each.score.mean_squared_error.value):.4f}",
            f"{each.score.coverage.value:.4f} ± {each.score.coverage.standard_error:.4f}",
        ]
        for each in found
    ]
    columns = ["scenario", "trials", "estimate", "n", "truth", "bias", "root mean squared error", "coverage"]
    level = found[0].score.level if found else 0.95
    text = (
        "The true value is the mean difference between the same patients under both arms, with the same noise. Each "
        "estimate is of the same trials, as of their stops; its interval knows of no looks. Trials that stop early "
        "exaggerate: given that a trial stopped early, no interval need cover as it claims."
    )
    note = f"Intervals claim {level:.0%}; ± is the Monte-Carlo standard error."
    table = Table(columns, rows, "Estimates against the truth", note)
    return Section("What is estimated, and how well", [text], [table])
