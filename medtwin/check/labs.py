"""Which numbers go together: between patients, from day to day within a patient, and at one time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import Measure
from medtwin.check.findings import CorrelationRow
from medtwin.check.records import US_PER_DAY, Records
from medtwin.check.resample import Distance, Draws, Plan, Sums, average, compare, weighted_sums
from medtwin.check.values import (
    NO_VARIANCE,
    Key,
    Series,
    normal_scores,
    num_needed,
    num_subjects,
    numbers,
    rows_by_key,
    series,
)

MAX_LABS = 30
"""Codes with a unit considered: those whose numbers most real subjects have."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind: TypeAlias = Literal["between", "day", "time"]
_TITLES: dict[Kind, str] = {
    "between": "Correlation of two numbers between the means of patients: mean absolute error",
    "day": "Correlation of two numbers from day to day within a patient: mean absolute error",
    "time": "Correlation of two numbers at one time within a patient: mean absolute error",
}


@dataclass(frozen=True)
class Cells:
    """Mean numbers by subject, by subject and day, or by subject and time.

    Attributes:
        value: (labs, cells); NaN where there is none.
        subject: Whose cell it is, (cells,).
        num_subjects: How many subjects there are.
    """

    value: Floats
    subject: Ints
    num_subjects: int


def common_labs(real: Records, max_labs: int, num_needed: int) -> dict[Key, Ints]:
    """The rows of the codes and units whose numbers most real subjects have, the most common first."""
    rows = rows_by_key(real)
    count = {key: num_subjects(real, row) for key, row in rows.items()}
    order = sorted((key for key in rows if count[key] >= num_needed), key=lambda key: (-count[key], key))
    return {key: rows[key] for key in order[:max_labs]}


def correlation_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan
) -> tuple[list[Measure], list[CorrelationRow]]:
    """The error of the correlations of all pairs of common numbers, of three kinds, and their rows.

    Numbers are turned into normal scores by their real distribution, so that neither skewness nor a single absurd value
    decides (`normal_scores`). The mean of absolute errors weighs a pair by the real subjects who have both, because a
    correlation of few is mostly noise. A correlation that is undefined on one side counts as 1 off.
    """
    needed = num_needed(plan)
    labs = common_labs(real, MAX_LABS, needed)
    sides = [(side, _lab_series(side, real, labs)) for side in (real, synthetic, control) if side is not None]
    pairs = np.array(list(combinations(range(len(labs)), 2)), np.int64).reshape(-1, 2)
    measures: list[Measure] = []
    rows: list[CorrelationRow] = []
    errors: list[Draws] = []
    for kind, title in _TITLES.items():
        cells = [_cells(kind, side, lines) for side, lines in sides]
        features = [_products(one, pairs) if kind == "between" else _comoments(one, pairs) for one in cells]
        counts = [_num_with_both(kind, one) for one in features]
        kept = np.flatnonzero(counts[0] >= needed)
        if not len(kept):
            reason = f"no two numbers stand together in {needed} real subjects"
            measures.append(Measure(_name(kind), title, None, 0, "lower", reason, bool(len(pairs))))
            continue
        used = [one[:, :, kept].reshape(len(one), -1) for one in features]
        distance = _error(kind, counts[0][kept] / counts[0][kept].sum())
        errors.append(compare(plan, used[0], used[1], used[2] if len(used) > 2 else None, distance))
        measures.append(Measure(_name(kind), title, errors[-1].estimate(plan), len(kept)))
        drawn = [_correlations(kind, weighted_sums(np.ones((1, len(one)), np.float32), one))[0] for one in used[:2]]
        rows += _rows(kind, real, list(labs), pairs[kept], drawn, [count[kept] for count in counts])
    title = "Correlation of two numbers: mean absolute error, over the kinds of correlation"
    if not errors:
        none = Measure("lab_correlation.error", title, None, 0, "lower", measures[0].reason, measures[0].applicable)
        return [none, *measures], []
    return [Measure("lab_correlation.error", title, average(errors).estimate(plan), len(rows)), *measures], rows


def _name(kind: Kind) -> str:
    return f"lab_correlation.{kind}_error"


def _lab_series(side: Records, real: Records, labs: Mapping[Key, Ints]) -> list[Series]:
    """Normal scores of each lab over time."""
    rows, none = rows_by_key(side), np.zeros(0, np.int64)
    return [
        series(side, rows.get(key, none), normal_scores(numbers(real, reference))) for key, reference in labs.items()
    ]


def days_of(records: Records) -> tuple[Ints, Ints]:
    """The number of the day of each step, (steps,), and whose day it is, (days,).

    A day is 24 hours, counted from the subject's first step: admission at noon does not cut days in two. Days without a
    step are none.
    """
    steps = records.steps
    is_first = np.ones(len(steps.subject), dtype=bool)
    is_first[1:] = steps.subject[1:] != steps.subject[:-1]
    start = steps.time_us[is_first][np.cumsum(is_first) - 1]
    day = (steps.time_us - start) // US_PER_DAY
    is_new = is_first.copy()
    is_new[1:] |= day[1:] != day[:-1]
    return np.cumsum(is_new) - 1, steps.subject[is_new]


def _cells(kind: Kind, records: Records, labs: Sequence[Series]) -> Cells:
    """Means by subject, day or time."""
    steps = records.steps
    if kind == "between":
        cell, subject = steps.subject, np.arange(records.num_subjects)
    elif kind == "day":
        cell, subject = days_of(records)
    else:
        cell, subject = np.arange(len(steps.subject)), steps.subject
    value = np.full((len(labs), len(subject)), np.nan)
    for row, one in zip(value, labs, strict=True):
        where = cell[one.step]
        num = np.bincount(where, minlength=len(subject))
        total = np.bincount(where, one.value, minlength=len(subject))
        np.divide(total, num, out=row, where=num > 0)
    return Cells(value, subject, records.num_subjects)


def _products(cells: Cells, pairs: Ints) -> NDArray[np.float32]:
    """1, x, y, xy, xx and yy of the two means of each subject who has both, (subjects, 6, pairs)."""
    features = np.zeros((cells.num_subjects, 6, len(pairs)), np.float32)
    for number, (a, b) in enumerate(pairs):
        row = np.flatnonzero(~np.isnan(cells.value[a]) & ~np.isnan(cells.value[b]))
        x, y = cells.value[a][row], cells.value[b][row]
        for column, product in enumerate((np.ones_like(x), x, y, x * y, x * x, y * y)):
            features[cells.subject[row], column, number] = product
    return features


def _comoments(cells: Cells, pairs: Ints) -> NDArray[np.float32]:
    """Sums of dx dy, dx dx and dy dy about the subject's means, (subjects, 3, pairs), of cells that have both."""
    features = np.zeros((cells.num_subjects, 3, len(pairs)), np.float32)
    has = ~np.isnan(cells.value)
    for number, (a, b) in enumerate(pairs):
        row = np.flatnonzero(has[a] & has[b])
        whose, x, y = cells.subject[row], cells.value[a][row], cells.value[b][row]
        num = np.maximum(np.bincount(whose, minlength=cells.num_subjects), 1)
        dx, dy = (one - (np.bincount(whose, one, cells.num_subjects) / num)[whose] for one in (x, y))
        for column, product in enumerate((dx * dy, dx * dx, dy * dy)):
            features[:, column, number] = np.bincount(whose, product, cells.num_subjects)
    return features


def _num_with_both(kind: Kind, features: NDArray[np.float32]) -> Ints:
    """Subjects who have both, (pairs,); within a subject: in whom both vary."""
    has = features[:, 0] > 0 if kind == "between" else features[:, 1:].min(axis=1, initial=np.inf) > NO_VARIANCE
    return np.asarray(has.sum(axis=0), dtype=np.int64)


def _correlations(kind: Kind, sums: Sums) -> Floats:
    """Pearson correlations, (draws, pairs), of sums of `_products` or `_comoments`; NaN where one does not vary."""
    if kind == "between":
        num, x, y, xy, xx, yy = np.split(sums, 6, axis=1)
        num = np.maximum(num, 1)
        xy, xx, yy = xy - x * y / num, xx - x * x / num, yy - y * y / num
    else:
        xy, xx, yy = np.split(sums, 3, axis=1)
        num = np.ones_like(xx)
    varies = np.minimum(xx, yy) / num > NO_VARIANCE
    return np.where(varies, xy / np.sqrt(np.where(varies, xx * yy, 1)), np.nan)


def _error(kind: Kind, weight: Floats) -> Distance:
    def distance(first: Sums, second: Sums) -> Floats:
        gap = np.abs(_correlations(kind, first) - _correlations(kind, second))
        return np.asarray(np.where(np.isnan(gap), 1.0, gap) @ weight)

    return distance


def _rows(
    kind: Kind, real: Records, labs: list[Key], pairs: Ints, drawn: list[Floats], counts: list[Ints]
) -> list[CorrelationRow]:
    codes, units = real.vocabulary.names, list(real.vocabulary.units)

    def shown(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return [
        CorrelationRow(
            kind,
            *(codes[labs[a][0]], units[labs[a][1]], codes[labs[b][0]], units[labs[b][1]]),
            real=shown(drawn[0][number]),
            synthetic=shown(drawn[1][number]),
            num_real=int(counts[0][number]),
            num_synthetic=int(counts[1][number]),
        )
        for number, (a, b) in enumerate(pairs)
    ]
