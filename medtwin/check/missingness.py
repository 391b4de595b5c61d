"""What was not measured: the share of subjects, days and encounters without a number, and what is missing together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medtwin.check.estimates import Measure
from medtwin.check.findings import CoMissingnessRow, MissingnessRow
from medtwin.check.labs import days_of
from medtwin.check.records import Records
from medtwin.check.resample import Plan, Sums, compare, weighted_sums
from medtwin.check.values import MIN_SUBJECTS, num_needed

MAX_CODES = 40
"""Codes whose pairs are considered: those that most real subjects have, of those that enough have and lack."""
MIN_ENCOUNTER_SHARE = 0.5
"""Share of dated events that belong to an encounter from which on encounters are counted."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind: TypeAlias = Literal["subject", "day", "encounter"]
Pair: TypeAlias = Literal["subject", "day"]
_NAMES: dict[Kind, tuple[str, str]] = {
    "subject": ("missingness.error", "Share of subjects without a number, by code: mean absolute error"),
    "day": ("missingness.day_error", "Share of a subject's days without a number, by code: mean absolute error"),
    "encounter": ("missingness.encounter_error", "Share of encounters without a number, by code: mean absolute error"),
}
_PAIR_NAMES: dict[Pair, tuple[str, str]] = {
    "subject": (
        "co_missingness.error",
        "Which codes a subject has or lacks together: mean absolute error of the phi coefficient",
    ),
    "day": (
        "co_missingness.day_error",
        "Which codes stand or lack together on a day: mean absolute error of the phi coefficient",
    ),
}


@dataclass(frozen=True)
class Units:
    """What can have a code or lack it: subjects, or their days or encounters.

    Attributes:
        subject: Whose unit it is, (units,). row: Rows that stand in a unit. unit: The unit of each of them.
        num_subjects: How many subjects there are.
    """

    subject: Ints
    row: Ints
    unit: Ints
    num_subjects: int


def units_of(records: Records, kind: Kind) -> Units:
    """The subjects, all of them; or the days with a dated event (`days_of`); or the encounters."""
    if kind == "subject":
        everybody = np.arange(records.num_subjects)
        return Units(everybody, np.arange(len(records.code)), records.subject, records.num_subjects)
    if kind == "day":
        day, subject = days_of(records)
        return Units(subject, records.steps.event, day[records.steps.step], records.num_subjects)
    row = np.flatnonzero(records.encounter >= 0)
    _, first, unit = np.unique(records.encounter[row], return_index=True, return_inverse=True)
    return Units(records.subject[row[first]], row, unit, records.num_subjects)


def missingness_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan, descriptions: Mapping[str, str]
) -> tuple[list[Measure], list[MissingnessRow]]:
    """The error of the share of subjects, days and encounters in which a code has no number, and their rows.

    Codes are those with numbers of at least `MIN_SUBJECTS` real subjects; a code without its number counts as missing.
    """
    sides = [side for side in (real, synthetic, control) if side is not None]
    num_codes = len(real.vocabulary.codes)
    has = [_presence(side, units_of(side, "subject"), num_codes, with_number=True) for side in sides]
    codes = np.flatnonzero(np.asarray(has[0].sum(axis=0)).ravel()[:-1] >= MIN_SUBJECTS)
    measures: list[Measure] = []
    rows: list[MissingnessRow] = []
    for kind, (name, title) in _NAMES.items():
        reason, is_applicable = _why_not(kind, sides, len(codes))
        if reason:
            measures.append(Measure(name, title, None, 0, "lower", reason, is_applicable))
            continue
        if kind != "subject":
            has = [_presence(side, units_of(side, kind), num_codes, with_number=True) for side in sides]
        columns = np.append(codes, num_codes)
        features = [one[:, columns] for one in has]
        draws = compare(plan, features[0], features[1], features[2] if len(features) > 2 else None, _mean_gap)
        measures.append(Measure(name, title, draws.estimate(plan), len(codes)))
        shares = [_shares_without(weighted_sums(np.ones((1, one.shape[0]), np.float32), one))[0] for one in features]
        for code, first, second in zip(codes.tolist(), *shares[:2], strict=True):
            text = real.vocabulary.names[code]
            rows.append(MissingnessRow(kind, text, descriptions.get(text) or text, float(first), float(second)))
    return measures, rows


def _why_not(kind: Kind, sides: list[Records], num_codes: int) -> tuple[str, bool]:
    """Why there is nothing to compare, empty where there is; and whether the real data has something of the kind."""
    if not num_codes:
        return f"no code has numbers of {MIN_SUBJECTS} real subjects", bool((~np.isnan(sides[0].value)).any())
    if kind == "encounter":
        for side, whose in zip(sides, ("real", "synthetic", "control"), strict=False):
            within = side.encounter[side.steps.event] >= 0
            if not len(within) or within.mean() < MIN_ENCOUNTER_SHARE:
                return f"most {whose} events belong to no encounter", whose != "real"
    if kind == "day" and not len(sides[0].steps.subject):
        return "no real subject has a dated event", False
    return "", True


def _presence(records: Records, units: Units, num_codes: int, *, with_number: bool) -> sparse.csr_array:
    """Units of each subject with each code, (subjects, codes + 1); the last column counts the units."""
    row, unit = units.row, units.unit
    if with_number:
        kept = ~np.isnan(records.value[row])
        row, unit = row[kept], unit[kept]
    flat = np.sort(unit * num_codes + records.code[row])
    flat = flat[np.r_[True, np.diff(flat) > 0]] if len(flat) else flat
    whose = np.concatenate([units.subject[flat // max(num_codes, 1)], units.subject])
    column = np.concatenate([flat % max(num_codes, 1), np.full(len(units.subject), num_codes)])
    shape = (units.num_subjects, num_codes + 1)
    return sparse.csr_array(sparse.coo_array((np.ones(len(whose), np.float32), (whose, column)), shape=shape))


def _shares_without(sums: Sums) -> Floats:
    """Share of units without each code, (draws, codes); 1 where there is no unit."""
    return np.asarray(1 - sums[:, :-1] / np.maximum(sums[:, -1:], 1))


def _mean_gap(first: Sums, second: Sums) -> Floats:
    return np.asarray(np.abs(_shares_without(first) - _shares_without(second)).mean(axis=1))


def co_missingness_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan
) -> tuple[list[Measure], list[CoMissingnessRow]]:
    """The error of the phi coefficients of presence of pairs of codes, by subject and by day, and their rows.

    Codes are dated ones that enough real subjects have, and enough lack (by day: lack on some day), as a coefficient of
    what everybody has is noise. A coefficient that is undefined on one side, such as of a code that every twin has,
    counts as 1 off. Source: the phi coefficient, Yule 1912, J R Stat Soc 75:579.
    """
    sides = [side for side in (real, synthetic, control) if side is not None]
    measures: list[Measure] = []
    rows: list[CoMissingnessRow] = []
    names = real.vocabulary.names
    for kind, (name, title) in _PAIR_NAMES.items():
        units = [_dated_units(side, kind) for side in sides]
        codes = _varying_codes(real, units[0], num_needed(plan))
        if len(codes) < 2:
            reason = f"fewer than 2 codes are had and lacked by {num_needed(plan)} real subjects"
            measures.append(Measure(name, title, None, 0, "lower", reason, bool(len(real.steps.subject))))
            continue
        pairs = np.array(list(combinations(range(len(codes)), 2)))
        features = [_pair_counts(side, one, codes, pairs) for side, one in zip(sides, units, strict=True)]

        def distance(first: Sums, second: Sums, pairs: Ints = pairs) -> Floats:
            gap = np.abs(phi(first, pairs) - phi(second, pairs))
            return np.asarray(np.where(np.isnan(gap), 1.0, gap).mean(axis=1))

        draws = compare(plan, features[0], features[1], features[2] if len(features) > 2 else None, distance)
        measures.append(Measure(name, title, draws.estimate(plan), len(pairs)))
        drawn = [phi(one.sum(axis=0, keepdims=True, dtype=np.float64), pairs)[0] for one in features[:2]]
        for (a, b), first, second in zip(codes[pairs].tolist(), *drawn, strict=True):
            values = (None if np.isnan(one) else float(one) for one in (first, second))
            rows.append(CoMissingnessRow(kind, names[a], names[b], *values))
    return measures, rows


def _dated_units(records: Records, kind: Pair) -> Units:
    """The units with their dated rows only: facts without a time are never missing."""
    if kind == "day":
        return units_of(records, "day")
    event = records.steps.event
    return Units(np.arange(records.num_subjects), event, records.subject[event], records.num_subjects)


def _varying_codes(real: Records, units: Units, num_needed: int) -> Ints:
    """Codes that so many subjects have in some unit and lack in some, at most `MAX_CODES`, the most common."""
    num_codes = len(real.vocabulary.codes)
    has = _presence(real, units, num_codes, with_number=False).tocsc()
    num_units = has[:, [num_codes]].toarray().ravel()
    have, lack = np.zeros(num_codes, np.int64), np.zeros(num_codes, np.int64)
    for code in range(num_codes):
        part = slice(has.indptr[code], has.indptr[code + 1])
        have[code] = part.stop - part.start
        lack[code] = (num_units > 0).sum() - (has.data[part] >= num_units[has.indices[part]]).sum()
    enough = np.flatnonzero((have >= num_needed) & (lack >= num_needed))
    return np.sort(enough[np.argsort(-have[enough], kind="stable")][:MAX_CODES])


def _pair_counts(records: Records, units: Units, codes: Ints, pairs: Ints) -> NDArray[np.float32]:
    """Units of each subject with both codes of each pair, with each code, and all, (subjects, pairs + codes + 1)."""
    column = np.full(len(records.vocabulary.codes), -1)
    column[codes] = np.arange(len(codes))
    which = column[records.code[units.row]]
    present = np.zeros((len(codes), len(units.subject)), dtype=bool)
    present[which[which >= 0], units.unit[which >= 0]] = True
    features = np.zeros((units.num_subjects, len(pairs) + len(codes) + 1), np.float32)
    for number, (a, b) in enumerate(pairs):
        features[:, number] = _count(units, present[a] & present[b])
    for number, one in enumerate(present, start=len(pairs)):
        features[:, number] = _count(units, one)
    features[:, -1] = np.bincount(units.subject, minlength=units.num_subjects)
    return features


def _count(units: Units, chosen: NDArray[np.bool_]) -> Ints:
    return np.bincount(units.subject[chosen], minlength=units.num_subjects)


def phi(sums: Sums, pairs: Ints) -> Floats:
    """Phi coefficients, (draws, pairs), of units with both, with each code, and all; NaN where one never varies."""
    both = sums[:, : len(pairs)]
    single, num = sums[:, len(pairs) : -1], sums[:, -1:]
    first, second = single[:, pairs[:, 0]], single[:, pairs[:, 1]]
    spread = first * (num - first) * second * (num - second)
    varies = spread > 0
    return np.where(varies, (num * both - first * second) / np.sqrt(np.where(varies, spread, 1)), np.nan)
