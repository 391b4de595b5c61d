"""A radiograph as Computed Radiography or Digital X-Ray (For Presentation) Image Storage: PS3.3 A.2, A.26."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pydicom.uid as uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.coding import Code

from medtwin.dicom import terms
from medtwin.dicom.reading.series import Stored
from medtwin.dicom.uids import synthetic_uid
from medtwin.dicom.values import format_ds
from medtwin.dicom.writing.encode import check_positive, code_item, file_dataset, region_items, set_pixels
from medtwin.dicom.writing.study import Patient, Study, set_laterality, study_dataset

_PATIENT_ORIENTATION = {"PA": ["L", "F"], "AP": ["L", "F"], "LL": ["P", "F"], "RL": ["A", "F"]}
"""Where rows and columns point, by view, as radiographs are hung (C.7.6.1.1.1)."""

_VIEW_CODES = {
    "PA": Code("272479007", "SCT", "postero-anterior"),
    "AP": Code("399348003", "SCT", "antero-posterior"),
    "LL": Code("399173006", "SCT", "left lateral"),
    "RL": Code("399198007", "SCT", "right lateral"),
}
"""ViewPosition as ViewCodeSequence: PS3.16 CID 4010."""


@dataclass(frozen=True)
class ProjectionImage:
    """A radiograph.

    Attributes:
        stored: (rows, columns), uint8 or uint16, below 2**bits_stored; bright is dense (MONOCHROME2).
        bits_stored: The depth of what the image was learned from or read from, never more.
        view: A term of ViewPosition or None. pixel_spacing_mm: At the detector, row and column; None: unknown.
        laterality: R or L of a paired body part, else None.
        modality: CR; or DX, which demands `pixel_spacing_mm`, a view of PA, AP, LL or RL, and a body part that
            `terms.ANATOMIC_REGIONS` lists.
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
        if self.modality == "DX" and (self.pixel_spacing_mm is None or self.view not in _VIEW_CODES):
            raise ValueError(f"DX must have pixel_spacing_mm, and a view of {', '.join(_VIEW_CODES)}")
        if self.pixel_spacing_mm is not None:
            check_positive("pixel_spacing_mm", self.pixel_spacing_mm)


def can_be_dx(image: ProjectionImage, body_part: str | None) -> bool:
    """Whether a radiograph is known well enough, and deeper than 8 bits, to be written as Digital X-Ray."""
    is_known = image.pixel_spacing_mm is not None and image.view in _VIEW_CODES
    return image.bits_stored > 8 and is_known and body_part in terms.ANATOMIC_REGIONS


def projection_to_dataset(image: ProjectionImage, patient: Patient, study: Study, index: int = 0) -> FileDataset:
    """A radiograph as Computed Radiography or Digital X-Ray (For Presentation) Image Storage.

    Args:
        image: The pixels.
        patient: Who it is of.
        study: What it belongs to.
        index: Its number in the series, from 0; InstanceNumber is one more.

    Raises:
        ValueError: If an unpaired body part has a side, or a DX a body part without a code.
    """
    is_dx = image.modality == "DX"
    if is_dx and study.body_part not in terms.ANATOMIC_REGIONS:
        raise ValueError(f"DX must have a body_part of {', '.join(terms.ANATOMIC_REGIONS)}: it states its code")
    sop_class = uid.DigitalXRayImageStorageForPresentation if is_dx else uid.ComputedRadiographyImageStorage
    dataset = study_dataset(sop_class, image.modality, patient, study)
    dataset.ViewPosition = image.view or ""
    dataset.InstanceNumber = index + 1
    dataset.SOPInstanceUID = synthetic_uid(study.series_uid, index)
    dataset.PatientOrientation = _PATIENT_ORIENTATION.get(image.view or "") if is_dx or study.origin != "real" else None
    if image.pixel_spacing_mm is not None:
        dataset.ImagerPixelSpacing = [format_ds(spacing) for spacing in image.pixel_spacing_mm]
    set_laterality(dataset, image.laterality)
    dataset.WindowCenter = format_ds(2 ** (image.bits_stored - 1))
    dataset.WindowWidth = format_ds(2**image.bits_stored)
    if is_dx:
        _set_dx(dataset, image)
    set_pixels(dataset, image.stored, bits_stored=image.bits_stored, photometric="MONOCHROME2")
    return file_dataset(dataset)


def _set_dx(dataset: Dataset, image: ProjectionImage) -> None:
    """Modules DX Series, Anatomy Imaged, Image, Detector and Positioning, Acquisition Context (PS3.3 C.8.11)."""
    dataset.pop("Laterality", None)
    is_unpaired = dataset.get("BodyPartExamined") in terms.UNPAIRED_BODY_PARTS
    dataset.ImageLaterality = image.laterality or ("U" if is_unpaired else "B")
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.AnatomicRegionSequence = region_items(dataset.get("BodyPartExamined"))
    view = code_item(_VIEW_CODES[image.view or ""])
    view.ViewModifierCodeSequence = []
    dataset.ViewCodeSequence = [view]
    dataset.AcquisitionContextSequence = []
    dataset.ImageType = ["DERIVED", "SECONDARY", ""]
    dataset.BurnedInAnnotation = "NO"
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.LossyImageCompression = "00"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.DetectorType = dataset.PositionerType = ""


def _check_stored(stored: Stored, bits_stored: int) -> None:
    if stored.ndim != 2 or 0 in stored.shape or stored.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"stored must be (rows, columns) uint8 or uint16, got {stored.shape} {stored.dtype}")
    if max(stored.shape) > 65_535:
        raise ValueError(f"stored must have at most 65,535 rows and columns, got {stored.shape}")
    if not 0 < bits_stored <= stored.dtype.itemsize * 8 or int(stored.max()) >= 2**bits_stored:
        raise ValueError(f"stored must fit in bits_stored, got {bits_stored} bits and a maximum of {int(stored.max())}")
