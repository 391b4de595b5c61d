"""What a simulated trial estimates, and how well: the estimand, its true values, bias and coverage; scores.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.report import Section, Table
from medtwin.trials import Study
from medtwin.trials.engine.batch import Characteristics, Estimate
from medtwin.trials.engine.counterfactual import Measure, Question, true_estimands
from medtwin.trials.engine.estimand import Attribute, attributes
from medtwin.trials.engine.measure_scoring import SCORED, difference_scores
from medtwin.trials.engine.scenarios import Scenario
from medtwin.trials.engine.scoring import Score, scores

Cell = str | int | float | None
Bools = NDArray[np.bool_]
_MOST_BLOCKS = 20
_OLD = 65.0  # ICH E7 counts the old from 65
_MARGINAL: Measure = "marginal_log_hazard_ratio"


@dataclass(frozen=True)
class Truth:
    """A true value: of which scenario, group and measure; ratios as logarithms."""

    scenario: str
    hazard_ratio: float
    group: str
    measure: Measure
    estimate: Estimate


@dataclass(frozen=True)
class Estimation:
    """The estimand of a trial, its true values, and the scores of each scenario; of differences, until `tau_months`."""

    attributes: Sequence[Attribute]
    truths: Sequence[Truth]
    scores: Sequence[tuple[Scenario, Score]]
    tau_months: float | None = None


def estimation(
    study: Study, pairs: Sequence[tuple[Scenario, Characteristics]], seed: int, *, blocks: int = 4
) -> Estimation:
    """The estimand of a trial and how well it is estimated, by up to 2,000 trials of each scenario.

    Args:
        study: The trial on its patients.
        pairs: Scenarios with what was found.
        seed: Of the run.
        blocks: Of 100 trials' patients under both arms, for each true value.
    """
    trial, plan = study.trial, study.plan
    stated = trial.estimand
    measures = tuple(dict.fromkeys((_MARGINAL, *(stated.log_measures if stated is not None else ()))))
    tau = stated.tau_months if stated is not None else None
    if "while_on_treatment" not in plan.handling:  # else survival is not defined after treatment ends
        until = min(trial.follow_up_months, trial.endpoint.horizon_months or math.inf)
        tau = until if tau is None else tau
        measures = tuple(dict.fromkeys((*measures, *SCORED)))
    truths: list[Truth] = []
    scored: list[tuple[Scenario, Score]] = []
    for scenario, found in pairs:
        ratio = scenario.hazard_ratio
        true = true_estimands(plan, seed, ratio, Question(measures, tau), num_blocks=blocks)
        truths += [Truth(scenario.name, ratio, "all", name, estimate) for name, estimate in true.items()]
        if plan.pool.effect is not None and ratio != 1:
            for group, members in subgroups(study).items():
                own = true_estimands(plan, seed, ratio, Question(members=members), num_blocks=blocks)
                truths.append(Truth(scenario.name, ratio, group, _MARGINAL, own[_MARGINAL]))
        some = found.stops.first_blocks(_MOST_BLOCKS)
        scored += [(scenario, each) for each in scores(plan, seed, ratio, some, true[_MARGINAL])]
        if tau is not None:
            scored += [(scenario, each) for each in difference_scores(plan, seed, ratio, some, true, tau)]
    criteria = [criterion.label for criterion in trial.criteria] if study.attrition else []
    return Estimation(attributes(stated, trial.endpoint, criteria, plan.changes), truths, scored, tau)


def subgroups(study: Study) -> dict[str, Bools]:
    """Groups of the pool in which the effect is told apart: women, others, those below 65 and from then on."""
    covariates = study.plan.pool.baseline
    if covariates is None:
        middle = np.median(study.plan.pool.log_risk)
        is_high = study.plan.pool.log_risk > middle
        found = {"lower half of the risks": ~is_high, "upper half of the risks": is_high}
    else:
        is_woman, age = covariates.sex == "F", covariates.values[:, list(covariates.names).index("age_years")]
        found = {"women": is_woman, "others": ~is_woman, "below 65": age < _OLD, "65 and over": age >= _OLD}
    return {name: members for name, members in found.items() if members.any()}


def estimation_section(found: Estimation) -> Section:
    """The section of the report."""
    told = [[each.name, each.text] for each in found.attributes]
    block = Table(["attribute", "here"], told, "Estimand (ICH E9(R1))")
    rows: list[list[Cell]] = []
    for each in found.truths:
        is_ratio = each.measure.endswith("log_hazard_ratio")
        name = each.measure.replace("_log_", "_").replace("_", " ")
        value = math.exp(each.estimate.value) if is_ratio else each.estimate.value
        error = value * each.estimate.standard_error if is_ratio else each.estimate.standard_error
        rows.append([each.scenario, each.group, name, f"{value:.4f} ± {error:.4f}"])
    truths = Table(
        ["scenario", "patients", "measure", "true value ± Monte-Carlo error"], rows, "True values",
        "From the same patients under both arms with the same noise.",
    )  # fmt: skip
    lines: list[list[Cell]] = [
        [
            f"HR {scenario.hazard_ratio:g}",
            each.measure.replace("marginal_log", "log").replace("_", " "),
            each.trials,
            each.estimator,
            each.num_trials,
            f"{each.bias.value:+.4f} ± {each.bias.standard_error:.4f}",
            f"{math.sqrt(each.mean_squared_error.value):.4f}",
            f"{each.coverage.value:.4f} ± {each.coverage.standard_error:.4f}",
        ]
        for scenario, each in found.scores
    ]
    columns = ["scenario", "measure", "trials", "estimate", "n", "bias", "root mean squared error", "coverage"]
    until = "" if found.tau_months is None else f" until month {found.tau_months:g} since randomisation"
    level = found.scores[0][1].level if found.scores else 0.95
    scored = Table(
        columns, lines, "Estimates against the truth",
        f"Intervals claim {level:.0%}. naive: Cox estimate and Wald interval as if without looks; stagewise: "
        "median-unbiased estimate and stagewise interval; repeated: Cox estimate and repeated interval; Kaplan-Meier: "
        f"difference of the curves{until}, Wald interval as if without looks, of trials that follow both arms so long.",
    )  # fmt: skip
    text = (
        "Each scenario has one true value of what the trial is to estimate, whatever the design. Trials that stop "
        "early exaggerate; the stagewise estimate does so less. Given that a trial stopped early, no interval need "
        "cover as it claims."
    )
    return Section("What is estimated, and how well", [text], [block, truths, scored])


def score_columns(found: Estimation) -> dict[str, Sequence[object]]:
    """The columns of scores.csv."""
    pairs = found.scores
    return {
        "scenario": [scenario.name for scenario, _ in pairs],
        "hazard_ratio": [scenario.hazard_ratio for scenario, _ in pairs],
        "measure": [each.measure for _, each in pairs],
        "trials": [each.trials for _, each in pairs],
        "estimate": [each.estimator for _, each in pairs],
        "num_trials": [each.num_trials for _, each in pairs],
        "true_value": [each.truth.value for _, each in pairs],
        "truth_mc_standard_error": [each.truth.standard_error for _, each in pairs],
        "bias": [each.bias.value for _, each in pairs],
        "bias_mc_standard_error": [each.bias.standard_error for _, each in pairs],
        "mean_squared_error": [each.mean_squared_error.value for _, each in pairs],
        "coverage": [each.coverage.value for _, each in pairs],
        "coverage_mc_standard_error": [each.coverage.standard_error for _, each in pairs],
        "level": [each.level for _, each in pairs],
        "share_above_truth": [each.above.value for _, each in pairs],
    }


def estimation_record(found: Estimation) -> Mapping[str, Any]:
    """The estimand and its true values as JSON."""
    return {
        "estimand": {each.name: each.text for each in found.attributes},
        "tau_months": found.tau_months,
        "true_values": [
            {
                "scenario": each.scenario,
                "hazard_ratio": each.hazard_ratio,
                "patients": each.group,
                "measure": each.measure,
                "value": each.estimate.value,
                "mc_standard_error": each.estimate.standard_error,
            }
            for each in found.truths
        ],
    }
