"""The diffusion model of scans on two processes, and stopped and continued: the weights that come out."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medtwin.scans.data import ScanDataModule
from medtwin.scans.shortcut import ScanShortcutModule, ShortcutTraining
from medtwin.training.callbacks import Checkpoints, StepSeeds, StopOnNonFinite
from medtwin.training.checkpoints import LAST
from medtwin.training.quiet import quiet
from medtwin.training.snapshots import FOLDER, Snapshots
from medtwin.training.threads import torch_threads
from tests.conftest import ROOT
from tests.scans.samples import BIG, Spec, write_dataset
from tests.scans.test_unet import small

STEPS = 6
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


def trained(images: Path, folder: Path, *extra: Callback, devices: int = 1) -> Trainer:
    """Six steps, continued from the folder's last checkpoint where there is one."""
    from medtwin.core.dataset import Dataset

    data = ScanDataModule(batch_size=4, size=16, min_count=2)
    data.attach(Dataset(images, "simulated"), seed=1, cache=folder / f"cache-{os.environ.get('LOCAL_RANK', '0')}")
    torch.manual_seed(5)
    module = ScanShortcutModule(
        small(dropout=0.1), partial(torch.optim.AdamW, lr=0.01), **data.sizes["model"], rank=4,
        training=ShortcutTraining(learned_weights=True, halvings=3, guidance=2.0),
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_steps=STEPS,
        deterministic=True, logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, use_distributed_sampler=False, default_root_dir=folder,
        callbacks=[
            StepSeeds(1), StopOnNonFinite(), *extra, Snapshots(every_steps=2, tried_widths=()),
            Checkpoints(every_minutes=None, every_steps=1),
        ],
    )  # fmt: skip
    last = folder / LAST
    with quiet(), torch_threads(1):
        trainer.fit(module, data, ckpt_path=last if last.is_file() else None, weights_only=True)
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.lightning_module.state_dict().items()}


class KillAt(Callback):
    """Dies without a word as a step begins."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *given: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


def test_a_killed_run_ends_with_the_weights_and_snapshots_of_one_that_was_not(images: Path, tmp_path: Path) -> None:
    whole = weights(trained(images, tmp_path / "whole"))
    for step in (2, 5):
        with pytest.raises(RuntimeError, match="killed"):
            trained(images, tmp_path / "struck", KillAt(step))
    again = weights(trained(images, tmp_path / "struck"))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    for path in sorted((tmp_path / "whole" / FOLDER).glob("*.pt")):
        one, two = (
            torch.load(tmp_path / name / FOLDER / path.name, weights_only=True)["averages"]
            for name in ("whole", "struck")
        )
        assert all(torch.equal(a[name], b[name]) for a, b in zip(one, two, strict=True) for name in a)


class Seen(Callback):
    """Writes down which images a process reads, by the ages of their patients, and its weights at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: dict, *given: object) -> None:
        ages = batch["values"][:, sum(pl_module.denoiser.effects.condition_of_value < 5)]
        with (self.folder / f"seen-{trainer.global_rank}").open("a") as file:
            file.write(" ".join(f"{age:.4f}" for age in ages.tolist()) + "\n")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"weights-{trainer.global_rank}.pt")


def test_two_processes_read_different_images_and_end_with_the_same_weights(images: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.test_ddp_scans", str(images), str(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    lines = [(tmp_path / f"seen-{rank}").read_text().splitlines() for rank in (0, 1)]
    assert len(lines[0]) == len(lines[1]) == STEPS
    assert all(not set(mine.split()) & set(other.split()) for mine, other in zip(*lines, strict=True))
    assert first["denoiser.net.out.weight"].abs().sum() > 0


if __name__ == "__main__":
    where = Path(sys.argv[2])
    trained(Path(sys.argv[1]), where / "two", Seen(where), devices=2)
