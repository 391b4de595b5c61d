"""The run of an autoencoder: what it keeps of images, and what a model of its latents takes from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from omegaconf import OmegaConf

from medtwin.core.errors import ConfigError
from medtwin.core.files import read_json, write_json
from medtwin.pipelines.runs import CONFIG, RunData, TrainSettings, build_module, load_run
from medtwin.pipelines.say import tell
from medtwin.scans.autoencoder import Reconstruction, ScanAutoencoderModule, reconstruction_of
from medtwin.scans.data import DESCRIPTION, ScanDataModule
from medtwin.scans.module import ScanDiffusionModule
from medtwin.training.threads import torch_threads

RECONSTRUCTION = "reconstruction.json"
_TARGET = "medtwin.scans.autoencoder.ScanAutoencoderModule"
_MIN_JUDGED = 8
"""Tuning images by which an autoencoder is judged; where there are fewer, it is by the training images."""
_SAME = ("_target_", "size", "voxel_ratio", "fit", "align", "hu_softening")
"""Settings of the data by which images look alike to an autoencoder and to the model of its latents."""


def with_autoencoder(chosen: TrainSettings, run: Path, data: RunData) -> TrainSettings:
    """The settings with the network of the autoencoder of a run, and the number of its channels.

    Raises:
        ConfigError: If the run is of another model, has collapsed, or learned from images of another kind; or the model
            to train has no use for it.
    """
    if "autoencoder" not in chosen.model or "in_channels" not in chosen.net:
        raise ConfigError(
            f"autoencoder= is for models that denoise images, such as model=scan_latent with net=unet or net=monai, "
            f"not for {chosen.name}"
        )
    config: Any = OmegaConf.to_container(OmegaConf.load(run / CONFIG))
    if config["model"].get("_target_") != _TARGET:
        raise ConfigError(f"autoencoder={run} must be a run of model=scan_autoencoder, got one of {config.get('name')}")
    _require_same(run, config, chosen, data)
    if read_json(run / "data" / RECONSTRUCTION)["collapsed"]:
        raise ConfigError(
            f"autoencoder={run} must keep something of its images, its latents have collapsed "
            f"(data/{RECONSTRUCTION}): train it again, for longer or with a smaller model.training.kl_weight"
        )
    net = {**chosen.net, "in_channels": config["net"]["latent_channels"]}
    return replace(chosen, net=net, model={**chosen.model, "autoencoder": config["net"]})


def _require_same(run: Path, config: Mapping[str, Any], chosen: TrainSettings, data: RunData) -> None:
    """Whether the images are of the kind that the autoencoder has learned."""
    theirs, ours = config["data"], chosen.data
    if (dims := config["net"]["spatial_dims"]) != chosen.net.get("spatial_dims"):
        raise ConfigError(
            f"net.spatial_dims must be {dims}, as autoencoder={run} has, got {chosen.net.get('spatial_dims')!r}"
        )
    for name in _SAME:
        if theirs.get(name) != ours.get(name):
            raise ConfigError(
                f"data.{name} must be {theirs.get(name)!r}, as autoencoder={run} has learned it, got {ours.get(name)!r}"
            )
    learned = set(read_json(run / "data" / DESCRIPTION)["intensity"]["written"])
    wanted = set(data.intensity.written) if isinstance(data, ScanDataModule) else set()
    if not wanted <= learned:
        raise ConfigError(
            f"data.modalities must be of those that autoencoder={run} has learned, {', '.join(sorted(learned))}, "
            f"got {', '.join(sorted(wanted - learned))} too"
        )


def load_autoencoder(module: LightningModule, run: Path) -> None:
    """Puts the weights of an autoencoder's run into a model of its latents.

    Raises:
        ConfigError: If the run cannot be read.
    """
    trained, _ = load_run(run)
    if not (isinstance(module, ScanDiffusionModule) and module.codec and isinstance(trained, ScanAutoencoderModule)):
        raise ConfigError(
            f"autoencoder={run} must be a run of model=scan_autoencoder, for a model that denoises images"
        )
    module.codec.net.load_state_dict(trained.net.state_dict())


def write_reconstruction(config: Mapping[str, Any], data: RunData, weights: Path, folder: Path) -> None:
    """Writes reconstruction.json, what the weights of an autoencoder keep of training and of tuning images, and tells.

    Args:
        config: Settings of model, net and optimizer, sizes filled in.
        data: Attached.
        weights: The checkpoint.
        folder: Where the file is to stand.
    """
    module = build_module(config).eval()
    module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["state_dict"])
    if not (isinstance(module, ScanAutoencoderModule) and isinstance(data, ScanDataModule)):
        raise ConfigError("model=scan_autoencoder needs data of images, as data=scans or data=volumes")
    training = data.images_to_measure()["image"]
    sides = {"train": training}
    tuning = [batch["image"] for loader in data.val_dataloader() for batch in loader]
    if sum(map(len, tuning)) >= _MIN_JUDGED:
        sides["tuning"] = torch.cat(tuning)
    with torch_threads(1):  # the same on any number of cores
        found = {side: reconstruction_of(module.net, images, training.mean(dim=0)) for side, images in sides.items()}
    judged = found.get("tuning", found["train"])
    described = {side: one.to_json() for side, one in found.items()}
    write_json(folder / RECONSTRUCTION, {**described, "collapsed": judged.is_collapsed})
    tell(_told(judged, "tuning" if "tuning" in found else "training"))


def _told(found: Reconstruction, side: str) -> str:
    said = (
        f"reconstructions explain {found.explained:.1%} of the variance of the {side} images; "
        f"{found.active:.0%} of the latent numbers are active, at {found.kl:.2f} nats each"
    )
    if not found.is_collapsed:
        return said
    return (
        f"{said}: the latents have collapsed, and no model of them would draw images; train for longer, or with a "
        "smaller model.training.kl_weight"
    )
