"""A few steps of a model on one process or two, killed and continued: what the tests of both models share."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.strategies import Strategy

from medtwin.training.callbacks import Checkpoints, StepSeeds, StopOnNonFinite
from medtwin.training.checkpoints import LAST
from medtwin.training.quiet import quiet
from medtwin.training.threads import torch_threads
from tests.conftest import ROOT

STEPS = 6


def trained(
    module: LightningModule,
    data: LightningDataModule,
    folder: Path,
    *extra: Callback,
    devices: int = 1,
    strategy: str | Strategy = "ddp",
) -> Trainer:
    """Six steps, continued from the folder's last checkpoint where there is one."""
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy=strategy if devices > 1 else "auto", max_steps=STEPS,
        deterministic=True, logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, use_distributed_sampler=False, default_root_dir=folder,
        callbacks=[StepSeeds(1), StopOnNonFinite(), *extra, Checkpoints(every_minutes=None, every_steps=1)],
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


class Seen(Callback, ABC):
    """Writes down what a process reads, by `names`, and its weights at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def names(self, batch, module: LightningModule) -> list[str]:
        """What tells the subjects of a batch from all others."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch, *given: object) -> None:
        with (self.folder / f"seen-{trainer.global_rank}").open("a") as file:
            file.write(" ".join(self.names(batch, pl_module)) + "\n")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"weights-{trainer.global_rank}.pt")


def run_on_two(test: str, source: Path, folder: Path, *, timeout_s: int) -> dict[str, torch.Tensor]:
    """Runs a test module, which trains on two processes with its `Seen`; returns their weights.

    They must be equal, and no step may show both processes one subject.
    """
    done = run_module(test, source, folder, timeout_s=timeout_s)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(folder / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    lines = [(folder / f"seen-{rank}").read_text().splitlines() for rank in (0, 1)]
    assert len(lines[0]) == len(lines[1]) == STEPS
    assert all(not set(mine.split()) & set(other.split()) for mine, other in zip(*lines, strict=True))
    return first


def run_module(test: str, *given: object, timeout_s: int) -> subprocess.CompletedProcess[str]:
    """Runs a test module, which trains on several processes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", test, *map(str, given)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s,
    )  # fmt: skip
