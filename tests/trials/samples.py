"""A cohort of a handful of subjects, by hand."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import pyarrow as pa

from medtwin.core.dataset import CODES_SCHEMA
from medtwin.core.events import Event, events_to_table
from medtwin.trials.population.cohort import Cohort, read_cohort

DIABETES, HBA1C, FAILURE, E11 = "SNOMED//44054006", "LOINC//4548-4", "SNOMED//84114007", "ICD10CM//E11"
DAY_0 = datetime(2020, 1, 1)


def day(number: float) -> datetime:
    return DAY_0 + timedelta(days=number)


def subject(number: int, *events: Event, born_years_ago: float | None = 50.0, sex: str = "F") -> list[Event]:
    rows = [Event(number, None, f"GENDER//{sex}", resource="Patient")]
    if born_years_ago is not None:
        rows.append(Event(number, day(-365.25 * born_years_ago), "MEDS_BIRTH", resource="Patient"))
    return rows + sorted(events, key=lambda event: event.time or DAY_0)


def visit(number: int, on: float) -> Event:
    return Event(number, day(on), "ENCOUNTER//AMB", event_id=f"v{number}-{on}", resource="Encounter")


def has(number: int, on: float, code: str = DIABETES) -> Event:
    return Event(number, day(on), code, event_id=f"c{number}-{on}-{code}", resource="Condition")


def lab(number: int, on: float, value: float | None, unit: str | None = "%", code: str = HBA1C) -> Event:
    return Event(number, day(on), code, value, unit=unit, event_id=f"l{number}-{on}", resource="Observation")


def death(number: int, on: float) -> Event:
    return Event(number, day(on), "MEDS_DEATH", resource="Patient")


def codes(*rows: tuple[str, str, list[str]]) -> pa.Table:
    columns = {name: [] for name in CODES_SCHEMA.names}
    for code, description, parents in rows:
        for name, value in {"code": code, "description": description, "parent_codes": parents}.items():
            columns[name].append(value)
        for name in ("unit", "resource", "num_events", "num_subjects"):
            columns[name].append(None)
    return pa.table(columns, schema=CODES_SCHEMA)


KNOWN = codes(
    (DIABETES, "Diabetes mellitus type 2 (disorder)", [E11]),
    (HBA1C, "Hemoglobin A1c", []),
    (FAILURE, "Heart failure (disorder)", []),
)


def cohort(subjects: Iterable[list[Event]], wanted: Iterable[str] = (DIABETES, HBA1C, FAILURE, E11)) -> Cohort:
    tables = [events_to_table(rows) for rows in subjects]
    return read_cohort(tables, KNOWN, wanted)
