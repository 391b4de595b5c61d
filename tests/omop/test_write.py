from __future__ import annotations

import dataclasses
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtwin.core.errors import ConfigError, DatasetError, SourceError
from medtwin.core.events import Event
from medtwin.omop import OmopOptions
from medtwin.omop.people import person_ids
from medtwin.omop.shard import COLUMN, WRITTEN, Fates
from medtwin.omop.tables import TABLES
from medtwin.omop.write import whole_subjects
from tests.omop.samples import (
    BIRTH,
    DIABETES,
    GLUCOSE,
    STAY,
    clinical,
    dataset_of,
    export,
    record,
    rows,
    set_columns,
)


def test_the_tables_have_the_columns_of_the_cdm_in_its_order(tmp_path: Path) -> None:
    export(dataset_of(tmp_path / "d", record()), tmp_path / "o")
    assert sorted(path.stem for path in (tmp_path / "o").iterdir()) == sorted(TABLES)
    schema = pq.ParquetFile(tmp_path / "o" / "visit_detail.parquet").schema_arrow
    assert schema.names[12:16] == [
        "admitted_from_concept_id",
        "admitted_from_source_value",
        "discharged_to_source_value",
        "discharged_to_concept_id",
    ]
    assert schema.field("visit_occurrence_id").type == pa.int64()
    assert not schema.field("visit_occurrence_id").nullable
    assert schema.field("visit_detail_concept_id").type == pa.int32()


def test_a_person_has_what_is_known(tmp_path: Path) -> None:
    export(dataset_of(tmp_path / "d", record()), tmp_path / "o")
    (person,) = rows(tmp_path / "o", "person")
    assert set_columns(person) == {
        "person_id": 7,
        "gender_concept_id": 8532,
        "year_of_birth": 1960,
        "month_of_birth": 5,
        "race_concept_id": 8527,
        "ethnicity_concept_id": 38003564,
        "person_source_value": "7",
        "gender_source_value": "GENDER//F",
        "gender_source_concept_id": 0,
        "race_source_value": "RACE//2106-3",
        "race_source_concept_id": 0,
        "ethnicity_source_value": "ETHNICITY//2186-5",
        "ethnicity_source_concept_id": 0,
    }
    (death,) = rows(tmp_path / "o", "death")
    assert set_columns(death) == {
        "person_id": 7,
        "death_date": date(2021, 6, 2),
        "death_type_concept_id": 32817,
        "cause_concept_id": 0,
    }
    (period,) = rows(tmp_path / "o", "observation_period")
    assert (period["observation_period_start_date"], period["observation_period_end_date"]) == (
        date(2020, 3, 1),
        date(2021, 6, 2),
    )


def test_an_encounter_is_a_visit_and_its_part_a_detail(tmp_path: Path) -> None:
    export(dataset_of(tmp_path / "d", record()), tmp_path / "o")
    (visit,) = rows(tmp_path / "o", "visit_occurrence")
    assert set_columns(visit) == {
        "visit_occurrence_id": 1,
        "person_id": 7,
        "visit_concept_id": 9201,
        "visit_start_date": date(2020, 3, 1),
        "visit_start_datetime": datetime(2020, 3, 1, 8, 30),
        "visit_end_date": date(2020, 3, 5),
        "visit_end_datetime": datetime(2020, 3, 5, 12),
        "visit_type_concept_id": 32827,
        "visit_source_value": "SNOMED//185347001",
        "visit_source_concept_id": 0,
        "admitted_from_concept_id": 0,
        "discharged_to_concept_id": 0,
        "discharged_to_source_value": "DISCHARGE//home",
    }
    (ward,) = rows(tmp_path / "o", "visit_detail")
    assert (ward["visit_occurrence_id"], ward["parent_visit_detail_id"]) == (1, None)
    # It is still open: a day, as NOT NULL demands, and no time.
    assert (ward["visit_detail_end_date"], ward["visit_detail_end_datetime"]) == (date(2020, 3, 2), None)


def test_without_a_vocabulary_events_stand_by_their_resource_with_concept_0(tmp_path: Path) -> None:
    export(dataset_of(tmp_path / "d", record()), tmp_path / "o")
    (condition,) = rows(tmp_path / "o", "condition_occurrence")
    assert set_columns(condition) == {
        "condition_occurrence_id": 1,
        "person_id": 7,
        "condition_concept_id": 0,
        "condition_start_date": date(2020, 3, 1),
        "condition_start_datetime": datetime(2020, 3, 1, 9),
        "condition_end_date": date(2020, 3, 4),
        "condition_end_datetime": datetime(2020, 3, 4),
        "condition_type_concept_id": 32840,
        "condition_status_concept_id": 32893,
        "visit_occurrence_id": 1,
        "condition_source_value": "ICD10CM//E11.9",
        "condition_source_concept_id": 0,
        "condition_status_source_value": "confirmed",
    }
    panel, systolic, glucose = rows(tmp_path / "o", "measurement")
    assert panel["measurement_type_concept_id"] == 32836
    assert panel["value_as_concept_id"] is None
    assert (systolic["measurement_event_id"], systolic["meas_event_field_concept_id"]) == (1, 1147138)
    assert (systolic["value_as_number"], systolic["unit_source_value"]) == (128.5, "mm[Hg]")
    assert glucose["value_as_number"] == 7.1  # the shortest decimal of the float32, not 7.0999999
    # The upper limit is in another unit, which a range cannot say: it is not carried.
    assert (glucose["operator_concept_id"], glucose["range_low"], glucose["range_high"]) == (4172704, 3.9, None)


def test_what_of_a_dose_has_no_column_stands_in_sig(tmp_path: Path) -> None:
    export(dataset_of(tmp_path / "d", record()), tmp_path / "o")
    (drug,) = rows(tmp_path / "o", "drug_exposure")
    assert drug["drug_type_concept_id"] == 32838
    assert drug["route_source_value"] == "SNOMED//26643006"
    assert drug["sig"] == "dosageInstruction.doseAndRate.doseQuantity = 500.0 mg"
    assert (drug["days_supply"], drug["drug_exposure_end_date"]) == (30, date(2020, 3, 30))
    assert (drug["verbatim_end_date"], drug["quantity"]) == (None, None)


def test_a_fact_without_a_date_says_so(tmp_path: Path) -> None:
    export(dataset_of(tmp_path / "d", record()), tmp_path / "o")
    (language,) = rows(tmp_path / "o", "observation")
    assert language["observation_source_value"] == "LANGUAGE//en"
    assert language["qualifier_source_value"] == "undated"
    assert (language["observation_date"], language["observation_datetime"]) == (date(2020, 3, 1), None)


def test_every_row_has_one_fate_and_the_books_say_which(tmp_path: Path) -> None:
    books = export(dataset_of(tmp_path / "d", record()), tmp_path / "o")
    told = books.as_dict()
    assert told["event_rows"] == len(record()) == 27
    assert told["silently_dropped"] == 0
    assert told["written_as_row"] == {
        "condition_occurrence": 1,
        "death": 1,
        "drug_exposure": 1,
        "measurement": 3,
        "observation": 1,
        "person": 1,
        "visit_detail": 1,
        "visit_occurrence": 1,
    }
    assert told["not_carried"] == {
        "no column: Condition.clinicalStatus": 1,
        "no column: Observation.referenceRange.high": 1,
        "what did not happen (NEGATED), and its details": 2,
    }
    assert sum(told["written_as_column"].values()) == 27 - 10 - 4
    assert told["columns_not_carried"]["status"] == 4


def test_a_row_cannot_be_counted_twice_nor_forgotten() -> None:
    fates = Fates(2)
    fates.assign(pa.array([0]).to_numpy(), WRITTEN, "measurement")
    with pytest.raises(DatasetError, match="counted twice"):
        fates.assign(pa.array([0]).to_numpy(), COLUMN, "measurement.range_low")
    with pytest.raises(DatasetError, match="1 rows of the dataset would be dropped silently"):
        fates.counts()


def test_details_become_observations_on_request(tmp_path: Path) -> None:
    books = export(dataset_of(tmp_path / "d", record()), tmp_path / "o", details="observations")
    assert not +books.not_carried
    found = {row["observation_source_value"]: row for row in rows(tmp_path / "o", "observation")}
    status = found["FHIR//Condition.clinicalStatus//CONDCLINICAL//active"]
    assert (status["observation_event_id"], status["obs_event_field_concept_id"]) == (1, 1147127)
    refuted = found["NEGATED//SNOMED//22298006"]
    assert (refuted["observation_concept_id"], refuted["qualifier_source_value"]) == (0, "Condition")


def test_a_person_without_a_year_of_birth_stays_out_whole_and_is_counted(tmp_path: Path) -> None:
    events = [BIRTH, GLUCOSE, dataclasses.replace(GLUCOSE, subject_id=8, event_id="x")]
    books = export(dataset_of(tmp_path / "d", events), tmp_path / "o")
    assert books.not_carried == {"person without a year of birth": 1}
    assert [row["person_id"] for row in rows(tmp_path / "o", "measurement")] == [7]


@pytest.mark.parametrize(
    ("gap", "periods"),
    [
        (None, [(date(2020, 1, 1), date(2020, 3, 20))]),
        (30, [(date(2020, 1, 1), date(2020, 1, 31)), (date(2020, 3, 10), date(2020, 3, 20))]),
        (39, [(date(2020, 1, 1), date(2020, 3, 20))]),  # from 31 January to 10 March are 39 days
        (38, [(date(2020, 1, 1), date(2020, 1, 31)), (date(2020, 3, 10), date(2020, 3, 20))]),
    ],
)
def test_a_gap_ends_an_observation_period(tmp_path: Path, gap: int | None, periods: list[Any]) -> None:
    events = [
        BIRTH,
        # Its end bridges the three weeks to the next event.
        dataclasses.replace(DIABETES, time=datetime(2020, 1, 1), end_time=datetime(2020, 1, 31)),
        dataclasses.replace(GLUCOSE, time=datetime(2020, 1, 20)),
        dataclasses.replace(GLUCOSE, time=datetime(2020, 3, 10), event_id="a"),
        dataclasses.replace(GLUCOSE, time=datetime(2020, 3, 20), event_id="b"),
        clinical("NEGATED//SNOMED//1", "Encounter", "planned", time=datetime(2030, 1, 1)),
    ]
    export(dataset_of(tmp_path / "d", events), tmp_path / "o", gap_days=gap)
    found = rows(tmp_path / "o", "observation_period")
    assert [(row["observation_period_start_date"], row["observation_period_end_date"]) for row in found] == periods


def test_bare_admissions_and_discharges_are_visits(tmp_path: Path) -> None:
    def bare(code: str, day: int, hour: int = 0) -> Event:
        return Event(3, datetime(2010, 1, day, hour), code)

    events = [
        Event(3, datetime(1950, 1, 1), "MEDS_BIRTH"),
        Event(3, None, "GENDER//M"),
        bare("HOSPITAL_ADMISSION//EMERGENCY", 1),
        bare("ICU_ADMISSION//MICU", 2),
        bare("ICU_DISCHARGE//MICU", 3, 5),
        bare("HOSPITAL_DISCHARGE//HOME", 4),
        bare("HOSPITAL_ADMISSION//ELECTIVE", 9),
        dataclasses.replace(bare("LAB//50912//mg/dL", 2), numeric_value=1.5, unit="mg/dL"),
        bare("ICD10CM//I10", 2),
    ]
    books = export(dataset_of(tmp_path / "d", events), tmp_path / "o")
    visits = rows(tmp_path / "o", "visit_occurrence")
    assert [
        (v["visit_concept_id"], v["visit_source_value"], v["visit_end_datetime"], v["discharged_to_source_value"])
        for v in visits
    ] == [
        (9201, "HOSPITAL_ADMISSION//EMERGENCY", datetime(2010, 1, 4), "HOSPITAL_DISCHARGE//HOME"),
        (32037, "ICU_ADMISSION//MICU", datetime(2010, 1, 3, 5), "ICU_DISCHARGE//MICU"),
        (9201, "HOSPITAL_ADMISSION//ELECTIVE", None, None),
    ]
    assert [v["preceding_visit_occurrence_id"] for v in visits] == [None, 1, 2]
    assert books.written["condition_occurrence"] == books.written["measurement"] == 1
    (person,) = rows(tmp_path / "o", "person")
    assert (person["birth_datetime"], person["gender_concept_id"]) == (datetime(1950, 1, 1), 8507)


def test_ids_that_the_cdm_cannot_hold_are_numbered_in_order() -> None:
    assert person_ids([5, 2**31 - 1])(5) == 5
    big = person_ids([2**40, 9, 2**31])
    assert [big(9), big(2**31), big(2**40)] == [1, 2, 3]


def test_the_result_does_not_depend_on_the_pieces_that_a_shard_is_read_in(tmp_path: Path) -> None:
    events = [
        dataclasses.replace(event, subject_id=subject, event_id=event.event_id and f"{event.event_id}-{subject}")
        for subject in range(1, 8)
        for event in (BIRTH, dataclasses.replace(STAY, encounter_id=None), GLUCOSE)
    ]
    dataset_of(tmp_path / "d", events)
    path = tmp_path / "d" / "data" / "0.parquet"
    whole = pq.ParquetFile(path).read()
    for num_rows in (1, 2, 4, 5, 100):
        pieces = list(whole_subjects(path, num_rows))
        assert pa.concat_tables(pieces).equals(whole)
        subjects = [set(piece["subject_id"].to_pylist()) for piece in pieces]
        assert sum(map(len, subjects)) == len(set().union(*subjects)) == 7


def test_actors_are_providers_and_care_sites(tmp_path: Path) -> None:
    dataset = dataset_of(
        tmp_path / "d",
        [
            BIRTH,
            STAY,
            STAY.child("serviceProvider", text_value="Organization/o"),
            STAY.child("location.location", text_value="Location/w"),
            STAY.child("participant.individual", text_value="Practitioner/p"),
        ],
    )
    actors = {
        "actor_id": ["p", "o", "w"],
        "resource": ["Practitioner", "Organization", "Location"],
        "codes": [["NUCC//207R00000X"], None, []],
    }
    (tmp_path / "d" / "metadata").mkdir()
    pq.write_table(pa.table(actors), tmp_path / "d" / "metadata" / "actors.parquet")
    books = export(dataset, tmp_path / "o")
    (provider,) = rows(tmp_path / "o", "provider")
    assert (provider["provider_source_value"], provider["specialty_source_value"]) == (
        "Practitioner/p",
        "NUCC//207R00000X",
    )
    sites = {row["care_site_id"]: row["care_site_source_value"] for row in rows(tmp_path / "o", "care_site")}
    (visit,) = rows(tmp_path / "o", "visit_occurrence")
    assert sites[visit["care_site_id"]] == "Location/w"  # the ward says more than the hospital
    assert visit["provider_id"] == 1
    assert books.not_carried == {"no column: Encounter.serviceProvider": 1}


def test_wrong_settings_and_damaged_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"omop\.gap_days must be 0 or more, got -1"):
        OmopOptions(gap_days=-1)
    with pytest.raises(ConfigError, match=r"omop\.details"):
        OmopOptions(details="notes")  # type: ignore[arg-type]
    dataset = dataset_of(tmp_path / "d", record())
    with pytest.raises(SourceError, match=r"omop\.vocab: .* has no CONCEPT\.csv"):
        export(dataset, tmp_path / "o", vocab=tmp_path)
    path = tmp_path / "d" / "data" / "0.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises((DatasetError, SourceError, pa.ArrowInvalid)):
        export(dataset, tmp_path / "o2")
