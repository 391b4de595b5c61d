"""Small records with known laws: numbers over time, and ways to break them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from medtwin.check.estimates import Measure
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.resample import Plan, make_plan
from medtwin.core.events import Event, events_to_table

ORIGIN = datetime(2020, 1, 1)


def event(
    subject: int, hours: float | None, code: str, value: float | None = None, unit: str | None = None, **more: object
) -> Event:
    time = None if hours is None else ORIGIN + timedelta(hours=float(hours))
    return Event(subject, time, code, numeric_value=value, unit=unit, **more)  # type: ignore[arg-type]


def records(rows: Iterable[Event], vocabulary: Vocabulary) -> Records:
    return tables_to_records([events_to_table(rows)], vocabulary)


def plan_of(real: Records, synthetic: Records, control: Records | None = None) -> Plan:
    return make_plan(
        real.num_subjects, synthetic.num_subjects, control.num_subjects if control else 0, seed=0, num_resamples=30
    )


def by_name(measures: Iterable[Measure]) -> dict[str, Measure]:
    return {one.name: one for one in measures}


def value_of(measure: Measure) -> float:
    assert measure.estimate is not None, measure
    assert measure.estimate.low <= measure.estimate.value <= measure.estimate.high
    return measure.estimate.value


def worst_of(measure: Measure) -> float:
    """What 95 % of real-versus-real comparisons stay within."""
    assert measure.estimate is not None, measure
    return measure.estimate.baseline_worst


def is_alike(measure: Measure) -> bool:
    """Whether the value is one of an independent real draw: one in twenty exceeds `worst_of`, none by half."""
    return value_of(measure) <= 1.5 * worst_of(measure)


def with_values(side: Records, order: np.ndarray) -> Records:
    return replace(side, value=side.value[order])


def dealt(side: Records, *groups: np.ndarray, seed: int = 0) -> Records:
    """Numbers dealt anew among the rows that agree in all groups; the other rows stay."""
    rows = np.flatnonzero(~np.isnan(side.value))
    keys = [group[rows] for group in groups]
    shuffled = rows[np.lexsort((np.random.default_rng(seed).random(len(rows)), *keys))]
    order = np.arange(len(side.value))
    order[rows[np.lexsort(keys)]] = shuffled
    return with_values(side, order)
