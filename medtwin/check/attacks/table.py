"""One row per person: what attacks go by, attributes that somebody may know of a patient or want to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medtwin.check.records import UNDATED, Records
from medtwin.check.summaries import FIXED_SYSTEMS, commonest_numbers
from medtwin.core.codes import BIRTH, DEATH, SEPARATOR

MAX_CODES = 20
"""Codes that are attributes, present or not: those nearest to half of the subjects."""
MAX_NUMBERS = 20
"""Numbers that are attributes, the first of each subject: those that most subjects have."""
BLOCK = 256

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class People:
    """Attributes of some people, a row each.

    Attributes:
        names: Of the attributes.
        values: (people, attributes); NaN where unknown. Of a category, its number.
        is_category: (attributes,) whether numbers are mere names.

    Raises:
        ValueError: If the shapes do not agree.
    """

    names: tuple[str, ...]
    values: Floats
    is_category: Bools

    def __post_init__(self) -> None:
        width = len(self.names)
        if self.values.ndim != 2 or self.values.shape[1] != width or self.is_category.shape != (width,):
            raise ValueError(f"values must be (people, {width}), got {self.values.shape} of {self.is_category.shape}")

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Ints) -> People:
        """Some of the people, in that order."""
        return replace(self, values=self.values[rows])

    def columns(self, chosen: Sequence[int]) -> People:
        """Some of the attributes."""
        which = list(chosen)
        return People(tuple(self.names[i] for i in which), self.values[:, which], self.is_category[which])


@dataclass(frozen=True)
class Attributes:
    """Which attributes a table has, decided on the real records.

    Attributes:
        codes: Numbers of codes, (codes,). numbers: Code and unit, (numbers, 2).
        statics: Of each of `FIXED_SYSTEMS`, of which a subject has one code, the numbers of its codes.
    """

    codes: Ints
    numbers: Ints
    statics: tuple[Ints, ...]


def attributes_of(real: Records, *, max_codes: int = MAX_CODES, max_numbers: int = MAX_NUMBERS) -> Attributes:
    """The attributes that tell most of people: codes that about half have, numbers that most have.

    Args:
        real: The reference.
        max_codes: How many codes at most.
        max_numbers: How many numbers at most.
    """
    names = real.vocabulary.names
    system = np.array([name.partition(SEPARATOR)[0] for name in names], dtype=object)
    share = (real.counts > 0).sum(axis=0)
    share = np.asarray(share, np.float64).reshape(-1) / max(real.num_subjects, 1)
    share = np.pad(share, (0, len(names) - len(share)))
    plain = ~np.isin(system, FIXED_SYSTEMS) & ~np.isin(np.array(names, dtype=object), [BIRTH, DEATH])
    telling = np.where(plain & (share > 0) & (share < 1), np.abs(share - 0.5), np.inf)
    rank = np.argsort(np.argsort(names))
    codes = np.lexsort((rank, telling))[:max_codes]
    codes = np.sort(codes[np.isfinite(telling[codes])])
    statics = tuple(np.flatnonzero(system == one) for one in FIXED_SYSTEMS)
    return Attributes(codes, commonest_numbers(real, max_numbers), statics)


def people_of(records: Records, attributes: Attributes) -> People:
    """One row per subject: sex, race, ethnicity, age, death, events, years of follow-up, codes, first numbers.

    Age is in whole years at the first event, follow-up in whole days.

    Args:
        records: Of any side, of the vocabulary that the attributes are of.
        attributes: Decided on the real side.
    """
    names = records.vocabulary.names
    parts: list[tuple[str, Floats, bool]] = []
    for system, codes in zip(FIXED_SYSTEMS, attributes.statics, strict=True):
        if len(codes):
            parts.append((system.lower(), _first_code(records, codes), True))
    parts += [
        ("age", np.floor(records.ages), False),
        ("died", (records.time_of(DEATH) != UNDATED).astype(np.float64), True),
        ("events", records.num_events.astype(np.float64), False),
        ("days", np.floor(records.years * 365.25), False),
    ]
    for code in attributes.codes.tolist():
        parts.append((names[code], records.has(names[code]).astype(np.float64), True))
    units = list(records.vocabulary.units)
    for code, unit in attributes.numbers.tolist():
        name = f"{names[code]} [{units[unit]}]" if units[unit] else names[code]
        parts.append((name, _first_number(records, code, unit), False))
    titles, values, kinds = zip(*parts, strict=True)
    return People(tuple(titles), np.column_stack(values), np.array(kinds, bool))


def _first_code(records: Records, codes: Ints) -> Floats:
    found = np.full(records.num_subjects, np.nan)
    rows = np.flatnonzero(np.isin(records.code, codes))[::-1]  # the first row is written last and stays
    found[records.subject[rows]] = records.code[rows]
    return found


def _first_number(records: Records, code: int, unit: int) -> Floats:
    found = np.full(records.num_subjects, np.nan)
    rows = np.flatnonzero((records.code == code) & (records.unit == unit) & ~np.isnan(records.value))[::-1]
    found[records.subject[rows]] = records.value[rows]
    return found


@dataclass(frozen=True)
class Scales:
    """What one unit of difference is in each attribute, (attributes,): the range of the twins' numbers."""

    ranges: Floats

    @staticmethod
    def of(people: People) -> Scales:
        """Those of some people; 1 where a number does not vary or nobody has it."""
        known = np.isfinite(people.values)
        high = np.where(known, people.values, -np.inf).max(axis=0, initial=-np.inf)
        low = np.where(known, people.values, np.inf).min(axis=0, initial=np.inf)
        spread = high - low
        return Scales(np.where(np.isfinite(spread) & (spread > 0), spread, 1.0))


def nearest(targets: People, candidates: People, scales: Scales, *, num: int = 1) -> Ints:
    """The candidates nearest to each target, (targets, num), the nearest first; of equals the first.

    The distance is Gower's, summed: of numbers the difference in ranges, at most 1, of categories 0 or 1; two unknown
    values are equal, an unknown one differs from every known one by 1.

    Args:
        targets: Whom to look for.
        candidates: Where; at least `num`.
        scales: Of the attributes of both.
        num: How many.

    Source: Gower 1971, Biometrics 27:857.
    """
    if len(candidates) < num:
        raise ValueError(f"candidates must be at least num={num}, got {len(candidates)}")
    found = np.zeros((len(targets), num), np.int64)
    for start in range(0, len(targets), BLOCK):
        distance = _distances(targets.values[start : start + BLOCK], candidates, scales)
        if num == 1:
            found[start : start + BLOCK, 0] = distance.argmin(axis=1)
        else:
            found[start : start + BLOCK] = np.argsort(distance, axis=1, kind="stable")[:, :num]
    return found


def nearest_distances(targets: People, candidates: People, scales: Scales) -> Floats:
    """Gower's distance, summed over attributes, of each target to the nearest candidate, (targets,)."""
    found = np.full(len(targets), np.inf)
    for start in range(0, len(targets), BLOCK):
        found[start : start + BLOCK] = _distances(targets.values[start : start + BLOCK], candidates, scales).min(axis=1)
    return found


def nearest_without_each(targets: People, candidates: People, scales: Scales) -> Ints:
    """For each attribute the candidate nearest to each target by all others, (targets, attributes).

    Candidates of whom the attribute is unknown are left out, unless it is of all.

    Args:
        targets: Whom to look for.
        candidates: Where; at least one.
        scales: Of the attributes of both.
    """
    found = np.zeros((len(targets), len(targets.names)), np.int64)
    unknown = np.isnan(candidates.values)
    for start in range(0, len(targets), BLOCK):
        rows = targets.values[start : start + BLOCK]
        total = _distances(rows, candidates, scales)
        for column in range(len(targets.names)):
            rest = total - _gaps(rows, candidates, scales, column)
            rest[:, unknown[:, column]] = np.inf
            found[start : start + BLOCK, column] = rest.argmin(axis=1)
    return found


def _distances(rows: Floats, candidates: People, scales: Scales) -> NDArray[np.float32]:
    total = np.zeros((len(rows), len(candidates)), np.float32)
    for column in range(len(candidates.names)):
        total += _gaps(rows, candidates, scales, column)
    return total


def _gaps(rows: Floats, candidates: People, scales: Scales, column: int) -> NDArray[np.float32]:
    """Gower's distance in one attribute, (rows, candidates)."""
    mine, theirs = rows[:, column], candidates.values[:, column]
    unknown, others = np.isnan(mine), np.isnan(theirs)
    if candidates.is_category[column]:
        return np.asarray(np.nan_to_num(mine, nan=-1)[:, None] != np.nan_to_num(theirs, nan=-1), np.float32)
    scale = scales.ranges[column]
    first, second = (np.where(np.isnan(one), 0, one / scale).astype(np.float32) for one in (mine, theirs))
    gap = np.minimum(np.abs(first[:, None] - second), np.float32(1))
    gap[unknown[:, None] != others] = 1
    gap[unknown[:, None] & others] = 0
    return np.asarray(gap)
