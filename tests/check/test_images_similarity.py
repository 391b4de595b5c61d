from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.similarity import SCALE_WEIGHTS, ms_ssim, num_scales


def test_flat_images_differ_in_luminance_alone() -> None:
    """Of two constant images a and b the contrast is 1 at every scale, the luminance (2ab + c) / (a^2 + b^2 + c)."""
    images = np.stack([np.full((64, 64), level, np.float32) for level in (0.2, 0.8)])
    luminance = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    exponent = 0.3001 / (0.0448 + 0.2856 + 0.3001)  # the coarsest of three scales
    found = ms_ssim(images, np.array([0, 0]), np.array([1, 0]))
    assert found == pytest.approx([luminance**exponent, 1.0], abs=1e-4)
    assert luminance == pytest.approx(0.47066, abs=1e-5)


def test_an_image_and_its_negative_have_nothing_in_common() -> None:
    wave = 0.5 + 0.4 * np.sin(np.arange(64) / 3)[None].repeat(64, axis=0)
    images = np.stack([wave, 1 - wave]).astype(np.float32)
    assert ms_ssim(images, np.array([0]), np.array([1]))[0] == 0


def test_images_smaller_than_the_filter_are_refused() -> None:
    assert num_scales(10) == 0
    with pytest.raises(ValueError, match="at least 11"):
        ms_ssim(np.zeros((2, 10, 10), np.float32), np.array([0]), np.array([1]))


@pytest.mark.parametrize("size", [32, 64, 104])
def test_agrees_with_torchmetrics(size: int) -> None:
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as peer

    rng = np.random.default_rng(size)
    y, x = np.indices((size, size)) / size
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0, 9, (6, 3))]
    images = np.clip(0.5 + 0.3 * np.array(waves) + 0.05 * rng.normal(size=(6, size, size)), 0, 1).astype(np.float32)
    first, second = np.triu_indices(6, 1)
    scales = num_scales(size)
    weights = np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    theirs = peer(
        torch.from_numpy(images[first])[:, None],
        torch.from_numpy(images[second])[:, None],
        data_range=1.0,
        betas=tuple(weights),
        normalize="relu",
        reduction="none",
    )
    assert ms_ssim(images, first, second) == pytest.approx(theirs.numpy(), abs=2e-4)
