"""Tables of events built column by column: events first, then the child rows that detail them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medtwin.core.codes import CHILD_PREFIX
from medtwin.core.events import EVENT_SCHEMA
from medtwin.omop.shard import Rows

_INHERITED = ("subject_id", "time", "encounter_id", "status", "time_precision", "resource")


def event_table(count: int, columns: dict[str, Any]) -> pa.Table:
    """A table of EVENT_SCHEMA; columns that are not given are null.

    Args:
        count: Number of rows.
        columns: Arrays or lists of that length.
    """
    arrays = []
    for each in EVENT_SCHEMA:
        values = columns.get(each.name)
        if values is None:
            arrays.append(pa.nulls(count, each.type))
        elif isinstance(values, (pa.Array, pa.ChunkedArray)):
            arrays.append(values.cast(each.type))
        else:
            arrays.append(pa.array(values, each.type))
    return pa.table(arrays, schema=pa.schema([pa.field(each.name, each.type) for each in EVENT_SCHEMA]))


@dataclass
class EventRows:
    """Some events, and child rows of them as they are added."""

    events: pa.Table
    _children: list[pa.Table] = field(default_factory=list)

    def add(self, rows: Rows, paths: list[str], **columns: Any) -> None:
        """Adds a child row to some events.

        Args:
            rows: Which event each child row details.
            paths: Element path below the resource, and `//SYSTEM//code` where the detail is coded.
            columns: `numeric_value`, `text_value`, `unit`, `source_unit`, `event_id`, (rows,) each.
        """
        if not len(rows):
            return
        index = pa.array(rows)
        inherited = {name: pc.take(self.events[name], index) for name in _INHERITED}
        resources = inherited["resource"].to_pylist()
        codes = [f"{CHILD_PREFIX}{resource}.{path}" for resource, path in zip(resources, paths, strict=True)]
        parents = pc.take(self.events["event_id"], index)
        self._children.append(event_table(len(rows), {**inherited, "code": codes, "parent_id": parents, **columns}))

    def add_coded(self, codes: list[str | None], path: str | list[str]) -> None:
        """Adds a coded child row to every event that has a code."""
        rows = np.array([row for row, code in enumerate(codes) if code is not None], np.int64)
        at = path if isinstance(path, list) else [path] * len(codes)
        self.add(rows, [f"{at[row]}//{codes[row]}" for row in rows.tolist()])

    def add_texts(self, texts: list[str | None], path: str) -> None:
        """Adds a child row with a text to every event that has one."""
        rows = np.array([row for row, text in enumerate(texts) if text is not None], np.int64)
        self.add(rows, [path] * len(rows), text_value=[texts[row] for row in rows.tolist()])

    def add_numbers(
        self, numbers: pa.Array, paths: str | list[str | None], units: list[str | None] | None = None
    ) -> None:
        """Adds a child row with a number to every event that has one and a path for it."""
        values = numbers.to_pylist()
        at = paths if isinstance(paths, list) else [paths] * len(values)
        rows = [row for row, value in enumerate(values) if value is not None and at[row] is not None]
        self.add(
            np.array(rows, np.int64),
            [at[row] or "" for row in rows],
            numeric_value=[values[row] for row in rows],
            unit=[units[row] for row in rows] if units is not None else None,
        )

    def table(self) -> pa.Table:
        """The events and their child rows."""
        return pa.concat_tables([self.events, *self._children]).cast(EVENT_SCHEMA)
