from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from medtwin.core.codes import DEATH
from medtwin.core.events import Event, events_to_table
from medtwin.hospital import codes
from medtwin.pipelines import learned_laws
from medtwin.pipelines.learned_laws import MIN_GROUP

START = datetime(2020, 1, 1)


def table(events: list[Event]) -> pa.Table:
    return learned_laws._slim(events_to_table(events))


def a1c(subject: int, value: float, *, onset_days: int | None, later: float | None = None) -> list[Event]:
    events = [Event(subject, START, codes.A1C, value)]
    if onset_days is not None:
        events.append(Event(subject, START + timedelta(days=onset_days), codes.DIABETES))
    if later is not None:
        events.append(Event(subject, START + timedelta(days=30), codes.A1C, later))
    return events


def test_the_first_value_counts_and_diabetes_must_be_known_by_then() -> None:
    events = []
    for subject in range(1, 21):
        events += a1c(subject, 7.5 + 0.1 * (subject % 3), onset_days=-10, later=99.0)
        events += a1c(100 + subject, 6.0 + 0.1 * (subject % 3), onset_days=None)
        events += a1c(200 + subject, 6.0 + 0.1 * (subject % 3), onset_days=40)  # diabetes comes later
    law = learned_laws._difference_of_a1c(table(events), truth=1.5)
    assert law.sizes == (20, 40)
    assert law.estimate == pytest.approx(1.5, abs=0.02)
    assert law.low is not None
    assert law.high is not None
    assert law.low < 1.5 < law.high
    assert law.holds is True
    assert learned_laws._difference_of_a1c(table(events), truth=0.5).holds is False


def test_an_interval_that_holds_everything_shows_nothing() -> None:
    events = []
    for subject, value in enumerate((4.0, 9.0, 7.0, 5.0), start=1):
        events += a1c(subject, value, onset_days=-10) + a1c(100 + subject, value - 0.5, onset_days=None)
    law = learned_laws._difference_of_a1c(table(events), truth=1.5)
    assert law.low is not None
    assert law.high is not None
    assert law.low < 0 < 1.5 < law.high
    assert law.holds is False


def test_too_few_are_no_verdict() -> None:
    events = [event for subject in range(1, MIN_GROUP) for event in a1c(subject, 7.0, onset_days=-1)]
    law = learned_laws._difference_of_a1c(table(events), truth=1.5)
    assert law.holds is None
    assert np.isnan(law.estimate)


def test_pregnant_men_and_events_after_death_are_counted() -> None:
    events = [
        Event(1, None, "GENDER//M"),
        Event(1, START, codes.PREGNANCY),
        Event(2, None, "GENDER//F"),
        Event(2, START, codes.PREGNANCY),
        Event(3, START, DEATH),
        Event(3, START, "LAB//1"),
        Event(3, START + timedelta(minutes=1), "LAB//1"),
    ]
    assert learned_laws._pregnant_men(table(events)) == 1
    assert learned_laws._after_death(table(events)) == 1


def test_a_slope_needs_to_be_clear() -> None:
    rng = np.random.default_rng(0)
    present = np.arange(100) % 4 == 0
    noise = rng.normal(size=100)
    clear = learned_laws._slope("x", noise + 2.0 * present, list(present))
    assert clear.holds is True
    assert clear.sizes == (25, 75)
    assert learned_laws._slope("x", noise, list(present)).holds is False
    assert learned_laws._slope("x", noise - 2.0 * present, list(present)).holds is False
    missing = np.where(present, np.nan, noise)
    assert learned_laws._slope("x", missing, list(present)).holds is None
