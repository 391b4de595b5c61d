"""Random numbers of simulated trials, counted and not shared: number j of trial i is the same in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

from medtwin.core.seeds import purpose_key

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TRIALS_PER_STREAM = 100
_HELD_BYTES = 30 * 2**20


@lru_cache(maxsize=1)
def hold_freed_memory() -> None:
    """Lets this process keep the memory of freed arrays for the next ones.

    The arrays of a block of trials are just above the size for which the C library asks the system for fresh pages
    each time, which costs many times what the arithmetic does. The GNU C library raises that size to the largest block
    freed so far, up to 32 MiB; others are not affected.

    Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    _ = np.empty(_HELD_BYTES, dtype=np.uint8)


def philox(seed: int, stream: int, *purpose: str | int) -> np.random.Generator:
    """The Philox generator of a purpose, its counter at the start of a stream of 2^128 numbers.

    Args:
        seed: The run's seed, 0 or more.
        stream: Which of the purpose's streams, 0 or more; they do not overlap.
        purpose: What the numbers are for.

    Raises:
        ValueError: If the seed or the stream is negative.

    Source: Salmon, Moraes, Dror & Shaw 2011, SC '11, article 16.
    """
    for name, value in (("seed", seed), ("stream", stream)):
        if value < 0:
            raise ValueError(f"{name} must be 0 or more, got {value!r}")
    words = purpose_key(seed, *purpose)
    key = np.array([words[0] << 32 | words[1], words[2] << 32 | words[3]], dtype=np.uint64)
    counter = np.array([0, 0, stream, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class _Words(ISeedSequence):
    """Words that are random enough to be a generator's state as they are."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint32) -> NDArray[np.uint64]:
        """The first words, whatever their size is to be."""
        return self._words[:n_words]


def stream_of(seed: int, *purpose: str | int) -> np.random.SFC64:
    """The bits of a purpose, ready in a tenth of the time of `medtwin.core.seeds.generator`.

    Its state is the BLAKE2b hash of the seed and the purpose.

    Args:
        seed: Of the run, 0 or more.
        purpose: What they are for.
    """
    text = "\x1f".join(map(str, (seed, *purpose)))
    words = np.frombuffer(hashlib.blake2b(text.encode()).digest(), dtype="<u8")
    return np.random.SFC64(_Words(words))  # type: ignore[arg-type]  # numpy's stubs do not know the interface


@dataclass(frozen=True)
class TrialDraws:
    """The random numbers of consecutive trials.

    For each purpose, number j of trial i depends on (seed, scope, purpose, i, j) only: neither on how many trials are
    drawn together nor on how many numbers each has. A patient thus keeps its numbers whatever the design, and in a
    larger trial the first patients are those of the smaller one. A hundred trials share a stream, whose numbers are
    dealt to them in turn.

    Attributes:
        seed: Of the run, 0 or more.
        num_trials: How many trials, 1 or more.
        first_trial: The index of the first of them, 0 or more.
        scope: Draws of different scopes are independent.

    Raises:
        ValueError: If a number is out of its range.

    >>> ten, more = TrialDraws(7, 1, 205).uniform(10, "site"), TrialDraws(7, 300).uniform(20, "site")
    >>> bool((ten[0] == more[205, :10]).all())
    True
    """

    seed: int
    num_trials: int
    first_trial: int = 0
    scope: str = "trial"

    def __post_init__(self) -> None:
        hold_freed_memory()
        for name, least in (("seed", 0), ("num_trials", 1), ("first_trial", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, got {getattr(self, name)!r}")

    def uniform(self, count: int, *purpose: str | int) -> Floats:
        """Numbers in [0, 1), (trials, count)."""
        return self._dealt(lambda source: source.random((count, TRIALS_PER_STREAM)), *purpose)

    def exponential(self, count: int, *purpose: str | int) -> Floats:
        """Exponential numbers of mean 1, (trials, count)."""
        return self._dealt(lambda source: source.standard_exponential((count, TRIALS_PER_STREAM)), *purpose)

    def gamma(self, count: int, shape: float, *purpose: str | int) -> Floats:
        """Gamma numbers of mean 1, (trials, count).

        Args:
            count: Numbers of each trial.
            shape: Above 0; the squared coefficient of variation is its inverse.
            purpose: What they are for.
        """
        return self._dealt(lambda source: source.gamma(shape, 1 / shape, (count, TRIALS_PER_STREAM)), *purpose)

    def poisson(self, mean: Floats, *purpose: str | int) -> Ints:
        """Poisson counts, (trials, count), of means of that shape; a count depends on its trial's means up to it."""
        found = np.empty(mean.shape, dtype=np.int64)
        for row, means in enumerate(mean):
            found[row] = philox(self.seed, self.first_trial + row, self.scope, *purpose).poisson(means)
        return found

    def _dealt(self, draw: Callable[[np.random.Generator], Floats], *purpose: str | int) -> Floats:
        """The numbers of the trials, (trials, count), out of their streams, (count, 100) each."""
        last = self.first_trial + self.num_trials - 1
        found: Floats | None = None
        for stream in range(self.first_trial // TRIALS_PER_STREAM, last // TRIALS_PER_STREAM + 1):
            start = stream * TRIALS_PER_STREAM
            low, high = max(self.first_trial, start), min(last + 1, start + TRIALS_PER_STREAM)
            numbers = draw(np.random.Generator(stream_of(self.seed, self.scope, *purpose, stream)))
            found = np.empty((self.num_trials, len(numbers))) if found is None else found
            found[low - self.first_trial : high - self.first_trial] = numbers.T[low - start : high - start]
        return np.empty((0, 0)) if found is None else found
