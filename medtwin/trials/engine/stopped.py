"""How simulated trials with interim looks ended, whatever their endpoint: the arrays, and what is read from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.engine.course import BLOCK
from medtwin.trials.engine.estimates import Estimate, mean_of, share_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Stopped:
    """How a block of trials ended, (trials,) each.

    Attributes:
        look: Index of the look at which it stopped. is_rejected: The null was rejected there.
        is_futile: Stopped at a futility bound. subjects: Enrolled by then. months: Calendar time then.
        z: (trials, looks) the statistic at each look, above 0 in favour of the experimental arm; nan after the stop.
    """

    look: Ints
    is_rejected: Bools
    is_futile: Bools
    subjects: Ints
    months: Floats
    z: Floats

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The blocks, one after the other."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))

    def first_blocks(self, most: int) -> Self:
        """The first whole blocks of trials, so many at most."""
        count = min(len(self.look) // BLOCK, most) * BLOCK
        return type(self)(*(getattr(self, each.name)[:count] for each in fields(self)))

    def blocks(self) -> list[slice]:
        """The trials of each block.

        Raises:
            ValueError: If they are not whole blocks.
        """
        blocks, rest = divmod(len(self.look), BLOCK)
        if rest:
            raise ValueError(f"stops must be of whole blocks of {BLOCK} trials, got {len(self.look)}")
        return [slice(block * BLOCK, (block + 1) * BLOCK) for block in range(blocks)]


class StoppedCharacteristics:
    """The operating characteristics that trials of every endpoint have; a dataclass below it holds the `stops`."""

    stops: Stopped

    @property
    def num_trials(self) -> int:
        """Trials simulated."""
        return len(self.stops.look)

    @cached_property
    def power(self) -> Estimate:
        """Share of trials that rejected the null: the type I error where the effect is that of the null."""
        return share_of(int(self.stops.is_rejected.sum()), self.num_trials)

    def rejected_at(self, look: int) -> Estimate:
        """Share of trials that rejected the null at a look."""
        return share_of(int((self.stops.is_rejected & (self.stops.look == look)).sum()), self.num_trials)

    def futile_at(self, look: int) -> Estimate:
        """Share of trials that stopped for futility at a look."""
        return share_of(int((self.stops.is_futile & (self.stops.look == look)).sum()), self.num_trials)

    @cached_property
    def subjects(self) -> Estimate:
        """Mean patients enrolled at the stop."""
        return mean_of(self.stops.subjects.astype(np.float64))

    @cached_property
    def months(self) -> Estimate:
        """Mean calendar duration."""
        return mean_of(self.stops.months)


def still_running(num_trials: int, num_looks: int) -> tuple[Ints, Bools, Bools, Ints, Floats, Floats]:
    """The arrays of `Stopped` while the trials still run.

    Args:
        num_trials: Of the block.
        num_looks: Planned.
    """
    n, z = num_trials, np.full((num_trials, num_looks), np.nan)
    return no_counts(n), no_marks(n), no_marks(n), no_counts(n), no_numbers(n), z


def no_counts(num_trials: int) -> Ints:
    """Counts of trials that still run, (trials,): 0."""
    return np.zeros(num_trials, dtype=np.int64)


def no_marks(num_trials: int) -> Bools:
    """Marks of trials that still run, (trials,): False."""
    return np.zeros(num_trials, dtype=np.bool_)


def no_numbers(num_trials: int) -> Floats:
    """Numbers of trials that still run, (trials,): nan."""
    return np.full(num_trials, np.nan)
