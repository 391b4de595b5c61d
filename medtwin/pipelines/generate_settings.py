"""The settings of `medtwin generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from medtwin.core.errors import ConfigError
from medtwin.twins.rules import ScanRules

SAMPLERS = ("dpmpp_2m", "dpmpp_2m_sde", "heun", "euler", "shortcut")
"""Names of `medtwin.scans.drawing.Sampling`, which needs torch."""


@dataclass(frozen=True)
class MaskSettings:
    """The `masks` group."""

    sex_specific: Mapping[str, Any]


@dataclass(frozen=True)
class PlanSettings:
    """The `plan` group: whom to make. Null leaves an attribute to the training subjects' distribution."""

    sex: str | None = None
    age: tuple[float, ...] | None = None
    conditions: tuple[str, ...] | None = None
    facts: tuple[str, ...] | None = None
    without: tuple[str, ...] | None = None
    window_years: tuple[float, ...] | None = None
    phenotype: int | None = None
    strata: tuple[Any, ...] | None = None
    balance: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.age is not None and (len(self.age) != 2 or self.age[0] >= self.age[1]):
            raise ConfigError(f"plan.age must be [youngest, oldest], got {list(self.age)}")
        if self.phenotype is not None and self.phenotype < 0:
            raise ConfigError(f"plan.phenotype must be 0 or more, got {self.phenotype!r}")
        for number, stratum in enumerate(self.strata or ()):
            if not isinstance(stratum, Mapping):
                raise ConfigError(f"plan.strata[{number}] must be a group such as {{sex: F, share: 0.5}}")

    @property
    def is_open(self) -> bool:
        """Whether nothing is asked for."""
        return self == PlanSettings()

    def base(self) -> dict[str, Any]:
        """What every twin is to be, by setting."""
        names = ("sex", "age", "conditions", "facts", "without", "window_years", "phenotype")
        asked = {name: getattr(self, name) for name in names}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asked.items()
            if value is not None
        }


@dataclass(frozen=True)
class SetSettings:
    """The `set` group: what counterfactual twins are to be. Null leaves a thing as it was."""

    age: float | None = None
    sex: str | None = None
    facts: tuple[str, ...] | None = None
    without: tuple[str, ...] | None = None
    window_years: float | None = None

    def given(self) -> dict[str, Any]:
        """What is set, by setting."""
        asked = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asked.items()
            if value is not None
        }


@dataclass(frozen=True)
class AddSettings:
    """The `add` group: what is added to what counterfactual twins are."""

    age: float | None = None


@dataclass(frozen=True)
class TwinSettings:
    """The `twin` group: whose twins to make."""

    of: Path | None = None
    subjects: tuple[int, ...] | None = None
    n: int | None = None
    until: float | None = None
    steps: int | None = None
    between: tuple[int, ...] | None = None
    graph: str | None = None

    def __post_init__(self) -> None:
        if self.n is not None and self.n < 1:
            raise ConfigError(f"twin.n must be 1 or more, got {self.n}")
        if self.between is not None and (len(self.between) != 2 or self.between[0] == self.between[1]):
            raise ConfigError(f"twin.between must be the ids of two subjects, got {list(self.between)}")
        if self.subjects is not None and self.n is not None:
            raise ConfigError("twin.n must be null where twin.subjects names them")
        if self.until is not None and self.steps is not None:
            raise ConfigError("twin.steps must be null where twin.until is given")


@dataclass(frozen=True)
class SamplingSettings:
    """The `sampling` group: how scans are drawn.

    Raises:
        ConfigError: If there is no such sampler.
    """

    sampler: str = "dpmpp_2m"
    num_steps: int = 20
    guidance: float = 4.0
    tile: int = 16
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ConfigError(f"sampling.sampler must be {', '.join(SAMPLERS)}, got {self.sampler!r}")


@dataclass(frozen=True)
class GenerateSettings:
    """The settings of configs/generate.yaml."""

    timelines: Path
    out: Path
    scan_rules: ScanRules
    masks: MaskSettings
    scans: Path | None = None
    n: int = 200
    seed: int = 0
    plan: PlanSettings = field(default_factory=PlanSettings)
    twin: TwinSettings = field(default_factory=TwinSettings)
    set: SetSettings = field(default_factory=SetSettings)
    add: AddSettings = field(default_factory=AddSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n must be 1 or more, got {self.n}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.twin.of is not None:
            self._require_one_purpose()
        elif self.twin != TwinSettings() or self.changes:
            raise ConfigError("twin.of must name the dataset whose twins are wanted; plan.* is for new ones")

    @property
    def changes(self) -> bool:
        """Whether counterfactual twins are asked for."""
        return bool(self.set.given()) or self.add.age is not None

    def _require_one_purpose(self) -> None:
        asked = {
            "set.* or add.*": self.changes,
            "twin.until or twin.steps": self.twin.until is not None or self.twin.steps is not None,
            "twin.between": self.twin.between is not None,
        }
        if sum(asked.values()) != 1:
            raise ConfigError(f"twin.of must stand with exactly one of {'; '.join(asked)}")
        if not self.plan.is_open:
            raise ConfigError("plan.* must be null with twin.of: use set.*")
        if self.twin.between is not None and (self.twin.n is None or self.twin.subjects is not None):
            raise ConfigError("twin.between must stand with twin.n, and without twin.subjects")
        if self.twin.graph is not None and not self.changes:
            raise ConfigError("twin.graph must be null but for counterfactual twins (set.*, add.*)")


__all__ = [
    "AddSettings",
    "GenerateSettings",
    "MaskSettings",
    "PlanSettings",
    "SamplingSettings",
    "SetSettings",
    "TwinSettings",
]
