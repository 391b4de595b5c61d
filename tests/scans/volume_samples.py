"""Series of slices with known content: a body, a bone in front of its left shoulder and a lung, unlike when turned.

The body is written as a scanner might: axial, coronal or sagittal, with thick slices or thin ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtwin.core.dataset import Dataset
from medtwin.core.images import ImageRow, images_to_table
from medtwin.dicom import Patient, Study, Volume, synthetic_uid, write_volume
from tests.scans.samples import BIG

AIR, BODY, LUNG, BONE = -1000.0, 40.0, -800.0, 700.0
BONE_AT = np.array([20.0, -15.0, 30.0])
"""Its middle in mm: to the left, to the front, to the head."""
RADII = {True: 24.0, False: 15.0}

PLANES = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
}


@dataclass(frozen=True)
class VolumeSpec:
    """One series.

    Attributes:
        shape, spacing_mm: Of slices, rows, columns.
    """

    is_big: bool = False
    split: str = "train"
    plane: str = "axial"
    shape: tuple[int, int, int] = (20, 40, 40)
    spacing_mm: tuple[float, float, float] = (8.0, 4.0, 4.0)
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


def hu_at(points: np.ndarray, spec: VolumeSpec) -> np.ndarray:
    """The body in HU at places in mm (LPS), (..., 3)."""
    moved = points - np.array(spec.shift_mm)
    hu = np.where((moved / (60.0, 45.0, 70.0)) ** 2 @ np.ones(3) < 1, BODY, AIR)
    hu = np.where(np.linalg.norm(moved - (-25.0, 0.0, 0.0), axis=-1) < 20, LUNG, hu)
    return np.where(np.linalg.norm(moved - BONE_AT, axis=-1) < RADII[spec.is_big], BONE, hu)


def volume(spec: VolumeSpec) -> Volume:
    """What a scanner makes of a spec, its middle at the origin; a voxel is the mean of eight places in it."""
    orientation = PLANES[spec.plane]
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    axes = np.stack([np.cross(row, column), column, row]) * np.array(spec.spacing_mm)[:, None]
    index = np.stack(np.meshgrid(*[np.arange(2 * n) / 2 - (n - 0.5) / 2 for n in spec.shape], indexing="ij"), axis=-1)
    fine = hu_at(index @ axes, spec)
    slices, rows, columns = spec.shape
    values = fine.reshape(slices, 2, rows, 2, columns, 2).mean(axis=(1, 3, 5))
    first = -(np.array(spec.shape) - 1) / 2 @ axes
    return Volume(
        values, "CT", spec.spacing_mm[1:], spec.spacing_mm[0], origin_mm=tuple(first.tolist()), orientation=orientation
    )


def bone_of(values: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, float]:
    """Middle and radius in mm, (x, y, z), of the bone in a volume about the origin, (slices, rows, columns) in HU."""
    share = np.clip((values.astype(float) - BODY) / (BONE - BODY), 0, 1)
    places = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(values.shape, spacing_mm, strict=True)], indexing="ij"
    )
    middle = np.array([(share * place).sum() / share.sum() for place in reversed(places)])
    return middle, float((3 * share.sum() * np.prod(spacing_mm) / (4 * np.pi)) ** (1 / 3))


def write_volumes(folder: Path, specs: list[VolumeSpec]) -> Dataset:
    """A dataset directory of one CT series per subject, as far as the data module reads it."""
    rows = []
    for subject, spec in enumerate(specs):
        study, series = (synthetic_uid("test", subject, name) for name in ("study", "series"))
        path, made = f"images/{subject}/{series}", volume(spec)
        write_volume(folder / path, made, Patient(str(subject)), Study(study, series, "simulated", body_part="CHEST"))
        rows.append(
            ImageRow(
                subject_id=subject, time=None, modality="CT", body_part="CHEST", view=None, rows=spec.shape[1],
                columns=spec.shape[2], num_slices=spec.shape[0], pixel_spacing_row_mm=spec.spacing_mm[1],
                pixel_spacing_column_mm=spec.spacing_mm[2], spacing_source="PixelSpacing",
                slice_spacing_mm=spec.spacing_mm[0], slice_thickness_mm=spec.spacing_mm[0], intensity_unit="HU",
                photometric="MONOCHROME2", bits_stored=12, sex="F", age_years=50.0,
                labels=[BIG] if spec.is_big else [], study_uid=study, series_uid=series, path=path,
            )
        )  # fmt: skip
    (folder / "metadata").mkdir(parents=True)
    pq.write_table(images_to_table(rows), folder / "images.parquet")
    splits = {"subject_id": pa.array(range(len(specs)), pa.int64()), "split": [spec.split for spec in specs]}
    pq.write_table(pa.table(splits), folder / "metadata" / "subject_splits.parquet")
    return Dataset(folder, "simulated")
