"""The texts of a file of any kind, each with the name of its field; archives are opened."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medtwin.core.errors import DatasetError, SourceError
from medtwin.dicom.reading.texts import element_texts, hidden_places, read_whole

MAX_DEPTH = 3
"""Archives within archives."""
MAX_UNPACKED = 4 * 1024**3
_SCRIPT = re.compile(r"<(script|style)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>")
_EMBEDDED = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+|[A-Za-z0-9+/=]{400,}")
_PRINTABLE = re.compile(rb"[\x20-\x7e]{8,}")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a file.

    Attributes:
        field: What it is called in its file. text: What stands there; of a hidden place, nothing.
        is_number: It stands for a quantity. is_raw: It was found in a file of no known form.
        hidden: The place, where something could be hidden.
        count: How often it stands there.
    """

    field: str
    text: str
    is_number: bool = False
    is_raw: bool = False
    hidden: str = ""
    count: int = 1


def texts_of(path: Path) -> Iterator[tuple[str, Text]]:
    """The texts of a file, each with the place in the file's archives (empty outside).

    Raises:
        DatasetError: If it cannot be read as what it says to be.
    """
    try:
        yield from _by_kind(path.name, path.read_bytes(), 0)
    except (OSError, ValueError, SourceError, pa.ArrowException, zipfile.BadZipFile, EOFError, csv.Error) as error:
        raise DatasetError(f"a {path.suffix or 'nameless'} file cannot be read: {type(error).__name__}") from error


def _by_kind(name: str, data: bytes, depth: int) -> Iterator[tuple[str, Text]]:
    suffix = PurePosixPath(name.lower()).suffix
    if zipfile.is_zipfile(io.BytesIO(data)) and suffix != ".npz":
        yield from _zipped(data, depth)
    elif data[:2] == b"\x1f\x8b":
        inner = _limited(gzip.GzipFile(fileobj=io.BytesIO(data)))
        yield from _by_kind(PurePosixPath(name).stem, inner, depth + 1)
    elif data[128:132] == b"DICM":
        yield from _outside(_dicom(data))
    elif data[:4] == b"PAR1":
        yield from _outside(_parquet(data))
    elif suffix == ".csv":
        yield from _outside(_csv(data))
    elif suffix in (".json", ".ndjson", ".jsonl"):
        yield from _outside(_json(data, lines=suffix != ".json"))
    else:
        yield from _outside(_plain(data))


def _outside(texts: Iterator[Text]) -> Iterator[tuple[str, Text]]:
    """Texts that stand in no archive."""
    return (("", text) for text in texts)


def _limited(file: Any) -> bytes:
    data: bytes = file.read(MAX_UNPACKED + 1)
    if len(data) > MAX_UNPACKED:
        raise DatasetError(f"an archive holds a file of more than {MAX_UNPACKED >> 30} GiB")
    return data


def _zipped(data: bytes, depth: int) -> Iterator[tuple[str, Text]]:
    if depth >= MAX_DEPTH:
        raise DatasetError(f"archives lie in each other more than {MAX_DEPTH} deep")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if archive.comment:
            yield "", Text("comment of the archive", archive.comment.decode("utf-8", "replace"))
        for info in archive.infolist():
            yield info.filename, Text("file path", PurePosixPath(info.filename).name)
            if not info.is_dir():
                with archive.open(info) as file:
                    inner = _limited(file)
                for place, text in _by_kind(info.filename, inner, depth + 1):
                    yield "/".join(filter(None, (info.filename, place))), text


def _dicom(data: bytes) -> Iterator[Text]:
    dataset = read_whole(io.BytesIO(data))
    for name, form, text in element_texts(dataset):
        yield Text(name, text, is_number=form in ("DS", "FD", "FL", "IS", "SL", "SS", "UL", "US"))
    for place in hidden_places(dataset):
        yield Text(place, "", hidden=place)


def _parquet(data: bytes) -> Iterator[Text]:
    file = pq.ParquetFile(io.BytesIO(data))
    for key, value in (file.schema_arrow.metadata or {}).items():
        if not key.startswith((b"ARROW", b"pandas")):
            yield Text("metadata of the table", value.decode("utf-8", "replace"))
    for name in file.schema_arrow.names:
        column = file.read(columns=[name]).column(0).combine_chunks()
        while pa.types.is_nested(column.type) and not pa.types.is_struct(column.type):
            column = pc.list_flatten(column)
        yield from _column(name, column)


def _column(name: str, column: pa.Array) -> Iterator[Text]:
    """The different values of a column, with how often each stands there; of numbers, whole ones alone."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_struct(column.type):
        for index in range(column.type.num_fields):
            yield from _column(f"{name}.{column.type.field(index).name}", column.field(index))
        return
    if pa.types.is_floating(column.type) or pa.types.is_boolean(column.type):
        return
    is_number = pa.types.is_integer(column.type) and not name.endswith("id")
    for one in pc.value_counts(column).to_pylist():
        if one["values"] is not None:
            yield Text(name, str(one["values"]), is_number=is_number, count=one["counts"])


def _csv(data: bytes) -> Iterator[Text]:
    rows = csv.reader(io.StringIO(data.decode("utf-8-sig")))
    names = next(rows, [])
    seen: list[dict[str, int]] = [{} for _ in names]
    for name in names:
        yield Text("column heading", name)
    for row in rows:
        for counts, cell in zip(seen, row, strict=False):
            if cell:
                counts[cell] = counts.get(cell, 0) + 1
        for cell in row[len(names) :]:
            yield Text("cell without a column", cell)
    for name, counts in zip(names, seen, strict=True):
        is_id = name.lower().endswith(("id", "uid", "mrn", "number", "identifier"))
        for cell, count in counts.items():
            yield Text(name, cell, is_number=not is_id and _NUMBER.fullmatch(cell) is not None, count=count)


def _json(data: bytes, *, lines: bool) -> Iterator[Text]:
    for part in data.splitlines() if lines else [data]:
        if part.strip():
            yield from _values(orjson.loads(part), "")


def _values(value: Any, place: str) -> Iterator[Text]:
    if isinstance(value, dict):
        kind = value.get("resourceType")
        start = str(kind) if isinstance(kind, str) else place
        for key, inner in value.items():
            yield from _values(inner, f"{start}.{key}" if start else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, place)
    elif isinstance(value, str):
        yield Text(place, _TAG.sub(" ", value) if value.startswith("<") else value)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield Text(place, str(value), is_number=True)


def _plain(data: bytes) -> Iterator[Text]:
    """Lines of a text without markup and embedded files; of anything else, what can be printed in it."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        for match in _PRINTABLE.finditer(data):
            yield Text("", match.group().decode("ascii"), is_raw=True)
        return
    text = _EMBEDDED.sub(" ", text)
    if "<" in text:
        text = _TAG.sub("\n", _SCRIPT.sub(" ", text))
    for line in text.splitlines():
        if line.strip():
            yield Text("", line.strip())
