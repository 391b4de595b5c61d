"""What if a criterion were left out: the pool of eligible subjects, who they are, what the effect is among them.

Every criterion is asked on every candidate day. What a criterion costs depends on the others: where two exclude the
same subject, leaving out either gains nobody. Shapley's value shares the loss fairly: the mean, over all orders in
which the criteria could be applied, of the number of subjects that a criterion excludes when it is its turn.

The subjects are taken as a sample of the patients who might come. Their shares have exact intervals (Clopper and
Pearson's), differences of shares and Shapley's values those of a bootstrap of the patients, effects those of the
infinitesimal jackknife; each says which.

Source: Liu et al. 2021, Nature 592:629 (Trial Pathfinder).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.analysis.rates import exact_rate
from medtwin.trials.population.attrition import Division
from medtwin.trials.population.failing import Failures, Patterns, patterns_of
from medtwin.trials.population.pool_effects import Estimator, Linearised
from medtwin.trials.population.resampled_pools import ResampledPools, resampled_pools
from medtwin.trials.population.shapley import MAX_EXACT, Shares, exact_shares, sampled_shares

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Method = Literal["exact", "bootstrap of patients", "infinitesimal jackknife"]
Shared = Mapping[str, Mapping[str, "Interval"]]


@dataclass(frozen=True)
class Interval:
    """A number between `low` and `high` at a level of confidence, and by which method; nan where there is none."""

    value: float
    low: float
    high: float
    level: float
    method: Method


@dataclass(frozen=True)
class Pool:
    """The eligible subjects under some criteria.

    Attributes:
        subjects: (pool,) indices into the cohort.
        composition: Division to group to number of subjects.
        of_candidates: Their share of the subjects with a possible day.
        shares: Division to group to its share of the pool; nan for an empty one.
        effect: Among them; None where no outcome was given or they are too few for it.
    """

    subjects: Ints
    composition: Mapping[str, Mapping[str, int]]
    of_candidates: Interval
    shares: Shared
    effect: Interval | None = None

    @property
    def size(self) -> int:
        """Number of subjects."""
        return len(self.subjects)

    def share(self, division: str, group: str) -> float:
        """Of the subjects who are in a group; nan for an empty pool."""
        return self.shares[division][group].value


@dataclass(frozen=True)
class LeftOut:
    """What leaving out one criterion would change.

    Attributes:
        criterion: Its label. pool: The eligible without it.
        gained: Subjects whom it alone excludes. gained_not_evaluable: Of these, those of whom it could not be evaluated
            on such a day: measuring them might gain them as well. gained_share: Of the subjects with a possible day.
        alone: Subjects who would be eligible were it the only criterion.
        contribution: Shapley's value: its share of the subjects whom the criteria exclude; where orders are drawn their
            Monte-Carlo error is in the interval.
        share_changes: Division to group to its share of the pool without the criterion less that under all.
        effect_change: Effect without it less the effect under all; None where either is.
    """

    criterion: str
    pool: Pool
    gained: int
    gained_not_evaluable: int
    gained_share: Interval
    alone: int
    contribution: Interval
    share_changes: Shared
    effect_change: Interval | None = None


@dataclass(frozen=True)
class WhatIf:
    """Eligibility under all criteria, and with each left out. `num_candidates`: subjects with a possible day.

    `is_exact`: Shapley's values are of all subsets, not of drawn orders.
    """

    pool: Pool
    num_candidates: int
    left_out: Sequence[LeftOut]
    is_exact: bool


def what_if(
    failing: Failures,
    divisions: Mapping[str, Division],
    effect: Estimator | None = None,
    *,
    generator: np.random.Generator,
    num_orders: int = 1000,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> WhatIf:
    """What each criterion costs in subjects, and what leaving it out would do to who they are and to the effect.

    Args:
        failing: As `failing.failures` gives it.
        divisions: By which the pools are told, as `demographics` gives them.
        effect: Estimates the effect among some subjects, see `pool_effects`.
        generator: Draws the resampled cohorts, and the orders where there are more than 12 criteria; up to then all of
            them are counted.
        num_orders: Drawn then, each with its reverse.
        num_resamples: Cohorts of the bootstrap.
        level: Of the intervals.

    Raises:
        ValueError: If the level is no level, fewer than two orders or than 100 cohorts are drawn.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    if num_resamples < 100:
        raise ValueError(f"num_resamples must be 100 or more, got {num_resamples!r}")
    number, patterns = len(failing.labels), patterns_of(failing)
    is_exact = number <= MAX_EXACT
    shares = exact_shares(patterns, number) if is_exact else (
        sampled_shares(patterns, number, generator, num_orders=num_orders)
    )  # fmt: skip
    bits = [1 << bit for bit in range(number)]
    drawn = resampled_pools(patterns, shares.of_pattern, [0, *bits], divisions, generator, num_resamples)
    contributions = _contributions(patterns, shares, drawn, generator, level)
    total, everything = len(patterns.subject), (1 << number) - 1
    pool, own = _pool(failing.admitted(), total, divisions, effect, level)
    rows = []
    for place, (bit, label) in enumerate(zip(bits, failing.labels, strict=True)):
        without, other = _pool(failing.admitted(bit), total, divisions, effect, level)
        by_measuring = failing.subject[(failing.mask == bit) & (failing.unknown & bit != 0)]
        change = None if own is None or other is None else _change(pool.subjects, own, without.subjects, other, level)
        rows.append(
            LeftOut(
                criterion=label,
                pool=without,
                gained=without.size - pool.size,
                gained_not_evaluable=len(np.setdiff1d(by_measuring, pool.subjects)),
                gained_share=_exact(without.size - pool.size, total, level),
                alone=len(failing.admitted(everything ^ bit)),
                contribution=contributions[place],
                share_changes=_share_changes(pool, without, drawn, place + 1, level),
                effect_change=change,
            )
        )
    return WhatIf(pool, total, rows, is_exact)


def _contributions(
    patterns: Patterns, shares: Shares, drawn: ResampledPools, generator: np.random.Generator, level: float
) -> list[Interval]:
    """Shapley's values, of what might have come and of what might have been drawn."""
    noise = generator.standard_normal(drawn.values.shape) if shares.monte_carlo_error.any() else 0.0
    moved = drawn.values + noise * shares.monte_carlo_error
    return [
        _percentiles(value, each, level)
        for value, each in zip(patterns.counts @ shares.of_pattern, moved.T, strict=True)
    ]


def _share_changes(pool: Pool, without: Pool, drawn: ResampledPools, place: int, level: float) -> Shared:
    found: dict[str, dict[str, Interval]] = {}
    for division, groups in pool.shares.items():
        moved = drawn.compositions[division][:, place] - drawn.compositions[division][:, 0]
        values = (without.share(division, group) - share.value for group, share in groups.items())
        found[division] = {
            group: _percentiles(value, each, level) for group, value, each in zip(groups, values, moved.T, strict=True)
        }
    return found


def _percentiles(value: float, drawn: Floats, level: float) -> Interval:
    """The interval between the quantiles of the resampled cohorts; cohorts without the number are left out."""
    known = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(known):
        return Interval(value, math.nan, math.nan, level, "bootstrap of patients")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(float(value), low, high, level, "bootstrap of patients")


def _exact(count: int, total: int, level: float) -> Interval:
    if not total:
        return Interval(math.nan, math.nan, math.nan, level, "exact")
    found = exact_rate(count, total, level=level)
    return Interval(found.estimate, found.low, found.high, level, "exact")


def _pool(
    subjects: Ints, total: int, divisions: Mapping[str, Division], effect: Estimator | None, level: float
) -> tuple[Pool, Linearised | None]:
    """The pool of some subjects, and the estimate among them where there is one."""
    composition = {name: division.counts(subjects) for name, division in divisions.items()}
    shares = {
        name: {group: _exact(count, len(subjects), level) for group, count in groups.items()}
        for name, groups in composition.items()
    }
    mine = subjects, composition, _exact(len(subjects), total, level), shares
    found = effect(subjects) if effect is not None and len(subjects) else None
    if found is None or math.isnan(found.value):
        return Pool(*mine), None
    return Pool(*mine, _interval(found.value, found.influence, level)), found


def _change(before: Ints, old: Linearised, after: Ints, new: Linearised, level: float) -> Interval:
    """The estimate in the larger pool less that in the smaller, which is part of it: their influences are paired."""
    influence = new.influence.copy()
    influence[np.searchsorted(after, before)] -= old.influence
    return _interval(new.value - old.value, influence, level)


def _interval(value: float, influence: Floats, level: float) -> Interval:
    half = float(norm.ppf(0.5 + level / 2) * math.sqrt(float((influence**2).sum())))
    return Interval(value, value - half, value + half, level, "infinitesimal jackknife")
