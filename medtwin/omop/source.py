"""An OMOP CDM on disk: a folder of parquet, CSV or TSV files, or a DuckDB file; CDM 5.3 or 5.4."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from medtwin.core.errors import SourceError
from medtwin.omop.database import require_duckdb
from medtwin.omop.tables import TABLES
from medtwin.omop.write import ETL_REFERENCE

BATCH_ROWS = 200_000
_SUFFIXES = (".parquet", ".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
_DATABASES = (".duckdb", ".db", ".ddb")
_NULLS = pa.array(["", "NULL", "null", "NA", "\\N"])
# What CDM 5.3 calls columns that 5.4 renamed. Source: OHDSI/CommonDataModel, changes in v5.4.
_RENAMED = {
    "admitting_source_concept_id": "admitted_from_concept_id",
    "admitting_source_value": "admitted_from_source_value",
    "discharge_to_concept_id": "discharged_to_concept_id",
    "discharge_to_source_value": "discharged_to_source_value",
    "visit_detail_parent_id": "parent_visit_detail_id",
}
_CONCEPT_SCHEMA = pa.schema([("concept_id", pa.int64()), ("vocabulary_id", pa.string()), ("concept_code", pa.string())])
_DATE_DIGITS = re.compile(r"\d{8}")


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    Attributes:
        table: Every column of the CDM, those that the source lacks null.
        numbers: Number of each row in the source, from 1, (rows,).
        malformed: Which rows have a value that the column's type cannot hold, (rows,) bool.
    """

    table: pa.Table
    numbers: np.ndarray[Any, np.dtype[np.int64]]
    malformed: np.ndarray[Any, np.dtype[np.bool_]]

    def only(self, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Rows:
        """Some of the rows; they keep their numbers."""
        return Rows(self.table.filter(pa.array(mask)), self.numbers[mask], self.malformed[mask])


class OmopSource:
    """The tables of an OMOP CDM.

    Attributes:
        path: The folder or DuckDB file.
        files: Table to file, folder of files, or qualified name in the database.

    Raises:
        SourceError: If there is no table `person`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = _connect(path) if path.is_file() else None
        self.files: dict[str, Any] = _database_tables(self._database) if path.is_file() else _files(path)
        if "person" not in self.files:
            raise SourceError(
                f"source.omop: {path} has no table person: expected a DuckDB file, or a folder with person.parquet, "
                ".csv or .tsv and the other tables of the OMOP CDM"
            )
        self.unknown_columns: dict[str, set[str]] = {}

    def name(self, table: str) -> str:
        """What rejected.csv calls the file of a table."""
        where = self.files.get(table)
        return where.name if isinstance(where, Path) else f"{self.path.name}:{table}"

    def is_ours(self) -> bool:
        """Whether medtwin wrote it, by cdm_source: its source values are `SYSTEM//code` then."""
        references = [
            row["cdm_etl_reference"] or ""
            for rows in self.rows("cdm_source")
            for row in rows.table.select(["cdm_etl_reference"]).to_pylist()
        ]
        return bool(references) and all(text.split(" ")[0] == ETL_REFERENCE for text in references)

    def rows(self, name: str, columns: tuple[str, ...] | None = None) -> Iterator[Rows]:
        """The rows of a table of the CDM, a batch at a time; none where the source lacks it.

        Args:
            name: The table.
            columns: Only these are read, the others are null.

        Raises:
            SourceError: If the file is unreadable.
        """
        if name not in self.files:
            return
        schema = TABLES[name].schema
        first = 1
        for batch in self._batches(name):
            renamed = batch.rename_columns([_column(each) for each in batch.column_names])
            self.unknown_columns.setdefault(name, set()).update(set(renamed.column_names) - set(schema.names))
            malformed = np.zeros(len(renamed), dtype=bool)
            arrays = []
            for field in schema:
                if field.name not in renamed.column_names or (columns is not None and field.name not in columns):
                    arrays.append(pa.nulls(len(renamed), field.type))
                    continue
                array, bad = cast(renamed.column(field.name), field.type)
                malformed |= bad
                arrays.append(array)
            nullable = pa.schema([pa.field(each.name, each.type) for each in schema])
            yield Rows(pa.table(arrays, schema=nullable), first + np.arange(len(renamed)), malformed)
            first += len(renamed)

    def where(self, name: str, rows: Rows, index: int) -> tuple[str, int, str]:
        """File, row and table of a row, as a reject names them."""
        return self.name(name), int(rows.numbers[index]), name

    def count(self, name: str) -> int:
        """How many rows a table has."""
        return sum(len(batch) for batch in self._batches(name))

    def concepts(self) -> Iterator[pa.Table]:
        """concept_id, vocabulary_id and concept_code of the source's own CONCEPT table; none where it has none."""
        if "concept" not in self.files:
            return
        for batch in self._batches("concept"):
            renamed = batch.rename_columns([each.lower() for each in batch.column_names])
            if set(_CONCEPT_SCHEMA.names) - set(renamed.column_names):
                raise SourceError("source.omop: the table concept lacks concept_id, vocabulary_id or concept_code")
            yield pa.table(
                [cast(renamed.column(field.name), field.type)[0] for field in _CONCEPT_SCHEMA], schema=_CONCEPT_SCHEMA
            )

    def _batches(self, name: str) -> Iterator[pa.Table]:
        where = self.files[name]
        try:
            if not isinstance(where, Path):
                yield from _read_database(self._database, where)
            elif where.is_dir() or where.suffix == ".parquet":
                for path in sorted(where.glob("*.parquet")) if where.is_dir() else [where]:
                    for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS):
                        yield pa.Table.from_batches([batch])
            else:
                yield from _read_text(where, quoted=name != "concept")
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(f"source.omop: {self.name(name)} is not readable as a table") from error


def is_cdm(path: Path) -> bool:
    """Whether a path is a DuckDB file, or a folder with a table person, by their names."""
    if path.is_file():
        return path.name.lower().endswith(_DATABASES)
    return path.is_dir() and "person" in {
        each.name.lower().removesuffix(suffix) for each in path.iterdir() for suffix in _SUFFIXES
    }


def _column(name: str) -> str:
    lower = name.lower().strip('"')
    return _RENAMED.get(lower, lower)


def _files(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise SourceError(f"source.omop: {folder} does not exist")
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        lower = path.name.lower()
        if path.is_dir() and any(path.glob("*.parquet")):
            found.setdefault(lower, path)
        for suffix in _SUFFIXES:
            if path.is_file() and lower.endswith(suffix):
                name = lower.removesuffix(suffix)
                if name in found and not found[name].is_dir():
                    raise SourceError(f"source.omop: {folder} has the table {name} twice: keep one form of it")
                found[name] = path
    return found


def _connect(path: Path) -> Any:
    if not path.name.lower().endswith(_DATABASES):
        raise SourceError(f"source.omop: {path} must be a folder, or a DuckDB file ({', '.join(_DATABASES)})")
    duckdb = require_duckdb("a DuckDB file as source.omop")
    try:
        return duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        raise SourceError(f"source.omop: {path} is not a DuckDB file that this version can read") from error


def _database_tables(connection: Any) -> dict[str, Any]:
    query = "SELECT table_schema, table_name FROM information_schema.tables ORDER BY table_schema DESC"
    return {name.lower(): f'"{schema}"."{name}"' for schema, name in connection.execute(query).fetchall()}


def _read_database(connection: Any, table: str) -> Iterator[pa.Table]:
    result = connection.sql(f"SELECT * FROM {table}")
    # duckdb 2 renamed it.
    read = getattr(result, "to_arrow_reader", None) or result.fetch_arrow_reader
    for batch in read(BATCH_ROWS):
        yield pa.Table.from_batches([batch])


def _read_text(path: Path, *, quoted: bool) -> Iterator[pa.Table]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        header = file.readline().lstrip("\ufeff").rstrip("\r\n")
    delimiter = max("\t,;|", key=header.count)
    names = [name.strip('" ') for name in header.split(delimiter)]
    reader = pa_csv.open_csv(
        path,
        read_options=pa_csv.ReadOptions(block_size=8 * 2**20, column_names=names, skip_rows=1),
        parse_options=pa_csv.ParseOptions(
            delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    for batch in reader:
        yield pa.Table.from_batches([batch])


def cast(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.Array, np.ndarray[Any, np.dtype[np.bool_]]]:
    """A column as another type, and which values the type cannot hold (they are null then)."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)  # how R and pandas write a null
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        trimmed = pc.utf8_trim_whitespace(array)
        array = pc.if_else(pc.is_in(trimmed, value_set=_NULLS.cast(trimmed.type)), None, trimmed)
    good = np.zeros(len(array), dtype=bool)
    if array.type == kind:
        return array, good
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        array = array.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
    try:
        return array.cast(kind, safe=not pa.types.is_date(kind)), good
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _cast_each(array, kind)


def _cast_each(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, np.ndarray[Any, np.dtype[np.bool_]]]:
    values: list[Any] = []
    bad = np.zeros(len(array), dtype=bool)
    for index, value in enumerate(array.to_pylist()):
        try:
            values.append(None if value is None else _convert(value, kind))
        except (ValueError, TypeError, OverflowError):
            values.append(None)
            bad[index] = True
    return pa.array(values, kind), bad


def _convert(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_integer(kind):
        return _integer(value, kind.bit_width)
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        moment = _moment(value)
        return moment.date() if pa.types.is_date(kind) else moment
    return str(value)


def _integer(value: Any, bits: int) -> int:
    """The integer of a number or text, such as `3.0`, that R and pandas make of integers with nulls."""
    text = str(value)
    number = int(text) if text.lstrip("+-").isdecimal() else float(text)
    if number != int(number) or not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise ValueError
    return int(number)


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    text = str(value)
    if _DATE_DIGITS.fullmatch(text):
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = (moment - (moment.utcoffset() or timedelta(0))).replace(tzinfo=None)
    return moment
