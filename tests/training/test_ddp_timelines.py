"""The temporal VAE on two processes, and stopped and continued: the weights that come out."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medtwin.core.dataset import open_dataset
from medtwin.core.events import events_to_table, sort_events
from medtwin.timelines.network.net import TemporalVAE
from medtwin.timelines.reading.data import TimelineDataModule
from medtwin.timelines.training.module import TemporalVAEModule
from medtwin.training.callbacks import Checkpoints, StepSeeds, StopOnNonFinite
from medtwin.training.checkpoints import LAST
from medtwin.training.quiet import quiet
from medtwin.training.threads import torch_threads
from tests.conftest import ROOT
from tests.timelines.conftest import course

STEPS = 6


@pytest.fixture(scope="module")
def meds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meds")
    table = sort_events(events_to_table([event for subject in range(1, 37) for event in course(subject)]))
    for split, keep in (("train", pc.less(table["subject_id"], 30)), ("tuning", pc.greater(table["subject_id"], 29))):
        path = folder / "data" / split / "0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(table.filter(keep), path)
    return folder


def prepared(meds: Path, folder: Path) -> tuple[TimelineDataModule, TemporalVAEModule]:
    data = TimelineDataModule(tokens_per_group=120)
    data.attach(open_dataset(meds), seed=1, cache=folder / "cache")
    torch.manual_seed(5)
    net = TemporalVAE(**data.sizes["net"], latent_dim=2, width=8, num_heads=2, num_layers=1, dropout=0.1)
    return data, TemporalVAEModule(net, partial(torch.optim.AdamW, lr=0.01))


def trained(meds: Path, folder: Path, *extra: Callback, devices: int = 1) -> tuple[TimelineDataModule, Trainer]:
    """Six steps, continued from the folder's last checkpoint where there is one."""
    data, module = prepared(meds, folder)
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_steps=STEPS,
        deterministic=True, logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, use_distributed_sampler=False, default_root_dir=folder,
        callbacks=[StepSeeds(1), StopOnNonFinite(), Checkpoints(every_minutes=None, every_steps=1), *extra],
    )  # fmt: skip
    last = folder / LAST
    with quiet(), torch_threads(1):
        trainer.fit(module, data, ckpt_path=last if last.is_file() else None, weights_only=True)
    return data, trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.lightning_module.state_dict().items()}


class KillAt(Callback):
    """Dies without a word as a step begins."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *given: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(meds: Path, tmp_path: Path) -> None:
    whole = weights(trained(meds, tmp_path / "whole")[1])
    for step in (2, 5):
        with pytest.raises(RuntimeError, match="killed"):
            trained(meds, tmp_path / "struck", KillAt(step))
    again = weights(trained(meds, tmp_path / "struck")[1])
    assert whole.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    other = weights(trained(meds, tmp_path / "other", KillAt(STEPS))[1])  # the control of nothing: no kill
    assert all(torch.equal(value, other[name]) for name, value in whole.items())


class Seen(Callback):
    """Writes down which subjects a process reads, and its weights at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: list, *given: object) -> None:
        starts = [str(minute) for group in batch for minute in group["start_minute"].tolist()]
        with (self.folder / f"seen-{trainer.global_rank}").open("a") as file:
            file.write(" ".join(starts) + "\n")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"weights-{trainer.global_rank}.pt")


@pytest.mark.slow
def test_two_processes_read_different_subjects_and_end_with_the_same_weights(meds: Path, tmp_path: Path) -> None:
    trained(meds, tmp_path / "one")  # its cache is what both processes read
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.test_ddp_timelines", str(meds), str(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    lines = [(tmp_path / f"seen-{rank}").read_text().splitlines() for rank in (0, 1)]
    assert len(lines[0]) == len(lines[1]) == STEPS
    assert all(not set(mine.split()) & set(other.split()) for mine, other in zip(*lines, strict=True))
    start = prepared(meds, tmp_path / "one")[1].state_dict()
    moved = [name for name, value in first.items() if name.startswith("net.") and not torch.equal(value, start[name])]
    assert len(moved) > 40


if __name__ == "__main__":
    where = Path(sys.argv[2])
    trained(Path(sys.argv[1]), where / "two", Seen(where), devices=2)
