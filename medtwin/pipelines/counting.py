"""The training of a model that is counted in one pass over the training subjects: no Trainer, no steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from medtwin.core.errors import ConfigError
from medtwin.core.files import atomic_file
from medtwin.pipelines.runs import RunData, TrainSettings, process_rank
from medtwin.training.checkpoints import FINAL


@runtime_checkable
class Counted(Protocol):
    """A model that takes what it knows from the data at once."""

    def count(self, data: Any, seed: int) -> None:
        """Takes it from data that are attached."""

    def state_dict(self) -> dict[str, Tensor]:
        """What it knows."""


def count(chosen: TrainSettings, module: Counted, data: RunData, folder: Path) -> dict[str, Any]:
    """Counts, and writes the weights where `fit` leaves the last ones; returns what to tell of it, as `fit` does.

    Args:
        chosen: The settings; those of trainer, callbacks and logger change nothing.
        module: The model.
        data: Its data, attached.
        folder: Where the checkpoints stand.

    Raises:
        ConfigError: If it is to start from a checkpoint, or there are too few subjects.
    """
    if chosen.ckpt_path is not None:
        raise ConfigError("ckpt_path must be null: a model that is counted starts from nothing")
    module.count(data, chosen.seed)
    state = module.state_dict()
    if process_rank() == 0:
        content = {"state_dict": state, "epoch": 0, "global_step": 0, "monitor": None, "score": None}
        with atomic_file(folder / FINAL) as file:
            torch.save(content, file)
    return {
        "parameters": sum(values.numel() for values in state.values()),
        "steps": 0,
        "epochs": 0,
        "monitor": None,
        "best": None,
    }
