"""Valid datasets, one of each IOD, that the defects are planted in."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pydicom.uid as uid
from pydicom.dataset import FileDataset
from pydicom.sr.codedict import codes

from medtwin.dicom import (
    Patient,
    ProjectionImage,
    Study,
    Volume,
    projection_to_dataset,
    synthetic_uid,
    volume_to_datasets,
)
from medtwin.dicom.values import quiet
from medtwin.dicom.writing.encode import file_dataset

PATIENT = Patient("MT-0001", "Subject^One", "F", age_years=54.0)
STUDY = Study(
    study_uid=synthetic_uid("defects", "study"),
    series_uid=synthetic_uid("defects", "series"),
    origin="synthetic",
    time=datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
    body_part="CHEST",
)
_RADIOGRAPH = ProjectionImage(np.arange(48, dtype=np.uint16).reshape(6, 8) * 85, view="PA", pixel_spacing_mm=(1.4, 1.5))
_VALUES = np.linspace(0, 3000, 3 * 4 * 5).reshape(3, 4, 5)


def _slices(modality: str) -> list[FileDataset]:
    return list(volume_to_datasets(Volume(_VALUES, modality, (0.7, 0.8), 2.5), PATIENT, STUDY))  # type: ignore[arg-type]


def _ct() -> FileDataset:
    return _slices("CT")[0]


def _mr() -> FileDataset:
    return _slices("MR")[0]


def _cr() -> FileDataset:
    return projection_to_dataset(_RADIOGRAPH, PATIENT, STUDY)


def _dx() -> FileDataset:
    return projection_to_dataset(replace(_RADIOGRAPH, modality="DX"), PATIENT, STUDY)


def _sc() -> FileDataset:
    """A radiograph as Secondary Capture (A.8.1), made from the CR here: the writer's faults are not shared."""
    dataset = _cr()
    for keyword in ("ViewPosition", "ImagerPixelSpacing"):
        del dataset[keyword]
    dataset.SOPClassUID, dataset.Modality, dataset.ConversionType = uid.SecondaryCaptureImageStorage, "OT", "SYN"
    return file_dataset(dataset)


def _seg() -> FileDataset:
    """Two segments of a CT of three slices (A.51), by highdicom."""
    import highdicom as hd

    slices = _slices("CT")
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"Part {number}",
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Bone,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name="threshold", family=codes.DCM.ArtificialIntelligence, version="1"
            ),
        )
        for number in (1, 2)
    ]
    masks = np.zeros((3, 4, 5, 2), dtype=np.uint8)
    masks[:, 1, 1:3, 0] = masks[:, 2, 1:3, 1] = 1
    with quiet():
        made = hd.seg.Segmentation(
            source_images=slices,
            pixel_array=masks,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=synthetic_uid("defects", "segmentation"),
            series_number=2,
            sop_instance_uid=synthetic_uid("defects", "segmentation", 1),
            instance_number=1,
            manufacturer="medtwin",
            manufacturer_model_name="test",
            software_versions="1",
            device_serial_number="1",
            omit_empty_frames=False,
        )
    return file_dataset(made)


BASES: dict[str, Callable[[], FileDataset]] = {
    "CT": _ct,
    "MR": _mr,
    "CR": _cr,
    "DX": _dx,
    "SC": _sc,
    "SEG": _seg,
}
_MADE: dict[str, FileDataset] = {}


def base(iod: str) -> FileDataset:
    """A fresh valid dataset."""
    if iod not in _MADE:
        _MADE[iod] = BASES[iod]()
    return deepcopy(_MADE[iod])


def series() -> list[FileDataset]:
    """A fresh valid series: three slices of a CT."""
    return _slices("CT")
