from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from meds import CodeMetadataSchema, DataSchema, SubjectSplitSchema

from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.dataset_writer import EventSpill, SplitRule, write_dataset_metadata, write_events
from medtwin.core.errors import DatasetError, SourceError
from medtwin.core.events import Event, events_to_table
from medtwin.core.files import write_manifest
from medtwin.core.meds_source import read_meds
from medtwin.core.sources import Ledger


def patient(subject: int, births: int = 1) -> list[Event]:
    return [
        Event(subject, datetime(2020, 1, 2), "LOINC//2160-0", numeric_value=0.9, unit="mg/dL", event_id=f"l{subject}"),
        *[Event(subject, datetime(1960 + i, 1, 1), "MEDS_BIRTH") for i in range(births)],
        Event(subject, None, "GENDER//F"),
    ]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[Event]], Dataset]:
    def _write(events: list[Event], **options: object) -> Dataset:
        spill = EventSpill(tmp_path / "spill", num_buckets=3)
        for start in range(0, len(events), 7):
            spill.add(events_to_table(events[start : start + 7]))
        folder = tmp_path / "dataset"
        write_events(folder, spill.close(), split_of=SplitRule(seed=1), **options)  # type: ignore[arg-type]
        write_dataset_metadata(folder, "test", "simulated")
        write_manifest(folder)
        return open_dataset(folder)

    return _write


Write = Callable[[list[Event]], Dataset]


def test_a_written_dataset_is_valid_and_any_meds_reader_reads_it(write: Write) -> None:
    dataset = write([event for subject in range(1, 60) for event in patient(subject)])
    assert dataset.validate() == []
    assert dataset.origin == "simulated"
    splits = dataset.subject_splits()
    assert sorted(splits) == list(range(1, 60))
    assert set(splits.values()) == {"train", "tuning", "held_out"}
    for path in dataset.shards():
        DataSchema.validate(pq.ParquetFile(path).read(columns=DataSchema.schema().names))
    SubjectSplitSchema.validate(pq.ParquetFile(dataset.path / "metadata/subject_splits.parquet").read())
    codes = pq.ParquetFile(dataset.path / "metadata/codes.parquet").read()
    CodeMetadataSchema.validate(codes.select(["code", "description", "parent_codes"]))
    files = str(dataset.path / "data/**/*.parquet")
    assert pl.scan_parquet(files).collect().height == 59 * 3
    query = f"select count(*) from read_parquet('{files}') where code = 'LOINC//2160-0'"
    assert duckdb.connect().execute(query).fetchall() == [(59,)]


def test_codes_are_counted(write: Write) -> None:
    rows = {row["code"]: row for row in write(patient(1) + patient(2)).codes().to_pylist()}
    assert rows["LOINC//2160-0"]["num_events"] == rows["LOINC//2160-0"]["num_subjects"] == 2
    assert rows["LOINC//2160-0"]["unit"] == "mg/dL"


def test_a_second_birth_is_flagged_and_left_out(tmp_path: Path) -> None:
    spill = EventSpill(tmp_path / "spill", 1)
    spill.add(events_to_table(patient(1, births=3)))
    written = write_events(tmp_path / "d", spill.close(), split_of=lambda _: "train")
    assert written.flags == {"further-birth-dropped": 2}
    assert written.num_subjects == {"train": 1}


def test_no_event_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no patient event"):
        write_events(tmp_path, EventSpill(tmp_path / "s", 1).close(), split_of=lambda _: "train")


def test_events_that_break_a_rule_are_not_written(tmp_path: Path) -> None:
    spill = EventSpill(tmp_path / "spill", 1)
    spill.add(events_to_table(patient(1) + patient(1)[:1]))
    with pytest.raises(DatasetError, match="duplicate-event"):
        write_events(tmp_path / "d", spill.close(), split_of=lambda _: "train")


def test_the_split_depends_on_the_subject_and_the_seed_only() -> None:
    rule = SplitRule(seed=5, tuning=0.2, held_out=0.3)
    shares = [rule(subject) for subject in range(5000)]
    assert shares.count("held_out") == pytest.approx(1500, abs=130)
    assert shares.count("tuning") == pytest.approx(1000, abs=115)
    with pytest.raises(SourceError, match="sum to less than 1"):
        SplitRule(tuning=0.5, held_out=0.5)


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="not a directory"):
        open_dataset(tmp_path / "none")
    (tmp_path / "none.partial").mkdir()
    with pytest.raises(DatasetError, match="is unfinished: run its verb again"):
        open_dataset(tmp_path / "none")
    with pytest.raises(DatasetError, match=r"no data/\*\*/\*\.parquet"):
        open_dataset(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DatasetError, match="not a readable parquet"):
        open_dataset(tmp_path).events()


def test_tampering_is_found(write: Write) -> None:
    dataset = write(patient(1))
    path = dataset.shards()[0]
    table = pq.ParquetFile(path).read()
    pq.write_table(table.slice(0, 2), path)
    assert [finding.rule for finding in dataset.validate()] == ["file-changed"]


def test_a_bare_meds_dataset_opens_as_real_and_without_splits(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = events_to_table([*patient(1)[::-1]]).select(["subject_id", "time", "code", "numeric_value", "text_value"])
    pq.write_table(table, tmp_path / "data" / "0.parquet")
    dataset = open_dataset(tmp_path)
    assert dataset.origin == "real"
    assert dataset.subject_splits() == {1: "data"}
    assert dataset.events("data").num_rows == 3
    assert {finding.severity for finding in dataset.validate()} == {"warning"}
    with pytest.raises(DatasetError, match="split must be one of data"):
        dataset.events("train")


def test_bad_rows_of_a_meds_source_are_rejected_with_their_row_number(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = pa.table(
        {
            "subject_id": [1, None, 1, 1],
            "time": pa.array([None] * 4, pa.timestamp("us")),
            "code": ["A//1", "A//1", None, "A//2"],
            "numeric_value": pa.array([1, 1, 1, float("nan")], pa.float32()),
            "site": ["x"] * 4,
        }
    )
    pq.write_table(table, tmp_path / "data" / "0.parquet")
    ledger = Ledger()
    tables = [table for _, table in read_meds(open_dataset(tmp_path), ledger)]
    assert pa.concat_tables(tables)["code"].to_pylist() == ["A//1"]
    assert [(r.file, r.line, r.rule) for r in sorted(ledger.rejects, key=lambda r: r.line)] == [
        ("data/0.parquet", 2, "no-subject"),
        ("data/0.parquet", 3, "no-code"),
        ("data/0.parquet", 4, "not-finite"),
    ]
    assert ledger.imbalance() == {}
    assert ledger.elements_not_carried == {"column site": 4}


def test_a_source_that_is_no_meds_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"person": [1]}), tmp_path / "data" / "0.parquet")
    with pytest.raises(SourceError, match="lacks the columns subject_id, time, code"):
        list(read_meds(open_dataset(tmp_path), Ledger()))
    pq.write_table(pa.table({"subject_id": ["a"], "time": [None], "code": ["x"]}), tmp_path / "data" / "0.parquet")
    with pytest.raises(SourceError, match="column subject_id must be int64"):
        list(read_meds(open_dataset(tmp_path), Ledger()))
