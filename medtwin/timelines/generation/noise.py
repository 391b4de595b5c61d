"""The uniform numbers behind a timeline: a function of who, which step, which decision in it, and what is decided.

A record that differs early, because the person is older, still meets the same numbers in its later steps: that is what
makes a counterfactual a twin and not a stranger.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

END = 1 << 19
"""The place in a step at which its end is decided."""

# What is decided: among events, and where a step ends.
TYPE, CODE, COMPONENT, WITHIN = range(4)
STOP, GAP, SIZE_COMPONENT, SIZE_WITHIN, HOUR, SLOT, MINUTE, WEEKDAY = range(8)
_CHANNELS = 8
_PLACES = 1 << 20


class Noise:
    """Uniform numbers in [0, 1) of some subjects, by counter; numbers that were inferred take the place of drawn ones.

    Args:
        keys: (n,) of the subjects, unsigned 64-bit.

    Source: SplitMix64, Steele, Lea & Flood 2014, applied twice to key and counter.
    """

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        self._keys = keys
        self._new: list[tuple[Ints, Floats]] = []
        self._places, self._values = np.zeros(0, dtype=np.int64), np.zeros(0)

    def uniforms(self, rows: Ints, step: Ints, place: Ints, used: Sequence[int]) -> Floats:
        """(m, channels) numbers of the subjects `rows` at steps and places, (m,) each, for what is decided there."""
        counter = self._counter(step, place)[:, None] + np.array(used, dtype=np.uint64)
        with np.errstate(over="ignore"):
            bits = _mix(self._keys[rows][:, None] ^ _mix(counter * _GOLDEN + _GOLDEN))
        drawn = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        if not len(self._places):
            return drawn
        wanted = self._key(rows[:, None], counter)
        at = np.minimum(np.searchsorted(self._places, wanted), len(self._places) - 1)
        return np.where(self._places[at] == wanted, self._values[at], drawn)

    def infer(self, rows: Ints, step: Ints, place: Ints, channel: int, value: Floats) -> None:
        """Puts numbers (m,) in the place of those that would be drawn, from `settle` on.

        Negative ones are what `abduct_mixture` finds no number for.
        """
        key = self._key(rows, self._counter(step, place) + np.uint64(channel))
        self._new.append((key, np.minimum(value, 1.0 - 2.0**-53)))

    def settle(self) -> None:
        """Lets what was inferred take effect."""
        if self._new:
            places = np.concatenate([self._places, *(key for key, _ in self._new)])
            values = np.concatenate([self._values, *(value for _, value in self._new)])
            order = np.argsort(places, kind="stable")
            self._places, self._values, self._new = places[order], values[order], []

    @staticmethod
    def _counter(step: Ints, place: Ints) -> NDArray[np.uint64]:
        return ((step * _PLACES + place) * _CHANNELS).astype(np.uint64)

    @staticmethod
    def _key(rows: Ints, counter: NDArray[np.uint64]) -> Ints:
        return rows * (1 << 44) + counter.astype(np.int64)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(bits: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    mixed = np.asarray(bits, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for _ in range(2):
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed
