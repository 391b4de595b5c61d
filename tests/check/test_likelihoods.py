from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medtwin.check.estimates import Distribution, Estimate, Measure
from medtwin.check.likelihoods import LogLikelihoods, delong, likelihood_measures

NAMES = ["likelihood.gap", "likelihood.ks", "likelihood.membership"]


def subjects(num_subjects: int, seed: int, *, per_event: float = -2.0, spread: float = 0.5) -> LogLikelihoods:
    rng = np.random.default_rng(seed)
    num_events = rng.integers(1, 60, num_subjects)
    return LogLikelihoods(num_events * rng.normal(per_event, spread, num_subjects), num_events)


def measured(
    train: LogLikelihoods, synthetic: LogLikelihoods, control: LogLikelihoods
) -> tuple[dict[str, Estimate], list[Distribution]]:
    measures, shown = likelihood_measures(train, synthetic, control, seed=0)
    assert [one.name for one in measures] == NAMES
    assert all(one.better == "lower" for one in measures)
    return {one.name: one.estimate for one in measures if one.estimate is not None}, shown


def test_the_gap_counts_events_and_the_ks_distance_counts_subjects() -> None:
    # 30 subjects of 1 event at -1 nat and 30 of 3 events at -2 each: -7/4 per event. Twins: all at -1.
    control = LogLikelihoods(np.repeat([-1.0, -6.0], 30), np.repeat([1, 3], 30))
    synthetic = LogLikelihoods(np.full(40, -2.0), np.full(40, 2))
    found, shown = measured(control, synthetic, control)
    assert found["likelihood.gap"].value == pytest.approx(0.75)
    assert found["likelihood.gap"].control == 0
    assert found["likelihood.ks"].value == pytest.approx(0.5)
    assert found["likelihood.membership"].value == pytest.approx(0.5)
    assert (shown[0].support, shown[0].cdf_real, shown[0].cdf_synthetic) == ([-2.0, -1.0], [0.5, 1.0], [0.0, 1.0])


def test_the_area_and_its_error_by_hand() -> None:
    # 1 and 3 against 2 and 4: three of four pairs. Shares below: 0.5 and 1; above: 1 and 0.5; variances 0.125 each.
    area, error = delong(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
    assert area == 0.75
    assert error == pytest.approx(np.sqrt(0.125 / 2 + 0.125 / 2))


def test_the_area_agrees_with_scikit_learn_and_its_error_with_a_bootstrap() -> None:
    rng = np.random.default_rng(0)
    low, high = np.round(rng.normal(0, 1, 150), 1), np.round(rng.normal(0.7, 1.3, 100), 1)
    label = np.repeat([0, 1], [150, 100])
    area, error = delong(low, high)
    assert area == pytest.approx(roc_auc_score(label, np.concatenate([low, high])), abs=1e-12)
    resampled = [delong(rng.choice(low, 150), rng.choice(high, 100))[0] for _ in range(2000)]
    assert error == pytest.approx(np.std(resampled), rel=0.06)
    # Structural components as DeLong et al. define them, pair by pair.
    wins = (high[:, None] > low).astype(float) + 0.5 * (high[:, None] == low)
    variance = wins.mean(axis=1).var(ddof=1) / 100 + wins.mean(axis=0).var(ddof=1) / 150
    assert error == pytest.approx(np.sqrt(variance), abs=1e-12)


def test_subjects_of_one_law_stay_within_the_baseline() -> None:
    found, _ = measured(subjects(300, 0), subjects(200, 1), subjects(150, 2))
    for name in NAMES:
        assert found[name].value < found[name].baseline_worst
    membership = found["likelihood.membership"]
    assert membership.low < 0.5 < membership.high
    # Ranks of 300 and 150 of one law: the square root of 451 / (12 * 300 * 150) is 0.028899.
    assert membership.baseline == 0.5
    assert membership.baseline_worst == pytest.approx(0.5 + 1.644854 * 0.028899, abs=1e-5)


def test_twins_that_are_too_likely_are_seen() -> None:
    found, _ = measured(subjects(300, 0), subjects(200, 1, per_event=-1.7), subjects(150, 2))
    for name in NAMES[:2]:
        assert found[name].low > found[name].baseline_worst
    assert found["likelihood.gap"].value == pytest.approx(0.3, abs=0.12)
    assert found["likelihood.membership"].value < found["likelihood.membership"].baseline_worst


def test_twins_of_the_right_mean_and_no_spread_are_seen() -> None:
    found, _ = measured(subjects(300, 0), subjects(200, 1, spread=0.1), subjects(150, 2))
    assert found["likelihood.gap"].value < found["likelihood.gap"].baseline_worst
    assert found["likelihood.ks"].low > found["likelihood.ks"].baseline_worst


def test_a_model_that_remembers_its_subjects_is_seen() -> None:
    found, _ = measured(subjects(300, 0, per_event=-1.5), subjects(200, 1), subjects(150, 2))
    assert found["likelihood.membership"].low > found["likelihood.membership"].baseline_worst
    assert found["likelihood.membership"].value == pytest.approx(0.76, abs=0.05)  # Phi(1 / sqrt 2)
    assert found["likelihood.gap"].control is not None
    assert found["likelihood.gap"].control > found["likelihood.gap"].baseline_worst  # train is not the control


def by_name(measures: list[Measure]) -> dict[str, Measure]:
    return {one.name: one for one in measures}


def test_too_few_subjects_say_so() -> None:
    nobody = LogLikelihoods(np.zeros(0), np.zeros(0, np.int64))
    many, few = subjects(100, 0), subjects(29, 1)
    for sides in ((nobody, nobody, nobody), (many, many, few), (many, few, few)):
        measures, shown = likelihood_measures(*sides, seed=0)
        assert shown == []
        assert all(one.estimate is None and one.reason for one in measures)
    without_twins = by_name(likelihood_measures(many, nobody, many, seed=0)[0])
    assert without_twins["likelihood.gap"].estimate is None
    assert without_twins["likelihood.membership"].estimate is not None
    without_train = by_name(likelihood_measures(nobody, many, many, seed=0)[0])
    assert without_train["likelihood.gap"].estimate is not None
    assert without_train["likelihood.gap"].estimate.control is None
    assert without_train["likelihood.membership"].estimate is None


def test_subjects_without_events_or_a_finite_likelihood_are_left_out() -> None:
    control, twins = subjects(100, 0), subjects(100, 1)
    odd = LogLikelihoods(np.append(control.nats, [np.nan, -np.inf, 0.0]), np.append(control.num_events, [5, 5, 0]))
    assert measured(odd, twins, odd) == measured(control, twins, control)


def test_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \(subjects,\) both, got \(3,\) and \(2,\)"):
        LogLikelihoods(np.zeros(3), np.ones(2, np.int64))
