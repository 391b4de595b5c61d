from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.check import Findings, Profile, Rule, judge
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


@pytest.mark.parametrize("profile", ["research", "partner", "public"])
def test_the_gate_fails_where_losses_of_training_images_are_halved_and_not_where_they_are_alike(
    shipped: tuple[dict[str, Profile], tuple[Rule, ...]], profile: str
) -> None:
    chosen = shipped[0][profile]
    gates = tuple(gate for gate in chosen.gates if gate.name == "image-losses")
    assert gates[0].control == ("losses of training images halved",)
    rng = np.random.default_rng(1)
    losses = [np.exp(0.3 * rng.normal(size=(300, 4))) for _ in range(2)]
    outcomes = []
    for factor in (0.5, 1.0):
        measure, _ = loss_measure((factor * losses[0], np.arange(300)), (losses[1], np.arange(300)))
        (result,) = judge(Findings(300, 300, 300, (measure,)), replace(chosen, gates=gates))
        outcomes.append(result.outcome)
    assert outcomes == ["failed", "passed"]


def test_what_cannot_be_told_is_not() -> None:
    rng = np.random.default_rng(0)
    few = np.exp(rng.normal(size=(10, 2))), np.arange(10)
    measure, _ = loss_measure(few, few)
    assert measure.estimate is None
    assert measure.applicable
    assert not no_losses().applicable
    for wrong in (np.zeros((3, 2)), np.full((3, 2), np.nan), np.ones(3)):
        with pytest.raises(ValueError, match="losses must be"):
            loss_scores(wrong, np.arange(3), few[0])
