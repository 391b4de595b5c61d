"""Distributions of numbers, their units, and how the numbers of one subject hang together."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from medtwin.check.marginals import js_divergence
from medtwin.check.records import Records, Vocabulary
from medtwin.check.values import (
    Series,
    _moments,
    autocorrelation,
    normal_scores,
    num_needed,
    quantile_bins,
    rows_by_key,
    series,
    unit_measures,
    value_measures,
    within_measures,
    within_share,
)
from tests.check.courses import by_name, dealt, event, is_alike, plan_of, records, value_of, worst_of

NUM_SUBJECTS = 150


def walks(num_subjects: int, seed: int, vocabulary: Vocabulary, *, level: float = 1.0) -> Records:
    """Two labs at 8 times: a level of the subject plus a first-order autoregression of 0.7."""
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(num_subjects):
        for code in ("LAB//x", "LAB//y"):
            noise = rng.normal()
            centre = 10 + level * rng.normal()
            for step in range(8):
                noise = 0.7 * noise + np.sqrt(1 - 0.49) * rng.normal()
                rows.append(event(subject, 6.0 * step, code, centre + noise, "mg"))
    return records(rows, vocabulary)


@pytest.fixture(scope="module")
def sides() -> tuple[Records, Records, Records]:
    vocabulary = Vocabulary()
    return tuple(walks(n, seed, vocabulary) for n, seed in ((NUM_SUBJECTS, 1), (100, 2), (60, 3)))  # type: ignore[return-value]


# Distributions


def test_jensen_shannon_by_hand() -> None:
    first = np.array([[1.0, 0.0], [3.0, 3.0], [2.0, 2.0], [0.0, 0.0]])
    second = np.array([[0.0, 5.0], [1.0, 1.0], [9.0, 0.0], [1.0, 1.0]])
    # (1/2, 1/2) against (1, 0): the middle is (3/4, 1/4);
    # (1/2 log2(2/3) + 1/2 log2(2) + log2(4/3)) / 2 = (0.2075 + 0.4150) / 2
    assert js_divergence(first, second) == pytest.approx([1.0, 0.0, 0.3113, 1.0], abs=1e-4)
    assert js_divergence(second, first) == pytest.approx([1.0, 0.0, 0.3113, 1.0], abs=1e-4)


def test_the_bins_come_from_both_sides_alike() -> None:
    few, many = np.arange(100.0), np.arange(200.0, 10_200.0)
    # 5 bins of the 100 values; the halves of the total weight meet at 99: 2/5 of it lie in 0..79
    assert quantile_bins(few, many).tolist() == [39.0, 79.0, 2199.0, 6199.0, 10_199.0]
    assert quantile_bins(many, few).tolist() == quantile_bins(few, many).tolist()
    assert quantile_bins(np.array([3.0]), np.zeros(0)).tolist() == [3.0]
    assert len(quantile_bins(many, many)) == 20


def test_the_divergence_sees_another_shape_and_not_another_draw(sides: tuple[Records, ...]) -> None:
    real, fresh, control = sides
    plan = plan_of(real, fresh, control)
    measures, rows = value_measures(real, fresh, control, plan, {})
    found = by_name(measures)["values.js"]
    assert value_of(found) <= 2 * worst_of(found)  # like a squared distance
    assert found.estimate is not None
    assert found.estimate.control is not None
    assert all(0 <= row.js.value <= 1 for row in rows)
    two_valued = walks(100, 2, real.vocabulary)
    two_valued.value[:] = np.where(two_valued.value > 10, 11, 9)
    broken = by_name(value_measures(real, two_valued, control, plan, {})[0])["values.js"]
    assert value_of(broken) > 0.5


def test_an_infinite_number_stands_out_and_crashes_nothing(sides: tuple[Records, ...]) -> None:
    real, fresh, _ = sides
    value = fresh.value.copy()
    value[:40] = np.inf
    found = by_name(value_measures(real, replace(fresh, value=value), None, plan_of(real, fresh), {})[0])
    assert value_of(found["values.outside"]) >= 40 / len(value)
    assert value_of(found["values.wasserstein"]) < 1  # pulled in to the real range: a few do not decide it


# Scores and series


def test_normal_scores_by_hand() -> None:
    score = normal_scores(np.array([1.0, 2.0, 2.0, 4.0]))
    # ranks in the middle: 1 -> 0.5/4, 2 -> 2/4, 4 -> 3.5/4; 3 lies above 3 of 4; ends at the 0.5 and 99.5 % quantile
    found = score(np.array([1.0, 2.0, 4.0, 3.0, 735.0, -1.0]))
    assert found == pytest.approx([-1.1503, 0.0, 1.1503, 0.6745, 2.5758, -2.5758], abs=1e-4)


def test_a_series_holds_dated_numbers_and_those_of_one_time_once() -> None:
    vocabulary = Vocabulary()
    side = records(
        [
            event(1, 0, "A", 2.0), event(1, 0, "A", 4.0), event(1, 5, "A", 7.0), event(1, None, "A", 99.0),
            event(2, 1, "A", 1.0), event(2, 1, "B"),
        ],
        vocabulary,
    )  # fmt: skip
    [(key, rows)] = rows_by_key(side).items()
    assert key == (vocabulary.codes["A"], 0)
    assert len(rows) == 5
    found = series(side, rows, lambda value: value)
    assert found.value.tolist() == [3.0, 7.0, 1.0]
    assert found.subject.tolist() == [0, 0, 1]
    assert len(series(side, np.zeros(0, np.int64), lambda value: value).value) == 0


# Within a subject


def line(*subjects: tuple[float, ...]) -> Series:
    subject = np.repeat(np.arange(len(subjects)), [len(one) for one in subjects])
    return Series(np.arange(len(subject)), subject, np.array([v for one in subjects for v in one], np.float64))


def sums_of(*subjects: tuple[float, ...]) -> np.ndarray:
    return _moments(line(*subjects), len(subjects)).sum(axis=0, keepdims=True, dtype=np.float64)


def test_autocorrelation_by_hand() -> None:
    # 1, 2, 3: half the mean squared difference is 1/2, the variance 1
    assert autocorrelation(sums_of((1, 2, 3)))[0] == pytest.approx(0.5)
    # 0, 1, 0, 1: 1/2 and 1/3
    assert autocorrelation(sums_of((0, 1, 0, 1)))[0] == pytest.approx(-0.5)
    # pooled: differences (1 + 1.5) / 5 = 0.5, squares (2 + 1) / 5 = 0.6; a subject with one number is left out
    assert autocorrelation(sums_of((11, 12, 13), (0, 1, 0, 1), (7,)))[0] == pytest.approx(1 - 0.5 / 0.6)
    assert np.isnan(autocorrelation(sums_of((5, 5, 5)))[0])
    assert np.isnan(autocorrelation(sums_of((5,)))[0])


def test_autocorrelation_of_an_arbitrary_order_is_zero_on_average_however_short() -> None:
    for values in ((1.0, 5.0, 6.0), (0.0, 1.0, 3.0, 9.0)):
        assert np.mean([autocorrelation(sums_of(one))[0] for one in permutations(values)]) == pytest.approx(0, abs=1e-6)


def test_within_share_by_hand() -> None:
    # within: (2 + 2) / 2 = 2; all of 0, 2, 10, 12 about 6: (36 + 16 + 16 + 36) / 3
    assert within_share(sums_of((0, 2), (10, 12)))[0] == pytest.approx(2 / (104 / 3))
    assert within_share(sums_of((0, 12), (2, 10)))[0] == pytest.approx((72 + 32) / 2 / (104 / 3))
    assert within_share(sums_of((3, 3), (9, 9)))[0] == 0
    assert np.isnan(within_share(sums_of((3, 3), (3, 3)))[0])


def test_an_independent_draw_hangs_together_as_well(sides: tuple[Records, ...]) -> None:
    real, fresh, control = sides
    measures, rows = within_measures(real, fresh, control, plan_of(real, fresh, control), {"LAB//x": "an x"})
    for one in measures:
        assert is_alike(one), one
        assert one.num_compared == 2
        assert one.estimate is not None
        assert one.estimate.control is not None
    assert {row.description for row in rows} == {"an x", "LAB//y"}
    for row in rows:
        assert (row.num_real, row.num_synthetic) == (NUM_SUBJECTS, 100)
        assert row.within_share_real == pytest.approx(0.42, abs=0.1)  # below 1/2: numbers of one subject are alike


def test_numbers_dealt_anew_within_subjects_lose_their_order_and_nothing_else(sides: tuple[Records, ...]) -> None:
    real, fresh, _ = sides
    broken = dealt(fresh, fresh.subject, fresh.code)
    found = by_name(within_measures(real, broken, None, plan_of(real, broken), {})[0])
    order, share = found["values.autocorrelation"], found["values.within_share"]
    assert value_of(order) > 4 * worst_of(order)
    assert is_alike(share)


def test_numbers_dealt_anew_between_subjects_lose_both(sides: tuple[Records, ...]) -> None:
    real, fresh, _ = sides
    broken = dealt(fresh, fresh.code)
    measures, rows = within_measures(real, broken, None, plan_of(real, broken), {})
    assert all(value_of(one) > 4 * worst_of(one) for one in measures)
    assert all(row.within_share_synthetic == pytest.approx(1, abs=0.1) for row in rows)
    assert all(row.autocorrelation_synthetic == pytest.approx(0, abs=0.15) for row in rows)


def test_one_absurd_number_decides_nothing(sides: tuple[Records, ...]) -> None:
    real, fresh, _ = sides
    found = []
    for size in (real.value.max(), 1e30):
        value = fresh.value.copy()
        value[0] = size
        found.append(within_measures(real, replace(fresh, value=value), None, plan_of(real, fresh), {}))
    assert found[0] == found[1]


def test_what_no_twin_has_twice_is_one_off_and_what_real_subjects_lack_is_not_applicable() -> None:
    vocabulary = Vocabulary()
    real = walks(60, 1, vocabulary)
    once = records([event(s, 0, "LAB//x", float(s), "mg") for s in range(60)], vocabulary)
    measures, rows = within_measures(real, once, None, plan_of(real, once), {})
    assert [value_of(one) for one in measures] == [1.0, 1.0]
    assert {row.autocorrelation_synthetic for row in rows} == {None}
    nothing = records([event(s, 0, "B") for s in range(60)], vocabulary)
    assert [value_of(one) for one in within_measures(real, nothing, None, plan_of(real, nothing), {})[0]] == [1.0, 1.0]
    for side, applicable in ((nothing, False), (once, True)):
        measures, rows = within_measures(side, real, None, plan_of(side, real), {})
        assert [(one.estimate, one.applicable) for one in measures] == [(None, applicable)] * 2
        assert rows == []


def test_fewer_twins_than_real_subjects_need_more_real_subjects() -> None:
    vocabulary = Vocabulary()
    real, few = (records([event(s, 0, "A") for s in range(n)], vocabulary) for n in (100, 10))
    assert num_needed(plan_of(real, real)) == 20
    assert num_needed(plan_of(real, few)) == 100  # of 100 real subjects 10 twins are expected, half of 20


# Units


def test_foreign_units_by_hand() -> None:
    vocabulary = Vocabulary()
    real = records(
        [event(1, 0, "A", 1.0, "mg"), event(2, 0, "A", 1.0, "mg"), event(2, 1, "A", 1.0, "g"), event(3, 0, "B", 1.0)],
        vocabulary,
    )
    twins = records(
        [
            event(1, 0, "A", 1.0, "mg"), event(1, 1, "A", 1.0, "[lb_av]"), event(2, 0, "A", 1.0, "[lb_av]"),
            event(3, 0, "C", 1.0, "mg"),
        ],
        vocabulary,
    )  # fmt: skip
    [measure], rows = unit_measures(real, twins, None, plan_of(real, twins), {"A": "weight"})
    assert value_of(measure) == pytest.approx(1 / 4 + 2 / 4)  # B and C have numbers on one side only
    assert [(row.side, row.code, row.unit, row.num_subjects, row.num_values) for row in rows] == [
        ("synthetic", "A", "[lb_av]", 2, 2),
        ("real", "A", "g", 1, 1),
    ]
    assert rows[0].description == "weight"


def test_units_that_both_sides_use_are_not_foreign(sides: tuple[Records, ...]) -> None:
    real, fresh, control = sides
    [measure], rows = unit_measures(real, fresh, control, plan_of(real, fresh, control), {})
    assert (value_of(measure), rows) == (0.0, [])
    bare = records([event(s, 0, "A") for s in range(30)], real.vocabulary)
    [measure], rows = unit_measures(bare, real, None, plan_of(bare, real), {})
    assert (measure.estimate, measure.applicable, rows) == (None, False, [])
    [measure], rows = unit_measures(real, bare, None, plan_of(real, bare), {})
    assert value_of(measure) == 0
