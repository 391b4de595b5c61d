from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.image_losses import NAME, loss_measure, loss_scores, no_losses


def test_scores_are_of_subjects_and_no_noise_level_drowns_the_others() -> None:
    reference = np.exp(np.array([[-1.0, 9.0], [1.0, 11.0]]))  # deviation 1 about 0 and 10
    losses = np.exp(np.array([[-2.0, 10.0], [0.0, 8.0], [1.0, 11.0]]))
    assert loss_scores(losses, np.array([5, 5, 2]), reference) == pytest.approx([-1, 1])


def test_members_with_smaller_losses_are_told_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    losses = np.exp(rng.normal(size=(400, 4)) + np.array([0, 2, 4, 6]))
    subject = np.arange(400) // 2
    control = losses[300:], subject[300:]
    measure, told = loss_measure((losses[:300], subject[:300]), control)
    assert measure.name == NAME
    assert measure.estimate is not None
    assert measure.estimate.low < 0.5 < measure.estimate.high
    assert (told.num_members, told.num_others) == (150, 50)
    learned, _ = loss_measure((losses[:300] * 0.5, subject[:300]), control)
    assert learned.estimate is not None
    assert learned.estimate.low > max(0.7, learned.estimate.baseline_worst)


def test_what_cannot_be_told_is_not() -> None:
    rng = np.random.default_rng(0)
    few = np.exp(rng.normal(size=(10, 2))), np.arange(10)
    measure, _ = loss_measure(few, few)
    assert measure.estimate is None
    assert measure.applicable
    assert not no_losses(has_images=True).applicable
    for wrong in (np.zeros((3, 2)), np.full((3, 2), np.nan), np.ones(3)):
        with pytest.raises(ValueError, match="losses must be"):
            loss_scores(wrong, np.arange(3), few[0])
