"""Series of slices as volumes of one shape: along the patient's axes, of one voxel, padded or cropped, never stretched.

A series is a volume only where its geometry is known and even: a pixel spacing, positions at one distance, slices at
right angles to the way they are stacked. What is anything else has no spacing here, and is left out of training.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.transform import MapTransform
from numpy.typing import NDArray

from medtwin.core.squares import FITS, Fit, axis_weights
from medtwin.scans.cache import Form
from medtwin.scans.intensity import HU_RANGE
from medtwin.scans.reader import AFFINE, SPACING, LoadSeriesd

Floats = NDArray[np.float32]
_RIGHT_ANGLE = 0.01
"""Most cosine between two axes that count as at right angles: half a degree; a gantry tilt is more."""


class Oriented(NamedTuple):
    """A stack along the axes of the patient.

    Attributes:
        values: Slices from the feet to the head, rows to the back, columns to the patient's left (DICOM's LPS).
        spacing_mm: Of slices, rows, columns.
    """

    values: Floats
    spacing_mm: tuple[float, float, float]


def along_patient(values: Floats, affine: NDArray[np.float64] | None) -> Oriented | None:
    """A stack with its axes put in the order and direction of those of the patient that lie nearest; no resampling.

    Args:
        values: (slices, rows, columns).
        affine: From (column, row, slice, 1) to mm in LPS, 4 x 4.

    Returns:
        None where the place of the voxels is unknown, or the axes are not at right angles.

    >>> sagittal = np.array([[0, 0, 2, 0], [3, 0, 0, 0], [0, -3, 0, 0], [0, 0, 0, 1.0]])
    >>> oriented = along_patient(np.arange(6, dtype=np.float32).reshape(1, 2, 3), sagittal)
    >>> oriented.values.tolist(), oriented.spacing_mm
    ([[[3.0], [4.0], [5.0]], [[0.0], [1.0], [2.0]]], (3.0, 3.0, 2.0))
    """
    if affine is None:
        return None
    axes = affine[:3, [2, 1, 0]]  # x, y, z of a step along slices, rows, columns
    lengths = np.linalg.norm(axes, axis=0)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        return None
    cosines = (axes / lengths)[::-1]  # z, y, x of each
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > _RIGHT_ANGLE:
        return None
    order = max(permutations(range(3)), key=lambda p: sum(abs(cosines[i, axis]) for i, axis in enumerate(p)))
    turned = values.transpose(order)
    flipped = tuple(i for i, axis in enumerate(order) if cosines[i, axis] < 0)
    slice_mm, row_mm, column_mm = (float(lengths[axis]) for axis in order)
    return Oriented(np.ascontiguousarray(np.flip(turned, flipped)), (slice_mm, row_mm, column_mm))


@dataclass(frozen=True)
class VolumeGrid:
    """The voxels that volumes are brought to.

    Attributes:
        size: Slices, rows, columns.
        ratio: Distance of slices over that of rows and of columns; 1: voxels are cubes.
        fit: pad: the volume fills the grid along one axis, what lies beyond it is its darkest value; crop: it fills the
            grid along every axis, what lies beyond the grid is cut off.
    """

    size: tuple[int, int, int]
    ratio: float = 1.0
    fit: Fit = "pad"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size must be 1 or more slices, rows and columns, got {list(self.size)}")
        if not (np.isfinite(self.ratio) and self.ratio > 0):
            raise ValueError(f"voxel_ratio must be positive, got {self.ratio!r}")
        if self.fit not in FITS:
            raise ValueError(f"fit must be {' or '.join(FITS)}, got {self.fit!r}")

    def place(self, volume: Oriented) -> tuple[Floats, float]:
        """A volume in the grid, its middle in the middle, and the distance of its new rows and columns in mm.

        Each voxel is the mean of what it covers where the grid is coarser than the volume, and is interpolated linearly
        where it is finer.

        Raises:
            ValueError: If the volume is empty or holds a value that is not finite.
        """
        values = volume.values
        if not values.size or not np.isfinite(values).all():
            raise ValueError(f"a volume must hold finite values, 1 or more, got {values.shape}")
        voxel = (volume.spacing_mm[0] / self.ratio, *volume.spacing_mm[1:])  # where a voxel of the grid is a cube
        extents = [n * mm / size for n, mm, size in zip(values.shape, voxel, self.size, strict=True)]
        step = max(extents) if self.fit == "pad" else min(extents)
        dark = values.min()
        placed = values.astype(np.float64) - dark
        for axis, (mm, size) in enumerate(zip(voxel, self.size, strict=True)):
            weights = axis_weights(values.shape[axis], mm / step, size)
            placed = np.moveaxis(np.tensordot(weights, placed, (1, axis)), 0, axis)
        return np.clip(placed + dark, dark, values.max()).astype(np.float32), step

    def form(self) -> Form:
        """How a series is brought to the grid, through MONAI."""
        transform = Compose([LoadSeriesd("image"), PlaceVolumed("image", self)])
        return Form(self.size, (list(self.size), self.ratio, self.fit), transform)


class PlaceVolumed(MapTransform):
    """Brings (slices, rows, columns) to (1, *grid.size); a CT is first clipped to the Hounsfield units of 12 bits.

    `pixel_spacing_mm` becomes that of the new rows and columns, the source's times the factor of resizing; None where
    the series is no volume.
    """

    def __init__(self, keys: Hashable, grid: VolumeGrid) -> None:
        super().__init__(keys)
        self.grid = grid

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Places the volume of each key."""
        placed = dict(data)
        for key in self.key_iterator(placed):
            placed[key] = self._place(placed[key])
        return placed

    def _place(self, image: MetaTensor) -> MetaTensor:
        values = np.asarray(image, np.float32)
        if image.meta["modality"] == "CT":
            values = values.clip(*HU_RANGE)
        volume = along_patient(values, image.meta[AFFINE])
        if volume is None or image.shape[0] < 2:
            return MetaTensor(torch.zeros(1, *self.grid.size), meta={**image.meta, SPACING: None})
        fitted, step = self.grid.place(volume)
        return MetaTensor(torch.from_numpy(fitted[None]), meta={**image.meta, SPACING: (step, step)})


__all__ = ["Oriented", "PlaceVolumed", "VolumeGrid", "along_patient"]
