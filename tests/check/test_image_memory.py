from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.check import Findings, Profile, Rule, judge
from medtwin.check.image_features import encode_sides
from medtwin.check.image_memory import (
    FEATURES,
    PATCHES,
    PIXELS,
    TITLES,
    WORST,
    Nearest,
    excess,
    image_memory,
    memory_measures,
    nearest_of,
)
from medtwin.check.image_search import similarities
from tests.check.images_samples import changed, encode, pictures


def test_the_nearest_subject_and_how_much_nearer_it_is_by_hand() -> None:
    distances = np.array([[1.0, 2.0, 4.0, 9.0], [5.0, 5.0, 3.0, 3.0], [0.0, 0.0, 1.0, 2.0]])
    found = nearest_of(distances, np.array([7, 7, 8, 9]))
    assert found.subject.tolist() == [7, 8, 7]
    assert found.distinct.tolist() == [0.75, 0.0, 1.0]  # the second image of 7 is none of a next subject


def test_the_excess_is_of_what_counts_by_hand() -> None:
    of_training = np.array([[True] * 9 + [False]])
    assert excess(of_training, np.ones((1, 10)), 0.8).tolist() == pytest.approx([0.5])
    assert excess(of_training, np.eye(10)[-1:], 0.8).tolist() == pytest.approx([-4])  # only the last one counts
    assert excess(of_training, np.zeros((1, 10)), 0.8).tolist() == [0.0]


def _with(share: float, seed: int) -> dict[str, Nearest]:
    """60 twins whose nearest of 100 training and 40 other subjects is drawn, some of them remembered."""
    rng = np.random.default_rng(seed)
    is_remembered = rng.random(60) < share
    found = {}
    for name in (PIXELS, PATCHES):
        subject = np.where(is_remembered, rng.integers(0, 100, 60), rng.integers(0, 140, 60))
        found[name] = Nearest(subject, np.where(is_remembered, 0.7, 0.1) * rng.random(60))
    return found


def test_chance_stays_below_its_bound_as_often_as_it_says_and_memory_does_not() -> None:
    training, control = np.arange(100), np.arange(100, 140)
    beyond: dict[float, list[bool]] = {0.0: [], 0.3: []}
    for share, found in beyond.items():
        for seed in range(60):
            worst = memory_measures(_with(share, seed), training, control, np.arange(60), seed=seed, num_resamples=20)[
                0
            ]
            assert worst.estimate is not None
            found.append(worst.estimate.value > worst.estimate.baseline_worst)
    assert np.mean(beyond[0.0]) <= 0.15  # of 5 %, 60 times: more once in 700
    assert np.mean(beyond[0.3]) >= 0.8
    remembered = {PIXELS: Nearest(np.arange(60), np.ones(60))}
    worst, pixels = memory_measures(remembered, training, control, np.arange(60), seed=0, num_resamples=50)
    assert worst.name == WORST
    assert worst.estimate is not None
    assert pixels.estimate is not None
    assert worst.estimate.value == pixels.estimate.value == pytest.approx(1)
    assert worst.estimate.value > 2 * worst.estimate.baseline_worst


def test_memory_is_of_training_images_and_not_of_other_real_ones() -> None:
    real, fresh, control = pictures(60, 1), pictures(40, 2), pictures(40, 3)
    blurred = changed(real[:40], lambda pixels: np.roll(pixels[:, ::-1], 2, 1) * 0.8)
    values = {}
    for name, twins in (("fresh", fresh), ("remembered", blurred)):
        sides = encode_sides(encode, real, twins, control)
        found = {one.name: one for one in image_memory(real, twins, control, sides, seed=0, num_resamples=30)}
        assert found.keys() == TITLES.keys()
        values[name] = {key: one.estimate for key, one in found.items() if one.estimate is not None}
        assert values[name].keys() == TITLES.keys()
    fresh_worst = values["fresh"][WORST]
    assert fresh_worst.value < 1.2 * fresh_worst.baseline_worst
    assert values["remembered"][PATCHES].value > 0.9  # however moved, mirrored and lit
    assert values["remembered"][WORST].value > 1.2 * values["remembered"][WORST].baseline_worst
    (_, *rest) = image_memory(real, fresh, control, None, seed=0, num_resamples=20)
    assert {one.name: one.reason for one in rest if one.estimate is None} == {
        FEATURES: "no encoder of images was given"
    }


def test_few_patients_who_are_remembered_fail_and_few_others_do_not_pass(
    shipped: tuple[dict[str, Profile], tuple[Rule, ...]],
) -> None:
    real, control = pictures(5, 1), pictures(40, 2)
    twins = {"remembered": changed((real * 8)[:40], lambda pixels: pixels * 0.9), "fresh": pictures(40, 3)}
    outcomes = {}
    for name, side in twins.items():
        measures = image_memory(real, side, control, None, seed=0, num_resamples=30)
        for profile in shipped[0].values():
            gates = tuple(gate for gate in profile.gates if gate.name == "image-memory")
            (result,) = judge(Findings(5, 40, 40, tuple(measures)), replace(profile, gates=gates))
            outcomes[name, profile.name] = result.outcome
    assert {outcome for (name, _), outcome in outcomes.items() if name == "remembered"} == {"failed"}
    assert {outcome for (name, _), outcome in outcomes.items() if name == "fresh"} == {"unchecked"}


def test_similarities_are_of_every_pair_and_find_what_was_moved() -> None:
    images = np.stack([one.pixels for one in pictures(4, 1)])
    found = similarities(np.roll(images[:2, :, ::-1], 2, axis=2), images)
    assert found.shape == (2, len(images))
    assert found.argmax(axis=1).tolist() == [0, 1]
    assert similarities(images[:0], images).shape == (0, len(images))


def test_without_a_control_nothing_is_said() -> None:
    real = pictures(30, 1)
    (worst, *_) = image_memory(real, real[:5], pictures(5, 2), None, seed=0, num_resamples=20)
    assert worst.estimate is None
    assert "5" in worst.reason
