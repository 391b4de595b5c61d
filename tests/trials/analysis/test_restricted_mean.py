"""Restricted means and survival at a milestone: areas by hand, and what they are without censoring."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.analysis.milestone import milestone_test
from medtwin.trials.analysis.restricted_mean import (
    adjusted_restricted_mean,
    compare_restricted_means,
    restricted_mean,
)


def cohort(seed: int, size: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Times without censoring, the same censored, events, arms and a covariate that matters."""
    rng = np.random.default_rng(seed)
    arm, x = np.arange(size) % 2, rng.normal(size=size)
    full = rng.exponential(10 * np.exp(0.3 * arm + 0.6 * x))
    limit = rng.uniform(4, 30, size)
    return full, np.minimum(full, limit), full <= limit, arm, x


def test_area_and_variance_by_hand() -> None:
    """Survival 3/4 after 1, 3/8 after 3: to 5 the area is 1 + 2 3/4 + 2 3/8; what is left after each event, squared."""
    found = restricted_mean([1, 2, 3, 6], [1, 0, 1, 0], 5)
    assert found.estimate == pytest.approx(1 + 1.5 + 0.75)
    assert found.standard_error**2 == pytest.approx((1.5 + 0.75) ** 2 / 12 + 0.75**2 / 2)
    assert found.time_lost == pytest.approx(5 - 3.25)


def test_without_censoring_it_is_the_mean_of_times_cut_at_tau() -> None:
    full, *_ = cohort(1)
    cut, found = np.minimum(full, 8.0), restricted_mean(full, np.ones(len(full)), 8.0)
    assert found.estimate == pytest.approx(cut.mean())
    assert found.standard_error == pytest.approx(cut.std() / math.sqrt(len(cut)))


def test_contrasts_by_their_parts() -> None:
    _, time, event, arm, _ = cohort(2)
    found = compare_restricted_means(time, event, arm, 12.0)
    one, zero = found.experimental, found.control
    assert found.difference.estimate == pytest.approx(one.estimate - zero.estimate)
    assert found.difference.standard_error == pytest.approx(math.hypot(one.standard_error, zero.standard_error))
    assert found.ratio.estimate == pytest.approx(one.estimate / zero.estimate)
    assert found.loss_ratio.estimate == pytest.approx(one.time_lost / zero.time_lost)
    for each in (found.difference, found.ratio, found.loss_ratio):
        assert each.z > 0
        assert each.low < each.estimate < each.high
        assert each.p_value == pytest.approx(2 * norm.sf(each.z))
    turned = compare_restricted_means(time, event, 1 - arm, 12.0)
    assert turned.difference.estimate == pytest.approx(-found.difference.estimate)
    assert turned.ratio.estimate == pytest.approx(1 / found.ratio.estimate)


def test_the_interval_covers_the_truth() -> None:
    """Exponential times of mean 10 and 13: 10 (1 - exp -tau/10) and so on; 300 trials."""
    truth = 13 * -math.expm1(-12 / 13) - 10 * -math.expm1(-12 / 10)
    rng, covered = np.random.default_rng(3), 0
    for _ in range(300):
        arm = np.arange(120) % 2
        full, limit = rng.exponential(np.where(arm == 1, 13.0, 10.0)), rng.uniform(8, 40, 120)
        limit[:2] = 40.0
        found = compare_restricted_means(np.minimum(full, limit), full <= limit, arm, 12.0).difference
        covered += found.low < truth < found.high
    assert covered / 300 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 300))


def test_adjustment_without_censoring_is_least_squares() -> None:
    full, _, _, arm, x = cohort(4)
    fit = adjusted_restricted_mean(full, np.ones(len(full)), arm, x, 8.0)
    design = np.column_stack([np.ones(len(full)), arm, x])
    y = np.minimum(full, 8.0)
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    meat = design * (y - design @ beta)[:, None]
    bread = np.linalg.inv(design.T @ design)
    np.testing.assert_allclose(fit.coefficients, beta, rtol=1e-9)
    np.testing.assert_allclose(fit.covariance, bread @ meat.T @ meat @ bread, rtol=1e-9)


def test_adjustment_narrows_the_interval_and_the_log_links_hold_their_equations() -> None:
    _, time, event, arm, x = cohort(5)
    raw = compare_restricted_means(time, event, arm, 12.0)
    fit = adjusted_restricted_mean(time, event, arm, x, 12.0)
    assert fit.comparison.standard_error < raw.difference.standard_error
    ratio = adjusted_restricted_mean(time, event, arm, x, 12.0, contrast="ratio")
    loss = adjusted_restricted_mean(time, event, arm, x, 12.0, contrast="loss_ratio")
    assert ratio.comparison.estimate > 1 > loss.comparison.estimate
    assert min(ratio.comparison.z, loss.comparison.z) > 0
    assert ratio.comparison.estimate == pytest.approx(math.exp(ratio.coefficients[1]))
    assert ratio.comparison.p_value != pytest.approx(loss.comparison.p_value)


def test_milestone_without_censoring_compares_shares() -> None:
    full, _, _, arm, _ = cohort(6)
    p1, p0 = ((full[arm == side] > 9).mean() for side in (1, 0))
    naive = milestone_test(full, np.ones(len(full)), arm, 9.0, scale="naive")
    spread = math.sqrt(p1 * (1 - p1) / 200 + p0 * (1 - p0) / 200)
    assert (naive.experimental, naive.control) == pytest.approx((p1, p0))
    assert naive.standard_error == pytest.approx(spread)
    assert naive.z == pytest.approx((p1 - p0) / spread)
    changed = milestone_test(full, np.ones(len(full)), arm, 9.0)
    assert changed.estimate == pytest.approx(math.log(math.log(p0) / math.log(p1)))
    assert changed.difference == naive.difference
    assert changed.z == pytest.approx(naive.z, rel=0.05)
    assert changed.p_value == pytest.approx(norm.sf(changed.z))


def test_refusals() -> None:
    _, time, event, arm, x = cohort(7, 60)
    with pytest.raises(ValueError, match="tau must be above 0 and within the observation"):
        restricted_mean([1, 2, 3], [1, 1, 0], 4)
    with pytest.raises(ValueError, match="tau must be above 0"):
        adjusted_restricted_mean(time, event, arm, x, 0.0)
    with pytest.raises(ValueError, match="arm must have subjects of both arms"):
        compare_restricted_means(time, event, np.ones(60))
    with pytest.raises(ValueError, match="contrast must be one of"):
        adjusted_restricted_mean(time, event, arm, x, 9.0, contrast="odds")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at must be within the observation"):
        milestone_test(time, event, arm, 1000.0)
    with pytest.raises(ValueError, match="at must leave survival"):
        milestone_test(time, event, arm, 0.0)
    with pytest.raises(ValueError, match="scale must be one of"):
        milestone_test(time, event, arm, 5.0, scale="log")  # type: ignore[arg-type]
