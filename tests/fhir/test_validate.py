from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from medtwin.core.findings import errors_in
from medtwin.fhir.checks.documents import documents
from medtwin.fhir.reading.source import FhirSource
from medtwin.fhir.validate import LAYERS, ReferenceBook, Validation, validate_references, validate_resource
from tests.fhir.samples import ENCOUNTER, LOINC, PATIENT, SNOMED, concept, observation, resource

_VALUE = {"valueQuantity": {"value": 1}}
_ABSENT = concept("http://terminology.hl7.org/CodeSystem/data-absent-reason", "unknown")
_ACTIVE = concept("http://terminology.hl7.org/CodeSystem/condition-clinical", "active")
_GLUCOSE = {"code": concept(LOINC, "2345-7")}
_XHTML = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'


def _observation(**elements: Any) -> dict[str, Any]:
    return observation(**(_GLUCOSE | elements))


def _rules(found: list[Any]) -> set[str]:
    return {finding.rule for finding in found}


@pytest.mark.parametrize("valid", [PATIENT, ENCOUNTER, _observation(**_VALUE)])
def test_valid_resources_have_no_findings(valid: dict[str, Any]) -> None:
    assert validate_resource(valid) == []


@pytest.mark.parametrize(
    ("broken", "rule", "layer"),
    [
        ({"resourceType": "Hospital"}, "unknown-type", "schema"),
        ([], "unknown-type", "schema"),
        (PATIENT | {"gender": "man"}, "value-set", "schema"),
        (PATIENT | {"nmae": []}, "unknown-element", "schema"),
        (PATIENT | {"nmae": []}, "structure", "models"),
        (PATIENT | {"id": "a b"}, "id", "schema"),
        (PATIENT | {"active": "true"}, "json-type", "schema"),
        (PATIENT | {"active": None}, "empty", "schema"),
        (PATIENT | {"name": [{}]}, "empty", "schema"),
        (PATIENT | {"name": [{"given": [None]}]}, "empty", "schema"),
        (PATIENT | {"deceasedBoolean": True, "deceasedDateTime": "2020"}, "choice", "schema"),
        (PATIENT | {"birthDate": "2021-02-29"}, "format", "schema"),
        (PATIENT | {"multipleBirthInteger": 1.0}, "json-type", "rules"),
        (PATIENT | {"birthDate": "2020-01-02", "deceasedDateTime": "2019"}, "death-before-birth", "rules"),
        (PATIENT | {"identifier": [{"system": "mrn", "value": "1"}]}, "absolute-uri", "schema"),
        (PATIENT | {"extension": [{"url": "short", "valueString": "a"}]}, "absolute-uri", "schema"),
        (PATIENT | {"contained": [{"resourceType": "Organization", "id": "o", "name": "x"}]}, "dom-3", "rules"),
        (PATIENT | {"managingOrganization": {"reference": "#o"}}, "ref-1", "rules"),
        (PATIENT | {"text": {"status": "generated", "div": "<div>x</div>"}}, "txt-1", "rules"),
        (_observation(status="done"), "value-set", "schema"),
        ({k: v for k, v in _observation().items() if k != "status"}, "missing-element", "schema"),
        (_observation(**_VALUE, valueString="x"), "choice", "schema"),
        (_observation(effectiveDateTime="2020-13-01"), "format", "schema"),
        (_observation(**_VALUE, dataAbsentReason=_ABSENT), "obs-6", "schema"),
        (_observation(**_VALUE, component=[_GLUCOSE]), "obs-7", "rules"),
        (_observation(referenceRange=[{"type": _ABSENT}]), "obs-3", "schema"),
        (_observation(referenceRange=[{"low": {"value": 2}, "high": {"value": 1}}]), "range-order", "rules"),
        (_observation(valueRange={"low": {"value": 2}, "high": {"value": 1}}), "rng-2", "rules"),
        (_observation(valueQuantity={"value": 1, "code": "mg"}), "qty-3", "schema"),
        (_observation(valueQuantity={"value": float("nan")}), "empty", "schema"),
        (_observation(valueQuantity={"system": "http://unitsofmeasure.org", "code": "mmHg"}), "ucum", "rules"),
        (_observation(specimen={"reference": "Patient/p1"}), "reference-type", "schema"),
        (_observation(hasMember=[{"reference": "Condition/c1"}]), "reference-type", "schema"),
        (_observation(subject={"reference": "http://a.org/fhir/Encounter/e1"}), "reference-type", "rules"),
        (_observation(subject={"reference": "Patient/p1", "type": "Group"}), "reference-type", "rules"),
        (ENCOUNTER | {"period": {"start": "2020-03-05", "end": "2020-03-01"}}, "per-1", "rules"),
        (
            resource("Condition", abatementDateTime="2020", clinicalStatus=_ACTIVE),
            "con-4",
            "schema",
        ),
        ({"resourceType": "AllergyIntolerance", "patient": {"reference": "Patient/p1"}}, "ait-1", "schema"),
        (resource("Condition", clinicalStatus=concept(SNOMED, "active")), "value-set", "schema"),
        (resource("Media", content={"contentType": "a/b", "data": "aGk=", "size": 3}), "attachment-size", "rules"),
        (resource("ImagingStudy", numberOfSeries=0, series=[{"uid": "1.2"}]), "too-many-parts", "rules"),
        (resource("PlanDefinition", library=["#gone"]), "ref-1", "rules"),
        (resource("Slot", start="2020-01-01T10:00:00Z", end="2020-01-01T09:00:00Z"), "date-order", "rules"),
    ],
)
def test_each_defect_is_found_by_its_layer(broken: Any, rule: str, layer: str) -> None:
    assert rule in _rules(validate_resource(broken, [layer]))
    assert rule in _rules(validate_resource(broken))


def test_a_layer_that_is_not_asked_for_does_not_run() -> None:
    assert _rules(validate_resource(PATIENT | {"gender": "man", "birthDate": 1}, ["rules"])) == set()
    assert "structure" in _rules(validate_resource(PATIENT | {"birthDate": "x"}, ["models"]))


@pytest.mark.parametrize(
    ("start", "end", "rules"),
    [
        ("2020-11-01T01:52:00-04:00", "2020-11-01T01:07:00-05:00", set()),  # the clock went back: 15 minutes passed
        ("2020-11-01T01:52:00-04:00", "2020-11-01T01:07:00-04:00", {"per-1"}),
        ("2020-03-08T23:00:00-10:00", "2020-03-09T10:00:00+14:00", {"per-1"}),
        ("2020-03-01", "2020-03-01", set()),
        ("2020", "2020-05-01", {"period-precision"}),
        ("2021", "2020-05-01", {"per-1"}),
        ("2020-03-02", "2020-03-01T12:00:00Z", {"period-precision"}),  # it is the 2nd in Kiritimati
    ],
)
def test_a_period_is_compared_as_instants(start: str, end: str, rules: set[str]) -> None:
    assert _rules(validate_resource(ENCOUNTER | {"period": {"start": start, "end": end}})) == rules


def test_messages_and_paths_repeat_no_value() -> None:
    secret = "Zebediah-4711"
    broken = _observation(
        status=secret,
        code=secret,
        nmae=secret,
        valueQuantity={"value": secret, secret: secret},
        subject={"reference": f"{secret}/{secret}"},
        text={"status": "generated", "div": f"<div><{secret}/></div>"},
        contained=[{"resourceType": secret, "id": secret}, {"resourceType": "Patient", "id": "a", secret: secret}],
        **{secret: secret},
    )
    findings = validate_resource(broken | {"id": f"{secret} "})
    assert len(findings) > 8
    assert secret not in "".join(map(str, findings))
    assert any(finding.where == "Observation contained[1].?" for finding in findings)


def test_resources_within_resources_are_checked_with_their_paths() -> None:
    inner = {"resourceType": "Patient", "gender": "man"}
    entry = {"resource": inner, "request": {"method": "POST", "url": "Patient"}}
    bundle = {"resourceType": "Bundle", "id": "b", "type": "transaction", "entry": [entry]}
    parameters = {
        "resourceType": "Parameters",
        "parameter": [{"name": "a", "part": [{"name": "b", "resource": inner}]}],
    }
    found = {finding.where for each in (bundle, parameters) for finding in validate_resource(each, ["schema"])}
    assert found == {"Bundle/b entry[0].resource.gender", "Parameters parameter[0].part[0].resource.gender"}


def _bundle(*entries: dict[str, Any], kind: str = "collection") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


_URN = "urn:uuid:0c3a2f3e-61c6-4a1c-8b1b-1f4c8f0a0001"
_OF_URN = _observation(subject={"reference": _URN})


@pytest.mark.parametrize(
    ("bundle", "rules"),
    [
        (
            _bundle({"fullUrl": _URN, "resource": PATIENT}, {"resource": _observation(subject={"reference": _URN})}),
            set(),
        ),
        (_bundle({"resource": _observation(subject={"reference": _URN})}), {"dangling-reference"}),
        (
            _bundle({"fullUrl": _URN, "resource": ENCOUNTER}, {"resource": _OF_URN}),
            {"reference-type"},
        ),
        (_bundle({"fullUrl": "http://a.org/Patient/p1", "resource": PATIENT}), set()),
        (_bundle({"fullUrl": "http://a.org/Patient/p2", "resource": PATIENT}), {"full-url"}),
        (_bundle({"fullUrl": "Patient/p1", "resource": PATIENT}), {"absolute-uri"}),
        (_bundle({"fullUrl": _URN, "resource": PATIENT}, {"fullUrl": _URN, "resource": PATIENT}), {"bdl-7"}),
        (_bundle({"resource": PATIENT}, kind="transaction"), {"bdl-3"}),
        (
            _bundle({"resource": PATIENT, "request": {"method": "PUT", "url": "Patient/p2"}}, kind="transaction"),
            {"bundle-request"},
        ),
        (
            _bundle({"resource": PATIENT, "request": {"method": "PUT", "url": "Patient?identifier=a"}}, kind="batch"),
            set(),
        ),
        (_bundle({"resource": PATIENT}, kind="document"), {"bdl-9", "bdl-10", "bdl-11"}),
    ],
)
def test_bundles(bundle: dict[str, Any], rules: set[str]) -> None:
    assert _rules(validate_resource(bundle, ["schema", "rules"])) == rules


def test_contained_resources_know_their_container() -> None:
    device = {"resourceType": "Device", "id": "d", "patient": {"reference": "#"}}
    assert validate_resource(PATIENT | {"contained": [device]}) == []
    organization = {"resourceType": "Organization", "id": "o", "name": "x", "partOf": {"reference": "#p"}}
    parent = {"resourceType": "Organization", "id": "p", "name": "y"}
    good = PATIENT | {"contained": [organization, parent], "managingOrganization": {"reference": "#o"}}
    assert validate_resource(good) == []
    wrong = good | {"managingOrganization": {"reference": "#d"}, "contained": [device | {"meta": {"versionId": "1"}}]}
    assert _rules(validate_resource(wrong, ["schema", "rules"])) == {"reference-type", "dom-4"}
    twice = good | {"contained": [organization, organization | {"name": "z"}, parent]}
    assert "duplicate-id" in _rules(validate_resource(twice, ["rules"]))


def _reshape(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    made = copy.deepcopy(_observation(**_VALUE))
    change(made)
    return made


@pytest.mark.parametrize(
    "hostile",
    [
        {"resourceType": "Patient", 1: 2},
        {"resourceType": "Patient", "active": {1, 2}},
        {"resourceType": "Patient", "gender": "\ud800"},
        {"resourceType": ["Patient"]},
        {"resourceType": "Bundle", "type": "batch", "entry": [None, 1, [], {"resource": []}, {"resource": {}}]},
        {"resourceType": "Patient", "contained": [None, [], {"id": {}}, 7]},
        {"resourceType": "Parameters", "parameter": [None, {"part": [1]}]},
        {"resourceType": "ValueSet", "compose": {"include": 3}, "expansion": [{}]},
        {"resourceType": "Questionnaire", "item": [{"linkId": {}}, 5]},
        {"resourceType": "StructureDefinition", "snapshot": {"element": [1]}, "differential": []},
        {"resourceType": "Task", "lastModified": 1, "authoredOn": {}},
        _reshape(lambda each: each.update(component=5, referenceRange=[5], valueRange={"low": 1, "high": "a"})),
    ],
)
def test_hostile_shapes_give_findings_and_no_crash(hostile: Any) -> None:
    assert errors_in(validate_resource(hostile))


def test_deep_nesting_and_long_lists_are_survived() -> None:
    deep: dict[str, Any] = {"resourceType": "Patient"}
    inner = deep
    for _ in range(3_000):
        inner["extension"] = [{"url": "http://a.org/b"}]
        inner = inner["extension"][0]
    assert errors_in(validate_resource(deep, ["schema", "rules"]))
    began = time.process_time()
    many = PATIENT | {"name": [{"family": ""}] * 20_000}
    assert 0 < len(validate_resource(many, ["schema", "rules"])) <= 100
    assert time.process_time() - began < 5


def test_a_validation_counts_by_rule_and_type() -> None:
    validation = Validation(sample=2, first=1)
    broken = _observation() | {"id": "o2", "status": "done"}
    for each in (PATIENT, _observation(), broken, broken | {"id": "o3"}, {"resourceType": "X"}, 5):
        validation.add(each)
    report = validation.to_dict()
    assert report["resources"] == {"Observation": 3, "Patient": 1, "unknown": 2}
    assert report["checked"] == {"schema": 4, "rules": 4, "models": 3}
    assert validation.num_errors == report["errors"] == 4
    found = {(each["rule"], each["type"]): (each["count"], each["first"]) for each in report["findings"]}
    assert found[("value-set", "Observation")] == (2, ["Observation/o2 status", "Observation/o3 status"])
    assert found[("unknown-type", "unknown")][0] == 2
    assert json.loads(json.dumps(report)) == report
    assert [each.count for each in validation.findings() if each.rule == "value-set"] == [2]


@pytest.mark.parametrize("layers", [(), ("schema", "spelling")])
def test_a_validation_refuses_layers_that_are_none(layers: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="layers must be some of schema, rules, models"):
        Validation(layers=layers)


def test_layers_are_named_in_order() -> None:
    assert LAYERS == ("schema", "rules", "models")
    assert _rules(validate_resource({"resourceType": "MedicinalProduct", "name": [{"productName": "a"}]})) == {
        "unchecked-type"
    }


def test_models_of_r4b_are_not_asked_about_what_r4_means_by_another_name() -> None:
    evidence = {"resourceType": "Evidence", "id": "e", "status": "draft"}
    evidence["exposureBackground"] = {"reference": "EvidenceVariable/v"}
    for each in (evidence, {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": evidence}]}):
        assert {(found.rule, found.severity) for found in validate_resource(each)} == {
            ("unchecked-type", "information")
        }


def test_references_that_lead_nowhere_and_ids_that_stand_twice() -> None:
    made = [PATIENT, PATIENT, _observation(encounter={"reference": "Encounter/gone"})]
    found = {(finding.rule, finding.where, finding.count) for finding in validate_references(made)}
    assert found == {("duplicate-id", "Patient", 1), ("dangling-reference", "Observation to Encounter", 1)}


def test_a_reference_book_names_the_first_and_knows_every_form() -> None:
    book = ReferenceBook()
    good = ["Patient/p1", "Patient/p1/_history/2", "http://a.org/fhir/Patient/p1", "#x", _URN, "Patient?name=a"]
    for number, text in enumerate([*good, "Patient/p2", "Strange/1"]):
        book.add_resource(resource("Basic", f"b{number}", subject={"reference": text}))
    book.add_resource(_bundle({"resource": PATIENT}))
    found = [(each.place, each.count, each.first) for each in book.dangling()]
    assert found == [("Basic to Patient", 1, ["Basic/b6"]), ("Basic to unknown", 1, ["Basic/b7"])]


def test_a_reference_book_stays_small() -> None:
    book = ReferenceBook()
    for number in range(300_000):
        book.add({"resourceType": "Basic", "id": f"b{number}"}, [{"reference": f"Patient/p{number % 10}"}])
    assert book.duplicates() == {}
    (lost,) = book.dangling()
    assert (lost.place, lost.count, len(lost.first)) == ("Basic to Patient", 300_000, 5)
    assert sum(len(tally.values) for tally in book._wanted.values()) == 10


def test_documents_are_read_whole_or_rejected(tmp_path: Any) -> None:
    (tmp_path / "a.ndjson").write_bytes(b'\xef\xbb\xbf{"resourceType":"Patient"}\n\n{"a": NaN}\n[1]\n')
    (tmp_path / "b.json").write_text(json.dumps(_bundle({"resource": PATIENT}), indent=2))
    (tmp_path / "c.json.gz").write_bytes(b"\x1f\x8b\x08broken")
    found = list(documents(FhirSource(tmp_path)))
    kinds = [each["resourceType"] if isinstance(each, dict) else each.rule for each in found]
    assert kinds == ["Patient", "malformed-json", "malformed-json", "Bundle", "truncated-gzip"]
