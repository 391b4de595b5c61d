from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from medtwin.timelines.generation.generate import noise_keys
from medtwin.timelines.generation.noise import CODE, END, HOUR, MINUTE, STOP, TYPE, Noise

ROWS, STEPS, PLACES = 20, 20, 12


def grid() -> np.ndarray:
    """The numbers of neighbouring subjects, steps, places and channels, (rows, steps, places, 7)."""
    noise = Noise(noise_keys(0, range(ROWS)))
    at = np.array(list(product(range(ROWS), range(STEPS), range(PLACES))))
    return noise.uniforms(*at.T, range(7)).reshape(ROWS, STEPS, PLACES, 7)


def test_numbers_are_uniform() -> None:
    numbers = grid()
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 0.01
    for channel in range(7):
        assert stats.kstest(numbers[..., channel].ravel(), "uniform").pvalue > 0.001
    assert stats.kstest(numbers.ravel() ** 1.05, "uniform").pvalue < 1e-4  # the control


@pytest.mark.parametrize("axis", range(4), ids=["subjects", "steps", "places", "channels"])
def test_neighbours_are_independent(axis: int) -> None:
    numbers = np.moveaxis(grid(), axis, 0)
    for lag in (1, 2, 5):
        first, second = numbers[:-lag].ravel(), numbers[lag:].ravel()
        limit = 4 / np.sqrt(len(first))  # four standard errors of no correlation
        assert abs(np.corrcoef(first, second)[0, 1]) < limit
        assert abs(np.corrcoef((first - 0.5) ** 2, (second - 0.5) ** 2)[0, 1]) < limit
    assert len(np.unique(numbers)) == numbers.size


def test_a_number_depends_on_its_own_place_only() -> None:
    keys = noise_keys(3, range(4))
    whole, alone = Noise(keys), Noise(keys[2:3])
    steps, places = np.array([0, 7, 7]), np.array([1, END, 2])
    wide = whole.uniforms(np.full(3, 2), steps, places, range(4))
    assert np.array_equal(alone.uniforms(np.zeros(3, int), steps, places, range(4)), wide)
    assert np.array_equal(
        alone.uniforms(np.zeros(1, int), steps[1:2], places[1:2], [CODE])[0], wide[1, CODE : CODE + 1]
    )
    assert not np.isin(Noise(noise_keys(4, range(4))).uniforms(np.full(3, 2), steps, places, range(4)), wide).any()


def test_inferred_numbers_take_effect_once_settled_and_only_where_they_were() -> None:
    noise = Noise(noise_keys(0, range(3)))
    rows, steps, places = np.array([0, 1, 2]), np.array([4, 4, 5]), np.array([END, 0, 3])
    drawn = noise.uniforms(rows, steps, places, range(7))
    noise.infer(rows[:1], steps[:1], places[:1], MINUTE, np.array([0.25]))
    noise.infer(rows[1:], steps[1:], places[1:], TYPE, np.array([1.0, -0.5]))
    assert np.array_equal(noise.uniforms(rows, steps, places, range(7)), drawn)
    noise.settle()
    now = noise.uniforms(rows, steps, places, range(7))
    wanted = drawn.copy()
    wanted[0, MINUTE], wanted[1, TYPE], wanted[2, TYPE] = 0.25, 1.0 - 2.0**-53, -0.5
    assert np.array_equal(now, wanted)
    noise.infer(rows[:1], steps[:1], places[:1], HOUR, np.array([0.75]))
    noise.settle()  # what was inferred before stays
    wanted[0, HOUR] = 0.75
    assert np.array_equal(noise.uniforms(rows, steps, places, range(7)), wanted)


def test_the_last_step_of_the_longest_record_has_a_place_of_its_own() -> None:
    noise = Noise(noise_keys(0, range(512)))
    at = np.array([[511, 4095, END], [511, 4096, 0], [510, 4095, END], [511, 4095, END - 1]])
    for row, step, place in at:
        noise.infer(
            np.array([row]), np.array([step]), np.array([place]), STOP, np.array([row * step * place % 97 / 97])
        )
    noise.settle()
    wanted = [row * step * place % 97 / 97 for row, step, place in at]
    assert noise.uniforms(*at.T, [STOP])[:, 0].tolist() == wanted
