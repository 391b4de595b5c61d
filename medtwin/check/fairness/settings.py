"""What is asked of groups of patients: from how many people on they are judged, and what shares they should have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medtwin.core.disclosure import SMALLEST_CELL
from medtwin.core.errors import ConfigError

MIN_GROUP = 50
"""Patients of a group below which it is told, and not judged."""
SMALLEST_FLOOR = SMALLEST_CELL
"""A floor below this would tell of few people."""
_TOLERANCE = 1e-6

Target = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Fairness:
    """What is asked of groups.

    Attributes:
        floor: Patients of a group below which it is not judged.
        target: The population that the twins should stand for: by division the share of each group, as in
            `{"sex": {"F": 0.5, "M": 0.5}}`. A division that is not named is held against the source.

    Raises:
        ConfigError: If the floor is below `SMALLEST_FLOOR`, a share lies outside 0 to 1, or those of a division do not
            sum to 1.
    """

    floor: int = MIN_GROUP
    target: Target = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.floor < SMALLEST_FLOOR:
            raise ConfigError(f"fairness.floor must be {SMALLEST_FLOOR} patients or more, got {self.floor!r}")
        for division, shares in self.target.items():
            _require_shares(division, shares)


def _require_shares(division: str, shares: Any) -> None:
    name = f"fairness.target.{division}"
    if not isinstance(shares, Mapping) or not shares:
        raise ConfigError(f"{name} must give shares of groups, as in {{F: 0.5, M: 0.5}}, got {shares!r}")
    for group, share in shares.items():
        is_number = isinstance(share, int | float) and not isinstance(share, bool)
        if not is_number or not 0 <= share <= 1:
            raise ConfigError(f"{name}.{group} must be a share between 0 and 1, got {share!r}")
    total = math.fsum(shares.values())
    if abs(total - 1) > _TOLERANCE:
        raise ConfigError(f"{name} must have shares that sum to 1, got {total:g}")


def fairness_from(config: Mapping[str, Any] | None, divisions: Sequence[str]) -> Fairness:
    """The settings of a configuration (`fairness` of configs/check.yaml).

    Args:
        config: With floor and target, either of which may be left out.
        divisions: Names of the divisions of patients (`strata`) that a target may name.

    Raises:
        ConfigError: If a setting is unknown or has a value that cannot be.
    """
    values = dict(config or {})
    floor, target = values.pop("floor", MIN_GROUP), values.pop("target", None) or {}
    if values:
        raise ConfigError(f"fairness has no setting {next(iter(values))!r}, only floor and target")
    if isinstance(floor, bool) or not isinstance(floor, int):
        raise ConfigError(f"fairness.floor must be {SMALLEST_FLOOR} patients or more, got {floor!r}")
    if not isinstance(target, Mapping):
        raise ConfigError(f"fairness.target must name divisions, as in {{sex: {{F: 0.5, M: 0.5}}}}, got {target!r}")
    for division in target:
        if division not in divisions:
            raise ConfigError(
                f"fairness.target.{division} must be a division of strata: {', '.join(divisions) or 'none'}"
            )
    named = {
        str(division): {str(group): share for group, share in shares.items()} if isinstance(shares, Mapping) else shares
        for division, shares in target.items()
    }
    return Fairness(floor, named)
