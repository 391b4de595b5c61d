from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from medtwin.check.estimates import Estimate
from medtwin.check.kinds import MIN_SUBJECTS, kind_events, kind_measures
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.resample import make_plan
from medtwin.check.times import time_measures
from medtwin.core.events import Event
from tests.check import samples
from tests.check.timelines import at, estimates, is_ordinary, records

NAMES = ("length_by_kind.ks", "length_by_kind.worst_ks", "gaps_by_kind.ks", "gaps_by_kind.worst_ks")


def test_events_are_told_apart_by_kind() -> None:
    found = kind_events(
        records(
            [
                at(1, -8766, "MEDS_BIRTH", "Patient"),
                at(1, 0, "a", "Observation"),
                at(1, 0, "b", "Observation"),  # the same time: two events, no gap
                at(1, 1, "SYSTEM//c"),
                at(1, 5, "a", "Observation"),
                at(1, 9, "SYSTEM//d"),
                at(1, None, "b", "Observation"),  # undated
                at(1, 20, "MEDS_DEATH", "Patient"),
                at(2, 100, "a", "Observation"),
            ]
        )
    )
    assert set(found) == {"Observation", "SYSTEM"}
    assert found["Observation"].gaps.value.tolist() == [5]
    assert found["Observation"].lengths.value.tolist() == [3, 1]
    assert found["SYSTEM"].gaps.value.tolist() == [8]
    assert found["SYSTEM"].lengths.value.tolist() == [2, 0]
    assert found["SYSTEM"].num_subjects == 1
    assert found["SYSTEM"].median_gap == 8
    assert kind_events(records([])) == {}


def ward(gaps: list[float], num_visits: list[int]) -> list[Event]:
    """Each subject has two measurements so far apart, and so many visits a day apart."""
    rows = []
    for subject, (gap, visits) in enumerate(zip(gaps, num_visits, strict=True)):
        rows += [at(subject, 0, "lab", "Observation"), at(subject, gap, "lab", "Observation")]
        rows += [at(subject, 1000 + 24 * i, "visit", "Encounter") for i in range(visits)]
    return rows


def test_distances_by_kind_by_hand() -> None:
    vocabulary = Vocabulary()
    # a third kind is borne by one subject too few
    few = [at(subject, 2000, "shot", "Immunization") for subject in range(MIN_SUBJECTS - 1)]
    real = records([*ward([1.0] * 40, [2] * 40), *few], vocabulary)
    twins = records(ward([1.0] * 10 + [3.0] * 10, [2] * 15 + [0] * 5), vocabulary)
    plan = make_plan(40, 20, 0, seed=0, num_resamples=20)
    measures, rows = kind_measures(real, twins, None, plan)
    found = estimates(measures)
    assert [(one.name, one.num_compared) for one in measures] == [(name, 2) for name in NAMES]
    # lengths: measurements 0, visits 5 of 20 without any; gaps: measurements 10 of 20 too long, visits 0
    assert found["length_by_kind.ks"].value == pytest.approx(0.125)
    assert found["length_by_kind.worst_ks"].value == pytest.approx(0.25)
    assert found["gaps_by_kind.ks"].value == pytest.approx(0.25)
    assert found["gaps_by_kind.worst_ks"].value == pytest.approx(0.5)
    assert [row.kind for row in rows] == ["Observation", "Encounter"]  # the worst first
    assert (rows[0].num_codes, rows[0].num_real, rows[0].num_synthetic) == (1, 40, 20)
    assert (rows[0].gap_real, rows[0].gap_synthetic) == (1, 2)
    assert (rows[1].num_real, rows[1].num_synthetic) == (40, 15)
    assert (rows[1].events_real, rows[1].events_synthetic) == (2, 1.5)


def test_a_gap_that_few_people_have_is_not_told() -> None:
    real = records([*(at(subject, 0, "lab", "Observation") for subject in range(30)), at(3, 77, "lab", "Observation")])
    _, rows = kind_measures(real, real, None, make_plan(30, 30, 0, seed=0, num_resamples=5))
    assert (rows[0].gaps, rows[0].gap_real, rows[0].gap_synthetic) == (None, None, None)


def test_a_kind_that_no_twin_has_is_wrong_altogether_and_single_events_have_no_gaps() -> None:
    vocabulary = Vocabulary()
    real = records([at(subject, hour, "lab", "Observation") for subject in range(30) for hour in (0, 5)], vocabulary)
    other = records([at(subject, 0, "visit", "Encounter") for subject in range(30)], vocabulary)
    plan = make_plan(30, 30, 0, seed=0, num_resamples=20)
    measures, rows = kind_measures(real, other, None, plan)
    assert all(one.value == 1 for one in estimates(measures).values())
    assert rows[0].gap_synthetic is None
    measures, rows = kind_measures(other, real, None, plan)
    assert [one.estimate is None for one in measures] == [False, False, True, True]
    assert measures[2].reason == "no kind of event is borne by 20 real subjects twice"
    assert rows[0].gaps is None


def test_a_control_of_other_kinds_says_nothing_of_gaps() -> None:
    vocabulary = Vocabulary()
    real = records([at(subject, hour, "lab", "Observation") for subject in range(30) for hour in (0, 5)], vocabulary)
    other = records([at(subject, 0, "visit", "Encounter") for subject in range(30)], vocabulary)
    found = estimates(kind_measures(real, real, other, make_plan(30, 30, 30, seed=0, num_resamples=20))[0])
    assert found["length_by_kind.ks"].control == 1
    assert found["gaps_by_kind.ks"].control is None


@pytest.mark.parametrize("events", [[], [at(1, 0, "a")], [at(subject, None, "a") for subject in range(30)]])
def test_nothing_to_compare_is_said(events: list[Event]) -> None:
    real = records(events)
    plan = make_plan(max(real.num_subjects, 2), max(real.num_subjects, 1), 0, seed=0, num_resamples=5)
    measures, rows = kind_measures(real, real, None, plan)
    assert rows == []
    assert [one.name for one in measures] == list(NAMES)
    assert all(one.estimate is None and one.reason for one in measures)


# Broken data


def measured(real: Records, twins: pa.Table) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    side = tables_to_records([twins], real.vocabulary)
    plan = make_plan(real.num_subjects, side.num_subjects, 0, seed=0, num_resamples=40)
    return estimates(kind_measures(real, side, None, plan)[0]), estimates(time_measures(real, side, None, plan)[0])


def test_an_independent_draw_is_ordinary_and_times_dealt_to_other_kinds_are_not(
    real_table: pa.Table, fresh_table: pa.Table
) -> None:
    real = tables_to_records([real_table], Vocabulary())
    fresh, _ = measured(real, fresh_table)
    assert all(is_ordinary(fresh[name]) for name in NAMES)
    within, overall = measured(real, samples.shuffled_times_within(fresh_table))
    assert is_ordinary(overall["gaps.ks"])  # the times of a subject are the same as before
    assert is_ordinary(within["length_by_kind.ks"])
    assert not is_ordinary(within["gaps_by_kind.ks"])
    assert not is_ordinary(within["gaps_by_kind.worst_ks"])


def test_codes_dealt_to_other_people_keep_the_length_and_lose_the_lengths_by_kind(
    real_table: pa.Table, fresh_table: pa.Table
) -> None:
    real = tables_to_records([real_table], Vocabulary())
    dealt, overall = measured(real, samples.shuffled_codes(fresh_table))
    assert is_ordinary(overall["length.ks"])
    assert not is_ordinary(dealt["length_by_kind.ks"])
    assert not is_ordinary(dealt["length_by_kind.worst_ks"])
    assert np.isclose(overall["length.ks"].value, measured(real, fresh_table)[1]["length.ks"].value)
