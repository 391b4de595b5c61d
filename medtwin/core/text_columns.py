"""Text columns as integers: equal texts have equal codes, whether or not Arrow holds them as a dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def text_codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.Array]:
    """The index of each row's text, -1 for null, (rows,) int32, and the texts; the column may be encoded or not."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    if not len(array.dictionary):
        return np.full(len(array), -1, dtype=np.int32), array.dictionary
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int32, copy=False), array.dictionary


def rows_with_text(column: pa.ChunkedArray, text: str) -> NDArray[np.bool_]:
    """Which rows have exactly this text, (rows,) bool."""
    codes, texts = text_codes(column)
    found: Any = pc.index(texts, text).as_py()
    return np.zeros(len(codes), dtype=bool) if found < 0 else codes == found


def text_ranks(texts: pa.Array) -> NDArray[np.int64]:
    """The place of each text in the order of all of them, equal ones alike, (texts,) int64.

    >>> text_ranks(pa.array(["b", "a", "b"])).tolist()
    [1, 0, 1]
    """
    encoded = texts.dictionary_encode()
    rank = np.empty(len(encoded.dictionary), dtype=np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    return np.asarray(rank[encoded.indices.to_numpy()])
