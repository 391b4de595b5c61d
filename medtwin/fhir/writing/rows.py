"""The event table as Python columns, which the writer reads: equal texts are one object, equal times formatted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medtwin.core.events import with_all_columns
from medtwin.fhir.codings import columns_to_quantity, plain_number

Resource = dict[str, Any]
_DAY_US = 86_400_000_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LENGTHS = {"year": 4, "mont": 7}
# Whole subjects are decoded together until they have this many rows: enough for columns, little for memory.
_BATCH_ROWS = 50_000
_MAX_QUANTITIES = 1 << 17


@dataclass(slots=True)
class Rows:
    """Rows of the event table, column by column; None where a column is null.

    Attributes:
        time: Microseconds since 1970, as is `end`.
        has_plain_ids: Whether every event_id can be the id of a resource.
        number: The shortest decimal of the float32, an int where it is one.
    """

    subject: list[int]
    time: list[int | None]
    code: list[str]
    number: list[int | float | None]
    text: list[str | None]
    unit: list[str | None]
    encounter: list[str | None]
    event_id: list[str | None]
    parent: list[str | None]
    end: list[int | None]
    status: list[str | None]
    precision: list[str | None]
    source: list[str | None]
    source_unit: list[str | None]
    resource: list[str | None]
    has_plain_ids: bool = False

    def copy(self, row: int, **changes: Any) -> int:
        """Appends a row that is another one but for some columns; returns its number."""
        for name in _COLUMNS:
            column = getattr(self, name)
            column.append(changes.get(name, column[row]))
        return len(self.code) - 1


_COLUMNS = tuple(name for name in Rows.__slots__ if name != "has_plain_ids")


def decode(table: pa.Table) -> Rows:
    """The columns of a table."""
    full = with_all_columns(table)
    return Rows(
        subject=full["subject_id"].to_pylist(),
        time=_shared(full["time"].cast(pa.int64())),
        code=_shared(full["code"]),
        number=_shared(full["numeric_value"], plain_number),
        text=_shared(full["text_value"]),
        unit=_shared(full["unit"]),
        encounter=_shared(full["encounter_id"]),
        event_id=full["event_id"].to_pylist(),
        parent=_shared(full["parent_id"]),
        end=_shared(full["end_time"].cast(pa.int64())),
        status=_shared(full["status"]),
        precision=_shared(full["time_precision"]),
        source=_shared(full["source_code"]),
        source_unit=_shared(full["source_unit"]),
        resource=_shared(full["resource"]),
        has_plain_ids=_are_ids(full["event_id"]),
    )


def _are_ids(column: pa.ChunkedArray) -> bool:
    """Whether texts can be ids of resources, as far as they are there: FHIR's form, and not digits alone."""
    of_form = pc.match_substring_regex(column, r"^[A-Za-z0-9\-.]{1,64}$")
    return bool(pc.all(of_form).as_py()) and not pc.any(pc.match_substring_regex(column, r"^[0-9]+$")).as_py()


def _shared(column: pa.ChunkedArray, form: Callable[[Any], Any] | None = None) -> list[Any]:
    """The values of a column; equal ones are the same object, made once."""
    if column.null_count == len(column):
        return [None] * len(column)
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    if form is not None:
        values = [form(value) for value in values]
    values.append(None)
    indices = encoded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False).tolist()
    return list(map(values.__getitem__, indices))


def subject_batches(table: pa.Table) -> Iterator[tuple[pa.Table, list[tuple[int, int]]]]:
    """Slices of a table that hold whole subjects, each with the first row and the row after the last of every one."""
    subject = table["subject_id"].to_numpy()
    cuts = [0, *(np.flatnonzero(np.diff(subject)) + 1).tolist(), len(subject)]
    begin = 0
    bounds: list[tuple[int, int]] = []
    for start, stop in pairwise(cuts):
        if stop > start:
            bounds.append((start - begin, stop - begin))
        if bounds and (stop - begin >= _BATCH_ROWS or stop == len(subject)):
            yield table.slice(begin, stop - begin), bounds
            begin, bounds = stop, []


def has_bare_rows(table: pa.Table) -> bool:
    """Whether a row that is no detail lacks what makes it a resource, as in foreign MEDS datasets."""
    if not {"event_id", "resource"} <= set(table.column_names):
        return True
    is_bare = pc.or_(pc.is_null(table["event_id"]), pc.is_null(table["resource"]))
    # A Patient's rows have no id.
    is_event = pc.and_(pc.is_null(table["parent_id"]), pc.not_equal(pc.coalesce(table["resource"], ""), "Patient"))
    return bool(pc.any(pc.and_(is_bare, is_event)).as_py())


@lru_cache(maxsize=1024)
def _form(precision: str) -> tuple[int, int, str]:
    """Of a precision: how long its dates are (0: an instant), its offset in microseconds, and the offset's text."""
    sign, digits = precision[-6:-5], precision[-5:]
    offset, text = 0, "+00:00"
    if sign in ("+", "-"):
        offset = (int(digits[:2]) * 60 + int(digits[3:])) * 60_000_000 * (-1 if sign == "-" else 1)
        text = sign + digits
    return 0 if precision.startswith("second") else _LENGTHS.get(precision[:4], 10), offset, text


@lru_cache(maxsize=1 << 16)
def _date_text(day: int) -> str:
    return date.fromordinal(_EPOCH_DAY + day).isoformat()


@lru_cache(maxsize=86_400)
def _clock_text(second: int) -> str:
    return f"T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def moment_text(time: int, precision: str | None) -> str:
    """The FHIR date or instant of a time in microseconds: what `medtwin.fhir.times.format_moment` gives, from columns.

    >>> moment_text(1_328_070_600_000_000, "second-05:00"), moment_text(1_328_054_400_000_000, "month")
    ('2012-01-31T23:30:00-05:00', '2012-02')
    """
    length, offset, suffix = _form(precision or "second+00:00")
    day, rest = divmod(time + offset, _DAY_US)
    if length:
        return _date_text(day)[:length]
    second, micro = divmod(rest, 1_000_000)
    if not micro:
        return _date_text(day) + _clock_text(second) + suffix
    digits = f"{micro:06d}"
    return f"{_date_text(day)}{_clock_text(second)}.{digits[:3] if digits.endswith('000') else digits}{suffix}"


class Quantities:
    """Quantities by number and unit, each made once: not to be changed by whoever gets them."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, str | None, str | None], Resource] = {}

    def of(self, rows: Rows, row: int) -> Resource | None:
        """The Quantity of a row; None without a number."""
        number = rows.number[row]
        if number is None:
            return None
        key = number, rows.unit[row], rows.source_unit[row]
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MAX_QUANTITIES:
                self._known.clear()
            found = self._known[key] = columns_to_quantity(*key)
        return found
