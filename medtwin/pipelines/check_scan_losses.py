"""What the model that made the images says of those it learned from, and of those that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medtwin.check.attack_rows import Membership
from medtwin.check.attacks.membership import MIN_PEOPLE
from medtwin.check.compare import reference_splits
from medtwin.check.estimates import Measure
from medtwin.check.image_losses import loss_measure
from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError
from medtwin.core.files import read_json
from medtwin.core.images import ImageRow, table_to_images
from medtwin.core.provenance import PROVENANCE
from medtwin.core.seeds import generator
from medtwin.core.squares import Fit
from medtwin.pipelines.runs import load_run
from medtwin.pipelines.say import progress
from medtwin.scans.cache import CachedImages, read_cached
from medtwin.scans.conditions import Encoded, row_to_request
from medtwin.scans.data import DESCRIPTION, bits_of
from medtwin.scans.generate import DATA_FOLDER, ScanDescription
from medtwin.scans.module import ScanDiffusionModule
from medtwin.scans.pose import find_poses, find_template, warp
from medtwin.training.threads import torch_threads

SIGMAS = (0.1, 0.2, 0.5, 1.0)
"""Noise levels, of a range of -1 to 1: where details of one image are still to be filled in."""
NUM_DRAWS = 2
MAX_IMAGES = 300
"""Of each side, a random choice above."""
_BATCH = 32
Losses = tuple[NDArray[np.float64], NDArray[np.int64]]


def measure_scan_losses(run: Path, real: Dataset, *, seed: int) -> tuple[Measure, Membership]:
    """The attack by losses, from a run of model=scan_diffusion or scan_shortcut; too few patients: not measured.

    Raises:
        ConfigError: As `scan_losses`.
        MedtwinError: If it is no finished run.
    """
    return loss_measure(*scan_losses(run, real, seed=seed))


def scan_losses(run: Path, real: Dataset, *, seed: int) -> tuple[Losses, Losses]:
    """Denoising losses of training images and of the control, each with whose they are; 1 where there are too few.

    The control is every split of `real` that is not train; tuning has chosen the weights, which is all that the model
    has seen of it. Latents of patients, if it knows some, are left out.

    Raises:
        ConfigError: If the run is of another model or of volumes, or it learned from another dataset.
        MedtwinError: If it is no finished run.
    """
    module, config = load_run(run)
    if not isinstance(module, ScanDiffusionModule):
        raise ConfigError(f"scans={run} must be a run of model=scan_diffusion, got one of {config.get('name')}")
    _require_source(run, real)
    description = ScanDescription.from_json(read_json(run / DATA_FOLDER / DESCRIPTION))
    size = description.size
    if not isinstance(size, int):
        raise ConfigError(f"scans={run} must be a model of single images, got one of volumes")
    fit: Fit = config["data"].get("fit", "pad")
    sides = [_rows(real, splits, description, seed) for splits in reference_splits(real)]
    subjects = [np.array([row.subject_id for row in rows], np.int64) for rows in sides]
    if min(len(np.unique(one)) for one in subjects) < MIN_PEOPLE:
        ones = [np.ones((len(one), len(SIGMAS))) for one in subjects]  # nothing will be said of them
        return (ones[0], subjects[0]), (ones[1], subjects[1])
    with TemporaryDirectory() as folder, torch_threads(1):
        cached = [read_cached(real, rows, Path(folder), size=size, fit=fit) for rows in sides]
        images = [_scaled(one, rows, description) for one, rows in zip(cached, sides, strict=True)]
        if description.poses is not None:
            template = find_template(images[0])
            images = [warp(side, find_poses(side, template)) for side in images]
        training, control = (
            denoising_losses(module, side, _encoded(rows, one, description), seed)
            for side, rows, one in progress(list(zip(images, sides, cached, strict=True)), "losses", 2, "side")
        )
    return (training, subjects[0]), (control, subjects[1])


def _require_source(run: Path, real: Dataset) -> None:
    """Whether the run learned from `real`: of another dataset it would tell nothing, and seem harmless."""
    inputs = read_json(run / PROVENANCE)["inputs"] if (run / PROVENANCE).is_file() else []
    learned = {one["manifest_sha256"] for one in inputs if one["role"] == "dataset" and one["manifest_sha256"]}
    if learned and real.is_finished and real.manifest_hash() not in learned:
        raise ConfigError(f"scans={run} must have learned from real={real.path}, it learned from another dataset")


def _rows(real: Dataset, splits: Sequence[str], description: ScanDescription, seed: int) -> list[ImageRow]:
    split_of = real.subject_splits()
    rows = [
        row
        for row in table_to_images(real.images())
        if split_of.get(row.subject_id) in splits
        and row.num_slices == 1
        and description.conditions.knows(row.modality, row.body_part)
    ]
    rows.sort(key=lambda row: (row.subject_id, row.series_uid))
    chosen = generator(seed, "check", "losses of images", *splits).permutation(len(rows))[:MAX_IMAGES]
    return [rows[i] for i in np.sort(chosen)]


def _scaled(cached: CachedImages, rows: Sequence[ImageRow], description: ScanDescription) -> Tensor:
    scaled = [
        description.intensity.to_model(cached.values(i), row.modality, bits_of(row)) for i, row in enumerate(rows)
    ]
    return torch.from_numpy(np.stack(scaled)[:, None])


def _encoded(rows: Sequence[ImageRow], cached: CachedImages, description: ScanDescription) -> Encoded:
    requests = [row_to_request(row, spacing) for row, spacing in zip(rows, cached.spacings(), strict=True)]
    return description.conditions.encode(requests)


@torch.inference_mode()
def denoising_losses(module: ScanDiffusionModule, images: Tensor, encoded: Encoded, seed: int) -> NDArray[np.float64]:
    """Mean squared error of denoising at each of `SIGMAS`, over some draws of noise, (images, levels).

    Args:
        module: Of which the average denoises.
        images: In the scale of the network, (images, 1, *size).
        encoded: Their conditions.
        seed: Of the noise, which is the same on every call.
    """
    denoiser, draws = module.average.eval(), torch.Generator().manual_seed(seed)
    found = []
    for start in range(0, len(images), _BATCH):
        batch = module.coded(images[start : start + _BATCH])
        values, known = (torch.from_numpy(array[start : start + _BATCH]) for array in encoded)
        cond = denoiser.embed(values, known)
        errors = torch.zeros(len(batch), len(SIGMAS), dtype=torch.float64)
        for column, level in enumerate(SIGMAS):
            for _ in range(NUM_DRAWS):
                noisy = batch + level * torch.randn(batch.shape, generator=draws)
                x0 = denoiser.denoise(noisy, torch.full((len(batch),), level), cond)
                errors[:, column] += (x0 - batch).square().flatten(1).mean(dim=1) / NUM_DRAWS
        found.append(errors.numpy())
    return np.concatenate(found)
