"""Small records written by hand."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from medtwin.check.estimates import Estimate, Measure
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.core.events import Event, events_to_table

START = datetime(2020, 1, 1)
HOURS_PER_YEAR = 8766.0


def at(subject: int, hours: float | None, code: str, kind: str = "", encounter: str | None = None) -> Event:
    """An event so many hours after the start; None: undated."""
    time = None if hours is None else START + timedelta(hours=hours)
    return Event(subject, time, code, resource=kind or None, encounter_id=encounter)


def records(events: Iterable[Event], vocabulary: Vocabulary | None = None) -> Records:
    return tables_to_records([events_to_table(events)], vocabulary or Vocabulary())


def estimates(measures: Iterable[Measure]) -> dict[str, Estimate]:
    """The estimates by name; every one of them is there."""
    found = {one.name: one.estimate for one in measures}
    assert all(found.values()), [name for name, one in found.items() if one is None]
    return {name: one for name, one in found.items() if one is not None}


def is_ordinary(estimate: Estimate, *, better: str = "lower") -> bool:
    """Whether it lies within 1.5 times what 95 % of real-versus-real comparisons stay within, as the gates ask."""
    one = estimate if better == "lower" else estimate.complement()
    return one.value <= 1.5 * one.baseline_worst
