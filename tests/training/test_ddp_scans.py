"""The diffusion model of scans on two processes, and stopped and continued: the weights that come out."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import Strategy

from medtwin.core.dataset import Dataset
from medtwin.scans.data import ScanDataModule
from medtwin.scans.module import ScanBatch
from medtwin.scans.shortcut import ScanShortcutModule, ShortcutTraining
from medtwin.training.snapshots import FOLDER, Snapshots
from tests.scans.samples import BIG, Spec, write_dataset
from tests.scans.test_unet import small
from tests.training.processes import KillAt, Seen, run_on_two, trained, weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discs")
    specs = [
        Spec(labels=(BIG,) if i % 2 else (), age_years=20.0 + i, split="tuning" if i > 29 else "train")
        for i in range(36)
    ]
    write_dataset(folder, specs)
    return folder


def train(images: Path, folder: Path, *extra: Callback, devices: int = 1, strategy: str | Strategy = "ddp") -> Trainer:
    data = ScanDataModule(batch_size=4, size=16, min_count=2)
    data.attach(Dataset(images, "simulated"), seed=1, cache=folder / f"cache-{os.environ.get('LOCAL_RANK', '0')}")
    torch.manual_seed(5)
    module = ScanShortcutModule(
        small(dropout=0.1), partial(torch.optim.AdamW, lr=0.01), **data.sizes["model"], rank=4,
        training=ShortcutTraining(learned_weights=True, halvings=3, guidance=2.0),
    )  # fmt: skip
    snapshots = Snapshots(every_steps=2, tried_widths=())
    return trained(module, data, folder, *extra, snapshots, devices=devices, strategy=strategy)


def test_a_killed_run_ends_with_the_weights_and_snapshots_of_one_that_was_not(images: Path, tmp_path: Path) -> None:
    whole = weights(train(images, tmp_path / "whole"))
    for step in (2, 5):
        with pytest.raises(RuntimeError, match="killed"):
            train(images, tmp_path / "struck", KillAt(step))
    again = weights(train(images, tmp_path / "struck"))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    for path in sorted((tmp_path / "whole" / FOLDER).glob("*.pt")):
        one, two = (
            torch.load(tmp_path / name / FOLDER / path.name, weights_only=True)["averages"]
            for name in ("whole", "struck")
        )
        assert all(torch.equal(a[name], b[name]) for a, b in zip(one, two, strict=True) for name in a)


class Ages(Seen):
    """By the ages of the patients."""

    def names(self, batch: ScanBatch, module: ScanShortcutModule) -> list[str]:
        ages = batch["values"][:, sum(module.denoiser.effects.condition_of_value < 5)]
        return [f"{age:.4f}" for age in ages.tolist()]


def test_two_processes_read_different_images_and_end_with_the_same_weights(images: Path, tmp_path: Path) -> None:
    first = run_on_two("tests.training.test_ddp_scans", images, tmp_path, timeout_s=500)
    assert first["denoiser.net.out.weight"].abs().sum() > 0


if __name__ == "__main__":
    where = Path(sys.argv[2])
    train(Path(sys.argv[1]), where / "two", Ages(where), devices=2)
