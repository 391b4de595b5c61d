"""Numbers per code and unit: distance of the distributions, and the share outside the real range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medtwin.check.findings import Measure, ValueRow
from medtwin.check.marginals import (
    Observations,
    common_support,
    interquartile_range,
    ks_distance,
    total_cdf,
    wasserstein,
)
from medtwin.check.records import Records
from medtwin.check.resample import Draws, Plan, average, compare

MIN_SUBJECTS = 20
"""Real subjects with a number below which its distribution is noise."""
TAILS = (0.001, 0.999)
"""The real range: from the 0.1 to the 99.9 % quantile of the real values."""
NUM_RANGE_HALVES = 20

Floats = NDArray[np.float64]
Key = tuple[int, int]


def observations(records: Records) -> dict[Key, Observations]:
    """The numbers of each code and unit."""
    row = np.flatnonzero(~np.isnan(records.value))
    code, unit = records.code[row], records.unit[row]
    order = np.lexsort((unit, code))
    row, code, unit = row[order], code[order], unit[order]
    bounds = np.flatnonzero((code[1:] != code[:-1]) | (unit[1:] != unit[:-1])) + 1
    found = {}
    for start, stop in pairwise([0, *bounds.tolist(), len(row)] if len(row) else []):
        chosen = row[start:stop]
        values = records.value[chosen].astype(np.float64)
        found[int(code[start]), int(unit[start])] = Observations(records.subject[chosen], values, records.num_subjects)
    return found


@dataclass(frozen=True)
class _Compared:
    row: ValueRow
    ks: Draws
    wasserstein: Draws


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
        "values.wasserstein": "Numbers: mean Wasserstein distance, in interquartile ranges",
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
        "values.worst_ks": _worst([one.ks for one in compared]),
        "values.outside": _outside(keys, sides, plan),
    }
    measures = [
        Measure(name, title, draws[name].estimate(plan, power=0 if name == "values.outside" else 1), len(keys))
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
        support = common_support(first.value, second.value)
        histograms = first.histogram(support), second.histogram(support)
        other = third.histogram(support) if third is not None else None
        ks = compare(plan, *histograms, other, ks_distance)
        moved = compare(plan, *histograms, other, wasserstein(support, interquartile_range(first.value)))
        low, high = np.quantile(first.value, TAILS)
        outside = float(np.mean((second.value < low) | (second.value > high))) if len(second.value) else 0.0
        row = ValueRow(
            codes[key[0]],
            units[key[1]],
            descriptions.get(codes[key[0]]) or codes[key[0]],
            len(first.value),
            len(second.value),
            ks.estimate(plan),
            moved.estimate(plan),
            outside,
            support.tolist(),
            *total_cdf(plan, *histograms),
        )
        yield _Compared(row, ks, moved)


def _nothing(num_subjects: int) -> Observations:
    return Observations(np.zeros(0, np.int64), np.zeros(0), num_subjects)


def _worst(draws: list[Draws]) -> Draws:
    controls = [one.control for one in draws if one.control is not None]
    return Draws(
        np.max([one.bootstrap for one in draws], axis=0),
        np.max([one.halves for one in draws], axis=0),
        max(controls) if controls else None,
    )


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
