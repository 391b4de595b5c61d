"""One shard of a dataset as numpy columns, and the fate of each of its rows: nothing may be left without one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.codes import CHILD_PREFIX, NEGATED_PREFIX
from medtwin.core.errors import DatasetError
from medtwin.core.events import split_child_code

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
NO_ROW = -1

WRITTEN, COLUMN, NOT_CARRIED = "written", "column", "not_carried"


class Fates:
    """What became of every row: it is a row of a table, or a column of one, or not carried for a reason."""

    def __init__(self, num_rows: int) -> None:
        self._fate = np.zeros(num_rows, dtype=np.int32)
        self._names: list[tuple[str, str]] = [("", "")]

    def assign(self, rows: Rows, kind: str, what: str) -> None:
        """Gives rows their fate.

        Raises:
            DatasetError: If a row has one already: that is a fault of medtwin.
        """
        if len(rows) == 0:
            return
        if self._fate[rows].any():
            raise DatasetError(f"a fault of medtwin: rows of the dataset are counted twice ({kind}: {what})")
        if (kind, what) not in self._names:
            self._names.append((kind, what))
        self._fate[rows] = self._names.index((kind, what))

    @property
    def open(self) -> Mask:
        """Which rows have no fate yet, (rows,) bool."""
        return np.asarray(self._fate == 0)

    def counts(self) -> Counter[tuple[str, str]]:
        """How many rows have each fate.

        Raises:
            DatasetError: If a row has none: that is a fault of medtwin.
        """
        numbers = np.bincount(self._fate, minlength=len(self._names))
        if numbers[0]:
            raise DatasetError(f"a fault of medtwin: {numbers[0]} rows of the dataset would be dropped silently")
        return Counter(dict(zip(self._names, numbers.tolist(), strict=True)))


class Shard:
    """A shard of events.

    Attributes:
        table: Its rows, with every column of EVENT_SCHEMA.
        codes: The distinct codes; `code` holds the index of each row's, (rows,) int64.
        time, end_time: (rows,) datetime64[us], NaT for null.
        is_instant: Whether the time is one; else a date, month or year, (rows,) bool.
        parent: Row of the event that a child row details; NO_ROW for events, and for children whose event is missing.
        is_child: Whether a row details another, or says that it does.
        is_detail: Whether its code says that it is a detail, `FHIR//...`; children that are none are components.
        is_negated: Whether it says that something did not happen.
        fates: What became of each row.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table.combine_chunks()
        self.num_rows = len(table)
        self.fates = Fates(self.num_rows)
        self.subject = self.column("subject_id").to_numpy()
        self.time = _times(self.column("time"))
        self.end_time = _times(self.column("end_time"))
        encoded = self.column("code").dictionary_encode()
        self.codes: list[str] = encoded.dictionary.to_pylist()
        self.code: Rows = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        is_detail = np.array([code.startswith(CHILD_PREFIX) for code in self.codes], dtype=bool)
        is_negated = np.array([code.startswith(NEGATED_PREFIX) for code in self.codes], dtype=bool)
        self.is_detail: Mask = is_detail[self.code] if self.num_rows else np.zeros(0, bool)
        self.is_negated: Mask = is_negated[self.code] if self.num_rows else np.zeros(0, bool)
        self.is_instant = _is_instant(self.column("time_precision"))
        self.is_child = pc.is_valid(self.column("parent_id")).to_numpy(zero_copy_only=False)
        self.parent = self._parents()

    def column(self, name: str) -> pa.Array:
        """A column in one piece."""
        column = self.table.column(name)
        return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [_empty(column.type)])

    def _parents(self) -> Rows:
        ids = self.column("event_id")
        holders = pc.indices_nonzero(pc.is_valid(ids))
        found = pc.index_in(self.column("parent_id"), value_set=pc.take(ids, holders))
        place = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        rows = np.append(holders.to_numpy().astype(np.int64), NO_ROW)
        place[~self.is_child] = -1
        return np.asarray(rows[place])

    @cached_property
    def root(self) -> Rows:
        """The event of every row: itself, its parent, or its parent's parent; NO_ROW where that is missing."""
        parents = np.append(self.parent, NO_ROW)
        root = np.arange(self.num_rows)
        for _ in range(2):
            up = parents[root]
            root = np.where(up == NO_ROW, root, up)
        root[self.is_child & (self.parent == NO_ROW)] = NO_ROW
        return root

    @cached_property
    def details(self) -> Details:
        """The child rows by the element that they state."""
        return Details(self)

    def text(self, name: str, rows: Rows) -> list[str | None]:
        """The texts of a column, for some rows; None for NO_ROW."""
        values: list[str | None] = pc.take(self.column(name), row_indices(rows)).to_pylist()
        return values

    def code_text(self, rows: Rows) -> list[str]:
        """The codes of some rows."""
        return [self.codes[index] for index in self.code[rows].tolist()]

    def numbers(self, rows: Rows) -> pa.Array:
        """The numeric values of some rows as float64, each the shortest decimal of its float32."""
        values = pc.take(self.column("numeric_value"), row_indices(rows))
        return shortest_decimals(values)


class Details:
    """The child rows `FHIR//<Resource>.<path>` of a shard, by resource and path."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        rows = np.flatnonzero(shard.is_detail & (shard.parent != NO_ROW))
        self.paths: dict[int, tuple[str, str | None]] = {}
        for index in np.unique(shard.code[rows]).tolist():
            resource, path, coded = split_child_code(shard.codes[index])
            self.paths[index] = (f"{resource}.{path}", coded)
        self._rows: dict[str, Rows] = {}
        names = sorted({path for path, _ in self.paths.values()})
        number = {name: place for place, name in enumerate(names)}
        path_of_code = np.full(len(shard.codes) + 1, -1)
        for index, (path, _) in self.paths.items():
            path_of_code[index] = number[path]
        of_row = path_of_code[shard.code[rows]]
        order = np.argsort(of_row, kind="stable")
        bounds = np.searchsorted(of_row[order], np.arange(len(names) + 1))
        for place, name in enumerate(names):
            self._rows[name] = rows[order[bounds[place] : bounds[place + 1]]]

    def names(self) -> list[str]:
        """Every `<Resource>.<path>` that there is."""
        return list(self._rows)

    def rows(self, name: str) -> Rows:
        """The rows of a path that have no fate yet."""
        rows = self._rows.get(name, np.zeros(0, np.int64))
        return rows[self._shard.fates.open[rows]]

    def coded(self, rows: Rows) -> list[str | None]:
        """The `SYSTEM//code` that each row states; None for NO_ROW, and for rows that state none."""
        indices = np.where(rows == NO_ROW, NO_ROW, self._shard.code[rows]).tolist()
        return [self.paths[index][1] if index != NO_ROW else None for index in indices]

    def claim(self, paths: Iterable[str], events: Rows, what: str, among: Rows | None = None) -> Rows:
        """Takes the first row that states one of some paths for each event, and counts it as a column.

        Args:
            paths: `<Resource>.<path>`, the best first.
            events: Rows of events, each once.
            what: `table.column` that takes the value.
            among: Take these rows only.

        Returns:
            The row for each event, NO_ROW where there is none, (events,).
        """
        place = np.full(self._shard.num_rows + 1, NO_ROW)
        place[events] = np.arange(len(events))
        claimed = np.full(len(events), NO_ROW)
        for path in paths:
            rows = self.rows(path)
            if among is not None:
                rows = rows[np.isin(rows, among)]
            at = place[self._shard.parent[rows]]
            rows, at = rows[at != NO_ROW], at[at != NO_ROW]
            rows, at = rows[claimed[at] == NO_ROW], at[claimed[at] == NO_ROW]
            at, first = np.unique(at, return_index=True)
            claimed[at] = rows[first]
            self._shard.fates.assign(rows[first], COLUMN, what)
        return claimed


def row_indices(rows: Rows) -> pa.Array:
    """Rows as indices for `take`, null for NO_ROW."""
    return pa.array(rows, pa.int64(), mask=rows == NO_ROW)


def shortest_decimals(values: pa.Array) -> pa.Array:
    """Float32 values as the float64 of their shortest decimals.

    >>> shortest_decimals(pa.array([7.1, None], pa.float32())).to_pylist()
    [7.1, None]
    """
    is_null = pc.is_null(values).to_numpy(zero_copy_only=False)
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    distinct, place = np.unique(numbers, return_inverse=True)
    decimals = np.array([float(str(number)) for number in distinct], dtype=np.float64)
    exact = decimals[place] if len(numbers) else np.zeros(0)
    return pa.array(exact, pa.float64(), mask=is_null)


def by_distinct(values: pa.Array, function: Any, kind: pa.DataType) -> pa.Array:
    """`function` of every value, called once for each distinct one; null stays null."""
    encoded = values.dictionary_encode()
    results = pa.array([function(value) for value in encoded.dictionary.to_pylist()], kind)
    return pc.take(results, encoded.indices)


def by_index(indices: NDArray[np.int64], values: Mapping[int, Any] | list[Any], kind: pa.DataType) -> pa.Array:
    """The value of every index, null for NO_ROW."""
    if isinstance(values, Mapping):
        values = [values.get(index) for index in range(max(values, default=-1) + 1)]
    return pc.take(pa.array(values, kind), row_indices(indices))


_PRECISIONS = re.compile(r"second|year|month|day")


def precision_word(precision: str | None) -> str:
    """`second`, `day`, `month` or `year`; a time of no stated precision is an instant."""
    found = _PRECISIONS.match(precision or "second")
    return found.group() if found else "second"


def _is_instant(precision: pa.Array) -> Mask:
    flags = by_distinct(precision, lambda text: precision_word(text) == "second", pa.bool_())
    mask: Mask = flags.fill_null(True).to_numpy(zero_copy_only=False)
    return mask


def _times(column: pa.Array) -> NDArray[np.datetime64]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype="datetime64[us]")


def _empty(kind: pa.DataType) -> pa.Array:
    return pa.array([], kind)
