from __future__ import annotations

import numpy as np
import pytest
import torch

from medtwin.scans import ScanModel
from medtwin.scans.baselines import ScanBaselineModule, ScanGan, ScanMixture
from medtwin.scans.baselines.gan import GanTraining
from medtwin.scans.drawing import ImageLaw, Tile
from tests.scans.test_generate import SPEC, description, drawn, requests, same


class Data:
    """Images of two kinds, 60 each, that lie along one pattern; a finding makes the upper half brighter."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(2)
        kind = torch.where(torch.rand(120, 1, 1, 1, generator=g) < 0.5, 0.4, -0.4)
        self.has = torch.arange(120) % 2 == 0
        image = kind * torch.ones(16, 16).triu() + 0.05 * torch.randn(120, 1, 16, 16, generator=g)
        image[self.has, :, :8] += 0.3
        values, known = torch.zeros(120, sum(SPEC.widths)), torch.ones(120, len(SPEC.widths))
        start = sum(SPEC.widths[:4])
        values[:, start] = self.has.float()
        self.batch = {"image": image - 0.1, "values": values, "known": known}

    def images_to_measure(self):
        return self.batch


GAN = GanTraining(num_steps=3, batch_size=8)


def made(net) -> ScanBaselineModule:
    return ScanBaselineModule(net, size=[16, 16], condition_widths=list(SPEC.widths))


def nets():
    return [ScanMixture(rank=6, most=3), ScanGan(latent=4, width=4, training=GAN)]


@pytest.mark.parametrize("number", [0, 1], ids=["mixture", "gan"])
def test_draws_behind_the_same_door_and_is_loaded_again(number: int) -> None:
    law = made(nets()[number])
    assert isinstance(law, ImageLaw)
    law.count(Data(), seed=1)
    model = ScanModel(law, description())
    asked = requests(5)
    scans = drawn(model, asked)
    again = drawn(model, asked[::-1])
    assert all(same(scan, again[key]) for key, scan in scans.items())
    assert not same(scans["s0"], drawn(model, asked, seed=2)["s0"])
    other = made(nets()[number])
    other.load_state_dict(law.state_dict())
    loaded = drawn(ScanModel(other, description()), asked)
    assert all(same(scan, loaded[key]) for key, scan in scans.items())


def test_the_mixture_finds_two_kinds_and_what_a_finding_does() -> None:
    law, data = made(ScanMixture(rank=6, most=3)), Data()
    law.count(data, seed=0)
    assert int((law.net.weights > 0).sum()) == 2
    g = torch.Generator().manual_seed(9)
    values, known = (data.batch[name][:1].expand(400, -1) for name in ("values", "known"))
    tile = Tile(values, known, lambda purpose, shape: torch.randn(400, *shape, generator=g))
    images = law.draw(tile)
    level = images[:, 0].flatten(1) @ torch.ones(16, 16).triu().flatten() / 136
    low, high = level[level < level.median()], level[level >= level.median()]
    assert float(high.mean() - low.mean()) == pytest.approx(0.8, abs=0.08)
    assert float((level - level.mean()).abs().min()) > 0.1  # none in between: it is no single Gaussian
    without = Tile(torch.zeros_like(values), known, tile.noise)
    change = images.mean(dim=0) - law.draw(without).mean(dim=0)
    assert float(change[0, :8].mean() - change[0, 8:].mean()) == pytest.approx(0.3, abs=0.1)


@pytest.mark.slow
def test_the_gan_learns_two_kinds() -> None:
    law, data = made(ScanGan(latent=8, width=8, training=GanTraining(num_steps=400, batch_size=32))), Data()
    law.count(data, seed=0)
    scans = drawn(ScanModel(law, description()), requests(60))
    spread = np.stack([scan.pixels.astype(float) for scan in scans.values()]).std(axis=0).mean()
    assert spread > 100


@pytest.mark.parametrize("bad", [{"num_steps": 0}, {"learning_rate": 0.0}, {"condition_dropout": 1.0}])
def test_refuses_numbers_out_of_range(bad) -> None:
    with pytest.raises(ValueError, match=r"must|positive"):
        GanTraining(**bad)
