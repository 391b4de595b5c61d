"""How simulated trials with interim looks ended, whatever their endpoint: the arrays, and what is read from them."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.engine.estimates import Estimate, mean_of, share_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Stopped(Protocol):
    """What is known of the end of every trial, (trials,) each; see `batch.Stops` and `response_batch.ResponseStops`."""

    @property
    def look(self) -> Ints:
        """Index of the look at which it stopped."""

    @property
    def is_rejected(self) -> Bools:
        """The null was rejected there."""

    @property
    def is_futile(self) -> Bools:
        """Stopped at a futility bound."""

    @property
    def subjects(self) -> Ints:
        """Enrolled by then."""

    @property
    def months(self) -> Floats:
        """Calendar time then."""


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


def no_counts(num_trials: int) -> Ints:
    """Counts of trials that still run, (trials,): 0."""
    return np.zeros(num_trials, dtype=np.int64)


def no_marks(num_trials: int) -> Bools:
    """Marks of trials that still run, (trials,): False."""
    return np.zeros(num_trials, dtype=np.bool_)


def no_numbers(num_trials: int) -> Floats:
    """Numbers of trials that still run, (trials,): nan."""
    return np.full(num_trials, np.nan)
