"""A series: one uniform stack of images of one patient, sorted in space; its pixels are read when asked for."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import SourceError
from medtwin.core.findings import Finding
from medtwin.dicom.reading.decode import DECODE_ERRORS, Conversion, decode_file, decode_frames

__all__ = [
    *("DECODE_ERRORS", "Geometry", "Header", "Instance", "PixelFormat", "Series", "Stored"),
    *("iter_raw", "normal_of", "used_bits"),
]

Stored = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the pixels of one image are stored.

    Attributes:
        bits_allocated: 8 or 16. bits_stored: Those in use, the lowest ones.
        offset: Position in the file of native pixels; None where they must be decoded: compressed, deflated, converted.
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
    """One image: a single-frame file, or one frame of a multi-frame one.

    Attributes:
        path: The file.
        file: The same, relative to the source folder, for messages; with `#` and the frame from 1 for a frame.
        sop_uid: SOPInstanceUID; with `#` and the frame from 1 for a frame, so that it names this image alone.
        position: ImagePositionPatient in mm. orientation: ImageOrientationPatient, row then column direction.
        pixel: Format of what `raw` gives; of the grey values or the outputs of the table where there is a conversion.
        slope, intercept: Stored value to modality value; 1 and 0 where the file gives none.
        frame: Number of the frame in its file, from 0; None for a single-frame file.
        conversion: `grey` for a colour image read as luminance, `modality-lut` for values looked up in its table.
        transfer_syntax: UID of the encoding.
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
    frame: int | None = None
    conversion: Conversion | None = None
    transfer_syntax: str = ""

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
        return next(cells for _, cells in iter_raw([self]))

    def _checked(self, cells: Stored) -> Stored:
        """Cells in the type of the format.

        Raises:
            SourceError: If they have another shape, or values that do not fit.
        """
        if cells.shape != (self.pixel.rows, self.pixel.columns):
            raise SourceError(f"{self.file}: the decoded pixels have another shape than Rows and Columns say")
        dtype = self.pixel.dtype.newbyteorder("=")
        narrowed: Stored = cells.astype(dtype, copy=False)
        if cells.dtype != dtype and not np.array_equal(narrowed, cells):
            raise SourceError(f"{self.file}: the decoded pixels exceed BitsAllocated")
        return narrowed

    def _native(self, offset: int, buffer: Stored | None) -> Stored:
        """Cells as they stand in the file, in the buffer if it fits."""
        shape, dtype = (self.pixel.rows, self.pixel.columns), self.pixel.dtype
        if buffer is None or buffer.shape != shape or buffer.dtype != dtype:
            buffer = np.empty(shape, dtype)
        file = os.open(self.path, os.O_RDONLY)
        try:
            num_read = os.preadv(file, [buffer.view(np.uint8).data], offset)
        finally:
            os.close(file)
        if num_read != buffer.nbytes:
            raise SourceError(f"{self.file}: the file has been cut since it was listed")
        return buffer


def iter_raw(instances: Sequence[Instance]) -> Iterator[tuple[int, Stored]]:
    """Index and pixel cells of each image, one at a time; the frames of a compressed file follow each other.

    The cells are good until the next are asked for: native pixels of one shape share their memory.

    Raises:
        SourceError: If a file is gone, has changed since it was listed, or cannot be decoded.
    """
    frames: dict[Path, list[int]] = defaultdict(list)
    buffer: Stored | None = None
    for index, instance in enumerate(instances):
        offset = instance.pixel.offset
        if offset is None and instance.frame is not None:
            frames[instance.path].append(index)
            continue
        try:
            if offset is None:
                cells = decode_file(instance.path, instance.conversion)
            else:
                cells = buffer = instance._native(offset, buffer)
            checked = instance._checked(cells)
        except DECODE_ERRORS as error:
            raise _unreadable(instance, error) from error
        yield index, checked
    for indices in frames.values():
        yield from _iter_frames(instances, indices)


def _iter_frames(instances: Sequence[Instance], indices: Sequence[int]) -> Iterator[tuple[int, Stored]]:
    """The same for frames of one file that must be decoded."""
    ordered = sorted(indices, key=lambda index: instances[index].frame or 0)
    current = instances[ordered[0]]
    frames = decode_frames(current.path, current.transfer_syntax, [instances[index].frame or 0 for index in ordered])
    for index in ordered:
        current = instances[index]
        try:
            checked = current._checked(next(frames))
        except (*DECODE_ERRORS, StopIteration) as error:
            raise _unreadable(current, error) from error
        yield index, checked


def _unreadable(instance: Instance, error: BaseException) -> SourceError:
    return SourceError(f"{instance.file}: the pixels cannot be read ({type(error).__name__})")


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
        spacing_source: PixelSpacing; ImagerPixelSpacing (at the detector, not in the patient); or
            NominalScannedPixelSpacing (on the film that was scanned).
        slice_spacing_mm: Median distance of the slice planes, from positions; None for one slice.
        pixel_aspect_ratio: Height to width of a pixel, (vertical, horizontal), where the spacing is unknown.
        magnification: EstimatedRadiographicMagnificationFactor of a projection: the spacing at the detector over that
            in the patient. The spacing is left as it is, at the detector.
    """

    rows: int
    columns: int
    num_slices: int
    pixel_spacing_row_mm: float | None
    pixel_spacing_column_mm: float | None
    spacing_source: str | None
    slice_spacing_mm: float | None
    pixel_aspect_ratio: tuple[float, ...] | None = None
    magnification: float | None = None


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
        for index, raw in iter_raw(self.instances):
            instance = self.instances[index]
            stored = _use_bits(raw, instance.pixel.bits_stored)
            if invert_monochrome1 and instance.photometric == "MONOCHROME1":
                stored = _mirrored(stored, instance.pixel.stored_range)
            _rescale(stored, instance, values[index])
        return values

    def affine(self) -> NDArray[np.float64] | None:
        """Index to place: 4 x 4, (column, row, slice, 1) to (x, y, z, 1) in mm in LPS, that is DICOM's own axes.

        The slice direction is the mean step from the first to the last slice, so that a gantry tilt is a shear. For one
        slice it is the normal times SliceThickness. Read-only.

        Returns:
            None where the place is not known or no affine is true: without positions, orientation, pixel spacing or
            (for one slice) thickness; with missing, repeated or irregular slices; for projections.

        Source: PS3.3-2023 C.7.6.2.1.1, equation C.7.6.2.1-1.
        """
        first, last = self.instances[0], self.instances[-1]
        row_mm, column_mm = self.geometry.pixel_spacing_row_mm, self.geometry.pixel_spacing_column_mm
        is_uneven = any(finding.rule in _UNEVEN for finding in self.findings)
        if is_uneven or first.position is None or last.position is None or first.orientation is None:
            return None
        step = self._slice_step(np.array(last.position) - np.array(first.position), first.orientation)
        if step is None or row_mm is None or column_mm is None:
            return None
        affine = np.eye(4)
        affine[:3, 0] = np.array(first.orientation[:3]) * column_mm
        affine[:3, 1] = np.array(first.orientation[3:]) * row_mm
        affine[:3, 2], affine[:3, 3] = step, first.position
        affine.flags.writeable = False
        return affine

    def _slice_step(self, extent: NDArray[np.float64], orientation: tuple[float, ...]) -> NDArray[np.float64] | None:
        if len(self.instances) > 1:
            return None if self.geometry.slice_spacing_mm is None else extent / (len(self.instances) - 1)
        thickness, normal = self.header.slice_thickness_mm, normal_of(orientation)
        return None if thickness is None or normal is None else normal * thickness


_UNEVEN = frozenset({"missing-slices", "repeated-position", "irregular-spacing", "no-position"})
"""Findings with which no affine is true."""


def normal_of(orientation: tuple[float, ...] | None) -> NDArray[np.float64] | None:
    """The unit normal of the slices; None unless the directions are unit vectors at right angles (C.7.6.2.1.1)."""
    if orientation is None:
        return None
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if np.any(np.abs(lengths - 1) > 0.01) or abs(float(np.dot(row, column))) > 0.01:
        return None
    normal: NDArray[np.float64] = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def used_bits(raw: Stored, bits_stored: int) -> Stored:
    """Pixel cells with the bits above `bits_stored` cleared, or filled with the sign."""
    shift = raw.dtype.itemsize * 8 - bits_stored
    return raw if shift == 0 else (raw << shift) >> shift


def _use_bits(raw: Stored, bits_stored: int) -> Stored:
    """The same in the memory of the cells, where they may be changed."""
    if raw.dtype.itemsize * 8 == bits_stored or not raw.flags.writeable:
        return used_bits(raw, bits_stored)
    if raw.dtype.kind == "u":
        raw &= raw.dtype.type((1 << bits_stored) - 1)
        return raw
    shift = raw.dtype.type(raw.dtype.itemsize * 8 - bits_stored)
    raw <<= shift
    raw >>= shift
    return raw


def _rescale(stored: Stored, instance: Instance, out: NDArray[np.float32]) -> None:
    """Puts slope * stored + intercept into `out`, in float32; may change the stored values.

    Where slope is 1 and the sum is whole and within 16 bits, it is added there: equal, and half the memory traffic.
    """
    slope, intercept = instance.slope, instance.intercept
    if slope != 1:
        np.multiply(stored, np.float32(slope), out=out)
        if intercept != 0:
            out += np.float32(intercept)
        return
    low, high = instance.pixel.stored_range
    fits = min(low, low + intercept) >= -32768 and max(high, high + intercept) <= 32767
    if stored.dtype.itemsize == 2 and stored.flags.writeable and fits and intercept == int(intercept):
        short = stored.view(np.int16)
        short += np.int16(intercept)
        np.copyto(out, short)
    else:
        np.add(stored, np.float32(intercept), out=out)


def _mirrored(stored: Stored, stored_range: Sequence[int]) -> Stored:
    low, high = stored_range
    mirrored: Stored = (low + high - stored.astype(np.int32)).astype(stored.dtype)
    return mirrored
