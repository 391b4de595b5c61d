"""One shard of events as flat arrays, with what rules ask of it: codes, ages, birth, death, encounters, steps."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.check.records import UNDATED, US_PER_DAY, US_PER_YEAR
from medtwin.core.codes import BIRTH, CHILD_PREFIX, DEATH, NEGATED_PREFIX

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
NEVER = np.iinfo(np.int64).max
_WIDTHS = {"year": 366 * US_PER_DAY, "month": 31 * US_PER_DAY, "day": US_PER_DAY}


class Facts:
    """Events of whole subjects, (rows,) sorted by subject and time; the undated stand first.

    Attributes:
        subjects: Subject ids, (subjects,). subject: Index into it, (rows,).
        time, end: Microseconds, (rows,); `UNDATED` where there is none.
        code: Index into `code_names`, (rows,). unit: Index into `unit_names`, (rows,).
        value: NaN where there is none, (rows,) float32.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = _sorted(table)
        self.subjects, self.subject = np.unique(self.table["subject_id"].to_numpy(), return_inverse=True)
        self.time = _microseconds(self.table["time"])
        self.end = _microseconds(self.table["end_time"])
        self.code, self.code_names = _encoded(self.table["code"])
        self.value = self.table["numeric_value"].fill_null(np.nan).to_numpy().astype(np.float32, copy=False)

    def __len__(self) -> int:
        return len(self.subject)

    @cached_property
    def _units(self) -> tuple[Ints, list[str]]:
        return _encoded(self.table["unit"])

    @property
    def unit(self) -> Ints:
        """Index into `unit_names`, (rows,)."""
        return self._units[0]

    @property
    def unit_names(self) -> list[str]:
        """The units of the shard; the empty text where there is none."""
        return self._units[1]

    @cached_property
    def _by_name(self) -> tuple[list[str], Ints]:
        order = sorted(range(len(self.code_names)), key=self.code_names.__getitem__)
        return [self.code_names[number] for number in order], np.array(order, np.int64)

    @cached_property
    def _by_code(self) -> tuple[Ints, Ints]:
        order = np.argsort(self.code, kind="stable")
        return order, np.searchsorted(self.code[order], np.arange(len(self.code_names) + 1))

    def numbers(self, codes: Iterable[str]) -> Ints:
        """Which codes of the shard are meant: whole ones, and with `*` all that begin so."""
        names, order = self._by_name
        found: list[Ints] = [np.zeros(0, np.int64)]
        for code in codes:
            first = bisect_left(names, code.removesuffix("*"))
            last = first
            if code.endswith("*"):
                last = bisect_left(names, code[:-1] + "\U0010ffff")
            elif first < len(names) and names[first] == code:
                last = first + 1
            found.append(order[first:last])
        return np.unique(np.concatenate(found))

    def rows_of(self, codes: Iterable[str]) -> Ints:
        """The rows that have one of some codes, ascending."""
        order, start = self._by_code
        parts = [order[start[number] : start[number + 1]] for number in self.numbers(codes)]
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)

    def has_unit(self, rows: Ints, units: Sequence[str]) -> Bools:
        """Which of some rows are in one of some units, (rows given,)."""
        wanted = np.array([name in units for name in self.unit_names], bool)
        return np.asarray(wanted[self.unit[rows]], bool)

    def of_resources(self, rows: Ints, resources: Sequence[str]) -> Ints:
        """Those of some rows that come from some FHIR types; all of them where no type is named."""
        if not resources:
            return rows
        wanted = np.array([name in resources for name in self._resources[1]], bool)
        return np.asarray(rows[wanted[self._resources[0][rows]]], np.int64)

    @cached_property
    def _resources(self) -> tuple[Ints, list[str]]:
        return _encoded(self.table["resource"])

    @cached_property
    def clinical(self) -> Ints:
        """The dated rows that are neither details of an event, nor negated, nor birth or death."""
        fixed = (BIRTH, DEATH)
        names = self.code_names
        is_clinical = np.array([not (n.startswith((CHILD_PREFIX, NEGATED_PREFIX)) or n in fixed) for n in names], bool)
        return np.flatnonzero(is_clinical[self.code] & (self.time != UNDATED)) if len(self) else np.zeros(0, np.int64)

    @cached_property
    def width(self) -> Ints:
        """How long the time of each row may last, in microseconds: a day for a date; 0 for an instant, (rows,)."""
        precision, names = self._precision
        known = np.array([_WIDTHS.get(name.partition("+")[0].partition("-")[0], 0) for name in names], np.int64)
        width = known[precision] if len(self) else np.zeros(0, np.int64)
        is_unknown = np.array([not name for name in names], bool)[precision] if len(self) else np.zeros(0, bool)
        # Who says no precision and midnight means the day.
        return np.where(is_unknown & (self.time % US_PER_DAY == 0), US_PER_DAY, width)

    @cached_property
    def local(self) -> Ints:
        """Times by the clock of the place, (rows,): what a date, which has no offset, is to be compared with."""
        precision, names = self._precision
        offset = np.array([_offset(name) for name in names], np.int64)
        return np.where(self.time == UNDATED, UNDATED, self.time + offset[precision]) if len(self) else self.time

    @cached_property
    def _precision(self) -> tuple[Ints, list[str]]:
        return _encoded(self.table["time_precision"])

    def _first_time(self, code: str) -> tuple[Ints, Ints]:
        """Time and its width for each subject of a code that stands once; `UNDATED` where it does not."""
        time, width = np.full(len(self.subjects), UNDATED), np.zeros(len(self.subjects), np.int64)
        rows = self.rows_of([code])
        time[self.subject[rows]], width[self.subject[rows]] = self.time[rows], self.width[rows]
        return time, width

    @cached_property
    def birth(self) -> Ints:
        """When each subject was born, (subjects,)."""
        return self._first_time(BIRTH)[0]

    @cached_property
    def death(self) -> Ints:
        """The last microsecond of each subject's life, (subjects,): of a death known by its day the end of the day."""
        time, width = self._first_time(DEATH)
        return np.where(time == UNDATED, UNDATED, time + np.maximum(width - 1, 0))

    @cached_property
    def is_death_a_date(self) -> Bools:
        """Whose death is known by its day, month or year, (subjects,)."""
        return np.asarray(self._first_time(DEATH)[1] > 0)

    def is_of_sex(self, sex: str) -> Bools:
        """Which subjects are of a sex, (subjects,)."""
        found = np.zeros(len(self.subjects), bool)
        found[self.subject[self.rows_of([f"GENDER//{sex}"])]] = True
        return found

    def ages(self, rows: Ints) -> NDArray[np.float64]:
        """Age in years at some rows, (rows given,); NaN where birth or time are unknown."""
        birth, time = self.birth[self.subject[rows]], self.time[rows]
        known = (birth != UNDATED) & (time != UNDATED)
        return np.where(known, (time - np.where(known, birth, 0)) / US_PER_YEAR, np.nan)

    @cached_property
    def step(self) -> Ints:
        """Number of the instant of each row, (rows,): rises from instant to instant and subject to subject."""
        is_new = np.ones(len(self), bool)
        is_new[1:] = (self.subject[1:] != self.subject[:-1]) | (self.time[1:] != self.time[:-1])
        return np.cumsum(is_new) - 1

    @cached_property
    def encounter_row(self) -> Ints:
        """The row of the encounter of each row, (rows,); -1 where there is none in the shard, or the row is it."""
        ids = self.table["event_id"]
        is_encounter = pc.and_(pc.is_valid(ids), pc.fill_null(pc.equal(ids, self.table["encounter_id"]), False))
        rows = np.flatnonzero(np.asarray(pc.and_(is_encounter, pc.is_null(self.table["parent_id"]))))
        found = pc.index_in(self.table["encounter_id"], value_set=ids.take(pa.array(rows)).combine_chunks())
        at = found.fill_null(-1).to_numpy().astype(np.int64)
        row = np.where(at >= 0, rows[np.maximum(at, 0)], -1) if len(rows) else np.full(len(self), -1)
        row[row == np.arange(len(self))] = -1
        return row

    @cached_property
    def parent_row(self) -> Ints:
        """The row of the event that each row details, (rows,); -1 where there is none."""
        is_event = pc.is_valid(self.table["event_id"])
        rows = np.flatnonzero(np.asarray(is_event))
        ids = self.table["event_id"].take(pa.array(rows)).combine_chunks()
        at = pc.index_in(self.table["parent_id"], value_set=ids).fill_null(-1).to_numpy().astype(np.int64)
        return np.where(at >= 0, rows[np.maximum(at, 0)], -1) if len(rows) else np.full(len(self), -1)


def _sorted(table: pa.Table) -> pa.Table:
    """The table by subject and time; most are already."""
    subject = table["subject_id"].to_numpy()
    time = _microseconds(table["time"])
    same = subject[1:] == subject[:-1]
    if bool(np.all(same & (time[1:] >= time[:-1]) | (subject[1:] > subject[:-1]))):
        return table
    return table.take(pa.array(np.lexsort((time, subject))))


def _microseconds(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.cast(pa.timestamp("us")).cast(pa.int64()).fill_null(UNDATED).to_numpy(), np.int64)


def _offset(precision: str) -> int:
    """Microseconds that the clock of the place is ahead of UTC.

    >>> _offset("second-04:00") / 3.6e9, _offset("day")
    (-4.0, 0)
    """
    found = re.fullmatch(r"\w+([+-])(\d\d):(\d\d)", precision)
    if found is None:
        return 0
    return (int(found[2]) * 60 + int(found[3])) * 60_000_000 * (-1 if found[1] == "-" else 1)


def _encoded(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """A column's texts as numbers, (rows,), and what they mean; null counts as the empty text."""
    encoded = pc.fill_null(column.cast(pa.string()), "").combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()


def last_at_or_before(subject: Ints, time: Ints, query_subject: Ints, query_time: Ints) -> Ints:
    """Index of the last entry of the same subject at or before each query, (queries,); -1 where there is none.

    The entries, (entries,), are sorted by subject and time.

    >>> last_at_or_before(np.array([1, 1, 2]), np.array([5, 9, 1]), np.array([1, 1, 2]), np.array([4, 9, 8])).tolist()
    [-1, 1, 2]
    """
    if not len(subject):
        return np.full(len(query_subject), -1)
    _, rank = np.unique(np.concatenate([time, query_time]), return_inverse=True)
    size = int(rank.max(initial=0)) + 1
    keys = subject * size + rank[: len(time)]
    at = np.searchsorted(keys, query_subject * size + rank[len(time) :], side="right") - 1
    return np.where((at >= 0) & (subject[np.maximum(at, 0)] == query_subject), at, -1)
