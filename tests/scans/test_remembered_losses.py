"""Whether the losses of a run tell whom it learned from: what is asked of a run, and what of the dataset."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medtwin.check.image_losses import loss_measure
from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError
from medtwin.core.files import write_json
from medtwin.pipelines import check_scan_losses
from medtwin.scans.data import ScanDataModule
from medtwin.scans.generate import DATA_FOLDER
from medtwin.scans.module import ScanDiffusionModule
from tests.scans.samples import Spec, write_dataset
from tests.scans.test_unet import small

NUM = 32
"""Patients of either side; 30 are needed."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path, ScanDiffusionModule]:
    """A dataset, the folder of a run on it as far as losses need it, and its module, measured but not trained."""
    folder = tmp_path_factory.mktemp("losses")
    splits = ("train", "held_out")
    dataset = write_dataset(folder / "dataset", [Spec(split=split, shape=(16, 16)) for split in splits] * NUM)
    for split in splits:
        _with_split(folder / "dataset", split)
    data = ScanDataModule(batch_size=8, size=16, min_count=2)
    data.attach(dataset, seed=0, cache=folder / "cache")
    (folder / "run" / DATA_FOLDER).mkdir(parents=True)
    data.save(folder / "run" / DATA_FOLDER)
    torch.manual_seed(0)
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    module = ScanDiffusionModule(small(patch=2), optimizer, **data.sizes["model"], rank=0)
    module.measure(data.images_to_measure())
    return dataset, folder / "run", module.eval()


def _with_split(folder: Path, split: str) -> None:
    """An empty file in the place of events, which losses do not read."""
    (folder / "data" / split).mkdir(parents=True)
    (folder / "data" / split / "0.parquet").touch()


def losses_of(
    run: tuple[Dataset, Path, Any], monkeypatch: pytest.MonkeyPatch, dataset: Dataset | None = None, seed: int = 0
) -> tuple[check_scan_losses.Losses, check_scan_losses.Losses]:
    monkeypatch.setattr(check_scan_losses, "load_run", lambda _: (run[2], {"name": "scan_gan", "data": {}}))
    return check_scan_losses.scan_losses(run[1], dataset or run[0], seed=seed)


def test_a_model_that_was_not_trained_tells_nobody_and_one_that_knows_them_tells(
    run: tuple[Dataset, Path, ScanDiffusionModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    training, control = losses_of(run, monkeypatch)
    for losses, subject in (training, control):
        assert losses.shape == (NUM, len(check_scan_losses.SIGMAS))
        assert (losses > 0).all()
        assert len(np.unique(subject)) == NUM
    assert not set(training[1]) & set(control[1])
    again = losses_of(run, monkeypatch)
    assert (again[0][0] == training[0]).all()
    measure, told = loss_measure(training, control)
    assert measure.estimate is not None
    assert measure.estimate.low < 0.5 < measure.estimate.high
    assert (told.num_members, told.num_others) == (NUM, NUM)

    known = _training_images(run, monkeypatch)
    plain = run[2].average.denoise

    def remembers(x: torch.Tensor, sigma: torch.Tensor, cond: Any) -> torch.Tensor:
        """Halfway from what it says to the training image that is nearest, where one is near."""
        distance = torch.cdist(x.flatten(1), known.flatten(1)) / x[0].numel() ** 0.5
        nearest = distance.argmin(dim=1)
        is_near = (distance[torch.arange(len(x)), nearest] < 1.05 * sigma)[:, None, None, None]
        return torch.where(is_near, (plain(x, sigma, cond) + known[nearest]) / 2, plain(x, sigma, cond))

    monkeypatch.setattr(run[2].average, "denoise", remembers)
    measure, _ = loss_measure(*losses_of(run, monkeypatch))
    assert measure.estimate is not None
    assert measure.estimate.low > 0.6


def _training_images(run: tuple[Dataset, Path, Any], monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """As the losses see them."""
    seen: list[torch.Tensor] = []

    def kept(_: Any, images: torch.Tensor, *__: Any) -> np.ndarray:
        seen.append(images)
        return np.ones((len(images), 1))

    with monkeypatch.context() as patch:
        patch.setattr(check_scan_losses, "denoising_losses", kept)
        losses_of(run, patch)
    return seen[0]


def test_what_is_no_such_model_or_of_other_patients_is_refused(
    run: tuple[Dataset, Path, ScanDiffusionModule], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="must be a run of model=scan_diffusion, got one of scan_gan"):
        losses_of((run[0], run[1], torch.nn.Linear(1, 1)), monkeypatch)
    write_json(run[1] / "provenance.json", {"inputs": [{"role": "dataset", "manifest_sha256": "other"}]})
    monkeypatch.setattr(Dataset, "is_finished", property(lambda _: True))
    monkeypatch.setattr(Dataset, "manifest_hash", lambda _: "this")
    with pytest.raises(ConfigError, match="it learned from another dataset"):
        losses_of(run, monkeypatch)
    (run[1] / "provenance.json").unlink()


def test_of_few_patients_nothing_is_computed_and_nothing_said(
    run: tuple[Dataset, Path, ScanDiffusionModule], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dataset = write_dataset(tmp_path / "few", [Spec(split="train", shape=(16, 16))] * 5)
    _with_split(tmp_path / "few", "train")
    monkeypatch.setattr(check_scan_losses, "read_cached", None)  # not called
    measure, told = loss_measure(*losses_of(run, monkeypatch, dataset))
    assert measure.estimate is None
    assert (told.num_members, told.num_others) == (5, 0)
    assert "5 and 0" in measure.reason
