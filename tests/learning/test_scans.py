"""The whole of scans on a law with known truth: discs, whose radius is 10 pixels with a finding and 6 without.

What is measured moves the radius; that an image is a disc with an edge, and no Gaussian cloud, the network must learn.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from medtwin.core.files import read_json
from medtwin.scans import ScanModel, ScanRequest
from medtwin.scans.data import DESCRIPTION, ScanDataModule
from medtwin.scans.generate import ScanDescription
from medtwin.scans.module import LearningRate, NoiseDistribution, ScanDiffusionModule, ScanTraining
from medtwin.training.averaging import Averaging
from medtwin.training.threads import torch_threads
from tests.scans.samples import BIG, Spec, disc, radius_of, write_dataset
from tests.scans.test_unet import small, small_monai

pytestmark = pytest.mark.filterwarnings("ignore:.*(does not have many workers|LeafSpec|smaller than)")
STEPS = 600


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """So small a network is no faster on two, and far slower where another process has one of them."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> ScanDataModule:
    folder = tmp_path_factory.mktemp("discs")
    specs = [
        Spec(labels=(BIG,) if i % 2 else (), sex="FM"[i // 2 % 2], split="tuning" if i > 120 else "train")
        for i in range(128)
    ]
    made = ScanDataModule(batch_size=16, size=32, min_count=3)
    made.attach(write_dataset(folder / "dataset", specs), seed=0, cache=folder / "cache")
    made.save(folder)
    made.folder = folder
    return made


def untrained(data: ScanDataModule, make) -> ScanDiffusionModule:
    torch.manual_seed(0)
    training = ScanTraining(
        noise=NoiseDistribution(-1.0, 1.3),
        averaging=Averaging(half_life_steps=20.0),
        learning_rate=LearningRate(warmup_steps=10, decay_share=0.3),
    )
    optimizer = partial(torch.optim.AdamW, lr=4e-3, betas=(0.9, 0.99))
    return ScanDiffusionModule(make(patch=2), optimizer, **data.sizes["model"], training=training, rank=8)


def drawn(module: ScanDiffusionModule, data: ScanDataModule) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """32 images drawn with the finding, and 32 without."""
    model = ScanModel(module, ScanDescription.from_json(read_json(data.folder / DESCRIPTION)))
    asked = [ScanRequest(f"{i}", "CR", "CHEST", "PA", "F", 50.0, labels) for i in range(32) for labels in ((BIG,), ())]
    pixels = [scan.pixels for scan in model.sample(asked, seed=0)]
    return pixels[::2], pixels[1::2]


def follow_the_finding(big: list[np.ndarray], little: list[np.ndarray]) -> bool:
    large, small = (np.array([radius_of(pixels) for pixels in part]) for part in (big, little))
    right = (abs(np.median(large) - 10) < 0.8) and (abs(np.median(small) - 6) < 0.8)
    return bool(right and np.mean(large > 8) > 0.9 and np.mean(small < 8) > 0.9)


def far_from_a_disc(images: list[np.ndarray]) -> float:
    """Median over images of the share of pixels that no disc of that area and centre of mass explains."""
    axis = np.arange(32) - 15.5
    shares = []
    for pixels in images:
        mass = (pixels.astype(float) - 200).clip(0)
        center = (mass.sum(axis=1) @ axis / mass.sum(), mass.sum(axis=0) @ axis / mass.sum())
        wanted = disc(radius_of(pixels), center=center)
        shares.append(np.mean(abs(pixels.astype(float) - wanted) > 900))
    return float(np.median(shares))


@pytest.mark.slow
@pytest.mark.parametrize("make", [small, small_monai], ids=["unet", "monai"])
def test_discs_whose_radius_follows_the_finding(data, make) -> None:
    module = untrained(data, make)
    trainer = Trainer(
        max_steps=STEPS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=1.0, num_sanity_val_steps=0, log_every_n_steps=1000,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    big, little = drawn(module, data)
    assert follow_the_finding(big, little)
    assert far_from_a_disc(big + little) < 0.028


def test_what_was_measured_but_not_trained_draws_no_discs(data) -> None:
    module = untrained(data, small)
    module.measure(data.images_to_measure())
    big, little = drawn(module, data)
    assert far_from_a_disc(big + little) > 0.03


def test_without_the_true_findings_the_radius_does_not_follow(data) -> None:
    module, images = untrained(data, small), data.images_to_measure()
    assert not follow_the_finding(*drawn(module, data))
    module.measure({**images, "values": images["values"].roll(1, dims=0), "known": images["known"].roll(1, dims=0)})
    assert not follow_the_finding(*drawn(module, data))
