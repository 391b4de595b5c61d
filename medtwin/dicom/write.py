"""Writes new images as DICOM: radiographs (CR, DX) and volumes (CT, MR), single frame, one patient identity with FHIR.

Source of the attributes: DICOM PS3.3-2023, IODs A.2, A.3, A.4, A.26. Nothing depends on the clock, the machine or
chance: equal input gives equal bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom.uid as uid
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.coding import Code

from medtwin.dicom import terms
from medtwin.dicom.reading.series import Stored
from medtwin.dicom.uids import synthetic_uid
from medtwin.dicom.values import format_age, format_ds
from medtwin.dicom.writing.encode import code_item, file_dataset, region_items, set_pixels

Origin = Literal["synthetic", "simulated", "real"]

CT_RESCALE_INTERCEPT = -1024
"""Air is -1000 HU; scanners store values from -1024 up."""

_SYNTHESIZING = Code("109100", "DCM", "Synthesizing Equipment")
_DERIVATION = {
    "synthetic": "Sampled from a generative model; no patient was imaged",
    "simulated": "Computed from a phantom; no patient was imaged",
    "real": "Wrapped from an image file without a DICOM header",
}
_PATIENT_ORIENTATION = {"PA": ["L", "F"], "AP": ["L", "F"], "LL": ["P", "F"], "RL": ["A", "F"]}
"""Where rows and columns point, by view, as radiographs are hung (C.7.6.1.1.1)."""

_MAX_LO = 64
_CT_WINDOW_HU = (40, 400)


@dataclass(frozen=True)
class Patient:
    """Who the image is of; the same identity as the FHIR Patient.

    Attributes:
        patient_id: Patient.identifier of type MR.
        name: PN form, `Family^Given`; None: `Subject^<patient_id>`.
        sex: M, F, O or None. age_years: At imaging; written as 90 if it is more.
    """

    patient_id: str
    name: str | None = None
    sex: str | None = None
    birth_date: date | None = None
    age_years: float | None = None

    def __post_init__(self) -> None:
        if not self.patient_id or len(self.patient_id) > _MAX_LO or "\\" in self.patient_id:
            raise ValueError("patient_id must have 1 to 64 characters and no backslash")
        if self.sex not in (None, "M", "F", "O"):
            raise ValueError(f"sex must be M, F, O or None, got {self.sex!r}")


@dataclass(frozen=True)
class Study:
    """The series that an image belongs to, and what made it.

    Attributes:
        study_uid: The same as in the FHIR ImagingStudy. series_uid: From `synthetic_uid(run, subject, series)`.
        time: Aware: an instant, written in UTC with its offset; naive: floating; at midnight: a date; None: unknown.
        origin: Of the pixels; `real` are images that came without a DICOM header.
        model: Name of what made the pixels; not written for `real`.
        body_part: A term of `terms.BODY_PARTS` or None. description: Follows SYNTHETIC in SeriesDescription.
    """

    study_uid: str
    series_uid: str
    origin: Origin
    time: datetime | None = None
    model: str = "medtwin"
    body_part: str | None = None
    description: str = ""
    series_number: int = 1
    accession_number: str = ""
    software_version: str = "0"

    def __post_init__(self) -> None:
        if self.origin not in _DERIVATION:
            raise ValueError(f"origin must be one of {', '.join(_DERIVATION)}, got {self.origin!r}")
        if self.body_part is not None and self.body_part not in terms.BODY_PARTS:
            raise ValueError(f"body_part must be a term of terms.BODY_PARTS, got {self.body_part!r}")


@dataclass(frozen=True)
class ProjectionImage:
    """A radiograph.

    Attributes:
        stored: (rows, columns), uint8 or uint16, below 2**bits_stored; bright is dense (MONOCHROME2).
        view: A term of ViewPosition or None. pixel_spacing_mm: At the detector, row and column; None: unknown.
        laterality: R or L of a paired body part, else None.
        modality: CR; or DX, which demands `pixel_spacing_mm` and a view of PA, AP, LL or RL.
    """

    stored: Stored
    bits_stored: int = 12
    view: str | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    laterality: str | None = None
    modality: Literal["CR", "DX"] = "CR"

    def __post_init__(self) -> None:
        _check_stored(self.stored, self.bits_stored)
        if self.view is not None and self.view not in terms.SINGLE_TERMS["ViewPosition"]:
            raise ValueError(f"view must be a term of ViewPosition, got {self.view!r}")
        if self.laterality not in (None, "R", "L"):
            raise ValueError(f"laterality must be R, L or None, got {self.laterality!r}")
        if self.modality not in ("CR", "DX"):
            raise ValueError(f"modality must be CR or DX, got {self.modality!r}")
        if self.modality == "DX" and (self.pixel_spacing_mm is None or self.view not in _PATIENT_ORIENTATION):
            raise ValueError(f"DX must have pixel_spacing_mm, and a view of {', '.join(_PATIENT_ORIENTATION)}")
        if self.pixel_spacing_mm is not None:
            _check_positive("pixel_spacing_mm", self.pixel_spacing_mm)


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
        bits_stored: 12 holds -1024 to 3071 HU; 16 more.
    """

    values: NDArray[Any]
    modality: Literal["CT", "MR"]
    pixel_spacing_mm: tuple[float, float]
    slice_spacing_mm: float
    slice_thickness_mm: float | None = None
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: tuple[float, float, float, float, float, float] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    bits_stored: int = 12

    def __post_init__(self) -> None:
        if self.modality not in ("CT", "MR"):
            raise ValueError(f"modality must be CT or MR, got {self.modality!r}")
        spacings = (*self.pixel_spacing_mm, self.slice_spacing_mm, self.slice_thickness_mm or self.slice_spacing_mm)
        _check_positive("spacing and thickness", spacings)
        axes = np.array(self.orientation, dtype=np.float64).reshape(2, 3)
        if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-4):
            raise ValueError("orientation must be two unit vectors at right angles")
        if self.values.ndim != 3 or 0 in self.values.shape or not 0 < self.bits_stored <= 16:
            raise ValueError(f"values must be (slices, rows, columns), bits_stored 1 to 16, got {self.values.shape}")
        low, high = self.rescale_intercept, 2**self.bits_stored - 1 + self.rescale_intercept
        if not (np.rint(np.min(self.values)) >= low and np.rint(np.max(self.values)) <= high):
            raise ValueError(f"values must be finite, from {low} to {high}, to be stored in {self.bits_stored} bits")

    @property
    def rescale_intercept(self) -> int:
        """What is added to a stored value to give a value."""
        return CT_RESCALE_INTERCEPT if self.modality == "CT" else 0


def projection_to_dataset(image: ProjectionImage, patient: Patient, study: Study, index: int = 0) -> FileDataset:
    """A radiograph as Computed Radiography or Digital X-Ray (For Presentation) Image Storage.

    Args:
        image: The pixels.
        patient: Who it is of.
        study: What it belongs to.
        index: Its number in the series, from 0; InstanceNumber is one more.
    """
    is_dx = image.modality == "DX"
    sop_class = uid.DigitalXRayImageStorageForPresentation if is_dx else uid.ComputedRadiographyImageStorage
    dataset = _base(sop_class, image.modality, patient, study)
    dataset.ViewPosition = image.view or ""
    dataset.InstanceNumber = index + 1
    dataset.SOPInstanceUID = synthetic_uid(study.series_uid, index)
    dataset.PatientOrientation = _PATIENT_ORIENTATION.get(image.view or "") if is_dx or study.origin != "real" else None
    if image.pixel_spacing_mm is not None:
        dataset.ImagerPixelSpacing = [format_ds(spacing) for spacing in image.pixel_spacing_mm]
    _set_laterality(dataset, image.laterality)
    dataset.WindowCenter = format_ds(2 ** (image.bits_stored - 1))
    dataset.WindowWidth = format_ds(2**image.bits_stored)
    if is_dx:
        _set_dx(dataset, image)
    set_pixels(dataset, image.stored, bits_stored=image.bits_stored, photometric="MONOCHROME2")
    return file_dataset(dataset)


def volume_to_datasets(volume: Volume, patient: Patient, study: Study) -> Iterator[FileDataset]:
    """The slices of a volume as CT or MR Image Storage, in order; slice *i* lies *i* spacings along the normal."""
    axes = np.array(volume.orientation, dtype=np.float64).reshape(2, 3)
    step = np.cross(axes[0], axes[1]) * volume.slice_spacing_mm
    template = _volume_template(volume, patient, study)
    for index, values in enumerate(volume.values):
        cells = (np.rint(values) - volume.rescale_intercept).astype(np.uint16)
        position = np.array(volume.origin_mm) + index * step
        dataset = Dataset()
        dataset.update({element.tag: copy(element) for element in template})  # else slices share their values
        dataset.SOPInstanceUID = synthetic_uid(study.series_uid, index)
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = [format_ds(round(float(value), 6)) for value in position]
        set_pixels(dataset, cells, bits_stored=volume.bits_stored, photometric="MONOCHROME2")
        yield file_dataset(dataset)


def write_series(folder: Path, datasets: Iterable[FileDataset]) -> list[Path]:
    """Writes datasets as `<index:04d>.dcm`, each file whole or not at all; gives their paths.

    Args:
        folder: Is made.
        datasets: Ready to write, such as `volume_to_datasets` or `deidentify_series` give; taken one at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, dataset in enumerate(datasets):
        path = folder / f"{index:04d}.dcm"
        partial = folder / f".{path.name}.{os.getpid()}.tmp"
        try:
            buffer = BytesIO()  # pydicom writes element by element, which is slow on a file
            dataset.save_as(buffer, enforce_file_format=True)
            partial.write_bytes(buffer.getbuffer())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        paths.append(path)
    return paths


def _base(sop_class: uid.UID, modality: str, patient: Patient, study: Study) -> Dataset:
    """Modules Patient, General Study, General Series, General Equipment, General Image and SOP Common."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.Modality = modality
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study.study_uid, study.series_uid
    dataset.StudyID, dataset.SeriesNumber = "1", study.series_number
    dataset.AccessionNumber, dataset.ReferringPhysicianName = study.accession_number, ""
    _set_time(dataset, study.time)
    dataset.PatientID = patient.patient_id
    dataset.PatientName = patient.name or f"Subject^{patient.patient_id}"
    dataset.PatientBirthDate = patient.birth_date.strftime("%Y%m%d") if patient.birth_date else ""
    dataset.PatientSex = patient.sex or ""
    if patient.age_years is not None:
        dataset.PatientAge = format_age(patient.age_years)
    if study.body_part is not None or modality == "CR":
        dataset.BodyPartExamined = study.body_part or ""
    dataset.DerivationDescription = _DERIVATION[study.origin]
    if study.origin == "real":
        dataset.Manufacturer = ""
        dataset.SeriesDescription = study.description[:_MAX_LO]
        dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "medtwin: no header was carried over"
    else:
        _set_synthetic(dataset, study)
    return dataset


def _set_synthetic(dataset: Dataset, study: Study) -> None:
    """Says in every way that old and new software reads that no patient was imaged (PS3.3 C.12.1)."""
    dataset.SyntheticData = "YES"
    dataset.ContentQualification = "RESEARCH"
    dataset.Manufacturer, dataset.ManufacturerModelName = "medtwin", study.model[:_MAX_LO]
    dataset.SoftwareVersions = study.software_version
    dataset.SeriesDescription = f"SYNTHETIC {study.description}".strip()[:_MAX_LO]
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [code_item(_SYNTHESIZING)]
    equipment.Manufacturer, equipment.ManufacturerModelName = "medtwin", study.model[:_MAX_LO]
    equipment.SoftwareVersions = study.software_version
    equipment.ContributionDescription = f"{study.origin} image, not for clinical use"
    dataset.ContributingEquipmentSequence = [equipment]


def _set_time(dataset: Dataset, time: datetime | None) -> None:
    if time is not None and time.tzinfo is not None:
        time = time.astimezone(UTC)
        dataset.TimezoneOffsetFromUTC = "+0000"
    is_date = time is None or (time.tzinfo is None and time.time() == datetime.min.time())
    day = time.strftime("%Y%m%d") if time else ""
    clock = "" if time is None or is_date else time.strftime("%H%M%S.%f" if time.microsecond else "%H%M%S")
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = day
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = clock


def _set_laterality(dataset: Dataset, laterality: str | None) -> None:
    if dataset.get("BodyPartExamined") in terms.UNPAIRED_BODY_PARTS:
        if laterality is not None:
            raise ValueError("laterality must be None for an unpaired body part")
        return
    dataset.Laterality = laterality or ""


def _set_dx(dataset: Dataset, image: ProjectionImage) -> None:
    """Modules DX Series, DX Anatomy Imaged, DX Image, DX Detector and Acquisition Context (PS3.3 C.8.11)."""
    dataset.pop("Laterality", None)
    is_unpaired = dataset.get("BodyPartExamined") in terms.UNPAIRED_BODY_PARTS
    dataset.ImageLaterality = image.laterality or ("U" if is_unpaired else "B")
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.AnatomicRegionSequence = region_items(dataset.get("BodyPartExamined"))
    dataset.AcquisitionContextSequence = []
    dataset.ImageType = ["DERIVED", "SECONDARY", ""]
    dataset.BurnedInAnnotation = "NO"
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.LossyImageCompression = "00"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.DetectorType = dataset.PositionerType = ""


def _volume_template(volume: Volume, patient: Patient, study: Study) -> Dataset:
    """What the slices share: modules Frame of Reference, Image Plane, CT or MR Image (C.7.4.1 to C.8.3)."""
    is_ct = volume.modality == "CT"
    dataset = _base(uid.CTImageStorage if is_ct else uid.MRImageStorage, volume.modality, patient, study)
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if is_ct else "OTHER"]
    dataset.FrameOfReferenceUID = synthetic_uid(study.series_uid, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = "HFS"
    dataset.AcquisitionNumber = 1
    dataset.ImageOrientationPatient = [format_ds(round(value, 9)) for value in volume.orientation]
    dataset.PixelSpacing = [format_ds(spacing) for spacing in volume.pixel_spacing_mm]
    dataset.SliceThickness = format_ds(volume.slice_thickness_mm or volume.slice_spacing_mm)
    dataset.SpacingBetweenSlices = format_ds(volume.slice_spacing_mm)
    _set_laterality(dataset, None)
    if is_ct:
        dataset.KVP = None
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(CT_RESCALE_INTERCEPT), "1", "HU"
        dataset.WindowCenter, dataset.WindowWidth = map(str, _CT_WINDOW_HU)
        return dataset
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "RM", "NONE", ""
    dataset.MRAcquisitionType = "3D"
    dataset.RepetitionTime = dataset.EchoTime = dataset.EchoTrainLength = None
    top = int(np.max(volume.values, initial=1))
    dataset.WindowCenter, dataset.WindowWidth = format_ds(top / 2), format_ds(max(top, 1))
    return dataset


def _check_stored(stored: Stored, bits_stored: int) -> None:
    if stored.ndim != 2 or 0 in stored.shape or stored.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"stored must be (rows, columns) uint8 or uint16, got {stored.shape} {stored.dtype}")
    if not 0 < bits_stored <= stored.dtype.itemsize * 8 or int(stored.max()) >= 2**bits_stored:
        raise ValueError(f"stored must fit in bits_stored, got {bits_stored} bits and a maximum of {int(stored.max())}")


def _check_positive(name: str, values: Iterable[float]) -> None:
    if not all(np.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"{name} must be positive, got {tuple(values)!r}")
