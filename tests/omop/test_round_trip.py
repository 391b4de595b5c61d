from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medtwin.core.events import Event, events_to_table, shortest_decimal, sort_events, validate_events
from medtwin.omop import write_database
from tests.omop.samples import (
    BIRTH,
    STAY,
    clinical,
    dataset_of,
    export,
    read_back,
    record,
    write_athena,
)

_FACT = ("time", "code", "numeric_value", "text_value", "unit", "source_unit", "end_time", "resource")


def facts(events: list[Event], *without: str) -> Counter[tuple[Any, ...]]:
    """What events say, without ids; references and codes of child rows named in `without` are left out."""
    kept = [event for event in events if not any(word in event.code for word in without)]
    return Counter(
        tuple(getattr(event, name) for name in _FACT)
        if "partOf" not in event.code
        else (event.time, event.code, event.resource)
        for event in kept
    )


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    export(dataset_of(tmp_path / "d", record()), tmp_path / "o", details="observations")
    events, ledger, reader = read_back(tmp_path / "o")
    assert reader.is_ours
    assert facts(events) == facts(record())
    assert not ledger.imbalance()
    assert not ledger.rejects
    assert not ledger.elements_not_carried
    assert not validate_events(sort_events(events_to_table(events)))
    by_code = {event.code: event for event in events}
    panel, systolic = by_code["LOINC//85354-9"], by_code["LOINC//8480-6"]
    assert systolic.parent_id == panel.event_id
    assert systolic.event_id == f"{panel.event_id}.2"
    assert panel.encounter_id == by_code[STAY.code].event_id
    assert by_code["FHIR//Encounter.partOf"].text_value == by_code[STAY.code].event_id
    assert by_code["MEDS_BIRTH"].time_precision == "month"


def test_without_details_only_what_the_books_name_is_missing(tmp_path: Path) -> None:
    books = export(dataset_of(tmp_path / "d", record()), tmp_path / "o")
    events, _, _ = read_back(tmp_path / "o")
    missing = facts(record()) - facts(events)
    assert sum(missing.values()) == sum(books.not_carried.values()) == 4
    assert not facts(events) - facts(record())


def test_a_database_holds_the_same(tmp_path: Path) -> None:
    export(dataset_of(tmp_path / "d", record()), tmp_path / "o", details="observations")
    write_database(tmp_path / "o", tmp_path / "cdm.duckdb")
    assert read_back(tmp_path / "cdm.duckdb")[0] == read_back(tmp_path / "o")[0]


def test_a_code_that_says_two_things_comes_back_once(tmp_path: Path) -> None:
    twice = [clinical("ICD10CM//E11.21", "Condition", "c5"), clinical("ICD10CM//Z83.3", "Condition", "c6")]
    dataset = dataset_of(tmp_path / "d", [*record(), *twice])
    export(dataset, tmp_path / "o", vocab=write_athena(tmp_path / "a"), details="observations")
    events, ledger, _ = read_back(tmp_path / "o")
    assert facts(events) == facts([*record(), *twice])
    assert ledger.not_carried["measurement"] == 1
    assert not ledger.imbalance()


def test_references_and_dates_in_details_follow_their_person(tmp_path: Path) -> None:
    report = clinical("LOINC//24627-2", "DiagnosticReport", "r1")
    glucose = clinical("LOINC//2345-7", "Observation", "o2")
    events = [
        BIRTH,
        glucose,
        glucose.child("valueDateTime", text_value="2020-03-01T23:30:00-05:00"),
        report,
        report.child("result", text_value="o2"),
        report.child("conclusionCode", "SNOMED//233604007"),
    ]
    export(dataset_of(tmp_path / "d", events), tmp_path / "o", details="observations")
    found, ledger, reader = read_back(tmp_path / "o", weeks=52)
    by_code = {event.code: event for event in found}
    shift = by_code["LOINC//2345-7"].time - glucose.time  # type: ignore[operator]
    moved = datetime(2020, 3, 1) + shift
    assert by_code["FHIR//Observation.valueDateTime"].text_value == f"{moved:%Y-%m-%d}T23:30:00-05:00"
    assert by_code["FHIR//DiagnosticReport.result"].text_value == by_code["LOINC//2345-7"].event_id
    assert by_code["FHIR//DiagnosticReport.conclusionCode//SNOMED//233604007"].parent_id == (
        by_code["LOINC//24627-2"].event_id
    )
    assert by_code["LOINC//24627-2"].text_value is None
    assert not ledger.elements_not_carried
    assert reader.persons.shift_days.tolist() == [shift.days]


_TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)).map(lambda each: each.replace(microsecond=0))
_NUMBERS = st.floats(-1e6, 1e6, width=32, allow_nan=False).map(lambda number: shortest_decimal(number) + 0.0)
_KINDS = st.sampled_from(
    [
        ("Condition", "SNOMED//44054006"),
        ("Condition", "LOCAL//a b/c"),
        ("Procedure", "CPT4//90935"),
        ("MedicationRequest", "RXNORM//860975"),
        ("MedicationAdministration", "RXNORM//860975"),
        ("MedicationDispense", "NDC//00193146821"),
        ("MedicationStatement", "ATC//A10BA02"),
        ("Immunization", "CVX//140"),
        ("Specimen", "SNOMED//119297000"),
        ("AllergyIntolerance", "RXNORM//7980"),
        ("ServiceRequest", "LOINC//24627-2"),
        ("ImagingStudy", "DCM//CT"),
    ]
)


@st.composite
def _events(draw: st.DrawFn) -> list[Event]:
    birth = draw(st.sampled_from([("year", 1, 1), ("month", 7, 1), ("day", 7, 9), ("second", 7, 9)]))
    events = [
        dataclasses.replace(BIRTH, time=datetime(1970, birth[1], birth[2]), time_precision=birth[0]),
        Event(7, None, draw(st.sampled_from(["GENDER//M", "GENDER//O", "GENDER//U"])), resource="Patient"),
    ]
    events += [
        Event(7, None, f"RACE//{code}", resource="Patient")
        for code in draw(st.lists(st.sampled_from(["2106-3", "2054-5", "UNK"]), max_size=2, unique=True))
    ]
    if draw(st.booleans()):
        events.append(STAY)
    for number in range(draw(st.integers(0, 6))):
        events += draw(_event(number))
    return events


@st.composite
def _event(draw: st.DrawFn, number: int) -> list[Event]:
    time, is_date = draw(_TIMES), draw(st.booleans())
    shown = datetime(time.year, time.month, time.day) if is_date else time
    precision = "day" if is_date else "second+00:00"
    common = {"time": shown, "time_precision": precision, "encounter_id": draw(st.sampled_from([None, "e1"]))}
    if draw(st.booleans()):
        unit, source = draw(st.sampled_from([("mmol/L", None), ("mmol/L", "mmol/l"), (None, "drops"), (None, None)]))
        values = {"numeric_value": draw(st.none() | _NUMBERS), "unit": unit, "source_unit": source}
        if values["numeric_value"] is None:
            values = {"text_value": draw(st.sampled_from([None, "SNOMED//10828004", "NEGATIVE"]))}
        lab = clinical("LOINC//2345-7", "Observation", f"o{number}", **common, **values)
        return [lab, lab.child("category", draw(st.sampled_from(["OBSCATEGORY//survey", "OBSCATEGORY//laboratory"])))]
    resource, code = draw(_KINDS)
    has_end = resource not in ("Specimen", "AllergyIntolerance", "ServiceRequest")
    length = draw(st.none() | st.timedeltas(timedelta(0), timedelta(days=400))) if has_end else None
    end = shown + timedelta(days=length.days) if length is not None else None
    return [clinical(code, resource, f"k{number}", **common, end_time=end)]


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(events=_events(), with_vocabulary=st.booleans())
def test_any_record_comes_back(events: list[Event], with_vocabulary: bool) -> None:
    _check_round_trip(events, with_vocabulary)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=_events(), with_vocabulary=st.booleans())
def test_any_of_five_hundred_records_comes_back(events: list[Event], with_vocabulary: bool) -> None:
    _check_round_trip(events, with_vocabulary)


def _check_round_trip(events: list[Event], with_vocabulary: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vocab = write_athena(folder / "a") if with_vocabulary else None
        books = export(dataset_of(folder / "d", events), folder / "o", vocab=vocab, details="observations")
        found, ledger, _ = read_back(folder / "o")
    assert not +books.not_carried
    assert not ledger.imbalance()
    assert not ledger.rejects
    assert facts(_known(found)) == facts(_known(events))
    precise = Counter((event.code, event.time, (event.time_precision or "")[:6]) for event in _known(events))
    assert Counter((event.code, event.time, (event.time_precision or "")[:6]) for event in _known(found)) == precise
    known = {event.event_id for event in found if event.resource == "Encounter"}
    assert {event.encounter_id for event in found} <= known | {None}


def _known(events: list[Event]) -> list[Event]:
    """The events without what a domain of the vocabulary may change: the resource type, and the end."""
    return [
        dataclasses.replace(event, resource=None, end_time=None)
        if event.code.startswith(("NDC//", "CPT4//")) and event.resource != "Encounter"
        else event
        for event in events
    ]


@pytest.mark.parametrize("details", ["columns", "observations"])
def test_writing_what_was_read_gives_the_same_tables(tmp_path: Path, details: str) -> None:
    export(dataset_of(tmp_path / "d", record()), tmp_path / "o", details=details)
    events, _, _ = read_back(tmp_path / "o")
    export(dataset_of(tmp_path / "d2", events), tmp_path / "o2", details=details)
    again, _, _ = read_back(tmp_path / "o2")
    assert facts(again) == facts(events)
