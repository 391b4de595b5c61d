from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from medtwin.core.errors import SourceError
from medtwin.core.events import Event
from medtwin.core.sources import Reject
from medtwin.omop import OmopSource, is_cdm
from medtwin.omop.accept import SeenIds
from medtwin.omop.source import cast
from tests.omop.samples import read_back, write_athena

_PERSON = {"person_id": 1, "gender_concept_id": 8507, "year_of_birth": 1950, "race_concept_id": 8516}
_PERSON |= {"ethnicity_concept_id": 38003563, "person_source_value": "MRN 4711"}


def write_csv(folder: Path, name: str, rows: list[dict[str, Any]], *, delimiter: str = ",") -> None:
    """A table as a hospital sends it: upper case names, nulls empty."""
    folder.mkdir(exist_ok=True)
    suffix = "tsv" if delimiter == "\t" else "csv"
    with (folder / f"{name.upper()}.{suffix}").open("w", newline="") as file:
        writer = csv.DictWriter(file, [key.upper() for key in rows[0]], delimiter=delimiter)
        writer.writeheader()
        writer.writerows([{key.upper(): value for key, value in row.items()} for row in rows])


def condition(number: int, **more: Any) -> dict[str, Any]:
    return {
        "condition_occurrence_id": number,
        "person_id": 1,
        "condition_concept_id": 201826,
        "condition_start_date": "2019-04-01",
        "condition_start_datetime": "2019-04-01 00:00:00",
        "condition_end_date": None,
        "condition_source_value": "DM II",
        "condition_source_concept_id": 0,
        "visit_occurrence_id": None,
    } | more


def measurement(number: int, **more: Any) -> dict[str, Any]:
    return {
        "measurement_id": number,
        "person_id": 1,
        "measurement_concept_id": 3004501,
        "measurement_date": "2019-04-01",
        "measurement_datetime": "2019-04-01T08:15:00",
        "operator_concept_id": 4171756,
        "value_as_number": "7.1",
        "unit_source_value": "mmol/l",
        "unit_concept_id": 8753,
        "range_low": "3.9",
        "value_source_value": "7.1",
        "measurement_source_value": "Glucose",
    } | more


def codes_of(events: list[Event]) -> list[str]:
    return [event.code for event in events]


def test_a_cdm_of_another_site_is_read(tmp_path: Path) -> None:
    cdm = tmp_path / "cdm"
    write_csv(cdm, "person", [_PERSON])
    write_csv(
        cdm,
        "visit_occurrence",
        [
            {
                "visit_occurrence_id": 11,
                "person_id": 1,
                "visit_concept_id": 9203,
                "visit_start_date": "20190401",
                "visit_start_datetime": "2019-04-01 07:00:00",
                "visit_end_date": "2019-04-02",
                "visit_end_datetime": None,
                "visit_source_value": "ED",
                "admitting_source_value": "SNOMED//1",
                "discharge_to_concept_id": 0,
            }
        ],
        delimiter="\t",
    )
    write_csv(cdm, "condition_occurrence", [condition(1, visit_occurrence_id=11), condition(2, visit_occurrence_id=99)])
    write_csv(cdm, "measurement", [measurement(1)])
    events, ledger, reader = read_back(cdm, write_athena(tmp_path / "athena"))
    assert not reader.is_ours
    assert codes_of(events) == [
        "GENDER//M",
        "RACE//2054-5",
        "ETHNICITY//2135-2",
        "MEDS_BIRTH",
        "SNOMED//44054006",
        "SNOMED//44054006",
        "ENCOUNTER//EMER",
        "FHIR//Encounter.class//ACTCODE//EMER",
        "FHIR//Encounter.hospitalization.admitSource//SNOMED//1",
        "FHIR//Encounter.endPrecision",
        "LOINC//2345-7",
        "FHIR//Observation.comparator",
        "FHIR//Observation.referenceRange.low",
    ]
    born = events[3]
    assert (born.time, born.time_precision) == (datetime(1950, 1, 1), "year")
    stay = next(event for event in events if event.code == "ENCOUNTER//EMER")
    assert (stay.time, stay.end_time) == (datetime(2019, 4, 1, 7), datetime(2019, 4, 2))  # CDM 5.3 names, a date
    # The conventions fill an unknown time with midnight: it is read as a date, and it has no encounter that is there.
    found = [event for event in events if event.resource == "Condition"]
    assert {(event.time_precision, event.encounter_id) for event in found} == {("day", stay.event_id), ("day", None)}
    assert ledger.flags["unknown-visit"] == 1
    glucose = next(event for event in events if event.code == "LOINC//2345-7")
    assert (glucose.numeric_value, glucose.unit, glucose.source_unit) == (7.1, "mmol/L", "mmol/l")
    assert glucose.text_value is None  # what the number says already
    assert not ledger.imbalance()
    assert "4711" not in str(events)
    assert reader.persons.identities == {"omop:1": stay.subject_id}


def test_a_concept_without_a_vocabulary_keeps_its_number(tmp_path: Path) -> None:
    write_csv(tmp_path, "person", [_PERSON])
    write_csv(
        tmp_path,
        "condition_occurrence",
        [
            condition(1),
            condition(2, condition_concept_id=0, condition_source_value="E11.9"),
            condition(3, condition_concept_id=0, condition_source_value="ICD10CM//I10"),
        ],
    )
    events, _, _ = read_back(tmp_path)
    assert {event.code for event in events if event.resource == "Condition"} == {
        "OMOP//201826",
        "LOCAL//E11.9",
        "ICD10CM//I10",
    }


def test_a_concept_table_in_the_cdm_is_used(tmp_path: Path) -> None:
    write_csv(tmp_path, "person", [_PERSON])
    write_csv(tmp_path, "condition_occurrence", [condition(1, condition_source_concept_id=45591027)])
    athena = write_athena(tmp_path / "athena")
    (athena / "CONCEPT.csv").rename(tmp_path / "concept.csv")
    events, _, _ = read_back(tmp_path)
    # What was recorded is the better source than what it means.
    assert [event.code for event in events if event.resource == "Condition"] == ["ICD10CM//E11.9"]


def test_rows_that_break_a_rule_are_rejected_with_their_number(tmp_path: Path) -> None:
    full = _PERSON | {"month_of_birth": 1}
    write_csv(tmp_path, "person", [full, full, full | {"person_id": 2, "month_of_birth": 13}])
    write_csv(
        tmp_path,
        "condition_occurrence",
        [
            condition(1),
            condition(1),
            condition(2, person_id=5),
            condition(3, condition_start_date=None, condition_start_datetime=None),
            condition(4, condition_end_date="2019-03-31"),
            condition(5, condition_start_date="yesterday"),
            condition(6, condition_start_datetime="1066-01-01 10:00:00"),
            condition(7, condition_concept_id=0, condition_source_value="Mrs Smith"),
            condition("x"),  # type: ignore[arg-type]
            condition(8, condition_end_date="2019-04-01"),
        ],
    )
    events, ledger, _ = read_back(tmp_path)
    name = "CONDITION_OCCURRENCE.csv"
    assert [(r.file, r.line, r.rule) for r in ledger.rejects] == [
        ("PERSON.csv", 2, "duplicate-person"),
        ("PERSON.csv", 3, "malformed-date"),
        (name, 6, "malformed-value"),
        (name, 9, "malformed-value"),
        (name, 2, "duplicate-key"),
        (name, 3, "unknown-person"),
        (name, 4, "no-time"),
        (name, 7, "malformed-date"),
        (name, 5, "ends-before-start"),
        (name, 8, "no-coding"),
    ]
    assert all(isinstance(reject, Reject) and "Smith" not in reject.reason for reject in ledger.rejects)
    assert len([event for event in events if event.resource == "Condition"]) == 2
    assert not ledger.imbalance()


def test_free_text_stays_out_and_is_counted(tmp_path: Path) -> None:
    write_csv(tmp_path, "person", [_PERSON | {"gender_source_value": "Smith, John"}])
    plain = {"value_as_number": None, "operator_concept_id": None, "unit_concept_id": None}
    write_csv(
        tmp_path,
        "measurement",
        [
            measurement(1, **plain, value_source_value="POSITIVE"),
            measurement(2, **plain, value_source_value="see letter of Dr Smith"),
            measurement(3, unit_source_value="Smith", unit_concept_id=None),
        ],
    )
    write_csv(
        tmp_path,
        "note",
        [{"note_id": 1, "person_id": 1, "note_text": "Mrs Smith"}, {"note_id": 2, "person_id": 1, "note_text": "x"}],
    )
    write_csv(tmp_path, "drug_exposure", [_drug(sig="as told to Mrs Smith", lot_number="A7")])
    events, ledger, _ = read_back(tmp_path)
    assert "Smith" not in str(events)
    found = [event for event in events if event.code == "OMOP//3004501"]
    assert sorted(str(event.text_value) for event in found) == ["None", "None", "POSITIVE"]
    assert ledger.not_carried["note"] == ledger.read["note"] == 2
    assert ledger.elements_not_carried == {
        "measurement.value_source_value": 1,
        "unit_source_value": 1,
        "drug_exposure.sig": 1,
        "drug_exposure.lot_number": 1,
    }


def _drug(**more: Any) -> dict[str, Any]:
    return {
        "drug_exposure_id": 1,
        "person_id": 1,
        "drug_concept_id": 40163924,
        "drug_exposure_start_date": "2019-04-01",
        "drug_exposure_end_date": "2019-04-30",
        "drug_type_concept_id": 32838,
        "quantity": 60,
        "days_supply": 30,
        "refills": 1,
        "dose_unit_source_value": "mg",
    } | more


def test_a_drug_is_what_its_type_says(tmp_path: Path) -> None:
    write_csv(tmp_path, "person", [_PERSON])
    write_csv(tmp_path, "drug_exposure", [_drug(), _drug(drug_exposure_id=2, drug_type_concept_id=32818)])
    events, ledger, _ = read_back(tmp_path)
    request, *details = [event for event in events if event.resource == "MedicationRequest"]
    assert request.end_time == datetime(2019, 4, 30)
    assert [(each.code, each.numeric_value, each.unit) for each in details] == [
        ("FHIR//MedicationRequest.dispenseRequest.quantity", 60.0, "mg"),
        ("FHIR//MedicationRequest.dispenseRequest.expectedSupplyDuration", 30.0, "d"),
        ("FHIR//MedicationRequest.dispenseRequest.numberOfRepeatsAllowed", 1.0, None),
    ]
    given = [event for event in events if event.resource == "MedicationAdministration"]
    assert [event.code for event in given] == ["OMOP//40163924", "FHIR//MedicationAdministration.dosage.dose"]
    assert ledger.elements_not_carried == {"drug_exposure.days_supply": 1, "drug_exposure.refills": 1}


def test_dates_move_by_whole_weeks_and_all_of_a_person_alike(tmp_path: Path) -> None:
    write_csv(tmp_path, "person", [_PERSON | {"month_of_birth": 5, "day_of_birth": 6}])
    write_csv(tmp_path, "condition_occurrence", [condition(1)])
    write_csv(tmp_path, "death", [{"person_id": 1, "death_date": "2020-01-01"}])
    events, _, _ = read_back(tmp_path, weeks=52)
    moves = {
        event.time - plain
        for event, plain in zip(
            [event for event in events if event.time is not None],
            [datetime(1950, 5, 6), datetime(2019, 4, 1), datetime(2020, 1, 1)],
            strict=True,
        )
        if event.time is not None
    }
    assert len(moves) == 1
    (move,) = moves
    assert move.days % 7 == 0
    assert move.days != 0


def test_a_database_is_read_whatever_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "cdm.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA omop")
        connection.execute("CREATE TABLE omop.person AS SELECT 1 person_id, 1950 year_of_birth, 8532 gender_concept_id")
        connection.execute(
            "CREATE TABLE omop.specimen AS SELECT 1 specimen_id, 1.0::DOUBLE person_id, 4001225 specimen_concept_id, "
            "TIMESTAMP '2020-01-01 08:00' specimen_datetime, DATE '2020-01-01' specimen_date, "
            "2.5::DECIMAL(5, 2) quantity"
        )
    events, ledger, _ = read_back(path)
    assert codes_of(events) == ["GENDER//F", "MEDS_BIRTH", "OMOP//4001225"]
    assert events[2].time == datetime(2020, 1, 1, 8)
    assert ledger.elements_not_carried == {"specimen.quantity": 1}


def test_what_is_no_cdm_is_refused(tmp_path: Path) -> None:
    assert not is_cdm(tmp_path)
    with pytest.raises(SourceError, match=r"source\.omop: .* has no table person"):
        OmopSource(tmp_path)
    with pytest.raises(SourceError, match="does not exist"):
        OmopSource(tmp_path / "nowhere")
    (tmp_path / "cdm.duckdb").write_bytes(b"no database")
    assert is_cdm(tmp_path / "cdm.duckdb")
    with pytest.raises(SourceError, match="is not a DuckDB file"):
        OmopSource(tmp_path / "cdm.duckdb")
    (tmp_path / "person.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"person\.parquet is not readable as a table"):
        read_back(tmp_path)
    (tmp_path / "person.csv").write_text("person_id\n1\n")
    with pytest.raises(SourceError, match="has the table person twice"):
        OmopSource(tmp_path)


def test_primary_keys_are_remembered_whatever_their_order() -> None:
    seen = SeenIds()
    assert seen.add(np.array([1, 2, 3])).tolist() == [False, False, False]
    assert seen.add(np.array([10, 2, 10])).tolist() == [False, True, True]
    assert seen.add(np.array([4, 5])).tolist() == [False, False]
    assert seen.add(np.array([5, 10, 11])).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("values", "kind", "good", "bad"),
    [
        (pa.array([1.0, float("nan"), 2.5]), pa.int64(), [1, None, None], [False, False, True]),
        (pa.array(["7", " 8.0 ", "", "NA", "x"]), pa.int32(), [7, 8, None, None, None], [False] * 4 + [True]),
        (pa.array([2**40]), pa.int32(), [None], [True]),
        (pa.array(["1.5", "1,5"]), pa.float64(), [1.5, None], [False, True]),
        (
            pa.array(["20200131", "2020-01-31 08:00:00", "31.01.2020"]),
            pa.date32(),
            [datetime(2020, 1, 31).date(), datetime(2020, 1, 31).date(), None],
            [False, False, True],
        ),
        (pa.array(["2020-01-31T08:00:00+02:00"]), pa.timestamp("us"), [datetime(2020, 1, 31, 6)], [False]),
    ],
)
def test_values_are_cast_or_named(values: pa.Array, kind: pa.DataType, good: list[Any], bad: list[bool]) -> None:
    array, malformed = cast(pa.chunked_array([values]), kind)
    assert array.to_pylist() == good
    assert malformed.tolist() == bad
