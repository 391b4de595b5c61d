"""Secondary Capture: the same pixels for systems that take no other class (PS3.3 A.8.1)."""

from __future__ import annotations

from copy import copy

import pydicom.uid as uid
from pydicom.dataset import Dataset, FileDataset

from medtwin.dicom.uids import synthetic_uid
from medtwin.dicom.writing.encode import file_dataset

_OF_OTHER_CLASSES = frozenset(
    {
        # CR and DX: C.8.1, C.8.11
        *("PresentationIntentType", "PresentationLUTShape", "PixelIntensityRelationship"),
        *("PixelIntensityRelationshipSign", "DetectorType", "PositionerType", "AcquisitionContextSequence"),
        *("ImageLaterality", "ViewCodeSequence"),
        # CT and MR: C.8.2.1, C.8.3.1
        *("KVP", "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "RepetitionTime"),
        *("EchoTime", "EchoTrainLength"),
    }
)
"""Attributes that say how another class was acquired, or are there only because it demands them."""


def to_secondary_capture(dataset: Dataset) -> FileDataset:
    """The image as Secondary Capture Image Storage: ConversionType SYN where it is synthetic, else WSD (workstation).

    Pixels, rescale, window, position, identity, Study and Series Instance UID stay. SOPInstanceUID is a new one, which
    depends on the old: another class is another instance. Spacing at a detector is stated as PixelSpacing too: both
    being equal says that it is not corrected for magnification (10.7.1.3).

    Args:
        dataset: Of CR, DX, CT or MR, not compressed; is not changed.
    """
    captured = Dataset()
    captured.update({element.tag: copy(element) for element in dataset if element.keyword not in _OF_OTHER_CLASSES})
    captured.SOPClassUID = uid.SecondaryCaptureImageStorage
    captured.SOPInstanceUID = synthetic_uid(str(dataset.SOPInstanceUID), "secondary capture")
    captured.ConversionType = "SYN" if dataset.get("SyntheticData") == "YES" else "WSD"
    captured.ImageType = list(dataset.get("ImageType") or ["DERIVED", "SECONDARY"])[:2]
    if "ImagerPixelSpacing" in captured and "PixelSpacing" not in captured:
        captured.PixelSpacing = captured.ImagerPixelSpacing
    if "PatientOrientation" not in captured:
        captured.PatientOrientation = None
    if "Laterality" not in captured and "ImageLaterality" in dataset:
        _set_side(captured, str(dataset.ImageLaterality))
    return file_dataset(captured)


def _set_side(captured: Dataset, side: str) -> None:
    """Laterality from ImageLaterality: R and L stay, an unpaired part (U) has none, both (B) cannot be said."""
    if side != "U":
        captured.Laterality = side if side in ("R", "L") else ""
