"""What every training run does beside learning: seeds per step, a stop on NaN, progress, speed."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from tqdm import tqdm

from medtwin.training.batches import torch_seed
from medtwin.training.checkpoints import Checkpoints, TrainingError
from medtwin.training.preemption import Preemption, Stopped

__all__ = [
    "Checkpoints",
    "PatientStopping",
    "Preemption",
    "Progress",
    "StepSeeds",
    "StopOnNonFinite",
    "Stopped",
    "Throughput",
    "TrainingError",
]


class StepSeeds(Callback):
    """Seeds torch's global generator before every step, so that a step's noise depends on (seed, step) only.

    A validation batch has the same seed in every epoch: validation losses differ by the model alone.

    Args:
        seed: The run's seed, 0 or more.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds the step, on every process differently."""
        step = trainer.fit_loop.epoch_loop.total_batch_idx
        torch.manual_seed(torch_seed(self._seed, "step", step, trainer.global_rank))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Seeds the batch."""
        torch.manual_seed(torch_seed(self._seed, "validation", dataloader_idx, batch_idx))


class StopOnNonFinite(Callback):
    """Stops training at the first loss that is no number, before it reaches the weights."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Looks at the loss.

        Raises:
            TrainingError: If it is NaN or infinite.
        """
        if torch.isfinite(loss).all():
            return
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        rate = f"optimizer.lr (now {max(rates):g})" if rates else "optimizer.lr"
        clip = trainer.gradient_clip_val
        raise TrainingError(
            f"the loss is {float(loss.detach().float().mean())} at step {trainer.global_step} of epoch "
            f"{trainer.current_epoch}: lower {rate}, or set trainer.gradient_clip_val (now {_null(clip)}); "
            f"trainer.precision is {trainer.precision}"
        )


class PatientStopping(EarlyStopping):
    """Stops when validations no longer get better, but not before so many steps have been tried in vain.

    Of a small dataset an epoch, and thus the time between two validations, may be a single step.

    Args:
        patience: Validations without progress.
        patience_steps: Steps without progress; whichever takes longer.
        **settings: Of Lightning's `EarlyStopping`.
    """

    def __init__(self, patience: int, patience_steps: int, **settings: Any) -> None:
        super().__init__(patience=patience, check_on_train_epoch_end=False, **settings)
        self._validations, self._steps, self._last_step = patience, patience_steps, 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judges the validation by the steps since the one before."""
        between = max(1, trainer.global_step - self._last_step)
        self.patience = max(self._validations, math.ceil(self._steps / between))
        self._last_step = trainer.global_step
        super().on_validation_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """As Lightning's, and the step of the last validation."""
        return {**super().state_dict(), "last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._last_step = int(state_dict["last_step"])


def _null(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"


class Progress(Callback):
    """A progress bar over all steps on standard error; silent where that is no terminal.

    Args:
        refresh_seconds: The least time between two updates.
    """

    def __init__(self, *, refresh_seconds: float = 0.2) -> None:
        self._refresh_seconds = refresh_seconds
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the bar, at the step where training starts."""
        if not trainer.is_global_zero:
            return
        steps = trainer.estimated_stepping_batches
        self._bar = tqdm(
            desc=type(pl_module).__name__,
            total=int(steps) if math.isfinite(steps) else None,
            initial=trainer.global_step,
            unit="step",
            disable=None,
            file=sys.stderr,
            leave=False,
            mininterval=self._refresh_seconds,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar on; reads the losses only when it is drawn anyway."""
        if self._bar is not None and self._bar.update(trainer.global_step - self._bar.n):
            metrics = trainer.callback_metrics
            shown = {name: f"{float(metrics[key]):.4g}" for name, key in _SHOWN if key in metrics}
            self._bar.set_postfix(shown, refresh=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the bar away."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes the bar away."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


_SHOWN = (("loss", "train/loss"), ("val", "val/loss"))


class Throughput(Callback):
    """Logs `time/steps_per_s` and `time/epoch_s` of training, validation excepted, once an epoch."""

    def __init__(self) -> None:
        self._start = self._validation = 0.0
        self._seconds = 0.0
        self._num_steps = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._seconds, self._num_steps = 0.0, 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Counts from the first step of the epoch, or of its resumed part."""
        if self._num_steps == 0:
            self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the time since the last step."""
        now = time.perf_counter()
        self._seconds += now - self._start
        self._start = now
        self._num_steps += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._validation = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts it again."""
        self._start += time.perf_counter() - self._validation

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs."""
        if self._num_steps:
            values = {"time/steps_per_s": self._num_steps / self._seconds, "time/epoch_s": self._seconds}
            pl_module.log_dict(values, rank_zero_only=True)
