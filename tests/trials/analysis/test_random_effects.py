"""Random intercepts and slopes: the likelihood itself, the model with one intercept, invariance, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from medtwin.trials.analysis.random_effects import random_effects_model


def growth(seed: int = 3, subjects: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Response, x, z and subject: four visits, random intercept sd 2 and slope sd 0.5, correlation 0.3, noise sd 1."""
    rng = np.random.default_rng(seed)
    visit = np.tile([-1.5, -0.5, 0.5, 1.5], subjects)
    subject = np.repeat(np.arange(subjects), 4)
    arm = np.repeat(rng.permutation(subjects) % 2, 4)
    spread = np.array([[4.0, 0.3], [0.3, 0.25]])
    effects = rng.multivariate_normal([0.0, 0.0], spread, size=subjects)[subject]
    z = np.column_stack([np.ones(len(visit)), visit])
    x = np.column_stack([z, arm, arm * visit])
    y = x @ [10.0, 1.0, 0.5, 0.8] + (z * effects).sum(axis=1) + rng.normal(size=len(visit))
    return y, x, z, subject


def test_full_likelihood_is_that_of_the_multivariate_normal() -> None:
    y, x, z, subject = growth()
    fit = random_effects_model(y, x, z, subject, is_restricted=False)
    total = 0.0
    for each in np.unique(subject):
        own = subject == each
        covariance = z[own] @ fit.random_covariance @ z[own].T + fit.residual_sd**2 * np.eye(own.sum())
        total += multivariate_normal(x[own] @ fit.coefficients, covariance).logpdf(y[own])
    assert fit.log_likelihood == pytest.approx(total, abs=1e-8)


def test_the_random_intercept_of_balanced_data_is_the_analysis_of_variance() -> None:
    y = np.array([1.0, 3, 4, 6, 9, 11])
    fit = random_effects_model(y, np.ones((6, 1)), np.ones((6, 1)), [0, 0, 1, 1, 2, 2])
    assert fit.residual_sd**2 == pytest.approx(2.0, rel=1e-5)
    assert fit.random_covariance[0, 0] == pytest.approx(np.var([2.0, 5, 10], ddof=1) - 1, rel=1e-5)
    assert fit.coefficients == pytest.approx([17 / 3])
    assert fit.degrees_of_freedom.tolist() == [3.0]


@pytest.mark.parametrize("is_restricted", [True, False])
def test_a_small_random_intercept_is_found_where_the_search_may_fall_flat(is_restricted: bool) -> None:
    """A single start, from an intercept as spread as the errors, ends at none in half of such data."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        subject = rng.integers(0, 30, 100)
        y, x = 0.2 * rng.normal(size=30)[subject] + rng.normal(size=100), np.ones((100, 1))
        fit = random_effects_model(y, x, x, subject, is_restricted=is_restricted)
        for sd in (1e-3, 0.1, 0.2, 0.3, 0.4, 0.8):
            covariance = sd**2 * np.equal.outer(subject, subject) + np.eye(100)
            precision = np.linalg.inv(covariance)
            rest = y - (precision.sum(axis=0) @ y) / precision.sum()
            free = 100 - is_restricted
            total = free * (np.log(2 * np.pi * (rest @ precision @ rest) / free) + 1) + np.linalg.slogdet(covariance)[1]
            total += is_restricted * np.log(precision.sum())
            assert fit.log_likelihood >= -total / 2 - 1e-7


def test_moving_the_origin_of_time_changes_the_intercepts_only() -> None:
    y, x, z, subject = growth()
    moved = np.column_stack([z[:, 0], z[:, 1] + 10.0])
    one, other = (random_effects_model(y, x, each, subject) for each in (z, moved))
    assert other.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-7)
    assert other.random_sds[1] == pytest.approx(one.random_sds[1], rel=1e-3)
    assert other.random_sds[0] > one.random_sds[0]


def test_finds_what_the_data_were_drawn_with() -> None:
    fit = random_effects_model(*growth(subjects=600))
    np.testing.assert_allclose(fit.coefficients, [10.0, 1.0, 0.5, 0.8], atol=4 * fit.standard_errors.max())
    np.testing.assert_allclose(fit.random_sds, [2.0, 0.5], rtol=0.15)
    assert fit.residual_sd == pytest.approx(1.0, rel=0.1)


def test_without_the_slope_the_errors_of_slopes_are_too_small() -> None:
    """The negative control: a random intercept alone takes visits of a subject for exchangeable."""
    y, x, z, subject = growth()
    full, intercept = random_effects_model(y, x, z, subject), random_effects_model(y, x, z[:, :1], subject)
    assert full.log_likelihood > intercept.log_likelihood + 2
    assert full.standard_errors[3] > 1.1 * intercept.standard_errors[3]


def test_refuses_subjects_of_one_row_each() -> None:
    with pytest.raises(ValueError, match="two rows"):
        random_effects_model([1.0, 2.0], np.ones((2, 1)), np.ones((2, 1)), [0, 1])


def test_refuses_effects_that_depend_on_one_another() -> None:
    y, x, z, subject = growth()
    with pytest.raises(ValueError, match="z must be 160 rows of independent columns"):
        random_effects_model(y, x, np.column_stack([z, z[:, 1]]), subject)
