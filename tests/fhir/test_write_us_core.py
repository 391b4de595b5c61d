"""What every profile demands of vital signs, periods and ids; US Core 6.1 declared where it is met; actors; shards."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtwin.core.events import Event, events_to_table
from medtwin.core.shards import map_shards
from medtwin.fhir.export import (
    Piece,
    Shard,
    Written,
    join_parts,
    provenance_resources,
    split_shard,
    write_shard,
)
from medtwin.fhir.profiles import met_profiles, profile_findings
from medtwin.fhir.times import format_moment
from medtwin.fhir.validate import validate_references, validate_resource
from medtwin.fhir.write import SubjectExport, events_to_resources, table_to_resources
from medtwin.fhir.writing.actors import shared_resources
from medtwin.fhir.writing.context import NAMESPACE, ExportContext, stable_id
from medtwin.fhir.writing.ingredients import is_ingredient
from medtwin.fhir.writing.rows import moment_text
from medtwin.hospital import codes as hospital_codes

RECORDED = datetime(2025, 1, 2, tzinfo=UTC)
R4 = ExportContext("synthetic", recorded=RECORDED)
US_CORE = ExportContext("synthetic", recorded=RECORDED, profile="us-core-6.1")
NOON = datetime(2020, 3, 2, 11)
FEMALE = Event(7, None, "GENDER//F", resource="Patient")
US_CORE_URL = "http://hl7.org/fhir/us/core/StructureDefinition/"
UCUM = "http://unitsofmeasure.org"


def _event(resource: str, code: str, name: str = "a1", **columns: Any) -> Event:
    base = {"time_precision": "second+01:00", "status": None}
    return Event(7, NOON, code, event_id=name, resource=resource, **(base | columns))


def _pressure(code: str, name: str, value: float, **columns: Any) -> Event:
    base = {"numeric_value": value, "unit": "mm[Hg]", "status": "final"}
    return _event("Observation", f"LOINC//{code}", name, **(base | columns))


def _write(*events: Event, context: ExportContext = R4) -> SubjectExport:
    export = events_to_resources([FEMALE, *events], context=context)
    assert [str(each) for one in export.resources for each in validate_resource(one)] == []
    assert validate_references(export.resources) == []
    return export


def _codes(concept: dict[str, Any]) -> list[str]:
    return [coding["code"] for coding in concept["coding"]]


def test_pressures_measured_together_become_one_panel_that_references_lead_to() -> None:
    upper, lower = _pressure("8480-6", "s", 120.0), _pressure("8462-4", "d", 80.0)
    report = _event("DiagnosticReport", "LOINC//1", "r", status="final")
    rows = [upper, upper.child("interpretation", "INTERPRETATION//H"), lower, report]
    rows += [report.child("result", text_value="s"), report.child("result", text_value="d")]
    export = _write(*rows)
    _, panel, written = export.resources
    assert panel["id"] == stable_id("panel|s|d")
    assert _codes(panel["code"]) == ["85354-9"]
    assert [_codes(part["code"]) for part in panel["component"]] == [["8480-6"], ["8462-4"]]
    assert [part["valueQuantity"]["value"] for part in panel["component"]] == [120, 80]
    assert _codes(panel["component"][0]["interpretation"][0]) == ["H"]
    assert {each["reference"] for each in written["result"]} == {f"Observation/{panel['id']}"}
    assert export.flags == {"blood pressures joined in a panel": 1}
    assert not export.not_carried


@pytest.mark.parametrize(
    "other",
    [
        {"time": NOON + timedelta(seconds=1)},
        {"status": "preliminary"},
        {"time_precision": "second+02:00"},
        {"code": "NEGATED//LOINC//8462-4", "status": "cancelled"},
    ],
)
def test_pressures_that_differ_in_what_a_panel_says_once_stay_alone(other: dict[str, Any]) -> None:
    lower = replace(_pressure("8462-4", "d", 80.0), **other)
    export = _write(_pressure("8480-6", "s", 120.0), lower)
    assert [each.get("component") for each in export.resources[1:]] == [None, None]


def test_pressures_of_which_several_stand_together_or_by_another_method_stay_alone() -> None:
    rows = [_pressure("8480-6", "s", 120.0), _pressure("8462-4", "d", 80.0), _pressure("8462-4", "e", 70.0)]
    assert len(_write(*rows).resources) == 4
    cuff = rows[0].child("method", "SNOMED//37931006")
    assert len(_write(*rows[:2], cuff).resources) == 3
    assert len(_write(*rows[:2], cuff, rows[1].child("method", "SNOMED//37931006")).resources) == 2


def test_a_panel_with_another_code_says_that_it_is_one() -> None:
    old = _event("Observation", "LOINC//55284-4", "p", status="final")
    parts = [
        replace(_pressure(code, f"p.{number}", value), parent_id="p")
        for number, (code, value) in enumerate([("8480-6", 120.0), ("8462-4", 80.0)], start=1)
    ]
    panel = _write(old, *parts).resources[1]
    assert _codes(panel["code"]) == ["55284-4", "85354-9"]
    assert _codes(panel["category"][0]) == ["vital-signs"]


@pytest.mark.parametrize("known", ["8480-6", "8462-4"])
def test_a_panel_says_that_the_pressure_it_lacks_is_not_known(known: str) -> None:
    part = replace(_pressure(known, "p.1", 90.0), parent_id="p")
    panel = _write(_event("Observation", "LOINC//85354-9", "p", status="final"), part).resources[1]
    parts = {_codes(each["code"])[0]: each for each in panel["component"]}
    assert set(parts) == {"8480-6", "8462-4"}
    (other,) = set(parts) - {known}
    assert "valueQuantity" in parts[known]
    assert "valueQuantity" not in parts[other]
    assert _codes(parts[other]["dataAbsentReason"]) == ["unknown"]


def test_an_oxygen_saturation_has_both_codings_and_every_vital_sign_its_unit() -> None:
    def quantity(code: str, unit: str | None) -> tuple[list[str], dict[str, Any]]:
        event = _event("Observation", f"LOINC//{code}", numeric_value=97.0, unit=unit, status="final")
        written = _write(event).resources[1]
        return _codes(written["code"]), written["valueQuantity"]

    assert quantity("2708-6", "%")[0] == ["2708-6", "59408-5"]
    assert quantity("59408-5", "%")[0] == ["59408-5", "2708-6"]
    beats = {"value": 97, "unit": "{beats}/min", "system": UCUM, "code": "/min"}
    assert quantity("8867-4", "{beats}/min")[1] == beats
    assert quantity("8867-4", None)[1]["code"] == "/min"


def test_a_vital_sign_without_a_value_says_that_it_is_not_known() -> None:
    written = _write(_event("Observation", "LOINC//8867-4", status="final")).resources[1]
    assert _codes(written["dataAbsentReason"]) == ["unknown"]


def test_both_ends_of_a_period_are_as_precise_as_the_coarser_and_the_loss_is_counted() -> None:
    stay = _event("Encounter", "SNOMED//1", encounter_id="a1", end_time=datetime(2020, 3, 5), status="finished")
    export = _write(stay, stay.child("endPrecision", text_value="day"))
    assert export.resources[1]["period"] == {"start": "2020-03-02", "end": "2020-03-05"}
    assert export.not_carried == {"Encounter.period.start (finer than the other end)": 1}
    order = _event("MedicationRequest", "RXNORM//861007", status="active")
    path = "dispenseRequest.validityPeriod"
    rows = [order.child(f"{path}.start", text_value="2020-01-01"), order.child(f"{path}.end", text_value="2021")]
    export = _write(order, *rows)
    assert export.resources[1]["dispenseRequest"]["validityPeriod"] == {"start": "2020", "end": "2021"}
    assert export.not_carried == {f"MedicationRequest.{path}.start (finer than the other end)": 1}


def test_half_a_ratio_is_counted_and_not_written() -> None:
    dose = _event("MedicationAdministration", "RXNORM//861007", status="completed")
    rows = [dose.child("dosage.rateRatio.numerator", numeric_value=1.0), dose.child("dosage.route", "SNOMED//26643006")]
    export = _write(dose, *rows)
    assert export.resources[1]["dosage"]["dose"]["extension"][0]["valueCode"] == "unknown"
    assert "rateRatio" not in export.resources[1]["dosage"]
    assert export.not_carried == {"MedicationAdministration.dosage.rateRatio (half of a ratio)": 1}


def test_what_has_abated_is_inactive_at_the_least() -> None:
    past = _event("Condition", "SNOMED//1", end_time=NOON + timedelta(days=3))
    assert _codes(_write(past).resources[1]["clinicalStatus"]) == ["inactive"]


def test_an_encounter_without_a_type_has_that_of_its_class_in_words() -> None:
    stay = _event("Encounter", "ENCOUNTER//EMER", encounter_id="a1", status="finished")
    written = _write(stay, stay.child("class", "ACTCODE//EMER")).resources[1]
    assert written["type"] == [{"text": "emergency"}]


def test_ids_that_medtwin_gives_are_version_5_uuids() -> None:
    assert uuid.UUID(stable_id("x")) == uuid.uuid5(NAMESPACE, "x")
    numeric = _event("Condition", "SNOMED//1", "4711")
    assert _write(numeric).resources[1]["id"] == stable_id("4711")


@pytest.mark.parametrize(
    "precision", ["year", "month", "day", "second", "second-05:30", "second+14:00", "day+01:00", None]
)
def test_times_are_written_from_columns_as_from_datetimes(precision: str | None) -> None:
    for time in (
        datetime(1901, 12, 31, 23, 59, 59),
        NOON,
        datetime(2199, 1, 1, 0, 0, 0, 120_000),
        datetime(2020, 1, 1),
    ):
        micros = int((time - datetime(1970, 1, 1)) / timedelta(microseconds=1))
        assert moment_text(micros, precision) == format_moment(time, precision)


def test_a_patient_meets_us_core_with_a_name_that_says_what_it_is() -> None:
    race = Event(7, None, "RACE//2106-3", resource="Patient")
    patient = _write(race, context=US_CORE).resources[0]
    assert patient["name"] == [{"family": "Synthetic-7"}]
    assert patient["meta"]["profile"] == [f"{US_CORE_URL}us-core-patient"]
    assert patient["meta"]["security"][0]["code"] == "HTEST"
    real = _write(race, context=replace(US_CORE, origin="real")).resources[0]
    assert real["name"][0]["extension"][0]["valueCode"] == "masked"
    assert profile_findings(real, f"{US_CORE_URL}us-core-patient") == []


def test_races_that_us_core_has_no_category_for_are_details_and_a_second_ethnicity_is_counted() -> None:
    rows = [
        Event(7, None, code, resource="Patient") for code in ("RACE//2131-1", "ETHNICITY//2186-5", "ETHNICITY//UNK")
    ]
    export = _write(*rows, context=US_CORE)
    race, ethnicity = export.resources[0]["extension"]
    assert [(each["url"], each.get("valueString")) for each in race["extension"]] == [
        ("detailed", None),
        ("text", "Other Race"),
    ]
    assert [each["url"] for each in ethnicity["extension"]] == ["ombCategory", "text"]
    assert export.not_carried == {"Patient.ETHNICITY": 1}


_MEETING = [
    (_event("Condition", "SNOMED//59621000"), "us-core-condition-problems-health-concerns"),
    (_event("Encounter", "SNOMED//1", encounter_id="a1"), "us-core-encounter"),
    (
        _event("Observation", "LOINC//2345-7", numeric_value=5.0, unit="mmol/L", status="final"),
        "us-core-observation-lab",
    ),
    (_event("Observation", "LOINC//2345-7", status="final"), "us-core-observation-lab"),
    (_pressure("8867-4", "a1", 70.0, unit="/min"), "us-core-heart-rate"),
    (_event("Observation", "LOINC//72166-2", text_value="SNOMED//8517006", status="final"), "us-core-smokingstatus"),
    (_event("MedicationRequest", "RXNORM//861007", status="active"), "us-core-medicationrequest"),
    (_event("Immunization", "CVX//140", status="completed"), "us-core-immunization"),
    (_event("Procedure", "SNOMED//1", status="completed"), "us-core-procedure"),
    (_event("AllergyIntolerance", "SNOMED//91936005"), "us-core-allergyintolerance"),
    (_event("CarePlan", "SNOMED//1", status="active"), "us-core-careplan"),
    (_event("ServiceRequest", "SNOMED//1", status="active"), "us-core-servicerequest"),
    (_event("Specimen", "SNOMED//119297000"), "us-core-specimen"),
]


@pytest.mark.parametrize(("event", "profile"), _MEETING)
def test_resources_declare_the_us_core_profile_that_they_meet(event: Event, profile: str) -> None:
    export = _write(event, context=US_CORE)
    written = export.resources[1]
    assert written["meta"]["profile"] == [US_CORE_URL + profile]
    assert export.declared[written["resourceType"]] == export.written[written["resourceType"]] == 1
    plain = _write(event).resources[1]
    assert "profile" not in plain["meta"]


def test_a_diagnosis_of_an_encounter_is_one_by_its_category() -> None:
    stay = _event("Encounter", "SNOMED//1", "e", encounter_id="e")
    written = _write(stay, _event("Condition", "SNOMED//2", encounter_id="e"), context=US_CORE).resources[2]
    assert _codes(written["category"][0]) == ["encounter-diagnosis"]
    assert "clinicalStatus" not in written


def test_what_does_not_meet_a_profile_declares_none() -> None:
    local = _event("Observation", "example.org/x//1", status="final", text_value="POSITIVE")
    export = _write(local, context=US_CORE)
    assert "profile" not in export.resources[1]["meta"]
    assert met_profiles(export.resources[1]) == []
    assert export.declared == {"Patient": 1}


def test_a_drug_coded_by_its_ingredient_keeps_its_coding_is_counted_and_declares_no_profile() -> None:
    export = _write(_event("MedicationRequest", "RXNORM//6809", status="active"), context=US_CORE)
    assert _codes(export.resources[1]["medicationCodeableConcept"]) == ["6809"]
    assert "profile" not in export.resources[1]["meta"]
    assert export.flags == {"ingredient-level RxNorm": 1}
    both = _event("MedicationRequest", "RXNORM//6809", status="active", source_code="RXNORM//6809 | RXNORM//861007")
    assert not _write(both).flags


def test_the_hospital_prescribes_clinical_drugs() -> None:
    drugs = [each for each in vars(hospital_codes).values() if isinstance(each, str) and each.startswith("RXNORM//")]
    assert len(drugs) > 15
    assert not any(is_ingredient(each) for each in drugs)


_ACTORS = pa.table(
    {
        "actor_id": ["l1", "o1", "p1", "r1"],
        "resource": ["Location", "Organization", "Practitioner", "PractitionerRole"],
        "codes": [
            ["terminology.hl7.org/CodeSystem/location-physical-type//wa", "example.org/ward//7"],
            ["terminology.hl7.org/CodeSystem/organization-type//prov"],
            None,
            ["nucc.org/provider-taxonomy//207R00000X", "example.org/role//x"],
        ],
    }
)


@pytest.mark.parametrize("context", [R4, US_CORE])
def test_who_and_where_are_referred_to_is_written_too(context: ExportContext) -> None:
    stay = _event("Encounter", "SNOMED//1", encounter_id="a1", status="finished")
    places = {
        "location.location": "Location/l1",
        "serviceProvider": "Organization/o1",
        "participant.individual": "PractitionerRole/r1",
        "participant[1].individual": "Practitioner/unlisted",
    }
    rows = [stay.child(path, text_value=text) for path, text in places.items()]
    wrong = stay.child("hospitalization.origin", text_value="Practitioner/p1")
    export = events_to_resources([FEMALE, stay, *rows, wrong], context=context)
    assert export.actors == set(places.values())
    assert export.not_carried == {"Encounter.hospitalization.origin": 1}
    shared = shared_resources(context, _ACTORS, export.actors)
    assert [each["id"] for each in shared] == ["l1", "o1", "unlisted", "r1"]
    location, organization, practitioner, role = shared
    assert (_codes(location["physicalType"]), _codes(location["type"][0])) == (["wa"], ["7"])
    assert _codes(organization["type"][0]) == ["prov"]
    assert set(practitioner) - {"_name", "name"} == {"resourceType", "id", "meta", "identifier"}
    assert (_codes(role["specialty"][0]), _codes(role["code"][0])) == (["207R00000X"], ["x"])
    everything = [*export.resources, *shared, *provenance_resources(context, ["Patient/subject-7"])]
    assert validate_references(everything) == []
    assert [str(each) for one in everything for each in validate_resource(one)] == []
    declared = [bool(each["meta"].get("profile")) for each in shared[:3]]
    assert declared == [context is US_CORE] * 3


def test_a_reference_to_something_that_is_no_actor_is_refused() -> None:
    with pytest.raises(ValueError, match="must name"):
        shared_resources(R4, _ACTORS, ["Device/1"])
    with pytest.raises(ValueError, match="profile must be one of"):
        ExportContext("real", profile="us-core-9")  # type: ignore[arg-type]


def _shard(folder: Path, number: int) -> Path:
    rows = []
    for subject in range(number * 10, number * 10 + 3):
        rows.append(Event(subject, None, "GENDER//M", resource="Patient"))
        for hour in range(4):
            name = f"a{subject}-{hour}"
            values = {"numeric_value": 1.5 * hour, "unit": "mmol/L", "status": "final"}
            event = Event(subject, NOON + timedelta(hours=hour), "LOINC//2345-7", event_id=name, resource="Observation")
            event = replace(event, **values)
            rows += [event, event.child("performer", text_value="Practitioner/p1")]
    path = folder / f"{number}.parquet"
    pq.write_table(events_to_table(rows), path)
    return path


def count_resources(resources: list[dict[str, Any]]) -> dict[str, int]:
    return {"checked": len(resources)}


def _export(folder: Path, shards: list[Path], num_workers: int) -> tuple[dict[str, bytes], Written]:
    pieces = [piece for path in shards for piece in split_shard(path, num_rows=10)]
    assert len(pieces) == 6
    tasks = [Shard(number, piece, folder, R4, check=count_resources) for number, piece in enumerate(pieces)]
    total = Written()
    for written in map_shards(write_shard, tasks, num_workers=num_workers):
        total.add(written)
    paths = join_parts(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in paths)
    return {path.name: path.read_bytes() for path in paths}, total


def test_files_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    shards = [_shard(tmp_path, number) for number in range(3)]
    first, total = _export(tmp_path / "one", shards, 1)
    second, again = _export(tmp_path / "two", shards, 2)
    assert first == second
    assert total == again
    assert total.written == {"Patient": 9, "Observation": 36}
    assert (total.found["checked"], total.actors) == (45, {"Practitioner/p1"})
    ids = [orjson.loads(line)["id"] for line in first["Patient.ndjson"].splitlines()]
    assert (
        ids
        == total.patients
        == [f"subject-{ten}{one}" if ten else f"subject-{one}" for ten in range(3) for one in range(3)]
    )


def test_a_shard_gives_what_its_subjects_give_one_by_one(tmp_path: Path) -> None:
    path = _shard(tmp_path, 1)
    table = pq.read_table(path)
    together = list(table_to_resources(table, context=US_CORE))
    for export, subject in zip(together, (10, 11, 12), strict=True):
        rows = table.filter(pa.compute.equal(table["subject_id"], subject))
        alone = next(iter(table_to_resources(rows, context=US_CORE)))
        assert export == alone
    bundles = write_shard(Shard(1, Piece(path, 0, len(table)), tmp_path / "bundles", US_CORE, form="transaction"))
    assert bundles.written == {"Patient": 3, "Observation": 12}
    assert sorted(each.name for each in (tmp_path / "bundles").iterdir())[0] == "subject-10.json"
