"""Designs side by side over scenarios, on common random numbers: the same patients with the same draws everywhere.

Number j of trial i has one patient, whatever the design and the scenario; differences between designs are therefore
taken trial by trial, and their Monte-Carlo errors are those of paired differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.engine.assumptions import Assumptions, analytical_exits, study_under
from medtwin.trials.engine.batch import (
    BLOCK,
    Characteristics,
    Estimate,
    Stops,
    TrialPlan,
    draw_patients,
    mean_of,
    run_trials,
    share_of,
)
from medtwin.trials.engine.survival_trial import Study
from medtwin.trials.engine.tasks import by_scenario

Floats = NDArray[np.float64]
REJECTED, DURATION, PATIENTS, EVENTS = "null rejected", "duration, months", "patients enrolled", "events"
MEASURES: Mapping[str, Callable[[Stops], Floats]] = {
    REJECTED: lambda stops: stops.is_rejected.astype(np.float64),
    "stopped for futility": lambda stops: stops.is_futile.astype(np.float64),
    DURATION: lambda stops: stops.months,
    PATIENTS: lambda stops: stops.subjects.astype(np.float64),
    EVENTS: lambda stops: stops.events.astype(np.float64),
    "log hazard ratio at stop": lambda stops: stops.log_hazard_ratio,
}
"""What is compared: name to its value in each trial, (trials,)."""
SHARES = (REJECTED, "stopped for futility")


@dataclass(frozen=True)
class Setting:
    """A design in a scenario.

    Attributes:
        design, scenario: Their names. study: The trial as it is in the scenario.
        ratios: (blocks,) the hazard ratio of each hundred trials.
    """

    design: str
    scenario: str
    study: Study
    ratios: Floats


@dataclass(frozen=True)
class GridTask:
    """Some blocks of trials in every setting: a unit of work that depends on nothing else."""

    plans: Sequence[TrialPlan]
    ratios: Sequence[Floats]
    seed: int
    blocks: Sequence[int]


@dataclass(frozen=True)
class GridLine:
    """A characteristic of a design in a scenario. `analytical`: What numerical integration says; None: nothing."""

    design: str
    scenario: str
    characteristic: str
    estimate: Estimate
    analytical: float | None
    num_trials: int


@dataclass(frozen=True)
class Paired:
    """The difference of two designs in the same trials.

    Attributes:
        design, reference, scenario, characteristic: Of what: the design's less the reference's.
        estimate: With the Monte-Carlo error of the paired difference.
        independent_error: What the error would be, had each design patients of its own.
    """

    design: str
    reference: str
    scenario: str
    characteristic: str
    estimate: Estimate
    independent_error: float

    @property
    def error_ratio(self) -> float:
        """The paired error over the independent one; nan where both are 0."""
        return self.estimate.standard_error / self.independent_error if self.independent_error > 0 else math.nan


@dataclass(frozen=True)
class Comparison:
    """Designs in scenarios, simulated.

    Attributes:
        settings: Every design in every scenario, scenario by scenario. found: What was simulated of each.
    """

    settings: Sequence[Setting]
    found: Sequence[Characteristics]

    @property
    def designs(self) -> list[str]:
        """Their names; the first is the reference."""
        return list(dict.fromkeys(setting.design for setting in self.settings))

    @property
    def scenarios(self) -> list[str]:
        """Their names."""
        return list(dict.fromkeys(setting.scenario for setting in self.settings))

    def of(self, design: str, scenario: str) -> Characteristics:
        """What was simulated of a design in a scenario.

        Raises:
            KeyError: If there is no such pair.
        """
        names = [(setting.design, setting.scenario) for setting in self.settings]
        if (design, scenario) not in names:
            raise KeyError(f"no design {design!r} in scenario {scenario!r}")
        return self.found[names.index((design, scenario))]

    def lines(self) -> list[GridLine]:
        """Every characteristic of every design in every scenario."""
        rows = []
        for setting, found in zip(self.settings, self.found, strict=True):
            theory = analytical_of(setting)
            for name, values in MEASURES.items():
                each = values(found.stops)
                is_share = name in SHARES
                estimate = share_of(int(each.sum()), len(each)) if is_share else mean_of(each)
                rows.append(
                    GridLine(setting.design, setting.scenario, name, estimate, theory.get(name), found.num_trials)
                )
        return rows

    def differences(self) -> list[Paired]:
        """Each design less the first one, in every scenario."""
        reference, *others = self.designs
        return [
            paired_difference(self.of(name, scenario), self.of(reference, scenario), what, (name, reference, scenario))
            for scenario in self.scenarios
            for name in others
            for what in MEASURES
        ]


def settings_of(designs: Mapping[str, Study], scenarios: Mapping[str, Assumptions], num_trials: int) -> list[Setting]:
    """Every design in every scenario; what a scenario leaves as planned is as the first design was planned.

    Args:
        designs: Name to the study, as planned.
        scenarios: Name to what is true.
        num_trials: Of each, rounded up to whole blocks of 100.

    Raises:
        ValueError: If there is no design, no scenario or no trial.
        ConfigError: If a scenario cannot be for a design.
    """
    for name, size in (("designs", len(designs)), ("scenarios", len(scenarios)), ("num_trials", num_trials)):
        if size < 1:
            raise ValueError(f"{name} must be 1 or more, got {size}")
    blocks = math.ceil(num_trials / BLOCK)
    planned = next(iter(designs.values())).trial.hazard_ratio
    return [
        Setting(design, scenario, study_under(study, truth), truth.ratios(planned, blocks))
        for scenario, truth in scenarios.items()
        for design, study in designs.items()
    ]


def grid_tasks(settings: Sequence[Setting], seed: int) -> list[GridTask]:
    """The work, a block of trials in every setting each, in a fixed order."""
    plans, ratios = [each.study.plan for each in settings], [each.ratios for each in settings]
    return [GridTask(plans, ratios, seed, (block,)) for block in range(len(settings[0].ratios))]


def run_grid_task(task: GridTask) -> list[list[Stops]]:
    """How the trials of a task ended, a list of blocks for each setting, all on the same patients."""
    found: list[list[Stops]] = [[] for _ in task.plans]
    for block in task.blocks:
        drawn: dict[int, tuple[TrialPlan, int]] = {}
        for place, plan in enumerate(task.plans):
            drawn.setdefault(id(plan), (plan, place))
        for plan, _ in drawn.values():
            patients = draw_patients(plan, task.seed, block)
            for place, other in enumerate(task.plans):
                if other is plan:
                    found[place].append(run_trials(plan, patients, float(task.ratios[place][block])))
    return found


def comparison_of(settings: Sequence[Setting], results: Iterable[Sequence[Sequence[Stops]]]) -> Comparison:
    """The comparison, from the results of the tasks in their order."""
    each = zip(settings, by_scenario(len(settings), results), strict=True)
    return Comparison(settings, [Characteristics(float(s.ratios.mean()), Stops.join(mine)) for s, mine in each])


def compare_designs(
    designs: Mapping[str, Study], scenarios: Mapping[str, Assumptions], num_trials: int, seed: int
) -> Comparison:
    """Simulates every design in every scenario on the same patients, in this process.

    Args:
        designs: Name to the study, as planned; the first is the reference of differences.
        scenarios: Name to what is true.
        num_trials: Of each, rounded up to whole blocks of 100.
        seed: Of the run: trial i depends on it and i alone.

    Raises:
        ValueError: If there is no design, no scenario or no trial.
        ConfigError: If a scenario cannot be for a design.
    """
    settings = settings_of(designs, scenarios, num_trials)
    return comparison_of(settings, map(run_grid_task, grid_tasks(settings, seed)))


def paired_difference(
    first: Characteristics, second: Characteristics, characteristic: str, names: tuple[str, str, str] = ("", "", "")
) -> Paired:
    """The difference of two designs in a characteristic, trial by trial.

    Args:
        first: The design.
        second: The reference, on the same patients.
        characteristic: One of `MEASURES`.
        names: Of the design, the reference and the scenario.

    Raises:
        ValueError: If they have not as many trials, or the characteristic is not known.
    """
    if characteristic not in MEASURES:
        raise ValueError(f"characteristic must be one of {', '.join(MEASURES)}, got {characteristic!r}")
    if first.num_trials != second.num_trials:
        raise ValueError(f"trials must be as many, got {first.num_trials} and {second.num_trials}")
    a, b = (MEASURES[characteristic](each.stops) for each in (first, second))
    design, reference, scenario = names
    apart = math.hypot(mean_of(a).standard_error, mean_of(b).standard_error)
    return Paired(design, reference, scenario, characteristic, mean_of(a - b), apart)


def analytical_of(setting: Setting) -> dict[str, float]:
    """What numerical integration says of a design in a scenario, of those characteristics of which it says anything.

    Under a prior each is the mean over the hazard ratios that are simulated.
    """
    study, design = setting.study, setting.study.plan.design
    found: dict[str, list[float]] = {REJECTED: [], EVENTS: []}
    for ratio in np.unique(setting.ratios).tolist():
        exits = analytical_exits(study, ratio)
        if exits is None:
            return {}
        found[REJECTED].append(exits.power)
        found[EVENTS].append(exits.expected(design.events))
    return {name: float(np.mean(values)) for name, values in found.items()}
