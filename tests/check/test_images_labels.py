from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.check.image_features import Encoded, encode_sides
from medtwin.check.image_labels import PENALTY, concordance, label_measures, ridge_logistic
from medtwin.check.pictures import Picture
from tests.check import images_samples as samples


def test_concordance_counts_pairs_within_a_stratum() -> None:
    """Stratum a: 3 above 1 (in order), 2 above 3 (not); stratum b: a tie. Across strata nothing is compared."""
    score = np.array([1.0, 3.0, 2.0, 5.0, 5.0])
    target = np.array([0.0, 1.0, 2.0, 0.0, 1.0])
    stratum = np.array(["a", "a", "a", "b", "b"])
    ones = np.ones((1, 5))
    # a: (1 over 0) yes, (2 over 0) yes, (2 over 1) no; b: half
    assert concordance(score, target, stratum, ones).tolist() == [(1 + 1 + 0 + 0.5) / 4]
    twice = np.array([[1.0, 1.0, 2.0, 0.0, 0.0]])
    assert concordance(score, target, stratum, twice) == pytest.approx([(1 + 2 + 0) / 5])
    assert np.isnan(concordance(score, np.ones(5), stratum, ones)[0])


def test_concordance_of_two_classes_is_the_area_under_the_curve() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    score, target = rng.normal(size=60).round(1), (rng.random(60) < 0.4).astype(float)
    weights = rng.integers(0, 3, (2, 60)).astype(float)
    found = concordance(score, target, np.zeros(60), weights)
    assert found == pytest.approx([roc_auc_score(target, score, sample_weight=each) for each in weights])


def test_ridge_logistic_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 5)) * 3
    target = (features[:, 0] + rng.normal(size=80) > 1).astype(float)
    slopes, intercept = ridge_logistic(features, target)
    peer = LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=1000).fit(features, target)
    assert slopes == pytest.approx(peer.coef_[0], abs=1e-5)
    assert intercept == pytest.approx(peer.intercept_[0], abs=1e-5)


def test_ridge_logistic_of_one_flat_feature_is_the_log_odds() -> None:
    slopes, intercept = ridge_logistic(np.zeros((4, 1)), np.array([0.0, 1, 1, 1]))
    assert (slopes.tolist(), intercept) == ([0.0], pytest.approx(np.log(3)))


def encoded(*sides: list[Picture]) -> list[Encoded]:
    return encode_sides(samples.encode, *sides)


def labelled_otherwise(sources: list[Picture], seed: int) -> list[Picture]:
    """The same pictures with the labels, sex and age of others."""
    order = np.random.default_rng(seed).permutation(len(sources))
    return [
        replace(one, labels=sources[i].labels, sex=sources[i].sex, age_years=sources[i].age_years)
        for one, i in zip(sources, order, strict=True)
    ]


def test_rows_say_how_far_labels_are_seen_and_by_what_they_were_tested() -> None:
    sides = encoded(samples.pictures(120, 1), samples.pictures(80, 2), samples.pictures(50, 3))
    measures, rows = label_measures(*sides, seed=0, num_resamples=20)
    by_target = {(row.kind, row.target): row for row in rows}
    tstr = by_target["tstr", samples.SPOT]
    assert tstr.tested == "control"
    assert tstr.floor < 0.8 < tstr.low <= tstr.area <= tstr.high <= 1
    assert tstr.with_real == sum(bool(one.labels) for one in sides[0].pictures)
    assert tstr.loss.value == pytest.approx(tstr.ceiling - tstr.area)
    assert by_target["adherence", "sex"].area > 0.95
    assert by_target["adherence", "view PA or AP"].area > 0.99
    age = by_target["adherence", "age"]
    assert age.area > 0.6
    assert age.with_real is None
    assert "years in twins" in age.detail
    losses = [row.loss.value for row in rows if row.kind == "adherence" and row.target != samples.SPOT]
    conditions = next(one.estimate for one in measures if one.name == "images.conditions")
    assert conditions is not None
    assert conditions.value == pytest.approx(np.mean(losses))


def test_labels_dealt_anew_are_not_seen_whether_there_is_a_control_or_not() -> None:
    real, twins = samples.pictures(120, 1), labelled_otherwise(samples.pictures(80, 2), 0)
    for control in (samples.pictures(50, 3), []):
        measures, rows = label_measures(*encoded(real, twins, control), seed=0, num_resamples=20)
        assert {row.tested for row in rows if row.kind == "tstr"} == {"control" if control else "reference"}
        for one in measures:
            assert one.estimate is not None
            assert one.estimate.low > one.estimate.baseline_worst > 0


def test_the_reference_is_tested_by_models_that_did_not_see_its_subjects() -> None:
    """Where labels are dealt anew among real subjects nothing can be learned: a ceiling above chance is a leak."""
    real = labelled_otherwise([one for one in samples.pictures(200, 5) if one.view == "PA"], 1)
    doubled = [replace(one) for one in real for _ in range(2)]  # the same image twice: a fold by image would leak
    _, rows = label_measures(*encoded(doubled, samples.pictures(80, 2), []), seed=0, num_resamples=5)
    ceilings = [row.ceiling for row in rows if row.target in (samples.SPOT, "sex")]
    assert len(ceilings) == 3
    assert max(ceilings) < 0.65


def test_findings_of_few_images_are_left_out_with_a_reason() -> None:
    few = [
        replace(one, labels=one.labels if number < 20 else None) for number, one in enumerate(samples.pictures(80, 2))
    ]
    measures, rows = label_measures(*encoded(samples.pictures(120, 1), few, []), seed=0, num_resamples=5)
    assert {row.target for row in rows} == {"view PA or AP", "sex", "age"}
    tstr = next(one for one in measures if one.name == "images.tstr")
    assert (tstr.estimate, tstr.applicable) == (None, True)
    assert "20 images" in tstr.reason
