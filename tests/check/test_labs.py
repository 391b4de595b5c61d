"""Correlation of numbers: between subjects, from day to day, and at one time."""

from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.findings import CorrelationRow
from medtwin.check.labs import (
    Cells,
    _cells,
    _comoments,
    _correlations,
    _products,
    common_labs,
    correlation_measures,
    days_of,
)
from medtwin.check.records import Records, Vocabulary
from medtwin.check.values import rows_by_key, series
from tests.check.courses import by_name, dealt, event, is_alike, plan_of, records, value_of, with_values, worst_of

NAMES = ["lab_correlation.error", *(f"lab_correlation.{kind}_error" for kind in ("between", "day", "time"))]
PAIRS = np.array([[0, 1]])


def panels(num_subjects: int, seed: int, vocabulary: Vocabulary) -> Records:
    """Three labs, three times on each of four days: `x` and `y` agree at every level, `z` with neither."""
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(num_subjects):
        level, other = rng.normal(size=2)
        for day in range(4):
            drift, away = rng.normal(size=2)
            for hour in (0, 4, 8):
                both, noise = rng.normal(), rng.normal(size=3)
                for code, value in (
                    ("x", level + drift + both + 0.3 * noise[0]),
                    ("y", level + drift + both + 0.3 * noise[1]),
                    ("z", other + away + noise[2]),
                ):
                    rows.append(event(subject, 24 * day + hour, f"LAB//{code}", value, "mg"))
    return records(rows, vocabulary)


@pytest.fixture(scope="module")
def sides() -> tuple[Records, Records, Records]:
    vocabulary = Vocabulary()
    return tuple(panels(n, seed, vocabulary) for n, seed in ((80, 1), (60, 2), (40, 3)))  # type: ignore[return-value]


def correlation_of(kind: str, cells: Cells) -> float:
    features = (_products if kind == "between" else _comoments)(cells, PAIRS)
    flat = features.reshape(len(features), -1).sum(axis=0, keepdims=True, dtype=np.float64)
    return float(_correlations(kind, flat)[0, 0])  # type: ignore[arg-type]


def test_correlations_by_hand() -> None:
    nan = np.nan
    means = Cells(np.array([[1.0, 2.0, 3.0, 9.0], [2.0, 1.0, 3.0, nan]]), np.arange(4), 4)
    # three subjects have both: the ranks 1, 2, 3 and 2, 1, 3 correlate by 1/2
    assert correlation_of("between", means) == pytest.approx(0.5)
    within = Cells(
        np.array([[0.0, 2.0, 10.0, 14.0, 5.0, 6.0], [1.0, 3.0, 50.0, 48.0, nan, 7.0]]), np.array([0, 0, 1, 1, 2, 2]), 3
    )
    # deviations (-1, -1), (1, 1), (-2, 1), (2, -1): -2 / sqrt(10 * 4); the third subject has both once
    assert correlation_of("day", within) == pytest.approx(-2 / np.sqrt(40))
    assert np.isnan(correlation_of("time", Cells(np.array([[1.0, 1.0], [1.0, 2.0]]), np.zeros(2, np.int64), 1)))
    assert np.isnan(correlation_of("between", Cells(np.array([[1.0], [1.0]]), np.zeros(1, np.int64), 1)))


def test_days_count_24_hours_from_the_first_time_and_hold_means() -> None:
    vocabulary = Vocabulary()
    side = records(
        [
            event(1, 20, "A", 1.0), event(1, 30, "A", 3.0), event(1, 44, "A", 7.0), event(1, 30, "B", 5.0),
            event(2, 0, "B"), event(2, 100, "A", 4.0), event(3, None, "A", 9.0),
        ],
        vocabulary,
    )  # fmt: skip
    number, whose = days_of(side)
    assert number.tolist() == [0, 0, 1, 2, 3]  # hours 20 and 30; 44; 0; 100
    assert whose.tolist() == [0, 0, 1, 1]
    rows = rows_by_key(side)
    labs = [series(side, rows[vocabulary.codes[code], 0], lambda value: value) for code in "AB"]
    assert _cells("day", side, labs).value.tolist() == pytest.approx(
        np.array([[2.0, 7.0, np.nan, 4.0], [5.0, np.nan, np.nan, np.nan]]), nan_ok=True
    )
    assert _cells("between", side, labs).value[0].tolist() == pytest.approx([11 / 3, 4.0, np.nan], nan_ok=True)
    assert _cells("time", side, labs).value[1].tolist() == pytest.approx([np.nan, 5] + [np.nan] * 3, nan_ok=True)


def test_the_most_common_labs_come_first_and_rare_ones_not_at_all() -> None:
    vocabulary = Vocabulary()
    rows = [event(s, 0, "A", 1.0, "mg") for s in range(5)] + [event(s, 0, "B", 1.0) for s in range(9)]
    side = records([*rows, *(event(0, h, "C", 1.0) for h in range(50))], vocabulary)
    names = [(vocabulary.names[code], list(vocabulary.units)[unit]) for code, unit in common_labs(side, 30, 2)]
    assert names == [("B", ""), ("A", "mg")]
    assert len(common_labs(side, 1, 2)) == 1


def test_an_independent_draw_correlates_alike_and_rows_tell_the_truth(sides: tuple[Records, ...]) -> None:
    real, fresh, control = sides
    measures, rows = correlation_measures(real, fresh, control, plan_of(real, fresh, control))
    assert [one.name for one in measures] == NAMES
    for one in measures:
        assert is_alike(one), one
        assert one.estimate is not None
        assert one.estimate.control is not None
    assert [one.num_compared for one in measures] == [9, 3, 3, 3]

    def row_of(kind: str, second: str) -> CorrelationRow:
        [row] = [one for one in rows if (one.kind, one.first, one.second) == (kind, "LAB//x", f"LAB//{second}")]
        return row

    for kind, truth in (("between", 0.98), ("day", 0.97), ("time", 0.95)):
        row = row_of(kind, "y")
        assert row.real == pytest.approx(truth, abs=0.03)
        assert row.synthetic == pytest.approx(truth, abs=0.03)
        assert row_of(kind, "z").real == pytest.approx(0, abs=0.25)
        assert (row.first_unit, row.num_real, row.num_synthetic) == ("mg", 80, 60)


def test_numbers_dealt_anew_between_subjects_do_not_go_together(sides: tuple[Records, ...]) -> None:
    real, fresh, _ = sides
    broken = dealt(fresh, fresh.code)
    found = by_name(correlation_measures(real, broken, None, plan_of(real, broken))[0])
    assert all(value_of(found[name]) > 2 * worst_of(found[name]) for name in NAMES)


def test_each_kind_sees_its_own_break(sides: tuple[Records, ...]) -> None:
    """Dealing within a subject spares its mean; within a day also the mean of the day."""
    real, fresh, _ = sides
    within_day = dealt(fresh, fresh.subject, fresh.code, days_of(fresh)[0][fresh.steps.step])
    found = by_name(correlation_measures(real, within_day, None, plan_of(real, fresh))[0])
    assert is_alike(found["lab_correlation.between_error"])
    assert is_alike(found["lab_correlation.day_error"])
    assert value_of(found["lab_correlation.time_error"]) > 2 * worst_of(found["lab_correlation.time_error"])
    within_subject = dealt(fresh, fresh.subject, fresh.code)
    found = by_name(correlation_measures(real, within_subject, None, plan_of(real, fresh))[0])
    assert is_alike(found["lab_correlation.between_error"])
    assert value_of(found["lab_correlation.day_error"]) > 2 * worst_of(found["lab_correlation.day_error"])


def test_any_unit_of_measurement_and_one_absurd_number_are_all_the_same(sides: tuple[Records, ...]) -> None:
    """Normal scores: another monotone scale on both sides changes nothing."""
    real, fresh, _ = sides
    plain = correlation_measures(real, fresh, None, plan_of(real, fresh))[0]
    curved = [with_values(side, np.arange(len(side.value))) for side in (real, fresh)]
    for side in curved:
        side.value[:] = np.exp(side.value)
    skewed = correlation_measures(*curved, None, plan_of(real, fresh))[0]
    for one, other in zip(plain, skewed, strict=True):
        assert value_of(one) == pytest.approx(value_of(other), abs=1e-3)
    curved[1].value[0] = 1e30
    absurd = correlation_measures(*curved, None, plan_of(real, fresh))[0]
    for one, other in zip(plain, absurd, strict=True):
        assert value_of(one) == pytest.approx(value_of(other), abs=0.02)


def test_what_twins_lack_is_one_off_and_what_real_subjects_lack_has_no_answer(sides: tuple[Records, ...]) -> None:
    real, _, _ = sides
    bare = records([event(s, 0, "LAB//x") for s in range(60)], real.vocabulary)
    measures, rows = correlation_measures(real, bare, None, plan_of(real, bare))
    assert all(value_of(one) == 1 for one in measures)
    assert {(row.synthetic, row.num_synthetic) for row in rows} == {(None, 0)}
    measures, rows = correlation_measures(bare, real, None, plan_of(bare, real))
    assert [(one.name, one.estimate, one.applicable) for one in measures] == [(name, None, False) for name in NAMES]
    assert rows == []
    apart = records([event(s, 9 * s, f"LAB//{'xy'[s % 2]}", 1.0, "mg") for s in range(60)], real.vocabulary)
    measures, _ = correlation_measures(apart, real, None, plan_of(apart, real))
    assert all(one.estimate is None and one.applicable for one in measures)
    undated = records([event(s, None, "LAB//x", float(s), "mg") for s in range(60)], real.vocabulary)
    for pair in ((undated, undated), (real, undated), (undated, real)):
        assert len(correlation_measures(*pair, None, plan_of(*pair))[0]) == len(NAMES)
