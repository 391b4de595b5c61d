"""Generalised linear models, estimating equations and standardisation: hand values and invariants."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from medtwin.trials.analysis.g_computation import augmented_means, standardised_means
from medtwin.trials.analysis.gee import GEE
from medtwin.trials.analysis.glm import Family, generalised_linear_model, negative_binomial_model
from medtwin.trials.analysis.linear import linear_model

ARM = np.repeat([0.0, 1.0], 8)
EVENTS = np.array([0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0], dtype=float)
TWO_ARMS = np.column_stack([np.ones(16), ARM])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "log", "identity", "sqrt"])
def test_a_saturated_model_gives_the_rates(link: str) -> None:
    fit = generalised_linear_model(EVENTS, TWO_ARMS, Family("binomial", link))  # type: ignore[arg-type]
    assert fit.predict([[1, 0], [1, 1]]) == pytest.approx([3 / 8, 5 / 8])


def test_the_log_odds_ratio_by_hand() -> None:
    fit = generalised_linear_model(EVENTS, TWO_ARMS, Family("binomial"))
    assert fit.coefficients[1] == pytest.approx(math.log(5 * 5 / 9))
    assert fit.standard_errors[1] == pytest.approx(math.sqrt(1 / 3 + 1 / 5 + 1 / 5 + 1 / 3))


def test_counts_of_trials_are_their_rows() -> None:
    rows = generalised_linear_model(EVENTS, TWO_ARMS, Family("binomial"))
    counts = generalised_linear_model([3 / 8, 5 / 8], [[1, 0], [1, 1]], Family("binomial"), weights=[8, 8])
    assert counts.coefficients == pytest.approx(rows.coefficients)
    assert counts.covariance == pytest.approx(rows.covariance)


def test_a_rate_ratio_by_hand_with_time_at_risk() -> None:
    fit = generalised_linear_model([6, 4], [[1, 0], [1, 1]], Family("poisson"), offset=np.log([3.0, 4.0]))
    assert math.exp(fit.coefficients[1]) == pytest.approx(0.5)
    assert fit.standard_errors[1] == pytest.approx(math.sqrt(1 / 6 + 1 / 4))


def test_the_gaussian_family_is_least_squares(rng: np.random.Generator) -> None:
    y = rng.normal(size=16)
    one, other = generalised_linear_model(y, TWO_ARMS, Family("gaussian")), linear_model(y, TWO_ARMS)
    assert one.covariance == pytest.approx(other.covariance)
    assert one.log_likelihood == pytest.approx(other.log_likelihood)
    for kind in ("HC0", "HC1", "HC2", "HC3"):
        assert one.robust_covariance(kind) == pytest.approx(other.robust_covariance(kind))


def test_weights_are_repeated_rows(rng: np.random.Generator) -> None:
    y, times = rng.normal(size=16), rng.integers(1, 4, 16)
    weighted = linear_model(y, TWO_ARMS, weights=times)
    repeated = linear_model(np.repeat(y, times), np.repeat(TWO_ARMS, times, axis=0))
    assert weighted.coefficients == pytest.approx(repeated.coefficients)
    assert weighted.unscaled == pytest.approx(repeated.unscaled)
    likelihood = linear_model(y, TWO_ARMS, weights=4.0).log_likelihood
    assert likelihood == pytest.approx(linear_model(y, TWO_ARMS).log_likelihood)
    with pytest.raises(ValueError, match="weights must be finite and above 0"):
        linear_model(y, TWO_ARMS, weights=np.arange(16.0))


def test_theta_is_found_and_the_likelihood_is_at_its_top(rng: np.random.Generator) -> None:
    x = np.column_stack([np.ones(3000), rng.integers(0, 2, 3000)])
    y = rng.poisson(np.exp(0.5 + 0.3 * x[:, 1]) * rng.gamma(2.0, 0.5, 3000)).astype(float)
    fit = negative_binomial_model(y, x)
    assert abs(fit.family.theta - 2) < 4 * fit.theta_error
    assert fit.coefficients == pytest.approx([0.5, 0.3], abs=4 * fit.standard_errors.max())
    for factor in (0.98, 1.02):
        near = generalised_linear_model(y, x, Family("negative_binomial", theta=factor * fit.family.theta))
        assert near.log_likelihood < fit.log_likelihood


def test_counts_like_poissons_have_no_theta() -> None:
    with pytest.raises(ValueError, match="must vary more than Poisson's"):
        negative_binomial_model([2.0, 2, 3, 2, 3, 2], np.ones((6, 1)))


def test_independence_is_the_sandwich_of_clusters_of_one(rng: np.random.Generator) -> None:
    y = rng.poisson(2.0, 16).astype(float)
    fit = GEE(Family("poisson")).fit(y, TWO_ARMS, np.arange(16))
    model = generalised_linear_model(y, TWO_ARMS, Family("poisson"), tolerance=1e-14)
    assert fit.coefficients == pytest.approx(model.coefficients)
    assert fit.covariance == pytest.approx(model.robust_covariance("HC0"))


def test_estimating_equations_do_not_mind_the_order_of_clusters(rng: np.random.Generator) -> None:
    cluster = np.repeat(np.arange(12), 3)
    x = np.column_stack([np.ones(36), np.repeat(rng.normal(size=12), 3)])
    y = x[:, 1] + np.repeat(rng.normal(size=12), 3) + rng.normal(size=36)
    model = GEE(Family("gaussian"), "exchangeable")
    one = model.fit(y, x, cluster)
    order = np.argsort(rng.permutation(12)[cluster], kind="stable")
    other = model.fit(y[order], x[order], cluster[order])
    assert one.covariance == pytest.approx(other.covariance)
    assert 0 < one.correlation[0] < 1
    assert GEE(Family("gaussian"), "unstructured").fit(y, x, cluster).correlation.shape == (3,)


def test_standardised_means_of_two_arms_are_theirs() -> None:
    fit = generalised_linear_model(EVENTS, TWO_ARMS, Family("binomial"))
    ones, zeros = np.column_stack([np.ones(16), np.ones(16)]), np.column_stack([np.ones(16), np.zeros(16)])
    found = standardised_means(fit, ones, zeros)
    assert found.difference().estimate == pytest.approx(0.25)
    assert found.difference().standard_error == pytest.approx(math.sqrt(2 * 15 / 64 / 8))
    assert found.ratio().estimate == pytest.approx(5 / 3)
    assert found.odds_ratio().estimate == pytest.approx(25 / 9)
    assert augmented_means(fit, ones, zeros, ARM).difference().estimate == pytest.approx(0.25)


def test_a_covariate_sharpens_the_marginal_effect(rng: np.random.Generator) -> None:
    n = 2000
    arm, score = np.tile([0.0, 1.0], n // 2), rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-(0.6 * arm + 2 * score)))).astype(float)
    errors = []
    for columns in ((), (score,)):
        x = np.column_stack([np.ones(n), arm, *columns])
        fit = generalised_linear_model(y, x, Family("binomial"))
        sides = [np.column_stack([np.ones(n), np.full(n, side), *columns]) for side in (1.0, 0.0)]
        errors.append(augmented_means(fit, sides[0], sides[1], arm).difference().standard_error)
    assert errors[1] < 0.85 * errors[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Family("beta"), "distribution must be one of"),  # type: ignore[arg-type]
        (lambda: Family("binomial", "cauchit"), "link must be one of"),  # type: ignore[arg-type]
        (lambda: generalised_linear_model([2.0, 0], np.ones((2, 1)), Family("binomial")), "shares between 0 and 1"),
        (lambda: generalised_linear_model([-1.0, 0], np.ones((2, 1)), Family("poisson")), "counts"),
        (lambda: GEE(Family("poisson"), "toeplitz"), "correlation must be one of"),  # type: ignore[arg-type]
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
