"""Narratives, vital signs, order in time: what Python checks beside the schema."""

from __future__ import annotations

from typing import Any

import pytest

from medtwin.fhir.checks.chronology import Chronology
from medtwin.fhir.checks.narrative import narrative_fault
from medtwin.fhir.checks.order import UndecidedError, is_certainly_before, is_ordered, moment_bounds
from medtwin.fhir.checks.vital_signs import vital_sign_codes
from medtwin.fhir.validate import validate_resource
from tests.fhir.samples import ENCOUNTER, LOINC, OBSCATEGORY, PATIENT, concept, observation

_UCUM = "http://unitsofmeasure.org"
_ABSENT = concept("http://terminology.hl7.org/CodeSystem/data-absent-reason", "unknown")


def _quantity(value: float, code: str) -> dict[str, Any]:
    return {"value": value, "unit": code, "system": _UCUM, "code": code}


def _vital(code: str, **elements: Any) -> dict[str, Any]:
    base = {"code": concept(LOINC, code), "category": [concept(OBSCATEGORY, "vital-signs")]}
    made = observation(**(base | elements))
    return {name: value for name, value in made.items() if value is not None}


def _component(code: str, value: Any = None, **elements: Any) -> dict[str, Any]:
    quantity = {} if value is None else {"valueQuantity": value}
    return {"code": concept(LOINC, code)} | quantity | elements


_SYSTOLIC = _component("8480-6", _quantity(120, "mm[Hg]"))
_DIASTOLIC = _component("8462-4", _quantity(80, "mm[Hg]"))


def _found(resource: dict[str, Any]) -> set[str]:
    return {each.rule for each in validate_resource(resource, ["schema", "rules"]) if each.severity == "error"}


@pytest.mark.parametrize(
    ("resource", "rules"),
    [
        (_vital("8867-4", valueQuantity=_quantity(72, "/min")), set()),
        (_vital("8867-4", dataAbsentReason=_ABSENT), set()),
        (_vital("8310-5", valueQuantity=_quantity(98.6, "[degF]")), set()),
        (_vital("29463-7", valueQuantity=_quantity(150, "[lb_av]")), set()),
        (_vital("85354-9", component=[_SYSTOLIC, _DIASTOLIC]), set()),
        (_vital("85354-9", component=[_SYSTOLIC, _component("8462-4", dataAbsentReason=_ABSENT)]), set()),
        (_vital("85353-1", hasMember=[{"reference": "Observation/o2"}]), set()),
        (_vital("2345-7", category=None), set()),  # glucose is no vital sign
        (_vital("8867-4", valueQuantity=_quantity(72, "/min"), category=None), {"vital-sign-category"}),
        (
            _vital("8867-4", valueQuantity=_quantity(72, "/min"), category=[concept(OBSCATEGORY, "exam")]),
            {"vital-sign-category"},
        ),
        (_vital("8867-4", valueQuantity=_quantity(72, "/min"), subject=None), {"vital-sign-subject"}),
        (
            _vital("8867-4", valueQuantity=_quantity(72, "/min"), subject={"reference": "Group/g"}),
            {"vital-sign-subject"},
        ),
        (_vital("8867-4", valueQuantity=_quantity(72, "/min"), effectiveDateTime=None), {"vital-sign-effective"}),
        (_vital("8867-4", valueQuantity=_quantity(72, "/min"), effectiveDateTime="2020-03"), {"vs-1"}),
        (_vital("8867-4"), {"vs-2"}),
        (_vital("8867-4", valueString="fast"), {"vital-sign-value"}),
        (_vital("8867-4", valueQuantity=_quantity(72, "Hz")), {"vital-sign-unit"}),
        (_vital("8867-4", valueQuantity={"value": 72, "unit": "/min"}), {"vital-sign-unit"}),
        (_vital("8867-4", valueQuantity={"system": _UCUM, "code": "/min"}), {"vital-sign-value"}),
        (_vital("8310-5", valueQuantity=_quantity(310, "K")), {"vital-sign-unit"}),
        (_vital("85354-9", component=[_SYSTOLIC]), {"vital-sign-component"}),
        (_vital("85354-9", component=[_SYSTOLIC, _component("8462-4")]), {"vs-3"}),
        (
            _vital("85354-9", component=[_SYSTOLIC, _component("8462-4", _quantity(10, "kPa"))]),
            {"vital-sign-unit"},
        ),
        (_vital("85354-9", valueQuantity=_quantity(120, "mm[Hg]")), {"vital-sign-value", "vital-sign-component"}),
        (_vital("85353-1"), {"vs-2", "vital-sign-members"}),
    ],
)
def test_vital_signs_by_their_loinc_code(resource: dict[str, Any], rules: set[str]) -> None:
    assert _found(resource) == rules


def test_the_table_of_vital_signs_is_that_of_r4() -> None:
    assert {code: rules["profile"] for code, rules in vital_sign_codes().items()} == {
        "85353-1": "vitalspanel",
        "9279-1": "resprate",
        "8867-4": "heartrate",
        "2708-6": "oxygensat",
        "8310-5": "bodytemp",
        "8302-2": "bodyheight",
        "9843-4": "headcircum",
        "29463-7": "bodyweight",
        "39156-5": "bmi",
        "85354-9": "bp",
    }
    assert vital_sign_codes()["8310-5"]["units"] == ["Cel", "[degF]"]
    assert vital_sign_codes()["85354-9"]["components"] == {"8462-4": ["mm[Hg]"], "8480-6": ["mm[Hg]"]}


_DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'


@pytest.mark.parametrize(
    "inner",
    [
        "text",
        "<p>a&nbsp;b &amp; c</p>",
        '<table border="1"><tr><td colspan="2">1</td></tr></table>',
        '<img src="#x" alt="a"/>',
        '<a href="http://a.org/">b</a><!-- note -->',
        '<p xml:lang="de">ä</p>',
        "<![CDATA[5 < 6]]>",
    ],
)
def test_safe_narratives(inner: str) -> None:
    assert narrative_fault(_DIV.format(inner)) == ""


@pytest.mark.parametrize(
    ("div", "fault"),
    [
        ("<div>x</div>", "namespace"),
        ("<p xmlns='http://www.w3.org/1999/xhtml'>x</p>", "outermost"),
        (_DIV.format("<script>1</script>"), "plain markup"),
        (_DIV.format("<iframe src='http://a.org'/>"), "plain markup"),
        (_DIV.format("<form><input/></form>"), "plain markup"),
        (_DIV.format("<object/>"), "plain markup"),
        (_DIV.format('<p onclick="f()">x</p>'), "no events"),
        (_DIV.format('<a href=" javascript:f()">x</a>'), "no script"),
        (_DIV.format('<svg xmlns="http://www.w3.org/2000/svg"/>'), "namespace"),
        (_DIV.format("<p>x"), "well-formed"),
        (_DIV.format("&unheard;"), "well-formed"),
        (_DIV.format("  <p> </p>"), "content"),
        (_DIV.format("<?php 1 ?>x"), "processing"),
        ('<!DOCTYPE div [<!ENTITY a "b">]>' + _DIV.format("&a;"), "document type"),
        ("x", "well-formed"),
        ("", "well-formed"),
    ],
)
def test_unsafe_narratives(div: str, fault: str) -> None:
    assert fault in narrative_fault(div)


@pytest.mark.parametrize(
    ("first", "second", "before"),
    [
        ("2020", "2021", True),
        ("2020", "2020", False),
        ("2020-12", "2021", True),
        ("2020", "2020-12-31", False),
        ("2019-12-31", "2020", True),
        ("2020-01-01", "2020-01-01T23:59:59Z", False),
        ("2020-01-01", "2020-01-03T12:00:00Z", True),
        ("2020-01-01T00:00:00+14:00", "2019-12-31T10:00:00Z", False),
        ("2020-01-01T00:00:00+14:00", "2019-12-31T10:00:01Z", True),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z", True),
        ("nonsense", "2020", False),
        ("2020-02-30", "2021-01-01T00:00:00Z", False),
    ],
)
def test_what_is_certainly_before(first: str, second: str, before: bool) -> None:
    assert is_certainly_before(first, second) is before


def test_bounds_of_a_date_span_the_earth() -> None:
    bounds = moment_bounds("2020-02")
    assert bounds is not None
    assert [each.isoformat() for each in bounds] == ["2020-01-31T10:00:00+00:00", "2020-03-01T11:59:59+00:00"]
    assert moment_bounds("0001-01-01") is None  # the calendar begins too late for its first instant


@pytest.mark.parametrize(
    ("low", "high"), [({"value": 1, "code": "g"}, {"value": 2, "code": "mg"}), ("a", 1), (True, 2)]
)
def test_what_is_open_is_undecided(low: Any, high: Any) -> None:
    with pytest.raises(UndecidedError):
        is_ordered(low, high)


def _chronology() -> Chronology:
    made = Chronology()
    made.learn(PATIENT | {"deceasedDateTime": "2020-03-05"})
    made.learn(ENCOUNTER)
    return made


@pytest.mark.parametrize(
    ("elements", "rules"),
    [
        ({"effectiveDateTime": "2020-03-02T08:00:00+01:00"}, set()),
        ({"effectiveDateTime": "2020-03"}, set()),
        ({"effectiveDateTime": "1980-02-01"}, set()),
        ({"effectiveDateTime": "1980-01-31"}, {"before-birth"}),
        ({"effectivePeriod": {"start": "1979"}}, {"before-birth"}),
        ({"effectiveDateTime": "2020-03-06"}, set()),  # the death has a day to be noted
        ({"effectiveDateTime": "2020-03-09"}, {"after-death"}),
        ({"effectiveDateTime": "1970", "status": "entered-in-error"}, set()),
        ({"encounter": {"reference": "Encounter/e1"}, "effectiveDateTime": "2020-03-01T09:15:00+01:00"}, set()),
        (
            {"encounter": {"reference": "Encounter/e1"}, "effectiveDateTime": "2020-03-01T08:15:00+01:00"},
            {"outside-encounter"},
        ),
        ({"encounter": {"reference": "Encounter/e2"}, "effectiveDateTime": "2020-03-01T08:15:00+01:00"}, set()),
        ({"subject": {"reference": "Patient/p2"}, "effectiveDateTime": "1970"}, set()),
        ({"effectiveDateTime": 5, "subject": 6, "encounter": []}, set()),
    ],
)
def test_events_within_a_life_and_an_encounter(elements: dict[str, Any], rules: set[str]) -> None:
    found = _chronology().check(observation(**elements))
    assert {each.rule for each in found} == rules
    assert {each.severity for each in found} <= {"warning"}


def test_a_bundle_has_a_chronology_of_its_own() -> None:
    url = "urn:uuid:0c3a2f3e-61c6-4a1c-8b1b-1f4c8f0a0001"
    late = observation(subject={"reference": url}, effectiveDateTime="1970-01-01")
    bundle = {"resourceType": "Bundle", "entry": [{"fullUrl": url, "resource": PATIENT}, {"resource": late}]}
    made = Chronology()
    made.learn(bundle)
    assert [str(each) for each in made.check(bundle)] == [
        "warning: Observation/o1 effectiveDateTime: an event should not lie before the birth of its subject "
        "[before-birth]"
    ]
