"""Batched tests of survival agree with the functions for one trial, with and without ties, strata and small trials."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.analysis.batched.survival_curves import milestone, restricted_mean_difference, survival_at
from medtwin.trials.analysis.batched.survival_hazard_ratio import cox_score, cox_wald
from medtwin.trials.analysis.batched.survival_order import TrialsInOrder, order_trials
from medtwin.trials.analysis.batched.survival_scores import logrank, max_combo, weighted_logrank
from medtwin.trials.analysis.cox import cox_model
from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.analysis.logrank import logrank_test
from medtwin.trials.analysis.milestone import milestone_test
from medtwin.trials.analysis.restricted_mean import compare_restricted_means
from medtwin.trials.analysis.weighted_logrank import max_combo_test, weighted_logrank_test
from medtwin.trials.survival_weights import AtRiskPower, EarlyZero, FlemingHarrington, MagirrBurman

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
WEIGHTS = [
    FlemingHarrington(0, 0),
    FlemingHarrington(0, 1),
    FlemingHarrington(1, 0),
    FlemingHarrington(0.5, 0.5),
    MagirrBurman(6.0),
    MagirrBurman(max_weight=2.0),
    FlemingHarrington(0, 1, tau=8.0),
    FlemingHarrington(1, 0, tau=0.01),
    EarlyZero(3.0),
    AtRiskPower(),
    AtRiskPower(0.5),
]


def draw(kind: str, *, trials: int = 12, patients: int = 90, strata: int = 3, seed: int = 0) -> Data:
    """Data of trials; times in whole or tenths of months, which tie, or continuous ones."""
    rng = np.random.default_rng([seed, len(kind)])
    stratum = rng.integers(0, strata, (trials, patients))
    arm = (rng.random((trials, patients)) < 0.6).astype(int)
    time = rng.exponential(10.0, arm.shape) * np.where(arm == 1, 1.4, 1.0) / (1 + 0.5 * stratum)
    limit = rng.uniform(6.0, 30.0, arm.shape)
    if kind == "months":
        time, limit = np.ceil(time), np.ceil(limit)
    elif kind == "tenths":
        time, limit = np.round(time, 1), np.round(limit, 1)
    elif kind == "no censoring":
        limit = np.full(arm.shape, np.inf)
    return np.minimum(time, limit), time <= limit, arm, stratum


KINDS = ["months", "tenths", "continuous", "no censoring"]


def by_trial(function: Callable[..., float], data: Data, *, strata: bool = False) -> np.ndarray:
    time, event, arm, stratum = data
    rows = range(len(time))
    return np.array(
        [function(time[i], event[i], arm[i], **({"strata": stratum[i]} if strata else {})) for i in rows],
        dtype=np.float64,
    )


def in_order(data: Data, *, strata: bool = False) -> TrialsInOrder:
    time, event, arm, stratum = data
    return order_trials(time, event, arm, stratum if strata else None)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strata", [False, True])
def test_logrank(kind: str, strata: bool) -> None:
    data = draw(kind)
    found = logrank(in_order(data, strata=strata))
    assert_same(found.z, by_trial(lambda *d, **s: weighted_logrank_test(*d, **s).z, data, strata=strata))
    assert_same(found.p_value, by_trial(lambda *d, **s: weighted_logrank_test(*d, **s).p_value, data, strata=strata))
    assert_same(found.z**2, by_trial(lambda *d, **s: logrank_test(*d, **s).chi_square, data, strata=strata))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strata", [False, True])
def test_weighted_logrank(kind: str, strata: bool) -> None:
    data = draw(kind, seed=1)
    trials = in_order(data, strata=strata)
    for weight in WEIGHTS:
        found = weighted_logrank(trials, weight)
        single = [
            weighted_logrank_test(t, d, a, weight, strata=s if strata else None)
            for t, d, a, s in zip(*data, strict=True)
        ]
        for name in ("score", "standard_error", "z", "p_value"):
            assert_same(getattr(found, name), np.array([getattr(each, name) for each in single]))


@pytest.mark.parametrize("kind", ["months", "continuous"])
@pytest.mark.parametrize("strata", [False, True])
def test_max_combo(kind: str, strata: bool) -> None:
    data = draw(kind, trials=4, seed=2)
    found = max_combo(in_order(data, strata=strata))
    single = [max_combo_test(t, d, a, **({"strata": s} if strata else {})) for t, d, a, s in zip(*data, strict=True)]
    assert_same(found.z, np.array([[each.z for each in test.tests] for test in single]))
    assert_same(found.correlation, np.array([test.correlation for test in single]))
    assert_same(found.largest, np.array([test.z for test in single]))
    # the function of one trial has 5 digits at rank 3, which is that of these weights
    np.testing.assert_allclose(found.p_value, [test.p_value for test in single], rtol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", [1.0, 1.3])
def test_cox_wald(kind: str, margin: float) -> None:
    for strata in (False, True):
        data = draw(kind, trials=6, seed=3)
        found = cox_wald(in_order(data, strata=strata), margin)
        estimate = by_trial(lambda *d, **s: cox_model(*d, **s).coefficients[0], data, strata=strata)
        error = by_trial(lambda *d, **s: cox_model(*d, **s).standard_errors[0], data, strata=strata)
        assert_same(found.log_hazard_ratio, estimate)
        assert_same(found.standard_error, error)
        assert_same(found.z, (math.log(margin) - estimate) / error)
        assert_same(found.p_value, norm.sf(found.z))


@pytest.mark.parametrize("kind", KINDS)
def test_cox_score(kind: str) -> None:
    for strata in (False, True):
        data = draw(kind, trials=6, seed=4)
        found = cox_score(in_order(data, strata=strata))
        assert_same(found**2, by_trial(lambda *d, **s: cox_model(*d, **s).score_test.chi_square, data, strata=strata))


def test_score_test_of_the_estimate_is_0_and_decreases_with_the_margin() -> None:
    data = draw("months", seed=5)
    time, event, arm, _ = data
    estimate = cox_wald(in_order(data)).log_hazard_ratio
    for row in range(3):
        trial = order_trials(time[[row]], event[[row]], arm[[row]])
        z = [float(cox_score(trial, math.exp(estimate[row] + shift))[0]) for shift in (-0.2, 0.0, 0.2)]
        assert z[1] == pytest.approx(0.0, abs=1e-9)
        assert z[0] < z[1] < z[2]


@pytest.mark.parametrize("kind", KINDS)
def test_survival_at_times(kind: str) -> None:
    data = draw(kind, seed=6)
    times = [0.0, 0.05, 3.0, 5.9]
    found = survival_at(in_order(data), times)
    for here, survival, error in (
        (1, found.experimental, found.experimental_error),
        (0, found.control, found.control_error),
    ):
        curves = [kaplan_meier(t[a == here], d[a == here]) for t, d, a, _ in zip(*data, strict=True)]
        assert_same(survival, np.array([curve.at(times) for curve in curves]))
        assert_same(error, np.array([curve.step(curve.standard_error, times, before=0.0) for curve in curves]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", ["naive", "log-log"])
def test_milestone(kind: str, scale: str) -> None:
    data = draw(kind, seed=7)
    found = milestone(in_order(data), 5.0, scale=scale)
    single = [milestone_test(t, d, a, 5.0, scale=scale) for t, d, a, _ in zip(*data, strict=True)]
    for name in ("estimate", "standard_error", "z", "p_value"):
        assert_same(getattr(found, name), np.array([getattr(each, name) for each in single]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tau", [4.0, 12.0, 13.05])
def test_restricted_mean(kind: str, tau: float) -> None:
    data = draw(kind, seed=8)
    found = restricted_mean_difference(in_order(data), tau)
    single = [compare_restricted_means(t, d, a, tau) for t, d, a, _ in zip(*data, strict=True)]
    assert_same(found.estimate, np.array([each.difference.estimate for each in single]))
    assert_same(found.standard_error, np.array([each.difference.standard_error for each in single]))
    assert_same(found.arms.experimental, np.array([each.experimental.estimate for each in single]))
    assert_same(found.arms.control_error, np.array([each.control.standard_error for each in single]))
    assert_same(found.z, np.array([each.difference.z for each in single]))


def test_no_ties_by_hand() -> None:
    """Events at 1 and 2 in the control arm of four: shares of the experimental arm 2/4, 2/3; then 1/2 and 1."""
    trial = order_trials([[1, 2, 3, 4]], [[1, 1, 1, 1]], [[0, 0, 1, 1]])
    test = logrank(trial)
    assert test.score[0] == pytest.approx(2 - (2 / 4 + 2 / 3 + 1 + 1))
    assert test.standard_error[0] ** 2 == pytest.approx(1 / 4 + 2 / 9)
    assert trial.survival[0].tolist() == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])


def test_trials_and_patients_may_stand_in_any_order() -> None:
    time, event, arm, stratum = draw("months", seed=9)
    order = np.random.default_rng(0).permutation(time.shape[1])
    first = max_combo(order_trials(time, event, arm, stratum))
    again = max_combo(order_trials(*(each[::-1, order] for each in (time, event, arm, stratum))))
    assert_same(first.p_value, again.p_value[::-1])


def test_those_not_yet_enrolled_change_nothing() -> None:
    time, event, arm, stratum = draw("continuous", seed=10)
    more = [np.hstack([each, np.zeros((len(each), 20), dtype=each.dtype)]) for each in (time, event, arm, stratum)]
    for weight in WEIGHTS:
        assert_same(
            weighted_logrank(order_trials(*more), weight).z,
            weighted_logrank(order_trials(time, event, arm, stratum), weight).z,
        )
    assert_same(
        restricted_mean_difference(order_trials(*more[:3]), 5.0).z,
        restricted_mean_difference(order_trials(time, event, arm), 5.0).z,
    )


def test_trials_that_compare_nothing_have_no_statistic() -> None:
    time, event = np.array([[1.0, 2.0, 3.0]] * 3), np.array([[1, 1, 1], [0, 0, 0], [1, 1, 0]])
    arm = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1]])
    trials = order_trials(time, event, arm)
    for z in (
        logrank(trials).z,
        weighted_logrank(trials, FlemingHarrington(0, 1)).z,
        max_combo(trials).p_value,
        cox_score(trials),
        milestone(trials, 1.5).z,
        restricted_mean_difference(trials, 2.5).z,
    ):
        assert np.isnan(z[:2]).all()
    assert np.isnan(cox_wald(trials).z).all()  # of the third no experimental patient has the event
    assert np.isfinite(logrank(trials).z[2])


def test_a_hazard_ratio_without_a_finite_estimate_has_none() -> None:
    """Every event while both arms are at risk is of one arm: the likelihood grows for ever, as R's coxph warns."""
    time, event = [[1.0, 2.0, 3.0, 4.0]] * 3, [[1, 1, 1, 1]] * 3
    found = cox_wald(order_trials(time, event, [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]]))
    assert np.isnan(found.z).tolist() == [True, True, False]
    assert np.isnan(found.log_hazard_ratio).tolist() == [True, True, False]


def test_arms_that_are_not_followed_to_the_horizon_have_no_restricted_mean() -> None:
    trials = order_trials([[1, 2, 5, 6], [1, 2, 5, 6]], [[1, 1, 1, 0], [1, 1, 0, 0]], [[0, 1, 0, 1]] * 2)
    found = restricted_mean_difference(trials, 5.5)
    assert np.isfinite(found.z[0])  # the control arm's last is an event, so its curve is known to be 0
    assert np.isnan(found.z[1])
    assert np.isnan(survival_at(trials, [5.5]).control[1, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": [[1.0, -2.0]]}, "time must be finite and 0 or more"),
        ({"time": [[1.0, math.nan]]}, "time must be finite and 0 or more"),
        ({"time": [1.0, 2.0]}, "time must be"),
        ({"time": np.zeros((0, 4))}, "at least one of each"),
        ({"event": [[1, 2]]}, "event must be 0 or 1"),
        ({"event": [[1, 0, 1]]}, "event must have the shape"),
        ({"arm": [[0.5, 1]]}, "arm must be 0 or 1"),
        ({"stratum": [[0, -1]]}, "stratum must be from 0"),
        ({"stratum": [[0, 40000]]}, "stratum must be from 0"),
        ({"stratum": [[0.0, 1.0]]}, "stratum must be integers"),
    ],
)
def test_data_that_make_no_sense_are_refused(change: dict[str, object], message: str) -> None:
    data = {"time": [[1.0, 2.0]], "event": [[1, 0]], "arm": [[0, 1]], "stratum": None} | change
    with pytest.raises(ValueError, match=message):
        order_trials(**data)  # type: ignore[arg-type]


def test_questions_that_make_no_sense_are_refused() -> None:
    trials, in_strata = in_order(draw("months")), in_order(draw("months"), strata=True)
    for ask, message in (
        (lambda: max_combo(trials, []), "weights must be one or more"),
        (lambda: weighted_logrank(trials, lambda table: table), "weight must be"),  # type: ignore[arg-type]
        (lambda: cox_wald(trials, 0.0), "null_hazard_ratio must be above 0"),
        (lambda: cox_score(trials, math.inf), "null_hazard_ratio must be above 0"),
        (lambda: restricted_mean_difference(trials, 0.0), "tau"),
        (lambda: restricted_mean_difference(in_strata, 3.0), "without strata"),
        (lambda: milestone(trials, 3.0, scale="logit"), "scale must be one of"),  # type: ignore[arg-type]
        (lambda: survival_at(trials, [-1.0]), "times"),
    ):
        with pytest.raises(ValueError, match=message):
            ask()
