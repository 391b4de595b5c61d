"""Resources to send: valid R4, small, with the references that make order matter."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from medtwin.fhir import write_ndjson

META = {
    "security": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
            "code": "HTEST",
            "display": "test health data",
        }
    ]
}
Resource = dict[str, Any]


def name(*parts: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, parts))))


def resource(kind: str, place: str, **elements: Any) -> Resource:
    return {"resourceType": kind, "id": place, "meta": META, **elements}


def organization() -> Resource:
    return resource("Organization", name("org"), name="General Hospital", active=True)


def device() -> Resource:
    return resource("Device", name("device"), type={"text": "software"})


def subject(number: int, observations: int = 3) -> list[Resource]:
    """A patient, a stay whose diagnosis refers back to it, and observations."""
    patient = {"reference": f"Patient/{name(number)}"}
    stay, cause = name(number, "stay"), name(number, "cause")
    actor = {"reference": f"Organization/{name('org')}"}
    clinical = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    out = [
        resource("Patient", name(number), gender="female", birthDate="1970-01-02", managingOrganization=actor),
        resource(
            "Encounter",
            stay,
            status="finished",
            **{"class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"}},
            subject=patient,
            period={"start": "2020-01-01T10:00:00Z", "end": "2020-01-03T10:00:00Z"},
            diagnosis=[{"condition": {"reference": f"Condition/{cause}"}}],
            serviceProvider=actor,
        ),
        resource(
            "Condition",
            cause,
            clinicalStatus={"coding": [{"system": clinical, "code": "active"}]},
            code={"coding": [{"system": "http://snomed.info/sct", "code": "44054006"}]},
            subject=patient,
            encounter={"reference": f"Encounter/{stay}"},
        ),
    ]
    for each in range(observations):
        out.append(
            resource(
                "Observation",
                name(number, "obs", each),
                status="final",
                code={"coding": [{"system": "http://loinc.org", "code": "2345-7"}]},
                subject=patient,
                encounter={"reference": f"Encounter/{stay}"},
                effectiveDateTime="2020-01-01T10:05:00Z",
                valueQuantity={
                    "value": 70 + each,
                    "unit": "mg/dL",
                    "system": "http://unitsofmeasure.org",
                    "code": "mg/dL",
                },
            )
        )
    return out


def report(number: int, num_results: int) -> Resource:
    """A report on the observations of a subject."""
    return resource(
        "DiagnosticReport",
        name(number, "report"),
        status="final",
        code={"coding": [{"system": "http://loinc.org", "code": "24323-8"}]},
        subject={"reference": f"Patient/{name(number)}"},
        result=[{"reference": f"Observation/{name(number, 'obs', each)}"} for each in range(num_results)],
    )


def provenance(numbers: range) -> Resource:
    return resource(
        "Provenance",
        name("provenance"),
        target=[{"reference": f"Patient/{name(number)}"} for number in numbers],
        recorded="2025-01-01T00:00:00Z",
        agent=[{"who": {"reference": f"Device/{name('device')}"}}],
    )


def write_folder(folder: Path, num_subjects: int, observations: int = 3) -> list[Resource]:
    """Writes a whole export, and returns its resources."""
    resources = [organization(), device(), provenance(range(num_subjects))]
    for number in range(num_subjects):
        resources += [*subject(number, observations), report(number, observations)]
    write_ndjson(folder, resources)
    return resources


def key(each: Resource) -> str:
    return f"{each['resourceType']}/{each['id']}"
