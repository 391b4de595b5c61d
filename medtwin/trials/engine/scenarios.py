"""Which hazard ratios are simulated, the work cut into tasks, and the table of operating characteristics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medtwin.trials.design.boundaries import exit_probabilities
from medtwin.trials.engine.batch import (
    BLOCK,
    Characteristics,
    Stops,
    TrialPlan,
    draw_patients,
    marginal_log_hazard_ratio,
    run_trials,
)
from medtwin.trials.engine.estimates import Estimate, difference_of
from medtwin.trials.engine.survival_trial import Study, SurvivalTrial
from medtwin.trials.engine.tasks import POWER_CURVE, blocks_of_tasks, by_scenario

BLOCKS_PER_TASK = 4  # drawn together, small enough for the caches of a core, large enough for few calls of numpy


@dataclass(frozen=True)
class Scenario:
    """One truth to simulate under. `obeys_futility`: trials stop at futility bounds."""

    name: str
    hazard_ratio: float
    num_trials: int
    obeys_futility: bool = True


@dataclass(frozen=True)
class Task:
    """Consecutive blocks of trials, under every scenario that has so many: work that depends on nothing else."""

    plan: TrialPlan
    seed: int
    blocks: Sequence[int]
    scenarios: Sequence[Scenario]


def scenarios_of(study: Study, num_trials: int, num_curve: int) -> list[Scenario]:
    """What is simulated of a study, as `scenarios_of_trial`."""
    return scenarios_of_trial(study.trial, num_trials, num_curve)


def scenarios_of_trial(trial: SurvivalTrial, num_trials: int, num_curve: int) -> list[Scenario]:
    """The alternative, the null, the null with non-binding futility bounds disregarded, and the power curve.

    Args:
        trial: As configured.
        num_trials: Of the first ones, rounded up to whole blocks of 100.
        num_curve: Trials at each further hazard ratio of the power curve.
    """
    rounded, curve = (math.ceil(n / BLOCK) * BLOCK for n in (num_trials, num_curve))
    target = trial.hazard_ratio
    scenarios = [Scenario("alternative", target, rounded), Scenario("null", 1.0, rounded)]
    if trial.plan.futility is not None and not trial.plan.binding:
        scenarios.append(Scenario("null, futility disregarded", 1.0, rounded, obeys_futility=False))
    for power in (1.5, 1.25, 0.75, 0.5, 0.25):
        scenarios.append(Scenario(POWER_CURVE, target**power, curve))
    return scenarios


def tasks_of(study: Study, scenarios: Sequence[Scenario], seed: int) -> list[Task]:
    """The work, in a fixed order."""
    parts = blocks_of_tasks(max(scenario.num_trials for scenario in scenarios), BLOCKS_PER_TASK)
    return [Task(study.plan, seed, part, scenarios) for part in parts]


def run_task(task: Task) -> list[list[Stops]]:
    """How the trials of a task ended: for each scenario, those that it has, all on the same patients."""
    first, num_blocks = task.blocks[0], len(task.blocks)
    patients = draw_patients(task.plan, task.seed, first, num_blocks=num_blocks)
    found: list[list[Stops]] = []
    for scenario in task.scenarios:
        wanted = scenario.num_trials - first * BLOCK
        stops = []
        if wanted > 0:
            ratio, obeys = scenario.hazard_ratio, scenario.obeys_futility
            stops.append(run_trials(task.plan, patients.rows(slice(0, wanted)), ratio, obeys_futility=obeys))
        found.append(stops)
    return found


def characteristics_of(
    scenarios: Sequence[Scenario], results: Iterable[Sequence[Sequence[Stops]]]
) -> list[Characteristics]:
    """The operating characteristics of each scenario, from the results of the tasks in their order."""
    return [
        Characteristics(scenario.hazard_ratio, Stops.join(mine))
        for scenario, mine in zip(scenarios, by_scenario(len(scenarios), results), strict=True)
    ]


@dataclass(frozen=True)
class Line:
    """A row of operating_characteristics.csv: an estimate with its Monte-Carlo error beside what theory says."""

    scenario: str
    hazard_ratio: float
    characteristic: str
    look: int | None
    estimate: Estimate
    analytical: float | None
    num_trials: int


def table_of(study: Study, scenario: Scenario, found: Characteristics, seed: int) -> list[Line]:
    """Every characteristic of a scenario, beside the analytical value where there is one.

    The analytical values take the log-rank statistic as canonical joint normal with Schoenfeld's drift at the
    simulated hazard ratio, every look reached, and risks of all patients alike where they speak of its power. There are
    none under an effect where patients change treatment or its size differs between them.
    """
    design = study.plan.design
    bounds, drift = design.bounds, design.drift(scenario.hazard_ratio)
    exits = exit_probabilities(
        bounds.fractions, bounds.efficacy, bounds.futility if scenario.obeys_futility else None, drift
    )
    months = study.months_of_looks(scenario.hazard_ratio)
    enrolled = np.minimum(study.plan.enroll_rate.cumulative(months), study.plan.num_subjects)
    is_null = scenario.hazard_ratio == 1.0
    lines: list[tuple[str, int | None, Estimate, float | None]] = [
        ("type I error" if is_null else "power", None, found.power, exits.power),
        ("events at stop", None, found.events, exits.expected(design.events)),
        ("subjects at stop", None, found.subjects, exits.expected(enrolled)),
        ("duration, months", None, found.months, exits.expected(months)),
        ("ended by the calendar", None, found.capped, None),
    ]
    if scenario.name != POWER_CURVE:
        for look in range(len(design.events)):
            lines.append(("rejected at look", look + 1, found.rejected_at(look), float(exits.upper[look])))
        if study.trial.plan.futility is not None and scenario.obeys_futility:
            for look in range(len(design.events) - 1):
                lines.append(("futile at look", look + 1, found.futile_at(look), float(exits.lower[look])))
        marginal = marginal_log_hazard_ratio(study.plan, seed, found.hazard_ratio)
        at_stop = found.log_hazard_ratio
        lines += [
            ("log hazard ratio without early stops", None, marginal, math.log(found.hazard_ratio)),
            ("log hazard ratio at stop", None, at_stop, None),
            ("bias at stop", None, difference_of(at_stop, marginal), None),
        ]
    if (study.plan.changes or study.plan.pool.effect is not None) and not is_null:
        lines = [(what, look, estimate, None) for what, look, estimate, _ in lines]
    return [
        Line(scenario.name, scenario.hazard_ratio, what, look, estimate, theory, found.num_trials)
        for what, look, estimate, theory in lines
    ]
