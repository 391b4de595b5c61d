from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from medtwin.core.events import Event
from medtwin.core.images import ImageRow, accession_number
from medtwin.fhir import (
    ExportContext,
    events_to_resources,
    provenance_resources,
    resources_to_bundle,
    validate_references,
    validate_resource,
    write_bundles,
    write_ndjson,
)

CONTEXT = ExportContext("synthetic", run="urn:medtwin:run:1", recorded=datetime(2025, 1, 2, tzinfo=UTC))
NOON = datetime(2020, 3, 2, 11)
UCUM = "http://unitsofmeasure.org"
GENDER = Event(7, None, "GENDER//F", resource="Patient")


def _write(*events: Event, context: ExportContext = CONTEXT) -> list[dict[str, Any]]:
    resources = events_to_resources(events, context=context).resources
    assert [finding for resource in resources for finding in validate_resource(resource)] == []
    assert validate_references(resources) == []
    return resources


def _event(resource: str, code: str, **columns: Any) -> Event:
    base = {"event_id": "a1", "status": None, "time_precision": "second+01:00"}
    return Event(7, NOON, code, resource=resource, **(base | columns))


def test_the_patient_comes_first_and_joins_dicom_by_its_medical_record_number() -> None:
    birth = Event(7, datetime(1950, 1, 1), "MEDS_BIRTH", time_precision="year", resource="Patient")
    race = Event(7, None, "RACE//2106-3", resource="Patient")
    patient = _write(_event("Observation", "LOINC//1"), GENDER, birth, race)[0]
    assert (patient["resourceType"], patient["gender"], patient["birthDate"]) == ("Patient", "female", "1950")
    assert patient["identifier"][0]["value"] == "7"
    assert patient["identifier"][0]["type"]["coding"][0]["code"] == "MR"
    assert [each["url"] for each in patient["extension"][0]["extension"]] == ["ombCategory", "text"]


def test_an_observation_is_written_out_here() -> None:
    event = _event(
        "Observation",
        "LOINC//8310-5",
        numeric_value=37.1,
        unit="Cel",
        source_unit="°C",
        status="final",
        source_code="hospital.example/lab//T | LOINC//8310-5",
    )
    observation = _write(GENDER, event, event.child("referenceRange[1].low", numeric_value=36.0, unit="Cel"))[1]
    assert observation == {
        "resourceType": "Observation",
        "id": "a1",
        "meta": CONTEXT.meta(),
        "status": "final",
        "code": {
            "coding": [
                {"system": "http://hospital.example/lab", "code": "T"},
                {"system": "http://loinc.org", "code": "8310-5"},
            ]
        },
        "subject": {"reference": "Patient/subject-7"},
        "effectiveDateTime": "2020-03-02T12:00:00+01:00",
        "valueQuantity": {"value": 37.1, "unit": "°C", "system": "http://unitsofmeasure.org", "code": "Cel"},
        "referenceRange": [{"low": {"value": 36, "unit": "Cel", "system": "http://unitsofmeasure.org", "code": "Cel"}}],
        "category": [
            {
                "coding": [
                    {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}
                ]
            }
        ],
    }


def test_every_resource_of_a_synthetic_export_is_labelled_and_none_of_a_real_one() -> None:
    for resource in _write(GENDER, _event("Observation", "LOINC//1")):
        assert resource["meta"]["security"][0]["code"] == "HTEST"
        assert resource["meta"]["tag"] == [{"system": "urn:medtwin:origin", "code": "synthetic"}]
    for resource in _write(GENDER, context=ExportContext("real")):
        assert set(resource["meta"]) == {"source"}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (_event("Observation", "NEGATED//LOINC//1", status="final"), {"status": "cancelled"}),
        (_event("MedicationRequest", "NEGATED//RXNORM//1", status="active"), {"doNotPerform": True}),
        (_event("Procedure", "NEGATED//SNOMED//1"), {"status": "not-done"}),
        (_event("Procedure", "SNOMED//1"), {"status": "unknown"}),
        (_event("Encounter", "SNOMED//1", encounter_id="a1"), {"status": "unknown"}),
        (_event("Immunization", "CVX//1"), {"status": "completed"}),
        (_event("Immunization", "CVX//1", status="made up"), {"status": "completed"}),
    ],
)
def test_a_negated_code_stays_negated_and_a_missing_status_is_unknown(event: Event, expected: dict[str, Any]) -> None:
    resource = _write(GENDER, event)[1]
    assert {name: resource[name] for name in expected} == expected


_MINIMAL = {
    "Encounter": "SNOMED//1",
    "Condition": "ICD10CM//I10",
    "AllergyIntolerance": "SNOMED//1",
    "CarePlan": "SNOMED//1",
    "ServiceRequest": "SNOMED//1",
    "Procedure": "SNOMED//1",
    "Specimen": "SNOMED//1",
    "Observation": "LOINC//1",
    "DiagnosticReport": "LOINC//1",
    "ImagingStudy": "DCM//CT",
    "MedicationRequest": "RXNORM//1",
    "MedicationDispense": "RXNORM//1",
    "MedicationAdministration": "RXNORM//1",
    "MedicationStatement": "RXNORM//1",
    "Immunization": "CVX//1",
}


@pytest.mark.parametrize("kind", list(_MINIMAL))
@pytest.mark.parametrize("time", [NOON, None])
def test_the_barest_event_of_every_type_is_valid(kind: str, time: datetime | None) -> None:
    written = _write(GENDER, Event(7, time, _MINIMAL[kind], event_id="a1", resource=kind))
    assert written[1]["resourceType"] == kind


def test_details_without_what_r4_requires_of_them_are_completed_or_dropped() -> None:
    allergy = _event("AllergyIntolerance", "SNOMED//1")
    plan = _event("CarePlan", "SNOMED//2", event_id="a2")
    stay = _event("Encounter", "SNOMED//3", event_id="a3")
    rows = [
        allergy.child("reaction.severity", text_value="mild"),
        plan.child("activity.detail.code", "SNOMED//4"),
        stay.child("diagnosis.rank", numeric_value=1.0),
    ]
    _, first, second, third = _write(GENDER, allergy, plan, stay, *rows)
    assert first["reaction"] == [{"severity": "mild", "manifestation": [{"text": "unknown"}]}]
    assert second["activity"][0]["detail"]["status"] == "unknown"
    assert "diagnosis" not in third


def test_what_fhir_cannot_hold_is_counted_and_not_written() -> None:
    event = _event("Condition", "SNOMED//1", numeric_value=3.0)
    rows = [
        event.child("nowhere", text_value="x"),
        event.child("reasonReference", text_value="gone"),
        event.child("recordedDate", text_value="yesterday"),
    ]
    lost = Event(7, NOON, "FHIR//Condition.severity//SNOMED//1", parent_id="nobody", resource="Condition")
    export = events_to_resources([GENDER, event, *rows, lost], context=CONTEXT)
    assert export.not_carried == {
        "Condition.numeric_value": 1,
        "Condition.?": 1,
        "Condition.reasonReference": 1,
        "Condition.recordedDate": 1,
        "child-without-event": 1,
    }


def test_only_one_form_of_a_choice_is_written() -> None:
    event = _event("Observation", "LOINC//1", numeric_value=1.0)
    dose = _event("MedicationRequest", "RXNORM//1", event_id="a2")
    path = "dosageInstruction.doseAndRate"
    rows = [
        event.child("valueDateTime", text_value="2020"),
        dose.child(f"{path}.doseQuantity", numeric_value=1.0),
        dose.child(f"{path}.doseRange.low", numeric_value=2.0),
    ]
    export = events_to_resources([GENDER, event, dose, *rows], context=CONTEXT)
    assert [each for resource in export.resources for each in validate_resource(resource)] == []
    assert export.not_carried == {"Observation.valueDateTime": 1, f"MedicationRequest.{path}.doseRange.low": 1}


def test_references_to_events_that_are_not_there_are_left_out() -> None:
    event = _event("Observation", "LOINC//1", encounter_id="gone")
    assert "encounter" not in _write(GENDER, event)[1]


def test_bare_meds_rows_get_a_resource_and_an_id() -> None:
    def bare(hour: int, code: str, value: float | None = None) -> Event:
        return Event(7, datetime(2010, 1, 1, hour), code, numeric_value=value)

    events = [
        Event(7, None, "GENDER//M"),
        Event(7, datetime(1955, 7, 1), "MEDS_BIRTH"),
        bare(0, "ENCOUNTER//IMP//ADMISSION//MEDICAL_ICU"),
        bare(1, "LOINC//8867-4", 73.0),
        bare(1, "LOINC//8867-4", 73.0),
        bare(2, "SNOMED//40617009"),
        bare(3, "LAB//50912//mg/dL", 1.25),
        bare(3, "HR", 80.0),
        bare(4, "ICD10CM//I10"),
        bare(4, "RXNORM//860975"),
        bare(5, "ENCOUNTER//IMP//DISCHARGE//DIED"),
        bare(5, "MEDS_DEATH"),
    ]
    resources = _write(*events)
    assert [each["resourceType"] for each in resources] == [
        "Patient",
        "Encounter",
        "Observation",
        "Observation",
        "Observation",
        "Observation",
        "Observation",
        "Condition",
        "MedicationStatement",
    ]
    patient, stay, pulse = resources[:3]
    assert (patient["gender"], patient["deceasedDateTime"]) == ("male", "2010-01-01T05:00:00+00:00")
    assert stay["class"]["code"] == "IMP"
    assert stay["period"] == {"start": "2010-01-01T00:00:00+00:00", "end": "2010-01-01T05:00:00+00:00"}
    assert stay["hospitalization"]["dischargeDisposition"]["coding"] == [
        {"system": "urn:medtwin:code:ENCOUNTER", "code": "IMP//DISCHARGE//DIED"}
    ]
    assert pulse["status"] == "unknown"
    assert pulse["valueQuantity"] == {"value": 73, "unit": "/min", "system": UCUM, "code": "/min"}
    codes = [each["code"]["coding"][0] for each in resources[5:7]]
    assert codes == [
        {"system": "urn:medtwin:code:LAB", "code": "50912//mg/dL"},
        {"system": "urn:medtwin:code", "code": "HR"},
    ]
    assert [each["id"] for each in _write(*events)] == [each["id"] for each in resources]


def test_free_text_of_a_bare_row_does_not_leave() -> None:
    row = Event(7, NOON, "NOTE//1", text_value="seen by Dr Doe")
    export = events_to_resources([row], context=CONTEXT)
    assert export.not_carried == {"Observation.text_value": 1}
    assert b"Doe" not in orjson.dumps(export.resources)


def _image(series_uid: str, study_uid: str = "2.25.1") -> ImageRow:
    geometry = dict.fromkeys(("pixel_spacing_row_mm", "pixel_spacing_column_mm", "spacing_source"))
    more = dict.fromkeys(("slice_spacing_mm", "slice_thickness_mm", "intensity_unit", "photometric"))
    rest = {"bits_stored": 8, "sex": None, "age_years": None, "labels": None, "path": "x"}
    return ImageRow(
        subject_id=7,
        time=NOON,
        modality="CR",
        body_part="CHEST",
        view="PA",
        rows=8,
        columns=8,
        num_slices=1,
        study_uid=study_uid,
        series_uid=series_uid,
        **geometry,
        **more,
        **rest,
    )


def test_an_imaging_study_takes_its_series_from_the_image_table() -> None:
    study = _event("ImagingStudy", "DCM//CR")
    rows = [study, study.child("studyInstanceUID", text_value="2.25.1"), study.child("series", text_value="2.25.11")]
    images = [_image("2.25.11"), _image("2.25.12"), _image("2.25.21", "2.25.2")]
    _, first, second = events_to_resources(rows, context=CONTEXT, images=images).resources
    uid, accession = first["identifier"]
    assert uid == {"system": "urn:dicom:uid", "value": "urn:oid:2.25.1"}
    assert (accession["type"]["coding"][0]["code"], accession["value"]) == ("ACSN", accession_number("2.25.1"))
    assert [each["uid"] for each in first["series"]] == ["2.25.11", "2.25.12"]
    assert (first["numberOfSeries"], first["numberOfInstances"]) == (2, 2)
    assert first["series"][1]["bodySite"]["code"] == "51185008"
    assert first["series"][1]["description"] == "PA"
    assert second["identifier"][0]["value"] == "urn:oid:2.25.2"
    assert validate_resource(first) == validate_resource(second) == []


def test_bundles_and_files(tmp_path: Path) -> None:
    resources = _write(GENDER, _event("Observation", "LOINC//1"))
    bundle = resources_to_bundle(resources, "transaction")
    assert [entry["request"] for entry in bundle["entry"]] == [
        {"method": "PUT", "url": "Patient/subject-7"},
        {"method": "PUT", "url": "Observation/a1"},
    ]
    assert validate_resource(bundle | {"id": "b"}) == []
    assert "request" not in resources_to_bundle(resources, "collection")["entry"][0]
    assert write_ndjson(tmp_path / "n", resources) == {"Patient": 1, "Observation": 1}
    assert orjson.loads((tmp_path / "n" / "Observation.ndjson").read_bytes()) == resources[1]
    paths = list(write_bundles(tmp_path / "b", [resources], "collection"))
    assert [path.name for path in paths] == ["subject-7.json"]
    with pytest.raises(FileExistsError):
        write_ndjson(tmp_path / "n", resources)


def test_one_device_and_one_provenance_name_the_export() -> None:
    device, provenance = provenance_resources(CONTEXT, ["Patient/subject-7"])
    assert validate_resource(device) == validate_resource(provenance) == []
    assert provenance["agent"][0]["who"]["reference"] == f"Device/{device['id']}"
    assert provenance["recorded"] == "2025-01-02T00:00:00+00:00"
    with pytest.raises(ValueError, match="targets"):
        provenance_resources(CONTEXT, [])


def test_no_provenance_names_more_than_a_thousand_targets() -> None:
    targets = [f"Patient/subject-{number}" for number in range(2500)]
    _, *provenances = provenance_resources(CONTEXT, targets)
    named = [target["reference"] for each in provenances for target in each["target"]]
    assert [len(each["target"]) for each in provenances] == [1000, 1000, 500]
    assert named == targets
    assert len({each["id"] for each in provenances}) == 3


def test_events_of_several_subjects_are_refused() -> None:
    with pytest.raises(ValueError, match="one subject"):
        events_to_resources([GENDER, Event(8, None, "GENDER//F")], context=CONTEXT)
