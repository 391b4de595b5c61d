from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from medtwin.check.image_copies import image_copies
from medtwin.check.image_search import find_matches, local_contrast
from medtwin.check.pictures import Picture
from tests.check import samples

SIZE = 64


def scene(rng: np.random.Generator) -> np.ndarray:
    """What all images share, an ellipse, and what is one's own: soft clouds in it."""
    y, x = (np.indices((SIZE, SIZE)) - (SIZE - 1) / 2) / (SIZE / 2)
    clouds = gaussian_filter(rng.normal(size=(SIZE, SIZE)), 3)
    return np.asarray(0.3 + 0.3 / (1 + np.exp(12 * (np.hypot(x / 0.7, y / 0.8) - 1))) + clouds, np.float32)


def scenes(number: int, seed: int) -> list[Picture]:
    rng = np.random.default_rng(seed)
    return [samples.picture(1000 * seed + i, scene(rng).clip(0, 1)) for i in range(number)]


@pytest.fixture(scope="module")
def real() -> list[Picture]:
    return scenes(60, 1)


def _zoomed(image: np.ndarray) -> np.ndarray:
    return zoom(image, 72 / 64, order=1)[4:68, 4:68]


@pytest.mark.parametrize(
    "how",
    [
        lambda image: image,
        lambda image: image[:, ::-1],
        lambda image: 0.7 * image,
        lambda image: image**1.4,
        lambda image: gaussian_filter(image, 1),
        lambda image: np.roll(image, (3, -2), (0, 1)),
        lambda image: np.roll(image[:, ::-1], 2, 1),
        _zoomed,
        lambda image: zoom(image[2:54, 10:62], 64 / 52, order=1),
        lambda image: image + 0.01 * np.random.default_rng(int(1e5 * image.sum())).normal(size=image.shape),
    ],
    ids=[
        "as it is",
        "mirrored",
        "darker",
        "other gamma",
        "blurred",
        "moved",
        "mirrored and moved",
        "zoomed",
        "cropped",
        "noise",
    ],
)
def test_copies_are_found_however_lit_moved_or_mirrored(
    real: list[Picture], how: Callable[[np.ndarray], np.ndarray]
) -> None:
    stolen = [samples.picture(90_000 + i, how(one.pixels)) for i, one in enumerate(real[:10])]
    row = image_copies(real, [*scenes(30, 2), *stolen], [], 0)[0]
    assert (row.name, row.num_copies, row.num_checked) == ("copies.images_near", 10, 40)


def test_other_images_are_no_copies(real: list[Picture]) -> None:
    for seed in range(3, 5):
        row = image_copies(real, scenes(40, seed), scenes(20, 9), seed)[0]
        assert (row.num_copies, row.baseline) == (0, 0)


def test_a_copy_of_another_view_is_found(real: list[Picture]) -> None:
    twins = [replace(one, subject_id=5000 + number, group="CR LL") for number, one in enumerate(real[:5])]
    assert image_copies(real, twins, [], 0)[0].num_copies == 5


def test_repetitions_are_counted(real: list[Picture]) -> None:
    twins = scenes(10, 2)
    row = image_copies(real, [*twins, twins[0], twins[0], twins[3]], [], 0)[1]
    assert (row.name, row.num_copies, row.num_checked, row.baseline) == ("duplicates.images", 5, 13, 0)


def test_nearness_of_the_same_image_is_nothing_and_of_another_subject_s_little_more() -> None:
    rng = np.random.default_rng(0)
    images = np.stack([scene(rng)[::2, ::2] for _ in range(4)])
    found = find_matches(images[:2], images, np.array([1, 2, 3, 4])).nearness
    assert found == pytest.approx([0, 0], abs=2e-3)
    twice = np.concatenate([images, images[:1]])
    # the same image of two subjects stands out from neither: nearness is the root of distance times 1
    assert find_matches(images[:1], twice, np.array([1, 2, 3, 4, 5])).nearness[0] < 2e-3
    one_subject = find_matches(images[:1], images[1:], np.array([2, 2, 2])).nearness
    assert 0.3 < one_subject[0] <= 1.5


def test_local_contrast_is_the_same_in_any_light() -> None:
    image = scene(np.random.default_rng(0))[None]
    plain, dark = local_contrast(image), local_contrast(0.1 + 0.8 * image)
    assert np.corrcoef(plain.ravel(), dark.ravel())[0, 1] > 0.999
    assert np.abs(local_contrast(np.full((1, 32, 32), 0.4, np.float32))).max() < 1e-4


def test_flat_images_and_single_subjects_are_no_trouble(real: list[Picture]) -> None:
    flat = [samples.picture(i, np.full((SIZE, SIZE), 0.5)) for i in range(5)]
    assert image_copies(real, flat, [], 0)[0].num_copies == 0
    assert image_copies(flat, real[:5], [], 0)[0].num_copies == 0
    assert image_copies(real[:1], real[:1], [], 0)[2].num_copies == 1  # to the pixel
    assert image_copies([], real[:3], [], 0)[0].num_copies == 0
