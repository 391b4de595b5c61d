"""A run that is stopped anywhere and continued ends as the run that was not stopped: weights, optimizer, metrics."""

from __future__ import annotations

import csv
import functools
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medtwin.core.dataset import open_dataset
from medtwin.training.callbacks import (
    Checkpoints,
    PatientStopping,
    Preemption,
    StepSeeds,
    StopOnNonFinite,
    Stopped,
    TrainingError,
)
from medtwin.training.checkpoints import LAST
from medtwin.training.loggers import MetricsTable
from medtwin.training.quiet import quiet
from tests.training.toy import ToyData, ToyModule, ToyNet, write_meds

NUM_TRAIN, BATCH = 40, 6  # 7 steps an epoch
STEPS = 7


class KillAt(Callback):
    """Dies without a word at a step, or sends a signal during it."""

    def __init__(self, step: int, hook: str = "on_train_batch_start", signum: int | None = None) -> None:
        self.step, self.signum = step, signum
        setattr(self, hook, self._strike)

    def _strike(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step != self.step:
            return
        if self.signum is None:
            raise RuntimeError("killed")
        os.kill(os.getpid(), self.signum)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_meds(tmp_path_factory.mktemp("meds") / "meds", train=NUM_TRAIN)


def fit(folder: Path, dataset: Path, strike: Callback | None = None, **options: Any) -> tuple[Trainer, MetricsTable]:
    """Trains three epochs in a folder, from its last checkpoint where there is one."""
    data = ToyData(batch_size=BATCH, num_workers=options.pop("num_workers", 0), weighted=options.pop("weighted", False))
    data.attach(open_dataset(dataset), seed=1, cache=folder)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = ToyNet(**data.sizes["net"])
    optimizer = functools.partial(torch.optim.AdamW, lr=0.01)
    module = ToyModule(net, optimizer, plateau=options.pop("plateau", False), **data.sizes["model"])
    table = MetricsTable(folder)
    every = options.pop("every_steps", 1)
    callbacks = [StepSeeds(1), StopOnNonFinite(), Checkpoints(every_minutes=None, every_steps=every), Preemption()]
    if (early := options.pop("early", None)) is not None:
        callbacks.append(PatientStopping(1, early, monitor="val/loss", min_delta=10.0))
    trainer = Trainer(
        accelerator="cpu", deterministic=True, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, use_distributed_sampler=False, default_root_dir=folder, logger=table,
        callbacks=[*callbacks, *([strike] if strike else [])], log_every_n_steps=2, **{"max_epochs": 3, **options},
    )  # fmt: skip
    last = folder / LAST
    with quiet():
        trainer.fit(module, data, ckpt_path=last if last.is_file() else None, weights_only=True)
    table.write_table()
    return trainer, table


def state(trainer: Trainer) -> dict[str, Any]:
    return {
        "weights": trainer.lightning_module.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict(),
        "rate": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
    }


def is_equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(is_equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(is_equal, first, second))
    return bool(first == second)


def check_equal(folder: Path, dataset: Path, strikes: list[Callback], **options: Any) -> None:
    """The run with strikes, one per attempt, against the run without; continued only after every strike has hit."""
    whole, table = fit(folder / "whole", dataset, **options)
    for strike in strikes:
        with pytest.raises((RuntimeError, Stopped), match=r"killed|SIG"):
            fit(folder / "struck", dataset, strike, **options)
    again, table_again = fit(folder / "struck", dataset, **options)
    assert is_equal(state(whole), state(again))
    assert table.rows() == table_again.rows()
    assert (folder / "whole" / "metrics.csv").read_bytes() == (folder / "struck" / "metrics.csv").read_bytes()
    best = [torch.load(folder / name / "best.ckpt", weights_only=True) for name in ("whole", "struck")
            if (folder / name / "best.ckpt").is_file()]  # fmt: skip
    assert not best or is_equal(*best)


KILLS = {
    "in the middle": [KillAt(10)],
    "as the first step begins": [KillAt(0)],
    "as the second step begins": [KillAt(1)],
    "before the last step of an epoch": [KillAt(STEPS - 1)],
    "after the last step of an epoch": [KillAt(STEPS, "on_train_batch_end")],
    "as validation starts": [KillAt(STEPS, "on_validation_start")],
    "in the middle of validation": [KillAt(2 * STEPS, "on_validation_batch_end")],
    "right after validation": [KillAt(STEPS, "on_validation_end")],
    "as the epoch ends": [KillAt(STEPS, "on_train_epoch_end")],
    "as the next epoch starts": [KillAt(STEPS, "on_train_epoch_start")],
    "as the next epoch's first step begins": [KillAt(STEPS)],
    "as training ends": [KillAt(3 * STEPS, "on_train_end")],
    "three times": [KillAt(3), KillAt(STEPS), KillAt(17)],
    "twice at one place": [KillAt(STEPS), KillAt(STEPS)],
}
SETTINGS: dict[str, dict[str, Any]] = {
    "epochs": {},
    "steps": {"max_steps": 3 * STEPS - 2, "max_epochs": None},
    "no validation": {"limit_val_batches": 0},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_run_ends_as_if_it_had_not_been(kill: str, setting: str, dataset: Path, tmp_path: Path) -> None:
    if setting == "no validation" and "validation" in kill:
        pytest.skip("there is none to kill")
    if setting == "steps" and kill == "as training ends":
        pytest.skip("it ends earlier")
    check_equal(tmp_path, dataset, KILLS[kill], **SETTINGS[setting])


@pytest.mark.parametrize(
    "options",
    [
        {"val_check_interval": 3},
        {"val_check_interval": 4, "check_val_every_n_epoch": None},
        {"check_val_every_n_epoch": 2},
        {"accumulate_grad_batches": 2, "plateau": False},
        {"plateau": True},
        {"weighted": True},
        {"limit_train_batches": 4},
        {"gradient_clip_val": 0.1, "every_steps": 4},
        {"num_workers": 2},
        {"early": 10, "max_epochs": 9},
        {"max_time": "00:01:00:00"},
    ],
    ids=lambda options: " ".join(f"{key}={value}" for key, value in options.items()),
)
def test_whatever_the_settings(options: dict[str, Any], dataset: Path, tmp_path: Path) -> None:
    step = STEPS if options.get("limit_train_batches") is None else 4
    strikes: list[Callback] = [KillAt(2), KillAt(step), KillAt(step + 3)]
    if "accumulate_grad_batches" in options:
        strikes = [KillAt(2), KillAt(4), KillAt(6)]
    check_equal(tmp_path, dataset, strikes, **options)


@pytest.mark.parametrize("step", [0, 3, STEPS - 1, STEPS, 2 * STEPS - 1])
def test_a_signal_saves_and_stops_at_the_end_of_the_step(step: int, dataset: Path, tmp_path: Path) -> None:
    strike = KillAt(step, "on_before_backward", signal.SIGUSR1)
    check_equal(tmp_path, dataset, [strike], every_steps=None)
    saved = torch.load(tmp_path / "struck" / LAST, weights_only=True)
    assert saved["global_step"] == step + 1


def test_a_signal_in_validation_waits_for_its_end(dataset: Path, tmp_path: Path) -> None:
    strike = KillAt(STEPS, "on_validation_batch_start", signal.SIGUSR1)
    check_equal(tmp_path, dataset, [strike], every_steps=None)
    assert torch.load(tmp_path / "struck" / LAST, weights_only=True)["global_step"] == STEPS


def test_without_our_callbacks_it_is_not_equal(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the seeds of steps, and without the settled counters, the comparison fails."""
    monkeypatch.setattr(StepSeeds, "on_train_batch_start", lambda *_: None)
    with pytest.raises(AssertionError):
        check_equal(tmp_path / "seeds", dataset, [KillAt(10)])
    monkeypatch.undo()
    monkeypatch.setattr("medtwin.training.checkpoints._settle", lambda *_: None)
    with pytest.raises(AssertionError):
        check_equal(tmp_path / "counters", dataset, [KillAt(STEPS)])
    monkeypatch.undo()
    monkeypatch.setattr("medtwin.training.checkpoints._sums", lambda *_: [])
    with pytest.raises(AssertionError):
        check_equal(tmp_path / "sums", dataset, [KillAt(10)])


def test_best_weights_are_those_of_the_lowest_validation_loss(dataset: Path, tmp_path: Path) -> None:
    _, table = fit(tmp_path, dataset)
    losses = [row["val/loss"] for row in table.rows() if "val/loss" in row]
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert len(losses) == 3
    assert best["score"] == min(losses)
    assert torch.load(tmp_path / "final.ckpt", weights_only=True)["global_step"] == 3 * STEPS


def test_metrics_are_one_row_per_step(dataset: Path, tmp_path: Path) -> None:
    fit(tmp_path, dataset)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows}, key=int)
    assert list(rows[0])[:2] == ["step", "epoch"]
    assert sum(bool(row["val/loss"]) for row in rows) == 3


def test_nan_stops_with_the_step_and_what_to_change(dataset: Path, tmp_path: Path) -> None:
    data = ToyData(batch_size=BATCH)
    data.attach(open_dataset(dataset), seed=1, cache=tmp_path)
    optimizer = functools.partial(torch.optim.SGD, lr=0.25)
    module = ToyModule(ToyNet(**data.sizes["net"]), optimizer, poison_step=3, **data.sizes["model"])
    trainer = Trainer(
        accelerator="cpu", callbacks=[StopOnNonFinite()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, max_epochs=1,
        use_distributed_sampler=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with quiet(), pytest.raises(TrainingError, match=r"nan at step 3 of epoch 0: lower optimizer.lr \(now 0.25\)"):
        trainer.fit(module, data)
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())


@pytest.mark.parametrize(("patience_steps", "stops_at"), [(0, 14), (7, 14), (8, 21), (21, 28), (1000, 42)])
def test_training_is_patient_for_so_many_steps_however_few_an_epoch_has(
    tmp_path: Path, dataset: Path, patience_steps: int, stops_at: int
) -> None:
    """One validation in vain is enough, of an epoch of seven steps each; nothing is ever better by ten."""
    trainer, _ = fit(tmp_path, dataset, early=patience_steps, max_epochs=6)
    assert trainer.global_step == stops_at
