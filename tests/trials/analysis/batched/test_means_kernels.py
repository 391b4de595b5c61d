"""Batched tests of means, ranks and adjusted means agree with the room's function of one trial."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medtwin.trials.analysis import means
from medtwin.trials.analysis.batched.ancova import Variance, analyses_of_covariance, prognostic_score_tests
from medtwin.trials.analysis.batched.contrasts import Contrasts
from medtwin.trials.analysis.batched.ranks import rank_sum_tests, signed_rank_tests
from medtwin.trials.analysis.batched.t_tests import one_sample_t_tests, pooled_t_tests, welch_t_tests
from medtwin.trials.analysis.follow_up import Bools, Floats
from medtwin.trials.analysis.linear import linear_model

TRIALS, PATIENTS = 20, 31


def _trials(seed: int) -> tuple[Floats, Bools, Bools]:
    """Responses, arms, and who is analysed, (trials, patients)."""
    rng = np.random.default_rng(seed)
    arm = rng.random((TRIALS, PATIENTS)) < 0.6
    y = rng.normal(5, 1 + arm, (TRIALS, PATIENTS)) + 0.3 * arm
    return y, arm, rng.random((TRIALS, PATIENTS)) < 0.8


@pytest.mark.parametrize(
    ("batched", "single"), [(pooled_t_tests, means.pooled_t_test), (welch_t_tests, means.welch_t_test)]
)
def test_t_tests(batched: Callable[..., Contrasts], single: Callable[..., means.TTest]) -> None:
    y, arm, here = _trials(1)
    found = batched(y, arm, observed=here)
    low, high = found.limits(0.9)
    for i in range(TRIALS):
        first, second = y[i, arm[i] & here[i]], y[i, ~arm[i] & here[i]]
        one = single(first, second, null=-0.2, alternative="greater")
        both = single(first, second, level=0.9)
        got = found.estimate[i], found.statistic(-0.2)[i], found.degrees_of_freedom[i], found.p_greater(-0.2)[i]
        assert got == pytest.approx((one.estimate, one.t, one.degrees_of_freedom, one.p_value), rel=1e-10)
        assert (low[i], high[i], found.p_two_sided()[i]) == pytest.approx((both.low, both.high, both.p_value), rel=1e-9)


def test_one_sample_t_tests() -> None:
    y, _, here = _trials(2)
    found = one_sample_t_tests(y, observed=here)
    for i in range(TRIALS):
        one = means.one_sample_t_test(y[i, here[i]], null=5.0, alternative="greater")
        assert (found.statistic(5.0)[i], found.p_greater(5.0)[i]) == pytest.approx((one.t, one.p_value), rel=1e-10)


@pytest.mark.parametrize("digits", [1, 12])  # with ties and without
@pytest.mark.parametrize("continuity", [True, False])
def test_rank_tests(digits: int, continuity: bool) -> None:
    y, arm, here = _trials(3)
    y = y.round(digits)
    found, signed = rank_sum_tests(y, arm, observed=here), signed_rank_tests(y - 5, observed=here)
    for i in range(TRIALS):
        first, second = y[i, arm[i] & here[i]], y[i, ~arm[i] & here[i]]
        one = means.rank_sum_test(first, second, alternative="greater", exact=False, continuity=continuity)
        assert found.statistic[i] == one.statistic
        assert found.p_greater(continuity=continuity)[i] == pytest.approx(one.p_value, rel=1e-10)
        pair = means.signed_rank_test(y[i, here[i]] - 5, alternative="greater", exact=False, continuity=continuity)
        assert signed.statistic[i] == pair.statistic
        assert signed.p_greater(continuity=continuity)[i] == pytest.approx(pair.p_value, rel=1e-10)


@pytest.mark.parametrize("variance", ["model", "HC0", "HC1", "HC2", "HC3"])
@pytest.mark.parametrize("covariates", [0, 1, 3])
def test_analyses_of_covariance(variance: Variance, covariates: int) -> None:
    y, arm, here = _trials(4)
    z = np.random.default_rng(5).normal(100, 3, (TRIALS, PATIENTS, covariates))
    found = analyses_of_covariance(y, arm, z, observed=here, variance=variance)
    for i in range(TRIALS):
        x = np.column_stack([np.ones(PATIENTS), arm[i], z[i]])[here[i]]
        one = linear_model(y[i, here[i]], x)
        spread = one.covariance if variance == "model" else one.robust_covariance(variance)
        expected = one.coefficients[1], np.sqrt(spread[1, 1]), one.degrees_of_freedom
        got = found.estimate[i], found.standard_error[i], found.degrees_of_freedom[i]
        assert got == pytest.approx(expected, rel=1e-8)


def test_a_score_that_does_not_vary_adjusts_nothing() -> None:
    y, arm, here = _trials(6)
    score = np.where(np.arange(TRIALS)[:, None] % 2, 7.0, y + np.random.default_rng(7).normal(size=y.shape))
    found = prognostic_score_tests(y, arm, score, observed=here, variance="model")
    adjusted = analyses_of_covariance(y[::2], arm[::2], score[::2], observed=here[::2])
    plain = pooled_t_tests(y[1::2], arm[1::2], observed=here[1::2])
    assert found.statistic()[::2] == pytest.approx(adjusted.statistic(), rel=1e-9)
    assert found.statistic()[1::2] == pytest.approx(plain.statistic(), rel=1e-9)
    assert found.degrees_of_freedom[1::2] == pytest.approx(plain.degrees_of_freedom)


def test_z_has_the_p_value_of_t() -> None:
    y, arm, _ = _trials(8)
    found = welch_t_tests(y, arm)
    normal = Contrasts.normal(found.z(), np.ones(TRIALS))
    assert normal.p_greater() == pytest.approx(found.p_greater(), rel=1e-9)
    far = Contrasts(np.array([-60.0, 60.0]), np.ones(2), np.full(2, 400.0))
    assert far.z()[0] == -far.z()[1] < -25


def test_what_does_not_vary_rejects_nothing() -> None:
    found = pooled_t_tests(np.ones((2, 8)), np.arange(8) % 2)
    assert np.isnan(found.statistic()).all()
    assert not found.rejects(0.5).any()
    assert np.isnan(rank_sum_tests(np.ones((1, 4)), [0, 1, 0, 1]).z()).all()


def test_refusals() -> None:
    y, arm = np.zeros((2, 6)), np.array([0, 1] * 3)
    with pytest.raises(ValueError, match="trials x patients"):
        pooled_t_tests(y[0], arm)
    with pytest.raises(ValueError, match="fit 2 trials of 6 patients"):
        pooled_t_tests(y, arm[:5])
    with pytest.raises(ValueError, match="0 or 1"):
        pooled_t_tests(y, arm * 2)
    with pytest.raises(ValueError, match="each arm must have 2"):
        pooled_t_tests(y, [0, 0, 0, 0, 0, 1])
    with pytest.raises(ValueError, match="response must be finite"):
        pooled_t_tests(np.full((2, 6), np.nan), arm)
    with pytest.raises(ValueError, match="depend on one another"):
        analyses_of_covariance(np.random.default_rng(1).normal(size=(2, 6)), arm, np.tile(arm * 2.0, (2, 1)))
    with pytest.raises(ValueError, match="outnumber"):
        analyses_of_covariance(y, arm, np.random.default_rng(1).normal(size=(2, 6, 4)))
    with pytest.raises(ValueError, match="variance must be one of"):
        analyses_of_covariance(y, arm, y, variance="HC9")  # type: ignore[arg-type]
    hidden = np.full((2, 6), np.nan)
    hidden[:, :4] = [[1.0, 2, 3, 4], [2.0, 1, 4, 3]]
    assert np.isfinite(pooled_t_tests(hidden, arm, observed=[1, 1, 1, 1, 0, 0]).estimate).all()
