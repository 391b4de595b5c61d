from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RLELossless,
    UltrasoundImageStorage,
)

from medtwin.core.errors import SourceError
from medtwin.core.sources import Ledger
from medtwin.dicom import Series, deidentify_series, open_series, read_folder
from tests.dicom.samples import PSEUDONYMS, ROOT, cr, ct, pixels, save, save_ct


def _read(folder: Path) -> tuple[list[Series], Ledger]:
    ledger = Ledger()
    series = read_folder(folder, ledger)
    ledger.carried["DICOM"] = sum(len(one.instances) for one in series)
    assert not ledger.imbalance()
    return series, ledger


def _rules(series: Series) -> list[str]:
    return [finding.rule for finding in series.findings]


def test_slices_are_sorted_in_space_when_instance_number_lies(tmp_path: Path) -> None:
    for index in (2, 0, 1):
        save(tmp_path / f"{9 - index}", ct(index, InstanceNumber=7 - 3 * index))
    (series,), ledger = _read(tmp_path)
    assert [instance.position for instance in series.instances] == [(-10, -20, 5 + 2.5 * z) for z in range(3)]
    assert series.geometry.slice_spacing_mm == 2.5
    assert series.geometry.num_slices == 3
    assert (series.geometry.pixel_spacing_row_mm, series.geometry.pixel_spacing_column_mm) == (0.5, 0.75)
    assert series.geometry.spacing_source == "PixelSpacing"
    assert series.header.intensity_unit == "HU"
    assert series.identity == "mr:MR4711"
    assert series.findings == ()
    assert not ledger.flags
    assert np.array_equal(series.pixels(), np.stack([pixels(z) for z in range(3)]) - 1024.0)


def test_slices_are_sorted_along_a_tilted_normal(tmp_path: Path) -> None:
    orientation = [0, 1, 0, 0, 0, -1]  # sagittal: the normal points to -x
    for index in range(3):
        save(tmp_path / f"{index}", ct(index, ImageOrientationPatient=orientation, ImagePositionPatient=[index, 0, 0]))
    (series,), _ = _read(tmp_path)
    assert [instance.position for instance in series.instances] == [(2, 0, 0), (1, 0, 0), (0, 0, 0)]


def test_rescale_is_that_of_each_image(tmp_path: Path) -> None:
    save(tmp_path / "0", ct(0, RescaleSlope=2, RescaleIntercept=-10))
    save(tmp_path / "1", ct(1, RescaleSlope=0.5, RescaleIntercept=3))
    (series,), _ = _read(tmp_path)
    assert np.array_equal(series.pixels()[0], 2 * pixels(0) - 10.0)
    assert np.array_equal(series.pixels()[1], 0.5 * pixels(1) + 3.0)


def test_monochrome1_is_inverted_on_request(tmp_path: Path) -> None:
    save(tmp_path / "a", cr(np.array([[0, 1], [254, 255]], np.uint8), PhotometricInterpretation="MONOCHROME1"))
    (series,), _ = _read(tmp_path)
    assert series.pixels().tolist() == [[[0, 1], [254, 255]]]
    assert series.pixels(invert_monochrome1=True).tolist() == [[[255, 254], [1, 0]]]


def test_bits_above_bits_stored_do_not_count(tmp_path: Path) -> None:
    values = np.array([[0x0FFF, 0xF001]], np.uint16)
    save(tmp_path / "u", cr(values, BitsStored=12, HighBit=11))
    signed = ct(0, values.view(np.int16), BitsStored=12, HighBit=11, RescaleIntercept=0)
    save(tmp_path / "s", signed)
    series, _ = _read(tmp_path)
    found = {one.header.modality: one.pixels()[0].tolist() for one in series}
    assert found == {"CR": [[4095.0, 1.0]], "CT": [[-1.0, 1.0]]}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_transfer_syntaxes(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    is_big = syntax == ExplicitVRBigEndian
    dataset = ct(1, pixels(1).astype(">i2") if is_big else None, syntax=syntax)
    save(tmp_path / "0.dcm", dataset)
    (series,), _ = _read(tmp_path)
    assert np.array_equal(series.pixels()[0], pixels(1) - 1024.0)


def test_a_dataset_without_preamble_is_read(tmp_path: Path) -> None:
    dataset = ct(0)
    with (tmp_path / "bare").open("wb") as stream:
        pydicom.dcmwrite(stream, pydicom.Dataset(dataset), implicit_vr=True, little_endian=True)
    (series,), _ = _read(tmp_path)
    assert np.array_equal(series.pixels()[0], pixels(0) - 1024.0)


def test_other_files_are_ignored_and_counted(tmp_path: Path) -> None:
    save_ct(tmp_path / "deep" / "er", 1)
    (tmp_path / "Patient.ndjson").write_text("{}")
    (tmp_path / "readme").write_text("not DICOM, and not named like it")
    series, ledger = _read(tmp_path)
    assert len(series) == 1
    assert ledger.flags == {"DICOM.ignored-file": 2}
    assert ledger.read == {"DICOM": 1}


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        read_folder(tmp_path / "none", Ledger())


def test_missing_slices_are_found(tmp_path: Path) -> None:
    for index in (0, 1, 2, 5, 6):
        save(tmp_path / f"{index}", ct(index))
    (series,), ledger = _read(tmp_path)
    assert [(finding.rule, finding.count) for finding in series.findings] == [("missing-slices", 2)]
    assert series.geometry.slice_spacing_mm == 2.5
    assert ledger.flags["DICOM.missing-slices"] == 1


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"ImagePositionPatient": [-10, -20, 5.0]}, "repeated-position"),
        ({"ImagePositionPatient": [-10, -20, 10.1]}, "irregular-spacing"),
        ({"ImagePositionPatient": [-10, -21, 10.0]}, "tilted-stack"),
        ({"ImagePositionPatient": None}, "no-position"),
    ],
)
def test_odd_positions_are_found(tmp_path: Path, change: dict[str, object], rule: str) -> None:
    for index in range(3):
        save(tmp_path / f"{index}", ct(index, **(change if index == 2 else {})))
    (series,), ledger = _read(tmp_path)
    assert _rules(series) == [rule]
    assert ledger.flags[f"DICOM.{rule}"] == 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "orientations"),
        ({"PixelSpacing": [1, 1]}, "pixel spacings"),
        ({"PatientID": "MR4712"}, "patients"),
        ({"StudyInstanceUID": f"{ROOT}.99"}, "studies"),
    ],
)
def test_a_mixed_series_is_split_and_said(tmp_path: Path, change: dict[str, object], what: str) -> None:
    for index in range(4):
        save(tmp_path / f"{index}", ct(index, **(change if index == 0 else {})))
    series, ledger = _read(tmp_path)
    by_part = sorted(series, key=lambda one: one.part)
    assert [len(one.instances) for one in by_part] == [3, 1]
    assert by_part[0].source_uid == f"{ROOT}.2"
    assert by_part[1].source_uid == f"{ROOT}.2#1"
    assert what in by_part[0].findings[0].message
    assert ledger.flags["DICOM.mixed-series"] == 2


def test_a_scout_of_another_shape_is_split_off(tmp_path: Path) -> None:
    save(tmp_path / "scout", ct(9, np.zeros((2, 2), np.int16)))
    save_ct(tmp_path, 2)
    series, _ = _read(tmp_path)
    assert [one.pixels().shape for one in series] == [(2, 4, 5), (1, 2, 2)]


def test_the_second_of_two_equal_instances_is_rejected(tmp_path: Path) -> None:
    save(tmp_path / "a.dcm", ct(0))
    save(tmp_path / "b.dcm", ct(0))
    (series,), ledger = _read(tmp_path)
    assert [instance.file for instance in series.instances] == ["a.dcm"]
    assert [(reject.file, reject.rule) for reject in ledger.rejects] == [("b.dcm", "duplicate-instance")]


def test_objects_without_an_image_are_not_carried(tmp_path: Path) -> None:
    report = ct(0, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    del report.PixelData
    save(tmp_path / "sr.dcm", report)
    series, ledger = _read(tmp_path)
    assert series == []
    assert ledger.not_carried == {"DICOM": 1}
    assert ledger.elements_not_carried == {"DICOM.Basic Text SR Storage": 1}


def _without(keyword: str) -> FileDataset:
    dataset = ct(9)
    del dataset[keyword]
    return dataset


def _video_syntax() -> FileDataset:
    dataset = ct(9, syntax=ExplicitVRLittleEndian)
    dataset.compress(RLELossless)
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    return dataset


def _garbled_rle() -> FileDataset:
    dataset = ct(9, syntax=ExplicitVRLittleEndian)
    dataset.compress(RLELossless)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff" * 80])
    return dataset


CORRUPT: dict[str, tuple[str, Callable[[], FileDataset]]] = {
    "no pixels": ("no-pixel-data", lambda: _without("PixelData")),
    "short pixels": ("pixel-length", lambda: ct(9, PixelData=b"\0" * 20)),
    "long pixels": ("pixel-length", lambda: ct(9, PixelData=b"\0" * 80)),
    "no series": ("missing-attribute", lambda: _without("SeriesInstanceUID")),
    "no patient": ("missing-attribute", lambda: ct(9, PatientID="")),
    "no rows": ("missing-attribute", lambda: _without("Rows")),
    "zero rows": ("pixel-format", lambda: ct(9, Rows=0)),
    "bits": ("pixel-format", lambda: ct(9, HighBit=12)),
    "video syntax": ("transfer-syntax", _video_syntax),
    "garbled codestream": ("undecodable", _garbled_rle),
    "colour": ("colour", lambda: cr(np.zeros((2, 6), np.uint8), SamplesPerPixel=3, PhotometricInterpretation="RGB")),
    "palette": ("colour", lambda: cr(PhotometricInterpretation="PALETTE COLOR")),
    "multi-frame": ("multi-frame", lambda: ct(9, NumberOfFrames=2)),
    "enhanced without frames": ("multi-frame", lambda: ct(9, SOPClassUID=EnhancedCTImageStorage)),
    "ultrasound": ("sop-class", lambda: ct(9, SOPClassUID=UltrasoundImageStorage)),
    "modality LUT": ("modality-lut", lambda: ct(9, ModalityLUTSequence=[pydicom.Dataset()])),
    "modality": ("modality", lambda: ct(9, Modality="ZZ")),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_a_corrupt_file_is_rejected_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    rule, make = CORRUPT[name]
    save_ct(tmp_path)
    save(tmp_path / "1a.dcm", make())
    (series,), ledger = _read(tmp_path)
    assert series.geometry.num_slices == 3
    assert [(reject.file, reject.kind, reject.rule) for reject in ledger.rejects] == [("1a.dcm", "DICOM", rule)]
    assert "4711" not in ledger.rejects[0].reason


@pytest.mark.parametrize(
    ("rule", "keep"), [("truncated", -10), ("truncated", 300), ("not-dicom", 0), ("truncated", 140), ("not-dicom", 100)]
)
def test_a_file_that_breaks_off_is_rejected(tmp_path: Path, rule: str, keep: int) -> None:
    save_ct(tmp_path)
    path = save(tmp_path / "9.dcm", ct(9))
    path.write_bytes(path.read_bytes()[:keep])
    series, ledger = _read(tmp_path)
    assert [one.geometry.num_slices for one in series] == [3]
    assert [(reject.file, reject.rule) for reject in ledger.rejects] == [("9.dcm", rule)]


def test_a_file_cut_anywhere_is_rejected_once(tmp_path: Path) -> None:
    path = save(tmp_path / "0.dcm", ct(0))
    whole = path.read_bytes()
    rules = set()
    for keep in range(0, len(whole), 7):
        path.write_bytes(whole[:keep])
        series, ledger = _read(tmp_path)
        assert (len(series), len(ledger.rejects)) == (0, 1), f"cut after {keep} bytes"
        rules |= set(ledger.rules)
    assert rules == {"not-dicom", "truncated", "unreadable-file", "no-pixel-data"}


@given(st.lists(st.tuples(st.integers(132, 1030), st.integers(0, 255)), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_a_garbled_file_is_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("garbled")
    path = save(folder / "0.dcm", ct(0))
    garbled = bytearray(path.read_bytes())
    for position, byte in changes:
        garbled[position] = byte
    path.write_bytes(garbled)
    series, _ = _read(folder)
    for one in series:
        assert one.pixels().shape == (1, 4, 5)
        assert len(list(deidentify_series(one, PSEUDONYMS, 1))) == 1


def test_a_truncated_compressed_file_is_rejected(tmp_path: Path) -> None:
    dataset = ct(0, syntax=ExplicitVRLittleEndian)
    dataset.compress(RLELossless)
    path = save(tmp_path / "0.dcm", dataset)
    path.write_bytes(path.read_bytes()[:-16])
    _, ledger = _read(tmp_path)
    assert ledger.rules == {"truncated": 1}


def test_text_named_like_dicom_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "notes.dcm").write_text("this is a letter, and long enough to hold a preamble " * 5)
    _, ledger = _read(tmp_path)
    assert ledger.rules == {"not-dicom": 1}


def test_spacing_of_a_projection_is_that_of_the_detector(tmp_path: Path) -> None:
    save(tmp_path / "a", cr(PixelSpacing=[9, 9]))
    (series,), _ = _read(tmp_path)
    geometry = series.geometry
    assert (geometry.pixel_spacing_row_mm, geometry.pixel_spacing_column_mm) == (0.2, 0.3)
    assert geometry.spacing_source == "ImagerPixelSpacing"
    assert geometry.slice_spacing_mm is None


def test_an_empty_modality_lut_is_none(tmp_path: Path) -> None:
    save(tmp_path / "a", cr(ModalityLUTSequence=[]))
    assert len(_read(tmp_path)[0]) == 1


def test_unknown_spacing_stays_unknown(tmp_path: Path) -> None:
    save(tmp_path / "a", cr(ImagerPixelSpacing=[0, 0]))
    (series,), ledger = _read(tmp_path)
    assert (series.geometry.pixel_spacing_row_mm, series.geometry.spacing_source) == (None, None)
    assert ledger.flags == {"DICOM.bad-value.ImagerPixelSpacing": 1}


def test_pixels_of_a_file_that_went_away_are_an_error(tmp_path: Path) -> None:
    paths = save_ct(tmp_path)
    (series,), _ = _read(tmp_path)
    paths[1].unlink()
    with pytest.raises(SourceError, match=r"1\.dcm: the pixels cannot be read"):
        series.pixels()


def test_open_series_wants_exactly_one(tmp_path: Path) -> None:
    save_ct(tmp_path)
    assert open_series(tmp_path).geometry.num_slices == 3
    save(tmp_path / "x", cr())
    with pytest.raises(SourceError, match="must hold one DICOM series, got 2"):
        open_series(tmp_path)
    (tmp_path / "y.dcm").write_bytes(b"")
    with pytest.raises(SourceError, match="not-dicom"):
        open_series(tmp_path)


def test_identifiers_do_not_show_in_a_repr(tmp_path: Path) -> None:
    save_ct(tmp_path)
    (series,), _ = _read(tmp_path)
    assert "4711" not in repr(series)
    assert ROOT not in repr(series)
