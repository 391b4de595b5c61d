"""Small image datasets with known content: discs whose radius follows a label, written as DICOM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtwin.core.dataset import Dataset
from medtwin.core.images import ImageRow, images_to_table
from medtwin.dicom import Patient, ProjectionImage, Study, projection_to_dataset, synthetic_uid, write_series

BIG = "SNOMED//1"
RARE = "SNOMED//2"


@dataclass(frozen=True)
class Spec:
    """One image: what is on it and what is said of it."""

    labels: tuple[str, ...] | None = ()
    view: str | None = "PA"
    sex: str | None = "F"
    age_years: float | None = 50.0
    split: str = "train"
    shape: tuple[int, int] = (32, 32)
    spacing_mm: tuple[float, float] | None = (2.0, 2.0)


def disc(radius: float, shape: tuple[int, int] = (32, 32), center: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """A bright disc with a soft edge, stored values of 12 bits."""
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in shape)
    distance = np.hypot(rows[:, None] - center[0], columns[None] - center[1])
    return np.rint(200 + 3600 * np.clip(radius - distance + 0.5, 0, 1)).astype(np.uint16)


def radius_of(pixels: np.ndarray) -> float:
    """The radius of a disc, from its area."""
    share = (pixels.astype(float) - 200) / 3600
    return float(np.sqrt(share.clip(0, 1).sum() / np.pi))


def draw(spec: Spec, rng: np.random.Generator) -> np.ndarray:
    """The image of a spec: radius 10 where BIG is among the labels, else 6, give or take 0.5."""
    radius = (10.0 if BIG in (spec.labels or ()) else 6.0) + 0.5 * rng.normal()
    return disc(radius, spec.shape, tuple(rng.normal(0, 0.5, 2)))


def write_dataset(folder: Path, specs: list[Spec], images: list[np.ndarray] | None = None) -> Dataset:
    """A dataset directory of one CR image per subject, as far as the data module reads it."""
    rng = np.random.default_rng(0)
    rows = []
    for subject, spec in enumerate(specs):
        study, series = (synthetic_uid("test", subject, name) for name in ("study", "series"))
        path = f"images/{subject}/{series}"
        image = ProjectionImage(
            draw(spec, rng) if images is None else images[subject], view=spec.view, pixel_spacing_mm=spec.spacing_mm
        )
        patient = Patient(str(subject), sex=spec.sex, age_years=spec.age_years)
        study_of = Study(study, series, "simulated", body_part="CHEST")
        write_series(folder / path, [projection_to_dataset(image, patient, study_of)])
        spacing = spec.spacing_mm or (None, None)
        rows.append(
            ImageRow(
                subject_id=subject,
                time=None,
                modality="CR",
                body_part="CHEST",
                view=spec.view,
                rows=image.stored.shape[0],
                columns=image.stored.shape[1],
                num_slices=1,
                pixel_spacing_row_mm=spacing[0],
                pixel_spacing_column_mm=spacing[1],
                spacing_source="ImagerPixelSpacing",
                slice_spacing_mm=None,
                slice_thickness_mm=None,
                intensity_unit=None,
                photometric="MONOCHROME2",
                bits_stored=12,
                sex=spec.sex,
                age_years=spec.age_years,
                labels=None if spec.labels is None else sorted(spec.labels),
                study_uid=study,
                series_uid=series,
                path=path,
            )
        )
    (folder / "metadata").mkdir(parents=True)
    pq.write_table(images_to_table(rows), folder / "images.parquet")
    splits = {"subject_id": pa.array(range(len(specs)), pa.int64()), "split": [spec.split for spec in specs]}
    pq.write_table(pa.table(splits), folder / "metadata" / "subject_splits.parquet")
    return Dataset(folder, "simulated")
