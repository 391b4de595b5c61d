"""Multi-frame images frame by frame: what a single-frame object would say of one frame.

DICOM PS3.3-2023 C.7.6.16 (functional groups) and C.8.15, C.8.13, C.8.22 (Enhanced CT, MR and PET): what a single-frame
image says at its top level stands here in sequences of one item, for all frames (shared) or for each (per-frame).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

import pydicom.uid as uid
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from medtwin.dicom import terms
from medtwin.dicom.values import PARSE_ERRORS, Values, format_ds

SINGLE_FRAME_CLASS: dict[str, str] = {
    uid.EnhancedCTImageStorage: uid.CTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage: uid.CTImageStorage,
    uid.EnhancedMRImageStorage: uid.MRImageStorage,
    uid.LegacyConvertedEnhancedMRImageStorage: uid.MRImageStorage,
    uid.EnhancedPETImageStorage: uid.PositronEmissionTomographyImageStorage,
    uid.LegacyConvertedEnhancedPETImageStorage: uid.PositronEmissionTomographyImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage: uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage: uid.SecondaryCaptureImageStorage,
}
"""Multi-frame image storage classes that are read, and the class of a single frame.

They have a modality value: the rescale of a frame, or the identity for Secondary Capture, gives what the modality
measured. Ultrasound, endoscopy and angiography hold display values of moments in time; nuclear medicine orders its
frames by energy windows, detectors and phases, not by place; dose, segments and maps are no images of a patient.
"""

_PIXELS = 0x7FE00000
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"

_LEFT_OUT = frozenset({SHARED, PER_FRAME, "NumberOfFrames", "FrameIncrementPointer", "DimensionIndexSequence"})
_LEFT_OUT |= frozenset({"DimensionOrganizationSequence", "DimensionOrganizationType", "ConcatenationUID"})

_KEPT_GROUPS = frozenset({"RealWorldValueMappingSequence", "ReferencedImageSequence", "DerivationImageSequence"})
"""Groups that a single-frame image holds as the same sequence."""

_RENAMED = {
    "FrameType": "ImageType",
    "FrameLaterality": "ImageLaterality",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "EffectiveEchoTime": "EchoTime",
    "InversionTimes": "InversionTime",
    "ExposureTimeInms": "ExposureTime",
    "XRayTubeCurrentInmA": "XRayTubeCurrent",
    "ExposureInmAs": "Exposure",
}
"""Attributes of a frame that a single-frame image calls otherwise; the unit is the same (ms, mA, mAs)."""

_REGION_BODY_PARTS = {code: part for part, (code, _) in terms.ANATOMIC_REGIONS.items()} | {
    "12738006": "BRAIN",
    "69536005": "HEAD",
    "774007": "HEADNECK",
    "45048000": "NECK",
    "51185008": "CHEST",
    "80891009": "HEART",
    "76752008": "BREAST",
    "10200004": "LIVER",
    "64033007": "KIDNEY",
    "T-A0100": "BRAIN",
    "T-D1100": "HEAD",
    "T-D1600": "NECK",
    "T-D3000": "CHEST",
    "T-D4000": "ABDOMEN",
    "T-D6000": "PELVIS",
    "113345001": "ABDOMEN",
    "12921003": "PELVIS",
    "421060004": "SPINE",
}
"""SNOMED code of AnatomicRegionSequence to BodyPartExamined (PS3.16-2023 Annex L, Table L-1, and its retired codes)."""


def frame_dataset(dataset: Dataset, frame: int) -> Dataset:
    """What a single-frame object would say of one frame: the groups shared and of the frame, at the top level.

    The class becomes that of a single frame, InstanceNumber the number of the frame (from 1). Values are those of the
    source, nothing is made up; setting one in the frame leaves the source as it is, but sequences and lists are shared.
    Pixels and functional groups are left out. SOPInstanceUID is still that of the whole
    object: whoever writes the frame gives it its own, from `Instance.sop_uid`.

    Args:
        dataset: A multi-frame image.
        frame: Its number, from 0.

    Raises:
        IndexError: If there are per-frame groups, but none for this frame.
    """
    flat = Dataset()
    for element in _elements(dataset):
        if element.keyword not in _LEFT_OUT:
            flat[element.tag] = element
    groups = [group for group in (_item(dataset, SHARED, 0), _item(dataset, PER_FRAME, frame)) if group is not None]
    for group in groups:
        _flatten_group(flat, group)
    flat.InstanceNumber = frame + 1
    sop_class = SINGLE_FRAME_CLASS.get(str(dataset.get("SOPClassUID", "")))
    if sop_class is not None:
        flat.SOPClassUID = sop_class
    _add_derived(flat)
    return flat


def num_groups(dataset: Dataset) -> int | None:
    """How many items the per-frame functional groups have; None without them."""
    return len(dataset[PER_FRAME].value) if PER_FRAME in dataset else None


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    """The elements below the pixels that can be read; one that cannot is as good as absent."""
    for tag in sorted(tag for tag in dataset.keys() if tag < _PIXELS):  # noqa: SIM118 - iterating parses the values
        try:
            element = dataset[tag]
        except PARSE_ERRORS:
            continue
        yield copy(element)  # a value set in the frame must not change the source


def _item(dataset: Dataset, keyword: str, index: int) -> Dataset | None:
    if keyword not in dataset or not dataset[keyword].value:
        return None
    item: Dataset = dataset[keyword].value[index]
    return item


def _flatten_group(flat: Dataset, group: Dataset) -> None:
    for element in _elements(group):
        if element.VR != "SQ" or element.keyword in _KEPT_GROUPS:
            flat[element.tag] = element
        elif element.value:
            for inner in _elements(element.value[0]):
                flat[inner.tag] = inner


def _add_derived(flat: Dataset) -> None:
    """What a single-frame image states under another name, unless the object states it there as well."""
    values = Values(flat)
    for source, target in _RENAMED.items():
        if source not in flat or (target != "ImageType" and values.has(target)):
            continue
        if dictionary_VR(target) in ("DS", "IS"):
            number = values.first_number(source)
            if number is not None:
                whole = dictionary_VR(target) == "IS"
                flat[target] = DataElement(target, dictionary_VR(target), round(number) if whole else format_ds(number))
        elif flat[source].value is not None:
            flat[target] = DataElement(target, dictionary_VR(target), flat[source].value)
    moment = values.text("FrameAcquisitionDateTime")
    if moment is not None and len(moment) >= 8 and not values.has("AcquisitionDate"):
        day, _, _ = moment.partition("+")
        flat.AcquisitionDate, flat.AcquisitionTime = day[:8], day[8:].partition("-")[0]
    if not values.has("BodyPartExamined"):
        _add_body_part(flat)


def _add_body_part(flat: Dataset) -> None:
    regions = flat.get("AnatomicRegionSequence")
    part = _REGION_BODY_PARTS.get(str(regions[0].get("CodeValue", ""))) if regions else None
    if part is not None:
        flat.BodyPartExamined = part
