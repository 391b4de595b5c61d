"""Terms that an attribute may have: enumerated values, which are closed, and defined terms, which a maker may extend.

Source: DICOM PS3.3-2023, section at each. A value outside an enumeration is an error, outside defined terms a warning.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from medtwin.core.findings import Severity
from medtwin.dicom import terms
from medtwin.dicom.checks.collect import Collector, all_items, text_of

_YES_NO = frozenset({"YES", "NO"})

ENUMERATED: dict[str, frozenset[str]] = {
    # C.7.1.1, C.12.1
    "PatientSex": frozenset({"M", "F", "O"}),
    "PatientIdentityRemoved": _YES_NO,
    "LongitudinalTemporalInformationModified": frozenset({"UNMODIFIED", "MODIFIED", "REMOVED"}),
    "AnatomicalOrientationType": frozenset({"BIPED", "QUADRUPED"}),
    "SyntheticData": _YES_NO,
    "ContentQualification": frozenset({"PRODUCT", "RESEARCH", "SERVICE"}),
    # C.7.3.1, C.7.6.1, C.7.6.3, C.11.2
    "Laterality": frozenset({"R", "L"}),
    "BurnedInAnnotation": _YES_NO,
    "RecognizableVisualFeatures": _YES_NO,
    "LossyImageCompression": frozenset({"00", "01"}),
    "PresentationLUTShape": frozenset({"IDENTITY", "INVERSE"}),
    "PixelRepresentation": frozenset({"0", "1"}),
    "PlanarConfiguration": frozenset({"0", "1"}),
    "VOILUTFunction": frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"}),
    # C.8.3.1 MR, C.8.2.1 CT
    "ScanningSequence": frozenset({"SE", "IR", "GR", "EP", "RM"}),
    "SequenceVariant": frozenset({"SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"}),
    "MRAcquisitionType": frozenset({"2D", "3D"}),
    "AngioFlag": frozenset({"Y", "N"}),
    "RotationDirection": frozenset({"CW", "CC"}),
    # C.8.11.1 to 3 DX
    "PresentationIntentType": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
    "ImageLaterality": frozenset({"R", "L", "U", "B"}),
    "PixelIntensityRelationshipSign": frozenset({"1", "-1"}),
    # C.8.20.2 Segmentation
    "SegmentationType": frozenset({"BINARY", "FRACTIONAL", "LABELMAP"}),
    "SegmentationFractionalType": frozenset({"PROBABILITY", "OCCUPANCY"}),
    "SegmentAlgorithmType": frozenset({"AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"}),
    "SegmentsOverlap": frozenset({"YES", "UNDEFINED", "NO"}),
    # C.17.2, C.17.3 SR
    "CompletionFlag": frozenset({"PARTIAL", "COMPLETE"}),
    "VerificationFlag": frozenset({"UNVERIFIED", "VERIFIED"}),
    "ContinuityOfContent": frozenset({"SEPARATE", "CONTINUOUS"}),
    "RelationshipType": frozenset(
        {"CONTAINS", "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES", "INFERRED FROM"}
        | {"SELECTED FROM"}
    ),
    "ValueType": frozenset(
        {"TEXT", "NUM", "CODE", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME", "COMPOSITE", "IMAGE", "WAVEFORM"}
        | {"SCOORD", "SCOORD3D", "TCOORD", "CONTAINER", "TABLE"}
    ),
}
"""Attribute to the values that it may have, all of them."""

DEFINED: dict[str, frozenset[str]] = {
    "PhotometricInterpretation": frozenset(
        {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT"}
        | {"YBR_RCT", "XYB"}
    ),
    "PatientPosition": terms.SINGLE_TERMS["PatientPosition"],
    "BodyPartExamined": terms.BODY_PARTS,
    "ViewPosition": terms.SINGLE_TERMS["ViewPosition"],
    "ScanOptions": terms.MULTIPLE_TERMS["ScanOptions"],
    "DetectorType": terms.SINGLE_TERMS["DetectorType"],
    "ConversionType": terms.SINGLE_TERMS["ConversionType"],
    "PixelIntensityRelationship": terms.SINGLE_TERMS["PixelIntensityRelationship"],
    "RescaleType": terms.RESCALE_TYPES | {"MM"},
    "QualityControlImage": terms.SINGLE_TERMS["QualityControlImage"],
    "LossyImageCompressionMethod": terms.MULTIPLE_TERMS["LossyImageCompressionMethod"],
    "Units": terms.SINGLE_TERMS["Units"],
    "DecayCorrection": terms.SINGLE_TERMS["DecayCorrection"],
}
"""Attribute to the values that the standard defines."""

_PIXEL_ORIGIN = ({"ORIGINAL", "DERIVED", "MIXED"}, {"PRIMARY", "SECONDARY"})
"""ImageType, values 1 and 2 (C.7.6.1.1.2); MIXED in enhanced images only (C.8.16.1.1)."""


def check_terms(dataset: Dataset, found: Collector) -> None:
    """Adds findings, rule `term`, for terms of the dataset and of every item in it."""
    for item in all_items(dataset):
        _check_list(item, ENUMERATED, "error", found)
        _check_list(item, DEFINED, "warning", found)
    _check_image_type(dataset, found)


def _check_list(dataset: Dataset, lists: dict[str, frozenset[str]], severity: Severity, found: Collector) -> None:
    for keyword, allowed in lists.items():
        if keyword not in dataset:
            continue
        values = text_of(dataset, keyword).split("\\")
        if any(value and value not in allowed for value in values):
            known = f": {', '.join(sorted(allowed))}" if len(allowed) < 9 else ""
            found.add("term", f"{keyword} must be a term of the standard{known}", severity)


def _check_image_type(dataset: Dataset, found: Collector) -> None:
    values = text_of(dataset, "ImageType").split("\\")
    if any(value and value not in allowed for value, allowed in zip(values, _PIXEL_ORIGIN, strict=False)):
        found.add("term", "ImageType must begin with ORIGINAL or DERIVED, then PRIMARY or SECONDARY")
