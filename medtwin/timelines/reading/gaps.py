"""The time between two steps: nothing, a scheduled interval, some minutes, or some days and a time of day.

A gap of a day or more is told as whole days and the clock time of the next step, so that a visit by day stays one by
day. Which of the days around it is told by its weekday: clinics are closed on Sundays. Intervals that recur exactly
(five minutes, 365 days) are point masses; all others follow log-normal mixtures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

MINUTES_PER_DAY = 1440
WEEK = 7
HOURS = 24
SLOTS = 12  # five-minute slots of an hour
_SLOT = 5
_MAX_POINTS = 12
_LONG = 360  # minutes: a shorter gap to the end of the window is one like any other
_LAST_PART = 0.1  # a step in so much of what is left of the window is near its end
_MIN_SHARE = 0.02  # of the gaps of its kind: an exact interval that recurs so often is a schedule

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GapLaw:
    """The classes of a gap and what they mean.

    Attributes:
        minute_points: Gaps below a day that recur exactly, minutes.
        day_points: Gaps of a day and more that recur exactly, days between the dates.
        grain: Clock times are multiples of so many minutes past a five-minute slot's start (1), or of the slot (5).

    Classes: 0 nothing; then the minute points; then the day points; then other minutes; then other days; last those
    that go on to about the end of the window of observation: a discharge after a long stay, or death, which is the end.
    """

    minute_points: tuple[int, ...]
    day_points: tuple[int, ...]
    grain: int = 1

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return 4 + len(self.minute_points) + len(self.day_points)

    @property
    def short_class(self) -> int:
        """The class of other gaps below a day."""
        return self.num_classes - 3

    @property
    def long_class(self) -> int:
        """The class of other gaps of a day and more."""
        return self.num_classes - 2

    @property
    def end_class(self) -> int:
        """The class of gaps that end where the window ends."""
        return self.num_classes - 1

    @property
    def has_clock(self) -> NDArray[np.bool_]:
        """(classes,) whether a clock time follows: the day points and other days."""
        first = 1 + len(self.minute_points)
        flags = np.zeros(self.num_classes, dtype=bool)
        flags[first : first + len(self.day_points)] = flags[self.long_class] = True
        return flags

    def encode(self, before: Ints, after: Ints, end: Ints) -> tuple[Ints, NDArray[np.float32], Ints]:
        """Classes, log sizes and clock slots of gaps.

        Args:
            before: (n,) time of a step, minutes since 1970.
            after: (n,) time of the next step.
            end: (n,) end of the window.

        Returns:
            Class (n,); log minutes or log days of the continuous classes, of the last class the log of one and the
            minutes that are left of the window, else 0 (n,); clock as hour * 12 + slot (n,).
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
        left = np.maximum(end - after, 0)
        is_last = (minutes >= _LONG) & (left <= _LAST_PART * (end - before)) & (after <= end)
        classes[(minutes > 0) & (is_last | (after == end))] = self.end_class
        size = np.where(is_long, np.log(np.maximum(days, 1)), np.log(np.maximum(minutes, 1)))
        size = np.where(classes == self.end_class, np.log1p(left), size)
        continuous = classes >= self.short_class
        clock = (after % MINUTES_PER_DAY) // _SLOT
        return classes, np.where(continuous, size, 0).astype(np.float32), clock

    def decode(
        self,
        before: Ints,
        gap_class: Ints,
        log_size: Floats,
        clock: Ints,
        part: Floats,
        end: Ints,
        weekday: Ints | None = None,
    ) -> Ints:
        """The times of the next steps, minutes since 1970, (n,); never before `before`.

        Args:
            before: (n,) times of the steps.
            gap_class: (n,) classes of the gaps.
            log_size: (n,) of a continuous class, as `encode` gives it.
            clock: (n,) hour * 12 + slot, where the class has a clock.
            part: (n,) uniform in [0, 1): the minute within the slot.
            end: (n,) ends of the windows.
            weekday: (n,) days since 1970 modulo 7 of the next steps, for the class of other days: of the days with
                that weekday the one next to the size, within the window; null: the size as it is.
        """
        num_minutes, num_days = len(self.minute_points), len(self.day_points)
        minute_points = np.array([0, *self.minute_points], dtype=np.int64)
        minutes = minute_points[np.clip(gap_class, 0, num_minutes)]
        size = np.exp(np.minimum(log_size, 12.0))
        minutes = np.where(gap_class == self.short_class, np.clip(np.rint(size), 1, MINUTES_PER_DAY - 1), minutes)
        day_points = np.array([*self.day_points, 1], dtype=np.int64)
        days = day_points[np.clip(gap_class - 1 - num_minutes, 0, num_days)]
        long = np.maximum(1, np.rint(size)).astype(np.int64)
        if weekday is not None:
            long = _day_of(long, before // MINUTES_PER_DAY, weekday, end // MINUTES_PER_DAY - before // MINUTES_PER_DAY)
        days = np.where(gap_class == self.long_class, long, days).astype(np.int64)
        inside = (part * _SLOT).astype(np.int64) // self.grain * self.grain
        dated = (before // MINUTES_PER_DAY + days) * MINUTES_PER_DAY + clock * _SLOT + inside
        after = np.where(self.has_clock[gap_class], np.maximum(dated, before + 1), before + minutes.astype(np.int64))
        last = np.maximum(end - np.rint(np.expm1(np.minimum(log_size, 20.0))).astype(np.int64), before + 1)
        return np.where(gap_class == self.end_class, np.minimum(last, np.maximum(end, before)), after)

    def longest_left(self, before: Ints, end: Ints) -> Floats:
        """The largest log size of the last class, (n,), at times `before` in windows that end at `end`, (n,) each."""
        return np.asarray(np.log1p(np.maximum(_LAST_PART * (end - before), 0.0)))

    def to_json(self) -> dict[str, Any]:
        """The law as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> GapLaw:
        """The law that `to_json` wrote."""
        return cls(tuple(value["minute_points"]), tuple(value["day_points"]), value["grain"])


def _day_of(days: Ints, now: Ints, weekday: Ints, most: Ints) -> Ints:
    """The number of days, (n,), at least one, next to `days` that lead from day `now` to a weekday; `most` if it can.

    >>> _day_of(np.array([10, 1, 10]), np.array([0, 0, 0]), np.array([4, 6, 4]), np.array([99, 99, 10])).tolist()
    [11, 6, 4]
    """
    near = days + (weekday - now - days + WEEK // 2) % WEEK - WEEK // 2
    near = np.where(near < 1, near + WEEK, near)
    return np.where((near > most) & (near > WEEK), near - WEEK, near)


class GapCounts:
    """How often gaps of every length occur, shard by shard."""

    def __init__(self) -> None:
        self._short: Counter[int] = Counter()
        self._long: Counter[int] = Counter()
        self._grain = _SLOT
        self._has_long = False

    def add(self, before: Ints, after: Ints) -> None:
        """Counts gaps; times as for `GapLaw.encode`, (n,)."""
        minutes = after - before
        days = after // MINUTES_PER_DAY - before // MINUTES_PER_DAY
        is_long = minutes >= MINUTES_PER_DAY
        for counts, values in ((self._short, minutes[(minutes > 0) & ~is_long]), (self._long, days[is_long])):
            counts.update(dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True)))
        within = np.unique(after[is_long] % _SLOT)
        self._grain = gcd(self._grain, *within.tolist())
        self._has_long |= bool(is_long.any())

    def law(self) -> GapLaw:
        """The law of what was counted."""
        return GapLaw(_points(self._short), _points(self._long), self._grain if self._has_long else 1)


def _points(counts: Counter[int]) -> tuple[int, ...]:
    least = max(20, _MIN_SHARE * counts.total())
    return tuple(sorted(value for value, count in counts.most_common(_MAX_POINTS) if count >= least))
