"""Criteria that are classes and the same ones in the language select the same subjects of the embedded hospital."""

from __future__ import annotations

import pyarrow as pa
import pytest

from medtwin.core.dataset import CODES_SCHEMA
from medtwin.core.events import events_to_table
from medtwin.hospital import simulate_hospital
from medtwin.hospital.codes import A1C, ADMISSION, DIABETES, EGFR, HEART_FAILURE, HYPERTENSION, METFORMIN
from medtwin.trials.population.cohort import Code, Cohort, read_cohort
from medtwin.trials.population.criteria import (
    Age,
    Criterion,
    FollowUp,
    Has,
    HasNot,
    IndexDay,
    LatestValue,
    Sex,
    follow_flow,
)
from medtwin.trials.population.evaluation import statements

PAIRS: list[tuple[Criterion, str]] = [
    (Age(40, 75), "40 <= age <= 75"),
    (Sex("F"), "sex = F"),
    (Has([DIABETES, HYPERTENSION]), f"condition({DIABETES} | {HYPERTENSION})"),
    (Has([METFORMIN], window_days=365), f"drug({METFORMIN})[-365d:]"),
    (HasNot([HEART_FAILURE]), f"no condition({HEART_FAILURE})"),
    (HasNot([ADMISSION], window_days=90), f"no event({ADMISSION})[-90d:]"),
    (LatestValue([A1C], maximum=7.1, unit="%", window_days=730), "hba1c[-730d:] <= 7.1"),
    (LatestValue([EGFR], 30, 89.9, "mL/min/{1.73_m2}"), "30 <= egfr[-365d:] <= 89.9"),
    (LatestValue([A1C], minimum=0.06, unit="1", window_days=400), f"value({A1C}, 1)[-400d:] >= 0.06"),
    (FollowUp(365), "followed >= 365d"),
]


@pytest.fixture(scope="module")
def hospital() -> Cohort:
    events = [event for record in simulate_hospital(120, 11) for event in record.events]
    wanted: list[Code] = [code for old, text in PAIRS for each in (old, *statements(text)) for code in each.codes]
    return read_cohort([events_to_table(events)], pa.table({name: [] for name in CODES_SCHEMA.names}), wanted)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1])
def test_each_criterion(pair: tuple[Criterion, str], hospital: Cohort) -> None:
    old, (new,) = pair[0], statements(pair[1])
    at = IndexDay(visits="any").candidates(hospital)
    left, right = old.ask(hospital, at), new.ask(hospital, at)
    assert left.holds.tolist() == right.holds.tolist()
    assert left.is_unknown.tolist() == right.is_unknown.tolist()
    assert 0 < left.holds.sum() < len(at.day)


def test_all_of_them(hospital: Cohort) -> None:
    chosen = [PAIRS[number] for number in (0, 2, 4, 6, 9)]
    left = follow_flow(hospital, IndexDay(visits="any"), [old for old, _ in chosen])
    right = follow_flow(hospital, IndexDay(visits="any"), statements(" & ".join(text for _, text in chosen)))
    assert left.entry.subject.tolist() == right.entry.subject.tolist()
    assert left.entry.day.tolist() == right.entry.day.tolist()
    assert left.left_at.tolist() == right.left_at.tolist()
    assert [(a.remaining, a.not_evaluable) for a in left.attrition] == [
        (b.remaining, b.not_evaluable) for b in right.attrition
    ]
    assert 0 < len(left.entry.subject) < 120
