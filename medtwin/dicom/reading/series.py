"""A series: one uniform stack of images of one patient, sorted in space; its pixels are read when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from medtwin.core.errors import SourceError
from medtwin.core.findings import Finding
from medtwin.dicom.values import quiet

Stored = NDArray[np.integer[Any]]

DECODE_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    MemoryError,
)
"""What pydicom and the codecs raise on pixel data that cannot be decoded."""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the pixels of one image are stored.

    Attributes:
        bits_allocated: 8 or 16. bits_stored: Those in use, the lowest ones.
        offset: Position in the file of native pixels; None where they are compressed or deflated.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    is_big_endian: bool
    offset: int | None

    @property
    def dtype(self) -> np.dtype[np.integer[Any]]:
        """The array type of the stored values, in the byte order of the file."""
        kind = "i" if self.is_signed else "u"
        return np.dtype(f"{'>' if self.is_big_endian else '<'}{kind}{self.bits_allocated // 8}")

    @property
    def num_bytes(self) -> int:
        """Bytes of one native frame, without the padding to an even number."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def stored_range(self) -> tuple[int, int]:
        """Smallest and largest value that fits in `bits_stored`."""
        half = 1 << (self.bits_stored - 1)
        return (-half, half - 1) if self.is_signed else (0, 2 * half - 1)


@dataclass(frozen=True, slots=True)
class Instance:
    """One image file.

    Attributes:
        path: The file. file: The same, relative to the source folder, for messages.
        position: ImagePositionPatient in mm. orientation: ImageOrientationPatient, row then column direction.
        slope, intercept: Stored value to modality value; 1 and 0 where the file gives none.
    """

    path: Path
    file: str
    sop_uid: str = field(repr=False)
    instance_number: int | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel: PixelFormat
    slope: float
    intercept: float
    photometric: str
    view: str | None

    def stored(self) -> Stored:
        """The stored values, (rows, columns), bits above BitsStored cleared or sign-extended, native byte order.

        Raises:
            SourceError: If the file is gone, has changed since it was listed, or cannot be decoded.
        """
        return used_bits(self.raw(), self.pixel.bits_stored)

    def raw(self) -> Stored:
        """The pixel cells as they stand, (rows, columns), with whatever is above BitsStored.

        Raises:
            SourceError: If the file is gone, has changed since it was listed, or cannot be decoded.
        """
        try:
            cells = self._decoded() if self.pixel.offset is None else self._native(self.pixel.offset)
        except DECODE_ERRORS as error:
            raise SourceError(f"{self.file}: the pixels cannot be read ({type(error).__name__})") from error
        if cells.shape != (self.pixel.rows, self.pixel.columns):
            raise SourceError(f"{self.file}: the decoded pixels have another shape than Rows and Columns say")
        return cells

    def _native(self, offset: int) -> Stored:
        count = self.pixel.rows * self.pixel.columns
        cells = np.fromfile(self.path, dtype=self.pixel.dtype, count=count, offset=offset)
        cells = cells.astype(self.pixel.dtype.newbyteorder("="), copy=False)
        return cells.reshape(self.pixel.rows, self.pixel.columns)

    def _decoded(self) -> Stored:
        with quiet():
            cells = pydicom.dcmread(self.path, force=True).pixel_array
        dtype = self.pixel.dtype.newbyteorder("=")
        narrowed: Stored = cells.astype(dtype)
        if not np.array_equal(narrowed, cells):
            raise ValueError("decoded values exceed BitsAllocated")
        return narrowed


@dataclass(frozen=True, slots=True)
class Header:
    """What of a series' header is used, from its first image; None where absent or malformed.

    Attributes:
        body_part, view: Terms of the standard only. sex: M, F or O. age_years: At most 90.
        study_time: Aware (UTC) where the file states its offset, else floating.
        intensity_unit: `HU` for a CT in Hounsfield units, else None.
        tube_kv: KVP. manufacturer: One of `terms.MANUFACTURERS`.
    """

    patient_id: str = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    sop_class_uid: str
    modality: str
    body_part: str | None
    view: str | None
    sex: str | None
    age_years: float | None
    study_time: datetime | None
    intensity_unit: str | None
    slice_thickness_mm: float | None
    tube_kv: float | None
    manufacturer: str | None
    burned_in_annotation: str | None


@dataclass(frozen=True, slots=True)
class Geometry:
    """Size and spacing of a series in mm; None where the files do not say.

    Attributes:
        spacing_source: PixelSpacing, or ImagerPixelSpacing (at the detector, not in the patient).
        slice_spacing_mm: Median distance of the slice planes, from positions; None for one slice.
    """

    rows: int
    columns: int
    num_slices: int
    pixel_spacing_row_mm: float | None
    pixel_spacing_column_mm: float | None
    spacing_source: str | None
    slice_spacing_mm: float | None


@dataclass(frozen=True)
class Series:
    """A uniform stack: one patient, one SeriesInstanceUID, one shape, one orientation, one view.

    Attributes:
        instances: Sorted along the normal of the slices, from low to high; without positions by InstanceNumber.
        part: 0, or the number of the part where one SeriesInstanceUID mixes stacks.
        findings: What was odd about it.
    """

    header: Header
    geometry: Geometry
    instances: tuple[Instance, ...] = field(repr=False)
    part: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def identity(self) -> str:
        """What `Pseudonyms.subject_id` takes: `mr:<PatientID>`, the same as Patient.identifier of type MR."""
        return f"mr:{self.header.patient_id}"

    @property
    def source_uid(self) -> str:
        """The SeriesInstanceUID, with the part where it was split: names this stack within the source."""
        return self.header.series_uid if self.part == 0 else f"{self.header.series_uid}#{self.part}"

    def pixels(self, *, invert_monochrome1: bool = False) -> NDArray[np.float32]:
        """Modality values (HU for CT), (slices, rows, columns); exact for stored values of up to 16 bits.

        Rescale slope and intercept are those of each image. Padding (PixelPaddingValue) is not masked.

        Args:
            invert_monochrome1: Mirrors MONOCHROME1 within the stored range, so that more is brighter in every image.

        Raises:
            SourceError: If a file is gone, has changed, or cannot be decoded.
        """
        values = np.empty((len(self.instances), self.geometry.rows, self.geometry.columns), np.float32)
        for index, instance in enumerate(self.instances):
            stored = instance.stored()
            if invert_monochrome1 and instance.photometric == "MONOCHROME1":
                stored = _mirrored(stored, instance.pixel.stored_range)
            values[index] = stored
            if instance.slope != 1:
                values[index] *= np.float32(instance.slope)
            if instance.intercept != 0:
                values[index] += np.float32(instance.intercept)
        return values


def used_bits(raw: Stored, bits_stored: int) -> Stored:
    """Pixel cells with the bits above `bits_stored` cleared, or filled with the sign."""
    shift = raw.dtype.itemsize * 8 - bits_stored
    return raw if shift == 0 else (raw << shift) >> shift


def _mirrored(stored: Stored, stored_range: Sequence[int]) -> Stored:
    low, high = stored_range
    mirrored: Stored = (low + high - stored.astype(np.int32)).astype(stored.dtype)
    return mirrored
