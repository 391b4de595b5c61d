"""Small DICOM files as a scanner would write them, made by pydicom alone: our writer's faults are not shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medtwin.core.pseudonyms import Pseudonyms

PSEUDONYMS = Pseudonyms(bytes(range(32)))
ROOT = "1.2.826.0.1.3680043.8.498"


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


def pixels(index: int, shape: tuple[int, int] = (4, 5)) -> np.ndarray:
    """Stored values 100 * index + 0, 1, 2 ..."""
    return (100 * index + np.arange(shape[0] * shape[1]).reshape(shape)).astype(np.int16)


def _file(dataset: Dataset, syntax: UID) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    is_little = syntax != ExplicitVRBigEndian
    is_implicit = syntax == ImplicitVRLittleEndian
    return FileDataset("", dataset, b"\0" * 128, meta, is_implicit_VR=is_implicit, is_little_endian=is_little)


def _set_pixels(dataset: Dataset, values: np.ndarray) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape
    bits = values.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    data = values.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"


def _patient(dataset: Dataset, subject: str) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.StudyDate, dataset.StudyTime = "20200229", "101112.5"
    dataset.AccessionNumber, dataset.ReferringPhysicianName, dataset.StudyID = "A1", "Ref^Doc", "S1"
    dataset.Manufacturer = "SIEMENS Healthineers"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", subject
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19800101", "F", "040Y"
    dataset.StudyInstanceUID = f"{ROOT}.1"


def ct(
    index: int, values: np.ndarray | None = None, *, syntax: UID = ImplicitVRLittleEndian, **more: Any
) -> FileDataset:
    """Slice `index` of a CT series, 2.5 mm apart, HU = stored - 1024."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"{ROOT}.3.{index + 1}"
    _patient(dataset, "MR4711")
    dataset.ImageType, dataset.Modality = ["ORIGINAL", "PRIMARY", "AXIAL"], "CT"
    dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = f"{ROOT}.2", f"{ROOT}.4"
    dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = 2, 1, index + 1
    dataset.PatientPosition, dataset.PositionReferenceIndicator, dataset.BodyPartExamined = "HFS", "", "CHEST"
    dataset.ImagePositionPatient = [-10, -20, 5 + 2.5 * index]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness, dataset.KVP = [0.5, 0.75], 3, 120
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    _set_pixels(dataset, pixels(index) if values is None else values)
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    return _file(dataset, syntax)


def cr(values: np.ndarray | None = None, **more: Any) -> FileDataset:
    """A radiograph of 8 bits."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComputedRadiographyImageStorage, f"{ROOT}.13.1"
    _patient(dataset, "MR4711")
    dataset.ImageType, dataset.Modality = ["ORIGINAL", "PRIMARY"], "CR"
    dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.InstanceNumber = f"{ROOT}.12", 1, 1
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.ImagerPixelSpacing = [0.2, 0.3]
    _set_pixels(dataset, np.arange(15, dtype=np.uint8).reshape(3, 5) if values is None else values)
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    return _file(dataset, ExplicitVRLittleEndian)


def enhanced(sop_class: str, modality: str) -> FileDataset:
    """Three frames of 2.5 mm."""
    cells = (100 * np.arange(3)[:, None, None] + np.arange(20).reshape(4, 5)).astype(np.int16)
    dataset = ct(0, cells[0], SOPClassUID=sop_class, Modality=modality)
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.NumberOfFrames, dataset.PixelData = 3, cells.tobytes()
    for keyword in words("ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness RescaleIntercept"):
        del dataset[keyword]
    del dataset.RescaleSlope, dataset.KVP
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.EchoPulseSequence, dataset.Spoiling = "GRADIENT", "RF"
    shared = Dataset()
    for keyword, values in {
        "PixelMeasuresSequence": {"PixelSpacing": [0.5, 0.75], "SliceThickness": 2.5},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        "PixelValueTransformationSequence": {"RescaleIntercept": -1024, "RescaleSlope": 1, "RescaleType": "HU"},
        "FrameVOILUTSequence": {"WindowCenter": 40, "WindowWidth": 400},
    }.items():
        setattr(shared, keyword, [_item(values)])
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(index) for index in range(3)]
    return dataset


def _frame(index: int) -> Dataset:
    group = Dataset()
    group.PlanePositionSequence = [_item({"ImagePositionPatient": [-10, -20, 5 + 2.5 * index]})]
    group.FrameContentSequence = [_item({"StackID": "1", "InStackPositionNumber": index + 1, "FrameComments": ""})]
    return group


def _item(values: dict[str, Any]) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def save(path: Path, dataset: FileDataset) -> Path:
    """Writes a dataset, and makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def save_ct(folder: Path, count: int = 3) -> list[Path]:
    """A CT series of some slices."""
    return [save(folder / f"{index}.dcm", ct(index)) for index in range(count)]
