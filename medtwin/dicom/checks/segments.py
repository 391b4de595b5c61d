"""Rules of multi-frame images and of segmentations: frames, dimensions, macros, segments (PS3.3 C.7.6.16, C.8.20)."""

from __future__ import annotations

from pydicom.dataset import Dataset

from medtwin.dicom.checks.collect import Collector, items_of, text_of
from medtwin.dicom.values import Values

_SEGMENTATION_BITS = {"BINARY": frozenset({1}), "FRACTIONAL": frozenset({8}), "LABELMAP": frozenset({8, 16})}
_REQUIRED_MACROS = {
    "segmentation": ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence"),
    "enhanced-ct-image": ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence"),
    "enhanced-mr-image": ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence"),
    "enhanced-pet-image": ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence"),
}
"""Macros that every frame needs, shared or its own (A.51.5, A.38.1.4, A.36.2.4, A.56.4)."""


def check_frames(dataset: Dataset, iod: str, found: Collector) -> None:
    """Adds findings on the frames of a multi-frame image; nothing where there are no functional groups."""
    if "SharedFunctionalGroupsSequence" not in dataset:
        return
    shared, frames = (items_of(dataset, f"{name}FunctionalGroupsSequence") for name in ("Shared", "PerFrame"))
    number = Values(dataset).integer("NumberOfFrames")
    if number is not None and frames and len(frames) != number:
        found.add("frames", "PerFrameFunctionalGroupsSequence must have an item for each of NumberOfFrames")
    is_whole_slide = "TotalPixelMatrixColumns" in dataset
    for macro in () if is_whole_slide else _REQUIRED_MACROS.get(iod, ()):
        if not any(macro in item for item in shared) and not (frames and all(macro in item for item in frames)):
            found.add("macro", f"{macro} must be in the shared functional groups or in those of each frame")
    for macro in ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence"):
        if any(macro in item for item in shared) and any(macro in item for item in frames):
            found.add(
                "macro", f"{macro} must be in the shared functional groups or in those of each frame, not in both"
            )
    _check_dimensions(dataset, frames, found)


def _check_dimensions(dataset: Dataset, frames: list[Dataset], found: Collector) -> None:
    indices = items_of(dataset, "DimensionIndexSequence")
    organizations = {
        text_of(item, "DimensionOrganizationUID") for item in items_of(dataset, "DimensionOrganizationSequence")
    }
    if any(text_of(item, "DimensionOrganizationUID") not in organizations for item in indices):
        message = "DimensionIndexSequence must name a DimensionOrganizationUID of DimensionOrganizationSequence"
        found.add("dimensions", message)
    for frame in frames:
        for content in items_of(frame, "FrameContentSequence"):
            values = text_of(content, "DimensionIndexValues")
            if values and len(values.split("\\")) != len(indices):
                found.add(
                    "dimensions", "DimensionIndexValues must have a value for each item of DimensionIndexSequence"
                )


def check_segments(dataset: Dataset, found: Collector) -> None:
    """Adds findings on the segments of a segmentation, and on which frame shows which."""
    kind, allocated = text_of(dataset, "SegmentationType"), Values(dataset).integer("BitsAllocated")
    if kind in _SEGMENTATION_BITS and allocated is not None and allocated not in _SEGMENTATION_BITS[kind]:
        found.add("bits", "BitsAllocated must be 1 for BINARY, 8 for FRACTIONAL, 8 or 16 for LABELMAP")
    numbers = [text_of(item, "SegmentNumber") for item in items_of(dataset, "SegmentSequence")]
    if len(set(numbers)) != len(numbers):
        found.add("segments", "SegmentNumber must be unique")
    if kind == "LABELMAP":
        return
    if [number for number in dict.fromkeys(numbers) if number] != [
        str(index + 1) for index in range(len(set(numbers)))
    ]:
        found.add("segments", "SegmentNumber must count from 1 without gaps")
    frames = items_of(dataset, "PerFrameFunctionalGroupsSequence")
    shared = items_of(dataset, "SharedFunctionalGroupsSequence")
    for group in (*shared, *frames):
        for item in items_of(group, "SegmentIdentificationSequence"):
            if text_of(item, "ReferencedSegmentNumber") not in numbers:
                found.add("segments", "ReferencedSegmentNumber must be a SegmentNumber of SegmentSequence")
    is_shared = any("SegmentIdentificationSequence" in item for item in shared)
    if not is_shared and any("SegmentIdentificationSequence" not in item for item in frames):
        found.add("macro", "SegmentIdentificationSequence must be in the functional groups of each frame")
