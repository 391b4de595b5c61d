"""Hand-computed answers on a few rows."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medtwin.check.codes import prevalence, rate, unexplained_share
from medtwin.check.copies import MIN_EVENTS, Tokens, longest_runs, run_hashes, tokens_of
from medtwin.check.marginals import Observations, common_support, cumulative, ks_distance, wasserstein
from medtwin.check.pairs import _follow, _frequent_pairs, _together, _within_subject, make_grid
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.resample import MIN_CONTROL, Draws, average, compare, make_plan, weighted_sums
from medtwin.check.times import gap_hours, kaplan_meier
from medtwin.core.events import Event, events_to_table

START = datetime(2020, 1, 1)


def event(subject: int, hours: float | None, code: str, value: float | None = None, unit: str | None = None) -> Event:
    time = None if hours is None else START + timedelta(hours=hours)
    return Event(subject, time, code, numeric_value=value, unit=unit)


def records(*events: Event, vocabulary: Vocabulary | None = None) -> Records:
    return tables_to_records([events_to_table(events)], vocabulary or Vocabulary())


# Records


def test_records_count_what_happened_and_nothing_else() -> None:
    found = records(
        event(7, None, "GENDER//F"),
        event(7, -8766 * 50, "MEDS_BIRTH"),
        event(7, 5, "B"),
        event(7, 0, "A", 1.5, "mg"),
        event(7, 0, "FHIR//Observation.category"),
        event(7, 0, "NEGATED//A"),
        event(7, 8766, "MEDS_DEATH"),
        event(3, 0, "A"),
    )
    assert found.subjects.tolist() == [3, 7]
    names = found.vocabulary.names
    assert "FHIR//Observation.category" not in names
    assert "NEGATED//A" not in names
    assert found.num_events.tolist() == [1, 3]  # A; A, B, death
    assert found.steps.subject.tolist() == [0, 1, 1, 1]
    assert found.years == pytest.approx([0, 1])
    assert np.isnan(found.ages[0])
    assert found.ages[1] == pytest.approx(50)
    assert found.counts[1, names.index("A")] == 1
    assert gap_hours(found).value.tolist() == [5, 8761]
    duration, died = found.survival
    assert duration == pytest.approx([0, 1])
    assert died.tolist() == [False, True]


def test_shards_and_row_order_do_not_matter() -> None:
    rows = [event(s, h, c) for s in (1, 2) for h in (0, 2, 5) for c in ("A", "B")]
    whole = records(*rows)
    parts = tables_to_records([events_to_table(rows[6:]), events_to_table(rows[:6][::-1])], Vocabulary())
    assert gap_hours(whole).value.tolist() == gap_hours(parts).value.tolist()
    assert whole.num_events.tolist() == parts.num_events.tolist()


# Distances


def test_distances_equal_scipy_where_the_support_is_exact() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 50, 300).astype(float), rng.integers(10, 60, 200).astype(float)
    support = common_support(first, second)
    sums = [
        np.asarray(Observations(np.arange(len(one)), one, len(one)).histogram(support).sum(axis=0))[None]
        for one in (first, second)
    ]
    assert ks_distance(*sums)[0] == pytest.approx(stats.ks_2samp(first, second).statistic)
    assert wasserstein(support, 2.0)(*sums)[0] == pytest.approx(stats.wasserstein_distance(first, second) / 2)


def test_distances_on_quantiles_are_off_by_less_than_a_point() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=4000), rng.normal(0.4, 1, 3000)
    support = common_support(first, second)
    assert len(support) <= 260
    sums = [
        np.asarray(Observations(np.arange(len(one)), one, len(one)).histogram(support).sum(axis=0))[None]
        for one in (first, second)
    ]
    assert ks_distance(*sums)[0] == pytest.approx(stats.ks_2samp(first, second).statistic, abs=1 / 128)
    assert wasserstein(support, 1.0)(*sums)[0] == pytest.approx(stats.wasserstein_distance(first, second), rel=0.05)


def test_a_side_without_values_is_as_wrong_as_can_be() -> None:
    support = np.array([0.0, 1.0, 3.0])
    real, nothing = np.array([[1.0, 1.0, 0.0]]), np.zeros((1, 3))
    assert np.isnan(cumulative(nothing)).all()
    assert ks_distance(real, nothing).tolist() == [1.0]
    assert wasserstein(support, 1.0)(real, nothing).tolist() == [3.0]


def test_prevalence_rate_and_unexplained_share() -> None:
    sums = np.array([[3.0, 0.0, 9.0]])  # 9 subjects, or 9 years
    assert prevalence(sums)[0] == pytest.approx([3.5 / 10, 0.5 / 10])
    assert rate(sums)[0] == pytest.approx([3.5 / 9, 0.5 / 9])
    real = np.array([[0.0, 1.0, 2.0]])
    assert unexplained_share(real, real)[0] == 0
    assert unexplained_share(real, np.full((1, 3), 1.0))[0] == pytest.approx(1)  # the mean explains nothing
    assert unexplained_share(real, real[:, ::-1])[0] == pytest.approx(4)


def test_kaplan_meier_by_hand() -> None:
    # 5 subjects; intervals end at points 1 and 2. Interval 0: 1 death, 1 censored. Interval 1: 1 death. Beyond: 2.
    sums = np.array([[1.0, 1.0, 0.0, 2.0, 1.0, 2.0]])
    assert kaplan_meier(sums)[0] == pytest.approx([4 / 5, 4 / 5 * 2 / 3])


# Pairs


def test_pairs_are_counted_by_step_and_by_subject() -> None:
    found = records(
        event(1, 0, "A"), event(1, 0, "B"), event(1, 1, "B"), event(1, 2, "A"),
        event(2, 0, "B"), event(2, 1, "C"),
    )  # fmt: skip
    names = found.vocabulary.names
    grid = make_grid(found, np.arange(3))
    a, b, c = (names.index(name) for name in "ABC")
    pairs = np.array([[a, b], [b, a], [b, c]])
    assert _together(grid, pairs).tolist() == [[1, 1, 0, 3], [0, 0, 0, 2]]
    assert _follow(grid, pairs).tolist() == [[1, 1, 0, 3], [0, 0, 1, 2]]
    assert _within_subject(grid, pairs).tolist() == [[1, 1, 0, 1], [0, 0, 1, 1]]
    assert {tuple(pair) for pair in _frequent_pairs(grid, "together")} == {(min(a, b), max(a, b))}
    assert {tuple(pair) for pair in _frequent_pairs(grid, "next")} == {(a, b), (b, b), (b, a), (b, c)}


# Resampling


def test_the_plan_draws_whole_subjects_and_splits_them_in_two() -> None:
    plan = make_plan(10, 5, MIN_CONTROL, seed=1, num_resamples=20)
    assert plan.real.shape == (21, 10)
    assert (plan.real[0] == 1).all()
    assert (plan.real.sum(axis=1) == 10).all()
    assert (plan.synthetic.sum(axis=1) == 5).all()
    assert (plan.half_a + plan.half_b == 1).all()
    assert (plan.half_a.sum(axis=1) == 5).all()
    # a half against a half has noise 1/5 + 1/5; all 10 against 5 twins 1/10 + 1/5
    assert plan.half_scale == pytest.approx(np.sqrt(0.3 / 0.4))
    assert make_plan(10, 5, MIN_CONTROL - 1, seed=1).control_scale is None
    with pytest.raises(ValueError, match="2 real subjects"):
        make_plan(1, 5, 0, seed=0)


def test_sparse_and_dense_features_give_the_same_sums() -> None:
    from scipy import sparse

    plan = make_plan(6, 4, 0, seed=0, num_resamples=5)
    dense = np.arange(18, dtype=np.float32).reshape(6, 3)
    expected = weighted_sums(plan.real, dense)
    assert weighted_sums(plan.real, sparse.csr_array(dense)) == pytest.approx(expected)
    assert expected[0].tolist() == dense.sum(axis=0).tolist()


def test_baselines_scaled_to_the_sample_sizes_are_what_two_samples_of_one_law_differ_by() -> None:
    """The mean distance of fresh pairs of these sizes lies near the mean baseline, over 40 pairs."""
    rng = np.random.default_rng(3)
    measured, baselines, covered = [], [], 0

    def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.abs(first[:, 0] / first[:, 1] - second[:, 0] / second[:, 1])

    for number in range(40):
        sides = [np.column_stack([rng.normal(size=n), np.ones(n)]).astype(np.float32) for n in (120, 80)]
        plan = make_plan(120, 80, 0, seed=number, num_resamples=50)
        estimate = compare(plan, *sides, None, distance).estimate(plan)
        measured.append(estimate.value)
        baselines.append(estimate.baseline)
        covered += estimate.value <= estimate.baseline_worst
        assert estimate.low <= estimate.value <= estimate.high
    assert np.mean(baselines) == pytest.approx(np.mean(measured), rel=0.25)
    assert covered >= 34  # 95 % of 40 is 38


def test_an_average_of_distances_is_weighted() -> None:
    draws = [Draws(np.array([value]), np.array([value]), value) for value in (1.0, 4.0)]
    assert average(draws, [2.0, 1.0]).bootstrap.tolist() == [2.0]
    assert average(draws).control == 2.5
    with pytest.raises(ValueError, match="at least one"):
        average([])


# Copies


def sequence(subject: int, values: list[float]) -> list[Event]:
    return [event(subject, 24.0 * i, "A", value) for i, value in enumerate(values)]


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 30), st.integers(0, 20), st.integers(0, 20))
def test_a_run_is_found_wherever_it_stands_and_no_longer_than_it_is(length: int, before: int, after: int) -> None:
    rng = np.random.default_rng(length)
    run = [round(v) for v in rng.integers(1, 900, length + 1)]
    one = sequence(1, [1000 + 10 * i for i in range(before)] + run + [3000 + 10 * i for i in range(after)])
    other = sequence(2, [5000, *run])
    vocabulary = Vocabulary()
    longest = longest_runs(
        tokens_of(records(*one, vocabulary=vocabulary)), tokens_of(records(*other, vocabulary=vocabulary))
    )
    # the first event of the run differs in its gap where it is the first of the record
    shared = length if before == 0 else length + 1
    assert longest[0] <= shared
    assert longest[0] >= 4 if shared >= 4 else longest[0] == 0
    assert longest[0] > shared / 1.6


def test_runs_do_not_cross_subjects_and_the_order_within_an_instant_is_none() -> None:
    vocabulary = Vocabulary()
    together = [event(1, 0, code, 1.0) for code in "ABCDE"]
    shuffled = [event(2, 100, code, 1.0) for code in "DBEAC"]
    first, second = (tokens_of(records(*rows, vocabulary=vocabulary)) for rows in (together, shuffled))
    assert longest_runs(first, second).tolist() == [4]
    tokens = Tokens(np.arange(6, dtype=np.uint64), np.array([0, 0, 0, 1, 1, 1]), 2)
    assert len(run_hashes(tokens, 4)[0]) == 0
    assert len(run_hashes(tokens, 3)[0]) == 2
    assert len(run_hashes(tokens, 7)[0]) == 0


def test_equal_records_are_duplicates_and_others_are_not() -> None:
    from medtwin.check.copies import _repeated

    values = [float(v) for v in range(MIN_EVENTS)]
    twins = tokens_of(
        records(*sequence(1, values), *sequence(2, values), *sequence(3, values[::-1]), *sequence(4, [1]))
    )
    assert _repeated(twins).tolist() == [True, True, False]  # the record of one event is not looked at


def test_reading_needs_no_more_than_the_meds_columns() -> None:
    from medtwin.core.events import with_all_columns

    bare = pa.table(
        {"subject_id": pa.array([1, 1]), "time": pa.array([START, None], pa.timestamp("us")), "code": ["A", "B"]}
    )
    found = tables_to_records([with_all_columns(bare)], Vocabulary())
    assert found.num_events.tolist() == [1]
