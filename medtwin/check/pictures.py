"""The pictures that `check` compares: the middle image of each series, small, in shares of its stored range.

They are square and not stretched, real ones and twins alike (`core.squares`): a release that squashes its radiographs
to squares would else differ from its twins in shape alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError
from medtwin.core.images import ImageRow, table_to_images
from medtwin.core.seeds import generator
from medtwin.core.squares import fit_square

MAX_IMAGES = 1500
"""Series read of each side, a random choice above: the cost is in reading them, and the numbers are steady by then."""
MAX_SIZE = 128
MIN_IMAGES = 20
"""Images of a modality and view, on both sides, below which the group is not compared."""

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """One series of a dataset.

    Attributes:
        group: Modality and view, as in `CR PA`.
        pixels: Its middle image, 0 to 1 over the stored range, (size, size), averaged down to at most `MAX_SIZE`, and
            padded with its darkest value where it is not square.
        digest: Of the pixels as they stand. size: The smaller of rows and columns as they stand.
        view: DICOM ViewPosition. sex: M, F or O. age_years: At imaging. None where unknown.
        labels: Findings as `SYSTEM//code`; empty: none found; None: not labelled.
        hounsfield: The Hounsfield units that 0 and 1 stand for; None where the image is not in them.
    """

    subject_id: int
    group: str
    pixels: Pixels
    digest: bytes
    size: int
    view: str | None = None
    sex: str | None = None
    age_years: float | None = None
    labels: tuple[str, ...] | None = None
    hounsfield: tuple[float, float] | None = None

    @property
    def modality(self) -> str:
        """The first word of the group."""
        return self.group.partition(" ")[0]


def read_pictures(
    dataset: Dataset, splits: Sequence[str], *, seed: int, max_images: int = MAX_IMAGES
) -> Iterator[Picture]:
    """The pictures of the subjects of some splits; at most `max_images`, chosen by the seed."""
    chosen = set(splits)
    split_of = dataset.subject_splits()
    rows = [row for row in table_to_images(dataset.images()) if split_of.get(row.subject_id, "data") in chosen]
    if len(rows) > max_images:
        kept = np.sort(generator(seed, "check", "images").permutation(len(rows))[:max_images])
        rows = [rows[i] for i in kept]
    for row in rows:
        yield read_picture(dataset, row)


def group_of(row: ImageRow) -> str:
    """Modality and view, as in `CR PA`."""
    return f"{row.modality} {row.view}" if row.view else row.modality


def read_picture(dataset: Dataset, row: ImageRow) -> Picture:
    """The middle image of a series.

    Raises:
        DatasetError: If the series has no images or its pixels cannot be read.
    """
    from medtwin.core.errors import SourceError
    from medtwin.dicom import open_series

    try:
        series = open_series(dataset.path / row.path)
        volume = series.pixels(invert_monochrome1=True)
    except SourceError as error:
        raise DatasetError(f"{dataset.path}: {row.path} cannot be read: {error}") from error
    pixels = volume[len(volume) // 2]
    instance = series.instances[len(volume) // 2]
    low, high = (bound * instance.slope + instance.intercept for bound in instance.pixel.stored_range)
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).tobytes() + repr(pixels.shape).encode(), digest_size=16)
    unit = ((pixels - low) / (high - low)).astype(np.float32)
    size = min(pixels.shape)
    geometry = series.geometry
    row_mm, column_mm = geometry.pixel_spacing_row_mm, geometry.pixel_spacing_column_mm
    pixel = (row_mm, column_mm) if row_mm and column_mm else geometry.pixel_aspect_ratio or (1.0, 1.0)
    return Picture(
        row.subject_id,
        group_of(row),
        fit_square(unit, (pixel[0], pixel[1]), min(size, MAX_SIZE)).values,
        digest.digest(),
        size,
        row.view,
        row.sex,
        row.age_years,
        None if row.labels is None else tuple(row.labels),
        (float(low), float(high)) if row.intensity_unit == "HU" else None,
    )


def resample(image: Pixels, size: int) -> Pixels:
    """The image at (size, size); each pixel is the mean of the area that it covers, so that nothing aliases."""
    from PIL import Image

    if image.shape == (size, size):
        return image
    enlarges = size > min(image.shape)
    how = Image.Resampling.BILINEAR if enlarges else Image.Resampling.BOX
    return np.asarray(Image.fromarray(image).resize((size, size), how), np.float32)


def common_size(*sides: Sequence[Picture]) -> int:
    """The largest size that no picture has to be enlarged to, at most `MAX_SIZE`."""
    return min(MAX_SIZE, *(one.size for side in sides for one in side))


def stacked(pictures: Sequence[Picture], size: int) -> Pixels:
    """The pixels of some pictures, (pictures, size, size)."""
    if not pictures:
        return np.zeros((0, size, size), np.float32)
    return np.stack([resample(one.pixels, size) for one in pictures])


def subjects_of(pictures: Sequence[Picture]) -> NDArray[np.int64]:
    """Whose they are, (pictures,)."""
    return np.array([one.subject_id for one in pictures], np.int64)
