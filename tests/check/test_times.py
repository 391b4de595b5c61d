from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from medtwin.check.estimates import Estimate, Measure
from medtwin.check.marginals import Observations, shared_support
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.resample import make_plan
from medtwin.check.times import (
    exits,
    kaplan_meier,
    restricted_mean,
    survival_points,
    survival_row,
    time_measures,
)
from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.events import Event, sort_events
from tests.check import samples
from tests.check.timelines import HOURS_PER_YEAR, at, estimates, is_ordinary, records

DEATHS = ("survival.gap", "survival.rmst", "mortality.difference")


def followed(first: int, years: list[float], deaths: list[bool]) -> list[Event]:
    """Subjects that are seen at once and again after so many years, when some of them die."""
    rows = []
    for subject, (duration, died) in enumerate(zip(years, deaths, strict=True), start=first):
        rows.append(at(subject, 0, "seen"))
        rows.append(at(subject, duration * HOURS_PER_YEAR, DEATH if died else "seen"))
    return rows


def curve(side: Records, points: np.ndarray) -> np.ndarray:
    return kaplan_meier(exits(side, points).sum(axis=0, keepdims=True, dtype=np.float64))[0]


def measured(real: Records, twins: Records, control: Records | None = None) -> dict[str, Measure]:
    num_control = control.num_subjects if control is not None else 0
    plan = make_plan(real.num_subjects, twins.num_subjects, num_control, seed=0, num_resamples=40)
    return {one.name: one for one in time_measures(real, twins, control, plan)[0]}


# Survival


def test_survival_and_its_restricted_mean_by_hand() -> None:
    # deaths after 1 year (of 5 at risk) and 3 years (of 3); one leaves after 2 years, two after 4
    side = records(followed(1, [1, 2, 3, 4, 4], [True, False, True, False, False]))
    points = survival_points(side)
    assert points is not None
    assert points == pytest.approx([0, 1, 2, 3, 4])
    assert curve(side, points) == pytest.approx([1, 4 / 5, 4 / 5, 4 / 5 * 2 / 3, 4 / 5 * 2 / 3])
    # 1 + 4/5 + 4/5 + 8/15
    mean = restricted_mean(exits(side, points).sum(axis=0, keepdims=True, dtype=np.float64), points)
    assert mean == pytest.approx([47 / 15])
    row = survival_row(side, records(followed(1, [4, 4], [False, True])))
    assert row is not None
    assert (row.tau_years, row.mean_real, row.mean_synthetic) == pytest.approx((4, 47 / 15, 4))
    assert (row.deaths_real, row.deaths_synthetic, row.share_real, row.share_synthetic) == (2, 1, 0.4, 0.5)


def test_nobody_is_at_risk_before_the_first_date_nor_after_the_last() -> None:
    real = followed(1, [1, 1], [True, False])
    undated = [at(subject, None, "seen") for subject in (8, 9)]
    both = [records(real), records([*real, *undated])]
    points = np.array([0.0, 1.0])
    assert [curve(side, points).tolist() for side in both] == [[1, 0.5], [1, 0.5]]
    # who dies at the first time of the record dies at 0; the one who has no second time leaves there
    at_once = records([at(1, 0, DEATH), at(2, 0, "seen"), *followed(3, [1, 1], [False, False]), *undated])
    assert curve(at_once, points).tolist() == [0.75, 0.75]


def product_limit(years: np.ndarray, died: np.ndarray, time: float) -> float:
    """Kaplan & Meier 1958, as a textbook writes it."""
    alive = 1.0
    for moment in sorted({float(t) for t, dead in zip(years, died, strict=True) if dead and t <= time}):
        at_risk = sum(1 for t in years if t >= moment)
        deaths = sum(1 for t, dead in zip(years, died, strict=True) if dead and t == moment)
        alive *= 1 - deaths / at_risk
    return alive


def test_survival_is_what_a_textbook_computes() -> None:
    rng = np.random.default_rng(4)
    for _ in range(8):
        num_subjects = int(rng.integers(10, 60))
        years, died = rng.integers(1, 12, num_subjects) / 4, rng.random(num_subjects) < rng.random()
        side = records(followed(0, years.tolist(), died.tolist()))
        points = survival_points(side)
        assert points is not None
        exact, _ = side.survival  # years to the microsecond, ties kept
        expected = [product_limit(exact, died, float(point)) for point in points]
        assert curve(side, points) == pytest.approx(expected)
        area = sum(height * (b - a) for height, (a, b) in zip(expected, pairwise(points), strict=False))
        sums = exits(side, points).sum(axis=0, keepdims=True, dtype=np.float64)
        assert restricted_mean(sums, points)[0] == pytest.approx(area)


def test_of_many_durations_the_curves_are_off_by_less_than_a_point() -> None:
    rng = np.random.default_rng(5)
    years, died = rng.exponential(2, 700).round(4) + 0.001, rng.random(700) < 0.4
    side = records(followed(0, years.tolist(), died.tolist()))
    points = survival_points(side)
    assert points is not None
    assert len(points) <= 258
    assert points[-1] == pytest.approx(np.quantile(years, 0.95), rel=1e-6)
    expected = [product_limit(years, died, float(point) + 1e-9) for point in points[::25]]
    assert curve(side, points)[::25] == pytest.approx(expected, abs=0.01)


def test_distances_of_survival_by_hand() -> None:
    vocabulary = Vocabulary()
    real = records(followed(1, [1.0] * 20 + [2.0] * 20, [True] * 20 + [False] * 20), vocabulary)
    twins = records(followed(1, [1.0] * 5 + [2.0] * 15, [True] * 5 + [False] * 15), vocabulary)
    found = measured(real, twins)
    # half of the real subjects live the second of two years, three quarters of the twins
    assert found["survival.gap"].estimate.value == pytest.approx(0.25)  # type: ignore[union-attr]
    assert found["survival.rmst"].estimate.value == pytest.approx((1.75 - 1.5) / 2)  # type: ignore[union-attr]
    assert found["mortality.difference"].estimate.value == pytest.approx(0.25)  # type: ignore[union-attr]
    assert found["survival.rmst"].title.startswith("Restricted mean survival time up to 2.0 years")
    assert all(found[name].num_compared == 25 for name in DEATHS)


def test_where_nobody_dies_there_is_no_survival_and_where_only_twins_die_there_is_a_difference() -> None:
    vocabulary = Vocabulary()
    real = records(followed(1, [1.0] * 20, [False] * 20), vocabulary)
    twins = records(followed(1, [1.0] * 20, [True] * 5 + [False] * 15), vocabulary)
    assert all(not one.applicable for name, one in measured(real, real).items() if name in DEATHS)
    assert survival_row(real, real) is None
    found = estimates(one for name, one in measured(real, twins).items() if name in DEATHS)
    assert found["survival.gap"].value == found["mortality.difference"].value == 0.25
    # who dies as soon as they are seen is not followed: only their share can be told
    at_once = records([at(subject, 0, DEATH if subject < 5 else "seen") for subject in range(20)], vocabulary)
    short = measured(at_once, twins)
    assert short["survival.rmst"].estimate is None
    assert short["survival.rmst"].applicable
    assert short["mortality.difference"].estimate is not None
    assert survival_row(at_once, twins) is None


# Length by age


def aged(ages_and_events: list[tuple[int, int]]) -> list[Event]:
    """Subjects of these ages with so many events, a day apart."""
    rows = []
    for subject, (age, events) in enumerate(ages_and_events):
        rows.append(at(subject, -(age + 0.5) * HOURS_PER_YEAR, BIRTH))
        rows += [at(subject, 24.0 * day, "seen") for day in range(events)]
    return rows


def test_length_by_age_by_hand() -> None:
    vocabulary = Vocabulary()
    real = records(aged([(30, 2)] * 20 + [(70, 8)] * 20), vocabulary)
    dealt = records(aged([(30, 2), (30, 8), (70, 2), (70, 8)] * 10), vocabulary)
    found = measured(real, dealt)
    # means with half an event added in 20 subjects: 2.025 and 8.025 against 5.025 and 5.025
    expected = (np.log(5.025 / 2.025) + np.log(8.025 / 5.025)) / 2
    assert expected == pytest.approx(0.6885, abs=1e-4)
    assert found["length_by_age.log_ratio"].estimate.value == pytest.approx(expected)  # type: ignore[union-attr]
    assert found["length_by_age.log_ratio"].num_compared == 2
    assert found["length.ks"].estimate.value == 0  # type: ignore[union-attr]
    same = measured(real, records(aged([(30, 2)] * 30 + [(70, 8)] * 12), vocabulary))
    estimate = same["length_by_age.log_ratio"].estimate
    assert estimate is not None
    assert estimate.value == pytest.approx((np.log(2.025 / (60.5 / 30)) + np.log((96.5 / 12) / 8.025)) / 2, abs=1e-6)
    assert estimate.value < 0.004  # another mix of ages is no fault of the length


def test_a_band_of_age_counts_where_both_sides_should_have_people() -> None:
    vocabulary = Vocabulary()
    real = records(aged([(30, 2)] * 30 + [(70, 8)] * 19), vocabulary)
    young = records(aged([(30, 2)] * 40), vocabulary)
    assert measured(real, young)["length_by_age.log_ratio"].num_compared == 1  # 19 real subjects of 60 to 79
    real = records(aged([(30, 2)] * 30 + [(70, 8)] * 30), vocabulary)
    # all twins are young: the others have half an event each, of 8
    missing = measured(real, young)["length_by_age.log_ratio"].estimate
    assert missing is not None
    assert missing.value == pytest.approx(np.log(8 / 0.5) / 2, abs=0.02)
    few = measured(real, records(aged([(30, 2)] * 19), vocabulary))["length_by_age.log_ratio"]
    assert few.estimate is None
    assert few.applicable
    ageless = records(followed(1, [1.0] * 30, [False] * 30), vocabulary)
    assert not measured(ageless, young)["length_by_age.log_ratio"].applicable


# Supports


def test_a_control_has_points_of_its_own() -> None:
    sides = [Observations(np.arange(len(v)), np.array(v, float), len(v)) for v in ([2, 2], [2, 3], [0, 9])]
    assert shared_support([one.value for one in sides]).tolist() == [0, 2, 3, 9]
    assert shared_support([one.value for one in sides[:2]]).tolist() == [2, 3]
    vocabulary = Vocabulary()
    real = records([at(subject, 24 * day, "a") for subject in range(40) for day in range(3)], vocabulary)
    control = records([at(subject, 0, "a") for subject in range(40)], vocabulary)
    found = measured(real, real, control)["length.ks"].estimate
    assert found is not None
    assert found.value == 0
    assert found.control == 1


@pytest.mark.parametrize("events", [[], [at(1, 0, "a")], [at(subject, None, "a") for subject in range(30)]])
def test_nothing_to_compare_is_said(events: list[Event]) -> None:
    vocabulary = Vocabulary()
    real = records([*aged([(30, 2)] * 30), *followed(50, [1.0] * 30, [True] * 30)], vocabulary)
    nothing = records(events, vocabulary)
    for sides in ((nothing, nothing), (real, nothing), (nothing, real)):
        if sides[0].num_subjects < 2 or sides[1].num_subjects < 1:
            continue
        for one in measured(*sides).values():
            assert one.estimate is not None or one.reason


# Broken data


def broken(real: Records, twins: pa.Table) -> dict[str, Estimate]:
    return estimates(measured(real, tables_to_records([twins], real.vocabulary)).values())


def with_ages_by_length(table: pa.Table) -> pa.Table:
    """The ages at the first event go to other people, the greatest to the shortest record; the records stay.

    In the embedded hospital the length has little to do with the age.
    """
    side = tables_to_records([table], Vocabulary())
    subject = np.searchsorted(side.subjects, table["subject_id"].to_numpy())
    birth = side.time_of(BIRTH)
    first = np.full(side.num_subjects, 0)
    first[side.steps.subject[::-1]] = side.steps.time_us[::-1]
    shortest = np.argsort(side.num_events, kind="stable")
    moved = first.copy()
    moved[shortest] -= np.sort(first - birth)[::-1]
    time = table["time"].cast(pa.int64()).to_pylist()
    is_birth = np.asarray(pc.equal(table["code"], BIRTH))
    times = [int(moved[s]) if b else t for s, b, t in zip(subject, is_birth, time, strict=True)]
    return sort_events(samples.with_column(table, "time", pa.array(times, pa.int64()).cast(pa.timestamp("us"))))


def with_early_deaths(table: pa.Table) -> pa.Table:
    """Every third record ends in death in the middle."""
    subjects = np.unique(table["subject_id"].to_numpy())
    rows = table.filter(pc.invert(pc.equal(table["code"], DEATH)))
    parts = [rows.filter(pc.invert(pc.is_in(rows["subject_id"], value_set=pa.array(subjects[::3]))))]
    for subject in subjects[::3]:
        one = rows.filter(pc.equal(rows["subject_id"], subject))
        dated = samples.dated(one)
        half = one.slice(0, int(dated[len(dated) // 2]) + 1)
        last = half.slice(len(half) - 1)
        parts += [half, samples.without_identity(samples.with_column(last, "code", pa.array([DEATH])))]
    return sort_events(pa.concat_tables(parts))


def test_an_independent_draw_is_ordinary_and_each_fault_is_seen(real_table: pa.Table, fresh_table: pa.Table) -> None:
    real = tables_to_records([real_table], Vocabulary())
    fresh = broken(real, fresh_table)
    assert all(is_ordinary(fresh[name]) for name in (*DEATHS, "length_by_age.log_ratio"))
    dealt = broken(real, with_ages_by_length(fresh_table))
    assert dealt["length.ks"].value == fresh["length.ks"].value
    assert not is_ordinary(dealt["length_by_age.log_ratio"])
    deadly = broken(real, with_early_deaths(fresh_table))
    # the largest gap lies late, where few are left: among so few people it is the least sure of the three
    assert deadly["survival.gap"].value > deadly["survival.gap"].baseline_worst
    assert not any(is_ordinary(deadly[name]) for name in DEATHS[1:])
