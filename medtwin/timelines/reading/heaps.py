"""Values at which the numbers of a token heap: scores, settings of machines, what is read off in tens.

A density that is smooth cannot say that oxygen is given at 40, 50 or 100 %. Heaps are found in the training subjects,
by how many subjects have a value, so that what one subject has many times is none. What a history tells of heaps at
ages, such as at birth or where adults' records begin, and not at how long ago it was. Source of the term: Heitjan &
Rubin 1990, J Am Stat Assoc 85:304.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medtwin.timelines.reading.scales import Scale

Floats = NDArray[np.float64]

MAX_HEAPS = 24
"""Of one token."""
_MIN_SUBJECTS = 20
# How many standard errors a value is above the smooth count around it; that is over as many scale units, and steps.
_MIN_Z, _BANDWIDTH, _STEPS = 4.0, 0.25, 2.0
_LEAST, _MOST = -2.0, 4.0
_MANY = 4_000_000
_ROUNDING = 1e-4  # scaled values are float32
_YEAR = 365.25  # days
DAYS = Scale("linear", 0.0, _YEAR / _BANDWIDTH, 0.0, 150 * _YEAR, 0)
"""Of ages: what is common within a year of an age tells whether many are of that age to the day."""


@dataclass(frozen=True, slots=True)
class Heaps:
    """The heaps of one token, at most `MAX_HEAPS`.

    Attributes:
        values: Scaled; or ages in days.
        log_odds: How many more numbers there are than the smooth density around has, as a log ratio.
        are_ages: Whether the values are ages, at which what the number dates began.
    """

    values: tuple[float, ...] = ()
    log_odds: tuple[float, ...] = ()
    are_ages: bool = False


@dataclass
class HeapCounts:
    """In how many subjects each value of each token occurs, part by part."""

    _token: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _value: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    _count: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, subject: NDArray[np.int64], token: NDArray[np.int64], value: NDArray[np.float32]) -> None:
        """Adds all numbers of some subjects, (n,) each: whose it is, of which token, and scaled."""
        once = _first_of_runs(subject, token, value)
        self._merge(token[once], value[once], np.ones(len(once), np.int64))

    def _merge(self, token: NDArray[np.int64], value: NDArray[np.float32], count: NDArray[np.int64]) -> None:
        token, value = np.concatenate([self._token, token]), np.concatenate([self._value, value])
        count = np.concatenate([self._count, count])
        order = np.lexsort((value, token))
        token, value, count = token[order], value[order], count[order]
        starts = np.flatnonzero(np.r_[True, (np.diff(token) != 0) | (np.diff(value) != 0)][: len(token)])
        count = np.add.reduceat(count, starts) if len(starts) else count
        token, value = token[starts], value[starts]
        if len(token) > _MANY:  # what few subjects have is no heap, and there may be no end of it
            kept = count > 1
            token, value, count = token[kept], value[kept], count[kept]
        self._token, self._value, self._count = token, value, count

    def heaps(self, scales: Sequence[Scale | None]) -> tuple[Heaps, ...]:
        """The heaps of every token."""
        bounds = np.searchsorted(self._token, np.arange(len(scales) + 1))
        found = []
        for index, scale in enumerate(scales):
            mine = slice(bounds[index], bounds[index + 1])
            value, count = self._value[mine].astype(np.float64), self._count[mine]
            found.append(find_heaps(value, count, scale) if scale is not None and len(value) else Heaps())
        return tuple(found)


def _first_of_runs(*columns: NDArray[np.generic]) -> NDArray[np.int64]:
    """Indices of one row of each distinct tuple."""
    order = np.lexsort(columns[::-1])
    if not len(order):
        return order
    changes = np.zeros(len(order), dtype=bool)
    changes[0] = True
    for column in columns:
        changes[1:] |= column[order][1:] != column[order][:-1]
    return order[changes]


def find_heaps(values: Floats, counts: NDArray[np.int64], scale: Scale) -> Heaps:
    """The heaps among distinct scaled values, (n,) ascending, and the number of subjects that have each.

    >>> tens = np.arange(0.0, 3.0, 0.02)
    >>> counts = np.where(np.arange(150) % 50 == 0, 400, 10)
    >>> find_heaps(tens, counts, Scale("linear", 0.0, 1.0, 0.0, 3.0, 2)).values
    (0.0, 1.0, 2.0)
    """
    inside = (values >= scale.low - _ROUNDING) & (values <= scale.high + _ROUNDING)
    frequent = np.flatnonzero((counts >= _MIN_SUBJECTS) & inside)
    frequent = frequent[np.argsort(-counts[frequent], kind="stable")[: 20 * MAX_HEAPS]]
    if len(frequent) < 1 or len(values) < 2:
        return Heaps()
    half = scale.half_width(scale.decode(values[frequent]))
    bandwidth = np.maximum(_BANDWIDTH, _STEPS * 2 * half)
    near = np.exp(-0.5 * ((values[frequent][:, None] - values) / bandwidth[:, None]) ** 2) @ counts
    smooth = np.maximum(near * 2 * half / (bandwidth * np.sqrt(2 * np.pi)), 0.5)
    excess = counts[frequent] - smooth
    if len(values) > MAX_HEAPS:  # else there are so few values that a heap is all there is
        chosen = np.flatnonzero(excess > _MIN_Z * np.sqrt(smooth))
        chosen = chosen[np.argsort(-excess[chosen], kind="stable")[:MAX_HEAPS]]
    else:
        chosen = np.arange(len(frequent))
    chosen = chosen[np.argsort(values[frequent[chosen]])]
    odds = np.log(np.maximum(excess[chosen], 1e-9) / smooth[chosen]).clip(_LEAST, _MOST)
    return Heaps(tuple(float(v) for v in values[frequent[chosen]]), tuple(round(float(x), 4) for x in odds))
