"""What a source may hold on purpose or by accident: identifiers in every text, and any JSON anywhere."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from fhir.resources.R4B import get_fhir_model_class

from medtwin.fhir import ExportContext, events_to_resources
from medtwin.fhir.elements import TABLES
from tests.fhir.hostile import SAMPLES, hostile_resources
from tests.fhir.samples import PATIENT, SNOMED, concept, observation, read_resources

MARKER = "Zebediah-Quux-471108151234"
"""An identifier; its number is long so that no pseudonym or digest has it by chance."""
_TEXTS = ("String()", "Markdown()", "Uri()", "Url()", "Canonical()", "Base64Binary()", "Id()", "Oid()", "Uuid()")
_PRIMITIVES = {
    "Code()": "final",
    "Boolean": True,
    "bool": True,
    "DateTime()": "2020-01-02",
    "Instant()": "2020-01-02T03:04:05Z",
    "Date()": "2020-01-02",
    "Time()": "10:00:00",
    "Decimal()": 1.5,
    "PositiveInt()": 1,
    "UnsignedInt()": 1,
    "Integer": 1,
}


def planted(kind: str, depth: int = 0) -> dict[str, Any]:
    """A resource or datatype with the marker in every text element, down to some depth."""
    model = get_fhir_model_class(kind)
    made: dict[str, Any] = {}
    for field in model.model_fields.values():
        name, notation = field.alias or "", str(field.annotation)
        if name in ("fhir_comments", "resourceType", "contained") or not name:
            continue
        value = _planted_value(notation, depth)
        if value is not None:
            made[name] = [value] if "List[" in notation else value
    return made


def _planted_value(notation: str, depth: int) -> Any:
    if any(text in notation for text in _TEXTS):
        return MARKER
    found = next((value for word, value in _PRIMITIVES.items() if word in notation), None)
    if found is not None:
        return found
    inner = re.search(r"abc\.(\w+)Type", notation)
    if inner is None or depth > 4 or (inner.group(1) == "Extension" and depth > 1):
        return None
    if inner.group(1) == "FHIRPrimitiveExtension":
        return {"id": MARKER, "extension": [{"url": MARKER, "valueString": MARKER}]}
    if inner.group(1) in ("Resource", "FHIRPrimitive"):
        return None
    return planted(inner.group(1), depth + 1)


_CHOICES = {
    "Observation": ("valueString", "effectiveDateTime"),
    "Condition": ("onsetDateTime", "abatementString"),
    "Procedure": ("performedDateTime",),
    "MedicationAdministration": ("effectiveDateTime",),
    "Immunization": ("occurrenceDateTime",),
    "AllergyIntolerance": ("onsetDateTime",),
    "ServiceRequest": ("occurrenceDateTime",),
    "Patient": ("deceasedDateTime",),
}
_BASES: dict[str, dict[str, Any]] = {
    "Encounter": {"status": "finished", "class": {"code": "AMB"}, "period": {"start": "2020-01-01"}},
    "MedicationRequest": {"status": "active", "medicationCodeableConcept": concept(SNOMED, "1")},
    "MedicationStatement": {"medicationCodeableConcept": concept(SNOMED, "1"), "status": "active"},
    "MedicationAdministration": {"medicationCodeableConcept": concept(SNOMED, "1"), "status": "completed"},
    "MedicationDispense": {"medicationCodeableConcept": concept(SNOMED, "1"), "status": "completed"},
    "Condition": {"verificationStatus": concept("x", "confirmed"), "code": concept(SNOMED, "1")},
    "AllergyIntolerance": {"verificationStatus": concept("x", "confirmed"), "patient": {"reference": "Patient/p1"}},
    "Immunization": {"status": "completed", "patient": {"reference": "Patient/p1"}},
    "Procedure": {"status": "completed"},
    "ServiceRequest": {"status": "active"},
    "CarePlan": {"status": "active"},
    "ImagingStudy": {"status": "available"},
    "Specimen": {"status": "available"},
    "Observation": {"status": "final"},
    "DiagnosticReport": {"status": "final"},
    "DocumentReference": {"status": "current"},
    "Patient": {"gender": "female", "birthDate": "1980-01-01"},
}


def planted_resource(kind: str) -> dict[str, Any]:
    """The planted resource with one choice of each value[x], and what it needs to be read at all."""
    made = planted(kind)
    keep = _CHOICES.get(kind, ())
    stems = ("value", "effective", "onset", "abatement", "performed", "occurrence", "deceased", "medication")
    for name in list(made):
        if any(re.match(rf"_?{stem}[A-Z]", name) for stem in stems) and name.lstrip("_") not in keep:
            del made[name]
    for component in made.get("component", []):
        for name in [name for name in component if name.startswith("value") and name != "valueString"]:
            del component[name]
    return made | {"resourceType": kind, "id": "r1", "subject": {"reference": "Patient/p1"}} | _BASES[kind]


@pytest.mark.parametrize("kind", sorted({*TABLES, "Patient"}))
def test_an_identifier_in_any_text_ends_nowhere(tmp_path: Path, kind: str) -> None:
    made = planted_resource(kind)
    assert orjson.dumps(made).count(MARKER.encode()) > 20
    patients = [made] if kind == "Patient" else [PATIENT, made]
    events, ledger = read_resources(tmp_path, *patients)
    assert ledger.rejects == [], ledger.rejects
    assert ledger.carried[kind] >= 1
    said = [*map(str, events), str(ledger.as_dict()), str(ledger.rejects)]
    export = events_to_resources(events, context=ExportContext("real"))
    said += [orjson.dumps(export.resources).decode(), str(export.not_carried)]
    for part in ("Zebediah", "Quux", "4711"):
        hits = [text for text in said if part in text.replace("mr:4711", "")]
        assert hits == []


def test_any_json_anywhere_is_carried_or_rejected_but_never_breaks_the_reader(tmp_path: Path) -> None:
    made = list(hostile_resources(random.Random(0), 1500))
    events, ledger = read_resources(tmp_path, *SAMPLES, *made)
    assert "Quux" not in f"{events} {ledger}"
    assert ledger.carried.total() > 100
    assert ledger.rejected.total() > 100
    subjects: dict[int, list[Any]] = {}
    for event in events:
        subjects.setdefault(event.subject_id, []).append(event)
    for rows in subjects.values():
        events_to_resources(rows, context=ExportContext("real"))


def test_element_names_that_fhir_does_not_have_are_not_repeated(tmp_path: Path) -> None:
    _, ledger = read_resources(tmp_path, PATIENT | {MARKER: 1, "Quux": 2}, observation(**{"ZebediahQuux": 1}))
    assert ledger.elements_not_carried["Patient.?"] == 2
    assert ledger.elements_not_carried["Observation.?"] == 1
    assert "Quux" not in str(ledger)
