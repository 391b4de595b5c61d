"""Actors, documents, replaced patients, times and references in every form that R4 has."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from medtwin.core.pseudonyms import Pseudonyms
from medtwin.fhir import FhirSource, index_source
from medtwin.fhir.reading.index import actors_table
from tests.fhir.samples import (
    ENCOUNTER,
    LOINC,
    PATIENT,
    SNOMED,
    SUBJECT_ID,
    UNSHIFTED,
    concept,
    ndjson,
    observation,
    read,
    read_resources,
    resource,
    rows_of,
)

_ROLE = "http://terminology.hl7.org/CodeSystem/practitioner-role"
_SITE = "http://terminology.hl7.org/CodeSystem/location-physical-type"
_DOCTOR = {"resourceType": "Practitioner", "id": "d1", "name": [{"family": "Quux"}], "qualification": []}
_WARD = {"resourceType": "Location", "id": "w1", "name": "Ward Quux", "physicalType": concept(_SITE, "wa")}


def _actor(kind: str, name: str) -> str:
    return f"{kind}/{UNSHIFTED.event_id(kind, name)}"


def test_actors_are_referred_to_by_pseudonym_and_stand_in_a_table_with_their_codes_only(tmp_path: Path) -> None:
    role = {
        "resourceType": "PractitionerRole",
        "id": "r1",
        "code": [concept(_ROLE, "doctor")],
        "specialty": [concept(SNOMED, "394814009")],
        "practitioner": {"reference": "Practitioner/d1"},
    }
    stay = ENCOUNTER | {
        "serviceProvider": {"reference": "Organization/o1", "display": "Quux General"},
        "participant": [{"type": [concept(_ROLE, "PPRF")], "individual": {"reference": "PractitionerRole/r1"}}],
        "location": [
            {"location": {"reference": "Location/w1"}, "status": "completed", "period": {"start": "2020-03-01"}},
            {"location": {"reference": "Location/w2"}},
        ],
    }
    events, ledger = read_resources(tmp_path, PATIENT, _DOCTOR, role, _WARD, stay)
    rows = [(row.code.removeprefix("FHIR//Encounter."), row.text_value) for row in rows_of(events, "Encounter")[1:]]
    assert rows == [
        ("class//ACTCODE//IMP", None),
        ("serviceProvider", _actor("Organization", "o1")),
        ("participant.type//terminology.hl7.org/CodeSystem/practitioner-role//PPRF", None),
        ("participant.individual", _actor("PractitionerRole", "r1")),
        ("location.location", _actor("Location", "w1")),
        ("location.status", "completed"),
        ("location.period.start", "2020-03-01"),
        ("location[1].location", _actor("Location", "w2")),
    ]
    table = actors_table(index_source(FhirSource(tmp_path)).actors, UNSHIFTED).to_pylist()
    assert {row["resource"]: row["codes"] for row in table} == {
        "Location": ["terminology.hl7.org/CodeSystem/location-physical-type//wa"],
        "Practitioner": [],
        "PractitionerRole": ["terminology.hl7.org/CodeSystem/practitioner-role//doctor", "SNOMED//394814009"],
    }
    assert {f"{row['resource']}/{row['actor_id']}" for row in table} >= {_actor("Location", "w1")}
    assert ledger.carried == {"Patient": 1, "Encounter": 1, "Practitioner": 1, "PractitionerRole": 1, "Location": 1}
    assert ledger.elements_not_carried["Practitioner.name"] == 1
    assert "Quux" not in f"{events} {ledger} {table}"


@pytest.mark.parametrize(
    ("kind", "elements", "row"),
    [
        ("Observation", {"performer": [{"reference": "Practitioner/d1"}]}, "performer"),
        ("MedicationRequest", {"requester": {"reference": "Practitioner/d1"}}, "requester"),
        ("Procedure", {"performer": [{"actor": {"reference": "Practitioner/d1"}}]}, "performer.actor"),
        ("ServiceRequest", {"performer": [{"reference": "Practitioner/d1"}]}, "performer"),
        ("DiagnosticReport", {"resultsInterpreter": [{"reference": "Practitioner/d1"}]}, "resultsInterpreter"),
        ("CarePlan", {"author": {"reference": "Practitioner/d1"}}, "author"),
        ("Condition", {"recorder": {"reference": "https://x.example/fhir/Practitioner/d1/_history/4"}}, "recorder"),
        (
            "Procedure",
            {"performer": [{"actor": {"reference": "Practitioner?identifier=urn:npi|7"}}]},
            "performer.actor",
        ),
        (
            "Procedure",
            {"recorder": {"type": "Practitioner", "identifier": {"system": "urn:npi", "value": "7"}}},
            "recorder",
        ),
    ],
)
def test_an_actor_in_every_place_and_form(tmp_path: Path, kind: str, elements: Any, row: str) -> None:
    base: dict[str, Any] = {"status": "unknown", "code": concept(SNOMED, "1")}
    times = {
        "Observation": {"effectiveDateTime": "2020"},
        "MedicationRequest": {
            "authoredOn": "2020",
            "medicationCodeableConcept": concept(SNOMED, "1"),
            "intent": "order",
        },
        "Procedure": {"performedDateTime": "2020"},
        "ServiceRequest": {"authoredOn": "2020", "intent": "order"},
        "DiagnosticReport": {"effectiveDateTime": "2020"},
        "CarePlan": {"period": {"start": "2020"}, "category": [concept(SNOMED, "1")], "intent": "plan"},
        "Condition": {"onsetDateTime": "2020", "status": None},
    }
    doctor = _DOCTOR | {"identifier": [{"system": "urn:npi", "value": "7"}]}
    events, ledger = read_resources(tmp_path, PATIENT, doctor, resource(kind, **(base | times[kind] | elements)))
    assert ledger.rejects == []
    found = {event.code: event.text_value for event in rows_of(events, kind)}
    assert found[f"FHIR//{kind}.{row}"] == _actor("Practitioner", "d1")


def test_an_actor_of_a_transaction_bundle_is_found_by_its_urn(tmp_path: Path) -> None:
    doctor = {name: value for name, value in _DOCTOR.items() if name != "id"}
    entries = [
        {"fullUrl": "urn:uuid:p", "resource": PATIENT},
        {"fullUrl": "urn:uuid:d", "resource": doctor},
        {
            "fullUrl": "urn:oid:1.2.3",
            "resource": observation(subject={"reference": "urn:uuid:p"}, performer=[{"reference": "urn:uuid:d"}]),
        },
    ]
    (tmp_path / "a.json").write_bytes(orjson.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}))
    events, _ = read(tmp_path)
    assert [row.text_value for row in rows_of(events, "Observation")[1:]] == [_actor("Practitioner", "d")]


def test_two_bundles_may_give_one_urn_to_two_people(tmp_path: Path) -> None:
    for number in (1, 2):
        person = PATIENT | {"id": f"p{number}", "identifier": None, "gender": "male" if number == 1 else "female"}
        entries = [
            {"fullUrl": "urn:uuid:p", "resource": person},
            {"resource": observation(f"o{number}", subject={"reference": "urn:uuid:p"})},
        ]
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
        (tmp_path / f"{number}.json").write_bytes(orjson.dumps(bundle))
    events, ledger = read(tmp_path)
    assert ledger.rejects == []
    found = [row.subject_id for row in rows_of(events, "Observation")]
    assert found == [UNSHIFTED.subject_id("fhir:p1"), UNSHIFTED.subject_id("fhir:p2")]


def test_a_document_is_an_event_without_its_text(tmp_path: Path) -> None:
    made = resource(
        "DocumentReference",
        status="current",
        docStatus="final",
        type=concept(LOINC, "18842-5"),
        category=[
            concept("http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category", "clinical-note")
        ],
        date="2020-03-05T12:00:00+01:00",
        description="Quux",
        securityLabel=[concept("http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "R")],
        content=[
            {
                "attachment": {"contentType": "text/plain", "data": "UXV1eA==", "url": "http://quux", "title": "Quux"},
                "format": {"system": "http://ihe.net/fhir/ValueSet/IHE.FormatCode.codesystem", "code": "urn:ihe:x"},
            },
            {"attachment": {"contentType": "text/Quux"}},
        ],
        context={
            "encounter": [{"reference": "Encounter/e1"}, {"reference": "Encounter/e2"}],
            "period": {"start": "2020-03-01", "end": "2020-03-05"},
            "facilityType": concept(SNOMED, "22232009"),
            "practiceSetting": concept(SNOMED, "394802001"),
        },
    )
    events, ledger = read_resources(tmp_path, PATIENT, ENCOUNTER, made)
    event, *children = rows_of(events, "DocumentReference")
    assert (event.code, event.status, event.time) == ("LOINC//18842-5", "current", datetime(2020, 3, 5, 11))
    assert event.encounter_id == UNSHIFTED.event_id("Encounter", "e1")
    path = "FHIR//DocumentReference."
    assert {row.code.removeprefix(path).partition("//")[0]: row.text_value for row in children} == {
        "docStatus": "final",
        "category": None,
        "securityLabel": None,
        "content.attachment.contentType": "text/plain",
        "content.format": None,
        "context.period.start": "2020-03-01",
        "context.period.end": "2020-03-05",
        "context.facilityType": None,
        "context.practiceSetting": None,
    }
    left = ledger.elements_not_carried
    for name in ("data", "url", "title", "contentType"):
        assert left[f"DocumentReference.content.attachment.{name}"] == 1
    assert left["DocumentReference.context.encounter"] == left["DocumentReference.description"] == 1
    assert "uux" not in f"{events} {ledger}"


def test_a_document_without_a_date_stands_at_the_period_that_it_documents(tmp_path: Path) -> None:
    period = {"start": "2020-03-01", "end": "2020-03-05"}
    made = resource("DocumentReference", status="superseded", type=concept(LOINC, "1"), context={"period": period})
    events, _ = read_resources(tmp_path, PATIENT, made)
    event, *others = rows_of(events, "DocumentReference")
    assert (event.time, event.end_time) == (datetime(2020, 3, 1), datetime(2020, 3, 5))
    assert others == []


@pytest.mark.parametrize("replaces", [False, True])
def test_what_happened_to_a_replaced_patient_joins_the_surviving_one(tmp_path: Path, replaces: bool) -> None:
    old = PATIENT | {
        "id": "old",
        "identifier": [PATIENT["identifier"][0] | {"value": "0815"}],
        "birthDate": "1981-01-01",
    }
    new = dict(PATIENT)
    link = {"other": {"reference": f"Patient/{'old' if replaces else 'p1'}"}}
    if replaces:
        new["link"] = [link | {"type": "replaces"}]
    else:
        old["link"] = [link | {"type": "replaced-by"}]
    events, ledger = read_resources(tmp_path, old, observation(subject={"reference": "Patient/old"}), new)
    assert {event.subject_id for event in events} == {SUBJECT_ID}
    assert [event.time for event in events if event.code == "MEDS_BIRTH"] == [datetime(1980, 2, 1)]
    assert (ledger.not_carried, ledger.flags["replaced-patient"]) == ({"Patient": 1}, 1)
    index = index_source(FhirSource(tmp_path))
    assert index.aliases["mr:0815"] == "mr:4711"


def test_patients_that_replace_each_other_in_a_ring_stay_themselves(tmp_path: Path) -> None:
    ring = [
        PATIENT
        | {
            "id": f"p{number}",
            "identifier": None,
            "link": [{"other": {"reference": f"Patient/p{other}"}, "type": "replaced-by"}],
        }
        for number, other in ((1, 2), (2, 1))
    ]
    events, ledger = read_resources(tmp_path, *ring)
    assert len({event.subject_id for event in events}) == 2
    assert ledger.carried == {"Patient": 2}


@pytest.mark.parametrize(
    ("timing", "time", "end", "label"),
    [
        ({"event": ["2020-03-02", "2020-03-01"]}, datetime(2020, 3, 1), datetime(2020, 3, 2), "effectiveTiming.event"),
        ({"event": ["2020-03"]}, datetime(2020, 3, 1), None, "effectiveTiming.event"),
        (
            {"repeat": {"boundsPeriod": {"start": "2020-03-01"}, "frequency": 2}},
            datetime(2020, 3, 1),
            None,
            "effectiveTiming.repeat.boundsPeriod",
        ),
    ],
)
def test_an_observation_at_a_timing(tmp_path: Path, timing: Any, time: datetime, end: datetime, label: str) -> None:
    made = observation(effectiveDateTime=None, effectiveTiming=timing)
    events, ledger = read_resources(tmp_path, PATIENT, made)
    event, guide = rows_of(events, "Observation")
    assert (event.time, event.end_time, guide.code) == (time, end, f"FHIR//Observation.time//{label}")
    assert ledger.elements_not_carried["Observation.effectiveTiming.repeat.frequency"] == ("repeat" in timing)


def test_what_is_not_carried_is_counted(tmp_path: Path) -> None:
    sampled = {"origin": {"value": 0}, "period": 10, "dimensions": 1, "data": "1 2 E"}
    stay = ENCOUNTER | {"statusHistory": [{}], "classHistory": [{}], "length": {"value": 1}}
    contained = [{"resourceType": "Practitioner", "id": "x", "name": [{"family": "Quux"}]}]
    made = observation(valueSampledData=sampled, contained=contained, performer=[{"reference": "#x"}])
    onset = resource("Condition", code=concept(SNOMED, "1"), onsetPeriod={"start": "2020", "end": "2021"})
    events, ledger = read_resources(tmp_path, PATIENT, stay, made, onset)
    assert {name: number for name, number in ledger.elements_not_carried.items() if not name.startswith("Patient")} == {
        "Encounter.statusHistory": 1,
        "Encounter.classHistory": 1,
        "Encounter.length": 1,
        "Observation.valueSampledData": 1,
        "Observation.contained": 1,
        "Observation.performer": 1,
        "Condition.onsetPeriod.end": 1,
    }
    assert "Quux" not in f"{events} {ledger}"


_UCUM = "http://unitsofmeasure.org"


@pytest.mark.parametrize(
    ("quantity", "number", "unit", "source_unit"),
    [
        ({"value": 98.6, "unit": "F", "system": _UCUM, "code": "[degF]"}, 98.6, "[degF]", "F"),
        ({"value": 154, "unit": "[lb_av]", "system": _UCUM, "code": "[lb_av]"}, 154, "[lb_av]", None),
        ({"value": 154, "unit": "lbs"}, 154, "[lb_av]", "lbs"),
        ({"value": 3, "unit": "units"}, 3, None, "units"),
        ({"value": 1, "unit": "by Dr Quux"}, 1, None, None),
    ],
)
def test_units_are_ucum_and_keep_the_original(
    tmp_path: Path, quantity: Any, number: float, unit: str | None, source_unit: str | None
) -> None:
    events, _ = read_resources(tmp_path, PATIENT, observation(valueQuantity=quantity))
    event = rows_of(events, "Observation")[0]
    assert (event.numeric_value, event.unit, event.source_unit) == (number, unit, source_unit)


def test_a_year_and_a_month_stay_what_they_are_when_dates_move(tmp_path: Path) -> None:
    keyed = Pseudonyms(b"s" * 32, max_shift_weeks=52)
    made = [observation(f"o{text}", effectiveDateTime=text) for text in ("2020", "2020-07")]
    events, _ = read_resources(tmp_path, PATIENT, *made, pseudonyms=keyed)
    for event in rows_of(events, "Observation"):
        assert event.time is not None
        assert (event.time.day, event.time.hour) == (1, 0)
        assert event.time_precision in ("year", "month")


def test_resources_in_any_order_and_file_give_the_same(tmp_path: Path) -> None:
    parts = [PATIENT, ENCOUNTER, _WARD, observation(encounter={"reference": "Encounter/e1"})]
    for number, order in enumerate((parts, parts[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        for at, part in enumerate(order):
            (folder / f"{at}.ndjson").write_bytes(ndjson(part))
    first, second = (read(tmp_path / str(number))[0] for number in (0, 1))
    assert sorted(map(str, first)) == sorted(map(str, second))
