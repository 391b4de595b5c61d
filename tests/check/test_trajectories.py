"""The course of numbers and the rate of events around index events."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from medtwin.check.records import UNDATED, Records, Vocabulary
from medtwin.check.trajectories import MAX_INDEX_EVENTS, first_times, index_events, stretches, trajectory_measures
from medtwin.core.events import Event
from tests.check.courses import by_name, event, is_alike, plan_of, records, value_of, worst_of

NAMES = ["trajectories.error", "trajectories.change", "trajectories.events"]
MICROSECONDS_PER_HOUR = 3_600_000_000


def illnesses(num_subjects: int, seed: int) -> list[Event]:
    """A number every 6 hours that rises by 2 after an operation between hours 24 and 48, with a visit every hour then.

    A third of the subjects die at the end.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(num_subjects):
        level, start = rng.normal(), rng.integers(24, 48)
        for hour in range(0, 72, 6):
            rows.append(event(subject, hour, "LAB//x", level + 2 * (hour > start) + 0.5 * rng.normal(), "mg"))
        rows.append(event(subject, start + 0.5, "OP//1", resource="Procedure"))
        rows += [event(subject, start + h, "VISIT//1", resource="Observation") for h in range(1, rng.poisson(8) + 1)]
        if subject % 3 == 0:
            rows.append(event(subject, 80, "MEDS_DEATH"))
    return rows


def retimed(rows: Iterable[Event], seed: int = 0) -> list[Event]:
    """Times dealt anew among the events of each subject."""
    rng = np.random.default_rng(seed)
    found: list[Event] = []
    by_subject: dict[int, list[Event]] = {}
    for one in rows:
        by_subject.setdefault(one.subject_id, []).append(one)
    for own in by_subject.values():
        times = [own[place].time for place in rng.permutation(len(own))]
        found += [replace(one, time=time) for one, time in zip(own, times, strict=True)]
    return found


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary()


@pytest.fixture(scope="module")
def real(vocabulary: Vocabulary) -> Records:
    return records(illnesses(120, 1), vocabulary)


def codes_of(side: Records, chosen: list[int | None]) -> list[str | None]:
    return [None if code is None else side.vocabulary.names[code] for code in chosen]


# Index events


def test_index_events_are_found_in_the_data(real: Records) -> None:
    # the visits are more common than deaths, but of a type whose first time is no event where there are better ones
    assert codes_of(real, index_events(real, 20)) == [None, "OP//1", "MEDS_DEATH", "VISIT//1"]
    assert codes_of(real, index_events(real, 41)) == [None, "OP//1", "VISIT//1"]  # 40 die


def test_what_is_no_index_event() -> None:
    rows = []
    for subject in range(30):
        rows += [
            event(subject, -9999, "MEDS_BIRTH"), event(subject, None, "GENDER//F"), event(subject, 0, "LAB//x", 1.0),
            event(subject, 0, "ADMISSION"),  # at the start of every record
            event(subject, 5, "MEDS_DEATH"), event(subject, 5, "DISCHARGE//DIED"),
        ]  # fmt: skip
        rows += [event(subject, hour, "ROUTINE") for hour in range(21)]
        rows += [event(subject, hour, "SEEN", resource="Condition") for hour in range(2, 25)]
        rows += [event(subject, 3 + number / 60, f"OP//{number:02}") for number in range(3)]
    side = records(rows, Vocabulary())
    # birth and facts have no time of their own; death and discharge are one event, the first in the vocabulary stays
    assert codes_of(side, index_events(side, 20)) == [None, "MEDS_DEATH", "SEEN", "OP//00", "OP//01", "OP//02"]
    assert index_events(side, 31) == [None]
    rows += [event(subject, 4 + number, f"MORE//{number}") for subject in range(30) for number in range(20)]
    assert len(index_events(records(rows, Vocabulary()), 20)) == 1 + MAX_INDEX_EVENTS


def test_first_times_by_hand() -> None:
    vocabulary = Vocabulary()
    side = records(
        [event(1, 3, "A"), event(1, 1, "B"), event(1, 7, "A"), event(2, 5, "B"), event(3, None, "A")], vocabulary
    )
    origin = side.steps.time_us[0] - MICROSECONDS_PER_HOUR

    def hours(code: str | None) -> list[float | None]:
        times = first_times(side, None if code is None else vocabulary.codes[code])
        return [None if one == UNDATED else (one - origin) / MICROSECONDS_PER_HOUR for one in times]

    assert hours(None) == [1, 5, None]
    assert hours("A") == [3, None, None]
    assert hours("B") == [1, 5, None]


def test_the_event_itself_begins_a_stretch() -> None:
    assert stretches(np.zeros(0)).tolist() == [0]
    assert stretches(np.array([0.0, 0.0, 0.0])).tolist() == [0]
    assert stretches(np.array([-10.0, -10.0, 10.0])).tolist() == [-10, 0, 10]
    assert len(stretches(np.linspace(-50, 50, 101))) == 9  # five before, five after


# Measures


def by_hand(vocabulary: Vocabulary, second: float, *more: str) -> Records:
    """20 subjects: a number at hours 0 and 20, an operation at hour 10."""
    rows = []
    for subject in range(20):
        rows += [event(subject, 0, "A", 1.0, "mg"), event(subject, 20, "A", second, "mg"), event(subject, 10, "OP")]
        rows += [event(subject, 20, code) for code in more]
    return records(rows, vocabulary)


def test_courses_by_hand() -> None:
    vocabulary = Vocabulary()
    real, twins = by_hand(vocabulary, 3.0), by_hand(vocabulary, 2.0, "VISIT")
    measures, rows = trajectory_measures(real, twins, None, plan_of(real, twins), {"A": "an A"})
    found = by_name(measures)
    # real: median 2, quartiles 1 and 3, a robust SD of 2/1.349; 1 and 3 are -+0.6745 SD, 2 is 0.
    # From the start and from the operation: gaps 0 (number of hour 0) and 0.6745 (number of hour 20).
    assert value_of(found["trajectories.error"]) == pytest.approx(0.6745 / 2)
    # from the subject's own mean: -+0.6745 of real subjects, -+0.6745/2 of twins
    assert value_of(found["trajectories.change"]) == pytest.approx(0.6745 / 2)
    # three stretches from the start, of an event each, but 2 of twins at hour 20; two of the operation, itself left out
    assert value_of(found["trajectories.events"]) == pytest.approx(2 / 5 * math.log(2))
    assert [found[name].num_compared for name in NAMES] == [4, 4, 5]
    numbers = [row for row in rows if row.code == "A"]
    assert [row.index for row in numbers] == ["start", "start", "OP", "OP"]
    assert [row.hours for row in numbers] == [0, 20, -10, 10]
    assert [row.real for row in numbers] == pytest.approx([1, 3, 1, 3])
    assert [row.synthetic for row in numbers] == pytest.approx([1, 2, 1, 2])
    events = [(row.index, row.hours, row.real, row.synthetic) for row in rows if not row.code]
    assert events == [("start", 0, 1, 1), ("start", 10, 1, 1), ("start", 20, 1, 2), ("OP", -10, 1, 1), ("OP", 10, 1, 2)]
    assert {(row.description, row.unit) for row in rows if row.code} == {("an A", "mg")}
    assert {row.num_real for row in rows} == {20}


def test_an_independent_draw_has_the_same_courses(real: Records, vocabulary: Vocabulary) -> None:
    fresh, control = (records(illnesses(n, seed), vocabulary) for n, seed in ((80, 2), (60, 3)))
    measures, rows = trajectory_measures(real, fresh, control, plan_of(real, fresh, control), {})
    assert [one.name for one in measures] == NAMES
    for one in measures:
        assert is_alike(one), one
        assert one.estimate is not None
        assert one.estimate.control is not None
    around = {row.hours > 0: row.real for row in rows if (row.index, row.code) == ("OP//1", "LAB//x")}
    assert around[True] - around[False] == pytest.approx(2, abs=0.4)


def test_times_dealt_anew_within_subjects_flatten_the_courses(real: Records, vocabulary: Vocabulary) -> None:
    broken = records(retimed(illnesses(80, 2)), vocabulary)
    found = by_name(trajectory_measures(real, broken, None, plan_of(real, broken), {})[0])
    assert all(value_of(found[name]) > 2 * worst_of(found[name]) for name in NAMES)


def test_a_twin_without_the_event_is_one_off(real: Records, vocabulary: Vocabulary) -> None:
    bare = records([event(s, 0, "B", 1.0) for s in range(60)], vocabulary)
    measures, rows = trajectory_measures(real, bare, None, plan_of(real, bare), {})
    found = by_name(measures)
    assert value_of(found["trajectories.error"]) == value_of(found["trajectories.change"]) == 1
    assert value_of(found["trajectories.events"]) > 2 * worst_of(found["trajectories.events"])
    assert {row.synthetic for row in rows if row.index == "OP//1"} == {None}


def test_where_there_is_nothing_to_follow() -> None:
    vocabulary = Vocabulary()
    undated = records([event(s, None, "GENDER//F") for s in range(30)], vocabulary)
    measures, rows = trajectory_measures(undated, undated, None, plan_of(undated, undated), {})
    assert [(one.estimate, one.applicable) for one in measures] == [(None, False)] * 3
    assert rows == []
    few = records([event(s, h, "A", 1.0) for s in range(5) for h in range(3)], vocabulary)
    measures, _ = trajectory_measures(few, few, None, plan_of(few, few), {})
    assert [one.estimate for one in measures] == [None] * 3
    assert "20 real subjects" in measures[0].reason
    codes_only = records([event(s, h, "B") for s in range(30) for h in range(3)], vocabulary)
    found = by_name(trajectory_measures(codes_only, undated, None, plan_of(codes_only, undated), {})[0])
    assert found["trajectories.error"].applicable is False
    assert value_of(found["trajectories.events"]) > 0
