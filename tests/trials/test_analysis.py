from __future__ import annotations

import numpy as np
import pytest

from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.analysis.survival_batch import (
    cox_log_hazard_ratio,
    cox_log_hazard_ratio_continuous,
    logrank_z,
    logrank_z_continuous,
    order_continuous,
    risk_sets,
)

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def trials(num_trials: int, count: int, log_hazard_ratio: float, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    arm = rng.permuted(np.tile(np.arange(count) % 2, (num_trials, 1)), axis=1)
    time = rng.exponential(np.exp(-log_hazard_ratio * arm))
    censoring = rng.exponential(2.0, time.shape)
    return np.minimum(time, censoring), time <= censoring, arm


def test_logrank_by_hand_with_a_tie() -> None:
    """Times 1, 2, 2, 3+, 4; arms 0, 1, 0, 1, 1.

    At 1: 5 at risk, 3 of them experimental: E = 3/5, V = 3/5 2/5. At 2: 2 events, 4 at risk, 3 experimental:
    E = 2 3/4, V = 2 3/4 1/4 (4 - 2) / (4 - 1). At 4: 1 at risk, E = 1, V = 0. Observed: 2.
    """
    sets = risk_sets(
        np.array([[1.0, 2, 2, 3, 4]]), np.array([[True, True, True, False, True]]), np.array([[0, 1, 0, 1, 1]])
    )
    expected, variance = 0.6 + 1.5 + 1.0, 0.24 + 0.25
    assert logrank_z(sets)[0] == pytest.approx((expected - 2) / variance**0.5)


def test_cox_by_hand() -> None:
    """Times 1 (control), 2 (experimental), 3+ (control): likelihood 1/(2 + t) t/(1 + t), highest at t = sqrt 2."""
    sets = risk_sets(np.array([[1.0, 2.0, 3.0]]), np.array([[True, True, False]]), np.array([[0, 1, 0]]))
    found = cox_log_hazard_ratio(sets)
    assert found.estimate[0] == pytest.approx(np.log(2**0.5), abs=1e-7)


def test_no_estimate_where_there_is_none() -> None:
    time, arm = np.array([[1.0, 2.0, 3.0]]), np.array([[1, 0, 0]])
    for event in ([True, False, False], [False, False, False], [False, True, True]):
        sets = risk_sets(time, np.array([event]), arm)
        assert np.isnan(cox_log_hazard_ratio(sets).estimate[0])
    assert logrank_z(risk_sets(time, np.zeros((1, 3), dtype=bool), arm))[0] == 0.0


def test_a_monotone_likelihood_has_no_estimate() -> None:
    """Both arms have events, but one none while the other is at risk; then one that has, in the same batch."""
    time = np.array([[1.0, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [2, 2, 3, 4]])
    arm = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0]])
    event = np.ones((4, 4), dtype=bool)
    found = cox_log_hazard_ratio(risk_sets(time, event, arm))
    assert np.isnan(found.estimate).tolist() == np.isnan(found.standard_error).tolist() == [True, True, False, False]
    fast = cox_log_hazard_ratio_continuous(order_continuous(time[:3], event[:3], arm[:3]))
    assert np.isnan(fast.estimate).tolist() == [True, True, False]
    assert fast.estimate[2] == pytest.approx(found.estimate[2], abs=1e-5)


def test_the_fast_kernels_equal_the_exact_ones() -> None:
    time, event, arm = trials(50, 201, -0.3)
    sets, ordered = risk_sets(time, event, arm), order_continuous(time, event, arm)
    np.testing.assert_allclose(logrank_z_continuous(ordered), logrank_z(sets), atol=2e-5)
    exact, fast = cox_log_hazard_ratio(sets), cox_log_hazard_ratio_continuous(ordered)
    np.testing.assert_allclose(fast.estimate, exact.estimate, atol=1e-5)
    np.testing.assert_allclose(fast.standard_error, exact.standard_error, atol=1e-5)


def test_the_fast_kernels_are_not_for_ties() -> None:
    time, event, arm = trials(1, 200, 0.0)
    rounded = np.ceil(time * 2)
    fast = logrank_z_continuous(order_continuous(rounded, event, arm))
    assert abs(fast - logrank_z(risk_sets(rounded, event, arm)))[0] > 0.01


def test_z_is_positive_for_a_better_experimental_arm_and_null_for_shuffled_arms() -> None:
    time, event, arm = trials(2000, 200, np.log(0.5))
    assert (logrank_z_continuous(order_continuous(time, event, arm)) > 0).mean() > 0.99
    shuffled = np.random.default_rng(1).permuted(arm, axis=1)
    z = logrank_z_continuous(order_continuous(time, event, shuffled))
    assert abs(z.mean()) < 4 / 2000**0.5
    assert z.std() == pytest.approx(1.0, abs=4 * (0.5 / 2000) ** 0.5)


def test_cox_interval_covers_the_truth() -> None:
    low, high = cox_log_hazard_ratio_continuous(order_continuous(*trials(2000, 200, np.log(0.7)))).interval()
    covered = ((low < 0.7) & (high > 0.7)).mean()
    assert covered == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 2000) ** 0.5)
    assert ((low < 1.2) & (high > 1.2)).mean() < 0.5


def test_kaplan_meier_by_hand() -> None:
    """Events at 1 (of 4) and 3 (2 of 2), censored at 2 (2 before): 3/4, then 0."""
    curve = kaplan_meier(np.array([1.0, 2.0, 3.0, 3.0]), np.array([True, False, True, True]))
    assert curve.time.tolist() == [1.0, 3.0]
    assert curve.survival.tolist() == [0.75, 0.0]
    assert curve.at_risk.tolist() == [4, 2]
    assert curve.standard_error[0] == pytest.approx(0.75 * (1 / (4 * 3)) ** 0.5)
    assert (curve.low[1], curve.high[1]) == (0.0, 0.0)
    assert curve.at(np.array([0.5, 1.0, 2.9, 9.0])).tolist() == [1.0, 0.75, 0.75, 0.0]
