"""Checks datasets of the SOP classes that we write: required attributes, closed terms, pixels, geometry of a series.

Types 1 and 2 of the mandatory modules of DICOM PS3.3-2023, A.2 (CR), A.3 (CT), A.4 (MR) and A.26 (DX); conditional
attributes only where the condition can be read from the dataset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pydicom.uid as uid
from pydicom.dataset import Dataset

from medtwin.core.findings import Finding
from medtwin.dicom import terms
from medtwin.dicom.values import Values, parse_age


def _words(text: str) -> list[str]:
    return text.split()


_COMMON_TYPE_1 = _words(
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality SamplesPerPixel PhotometricInterpretation "
    "Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation PixelData"
)
"""Modules General Study C.7.2.1, General Series C.7.3.1, Image Pixel C.7.6.3, SOP Common C.12.1."""

COMMON_TYPE_2 = _words(
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber ReferringPhysicianName "
    "StudyID SeriesNumber Manufacturer InstanceNumber"
)
"""Modules Patient C.7.1.1, General Study, General Series, General Equipment C.7.5.1, General Image C.7.6.1."""

_PLANE_TYPE_1 = ["FrameOfReferenceUID", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "ImageType"]
_PLANE_TYPE_2 = ["PatientPosition", "PositionReferenceIndicator", "SliceThickness"]
"""Modules General Series (2C, for CT and MR), Frame of Reference C.7.4.1 and Image Plane C.7.6.2."""

_DX_TYPE_1 = _words(
    "PresentationIntentType ImageLaterality ImageType BurnedInAnnotation PixelIntensityRelationship RescaleIntercept "
    "PixelIntensityRelationshipSign RescaleSlope RescaleType LossyImageCompression PresentationLUTShape "
    "ImagerPixelSpacing PatientOrientation"
)
"""Modules DX Series C.8.11.1, DX Anatomy Imaged C.8.11.2, DX Image C.8.11.3, DX Detector C.8.11.4."""

_DX_TYPE_2 = ["AnatomicRegionSequence", "DetectorType", "PositionerType", "AcquisitionContextSequence"]
"""With module DX Positioning C.8.11.5, where there is one."""

TYPE_1: dict[str, list[str]] = {
    uid.ComputedRadiographyImageStorage: _COMMON_TYPE_1,
    uid.CTImageStorage: [*_COMMON_TYPE_1, *_PLANE_TYPE_1, "RescaleIntercept", "RescaleSlope"],
    uid.MRImageStorage: [*_COMMON_TYPE_1, *_PLANE_TYPE_1, "ScanningSequence", "SequenceVariant"],
    uid.DigitalXRayImageStorageForPresentation: [*_COMMON_TYPE_1, *_DX_TYPE_1],
    uid.DigitalXRayImageStorageForProcessing: [*_COMMON_TYPE_1, *_DX_TYPE_1],
}
"""Attributes that must be present with a value, by SOP class."""

TYPE_2: dict[str, list[str]] = {
    uid.ComputedRadiographyImageStorage: [*COMMON_TYPE_2, "BodyPartExamined", "ViewPosition", "PatientOrientation"],
    uid.CTImageStorage: [*COMMON_TYPE_2, *_PLANE_TYPE_2, "KVP", "AcquisitionNumber"],
    uid.MRImageStorage: [
        *COMMON_TYPE_2,
        *_PLANE_TYPE_2,
        *("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"),
    ],
    uid.DigitalXRayImageStorageForPresentation: [*COMMON_TYPE_2, *_DX_TYPE_2],
    uid.DigitalXRayImageStorageForProcessing: [*COMMON_TYPE_2, *_DX_TYPE_2],
}
"""Attributes that must be present, if only empty, by SOP class."""

_SERIES_KEYWORDS = _words(
    "PatientID PatientSex PatientBirthDate StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality StudyDate "
    "StudyTime Rows Columns PixelSpacing ImageOrientationPatient"
)
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_UID_KEYWORDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


def validate_dataset(dataset: Dataset, where: str = "") -> list[Finding]:
    """Every rule that a dataset of class CR, CT, MR or DX breaks; empty where it is valid as far as this can tell.

    Args:
        dataset: With its pixels; its file meta is checked too if it has one.
        where: Name of the file, for the findings.
    """
    sop_class = str(dataset.get("SOPClassUID", ""))
    if sop_class not in TYPE_1:
        message = "SOPClassUID must be CR, CT, MR or DX Image Storage"
        return [Finding("sop-class", message, where=where)]
    findings = []
    for keyword in TYPE_1[sop_class]:
        if keyword not in dataset or dataset[keyword].is_empty:
            findings.append(Finding("type-1", f"{keyword} must be present with a value", where=where))
    for keyword in TYPE_2[sop_class]:
        if keyword not in dataset:
            findings.append(Finding("type-2", f"{keyword} must be present, empty if unknown", where=where))
    for rule, message, holds in _RULES:
        if not holds(dataset):
            findings.append(Finding(rule, message, where=where))
    return [*findings, *_term_findings(dataset, where)]


def validate_series(datasets: Sequence[Dataset], where: str = "") -> list[Finding]:
    """Every rule that the datasets of one series break together; each is checked on its own by `validate_dataset`."""
    findings = []
    for keyword in _SERIES_KEYWORDS:
        if len({str(dataset.get(keyword)) for dataset in datasets}) > 1:
            message = f"{keyword} must be the same in every image of a series"
            findings.append(Finding("series-consistency", message, where=where))
    if len({str(dataset.get("SOPInstanceUID")) for dataset in datasets}) != len(datasets):
        findings.append(Finding("duplicate-instance", "SOPInstanceUID must be unique", where=where))
    return [*findings, *_position_findings(datasets, where)]


def _position_findings(datasets: Iterable[Dataset], where: str) -> list[Finding]:
    values = [Values(dataset) for dataset in datasets]
    positions = [value.numbers("ImagePositionPatient", 3) for value in values]
    orientation = values[0].numbers("ImageOrientationPatient", 6) if values else None
    if len(positions) < 2 or orientation is None or any(position is None for position in positions):
        return []
    normal = np.cross(orientation[:3], orientation[3:])
    steps = np.diff(np.sort(np.array(positions, dtype=np.float64) @ normal))
    if steps.min() <= 0 or steps.max() - steps.min() > 0.01 * steps.max():
        return [Finding("slice-positions", "slices must lie at equal distances along their normal", where=where)]
    return []


def _term_findings(dataset: Dataset, where: str) -> list[Finding]:
    findings = []
    closed = [*terms.SINGLE_TERMS.items(), *terms.MULTIPLE_TERMS.items()]
    for keyword, allowed in closed:
        values = (Values(dataset).text(keyword) or "").split("\\")
        if any(value and value not in allowed for value in values):
            findings.append(Finding("term", f"{keyword} must be a term of the standard", "warning", where))
    return findings


def _has_whole_pixels(dataset: Dataset) -> bool:
    """Whether uncompressed PixelData has the length that Rows, Columns and BitsAllocated make, padded to even."""
    values = Values(dataset)
    numbers = [values.integer(keyword) for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")]
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if "PixelData" not in dataset or None in numbers or (syntax is not None and uid.UID(syntax).is_compressed):
        return True
    num_bytes = int(np.prod([number or 0 for number in numbers])) // 8
    return len(dataset.PixelData) == num_bytes + num_bytes % 2


def _has_sound_bits(dataset: Dataset) -> bool:
    values = Values(dataset)
    allocated, stored, high = (values.integer(name) for name in ("BitsAllocated", "BitsStored", "HighBit"))
    if allocated is None or stored is None or high is None:
        return True
    return 0 < stored <= allocated and high == stored - 1


def _has_sound_directions(dataset: Dataset) -> bool:
    if "ImageOrientationPatient" not in dataset:
        return True
    orientation = Values(dataset).numbers("ImageOrientationPatient", 6)
    if orientation is None:
        return False
    axes = np.array(orientation).reshape(2, 3)
    return bool(np.allclose(axes @ axes.T, np.eye(2), atol=1e-3))


def _has_positive_spacing(dataset: Dataset) -> bool:
    values = Values(dataset)
    present = [keyword for keyword in ("PixelSpacing", "ImagerPixelSpacing") if keyword in dataset]
    return all(min(values.numbers(keyword, 2) or (0.0,)) > 0 for keyword in present)


def _has_sound_uids(dataset: Dataset) -> bool:
    values = [str(dataset[keyword].value) for keyword in _UID_KEYWORDS if keyword in dataset]
    return all(len(value) <= 64 and _UID.fullmatch(value) for value in values)


def _has_sound_dates(dataset: Dataset) -> bool:
    values = Values(dataset)
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "PatientBirthDate"):
        values.date(keyword)
    for keyword in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        values.time(keyword)
    return not values.bad


def _has_sound_age(dataset: Dataset) -> bool:
    text = Values(dataset).text("PatientAge")
    return text is None or parse_age(text)[1]


def _names_deidentification(dataset: Dataset) -> bool:
    removed = dataset.get("PatientIdentityRemoved") == "YES"
    return not removed or "DeidentificationMethod" in dataset or "DeidentificationMethodCodeSequence" in dataset


def _has_fitting_laterality(dataset: Dataset) -> bool:
    return "Laterality" not in dataset or dataset.get("BodyPartExamined") not in terms.UNPAIRED_BODY_PARTS


def _has_matching_meta(dataset: Dataset) -> bool:
    meta = getattr(dataset, "file_meta", None)
    if meta is None:
        return True
    return (meta.get("MediaStorageSOPClassUID"), meta.get("MediaStorageSOPInstanceUID")) == (
        dataset.get("SOPClassUID"),
        dataset.get("SOPInstanceUID"),
    )


_RULES: tuple[tuple[str, str, Callable[[Dataset], bool]], ...] = (
    ("pixel-length", "PixelData must have Rows x Columns x BitsAllocated / 8 bytes", _has_whole_pixels),
    ("bits", "HighBit must be BitsStored - 1, and BitsStored at most BitsAllocated", _has_sound_bits),
    ("orientation", "ImageOrientationPatient must be two unit vectors at right angles", _has_sound_directions),
    ("spacing", "PixelSpacing must be two positive numbers", _has_positive_spacing),
    ("uid", "UIDs must have at most 64 characters: numbers without leading zero, and dots", _has_sound_uids),
    ("date", "dates must be YYYYMMDD and times HHMMSS.FFFFFF", _has_sound_dates),
    ("age", "PatientAge must be three digits and D, W, M or Y", _has_sound_age),
    ("deidentification", "PatientIdentityRemoved YES must name DeidentificationMethod", _names_deidentification),
    ("laterality", "Laterality must be absent for an unpaired body part", _has_fitting_laterality),
    ("file-meta", "the file meta must name the SOP class and instance of the dataset", _has_matching_meta),
)
