"""Fidelity against a fresh draw of the hospital: transitions, numbers, lengths by age; subjects are resampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from timelines_truth_cohorts import BANDS, Cohort, Floats, Ints

from medtwin.check.pairs import Grid, make_encounter_grid, make_grid
from medtwin.core.seeds import generator

LEVEL = 0.95
NUM_RESAMPLES = 200
MIN_FIRST = 100
"""Steps of the fresh draw with a code and a step after it, from which on its conditional frequencies are compared."""
MIN_VALUES = 50
"""Numbers of a code in the fresh draw from which on their distribution is compared."""
_MAX_POINTS = 400

Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; NaN where it could not be measured."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Standard error that the interval's width implies under a normal law."""
        return (self.high - self.low) / (2 * 1.959964)


def subject_draws(size: int, seed: int, num_resamples: int = NUM_RESAMPLES) -> Weights:
    """How often each subject counts, (1 + resamples, subjects); ones in the first row."""
    rng = generator(seed, "timelines truth", size)
    weights = np.ones((1 + num_resamples, size))
    for row in weights[1:]:
        row[:] = np.bincount(rng.integers(size, size=size), minlength=size)
    return weights


def shifted(draws: Floats) -> Interval:
    """The first draw with a percentile interval of the others, moved so that its middle is the estimate.

    Resampling adds noise of its own to a distance, which would push the interval away from the estimate.
    """
    rest = draws[1:][np.isfinite(draws[1:])]
    if not len(rest) or not np.isfinite(draws[0]):
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(rest - np.median(rest), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + draws[0]
    return Interval(float(draws[0]), float(low), float(high))


@dataclass(frozen=True)
class Follow:
    """Which code follows which in each subject.

    Attributes:
        pairs: (subjects, codes * codes) steps with the first code whose next step has the second.
        first: (subjects, codes) steps with the code that have a next one.
        steps: (subjects,) steps that have a next one.
    """

    pairs: sparse.csr_array
    first: Floats
    steps: Floats


def follow(grid: Grid) -> Follow:
    """Counts the lag-1 transitions of a grid of steps, (steps, codes)."""
    width = grid.present.shape[1]
    first, steps = np.zeros((grid.num_subjects, width)), np.zeros(grid.num_subjects)
    rows, columns, counts = [], [], []
    for subject, present in grid.blocks():
        if len(present) < 2:
            continue
        cells = (present[:-1].T @ present[1:]).ravel()
        used = np.flatnonzero(cells)
        rows.append(np.full(len(used), subject))
        columns.append(used)
        counts.append(cells[used].astype(np.float64))
        first[subject] = present[:-1].sum(axis=0)
        steps[subject] = len(present) - 1
    shape = (grid.num_subjects, width * width)
    if not rows:
        return Follow(sparse.csr_array(shape), first, steps)
    entries = (np.concatenate(counts), (np.concatenate(rows), np.concatenate(columns)))
    return Follow(sparse.csr_array(sparse.coo_array(entries, shape=shape)), first, steps)


def r2(truth: Floats, said: Floats) -> Floats:
    """R2, (draws,), of what is said, (draws, numbers), as a prediction of the truth, (numbers,).

    >>> r2(np.array([0.0, 1.0, 2.0]), np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]))
    array([1. , 0. , 0.5])
    """
    total = ((truth - truth.mean()) ** 2).sum()
    return np.asarray(1 - ((said - truth) ** 2).sum(axis=1) / total)


class Transitions:
    """R2 of lag-1 transitions against one fresh draw: joint, given the first code, and from encounter to encounter.

    `joint`: share of steps with code a whose next step has code b, of all steps with a next one, over all pairs; as in
    HALO (Theodorou et al. 2023, Nat Commun 14:5305) and in `check`. `given`: the share of the steps with a, for codes a
    with `MIN_FIRST` of them in the fresh draw; here rare codes count as much as common ones. `visits`: as `given`, of
    the codes of whole encounters, whose order the hospital's own routine inside of a visit does not fix.
    """

    NAMES = ("joint", "given", "visits")

    def __init__(self, fresh: Cohort) -> None:
        vocabulary = fresh.records.vocabulary.names
        used = np.zeros(len(vocabulary), dtype=bool)
        used[np.unique(fresh.records.code[fresh.records.steps.event])] = True
        self._codes = np.flatnonzero(used)
        self._fresh = [follow(grid) for grid in self._grids(fresh)]
        self._kept = [one.first.sum(axis=0) >= MIN_FIRST for one in self._fresh]

    def _grids(self, cohort: Cohort) -> tuple[Grid, Grid]:
        return make_grid(cohort.records, self._codes), make_encounter_grid(cohort.records, self._codes)

    def measure(self, cohort: Cohort, weights: Weights) -> dict[str, Interval]:
        """The three R2 of a cohort, by name."""
        found = [follow(grid) for grid in self._grids(cohort)]
        ones = np.ones((1, len(self._fresh[0].steps)))
        joint = r2(_joint(self._fresh[0], ones)[0], _joint(found[0], weights))
        draws = {"joint": joint}
        for name, said, truth, kept in zip(("given", "visits"), found, self._fresh, self._kept, strict=True):
            draws[name] = r2(_given(truth, np.ones((1, len(truth.steps))), kept)[0], _given(said, weights, kept))
        return {name: shifted(one) for name, one in draws.items()}


def _joint(side: Follow, weights: Weights) -> Floats:
    return np.asarray(_sums(side, weights) / np.maximum(weights @ side.steps, 1)[:, None])


def _given(side: Follow, weights: Weights, kept: NDArray[np.bool_]) -> Floats:
    width = len(kept)
    pairs = _sums(side, weights).reshape(len(weights), width, width)[:, kept]
    first = (weights @ side.first)[:, kept]
    return np.asarray((pairs / np.maximum(first, 1)[:, :, None]).reshape(len(weights), -1))


def _sums(side: Follow, weights: Weights) -> Floats:
    return np.asarray((side.pairs.T @ weights.T).T)


@dataclass(frozen=True)
class ValueDistance:
    """Kolmogorov-Smirnov distances of numbers.

    Attributes:
        mean: Over codes.
        by_code: Distance of each code; 1 where the cohort has no number of it.
    """

    mean: Interval
    by_code: dict[str, float]


class Values:
    """KS distance of the numbers of each code from those of one fresh draw, on at most 400 points of the fresh ones."""

    def __init__(self, fresh: Cohort) -> None:
        self._points: dict[str, Floats] = {}
        self._shares: dict[str, Floats] = {}
        for number, name in enumerate(fresh.records.vocabulary.names):
            rows = (fresh.records.code == number) & np.isfinite(fresh.records.value)
            if rows.sum() < MIN_VALUES:
                continue
            value = np.sort(fresh.records.value[rows].astype(np.float64))
            points = np.unique(value)
            if len(points) > _MAX_POINTS:
                points = np.unique(np.quantile(value, np.linspace(0, 1, _MAX_POINTS), method="inverted_cdf"))
            self._points[name] = points
            self._shares[name] = np.searchsorted(value, points, side="right") / len(value)

    def measure(self, cohort: Cohort, weights: Weights) -> ValueDistance:
        """The distances of a cohort."""
        draws = {name: self._distance(name, cohort, weights) for name in self._points}
        mean = np.mean(list(draws.values()), axis=0)
        interval = shifted(mean)
        return ValueDistance(replace(interval, low=max(interval.low, 0.0)), {k: float(v[0]) for k, v in draws.items()})

    def _distance(self, name: str, cohort: Cohort, weights: Weights) -> Floats:
        """(draws,) of one code."""
        points, shares = self._points[name], self._shares[name]
        who, _, value = cohort.numbers_of(name)
        place = np.searchsorted(points, value, side="left")  # first point that is not below the value
        width = len(points) + 1
        cells = np.bincount(who * width + place, minlength=cohort.size * width)
        counts = cells.reshape(cohort.size, width).astype(np.float64)
        below = np.cumsum(weights @ counts, axis=1)
        total = below[:, -1:]
        gaps = np.abs(below[:, :-1] / np.maximum(total, 1) - shares)
        return np.where(total[:, 0] > 0, gaps.max(axis=1), 1.0)


LENGTHS: dict[str, Callable[[Cohort], Floats]] = {
    "events": lambda one: one.records.num_events.astype(np.float64),
    "encounters": lambda one: one.num_encounters.astype(np.float64),
    "years of follow-up": lambda one: one.years,
}
"""What is as long as a record, (subjects,), by name."""


@dataclass(frozen=True)
class Length:
    """A mean by age at the start: of the fresh draw, and of a cohort with the relative difference and its interval."""

    what: str
    band: tuple[int, int]
    fresh: float
    mean: float
    relative: Interval
    num_subjects: int


def in_band(cohort: Cohort, band: tuple[int, int]) -> Ints:
    """Subjects whose age at the start lies in a band."""
    return np.flatnonzero((cohort.age >= band[0]) & (cohort.age < band[1]))


def lengths(fresh: Cohort, cohort: Cohort, weights: Weights) -> list[Length]:
    """Mean lengths of a cohort by age band, beside those of a fresh draw, which is not resampled."""
    rows = []
    for what, length_of in LENGTHS.items():
        truth, said = length_of(fresh), length_of(cohort)
        for band in BANDS:
            there, here = in_band(fresh, band), in_band(cohort, band)
            expected = float(truth[there].mean()) if len(there) else float("nan")
            inside = weights[:, here]
            with np.errstate(invalid="ignore"):
                means = inside @ said[here] / inside.sum(axis=1)
            rows.append(Length(what, band, expected, float(means[0]), shifted(means / expected - 1), len(here)))
    return rows
