"""Batched logistic, Poisson, negative binomial and mixed models agree with the room's fit of one trial."""

from __future__ import annotations

import numpy as np
import pytest

from medtwin.trials.analysis.batched.glm import logistic_models, poisson_models
from medtwin.trials.analysis.batched.mmrm import BatchedInference, repeated_measures, repeated_measures_by
from medtwin.trials.analysis.batched.negative_binomial import negative_binomial_models
from medtwin.trials.analysis.batched.rates import Counts, log_odds_ratios, risk_differences
from medtwin.trials.analysis.batched.standardised_risks import augmented_risks, standardised_risks
from medtwin.trials.analysis.follow_up import Bools, Floats
from medtwin.trials.analysis.g_computation import augmented_means
from medtwin.trials.analysis.g_computation import standardised_means as one_standardised
from medtwin.trials.analysis.glm import Family, generalised_linear_model, negative_binomial_model
from medtwin.trials.analysis.mmrm import MMRM

TRIALS, PATIENTS = 12, 80


def _trials(seed: int, covariates: int) -> tuple[Floats, Bools, Bools, Floats]:
    """Linear predictors without the constant, arms, who is analysed, and covariates."""
    rng = np.random.default_rng(seed)
    arm = rng.random((TRIALS, PATIENTS)) < 0.5
    z = rng.normal(size=(TRIALS, PATIENTS, covariates))
    return 0.5 * arm + 0.6 * z.sum(axis=2), arm, rng.random((TRIALS, PATIENTS)) < 0.9, z


@pytest.mark.parametrize("covariates", [0, 2])
def test_logistic_models_and_their_risks(covariates: int) -> None:
    eta, arm, here, z = _trials(1, covariates)
    y = np.random.default_rng(2).random(eta.shape) < 1 / (1 + np.exp(0.3 - eta))
    fits = logistic_models(y, arm, z, observed=here)
    assert fits.converged.all()
    plain, augmented = standardised_risks(fits), augmented_risks(fits)
    for i in range(TRIALS):
        x = np.column_stack([np.ones(PATIENTS), arm[i], z[i]])[here[i]]
        one = generalised_linear_model(y[i, here[i]].astype(float), x, Family("binomial"), tolerance=1e-14)
        assert fits.coefficients[i] == pytest.approx(one.coefficients, rel=1e-8, abs=1e-10)
        weights = one.fitted * (
            1 - one.fitted
        )  # at the maximum: the other fit keeps those of the step before, as R does
        covariance = np.linalg.inv((x.T * weights) @ x)
        assert fits.bread[i] == pytest.approx(covariance, rel=1e-8, abs=1e-10)
        x1, x0 = x.copy(), x.copy()
        x1[:, 1], x0[:, 1] = 1, 0
        single = one_standardised(one, x1, x0, covariance=covariance), augmented_means(one, x1, x0, arm[i, here[i]])
        for batch, means in zip((plain, augmented), single, strict=True):
            gap, ratio, odds = batch.difference(), batch.log_ratio(), batch.log_odds_ratio()
            assert (gap.estimate[i], gap.standard_error[i]) == pytest.approx(
                (means.difference().estimate, means.difference().standard_error), rel=1e-8
            )
            assert (np.exp(ratio.estimate[i]), ratio.statistic()[i]) == pytest.approx(
                (means.ratio().estimate, means.ratio().z), rel=1e-8
            )
            assert (np.exp(odds.estimate[i]), odds.statistic()[i]) == pytest.approx(
                (means.odds_ratio().estimate, means.odds_ratio().z), rel=1e-8
            )


def test_the_arm_alone_is_the_table() -> None:
    eta, arm, here, _ = _trials(3, 0)
    y = np.random.default_rng(4).random(eta.shape) < 0.4
    fits, counts = logistic_models(y, arm, observed=here), Counts.of_patients(y, arm, observed=here)
    assert fits.arm_effect.statistic() == pytest.approx(log_odds_ratios(counts).statistic(), rel=1e-8)
    gap, expected = standardised_risks(fits).difference(), risk_differences(counts)
    assert gap.estimate == pytest.approx(expected.estimate, rel=1e-8)
    assert gap.standard_error == pytest.approx(expected.standard_error, rel=1e-8)


def test_separated_trials_have_no_estimate_and_leave_the_others_alone() -> None:
    rng = np.random.default_rng(5)
    y, arm = rng.random((3, 40)) < 0.5, np.arange(40) % 2
    y[1, arm == 1] = True
    fits, alone = logistic_models(y, arm), logistic_models(y[[0, 2]], arm)
    assert fits.converged.tolist() == [True, False, True]
    assert np.isnan(fits.arm_effect.statistic()).tolist() == [False, True, False]
    assert not standardised_risks(fits).difference().rejects(0.5)[1]
    assert fits.arm_effect.estimate[[0, 2]] == pytest.approx(alone.arm_effect.estimate, rel=1e-10)


def test_models_of_counts() -> None:
    eta, arm, here, z = _trials(6, 1)
    rng = np.random.default_rng(7)
    time = rng.uniform(0.5, 2, eta.shape)
    y = rng.poisson(np.exp(eta) * time * rng.gamma(1.5, 1 / 1.5, eta.shape)).astype(float)
    poisson = poisson_models(y, arm, time, z, observed=here)
    negative = negative_binomial_models(y, arm, time, z, observed=here)
    assert poisson.converged.all()
    assert negative.converged.all()
    for i in range(TRIALS):
        x, offset = np.column_stack([np.ones(PATIENTS), arm[i], z[i]])[here[i]], np.log(time[i, here[i]])
        one = generalised_linear_model(y[i, here[i]], x, Family("poisson"), offset=offset, tolerance=1e-14)
        assert poisson.coefficients[i] == pytest.approx(one.coefficients, rel=1e-8)
        assert poisson.bread[i] == pytest.approx(np.linalg.inv((x.T * one.fitted) @ x), rel=1e-8, abs=1e-10)
        other = negative_binomial_model(y[i, here[i]], x, offset=offset)
        assert negative.theta[i] == pytest.approx(other.family.theta, rel=1e-7)
        # The other fit ends where its deviance hardly changes, 1e-6 from where the score is 0.
        mu, theta = negative.fitted[i, here[i]], negative.theta[i]
        score = x.T @ ((y[i, here[i]] - mu) / (1 + mu / theta))
        assert np.abs(score).max() < 1e-7
        assert negative.coefficients[i] == pytest.approx(other.coefficients, rel=1e-5)
        weights = mu / (1 + mu / theta)
        assert negative.bread[i] == pytest.approx(np.linalg.inv((x.T * weights) @ x), rel=1e-8, abs=1e-10)
        assert negative.arm_effect.standard_error[i] == pytest.approx(other.standard_errors[1], rel=1e-5)


def test_counts_that_spread_less_than_poisson_have_no_theta() -> None:
    y = np.tile([1.0, 2.0], (2, 20))
    y[1, ::4] = 9.0
    fits = negative_binomial_models(y, np.repeat([0, 1], 20), np.ones((2, 40)))
    assert np.isinf(fits.theta).tolist() == [True, False]
    plain = poisson_models(y, np.repeat([0, 1], 20), np.ones((2, 40)))
    assert fits.arm_effect.standard_error[0] == pytest.approx(plain.arm_effect.standard_error[0])
    assert fits.converged.all()


def _visits(seed: int, patients: int, visits: int) -> tuple[Floats, Floats, Floats]:
    """Responses with dropout and gaps, (3, patients, visits), arms and a baseline."""
    rng = np.random.default_rng(seed)
    arm, base = (rng.random((3, patients)) < 0.5).astype(float), rng.normal(50, 10, (3, patients))
    spread = rng.normal(size=(visits, visits + 2))
    y = rng.normal(size=(3, patients, visits)) @ np.linalg.cholesky(spread @ spread.T / visits).T
    y += 0.03 * base[:, :, None] + arm[:, :, None] * np.linspace(0, 0.5, visits)
    y[np.arange(visits) >= rng.integers(1, 3 * visits, (3, patients, 1))] = np.nan
    y[rng.random(y.shape) < 0.03] = np.nan
    return y, arm, base


@pytest.mark.parametrize("inference", ["satterthwaite", "kenward_roger", "kenward_roger_linear"])
@pytest.mark.parametrize("by_visit", [True, False])
def test_repeated_measures(inference: BatchedInference, by_visit: bool) -> None:
    y, arm, base = _visits(8, 60, 3)
    found = repeated_measures(y, arm, base, by_visit=by_visit, inference=inference)
    assert found.converged.all()
    for i in range(2):
        patient, visit = np.nonzero(np.isfinite(y[i]))
        each, b = np.eye(3)[visit], base[i, patient, None]
        x = np.hstack([each, each * arm[i, patient, None], (each if by_visit else 1) * (b - 50)])
        one = MMRM(inference=inference).fit(y[i, patient, visit], x, patient, visit)
        for v in range(3):
            single, at = one.contrast(np.eye(x.shape[1])[3 + v]), found.at(v)
            got = at.estimate[i], at.standard_error[i], at.degrees_of_freedom[i], at.p_two_sided()[i]
            expected = single.estimate, single.standard_error, single.degrees_of_freedom, single.p_value
            assert got == pytest.approx(expected, rel=1e-6)


def test_complete_measurements_are_the_analysis_of_each_visit() -> None:
    """With all visits seen and covariates by visit, REML gives least squares at each visit, with its t test.

    Kenward and Roger's with second derivatives of a Cholesky factor does not: its errors are smaller.
    """
    rng = np.random.default_rng(9)
    y, arm = rng.normal(size=(2, 40, 3)).cumsum(axis=2), np.arange(40) % 2
    last, bent = repeated_measures(y, arm).at(-1), repeated_measures_by(y, arm)["kenward_roger"].at(-1)
    first, second = y[:, arm == 1, 2], y[:, arm == 0, 2]
    pooled = (first.var(axis=1, ddof=1) + second.var(axis=1, ddof=1)) / 2
    assert last.statistic() == pytest.approx((first.mean(axis=1) - second.mean(axis=1)) / np.sqrt(pooled / 10))
    assert last.degrees_of_freedom == pytest.approx([38, 38])
    assert (bent.standard_error < 0.999 * last.standard_error).all()


def test_refusals_of_repeated_measures() -> None:
    y, arm = np.random.default_rng(10).normal(size=(2, 20, 2)), np.arange(20) % 2
    with pytest.raises(ValueError, match="trials x patients x visits"):
        repeated_measures(y[0], arm)
    with pytest.raises(ValueError, match="inference must be one of"):
        repeated_measures(y, arm, inference="residual")  # type: ignore[arg-type]
    gone = y.copy()
    gone[1, arm == 1, 1] = np.nan
    with pytest.raises(ValueError, match="seen at every visit"):
        repeated_measures(gone, arm)
    with pytest.raises(ValueError, match="depend on one another"):
        repeated_measures(y, arm, np.tile(arm, (2, 1)))
    with pytest.raises(ValueError, match="0 or 1 for patients"):
        logistic_models(y[:, :, 0], arm)
    with pytest.raises(ValueError, match="whole numbers"):
        poisson_models(y[:, :, 0], arm, np.ones((2, 20)))
    with pytest.raises(ValueError, match="time must be above 0"):
        poisson_models(np.ones((2, 20)), arm, np.zeros((2, 20)))
