from __future__ import annotations

import numpy as np
import pytest

from medtwin.scans.class_weights import class_weights
from medtwin.scans.conditions import ScanRequest
from medtwin.training.batches import ResumableBatches


def _images(normal: int, common: int, rare: int, unlabelled: int = 0) -> list[ScanRequest]:
    labels = [()] * normal + [("common",)] * common + [("common", "rare")] * rare + [None] * unlabelled
    return [ScanRequest(str(i), "CR", "CHEST", "PA", labels=one) for i, one in enumerate(labels)]


def _shown(images: list[ScanRequest], weights: np.ndarray | None) -> dict[object, float]:
    """Share of each set of findings among 200 epochs of batches."""
    batches = ResumableBatches(len(images), 16, seed=0, weights=weights)
    order = np.concatenate([batches.order(epoch) for epoch in range(200)])
    labels = [images[i].labels for i in order]
    return {one: labels.count(one) / len(labels) for one in set(labels)}


def test_classes_are_shown_as_often_as_each_other_whichever_is_rare() -> None:
    """Of PneumoniaMNIST the normal images are the rare ones."""
    for numbers in ((20, 60, 0), (60, 20, 0)):
        images = _images(*numbers)
        weights = class_weights(images, {"findings": 1.0}, ["common"])
        assert _shown(images, weights)[()] == pytest.approx(0.5, abs=0.02)
        plain = _shown(images, class_weights(images, {"findings": 0.0}, ["common"]))
        assert plain[()] == pytest.approx(numbers[0] / 80)


def test_a_rare_finding_counts_before_the_common_ones_beside_it() -> None:
    images = _images(45, 45, 10)
    weights = class_weights(images, {"findings": 1.0}, ["common", "rare"])
    assert weights is not None
    assert weights[[0, 50, 95]] == pytest.approx([100 / 45, 100 / 55, 10])
    half = class_weights(images, {"findings": 0.5}, ["common", "rare"])
    assert half == pytest.approx(np.sqrt(weights))
    shown = _shown(images, weights)
    assert 0.30 < shown["common", "rare"] < 0.40  # 10 % of the images
    unlearned = class_weights(images, {"findings": 1.0}, ["common"])
    assert unlearned is not None
    assert unlearned[95] == unlearned[50]


def test_views_and_ages_are_balanced_together_and_the_unknown_is_as_the_mean() -> None:
    images = [
        ScanRequest(str(i), "CR", view="AP" if i < 25 else "PA", age_years=None if i == 99 else 30 + 40 * (i % 2))
        for i in range(100)
    ]
    weights = class_weights(images, {"view": 1.0, "age": 1.0}, [])
    assert weights is not None
    assert weights[:25].sum() / weights.sum() == pytest.approx(0.5, abs=0.01)
    assert weights[99] == pytest.approx(weights[25:99].mean(), rel=0.02)


@pytest.mark.parametrize("balance", [{"height": 0.5}, {"view": -1}, {"view": 1.5}, {"findings": float("nan")}])
def test_refuses_what_cannot_be_balanced(balance: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="balance must be powers from 0 to 1 of findings"):
        class_weights(_images(1, 1, 0), balance, [])


def test_nothing_to_balance() -> None:
    assert class_weights([], {"view": 1.0}, []) is None
    assert class_weights(_images(2, 2, 0), {}, []) is None
    unlabelled = class_weights(_images(0, 0, 0, 4), {"findings": 1.0}, ["common"])
    assert unlabelled is not None
    assert unlabelled.tolist() == [1.0] * 4
