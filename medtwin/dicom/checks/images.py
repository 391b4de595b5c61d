"""Rules that join attributes: pixels and their description, geometry, windows, and what single SOP classes demand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pydicom.uid as uid
from pydicom.dataset import Dataset

from medtwin.dicom import terms
from medtwin.dicom.checks.collect import Collector, items_of, text_of
from medtwin.dicom.values import Values

_MODALITIES: dict[str, frozenset[str]] = {
    "computed-radiography-image": frozenset({"CR"}),
    "digital-x-ray-image": frozenset({"DX"}),
    "digital-mammography-x-ray-image": frozenset({"MG"}),
    "digital-intra-oral-x-ray-image": frozenset({"IO"}),
    "ct-image": frozenset({"CT"}),
    "enhanced-ct-image": frozenset({"CT"}),
    "mr-image": frozenset({"MR"}),
    "enhanced-mr-image": frozenset({"MR"}),
    "positron-emission-tomography-image": frozenset({"PT"}),
    "enhanced-pet-image": frozenset({"PT"}),
    "nuclear-medicine-image": frozenset({"NM"}),
    "ultrasound-image": frozenset({"US", "IVUS"}),
    "ultrasound-multi-frame-image": frozenset({"US", "IVUS"}),
    "segmentation": frozenset({"SEG"}),
    "basic-text-sr": frozenset({"SR"}),
    "enhanced-sr": frozenset({"SR"}),
    "comprehensive-sr": frozenset({"SR"}),
    "comprehensive-3d-sr": frozenset({"SR"}),
}
"""C.7.3.1.1.1 and the series module of each IOD."""

_GREY_ONLY = frozenset(
    {"computed-radiography-image", "digital-x-ray-image", "digital-mammography-x-ray-image", "ct-image", "mr-image"}
    | {"positron-emission-tomography-image", "segmentation"}
)
_ALLOCATED: dict[str, frozenset[int]] = {
    "digital-x-ray-image": frozenset({8, 16}),
    "digital-mammography-x-ray-image": frozenset({8, 16}),
    "ct-image": frozenset({16}),
    "mr-image": frozenset({16}),
    "positron-emission-tomography-image": frozenset({16}),
}
"""C.8.2.1, C.8.3.1, C.8.9.4, C.8.11.3."""

_NUM_TYPES = {"ct-image": 3, "mr-image": 3, "digital-x-ray-image": 3, "digital-mammography-x-ray-image": 3}
"""Values that ImageType must have at least (C.8.2.1.1.1, C.8.3.1.1.1, C.8.11.3.1.1); 2 in other images."""

_INTENT = {
    uid.DigitalXRayImageStorageForPresentation: "FOR PRESENTATION",
    uid.DigitalXRayImageStorageForProcessing: "FOR PROCESSING",
    uid.DigitalMammographyXRayImageStorageForPresentation: "FOR PRESENTATION",
    uid.DigitalMammographyXRayImageStorageForProcessing: "FOR PROCESSING",
}
_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3}
_SUBSAMPLED = frozenset({"YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422"})
_SHOWN = frozenset({uid.DigitalXRayImageStorageForPresentation, uid.DigitalMammographyXRayImageStorageForPresentation})
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_LETTERS = frozenset("APRLHF")
_OPPOSITE = ({"A", "P"}, {"R", "L"}, {"H", "F"})
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")

Rule = Callable[[Dataset, str, Collector], None]


def check_image(dataset: Dataset, iod: str, found: Collector) -> None:
    """Adds findings on what the attributes of one image say together.

    Args:
        dataset: With its pixels.
        iod: Name of its IOD; empty where it is unknown, then only what holds for every image is checked.
        found: Takes the findings.
    """
    for rule in _RULES:
        rule(dataset, iod, found)


def _check_class(dataset: Dataset, iod: str, found: Collector) -> None:
    modality = text_of(dataset, "Modality")
    allowed = _MODALITIES.get(iod)
    if modality and allowed is not None and modality not in allowed:
        found.add("sop-class", f"Modality must be {' or '.join(sorted(allowed))} in this SOP class")
    intent = _INTENT.get(uid.UID(text_of(dataset, "SOPClassUID")))
    if intent is not None and text_of(dataset, "PresentationIntentType") not in ("", intent):
        found.add("sop-class", f"PresentationIntentType must be {intent} in this SOP class")
    types = text_of(dataset, "ImageType")
    if types and len(types.split("\\")) < _NUM_TYPES.get(iod, 2) and not _has_empty_type(dataset, iod):
        found.add("vm", f"ImageType must have at least {_NUM_TYPES.get(iod, 2)} values in this SOP class")


def _has_empty_type(dataset: Dataset, iod: str) -> bool:
    """Whether a last value that may be empty is there (DX, C.8.11.3.1.1): reading it trims nothing."""
    return len(dataset["ImageType"].value) >= _NUM_TYPES.get(iod, 2) and not isinstance(dataset.ImageType, str)


def _check_samples(dataset: Dataset, iod: str, found: Collector) -> None:
    photometric, samples = text_of(dataset, "PhotometricInterpretation"), Values(dataset).integer("SamplesPerPixel")
    if samples is not None and photometric in _SAMPLES and samples != _SAMPLES[photometric]:
        found.add("photometric", "SamplesPerPixel must be 1 for grey and palette, 3 for colour images")
    allowed = {"", "MONOCHROME1", "MONOCHROME2"} | ({"PALETTE COLOR"} if iod == "segmentation" else set())
    if iod in _GREY_ONLY and photometric not in allowed:
        found.add("photometric", "PhotometricInterpretation must be MONOCHROME1 or MONOCHROME2 in this SOP class")


def _check_bits(dataset: Dataset, iod: str, found: Collector) -> None:
    values = Values(dataset)
    allocated, stored, high = (values.integer(name) for name in ("BitsAllocated", "BitsStored", "HighBit"))
    if allocated is None or stored is None or high is None:
        return
    if allocated != 1 and allocated % 8:
        found.add("bits", "BitsAllocated must be 1 or a multiple of 8")
    elif allocated not in _ALLOCATED.get(iod, (allocated,)):
        allowed = " or ".join(map(str, sorted(_ALLOCATED[iod])))
        found.add("bits", f"BitsAllocated must be {allowed} in this SOP class")
    if not 0 < stored <= allocated:
        found.add("bits", "BitsStored must be 1 to BitsAllocated")
    if high != stored - 1:
        found.add("bits", "HighBit must be BitsStored - 1")


def _check_length(dataset: Dataset, _: str, found: Collector) -> None:
    """Uncompressed PixelData has the length that its description makes, padded to even (PS3.5 8.1.1, A.4)."""
    values = Values(dataset)
    names = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
    numbers = [values.integer(keyword) for keyword in names]
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if "PixelData" not in dataset or None in numbers:
        return
    frames = values.integer("NumberOfFrames") if "NumberOfFrames" in dataset else 1
    if syntax is not None and _is_compressed(syntax):
        if not _has_frames(dataset["PixelData"].value, frames or 1):
            found.add("pixel-length", "PixelData must be encapsulated, with a fragment at least for each frame")
        return
    if text_of(dataset, "PhotometricInterpretation") in _SUBSAMPLED:
        return
    num_bits = math.prod([number or 0 for number in numbers]) * (frames or 1)
    num_bytes = -(-num_bits // 8)
    data = dataset["PixelData"].value
    if not isinstance(data, bytes) or len(data) != num_bytes + num_bytes % 2:
        found.add(
            "pixel-length", "PixelData must have Rows x Columns x SamplesPerPixel x BitsAllocated / 8 bytes a frame"
        )


def _has_frames(data: object, num_frames: int) -> bool:
    """Whether encapsulated data is whole items, an offset table and then a fragment at least for each frame (A.4)."""
    if not isinstance(data, bytes):
        return False
    offset, num_items = 0, 0
    while offset + 8 <= len(data):
        tag, length = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], "little")
        if tag == _SEQUENCE_END:
            break
        offset += 8 + length
        num_items += 1
        if tag != _ITEM or offset > len(data):
            return False
    return num_items > num_frames


def _is_compressed(syntax: str) -> bool:
    known = uid.UID(syntax)
    return known.is_transfer_syntax and known.is_compressed


def _check_directions(dataset: Dataset, _: str, found: Collector) -> None:
    message = "ImageOrientationPatient must be two unit vectors at right angles"
    for item in _planes(dataset, "PlaneOrientationSequence"):
        if "ImageOrientationPatient" not in item:
            continue
        numbers = Values(item).numbers("ImageOrientationPatient", 6)
        axes = np.array(numbers or [0.0] * 6).reshape(2, 3)
        if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
            found.add("orientation", message)


def _planes(dataset: Dataset, macro: str) -> list[Dataset]:
    """The dataset, and the items of a macro in its functional groups."""
    groups = items_of(dataset, "SharedFunctionalGroupsSequence") + items_of(dataset, "PerFrameFunctionalGroupsSequence")
    return [dataset, *(item for group in groups for item in items_of(group, macro))]


def _check_spacing(dataset: Dataset, _: str, found: Collector) -> None:
    for item in _planes(dataset, "PixelMeasuresSequence"):
        for keyword in _SPACINGS:
            if text_of(item, keyword) and min(Values(item).numbers(keyword, 2) or (0.0,)) <= 0:
                found.add("spacing", f"{keyword} must be two positive numbers")
        for keyword in ("SliceThickness", "SpacingBetweenSlices"):
            number = Values(item).number(keyword)
            is_negative_allowed = text_of(dataset, "Modality") == "NM"
            if number is not None and number < 0 and not is_negative_allowed:
                found.add("spacing", f"{keyword} must not be negative")


def _check_window(dataset: Dataset, iod: str, found: Collector) -> None:
    has = [keyword in dataset for keyword in ("WindowCenter", "WindowWidth")]
    if has[0] and not has[1]:
        found.add("window", "WindowWidth must be present where WindowCenter is")
    if not all(has):
        return
    centers, widths = (text_of(dataset, keyword).split("\\") for keyword in ("WindowCenter", "WindowWidth"))
    if len(centers) != len(widths):
        found.add("window", "WindowWidth must have as many values as WindowCenter")
    explained = text_of(dataset, "WindowCenterWidthExplanation")
    if explained and len(explained.split("\\")) != len(centers):
        found.add("window", "WindowCenterWidthExplanation must have as many values as WindowCenter")
    is_exact = text_of(dataset, "VOILUTFunction") in ("LINEAR_EXACT", "SIGMOID")
    numbers = [float(width) for width in widths if _is_number(width)]
    if any(number <= 0 or (number < 1 and not is_exact) for number in numbers):
        found.add("window", "WindowWidth must be at least 1, or above 0 with LINEAR_EXACT or SIGMOID")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_rescale(dataset: Dataset, iod: str, found: Collector) -> None:
    slope, intercept = text_of(dataset, "RescaleSlope"), text_of(dataset, "RescaleIntercept")
    if _is_number(slope) and float(slope) == 0:
        found.add("rescale", "RescaleSlope must not be 0")
    if bool(slope) != bool(intercept) and not dataset.get("ModalityLUTSequence") and iod not in _NEEDS_RESCALE:
        found.add("rescale", "RescaleSlope and RescaleIntercept must be present together")
    if text_of(dataset, "SOPClassUID") in _SHOWN and slope and intercept:
        if _is_number(slope) and float(slope) not in (0, 1):
            found.add("rescale", "RescaleSlope must be 1 in an image for presentation")
        if _is_number(intercept) and float(intercept) != 0:
            found.add("rescale", "RescaleIntercept must be 0 in an image for presentation")


_NEEDS_RESCALE = frozenset({"ct-image", "digital-x-ray-image", "positron-emission-tomography-image"})
"""Their modules ask for both already."""


def _check_presentation(dataset: Dataset, iod: str, found: Collector) -> None:
    """DX: the presentation LUT goes with the photometric interpretation (C.8.11.3.1.2); one region (C.8.11.2)."""
    shape, photometric = text_of(dataset, "PresentationLUTShape"), text_of(dataset, "PhotometricInterpretation")
    expected = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}.get(photometric)
    if shape in ("IDENTITY", "INVERSE") and expected not in (None, shape):
        found.add("presentation", "PresentationLUTShape must be IDENTITY for MONOCHROME2, INVERSE for MONOCHROME1")
    is_dx = iod in ("digital-x-ray-image", "digital-mammography-x-ray-image")
    if is_dx and len(items_of(dataset, "AnatomicRegionSequence")) > 1:
        found.add("items", "AnatomicRegionSequence must have one item in this SOP class")


def _check_sides(dataset: Dataset, _: str, found: Collector) -> None:
    if "Laterality" in dataset and text_of(dataset, "BodyPartExamined") in terms.UNPAIRED_BODY_PARTS:
        found.add("laterality", "Laterality must be absent for an unpaired body part")
    if "PatientPosition" in dataset and items_of(dataset, "PatientOrientationCodeSequence"):
        found.add("orientation", "PatientPosition must be absent where PatientOrientationCodeSequence is present")
    letters = text_of(dataset, "PatientOrientation")
    if letters and text_of(dataset, "AnatomicalOrientationType") != "QUADRUPED":
        for word in letters.split("\\"):
            is_mixed = any(len(pair & set(word)) > 1 for pair in _OPPOSITE)
            if not _LETTERS.issuperset(word) or len(set(word)) != len(word) or is_mixed:
                found.add("orientation", "PatientOrientation must be of the letters A, P, R, L, H, F")
                break


def _check_compression(dataset: Dataset, iod: str, found: Collector) -> None:
    """Lossy images say by how much and how; outside DX and SEG the standard only recommends it (C.7.6.1.1.5)."""
    is_required = iod in ("digital-x-ray-image", "digital-mammography-x-ray-image", "segmentation")
    if text_of(dataset, "LossyImageCompression") != "01" or is_required:
        return
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if not text_of(dataset, keyword):
            found.add("lossy", f"{keyword} should be present with a value where the image was compressed", "warning")


def _check_offset(dataset: Dataset, _: str, found: Collector) -> None:
    values = Values(dataset)
    values.study_time()
    if values.bad["TimezoneOffsetFromUTC"]:
        found.add("date", "TimezoneOffsetFromUTC must be from -1200 to +1400, as &ZZXX")


_RULES: tuple[Rule, ...] = (
    _check_class,
    _check_samples,
    _check_bits,
    _check_length,
    _check_directions,
    _check_spacing,
    _check_window,
    _check_rescale,
    _check_presentation,
    _check_sides,
    _check_compression,
    _check_offset,
)
