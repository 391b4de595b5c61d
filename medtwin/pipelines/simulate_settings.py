"""The settings of `medtwin simulate`, and the trial and scenario that they state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from medtwin.config import build
from medtwin.core.disclosure import SMALLEST_CELL
from medtwin.core.errors import ConfigError
from medtwin.pipelines.export_settings import Override
from medtwin.pipelines.replay import ReplayChoice, replay_choice
from medtwin.pipelines.simulate_levels import as_level
from medtwin.pipelines.simulate_trust import as_spread
from medtwin.trials import ResponseTrial, SurvivalTrial
from medtwin.trials.engine.assumptions import Assumptions
from medtwin.trials.engine.bound_surface import InformationRange


@dataclass(frozen=True)
class SimulateSettings:
    """The settings of configs/simulate.yaml.

    Attributes:
        fallback: Another trial, for a cohort in which nobody is eligible for `trial` or its endpoint is too rare; the
            report says that it was used, and why. For `medtwin run`.
        replay: Which simulated trial is written out as data: its number, or a group (`ReplayChoice`).
        target_mcse: Monte-Carlo standard error of power and type I error at which no more trials are added; None: all
            `num_trials` are simulated.
        scenario: What is true, where it is not what the trial was planned on (`Assumptions`); None: all as planned.
        override: Why a cohort that failed its check is simulated all the same.
        cohorts: Further cohorts of the same source; `cohorts_differ_by` `seeds` of one generator, or `bootstrap`:
            generators trained on resampled patients.
        source_subjects: How many patients twins were learned from; None: as their provenance records it.
        smallest_cell: The least count of real people that is told; 1: everything is told.
        level: `patient`; `statistic`, the joint normal statistic of the looks alone; or `both`, in one table.
        observed: Where the information of looks lies at the statistic's level (`InformationRange`); None: as planned.
    """

    cohort: Path | None
    trial: Mapping[str, Any]
    out: Path
    num_trials: int = 2000
    num_curve: int = 500
    target_mcse: float | None = None
    seed: int = 0
    workers: int = 1
    check: Path | None = None
    fallback: Mapping[str, Any] | None = None
    replay: Any = None
    scenario: Mapping[str, Any] | None = None
    level: str = "patient"
    observed: Mapping[str, Any] | None = None
    overwrite: bool = False
    override: Override = field(default_factory=Override)
    cohorts: tuple[Path, ...] = ()
    cohorts_differ_by: str = "seeds"
    source_subjects: int | None = None
    smallest_cell: int = SMALLEST_CELL

    def __post_init__(self) -> None:
        for name in ("num_trials", "num_curve", "workers", "smallest_cell"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.target_mcse is not None and not 0 < self.target_mcse < 1:
            raise ConfigError(f"target_mcse must be above 0 and below 1, or null, got {self.target_mcse!r}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.source_subjects is not None and self.source_subjects < 2:
            raise ConfigError(f"source_subjects must be 2 or more, got {self.source_subjects}")
        if self.cohorts and self.cohort is None:
            raise ConfigError("cohorts are further ones beside cohort=..., got cohort=null")
        as_spread(self.cohorts_differ_by)
        _ = self.replay_choice, self.assumptions, self.information  # raise where they make no sense
        if as_level(self.level) == "patient" and self.observed is not None:
            raise ConfigError("observed is of level=statistic or both: patients make the information that there is")
        if self.level == "statistic" and self.target_mcse is not None:
            raise ConfigError("target_mcse is of level=patient or both, got level=statistic")
        if self.level != "patient" and not self.assumptions.is_planned:
            raise ConfigError(f"scenario is of level=patient, got level={self.level}")

    @cached_property
    def replay_choice(self) -> ReplayChoice | None:
        """Which trial is written out, if any."""
        return replay_choice(self.replay)

    @cached_property
    def assumptions(self) -> Assumptions:
        """What is true."""
        return built_assumptions(self.scenario, "scenario")

    @cached_property
    def information(self) -> InformationRange | None:
        """Where that of the looks lies."""
        if self.observed is None:
            return None
        found = build(dict(self.observed), "observed")
        if not isinstance(found, InformationRange):
            raise ConfigError("observed._target_ must be medtwin.trials.InformationRange")
        return found


def built_assumptions(config: Mapping[str, Any] | None, path: str) -> Assumptions:
    """What a scenario's configuration states; None states nothing.

    Raises:
        ConfigError: If it is no scenario.
    """
    found = Assumptions() if config is None else build(dict(config), path)
    if not isinstance(found, Assumptions):
        raise ConfigError(f"{path}._target_ must be medtwin.trials.Assumptions")
    return found


def told_of(assumptions: Assumptions) -> list[str]:
    """What a reader must know of the scenario."""
    told = assumptions.describe()
    return [f"The scenario is not what the trial was planned on: {'; '.join(told)}."] if told else []


def any_trial(config: Mapping[str, Any], path: str) -> SurvivalTrial | ResponseTrial:
    """The trial that a configuration states, whatever its endpoint.

    Raises:
        ConfigError: If it is none, or its parts refuse their values; names `path`.
    """
    trial = build(dict(config), path)
    if not isinstance(trial, SurvivalTrial | ResponseTrial):
        raise ConfigError(f"{path}._target_ must be medtwin.trials.SurvivalTrial or ResponseTrial")
    return trial


def built_trial(config: Mapping[str, Any], path: str) -> SurvivalTrial:
    """The trial of a time to an event that a configuration states.

    Raises:
        ConfigError: If it is none, or its parts refuse their values; names `path`.
    """
    trial = any_trial(config, path)
    if not isinstance(trial, SurvivalTrial):
        raise ConfigError(f"{path}._target_ must be medtwin.trials.SurvivalTrial here, got ResponseTrial")
    return trial
