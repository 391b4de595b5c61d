"""Planned encounters: a course says when, how long and why; the simulation holds them in order of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

import numpy as np

from medtwin.hospital import codes
from medtwin.hospital.chart import Chart
from medtwin.hospital.life import Life
from medtwin.hospital.population import DAYS_PER_YEAR

Setting = Literal["AMB", "EMER", "IMP"]
Act = Callable[[Chart], None]


@dataclass(frozen=True, slots=True)
class Visit:
    """A planned encounter.

    Attributes:
        setting: Encounter class.
        kind: Encounter type, `SNOMED//code`.
        act: What happens in it.
    """

    time: datetime
    duration: timedelta
    setting: Setting
    kind: str
    act: Act


def clinic(life: Life, age: float, rng: np.random.Generator, act: Act, kind: str = codes.FOLLOW_UP) -> Visit:
    """A visit to the clinic on the first weekday after the day of an age, between 8 and 16 o'clock, for 50 minutes."""
    day = life.time_of(age).replace(hour=0, minute=0) + timedelta(days=1)
    if day.weekday() >= 5:
        day += timedelta(days=7 - day.weekday())
    return Visit(day + timedelta(minutes=480 + 10 * int(rng.integers(48))), timedelta(minutes=50), "AMB", kind, act)


def emergency(life: Life, age: float, act: Act, hours: float = 5.0) -> Visit:
    """A visit to the emergency department at an age, day or night."""
    return Visit(life.time_of(age), timedelta(hours=hours), "EMER", codes.EMERGENCY, act)


def admission(time: datetime, days: float, act: Act) -> Visit:
    """A stay in hospital from a time on."""
    return Visit(time, timedelta(minutes=round(days * 1440)), "IMP", codes.ADMISSION, act)


def emergency_admission(life: Life, age: float, days: float, seen: Act, treated: Act) -> list[Visit]:
    """Five hours in the emergency department, and the stay that follows at once."""
    first = emergency(life, age, seen)
    return [first, admission(first.time + first.duration + timedelta(minutes=10), days, treated)]


def regular(
    life: Life, first_age: float, interval_days: float, rng: np.random.Generator, act: Act, until: float | None = None
) -> list[Visit]:
    """Clinic visits at a roughly regular interval, from an age (or the start of the record) on."""
    visits = []
    age = max(first_age, life.age_at_start) + rng.uniform(0.5, 1.0) * interval_days / DAYS_PER_YEAR
    while age < min(life.last_age, until or life.last_age):
        visits.append(clinic(life, age, rng, act))
        age += rng.uniform(0.85, 1.15) * interval_days / DAYS_PER_YEAR
    return visits


def diagnosis(life: Life, age: float, rng: np.random.Generator, act: Act) -> list[Visit]:
    """The visit at which a course that begins inside the record is found; none if it began before or later."""
    return [clinic(life, age, rng, act, codes.PROBLEM_VISIT)] if life.in_record(age) else []


def poisson_ages(rate: float, first: float, last: float, rng: np.random.Generator) -> list[float]:
    """Ages of a Poisson process of a yearly rate between two ages, ascending."""
    if last <= first:
        return []
    return sorted(float(age) for age in rng.uniform(first, last, rng.poisson(rate * (last - first))))


def bound(act: Callable[..., None], **settings: object) -> Act:
    """An act with some of its settings filled in."""
    return partial(act, **settings)
