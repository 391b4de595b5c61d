"""Snapshots of power averages along training, and the average whose width does best on the tuning split at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from medtwin.core.files import atomic_file
from medtwin.training.loggers import run_folder
from medtwin.training.power_averages import PowerAverage, Profile, combined, gamma_of, shares_of
from medtwin.training.sharding import take_, whole

FOLDER = "snapshots"


class Snapshots(Callback):
    """Keeps power averages of `module.denoiser`, and writes them now and then.

    At the end of training the average of each of some widths is put together from the snapshots and judged by the
    tuning split; the best of them and of the running average becomes `module.average`, which is what generates. Files
    are `snapshots/<step>.pt` in the run directory: `{"step", "widths", "averages"}`, tensors and numbers only.

    Args:
        every_steps: Steps between snapshots.
        kept_widths: Of the averages that are kept, in shares of the length of training.
        tried_widths: Of those that are tried at the end; empty: none, the snapshots stay.

    Raises:
        ValueError: If there are fewer than two kept widths, or a number is out of its range.
    """

    def __init__(
        self,
        *,
        every_steps: int = 100,
        kept_widths: Sequence[float] = (0.05, 0.1),
        tried_widths: Sequence[float] = (0.03, 0.05, 0.075, 0.1, 0.15, 0.2),
    ) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps must be 1 or more, got {every_steps!r}")
        if len(kept_widths) < 2:
            raise ValueError(f"kept_widths must be two or more, got {list(kept_widths)!r}")
        for width in (*kept_widths, *tried_widths):
            gamma_of(width)
        self._every_steps = every_steps
        self._kept, self._tried = tuple(kept_widths), tuple(tried_widths)
        self._averages: list[PowerAverage] = []
        self._state: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts at the weights there are, or where a checkpoint was made."""
        self._averages = [PowerAverage(_trained(pl_module), width) for width in self._kept]
        for average, weights in zip(self._averages, self._state.get("averages", []), strict=False):
            for name, value in weights.items():
                take_(average.weights[name], value)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes in the weights after a step of the optimizer."""
        step = trainer.global_step
        if step == 0 or step == self._state.get("step"):  # nothing was stepped: gradients are being gathered
            return
        self._state["step"] = step
        for average in self._averages:
            average.move(_trained(pl_module), step)
        if step % self._every_steps == 0:
            self._write(trainer, step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses the average, where there is a tuning split to choose by."""
        step = trainer.global_step
        if step and step % self._every_steps:
            self._write(trainer, step)
        trainer.strategy.barrier()
        losses = _val_losses(trainer)
        if not self._tried or not step or losses is None:
            return
        average = cast(nn.Module, pl_module.average)
        candidates: dict[float, dict[str, Tensor]] = {0.0: {n: whole(p).clone() for n, p in average.named_parameters()}}
        candidates |= {width: average_of(run_folder(trainer) / FOLDER, step, width) for width in self._tried}
        found = {width: losses(pl_module, weights) for width, weights in candidates.items()}
        best = min(found, key=lambda width: found[width])
        _take(average, candidates[best])
        for logger in trainer.loggers:
            scores = {f"average/val_loss_{width:g}": loss for width, loss in found.items()}
            logger.log_metrics({"average/width": best, **scores}, step=step)

    def state_dict(self) -> dict[str, Any]:
        """The averages, so that a run continues as if it had not been stopped."""
        return {"step": self._state.get("step", 0), "averages": [_whole(each) for each in self._averages]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        self._state = dict(state_dict)

    def _write(self, trainer: Trainer, step: int) -> None:
        averages = [_whole(average) for average in self._averages]
        if not trainer.is_global_zero:
            return
        folder = run_folder(trainer) / FOLDER
        folder.mkdir(exist_ok=True)
        with atomic_file(folder / f"{step:09d}.pt") as file:
            torch.save({"step": step, "widths": list(self._kept), "averages": averages}, file)


def average_of(folder: Path, step: int, width: float) -> dict[str, Tensor]:
    """The weights averaged with any width up to a step, by name, from a folder of snapshots.

    Raises:
        ValueError: If no snapshot reaches the step, or the width is out of its range.
    """
    profiles: list[Profile] = []
    states: list[Mapping[str, Tensor]] = []
    for path in sorted(folder.glob("*.pt")):
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["step"] > step:
            continue
        profiles += [Profile(content["step"], kept) for kept in content["widths"]]
        states += content["averages"]
    return combined(states, shares_of(profiles, Profile(step, width)))


def _trained(module: LightningModule) -> nn.Module:
    return cast(nn.Module, module.denoiser)


def _whole(average: PowerAverage) -> dict[str, Tensor]:
    return {name: whole(value) for name, value in average.weights.items()}


def _take(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, value in module.named_parameters():
        take_(value, weights[name])


def _val_losses(trainer: Trainer) -> Any:
    """What measures val/loss of some weights of the average; None without a tuning split."""
    data = cast(Any, trainer).datamodule
    loaders = [] if data is None else data.val_dataloader()
    if not any(len(loader) for loader in loaders):
        return None

    @torch.no_grad()
    def loss(module: LightningModule, weights: Mapping[str, Tensor]) -> float:
        _take(cast(nn.Module, module.average).eval(), weights)
        total = count = 0.0
        for loader in loaders:
            for index, batch in enumerate(loader):
                here = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
                size = len(here["image"])
                total += size * float(cast(Any, module).validation_error(here, index))
                count += size
        return total / count

    return loss
