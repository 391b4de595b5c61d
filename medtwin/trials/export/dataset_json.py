"""Dataset-JSON 1.1: a dataset with the description of its columns in one JSON file, written and read strictly.

Missing values are null, dates are ISO 8601 text, decimals are text; no value is NaN or infinite. The reader returns
what the file says or refuses it with everything that is wrong; `check_dataset_json` lists that.

Source: CDISC Dataset-JSON 1.1, 2024-12-05; `schemas/dataset-json-1.1.schema.json` has what concerns one part alone.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pyarrow as pa

from medtwin.core.errors import DatasetError
from medtwin.core.files import atomic_file, read_json
from medtwin.core.findings import Finding
from medtwin.core.paths import schema_dir
from medtwin.trials.export.variables import Column, Dataset

VERSION = "1.1.0"
SCHEMA_FILE = "dataset-json-1.1.schema.json"
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?")
_TIME = re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?")
_DECIMAL = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?([eE][+-]?\d+)?")
# Attributes in the order that the standard recommends, which lets a reader stream.
_COLUMN_ATTRIBUTES = (
    ("name", "name"),
    ("label", "label"),
    ("dataType", "data_type"),
    ("targetDataType", "target_type"),
    ("length", "length"),
    ("displayFormat", "display_format"),
    ("keySequence", "key"),
)


@dataclass(frozen=True)
class Header:
    """What a file says of itself beside its dataset; empty or None: it does not say.

    Attributes:
        created: When the file was made. modified: When its source was last changed, not later.
        file_oid, study_oid, meta_data_version_oid: Identifiers. meta_data_ref: URI of a description of the dataset.
        item_group_oid: Of the dataset; empty: `IG.<name>`.
        originator: Who made it. source_system: Name and version of what it was made with.

    Raises:
        ValueError: If it was modified after it was made.
    """

    created: datetime
    modified: datetime | None = None
    file_oid: str = ""
    originator: str = ""
    source_system: tuple[str, str] | None = None
    study_oid: str = ""
    meta_data_version_oid: str = ""
    meta_data_ref: str = ""
    item_group_oid: str = ""

    def __post_init__(self) -> None:
        if self.modified is not None and _is_later(self.modified, self.created):
            raise ValueError(f"modified must not be after created, got {self.modified.isoformat()}")

    def attributes(self, name: str) -> dict[str, Any]:
        """The attributes of a file before `records`, of a dataset of that name."""
        system = self.source_system
        found: dict[str, Any] = {
            "datasetJSONCreationDateTime": _moment_text(self.created),
            "datasetJSONVersion": VERSION,
            "fileOID": self.file_oid,
            "dbLastModifiedDateTime": "" if self.modified is None else _moment_text(self.modified),
            "originator": self.originator,
            "sourceSystem": None if system is None else {"name": system[0], "version": system[1]},
            "studyOID": self.study_oid,
            "metaDataVersionOID": self.meta_data_version_oid,
            "metaDataRef": self.meta_data_ref,
            "itemGroupOID": self.item_group_oid or f"IG.{name}",
        }
        return {key: value for key, value in found.items() if value}


def _is_later(one: datetime, other: datetime) -> bool:
    """Whether it is known to be later: two times of which one has no zone are not compared."""
    return (one.tzinfo is None) == (other.tzinfo is None) and one > other


def _moment_text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds")


def dataset_to_json(dataset: Dataset, header: Header) -> dict[str, Any]:
    """The dataset as a Dataset-JSON object, attributes in the recommended order.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON has no word for: a missing value is null.
    """
    columns = [_column_json(dataset.name, column) for column in dataset.columns]
    values = [
        _json_values(f"{dataset.name}.{column.name}", dataset.table[column.name].to_pylist())
        for column in dataset.columns
    ]
    return {
        **header.attributes(dataset.name),
        "records": dataset.table.num_rows,
        "name": dataset.name,
        "label": dataset.label,
        "columns": columns,
        "rows": [list(row) for row in zip(*values, strict=True)],
    }


def _column_json(dataset: str, column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {"itemOID": column.item_oid or f"IT.{dataset}.{column.name}"}
    found |= {key: getattr(column, name) for key, name in _COLUMN_ATTRIBUTES}
    return {key: value for key, value in found.items() if value is not None}


def _json_values(where: str, values: Sequence[Any]) -> list[Any]:
    found = []
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where} must be finite or null, got {value!r}")
        if isinstance(value, datetime):
            found.append(_moment_text(value))
        elif isinstance(value, (date, time)):
            found.append(value.isoformat())
        else:
            found.append(str(value) if isinstance(value, Decimal) else value)
    return found


def write_dataset_json(path: Path, dataset: Dataset, header: Header) -> None:
    """Writes a dataset as a Dataset-JSON file, a line for each column and each row; atomic.

    Raises:
        ValueError: As `dataset_to_json`.
    """
    document = dataset_to_json(dataset, header)
    parts = []
    for key, value in document.items():
        text = _dumps(value)
        if key in ("columns", "rows") and value:
            text = "[\n" + ",\n".join(_dumps(each) for each in value) + "\n]"
        parts.append(f"{_dumps(key)}: {text}")
    with atomic_file(path, "w") as file:
        file.write("{\n" + ",\n".join(parts) + "\n}\n")


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read_dataset_json(path: Path) -> tuple[Dataset, Header]:
    """The dataset of a Dataset-JSON file, and what the file says of itself.

    Raises:
        DatasetError: If the file is no Dataset-JSON 1.1; names everything that is wrong.
    """
    document = _parse(path)
    findings, columns, arrays = _read(document)
    if findings:
        raise DatasetError(f"{path.name} is no Dataset-JSON 1.1: {'; '.join(map(str, findings))}")
    table = pa.Table.from_arrays(arrays, names=[column.name for column in columns])
    dataset = Dataset(document["name"], document["label"], columns, table)
    system = document.get("sourceSystem")
    modified = document.get("dbLastModifiedDateTime")
    return dataset, Header(
        datetime.fromisoformat(document["datasetJSONCreationDateTime"]),
        None if modified is None else datetime.fromisoformat(modified),
        document.get("fileOID", ""),
        document.get("originator", ""),
        None if system is None else (system["name"], system["version"]),
        document.get("studyOID", ""),
        document.get("metaDataVersionOID", ""),
        document.get("metaDataRef", ""),
        document["itemGroupOID"],
    )


def _parse(path: Path) -> Any:
    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("an attribute stands twice")
        return found

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once, parse_constant=refuse)
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing") from error
    except ValueError as error:
        raise DatasetError(f"{path.name} is not valid JSON: {error}") from error


def check_dataset_json(document: Any) -> list[Finding]:
    """What keeps a parsed JSON document from being Dataset-JSON 1.1; empty: nothing."""
    return _read(document)[0]


def _read(document: Any) -> tuple[list[Finding], list[Column], list[pa.Array]]:
    """What is wrong; or the columns and their values."""
    findings = [_schema_finding(error) for error in _validator().iter_errors(document)]
    if not findings:
        findings = list(_relations(document))
    if findings:
        return findings, [], []
    columns = [_column_of(each) for each in document["columns"]]
    rows = document.get("rows", [])
    arrays: list[pa.Array] = []
    for column, values in zip(columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True):
        wrong, array = _values_of(column, values)
        findings += wrong
        arrays.append(array)
    if not findings:
        findings = list(_key_findings(columns, arrays))
    return findings, columns, arrays


@cache
def _validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(read_json(schema_dir() / SCHEMA_FILE))


def _schema_finding(error: jsonschema_rs.ValidationError) -> Finding:
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
    return Finding("dataset-json-schema", f"must meet the schema's {error.kind.name}", where=where.removeprefix("."))


def _relations(document: Mapping[str, Any]) -> Iterator[Finding]:
    """What the parts of a document owe each other."""
    columns, rows = document["columns"], document.get("rows", [])
    if document["records"] != len(rows):
        yield Finding("records", f"records must be the number of rows, {len(rows)}", where="records")
    if wrong := sum(len(row) != len(columns) for row in rows):
        yield Finding(
            "row-length", f"a row must have a value for each of the {len(columns)} columns", "error", "rows", wrong
        )
    for name in ("name", "itemOID"):
        if twice := [value for value, count in Counter(each[name] for each in columns).items() if count > 1]:
            yield Finding("column-twice", f"{name} must differ between columns: {', '.join(twice)}", where="columns")
    keys = sorted(each["keySequence"] for each in columns if "keySequence" in each)
    if keys != list(range(1, len(keys) + 1)):
        yield Finding("key-sequence", "keySequence must count the keys from 1", where="columns")
    moments = [document.get(name) for name in ("dbLastModifiedDateTime", "datasetJSONCreationDateTime")]
    if moments[0] is not None and _is_later(*(datetime.fromisoformat(str(each)) for each in moments)):
        yield Finding(
            "modified-later", "the source must not be changed after the file was made", where="dbLastModifiedDateTime"
        )


def _column_of(each: Mapping[str, Any]) -> Column:
    return Column(**{name: each[key] for key, name in _COLUMN_ATTRIBUTES if key in each}, item_oid=each["itemOID"])


def _values_of(column: Column, values: Sequence[Any]) -> tuple[list[Finding], pa.Array]:
    parse = _PARSERS[column.data_type, column.target_type]
    found: list[Any] = []
    num_wrong = num_long = 0
    for value in values:
        parsed = None if value is None else parse(value)
        num_wrong += value is not None and parsed is None
        num_long += column.length is not None and isinstance(parsed, str) and len(parsed) > column.length
        found.append(parsed)
    findings = []
    if num_wrong:
        kind = f"{column.data_type} ({column.target_type})" if column.target_type else column.data_type
        findings.append(Finding("value-type", f"a value must be a {kind} or null", "error", column.name, num_wrong))
    if num_long:
        message = f"a value must have at most {column.length} characters"
        findings.append(Finding("value-length", message, "error", column.name, num_long))
    if findings:
        return findings, None
    if column.arrow_type is None and not any(each is not None for each in found):
        return findings, pa.array(found, pa.decimal128(38, 0))
    return findings, pa.array(found, column.arrow_type)


def _key_findings(columns: Sequence[Column], arrays: Sequence[pa.Array]) -> Iterator[Finding]:
    keys = [array for column, array in zip(columns, arrays, strict=True) if column.key is not None]
    if keys:
        table = pa.Table.from_arrays(keys, names=[str(number) for number in range(len(keys))])
        if twice := len(table) - len(table.group_by(table.column_names).aggregate([])):
            yield Finding("keys-twice", "rows must differ in their keys", "error", "rows", twice)


Parser = Callable[[Any], Any]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: Any) -> int | None:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole and not isinstance(value, bool) and abs(value) < 2**63 else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _decimal(value: Any) -> Decimal | None:
    is_decimal = isinstance(value, str) and _DECIMAL.fullmatch(value) and re.search(r"\d", value)
    return Decimal(value.replace(",", "")) if is_decimal else None


def _dated(pattern: re.Pattern[str], read: Callable[[str], Any]) -> Parser:
    """A parser of a complete ISO 8601 text."""

    def parse(value: Any) -> Any:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            return None
        try:
            return read(value)
        except ValueError:
            return None

    return parse


# Source: Dataset-JSON 1.1, table "Supported Column Data Type Combinations".
_PARSERS: dict[tuple[str, str | None], Parser] = {
    ("string", None): _text,
    ("URI", None): _text,
    ("integer", None): _integer,
    ("float", None): _number,
    ("double", None): _number,
    ("boolean", None): _boolean,
    ("decimal", "decimal"): _decimal,
    ("date", None): _text,
    ("datetime", None): _text,
    ("time", None): _text,
    ("date", "integer"): _dated(_DATE, date.fromisoformat),
    ("datetime", "integer"): _dated(_MOMENT, datetime.fromisoformat),
    ("time", "integer"): _dated(_TIME, time.fromisoformat),
}
