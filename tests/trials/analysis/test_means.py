"""Tests of means and ranks by hand-computed values, invariants and refusals."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import rankdata

from medtwin.trials.analysis import means
from medtwin.trials.analysis.linear import linear_model


def test_pooled_t_by_hand() -> None:
    found = means.pooled_t_test([4.0, 6.0], [1.0, 3.0])
    assert found.estimate == 3
    assert found.standard_error == pytest.approx(2**0.5)
    assert [found.t, found.degrees_of_freedom] == pytest.approx([3 / 2**0.5, 2])
    assert found.low == pytest.approx(3 - 4.302653 * 2**0.5, abs=1e-5)


def test_welch_by_hand() -> None:
    found = means.welch_t_test([0.0, 2.0], [0.0, 0.0, 6.0, 6.0])
    assert found.standard_error == pytest.approx((1 + 3) ** 0.5)
    assert found.degrees_of_freedom == pytest.approx(16 / (1 / 1 + 9 / 3))


def test_pooled_t_is_the_regression_on_the_arm() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=9), rng.normal(1, 1, size=7)
    design = np.column_stack([np.ones(16), np.repeat([1.0, 0.0], [9, 7])])
    model, test = linear_model(np.concatenate([x, y]), design), means.pooled_t_test(x, y)
    assert test.t == pytest.approx(model.coefficients[1] / model.standard_errors[1])
    assert test.p_value == pytest.approx(model.p_values()[1])


def test_one_side_is_half_of_two() -> None:
    both = means.welch_t_test([1.0, 2, 4], [0.0, 1, 1.5])
    one = means.welch_t_test([1.0, 2, 4], [0.0, 1, 1.5], alternative="greater")
    assert one.p_value == pytest.approx(both.p_value / 2)
    assert one.high == np.inf


def test_the_law_of_the_rank_sum_counts_all_choices() -> None:
    x, y = [1.0, 4.0, 9.0], [2.0, 3.0, 8.0, 11.0]
    ranks = rankdata(x + y)
    sums = [ranks[list(chosen)].sum() - 6 for chosen in combinations(range(7), 3)]
    found = means.rank_sum_test(x, y, alternative="less")
    assert found.statistic == ranks[:3].sum() - 6
    assert found.p_value == pytest.approx(np.mean(np.array(sums) <= found.statistic))


def test_the_law_of_the_signed_rank_counts_all_signs() -> None:
    x = np.array([1.0, -2.0, 3.5, 4.0])
    sums = [
        sum(rank for rank, sign in zip((1, 2, 3, 4), signs, strict=True) if sign) for signs in product((0, 1), repeat=4)
    ]
    found = means.signed_rank_test(x, alternative="greater")
    assert found.statistic == 8
    assert found.p_value == pytest.approx(np.mean(np.array(sums) >= 8))


def test_ties_take_the_normal_law() -> None:
    assert not means.rank_sum_test([1.0, 2, 2], [2.0, 3, 4]).is_exact
    assert not means.signed_rank_test([1.0, -1, 2, 0]).is_exact


def test_a_shift_is_found() -> None:
    y = np.array([0.1, 0.7, 1.3, 2.9, 4.2])
    found = means.rank_sum_shift(y + 3, y)
    assert found.estimate == pytest.approx(3)
    assert found.low < 3 < found.high
    assert means.signed_rank_shift([1.0, 2.0, 6.0]).estimate == pytest.approx(2.75)


def test_robust_variances_by_hand_and_in_order() -> None:
    x = np.column_stack([np.ones(4), [0.0, 0, 1, 1]])
    model = linear_model([0.0, 2, 1, 7], x)
    assert model.robust_covariance("HC0")[0, 0] == pytest.approx(2 / 4)
    assert model.robust_covariance("HC3")[0, 0] == pytest.approx(2 / 4 * 4)
    sizes = [float(np.trace(model.robust_covariance(kind))) for kind in ("HC0", "HC2", "HC3")]
    assert sizes == sorted(sizes)
    assert model.robust_covariance("HC1") == pytest.approx(2 * model.robust_covariance("HC0"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: means.pooled_t_test([1.0], [1.0, 2.0]), "first must be at least 2"),
        (lambda: means.one_sample_t_test([1.0, 1.0]), "values must vary"),
        (lambda: means.welch_t_test([1.0, np.nan], [1.0, 2.0]), "finite"),
        (lambda: means.welch_t_test([1.0, 2.0], [1.0, 2.0], level=95), "level must be between"),
        (lambda: means.rank_sum_test([1.0], [2.0], alternative="both"), "alternative must be one of"),  # type: ignore[arg-type]
        (lambda: means.signed_rank_test([0.0, 0.0]), "differences must not all be"),
        (lambda: linear_model([1.0, 2.0], [[1.0, 2.0], [1.0, 2.0]]), "depend on one another"),
        (lambda: linear_model([1.0, 2, 4], [[1.0], [1.0], [1.0]]).robust_covariance("HC9"), "kind must be"),  # type: ignore[arg-type]
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
