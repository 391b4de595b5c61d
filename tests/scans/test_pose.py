from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medtwin.scans.conditions import ConditionSpec, ScanRequest
from medtwin.scans.pose import NUM_PARAMETERS, PoseLaw, find_poses, find_template, inverse, warp


def body(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A trunk with two dark lungs and a heart to one side, -1 to 1, at points of -1 to 1."""
    image = torch.tanh(6 * (0.8 - (x**2 + (0.8 * y) ** 2).sqrt()))
    for centre in (-0.38, 0.38):
        image = image - 1.4 * torch.sigmoid(14 * (0.3 - ((x - centre) ** 2 + (0.6 * y) ** 2).sqrt()))
    return image + 0.8 * torch.sigmoid(14 * (0.24 - ((x - 0.12) ** 2 + (y - 0.2) ** 2).sqrt()))


def photographed(poses: torch.Tensor, size: int = 48) -> torch.Tensor:
    """The body as it lies under each pose, computed, not interpolated: (n, 1, size, size)."""
    axis = (torch.arange(size) * 2 + 1) / size - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    a, b, tx, c, d, ty = (part[:, None, None] for part in inverse(poses).T)
    return body(x + a * x + b * y + tx, y + c * x + d * y + ty)[:, None]


@pytest.fixture(scope="module")
def poses() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(60, NUM_PARAMETERS, generator=generator) * torch.tensor([0.05, 0.02, 0.04, 0.02, 0.05, 0.04])


def test_a_known_pose_is_found(poses) -> None:
    template = photographed(torch.zeros(1, NUM_PARAMETERS))
    images = photographed(poses)
    found = find_poses(images, template)
    assert float((found - poses).abs().mean()) < 0.01
    assert float((poses).abs().mean()) > 0.025  # what finding nothing would be wrong by
    gray = 0.2 + 0.6 * images  # another exposure
    assert float((find_poses(gray, template) - poses).abs().mean()) < 0.012


def test_images_lie_on_each_other_on_the_template(poses) -> None:
    images = photographed(poses)
    laid = warp(images, find_poses(images, find_template(images)))
    assert float(laid.var(dim=0).mean()) < 0.15 * float(images.var(dim=0).mean())


def test_images_that_resemble_nothing_stay_as_they_are() -> None:
    template = photographed(torch.zeros(1, NUM_PARAMETERS))
    flat = torch.full((2, 1, 48, 48), 0.3)
    assert torch.equal(find_poses(flat, template), torch.zeros(2, NUM_PARAMETERS))
    noise = torch.rand(4, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    found = find_poses(noise, template)
    assert torch.isfinite(found).all()
    assert float(found.abs().max()) <= 0.3
    assert find_poses(noise[:0], template).shape == (0, NUM_PARAMETERS)


def test_what_is_moved_there_and_back_is_the_same(poses) -> None:
    images = photographed(poses)
    back = warp(warp(images, poses, "bicubic"), inverse(poses), "bicubic")
    inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    assert float((back - images)[inside].abs().mean()) < 0.01
    assert torch.allclose(inverse(inverse(poses)), poses, atol=1e-5)


def test_new_poses_are_distributed_as_those_of_training_under_the_same_conditions() -> None:
    requests = [ScanRequest(str(i), "CR", "CHEST", "AP" if i % 2 else "PA") for i in range(400)]
    spec = ConditionSpec.fit(requests, min_count=1)
    values, known = (torch.from_numpy(array) for array in spec.encode(requests))
    generator = torch.Generator().manual_seed(2)
    is_ap = torch.tensor([i % 2 for i in range(400)])[:, None].float()
    spread = torch.tensor([0.03, 0.01, 0.05, 0.01, 0.03, 0.02])
    poses = torch.randn(400, NUM_PARAMETERS, generator=generator) * spread
    poses[:, 4] += 0.5 * poses[:, 0]  # who is wide is tall
    poses[:, :1] += 0.1 * is_ap  # and larger, seen from the front
    law = PoseLaw.from_json(PoseLaw.fit(poses, values, known, spec.widths).to_json(), spec.widths)
    noise = torch.from_numpy(np.random.default_rng(3).standard_normal((400, NUM_PARAMETERS), dtype=np.float32))
    drawn = law.draw(noise, values, known)
    for ap in (0, 1):
        there, here = poses[is_ap[:, 0] == ap], drawn[is_ap[:, 0] == ap]
        error = 4 * math.sqrt(2 / 200) * spread
        assert ((there.mean(dim=0) - here.mean(dim=0)).abs() < error).all()
        assert ((there.std(dim=0) / here.std(dim=0)).log().abs() < 0.25).all()
        assert torch.corrcoef(here.T)[0, 4] > 0.25
    unknown = law.draw(noise, values, torch.zeros_like(known))
    assert float(unknown[:, 0].mean() - poses[:, 0].mean()) == pytest.approx(0, abs=0.01)
