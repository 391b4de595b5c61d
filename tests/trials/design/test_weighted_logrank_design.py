from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.design.average_hazard_ratio import average_hazard_ratio, average_hazard_ratio_looks
from medtwin.trials.design.max_combo_design import MaxCombo, max_combo
from medtwin.trials.design.weighted_logrank_design import (
    log_hazard_ratio,
    log_hazard_ratio_variance,
    score_covariance,
    weighted_logrank_looks,
    weighted_score,
)
from medtwin.trials.survival_weights import AtRiskPower, EarlyZero, FlemingHarrington, MagirrBurman
from tests.trials.design.survival_trials import delayed, proportional

UNKNOWN: Any = "unheard of"


def test_without_an_effect_the_score_is_0_and_its_variance_a_quarter_of_the_events() -> None:
    trial = proportional(1.0)
    score = weighted_score(trial, 24.0)
    assert score.mean == pytest.approx(0.0, abs=1e-12)
    assert score.variance == pytest.approx(trial.total_events(24.0) / 4)


def test_near_the_null_the_test_is_schoenfelds() -> None:
    trial = proportional(0.98)
    events = trial.total_events(24.0)
    assert weighted_score(trial, 24.0).z == pytest.approx(-np.log(0.98) * np.sqrt(events) / 2, rel=1e-3)


def test_the_null_of_a_margin_has_no_drift_at_the_margin() -> None:
    score = weighted_score(proportional(1.3), 24.0, null_hazard_ratio=1.3)
    assert score.mean == pytest.approx(0.0, abs=1e-12)


def test_cox_finds_a_proportional_hazard_ratio_whatever_the_weights() -> None:
    trial = proportional(0.7, 0.01, 2.0)
    for weight in (FlemingHarrington(), FlemingHarrington(0.5, 1.0), MagirrBurman(6.0)):
        assert log_hazard_ratio(trial, 20.0, weight) == pytest.approx(np.log(0.7))
    assert log_hazard_ratio_variance(proportional(1.0), 20.0) == pytest.approx(4 / proportional(1.0).total_events(20.0))


def test_late_weights_gain_where_the_effect_is_late() -> None:
    late, early = FlemingHarrington(0.0, 1.0), FlemingHarrington(1.0, 0.0)
    z = [weighted_score(delayed(), 36.0, weight).z for weight in (early, FlemingHarrington(), late)]
    assert z[0] < z[1] < z[2]


def test_a_weight_that_is_constant_in_time_is_no_weight() -> None:
    plain = weighted_score(delayed(), 36.0).z
    assert weighted_score(delayed(), 36.0, MagirrBurman(0.0)).z == pytest.approx(plain)
    assert weighted_score(delayed(), 36.0, MagirrBurman(max_weight=1.0)).z == pytest.approx(plain)
    assert weighted_score(delayed(), 36.0, EarlyZero(0.0)).z == pytest.approx(plain)
    assert weighted_score(delayed(), 36.0, AtRiskPower(0.0)).z == pytest.approx(plain)


def test_events_before_the_delay_only_add_noise() -> None:
    plain, late = weighted_score(delayed(), 36.0), weighted_score(delayed(), 36.0, EarlyZero(4.0))
    assert late.mean == pytest.approx(plain.mean)
    assert late.variance < 0.8 * plain.variance


def test_the_average_hazard_ratio_by_hand() -> None:
    found = average_hazard_ratio(delayed(), 36.0)
    before, after = found.pieces
    assert (before.hazard_ratio, after.hazard_ratio) == pytest.approx((1.0, 0.6))
    assert found.events == pytest.approx(delayed().total_events(36.0))
    assert found.log_hazard_ratio == pytest.approx(after.total / found.events * np.log(0.6))
    assert found.null_information == pytest.approx(found.events / 4)
    assert found.information == pytest.approx(sum(1 / (1 / p.events[0] + 1 / p.events[1]) for p in (before, after)))


def test_the_average_hazard_ratio_falls_as_the_effect_comes() -> None:
    ratios = np.exp(-average_hazard_ratio_looks(delayed(), [12.0, 24.0, 36.0]).effect)
    assert (np.diff(ratios) < 0).all()
    assert ratios[0] < 1


def test_information_of_looks_is_about_a_quarter_of_the_events() -> None:
    looks = weighted_logrank_looks(delayed(), [18.0, 36.0])
    events = [delayed().total_events(t) for t in (18.0, 36.0)]
    assert looks.null_information == pytest.approx(np.array(events) / 4, rel=0.02)
    local = weighted_logrank_looks(delayed(0.98), [18.0], approximation="generalized_schoenfeld").effect
    assert local == pytest.approx(weighted_logrank_looks(delayed(0.98), [18.0]).effect, rel=0.02)


def test_one_statistic_is_its_own_maximum() -> None:
    test = max_combo(delayed(), 36.0, [FlemingHarrington()])
    assert test.critical_value(0.025) == pytest.approx(norm.isf(0.025))
    assert test.power(0.025) == pytest.approx(norm.cdf(weighted_score(delayed(), 36.0).z - norm.isf(0.025)))


def test_independent_statistics_have_sidaks_bound() -> None:
    test = MaxCombo(np.array([3.0, 0.0]), np.eye(2))
    assert norm.sf(test.critical_value(0.025)) == pytest.approx(1 - np.sqrt(0.975), abs=1e-6)


def test_max_combo_is_between_its_parts() -> None:
    weights = [FlemingHarrington(), FlemingHarrington(0.0, 0.5)]
    test = max_combo(delayed(), 36.0, weights)
    parts = [norm.cdf(mean - norm.isf(0.025)) for mean in test.means]
    assert min(parts) < test.power(0.025) < max(parts)
    assert test.power(0.025, test.enrolment_factor(0.025, 0.9)) == pytest.approx(0.9, abs=1e-5)


def test_covariance_of_scores_has_their_variances() -> None:
    weights = [FlemingHarrington(), FlemingHarrington(0.0, 1.0, tau=6.0)]
    found = score_covariance(delayed(), 36.0, weights)
    assert np.diag(found) == pytest.approx([weighted_score(delayed(), 36.0, w).variance for w in weights])
    assert np.linalg.eigvalsh(found).min() > 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FlemingHarrington(-1.0), "rho must be 0 or more"),
        (lambda: MagirrBurman(-1.0), "delay must be 0 or more"),
        (lambda: MagirrBurman(max_weight=0.5), "max_weight must be 1 or more"),
        (lambda: FlemingHarrington(tau=0.0), "tau must be above 0"),
        (lambda: AtRiskPower(-0.5), "power must be 0 or more"),
        (lambda: weighted_score(proportional(), 20.0, null_hazard_ratio=0.0), "null_hazard_ratio must be above 0"),
        (lambda: weighted_logrank_looks(proportional(), [20.0], approximation=UNKNOWN), "approximation must be"),
        (lambda: average_hazard_ratio(proportional(), 0.0), "time must be above 0"),
        (lambda: max_combo(proportional(), 20.0, [FlemingHarrington()] * 2), "weights must be at least one and all"),
    ],
)
def test_what_makes_no_sense_is_refused(build: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        build()
