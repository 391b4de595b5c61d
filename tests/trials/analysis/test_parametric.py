"""Accelerated failure times: closed forms, relations between families, and what is refused."""

import math

import numpy as np
import pytest
from scipy.stats import lognorm, weibull_min

from medtwin.trials.analysis.parametric import Family, error_at, log_survival, parametric_model


def cohort(seed: int, size: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.arange(size) % 2, rng.normal(size=size)])
    full = np.exp(2 + x @ [0.5, -0.3]) * rng.weibull(1.5, size)
    limit = rng.uniform(3, 30, size)
    return np.minimum(full, limit), full <= limit, x


def test_exponential_has_a_closed_form() -> None:
    """The rate is events by time at risk, the standard error of its logarithm one by the root of the events."""
    time, event, _ = cohort(1)
    fit = parametric_model(time, event, family="exponential")
    rate = event.sum() / time.sum()
    assert fit.coefficients[0] == pytest.approx(-math.log(rate))
    assert fit.standard_errors == pytest.approx([1 / math.sqrt(event.sum())])
    assert fit.log_likelihood == pytest.approx(event.sum() * (math.log(rate) - 1))
    assert fit.log_likelihood == fit.null_log_likelihood


@pytest.mark.parametrize(
    ("family", "law"),
    [
        ("weibull", lambda fit: weibull_min(1 / fit.scale, scale=math.exp(fit.coefficients[0]))),
        ("lognormal", lambda fit: lognorm(fit.scale, scale=math.exp(fit.coefficients[0]))),
    ],
)
def test_likelihood_is_that_of_the_law(family: Family, law: object) -> None:
    time, event, _ = cohort(2)
    fit = parametric_model(time, event, family=family)
    found = law(fit)  # type: ignore[operator]
    expected = found.logpdf(time[event]).sum() + found.logsf(time[~event]).sum()
    assert fit.log_likelihood == pytest.approx(expected)


@pytest.mark.parametrize("family", ["weibull", "lognormal", "loglogistic", "gaussian", "logistic", "extreme"])
def test_the_estimate_is_a_maximum_in_any_units(family: Family) -> None:
    """Covariates in other units leave the likelihood; a fixed scale beside the estimate lowers it."""
    time, event, x = cohort(3)
    fit = parametric_model(time, event, x, family=family)
    other = parametric_model(time, event, x * [1e4, 1e-4] + [1, 50], family=family)
    assert other.log_likelihood == pytest.approx(fit.log_likelihood)
    np.testing.assert_allclose(other.coefficients[1:] * [1e4, 1e-4], fit.coefficients[1:], rtol=1e-6)
    np.testing.assert_allclose(other.standard_errors[1:3] * [1e4, 1e-4], fit.standard_errors[1:3], rtol=1e-6)
    for factor in (0.98, 1.02):
        beside = parametric_model(time, event, x, family=family, scale=factor * fit.scale)
        assert beside.log_likelihood < fit.log_likelihood
        assert beside.covariance.shape == (3, 3)
    assert fit.log_likelihood > fit.null_log_likelihood
    assert fit.covariance.shape == (4, 4)


def test_families_nest() -> None:
    time, event, x = cohort(4)
    at_one = parametric_model(time, event, x, scale=1.0)
    exponential = parametric_model(time, event, x, family="exponential")
    np.testing.assert_allclose(at_one.coefficients, exponential.coefficients, atol=1e-8)
    on_log = parametric_model(np.log(time), event, x, family="extreme")
    weibull = parametric_model(time, event, x)
    np.testing.assert_allclose(on_log.coefficients, weibull.coefficients, atol=1e-8)
    assert weibull.log_likelihood > exponential.log_likelihood


def test_the_truth_is_found() -> None:
    fit = parametric_model(*cohort(5, 5000))
    low, high = fit.interval(0.999)
    assert (low < [2, 0.5, -0.3]).all()
    assert (high > [2, 0.5, -0.3]).all()
    assert 1 / fit.scale == pytest.approx(1.5, rel=0.05)
    assert (fit.p_values < 1e-6).all()


def test_refusals() -> None:
    time, event, x = cohort(6, 30)
    with pytest.raises(ValueError, match="family must be one of"):
        parametric_model(time, event, family="gompertz")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="time must be above 0"):
        parametric_model(np.append(time, 0.0), np.append(event, False))
    with pytest.raises(ValueError, match="scale must be above 0"):
        parametric_model(time, event, scale=-1.0)
    with pytest.raises(ValueError, match="scale must be above 0 and that of the family exponential"):
        parametric_model(time, event, family="exponential", scale=2.0)
    with pytest.raises(ValueError, match="event must be true of somebody"):
        parametric_model(time, np.zeros(30))
    with pytest.raises(ValueError, match="linearly independent"):
        parametric_model(time, event, np.column_stack([x[:, 0], 2 * x[:, 0]]))


@pytest.mark.parametrize("family", ["weibull", "lognormal", "loglogistic"])
def test_errors_are_found_again_far_in_the_tail(family: Family) -> None:
    """A chance of survival of e^-900 is no number of double precision; its logarithm is."""
    errors = np.array([-3.0, 0.0, 2.0, {"weibull": np.log(900), "lognormal": 40.0, "loglogistic": 900.0}[family]])
    log_s = log_survival(family, errors)
    assert log_s[-1] < -700
    np.testing.assert_allclose(error_at(family, log_s), errors, atol=1e-12, rtol=1e-12)
