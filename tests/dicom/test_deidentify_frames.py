"""Frames of enhanced images, and pixels that were converted, as the files that leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid as uid
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import RLELossless

from medtwin.core.errors import SourceError
from medtwin.core.sources import Ledger
from medtwin.dicom import (
    Series,
    deidentify_series,
    open_series,
    read_folder,
    validate_dataset,
    validate_series,
    write_series,
)
from tests.dicom.samples import PSEUDONYMS, ROOT, cr, ct, enhanced, save

SUBJECT = PSEUDONYMS.subject_id("mr:MR4711")
DETECTED = {
    "PresentationIntentType": "FOR PRESENTATION",
    "PixelIntensityRelationship": "LOG",
    "PixelIntensityRelationshipSign": -1,
    "RescaleIntercept": 0,
    "RescaleSlope": 1,
    "RescaleType": "US",
    "PresentationLUTShape": "IDENTITY",
    "LossyImageCompression": "00",
    "BurnedInAnnotation": "NO",
    "PositionerType": "MAMMOGRAPHIC",
    "PatientOrientation": ["A", "F"],
    "ImageType": ["ORIGINAL", "PRIMARY", ""],
    "WindowCenter": 2048,
    "WindowWidth": 4096,
}


def _frames(folder: Path, dataset: FileDataset, out: Path) -> tuple[Series, list[FileDataset]]:
    save(folder / "0.dcm", dataset)
    (series,) = read_folder(folder, Ledger())
    paths = write_series(out, deidentify_series(series, PSEUDONYMS, SUBJECT))
    return series, [pydicom.dcmread(path) for path in paths]


@pytest.mark.parametrize(
    ("source", "modality", "written"),
    [
        (uid.EnhancedCTImageStorage, "CT", uid.CTImageStorage),
        (uid.LegacyConvertedEnhancedCTImageStorage, "CT", uid.CTImageStorage),
        (uid.EnhancedMRImageStorage, "MR", uid.MRImageStorage),
        (uid.LegacyConvertedEnhancedMRImageStorage, "MR", uid.MRImageStorage),
    ],
)
def test_frames_become_images_of_the_single_frame_class(
    tmp_path: Path, source: str, modality: str, written: str, dciodvfy: Callable[[Path], list[str]]
) -> None:
    series, frames = _frames(tmp_path / "in", enhanced(source, modality), tmp_path / "out")
    assert [frame.SOPClassUID for frame in frames] == [written] * 3
    assert [frame.file_meta.MediaStorageSOPClassUID for frame in frames] == [written] * 3
    assert [frame.InstanceNumber for frame in frames] == [1, 2, 3]
    assert [list(frame.ImagePositionPatient) for frame in frames] == [[-10, -20, 5 + 2.5 * i] for i in range(3)]
    assert len({frame.SOPInstanceUID for frame in frames}) == 3
    assert {frame.SeriesInstanceUID for frame in frames} == {PSEUDONYMS.uid(f"{ROOT}.2")}
    assert all("NumberOfFrames" not in frame and "SharedFunctionalGroupsSequence" not in frame for frame in frames)
    assert [frame.pixel_array[0, 0] for frame in frames] == [0, 100, 200]
    first = frames[0]
    assert (list(first.PixelSpacing), first.SliceThickness) == ([0.5, 0.75], 2.5)
    assert (first.RescaleIntercept, first.RescaleSlope, first.RescaleType) == (-1024, 1, "HU")
    assert (first.WindowCenter, first.WindowWidth) == (40, 400)
    assert first.ImageType == ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER"]
    if modality == "MR":
        assert (first.ScanningSequence, first.SequenceVariant) == ("GR", "SP")
    again = open_series(tmp_path / "out")
    assert np.array_equal(again.pixels(), series.pixels())
    assert again.geometry == series.geometry
    for path in sorted((tmp_path / "out").iterdir()):
        assert dciodvfy(path) == []
    assert validate_series(frames) == []
    assert [finding for frame in frames for finding in validate_dataset(frame)] == []


def test_frames_without_a_pulse_sequence_get_none(tmp_path: Path) -> None:
    dataset = enhanced(uid.EnhancedMRImageStorage, "MR")
    del dataset.EchoPulseSequence, dataset.Spoiling
    _, frames = _frames(tmp_path / "in", dataset, tmp_path / "out")
    assert "ScanningSequence" not in frames[0]
    assert "SequenceVariant" not in frames[0]


@pytest.mark.parametrize(
    ("stated", "scanning", "variant"),
    [
        ({"EchoPulseSequence": "SPIN"}, "SE", "NONE"),
        ({"EchoPulseSequence": "BOTH", "EchoPlanarPulseSequence": "YES"}, ["SE", "GR", "EP"], "NONE"),
        ({"EchoPulseSequence": "GRADIENT", "InversionRecovery": "YES", "Spoiling": "RF"}, ["GR", "IR"], "SP"),
        (
            {
                "EchoPulseSequence": "GRADIENT",
                "SegmentedKSpaceTraversal": "FULL",
                "SteadyStatePulseSequence": "LONGITUDINAL",
            },
            "GR",
            ["SK", "SS"],
        ),
        ({"EchoPulseSequence": "DOE", "MagnetizationTransfer": "ON_RESONANCE"}, None, "MTC"),
        ({"EchoPulseSequence": "GRADIENT", "SegmentedKSpaceTraversal": "SINGLE", "Spoiling": "NONE"}, "GR", "NONE"),
    ],
)
def test_a_pulse_sequence_is_told_in_the_old_words(
    tmp_path: Path, stated: dict[str, str], scanning: object, variant: object
) -> None:
    dataset = enhanced(uid.EnhancedMRImageStorage, "MR")
    del dataset.EchoPulseSequence, dataset.Spoiling
    for keyword, value in stated.items():
        setattr(dataset, keyword, value)
    _, frames = _frames(tmp_path / "in", dataset, tmp_path / "out")
    assert (frames[1].get("ScanningSequence"), frames[1].get("SequenceVariant")) == (scanning, variant)


def test_compressed_frames_keep_their_values_and_their_order(tmp_path: Path) -> None:
    dataset = enhanced(uid.EnhancedCTImageStorage, "CT")
    dataset.PerFrameFunctionalGroupsSequence = list(reversed(dataset.PerFrameFunctionalGroupsSequence))
    dataset.compress(RLELossless, generate_instance_uid=False)
    _, frames = _frames(tmp_path / "in", dataset, tmp_path / "out")
    assert [(frame.InstanceNumber, frame.ImagePositionPatient[2], frame.pixel_array[0, 0]) for frame in frames] == [
        (3, 5, 200),
        (2, 7.5, 100),
        (1, 10, 0),
    ]


def test_a_modality_lut_leaves_as_the_values_that_it_gives(tmp_path: Path) -> None:
    values = np.array([[0, 1], [2, 3]], np.uint8)
    dataset = cr(values)
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTExplanation = [4, 0, 16], "OD", "Doe's table"
    table.add_new(0x00283006, "US", [10, 20, 40, 1000])
    dataset.ModalityLUTSequence = [table]
    dataset.PixelPaddingValue = 3
    series, (written,) = _frames(tmp_path / "in", dataset, tmp_path / "out")
    assert series.pixels().tolist() == [[[10, 20], [40, 1000]]]
    assert written.pixel_array.tolist() == [[10, 20], [40, 1000]]
    assert (written.RescaleIntercept, written.RescaleSlope, written.RescaleType) == (0, 1, "OD")
    assert written.ImageType[0] == "DERIVED"
    assert "PixelPaddingValue" not in written
    assert "ModalityLUTSequence" not in written
    assert open_series(tmp_path / "out").pixels().tolist() == series.pixels().tolist()


@pytest.mark.parametrize(
    ("sop_class", "modality", "more"),
    [
        (uid.MRImageStorage, "MR", {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"], "ScanningSequence": "SE"}),
        (uid.SecondaryCaptureImageStorage, "CR", {"ConversionType": "DI"}),
        (uid.DigitalMammographyXRayImageStorageForPresentation, "MG", {"ViewPosition": "MLO", "ImageLaterality": "L"}),
        (uid.DigitalXRayImageStorageForPresentation, "DX", {"ViewPosition": "PA", "ImageLaterality": "U"}),
    ],
)
def test_other_classes_conform_as_far_as_their_source_does(
    tmp_path: Path, sop_class: str, modality: str, more: dict[str, object], dciodvfy: Callable[[Path], list[str]]
) -> None:
    dataset = ct(0) if modality == "MR" else cr(np.arange(15, dtype=np.uint16).reshape(3, 5), BitsStored=12, HighBit=11)
    dataset.SOPClassUID, dataset.Modality = sop_class, modality
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    if modality == "MR":
        dataset.SequenceVariant = "NONE"
    if modality in ("MG", "DX"):
        more = {**more, **DETECTED, "BodyPartExamined": "BREAST" if modality == "MG" else "CHEST"}
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    _frames(tmp_path / "in", dataset, tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    assert dciodvfy(path) == []
    assert validate_dataset(pydicom.dcmread(path)) == []


def test_a_frame_that_is_gone_is_said(tmp_path: Path) -> None:
    path = save(tmp_path / "in" / "0.dcm", enhanced(uid.EnhancedCTImageStorage, "CT"))
    (series,) = read_folder(tmp_path / "in", Ledger())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 50])
    with pytest.raises(SourceError, match=r"0\.dcm"):
        list(deidentify_series(series, PSEUDONYMS, SUBJECT))
    path.unlink()
    with pytest.raises(SourceError, match=r"0\.dcm"):
        list(deidentify_series(series, PSEUDONYMS, SUBJECT))


def test_a_pet_slice_keeps_what_its_class_requires(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    dataset = ct(0, np.arange(20, dtype=np.uint16).reshape(4, 5), RescaleIntercept=0, RescaleSlope=2)
    dataset.SOPClassUID, dataset.Modality = uid.PositronEmissionTomographyImageStorage, "PT"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.ImageType, dataset.Units, dataset.CountsSource = ["ORIGINAL", "PRIMARY"], "BQML", "EMISSION"
    dataset.SeriesType, dataset.DecayCorrection, dataset.NumberOfSlices = ["STATIC", "IMAGE"], "START", 1
    dataset.CorrectedImage, dataset.CollimatorType = ["DECY", "ATTN"], "NONE"
    dataset.FrameReferenceTime, dataset.ImageIndex, dataset.ActualFrameDuration = 1000, 1, 120000
    dataset.DecayFactor = 1.25
    dataset.SeriesDate, dataset.SeriesTime = "20200229", "101112"
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20200229", "101112"
    _, (written,) = _frames(tmp_path / "in", dataset, tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    assert dciodvfy(path) == []
    assert validate_dataset(written) == []
    assert (written.Units, written.FrameReferenceTime, written.ActualFrameDuration) == ("BQML", 1000, 120000)
