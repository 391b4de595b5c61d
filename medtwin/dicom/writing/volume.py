"""A stack of slices as CT or MR Image Storage: PS3.3 A.3, A.4."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pydicom.uid as uid
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset

from medtwin.dicom.uids import synthetic_uid
from medtwin.dicom.values import format_ds
from medtwin.dicom.writing.encode import SharedElements, check_positive, file_dataset, set_pixels
from medtwin.dicom.writing.study import Patient, Study, set_laterality, study_dataset

CT_RESCALE_INTERCEPT = -1024
"""Air is -1000 HU; scanners store values from -1024 up."""

CT_WINDOWS_HU = {"SOFT TISSUE": (40, 400), "LUNG": (-600, 1500)}
"""Name of a window preset to its center and width, as radiologists set them for the trunk; the first is the default."""


@dataclass(frozen=True)
class Volume:
    """A stack of parallel slices.

    Attributes:
        values: (slices, rows, columns). CT: Hounsfield units; MR: intensities of 0 and more. Rounded to whole
            numbers, never clipped.
        pixel_spacing_mm: Row and column. slice_spacing_mm: Between slice centres, along the normal.
        slice_thickness_mm: None: as the spacing.
        origin_mm: Centre of the first pixel of the first slice, patient coordinates (LPS).
        orientation: Direction of a row, then of a column; the slices follow their cross product.
        bits_stored: Of a CT, 12 hold -1024 to 3071 HU, and 16 (signed) -32768 to 32767; of MR, 0 to 2**bits - 1.
            None: 12 if that holds every value, else 16.
    """

    values: NDArray[Any]
    modality: Literal["CT", "MR"]
    pixel_spacing_mm: tuple[float, float]
    slice_spacing_mm: float
    slice_thickness_mm: float | None = None
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: tuple[float, float, float, float, float, float] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    bits_stored: int | None = None

    def __post_init__(self) -> None:
        if self.modality not in ("CT", "MR"):
            raise ValueError(f"modality must be CT or MR, got {self.modality!r}")
        spacings = (*self.pixel_spacing_mm, self.slice_spacing_mm)
        check_positive("spacing and thickness", spacings)
        if self.slice_thickness_mm is not None:
            check_positive("spacing and thickness", (self.slice_thickness_mm,))
        axes = np.array(self.orientation, dtype=np.float64).reshape(2, 3)
        if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-4):
            raise ValueError("orientation must be two unit vectors at right angles")
        if np.shape(self.origin_mm) != (3,) or not np.isfinite(self.origin_mm).all():
            raise ValueError("origin_mm must be three finite numbers")
        shape: tuple[int, ...] = self.values.shape
        if len(shape) != 3 or 0 in shape or max(shape[1:]) > 65_535:
            raise ValueError(f"values must be (slices, rows, columns), up to 65,535 each, got {shape}")
        _check_bits(self)

    @property
    def bits(self) -> int:
        """Bits in which a value is stored."""
        if self.bits_stored is not None:
            return self.bits_stored
        low, high = _stored_range(self.modality, 12)
        bottom, top = _extent(self.values)
        return 12 if low <= bottom and top <= high else 16

    @property
    def is_signed(self) -> bool:
        """Whether stored values are signed: those of a CT in 16 bits."""
        return self.modality == "CT" and self.bits == 16

    @property
    def rescale_intercept(self) -> int:
        """What is added to a stored value to give a value."""
        return CT_RESCALE_INTERCEPT if self.modality == "CT" and not self.is_signed else 0


def volume_to_datasets(volume: Volume, patient: Patient, study: Study) -> Iterator[FileDataset]:
    """The slices of a volume as CT or MR Image Storage, in order; slice *i* lies *i* spacings along the normal."""
    template = _template(volume, patient, study)
    for changes in _slices(volume, study):
        dataset = Dataset()
        dataset.update({element.tag: copy(element) for element in template})  # else slices share their values
        dataset.update(changes)
        yield file_dataset(dataset)


def volume_to_files(volume: Volume, patient: Patient, study: Study) -> Iterator[bytes]:
    """The same slices as the bytes of their files, several times faster: what they share is encoded once."""
    shared = SharedElements(_template(volume, patient, study))
    for changes in _slices(volume, study):
        yield shared.file_with(changes)


def _slices(volume: Volume, study: Study) -> Iterator[Dataset]:
    """What each slice has of its own: its UID, number, position and pixels."""
    axes = np.array(volume.orientation, dtype=np.float64).reshape(2, 3)
    step = np.cross(axes[0], axes[1]) * volume.slice_spacing_mm
    bits, intercept = volume.bits, volume.rescale_intercept
    dtype = np.int16 if volume.is_signed else np.uint16
    for index, values in enumerate(volume.values):
        cells = (np.rint(values).astype(np.int32) - intercept).astype(dtype)
        changes = Dataset()
        changes.SOPInstanceUID = synthetic_uid(study.series_uid, index)
        changes.InstanceNumber = index + 1
        position = np.array(volume.origin_mm) + index * step
        changes.ImagePositionPatient = [format_ds(round(float(value), 6)) for value in position]
        set_pixels(changes, cells, bits_stored=bits, photometric="MONOCHROME2")
        yield changes


def _template(volume: Volume, patient: Patient, study: Study) -> Dataset:
    """What the slices share: modules Frame of Reference, Image Plane, CT or MR Image (C.7.4.1 to C.8.3)."""
    is_ct = volume.modality == "CT"
    sop_class = uid.CTImageStorage if is_ct else uid.MRImageStorage
    dataset = study_dataset(sop_class, volume.modality, patient, study)
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if is_ct else "OTHER"]
    dataset.FrameOfReferenceUID = synthetic_uid(study.series_uid, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = "HFS"
    dataset.AcquisitionNumber = 1
    dataset.ImageOrientationPatient = [format_ds(round(value, 9)) for value in volume.orientation]
    dataset.PixelSpacing = [format_ds(spacing) for spacing in volume.pixel_spacing_mm]
    dataset.SliceThickness = format_ds(volume.slice_thickness_mm or volume.slice_spacing_mm)
    dataset.SpacingBetweenSlices = format_ds(volume.slice_spacing_mm)
    set_laterality(dataset, None)
    if is_ct:
        dataset.KVP = None
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(volume.rescale_intercept), "1", "HU"
        dataset.WindowCenter = [str(center) for center, _ in CT_WINDOWS_HU.values()]
        dataset.WindowWidth = [str(width) for _, width in CT_WINDOWS_HU.values()]
        dataset.WindowCenterWidthExplanation = list(CT_WINDOWS_HU)
        return dataset
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "RM", "NONE", ""
    dataset.MRAcquisitionType = "3D"
    dataset.RepetitionTime = dataset.EchoTime = dataset.EchoTrainLength = None
    top = max(int(_extent(volume.values)[1]), 1)
    dataset.WindowCenter, dataset.WindowWidth = format_ds(top / 2), format_ds(top)
    return dataset


def _stored_range(modality: str, bits: int) -> tuple[int, int]:
    """The values that fit, HU of a CT."""
    if modality == "CT" and bits == 16:
        return -(2**15), 2**15 - 1
    low = CT_RESCALE_INTERCEPT if modality == "CT" else 0
    return low, low + 2**bits - 1


def _extent(values: NDArray[Any]) -> tuple[float, float]:
    """Smallest and largest value when rounded; NaN if one is."""
    return float(np.rint(np.min(values))), float(np.rint(np.max(values)))


def _check_bits(volume: Volume) -> None:
    if volume.bits_stored is not None and not 0 < volume.bits_stored <= 16:
        raise ValueError(f"bits_stored must be 1 to 16, got {volume.bits_stored}")
    low, high = _stored_range(volume.modality, volume.bits)
    bottom, top = _extent(volume.values)
    if not (low <= bottom and top <= high):  # also where one is not a number
        raise ValueError(f"values must be finite, from {low} to {high}, to be stored in {volume.bits} bits")
