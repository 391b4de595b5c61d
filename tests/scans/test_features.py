from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medtwin.core.errors import ConfigError
from medtwin.scans.features import (
    contrastive_encoder,
    contrastive_loss,
    load_encoder,
    random_encoder,
    random_view,
)
from medtwin.training.threads import torch_threads
from tests.scans import samples


@pytest.fixture(scope="module")
def discs() -> np.ndarray:
    rng = np.random.default_rng(0)
    drawn = [samples.disc(r, center=tuple(rng.normal(0, 2, 2))) / 4095 for r in rng.uniform(4, 12, 48)]
    return np.stack(drawn).astype(np.float32)


def test_random_features_depend_on_the_seed_alone(discs: np.ndarray) -> None:
    encode = random_encoder(3)
    found = encode(discs)
    assert found.shape == (48, 384)
    assert found.dtype == np.float64
    with torch_threads(1):
        assert random_encoder(3)(discs) == pytest.approx(found, abs=1e-4)
    assert encode(discs[:5]) == pytest.approx(found[:5], abs=1e-4)  # an image's features depend on no other image
    assert random_encoder(3).sha256 == encode.sha256
    assert random_encoder(4).sha256 != encode.sha256
    assert np.abs(random_encoder(4)(discs) - found).max() > 0.1


def test_random_features_of_a_flat_image_are_those_of_nothing() -> None:
    found = random_encoder()(np.full((1, 32, 32), 0.7, np.float32))
    assert found == pytest.approx(np.full((1, 384), math.log(1e-2)), abs=1e-3)


def test_random_features_see_blur_and_noise_and_place(discs: np.ndarray) -> None:
    encode = random_encoder()
    plain = encode(discs)
    scale = plain.std(axis=0) + 1e-2
    rng = np.random.default_rng(0)
    for broken in (
        np.stack([gaussian_filter(image, 1) for image in discs]),
        discs + 0.02 * rng.normal(size=discs.shape).astype(np.float32),
        np.roll(discs, 6, axis=1),
    ):
        assert np.abs((encode(broken).mean(axis=0) - plain.mean(axis=0)) / scale).max() > 1


def test_images_that_are_none_are_refused() -> None:
    for images in (np.zeros((0, 32, 32)), np.zeros((1, 8, 8)), np.zeros((32, 32))):
        with pytest.raises(ValueError, match="images must be"):
            random_encoder()(images.astype(np.float32))


def test_contrastive_loss_by_hand() -> None:
    """Two images, their views alike and the images at right angles: -log(e^5 / (e^5 + 2 e^0)) at temperature 0.2."""
    embedded = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    assert float(contrastive_loss(embedded)) == pytest.approx(-math.log(math.exp(5) / (math.exp(5) + 2)), rel=1e-5)
    swapped = embedded[[0, 1, 3, 2]]
    assert float(contrastive_loss(swapped)) == pytest.approx(-math.log(1 / (math.exp(5) + 2)), rel=1e-5)


def test_views_differ_and_stay_in_place(discs: np.ndarray) -> None:
    images = torch.from_numpy(discs)[:, None]
    draws = torch.Generator().manual_seed(0)
    first, second = random_view(images, draws), random_view(images, draws)
    assert first.shape == images.shape
    assert float((first - second).abs().max()) > 0.2
    assert float((first - images).abs().mean()) < 0.15


def test_contrastive_training_tells_images_apart_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    clouds = np.stack([gaussian_filter(rng.normal(size=(16, 16)), 2) for _ in range(48)]).astype(np.float32)
    images = (0.5 + clouds).clip(0, 1)
    with torch_threads(1):
        before = torch.get_rng_state()
        trained = contrastive_encoder(images, seed=1, num_steps=40)
        assert torch.equal(torch.get_rng_state(), before)
        again = contrastive_encoder(images, seed=1, num_steps=40)
        untrained = contrastive_encoder(images, seed=1, num_steps=1)
    assert trained.sha256 == again.sha256 != untrained.sha256
    assert not trained.net.training
    views = [
        random_view(torch.from_numpy(images)[:, None], torch.Generator().manual_seed(seed)).numpy()[:, 0]
        for seed in (1, 2)
    ]
    hits = [_found_again(encode(views[0]), encode(views[1])) for encode in (untrained, trained)]
    assert hits[1] > max(hits[0], 0.3)


def _found_again(first: np.ndarray, second: np.ndarray) -> float:
    """Share of images whose other view is the nearest."""
    a, b = ((one - one.mean(axis=0)) / (one.std(axis=0) + 1e-9) for one in (first, second))
    distance = ((a[:, None] - b[None]) ** 2).sum(axis=2)
    return float(np.mean(distance.argmin(axis=1) == np.arange(len(a))))


def test_too_few_images_to_train_on_are_refused(discs: np.ndarray) -> None:
    with pytest.raises(ValueError, match="contrastive training needs 32"):
        contrastive_encoder(discs[:31])


def test_an_encoder_of_your_own_is_torchscript(tmp_path: Path, discs: np.ndarray) -> None:
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    path = tmp_path / "own.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(net, torch.zeros(1, 1, 64, 64)).save(str(path))
    encode = load_encoder(path)
    assert encode.name == "own.pt"
    assert len(encode.sha256) == 64
    assert encode(discs)[0] == pytest.approx(discs[0].reshape(2, 16, 2, 16).mean(axis=(1, 3)).ravel(), abs=1e-5)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    for wrong in (tmp_path / "weights.pt", tmp_path / "missing.pt"):
        with pytest.raises(ConfigError, match="TorchScript"):
            load_encoder(wrong)
