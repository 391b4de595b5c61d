from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from medtwin.core.events import events_to_table, sort_events, validate_events
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.fhir import FhirSource, index_source
from tests.fhir.samples import (
    ENCOUNTER,
    LOINC,
    OBSCATEGORY,
    PATIENT,
    SNOMED,
    SUBJECT_ID,
    UNSHIFTED,
    concept,
    observation,
    read_resources,
    resource,
    rows_of,
)


def _id(kind: str, name: str) -> str:
    return UNSHIFTED.event_id(kind, name)


def test_a_patient_is_static_rows_birth_and_death(tmp_path: Path) -> None:
    us_core = "http://hl7.org/fhir/us/core/StructureDefinition/"
    race = {"url": "ombCategory", "valueCoding": {"system": "urn:oid:2.16.840.1.113883.6.238", "code": "2106-3"}}
    patient = PATIENT | {
        "deceasedDateTime": "2021-05",
        "maritalStatus": concept("http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", "M"),
        "communication": [{"language": concept("urn:ietf:bcp:47", "en-US")}],
        "extension": [
            {"url": f"{us_core}us-core-race", "extension": [race, {"url": "text", "valueString": "White"}]},
            {"url": f"{us_core}us-core-birthsex", "valueCode": "F"},
        ],
        "name": [{"family": "Doe"}],
    }
    events, ledger = read_resources(tmp_path, patient)
    assert [(event.time, event.code, event.time_precision) for event in events] == [
        (None, "GENDER//F", None),
        (None, "RACE//2106-3", None),
        (None, "BIRTHSEX//F", None),
        (None, "MARITAL//M", None),
        (None, "LANGUAGE//en-US", None),
        (datetime(1980, 2, 1), "MEDS_BIRTH", "day"),
        (datetime(2021, 5, 1), "MEDS_DEATH", "month"),
    ]
    assert {event.subject_id for event in events} == {SUBJECT_ID}
    assert ledger.elements_not_carried["Patient.name"] == 1


def test_an_observation_with_details_is_written_out_here_row_by_row(tmp_path: Path) -> None:
    pulse = observation(
        category=[concept(OBSCATEGORY, "vital-signs")],
        encounter={"reference": "Encounter/e1"},
        valueQuantity={"value": 72.5, "unit": "bpm", "comparator": "<"},
        interpretation=[concept("http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "N")],
        referenceRange=[{"low": {"value": 60}}, {"high": {"value": 100, "unit": "bpm"}}],
    )
    events, _ = read_resources(tmp_path, PATIENT, ENCOUNTER, pulse)
    event, *children = rows_of(events, "Observation")
    assert (event.code, event.numeric_value, event.unit, event.source_unit) == ("LOINC//8867-4", 72.5, "/min", "bpm")
    assert (event.time, event.time_precision) == (datetime(2020, 3, 2, 7), "second+01:00")
    assert event.event_id == _id("Observation", "o1")
    assert event.encounter_id == _id("Encounter", "e1")
    assert [(row.code, row.numeric_value, row.text_value, row.unit) for row in children] == [
        ("FHIR//Observation.comparator", None, "<", None),
        ("FHIR//Observation.category//OBSCATEGORY//vital-signs", None, None, None),
        ("FHIR//Observation.interpretation//INTERPRETATION//N", None, None, None),
        ("FHIR//Observation.referenceRange.low", 60.0, None, None),
        ("FHIR//Observation.referenceRange[1].high", 100.0, None, "/min"),
    ]
    assert {(row.parent_id, row.status, row.time) for row in children} == {(event.event_id, "final", event.time)}


def test_an_encounter_carries_its_own_id_and_goes_by_its_class_without_a_type(tmp_path: Path) -> None:
    events, _ = read_resources(tmp_path, PATIENT, ENCOUNTER)
    event, child = rows_of(events, "Encounter")
    assert (event.code, event.encounter_id) == ("ENCOUNTER//IMP", event.event_id)
    assert (event.time, event.end_time) == (datetime(2020, 3, 1, 9), datetime(2020, 3, 5, 11))
    assert child.code == "FHIR//Encounter.class//ACTCODE//IMP"


def test_components_are_child_rows_with_their_own_code_and_id(tmp_path: Path) -> None:
    parts = [
        {"code": concept(LOINC, code), "valueQuantity": {"value": value, "code": "mm[Hg]", "unit": "mmHg"}}
        for code, value in (("8480-6", 120), ("8462-4", 80))
    ]
    parts[1]["referenceRange"] = [{"high": {"value": 90}}]
    events, _ = read_resources(tmp_path, PATIENT, observation(code=concept(LOINC, "85354-9"), component=parts))
    parent, systolic, diastolic, limit = rows_of(events, "Observation")
    assert (systolic.code, systolic.numeric_value, systolic.unit) == ("LOINC//8480-6", 120.0, "mm[Hg]")
    assert (systolic.event_id, systolic.parent_id) == (f"{parent.event_id}.1", parent.event_id)
    assert (limit.code, limit.parent_id) == ("FHIR//Observation.referenceRange.high", diastolic.event_id)
    assert validate_events(sort_events(events_to_table(events))) == []


@pytest.mark.parametrize(
    ("elements", "number", "text", "value_type"),
    [
        ({"valueInteger": 3}, 3.0, None, "integer"),
        ({"valueBoolean": True}, None, "true", "boolean"),
        ({"valueString": "NO GROWTH. "}, None, "NO GROWTH.", "string"),
        ({"valueString": "7.4"}, None, "7.4", "string"),
        ({"valueString": "1234"}, None, None, None),
        ({"valueString": "called by John Doe"}, None, None, None),
        ({"valueTime": "08:30:00"}, None, "08:30:00", "time"),
        ({"valueCodeableConcept": concept(SNOMED, "266919005")}, None, "SNOMED//266919005", None),
    ],
)
def test_values(tmp_path: Path, elements: Any, number: float, text: str, value_type: str) -> None:
    events, ledger = read_resources(tmp_path, PATIENT, observation(**elements))
    event, *children = rows_of(events, "Observation")
    assert (event.numeric_value, event.text_value) == (number, text)
    assert [row.text_value for row in children] == ([value_type] if value_type else [])
    assert ledger.elements_not_carried["Observation.valueString"] == (number is None and text is None)


def test_the_code_most_tools_understand_leads_and_all_codings_are_kept(tmp_path: Path) -> None:
    coding = [
        {"system": "http://hospital.example/lab", "code": "K"},
        {"system": LOINC, "code": "2823-3"},
        {"system": "urn:oid:1.2.3", "code": "x  y"},
    ]
    events, ledger = read_resources(tmp_path, PATIENT, observation(code={"coding": coding, "text": "Potassium"}))
    event = rows_of(events, "Observation")[0]
    assert (event.code, event.source_code) == ("LOINC//2823-3", "hospital.example/lab//K | LOINC//2823-3")
    assert ledger.elements_not_carried["Observation.code.coding.code"] == 1
    assert ledger.elements_not_carried["Observation.code.text"] == 1


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (observation(status="cancelled"), "NEGATED//LOINC//8867-4"),
        (observation(status="preliminary"), "LOINC//8867-4"),
        (
            resource(
                "Condition",
                code=concept(SNOMED, "1"),
                onsetDateTime="2020",
                verificationStatus=concept("http://terminology.hl7.org/CodeSystem/condition-ver-status", "refuted"),
            ),
            "NEGATED//SNOMED//1",
        ),
        (
            resource(
                "MedicationRequest",
                status="active",
                intent="order",
                doNotPerform=True,
                medicationCodeableConcept=concept(SNOMED, "2"),
                authoredOn="2020-01-02",
            ),
            "NEGATED//SNOMED//2",
        ),
        (
            resource("Procedure", status="not-done", code=concept(SNOMED, "3"), performedDateTime="2020-01-02"),
            "NEGATED//SNOMED//3",
        ),
        (
            resource("ServiceRequest", status="draft", intent="plan", code=concept(SNOMED, "4"), authoredOn="2020"),
            "NEGATED//SNOMED//4",
        ),
    ],
)
def test_what_did_not_happen_is_negated(tmp_path: Path, made: dict[str, Any], code: str) -> None:
    events, _ = read_resources(tmp_path, PATIENT, made)
    assert rows_of(events, made["resourceType"])[0].code == code


def test_components_of_a_cancelled_observation_are_negated_too(tmp_path: Path) -> None:
    part = {"code": concept(LOINC, "8480-6")}
    events, _ = read_resources(tmp_path, PATIENT, observation(status="cancelled", component=[part]))
    assert [row.code for row in rows_of(events, "Observation")] == ["NEGATED//LOINC//8867-4", "NEGATED//LOINC//8480-6"]


def test_a_condition_without_a_date_stands_at_the_end_of_its_encounter_and_says_so(tmp_path: Path) -> None:
    made = resource("Condition", code=concept(SNOMED, "1"), encounter={"reference": "Encounter/e1"})
    events, _ = read_resources(tmp_path, PATIENT, made, ENCOUNTER)
    event, flag = rows_of(events, "Condition")
    assert (event.time, event.time_precision) == (datetime(2020, 3, 5, 11), "second+01:00")
    assert flag.code == "FHIR//Condition.time//encounter-end"


def test_recorded_date_is_a_row_only_where_it_is_not_the_onset(tmp_path: Path) -> None:
    def made(name: str, recorded: str) -> dict[str, Any]:
        return resource("Condition", name, code=concept(SNOMED, "1"), onsetDateTime="2020-01-05", recordedDate=recorded)

    events, _ = read_resources(tmp_path, PATIENT, made("a", "2020-01-05"), made("b", "2020-01-09T08:00:00Z"))
    assert [(row.code, row.text_value) for row in rows_of(events, "Condition")] == [
        ("SNOMED//1", None),
        ("SNOMED//1", None),
        ("FHIR//Condition.recordedDate", "2020-01-09T08:00:00+00:00"),
    ]


def test_a_period_across_a_change_of_clock_keeps_both_offsets_and_its_true_length(tmp_path: Path) -> None:
    period = {"start": "2020-11-01T01:52:00-04:00", "end": "2020-11-01T01:07:00-05:00"}
    events, _ = read_resources(tmp_path, PATIENT, ENCOUNTER | {"period": period})
    event = rows_of(events, "Encounter")[0]
    assert event.end_time is not None
    assert event.time is not None
    assert event.end_time - event.time == timedelta(minutes=15)
    assert [(row.code, row.text_value) for row in rows_of(events, "Encounter")][1] == (
        "FHIR//Encounter.endPrecision",
        "second-05:00",
    )


def test_dates_move_by_whole_weeks_the_same_for_every_date_of_a_subject(tmp_path: Path) -> None:
    keyed = Pseudonyms(b"s" * 32, max_shift_weeks=52)
    made = observation(effectiveDateTime="2020-03-02", valueDateTime="2020-02-28")
    plain, _ = read_resources(tmp_path / "a", PATIENT, made)
    moved, _ = read_resources(tmp_path / "b", PATIENT, made, pseudonyms=keyed)
    shift = keyed.shift(moved[0].subject_id)
    assert shift
    assert not shift.days % 7
    times = [event.time for event in plain if event.time is not None]
    assert [event.time for event in moved if event.time is not None] == [time + shift for time in times]
    assert moved[-1].text_value == (datetime(2020, 2, 28) + shift).date().isoformat()


def test_a_medication_is_found_by_reference_contained_or_by_its_ingredients(tmp_path: Path) -> None:
    drug = {"resourceType": "Medication", "id": "m1", "code": concept(SNOMED, "11")}
    salt = {"resourceType": "Medication", "id": "m2", "code": concept(SNOMED, "22")}
    parts = [{"itemReference": {"reference": f"Medication/{name}"}} for name in ("m1", "m2")]
    mixture = {"resourceType": "Medication", "id": "m3", "ingredient": parts}
    base = {"status": "active", "intent": "order", "authoredOn": "2020-01-02"}
    requests = [
        resource("MedicationRequest", "a", **base, medicationReference={"reference": "Medication/m1"}),
        resource("MedicationRequest", "b", **base, contained=[salt], medicationReference={"reference": "#m2"}),
        resource("MedicationRequest", "c", **base, medicationReference={"reference": "Medication/m3"}),
    ]
    events, ledger = read_resources(tmp_path, *requests, mixture, drug, salt, PATIENT)
    codes = [row.code for row in rows_of(events, "MedicationRequest") if not row.code.endswith("intent")]
    ingredient = "FHIR//MedicationRequest.medication.ingredient//SNOMED"
    assert codes == ["SNOMED//11", "SNOMED//22", "SNOMED//11", f"{ingredient}//11", f"{ingredient}//22"]
    assert ledger.not_carried["Medication"] == 3


@pytest.mark.parametrize(
    "reference",
    [
        {"reference": "Patient/p1"},
        {"reference": "https://server.example/fhir/Patient/p1"},
        {"reference": "Patient/p1/_history/3"},
        {"reference": "Patient?identifier=http://h.example|4711"},
        {"identifier": {"system": "http://h.example", "value": "4711"}},
    ],
)
def test_references_in_every_form(tmp_path: Path, reference: dict[str, Any]) -> None:
    identifier = PATIENT["identifier"][0] | {"system": "http://h.example"}
    events, _ = read_resources(
        tmp_path,
        ENCOUNTER | {"subject": reference},
        observation(subject=reference),
        PATIENT | {"identifier": [identifier]},
    )
    assert {event.subject_id for event in events} == {SUBJECT_ID}
    assert len(rows_of(events, "Observation")) == 1


def test_an_encounter_of_another_patient_is_not_taken(tmp_path: Path) -> None:
    other = {"resourceType": "Patient", "id": "p2", "gender": "male"}
    made = observation(subject={"reference": "Patient/p2"}, encounter={"reference": "Encounter/e1"})
    events, ledger = read_resources(tmp_path, PATIENT, other, ENCOUNTER, made)
    assert rows_of(events, "Observation")[0].encounter_id is None
    assert ledger.flags["unknown-encounter"] == 1


def test_an_imaging_study_has_pseudonymous_uids_and_its_series(tmp_path: Path) -> None:
    dicom = "http://dicom.nema.org/resources/ontology/DCM"
    series = [
        {"uid": "1.2.3.4", "modality": {"system": dicom, "code": "CT"}, "numberOfInstances": 30},
        {"uid": "1.2.3.5", "modality": {"system": dicom, "code": "CT"}, "description": "PA"},
    ]
    made = resource(
        "ImagingStudy",
        status="available",
        started="2020-01-02T03:04:05Z",
        identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}, {"value": "accession 99"}],
        series=series,
    )
    events, ledger = read_resources(tmp_path, PATIENT, made)
    event, *children = rows_of(events, "ImagingStudy")
    assert event.code == "DCM//CT"
    path = "FHIR//ImagingStudy."
    assert [(row.code.removeprefix(path), row.text_value or row.numeric_value) for row in children] == [
        ("studyInstanceUID", UNSHIFTED.uid("1.2.3")),
        ("series", UNSHIFTED.uid("1.2.3.4")),
        ("series.modality//DCM//CT", None),
        ("series.numberOfInstances", 30.0),
        ("series[1]", UNSHIFTED.uid("1.2.3.5")),
        ("series[1].modality//DCM//CT", None),
        ("series[1].view", "PA"),
    ]
    assert ledger.elements_not_carried["ImagingStudy.identifier"] == 1


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        (observation(status="entered-in-error"), "entered-in-error"),
        (observation(status="done"), "malformed-resource"),
        (observation(code={"text": "pulse"}), "no-coding"),
        (observation(code=concept(LOINC, "x" * 65)), "no-coding"),
        (observation(subject={"reference": "Patient/nobody"}), "unknown-subject"),
        (observation(subject=None), "no-subject"),
        (observation(effectiveDateTime=None), "no-time"),
        (observation(effectiveDateTime="2020-02-30"), "bad-date"),
        (observation(effectiveDateTime="0020-02-03"), "bad-date"),
        (observation(effectiveDateTime="2020-02-03T10:00:00+19:00"), "bad-date"),
        (observation(effectiveDateTime=20200203), "malformed-resource"),
        (observation(effectiveDateTime=None, effectivePeriod=["2020"]), "malformed-resource"),
        (observation(valueQuantity={"value": "72"}), "malformed-resource"),
        (observation(valueQuantity={"value": 1e39}), "malformed-resource"),
        (observation(valueInteger=1, valueBoolean=True), "malformed-resource"),
        (observation(category=concept(OBSCATEGORY, "laboratory")), "malformed-resource"),
        (ENCOUNTER | {"period": {"start": "2020-03-05", "end": "2020-03-01"}}, "ends-before-start"),
        (PATIENT | {"id": "p3", "gender": ["female"], "identifier": None}, "malformed-resource"),
        (PATIENT | {"id": "p3", "identifier": None, "birthDate": "1700-01-01"}, "bad-date"),
        (PATIENT, "duplicate-id"),
        (PATIENT | {"id": "p4"}, "duplicate-person"),
        ({"resourceType": "Hospital"}, "unknown-type"),
        ({"id": "x"}, "unknown-type"),
        (b"[1, 2]", "unknown-type"),
        (b'{"resourceType": "Observation", ', "malformed-json"),
        (b'{"resourceType": "Observation", "id": "\xff"}', "not-utf8"),
        (b'{"resourceType": "Observation", "valueQuantity": {"value": NaN}}', "malformed-json"),
    ],
)
def test_bad_input_is_rejected_by_rule_with_its_line(tmp_path: Path, made: Any, rule: str) -> None:
    events, ledger = read_resources(tmp_path, PATIENT, made, observation("last"))
    assert [(reject.rule, reject.line) for reject in ledger.rejects] == [(rule, 2)]
    assert ledger.rejects[0].file == "all.ndjson"
    assert len([row for row in rows_of(events, "Observation") if row.parent_id is None]) == 1


def test_resources_that_describe_no_event_are_counted_as_not_carried(tmp_path: Path) -> None:
    _, ledger = read_resources(tmp_path, PATIENT, {"resourceType": "Device", "id": "x", "name": "General"})
    assert ledger.not_carried == {"Device": 1}


def test_origin_is_simulated_only_if_every_patient_says_so(tmp_path: Path) -> None:
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
    meta = {"security": [label], "tag": [{"system": "urn:medtwin:origin", "code": "simulated"}]}
    marked = PATIENT | {"meta": meta}
    for other, origin in ((None, "simulated"), (PATIENT | {"id": "p2"}, "real")):
        read_resources(tmp_path, *([marked] if other is None else [marked, other]))
        assert index_source(FhirSource(tmp_path)).origin == origin


def test_the_identity_map_is_by_medical_record_number_else_by_fhir_id(tmp_path: Path) -> None:
    read_resources(tmp_path, PATIENT, {"resourceType": "Patient", "id": "p2", "gender": "male"})
    found = index_source(FhirSource(tmp_path)).subject_ids(UNSHIFTED)
    assert found == {name: UNSHIFTED.subject_id(name) for name in ("fhir:p2", "mr:4711")}
