from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from medtwin.scans.intensity import IntensityMap


def ramp(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 10_000, dtype=np.float32).reshape(100, 100)


def test_hounsfield_units_come_back_exactly() -> None:
    image = np.arange(-1024, 3072, dtype=np.float32).reshape(64, 64)
    intensity = IntensityMap.fit([(image, "CT", 12)])
    x = intensity.to_model(image, "CT", 12)
    assert (x.min(), x.max()) == (-1.0, 1.0)
    back = intensity.to_stored(x, "CT")
    assert back.dtype == np.int16
    assert np.array_equal(back, image)


@pytest.mark.parametrize("softening", [20.0, 150.0, 5000.0])
def test_softened_hounsfield_units_come_back_exactly_and_in_their_order(softening: float) -> None:
    image = np.arange(-1024, 3072, dtype=np.float32).reshape(64, 64)
    intensity = IntensityMap.fit([(image, "CT", 12)], hu_softening=softening)
    x = intensity.to_model(image, "CT", 12)
    assert (x.min(), x.max()) == pytest.approx((-1.0, 1.0))
    assert (np.diff(x.ravel()) > 0).all()
    assert np.array_equal(intensity.to_stored(x, "CT"), image)
    assert np.array_equal(intensity.to_stored(np.array([[-7.0, 7.0]], np.float32), "CT"), [[-1024, 3071]])
    again = IntensityMap.from_json(json.loads(json.dumps(intensity.to_json())))
    assert again == intensity


def test_softening_shows_soft_tissue_larger_than_a_linear_map_does() -> None:
    image = np.array([[-1024, -100, 47, 180, 3071]], np.float32)
    linear, soft = (IntensityMap.fit([(image, "CT", 16)], hu_softening=each) for each in (None, 150.0))
    steps = [np.diff(each.to_model(image, "CT", 16))[0] for each in (linear, soft)]
    by_hand = (np.arcsinh(140 / 150) - np.arcsinh(0)) / (np.arcsinh(3031 / 150) + np.arcsinh(1064 / 150)) * 2
    assert np.ptp(soft.to_model(np.array([[40.0, 180.0]], np.float32), "CT", 16)) == pytest.approx(by_hand, rel=1e-5)
    assert (steps[1][1:3] > 3 * steps[0][1:3]).all()


def test_softening_is_of_hounsfield_units_only() -> None:
    plain, soft = (IntensityMap.fit([(ramp(0, 4095), "CR", 12)], hu_softening=each) for each in (None, 150.0))
    assert plain == soft


@pytest.mark.parametrize("softening", [0.0, -1.0, float("nan"), float("inf"), "abc"])
def test_a_softening_that_is_none_is_refused(softening: Any) -> None:
    with pytest.raises(ValueError, match="hu_softening must be null or Hounsfield units above 0"):
        IntensityMap.fit([], hu_softening=softening)


def test_runs_of_before_softening_are_read() -> None:
    intensity = IntensityMap.from_json({"windows": {"CT/12": [-1024.0, 3071.0, 12]}, "written": {"CT": "CT/12"}})
    assert intensity.windows["CT/12"].softening is None


def test_radiographs_of_two_depths_share_a_scale_and_are_written_as_the_most() -> None:
    intensity = IntensityMap.fit([(ramp(0, 4095), "CR", 12)] * 2 + [(ramp(0, 255), "CR", 8)])
    dark = intensity.to_model(np.full((2, 2), 255.0, np.float32), "CR", 8)
    assert dark.max() == 1.0
    values = ramp(100, 4000)
    back = intensity.to_stored(intensity.to_model(values, "CR", 12), "CR")
    assert back.dtype == np.uint16
    assert np.abs(back - values).max() < 1


def test_a_radiograph_gains_no_depth_that_it_was_not_learned_from() -> None:
    intensity = IntensityMap.fit([(ramp(0, 255), "DX", 8)])
    values = np.array([[51.0, 204.0]], np.float32)
    back = intensity.to_stored(intensity.to_model(values, "DX", 8), "DX")
    assert intensity.bits_written("DX") == 8
    assert np.abs(back - values).max() < 1
    deep = IntensityMap.fit([(ramp(0, 65535), "DX", 16)])
    back = deep.to_stored(deep.to_model(values * 257, "DX", 16), "DX")
    assert deep.bits_written("DX") == 12
    assert np.abs(back - values * 4095 / 255).max() < 1


def test_a_thousandth_at_each_end_is_clipped_and_no_more() -> None:
    intensity = IntensityMap.fit([(ramp(0, 1000), "MR", 16)])
    window = intensity.window("MR", 16)
    assert (window.low, window.high) == pytest.approx((1, 999), abs=1)
    assert intensity.to_model(np.array([[5000.0]], np.float32), "MR", 16)[0, 0] == 1.0


def test_an_unseen_depth_takes_the_windows_share() -> None:
    intensity = IntensityMap.fit([(ramp(0, 4095), "CR", 12)])
    assert intensity.window("CR", 8).high == pytest.approx(intensity.window("CR", 12).high * 255 / 4095)
    with pytest.raises(KeyError):
        intensity.window("MR", 12)


def test_json_round_trip() -> None:
    intensity = IntensityMap.fit([(ramp(0, 4095), "CR", 12), (ramp(0, 99), "MR", 16)])
    assert IntensityMap.from_json(json.loads(json.dumps(intensity.to_json()))) == intensity


def test_refuses_a_constant() -> None:
    with pytest.raises(ValueError, match="constant"):
        IntensityMap.fit([(np.ones((4, 4), np.float32), "CR", 12)])
