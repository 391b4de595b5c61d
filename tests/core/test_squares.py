from __future__ import annotations

import numpy as np
import pytest

from medtwin.core.squares import FITS, fit_square


def _disc(pixel: tuple[float, float], extent: tuple[float, float], radius: float) -> np.ndarray:
    """A bright disc in mm, sampled at 8 x 8 points of each pixel."""
    axes = []
    for length, mm in zip(extent, pixel, strict=True):
        number = round(length / mm)
        axes.append((np.arange(8 * number) + 0.5) * mm / 8 - length / 2)
    inside = np.hypot(axes[0][:, None], axes[1][None]) < radius
    rows, columns = (len(axis) // 8 for axis in axes)
    return inside.reshape(rows, 8, columns, 8).mean(axis=(1, 3)).astype(np.float32)


def _widths(values: np.ndarray) -> tuple[float, float]:
    """Standard deviations of the bright mass down and across: of a disc, alike."""
    share = values / values.sum()
    place = np.arange(len(values))
    down, across = share.sum(axis=1), share.sum(axis=0)
    return tuple(float(np.sqrt(one @ place**2 - (one @ place) ** 2)) for one in (down, across))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(250.0, 205.0), (205.0, 250.0), (200.0, 200.0)])
def test_a_squashed_radiograph_is_round_again_whatever_its_shape(fit: str, shape: tuple[float, float]) -> None:
    """NIH's release has every radiograph as 256 x 256: rows and columns of unlike length."""
    pixel = shape[0] / 100, shape[1] / 100
    square, step = fit_square(_disc(pixel, shape, 60.0), pixel, 64, fit)
    down, across = _widths(square)
    assert down / across == pytest.approx(1, abs=2e-3)  # rounding a side to whole pixels makes up to 1e-2
    assert down * step == pytest.approx(30, rel=5e-3)  # of a disc: half its radius
    assert step == pytest.approx((max(shape) if fit == "pad" else min(shape)) / 64)


def test_shrinking_by_a_whole_number_is_the_mean_and_nothing_is_lost() -> None:
    image = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    assert fit_square(image, (1, 1), 8).values == pytest.approx(image.reshape(8, 4, 8, 4).mean(axis=(1, 3)), abs=1e-6)
    assert fit_square(image, (0.5, 0.5), 32).values == pytest.approx(image, abs=1e-6)
    odd = fit_square(image, (1, 1), 7).values
    assert odd.mean() == pytest.approx(image.mean(), abs=1e-6)


def test_padding_is_the_darkest_value_and_cropping_cuts_the_longer_side() -> None:
    image = np.full((4, 8), 3.0, np.float32)
    image[0, 0] = 1.0
    padded, cropped = fit_square(image, (1, 1), 8), fit_square(image, (1, 1), 4, "crop")
    assert np.all(padded.values[[0, 1, 6, 7]] == 1.0)
    assert np.array_equal(padded.values[2:6], image)
    assert np.array_equal(cropped.values, image[:, 2:6])
    assert (padded.step, cropped.step) == (1.0, 1.0)


def test_enlarging_interpolates_between_and_stays_within() -> None:
    ramp = np.tile(np.arange(4, dtype=np.float32), (4, 1))
    large = fit_square(ramp, (2.0, 2.0), 8)
    assert large.values[0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]
    assert large.step == 1.0
    one = fit_square(np.ones((1, 1), np.float32), (1, 1), 3)
    assert np.array_equal(one.values, np.ones((3, 3)))


@pytest.mark.parametrize(
    ("image", "pixel", "size", "fit", "says"),
    [
        (np.zeros((0, 3)), (1, 1), 4, "pad", "image must be"),
        (np.zeros((2, 2, 2)), (1, 1), 4, "pad", "image must be"),
        (np.zeros((2, 2)), (0, 1), 4, "pad", "pixel must be"),
        (np.zeros((2, 2)), (1, float("nan")), 4, "pad", "pixel must be"),
        (np.zeros((2, 2)), (1, 1), 0, "pad", "size must be"),
        (np.zeros((2, 2)), (1, 1), 4, "stretch", "fit pad or crop"),
    ],
)
def test_refuses_what_is_no_image(
    image: np.ndarray, pixel: tuple[float, float], size: int, fit: str, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        fit_square(image.astype(np.float32), pixel, size, fit)
