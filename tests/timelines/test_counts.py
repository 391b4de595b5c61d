from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa

from medtwin.core.events import Event, events_to_table, sort_events
from medtwin.timelines.reading.counts import TokenCounts

START = datetime(2020, 3, 2, 9, 0)
HAVE = {"SNOMED//1": 150, "SNOMED//2": 30, "SNOMED//3": 6, "SNOMED//4": 4, "NEGATED//SNOMED//1": 50}


def table(first: int, num: int) -> pa.Table:
    events = []
    for subject in range(first, first + num):
        events.append(Event(subject, START, "SNOMED//50849002", resource="Encounter", time_precision="second+00:00"))
        for code, count in HAVE.items():
            if subject < count:  # half of them have it from the start, and again
                day = START + timedelta(days=subject % 2)
                for number in range(1 + subject % 3):
                    event = Event(subject, day, code, event_id=f"{subject}{code}{number}", resource="Condition")
                    events.append(event)
    return sort_events(events_to_table(events))


def test_index_conditions_are_counted_by_subject_and_neither_rare_nor_everybodys() -> None:
    counts = TokenCounts()
    for part in (table(0, 120), table(120, 80)):
        counts.add(part, ())
    assert counts.num_timelines == 200
    assert counts.conditions == HAVE
    vocabulary, constant = counts.vocabulary(1)
    assert constant == set()
    assert counts.facts(vocabulary, ("SNOMED//508*",), 9) == ("SNOMED//2", "SNOMED//3", "SNOMED//50849002")
    assert counts.facts(vocabulary, (), 1) == ("SNOMED//2",)  # the most frequent
