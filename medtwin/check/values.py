"""Numbers per code and unit: their distributions, foreign units, and how those of one subject hang together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtri

from medtwin.check.estimates import Measure
from medtwin.check.findings import UnitRow, ValueRow, WithinRow
from medtwin.check.marginals import (
    Observations,
    common_support,
    interquartile_range,
    js_divergence,
    ks_distance,
    shared_support,
    total_cdf,
    wasserstein,
)
from medtwin.check.records import Records
from medtwin.check.resample import Draws, Plan, Sums, average, compare, weighted_sums, worst

MIN_SUBJECTS = 20
"""Real subjects with a number below which its distribution is noise."""
TAILS = (0.001, 0.999)
"""The real range: from the 0.1 to the 99.9 % quantile of the real values."""
NUM_RANGE_HALVES = 20
NUM_BINS = 20
"""Bins of the Jensen-Shannon divergence at most, and values of the smaller side for each at least: with fewer, the
divergence of the halves, which have fewer yet, could not be scaled to the sample sizes."""
CLIP = 0.005
"""Normal scores stay within the 0.5 and 99.5 % quantile: a pH of 735 is as far out as the largest real ones."""

NO_VARIANCE = 1e-6
"""Variance of normal scores that is nothing but rounding."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Key = tuple[int, int]
Score = Callable[[Floats], Floats]


def num_needed(plan: Plan) -> int:
    """Real subjects from which on something is compared: so many that half of `MIN_SUBJECTS` are expected of the twins.

    So many are also expected in each half of the real subjects.
    """
    num_real, num_synthetic = plan.real.shape[1], plan.synthetic.shape[1]
    return int(np.ceil(MIN_SUBJECTS * max(1.0, num_real / (2 * num_synthetic))))


def rows_by_key(records: Records) -> dict[Key, Ints]:
    """The rows that hold the numbers of each code and unit, ascending: by subject and time."""
    row = np.flatnonzero(~np.isnan(records.value))
    number = records.code[row] * len(records.vocabulary.units) + records.unit[row]
    order = np.argsort(number, kind="stable")
    row, number = row[order], number[order]
    bounds = np.flatnonzero(np.diff(number)) + 1
    found = {}
    for start, stop in pairwise([0, *bounds.tolist(), len(row)] if len(row) else []):
        found[int(records.code[row[start]]), int(records.unit[row[start]])] = row[start:stop]
    return found


def numbers(records: Records, rows: Ints) -> Floats:
    """The numbers of some rows, (rows,); an infinite one becomes the largest that is finite."""
    largest = float(np.finfo(np.float32).max)
    return np.clip(records.value[rows].astype(np.float64), -largest, largest)


def num_subjects(records: Records, rows: Ints) -> int:
    """Whose rows these ascending ones are: how many subjects."""
    return int(np.count_nonzero(np.diff(records.subject[rows]))) + 1 if len(rows) else 0


def observations(records: Records) -> dict[Key, Observations]:
    """The numbers of each code and unit."""
    return {
        key: Observations(records.subject[row], numbers(records, row), records.num_subjects)
        for key, row in rows_by_key(records).items()
    }


@dataclass(frozen=True)
class Series:
    """The numbers of one code and unit by subject and time; those of one time count as their mean.

    Attributes:
        step: Number of its time (`Records.steps`), (values,), ascending.
        subject: Whose it is, (values,), ascending.
        value: The numbers, (values,).
    """

    step: Ints
    subject: Ints
    value: Floats


def series(records: Records, rows: Ints, score: Score) -> Series:
    """The dated numbers among some rows (`rows_by_key`), each scored before those of one time are averaged."""
    steps = records.steps
    place = np.minimum(np.searchsorted(steps.event, rows), max(len(steps.event) - 1, 0))
    is_dated = steps.event[place] == rows if len(steps.event) else np.zeros(len(rows), dtype=bool)
    value, step = numbers(records, rows[is_dated]), steps.step[place[is_dated]]
    is_new = np.ones(len(step), dtype=bool)
    is_new[1:] = step[1:] != step[:-1]
    group = np.cumsum(is_new) - 1
    num = np.bincount(group)
    return Series(step[is_new], steps.subject[step[is_new]], np.bincount(group, score(value)) / np.maximum(num, 1))


def normal_scores(reference: Floats) -> Score:
    """Turns numbers into the standard normal quantiles of their ranks among the reference, ends pulled in to `CLIP`.

    Tied numbers have the middle of their ranks. Neither the unit nor a single absurd number matters afterwards.
    Source: van der Waerden 1952, Indagationes Mathematicae 14:453.

    >>> score = normal_scores(np.array([1.0, 2.0, 3.0]))
    >>> score(np.array([2.0, 735.0])).round(3).tolist()
    [0.0, 2.576]
    """
    distinct, count = np.unique(reference, return_counts=True)
    upto = np.cumsum(count)
    between = ndtri(np.clip(np.r_[0, upto] / len(reference), CLIP, 1 - CLIP))
    at = ndtri(np.clip((upto - count / 2) / len(reference), CLIP, 1 - CLIP))

    def score(value: Floats) -> Floats:
        place = np.searchsorted(distinct, value)
        inside = np.minimum(place, len(distinct) - 1)
        return np.asarray(np.where(distinct[inside] == value, at[inside], between[place]))

    return score


def quantile_bins(real: Floats, synthetic: Floats) -> Floats:
    """Upper ends of the bins, ascending, (bins,): quantiles of both sides together, of equal weight.

    Neither side can hide in one bin, and neither decides the bins alone, which would tell two draws of one law apart.

    >>> quantile_bins(np.zeros(40), np.repeat([1.0, 5.0], 20)).tolist()
    [0.0, 5.0]
    """
    sides = [side for side in (real, synthetic) if len(side)]
    value = np.concatenate(sides)
    order = np.argsort(value, kind="stable")
    share = np.cumsum(np.concatenate([np.full(len(side), 1 / len(side)) for side in sides])[order]) / len(sides)
    num_bins = int(np.clip(min(len(side) for side in sides) // NUM_BINS, 2, NUM_BINS))
    place = np.searchsorted(share, np.arange(1, num_bins) / num_bins - 1e-9)
    return np.unique(np.append(value[order][place], value.max()))


@dataclass(frozen=True)
class _Compared:
    row: ValueRow
    ks: Draws
    wasserstein: Draws
    js: Draws


def value_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan, descriptions: Mapping[str, str]
) -> tuple[list[Measure], list[ValueRow]]:
    """The measures of numbers, and one row per code and unit, the worst first.

    A number that the real subjects have and no twin has counts as wrong altogether (KS 1).
    """
    sides = (observations(real), observations(synthetic), observations(control) if control is not None else {})
    keys = [key for key, seen in sides[0].items() if len(np.unique(seen.subject)) >= MIN_SUBJECTS]
    titles = {
        "values.ks": "Numbers: mean KS distance over codes",
        "values.wasserstein": "Numbers: mean Wasserstein distance within the real range, in interquartile ranges",
        "values.js": "Numbers: mean Jensen-Shannon divergence over codes, bits",
        "values.worst_ks": "Numbers: KS distance of the worst code",
        "values.outside": "Synthetic numbers outside the real 0.1\N{EN DASH}99.9 % range",
    }
    if not keys:
        reason = f"no code has numbers of {MIN_SUBJECTS} real subjects"
        has_any = bool(sides[0])
        return [Measure(name, title, None, 0, "lower", reason, has_any) for name, title in titles.items()], []
    compared = list(_compare_all(keys, sides, real, plan, descriptions, has_control=control is not None))
    draws = {
        "values.ks": average([one.ks for one in compared]),
        "values.wasserstein": average([one.wasserstein for one in compared]),
        "values.js": average([one.js for one in compared]),
        "values.worst_ks": worst([one.ks for one in compared]),
        "values.outside": _outside(keys, sides, plan),
    }
    power = {"values.outside": 0, "values.js": 2}
    measures = [
        Measure(name, title, draws[name].estimate(plan, power=power.get(name, 1)), len(keys))
        for name, title in titles.items()
    ]
    return measures, sorted((one.row for one in compared), key=lambda row: (-row.ks.value, row.code, row.unit))


def _compare_all(
    keys: list[Key],
    sides: tuple[dict[Key, Observations], ...],
    real: Records,
    plan: Plan,
    descriptions: Mapping[str, str],
    *,
    has_control: bool,
) -> Iterator[_Compared]:
    codes, units = list(real.vocabulary.codes), list(real.vocabulary.units)
    num_synthetic = plan.synthetic.shape[1]
    for key in keys:
        first = sides[0][key]
        second = sides[1].get(key, _nothing(num_synthetic))
        third = sides[2].get(key) if has_control else None
        low, high = np.quantile(first.value, TAILS)
        every = [side for side in (first, second, third) if side is not None]
        ks = compare(plan, *_three(every, shared_support([side.value for side in every])), ks_distance)
        inside = [replace(side, value=np.clip(side.value, low, high)) for side in every]
        support = shared_support([side.value for side in inside])
        distance = wasserstein(support, interquartile_range(first.value))
        moved = compare(plan, *_three(inside, support), distance)
        bins = quantile_bins(first.value, second.value)
        binned = first.histogram(bins), second.histogram(bins), third.histogram(bins) if third is not None else None
        js = compare(plan, *binned, js_divergence)
        outside = float(np.mean((second.value < low) | (second.value > high))) if len(second.value) else 0.0
        shown = common_support(first.value, second.value)
        row = ValueRow(
            codes[key[0]],
            units[key[1]],
            descriptions.get(codes[key[0]]) or codes[key[0]],
            len(first.value),
            len(second.value),
            ks.estimate(plan),
            moved.estimate(plan),
            js.estimate(plan, power=2),
            outside,
            shown.tolist(),
            *total_cdf(plan, first.histogram(shown), second.histogram(shown)),
        )
        yield _Compared(row, ks, moved, js)


def _three(
    sides: list[Observations], support: Floats
) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array | None]:
    """Histograms of reference, twins and control."""
    first, second, *rest = (side.histogram(support) for side in sides)
    return first, second, rest[0] if rest else None


def _nothing(num_subjects: int) -> Observations:
    return Observations(np.zeros(0, np.int64), np.zeros(0), num_subjects)


def _outside(keys: list[Key], sides: tuple[dict[Key, Observations], ...], plan: Plan) -> Draws:
    """Share of values outside the real range; of the halves, of one half outside the range of the other."""
    num_synthetic = plan.synthetic.shape[1]
    out, total = np.zeros(num_synthetic), np.zeros(num_synthetic)
    halves = np.zeros((NUM_RANGE_HALVES, 2))
    control = np.zeros(2)
    for key in keys:
        first = sides[0][key]
        low, high = np.quantile(first.value, TAILS)
        if (second := sides[1].get(key)) is not None:
            is_out = (second.value < low) | (second.value > high)
            out += np.bincount(second.subject, is_out, num_synthetic)
            total += np.bincount(second.subject, minlength=num_synthetic)
        if (third := sides[2].get(key)) is not None:
            control += (np.sum((third.value < low) | (third.value > high)), len(third.value))
        for number in range(NUM_RANGE_HALVES):
            inside_a = plan.half_a[number][first.subject] > 0
            if not inside_a.any() or inside_a.all():
                continue
            bounds = np.quantile(first.value[inside_a], TAILS)
            rest = first.value[~inside_a]
            halves[number] += (np.sum((rest < bounds[0]) | (rest > bounds[1])), len(rest))
    shares = (plan.synthetic @ out) / np.maximum(plan.synthetic @ total, 1)
    return Draws(
        np.asarray(shares, dtype=np.float64),
        halves[:, 0] / np.maximum(halves[:, 1], 1),
        float(control[0] / control[1]) if control[1] else None,
    )


def unit_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan, descriptions: Mapping[str, str]
) -> tuple[list[Measure], list[UnitRow]]:
    """The share of numbers in a unit that the other side does not use for their code, and those units by name.

    Codes without numbers on a side are left out: `codes.foreign_events` and `missingness.error` tell of them.
    """
    sides = [rows_by_key(side) for side in (real, synthetic, control) if side is not None]
    title = "Numbers in a unit that only one side uses for their code"
    if not sides[0]:
        return [Measure("values.foreign_units", title, None, 0, "lower", "no real subject has numbers", False)], []
    keys = sorted({key for side in sides for key in side})
    counts = [
        _counts_of(records, rows, keys)
        for records, rows in zip((real, synthetic, control), sides, strict=False)
        if records is not None
    ]
    starts = np.flatnonzero(np.r_[True, np.diff([code for code, _ in keys]) != 0])
    width = np.diff(np.r_[starts, len(keys)])

    def foreign(first: Sums, second: Sums) -> Floats:
        """Share of real numbers in units that the twins lack, plus the reverse."""
        by_code = [np.repeat(np.add.reduceat(side, starts, axis=1), width, axis=1) for side in (first, second)]
        is_shared = (by_code[0] > 0) & (by_code[1] > 0)
        only_real, only_twins = is_shared & (second == 0), is_shared & (first == 0)
        parts = ((first, only_real), (second, only_twins))
        return np.asarray(sum((side * only).sum(axis=1) / np.maximum(side.sum(axis=1), 1) for side, only in parts))

    draws = compare(plan, counts[0], counts[1], counts[2] if len(counts) > 2 else None, foreign)
    measure = Measure("values.foreign_units", title, draws.estimate(plan, power=0), len(keys))
    rows = [
        *_unit_rows("real", real, sides[0], sides[1], descriptions),
        *_unit_rows("synthetic", synthetic, sides[1], sides[0], descriptions),
    ]
    return [measure], sorted(rows, key=lambda row: (-row.num_values, row.code, row.unit))


def _unit_rows(
    side: Literal["real", "synthetic"],
    records: Records,
    here: Mapping[Key, Ints],
    there: Mapping[Key, Ints],
    descriptions: Mapping[str, str],
) -> Iterator[UnitRow]:
    """The units of one side that the other lacks, for codes with numbers on both."""
    codes, units = records.vocabulary.names, list(records.vocabulary.units)
    has_numbers = {code for code, _ in there}
    for (code, unit), row in here.items():
        if code in has_numbers and (code, unit) not in there:
            name = codes[code]
            yield UnitRow(side, name, units[unit], descriptions.get(name) or name, num_subjects(records, row), len(row))


def _counts_of(records: Records, rows: dict[Key, Ints], keys: list[Key]) -> sparse.csr_array:
    """Numbers of each subject by key, (subjects, keys)."""
    column = {key: number for number, key in enumerate(keys)}
    parts = [(records.subject[row], np.full(len(row), column[key])) for key, row in rows.items()]
    subject, key = (np.concatenate([part[i] for part in parts] or [np.zeros(0, np.int64)]) for i in range(2))
    shape = (records.num_subjects, len(keys))
    return sparse.csr_array(sparse.coo_array((np.ones(len(key), np.float32), (subject, key)), shape=shape))


def within_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan, descriptions: Mapping[str, str]
) -> tuple[list[Measure], list[WithinRow]]:
    """How numbers hang together within a subject: the measures, and one row per code and unit, the worst first.

    What is undefined on one side, such as of a code that no twin has twice, counts as 1 off.
    """
    titles = {
        "values.autocorrelation": "Consecutive numbers of a subject: mean absolute error of their autocorrelation",
        "values.within_share": "Share of a number's variance within subjects: mean absolute error",
    }
    sides = [(side, rows_by_key(side)) for side in (real, synthetic, control) if side is not None]
    draws: dict[str, list[Draws]] = {name: [] for name in titles}
    statistics = {"values.autocorrelation": autocorrelation, "values.within_share": within_share}
    rows: list[WithinRow] = []
    codes, units = real.vocabulary.names, list(real.vocabulary.units)
    for key, reference in sides[0][1].items():
        score = normal_scores(numbers(real, reference))
        none = np.zeros(0, np.int64)
        features = [_moments(series(side, row.get(key, none), score), side.num_subjects) for side, row in sides]
        if (features[0][:, 1] > NO_VARIANCE).sum() < num_needed(plan):
            continue
        third = features[2] if len(features) > 2 else None
        for name, statistic in statistics.items():
            draws[name].append(compare(plan, features[0], features[1], third, _gap_of(statistic)))
        sums = [weighted_sums(np.ones((1, len(one)), np.float32), one) for one in features[:2]]
        name = codes[key[0]]
        rows.append(
            WithinRow(
                name,
                units[key[1]],
                descriptions.get(name) or name,
                *(int((one[:, 3] > 0).sum()) for one in features[:2]),
                *(_number(statistic(one)[0]) for statistic in statistics.values() for one in sums),
            )
        )
    if not rows:
        reason = f"no number varies within {num_needed(plan)} real subjects"
        return [Measure(name, title, None, 0, "lower", reason, bool(sides[0][1])) for name, title in titles.items()], []
    measures = [Measure(name, title, average(draws[name]).estimate(plan), len(rows)) for name, title in titles.items()]
    return measures, sorted(rows, key=lambda row: (-_within_error(row), row.code, row.unit))


def _moments(one: Series, num_subjects: int) -> NDArray[np.float32]:
    """Sums over the times of each subject with two or more, (subjects, 6).

    Half the squared differences of consecutive numbers; squares about the subject's mean; how many differences, which
    are also the degrees of freedom; how many numbers, their sum and the sum of their squares.
    """

    def per_subject(subject: Ints, value: Floats | None = None) -> Floats:
        return np.bincount(subject, value, num_subjects).astype(np.float64)

    num = per_subject(one.subject)
    mean = per_subject(one.subject, one.value) / np.maximum(num, 1)
    about = per_subject(one.subject, (one.value - mean[one.subject]) ** 2)
    same = one.subject[1:] == one.subject[:-1]
    steps = per_subject(one.subject[1:][same], (np.diff(one.value)[same]) ** 2 / 2)
    squares = per_subject(one.subject, one.value**2)
    columns = (steps, about, num - 1, num, mean * num, squares)
    return (np.column_stack(columns) * (num > 1)[:, None]).astype(np.float32)


def autocorrelation(sums: Sums) -> Floats:
    """How alike consecutive numbers of a subject are, (draws,), of sums of `_moments`; NaN where nothing varies.

    One minus the ratio of half the mean squared successive difference to the variance within subjects, both unbiased
    where the order is arbitrary: 0 there however short the records are (a correlation about the subject's own mean is
    -1/(n-1) of n numbers), 1 where numbers do not change, negative where they alternate.
    Source: von Neumann 1941, Ann Math Stat 12:367, pooled over subjects.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1 - (sums[:, 0] / sums[:, 2]) / _positive(sums[:, 1] / sums[:, 2]))


def within_share(sums: Sums) -> Floats:
    """Variance within subjects over the variance of all numbers, (draws,); about 1 where subjects do not differ.

    Source: the one-way analysis of variance, Fisher 1925, Statistical Methods for Research Workers.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        total = (sums[:, 5] - sums[:, 4] ** 2 / sums[:, 3]) / (sums[:, 3] - 1)
        return np.asarray((sums[:, 1] / sums[:, 2]) / _positive(total))


def _positive(variance: Floats) -> Floats:
    """The variance; NaN where it is nothing but rounding."""
    return np.where(variance > NO_VARIANCE, variance, np.nan)


def _gap_of(statistic: Callable[[Sums], Floats]) -> Callable[[Sums, Sums], Floats]:
    def distance(first: Sums, second: Sums) -> Floats:
        gap = np.abs(statistic(first) - statistic(second))
        return np.where(np.isnan(gap), 1.0, gap)

    return distance


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _within_error(row: WithinRow) -> float:
    pairs = (
        (row.autocorrelation_real, row.autocorrelation_synthetic),
        (row.within_share_real, row.within_share_synthetic),
    )
    return sum(1.0 if a is None or b is None else abs(a - b) for a, b in pairs)
