"""Tests of several groups, exact tests beyond one table, shifts and profiles: identities, hand values, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from medtwin.trials.analysis import several_groups as groups
from medtwin.trials.analysis.exact_rates import (
    event_rate_test,
    exact_event_rate,
    exact_rate_ratio,
    exact_stratified_test,
    fisher_freeman_halton_test,
)
from medtwin.trials.analysis.glm import Family, generalised_linear_model
from medtwin.trials.analysis.linear import linear_model
from medtwin.trials.analysis.means import pooled_t_test, rank_sum_shift, welch_t_test
from medtwin.trials.analysis.profile_likelihood import profile_interval
from medtwin.trials.analysis.rank_shifts import rank_sum_normal_shift, signed_rank_normal_shift
from medtwin.trials.analysis.rates import chi_square_test, fisher_test, stratified_test

FIRST, SECOND = np.array([1.0, 4, 6, 7.5]), np.array([2.0, 3, 9, 11, 12.5])
TABLES = np.array([[[8, 2], [3, 9]], [[5, 6], [4, 7]]], dtype=float)


def test_two_groups_are_the_tests_of_two() -> None:
    pooled, welch = pooled_t_test(FIRST, SECOND), welch_t_test(FIRST, SECOND)
    assert groups.one_way_test([FIRST, SECOND], equal_variances=True).f == pytest.approx(pooled.t**2)
    found = groups.one_way_test([FIRST, SECOND])
    assert (found.f, found.denominator_df) == pytest.approx((welch.t**2, welch.degrees_of_freedom))
    assert groups.friedman_test([[1, 2], [1, 2], [2, 1], [1, 2]]).chi_square == pytest.approx(1.0)
    table = np.array([[31.0, 19], [20, 30]])
    trend = groups.trend_test(table[:, 0], table.sum(axis=1)).chi_square
    assert trend == pytest.approx(chi_square_test(table, continuity=False).chi_square)


def test_ranks_by_hand() -> None:
    # Rank sums 3, 7, 11 of two each: 12/42 (9 + 49 + 121)/2 - 21
    assert groups.kruskal_wallis_test([[1, 2], [3, 4], [5, 6]]).chi_square == pytest.approx(12 / 42 * 89.5 - 21)
    tied = groups.kruskal_wallis_test([[1, 1, 2], [2, 3, 3]])
    assert tied.chi_square > groups.kruskal_wallis_test([[1, 1.5, 2], [1.8, 3, 3.5]]).chi_square


def test_a_nested_model_is_the_t_test_of_its_column() -> None:
    x = np.column_stack([np.ones(9), np.arange(9.0), np.r_[np.zeros(4), np.ones(5)]])
    y = np.r_[FIRST, SECOND]
    larger = linear_model(y, x)
    found = groups.nested_models_test(linear_model(y, x[:, :2]), larger)
    assert found.f == pytest.approx((larger.coefficients[2] / larger.standard_errors[2]) ** 2)
    assert found.p_value == pytest.approx(larger.p_values()[2])


def test_general_association_of_two_by_two_tables_is_mantel_and_haenszels() -> None:
    found = groups.stratified_association_test(TABLES)
    assert found.chi_square == pytest.approx(stratified_test(TABLES, continuity=False).chi_square)
    assert found.p_value < 0.1
    swapped = groups.stratified_association_test(np.moveaxis(np.array([[[3, 2, 4], [1, 5, 2]]]), 1, 2))
    assert swapped.degrees_of_freedom == 2


def test_exact_tests_of_one_table_are_fishers() -> None:
    table = TABLES[0]
    one, other = fisher_test(table), exact_stratified_test(table[None])
    assert other.p_value == pytest.approx(one.p_value)
    assert other.odds_ratio.high == pytest.approx(one.odds_ratio.high)
    assert fisher_freeman_halton_test(table) == pytest.approx(one.p_value)
    assert fisher_freeman_halton_test([[2, 0, 0], [0, 2, 0], [0, 0, 2]]) == pytest.approx(6 / 90)
    both = exact_stratified_test(TABLES)
    assert both.odds_ratio.low < both.odds_ratio.estimate < both.odds_ratio.high
    assert both.p_value < fisher_test(TABLES[1]).p_value


def test_events_per_time_by_hand() -> None:
    assert exact_event_rate(0, 10).high == pytest.approx(-math.log(0.025) / 10)
    assert event_rate_test(0, 2.0, 1.5, alternative="less") == pytest.approx(math.exp(-3))
    assert event_rate_test(3, 1.0, 3.0) == pytest.approx(1.0)
    found = exact_rate_ratio((3, 0), (1.0, 1.0), alternative="greater")
    assert found.p_value == pytest.approx(1 / 8)
    assert (found.odds_ratio.estimate, found.odds_ratio.high) == (math.inf, math.inf)
    assert exact_rate_ratio((10, 10), (1.0, 2.0)).odds_ratio.estimate == pytest.approx(2.0)


def test_normal_shifts_are_near_the_exact_ones() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(1.0, 1, 40), rng.normal(0.0, 1, 45)
    exact, normal = rank_sum_shift(x, y), rank_sum_normal_shift(x, y)
    assert (normal.estimate, normal.low, normal.high) == pytest.approx(
        (exact.estimate, exact.low, exact.high), abs=0.05
    )
    assert rank_sum_normal_shift(x + 3, y).low == pytest.approx(normal.low + 3)
    one = signed_rank_normal_shift(x)
    assert one.low < 1 < one.high
    assert signed_rank_normal_shift(x, continuity=False).high < one.high


def test_profiles_of_a_normal_likelihood_are_walds_and_others_are_skewed() -> None:
    x = np.column_stack([np.ones(40), np.repeat([0.0, 1], 20)])
    y = np.r_[np.arange(20.0), 5 + np.arange(20.0)]
    normal = generalised_linear_model(y, x, Family("gaussian"))
    found, (low, high) = profile_interval(normal, 1), normal.interval()
    assert (found.low, found.high) == pytest.approx((low[1], high[1]), rel=1e-6)
    events = np.r_[np.arange(20) < 3, np.arange(20) < 12].astype(float)
    skewed = profile_interval(generalised_linear_model(events, x, Family("binomial")), 1)
    assert skewed.high - skewed.estimate > skewed.estimate - skewed.low


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: groups.kruskal_wallis_test([[1, 2]]), "groups must be at least two"),
        (lambda: groups.kruskal_wallis_test([[1, 1], [1]]), "must vary"),
        (lambda: groups.friedman_test([[1, 1], [2, 2]]), "must vary within a block"),
        (lambda: groups.one_way_test([[1, 1], [1, 2]]), "must vary"),
        (lambda: groups.trend_test([3, 4], [2, 5]), "events must be between"),
        (lambda: groups.stratified_association_test(np.zeros((1, 2, 2))), "must hold every row"),
        (lambda: groups.nested_models_test(*(linear_model([1.0, 2, 3], np.ones((3, 1))),) * 2), "more columns"),
        (lambda: exact_event_rate(1, 0), "time be above 0"),
        (lambda: event_rate_test(1, 1, 0), "null must be above 0"),
        (lambda: exact_rate_ratio((0, 0), (1, 1)), "events be seen"),
        (lambda: exact_stratified_test(np.ones((2, 2, 3))), "2 x 2 tables"),
        (lambda: fisher_freeman_halton_test([[1, 2]]), "two rows and columns"),
        (lambda: rank_sum_normal_shift([], [1.0]), "first must be at least 1 finite numbers"),
        (lambda: signed_rank_normal_shift([1.0, 2], level=1.5), "level"),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
