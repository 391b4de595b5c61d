"""What a run directory holds: the settings that made it, and the model that they and its weights give back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medtwin.config import build
from medtwin.core.errors import ConfigError
from medtwin.core.output import is_finished

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from medtwin.core.dataset import Dataset

MODEL, CONFIG = "model.ckpt", "config.yaml"
MIN_CANARIES = 60
"""Canaries with a coin: of fewer, no number of rightly told coins would show an epsilon above 1."""


@dataclass(frozen=True)
class TrainSettings:
    """The settings of configs/train.yaml; those of the groups are what their `_target_` takes."""

    dataset: Path
    out: Path
    name: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    net: Mapping[str, Any]
    optimizer: Mapping[str, Any] | None  # null: a model that is counted
    trainer: Mapping[str, Any]
    callbacks: Mapping[str, Any] | None = field(default_factory=dict)
    logger: Mapping[str, Any] | None = field(default_factory=dict)
    prior: Mapping[str, Any] | None = None
    latents: Path | None = None
    autoencoder: Path | None = None
    ckpt_path: Path | None = None
    cache: Path | None = None
    canaries: int = 0
    seed: int = 0
    threads: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed!r}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be 1 or more, or null, got {self.threads!r}")
        if self.canaries and self.canaries < MIN_CANARIES:
            raise ValueError(f"canaries must be 0 (none) or {MIN_CANARIES} or more, got {self.canaries!r}")
        if self.canaries and str(self.data.get("_target_", "")).startswith("medtwin.scans."):
            raise ValueError(
                "canaries must be 0 here: they have records and no scans; plant them in a model of timelines"
            )


def process_rank() -> int:
    """This process's place among those that train together, before they have met; 0 alone or as the first."""
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def checkpoint_file(path: Path) -> Path:
    """The file that ckpt_path names: itself, or the model of the run directory that it is.

    Raises:
        ConfigError: If there is none.
    """
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"ckpt_path={path} must be a checkpoint, or a run directory with a {MODEL}")
    return file


class RunData(Protocol):
    """What `train` asks of a LightningDataModule: data that are read once, and leave behind what generation needs."""

    def attach(self, dataset: Dataset, *, seed: int, cache: Path, latents: Path | None = None) -> None:
        """Reads the data; fits on the train split alone; `cache` is its own and survives a kill."""

    @property
    def sizes(self) -> Mapping[str, Mapping[str, Any]]:
        """What only the data know, by group and setting: `{"net": {"num_codes": 210}}`."""

    def save(self, folder: Path) -> None:
        """Writes what generation needs of the data, as JSON or npz."""

    def val_dataloader(self) -> Any:
        """The batches of the tuning split; none where there is no such subject."""


def with_sizes(chosen: TrainSettings, sizes: Mapping[str, Mapping[str, Any]]) -> TrainSettings:
    """The settings with what only the data know, such as the number of codes, where they say null.

    Raises:
        ConfigError: If a group has no such setting.
    """
    groups: dict[str, Any] = {}
    for group, values in sizes.items():
        groups[group] = dict(getattr(chosen, group))
        for name, value in values.items():
            if name not in groups[group]:
                raise ConfigError(
                    f"{group}.{name} is missing: the data module {chosen.data.get('_target_')} fills it in, so the "
                    f"option of {group} must say `{name}: null`; is data=... one for this {group}?"
                )
            if groups[group][name] is None:
                groups[group][name] = value
    return replace(chosen, **groups)


def build_module(config: Mapping[str, Any], seed: int = 0) -> LightningModule:
    """The model that a configuration describes, untrained.

    Args:
        config: With the groups `model`, `net` and `optimizer` (null: none), every size filled in.
        seed: Decides the initial weights; torch's global generator is left as it was.

    Raises:
        ConfigError: Naming the setting that does not fit.
    """
    import torch

    from medtwin.training.batches import torch_seed

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch_seed(seed, "initial weights"))
        net = build(config["net"], "net")
        parts: dict[str, Any] = {**config["model"], "net": net}
        if config.get("optimizer") is not None:
            parts["optimizer"] = build(config["optimizer"], "optimizer")
            _require_factory(parts["optimizer"])
        module: LightningModule = build(parts, "model")
    return module


def _require_factory(optimizer: Any) -> None:
    """Tries the optimizer on a parameter of its own: its numbers are checked only when it is made."""
    import torch

    if not callable(optimizer):
        raise ConfigError("optimizer must say `_partial_: true`: it gets the parameters from the module")
    try:
        optimizer([torch.nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optimizer: {error}") from error


def load_run(folder: Path) -> tuple[LightningModule, dict[str, Any]]:
    """The trained model of a finished run, in evaluation mode on the CPU, and the run's configuration.

    Raises:
        ConfigError: If the folder is no finished run, or its weights are of another network than this version makes.
    """
    import torch
    from omegaconf import OmegaConf

    if not is_finished(folder) or not (folder / MODEL).is_file():
        partial = folder.with_name(folder.name + ".partial")
        hint = f"; {partial} is unfinished: train it again" if partial.is_dir() else ""
        raise ConfigError(f"{folder} is not the run directory of `medtwin train`{hint}")
    config: Any = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    module = build_module(config)
    weights = torch.load(folder / MODEL, map_location="cpu", weights_only=True)["state_dict"]
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            f"{folder / MODEL} does not fit the network that its {CONFIG} describes; another version of medtwin "
            "trained it, or one of the two was changed: train it again"
        ) from error
    return module.eval(), config
