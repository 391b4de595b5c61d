from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.image_memory import (
    TITLES,
    WORST,
    Nearest,
    excess,
    image_memory,
    memory_measures,
    nearest_in,
)
from tests.check.images_samples import changed, pictures


def test_the_nearest_and_the_excess_by_hand() -> None:
    real = np.array([[0.0, 0.0], [3.0, 4.0], [10.0, 0.0]])
    found = nearest_in(np.array([[1.0, 0.0], [9.0, 1.0], [3.0, 3.0]]), real, np.array([7, 8, 9]))
    assert found.subject.tolist() == [7, 9, 8]
    assert excess(np.array([True] * 9 + [False]), 0.8) == pytest.approx(0.5)
    assert excess(np.array([True, False]), 0.75) == pytest.approx(-1)


def test_chance_stays_below_its_bound_as_often_as_it_says_and_memory_does_not() -> None:
    """Twins whose nearest subjects are drawn at random, 60 times; then all of training."""
    rng = np.random.default_rng(0)
    training, control = np.arange(100), np.arange(100, 140)
    beyond = []
    for seed in range(60):
        spaces = {name: Nearest(rng.integers(0, 140, 60)) for name in ("images.memory_pixels", "images.memory_patches")}
        worst = memory_measures(spaces, training, control, np.arange(60), seed=seed, num_resamples=20)[0]
        assert worst.estimate is not None
        beyond.append(worst.estimate.value > worst.estimate.baseline_worst)
    assert np.mean(beyond) <= 0.15  # of 5 %, 60 times: more once in 700
    remembered = {"images.memory_pixels": Nearest(rng.integers(0, 100, 60))}
    (worst, pixels) = memory_measures(remembered, training, control, np.arange(60), seed=0, num_resamples=50)
    assert worst.name == WORST
    assert worst.estimate is not None
    assert pixels.estimate is not None
    assert worst.estimate.value == pixels.estimate.value == pytest.approx(1)
    assert worst.estimate.value > 3 * worst.estimate.baseline_worst


def test_memory_is_of_training_images_and_not_of_other_real_ones() -> None:
    real, fresh, control = pictures(60, 1), pictures(40, 2), pictures(40, 3)
    blurred = changed(real[:40], lambda pixels: np.roll(pixels[:, ::-1], 2, 1) * 0.8)
    values = {}
    for name, twins in (("fresh", fresh), ("remembered", blurred)):
        found = {one.name: one for one in image_memory(real, twins, control, None, seed=0, num_resamples=30)}
        assert found.keys() == TITLES.keys()
        assert found["images.memory_features"].estimate is None
        values[name] = {key: one.estimate for key, one in found.items() if one.estimate is not None}
    fresh_worst = values["fresh"][WORST]
    assert fresh_worst.value < 1.5 * fresh_worst.baseline_worst
    assert values["remembered"]["images.memory_patches"].value > 0.9  # however moved, mirrored and lit
    assert values["remembered"][WORST].value > 1.5 * values["remembered"][WORST].baseline_worst


def test_without_a_control_nothing_is_said() -> None:
    real = pictures(30, 1)
    (worst, *_) = image_memory(real, real[:5], pictures(5, 2), None, seed=0, num_resamples=20)
    assert worst.estimate is None
    assert "5" in worst.reason
