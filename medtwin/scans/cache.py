"""Images of a dataset in one shape, read from DICOM once and then memory-mapped; many runs may share one folder.

A file holds some hundred images and is named by what they are: the digests of the series' files and how images are
made of them. So it serves whoever asks for the same images, under whatever path their dataset lies, and a dataset that
changed gets files of its own. Files appear whole or not at all: two runs that start at once both make a file, of the
same content, and one that is killed leaves none that could be taken for one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms.transform import Transform
from numpy.typing import NDArray

from medtwin.core.dataset import Dataset
from medtwin.core.errors import SourceError
from medtwin.core.files import MANIFEST, atomic_file, file_digest, read_json
from medtwin.core.images import ImageRow
from medtwin.core.squares import Fit
from medtwin.scans.reader import image_transform, load_image

CHUNK = 256
"""Most images of a file."""
_VALUES_OF_A_FILE = 2**26
_VERSION = 2
Spacing = tuple[float, float]


@dataclass(frozen=True)
class Form:
    """How series are brought to images of one shape.

    Attributes:
        shape: (rows, columns), or (slices, rows, columns).
        settings: What tells this form from others, as plain values; a part of the names of files.
        transform: From `{"image": folder}` to the image, (1, *shape).
    """

    shape: tuple[int, ...]
    settings: tuple[Any, ...]
    transform: Transform

    @classmethod
    def squares(cls, size: int, fit: Fit = "pad") -> Form:
        """Single images, (size, size)."""
        return cls((size, size), (size, fit), image_transform(size, fit))


@dataclass(frozen=True)
class CachedImages:
    """Images in the order that they were asked for.

    Attributes:
        chunks: Memory-mapped records of `values`, (*shape) float32, and `spacing_mm`, (2,) float64.
        chunk: Images of every chunk but the last.
    """

    chunks: Sequence[NDArray[np.void]]
    chunk: int

    def __len__(self) -> int:
        return sum(len(one) for one in self.chunks)

    def values(self, index: int) -> NDArray[np.float32]:
        """Modality values of an image, (*shape); read-only."""
        values: NDArray[np.float32] = self.chunks[index // self.chunk]["values"][index % self.chunk]
        return values

    def spacings(self) -> Iterator[Spacing | None]:
        """Row and column spacing of each image in mm; None: unknown."""
        for one in self.chunks:
            for row, column in one["spacing_mm"].tolist():
                yield None if np.isnan(row) else (row, column)


def read_cached(
    dataset: Dataset, rows: Sequence[ImageRow], folder: Path, *, size: int, fit: Fit = "pad"
) -> CachedImages:
    """The square images of some series: `read_cached_as` of `Form.squares`."""
    return read_cached_as(dataset, rows, folder, Form.squares(size, fit))


def read_cached_as(dataset: Dataset, rows: Sequence[ImageRow], folder: Path, form: Form) -> CachedImages:
    """The images of some series; what the folder does not hold yet is read and written there.

    Args:
        dataset: Where the series are.
        rows: Which ones.
        folder: Of the cache; made if missing. It may be deleted at any time that no run uses it.
        form: What they are brought to.

    Raises:
        SourceError: If a series cannot be read; the message names it.
    """
    digests, chunks = _series_digests(dataset, rows), []
    record = np.dtype([("values", "<f4", form.shape), ("spacing_mm", "<f8", (2,))])
    chunk = max(1, min(CHUNK, _VALUES_OF_A_FILE // math.prod(form.shape)))
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        name = json.dumps([_VERSION, *form.settings, digests[start : start + chunk]])
        path = folder / f"scans-{form.shape[-1]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}.npy"
        if _opened(path, record, len(part)) is None:
            made = np.empty(len(part), record)
            for number, row in enumerate(part):
                image = load_image(dataset.path / row.path, form.transform)
                made[number] = (image.values, image.spacing_mm or (np.nan, np.nan))
            with atomic_file(path) as file:
                np.save(file, made, allow_pickle=False)
        found = _opened(path, record, len(part))
        if found is None:
            raise SourceError(f"{path} was changed while it was read: another program writes into the cache")
        chunks.append(found)
    return CachedImages(chunks, chunk)


def _opened(path: Path, record: np.dtype[np.void], count: int) -> NDArray[np.void] | None:
    """The images of a file; None where there is none, or not one of so many such images."""
    try:
        found: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):  # not there, cut short, or no array
        return None
    return found if found.dtype == record and found.shape == (count,) else None


def _series_digests(dataset: Dataset, rows: Sequence[ImageRow]) -> list[str]:
    """What each series is, by the sha256 of its files: as the manifest says, else as they are read."""
    stated: dict[str, list[str]] = {}
    if dataset.is_finished:
        for name, file in sorted(read_json(dataset.path / MANIFEST)["files"].items()):
            stated.setdefault(name.rpartition("/")[0], []).append(file["sha256"])
    found = []
    for row in rows:
        files = stated.get(row.path)
        if files is None:
            files = [file_digest(file) for file in sorted((dataset.path / row.path).glob("*")) if file.is_file()]
        found.append(hashlib.sha256("\n".join(files).encode()).hexdigest())
    return found
