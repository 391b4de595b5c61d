"""Checkpoints from which a run continues as if it had never stopped, in the middle of an epoch too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from medtwin.core.errors import MedtwinError
from medtwin.core.files import atomic_file
from medtwin.training.batches import ResumableLoader
from medtwin.training.loggers import MetricsTable

LAST, BEST, FINAL = "last.ckpt", "best.ckpt", "final.ckpt"
_OURS = "medtwin"


class TrainingError(MedtwinError):
    """Training that cannot go on, and what to change."""


class Checkpoints(Checkpoint):
    """Keeps the last checkpoint, and the weights that did best on the monitored metric.

    A checkpoint is made just before a step begins: then the step before it has ended altogether, its rows and its
    validation too, whether it was the last of an epoch or not. Lightning's own counters at that moment, and the sums
    behind the means of the running epoch, are stored so that Lightning takes up exactly there. All files appear whole
    or not at all, hold tensors, numbers and text only, and load with `weights_only=True`.

    They stand in `trainer.default_root_dir`: `last.ckpt` (everything), `best.ckpt` and, when training has ended,
    `final.ckpt` (weights, epoch, step, score).

    Args:
        every_minutes: Minutes between checkpoints; null: none by time.
        every_steps: Optimizer steps between checkpoints; null: none by steps.
        monitor: The metric to be low; null keeps no best weights.

    Raises:
        ValueError: If an interval is not positive.
    """

    def __init__(
        self, *, every_minutes: float | None = 5.0, every_steps: int | None = None, monitor: str | None = "val/loss"
    ) -> None:
        super().__init__()
        for name, value in (("every_minutes", every_minutes), ("every_steps", every_steps)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be more than 0 or null, got {value!r}")
        self.monitor = monitor
        self.best_score: float | None = None
        self._every_seconds = None if every_minutes is None else 60.0 * every_minutes
        self._every_steps = every_steps
        self._saved_at = (0, 0.0)
        self._resumed: dict[str, Any] = {}
        self._sums: dict[str, dict[str, Tensor]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes up where the checkpoint was made.

        Raises:
            TrainingError: If the data module's training loader cannot be resumed.
        """
        if not isinstance(trainer.train_dataloader, ResumableLoader):
            raise TrainingError("train_dataloader() must return a medtwin.training.batches.ResumableLoader")
        self.best_score = read_score(Path(trainer.default_root_dir) / BEST)
        self._saved_at = (trainer.global_step, time.monotonic())
        for table in _tables(trainer):
            table.rewind(self._resumed.get("journal", 0))
        if self._resumed:
            loop = trainer.fit_loop
            if self._resumed["position"] == 0:
                loop.epoch_loop.restarting = False  # a new epoch: with max_steps Lightning would repeat the old one
            # Lightning would go without the schedulers' step at the end of the resumed epoch.
            loop._restarting = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Reads what `on_save_checkpoint` added."""
        self._resumed = checkpoint.get(_OURS, {})
        self._sums = dict(self._resumed.get("sums", {}))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Saves when it is time."""
        if _is_between_steps(trainer) and self._is_due(trainer):
            self.save(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        step, when = self._saved_at
        if self._every_steps is not None and trainer.global_step - step >= self._every_steps:
            return True
        if self._every_seconds is None:
            return False
        is_due = time.monotonic() - when >= self._every_seconds
        return trainer.strategy.reduce_boolean_decision(is_due, all=False) if trainer.world_size > 1 else is_due

    def save(self, trainer: Trainer) -> bool:
        """Writes last.ckpt, if something was done since; call it where a step begins. Returns whether it stands."""
        if not _is_between_steps(trainer):
            return False
        path = Path(trainer.default_root_dir) / LAST
        if trainer.global_step and (trainer.global_step != self._saved_at[0] or not path.is_file()):
            partial = path.with_name(f".{LAST}")
            trainer.save_checkpoint(partial, weights_only=False)
            if trainer.is_global_zero:
                partial.replace(path)
            for table in _tables(trainer):
                table.write_table()
        self._saved_at = (trainer.global_step, time.monotonic())
        return True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds our own state, and makes of Lightning's counters those of a run that stopped between two steps."""
        loops = checkpoint["loops"]["fit_loop"]
        position = loops["epoch_loop.batch_progress"]["current"]["completed"]
        journal = next((table.position() for table in _tables(trainer)), 0)
        epoch = loops["epoch_progress"]["current"]["completed"]
        checkpoint[_OURS] = {"position": position, "journal": journal, "sums": dict(_sums(trainer))}
        _settle(loops, position, "combined_loader" in loops["state_dict"], epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Gives the resumed epoch's means the share of the steps before the checkpoint."""
        self._add_sums(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As after a batch: some metrics are logged later than it."""
        self._add_sums(trainer)
        self._sums = {}

    def _add_sums(self, trainer: Trainer) -> None:
        results = trainer.fit_loop.epoch_loop._results
        for key in [key for key in self._sums if key in results]:
            metric, before = results[key], self._sums.pop(key)
            value = before["value"].to(metric.value.device)
            if metric.meta.is_max_reduction or metric.meta.is_min_reduction:
                metric.value = metric.meta.reduce_fx(torch.stack([value, metric.value]))
            else:
                metric.value = value + metric.value
            if "size" in before:
                metric.cumulated_batch_size = before["size"].to(value.device) + metric.cumulated_batch_size
            metric._computed = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the weights if they are the best so far.

        Raises:
            TrainingError: If the module did not log the metric.
        """
        if self.monitor is None or trainer.sanity_checking:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            raise TrainingError(
                f"callbacks.checkpoints.monitor={self.monitor!r} was not logged: "
                f"choose one of {', '.join(sorted(trainer.callback_metrics)) or 'none'}, or null"
            )
        score = float(value)
        if score == score and (self.best_score is None or score < self.best_score):  # a NaN is never best
            self.best_score = score
            self._write_weights(trainer, BEST, score)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the weights at the end."""
        self._write_weights(trainer, FINAL, None)

    def _write_weights(self, trainer: Trainer, name: str, score: float | None) -> None:
        weights = trainer.strategy.lightning_module_state_dict()
        content = {"state_dict": weights, "epoch": trainer.current_epoch, "global_step": trainer.global_step}
        if trainer.is_global_zero:
            with atomic_file(Path(trainer.default_root_dir) / name) as file:
                torch.save({**content, "monitor": self.monitor, "score": score}, file)


def read_score(path: Path) -> float | None:
    """The score of best weights; None if there are none."""
    if not path.is_file():
        return None
    score: float | None = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["score"]
    return score


def _tables(trainer: Trainer) -> list[MetricsTable]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsTable)]


def _is_between_steps(trainer: Trainer) -> bool:
    """Whether no gradient is being accumulated: those are in no checkpoint."""
    done: int = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    return done % trainer.accumulate_grad_batches == 0


def _sums(trainer: Trainer) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """What Lightning has summed up for the means of the running epoch."""
    for key, metric in trainer.fit_loop.epoch_loop._results.items():
        if metric.is_tensor and metric.meta.on_epoch and not metric.has_reset:
            size = {"size": metric.cumulated_batch_size} if metric.meta.is_mean_reduction else {}
            yield key, {"value": metric.value, **size}


def _settle(loops: dict[str, Any], position: int, has_loader: bool, epoch: int) -> None:
    """Rewrites Lightning's progress, recorded as a step begins, as that of a run which stopped before it.

    Lightning 2.6 has two places to resume at that repeat and leave out nothing: after a finished epoch, where all its
    counts agree, and at the end of a batch, where `completed` is one behind and so is the loggers' step.
    """
    batches = loops["epoch_loop.batch_progress"]
    batches["is_last_batch"] = False
    for counts in (batches["total"], batches["current"]):
        counts["ready"] = counts["started"] = counts["processed"] = counts["completed"]
    if position:
        for counts in (batches["total"], batches["current"]):
            counts["completed"] -= 1
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
    else:
        for counts in (loops["epoch_progress"]["total"], loops["epoch_progress"]["current"]):
            counts["ready"] = counts["started"] = counts["completed"]
    if has_loader:
        loops["state_dict"]["combined_loader"] = [{"epoch": epoch, "position": position}]
