from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtwin.core.codes import SYSTEMS, is_clinical, join_code, preferred, split_code, system_name, system_uri
from medtwin.core.units import SYNONYMS, convert, is_ucum, to_ucum


@pytest.mark.parametrize(
    "uri", [*SYSTEMS.values(), "https://a.org/x", "http://b.org/y", "urn:oid:1.2.3", "http://host/z"]
)
def test_every_system_name_reads_back_as_its_uri(uri: str) -> None:
    assert system_uri(system_name(uri)) == uri
    assert "//" not in system_name(uri)


@given(st.sampled_from([*SYSTEMS.values(), "http://mimic.mit.edu/fhir/x"]), st.text("ab1/- ", min_size=1))
def test_a_coding_survives_the_round_trip(uri: str, code: str) -> None:
    assert split_code(join_code(uri, code)) == (uri, code)


def test_foreign_codes_are_local_systems() -> None:
    assert split_code("LAB//50912//mg/dL") == ("urn:medtwin:code:LAB", "50912//mg/dL")
    assert split_code("UNSEPARATED") == ("urn:medtwin:code", "UNSEPARATED")
    assert join_code(None, "x") == "LOCAL//x"


def test_the_preferred_code_is_the_one_most_tools_know() -> None:
    assert preferred(["NDC//1", "RXNORM//2"]) == "RXNORM//2"
    assert preferred(["a.org/x//1", "b.org/y//2"]) == "a.org/x//1"
    with pytest.raises(ValueError, match="at least one"):
        preferred([])


def test_details_and_negations_are_not_clinical_events() -> None:
    assert is_clinical("LOINC//4548-4")
    assert not is_clinical("FHIR//Observation.category//x")
    assert not is_clinical("NEGATED//SNOMED//44054006")


def test_every_synonym_is_ucum() -> None:
    assert [unit for unit in SYNONYMS.values() if not is_ucum(unit)] == []


@pytest.mark.parametrize("unit", ["units", "", "%%", "foo/bar", "MG", "G", "ML", "C"])
def test_what_has_no_single_meaning_stays_unknown(unit: str) -> None:
    assert to_ucum(unit) is None


def test_blanks_around_a_unit_are_no_part_of_it() -> None:
    assert not is_ucum(" mg")
    assert to_ucum(" mg ") == "mg"


@pytest.mark.parametrize(
    ("value", "unit", "to", "expected"),
    [(98.6, "[degF]", "Cel", 37.0), (1, "[lb_av]", "kg", 0.45359237), (90, "mg/dL", "g/L", 0.9), (5, "%", "1", 0.05)],
)
def test_conversions(value: float, unit: str, to: str, expected: float) -> None:
    assert convert(value, unit, to) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("unit", "to"), [("mg/dL", "mmol/L"), ("[pH]", "kg"), ("{score}", "kg"), ("kg", "m"), ("nope", "kg")]
)
def test_what_measures_different_things_is_not_converted(unit: str, to: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be converted|must be UCUM"):
        convert(1.0, unit, to)
