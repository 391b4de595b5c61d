"""Volumes of a dataset directory for training: series of slices in the place of single images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medtwin.core.images import ImageRow
from medtwin.core.squares import Fit
from medtwin.scans.data import ScanDataModule
from medtwin.scans.volumes import VolumeGrid

_OF_SLICES = ("CT", "MR")
"""Modalities whose volumes can be written."""


class VolumeDataModule(ScanDataModule):
    """As `ScanDataModule`, of series of several slices as volumes (`volumes.py`).

    What turns out not to be a volume when it is read, with slices missing, uneven or tilted, is left out and counted.
    """

    def __init__(  # noqa: PLR0913 - settings of a configuration, each by its name
        self,
        *,
        batch_size: int,
        size: Sequence[int],
        voxel_ratio: float = 1.0,
        modalities: Sequence[str] = ("CT",),
        min_slices: int = 3,
        fit: Fit = "pad",
        min_count: int = 5,
        balance: float | Mapping[str, float] = 0.0,
        hu_softening: float | None = None,
    ) -> None:
        """Says what is wanted; `attach` reads it.

        Args:
            batch_size: Volumes of a training step.
            size: Slices, rows and columns after resampling.
            voxel_ratio: Distance of slices over that of rows and columns, after resampling; 1: voxels are cubes.
            modalities: DICOM modalities to learn, CT or MR.
            min_slices: A series of fewer is not learned; 2 or more.
            fit: How a volume comes into the grid: pad, or crop; it is never stretched (`VolumeGrid`).
            min_count: A category or finding of fewer training volumes is not learned.
            balance: How much volumes of rare findings are shown more often, as in `ScanDataModule`.
            hu_softening: How a CT is shown to the network, as in `ScanDataModule`.

        Raises:
            ValueError: If a number or a choice is out of its range.
        """
        if len(size) != 3:
            raise ValueError(f"size must be slices, rows and columns, got {size!r}")
        self.grid = VolumeGrid((size[0], size[1], size[2]), voxel_ratio, fit)
        if min_slices < 2:
            raise ValueError(f"min_slices must be 2 or more, got {min_slices!r}")
        if unknown := sorted(set(modalities) - set(_OF_SLICES)):
            raise ValueError(f"modalities must be of {', '.join(_OF_SLICES)}, got {unknown}")
        super().__init__(
            batch_size=batch_size, size=size[2], modalities=modalities, fit=fit, min_count=min_count, balance=balance,
            hu_softening=hu_softening,
        )  # fmt: skip
        self.min_slices = min_slices
        self.form = self.grid.form()

    @property
    def geometry(self) -> dict[str, Any]:
        """The shape of the volumes and of their voxels, for scans.json."""
        return {"size": list(self.grid.size), "voxel_ratio": self.grid.ratio}

    def wants(self, row: ImageRow) -> bool:
        """Whether a series has slices enough."""
        return row.modality in self.modalities and row.num_slices >= self.min_slices

    def keeps(self, spacing_mm: tuple[float, float] | None) -> bool:
        """Whether a series that was read is a volume."""
        return spacing_mm is not None


__all__ = ["VolumeDataModule"]
