"""Images of a dataset directory for training: read once through MONAI, kept small on disk, served in batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError
from medtwin.core.files import write_json
from medtwin.core.images import ImageRow, table_to_images
from medtwin.core.squares import FITS, Fit
from medtwin.scans.cache import CachedImages, Form, read_cached_as
from medtwin.scans.class_weights import class_weights
from medtwin.scans.conditions import ConditionSpec, Encoded, ScanRequest, row_to_request
from medtwin.scans.intensity import IntensityMap
from medtwin.scans.module import ScanBatch
from medtwin.scans.pose import PoseLaw, find_poses, find_template, warp
from medtwin.scans.reader import Slices
from medtwin.scans.spacings import SpacingTable
from medtwin.training.batches import ResumableBatches, ResumableLoader
from medtwin.training.threads import torch_threads

DESCRIPTION = "scans.json"
"""What `save` writes and `generate.ScanModel` reads."""

_CHUNK = 256
_MAX_MEASURED = 4096
_VALUES_MEASURED = 2**28
_MIN_TRAIN_IMAGES = 8
Split = Literal["train", "tuning"]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Images:
    """The images of one split: pixels on disk, the rest in memory.

    Attributes:
        places: Of each image in the pixels.
        num_left_out: Series that were read and cannot be learned.
    """

    rows: list[ImageRow]
    pixels: CachedImages
    requests: list[ScanRequest]
    places: Sequence[int]
    num_left_out: int = 0

    def values(self, index: int) -> Array:
        """Modality values of an image, (*shape)."""
        return self.pixels.values(self.places[index])


class _Split(TorchDataset[Any]):
    """Images and conditions by index, a whole batch at a time; laid on the template where poses are given, (n, 6)."""

    def __init__(self, images: _Images, intensity: IntensityMap, conditions: Encoded) -> None:
        self._images, self._intensity, self._conditions = images, intensity, conditions
        self.poses: Tensor | None = None

    def __len__(self) -> int:
        return len(self._images.rows)

    def __getitems__(self, indices: Sequence[int]) -> ScanBatch:
        """The batch of some indices; torch's loaders ask for it in this way."""
        chosen = np.asarray(indices)
        images = self.images(chosen)
        return {
            "image": images if self.poses is None else warp(images, self.poses[torch.from_numpy(chosen)]),
            "values": torch.from_numpy(self._conditions.values[chosen]),
            "known": torch.from_numpy(self._conditions.known[chosen]),
        }

    def images(self, indices: Iterable[int]) -> Tensor:
        """Some images in the scale of the network as they are, (n, 1, *shape)."""
        return torch.from_numpy(np.stack([self.image(int(index)) for index in indices])[:, None])

    def image(self, index: int) -> Array:
        """One image in the scale of the network as it is, (*shape)."""
        row = self._images.rows[index]
        return self._intensity.to_model(self._images.values(index), row.modality, bits_of(row))


class ScanDataModule(lightning.LightningDataModule):
    """Batches of images of some modalities, with their conditions.

    Vocabularies, scales and intensity windows come from the train split alone; tuning validates; held_out is not read.

    Attributes:
        form: What series are brought to.
        softens: Whether a CT may have a softening; not where others will see it in its whole range.
    """

    shares_cache = True
    softens = True

    def __init__(  # noqa: PLR0913 - settings of a configuration, each by its name
        self,
        *,
        batch_size: int,
        size: int,
        modalities: Sequence[str] = ("CR", "DX"),
        slices: Slices = "skip",
        fit: Fit = "pad",
        min_count: int = 5,
        balance: float | Mapping[str, float] = 0.0,
        align: bool = False,
        hu_softening: float | None = None,
    ) -> None:
        """Says what is wanted; `attach` reads it.

        Args:
            batch_size: Images of a training step.
            size: Rows and columns after resizing.
            modalities: DICOM modalities to learn.
            slices: What is done with a series of several slices: skip it, or take its middle slice.
            fit: How an image becomes square: pad its shorter side, or crop its longer one; it is never stretched.
            min_count: A category or finding of fewer training images is not learned.
            balance: How much images of rare findings are shown more often: 0 not at all, 1 as often as if all were
                equally frequent; or powers by name, of `class_weights.BALANCED`.
            align: Lay the images on a template before they are learned, and move what is drawn (`pose.py`).
            hu_softening: Hounsfield units about soft tissue that a CT shows the network as they are; what lies beyond
                them is brought together the more, the farther it is (`intensity.Window`). None: all are alike.

        Raises:
            ValueError: If a number or a choice is out of its range.
        """
        super().__init__()
        for name, value in (("batch_size", batch_size), ("size", size), ("min_count", min_count)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value!r}")
        if slices not in ("skip", "middle"):
            raise ValueError(f"slices must be skip or middle, got {slices!r}")
        if fit not in FITS:
            raise ValueError(f"fit must be {' or '.join(FITS)}, got {fit!r}")
        if not modalities:
            raise ValueError("modalities must name at least one DICOM modality")
        self.batch_size, self.size, self.min_count = batch_size, size, min_count
        self.balance = dict(balance) if isinstance(balance, Mapping) else {"findings": balance}
        class_weights([], self.balance, [])  # refuses what it cannot balance
        self.align = align
        if hu_softening is not None and not self.softens:
            raise ValueError(f"hu_softening must be null for an encoder, got {hu_softening!r}")
        IntensityMap.fit([], hu_softening=hu_softening)  # refuses what it cannot use
        self.hu_softening = hu_softening
        self.modalities, self.slices, self.fit = tuple(modalities), slices, fit
        self._seed = 0
        self.form = Form.squares(size, fit)

    def attach(self, dataset: Dataset, *, seed: int, cache: Path, latents: Path | None = None) -> None:
        """Reads the images of a dataset, and fits on its train split all that is fitted.

        Args:
            dataset: Images, and the split of each subject.
            seed: Of the order of batches.
            cache: A folder for the resized images (`cache.py`); what is there already is not read again.
            latents: A parquet file with `series_uid` and `latent` (a list of numbers, of one length): the patient
                latent at imaging time. Images without one have none.

        Raises:
            DatasetError: If there are too few training images, all are one constant, or the latents cannot be used.
            SourceError: If a series cannot be read; the message names it.
        """
        self._seed = seed
        splits = dataset.subject_splits()
        rows = [row for row in table_to_images(dataset.images()) if self.wants(row)]
        latent_of = _read_latents(latents)
        self._splits: dict[Split, _Images] = {}
        for split in ("train", "tuning"):
            chosen = [row for row in rows if splits.get(row.subject_id) == split]
            if split == "train":
                self._require(dataset, len(chosen), "set data.modalities to what it has")
            self._splits[split] = self._read(dataset, chosen, cache, latent_of)
        train = self._splits["train"]
        self._require(dataset, len(train.rows), f"{train.num_left_out} more cannot be used, as docs/scans.md says")
        self.spec = ConditionSpec.fit(train.requests, min_count=self.min_count)
        pixels = ((train.values(i), row.modality, bits_of(row)) for i, row in enumerate(train.rows))
        try:
            self.intensity = self.fit_intensity(pixels)
        except ValueError as error:
            raise DatasetError(f"{dataset.path}: {error}") from error
        self.spacings = SpacingTable.fit(train.requests)
        self._sets = {
            split: _Split(images, self.intensity, self.spec.encode(images.requests))
            for split, images in self._splits.items()
        }
        self.poses = self._find_poses() if self.align else None

    def _require(self, dataset: Dataset, number: int, hint: str) -> None:
        if number < _MIN_TRAIN_IMAGES:
            raise DatasetError(
                f"{dataset.path} must have {_MIN_TRAIN_IMAGES} training images or more of "
                f"{', '.join(self.modalities)}, got {number}: {hint}"
            )

    def fit_intensity(self, images: Iterable[tuple[Array, str, int]]) -> IntensityMap:
        """The map of training images: values, modality, bits stored. A data module for another use may see them so."""
        return IntensityMap.fit(images, hu_softening=self.hu_softening)

    def _find_poses(self) -> PoseLaw:
        """Lays all images on the template of the training images; returns how those lie."""
        train = self._sets["train"]
        with torch_threads(1):  # the poses, and so the weights, are the same on any number of cores
            step = -(-len(train) // _MAX_MEASURED)
            template = find_template(train.images(range(0, len(train), step)))
            for split in self._sets.values():
                parts = np.array_split(np.arange(len(split)), max(1, -(-len(split) // _CHUNK)))
                if len(split):
                    split.poses = torch.cat([find_poses(split.images(part), template) for part in parts])
            values, known = (torch.from_numpy(array) for array in self.spec.encode(self._splits["train"].requests))
            assert train.poses is not None
            return PoseLaw.fit(train.poses, values, known, self.spec.widths)

    @property
    def sizes(self) -> dict[str, Any]:
        """What only the data knows, for the constructors of the net and the module."""
        return {"model": {"size": list(self.form.shape), "condition_widths": list(self.spec.widths)}}

    @property
    def num_images(self) -> dict[str, int]:
        """Images by split."""
        return {split: len(images.rows) for split, images in self._splits.items()}

    def images_to_measure(self) -> ScanBatch:
        """Training images in the scale of the network with their conditions.

        They are thinned out evenly beyond 4096, and beyond what a gigabyte holds.
        """
        data = self._sets["train"]
        most = max(_MIN_TRAIN_IMAGES, min(_MAX_MEASURED, _VALUES_MEASURED // math.prod(self.form.shape)))
        step = -(-len(data) // most)
        return data.__getitems__(range(0, len(data), step))

    @property
    def geometry(self) -> dict[str, Any]:
        """The shape of the images, for scans.json."""
        return {"size": self.size}

    def save(self, folder: Path) -> None:
        """Writes scans.json: conditions, intensity windows, spacings, size; all that generation needs."""
        description = {
            **self.geometry,
            "conditions": self.spec.to_json(),
            "intensity": self.intensity.to_json(),
            "spacings": self.spacings.to_json(),
            "poses": None if self.poses is None else self.poses.to_json(),
            "num_train_images": len(self._splits["train"].rows),
            "num_left_out": {split: images.num_left_out for split, images in self._splits.items()},
        }
        write_json(folder / DESCRIPTION, description)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches in an order that depends on (seed, epoch, position) only."""
        return self.train_batches(self.batch_size)

    def train_batches(self, batch_size: int, *, drop_last: bool = False) -> DataLoader[Any]:
        """The same of another size, with or without a last one that is smaller."""
        data = self._sets["train"]
        weights = class_weights(self._splits["train"].requests, self.balance, self.spec.findings)
        batches = ResumableBatches(len(data), batch_size, self._seed, weights=weights, drop_last=drop_last)
        return ResumableLoader(data, batches, collate_fn=_as_it_is)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """The tuning images in their order; no loader where there are none."""
        data = self._sets["tuning"]
        return [DataLoader(data, batch_size=self.batch_size, collate_fn=_as_it_is)] if len(data) else []

    def wants(self, row: ImageRow) -> bool:
        """Whether a series is one to learn, by what the image table says of it."""
        return row.modality in self.modalities and (row.num_slices == 1 or self.slices == "middle")

    def keeps(self, spacing_mm: tuple[float, float] | None) -> bool:
        """Whether an image that was read can be learned, by its spacing."""
        return True

    def _read(self, dataset: Dataset, rows: list[ImageRow], cache: Path, latent_of: dict[str, Array]) -> _Images:
        images = read_cached_as(dataset, rows, cache, self.form)
        found = [(i, spacing) for i, spacing in enumerate(images.spacings()) if self.keeps(spacing)]
        kept = [rows[i] for i, _ in found]
        requests = [
            row_to_request(row, spacing, latent_of.get(row.series_uid))
            for row, (_, spacing) in zip(kept, found, strict=True)
        ]
        return _Images(kept, images, requests, [i for i, _ in found], len(rows) - len(kept))


def bits_of(row: ImageRow) -> int:
    """Bits stored; 16 where the table does not say."""
    return row.bits_stored or 16


def _read_latents(path: Path | None) -> dict[str, Array]:
    if path is None:
        return {}
    if not path.is_file():
        raise DatasetError(f"{path} is missing: it must be a parquet file with series_uid and latent")
    table = pq.ParquetFile(path).read()
    if not {"series_uid", "latent"} <= set(table.column_names):
        raise DatasetError(f"{path} must have the columns series_uid and latent, got {', '.join(table.column_names)}")
    latents = [np.asarray(latent, np.float32) for latent in table["latent"].to_pylist()]
    if len({len(latent) for latent in latents}) > 1 or not all(np.isfinite(latent).all() for latent in latents):
        raise DatasetError(f"{path}: every latent must be finite and of one length")
    return dict(zip(table["series_uid"].to_pylist(), latents, strict=True))


def _as_it_is(batch: Any) -> Any:
    return batch
