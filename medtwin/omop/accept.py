"""Which rows of a table of clinical events can be read, when they happened, and to whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.sources import Ledger, Reject
from medtwin.omop.columns import UNDATED
from medtwin.omop.persons import FIRST_YEAR, LAST_YEAR, Persons
from medtwin.omop.source import OmopSource, Rows
from medtwin.omop.tables import EVENT_TABLES, VISIT_TABLES, EventTable

Times = NDArray[np.datetime64]
Mask = NDArray[np.bool_]
_LAST_OF_DAY = np.timedelta64(86_400_000_000 - 1, "us")
_NAT = np.datetime64("NaT", "us")


@dataclass
class SeenIds:
    """Primary keys that were read: ranges of consecutive ones, else all of them."""

    ranges: list[tuple[int, int]] = field(default_factory=list)
    others: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, ids: NDArray[np.int64]) -> Mask:
        """Remembers some ids; returns which of them were seen before, here or in this call, (ids,) bool."""
        distinct, first = np.unique(ids, return_index=True)
        again = np.ones(len(ids), dtype=bool)
        again[first] = False
        for low, high in self.ranges:
            again |= (ids >= low) & (ids <= high)
        for known in self.others:
            again |= np.isin(ids, known)
        if len(distinct) and distinct[-1] - distinct[0] + 1 == len(distinct):
            self._add_range(int(distinct[0]), int(distinct[-1]))
        elif len(distinct):
            self.others.append(distinct)
        return again

    def _add_range(self, low: int, high: int) -> None:
        if self.ranges and self.ranges[-1][1] + 1 == low:
            self.ranges[-1] = (self.ranges[-1][0], high)
        else:
            self.ranges.append((low, high))


@dataclass(frozen=True)
class Accepted:
    """The rows of a batch that can be read.

    Attributes:
        table: Them, as they stand in the source, but for their times.
        ids: Their primary keys.
        person: Place of their person, (rows,).
        time, end: When they began and ended, moved by the person's shift; NaT for undated, and for no end, (rows,).
        precision, end_precision: `second` or `day`, (rows,).
    """

    name: str
    table: pa.Table
    ids: NDArray[np.int64]
    person: NDArray[np.int64]
    time: Times
    end: Times
    precision: NDArray[np.str_]
    end_precision: NDArray[np.str_]

    @property
    def spec(self) -> EventTable:
        """The columns of the table."""
        return EVENT_TABLES[self.name]


@dataclass
class Gate:
    """What every table's rows must be; rejects the others.

    Attributes:
        seen: Primary keys by table.
    """

    source: OmopSource
    persons: Persons
    ledger: Ledger
    is_ours: bool
    seen: dict[str, SeenIds] = field(default_factory=dict)

    def accept(self, name: str, rows: Rows, codes: list[str | None]) -> Accepted:
        """The rows of a batch that can be read.

        Args:
            name: The table.
            rows: The batch.
            codes: The code of each row, None where nothing names it.
        """
        spec, table = EVENT_TABLES[name], rows.table
        self.ledger.read[name] += len(table)
        ids = table[spec.key].fill_null(-1).to_numpy()
        person = self.persons.find(table["person_id"])
        time, precision = self._starts(spec, table)
        end, end_precision = self._ends(spec, table, time, precision)
        undated = _undated(spec, table) if self.is_ours else np.zeros(len(table), dtype=bool)
        time = np.where(undated, _NAT, time)
        has_key = ids >= 0
        repeated = has_key & self.seen.setdefault(name, SeenIds()).add(ids)
        checks = (
            ("malformed-value", rows.malformed, "a value is not of its column's type (CDM 5.4)"),
            ("no-key", ~has_key, f"{spec.key} must be given"),
            ("duplicate-key", repeated, f"{spec.key} must be unique: the first row was read"),
            ("unknown-person", person < 0, "person_id must be that of a row of person that was read"),
            ("no-time", np.isnat(time) & ~undated, f"{spec.date} must be given"),
            (
                "malformed-date",
                _implausible(time) | _implausible(end),
                f"years must lie in {FIRST_YEAR} to {LAST_YEAR}",
            ),
            ("ends-before-start", end < time, "the end must not precede the start"),
            ("no-coding", np.array([code is None for code in codes], dtype=bool), "no code and no concept names it"),
        )
        good = self._reject(name, rows, checks)
        self.ledger.carried[name] += int(good.sum())
        shift = (
            self.persons.shift_days[np.maximum(person, 0)] if len(self.persons.shift_days) else np.zeros(len(person))
        )
        moved = shift.astype("timedelta64[D]")
        return Accepted(
            name,
            table.filter(pa.array(good)),
            ids[good],
            person[good],
            (time + moved)[good],
            (end + moved)[good],
            precision[good],
            end_precision[good],
        )

    def _reject(self, name: str, rows: Rows, checks: tuple[tuple[str, Mask, str], ...]) -> Mask:
        good = np.ones(len(rows.table), dtype=bool)
        for rule, bad, reason in checks:
            for index in np.flatnonzero(bad & good).tolist():
                self.ledger.reject(Reject(*self.source.where(name, rows, index), rule, reason))
            good &= ~bad
        return good

    def _moments(self, table: pa.Table, time: str, day: str) -> tuple[Times, NDArray[np.str_]]:
        """The time of every row and its precision: the datetime, else the date."""
        moment, date = _times(table[time]), _times(table[day])
        is_instant = ~np.isnat(moment)
        if not self.is_ours:
            # The conventions of the CDM fill an unknown time of day with midnight.
            is_instant &= moment != moment.astype("datetime64[D]")
        both = np.where(np.isnat(moment), date, moment)
        return both, np.where(is_instant, "second", "day")

    def _starts(self, spec: EventTable, table: pa.Table) -> tuple[Times, NDArray[np.str_]]:
        return self._moments(table, spec.time, spec.date)

    def _ends(
        self, spec: EventTable, table: pa.Table, time: Times, precision: NDArray[np.str_]
    ) -> tuple[Times, NDArray[np.str_]]:
        """The ends that were stated; CDM demands ends of visits and drugs, and has rules to invent them."""
        if spec.end_time is None or spec.end_date is None:
            return np.full(len(table), _NAT), precision
        end, end_precision = self._moments(table, spec.end_time, spec.end_date)
        stated = _times(table[spec.end_time])
        if spec.name == "drug_exposure":
            verbatim = _times(table["verbatim_end_date"])
            later = np.where(end > time.astype("datetime64[D]"), end, _NAT)
            day = np.where(np.isnat(verbatim), _NAT if self.is_ours else later, verbatim)
            end = np.where(end_precision == "second", stated, day)
        elif spec.name in VISIT_TABLES and self.is_ours:
            # An encounter that was open has a day of its last event, and no time.
            end = np.where(np.isnat(stated) & (precision == "second"), _NAT, end)
            is_day = (precision == "second") & (end == end.astype("datetime64[D]") + _LAST_OF_DAY)
            end = np.where(is_day, end.astype("datetime64[D]"), end)
            end_precision = np.where(is_day, "day", end_precision)
        covers = (end_precision == "day") & (end < time) & (end == time.astype("datetime64[D]"))
        return np.where(covers, time, end), end_precision


def _undated(spec: EventTable, table: pa.Table) -> Mask:
    if spec.name != "observation":
        return np.zeros(len(table), dtype=bool)
    flags = pc.match_substring(table["qualifier_source_value"], UNDATED).fill_null(False)
    return np.asarray(flags.to_numpy())


def _times(column: pa.ChunkedArray) -> Times:
    return np.asarray(column.cast(pa.timestamp("us")).to_numpy(), dtype="datetime64[us]")


def _implausible(time: Times) -> Mask:
    year: Any = time.astype("datetime64[Y]").astype(np.int64) + 1970
    return np.asarray(~np.isnat(time) & ((year < FIRST_YEAR) | (year > LAST_YEAR)))
