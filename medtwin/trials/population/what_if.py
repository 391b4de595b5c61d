"""What if a criterion were left out: the pool of eligible subjects, who they are, what the effect is among them.

Every criterion is asked on every candidate day. What a criterion costs depends on the others: where two exclude the
same subject, leaving out either gains nobody. Shapley's value shares the loss fairly: the mean, over all orders in
which the criteria could be applied, of the number of subjects that a criterion excludes when it is its turn.

Source: Shapley 1953; Liu et al. 2021, Nature 592:629 (Trial Pathfinder), who apply it to criteria of eligibility.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.analysis.cox import cox_model
from medtwin.trials.population.attrition import Division
from medtwin.trials.population.cohort import Cohort
from medtwin.trials.population.criteria import Criterion, IndexDay

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
MAX_EXACT = 12
_MAX_CRITERIA = 62  # bits of a mask
_CHUNK = 1 << 24  # cells at a time


@dataclass(frozen=True)
class Linearised:
    """An estimate among the subjects of a pool.

    Attributes:
        value: The estimate.
        influence: (pool,) how much each subject moves it; the sum of the squares is its variance.
    """

    value: float
    influence: Floats


Estimator = Callable[[Ints], Linearised]


@dataclass(frozen=True)
class Interval:
    """A number between `low` and `high` at a level of confidence; both are the number where it is exact."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Pool:
    """The eligible subjects under some criteria.

    Attributes:
        subjects: (pool,) indices into the cohort.
        composition: Division to group to number of subjects.
        effect: Among them; None where no outcome was given or they are too few for it.
    """

    subjects: Ints
    composition: Mapping[str, Mapping[str, int]]
    effect: Interval | None = None

    @property
    def size(self) -> int:
        """Number of subjects."""
        return len(self.subjects)

    def share(self, division: str, group: str) -> float:
        """Of the subjects who are in a group; nan for an empty pool."""
        return self.composition[division][group] / self.size if self.size else math.nan


@dataclass(frozen=True)
class LeftOut:
    """What leaving out one criterion would change.

    Attributes:
        criterion: Its label. pool: The eligible without it.
        gained: Subjects whom it alone excludes. gained_not_evaluable: Of these, those of whom it could not be evaluated
            on such a day: measuring them might gain them as well.
        alone: Subjects who would be eligible were it the only criterion.
        contribution: Shapley's value: its share of the subjects whom the criteria exclude, with the Monte-Carlo
            interval where it is sampled.
        effect_change: Effect without it less the effect under all; None where either is.
    """

    criterion: str
    pool: Pool
    gained: int
    gained_not_evaluable: int
    alone: int
    contribution: Interval
    effect_change: Interval | None = None


@dataclass(frozen=True)
class WhatIf:
    """Eligibility under all criteria, and with each left out. `num_candidates`: subjects with a possible day."""

    pool: Pool
    num_candidates: int
    left_out: Sequence[LeftOut]
    is_exact: bool


@dataclass(frozen=True)
class Failures:
    """Which criteria fail on the possible days of entry, each set of them once a subject.

    Attributes:
        subject: (rows,) index into the cohort, sorted. mask: (rows,) bit k: criterion k does not hold.
        unknown: (rows,) bit k: it could not be evaluated.
        labels: Of the criteria.
    """

    subject: Ints
    mask: Ints
    unknown: Ints
    labels: Sequence[str]

    def admitted(self, ignoring: int = 0) -> Ints:
        """Indices of the subjects with a day on which no criterion fails but those of a mask."""
        return _without_repeats(self.subject[(self.mask & ~ignoring) == 0])[0]


def failures(cohort: Cohort, index: IndexDay, criteria: Sequence[Criterion]) -> Failures:
    """Asks every criterion on every possible day.

    Raises:
        ConfigError: If a code is unknown.
        ValueError: If there is no criterion, or more than 62.
    """
    if not 1 <= len(criteria) <= _MAX_CRITERIA:
        raise ValueError(f"criteria must be 1 to {_MAX_CRITERIA}, got {len(criteria)}")
    at = index.candidates(cohort)
    mask, unknown = np.zeros(len(at.day), dtype=np.int64), np.zeros(len(at.day), dtype=np.int64)
    for bit, criterion in enumerate(criteria):
        answer = criterion.ask(cohort, at)
        mask |= np.where(answer.holds, 0, 1 << bit)
        unknown |= np.where(answer.is_unknown, 1 << bit, 0)
    # days that follow each other are often alike
    subject, mask, unknown = _without_repeats(at.subject, mask, unknown)
    order = _order(subject, mask, unknown, len(criteria))
    subject, mask, unknown = _without_repeats(subject[order], mask[order], unknown[order])
    return Failures(subject, mask, unknown, [criterion.label for criterion in criteria])


def _order(subject: Ints, mask: Ints, unknown: Ints, num_bits: int) -> Ints:
    """The order by subject, mask and unknown; by one key where the three fit into it, which sorts faster."""
    if len(subject) and int(subject.max()).bit_length() + 2 * num_bits < 63:
        return np.argsort((subject << num_bits | mask) << num_bits | unknown)
    return np.lexsort((unknown, mask, subject))


def _without_repeats(*columns: Ints) -> tuple[Ints, ...]:
    """Rows that differ from the one before."""
    is_new = np.zeros(len(columns[0]), dtype=np.bool_)
    for column in columns:
        is_new |= np.diff(column, prepend=-1) != 0
    return tuple(column[is_new] for column in columns)


def _minimal(failing: Failures) -> tuple[Ints, Ints, Ints]:
    """The masks that decide who is admitted under any subset of the criteria: those that contain no other one.

    Returns:
        The masks, (rows,); of each subject its first row, (subjects,), and its number of rows, (subjects,).
    """
    subject, mask = _without_repeats(failing.subject, failing.mask)
    is_kept = np.ones(len(mask), dtype=np.bool_)
    for distance in range(1, len(mask)):
        together = subject[distance:] == subject[:-distance]
        if not together.any():
            break
        # masks of a subject increase, so that none contains a later one
        contains = together & (mask[distance:] & mask[:-distance] == mask[:-distance])
        is_kept[distance:] &= ~contains
    subject, mask = subject[is_kept], mask[is_kept]
    starts = np.flatnonzero(np.diff(subject, prepend=-1) != 0)
    return mask, starts, np.diff(starts, append=len(mask))


def what_if(
    failing: Failures,
    divisions: Mapping[str, Division],
    effect: Estimator | None = None,
    *,
    generator: np.random.Generator,
    num_orders: int = 1000,
    level: float = 0.95,
) -> WhatIf:
    """What each criterion costs in subjects, and what leaving it out would do to who they are and to the effect.

    Args:
        failing: As `failures` gives it.
        divisions: By which the pools are told, as `demographics` gives them.
        effect: Estimates the effect among some subjects: `mean_outcome`, `difference_in_means`, `log_hazard_ratio`.
        generator: Draws the orders where there are more than 12 criteria; up to then all of them are counted.
        num_orders: Drawn then, each with its reverse.
        level: Of the intervals.

    Raises:
        ValueError: If the level is no level or fewer than two orders are drawn.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    number = len(failing.labels)
    is_exact = number <= MAX_EXACT
    if is_exact:
        contributions = [Interval(value, value, value, level) for value in shapley(failing).tolist()]
    else:
        contributions = sampled_shapley(failing, generator, num_orders=num_orders, level=level)
    pool, own = _pool(failing.admitted(), divisions, effect, level)
    everything = (1 << number) - 1
    rows = []
    for bit, label in enumerate(failing.labels):
        without, other = _pool(failing.admitted(1 << bit), divisions, effect, level)
        by_measuring = failing.subject[(failing.mask == 1 << bit) & (failing.unknown >> bit & 1 == 1)]
        change = None if own is None or other is None else _change(pool.subjects, own, without.subjects, other, level)
        rows.append(
            LeftOut(
                criterion=label,
                pool=without,
                gained=without.size - pool.size,
                gained_not_evaluable=len(np.setdiff1d(by_measuring, pool.subjects)),
                alone=len(failing.admitted(everything ^ 1 << bit)),
                contribution=contributions[bit],
                effect_change=change,
            )
        )
    return WhatIf(pool, len(np.unique(failing.subject)), rows, is_exact)


def shapley(failing: Failures) -> Floats:
    """Shapley's values of the criteria, (criteria,), in subjects excluded; exact, over all subsets.

    They add up to the subjects with a possible day who are not eligible under all criteria.

    Raises:
        ValueError: For more than 12 criteria.
    """
    number = len(failing.labels)
    if number > MAX_EXACT:
        raise ValueError(f"criteria must be at most {MAX_EXACT} for exact values, got {number}")
    pools = _pools_of_subsets(failing, number)
    subsets = np.arange(1 << number)
    size = np.bitwise_count(subsets)
    weight = np.array([1 / (number * math.comb(number - 1, k)) for k in range(number)] + [0.0])[size]
    found = []
    for bit in range(number):
        lacks = subsets[subsets >> bit & 1 == 0]
        found.append(float((weight[lacks] * (pools[lacks] - pools[lacks | 1 << bit])).sum()))
    return np.array(found)


def _pools_of_subsets(failing: Failures, number: int) -> Ints:
    """(2^criteria,) number of subjects admitted under each subset of the criteria.

    A subject is admitted if one of its masks has nothing in common with the subset: of every mask, a row of bits, one a
    subset; of every subject, the union of its masks' rows.
    """
    subsets = np.arange(max(1 << number, 64))  # a row has whole words of 64 bits
    mask, starts, count = _minimal(failing)
    masks, row = np.unique(mask, return_inverse=True)
    allowed = np.packbits((masks[:, None] & subsets) == 0, axis=1).view(np.uint64)
    pools = np.zeros(len(subsets), dtype=np.int64)
    step = _CHUNK // len(subsets)
    for chunk in range(0, len(starts), step):
        first, size = starts[chunk : chunk + step], count[chunk : chunk + step]
        union = allowed[row[first]]
        for place in range(1, size.max()):
            more = np.flatnonzero(size > place)
            union[more] |= allowed[row[first[more] + place]]
        pools += np.unpackbits(union.view(np.uint8), axis=1).sum(axis=0, dtype=np.int64)
    return pools[: 1 << number]


def sampled_shapley(
    failing: Failures, generator: np.random.Generator, *, num_orders: int = 1000, level: float = 0.95
) -> list[Interval]:
    """Shapley's values estimated from random orders, each with its reverse, with Monte-Carlo intervals.

    In an order, a subject is lost at the criterion at which the last of its possible days falls away.

    Raises:
        ValueError: If fewer than two orders are drawn.

    Source: Castro, Gomez & Tejada 2009, Comput Oper Res 36:1726; reversed orders as in Mitchell et al. 2022, J Mach
    Learn Res 23:43.
    """
    if num_orders < 2:
        raise ValueError(f"num_orders must be 2 or more, got {num_orders!r}")
    number = len(failing.labels)
    mask, starts, _ = _minimal(failing)
    masks, row = np.unique(mask, return_inverse=True)
    fails = (masks[:, None] >> np.arange(number) & 1).astype(np.bool_)
    drawn = np.zeros((num_orders, number))
    for trial in range(num_orders):
        order = generator.permutation(number)
        for each in (order, order[::-1]):
            place = np.argsort(each)
            first_failing = np.where(fails, place, number).min(axis=1)
            lost_at = np.maximum.reduceat(first_failing[row], starts) if len(starts) else np.empty(0, dtype=np.int64)
            drawn[trial, each] += np.bincount(lost_at, minlength=number + 1)[:number] / 2
    value = drawn.mean(axis=0)
    half = norm.ppf(0.5 + level / 2) * drawn.std(axis=0, ddof=1) / math.sqrt(num_orders)
    return [Interval(float(v), float(v - h), float(v + h), level) for v, h in zip(value, half, strict=True)]


def mean_outcome(outcome: Floats) -> Estimator:
    """Estimates the mean of (subjects,) an outcome, nan where it is missing."""

    def estimate(subjects: Ints) -> Linearised:
        value = outcome[subjects]
        return _mean(value, ~np.isnan(value))

    return estimate


def difference_in_means(outcome: Floats, is_experimental: Bools) -> Estimator:
    """Estimates the mean outcome of the experimental less that of the control arm.

    Args:
        outcome: (subjects,) nan where it is missing.
        is_experimental: (subjects,).
    """

    def estimate(subjects: Ints) -> Linearised:
        value, arm = outcome[subjects], is_experimental[subjects]
        has = ~np.isnan(value)
        experimental, control = _mean(value, has & arm), _mean(value, has & ~arm)
        return Linearised(experimental.value - control.value, experimental.influence - control.influence)

    return estimate


def log_hazard_ratio(months: Floats, event: Bools, is_experimental: Bools) -> Estimator:
    """Estimates the log hazard ratio, experimental / control, of a Cox model with the arm alone.

    Args:
        months: (subjects,) at risk.
        event: (subjects,) whether the event ended them.
        is_experimental: (subjects,).

    Source: Lin & Wei 1989 for the influence, score residuals times the inverse information.
    """

    def estimate(subjects: Ints) -> Linearised:
        arm = is_experimental[subjects]
        happened = event[subjects]
        if not (happened[arm].any() and happened[~arm].any()):
            return Linearised(math.nan, np.zeros(len(subjects)))
        model = cox_model(months[subjects], happened, arm.astype(np.float64))
        return Linearised(float(model.coefficients[0]), (model.residuals @ model.naive_covariance)[:, 0])

    return estimate


def _mean(value: Floats, has: Bools) -> Linearised:
    count = int(has.sum())
    if not count:
        return Linearised(math.nan, np.zeros(len(value)))
    mean = float(value[has].mean())
    return Linearised(mean, np.where(has, (np.where(has, value, mean) - mean) / count, 0.0))


def _pool(
    subjects: Ints, divisions: Mapping[str, Division], effect: Estimator | None, level: float
) -> tuple[Pool, Linearised | None]:
    """The pool of some subjects, and the estimate among them where there is one."""
    composition = {name: division.counts(subjects) for name, division in divisions.items()}
    found = effect(subjects) if effect is not None and len(subjects) else None
    if found is None or math.isnan(found.value):
        return Pool(subjects, composition), None
    return Pool(subjects, composition, _interval(found.value, found.influence, level)), found


def _change(before: Ints, old: Linearised, after: Ints, new: Linearised, level: float) -> Interval:
    """The estimate in the larger pool less that in the smaller, which is part of it: their influences are paired."""
    influence = new.influence.copy()
    influence[np.searchsorted(after, before)] -= old.influence
    return _interval(new.value - old.value, influence, level)


def _interval(value: float, influence: Floats, level: float) -> Interval:
    half = float(norm.ppf(0.5 + level / 2) * math.sqrt(float((influence**2).sum())))
    return Interval(value, value - half, value + half, level)
