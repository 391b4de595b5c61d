"""FHIR -> events -> FHIR keeps every coded fact of public data but those that docs/fhir_not_carried.md lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fhir.facts import RoundTrip, documented, facts, lost_facts, not_carried_table, one_patient

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "fhir_not_carried.md"


def test_the_walk_finds_facts_and_their_loss() -> None:
    source = {
        "resourceType": "Observation",
        "id": "1",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "pulse"}], "text": "pulse"},
        "effectiveDateTime": "2020-01-01T12:00:00+01:00",
        "valueQuantity": {"value": 72.5, "unit": "bpm", "code": "/min"},
    }
    found = dict(facts(source))
    assert found == {
        "status": ("code", "final"),
        "code.coding": ("coding", "http://loinc.org", "8867-4"),
        "effectiveDateTime": ("date", "2020-01-01T11:00:00+00:00"),
        "valueQuantity": ("quantity", "np.float32(72.5)", "/min", "bpm"),
    }
    same = source | {"effectiveDateTime": "2020-01-01T11:00:00Z", "valueQuantity": {"value": 72.5, "unit": "bpm"}}
    assert lost_facts(source, same) == {}
    other = source | {"status": "amended", "valueQuantity": {"value": 72.4, "unit": "bpm"}, "code": {}}
    assert lost_facts(source, other) == {"status": 1, "valueQuantity": 1, "code.coding": 1}
    moved = source | {"code": {}, "method": source["code"]}
    assert lost_facts(source, moved) == {}


def test_the_page_is_read_as_it_is_written() -> None:
    trip = RoundTrip()
    trip.lost["Observation", "issued"], trip.facts["Observation", "issued"] = 2, 3000
    assert documented(not_carried_table(trip)) == {("Observation", "issued")}
    assert "| 2 | 3,000 |" in not_carried_table(trip)


@pytest.mark.real
@pytest.mark.parametrize("name", ["mimic4_demo_fhir", "synthea_r4/ndjson", "fhir_examples"])
def test_nothing_else_is_lost_of_a_sample(public_data: Path, tmp_path: Path, name: str) -> None:
    source = public_data / name
    if name != "fhir_examples":
        one_patient(source, tmp_path / "one")
        source = tmp_path / "one"
    trip = RoundTrip()
    trip.run(source)
    assert trip.compared > 20
    assert trip.facts.total() > 5 * trip.compared
    assert set(trip.lost) - documented(PAGE.read_text(encoding="utf-8")) == set()


@pytest.mark.real
@pytest.mark.slow
def test_exactly_what_the_page_lists_is_lost(public_data: Path) -> None:
    trip = RoundTrip()
    for name in ("fhir_examples", "synthea_r4/ndjson", "mimic4_demo_fhir"):
        trip.run(public_data / name)
    assert trip.compared > 350_000
    page = PAGE.read_text(encoding="utf-8")
    assert set(trip.lost) == documented(page)
    assert not_carried_table(trip) in page
