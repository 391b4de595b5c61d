from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import duckdb
import meds
import polars as pl
import pyarrow.parquet as pq
import pytest

from medtwin.core.dataset import open_dataset
from medtwin.core.errors import ConfigError
from medtwin.core.files import read_json
from medtwin.pipelines.export import main as export_main
from medtwin.pipelines.ingest import main as ingest_main
from tests.omop.samples import dataset_of, record, write_athena

_COMMON = {"override": {"reason": "a test", "by": "tester"}}


def export_to(to: str, dataset: Path, out: Path, **group: Any) -> None:
    export_main({**_COMMON, "dataset": str(dataset), "out": str(out), "to": to, to: group})


def ingest_from(out: Path, **source: Any) -> None:
    ingest_main({"source": {name: str(path) for name, path in source.items()}, "out": str(out)})


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return dataset_of(tmp_path / "d", record()).path


def test_the_verb_writes_tables_a_database_and_the_account(dataset: Path, tmp_path: Path) -> None:
    export_to("omop", dataset, tmp_path / "out", vocab=str(write_athena(tmp_path / "a")), duckdb=True)
    counts = read_json(tmp_path / "out" / "counts.json")["omop"]
    loss = read_json(tmp_path / "out" / "loss.json")
    assert counts["rows of the dataset"] == loss["event_rows"] == 27
    assert (counts["rows not carried (loss.json)"], loss["silently_dropped"]) == (4, 0)
    with duckdb.connect(str(tmp_path / "out" / "omop" / "cdm.duckdb"), read_only=True) as connection:
        query = "SELECT condition_concept_id FROM condition_occurrence"
        assert connection.execute(query).fetchall() == [(201826,)]
        nullable = connection.execute(
            "SELECT is_nullable FROM information_schema.columns "
            "WHERE table_name = 'measurement' AND column_name = 'measurement_date'"
        ).fetchall()
        assert nullable == [("NO",)]


def test_the_verb_reads_back_what_it_wrote(dataset: Path, tmp_path: Path) -> None:
    export_to("omop", dataset, tmp_path / "out", details="observations", duckdb=True)
    ingest_from(tmp_path / "b1", omop=tmp_path / "out" / "omop" / "cdm.duckdb")
    ingest_from(tmp_path / "b2", omop=tmp_path / "out" / "omop")
    for name in ("b1", "b2"):
        back = open_dataset(tmp_path / name)
        assert not back.validate()
        assert len(back.events()) == 27
        provenance = read_json(tmp_path / name / "provenance.json")
        assert provenance["privacy"]["identities"] == "keyed BLAKE2b"
        private = (tmp_path / f"{name}.private" / "identities.csv").read_text()
        assert private.splitlines()[1].startswith("omop:7,")
        # Its own key: another number, and dates that moved.
        assert back.events()["subject_id"].unique().to_pylist() != [7]


def test_one_folder_is_found_as_a_source(dataset: Path, tmp_path: Path) -> None:
    export_to("omop", dataset, tmp_path / "out")
    ingest_main({"source": str(tmp_path / "out"), "out": str(tmp_path / "back")})
    assert read_json(tmp_path / "back" / "counts.json")["carried"]["measurement"] == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"omop": ".", "fhir": "."}, "source.omop stands alone"),
        ({"vocab": ".", "fhir": "."}, "source.vocab goes with source.omop"),
    ],
)
def test_sources_that_do_not_go_together_are_refused(tmp_path: Path, source: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ingest_main({"source": source, "out": str(tmp_path / "x")})


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"gap_days": -1}, r"omop\.gap_days must be 0 or more"),
        ({"details": "notes"}, r"omop\.details"),
        ({"duck": True}, r"there is no setting 'omop\.duck'"),
    ],
)
def test_wrong_settings_are_named(dataset: Path, tmp_path: Path, group: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export_to("omop", dataset, tmp_path / "out", **group)


def test_without_duckdb_the_error_names_the_extra(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "duckdb":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"omop\.duckdb=true needs duckdb: pip install 'medtwin\[omop\]'"):
        export_to("omop", dataset, tmp_path / "out", duckdb=True)


def test_a_plain_meds_dataset_is_one_for_others(dataset: Path, tmp_path: Path) -> None:
    export_to("meds", dataset, tmp_path / "out")
    folder = tmp_path / "out" / "meds"
    (shard,) = (folder / "data").rglob("*.parquet")
    meds.DataSchema.validate(pq.read_table(shard))
    meds.CodeMetadataSchema.validate(pq.read_table(folder / meds.code_metadata_filepath))
    stated = json.loads((folder / meds.dataset_metadata_filepath).read_text())
    assert stated.pop("origin") == "real"
    meds.DatasetMetadataSchema.validate(stated)
    frame = pl.read_parquet(shard)
    assert frame.columns == ["subject_id", "time", "code", "numeric_value", "text_value"]
    # The record has 27 rows, 13 of them details; the component of the panel is none.
    assert frame.height == 14
    assert frame.filter(pl.col("code") == "LOINC//8480-6")["numeric_value"].to_list() == [128.5]
    assert set(frame["code"]) == set(pl.read_parquet(folder / "metadata" / "codes.parquet")["code"])
    counts = read_json(tmp_path / "out" / "counts.json")["meds"]
    assert (counts["rows"], counts["details dropped"]) == (14, 13)


def test_details_and_our_columns_stay_on_request_and_come_back(dataset: Path, tmp_path: Path) -> None:
    export_to("meds", dataset, tmp_path / "out", columns="all", details="keep")
    (shard,) = (tmp_path / "out" / "meds" / "data").rglob("*.parquet")
    table = pq.read_table(shard)
    meds.DataSchema.validate(table)
    assert table.equals(open_dataset(dataset).events())
    stated = read_json(tmp_path / "out" / "meds" / "metadata" / "dataset.json")
    assert stated["code_modifier_columns"] == ["unit"]
    ingest_from(tmp_path / "back", meds=tmp_path / "out" / "meds")
    assert open_dataset(tmp_path / "back").events().equals(table)


def test_splits_are_kept_and_named_as_meds_names_them(dataset: Path, tmp_path: Path) -> None:
    export_to("meds", dataset, tmp_path / "out")
    assert not (tmp_path / "out" / "meds" / meds.subject_splits_filepath).exists()  # the source has none
    ingest_from(tmp_path / "back", meds=tmp_path / "out" / "meds")
    export_to("meds", tmp_path / "back", tmp_path / "again")
    splits = pq.read_table(tmp_path / "again" / "meds" / meds.subject_splits_filepath)
    meds.SubjectSplitSchema.validate(splits)
    assert splits["subject_id"].to_pylist() == [7]
    assert (tmp_path / "again" / "meds" / "data" / splits["split"][0].as_py()).is_dir()


@pytest.mark.parametrize("group", [{"columns": "some"}, {"details": "some"}])
def test_wrong_settings_of_meds_are_named(dataset: Path, tmp_path: Path, group: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=rf"meds\.{next(iter(group))}"):
        export_to("meds", dataset, tmp_path / "out", **group)
