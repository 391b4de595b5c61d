"""A cohort as arrays: who is in a dataset, when each was seen, and the events that a trial asks for. Time is in days.

The resolution is the day: what is known of a day includes all of it. A record's day 0 is 1970-01-01.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.codes import BARE_RESOURCES, BIRTH, DEATH, SEPARATOR, is_clinical
from medtwin.core.errors import ConfigError
from medtwin.core.events import RESOURCE_ORDER, is_event
from medtwin.trials.population.code_family import CodeFamily

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Code = str | CodeFamily
NEVER = np.iinfo(np.int64).max
_DAY_US = 86_400_000_000
_SPAN = 1 << 24  # days that fit beside a subject in one sort key; dates reach from the year 0 to 40,000
_ORIGIN = 1 << 20
CONVERTED_DIGITS = 9
_SINGLE_DIGITS = 7  # that a float32 holds, nearly
_RACE = "RACE//"
# Source: HL7 v3 NullFlavor, and OMOP's word for no matching concept.
_NO_RACE = frozenset({"UNK", "ASKU", "NI", "NASK", "UNKNOWN", "0"})


@dataclass(frozen=True)
class Records:
    """Dated rows of some codes, sorted by subject and day.

    Attributes:
        subject: (rows,) index into the cohort. day: (rows,). value: (rows,) nan where there is none.
        unit: (rows,) index into `units`, -1 for none. units: The units that occur.
        resource: (rows,) index into `RESOURCE_ORDER`, -1 for another; empty where it was not read.
    """

    subject: Ints
    day: Ints
    value: Floats
    unit: Ints
    units: Sequence[str] = ()
    resource: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, dtype=np.int8))

    def take(self, rows: NDArray[np.generic]) -> Records:
        """Some of the rows, by a mask or by their numbers."""
        resource = self.resource[rows] if len(self.resource) else self.resource
        return Records(self.subject[rows], self.day[rows], self.value[rows], self.unit[rows], self.units, resource)

    def of_resources(self, resources: Collection[str]) -> Records:
        """The rows of some FHIR types; of all if none is named."""
        if not resources:
            return self
        return self.take(np.isin(self.resource, [RESOURCE_ORDER.index(name) for name in resources]))


@dataclass(frozen=True)
class Cohort:
    """The subjects of a dataset, columns of equal length.

    Attributes:
        subject_id: (subjects,). birth: (subjects,) day; NEVER where unknown. death: (subjects,) day; NEVER for none.
        last: (subjects,) day of the last dated row. sex: (subjects,) `F`, `M` or an empty string.
        race: (subjects,) code, several joined by `+`; an empty string where the record has none.
        records: Dated rows by code, for the codes that were asked for.
        seen: Distinct (subject, day) of any dated row. encounters: The same of encounters only.
        descriptions: Code to its description, of every code of the dataset.
        children: Code to the codes below it, itself included, for the codes that were asked for.
    """

    subject_id: Ints
    birth: Ints
    death: Ints
    last: Ints
    sex: NDArray[np.str_]
    race: NDArray[np.str_]
    records: Mapping[str, Records]
    seen: Records
    encounters: Records
    descriptions: Mapping[str, str]
    children: Mapping[Code, Sequence[str]]

    def rows_of(self, codes: Iterable[Code]) -> Records:
        """The rows of some codes and of those below them, sorted by subject and day; a row is told once."""
        wanted: dict[str, tuple[str, ...]] = {}
        for code in codes:
            resources = code.resources if isinstance(code, CodeFamily) else ()
            for below in self.children.get(code, (str(code),)):
                before = wanted.get(below, resources)
                wanted[below] = before + resources if before and resources else ()
        parts = [self.records[code].of_resources(kinds) for code, kinds in wanted.items() if code in self.records]
        if not parts:
            none = np.empty(0, dtype=np.int64)
            return Records(none, none, np.empty(0), none)
        if len(parts) == 1:
            return parts[0]
        units = list(dict.fromkeys(unit for part in parts for unit in part.units))
        mapped = [
            np.array([units.index(unit) for unit in part.units] + [-1], dtype=np.int64)[part.unit] for part in parts
        ]
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("subject", "day", "value")]
        order = np.lexsort((columns[1], columns[0]))
        subject, day, value = (column[order] for column in columns)
        return Records(subject, day, value, np.concatenate(mapped)[order], units)

    def knows(self, code: Code) -> bool:
        """Whether the dataset has the code, or one below it; of a family, in a row of its resources if in any."""
        resources = code.resources if isinstance(code, CodeFamily) else ()
        for below in self.children.get(code, (str(code),)):
            rows = self.records.get(below)
            if below in self.descriptions and (rows is None or len(rows.of_resources(resources).day)):
                return True
        return False

    def nearest_codes(self, code: str, count: int = 3) -> list[str]:
        """Codes of the dataset that were perhaps meant, each with its description."""
        bare = code.rpartition("//")[2]
        by_word = [name for name, text in self.descriptions.items() if len(bare) > 3 and bare.lower() in text.lower()]
        by_bare: dict[str, str] = {name.rpartition("//")[2]: name for name in self.descriptions}
        by_code = [by_bare[near] for near in difflib.get_close_matches(bare, list(by_bare), n=count, cutoff=0.7)]
        found = dict.fromkeys([*by_code, *by_word])
        return [f"{name} ({text})" if (text := self.descriptions[name]) else name for name in found][:count]

    def require_known(self, codes: Collection[Code], what: str) -> None:
        """Refuses codes of which the dataset has none.

        Raises:
            ConfigError: Naming them, and the nearest that it has.
        """
        if any(self.knows(code) for code in codes):
            return
        names = " or ".join(str(code) for code in codes)
        if below := [below for code in codes if isinstance(code, CodeFamily) for below in self.children.get(code, ())]:
            rows = [self.records[name].resource for name in below if name in self.records]
            kinds = [RESOURCE_ORDER[kind] for kind in np.unique(np.concatenate(rows)).tolist() if kind >= 0]
            raise ConfigError(f"{what}: the cohort has {names} as {' and '.join(kinds) or 'another resource'} only")
        near = list(dict.fromkeys(label for code in codes for label in self.nearest_codes(str(code).rstrip("*"))))[:3]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; metadata/codes.parquet lists its codes"
        raise ConfigError(f"{what}: the cohort has no {names}{hint}")


def significant(values: Floats, digits: int) -> Floats:
    """Values rounded to so many significant digits, each the double nearest to that decimal.

    A number that was recorded as 7.1 and kept in single precision is 7.1 again, and not below a bound of 7.1.

    >>> significant(np.array([np.float32(7.1), np.float32(1.1), 98_600_000.0, np.nan]), 7).tolist()
    [7.1, 1.1, 98600000.0, nan]
    """
    is_number = np.isfinite(values) & (np.abs(values) > 1e-12) & (np.abs(values) < 1e22)
    magnitude = np.floor(np.log10(np.abs(np.where(is_number, values, 1.0)))).astype(np.int64)
    power = 10.0 ** np.abs(digits - 1 - magnitude)
    rounded = np.where(magnitude < digits, np.round(values * power) / power, np.round(values / power) * power)
    return np.where(is_number, rounded, values)


def sort_key(subject: Ints, day: Ints) -> Ints:
    """One number that orders by subject, then day; days outside the calendar are brought to its ends."""
    return np.asarray(subject * _SPAN + np.clip(day + _ORIGIN, 0, _SPAN - 1))


def latest_before(records: Records, subject: Ints, day: Ints) -> Ints:
    """Index of the latest row of each subject on or before each day, (queries,); -1 for none."""
    found = np.searchsorted(sort_key(records.subject, records.day), sort_key(subject, day), side="right") - 1
    matches = (found >= 0) & (records.subject[np.maximum(found, 0)] == subject) if len(records.day) else found >= 0
    return np.where(matches, found, -1)


def first_after(records: Records, subject: Ints, day: Ints) -> Ints:
    """Day of the first row of each subject after each day, (queries,); NEVER for none."""
    if not len(records.day):
        return np.full(len(subject), NEVER)
    found = np.searchsorted(sort_key(records.subject, records.day), sort_key(subject, day), side="right")
    index = np.minimum(found, len(records.day) - 1)
    matches = (found < len(records.day)) & (records.subject[index] == subject)
    return np.where(matches, records.day[index], NEVER)


def read_cohort(tables: Iterable[pa.Table], codes: pa.Table, wanted: Iterable[Code]) -> Cohort:
    """The cohort of some event tables.

    Args:
        tables: Event tables with every column of `EVENT_SCHEMA`, such as `Dataset.iter_events()`; each subject in one.
        codes: metadata/codes.parquet of the dataset.
        wanted: The codes, and families of codes, whose rows are needed; codes below them come too.
    """
    asked = list(dict.fromkeys(wanted))
    descriptions, below = _hierarchy(codes)
    children = _children(asked, descriptions, below)
    shards = [_Shard.read(table, frozenset().union(*children.values()), _families(asked)) for table in tables]
    ids = np.concatenate([shard.subject_id for shard in shards]) if shards else np.empty(0, dtype=np.int64)
    for shard in shards:
        descriptions |= {name: "" for name in shard.codes if name not in descriptions and is_clinical(name)}
    children = _children(asked, descriptions, below)
    names = list(dict.fromkeys(code for tree in children.values() for code in tree))
    offsets = np.cumsum([0, *(len(shard.subject_id) for shard in shards)])
    records = {
        name: merged for name in names if len((merged := _merge([s.records.get(name) for s in shards], offsets)).day)
    }

    def column(name: str) -> NDArray[np.generic]:
        return np.concatenate([getattr(shard, name) for shard in shards]) if shards else np.empty(0)

    return Cohort(
        ids,
        column("birth").astype(np.int64),
        column("death").astype(np.int64),
        column("last").astype(np.int64),
        column("sex").astype(np.str_),
        column("race").astype(np.str_),
        records,
        _merge([shard.seen for shard in shards], offsets),
        _merge([shard.encounters for shard in shards], offsets),
        descriptions,
        children,
    )


@dataclass(frozen=True)
class _Shard:
    subject_id: Ints
    birth: Ints
    death: Ints
    last: Ints
    sex: NDArray[np.str_]
    race: NDArray[np.str_]
    records: Mapping[str, Records]
    seen: Records
    encounters: Records
    codes: Sequence[str]

    @staticmethod
    def read(table: pa.Table, names: Collection[str], families: Sequence[CodeFamily]) -> _Shard:
        columns = ["subject_id", "time", "code", "numeric_value", "unit", "resource", "parent_id"]
        table = table.select(columns).combine_chunks()
        ids, subject = np.unique(table["subject_id"].to_numpy(), return_inverse=True)
        code = table["code"].combine_chunks().dictionary_encode()
        present = code.dictionary.to_pylist()
        index = code.indices.to_numpy(zero_copy_only=False)
        microseconds = table["time"].cast(pa.int64())
        is_dated = pc.is_valid(microseconds).to_numpy()
        day = np.floor_divide(microseconds.fill_null(0).to_numpy(), _DAY_US)
        lookup = {name: number for number, name in enumerate(present)}

        def mask(name: str) -> NDArray[np.bool_]:
            return np.asarray(index == lookup.get(name, -1))

        def extreme(rows: NDArray[np.bool_], ufunc: np.ufunc, empty: int) -> Ints:
            found = np.full(len(ids), empty, dtype=np.int64)
            ufunc.at(found, subject[rows], day[rows])
            return found

        sex = np.full(len(ids), "", dtype="<U1")
        for letter in ("F", "M"):
            sex[subject[mask(f"GENDER//{letter}")]] = letter
        is_life = is_dated & ~mask(BIRTH)
        is_visit = pc.and_(is_event(table), pc.equal(table["resource"], "Encounter"))
        visits = is_life & pc.fill_null(is_visit, False).to_numpy()
        values = significant(table["numeric_value"].cast(pa.float64()).fill_null(np.nan).to_numpy(), _SINGLE_DIGITS)
        unit = table["unit"].combine_chunks().dictionary_encode()
        unit_index, unit_names = unit.indices.fill_null(-1).to_numpy(zero_copy_only=False), unit.dictionary.to_pylist()
        is_wanted = np.array(
            [name in names or any(family.matches(name) for family in families) for name in present], dtype=np.bool_
        )
        resource, records = _resources(table, index, present), {}
        chosen = np.flatnonzero(is_wanted[index] & is_dated) if len(present) else np.empty(0, dtype=np.int64)
        chosen = chosen[np.argsort(index[chosen], kind="stable")]
        starts = np.flatnonzero(np.diff(index[chosen], prepend=-1))
        for rows in np.split(chosen, starts[1:]) if len(chosen) else []:
            found = Records(subject[rows], day[rows], values[rows], unit_index[rows], unit_names, resource[rows])
            records[present[index[rows[0]]]] = _sorted(found)
        return _Shard(
            ids,
            extreme(mask(BIRTH) & is_dated, np.minimum, NEVER),
            extreme(mask(DEATH) & is_dated, np.minimum, NEVER),
            extreme(is_life, np.maximum, -_ORIGIN),
            sex,
            _races(subject, index, present, len(ids)),
            records,
            _days(subject[is_life], day[is_life]),
            _days(subject[visits], day[visits]),
            present,
        )


def _sorted(rows: Records) -> Records:
    return rows.take(np.argsort(sort_key(rows.subject, rows.day), kind="stable"))


def _resources(table: pa.Table, index: Ints, present: Sequence[str]) -> NDArray[np.int8]:
    """(rows,) index into `RESOURCE_ORDER`, -1 for another; of a row that names none what its code most likely is."""
    number = {name: rank for rank, name in enumerate(RESOURCE_ORDER)}
    by_code = [number[BARE_RESOURCES.get(name.partition(SEPARATOR)[0], "Observation")] for name in present]
    named = table["resource"].combine_chunks().dictionary_encode()
    ranks = np.array([number.get(name, -1) for name in named.dictionary.to_pylist()] + [-2], dtype=np.int8)
    found = ranks[named.indices.fill_null(len(ranks) - 1).to_numpy(zero_copy_only=False)]
    return np.where(found == -2, np.array([*by_code, -1], dtype=np.int8)[index], found).astype(np.int8)


def _races(subject: Ints, index: Ints, present: Sequence[str], num_subjects: int) -> NDArray[np.str_]:
    """(subjects,) codes of race joined by `+`."""
    names = {name.removeprefix(_RACE): number for number, name in enumerate(present) if name.startswith(_RACE)}
    known = sorted(name for name in names if name.upper() not in _NO_RACE)[:62]
    bits = np.zeros(num_subjects, dtype=np.int64)
    for bit, name in enumerate(known):
        bits[subject[index == names[name]]] |= 1 << bit
    found, inverse = np.unique(bits, return_inverse=True)
    labels = ["+".join(name for bit, name in enumerate(known) if mask >> bit & 1) for mask in found.tolist()]
    return np.array(labels, dtype=np.str_)[inverse] if num_subjects else np.empty(0, dtype=np.str_)


def _days(subject: Ints, day: Ints) -> Records:
    keys = np.unique(sort_key(subject, day))
    none = np.full(len(keys), -1, dtype=np.int64)
    return Records(keys // _SPAN, keys % _SPAN - _ORIGIN, np.full(len(keys), np.nan), none)


def _merge(parts: Sequence[Records | None], offsets: Ints) -> Records:
    kept = [(part, offset) for part, offset in zip(parts, offsets, strict=False) if part is not None]
    units = list(dict.fromkeys(unit for part, _ in kept for unit in part.units))
    if not kept:
        none = np.empty(0, dtype=np.int64)
        return Records(none, none, np.empty(0), none)
    mapped = [np.array([units.index(unit) for unit in p.units] + [-1], dtype=np.int64)[p.unit] for p, _ in kept]
    return Records(
        np.concatenate([part.subject + offset for part, offset in kept]),
        np.concatenate([part.day for part, _ in kept]),
        np.concatenate([part.value for part, _ in kept]),
        np.concatenate(mapped),
        units,
        np.concatenate([part.resource for part, _ in kept]),
    )


def _hierarchy(codes: pa.Table) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Descriptions of clinical codes, and the codes right below each."""
    descriptions: dict[str, str] = {}
    below: dict[str, list[str]] = {}
    columns = [
        codes[name].to_pylist() if name in codes.column_names else [None] * len(codes)
        for name in ("code", "description", "parent_codes")
    ]
    for name, text, parents in zip(*columns, strict=True):
        if is_clinical(name):
            descriptions[name] = text or ""
            for parent in parents or ():
                below.setdefault(parent, []).append(name)
    return descriptions, below


def _families(codes: Iterable[Code]) -> list[CodeFamily]:
    return [code for code in codes if isinstance(code, CodeFamily)]


def _children(
    asked: Sequence[Code], descriptions: Mapping[str, str], below: Mapping[str, Sequence[str]]
) -> dict[Code, list[str]]:
    """What each code or family stands for: a code itself and those below it, a family those it matches and below."""
    roots: dict[Code, list[str]] = {code: [code] for code in asked if isinstance(code, str)}
    named = dict.fromkeys([*descriptions, *below])  # a parent need not occur itself
    roots |= {family: [name for name in named if family.matches(name)] for family in _families(asked)}
    return {code: _descendants(roots[code], below) for code in asked}


def _descendants(codes: Sequence[str], below: Mapping[str, Sequence[str]]) -> list[str]:
    found = dict.fromkeys(codes)
    queue = list(codes)
    while queue:
        for child in below.get(queue.pop(), ()):
            if child not in found:
                found[child] = None
                queue.append(child)
    return list(found)
