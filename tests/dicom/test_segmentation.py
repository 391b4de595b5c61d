from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import FileDataset
from pydicom.sr.coding import Code

from medtwin.dicom import (
    Maker,
    Segment,
    Volume,
    open_series,
    projection_to_dataset,
    segmentation_to_dataset,
    validate_dataset,
    volume_to_datasets,
    write_volume,
)
from medtwin.hospital import ImageOrder, draw_picture
from medtwin.hospital.chest_ct import CtSeries
from tests.dicom.samples import ct, save
from tests.dicom.test_write import CT, PATIENT, RADIOGRAPH, STUDY

BONE = Segment("Bone", Code("272673000", "SCT", "Bone"), algorithm="threshold 300 HU")
LUNG = Segment("Lung", Code("39607008", "SCT", "Lung"))
MASK = np.zeros((3, 4, 5), dtype=np.uint8)
MASK[:, 1, 1:3] = 1
MASK[1, 2, 2:4] = 2


def _slices(**changed: Any) -> list[FileDataset]:
    return list(volume_to_datasets(replace(CT, **changed), PATIENT, STUDY))


def _bytes(dataset: FileDataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _read_back(dataset: FileDataset, num_slices: int, num_segments: int) -> np.ndarray:
    """(slices, rows, columns, segments), by the attributes of the frames alone."""
    read = pydicom.dcmread(BytesIO(_bytes(dataset)))
    frames = read.pixel_array.reshape(-1, read.Rows, read.Columns)
    found = np.zeros((num_slices, read.Rows, read.Columns, num_segments), dtype=np.uint8)
    positions = sorted({_position(group) for group in read.PerFrameFunctionalGroupsSequence})
    for frame, group in zip(frames, read.PerFrameFunctionalGroupsSequence, strict=True):
        holder = group if "SegmentIdentificationSequence" in group else read.SharedFunctionalGroupsSequence[0]
        segment = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1
        found[positions.index(_position(group)), ..., segment] = frame
    return found


def _position(group: pydicom.Dataset) -> tuple[float, ...]:
    return tuple(map(float, group.PlanePositionSequence[0].ImagePositionPatient))[::-1]


def test_a_label_map_is_valid_and_reads_back(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    sources = _slices()
    made = segmentation_to_dataset(MASK, sources, [BONE, LUNG], Maker("model", "1.2", description="bones"))
    assert validate_dataset(made) == []
    path = save(tmp_path / "seg.dcm", made)
    assert validate_dataset(pydicom.dcmread(path)) == []
    assert dciodvfy(path) == []
    back = _read_back(made, 3, 2)
    assert np.array_equal(back[..., 0], MASK == 1)
    assert np.array_equal(back[1, ..., 1], MASK[1] == 2)
    assert (made.SegmentationType, made.BitsAllocated, made.NumberOfFrames) == ("BINARY", 1, 4)


def _changed(keyword: str, value: object) -> list[FileDataset]:
    sources = _slices()
    setattr(sources[-1], keyword, value)
    return sources


def test_the_order_of_images_does_not_move_marks() -> None:
    turned = segmentation_to_dataset(MASK[::-1], _slices()[::-1], [BONE, LUNG])
    back = _read_back(turned, 3, 2)
    assert np.array_equal(back[..., 0], MASK == 1)
    assert validate_dataset(turned) == []


def test_it_belongs_to_the_study_and_says_what_it_is() -> None:
    sources = _slices()
    made = segmentation_to_dataset(MASK, sources, [BONE, LUNG], Maker("model", "1.2", "simulated", 7, "bones"))
    for keyword in (
        *("PatientID", "PatientName", "PatientSex", "StudyInstanceUID", "StudyDate", "AccessionNumber"),
        *("FrameOfReferenceUID", "TimezoneOffsetFromUTC", "ContentDate", "IssuerOfPatientID"),
    ):
        assert made[keyword].value == sources[0][keyword].value, keyword
    assert made.SeriesInstanceUID != sources[0].SeriesInstanceUID
    assert (made.Modality, made.SeriesNumber, made.SeriesDescription) == ("SEG", 7, "SYNTHETIC bones")
    assert (made.SyntheticData, made.ContentQualification) == ("YES", "RESEARCH")
    (equipment,) = made.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109100"
    assert [(item.SegmentLabel, item.SegmentAlgorithmType) for item in made.SegmentSequence] == [
        ("Bone", "AUTOMATIC"),
        ("Lung", "MANUAL"),
    ]
    (series,) = made.ReferencedSeriesSequence
    referenced = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert referenced == {source.SOPInstanceUID for source in sources}


def test_equal_input_gives_equal_bytes_and_other_marks_another_instance() -> None:
    first = segmentation_to_dataset(MASK, _slices(), [BONE, LUNG])
    assert _bytes(first) == _bytes(segmentation_to_dataset(MASK.copy(), _slices(), [BONE, LUNG]))
    assert "InstanceCreationDate" not in first
    other = segmentation_to_dataset(np.flip(MASK, 2), _slices(), [BONE, LUNG])
    assert other.SOPInstanceUID != first.SOPInstanceUID
    renamed = segmentation_to_dataset(MASK, _slices(), [replace(BONE, label="Cortex"), LUNG])
    assert renamed.SOPInstanceUID != first.SOPInstanceUID


def test_segments_may_overlap() -> None:
    masks = np.zeros((3, 4, 5, 2), dtype=bool)
    masks[:, 1:3, 1:3, 0] = masks[:, 2:4, 2:4, 1] = True
    made = segmentation_to_dataset(masks, _slices(), [BONE, LUNG])
    assert np.array_equal(_read_back(made, 3, 2), masks)
    assert validate_dataset(made) == []


def test_real_images_give_an_unmarked_segmentation(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    made = segmentation_to_dataset(MASK, [ct(index) for index in range(3)], [BONE, LUNG])
    assert "SyntheticData" not in made
    assert (made.Manufacturer, made.PatientID) == ("medtwin", "MR4711")
    assert validate_dataset(made) == []
    assert dciodvfy(save(tmp_path / "seg.dcm", made)) == []


@given(arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 3)))
@settings(max_examples=10, deadline=None)
def test_any_label_map_reads_back(mask: np.ndarray) -> None:
    mask[:, 0, 0] = 1  # a slice without a mark has no frame, and no place to read back
    segments = [BONE, LUNG, replace(LUNG, label="Other lung")]
    made = segmentation_to_dataset(mask, _slices(), segments)
    assert validate_dataset(made) == []
    back = _read_back(made, 3, 3)
    assert np.array_equal((back * np.array([1, 2, 3])).sum(axis=-1), mask)


def test_undated_images_need_a_time() -> None:
    undated = list(volume_to_datasets(CT, PATIENT, replace(STUDY, time=None)))
    with pytest.raises(ValueError, match=r"give maker\.time"):
        segmentation_to_dataset(MASK, undated, [BONE, LUNG])
    made = segmentation_to_dataset(MASK, undated, [BONE, LUNG], Maker(time=datetime(2024, 5, 6, 7, tzinfo=UTC)))
    assert (made.ContentDate, made.ContentTime, made.StudyDate or "") == ("20240506", "070000", "")
    assert validate_dataset(made) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: segmentation_to_dataset(MASK, [], [BONE]), "got none"),
        (lambda: segmentation_to_dataset(MASK[:2], _slices(), [BONE, LUNG]), r"masks must be \(slices"),
        (lambda: segmentation_to_dataset(MASK, _slices(), [BONE]), "0 to 1"),
        (lambda: segmentation_to_dataset(MASK, _slices(), []), "segments must name"),
        (lambda: segmentation_to_dataset(MASK * 0, _slices(), [BONE, LUNG]), "a pixel at least"),
        (lambda: segmentation_to_dataset(MASK / 2, _slices(), [BONE, LUNG]), "whole numbers"),
        (lambda: segmentation_to_dataset(MASK[..., None], _slices(), [BONE, LUNG]), "whole numbers"),
        (lambda: segmentation_to_dataset(MASK.astype(int) - 1, _slices(), [BONE, LUNG]), "0 to 2"),
        (lambda: segmentation_to_dataset(MASK, _slices()[:1] * 3, [BONE, LUNG]), "different images"),
        (lambda: segmentation_to_dataset(MASK, [*_slices()[:2], ct(2)], [BONE, LUNG]), "of one series"),
        (
            lambda: segmentation_to_dataset(
                np.ones((1, 6, 8), bool), [projection_to_dataset(RADIOGRAPH, PATIENT, STUDY)], [BONE]
            ),
            "slices of a volume, with FrameOfReferenceUID",
        ),
        (lambda: replace(BONE, label=""), "label must have"),
        (lambda: Segment("Bone", BONE.kind, algorithm_type="MANUAL"), "algorithm_type"),  # type: ignore[arg-type]
        (lambda: segmentation_to_dataset(MASK, _changed("PixelSpacing", ["1", "1"]), [BONE, LUNG]), "one PixelSpacing"),
        (
            lambda: segmentation_to_dataset(
                MASK, _changed("ImagePositionPatient", _slices()[0].ImagePositionPatient), [BONE, LUNG]
            ),
            "different places",
        ),
        (lambda: Maker(description="a\\b"), "no backslash"),
        (lambda: Maker(series_number=0), "series_number"),
        (lambda: Maker(model=""), "model and software_version"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_bone_of_a_hospital_ct(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    """The example of docs/dicom_validation.md: a threshold on a CT of the embedded hospital."""
    write_volume(tmp_path / "ct", _hospital_ct(), PATIENT, STUDY)
    series = open_series(tmp_path / "ct")
    masks = (series.pixels() > 300).astype(np.uint8)
    sources = [pydicom.dcmread(instance.path, stop_before_pixels=True) for instance in series.instances]
    made = segmentation_to_dataset(masks, sources, [BONE])
    assert validate_dataset(made) == []
    assert dciodvfy(save(tmp_path / "seg.dcm", made)) == []
    assert int(_read_back(made, len(masks), 1).sum()) == int(masks.sum()) > 0


def _hospital_ct() -> Volume:
    order = ImageOrder(
        index=0,
        subject_id=1,
        time=datetime(2024, 1, 2),
        modality="CT",
        view=None,
        study_uid=STUDY.study_uid,
        series_uid=STUDY.series_uid,
        sex="F",
        age_years=70.0,
        bmi=25.0,
        heart_failure=0.0,
        copd=False,
        pneumonia=True,
    )
    picture = draw_picture(order, seed=3)
    assert isinstance(picture, CtSeries)
    heights = [position[2] for position in picture.slice_positions_mm]
    return Volume(
        picture.voxels,
        "CT",
        picture.pixel_spacing_mm,
        heights[1] - heights[0],
        picture.slice_thickness_mm,
        picture.slice_positions_mm[0],
    )
