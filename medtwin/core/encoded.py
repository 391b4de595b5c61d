"""Event tables with their texts as dictionaries: what the reader gives and the writer sorts, a quarter of the size.

An encoded table has the columns of `EVENT_SCHEMA`; each text column is dictionary<int32, string>. It lives inside one
process and its spill files only: what is written to a dataset is always `EVENT_SCHEMA` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.events import EVENT_SCHEMA
from medtwin.core.text_columns import text_codes

_TEXT = pa.dictionary(pa.int32(), pa.string())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


TEXT_COLUMNS = tuple(field.name for field in EVENT_SCHEMA if _is_text(field.type))
ENCODED_SCHEMA = pa.schema(
    [field.with_type(_TEXT) if field.name in TEXT_COLUMNS else field for field in EVENT_SCHEMA],
)


def encode_events(table: pa.Table) -> pa.Table:
    """The table with its texts as dictionaries, one chunk per column; one that is encoded already is unified.

    Args:
        table: (rows,) of `EVENT_SCHEMA` or of `ENCODED_SCHEMA`.
    """
    if table.schema == ENCODED_SCHEMA:
        return table.unify_dictionaries().combine_chunks()
    columns = []
    for field in EVENT_SCHEMA:
        column = table.column(field.name).combine_chunks()
        if field.name in TEXT_COLUMNS:
            column = column.cast(pa.string()).dictionary_encode()
        columns.append(column)
    return pa.table(columns, schema=ENCODED_SCHEMA)


def decode_events(table: pa.Table) -> pa.Table:
    """The table with its texts in full, (rows,) of `EVENT_SCHEMA`."""
    return table if table.schema == EVENT_SCHEMA else table.cast(EVENT_SCHEMA)


def only_used(table: pa.Table) -> pa.Table:
    """An encoded table of one chunk whose dictionaries hold only what its rows use."""
    return _renumbered(table, TEXT_COLUMNS, lambda texts: np.arange(len(texts)))


def in_order(table: pa.Table, columns: Iterable[str]) -> pa.Table:
    """An encoded table of one chunk; these dictionaries hold only what its rows use, in alphabetical order.

    So they depend on the rows alone, and not on where those came from.
    """
    return _renumbered(table, columns, lambda texts: pc.sort_indices(texts).to_numpy())


def _renumbered(table: pa.Table, columns: Iterable[str], order_of: Callable[[pa.Array], NDArray[Any]]) -> pa.Table:
    for name in columns:
        codes, texts = text_codes(table.column(name))
        used = np.zeros(len(texts) + 1, dtype=bool)
        used[codes] = True
        numbers = np.flatnonzero(used[:-1])
        texts = texts.take(pa.array(numbers))
        order = order_of(texts)
        place = np.full(len(used), -1, dtype=np.int32)
        place[numbers[order]] = np.arange(len(order), dtype=np.int32)
        column = coded(place[codes], texts.take(pa.array(order)))
        table = table.set_column(table.column_names.index(name), ENCODED_SCHEMA.field(name), column)
    return table


def coded(codes: NDArray[np.int32], texts: pa.Array) -> pa.DictionaryArray:
    """A dictionary column of codes, -1 for null."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), texts)


def append_events(table: pa.Table, more: pa.Table) -> pa.Table:
    """The table with some rows more, its dictionaries kept.

    Args:
        table: (rows,) of `EVENT_SCHEMA` or of `ENCODED_SCHEMA`.
        more: (few rows,) of `EVENT_SCHEMA`.
    """
    if table.schema != ENCODED_SCHEMA:
        return pa.concat_tables([table, more])
    columns = []
    for name in table.column_names:
        column, added = table.column(name).combine_chunks(), more.column(name).combine_chunks()
        if name in TEXT_COLUMNS:
            texts, places = column.dictionary, pa.nulls(len(added), pa.int32())
            if added.null_count < len(added):
                new = pc.unique(added.cast(pa.string()).drop_null())
                texts = pa.concat_arrays([texts, new.filter(pc.invert(pc.is_in(new, value_set=texts)))])
                places = pc.index_in(added.cast(pa.string()), value_set=texts)
            column = pa.DictionaryArray.from_arrays(pa.concat_arrays([column.indices, places]), texts)
        else:
            column = pa.concat_arrays([column, added])
        columns.append(column)
    return pa.table(columns, schema=ENCODED_SCHEMA)
