"""Leaving on request: a checkpoint first, then whatever the signal would have done."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medtwin.training.checkpoints import Checkpoints

Handler = Callable[[int, FrameType | None], Any]
_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """Training was asked to stop, and has saved what it could; `signum` says by which signal."""

    def __init__(self, signum: int, saved_step: int | None) -> None:
        self.signum, self.saved_step = signal.Signals(signum), saved_step
        super().__init__(self.signum.name)


class Preemption(Callback):
    """On SIGUSR1, SIGUSR2, SIGTERM or Ctrl-C: ends the running step, saves, and hands the signal on.

    The handler from before training gets the signal then (submitit's asks SLURM to requeue the job). Where it goes on
    after SIGTERM, as submitit does because SLURM's own SIGTERM comes first, so does training. Where there was none,
    `Stopped` is raised. A second SIGTERM or Ctrl-C stops at once. SIGUSR2 is left alone unless it had a handler.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._before: dict[int, Any] = {}
        self._replaced: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Notes the handlers, before Lightning adds its own."""
        self._before = {signum: signal.getsignal(signum) for signum in _SIGNALS}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signals over."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in _SIGNALS:
            is_unused = signum == signal.SIGUSR2 and not callable(self._before[signum])
            if self._before[signum] != signal.SIG_IGN and not is_unused:
                self._replaced[signum] = signal.signal(signum, self._receive)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._signal and signum in (signal.SIGINT, signal.SIGTERM):
            raise Stopped(signum, None)
        self._signal = signum
        note = f"medtwin: {signal.Signals(signum).name}: saving after this step\n"
        os.write(2, note.encode())  # a handler may run in the middle of a write to sys.stderr

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Leaves, if asked to.

        Raises:
            Stopped: If nobody else handles the signal.
        """
        signum = self._agreed(trainer)
        if signum:
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, Checkpoints) and not callback.save(trainer):
                    return  # gradients are being accumulated: at the next step, then
            self._hand_over(trainer, signum)

    def _agreed(self, trainer: Trainer) -> int:
        """The signal; under distributed training the highest that any process got, so that all leave together."""
        if trainer.world_size == 1:
            return self._signal
        signum = torch.tensor(float(self._signal), device=trainer.strategy.root_device)
        return int(cast(torch.Tensor, trainer.strategy.reduce(signum, reduce_op="max")))

    def _hand_over(self, trainer: Trainer, signum: int) -> None:
        saves = any(isinstance(callback, Checkpoints) for callback in trainer.checkpoint_callbacks)
        stopped = Stopped(signum, trainer.global_step if saves else None)
        handler = self._before[signum]
        if not callable(handler):
            raise stopped
        try:
            handler(signum, None)
        except KeyboardInterrupt as interrupt:
            raise stopped from interrupt
        if signum != signal.SIGTERM:
            raise stopped
        self._signal = 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the signals back; one that came during the last step no longer matters."""
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        while self._replaced:
            signal.signal(*self._replaced.popitem())


def requeue() -> str | None:
    """Asks SLURM to queue the running job again; returns its id, or None where this is no SLURM job or it refuses."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    job = os.environ.get("SLURM_JOB_ID", "") if task is None else f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}"
    if not re.fullmatch(r"\d+(_\d+)?", job):
        return None
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return job if done.returncode == 0 else None
