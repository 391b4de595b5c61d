"""An autoencoder of small images and volumes, and diffusion on its latents."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch import Trainer

from medtwin.core.errors import MedtwinError
from medtwin.scans import ScanModel
from medtwin.scans.autoencoder import AutoencoderTraining, ScanAutoencoderModule, reconstruction_of
from medtwin.scans.autoencoder_net import AutoencoderNet
from medtwin.scans.codec import LatentCodec
from medtwin.scans.drawing import Sampling
from medtwin.scans.module import Augmentation, ScanDiffusionModule, ScanTraining
from medtwin.training.batches import ResumableBatches, ResumableLoader
from medtwin.training.callbacks import Checkpoints, StepSeeds
from medtwin.training.checkpoints import BEST, LAST
from tests.scans.test_generate import IMAGES, SPEC, description, drawn, requests, same
from tests.scans.test_unet import small, woken
from tests.training.test_resume import KillAt, is_equal, state

pytestmark = pytest.mark.filterwarnings("ignore:.*(does not have many workers|LeafSpec|smaller than)")


def discs(count: int, size: tuple[int, ...] = (16, 16), seed: int = 0) -> torch.Tensor:
    """Bright discs or balls, each at a place and of a size of its own, (count, 1, *size), -1 to 1."""
    g = torch.Generator().manual_seed(seed)
    axes = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in size], indexing="ij"))
    middle = torch.rand(count, len(size), generator=g) * 6 + min(size) / 2 - 3
    radius = 2.5 + 2 * torch.rand(count, generator=g)
    distance = (axes - middle.reshape(count, -1, *(1,) * len(size))).square().sum(dim=1).sqrt()
    return (2 * (radius.reshape(-1, *(1,) * len(size)) - distance + 0.5).clamp(0, 1) - 1)[:, None]


def tiny(**changes) -> AutoencoderNet:
    torch.manual_seed(0)
    settings = {"channels": (16, 16), "attention_levels": (False, False), "latent_channels": 2, "norm_groups": 4}
    return AutoencoderNet(**{**settings, **changes})


class Images(torch.utils.data.Dataset):
    def __init__(self, images: torch.Tensor) -> None:
        self.all = images

    def __len__(self) -> int:
        return len(self.all)

    def __getitems__(self, indices):
        return {"image": self.all[list(indices)]}


class Data(lightning.LightningDataModule):
    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.sets = [Images(discs(40, size)), Images(discs(16, size, seed=1))]

    def train_dataloader(self):
        return ResumableLoader(self.sets[0], ResumableBatches(40, 8, seed=0), collate_fn=lambda batch: batch)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(self.sets[1], batch_size=16, collate_fn=lambda batch: batch)


def fit(folder: Path, *callbacks, size=(16, 16), steps: int = 12, seed: int = 0, net=None, **training) -> Trainer:
    made = AutoencoderTraining(**{"critic_channels": 8, "critic_layers": 1, "adversarial_start": 3, **training})
    net = net or tiny(spatial_dims=len(size))
    optimizer = partial(torch.optim.AdamW, lr=3e-3)
    torch.manual_seed(0)
    module = ScanAutoencoderModule(net, optimizer, size=size, training=made)
    trainer = Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False, default_root_dir=folder,
        callbacks=[StepSeeds(seed), Checkpoints(every_minutes=None, every_steps=1), *callbacks],
    )  # fmt: skip
    last = folder / LAST
    trainer.fit(module, Data(size), ckpt_path=last if last.is_file() else None, weights_only=True)
    return trainer


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> AutoencoderNet:
    trainer = fit(tmp_path_factory.mktemp("ae"), steps=150, adversarial_start=75)
    return trainer.lightning_module.net.eval()


def test_unseen_images_are_given_back_and_not_without_training(learned) -> None:
    mean = discs(40).mean(dim=0)
    found, untrained = (reconstruction_of(net, discs(32, seed=2), mean) for net in (learned, tiny()))
    assert found.explained > 0.7
    assert not found.is_collapsed
    assert untrained.explained < 0
    assert untrained.is_collapsed


def test_latents_that_say_nothing_are_told(learned) -> None:
    mean, images = discs(40).mean(dim=0), discs(32, seed=2)
    dead = copy.deepcopy(learned)
    for parameter in dead.body.quant_conv_mu.parameters():
        torch.nn.init.zeros_(parameter)
    found = reconstruction_of(dead, images, mean)
    assert (found.active, found.is_collapsed) == (0.0, True)


def test_latents_are_of_unit_variance_in_each_channel(learned) -> None:
    codec = LatentCodec(copy.deepcopy(learned), [16, 16])
    before = codec.posterior(discs(40)).sample().transpose(0, 1).flatten(1).std(dim=1)
    assert float((before - 1).abs().max()) > 0.05  # what the network gives is not
    codec.measure(discs(40))
    latents = codec.posterior(discs(200, seed=3)).sample()
    assert latents.shape[1:] == (2, 8, 8)
    by_channel = latents.transpose(0, 1).flatten(1)
    assert by_channel.std(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=0.1)
    assert by_channel.mean(dim=1).tolist() == pytest.approx([0.0, 0.0], abs=0.1)
    given = codec.decode(codec.posterior(discs(4)).mean)
    assert torch.allclose(given, learned.decode(learned.encode(discs(4)).mean, [16, 16]), atol=1e-4)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path) -> None:
    whole = fit(tmp_path / "whole")
    for step in (2, 7):  # in the middle of an epoch of five; before and after the discriminator counts
        with pytest.raises(RuntimeError, match="killed"):
            fit(tmp_path / "struck", KillAt(step))
    again = fit(tmp_path / "struck")
    assert again.global_step == 12  # a step of both is one step
    assert is_equal(state(whole), state(again))
    best = [torch.load(tmp_path / name / BEST, weights_only=True) for name in ("whole", "struck")]
    assert is_equal(*best)
    other = fit(tmp_path / "other", seed=1)
    assert not is_equal(state(whole)["weights"], state(other)["weights"])


def test_the_discriminator_learns_and_is_frozen_for_the_autoencoder(tmp_path) -> None:
    module = ScanAutoencoderModule(
        tiny(), partial(torch.optim.SGD, lr=0.1), size=[16, 16], training=AutoencoderTraining(critic_layers=1)
    )
    module._fooled(discs(2).requires_grad_()).backward()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.critic.parameters())
    early, late, never = (
        fit(tmp_path / f"{weight}-{steps}", steps=steps, adversarial_weight=weight).lightning_module
        for weight, steps in ((1.0, 3), (1.0, 6), (0.0, 3))
    )
    assert is_equal(early.net.state_dict(), never.net.state_dict())  # it does not count yet ...
    assert not is_equal(early.critic.state_dict(), never.critic.state_dict())  # ... and learns already
    unjudged = fit(tmp_path / "unjudged", steps=6, adversarial_weight=0.0).lightning_module
    assert not is_equal(late.net.state_dict(), unjudged.net.state_dict())


def test_volumes_of_any_size(tmp_path) -> None:
    trainer = fit(tmp_path, size=(7, 12, 10), steps=2, adversarial_start=0)
    net = trainer.lightning_module.net
    assert net.encode(discs(2, (7, 12, 10))).mean.shape == (2, 2, 4, 6, 5)
    model = latent_module(net, (7, 12, 10), small(spatial_dims=3, in_channels=2))
    assert model.decoded(model.coded(discs(2, (7, 12, 10)))).shape == (2, 1, 7, 12, 10)


def latent_module(net: AutoencoderNet, size=(16, 16), unet=None, **changes) -> ScanDiffusionModule:
    torch.manual_seed(0)
    made = ScanDiffusionModule(
        woken(unet or small(in_channels=2)), partial(torch.optim.SGD, lr=0.1), size=size,
        condition_widths=list(SPEC.widths), rank=4, autoencoder=copy.deepcopy(net), **changes,
    )  # fmt: skip
    values, known = (torch.from_numpy(array) for array in SPEC.encode(IMAGES * 4))
    made.measure({"image": discs(48, size), "values": values, "known": known})
    return made


def test_latents_are_denoised_by_the_contract_of_images(learned) -> None:
    module = latent_module(learned)
    values, known = (torch.from_numpy(array) for array in SPEC.encode(IMAGES))
    cond, latents = module.average.embed(values, known), module.coded(discs(12))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    x0 = module.average.denoise(latents + 1e-3 * noise, torch.full((12,), 1e-3), cond)
    assert x0.shape == latents.shape
    assert float((x0 - latents).abs().max()) < 0.01  # without noise there is nothing to take away
    assert module.denoiser.prior.sigma_data == pytest.approx(1.0, abs=0.25)
    assert not any(parameter.requires_grad for parameter in module.codec.parameters())


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun"])
def test_images_are_drawn_alone_and_by_a_copy_of_the_weights(learned, sampler) -> None:
    module = latent_module(learned)
    model = ScanModel(module, description(), Sampling(sampler=sampler))
    asked = requests()
    scans, alone = drawn(model, asked), drawn(model, asked[5:6])
    assert scans["s0"].pixels.shape == (16, 16)
    assert all(same(scan, scans[key]) for key, scan in alone.items())
    other = drawn(model, asked[:1], seed=2)
    assert not same(other["s0"], scans["s0"])
    plain, guided = (drawn(model, asked, num_steps=9, guidance=g) for g in (1.0, 3.0))
    assert not same(guided["s1"], plain["s1"])
    restored = latent_module(tiny())
    restored.load_state_dict(module.state_dict())
    again = drawn(ScanModel(restored, description(), Sampling(sampler=sampler)), asked)
    assert all(same(scan, scans[key]) for key, scan in again.items())


MIRROR = ScanTraining(augmentation=Augmentation(mirror=0.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: latent_module(tiny(), unet=small()), "net.in_channels must be 2"),
        (lambda: latent_module(tiny(spatial_dims=3)), "size must have 3 numbers"),
        (lambda: latent_module(tiny(), training=MIRROR), "mirror must be 0"),
        (lambda: AutoencoderNet(channels=(8, 12)), "attention_levels must have"),
        (lambda: tiny(channels=(6, 6)), "multiples of norm_groups"),
        (lambda: AutoencoderTraining(kl_weight=-1.0), "kl_weight must be"),
        (lambda: AutoencoderTraining(critic_layers=3).critic([16, 16]), "size must be 24 or more"),
        (lambda: ScanAutoencoderModule(tiny(), torch.optim.SGD, size=[16, 16, 16]), "size must have 2 numbers"),
    ],
)
def test_refuses_what_does_not_fit(make, message) -> None:
    with pytest.raises((ValueError, MedtwinError), match=message):
        make()
