"""Baseline factors that randomisation balances: levels of every patient, and the strata that several make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Factor:
    """A baseline covariate by whose levels patients are balanced.

    Attributes:
        name: Of the covariate.
        cuts: Where a number is parted, increasing; a value equal to a cut belongs above it. Empty: a category.

    Raises:
        ValueError: If the name is empty or the cuts do not increase.

    >>> Factor("age", (40, 65)).levels([39.9, 40.0, 70.0, float("nan")]).tolist()
    [0, 1, 2, 3]
    """

    name: str
    cuts: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError(f"name must be that of a covariate, got {self.name!r}")
        if not np.isfinite(self.cuts).all() or (np.diff(self.cuts) <= 0).any():
            raise ValueError(f"cuts of {self.name} must be finite and increase, got {list(self.cuts)}")

    def levels(self, values: ArrayLike) -> Ints:
        """The level of each number, in the shape of `values`; a missing one is a level of its own, the last."""
        x = np.asarray(values, dtype=np.float64)
        found = np.searchsorted(np.asarray(self.cuts, dtype=np.float64), x, side="right")
        return np.where(np.isnan(x), len(self.cuts) + 1, found).astype(np.int64)


def as_factors(factors: Sequence[Factor | str]) -> tuple[Factor, ...]:
    """The factors, a name alone meaning a category.

    Raises:
        ValueError: If a name stands twice.
    """
    found = tuple(Factor(each) if isinstance(each, str) else each for each in factors)
    names = [factor.name for factor in found]
    if len(set(names)) < len(names):
        raise ValueError(f"factors must differ, got {names}")
    return found


def strata(levels: Ints) -> tuple[Ints, list[tuple[int, ...]]]:
    """The stratum of each patient, (trials, patients), and which levels make each stratum.

    Args:
        levels: (factors, trials, patients), from 0; without factors all patients are one stratum.

    >>> strata(np.array([[[0, 1, 0]], [[0, 2, 2]]]))
    (array([[0, 2, 1]]), [(0, 0), (0, 2), (1, 2)])
    """
    if not len(levels):
        return np.zeros(levels.shape[1:], dtype=np.int64), [()]
    sizes = tuple(int(level.max(initial=0)) + 1 for level in levels)
    code = np.ravel_multi_index(tuple(levels), sizes)
    is_present = np.bincount(code.ravel(), minlength=1) > 0
    made = np.stack(np.unravel_index(np.flatnonzero(is_present), sizes), axis=1)
    return (np.cumsum(is_present) - 1)[code], [tuple(map(int, each)) for each in made]
