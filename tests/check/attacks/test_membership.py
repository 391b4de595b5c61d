from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from medtwin.check.attacks.membership import membership, true_positives
from medtwin.check.attacks.membership_scores import (
    density_ratio_scores,
    nearest_twin_scores,
    neighbour_ratio_scores,
)
from tests.check.attacks.laws import draw, leak


def test_area_agrees_with_scikit_learn_and_covers() -> None:
    rng = np.random.default_rng(0)
    truth, covered = float(norm.cdf(0.5 / np.sqrt(2))), 0
    for _ in range(200):
        members, others = rng.normal(0.5, 1, 150), rng.normal(0, 1, 120)
        found = membership("x", members, others)
        area = roc_auc_score(np.repeat([1, 0], [150, 120]), np.concatenate([members, others]))
        assert found.area == pytest.approx(area)
        covered += found.low is not None and found.high is not None and found.low <= truth <= found.high
    assert 180 <= covered <= 199


def test_true_positives_cover_at_one_in_a_hundred_and_in_a_thousand() -> None:
    rng = np.random.default_rng(0)
    covered = {0.01: 0, 0.001: 0}
    for _ in range(60):
        found = membership("x", rng.normal(0.7, 1, 1500), rng.normal(0, 1, 10_000))
        for one in found.found:
            truth = float(norm.sf(norm.isf(one.false_positives) - 0.7))
            assert one.rate is not None
            assert one.low is not None
            assert one.high is not None
            assert one.low <= one.rate <= one.high
            covered[one.false_positives] += one.low <= truth <= one.high
    assert min(covered.values()) >= 57


def test_what_cannot_be_estimated_is_not() -> None:
    found = membership("x", np.arange(50.0), np.arange(999.0))
    assert [one.rate for one in found.found] == [None, None]
    assert found.found[0].reason == "not estimable: 1000 people who were not in training are needed, there are 999"
    assert "10000 people" in found.found[1].reason
    few = membership("x", np.arange(5.0), np.arange(999.0))
    assert few.area is None
    assert few.reason == "needs 30 people on both sides, there are 5 and 999"
    with pytest.raises(ValueError, match="false_positives must be between 0 and 1"):
        true_positives(np.arange(3.0), np.arange(3.0), 1.0)


def test_perfect_separation_has_an_interval() -> None:
    found = membership("x", np.arange(1000.0) + 2000, np.arange(1000.0))
    assert found.area == 1
    assert found.low is not None
    assert 0.99 < found.low < 1
    assert found.found[0].rate == 1


@pytest.mark.parametrize(
    ("score", "least"), [("nearest twin", 0.99), ("density ratio", 0.6), ("neighbour ratio", 0.99)]
)
def test_scores_tell_copied_people_and_nobody_of_an_independent_draw(score: str, least: float) -> None:
    def area(share: float, seed: int) -> float:
        sides = leak(share, seed, number=400, num_control=400)
        reference = draw(400, np.random.default_rng(seed + 100))
        of = {"density ratio": density_ratio_scores, "neighbour ratio": neighbour_ratio_scores}
        members, others = (
            of[score](side, sides.synthetic, reference) if score in of else nearest_twin_scores(side, sides.synthetic)
            for side in (sides.train, sides.control)
        )
        found = membership(score, members, others).area
        assert found is not None
        return found

    assert area(1.0, 21) > least
    independent = [area(0.0, seed) for seed in range(6)]
    assert np.mean(independent) == pytest.approx(0.5, abs=0.025)  # each has a standard error of 0.02
