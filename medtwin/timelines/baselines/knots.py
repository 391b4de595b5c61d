"""Distributions of numbers, one per group, as means of equally many sorted values: quantiles that are nobody's own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medtwin.timelines.reading.quantiles import Quantiles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_SUBJECTS = 5
"""Subjects whose values a knot is the mean of, at least; where a group has fewer, the mean of all is its one knot."""
_MAX_KNOTS = 128


@dataclass(frozen=True)
class Knots:
    """Quantiles of G groups.

    Attributes:
        values: (K,) knots of the groups, one group after the other, ascending within each.
        offsets: (G + 1,) the first knot of every group.
    """

    values: Floats
    offsets: Ints

    @classmethod
    def of(cls, value: Floats, group: Ints, subject: Ints, num_groups: int) -> Knots:
        """Those of values, (n,), of groups and of subjects, (n,) each."""
        order = np.lexsort((value, group))
        bounds = np.searchsorted(group[order], np.arange(num_groups + 1))
        parts = [
            _knots(value[order[first:last]], subject[order[first:last]]) for first, last in pairwise(bounds.tolist())
        ]
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        return cls(np.concatenate([np.zeros(0), *parts]), np.concatenate([[0], np.cumsum(sizes)]))

    @property
    def has(self) -> NDArray[np.bool_]:
        """(G,) which groups have a distribution."""
        return np.diff(self.offsets) > 0

    def value(self, group: Ints, uniform: Floats) -> Floats:
        """The quantiles of groups at shares from 0 to 1, (n,) each; beyond the outer knots by half a step at most.

        >>> Knots(np.array([1.0, 3.0]), np.array([0, 2])).value(np.zeros(3, int), np.array([0.25, 0.5, 1.0])).tolist()
        [1.0, 2.0, 4.0]
        """
        first, number = self.offsets[group], np.diff(self.offsets)[group]
        place = np.clip(uniform, 0.0, 1.0) * number - 0.5
        left = np.clip(np.floor(place), 0, np.maximum(number - 2, 0)).astype(np.int64)
        right = np.minimum(left + 1, number - 1)
        low, high = self.values[first + left], self.values[first + right]
        return np.asarray(low + (place - left) * (high - low))

    def score(self, group: Ints, value: Floats) -> Floats:
        """Normal scores of values of groups that have a distribution, (n,) each."""
        scores = np.zeros(len(value))
        order = np.argsort(group, kind="stable")
        bounds = np.searchsorted(group[order], np.arange(len(self.offsets)))
        for index in np.flatnonzero(np.diff(bounds)):
            mine = order[bounds[index] : bounds[index + 1]]
            knots = self.values[self.offsets[index] : self.offsets[index + 1]]
            scores[mine] = Quantiles(knots).score(value[mine]) if len(knots) > 1 else 0.0
        return scores


def _knots(value: Floats, subject: Ints) -> Floats:
    """The knots of one group, of sorted values."""
    if not len(value):
        return np.zeros(0)
    number = int(np.clip(len(value) // MIN_SUBJECTS, 1, _MAX_KNOTS))
    names = np.unique(subject, return_inverse=True)[1]
    while number > 1:
        part = np.repeat(np.arange(number), [len(each) for each in np.array_split(value, number)])
        pairs = np.unique(part * (int(names.max()) + 1) + names) // (int(names.max()) + 1)
        if np.bincount(pairs, minlength=number).min() >= MIN_SUBJECTS:
            break
        number //= 2
    return np.array([each.mean() for each in np.array_split(value, number)])
