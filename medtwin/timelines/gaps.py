"""The time between two steps: nothing, a scheduled interval, some minutes, or some days and a time of day.

A gap of a day or more is told as whole days and the clock time of the next step, so that a visit by day stays one by
day. Intervals that recur exactly (five minutes, 365 days) are point masses; all others follow log-normal mixtures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

MINUTES_PER_DAY = 1440
HOURS = 24
SLOTS = 12  # five-minute slots of an hour
_SLOT = 5
_MAX_POINTS = 12
_MIN_SHARE = 0.02  # of the gaps of its kind: an exact interval that recurs so often is a schedule

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GapLaw:
    """The classes of a gap and what they mean.

    Attributes:
        minute_points: Gaps below a day that recur exactly, minutes.
        day_points: Gaps of a day and more that recur exactly, days between the dates.
        grain: Clock times are multiples of so many minutes past a five-minute slot's start (1), or of the slot (5).

    Classes: 0 nothing; then the minute points; then the day points; then other minutes; last other days.
    """

    minute_points: tuple[int, ...]
    day_points: tuple[int, ...]
    grain: int = 1

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return 3 + len(self.minute_points) + len(self.day_points)

    @property
    def short_class(self) -> int:
        """The class of other gaps below a day."""
        return self.num_classes - 2

    @property
    def long_class(self) -> int:
        """The class of other gaps of a day and more."""
        return self.num_classes - 1

    @property
    def has_clock(self) -> NDArray[np.bool_]:
        """(classes,) whether a clock time follows: the day points and other days."""
        first = 1 + len(self.minute_points)
        flags = np.zeros(self.num_classes, dtype=bool)
        flags[first : first + len(self.day_points)] = flags[self.long_class] = True
        return flags

    def encode(self, before: Ints, after: Ints) -> tuple[Ints, NDArray[np.float32], Ints]:
        """Classes, log sizes and clock slots of gaps.

        Args:
            before: (n,) time of a step, minutes since 1970.
            after: (n,) time of the next step.

        Returns:
            Class (n,); log minutes or log days of the continuous classes, else 0 (n,); clock as hour * 12 + slot (n,).
        """
        minutes = after - before
        days = after // MINUTES_PER_DAY - before // MINUTES_PER_DAY
        is_long = minutes >= MINUTES_PER_DAY
        classes = np.where(is_long, self.long_class, self.short_class)
        classes[minutes == 0] = 0
        for index, point in enumerate(self.minute_points):
            classes[~is_long & (minutes == point)] = 1 + index
        for index, point in enumerate(self.day_points):
            classes[is_long & (days == point)] = 1 + len(self.minute_points) + index
        size = np.where(is_long, np.log(np.maximum(days, 1)), np.log(np.maximum(minutes, 1)))
        continuous = (classes == self.short_class) | (classes == self.long_class)
        clock = (after % MINUTES_PER_DAY) // _SLOT
        return classes, np.where(continuous, size, 0).astype(np.float32), clock

    def decode(self, before: int, gap_class: int, log_size: float, clock: int, part: float) -> int:
        """The time of the next step, minutes since 1970; never before `before`.

        Args:
            before: Time of the step.
            gap_class: Class of the gap.
            log_size: Log minutes or log days of a continuous class.
            clock: Hour * 12 + slot, where the class has a clock.
            part: Uniform in [0, 1): the minute within the slot.
        """
        if gap_class == 0:
            return before
        if gap_class <= len(self.minute_points):
            return before + self.minute_points[gap_class - 1]
        if gap_class == self.short_class:
            return before + int(np.clip(round(float(np.exp(log_size))), 1, MINUTES_PER_DAY - 1))
        points = gap_class - 1 - len(self.minute_points)
        days = max(1, round(float(np.exp(min(log_size, 12.0)))))
        if gap_class != self.long_class:
            days = self.day_points[points]
        inside = int(part * _SLOT) // self.grain * self.grain
        after = (before // MINUTES_PER_DAY + days) * MINUTES_PER_DAY + clock * _SLOT + inside
        return max(after, before + 1)

    def to_json(self) -> dict[str, Any]:
        """The law as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> GapLaw:
        """The law that `to_json` wrote."""
        return cls(tuple(value["minute_points"]), tuple(value["day_points"]), value["grain"])


def fit_gaps(before: Ints, after: Ints) -> GapLaw:
    """The law of the gaps of training subjects; times as for `GapLaw.encode`, (n,)."""
    minutes = after - before
    days = after // MINUTES_PER_DAY - before // MINUTES_PER_DAY
    is_long = minutes >= MINUTES_PER_DAY
    within = after[is_long] % _SLOT
    grain = gcd(_SLOT, *np.unique(within).tolist()) if len(within) else 1
    return GapLaw(_points(minutes[(minutes > 0) & ~is_long]), _points(days[is_long]), grain)


def _points(gaps: Ints) -> tuple[int, ...]:
    if not len(gaps):
        return ()
    counts: Sequence[tuple[int, int]] = Counter(gaps.tolist()).most_common(_MAX_POINTS)
    return tuple(sorted(value for value, count in counts if count >= max(20, _MIN_SHARE * len(gaps))))
