"""The embedded hospital, Synthea, MIMIC-IV and PhysioNet 2012 to OMOP and back: what must stay, counted in SQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.events import sort_events, validate_events
from medtwin.core.files import read_json
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger
from medtwin.fhir.terms import is_result_word, is_unit_word
from medtwin.omop import Books, OmopReader, OmopSource, Words
from medtwin.pipelines.hospital import main as hospital_main
from medtwin.pipelines.ingest import main as ingest_main
from tests.omop.samples import export
from tests.omop.sql import violations

_HAPPENED = "code NOT LIKE 'FHIR//%' AND code NOT LIKE 'NEGATED//%'"
_OF = "resource = '{}' AND parent_id IS NULL AND time IS NOT NULL AND " + _HAPPENED
# What must come back: columns and rows.
_KEPT: dict[str, tuple[str, str]] = {
    "birth": ("time, coalesce(time_precision[:6], 'second')", "code = 'MEDS_BIRTH'"),
    "sex, race, ethnicity and other facts": ("code", "time IS NULL AND parent_id IS NULL AND code NOT LIKE 'FHIR//%'"),
    "death": ("time", "code = 'MEDS_DEATH'"),
    "encounters": ("code, time, end_time", _OF.format("Encounter")),
    "values": (
        "code, time, numeric_value, unit",
        f"coalesce(resource, 'Observation') = 'Observation' AND numeric_value IS NOT NULL AND {_HAPPENED}",
    ),
    "words": ("code, time, text_value", f"resource = 'Observation' AND text_value IS NOT NULL AND {_HAPPENED}"),
    **{
        kind: ("code, time, end_time, encounter_id IS NULL", _OF.format(kind))
        for kind in (
            "Condition",
            "Procedure",
            "MedicationRequest",
            "MedicationAdministration",
            "MedicationDispense",
            "MedicationStatement",
            "Immunization",
            "Specimen",
            "ImagingStudy",
        )
    },
    "AllergyIntolerance": ("code, time", _OF.format("AllergyIntolerance")),
    "doses": (
        "code, time, numeric_value, unit, source_unit",
        "(code LIKE 'FHIR//Medication%dosage%' OR code LIKE 'FHIR//Medication%.route%') AND time IS NOT NULL "
        "AND parent_id NOT IN (SELECT event_id FROM {} WHERE code LIKE 'NEGATED//%')",
    ),
}


def _there_and_back(dataset: Dataset, folder: Path, **options: Any) -> tuple[dict[str, tuple[int, int, int]], Books]:
    """Rows of each kind in the dataset, lost, and new after OMOP and back; nothing may break a rule on the way."""
    books = export(dataset, folder, **options)
    assert violations(folder) == {}
    ledger = Ledger()
    words = Words(is_result_word, is_unit_word)
    reader = OmopReader(OmopSource(folder), Pseudonyms(b"k" * 32, 0), ledger, words)
    back = sort_events(pa.concat_tables(reader.tables()))
    assert not ledger.imbalance()
    assert not ledger.rejects
    assert not validate_events(back)
    people = pq.read_table(folder / "person.parquet").select(["person_id", "person_source_value"])
    new = [reader.persons.identities[f"omop:{person}"] for person in people["person_id"].to_pylist()]
    names = {"old": people["person_source_value"].cast(pa.int64()), "new": new}
    with duckdb.connect() as connection:
        for name, table in {"before": pa.concat_tables(dataset.iter_events()), "later": back}.items():
            connection.register(f"{name}_table", table)
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_table")
        connection.register("names_table", pa.table(names))
        connection.execute("UPDATE before SET subject_id = n.new FROM names_table n WHERE subject_id = n.old")
        kept = {}
        for what, (columns, where) in _KEPT.items():
            one, other = (f"SELECT subject_id, {columns} FROM {t} WHERE {where.format(t)}" for t in ("before", "later"))
            kept[what] = tuple(
                connection.execute(f"SELECT count(*) FROM ({query})").fetchall()[0][0]
                for query in (one, f"{one} EXCEPT ALL {other}", f"{other} EXCEPT ALL {one}")
            )
    return kept, books


def _require_kept(kept: dict[str, tuple[int, int, int]], *expected: str) -> None:
    assert {what: counts for what, counts in kept.items() if counts[1:] != (0, 0)} == {}
    assert {what for what, counts in kept.items() if counts[0]} >= set(expected)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("hospital")
    hospital_main({"n": 12, "seed": 3, "images": False, "out": str(folder / "h")})
    ingest_main({"source": {"fhir": str(folder / "h" / "fhir")}, "out": str(folder / "d")})
    return open_dataset(folder / "d")


def test_the_embedded_hospital_comes_back(hospital: Dataset, tmp_path: Path) -> None:
    kept, books = _there_and_back(hospital, tmp_path / "o")
    _require_kept(kept, "birth", "encounters", "values", "Condition", "MedicationRequest", "Procedure", "doses")
    assert books.as_dict()["silently_dropped"] == 0
    assert set(books.not_carried) - {"what did not happen (NEGATED), and its details"} == {
        name for name in books.not_carried if name.startswith("no column: ")
    }


def test_with_details_every_row_of_the_hospital_is_carried(hospital: Dataset, tmp_path: Path) -> None:
    kept, books = _there_and_back(hospital, tmp_path / "o", details="observations")
    _require_kept(kept)
    assert not +books.not_carried


@pytest.mark.real
def test_synthea_bundles_come_back(public_data: Path, tmp_path: Path) -> None:
    ingest_main({"source": {"fhir": str(public_data / "synthea_r4" / "bundles")}, "out": str(tmp_path / "d")})
    kept, books = _there_and_back(open_dataset(tmp_path / "d"), tmp_path / "o", details="observations")
    _require_kept(kept, "birth", "encounters", "values", "Condition", "Immunization", "MedicationRequest")
    assert not +books.not_carried


@pytest.mark.real
def test_physionet_2012_comes_back(public_data: Path, tmp_path: Path) -> None:
    """The stays for tuning: bare MEDS rows, whose admissions and discharges become encounters."""
    source = public_data / "physionet2012_meds" / "data" / "tuning" / "0.parquet"
    (tmp_path / "d" / "data").mkdir(parents=True)
    (tmp_path / "d" / "data" / "0.parquet").symlink_to(source)
    kept, books = _there_and_back(open_dataset(tmp_path / "d"), tmp_path / "o")
    stays = kept.pop("encounters")
    num_people = kept["birth"][0]
    assert stays == (0, 0, num_people)
    _require_kept(kept, "birth", "death", "values")
    assert not +books.not_carried
    assert books.columns["visit_occurrence.discharged_to_source_value"] == num_people
    with duckdb.connect() as connection:
        before, later = (
            connection.execute(query).fetchall()
            for query in (
                f"SELECT subject_id, min(time), max(time) FROM '{source}' WHERE code LIKE 'ENCOUNTER//%' "
                "GROUP BY ALL ORDER BY ALL",
                "SELECT person_id, visit_start_datetime, visit_end_datetime "
                f"FROM '{tmp_path}/o/visit_occurrence.parquet' ORDER BY ALL",
            )
        )
    assert before == later


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["synthea_r4/ndjson", "mimic4_demo_fhir"])
def test_whole_sets_come_back(public_data: Path, tmp_path: Path, name: str) -> None:
    ingest_main({"source": {"fhir": str(public_data / name)}, "out": str(tmp_path / "d")})
    dataset = open_dataset(tmp_path / "d")
    kept, books = _there_and_back(dataset, tmp_path / "o", details="observations")
    _require_kept(kept, "birth", "death", "encounters", "values", "Condition", "Procedure", "doses")
    assert not +books.not_carried
    assert books.event_rows == read_json(dataset.path / "counts.json")["dataset"]["rows"]
