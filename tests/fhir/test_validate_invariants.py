"""The invariants: all of the package's are in the table, and the schema, Python and fhirpathpy agree on them."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema_rs
import pytest

from medtwin.fhir.checks.build_schema import BY_HAND, NOT_EVALUATED
from medtwin.fhir.checks.closures import Place, invariant
from medtwin.fhir.checks.definitions import Definitions, read_definitions
from medtwin.fhir.checks.fhirpath import FhirPathError, parse
from medtwin.fhir.checks.tables import rules_table, schema_table
from tests.fhir.fhirpath_oracle import FOLDER, evaluate_all
from tests.fhir.made import make
from tests.peers import require_peer


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return read_definitions(require_peer("r4_core"))


@cache
def _stated() -> dict[str, list[tuple[str, Any, str]]]:
    """By owner: the invariants that the schema states, each as a validator of its own and as FHIRPath."""
    found: dict[str, list[tuple[str, Any, str]]] = defaultdict(list)
    for entry in rules_table()["invariants"]:
        for owner in entry["places"] if entry["by"] == "schema" else ():
            if "#" not in owner and owner not in ("DomainResource", "Resource"):
                rule = next(each for each in _rules(owner) if each.get("title") == entry["key"])
                validator = jsonschema_rs.Draft7Validator(rule, pattern_options=jsonschema_rs.RegexOptions())
                found[owner].append((entry["key"], validator, entry["expression"]))
    return found


def _rules(owner: str) -> list[dict[str, Any]]:
    rules = schema_table()["definitions"][owner]["allOf"]
    return rules[0]["anyOf"][1]["allOf"] if owner == "Extension" else rules


def _samples(owner: str, number: int) -> Iterator[Any]:
    """Random elements that often have the words which the invariants of their type ask for."""
    rng, words = random.Random(owner), _words(owner)
    for _ in range(number):
        yield make(owner, rng, words)


@cache
def _words(owner: str) -> list[str]:
    expressions = [each["expression"] for each in rules_table()["invariants"] if owner in each["places"]]
    return sorted({word for each in expressions for word in re.findall(r"'([^']+)'", each)})


def test_schema_and_python_agree_on_every_invariant_that_both_can_say() -> None:
    held: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for owner, rules in _stated().items():
        for element in _samples(owner, 3 if all(key.startswith("dom-") for key, _, _ in rules) else 30):
            place = Place(element, element, element)
            for key, validator, expression in rules:
                by_schema = validator.is_valid(element)
                assert by_schema == invariant(expression)(place), (key, element)
                (held if by_schema else broken)[key] += 1
    num_stated = len({key for rules in _stated().values() for key, _, _ in rules})
    assert num_stated > 140
    assert len(held) >= num_stated - 10
    assert len(broken) >= num_stated - 40


_MODIFIED = {"id": "x", "path": "x", "isModifier": True}
_ERROR = [{"system": "http://terminology.hl7.org/CodeSystem/condition-ver-status", "code": "entered-in-error"}]


@pytest.mark.parametrize(
    ("key", "owner", "good", "bad"),
    [  # what random elements seldom break
        ("con-5", "Condition", {"verificationStatus": {"coding": _ERROR}}, {"clinicalStatus": {"text": "a"}}),
        ("eld-12", "ElementDefinition.binding", {"valueSet": "urn:x"}, {"valueSet": "x"}),
        ("eld-16", "ElementDefinition", {"sliceName": "a/b"}, {"sliceName": "a b"}),
        ("eld-18", "ElementDefinition", _MODIFIED | {"isModifierReason": "a"}, {"isModifierReason": None}),
        ("que-12", "Questionnaire.item", {"enableWhen": [{}, {}]}, {"enableWhen": [{}, {}, {}]}),
        ("spd-1", "SearchParameter", {"xpath": "a", "xpathUsage": "normal"}, {"xpathUsage": None}),
        ("dom-4", "Patient", {"contained": [{"id": "a"}]}, {"contained": [{"meta": {"versionId": "1"}}]}),
        (
            "sdf-3",
            "StructureDefinition.snapshot",
            {"element": [{"definition": "a", "min": 0, "max": "1"}]},
            {"element": [{}]},
        ),
        ("ext-1", "Extension", {"url": "urn:x", "valueString": "a"}, {"extension": [{"url": "b"}]}),
        ("obs-6", "Observation", {"valueString": "a"}, {"dataAbsentReason": {"text": "a"}}),
    ],
)
def test_invariants_on_hand_made_elements(key: str, owner: str, good: dict[str, Any], bad: dict[str, Any]) -> None:
    _, validator, expression = next(each for each in _stated()[owner] if each[0] == key)
    for element, holds in ((good, True), ({k: v for k, v in (good | bad).items() if v is not None}, False)):
        assert validator.is_valid(element) is holds
        assert invariant(expression)(Place(element, element, element)) is holds


def test_every_error_of_the_package_is_in_the_table(definitions: Definitions) -> None:
    table = {
        (each["key"], each["expression"], place.partition("#")[0] if "#" not in place else place)
        for each in rules_table()["invariants"]
        for place in each["places"]
    }
    known = {(key, expression) for key, expression, _ in table}
    num_places = 0
    for path, element in definitions.roots.items():
        for each in element.constraints:
            if each.severity == "error" and each.key != "ele-1":
                num_places += 1
                assert (each.key, each.expression) in known, (path, each)
                if each.source in ("", path.partition(".")[0]) and "." in path:
                    owner, _, name = path.rpartition(".")
                    places = {place for key, _, place in table if key == each.key}
                    assert path in places or f"{owner}#{name}" in places, (path, each)
    assert num_places > 1_500


def test_the_table_says_how_each_is_evaluated() -> None:
    by = Counter(each["by"] for each in rules_table()["invariants"])
    assert set(by) <= {"schema", "python", "hand", "nothing"}
    assert {each["key"] for each in rules_table()["invariants"] if each["by"] == "hand"} == set(BY_HAND)
    assert {each["key"] for each in rules_table()["invariants"] if each["by"] == "nothing"} == set(NOT_EVALUATED)
    assert by["schema"] > 140
    for each in rules_table()["invariants"]:
        assert each["by"] == "schema" or each["reason"], each["key"]
        if each["by"] in ("schema", "python"):
            invariant(each["expression"])


# Where R4 means more than FHIRPath says: `not()` of nothing (bdl-8, sdf-8a, sdf-9, sdf-20). Where fhirpathpy does less:
# a path that begins with the type (app-4), `is` of several values or of none (que-7, ras-2).
_OTHERWISE = {"bdl-8", "sdf-8a", "sdf-9", "sdf-20", "app-4", "que-7", "ras-2"}


@pytest.mark.slow
def test_python_agrees_with_fhirpathpy() -> None:
    if not FOLDER.is_dir():
        pytest.skip("needs fhirpathpy: pip install --target .peers/fhirpathpy fhirpathpy==2.2.4")
    questions, ours = [], []
    for entry in rules_table()["invariants"]:
        owner = next((place for place in entry["places"] if "#" not in place), "DomainResource")
        if entry["by"] not in ("schema", "python") or entry["key"] in _OTHERWISE or owner == "DomainResource":
            continue
        for element in _samples(owner, 8):
            root = element if "resourceType" in element else {"resourceType": "Basic"}
            questions.append((element, owner, entry["expression"], root))
            ours.append((entry["key"], invariant(entry["expression"])(Place(element, root, root))))
    answers = evaluate_all(questions)
    compared: Counter[str] = Counter()
    unlike = []
    for (key, held), answer, question in zip(ours, answers, questions, strict=True):
        if answer is not None:
            compared[key] += 1
            if held != (answer == [True]):
                unlike.append((key, held, answer, question))
    assert unlike == []
    assert len(compared) > 150
    assert sum(compared.values()) > 1_000


@pytest.mark.parametrize("text", ["a..b", "a(", "'x", "a = ", "%nothing.x", "a.unheardOf()", "1 2"])
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(FhirPathError):
        invariant(text)


def test_precedence_of_operators() -> None:
    assert parse("a or b and c implies d") == parse("((a or (b and c)) implies d)")
    assert parse("a = b | c") == parse("a = (b | c)")


@pytest.mark.parametrize(
    ("expression", "element", "holds"),
    [
        ("start <= end", {"start": "2020-11-01T01:52:00-04:00", "end": "2020-11-01T01:07:00-05:00"}, True),
        ("start <= end", {"start": "2020-11-01T01:52:00-04:00", "end": "2020-11-01T01:07:00-04:00"}, False),
        ("start <= end", {"start": "2020", "end": "2020-05-01"}, True),  # open, and so held
        ("start <= end", {"start": "2021", "end": "2020-05-01"}, False),
        ("a.exists() xor b.exists()", {"a": 1, "b": 1}, False),
        ("a.select(x).isDistinct()", {"a": [{"x": 1}, {"x": 1}]}, False),
        ("a.all(x > 1)", {"a": [{"x": 2}, {"x": 3}]}, True),
        ("value is Boolean", {"valueBoolean": False}, True),
        ("value is Boolean", {"valueString": "x"}, False),
        ("iif(a.empty(), true, a = 1)", {"a": 2}, False),
        ("b.exists()", {"_b": {"extension": [{"url": "urn:x"}]}}, True),
        ("b.hasValue()", {"_b": {"extension": [{"url": "urn:x"}]}}, False),
        ("descendants().x.isDistinct()", {"a": [{"x": 1, "a": [{"x": 1}]}]}, False),
        ("a.first() = 1 and a.tail().count() = 1", {"a": [1, 2]}, True),
        ("(a | b).count() = 1", {"a": 1, "b": 1}, True),
        ("a & 'c' = 'bc'", {"a": "b"}, True),
        ("a.replaceMatches('\\\\..*', '') = 'x'", {"a": "x.y"}, True),
        ("a contains 2", {"a": [1, 2]}, True),
        ("a = 1", {}, False),  # nothing is not true
    ],
)
def test_hand_computed_expressions(expression: str, element: dict[str, Any], holds: bool) -> None:
    assert invariant(expression)(Place(element, element, element)) is holds
