from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
)

from medtwin.core.errors import SourceError
from medtwin.core.sources import Ledger
from medtwin.dicom import Series, read_folder
from medtwin.dicom.reading.enhanced import frame_dataset
from tests.dicom.enhanced_samples import enhanced_ct, enhanced_mr, item
from tests.dicom.samples import pixels, save, save_ct


def read(folder: Path) -> tuple[list[Series], Ledger]:
    ledger = Ledger()
    series = read_folder(folder, ledger)
    ledger.carried["DICOM"] = sum(len(one.instances) for one in series)
    assert not ledger.imbalance()
    return series, ledger


def test_frames_are_slices_sorted_in_space_each_with_its_rescale(tmp_path: Path) -> None:
    save(tmp_path / "e.dcm", enhanced_ct())
    (series,), ledger = read(tmp_path)
    assert [one.frame for one in series.instances] == [2, 1, 0]
    assert [one.position for one in series.instances] == [(-10, -20, 5 - 2.5 * frame) for frame in (2, 1, 0)]
    assert [one.file for one in series.instances] == ["e.dcm#3", "e.dcm#2", "e.dcm#1"]
    assert len({one.sop_uid for one in series.instances}) == 3
    expected = np.stack([(frame + 1.0) * pixels(frame) - 1000 for frame in (2, 1, 0)])
    assert np.array_equal(series.pixels(), expected)
    assert series.geometry.slice_spacing_mm == 2.5
    assert (series.geometry.pixel_spacing_row_mm, series.geometry.pixel_spacing_column_mm) == (0.5, 0.75)
    header = series.header
    assert (header.intensity_unit, header.body_part, header.tube_kv, header.slice_thickness_mm) == (
        "HU",
        "CHEST",
        120,
        2.5,
    )
    assert (header.sex, header.age_years, series.findings) == ("F", 40, ())
    assert ledger.read == {"DICOM": 3}
    assert ledger.flags == {"DICOM.multi-frame-file": 1}


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
def test_transfer_syntaxes_of_frames(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    is_compressed = syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless)
    dataset = enhanced_ct(shape=(64, 48)) if is_compressed else enhanced_ct(shape=(64, 48), syntax=syntax)
    if is_compressed:
        dataset.compress(syntax)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
    save(tmp_path / "e", dataset)
    (series,), _ = read(tmp_path)
    expected = np.stack([(frame + 1.0) * pixels(frame, (64, 48)) - 1000 for frame in (2, 1, 0)])
    assert np.array_equal(series.pixels(), expected)
    assert np.array_equal(series.instances[0].stored(), pixels(2, (64, 48)))
    assert (series.instances[0].pixel.offset is None) == (is_compressed or syntax == DeflatedExplicitVRLittleEndian)


def test_a_frame_says_what_a_single_frame_object_would() -> None:
    frame = frame_dataset(enhanced_ct(), 1)
    assert frame.SOPClassUID == pydicom.uid.CTImageStorage
    assert frame.ImagePositionPatient == [-10, -20, 2.5]
    assert frame.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert (frame.RescaleSlope, frame.RescaleIntercept, frame.RescaleType) == (2, -1000, "HU")
    assert (frame.WindowCenter, frame.WindowWidth) == (41, 400)
    assert (frame.InstanceNumber, frame.AcquisitionNumber) == (2, 8)
    assert (frame.AcquisitionDate, frame.AcquisitionTime) == ("20200229", "101111.5")
    assert (frame.ExposureTime, frame.XRayTubeCurrent, frame.Exposure, frame.KVP) == (500, 200, 100, 120)
    assert frame.ImageType == ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    assert (frame.BodyPartExamined, frame.ImageLaterality, frame.ReconstructionDiameter) == ("CHEST", "U", 350)
    assert frame.PatientID == "MR4711"
    for keyword in (
        "NumberOfFrames",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "PixelData",
    ):
        assert keyword not in frame


def test_a_frame_does_not_change_its_source() -> None:
    dataset = enhanced_ct()
    before = dataset.to_json()
    frame = frame_dataset(dataset, 0)
    frame.PatientID, frame.ImageComments = "x", "y"
    assert dataset.to_json() == before


def test_a_frame_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IndexError):
        frame_dataset(enhanced_ct(), 3)


def test_echoes_at_one_place_are_said(tmp_path: Path) -> None:
    dataset = enhanced_mr()
    assert [frame_dataset(dataset, frame).EchoTime for frame in (0, 1)] == [10.5, 21]
    assert frame_dataset(dataset, 0).RepetitionTime == 2500
    save(tmp_path / "m", dataset)
    (series,), _ = read(tmp_path)
    assert [finding.rule for finding in series.findings] == ["repeated-position"]
    assert series.affine() is None
    assert series.header.modality == "MR"


def test_frames_of_two_orientations_are_two_stacks(tmp_path: Path) -> None:
    dataset = enhanced_ct(4)
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        direction = [1, 0, 0, 0, 1, 0] if index < 3 else [0, 1, 0, 0, 0, -1]
        group.PlaneOrientationSequence = [item(ImageOrientationPatient=direction)]
    save(tmp_path / "e", dataset)
    series, _ = read(tmp_path)
    assert sorted(len(one.instances) for one in series) == [1, 3]
    assert all("orientations" in one.findings[0].message for one in series)


def test_secondary_capture_of_several_frames(tmp_path: Path) -> None:
    dataset = enhanced_ct(2, SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage)
    del dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence
    save(tmp_path / "s", dataset)
    (series,), _ = read(tmp_path)
    assert np.array_equal(series.pixels(), np.stack([pixels(0), pixels(1)]))
    assert [finding.rule for finding in series.findings] == ["no-position", "no-hounsfield"]
    assert series.header.sop_class_uid == pydicom.uid.SecondaryCaptureImageStorage


def test_a_multi_frame_and_single_frames_of_one_series_are_one_stack(tmp_path: Path) -> None:
    dataset = enhanced_ct(2)
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [-10, -20, 5 + 2.5 * (3 + index)]
    save(tmp_path / "x" / "e", dataset)
    save_ct(tmp_path)
    (series,), ledger = read(tmp_path)
    assert [one.frame for one in series.instances] == [None, None, None, 0, 1]
    assert series.geometry.num_slices == 5
    assert ledger.read == {"DICOM": 5}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"NumberOfFrames": 4}, "functional-groups"),
        ({"NumberOfFrames": 0}, "multi-frame"),
        ({"NumberOfFrames": 2_000_000}, "multi-frame"),
        ({"PixelData": b"\0" * 118}, "pixel-length"),
        ({"PixelData": b"\0" * 122}, "pixel-length"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
    ],
)
def test_an_object_that_contradicts_itself_is_rejected(tmp_path: Path, change: dict[str, object], rule: str) -> None:
    save(tmp_path / "e", enhanced_ct(**change))
    _, ledger = read(tmp_path)
    assert ledger.rules == {rule: 1}
    assert ledger.read == {"DICOM": 1}


def test_a_cut_or_repeated_object_is_rejected(tmp_path: Path) -> None:
    path = save(tmp_path / "a", enhanced_ct())
    save(tmp_path / "b", enhanced_ct())
    _, ledger = read(tmp_path)
    assert ledger.rules == {"duplicate-instance": 1}
    assert ledger.read == {"DICOM": 4}
    (tmp_path / "b").unlink()
    path.write_bytes(path.read_bytes()[:-30])
    assert read(tmp_path)[1].rules == {"truncated": 1}


def test_one_broken_frame_rejects_the_object(tmp_path: Path) -> None:
    dataset = enhanced_ct(shape=(64, 48))
    dataset.compress(RLELossless)
    frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=3))
    dataset.PixelData = pydicom.encaps.encapsulate([frames[0], b"\xff" * 80, frames[2]])
    save(tmp_path / "e", dataset)
    assert read(tmp_path)[1].rules == {"undecodable": 1}


def test_a_compressed_file_that_went_away_is_an_error(tmp_path: Path) -> None:
    dataset = enhanced_ct(shape=(64, 48))
    dataset.compress(RLELossless)
    path = save(tmp_path / "e", dataset)
    (series,), _ = read(tmp_path)
    path.unlink()
    with pytest.raises(SourceError, match="e#1: the pixels cannot be read"):
        series.pixels()
