"""DICOM series through MONAI: our reader behind `LoadImaged`, and the way to a square of one size.

MONAI 1.6.1's own readers are not used: they leave MONOCHROME1 inverted, ignore ImagerPixelSpacing and sort by
InstanceNumber (notes/images.md, section 4).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from monai.data.image_reader import ImageReader
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.io.dictionary import LoadImaged
from monai.transforms.transform import MapTransform, Transform
from numpy.typing import NDArray

from medtwin.core.errors import SourceError
from medtwin.core.squares import Fit, fit_square
from medtwin.dicom import Series, open_series

SPACING = "pixel_spacing_mm"
"""Key of the metadata: (row, column) in mm, or None where the files do not say."""

ASPECT = "pixel_aspect_ratio"
"""Key of the metadata: height to width of a pixel, (vertical, horizontal), where only that is known; else None."""

AFFINE = "affine_lps"
"""Key of the metadata: 4 x 4, from (column, row, slice, 1) to mm; None where the files do not say or no one is true."""

Slices = Literal["skip", "middle"]


class SeriesReader(ImageReader):
    """Reads the one DICOM series of a folder as float32 modality values, (slices, rows, columns).

    Slices are sorted in space, rescaled (HU for CT), MONOCHROME1 inverted. The metadata holds `pixel_spacing_mm`,
    `pixel_aspect_ratio`, `slice_spacing_mm`, `modality`, `bits_stored` and `affine_lps` (4 x 4, from (column, row,
    slice, 1) to mm; not MONAI's `affine`, whose axes are those of the array). What the files do not say is None, not 1.
    """

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Whether it is a folder."""
        return all(folder.is_dir() for folder in _folders(filename))

    def read(self, data: Sequence[Any] | Any, **_: Any) -> Series:
        """Lists the series of a folder.

        Raises:
            SourceError: If it cannot be read, or the folder holds no series or several.
        """
        folders = _folders(data)
        if len(folders) != 1:
            raise SourceError(f"one folder of one series must be named, got {len(folders)}")
        return open_series(folders[0])

    def get_data(self, img: Series) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The pixels and the metadata.

        Raises:
            SourceError: If the pixels cannot be decoded.
        """
        geometry = img.geometry
        row, column = geometry.pixel_spacing_row_mm, geometry.pixel_spacing_column_mm
        values = img.pixels(invert_monochrome1=True)
        return values, {
            "original_channel_dim": float("nan"),  # MONAI's word for: there is no channel axis
            "spatial_shape": np.array(values.shape),
            SPACING: None if row is None or column is None else (row, column),
            ASPECT: geometry.pixel_aspect_ratio,
            "slice_spacing_mm": geometry.slice_spacing_mm,
            AFFINE: img.affine(),
            "modality": img.header.modality,
            "bits_stored": img.instances[0].pixel.bits_stored,
        }


class LoadSeriesd(LoadImaged):
    """MONAI's `LoadImaged` that reads with `SeriesReader` and with nothing else.

    LoadImaged keeps MONAI's readers beside the one it is given and turns to them when it fails, so that a corrupt
    series would be read by the reader whose faults are listed above. Here the error goes to the caller.
    """

    def __init__(self, keys: Hashable | Sequence[Hashable]) -> None:
        self._reader = SeriesReader()
        with _quiet_codecs():
            super().__init__(keys, reader=SeriesReader)

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Puts the image of each key in the place of its folder."""
        return dict(super().__call__(data, reader=reader or self._reader))


class PickSliced(MapTransform):
    """(slices, rows, columns) to (1, rows, columns): the only slice, or the middle one (the lower of two middles)."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Picks the slice of each key."""
        picked = dict(data)
        for key in self.key_iterator(picked):
            middle = (picked[key].shape[0] - 1) // 2
            picked[key] = picked[key][middle : middle + 1]
        return picked


class FitSquared(MapTransform):
    """Fits an image into a square without stretching it, and keeps the true spacing.

    Pixels become square (by their spacing, else their aspect ratio, else they count as square); the shorter side is
    padded with the image's darkest value, or the longer one cropped (`core.squares.fit_square`). `pixel_spacing_mm`
    becomes that of the new pixels, the source's times the factor of resizing; what is unknown stays unknown.
    """

    def __init__(self, keys: Hashable | Sequence[Hashable], size: int, fit: Fit = "pad") -> None:
        super().__init__(keys)
        if size < 1:
            raise ValueError(f"size must be 1 or more, got {size!r}")
        self.size, self.fit = size, fit

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Fits the image of each key, (1, rows, columns)."""
        fitted = dict(data)
        for key in self.key_iterator(fitted):
            fitted[key] = self._fit(fitted[key])
        return fitted

    def _fit(self, image: MetaTensor) -> MetaTensor:
        spacing: tuple[float, float] | None = image.meta[SPACING]
        pixel = spacing or image.meta.get(ASPECT) or (1.0, 1.0)
        square = fit_square(np.asarray(image[0], np.float32), (pixel[0], pixel[1]), self.size, self.fit)
        meta = {**image.meta, SPACING: None if spacing is None else (square.step, square.step)}
        return MetaTensor(torch.from_numpy(square.values[None]), meta=meta)


class LoadedImage(NamedTuple):
    """An image ready for the cache.

    Attributes:
        values: Modality values, (size, size) or (slices, rows, columns).
        spacing_mm: Row and column of its pixels; None: unknown.
    """

    values: NDArray[np.float32]
    spacing_mm: tuple[float, float] | None


def image_transform(size: int, fit: Fit = "pad") -> Transform:
    """From `{"image": folder}` to one square slice, (1, size, size), with its metadata."""
    return Compose([LoadSeriesd("image"), PickSliced("image"), FitSquared("image", size, fit)])


def load_image(folder: Path, transform: Transform) -> LoadedImage:
    """The image of a series' folder, as a transform makes it.

    Raises:
        SourceError: If the series cannot be read or decoded; the message names the series.
    """
    try:
        image = transform({"image": str(folder)})["image"]
    except RuntimeError as error:  # MONAI's Compose wraps what a transform raises
        raise SourceError(f"the series {folder} cannot be read: {_cause(error)}") from error
    values = np.asarray(image[0], dtype=np.float32)
    if not np.isfinite(values).all():
        raise SourceError(f"the series {folder} must hold finite values only: leave it out of the dataset")
    return LoadedImage(values, image.meta[SPACING])


def _folders(names: Any) -> list[Path]:
    return [Path(name) for name in (names if isinstance(names, (list, tuple)) else [names])]


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _quiet_codecs() -> Iterator[None]:
    """Without the two messages that each LoadImage gives where nvImageCodec, which we do not use, is absent."""
    logger = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
            yield
    finally:
        logger.setLevel(level)
