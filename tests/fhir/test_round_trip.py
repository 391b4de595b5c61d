"""What the writer makes of events, the reader makes into the same events."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medtwin.core.events import Event
from medtwin.fhir import ExportContext, events_to_resources, validate_resource
from medtwin.fhir.elements import COMPONENT_ELEMENTS, TABLES, Element, Kind, ResourceTable
from tests.fhir.samples import UNSHIFTED, read_resources

SUBJECT = 42
_CODES = st.sampled_from(
    ["SNOMED//1", "LOINC//8480-6", "example.org/x//A b", "https:example.org/y//C", "LAB//1//mg", "LOCAL//z"]
)
# Seven digits at most, which a float32 keeps.
_NUMBERS = st.integers(-(10**6), 10**6).map(lambda value: value / 1000)
_UNITS = st.sampled_from([(None, None), ("mg", None), ("mm[Hg]", "mmHg"), (None, "TAB"), (None, "units")])
_PRECISIONS = st.sampled_from(["year", "month", "day", "second+00:00", "second-05:30"])
# Elements whose rows other rows constrain.
_ELSEWHERE = ("recordedDate", "lastOccurrence", "series", "modality", "dataAbsent")
# CodeableConcepts of a required value set.
_BOUND = {"clinicalStatus": ["active", "inactive", "resolved"]}
# What a row of each kind may hold, other than references, which need an event to lead to.
_VALUES: dict[Kind, st.SearchStrategy[dict[str, Any]]] = {
    Kind.CONCEPT: _CODES.map(lambda code: {"code": code}),
    Kind.CODING: _CODES.map(lambda code: {"code": code}),
    Kind.BOOLEAN: st.sampled_from([{"text_value": "true"}, {"text_value": "false"}]),
    Kind.INTEGER: st.integers(1, 99).map(lambda value: {"numeric_value": float(value)}),
    Kind.TIMED: st.tuples(_NUMBERS, st.sampled_from(["h", "d"])).map(
        lambda v: {"numeric_value": abs(v[0]), "unit": v[1]}
    ),
    Kind.QUANTITY: st.tuples(_NUMBERS, _UNITS).map(
        lambda v: {"numeric_value": v[0], "unit": v[1][0], "source_unit": v[1][1]}
    ),
    Kind.DATE: st.sampled_from(["2001", "2001-02", "2001-02-03", "2001-02-03T04:05:06-07:00"]).map(
        lambda text: {"text_value": text}
    ),
}


@st.composite
def _time(draw: st.DrawFn) -> tuple[datetime, str]:
    precision = draw(_PRECISIONS)
    day = datetime(1990, 1, 1) + timedelta(days=draw(st.integers(0, 20_000)))
    if precision == "year":
        return day.replace(month=1, day=1), precision
    if precision == "month":
        return day.replace(day=1), precision
    return (day + timedelta(seconds=draw(st.integers(0, 86_399))) if "second" in precision else day), precision


def _choice(element: Element) -> str:
    """The path, with the forms of a choice such as value[x] counted as one."""
    return re.sub(r"(value|rate|dose|asNeeded)[A-Z](?!ndRate).*", r"\1", element.path)


def _needy(resource: str | None) -> tuple[str, ...]:
    """Structures that are dropped without one of their elements."""
    return tuple(TABLES[resource or ""].needs)


@st.composite
def _details(draw: st.DrawFn, event: Event, elements: tuple[Element, ...]) -> list[Event]:
    usable = [each for each in elements if each.kind in _VALUES or (each.kind is Kind.CODE and not each.row)]
    # What the reader leaves out or the writer adds on purpose is tested elsewhere.
    usable = [
        each
        for each in usable
        if not each.path.endswith((".start", ".end", ".numerator", ".denominator"))
        and not each.path.startswith((*_ELSEWHERE, *_needy(event.resource)))
    ]
    rows = []
    for element in draw(st.lists(st.sampled_from(usable), max_size=4, unique_by=_choice)):
        if element.kind is Kind.CODE:
            values: dict[str, Any] = {"text_value": draw(st.sampled_from(sorted(element.words)))}
        elif element.path in _BOUND:
            system = "ALLERGYCLINICAL" if event.resource == "AllergyIntolerance" else "CONDCLINICAL"
            values = {"code": f"{system}//{draw(st.sampled_from(_BOUND[element.path]))}"}
        else:
            values = dict(draw(_VALUES[element.kind]))
        if element.path.endswith((".low", ".high")):
            # A range must not end before it begins.
            values["numeric_value"] = draw(_NUMBERS) + (2000 if element.path.endswith(".high") else 0)
            values |= {"unit": "mg", "source_unit": None}
        rows.append(event.child(element.row_path, values.pop("code", None), **values))
    return rows


@st.composite
def _value(draw: st.DrawFn) -> tuple[dict[str, Any], str | None]:
    unit, source = draw(_UNITS)
    return draw(
        st.sampled_from(
            [
                ({}, None),
                ({"numeric_value": draw(_NUMBERS), "unit": unit, "source_unit": source}, None),
                ({"numeric_value": 3.0}, "integer"),
                ({"text_value": draw(_CODES)}, None),
                ({"text_value": "POSITIVE"}, "string"),
                ({"text_value": "true"}, "boolean"),
            ]
        )
    )


@st.composite
def _event(draw: st.DrawFn, number: int) -> list[Event]:
    table = TABLES[draw(st.sampled_from(sorted(TABLES)))]
    time, precision = draw(_time())
    statuses = sorted(table.statuses - {"entered-in-error"})
    status = draw(st.sampled_from(statuses))
    code = "DCM//CT" if table.code == "modality" else draw(_CODES)
    has_end = table.end is not None or any(name.lower().endswith("period") for name in table.times)
    end = time + timedelta(weeks=5) if has_end and "second" in precision and draw(st.booleans()) else None
    value, kind = draw(_value()) if table.name == "Observation" else ({}, None)
    event_id = f"a{number}"
    event = Event(
        SUBJECT,
        time,
        f"NEGATED//{code}" if status in table.negated else code,
        encounter_id=event_id if table.name == "Encounter" else None,
        event_id=event_id,
        end_time=end,
        status=status,
        time_precision=precision,
        resource=table.name,
        **value,
    )
    rows = [event]
    if kind is not None:
        rows.append(event.child("valueType", text_value=kind))
    details = draw(_details(event, table.elements))
    rows += [row for row in details if not row.code.startswith("FHIR//Observation.value") or not value]
    rows += _required_rows(event, table, rows)
    if table.name == "Observation" and draw(st.booleans()):
        component = replace(event, event_id=f"{event_id}.1", parent_id=event_id, numeric_value=5.0, text_value=None)
        component = replace(component, unit=None, source_unit=None, code=f"{event.code.removesuffix(code)}SNOMED//77")
        limits = tuple(each for each in COMPONENT_ELEMENTS if not each.path.startswith("value"))
        rows += [component, *draw(_details(component, limits))]
    return rows


def _required_rows(event: Event, table: ResourceTable, rows: list[Event]) -> list[Event]:
    """What the writer adds where it is missing: written out here, so that it is there on both sides."""
    there = {row.code for row in rows}
    added = []
    if table.name == "Encounter" and not any(code.startswith("FHIR//Encounter.class") for code in there):
        added.append(event.child("class", "ACTCODE//AMB"))
    if "intent" in table.required and f"FHIR//{table.name}.intent" not in there:
        added.append(event.child("intent", text_value="plan" if table.name == "CarePlan" else "order"))
    if table.name == "AllergyIntolerance" and not any("clinicalStatus" in code for code in there):
        added.append(event.child("clinicalStatus", "ALLERGYCLINICAL//active"))
    if any(".activity." in code for code in there) and "FHIR//CarePlan.activity.detail.status" not in there:
        added.append(event.child("activity.detail.status", text_value="unknown"))
    is_negated_order = f"FHIR//{table.name}.doNotPerform" in there
    for row in rows if is_negated_order else []:
        if row.code.endswith(".doNotPerform") and row.text_value == "true" and not event.code.startswith("NEGATED//"):
            rows[0] = replace(event, code=f"NEGATED//{event.code}")
    return added + _required_by_profile(event, table, there)


def _required_by_profile(event: Event, table: ResourceTable, there: set[str]) -> list[Event]:
    """What the vital-sign profiles, con-4, and the types of dates demand."""
    added = []
    has_vital_sign = "LOINC//8480-6" in event.code and table.name == "Observation"
    if has_vital_sign and not any("//vital-signs" in code for code in there):
        added.append(event.child("category", "OBSCATEGORY//vital-signs"))
    has_value = event.numeric_value is not None or event.text_value is not None
    if has_vital_sign and not has_value and not any("Observation.value" in code for code in there):
        added.append(event.child("dataAbsentReason", "ABSENTREASON//unknown"))
    if table.name == "Condition" and event.end_time and not any("clinicalStatus" in code for code in there):
        added.append(event.child("clinicalStatus", "CONDCLINICAL//inactive"))
    if table.name == "DocumentReference" and "second" not in (event.time_precision or "") and not event.end_time:
        added.append(event.child("time", "context.period"))
    return added


@st.composite
def _record(draw: st.DrawFn) -> list[Event]:
    rows = [
        Event(SUBJECT, None, "GENDER//O", resource="Patient"),
        Event(SUBJECT, None, "LANGUAGE//de", resource="Patient"),
    ]
    time, precision = draw(_time())
    birth = precision if not precision.startswith("second") else "day"
    midnight = time.replace(hour=0, minute=0, second=0)
    rows.append(Event(SUBJECT, midnight, "MEDS_BIRTH", time_precision=birth, resource="Patient"))
    for number in range(draw(st.integers(1, 4))):
        rows += draw(_event(number))
    return rows


def _renamed(row: Event, ids: dict[str, str]) -> Event:
    """The row with the pseudonyms that reading it gives."""

    def name(old: str | None) -> str | None:
        if old is None:
            return None
        parent, dot, number = old.partition(".")
        return ids[parent] + dot + number

    return replace(
        row,
        subject_id=UNSHIFTED.subject_id(f"mr:{SUBJECT}"),
        event_id=name(row.event_id),
        parent_id=name(row.parent_id),
        encounter_id=name(row.encounter_id),
    )


@given(_record())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_events_become_valid_fhir_and_come_back_the_same(rows: list[Event]) -> None:
    export = events_to_resources(rows, context=ExportContext("synthetic"))
    assert not export.not_carried
    assert [
        finding for each in export.resources for finding in validate_resource(each) if finding.rule != "con-4"
    ] == []
    with tempfile.TemporaryDirectory() as folder:
        found, ledger = read_resources(Path(folder), *export.resources)
    assert ledger.rejects == []
    # A period that dates a document is read as a detail of it too.
    found = [row for row in found if not row.code.startswith("FHIR//DocumentReference.context.period.")]
    rows = [row for row in rows if not row.code.startswith("FHIR//DocumentReference.context.period.")]
    ids = {
        row.event_id: UNSHIFTED.event_id(row.resource or "", row.event_id)
        for row in rows
        if row.event_id is not None and row.parent_id is None
    }
    assert sorted(map(str, found)) == sorted(str(_renamed(row, ids)) for row in rows)
