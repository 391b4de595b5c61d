"""Designs side by side over scenarios, on common random numbers: the same patients with the same draws everywhere.

Designs are of times to an event or of an endpoint that is read once, not of both in one comparison.

Number j of trial i has one patient, whatever the design and the scenario; differences between designs are therefore
taken trial by trial, and their Monte-Carlo errors are those of paired differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
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
from medtwin.trials.engine.response_assumptions import differences_of, responses_under
from medtwin.trials.engine.response_batch import ResponseCharacteristics, ResponsePlan, ResponseStops
from medtwin.trials.engine.response_batch import draw_patients as draw_response_patients
from medtwin.trials.engine.response_batch import run_trials as run_response_trials
from medtwin.trials.engine.response_scenarios import theory_of
from medtwin.trials.engine.response_trial import ResponseStudy
from medtwin.trials.engine.stopped import Stopped
from medtwin.trials.engine.survival_trial import Study
from medtwin.trials.engine.tasks import by_scenario

Floats = NDArray[np.float64]
AnyStudy = Study | ResponseStudy
AnyStops = Stops | ResponseStops
AnyCharacteristics = Characteristics | ResponseCharacteristics
REJECTED, DURATION, PATIENTS, EVENTS = "null rejected", "duration, months", "patients enrolled", "events"
OUTCOMES = "outcomes"
_OF_ALL: Mapping[str, Callable[[Stopped], Floats]] = {
    REJECTED: lambda stops: stops.is_rejected.astype(np.float64),
    "stopped for futility": lambda stops: stops.is_futile.astype(np.float64),
    DURATION: lambda stops: stops.months,
    PATIENTS: lambda stops: stops.subjects.astype(np.float64),
}
MEASURES: Mapping[str, Callable[[Stops], Floats]] = {
    **_OF_ALL,
    EVENTS: lambda stops: stops.events.astype(np.float64),
    "log hazard ratio at stop": lambda stops: stops.log_hazard_ratio,
}
"""What is compared of times to an event: name to its value in each trial, (trials,)."""
RESPONSE_MEASURES: Mapping[str, Callable[[ResponseStops], Floats]] = {
    **_OF_ALL,
    OUTCOMES: lambda stops: stops.outcomes.astype(np.float64),
    "difference at stop": lambda stops: stops.estimate,
}
"""The same of an endpoint that is read once."""
SHARES = (REJECTED, "stopped for futility")


@dataclass(frozen=True)
class Setting:
    """A design in a scenario.

    Attributes:
        design, scenario: Their names. study: The trial as it is in the scenario.
        effects: (blocks,) the hazard ratio, or the difference, of each hundred trials.
    """

    design: str
    scenario: str
    study: AnyStudy
    effects: Floats


@dataclass(frozen=True)
class GridTask:
    """Some blocks of trials in every setting: a unit of work that depends on nothing else."""

    plans: Sequence[TrialPlan | ResponsePlan]
    effects: Sequence[Floats]
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
    found: Sequence[AnyCharacteristics]

    @property
    def designs(self) -> list[str]:
        """Their names; the first is the reference."""
        return list(dict.fromkeys(setting.design for setting in self.settings))

    @property
    def measures(self) -> list[str]:
        """Names of what is compared."""
        return list(measured(self.found[0].stops))

    @property
    def information(self) -> str:
        """Which of them is information: events or outcomes."""
        return OUTCOMES if OUTCOMES in self.measures else EVENTS

    @property
    def scenarios(self) -> list[str]:
        """Their names."""
        return list(dict.fromkeys(setting.scenario for setting in self.settings))

    def of(self, design: str, scenario: str) -> AnyCharacteristics:
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
            for name, each in measured(found.stops).items():
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
            for what in self.measures
        ]


def measured(stops: AnyStops) -> dict[str, Floats]:
    """What is compared of trials, name to its value in each, (trials,).

    Args:
        stops: How the trials ended.
    """
    if isinstance(stops, ResponseStops):
        return {name: values(stops) for name, values in RESPONSE_MEASURES.items()}
    return {name: values(stops) for name, values in MEASURES.items()}


def settings_of(
    designs: Mapping[str, AnyStudy], scenarios: Mapping[str, Assumptions], num_trials: int
) -> list[Setting]:
    """Every design in every scenario; the effect that a scenario leaves as planned is that of the first design.

    Args:
        designs: Name to the study, as planned.
        scenarios: Name to what is true.
        num_trials: Of each, rounded up to whole blocks of 100.

    Raises:
        ValueError: If there is no design, no scenario or no trial.
        ConfigError: If a scenario cannot be for a design, or designs are of endpoints that cannot be compared.
    """
    for name, size in (("designs", len(designs)), ("scenarios", len(scenarios)), ("num_trials", num_trials)):
        if size < 1:
            raise ValueError(f"{name} must be 1 or more, got {size}")
    blocks = math.ceil(num_trials / BLOCK)
    kinds = {name: _kind(study) for name, study in designs.items()}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{name} of {kind}" for name, kind in kinds.items())
        raise ConfigError(f"designs must have endpoints of one kind, got {told}: compare each kind on its own")
    first = next(iter(designs.values()))
    return [
        _setting(first, (design, scenario), study, truth, blocks)
        for scenario, truth in scenarios.items()
        for design, study in designs.items()
    ]


def _kind(study: AnyStudy) -> str:
    if isinstance(study, Study):
        return "a time to an event"
    return "a rate" if study.trial.test.is_binary else "a mean"


def _setting(first: AnyStudy, names: tuple[str, str], study: AnyStudy, truth: Assumptions, blocks: int) -> Setting:
    """A design in a scenario; the first design says what effect was planned."""
    if isinstance(study, Study) and isinstance(first, Study):
        return Setting(*names, study_under(study, truth), truth.ratios(first.trial.hazard_ratio, blocks))
    if not (isinstance(study, ResponseStudy) and isinstance(first, ResponseStudy)):
        raise TypeError("study must be of the first design's kind")
    response = first.plan.design.response
    effects = differences_of(truth, study.plan.design, response.effect, blocks)
    under = responses_under(study, truth)
    try:
        for effect in np.unique(effects).tolist():
            under.plan.response.check_effect(effect)
    except ValueError as error:
        raise ConfigError(f"scenarios.{names[1]}, designs.{names[0]}: {error}") from error
    return Setting(*names, under, effects)


def grid_tasks(settings: Sequence[Setting], seed: int) -> list[GridTask]:
    """The work, a block of trials in every setting each, in a fixed order."""
    plans, effects = [each.study.plan for each in settings], [each.effects for each in settings]
    return [GridTask(plans, effects, seed, (block,)) for block in range(len(settings[0].effects))]


def run_grid_task(task: GridTask) -> list[list[AnyStops]]:
    """How the trials of a task ended, a list of blocks for each setting, all on the same patients."""
    found: list[list[AnyStops]] = [[] for _ in task.plans]
    for block in task.blocks:
        for plan in {id(each): each for each in task.plans}.values():
            places = [place for place, other in enumerate(task.plans) if other is plan]
            effects = [float(task.effects[place][block]) for place in places]
            for place, stops in zip(places, _block_of(plan, task.seed, block, effects), strict=True):
                found[place].append(stops)
    return found


def _block_of(plan: TrialPlan | ResponsePlan, seed: int, block: int, effects: Sequence[float]) -> list[AnyStops]:
    """A block of trials under some effects, on the same patients."""
    if isinstance(plan, ResponsePlan):
        responders = draw_response_patients(plan, seed, block)
        return [run_response_trials(plan, responders, effect) for effect in effects]
    patients = draw_patients(plan, seed, block)
    return [run_trials(plan, patients, effect) for effect in effects]


def comparison_of(settings: Sequence[Setting], results: Iterable[Sequence[Sequence[AnyStops]]]) -> Comparison:
    """The comparison, from the results of the tasks in their order."""
    each = zip(settings, by_scenario(len(settings), results), strict=True)
    return Comparison(settings, [_characteristics(float(setting.effects.mean()), mine) for setting, mine in each])


def _characteristics(effect: float, parts: Sequence[AnyStops]) -> AnyCharacteristics:
    responses = [part for part in parts if isinstance(part, ResponseStops)]
    if responses:
        return ResponseCharacteristics(effect, ResponseStops.join(responses))
    return Characteristics(effect, Stops.join([part for part in parts if isinstance(part, Stops)]))


def compare_designs(
    designs: Mapping[str, AnyStudy], scenarios: Mapping[str, Assumptions], num_trials: int, seed: int
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
    first: AnyCharacteristics,
    second: AnyCharacteristics,
    characteristic: str,
    names: tuple[str, str, str] = ("", "", ""),
) -> Paired:
    """The difference of two designs in a characteristic, trial by trial.

    Args:
        first: The design.
        second: The reference, on the same patients.
        characteristic: One of `MEASURES`, or of `RESPONSE_MEASURES`.
        names: Of the design, the reference and the scenario.

    Raises:
        ValueError: If they have not as many trials, or the characteristic is not known.
    """
    known = [measured(each.stops) for each in (first, second)]
    if any(characteristic not in each for each in known):
        raise ValueError(f"characteristic must be one of {', '.join(known[0])}, got {characteristic!r}")
    if first.num_trials != second.num_trials:
        raise ValueError(f"trials must be as many, got {first.num_trials} and {second.num_trials}")
    a, b = (each[characteristic] for each in known)
    design, reference, scenario = names
    apart = math.hypot(mean_of(a).standard_error, mean_of(b).standard_error)
    return Paired(design, reference, scenario, characteristic, mean_of(a - b), apart)


def analytical_of(setting: Setting) -> dict[str, float]:
    """What numerical integration says of a design in a scenario, of those characteristics of which it says anything.

    Under a prior each is the mean over the effects that are simulated.
    """
    study = setting.study
    information = EVENTS if isinstance(study, Study) else OUTCOMES
    found: dict[str, list[float]] = {REJECTED: [], information: []}
    for effect in np.unique(setting.effects).tolist():
        if isinstance(study, Study):
            exits = analytical_exits(study, effect)
            counts: Sequence[float] | Floats = study.plan.design.events
        else:
            theory = theory_of(study, effect)
            exits, counts = (None, ()) if theory is None else (theory.exits, theory.outcomes)
        if exits is None:
            return {}
        found[REJECTED].append(exits.power)
        found[information].append(exits.expected(counts))
    return {name: float(np.mean(values)) for name, values in found.items()}
