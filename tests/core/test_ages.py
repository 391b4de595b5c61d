from __future__ import annotations

from datetime import datetime

from medtwin.core.ages import cap_ages
from medtwin.core.events import Event, events_to_table, sort_events, table_to_events


def test_ages_over_89_become_90_at_the_last_event_and_rows_before_birth_are_counted() -> None:
    rows = [
        Event(1, datetime(1900, 3, 1), "MEDS_BIRTH"),
        Event(1, datetime(1905, 1, 1), "CVX//1"),
        Event(1, datetime(2000, 6, 1), "CVX//2"),
        Event(2, datetime(1950, 1, 1), "MEDS_BIRTH"),
        Event(2, datetime(2039, 12, 1), "CVX//2"),
    ]
    capped, dropped = cap_ages(events_to_table(rows))
    events = table_to_events(sort_events(capped))
    assert dropped == 1
    assert [(e.subject_id, e.code) for e in events][:2] == [(1, "MEDTWIN//age-capped"), (1, "MEDS_BIRTH")]
    birth = events[1].time
    assert birth is not None
    assert 89.9 < (datetime(2000, 6, 1) - birth).days / 365.25 < 90.01
    assert [e for e in events if e.subject_id == 2] == rows[3:]


def test_nobody_over_89_leaves_the_table_alone() -> None:
    table = events_to_table([Event(2, datetime(1950, 1, 1), "MEDS_BIRTH"), Event(2, datetime(2039, 12, 1), "CVX//2")])
    assert cap_ages(table) == (table, 0)
    nobody = events_to_table([Event(1, datetime(2020, 5, 1), "CVX//1")])
    assert cap_ages(nobody) == (nobody, 0)
