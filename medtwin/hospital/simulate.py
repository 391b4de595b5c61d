"""One subject from (seed, index): a life drawn from the laws in causal order, then the record that is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.events import Event
from medtwin.core.seeds import generator
from medtwin.hospital import mortality
from medtwin.hospital.chart import Chart
from medtwin.hospital.courses import (
    breast_cancer,
    copd,
    diabetes,
    heart_failure,
    hypertension,
    kidney,
    osteoarthritis,
    pneumonia,
    pregnancy,
    wellness,
)
from medtwin.hospital.imaging import ImageOrder
from medtwin.hospital.laws import LAWS, Laws
from medtwin.hospital.life import Life
from medtwin.hospital.population import draw_person
from medtwin.hospital.visits import Visit

# Causes before effects: each course reads the onsets of those above it.
COURSES = (
    pregnancy,
    hypertension,
    diabetes,
    kidney,
    heart_failure,
    copd,
    pneumonia,
    breast_cancer,
    osteoarthritis,
    wellness,
    mortality,
)
PAUSE = timedelta(minutes=30)  # between two encounters


@dataclass(frozen=True, slots=True)
class SubjectRecord:
    """What is known of a subject.

    Attributes:
        events: The record, by time; children after their event.
        image_orders: The images to render, by time.
        life: The truth behind it.
    """

    events: list[Event]
    image_orders: list[ImageOrder]
    life: Life


def draw_life(seed: int, index: int, laws: Laws = LAWS) -> Life:
    """The true life of a subject; depends on (seed, index) and the laws only."""
    rng = generator(seed, "life", index)
    life = Life(draw_person(rng, index, laws.population, laws.record.window_start), laws)
    for course in COURSES:
        course.begin(life, rng)
    return life


def simulate_subject(seed: int, index: int, laws: Laws = LAWS) -> SubjectRecord:
    """The record of a subject; depends on (seed, index) and the laws only.

    Args:
        seed: The hospital's seed, 0 or more.
        index: Number of the subject, 0 or more.
        laws: The laws of the hospital.
    """
    return record_life(draw_life(seed, index, laws), seed)


def record_life(life: Life, seed: int) -> SubjectRecord:
    """The record that the hospital makes of a life."""
    rng = generator(seed, "record", life.person.index)
    planned = [visit for course in COURSES for visit in course.visits(life, rng)]
    chart = Chart(life, seed, rng)
    death = life.time_of(life.death) if life.death < life.age_at_end else None
    _write_person(chart, death)
    for visit, start, end in _without_overlap(planned, life.laws.record.window_start, death, life):
        disposition = "exp" if end == death and visit.setting != "AMB" else "home"
        chart.open(visit.kind, visit.setting, start, end, disposition)
        visit.act(chart)
    if death is not None:
        chart.fact(DEATH, death, "second+00:00")
    return SubjectRecord(_in_order(chart.events), chart.orders, life)


def simulate_hospital(num_subjects: int, seed: int, laws: Laws = LAWS) -> Iterator[SubjectRecord]:
    """The records of subjects 0 to `num_subjects` - 1, one at a time."""
    for index in range(num_subjects):
        yield simulate_subject(seed, index, laws)


def _write_person(chart: Chart, death: datetime | None) -> None:
    person = chart.life.person
    language = "es" if person.hispanic and person.index % 3 == 0 else "en-US"
    for code in (
        f"GENDER//{person.sex}",
        f"BIRTHSEX//{person.sex}",
        f"RACE//{person.race}",
        f"ETHNICITY//{'2135-2' if person.hispanic else '2186-5'}",
        f"MARITAL//{person.marital}",
        f"LANGUAGE//{language}",
    ):
        chart.fact(code)
    chart.fact(BIRTH, person.birth, "day")


def _without_overlap(
    planned: list[Visit], window_start: datetime, death: datetime | None, life: Life
) -> Iterator[tuple[Visit, datetime, datetime]]:
    """The visits in order of time, each moved behind the one before; death cuts them."""
    limit = death or life.laws.record.window_end
    free_from = window_start
    for visit in sorted(planned, key=lambda one: one.time):
        start = max(visit.time, free_from)
        end = min(start + visit.duration, limit)
        if end <= start:
            continue
        yield visit, start, end
        free_from = end + PAUSE


def _in_order(events: list[Event]) -> list[Event]:
    """Events by time, static facts first, each followed by its children; order of writing otherwise."""
    groups: list[list[Event]] = []
    for event in events:
        if event.parent_id is None:
            groups.append([event])
        else:
            groups[-1].append(event)
    groups.sort(key=lambda group: group[0].time or datetime.min)  # noqa: DTZ901
    return [event for group in groups for event in group]
