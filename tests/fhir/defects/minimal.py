"""A minimal valid resource of every R4 type, worked out from the official definitions.

``python -m tests.fhir.defects.minimal`` prints the bases named ``min.<Type>`` as they stand in ``bases.ndjson``. What a
definition demands is filled in by data type; what its invariants demand beyond that is listed in `INVARIANTS`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.peers import R4_CORE

FHIR = "http://hl7.org/fhir/"
EXAMPLE = "http://example.org/"
VALUES: dict[str, Any] = {
    "base64Binary": "AAEC",
    "boolean": False,
    "canonical": f"{EXAMPLE}fhir/canonical",
    "code": "example",
    "date": "2021-03-04",
    "dateTime": "2021-03-04T05:06:07Z",
    "decimal": 1.5,
    "id": "part-1",
    "instant": "2021-03-04T05:06:07.089Z",
    "integer": 1,
    "markdown": "Text",
    "positiveInt": 1,
    "string": "Text",
    "unsignedInt": 0,
    "uri": f"{EXAMPLE}uri",
    "url": f"{EXAMPLE}url",
    "Attachment": {"contentType": "text/plain", "data": "AAEC"},
    "CodeableConcept": {"coding": [{"system": f"{EXAMPLE}codes", "code": "example"}]},
    "Coding": {"system": f"{EXAMPLE}codes", "code": "example"},
    "Dosage": {"text": "one a day"},
    "ElementDefinition": {"id": "Patient", "path": "Patient"},
    "Expression": {"language": "text/fhirpath", "expression": "true"},
    "Identifier": {"system": f"{EXAMPLE}ids", "value": "1"},
    "Money": {"value": 12.5, "currency": "EUR"},
    "Period": {"start": "2021-03-04", "end": "2021-03-05"},
    "Quantity": {"value": 2, "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"},
    "Ratio": {"numerator": {"value": 1}, "denominator": {"value": 2}},
    "TriggerDefinition": {"type": "named-event", "name": "Start"},
}
CODES = {"mimetypes": "application/fhir+json", "ucum-units": "mg"}
ACTIVE = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}]}
INVARIANTS: dict[str, dict[str, Any]] = {
    "AllergyIntolerance": {"clinicalStatus": ACTIVE},
    "Appointment": {"participant": [{"actor": {"reference": "Patient/p1"}, "status": "accepted"}]},
    "AppointmentResponse": {"actor": {"reference": "Patient/p1"}},
    "Bundle": {"type": "collection"},
    "CapabilityStatement": {
        "kind": "requirements",
        "description": "Text",
        "rest": [{"mode": "server"}],
        "fhirVersion": "4.0.1",
    },
    "Consent": {"policyRule": VALUES["CodeableConcept"], "patient": {"reference": "Patient/p1"}},
    "ImmunizationRecommendation": {
        "recommendation": [
            {"vaccineCode": [VALUES["CodeableConcept"]], "forecastStatus": VALUES["CodeableConcept"]},
        ]
    },
    "ImplementationGuide": {"fhirVersion": ["4.0.1"]},
    "InsurancePlan": {"name": "plan"},
    "Linkage": {
        "item": [
            {"type": "source", "resource": {"reference": "Patient/p1"}},
            {"type": "alternate", "resource": {"reference": "Patient/p2"}},
        ]
    },
    "NutritionOrder": {"oralDiet": {"instruction": "soft food"}},
    "Organization": {"name": "hospital"},
    "StructureDefinition": {
        "kind": "resource",
        "type": "Patient",
        "baseDefinition": f"{FHIR}StructureDefinition/Patient",
        "derivation": "constraint",
        "differential": {"element": [{"id": "Patient", "path": "Patient"}]},
    },
    "TerminologyCapabilities": {"kind": "requirements", "description": "Text"},
}


class Definitions:
    """The official definitions, read from the unpacked package of hl7.fhir.r4.core."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_url: dict[str, Path] = {}
        for path in sorted([*folder.glob("ValueSet-*.json"), *folder.glob("CodeSystem-*.json")]):
            found = json.loads(path.read_bytes())
            self.by_url.setdefault(found.get("url", ""), path)

    def types(self) -> list[str]:
        """The resource types that are not abstract."""
        names = []
        for path in sorted(self.folder.glob("StructureDefinition-*.json")):
            found = json.loads(path.read_bytes())
            if found["kind"] == "resource" and found.get("derivation") == "specialization" and not found["abstract"]:
                names.append(found["type"])
        return names

    def first_code(self, url: str) -> tuple[str, str]:
        """System and code of one member of a value set."""
        name = url.split("|")[0]
        if name.rsplit("/", 1)[-1] in CODES:
            return "", CODES[name.rsplit("/", 1)[-1]]
        include = json.loads(self.by_url[name].read_bytes())["compose"]["include"][0]
        if "valueSet" in include:
            return self.first_code(include["valueSet"][0])
        concepts = include.get("concept") or json.loads(self.by_url[include["system"]].read_bytes())["concept"]
        return include["system"], concepts[0]["code"]

    def minimal(self, kind: str) -> dict[str, Any]:
        """The resource with what is required, and nothing else."""
        snapshot = json.loads((self.folder / f"StructureDefinition-{kind}.json").read_bytes())["snapshot"]["element"]
        resource = {"resourceType": kind, "id": f"min-{kind.lower()}"}
        return resource | self._children(kind, snapshot) | INVARIANTS.get(kind, {})

    def _children(self, parent: str, snapshot: list[dict[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for element in snapshot:
            path, name = element["path"].rpartition(".")[::2]
            if path != parent or element["min"] == 0:
                continue
            value = self._value(element, snapshot)
            kind = element.get("type", [{"code": ""}])[0]["code"]
            name = name.replace("[x]", kind[:1].upper() + kind[1:])
            made[name] = value if element["base"]["max"] == "1" else [value]
        return made

    def _value(self, element: dict[str, Any], snapshot: list[dict[str, Any]]) -> Any:
        if "contentReference" in element:
            return self._children(element["contentReference"][1:], snapshot)
        kind = element["type"][0]
        binding = element.get("binding", {})
        if binding.get("strength") == "required":
            system, code = self.first_code(binding["valueSet"])
            coding = {"system": system, "code": code}
            return {"code": code, "Coding": coding, "CodeableConcept": {"coding": [coding]}}[kind["code"]]
        if kind["code"] == "Reference":
            target = kind.get("targetProfile", ["Resource"])[0].rsplit("/", 1)[-1]
            return {"reference": f"{'Patient' if target == 'Resource' else target}/x1"}
        if kind["code"] in ("BackboneElement", "Element"):
            return self._children(element["path"], snapshot)
        return VALUES[kind["code"]]


def main() -> None:
    """Prints a line for each type."""
    definitions = Definitions(R4_CORE)
    for kind in definitions.types():
        print(json.dumps({"base": f"min.{kind}", "resource": definitions.minimal(kind)}))  # noqa: T201


if __name__ == "__main__":
    main()
