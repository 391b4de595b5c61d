from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medtwin.core.errors import ConfigError
from medtwin.pipelines.check_images import make_encoder
from medtwin.scans.encoder import (
    EncoderDataModule,
    EncoderNet,
    ScanEncoderModule,
    content_terms,
    random_view,
    worn,
)
from medtwin.training.threads import torch_threads
from tests.scans.samples import Spec, write_dataset


@pytest.fixture(scope="module")
def clouds() -> torch.Tensor:
    rng = np.random.default_rng(0)
    fields = np.stack([gaussian_filter(rng.normal(size=(16, 16)), 1.5) for _ in range(64)])
    return torch.from_numpy((0.5 + fields).clip(0, 1).astype(np.float32))[:, None]


def _trained(images: torch.Tensor, num_steps: int, **settings) -> ScanEncoderModule:
    with torch.random.fork_rng(), torch_threads(1):
        torch.manual_seed(0)
        net = EncoderNet(widths=(8, 16, 32), embedding=32)
        module = ScanEncoderModule(net, lambda p: torch.optim.AdamW(p, lr=3e-3), size=(16, 16), **settings)
        optimizer, draws = module.configure_optimizers(), torch.Generator().manual_seed(1)
        for _ in range(num_steps):
            terms, wear = module.losses(images, draws)
            optimizer.zero_grad()
            (terms.total + module.wear_weight * wear).backward()
            optimizer.step()
    return module.eval()


def test_content_terms_by_hand() -> None:
    first, second = torch.tensor([[2.0, 0.0], [-2.0, 0.0]]), torch.tensor([[2.0, 1.0], [-2.0, 1.0]])
    terms = content_terms(first, second)
    assert float(terms.invariance) == 0.5  # two of four numbers differ by 1
    assert float(terms.variance) == pytest.approx(2 * (1 - 1e-2) / 2)  # the second number is constant on both sides
    assert float(terms.covariance) == 0
    repeated = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert float(content_terms(repeated, repeated).covariance) == pytest.approx(2 * 2 * 4 / 2)


def test_views_move_and_light_but_do_not_mirror_and_wear_is_what_it_says(clouds: torch.Tensor) -> None:
    draws = torch.Generator().manual_seed(0)
    half = torch.zeros(200, 1, 16, 16)
    half[..., :8] = 1
    seen = random_view(half, draws)
    assert float((seen[..., :2].mean(dim=(1, 2, 3)) > seen[..., -2:].mean(dim=(1, 2, 3))).float().mean()) > 0.98
    changed, amounts = worn(clouds, draws)
    kept = amounts.sum(dim=1) == 0
    assert torch.allclose(changed[kept], clouds[kept], atol=1e-5)
    assert 0.2 < float((amounts == 0).float().mean()) < 0.45
    dark = worn(torch.ones(300, 1, 16, 16), draws)
    assert torch.allclose(dark[0].mean(dim=(1, 2, 3)), 1 - 0.4 * dark[1][:, 2], atol=0.02)


def test_learns_content_and_wear_without_collapse(clouds: torch.Tensor) -> None:
    """Features of unseen clouds tell other views of the same one, and how blurred it is; untrained ones less."""
    unseen, draws = clouds[48:], torch.Generator().manual_seed(5)
    views = [random_view(unseen, draws) for _ in range(2)]
    wear, amounts = worn(unseen.repeat(4, 1, 1, 1), draws)
    found, told = [], []
    for module in (_trained(clouds[:48], 0), _trained(clouds[:48], 60)):
        with torch.inference_mode():
            one, two = (module.net.expander(module(view)) for view in views)
            one, two = ((side - side.mean(0)) / side.std(0).clamp(min=1e-3) for side in (one, two))
            found.append(float((torch.cdist(one, two).argmin(1) == torch.arange(len(unseen))).float().mean()))
            guess = module.net.wear(module(wear))
            told.append(np.mean([np.corrcoef(guess[:, i], amounts[:, i])[0, 1] for i in range(3)]))
            spread = float(module.net.expander(module(unseen)).std(0).mean())
    assert found[1] > max(found[0], 0.4)
    assert told[1] > max(told[0] + 0.2, 0.45)
    assert spread > 0.3


def test_any_size_of_image_is_seen_at_the_size_that_was_learned(clouds: torch.Tensor) -> None:
    module = _trained(clouds[:8], 0)
    with torch.inference_mode():
        large = module(clouds.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
        assert large.shape == (64, 56)
        assert float((large - module(clouds)).abs().mean()) < 0.2 * float(module(clouds).std(dim=0).mean())


def test_data_are_shares_of_the_stored_range(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "d", [Spec()] * 9, [np.full((16, 16), 1000 + i, np.uint16) for i in range(9)])
    data = EncoderDataModule(batch_size=9, size=16, min_count=2)
    data.attach(dataset, seed=0, cache=tmp_path / "cache")
    (batch,) = data.train_dataloader()
    stored = (batch["image"][:, 0, 0, 0] + 1) / 2 * 4095
    assert sorted(stored.round().int().tolist()) == list(range(1000, 1009))


def test_data_that_check_would_not_see_so_are_refused() -> None:
    with pytest.raises(ValueError, match="hu_softening must be null for an encoder"):
        EncoderDataModule(batch_size=9, size=16, hu_softening=150.0)


def test_only_a_run_of_an_encoder_is_an_encoder(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "d", [Spec()] * 9)
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="not the run directory"):
        make_encoder(str(tmp_path / "other"), dataset, seed=0)
    with pytest.raises(ValueError, match="widths must be"):
        EncoderNet(widths=(3,))
