from __future__ import annotations

from typing import Any

import pytest

from medtwin.fhir import validate_references, validate_resource
from tests.fhir.samples import ENCOUNTER, LOINC, PATIENT, SNOMED, concept, observation, resource

_VALUE = {"valueQuantity": {"value": 1}}
_ABSENT = concept("http://terminology.hl7.org/CodeSystem/data-absent-reason", "unknown")


@pytest.mark.parametrize("valid", [PATIENT, ENCOUNTER, observation(**_VALUE)])
def test_valid_resources_have_no_findings(valid: dict[str, Any]) -> None:
    assert validate_resource(valid) == []


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"resourceType": "Hospital"}, "unknown-type"),
        (PATIENT | {"gender": "man"}, "value-set"),
        (PATIENT | {"nmae": []}, "structure"),
        (PATIENT | {"id": "a b"}, "id"),
        (observation(status="done"), "value-set"),
        (observation(**_VALUE, valueString="x"), "structure"),
        (observation(effectiveDateTime="2020-13-01"), "structure"),
        (observation(**_VALUE, dataAbsentReason=_ABSENT), "obs-6"),
        (observation(**_VALUE, component=[{"code": concept(LOINC, "8867-4")}]), "obs-7"),
        (observation(referenceRange=[{"type": _ABSENT}]), "obs-3"),
        (observation(valueQuantity={"value": 1, "code": "mg"}), "qty-3"),
        (observation(specimen={"reference": "Patient/p1"}), "reference-type"),
        (observation(hasMember=[{"reference": "Condition/c1"}]), "reference-type"),
        (observation(subject={"reference": "Encounter/e1"}), "reference-type"),
        (ENCOUNTER | {"period": {"start": "2020-03-05", "end": "2020-03-01"}}, "per-1"),
        (
            resource(
                "Condition",
                code=concept(SNOMED, "1"),
                clinicalStatus=concept("http://terminology.hl7.org/CodeSystem/condition-clinical", "active"),
                abatementDateTime="2020",
            ),
            "con-4",
        ),
        ({"resourceType": "AllergyIntolerance", "id": "a", "patient": {"reference": "Patient/p1"}}, "ait-1"),
    ],
)
def test_each_defect_is_found(broken: dict[str, Any], rule: str) -> None:
    rules = {finding.rule for finding in validate_resource(broken)}
    assert rule in rules


def test_a_period_is_compared_as_instants() -> None:
    period = {"start": "2020-11-01T01:52:00-04:00", "end": "2020-11-01T01:07:00-05:00"}
    assert validate_resource(ENCOUNTER | {"period": period}) == []


def test_messages_repeat_no_value() -> None:
    secret = "Zebediah-4711"
    broken = observation(status=secret, code=secret, nmae=secret, valueQuantity={"value": secret}, **{secret: secret})
    findings = validate_resource(broken)
    assert findings
    assert secret not in "".join(map(str, findings))


def test_references_that_lead_nowhere_and_ids_that_stand_twice() -> None:
    made = [PATIENT, PATIENT, observation(encounter={"reference": "Encounter/gone"})]
    found = {(finding.rule, finding.where, finding.count) for finding in validate_references(made)}
    assert found == {("duplicate-id", "Patient", 1), ("dangling-reference", "Observation to Encounter", 1)}
