"""The image table: one row per DICOM series, geometry in millimetres. See docs/conventions.md."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import MINYEAR, datetime

import pyarrow as pa
import pyarrow.compute as pc

from medtwin.core.findings import Finding

IMAGE_SCHEMA = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us")),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("body_part", pa.string()),
        pa.field("view", pa.string()),
        pa.field("rows", pa.int32(), nullable=False),
        pa.field("columns", pa.int32(), nullable=False),
        pa.field("num_slices", pa.int32(), nullable=False),
        pa.field("pixel_spacing_row_mm", pa.float64()),
        pa.field("pixel_spacing_column_mm", pa.float64()),
        pa.field("spacing_source", pa.string()),
        pa.field("slice_spacing_mm", pa.float64()),
        pa.field("slice_thickness_mm", pa.float64()),
        pa.field("intensity_unit", pa.string()),
        pa.field("photometric", pa.string()),
        pa.field("bits_stored", pa.int32()),
        pa.field("sex", pa.string()),
        pa.field("age_years", pa.float32()),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("study_uid", pa.string(), nullable=False),
        pa.field("series_uid", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One series; the fields are the columns of the image table.

    Attributes:
        time: UTC or floating, as in the event table; None where the source has no date.
        modality: DICOM modality (CR, DX, CT, MR).
        view: DICOM ViewPosition (PA, AP, LL ...) of a projection.
        num_slices: Frames of the series.
        pixel_spacing_row_mm: Distance between rows; None where unknown. At the detector for a projection.
        spacing_source: The attribute it came from: PixelSpacing, ImagerPixelSpacing.
        slice_spacing_mm: Distance between slices along the normal, from positions; None for one slice.
        intensity_unit: `HU` where the rescaled values are Hounsfield units, else None.
        sex: M, F, O or None. age_years: At imaging, at most 90.
        labels: Findings as `SYSTEM//code`, sorted; empty: none found; None: not labelled.
        path: Folder of the series' files, relative to the dataset.
    """

    subject_id: int
    time: datetime | None
    modality: str
    body_part: str | None
    view: str | None
    rows: int
    columns: int
    num_slices: int
    pixel_spacing_row_mm: float | None
    pixel_spacing_column_mm: float | None
    spacing_source: str | None
    slice_spacing_mm: float | None
    slice_thickness_mm: float | None
    intensity_unit: str | None
    photometric: str | None
    bits_stored: int | None
    sex: str | None
    age_years: float | None
    labels: list[str] | None
    study_uid: str
    series_uid: str
    path: str


def image_path(subject_id: int, series_uid: str) -> str:
    """Where the files of a series stand, relative to the dataset."""
    return f"images/{subject_id}/{series_uid}"


ACCESSION_SYSTEM = "urn:medtwin:accession"
"""The system of the identifier that FHIR gives an accession number of ours."""


def accession_number(study_uid: str) -> str:
    """The accession number of a study that has none: 16 characters, the most that DICOM takes, from its UID alone.

    FHIR and DICOM each know the UID and so say the same. Of the 80 bits of SHA-256 that stand in base 32, 70 remain
    after the two letters that mark it as ours: among a million studies, two share one with probability 4e-10.

    >>> accession_number("2.25.1")
    'MTS5FHKJAUGG5JZT'
    """
    digest = hashlib.sha256(f"accession\x1f{study_uid}".encode()).digest()
    return "MT" + base64.b32encode(digest[:10]).decode()[:14]


def images_to_table(rows: Iterable[ImageRow]) -> pa.Table:
    """The image table of some series, sorted by subject, time and series."""
    earliest = datetime(MINYEAR, 1, 1)
    ordered = sorted(rows, key=lambda row: (row.subject_id, row.time or earliest, row.series_uid))
    return pa.Table.from_pylist([asdict(row) for row in ordered], schema=IMAGE_SCHEMA)


def table_to_images(table: pa.Table) -> list[ImageRow]:
    """The rows of an image table."""
    return [ImageRow(**row) for row in table.to_pylist()]


def validate_images(table: pa.Table, where: str = "images.parquet") -> list[Finding]:
    """Every rule of the image table that the table breaks."""
    if not table.schema.remove_metadata().equals(IMAGE_SCHEMA):
        return [Finding("image-schema", "columns and types must be those of IMAGE_SCHEMA", where=where)]
    findings = []
    if len(pc.unique(table["series_uid"])) != len(table):
        findings.append(Finding("duplicate-series", "series_uid must be unique", where=where))
    for name in ("rows", "columns", "num_slices", "pixel_spacing_row_mm", "pixel_spacing_column_mm"):
        bad = pc.sum(pc.fill_null(pc.less_equal(table[name], 0), False)).as_py() or 0
        if bad:
            findings.append(Finding("not-positive", f"{name} must be positive", where=where, count=int(bad)))
    return findings
