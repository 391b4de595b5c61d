"""Identities: numbers of one subject and moment that must follow from each other, such as BMI, height and weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.check.facts import NEVER, Bools, Facts, Ints
from medtwin.check.records import UNDATED, US_PER_HOUR
from medtwin.check.rules import Input, Rule

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """What a rule says of a shard.

    Attributes:
        rows: One row for each item that it applies to, (items,).
        is_broken: Which of them break it, (items,).
        num_unknown: Items that could not be judged: a unit that is not listed, several numbers at once.
        has_both: Whether the other half of a rule on two sets of codes stands in the shard at all.
    """

    rows: Ints
    is_broken: Bools
    num_unknown: int = 0
    has_both: bool = True


@dataclass(frozen=True)
class _Series:
    """The numbers of one input, one for each instant.

    Attributes:
        row: A row of each instant, (instants,), ascending. value: Its number; NaN where there are several.
    """

    row: Ints
    value: Floats


def judge_identity(rule: Rule, facts: Facts) -> Judged:
    """Whether the numbers of each instant of the first input fit, each other input taken at the nearest instant.

    An instant at which an input has several different numbers cannot be judged, and is counted as unknown.
    """
    first, *others = (_series(one, facts) for one in rule.inputs)
    rows = first.row
    values = {rule.inputs[0].name: first.value}
    is_there = np.ones(len(rows), bool)
    for one, series in zip(rule.inputs[1:], others, strict=True):
        at = _nearest(facts, rows, series, one.within_hours)
        is_there &= at >= 0
        values[one.name] = series.value[np.maximum(at, 0)] if len(series.row) else np.full(len(rows), np.nan)
    values |= _of_the_subject(rule, facts, rows)
    if rule.ages is not None:
        is_there &= is_in_ages(facts.ages(rows), rule.ages)
    if "female" in values:
        is_there &= np.isfinite(values["female"])
    if "age" in values:
        is_there &= np.isfinite(values["age"])
    left, right = (formula.evaluate(values) for formula in rule.formulas)
    left, right = (np.broadcast_to(side, rows.shape) for side in (left, right))
    is_known = is_there & np.isfinite(left) & np.isfinite(right)
    is_broken = ~_holds(rule, left[is_known], right[is_known])
    return Judged(rows[is_known], is_broken, int((is_there & ~is_known).sum()))


def is_in_ages(ages: Floats, limits: tuple[float | None, float | None]) -> Bools:
    """Which ages are within limits, ends included; an unknown age is not."""
    low, high = limits
    return np.asarray((ages >= (-np.inf if low is None else low)) & (ages <= (np.inf if high is None else high)))


def _of_the_subject(rule: Rule, facts: Facts, rows: Ints) -> dict[str, Floats]:
    """Age in whole years, and 1 for women and 0 for men, where the formulas ask for them."""
    names = rule.formulas[0].names | rule.formulas[1].names
    found: dict[str, Floats] = {}
    if "age" in names:
        found["age"] = np.floor(facts.ages(rows))
    if "female" in names:
        women, men = facts.is_of_sex("F"), facts.is_of_sex("M")
        found["female"] = np.where(women == men, np.nan, women.astype(float))[facts.subject[rows]]
    return found


def _holds(rule: Rule, left: Floats, right: Floats) -> Bools:
    slack = rule.tolerance + rule.tolerance_share * np.abs(right)
    if rule.relation == "equals":
        return np.asarray(np.abs(left - right) <= slack)
    if rule.relation == "at-most":
        return np.asarray(left <= right + slack)
    return np.asarray(left < right + slack)


def _series(one: Input, facts: Facts) -> _Series:
    rows = facts.rows_of(one.codes)
    rows = rows[np.isfinite(facts.value[rows]) & facts.has_unit(rows, one.units) & (facts.time[rows] != UNDATED)]
    step = facts.step[rows]
    is_new = np.ones(len(rows), bool)
    is_new[1:] = step[1:] != step[:-1]
    start = np.flatnonzero(is_new)
    if not len(start):
        return _Series(rows, np.zeros(0))
    value = facts.value[rows].astype(np.float64)
    low, high = np.minimum.reduceat(value, start), np.maximum.reduceat(value, start)
    return _Series(rows[start], np.where(low == high, low, np.nan))


def _nearest(facts: Facts, rows: Ints, series: _Series, within_hours: float) -> Ints:
    """Index of the instant of a series that is nearest to each row, the earlier of two; -1 beyond the limit."""
    if not len(series.row):
        return np.full(len(rows), -1)
    step = facts.step[series.row]
    before = np.searchsorted(step, facts.step[rows], side="right") - 1
    after = before + 1
    limit = np.int64(within_hours * US_PER_HOUR)
    distance = []
    for at in (before, after):
        inside = np.clip(at, 0, len(step) - 1)
        is_same = (at == inside) & (facts.subject[series.row[inside]] == facts.subject[rows])
        gap = np.abs(facts.time[series.row[inside]] - facts.time[rows])
        distance.append(np.where(is_same & (gap <= limit), gap, NEVER))
    at = np.where(distance[0] <= distance[1], before, after)
    return np.where(np.minimum(*distance) == NEVER, -1, at)
