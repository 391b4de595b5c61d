"""Stays in intensive care with a known law: severity moves a lab, and the lab moves death."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.tasks import Task
from medtwin.core.events import Event, events_to_table, sort_events

START = datetime(2020, 1, 1)
MICROSECOND = timedelta(microseconds=1)

MORTALITY = Task(
    "mortality",
    "Death after two days",
    "a law of ours",
    outcome=("OUT//DIED",),
    anchor=("IN//*",),
    first_hours=48,
    known_by=("OUT//*",),
    covariates=("age", "LAB//a", "GENDER//F"),
)


def stays(
    num_subjects: int, seed: int, *, effect: float = 1.6, shuffled: bool = False, deaths: bool = True
) -> pa.Table:
    """The events of some stays: a lab `a` that says how ill someone is, a lab `b` that says nothing.

    Args:
        num_subjects: How many.
        seed: Decides them.
        effect: Log odds of death per standard deviation of severity.
        shuffled: Whether deaths are dealt anew among the subjects.
        deaths: Whether anybody dies.
    """
    rng = np.random.default_rng(seed)
    severity = rng.normal(size=num_subjects)
    died = rng.random(num_subjects) < 1 / (1 + np.exp(1.0 - effect * severity))
    if shuffled:
        died = rng.permutation(died)
    rows = []
    for subject in range(num_subjects):
        start = START + timedelta(days=int(rng.integers(400)))
        rows.append(Event(subject, None, "GENDER//F" if rng.random() < 0.5 else "GENDER//M"))
        rows.append(Event(subject, start - timedelta(days=365 * int(rng.integers(30, 80))), "MEDS_BIRTH"))
        rows.append(Event(subject, start, "IN//WARD"))
        for hour in sorted(rng.uniform(1, 47, 5)):
            time = start + timedelta(hours=float(hour))
            lab = 10 + 2 * severity[subject] + rng.normal()
            rows.append(Event(subject, time, "LAB//a", float(lab), unit="mg"))
            if rng.random() < 0.7:
                rows.append(Event(subject, time, "LAB//b", float(rng.normal()), unit="mg"))
        hours = 49 + rng.exponential(60 / np.exp(0.5 * severity[subject]) if died[subject] else 100)
        end = start + timedelta(hours=float(hours))
        rows.append(Event(subject, end, "OUT//DIED" if died[subject] and deaths else "OUT//ALIVE"))
    return sort_events(events_to_table(rows))


def records_of(table: pa.Table, vocabulary: Vocabulary) -> Records:
    return tables_to_records([table], vocabulary)
