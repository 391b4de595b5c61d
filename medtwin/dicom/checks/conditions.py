"""When an attribute of type 1C or 2C is required, where that can be read from the dataset (PS3.3, section at each).

Conditions on what was done to the patient or the image, which no dataset tells, are left out.
"""

from __future__ import annotations

from collections.abc import Callable

import pydicom.uid as uid
from pydicom.dataset import Dataset

from medtwin.dicom import terms
from medtwin.dicom.checks.collect import text_of

Condition = Callable[[Dataset, Dataset], bool]
"""Whether the attribute is required, by the item that would hold it and the whole dataset."""

_POSITIONED = frozenset(
    {uid.CTImageStorage, uid.MRImageStorage, uid.EnhancedCTImageStorage, uid.EnhancedMRImageStorage}
    | {uid.EnhancedMRColorImageStorage, uid.MRSpectroscopyStorage}
)
_HAVE_PLANES = _POSITIONED | {
    *(uid.PositronEmissionTomographyImageStorage, uid.EnhancedPETImageStorage, uid.SegmentationStorage),
    *(uid.NuclearMedicineImageStorage, uid.UID("1.2.840.10008.5.1.4.1.1.66.7")),
}


def _says(keyword: str, *values: str) -> Condition:
    return lambda item, _: text_of(item, keyword) in values


def _is_original(_: Dataset, whole: Dataset) -> bool:
    """Of enhanced images: value 1 of ImageType says that frames are as acquired."""
    return _is_enhanced(whole) and text_of(whole, "ImageType").split("\\")[0] in ("ORIGINAL", "MIXED")


def _has(keyword: str) -> Condition:
    return lambda item, _: keyword in item


def _needs_deidentification_method(item: Dataset, _: Dataset) -> bool:
    has_codes = "DeidentificationMethodCodeSequence" in item
    return text_of(item, "PatientIdentityRemoved") == "YES" and not has_codes


def _needs_patient_position(item: Dataset, _: Dataset) -> bool:
    return text_of(item, "SOPClassUID") in _POSITIONED and "PatientOrientationCodeSequence" not in item


def _needs_laterality(item: Dataset, whole: Dataset) -> bool:
    is_paired = text_of(item, "BodyPartExamined") in terms.PAIRED_BODY_PARTS
    return item is whole and is_paired and "ImageLaterality" not in item and not _is_enhanced(item)


def _needs_patient_orientation(item: Dataset, whole: Dataset) -> bool:
    is_plane = "ImageOrientationPatient" in item or "ImageOrientationSlide" in item or _is_enhanced(item)
    is_raw = text_of(item, "PresentationIntentType") == "FOR PROCESSING"  # type 1C in C.8.11.3
    return item is whole and not is_plane and not is_raw and text_of(item, "SOPClassUID") not in _HAVE_PLANES


def _is_enhanced(item: Dataset) -> bool:
    return "SharedFunctionalGroupsSequence" in item


def _is_shown_dx(item: Dataset, _: Dataset) -> bool:
    return text_of(item, "PresentationIntentType") == "FOR PRESENTATION"


def _needs_window(item: Dataset, whole: Dataset) -> bool:
    return "VOILUTSequence" not in item and _is_shown_dx(item, whole)


def _needs_repetition_time(item: Dataset, _: Dataset) -> bool:
    is_single_shot = text_of(item, "ScanningSequence") == "EP" and text_of(item, "SequenceVariant") != "SK"
    return not is_single_shot


def _is_inversion(item: Dataset, _: Dataset) -> bool:
    return "IR" in text_of(item, "ScanningSequence").split("\\")


def _is_gated(item: Dataset, _: Dataset) -> bool:
    return not {"CG", "PPG"}.isdisjoint(text_of(item, "ScanOptions").split("\\"))


def _has_many_samples(item: Dataset, _: Dataset) -> bool:
    return text_of(item, "SamplesPerPixel") not in ("", "1")


def _has_patient_frame(_: Dataset, whole: Dataset) -> bool:
    """In a plane macro: positions are in patient coordinates unless the object is a whole slide (C.7.6.16.2.3)."""
    return "FrameOfReferenceUID" in whole and "TotalPixelMatrixColumns" not in whole


_is_palette = _says("PhotometricInterpretation", "PALETTE COLOR")
_is_lossy = _says("LossyImageCompression", "01")
_is_concatenation = _has("ConcatenationUID")

CONDITIONS: dict[str, Condition] = {
    # C.7.1.1 Patient
    "DeidentificationMethod": _needs_deidentification_method,
    "PatientAlternativeCalendar": _has("PatientBirthDateInAlternativeCalendar"),
    "ResponsiblePersonRole": lambda item, _: bool(text_of(item, "ResponsiblePerson")),
    # C.7.3.1 General Series
    "PatientPosition": _needs_patient_position,
    "Laterality": _needs_laterality,
    # C.7.6.1 General Image
    "PatientOrientation": _needs_patient_orientation,
    # C.7.6.3 Image Pixel
    "PixelData": lambda item, _: "PixelDataProviderURL" not in item,
    "PlanarConfiguration": _has_many_samples,
    "PixelPaddingValue": _has("PixelPaddingRangeLimit"),
    "RedPaletteColorLookupTableDescriptor": _is_palette,
    "GreenPaletteColorLookupTableDescriptor": _is_palette,
    "BluePaletteColorLookupTableDescriptor": _is_palette,
    "RedPaletteColorLookupTableData": lambda item, whole: (
        _is_palette(item, whole) and "SegmentedRedPaletteColorLookupTableData" not in item
    ),
    # 10.7 Basic Pixel Spacing Calibration
    "PixelSpacingCalibrationDescription": _has("PixelSpacingCalibrationType"),
    # C.8.3.1 MR Image
    "RepetitionTime": _needs_repetition_time,
    "InversionTime": _is_inversion,
    "TriggerTime": _is_gated,
    # C.8.11.3 DX Image
    "WindowCenter": _needs_window,
    "WindowWidth": _needs_window,
    "LossyImageCompressionRatio": _is_lossy,
    "LossyImageCompressionMethod": _is_lossy,
    # C.7.6.16 Multi-frame Functional Groups
    "PerFrameFunctionalGroupsSequence": lambda item, _: text_of(item, "DimensionOrganizationType") != "TILED_FULL",
    "SOPInstanceUIDOfConcatenationSource": _is_concatenation,
    "InConcatenationNumber": _is_concatenation,
    "ConcatenationFrameOffsetNumber": _is_concatenation,
    "DimensionIndexValues": lambda _, whole: "DimensionIndexSequence" in whole,
    "ImagePositionPatient": _has_patient_frame,
    "ImageOrientationPatient": _has_patient_frame,
    "PixelSpacing": lambda item, whole: item is not whole and _has_patient_frame(item, whole),
    # C.8.13, C.8.15, C.8.22 Enhanced MR, CT, PET
    "AcquisitionDateTime": _is_original,
    "AcquisitionDuration": _is_original,
    "ContentQualification": _is_original,
    "BurnedInAnnotation": _is_original,
    "LossyImageCompression": _is_original,
    "MagneticFieldStrength": _is_original,
    "ResonantNucleus": _is_original,
    # C.8.20.2 Segmentation Image
    "SegmentAlgorithmName": lambda item, _: text_of(item, "SegmentAlgorithmType") not in ("", "MANUAL"),
    "SegmentationFractionalType": _says("SegmentationType", "FRACTIONAL"),
    "MaximumFractionalValue": _says("SegmentationType", "FRACTIONAL"),
    # 8.8 Code Sequence Macro
    "CodeValue": lambda item, _: "LongCodeValue" not in item and "URNCodeValue" not in item,
    "CodingSchemeDesignator": lambda item, _: "CodeValue" in item or "LongCodeValue" in item,
    "MappingResource": _has("ContextIdentifier"),
    "ContextGroupVersion": _has("ContextIdentifier"),
}
"""By keyword; an attribute of type 1C or 2C that is not here is never required, but not empty where it is 1C."""
