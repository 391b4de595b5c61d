"""On which weekday and at which time of the day records start: clinics open by day, emergency rooms never close.

A date that is drawn from a smooth law has no weekday and no hour of its own. Without them twins began at any hour, and
what begins at night is told as an emergency.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.timelines.reading.gaps import MINUTES_PER_DAY, WEEK

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_HOUR = 60
NUM_UNIFORMS = 2
"""For each start: the weekday and hour, and the minute."""


@dataclass(frozen=True)
class Openings:
    """The law of weekdays and hours.

    Attributes:
        counts: (7, 24) training subjects that start on a weekday (of days since 1970, so 0 is a Thursday) at an hour.
        grain: Minutes of the hour are multiples of so many.
    """

    counts: NDArray[np.int64]
    grain: int

    @classmethod
    def of(cls, minutes: Ints) -> Openings:
        """That of some starts, (n,) minutes since 1970, n at least 1."""
        counts = np.zeros((WEEK, MINUTES_PER_DAY // _HOUR), dtype=np.int64)
        np.add.at(counts, (minutes // MINUTES_PER_DAY % WEEK, minutes % MINUTES_PER_DAY // _HOUR), 1)
        return cls(counts, gcd(_HOUR, *np.unique(minutes % _HOUR).tolist()))

    def place(self, minutes: Floats, uniforms: Floats) -> Floats:
        """Starts on a weekday and at a time of the law, at most three days and a half from what was given, (n,).

        Args:
            minutes: (n,) minutes since 1970.
            uniforms: (n, NUM_UNIFORMS) in [0, 1).

        >>> morning = Openings.of(np.array([8 * 60 + 30, 9 * 60]))
        >>> [divmod(int(m), 1440) for m in morning.place(np.array([10_000.0, 16_500.0]), np.full((2, 2), 0.6))]
        [(7, 570), (14, 570)]
        """
        total = np.cumsum(self.counts)
        cell = np.searchsorted(total, uniforms[:, 0] * total[-1], side="right").clip(max=len(total) - 1)
        weekday, hour = np.divmod(cell, self.counts.shape[1])
        day = np.floor(minutes / MINUTES_PER_DAY).astype(np.int64)
        shift = (weekday - day + WEEK // 2) % WEEK - WEEK // 2
        minute = np.floor(uniforms[:, 1] * (_HOUR // self.grain)) * self.grain
        return np.asarray((day + shift) * MINUTES_PER_DAY + hour * _HOUR + minute, dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """The law as JSON values."""
        return {"counts": self.counts.tolist(), "grain": self.grain}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Openings:
        """The law that `to_json` wrote."""
        return cls(np.array(value["counts"], dtype=np.int64), int(value["grain"]))
