"""Who is of which group, on every side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.check.records import Records
from medtwin.check.strata import Stratification

Levels = NDArray[np.object_]
Ints = NDArray[np.int64]
ONE_GROUP = "the patients are all of one group"
"""Why nothing is measured of patients who are not divided."""


@dataclass(frozen=True)
class Division:
    """One division of the people of some sides into groups.

    Attributes:
        name: As in `sex`.
        levels: The group of each person, (people,) texts, per side.
    """

    name: str
    levels: tuple[Levels, ...]

    @property
    def groups(self) -> list[str]:
        """Every group that anybody of any side is of, in order of the alphabet."""
        return sorted({str(level) for side in self.levels for level in np.unique(side.astype(str))})

    def members(self, group: str, side: int) -> Ints:
        """Numbers of the people of a group on one side, ascending."""
        return np.flatnonzero(self.levels[side] == group)

    def others(self, group: str, side: int) -> Ints:
        """Numbers of the people of one side who are not of a group, ascending."""
        return np.flatnonzero(self.levels[side] != group)

    def size(self, group: str, side: int) -> int:
        """How many people of a side are of a group."""
        return len(self.members(group, side))

    @property
    def is_one_group(self) -> bool:
        """Whether all people of all sides are of one group: there is nothing to compare."""
        return len(self.groups) < 2


def divisions_of(strata: Sequence[Stratification], *sides: Records) -> list[Division]:
    """The divisions of some sides that have two groups or more."""
    return divided({one.name: tuple(one.levels(side) for side in sides) for one in strata})


def divided(levels: Mapping[str, tuple[Levels, ...]]) -> list[Division]:
    """The divisions that have two groups or more, of the group of each person, (people,), per side by division."""
    found = [Division(name, sides) for name, sides in levels.items()]
    return [one for one in found if not one.is_one_group]


def too_few(division: Division, group: str, floors: tuple[int, int], who: tuple[str, str]) -> str:
    """Why a group is not held against the rest; empty where both are large enough on both sides.

    Args:
        division: Whose group it is.
        group: As in `F`.
        floors: People needed on the first two sides, of the group and of the rest alike.
        who: What the people of these sides are, as in `patients` and `twins`.
    """
    for side in (0, 1):
        size = division.size(group, side)
        reason = below_floor(size, floors[side], who[side])
        reason = reason or below_floor(
            len(division.levels[side]) - size, floors[side], f"{who[side]} who are not of it"
        )
        if reason:
            return reason
    return ""


def below_floor(size: int, floor: int, who: str = "patients") -> str:
    """Why a group is not judged; empty where it is."""
    return "" if size >= floor else f"not judged: fewer than {floor} {who}"
