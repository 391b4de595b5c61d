"""Rows in the making as numbers: templates that rows share, events as tuples, and the table that both give.

Most rows of a record say what other rows have said, of another event: a template is such a row without its event. What
a template is made of is worked out once; a batch of events then becomes Arrow columns by indexing.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.encoded import ENCODED_SCHEMA, coded
from medtwin.core.events import EVENT_SCHEMA
from medtwin.core.pseudonyms import event_ids

NO_TIME = int(np.iinfo(np.int64).min)


class Row(NamedTuple):
    """A row without its event.

    Attributes:
        component: 0: it is the event, or details it; n: it is the event's nth component; -n: it details that.
    """

    code: str = ""
    numeric_value: float | None = None
    text_value: str | None = None
    unit: str | None = None
    source_code: str | None = None
    source_unit: str | None = None
    component: int = 0


class Words:
    """Texts by number, in the order in which they came."""

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {None: -1}

    def number(self, text: str | None) -> int:
        """The number of a text; -1 for none."""
        return self._numbers.setdefault(text, len(self._numbers) - 1)

    def texts(self) -> pa.Array:
        """All of them."""
        return pa.array([text for text in self._numbers if text is not None], pa.string())


_NO_NUMBER = float("nan")
_ROW_TEXTS = ("code", "text_value", "unit", "source_code", "source_unit")


class Templates:
    """Templates by number; number 0 is empty."""

    def __init__(self) -> None:
        self.words = {name: Words() for name in _ROW_TEXTS}
        self._texts = {name: array("i") for name in _ROW_TEXTS}
        self._numbers = array("d")
        self._components = array("i")
        self._word_numbers = tuple(self.words[name].number for name in _ROW_TEXTS)
        self._appends = tuple(self._texts[name].append for name in _ROW_TEXTS)
        self.add(Row())

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, row: Row) -> int:
        """The number of a new template."""
        code, number, text, unit, source_code, source_unit, component = row
        code_number, text_number, unit_number, source_code_number, source_unit_number = self._word_numbers
        add_code, add_text, add_unit, add_source_code, add_source_unit = self._appends
        add_code(code_number(code))
        add_text(-1 if text is None else text_number(text))
        add_unit(-1 if unit is None else unit_number(unit))
        add_source_code(-1 if source_code is None else source_code_number(source_code))
        add_source_unit(-1 if source_unit is None else source_unit_number(source_unit))
        self._numbers.append(_NO_NUMBER if number is None else number)
        self._components.append(component)
        return len(self._numbers) - 1

    def text(self, name: str) -> NDArray[np.int32]:
        """The number of each template's text in `words[name]`, -1 for none, (templates,)."""
        return np.array(self._texts[name], dtype=np.int32)

    def numeric_values(self) -> NDArray[np.float32]:
        """The number of each template, NaN for none, (templates,)."""
        return np.array(self._numbers, dtype=np.float64).astype(np.float32)

    def components(self) -> NDArray[np.int32]:
        """What each template is of its event's components, (templates,)."""
        return np.array(self._components, dtype=np.int32)


# What all rows of an event share, and the event's own, column by column. `place` is that of its resource in the source;
# times are microseconds since 1970, or `NO_TIME`; `encounter` and `digest` are the 16 bytes of an id, or None; `value`
# is a template.
EVENT_FIELDS = (
    "place",
    "subject_id",
    "time",
    "end_time",
    "precision",
    "status",
    "resource",
    "encounter",
    "digest",
    "value",
    "num_rows",
)
Columns = dict[str, list[Any]]


class Batch:
    """Events with their rows, in any order: the table has that of the source.

    Attributes:
        events: By `EVENT_FIELDS`.
        rows: Templates of the rows; the first row of an event is its own.
    """

    def __init__(self, templates: Templates) -> None:
        self.templates = templates
        self.events: Columns = {name: [] for name in EVENT_FIELDS}
        self.rows: list[int] = []

    def __len__(self) -> int:
        return len(self.events["place"])

    def add(self, *columns: Iterable[Any]) -> None:
        """Appends events, whose rows are appended to `rows`.

        Args:
            columns: In the order of `EVENT_FIELDS`.
        """
        for name, column in zip(EVENT_FIELDS, columns, strict=True):
            self.events[name].extend(column)

    def table(self) -> pa.Table:
        """The rows, (rows,) of `ENCODED_SCHEMA`; there must be one."""
        layout = _Layout(self.events, np.array(self.rows, dtype=np.int64), self.templates)
        columns = self._of_templates(layout)
        columns |= _of_events(layout, self.events) | _ids(layout, self.events)
        return pa.table([columns[name] for name in EVENT_SCHEMA.names], schema=ENCODED_SCHEMA)

    def _of_templates(self, layout: _Layout) -> dict[str, pa.Array]:
        """The columns that the templates give; the value of an event stands in its own row."""
        with_value = layout.rows.copy()
        with_value[layout.heads] = layout.values
        number = self.templates.numeric_values()[with_value]
        columns = {"numeric_value": pa.array(number, mask=np.isnan(number))}
        for name in _ROW_TEXTS:
            rows = layout.rows if name in ("code", "source_code") else with_value
            columns[name] = coded(self.templates.text(name)[rows], self.templates.words[name].texts())
        return columns


class _Layout:
    """Where the rows of a batch belong.

    Attributes:
        rows: Template of each row.
        owner: Event of each row.
        heads: The first row of each event.
        values: The value of each event.
        component: What each row is of its event's components.
    """

    def __init__(self, events: Columns, rows: NDArray[np.int64], templates: Templates) -> None:
        counts = np.array(events["num_rows"], dtype=np.int64)
        begins = np.cumsum(counts) - counts
        order = np.argsort(np.array(events["place"], dtype=np.int64), kind="stable")
        self.owner = np.repeat(order, counts[order])
        self.heads = np.cumsum(counts[order]) - counts[order]
        within = np.arange(len(rows)) - np.repeat(self.heads, counts[order])
        self.rows = rows[begins[self.owner] + within]
        self.component = templates.components()[self.rows]
        self.values = np.array(events["value"], dtype=np.int64)[order]


def _of_events(layout: _Layout, events: Columns) -> dict[str, pa.Array]:
    """The columns that a row has from its event; only an event and its components have an end."""
    owner = layout.owner
    time = np.array(events["time"], dtype=np.int64)[owner]
    end = np.array(events["end_time"], dtype=np.int64)[owner]
    has_end = layout.component > 0
    has_end[layout.heads] = True
    columns = {
        "subject_id": pa.array(np.array(events["subject_id"], dtype=np.int64)[owner]),
        "time": _times(time, time == NO_TIME),
        "end_time": _times(end, ~has_end | (end == NO_TIME)),
    }
    named = (("time_precision", "precision"), ("status", "status"), ("resource", "resource"))
    for name, field in named:
        numbers: dict[str | None, int] = {None: -1}
        for text in dict.fromkeys(events[field]):
            numbers.setdefault(text, len(numbers) - 1)
        codes = np.fromiter(map(numbers.__getitem__, events[field]), dtype=np.int32, count=len(events[field]))
        columns[name] = coded(codes[owner], pa.array(list(numbers)[1:], pa.string()))
    return columns


def _ids(layout: _Layout, events: Columns) -> dict[str, pa.Array]:
    """The ids: an event's own, a component's own (`<event>.<n>`), and whom a detail belongs to."""
    owner, component = layout.owner, layout.component
    digests = dict.fromkeys(chain(events["digest"], events["encounter"]))
    digests.pop(None, None)
    ids = event_ids(list(digests))
    numbers: dict[bytes | None, int] = {digest: number for number, digest in enumerate(digests)}
    numbers[None] = -1
    count = len(events["digest"])
    own = np.fromiter(map(numbers.__getitem__, events["digest"]), dtype=np.int32, count=count)[owner]
    is_component = component > 0
    parts = np.flatnonzero(is_component)
    part_ids = pc.binary_join_element_wise(
        ids.take(pa.array(own[parts])), pa.array(component[parts]).cast(pa.string()), "."
    )
    part = len(ids) + np.cumsum(is_component, dtype=np.int32) - 1
    event_id = np.where(is_component, part, -1).astype(np.int32)
    event_id[layout.heads] = own[layout.heads]
    parent_id = np.where(component < 0, part, own).astype(np.int32)
    parent_id[layout.heads] = -1
    encounter = np.fromiter(map(numbers.__getitem__, events["encounter"]), dtype=np.int32, count=count)[owner]
    texts = pa.concat_arrays([ids, part_ids.cast(pa.string())]) if len(parts) else ids
    columns = {"event_id": event_id, "parent_id": parent_id, "encounter_id": encounter}
    return {name: coded(codes, texts) for name, codes in columns.items()}


def _times(micros: NDArray[np.int64], is_null: NDArray[np.bool_]) -> pa.Array:
    return pa.array(micros, pa.int64(), mask=is_null).cast(pa.timestamp("us"))
