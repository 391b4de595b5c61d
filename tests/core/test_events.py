from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtwin.core.events import (
    EVENT_SCHEMA,
    Event,
    events_to_table,
    is_event,
    shortest_decimal,
    sort_events,
    split_child_code,
    table_to_events,
    validate_events,
)

NOON = datetime(2020, 5, 1, 12)


def lab(subject: int = 1, event_id: str = "a", time: datetime = NOON, **more: object) -> Event:
    values = {"numeric_value": 7.1, "unit": "%", "event_id": event_id, "resource": "Observation", "status": "final"}
    return Event(subject, time, "LOINC//4548-4", **{**values, **more})  # type: ignore[arg-type]


def test_a_child_repeats_its_event_and_names_its_element() -> None:
    child = lab(encounter_id="e").child("category", "OBSCATEGORY//laboratory")
    assert child.code == "FHIR//Observation.category//OBSCATEGORY//laboratory"
    assert (child.parent_id, child.encounter_id, child.time, child.status) == ("a", "e", NOON, "final")
    assert child.numeric_value is None
    assert split_child_code(child.code) == ("Observation", "category", "OBSCATEGORY//laboratory")


def test_canonical_order_does_not_depend_on_the_order_of_the_source() -> None:
    encounter = Event(1, NOON, "ENCOUNTER//AMB", event_id="z", resource="Encounter")
    rows = [
        Event(1, None, "GENDER//F", resource="Patient"),
        Event(1, datetime(1950, 1, 1), "MEDS_BIRTH", resource="Patient"),
        encounter,
        encounter.child("class", "ACTCODE//AMB"),
        lab(),
        lab().child("category", "OBSCATEGORY//laboratory"),
        lab().child("interpretation", "INTERPRETATION//H"),
        lab(event_id="b"),
        Event(1, NOON, "MEDS_DEATH", resource="Patient"),
        lab(subject=2, event_id="c"),
    ]
    wanted = events_to_table(rows)
    assert sort_events(events_to_table([*rows[5:], *rows[:5]])).equals(wanted)
    assert sort_events(wanted).equals(wanted)
    assert validate_events(wanted) == []


def test_children_of_a_component_stay_with_its_event() -> None:
    panel = Event(1, NOON, "LOINC//85354-9", event_id="p", resource="Observation")
    systolic = Event(1, NOON, "LOINC//8480-6", event_id="p.0", parent_id="p", resource="Observation")
    rows = [panel, systolic, systolic.child("component.interpretation", "INTERPRETATION//H"), lab(event_id="q")]
    assert table_to_events(sort_events(events_to_table([rows[3], *rows[:3]]))) == rows


@pytest.mark.parametrize(
    ("rows", "rule"),
    [
        ([lab(event_id="a", time=NOON), lab(event_id="b", time=datetime(2019, 1, 1))], "unsorted"),
        ([lab(subject=1), lab(subject=2, event_id="b"), lab(subject=1, event_id="c")], "unsorted"),
        ([lab(), lab()], "duplicate-event"),
        ([lab(parent_id="nowhere")], "orphan-child"),
        ([lab(end_time=datetime(2020, 4, 30))], "ends-before-start"),
        ([lab(numeric_value=float("inf"))], "infinite-value"),
        ([Event(1, NOON, "")], "empty-code"),
        ([Event(1, NOON, "MEDS_BIRTH"), Event(1, NOON, "MEDS_BIRTH")], "several-births"),
        ([Event(1, NOON, "MEDS_DEATH"), Event(1, NOON, "MEDS_DEATH")], "several-deaths"),
    ],
)
def test_each_rule_is_found(rows: list[Event], rule: str) -> None:
    assert rule in [finding.rule for finding in validate_events(events_to_table(rows))]


def test_a_float64_value_and_a_large_string_code_are_refused() -> None:
    table = events_to_table([lab()])
    doubles = table.set_column(3, "numeric_value", table["numeric_value"].cast(pa.float64()))
    large = table.set_column(2, "code", table["code"].cast(pa.large_string()))
    assert [f.rule for f in validate_events(doubles)] == ["meds-schema"]
    assert [f.rule for f in validate_events(large)] == ["meds-schema"]


def test_a_bare_meds_table_is_valid_and_a_wrong_extra_type_is_not() -> None:
    table = events_to_table([lab()]).select(["subject_id", "time", "code", "numeric_value", "text_value"])
    assert validate_events(table) == []
    assert [f.rule for f in validate_events(table.append_column("unit", pa.array([1])))] == ["column-type"]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_decimal_reads_back_as_the_same_float32(value: float) -> None:
    assert np.float32(shortest_decimal(value)) == np.float32(value)


def test_the_shortest_decimal_is_what_was_written() -> None:
    assert [repr(shortest_decimal(float(np.float32(x)))) for x in (7.1, 98.6, 0.1, 120.0)] == [
        "7.1",
        "98.6",
        "0.1",
        "120.0",
    ]


def test_events_are_told_from_their_details() -> None:
    rows = [lab(), lab().child("category", "OBSCATEGORY//laboratory"), Event(1, None, "GENDER//F")]
    assert is_event(events_to_table(rows)).to_pylist() == [True, False, True]
    assert EVENT_SCHEMA.names[:5] == ["subject_id", "time", "code", "numeric_value", "text_value"]
