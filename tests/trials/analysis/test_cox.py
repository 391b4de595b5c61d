"""Cox regression: by hand, invariants of counting processes, robustness, concordance."""

import math

import numpy as np
import pytest

from medtwin.trials.analysis.concordance import concordance
from medtwin.trials.analysis.cox import Ties, TimeScale, cox_model, proportional_hazards_test
from medtwin.trials.analysis.logrank import logrank_test
from medtwin.trials.analysis.survival_batch import cox_log_hazard_ratio, risk_sets

Data = tuple[np.ndarray, np.ndarray, np.ndarray]


def cohort(seed: int, size: int = 150, *, is_rounded: bool = True) -> Data:
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.arange(size) % 2, rng.normal(size=size)])
    time = rng.exponential(10 * np.exp(-x @ [-0.5, 0.8]))
    limit = rng.uniform(2, 25, size)
    found = np.minimum(time, limit)
    return (np.ceil(found) if is_rounded else found), time <= limit, x


def test_two_events_by_hand() -> None:
    """x = 1, 0, 1, 0 failing in turn: d/db of b - log(2 + 2r) - log(2 + r) + b - log(1 + r) is 0 at r = exp b."""
    fit = cox_model([1, 2, 3, 4], [1, 1, 1, 1], [1, 0, 1, 0])
    ratio = float(fit.hazard_ratios[0])
    assert ratio / (1 + ratio) + ratio / (2 + ratio) + ratio / (1 + ratio) == pytest.approx(2)
    assert fit.null_log_likelihood == pytest.approx(-math.log(24))


def test_ties_by_hand() -> None:
    """Two events at once of three at risk, one of them with x = 1: Breslow (2+r)^2, Efron (2+r)(2+r-(1+r)/2)."""
    data = [1, 1, 2], [1, 1, 0], [1, 0, 0]
    breslow, efron = (cox_model(*data, ties=ties) for ties in ("breslow", "efron"))
    ratio = float(breslow.hazard_ratios[0])
    assert breslow.log_likelihood == pytest.approx(math.log(ratio / (2 + ratio) ** 2))
    ratio = float(efron.hazard_ratios[0])
    assert efron.log_likelihood == pytest.approx(math.log(ratio / (2 + ratio) / (2 + ratio - (1 + ratio) / 2)))


def test_the_batched_kernel_agrees() -> None:
    time, event, x = cohort(1)
    arm = x[:, 0].astype(np.int64)
    batch = cox_log_hazard_ratio(risk_sets(time[None], event[None], arm[None]))
    fit = cox_model(time, event, arm)
    assert fit.coefficients[0] == pytest.approx(batch.estimate[0], abs=1e-8)
    assert fit.standard_errors[0] == pytest.approx(batch.standard_error[0], abs=1e-8)
    np.testing.assert_allclose(fit.interval(), batch.interval(), rtol=1e-7)


def test_ties_do_not_matter_without_ties() -> None:
    efron, breslow = (cox_model(*cohort(2, is_rounded=False), ties=ties) for ties in ("efron", "breslow"))
    np.testing.assert_allclose(efron.coefficients, breslow.coefficients, atol=1e-10)
    efron, breslow = (cox_model(*cohort(2), ties=ties) for ties in ("efron", "breslow"))
    assert np.abs(efron.coefficients - breslow.coefficients).max() > 1e-3


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_splitting_the_rows_changes_nothing(ties: Ties) -> None:
    """Each subject cut at its middle: the same risk sets; with the subject as cluster, the same robust covariance."""
    time, event, x = cohort(3)
    subject = np.arange(len(time))
    whole = cox_model(time, event, x, cluster=subject, ties=ties)
    parts = cox_model(
        np.concatenate([time / 2, time]),
        np.concatenate([np.zeros(len(time)), event]),
        np.concatenate([x, x]),
        entry=np.concatenate([np.full(len(time), -1.0), time / 2]),
        cluster=np.concatenate([subject, subject]),
        ties=ties,
    )
    np.testing.assert_allclose(parts.coefficients, whole.coefficients, atol=1e-9)
    np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=1e-8)
    assert parts.log_likelihood == pytest.approx(whole.log_likelihood)


def test_strata_add_up() -> None:
    time, event, x = cohort(4)
    stratum = np.arange(len(time)) % 3
    fit = cox_model(time, event, x, strata=stratum)
    null = sum(
        cox_model(time[stratum == s], event[stratum == s], x[stratum == s]).null_log_likelihood for s in range(3)
    )
    assert fit.null_log_likelihood == pytest.approx(null)
    shifted = cox_model(time + 1000 * stratum, event, x, strata=stratum)
    np.testing.assert_allclose(shifted.coefficients, fit.coefficients, atol=1e-9)


def test_residuals_are_parts_of_the_score_and_their_influence_is_that_of_leaving_out() -> None:
    time, event, x = cohort(5, 80)
    fit = cox_model(time, event, x)
    np.testing.assert_allclose(fit.residuals.sum(axis=0), 0, atol=1e-7)
    influence = fit.residuals @ fit.naive_covariance
    left_out = np.array(
        [
            fit.coefficients - cox_model(*(np.delete(each, i, axis=0) for each in (time, event, x))).coefficients
            for i in range(80)
        ]
    )
    for j in range(2):
        assert np.corrcoef(influence[:, j], left_out[:, j])[0, 1] > 0.98


def test_rows_copied_within_clusters_do_not_make_the_robust_error_smaller() -> None:
    time, event, x = cohort(6)
    twice = [np.concatenate([each, each]) for each in (time, event, x)]
    subject = np.arange(len(time))
    once = cox_model(time, event, x, cluster=subject, ties="breslow")
    copied = cox_model(*twice, cluster=np.concatenate([subject, subject]), ties="breslow")
    np.testing.assert_allclose(copied.standard_errors, once.standard_errors, rtol=1e-7)
    naive = np.sqrt(np.diag(copied.naive_covariance))
    np.testing.assert_allclose(naive, np.sqrt(np.diag(once.naive_covariance) / 2), rtol=1e-7)


def test_the_score_test_is_the_log_rank_test_without_ties() -> None:
    time, event, x = cohort(7, is_rounded=False)
    fit = cox_model(time, event, x[:, 0])
    assert fit.score_test.chi_square == pytest.approx(logrank_test(time, event, x[:, 0]).chi_square)
    assert fit.wald_test.chi_square == pytest.approx(fit.z[0] ** 2)
    assert fit.wald_test.p_value == pytest.approx(fit.p_values[0])


def test_units_of_covariates_do_not_matter() -> None:
    time, event, x = cohort(8)
    fit, scaled = cox_model(time, event, x), cox_model(time, event, x * [1e-6, 1e6] + 5)
    np.testing.assert_allclose(scaled.coefficients * [1e-6, 1e6], fit.coefficients, rtol=1e-7)
    np.testing.assert_allclose(scaled.standard_errors * [1e-6, 1e6], fit.standard_errors, rtol=1e-7)


def test_concordance_by_hand() -> None:
    """Of five known pairs of (1, 2+, 3, 4) three agree; one score is tied."""
    found = concordance([1, 2, 3, 4], [1, 0, 1, 1], [4.0, 1.0, 2.0, 2.0])
    assert (found.concordant, found.discordant, found.tied_score) == (3, 0, 1)
    assert found.estimate == pytest.approx(3.5 / 4)
    both = concordance([1, 1, 2], [1, 1, 0], [1.0, 1.0, 0.0])
    assert (both.tied_both, both.tied_time) == (1, 0)


def test_concordance_turns_with_the_score_and_is_half_for_none() -> None:
    time, event, x = cohort(9)
    assert concordance(time, event, x[:, 1]).estimate > 0.6
    turned = concordance(time, event, x[:, 1]).estimate + concordance(time, event, -x[:, 1]).estimate
    assert turned == pytest.approx(1)
    assert concordance(time, event, np.zeros(len(time))).estimate == 0.5


def test_refusals() -> None:
    time, event, x = cohort(10, 40)
    with pytest.raises(ValueError, match="finite maximum"):
        cox_model([1, 2, 3, 4], [1, 1, 1, 1], [1, 1, 0, 0])
    with pytest.raises(ValueError, match="linearly independent"):
        cox_model(time, event, np.column_stack([x[:, 0], 1 - x[:, 0]]))
    with pytest.raises(ValueError, match="event must be true of somebody"):
        cox_model(time, np.zeros(40), x)
    with pytest.raises(ValueError, match="ties must be one of"):
        cox_model(time, event, x, ties="exact")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cluster must be one value for each"):
        cox_model(time, event, x, cluster=[1, 2])
    with pytest.raises(ValueError, match="level must be between"):
        cox_model(time, event, x).interval(95)
    with pytest.raises(ValueError, match="risk_score must be"):
        concordance(time, event, [1.0])


def test_proportionality_of_two_constant_hazards_is_not_refused() -> None:
    rng = np.random.default_rng(7)
    arm = np.repeat([0.0, 1.0], 150)
    time = rng.exponential(np.where(arm == 1, 2.0, 1.0))
    found = proportional_hazards_test(time, np.ones(300), arm)
    assert found.overall.p_value > 0.05
    assert found.tests[0].chi_square == pytest.approx(found.overall.chi_square)


@pytest.mark.parametrize("scale", ["km", "rank", "identity", "log"])
def test_proportionality_sees_a_late_effect(scale: TimeScale) -> None:
    """Hazards 1 and 1 until time 0.7, then 1 and 0.2: the negative control of the test above."""
    rng = np.random.default_rng(8)
    arm = np.repeat([0.0, 1.0], 150)
    total = rng.exponential(size=300)
    late = 0.7 + (total - 0.7) / 0.2
    time = np.where((arm == 1) & (total > 0.7), late, total)
    found = proportional_hazards_test(np.minimum(time, 3.0), time < 3.0, arm, scale=scale)
    assert found.overall.p_value < 0.01


def test_proportionality_by_hand() -> None:
    """Times 1, 2, 3 of x = 1, 0, 1, all events, on the scale of time: score residuals against times less their mean."""
    x, time = np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 2.0, 3.0, 4.0])
    risk = np.exp(cox_model(time, np.ones(4), x).coefficients[0] * x)
    mean = np.array([(risk[k:] @ x[k:]) / risk[k:].sum() for k in range(4)])
    spread, g = mean * (1 - mean), time - 2.5
    score = g @ (x - mean)
    variance = (g**2) @ spread - (g @ spread) ** 2 / spread.sum()
    found = proportional_hazards_test(time, np.ones(4), x, scale="identity")
    assert found.overall.chi_square == pytest.approx(score**2 / variance)


def test_proportionality_of_terms() -> None:
    """A term of two columns has two degrees of freedom; all of them together are the overall test."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(60, 3))
    found = proportional_hazards_test(rng.exponential(size=60), np.ones(60), x, terms=[[0, 1], [2]])
    assert [each.degrees_of_freedom for each in (*found.tests, found.overall)] == [2, 1, 3]


def test_refuses_an_unknown_scale() -> None:
    with pytest.raises(ValueError, match="scale must be one of"):
        proportional_hazards_test([1, 2, 3], [1, 1, 1], [0, 1, 0], scale="square")  # type: ignore[arg-type]
