"""DICOM segmentations (PS3.3 A.51): which pixels of a series of slices belong to what, by highdicom."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.coding import Code

from medtwin.dicom.uids import synthetic_uid
from medtwin.dicom.values import quiet
from medtwin.dicom.writing.derived import Maker, check_sources, content_time, finish

if TYPE_CHECKING:
    import highdicom as hd

TISSUE = Code("85756007", "SCT", "Tissue")
"""A category for body structures that are tissue (CID 7150)."""

THRESHOLDING = Code("123105", "DCM", "Histogram Analysis")
"""The family of algorithms that thresholds are of (CID 7162)."""

_IN_PATIENT = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


@dataclass(frozen=True)
class Segment:
    """What is marked.

    Attributes:
        label: For people, at most 64 characters.
        kind: What it is, such as bone (CID 7151 and those it names).
        category: What sort of thing that is (CID 7150).
        algorithm: Name of what found it; None: a person (MANUAL).
        algorithm_type: How, where an algorithm did. family: Of that algorithm (CID 7162).
    """

    label: str
    kind: Code
    category: Code = TISSUE
    algorithm: str | None = None
    algorithm_type: Literal["AUTOMATIC", "SEMIAUTOMATIC"] = "AUTOMATIC"
    family: Code = THRESHOLDING

    def __post_init__(self) -> None:
        if not 0 < len(self.label) <= 64 or "\\" in self.label:
            raise ValueError("label must have 1 to 64 characters and no backslash")
        if self.algorithm_type not in ("AUTOMATIC", "SEMIAUTOMATIC"):
            raise ValueError(f"algorithm_type must be AUTOMATIC or SEMIAUTOMATIC, got {self.algorithm_type!r}")


def segmentation_to_dataset(
    masks: NDArray[Any], sources: Sequence[Dataset], segments: Sequence[Segment], maker: Maker | None = None
) -> FileDataset:
    """A segmentation of a volume as Segmentation Storage, BINARY; equal input gives equal bytes.

    Study, patient, frame of reference and position are those of the images; the UIDs depend on the series and on what
    is marked. Synthetic images give a marked segmentation.

    Args:
        masks: (slices, rows, columns): 0 is nothing, k is segment k, counted from 1; or (slices, rows, columns,
            segments) of booleans, where segments may overlap.
        sources: The images that were segmented, a slice each, in the order of `masks`; pixels are not needed.
        segments: What the marks mean, in order.
        maker: What made it; None: medtwin.

    Raises:
        ValueError: If masks and images do not fit together, a mark is of no segment, nothing is marked at all, or the
            images are no slices in the patient.
    """
    import highdicom as hd  # slow to import

    maker = maker or Maker()
    check_sources(sources)
    missing = [keyword for keyword in _IN_PATIENT if any(keyword not in source for source in sources)]
    if missing:
        raise ValueError(f"sources must be slices of a volume, with {', '.join(missing)}")
    for keyword in ("ImageOrientationPatient", "PixelSpacing"):
        if len({str(source[keyword].value) for source in sources}) > 1:
            raise ValueError(f"sources must have one {keyword}")
    if len({str(source.ImagePositionPatient) for source in sources}) != len(sources):
        raise ValueError("sources must lie at different places")
    marks = _marks(masks, sources, len(segments))
    day, clock = content_time(sources[0], maker)
    digest = hashlib.sha256(np.packbits(marks).tobytes() + repr(tuple(segments)).encode()).hexdigest()
    series_uid = synthetic_uid(str(sources[0].SeriesInstanceUID), "segmentation", digest)
    with quiet():
        made = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=marks,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(i + 1, each, maker) for i, each in enumerate(segments)],
            series_instance_uid=series_uid,
            series_number=maker.series_number,
            sop_instance_uid=synthetic_uid(series_uid, 0),
            instance_number=1,
            manufacturer="medtwin",
            manufacturer_model_name=maker.model,
            software_versions=maker.software_version,
            device_serial_number=maker.software_version,
            content_label="SEGMENTATION",
            content_date=day,
            content_time=clock,
        )
        made["PixelData"].VR = "OB"
        dataset = finish(made, sources[0], maker)
        _renew_dimensions(dataset, series_uid)
    return dataset


def _marks(masks: NDArray[Any], sources: Sequence[Dataset], num_segments: int) -> NDArray[np.uint8]:
    """(slices, rows, columns, segments) of 0 and 1."""
    shape = (len(sources), int(sources[0].Rows), int(sources[0].Columns))
    if masks.shape[:3] != shape or any((source.Rows, source.Columns) != shape[1:] for source in sources):
        raise ValueError(f"masks must be (slices, rows, columns) of the images, {shape}, got {masks.shape}")
    if num_segments == 0:
        raise ValueError("segments must name what is marked, got none")
    if masks.ndim == 4 and masks.shape[3] == num_segments and (masks.dtype == bool or set(np.unique(masks)) <= {0, 1}):
        marks = masks.astype(np.uint8)
    elif masks.ndim == 3 and (masks.dtype == bool or np.issubdtype(masks.dtype, np.integer)):
        if masks.min() < 0 or masks.max() > num_segments:
            raise ValueError(f"masks must be 0 to {num_segments}, the number of segments")
        marks = np.stack([masks == number + 1 for number in range(num_segments)], axis=-1).astype(np.uint8)
    else:
        raise ValueError("masks must be whole numbers in 3 axes, or booleans in 4, the last one the segments")
    if not marks.any():
        raise ValueError("masks must mark a pixel at least: an empty segmentation has no frame")
    return marks


def _description(number: int, segment: Segment, maker: Maker) -> hd.seg.SegmentDescription:
    import highdicom as hd

    automatic = segment.algorithm is not None
    identification = None
    if segment.algorithm is not None:
        identification = hd.AlgorithmIdentificationSequence(
            name=segment.algorithm[:64],
            family=segment.family,
            version=maker.software_version,
        )
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=segment.category,
        segmented_property_type=segment.kind,
        algorithm_type=segment.algorithm_type if automatic else "MANUAL",
        algorithm_identification=identification,
    )


def _renew_dimensions(dataset: Dataset, series_uid: str) -> None:
    """Highdicom draws DimensionOrganizationUID by chance."""
    renewed = synthetic_uid(series_uid, "dimensions")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        if "DimensionOrganizationUID" in item:
            item.DimensionOrganizationUID = renewed
