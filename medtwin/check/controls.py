"""Ways to break records: each breaks one thing and leaves the others alone. What a measure is there for, it must see.

A negative control is data with a fault that is known because we made it. A measure that does not move on the faults it
claims to see, or that moves on an independent draw of real patients, is worth nothing (docs/results/check.md holds the
matrix of all measures and all faults).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from medtwin.check.records import UNDATED, US_PER_DAY, Records
from medtwin.core.codes import BIRTH, DEATH

US_PER_WEEK = 7 * US_PER_DAY
NOISE = 1.0
"""Standard deviation of the noise that is added to numbers, in interquartile ranges of their code."""
FACTORS = (2.2046, 10.0)
"""Kilograms as pounds, and g/dL as g/L: what two codes are multiplied by where units are swapped."""

STRETCH = 3
OTHER_UNIT = "{another unit}"

Break: TypeAlias = Callable[[Records, Records, np.random.Generator], Records]


def shuffled_columns(records: Records, real: Records, rng: np.random.Generator) -> Records:
    """Codes, with their values, dealt anew over all dated events of all subjects: marginals stay, nothing belongs."""
    rows = _movable(records)
    order = np.arange(len(records.code))
    order[rows] = rng.permutation(rows)
    return replace(records, code=records.code[order], unit=records.unit[order], value=records.value[order])


def shuffled_time(records: Records, real: Records, rng: np.random.Generator) -> Records:
    """Times dealt anew over the events of each subject: gaps and lengths stay, the order is lost."""
    rows = _movable(records)
    dealt = rows[np.lexsort((rng.random(len(rows)), records.subject[rows]))]
    time = records.time_us.copy()
    time[rows] = records.time_us[dealt]
    return in_order(replace(records, time_us=time))


def copied(share: float) -> Break:
    """The first share of subjects replaced by real ones, their dates moved by whole weeks."""

    def _copied(records: Records, real: Records, rng: np.random.Generator) -> Records:
        num_copies = round(share * records.num_subjects)
        source = rng.permutation(real.num_subjects)[np.arange(num_copies) % real.num_subjects]
        kept = records.take(np.arange(num_copies, records.num_subjects))
        taken = real.take(source)
        weeks = rng.integers(1, 50, taken.num_subjects)[taken.subject] * US_PER_WEEK
        moved = np.where(taken.time_us == UNDATED, UNDATED, taken.time_us + weeks)
        return concatenate(kept, replace(taken, time_us=moved))

    return _copied


def collapsed(records: Records, real: Records, rng: np.random.Generator) -> Records:
    """One subject of median length, as many times as there are subjects."""
    middle = np.argsort(records.num_events, kind="stable")[records.num_subjects // 2]
    return records.take(np.full(records.num_subjects, middle))


def without_subgroup(records: Records, real: Records, rng: np.random.Generator) -> Records:
    """Without the subjects of the commoner sex."""
    is_sex = [records.has(f"GENDER//{sex}") for sex in ("F", "M")]
    dropped = max(is_sex, key=lambda mask: int(mask.sum()))
    return records.take(np.flatnonzero(~dropped)) if not dropped.all() else records


def swapped_units(records: Records, real: Records, rng: np.random.Generator) -> Records:
    """The two codes that most subjects have a number of, in another unit under the old name."""
    value = records.value.copy()
    for code, factor in zip(_numeric_codes(records)[: len(FACTORS)], FACTORS, strict=False):
        value[records.code == code] *= np.float32(factor)
    return replace(records, value=value)


def named_units(records: Records, real: Records, rng: np.random.Generator) -> Records:
    """The two codes that most subjects have a number of, in another unit that is named: right, but not what real is."""
    swapped = swapped_units(records, real, rng)
    unit = records.unit.copy()
    units = records.vocabulary.units
    for code in _numeric_codes(records)[: len(FACTORS)]:
        rows = (records.code == code) & ~np.isnan(records.value)
        unit[rows] = units.setdefault(OTHER_UNIT, len(units))
    return replace(swapped, unit=unit)


def invented_codes(records: Records, real: Records, rng: np.random.Generator) -> Records:
    """Every tenth of the codes under a name that no real subject has."""
    codes = records.vocabulary.codes
    used = np.unique(records.code[_movable(records)])[::10]
    names = records.vocabulary.names
    code = records.code.copy()
    for one in used:
        code[records.code == one] = codes.setdefault(f"INVENTED//{names[one]}", len(codes))
        records.vocabulary.kinds.setdefault(f"INVENTED//{names[one]}", records.vocabulary.kinds.get(names[one], ""))
    return replace(records, code=code)


def stretched_time(records: Records, real: Records, rng: np.random.Generator) -> Records:
    """Everything takes `STRETCH` times as long, from each subject's first event on."""
    rows = records.steps.event
    time = records.time_us.copy()
    start = records.span[0][records.subject[rows]]
    time[rows] = start + STRETCH * (time[rows] - start)
    return replace(records, time_us=time)


def early_deaths(records: Records, real: Records, rng: np.random.Generator) -> Records:
    """Every second subject dies after a tenth of their follow-up, and their record ends there."""
    first, last = records.span
    dies = (last > first) & (np.arange(records.num_subjects) % 2 == 0)
    end = np.where(dies, first + (last - first) // 10, np.iinfo(np.int64).max)
    death = records.vocabulary.codes.setdefault(DEATH, len(records.vocabulary.codes))
    gone = (records.code == death) & dies[records.subject]
    kept = records.select(~gone & ((records.time_us == UNDATED) | (records.time_us <= end[records.subject])))
    who = np.flatnonzero(dies)
    none = np.zeros(len(who), np.int64)
    added = replace(
        kept,
        subject=who,
        time_us=end[who],
        code=np.full(len(who), death),
        unit=none,
        value=np.full(len(who), np.nan, np.float32),
        encounter=none - 1,
    )
    return in_order(_stacked(kept, added))


def noisy(records: Records, real: Records, rng: np.random.Generator) -> Records:
    """Every number with normal noise of `NOISE` interquartile ranges."""
    value = records.value.copy()
    for code in _numeric_codes(records):
        rows = np.flatnonzero((records.code == code) & ~np.isnan(records.value))
        low, high = np.quantile(value[rows], [0.25, 0.75])
        value[rows] += (NOISE * (high - low) * rng.standard_normal(len(rows))).astype(np.float32)
    return replace(records, value=value)


BREAKS: Mapping[str, Break] = {
    "shuffled columns": shuffled_columns,
    "shuffled time": shuffled_time,
    "10 % copied": copied(0.1),
    "100 % copied": copied(1.0),
    "collapsed": collapsed,
    "subgroup dropped": without_subgroup,
    "units swapped": swapped_units,
    "units renamed": named_units,
    "codes invented": invented_codes,
    "time stretched": stretched_time,
    "early deaths": early_deaths,
    "noise added": noisy,
}
"""Every fault by name; each takes the records to break, the real ones, and a generator."""


def concatenate(first: Records, second: Records) -> Records:
    """The subjects of two records of one vocabulary, numbered anew from 0, those of the first before the second's."""
    after = replace(second, subject=second.subject + first.num_subjects)
    return replace(_stacked(first, after), subjects=np.arange(first.num_subjects + second.num_subjects))


def _stacked(first: Records, second: Records) -> Records:
    """The rows of both under the subjects of the first."""
    return replace(
        first,
        subject=np.concatenate([first.subject, second.subject]),
        time_us=np.concatenate([first.time_us, second.time_us]),
        code=np.concatenate([first.code, second.code]),
        unit=np.concatenate([first.unit, second.unit]),
        value=np.concatenate([first.value, second.value]),
        encounter=np.concatenate([first.encounter, second.encounter]),
    )


def in_order(records: Records) -> Records:
    """The records sorted by subject and time."""
    order = np.lexsort((records.time_us, records.subject))
    return records.select(order)


def _movable(records: Records) -> NDArray[np.int64]:
    """Rows that happened at a time, without birth and death."""
    fixed = [records.vocabulary.codes.get(code, -1) for code in (BIRTH, DEATH)]
    return np.flatnonzero((records.time_us != UNDATED) & ~np.isin(records.code, fixed))


def _numeric_codes(records: Records) -> NDArray[np.int64]:
    """Codes with numbers, those that most subjects have first."""
    has = ~np.isnan(records.value)
    width = len(records.vocabulary.codes)
    once = np.unique(records.subject[has] * width + records.code[has]) % width
    count = np.bincount(once, minlength=width)
    order = np.argsort(-count, kind="stable")
    return order[count[order] > 0]
