from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medtwin.scans.conditions import ScanRequest
from medtwin.scans.counterfactual import counterfactuals, invert, share_identified
from medtwin.scans.drawing import Sampling
from medtwin.scans.generate import ScanModel
from medtwin.scans.samplers import NoiseSchedule, dpmpp_2m, heun
from tests.scans.test_generate import description, module
from tests.scans.test_samplers import exact


@pytest.mark.parametrize("sampler", [heun, dpmpp_2m])
def test_an_image_comes_back_from_its_noise(sampler) -> None:
    """With an exact denoiser: tissues of a known law, there and back; not so by half the way back."""
    pixels = torch.tensor([-0.97, -0.93, -0.1, 0.0, 0.05, 0.4, 0.7], dtype=torch.float64)
    sigmas = NoiseSchedule(sigma_max=30.0, sigma_min=0.005).sigmas(80)
    noisy = invert(exact, pixels, sigmas)
    assert float(noisy.abs().max()) > 5
    assert torch.allclose(sampler(exact, noisy, sigmas), pixels, atol=0.01)
    assert not torch.allclose(sampler(exact, 0.5 * noisy, sigmas), pixels, atol=0.1)


@pytest.fixture(scope="module")
def model() -> ScanModel:
    return ScanModel(module(), description())


def own(count: int) -> list[ScanRequest]:
    return [ScanRequest(f"r{i}", "CR", "CHEST", "PA", "F", 45.0, ()) for i in range(count)]


def images(count: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-0.5, 0.3, (count, 16, 16)).astype(np.float32)


def test_nothing_changes_where_nothing_is_asked_for_and_only_asked_images_change(model) -> None:
    given, known = images(3), own(3)
    asked = [known[0], replace(known[1], labels=("A",)), known[2]]
    found = counterfactuals(model, given, known, asked, num_steps=4, tile=3)
    assert found.images.shape == found.reconstructed.shape == given.shape
    assert np.abs(found.images[[0, 2]] - given[[0, 2]]).max() < 1e-5
    assert np.abs(found.images[1] - given[1]).max() > 0.02


def test_refuses_what_cannot_be_inverted(model) -> None:
    given, known = images(2), own(2)
    with pytest.raises(ValueError, match="as many, got 2, 1 and 2"):
        counterfactuals(model, given, known[:1], known)
    with pytest.raises(ValueError, match=r"16, 16\) pixels, got \(16, 15\)"):
        counterfactuals(model, given[:, :, :15], known, known)
    random = ScanModel(model.module, model.description, Sampling(sampler="dpmpp_2m_sde"))
    with pytest.raises(ValueError, match="sampler is one of dpmpp_2m, heun, euler"):
        counterfactuals(random, given, known, known)


def test_a_counterfactual_is_recognised_and_another_patient_is_not() -> None:
    before = images(20)
    assert share_identified(before, before + 0.3) == 1.0
    assert share_identified(before, before[::-1].copy()) == 0.0
    with pytest.raises(ValueError, match="one shape"):
        share_identified(before, before[:3])
