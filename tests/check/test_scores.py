from __future__ import annotations

from math import log

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medtwin.check.resample import subject_weights
from medtwin.check.scores import (
    SCORES,
    auprc,
    auroc,
    calibration_intercept,
    calibration_slope,
    summarise,
)


def ones(size: int) -> np.ndarray:
    return np.ones((1, size))


def test_auroc_with_ties_by_hand() -> None:
    """Pairs: 0.9 beats both negatives, 0.5 beats 0.1 and ties 0.5, 0.1 ties 0.1 and loses: (2 + 1.5 + 0.5) / 6."""
    score = np.array([0.9, 0.5, 0.1, 0.5, 0.1])
    label = np.array([True, True, True, False, False])
    assert auroc(score, label, ones(5)).tolist() == pytest.approx([4 / 6])


def test_a_weight_counts_like_repeated_rows() -> None:
    score, label = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    # The second positive twice, the first negative not at all, the last one thrice: 0.9 and 0.5 twice beat all.
    weights = np.array([[1, 2, 0, 3], [0, 2, 1, 1]])
    assert auroc(score, label, weights).tolist() == pytest.approx([1.0, 0.75])


def test_discrimination_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(500).round(2)
    label = rng.random(500) < score
    weights = np.vstack([np.ones(500), rng.poisson(1, (70, 500))])
    for row, area, precision in zip(weights, auroc(score, label, weights), auprc(score, label, weights), strict=True):
        assert area == pytest.approx(roc_auc_score(label, score, sample_weight=row))
        assert precision == pytest.approx(average_precision_score(label, score, sample_weight=row))


def test_calibration_slope_by_hand() -> None:
    """Said 20 % and 80 %, happened in 40 % and 60 %: the slope is logit(0.6) / logit(0.8)."""
    probability = np.repeat([0.2, 0.8], 10)
    label = np.r_[np.arange(10) < 4, np.arange(10) < 6]
    slope = calibration_slope(probability, label, ones(20))
    assert slope.tolist() == pytest.approx([log(0.6 / 0.4) / log(0.8 / 0.2)])
    assert slope[0] == pytest.approx(0.29248, abs=1e-5)
    assert calibration_intercept(probability, label, ones(20)).tolist() == pytest.approx([0], abs=1e-9)


def test_calibration_in_the_large_by_hand() -> None:
    """Said 50 %, happened in 20 %: logit(0.2) is missing."""
    label = np.arange(10) < 2
    assert calibration_intercept(np.full(10, 0.5), label, ones(10)).tolist() == pytest.approx([log(0.2 / 0.8)])


def test_what_is_not_defined_is_nan() -> None:
    label = np.array([True, False, True, False])
    assert np.isnan(calibration_slope(np.full(4, 0.5), label, ones(4))).all()
    separated = calibration_slope(np.array([0.9, 0.1, 0.8, 0.2]), label, ones(4))
    assert np.isnan(separated).all()
    only_one_class = np.array([[1, 0, 1, 0], [0, 1, 0, 1]])
    for score in SCORES.values():
        assert np.isnan(score(np.array([0.1, 0.2, 0.3, 0.4]), label, only_one_class)).all()


def test_a_well_calibrated_model_has_slope_one_and_one_that_exaggerates_less() -> None:
    rng = np.random.default_rng(1)
    logit = rng.normal(size=20_000)
    label = rng.random(20_000) < 1 / (1 + np.exp(-logit))
    said = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(-2 * logit))
    slopes = [calibration_slope(p, label, ones(20_000))[0] for p in said]
    assert slopes == pytest.approx([1, 0.5], abs=0.05)


def test_rows_of_a_subject_are_drawn_together() -> None:
    subject = np.array([3, 3, 7, 9, 9, 9])
    weights = subject_weights(subject, 40, np.random.default_rng(0))
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_the_interval_of_several_fits_holds_both_parts() -> None:
    """Bootstrap draws from -1 to 1 around the mean give 0.95; fits 0, 1, 2 give t(2) * 1 / sqrt(3) = 2.4841."""
    spread = np.linspace(-1, 1, 201)
    one = summarise(np.r_[0.0, spread][None])
    assert one is not None
    assert (one.value, one.low, one.high, one.between) == pytest.approx((0, -0.95, 0.95, None))
    three = summarise(np.stack([np.r_[fit, fit + spread] for fit in (0.0, 1.0, 2.0)]))
    assert three is not None
    half = float(np.hypot(0.95, 2.48414))
    assert (three.value, three.low, three.high, three.between) == pytest.approx((1, 1 - half, 1 + half, 1), abs=1e-4)
    assert summarise(np.full((1, 5), np.nan)) is None
