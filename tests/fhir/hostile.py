"""Resources of a real shape, and any JSON in any place of them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from tests.fhir.samples import ENCOUNTER, LOINC, PATIENT, SNOMED, concept, observation, resource

SAMPLES = [
    PATIENT | {"communication": [{"language": concept("urn:ietf:bcp:47", "en")}]},
    ENCOUNTER | {"type": [concept(SNOMED, "1")], "hospitalization": {"admitSource": concept(SNOMED, "2")}},
    observation(
        valueQuantity={"value": 1, "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"},
        referenceRange=[{"low": {"value": 1}}],
        component=[{"code": concept(LOINC, "1"), "valueString": "neg"}],
        encounter={"reference": "Encounter/e1"},
    ),
    resource(
        "MedicationRequest",
        medicationReference={"reference": "#m"},
        contained=[
            {"resourceType": "Medication", "id": "m", "ingredient": [{"itemCodeableConcept": concept(SNOMED, "1")}]}
        ],
        authoredOn="2020-01-02",
        dosageInstruction=[{"timing": {"repeat": {"period": 1, "periodUnit": "d"}}, "asNeededBoolean": True}],
    ),
    resource(
        "ImagingStudy",
        started="2020",
        identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:1.2"}],
        series=[{"uid": "1.2.3", "modality": {"code": "CT"}}],
    ),
    resource("Condition", code=concept(SNOMED, "1"), verificationStatus=concept("x", "refuted"), onsetDateTime="2020"),
    resource(
        "DocumentReference",
        status="current",
        type=concept(LOINC, "1"),
        date="2020-01-02T03:04:05Z",
        author=[{"reference": "Practitioner/d"}],
        context={"encounter": [{"reference": "Encounter/e1"}], "period": {"start": "2020"}},
        content=[{"attachment": {"contentType": "text/plain"}}],
    ),
    resource(
        "Procedure",
        status="completed",
        code=concept(SNOMED, "1"),
        performedPeriod={"start": "2020-01-02", "end": "2020-01-03"},
        performer=[{"actor": {"reference": "Practitioner/d"}, "function": concept(SNOMED, "1")}],
        location={"reference": "Location/w"},
    ),
    {"resourceType": "Practitioner", "id": "d", "qualification": [{"code": concept(SNOMED, "1")}]},
    {"resourceType": "Location", "id": "w", "type": [concept(SNOMED, "1")]},
]
JUNK = [
    None,
    True,
    0,
    -1.5,
    1e300,
    "",
    "x",
    "Zebediah  Quux 4711",
    [],
    [[]],
    {},
    {"a": []},
    [None],
    ["x"],
    [{}],
    {"coding": 1},
]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every holder and key within a value."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


def hostile_resources(rng: random.Random, count: int) -> Iterator[dict[str, Any]]:
    """So many resources, most with junk in one place or two."""
    for number in range(count):
        sample = copy.deepcopy(rng.choice(SAMPLES)) | {"id": f"x{number}"}
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            holder, key = rng.choice(places(sample))
            holder[key] = copy.deepcopy(rng.choice(JUNK))
        yield sample
