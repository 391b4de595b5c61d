"""Square images of a dataset, read from DICOM once and then memory-mapped; many runs may share one folder of them.

A file holds some hundred images and is named by what they are: the digests of the series' files and how squares are
made of them. So it serves whoever asks for the same images, under whatever path their dataset lies, and a dataset that
changed gets files of its own. Files appear whole or not at all: two runs that start at once both make a file, of the
same content, and one that is killed leaves none that could be taken for one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medtwin.core.dataset import Dataset
from medtwin.core.errors import SourceError
from medtwin.core.files import MANIFEST, atomic_file, file_digest, read_json
from medtwin.core.images import ImageRow
from medtwin.core.squares import Fit
from medtwin.scans.reader import image_transform, load_image

CHUNK = 256
"""Images of a file."""
_VERSION = 2
Spacing = tuple[float, float]


@dataclass(frozen=True)
class CachedImages:
    """Images in the order that they were asked for.

    Attributes:
        chunks: Memory-mapped records of `values`, (size, size) float32, and `spacing_mm`, (2,) float64.
        chunk: Images of every chunk but the last.
    """

    chunks: Sequence[NDArray[np.void]]
    chunk: int

    def __len__(self) -> int:
        return sum(len(one) for one in self.chunks)

    def values(self, index: int) -> NDArray[np.float32]:
        """Modality values of an image, (size, size); read-only."""
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
    """The square images of some series; what the folder does not hold yet is read and written there.

    Args:
        dataset: Where the series are.
        rows: Which ones.
        folder: Of the cache; made if missing. It may be deleted at any time that no run uses it.
        size: Rows and columns.
        fit: How what is not square becomes so.

    Raises:
        SourceError: If a series cannot be read; the message names it.
    """
    digests = _series_digests(dataset, rows)
    record = np.dtype([("values", "<f4", (size, size)), ("spacing_mm", "<f8", (2,))])
    transform, chunks = image_transform(size, fit), []
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        name = json.dumps([_VERSION, size, fit, digests[start : start + CHUNK]])
        path = folder / f"scans-{size}-{hashlib.sha256(name.encode()).hexdigest()[:32]}.npy"
        if _opened(path, record, len(part)) is None:
            made = np.empty(len(part), record)
            for number, row in enumerate(part):
                image = load_image(dataset.path / row.path, transform)
                made[number] = (image.values, image.spacing_mm or (np.nan, np.nan))
            with atomic_file(path) as file:
                np.save(file, made, allow_pickle=False)
        found = _opened(path, record, len(part))
        if found is None:
            raise SourceError(f"{path} was changed while it was read: another program writes into the cache")
        chunks.append(found)
    return CachedImages(chunks, CHUNK)


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
