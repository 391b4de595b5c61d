"""How much arithmetic training does, and what share of what the machine could do."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

from medtwin.training.callbacks import Throughput

_SIZE = 1024
_REPEATS = 5


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the best of some products of 1024 x 1024 matrices: the bound of a step."""
    a = torch.ones(_SIZE, _SIZE, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_REPEATS + 1):
        _wait(device)
        start = time.perf_counter()
        torch.mm(a, a)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best


class FlopUse(Throughput):
    """Logs, beside steps per second, `time/gflop_per_step`, `time/gflops_per_s` and `time/flop_utilisation`.

    The operations of the first step are counted (products and convolutions, forward and backward; the count makes it
    slower). Utilisation is theirs per second over `matrix_rate`, measured at the start in the training's precision.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counting = ExitStack()
        self._counter: FlopCounterMode | None = None
        self._flops = self._rate = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures what the machine can do."""
        dtype = torch.bfloat16 if "bf16" in str(trainer.precision) else torch.float32
        if "16" in str(trainer.precision) and dtype != torch.bfloat16:
            dtype = torch.float16
        self._rate = matrix_rate(pl_module.device, dtype)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begins to count at the first step."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if not self._flops:
            self._counter = self._counting.enter_context(FlopCounterMode(display=False))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends the count."""
        self._end_count()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends the count."""
        self._end_count()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._num_steps and self._flops:
            per_second = self._flops * self._num_steps / self._seconds
            values = {
                "time/gflop_per_step": self._flops / 1e9,
                "time/gflops_per_s": per_second / 1e9,
                "time/flop_utilisation": per_second / self._rate,
            }
            pl_module.log_dict(values, rank_zero_only=True)

    def _end_count(self) -> None:
        if self._counter is not None:
            self._counting.close()
            self._flops, self._counter = float(self._counter.get_total_flops()), None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
