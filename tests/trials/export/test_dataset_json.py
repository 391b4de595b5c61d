from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from medtwin.core.errors import DatasetError
from medtwin.core.files import read_json
from medtwin.core.paths import schema_dir
from medtwin.trials.export.dataset_json import (
    SCHEMA_FILE,
    Header,
    check_dataset_json,
    dataset_to_json,
    read_dataset_json,
    write_dataset_json,
)
from medtwin.trials.export.variables import Column, Dataset

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVERY_TYPE = [
    Column("S", "String", "string", length=6, key=1, item_oid="IT.D.S"),
    Column("I", "Integer", "integer", key=2, item_oid="IT.D.I"),
    Column("F", "Float", "float", display_format="8.2", item_oid="IT.D.F"),
    Column("D", "Double", "double", item_oid="IT.D.D"),
    Column("B", "Boolean", "boolean", item_oid="IT.D.B"),
    Column("X", "Decimal", "decimal", "decimal", item_oid="IT.D.X"),
    Column("DA", "Date", "date", "integer", item_oid="IT.D.DA"),
    Column("DM", "Datetime", "datetime", "integer", item_oid="IT.D.DM"),
    Column("TM", "Time", "time", "integer", item_oid="IT.D.TM"),
    Column("DTC", "Partial date", "date", item_oid="IT.D.DTC"),
    Column("U", "Address", "URI", item_oid="IT.D.U"),
]
ROWS: list[list[Any]] = [
    [
        "größer",
        1,
        0.1,
        1e-300,
        True,
        "30.8983333333",
        "2014-01-02",
        "2014-01-02T03:04:05",
        "03:04:05",
        "2014-01",
        "a:b",
    ],
    [
        "",
        -(2**53) - 1,
        7.0,
        2.0**0.5,
        False,
        "-1.5000000000",
        "1960-01-01",
        "1899-12-31T00:00:00.250000",
        "23:59:00",
        "--12-15",
        "",
    ],
    [None] * len(EVERY_TYPE),
]


def every_type() -> Dataset:
    values: list[list[Any]] = [
        ["größer", "", None],
        [1, -(2**53) - 1, None],
        [0.1, 7.0, None],
        [1e-300, 2.0**0.5, None],
        [True, False, None],
        [Decimal("30.8983333333"), Decimal("-1.50"), None],
        [date(2014, 1, 2), date(1960, 1, 1), None],
        [datetime(2014, 1, 2, 3, 4, 5), datetime(1899, 12, 31, 0, 0, 0, 250000), None],
        [time(3, 4, 5), time(23, 59), None],
        ["2014-01", "--12-15", None],
        ["a:b", "", None],
    ]
    arrays = [pa.array(given, column.arrow_type) for given, column in zip(values, EVERY_TYPE, strict=True)]
    return Dataset("D", "Every type", EVERY_TYPE, pa.Table.from_arrays(arrays, names=[c.name for c in EVERY_TYPE]))


def a_header() -> Header:
    modified = datetime(2026, 1, 1, tzinfo=UTC)
    oids = {
        "study_oid": "S",
        "meta_data_version_oid": "MDV.1",
        "meta_data_ref": "define.json",
        "item_group_oid": "IG.D",
    }
    return Header(CREATED, modified, "file.1", "somebody", ("medtwin", "1"), **oids)


def test_the_file_holds_what_the_standard_says(tmp_path: Path) -> None:
    write_dataset_json(tmp_path / "d.json", every_type(), a_header())
    document = json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))
    assert list(document) == [
        *("datasetJSONCreationDateTime", "datasetJSONVersion", "fileOID", "dbLastModifiedDateTime", "originator"),
        *("sourceSystem", "studyOID", "metaDataVersionOID", "metaDataRef", "itemGroupOID"),
        *("records", "name", "label", "columns", "rows"),
    ]
    assert document["datasetJSONCreationDateTime"] == "2026-01-02T03:04:05+00:00"
    assert document["datasetJSONVersion"] == "1.1.0"
    assert document["records"] == 3
    assert document["columns"][0] == {
        "itemOID": "IT.D.S",
        "name": "S",
        "label": "String",
        "dataType": "string",
        "length": 6,
        "keySequence": 1,
    }
    assert document["columns"][6]["targetDataType"] == "integer"
    assert "targetDataType" not in document["columns"][9]
    assert document["rows"] == ROWS  # decimals of a column have the same number of digits
    assert type(document["rows"][1][2]) is float


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_dataset_json(tmp_path / "d.json", every_type(), a_header())
    dataset, header = read_dataset_json(tmp_path / "d.json")
    assert dataset.table.equals(every_type().table)
    assert list(dataset.columns) == EVERY_TYPE
    assert (dataset.name, dataset.label, header) == ("D", "Every type", a_header())
    write_dataset_json(tmp_path / "again.json", dataset, header)
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "d.json").read_bytes()


def test_the_shipped_schema_and_another_validator_agree() -> None:
    schema = read_json(schema_dir() / SCHEMA_FILE)
    Draft202012Validator.check_schema(schema)
    document = dataset_to_json(every_type(), a_header())
    assert list(Draft202012Validator(schema).iter_errors(document)) == []
    bare = dataset_to_json(every_type(), Header(CREATED))
    assert bare["itemGroupOID"] == "IG.D"
    assert list(Draft202012Validator(schema).iter_errors(bare)) == []


def _set(*path: str | int, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return change


def _drop(*path: str | int) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        del document[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        *((_drop(name), "dataset-json-schema") for name in ("datasetJSONCreationDateTime", "itemGroupOID", "records")),
        *((_drop("columns", 0, name), "dataset-json-schema") for name in ("itemOID", "name", "label", "dataType")),
        (_set("extra", value=1), "dataset-json-schema"),
        (_set("datasetJSONVersion", value="1.0.0"), "dataset-json-schema"),
        (_set("datasetJSONVersion", value="1x1"), "dataset-json-schema"),
        (_set("datasetJSONCreationDateTime", value="2026-01-02"), "dataset-json-schema"),
        (_set("datasetJSONCreationDateTime", value="2026-13-02T00:00:00"), "dataset-json-schema"),
        (_set("sourceSystem", value={"name": "x"}), "dataset-json-schema"),
        (_set("columns", 0, "dataType", value="text"), "dataset-json-schema"),
        (_set("columns", 0, "targetDataType", value="integer"), "dataset-json-schema"),
        (_drop("columns", 5, "targetDataType"), "dataset-json-schema"),
        (_set("columns", 0, "length", value=0), "dataset-json-schema"),
        (_set("rows", 0, 0, value=["nested"]), "dataset-json-schema"),
        (_set("records", value=4), "records"),
        (_drop("rows"), "records"),
        (_set("rows", 0, value=["a"]), "row-length"),
        (_set("columns", 1, "name", value="S"), "column-twice"),
        (_set("columns", 1, "itemOID", value="IT.D.S"), "column-twice"),
        (_set("columns", 1, "keySequence", value=3), "key-sequence"),
        (_set("dbLastModifiedDateTime", value="2026-02-01T00:00:00+00:00"), "modified-later"),
        (_set("rows", 0, 0, value="longer than six"), "value-length"),
        (_set("rows", 0, 0, value=1), "value-type"),
        (_set("rows", 0, 1, value=1.5), "value-type"),
        (_set("rows", 0, 1, value=True), "value-type"),
        (_set("rows", 0, 1, value="1"), "value-type"),
        (_set("rows", 0, 1, value=2**63), "value-type"),
        (_set("rows", 0, 2, value="0.1"), "value-type"),
        (_set("rows", 0, 4, value=1), "value-type"),
        (_set("rows", 0, 5, value=30.5), "value-type"),
        (_set("rows", 0, 5, value="."), "value-type"),
        (_set("rows", 0, 6, value="2014-02-30"), "value-type"),
        (_set("rows", 0, 6, value="20140102"), "value-type"),
        (_set("rows", 0, 6, value=19725), "value-type"),
        (_set("rows", 0, 7, value="2014-01-02"), "value-type"),
        (_set("rows", 0, 8, value="24:00:00"), "value-type"),
        (_set("rows", 2, value=ROWS[0]), "keys-twice"),
    ],
)
def test_what_breaks_a_rule_is_found_and_refused(change: Callable[[Any], None], rule: str, tmp_path: Path) -> None:
    document = json.loads(json.dumps(dataset_to_json(every_type(), a_header())))
    assert check_dataset_json(document) == []
    change(document)
    assert rule in {finding.rule for finding in check_dataset_json(document)}
    (tmp_path / "d.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"d\.json is no Dataset-JSON 1\.1: error"):
        read_dataset_json(tmp_path / "d.json")


@pytest.mark.parametrize("text", ["{", "[NaN]", '{"name": 1, "name": 2}', '{"records": Infinity}'])
def test_what_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"d\.json is not valid JSON"):
        read_dataset_json(tmp_path / "d.json")
    with pytest.raises(DatasetError, match="is missing"):
        read_dataset_json(tmp_path / "none.json")


def test_a_finding_says_no_value() -> None:
    document = json.loads(json.dumps(dataset_to_json(every_type(), a_header())))
    document["rows"][0][1] = document["rows"][1][1] = "secret"
    (finding,) = check_dataset_json(document)
    assert (finding.where, finding.count) == ("I", 2)
    assert "secret" not in str(finding)


def test_metadata_may_come_without_rows() -> None:
    document = dataset_to_json(every_type(), a_header())
    del document["rows"]
    document["records"] = 0
    assert check_dataset_json(document) == []


def test_a_number_that_is_none_is_not_written() -> None:
    table = pa.table({"F": pa.array([1.0, float("nan")])})
    with pytest.raises(ValueError, match=r"D\.F must be finite or null, got nan"):
        dataset_to_json(Dataset("D", "d", [Column("F", "f", "float")], table), Header(CREATED))
    with pytest.raises(ValueError, match="modified must not be after created"):
        Header(CREATED, datetime(2027, 1, 1, tzinfo=UTC))


# The form of CDISC's examples: optional attributes left out, a SAS format, null in a number. Values of its pilot study.
CDISC_FORM = {
    "datasetJSONCreationDateTime": "2024-11-11T15:09:27",
    "datasetJSONVersion": "1.1.0",
    "itemGroupOID": "IG.ADTTE",
    "records": 3,
    "name": "ADTTE",
    "label": "AE Time To 1st Derm. Event Analysis",
    "columns": [
        {"itemOID": "IT.ADTTE.USUBJID", "name": "USUBJID", "label": "Unique Subject Identifier", "dataType": "string",
         "length": 11, "keySequence": 1},
        {"itemOID": "IT.ADTTE.AVAL", "name": "AVAL", "label": "Analysis Value", "dataType": "integer"},
        {"itemOID": "IT.ADTTE.STARTDT", "name": "STARTDT", "label": "Time to Event Origin Date for Subject",
         "dataType": "date", "targetDataType": "integer", "displayFormat": "DATE9."},
        {"itemOID": "IT.ADTTE.SRCSEQ", "name": "SRCSEQ", "label": "Source Sequence Number", "dataType": "integer"},
    ],
    "rows": [
        ["01-701-1015", 2, "2014-01-02", 1],
        ["01-701-1023", 3, "2012-08-05", 1],
        ["01-701-1033", 28, "2014-03-18", None],
    ],
}  # fmt: skip


def test_a_file_in_the_form_of_cdisc_s_is_read(tmp_path: Path) -> None:
    (tmp_path / "adtte.json").write_text(json.dumps(CDISC_FORM), encoding="utf-8")
    dataset, header = read_dataset_json(tmp_path / "adtte.json")
    assert dataset.table["STARTDT"].to_pylist() == [date(2014, 1, 2), date(2012, 8, 5), date(2014, 3, 18)]
    assert dataset.table["SRCSEQ"].to_pylist() == [1, 1, None]
    assert header.created == datetime(2024, 11, 11, 15, 9, 27)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.text(max_size=20)),
            st.one_of(st.none(), st.integers(-(2**63) + 1, 2**63 - 1)),
            st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
            st.one_of(st.none(), st.dates()),
        ),
        max_size=8,
    )
)
def test_any_values_survive(rows: list[tuple[Any, ...]]) -> None:
    columns = [EVERY_TYPE[0], EVERY_TYPE[1], EVERY_TYPE[2], EVERY_TYPE[6]]
    columns = [Column(c.name, c.label, c.data_type, c.target_type) for c in columns]
    arrays = [pa.array([row[i] for row in rows], column.arrow_type) for i, column in enumerate(columns)]
    dataset = Dataset("D", "d", columns, pa.Table.from_arrays(arrays, names=[c.name for c in columns]))
    document = json.loads(json.dumps(dataset_to_json(dataset, Header(CREATED))))
    assert check_dataset_json(document) == []
    assert [tuple(row) for row in document["rows"]] == [
        (*row[:3], None if row[3] is None else row[3].isoformat()) for row in rows
    ]
