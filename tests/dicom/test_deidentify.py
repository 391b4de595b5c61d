from __future__ import annotations

import copy
import logging
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid as uid
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from medtwin.core.images import accession_number, images_to_table, table_to_images, validate_images
from medtwin.core.pseudonyms import SUBJECT_SYSTEM, Pseudonyms
from medtwin.core.sources import Ledger
from medtwin.dicom import (
    Series,
    deidentify_series,
    open_series,
    read_folder,
    series_to_image_row,
    validate_dataset,
    validate_series,
    write_series,
)
from medtwin.dicom.deidentify import NUMBERS
from medtwin.dicom.terms import MULTIPLE_TERMS, SINGLE_TERMS
from medtwin.dicom.values import quiet
from tests.dicom.samples import PSEUDONYMS, ROOT, cr, ct, enhanced, pixels, save, save_ct, words

SUBJECT = PSEUDONYMS.subject_id("mr:MR4711")


def _deidentified(folder: Path, out: Path, ledger: Ledger | None = None, **more: date) -> list[Path]:
    series = open_series(folder)
    subject_id = PSEUDONYMS.subject_id(series.identity)
    return write_series(out, deidentify_series(series, PSEUDONYMS, subject_id, ledger=ledger, **more))


KEPT = words(
    "SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyDate StudyTime Modality Manufacturer PatientName "
    "AccessionNumber IssuerOfPatientID "
    "PatientID PatientBirthDate PatientSex PatientAge PatientIdentityRemoved DeidentificationMethod BodyPartExamined "
    "DeidentificationMethodCodeSequence SliceThickness KVP PatientPosition StudyInstanceUID SeriesInstanceUID "
    "SeriesNumber AcquisitionNumber InstanceNumber ImagePositionPatient ImageOrientationPatient FrameOfReferenceUID "
    "SamplesPerPixel PhotometricInterpretation Rows Columns PixelSpacing BitsAllocated BitsStored HighBit "
    "PixelRepresentation LongitudinalTemporalInformationModified RescaleIntercept RescaleSlope"
)


def test_only_listed_attributes_leave(tmp_path: Path) -> None:
    save_ct(tmp_path / "in", 1)
    (path,) = _deidentified(tmp_path / "in", tmp_path / "out")
    kept = {element.keyword: element.value for element in pydicom.dcmread(path)}
    assert kept.pop("PixelData") == pixels(0).tobytes()
    shift = PSEUDONYMS.shift(SUBJECT)
    day = (date(2020, 2, 29) + shift).strftime("%Y%m%d")
    assert kept["StudyDate"] == day
    assert kept["StudyTime"] == "101112.500000"
    assert kept["PatientID"] == str(SUBJECT)
    assert kept["PatientName"] == f"Subject^{SUBJECT}"
    assert kept["StudyInstanceUID"] == PSEUDONYMS.uid(f"{ROOT}.1")
    assert kept["SeriesInstanceUID"] == PSEUDONYMS.uid(f"{ROOT}.2")
    assert kept["SOPInstanceUID"] == PSEUDONYMS.uid(f"{ROOT}.3.1")
    assert kept["FrameOfReferenceUID"] == PSEUDONYMS.uid(f"{ROOT}.4")
    assert (kept["PatientSex"], kept["PatientAge"], kept["PatientBirthDate"]) == ("F", "040Y", "")
    assert (kept["PatientIdentityRemoved"], kept["LongitudinalTemporalInformationModified"]) == ("YES", "MODIFIED")
    codes = [item.CodeValue for item in kept["DeidentificationMethodCodeSequence"]]
    assert codes == ["113100", "113107", "113108"]
    assert kept["AccessionNumber"] == accession_number(kept["StudyInstanceUID"])
    assert kept["IssuerOfPatientID"] == SUBJECT_SYSTEM
    empty = {"ReferringPhysicianName", "StudyID", "PositionReferenceIndicator"}
    assert all(not kept[keyword] for keyword in empty)
    assert kept["Manufacturer"] == "SIEMENS"
    assert sorted(set(kept) - empty) == sorted(KEPT)


def test_dates_that_are_not_shifted_are_said_to_be_full(tmp_path: Path) -> None:
    save_ct(tmp_path / "in", 1)
    series = open_series(tmp_path / "in")
    (dataset,) = deidentify_series(series, Pseudonyms(bytes(32), max_shift_weeks=0), 1)
    assert dataset.StudyDate == "20200229"
    assert dataset.LongitudinalTemporalInformationModified == "UNMODIFIED"
    assert dataset.DeidentificationMethodCodeSequence[1].CodeValue == "113106"


@pytest.mark.parametrize(
    ("keyword", "value", "written"),
    [
        ("PatientAge", "093Y", "090Y"),
        ("PatientAge", "007D", "007D"),
        ("PatientSex", "X", None),
        ("BodyPartExamined", "JANEDOE", None),
        ("BodyPartExamined", "Chest", "CHEST"),
        ("PatientPosition", "DOE", None),
        ("KVP", "99999", None),
        ("Manufacturer", "Dr Doe's own scanner", None),
        ("RescaleType", "Houndsfield Unit", "HU"),
        ("RescaleType", "Doe", ""),
        ("TimezoneOffsetFromUTC", "+0100", "+0100"),
        ("TimezoneOffsetFromUTC", "4711", ""),
        ("ImageType", ["ORIGINAL", "PRIMARY", "DOE", "AXIAL"], ["ORIGINAL", "PRIMARY"]),
        ("WindowCenter", ["40", "300"], ""),
        ("PatientOrientation", ["L", "P"], ["L", "P"]),
        ("PatientOrientation", ["DOE", "P"], ""),
        ("PixelPaddingValue", -2000, -2000),
    ],
)
def test_a_value_leaves_only_if_its_attribute_may_have_it(
    tmp_path: Path, keyword: str, value: object, written: object
) -> None:
    with quiet():
        save(tmp_path / "0", ct(0, **{keyword: value}))
        (dataset,) = deidentify_series(open_series(tmp_path), PSEUDONYMS, SUBJECT)
    assert (dataset.get(keyword, "") or None) == (written or None)


def test_an_age_of_two_digits_is_written_as_the_standard_wants(tmp_path: Path) -> None:
    with quiet():
        save(tmp_path / "0", ct(0, PatientAge="42"))
    ledger = Ledger()
    series = read_folder(tmp_path, ledger)
    (dataset,) = deidentify_series(series[0], PSEUDONYMS, SUBJECT)
    assert dataset.PatientAge == "042Y"
    assert ledger.flags == {"DICOM.bad-value.PatientAge": 1}


def test_the_first_window_is_kept(tmp_path: Path) -> None:
    save(tmp_path / "0", ct(0, WindowCenter=[40, -600], WindowWidth=[400, 1500]))
    (dataset,) = deidentify_series(open_series(tmp_path), PSEUDONYMS, SUBJECT)
    assert (dataset.WindowCenter, dataset.WindowWidth) == (40, 400)


def test_a_birth_date_is_written_if_given(tmp_path: Path) -> None:
    save_ct(tmp_path / "in", 1)
    (path,) = _deidentified(tmp_path / "in", tmp_path / "out", birth_date=date(1979, 3, 1))
    assert pydicom.dcmread(path).PatientBirthDate == "19790301"


@pytest.mark.parametrize(
    ("syntax", "package"), [(RLELossless, "pydicom"), (JPEGLSLossless, "jpeg_ls"), (JPEG2000Lossless, "openjpeg")]
)
def test_compressed_pixels_keep_their_values(tmp_path: Path, syntax: UID, package: str) -> None:
    pytest.importorskip(package, reason=f"needs the codec {package}: pip install medtwin[codecs]")
    values = np.random.default_rng(0).integers(-2000, 2000, (32, 33)).astype(np.int16)
    dataset = ct(0, values, syntax=ExplicitVRLittleEndian)
    dataset.compress(syntax, generate_instance_uid=False)
    with quiet():
        save(tmp_path / "in" / "0.dcm", dataset)
    (path,) = _deidentified(tmp_path / "in", tmp_path / "out")
    kept = pydicom.dcmread(path)
    assert kept.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert kept.PixelData == values.tobytes() + b"\0" * (values.nbytes % 2)
    assert "LossyImageCompression" not in kept


def test_pixels_are_equal_bit_by_bit(tmp_path: Path) -> None:
    values = np.array([[0x0FFF, 0x0001, 0x0800]], np.int16)  # 12 bits, not sign-extended
    save(tmp_path / "in" / "0", ct(0, values, BitsStored=12, HighBit=11))
    ledger = Ledger()
    (path,) = _deidentified(tmp_path / "in", tmp_path / "out", ledger)
    kept = pydicom.dcmread(path)
    assert kept.PixelData == values.tobytes()
    assert (kept.BitsStored, kept.HighBit, kept.PixelRepresentation) == (12, 11, 1)
    assert np.array_equal(open_series(tmp_path / "in").pixels(), open_series(tmp_path / "out").pixels())
    assert not ledger.flags


def test_an_overlay_in_the_unused_bits_is_cleared_and_said(tmp_path: Path) -> None:
    save(tmp_path / "in" / "0", cr(np.array([[0x8001, 0x0002]], np.uint16), BitsStored=12, HighBit=11))
    ledger = Ledger()
    (path,) = _deidentified(tmp_path / "in", tmp_path / "out", ledger)
    assert pydicom.dcmread(path).pixel_array.tolist() == [[1, 2]]
    assert ledger.flags == {"DICOM.overlay-bits-cleared": 1}


@pytest.mark.parametrize(
    ("count", "change", "flag"),
    [
        (1, {"BurnedInAnnotation": "YES"}, "burned-in-annotation"),
        (3, {"RecognizableVisualFeatures": "YES"}, "recognisable-features"),
        (10, {"BodyPartExamined": "HEAD"}, "recognisable-head"),
        (10, {"BodyPartExamined": None}, "head-not-excluded"),
    ],
)
def test_what_the_pixels_may_reveal_is_flagged(
    tmp_path: Path, count: int, change: dict[str, str | None], flag: str
) -> None:
    for index in range(count):
        save(tmp_path / "in" / f"{index}", ct(index, **change))
    ledger = Ledger()
    _deidentified(tmp_path / "in", tmp_path / "out", ledger)
    assert ledger.flags == {f"DICOM.{flag}": 1}


def test_the_image_row(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / f"{index}", ct(index, TimezoneOffsetFromUTC="-0500"))
    series = open_series(tmp_path)
    row = series_to_image_row(series, PSEUDONYMS, SUBJECT, ["SNOMED//233604007"])
    assert row.time == datetime(2020, 2, 29, 15, 11, 12, 500000) + PSEUDONYMS.shift(SUBJECT)
    assert (row.rows, row.columns, row.num_slices, row.bits_stored) == (4, 5, 3, 16)
    assert (row.pixel_spacing_row_mm, row.slice_spacing_mm, row.slice_thickness_mm) == (0.5, 2.5, 3.0)
    assert (row.modality, row.body_part, row.intensity_unit, row.photometric) == ("CT", "CHEST", "HU", "MONOCHROME2")
    assert (row.sex, row.age_years, row.view) == ("F", 40.0, None)
    assert row.path == f"images/{SUBJECT}/{PSEUDONYMS.uid(f'{ROOT}.2')}"
    table = images_to_table([row])
    assert validate_images(table) == []
    assert table_to_images(table) == [row]


def test_a_study_without_date_has_no_time(tmp_path: Path) -> None:
    save(tmp_path / "0", cr(StudyDate="", StudyTime="1011"))
    assert series_to_image_row(open_series(tmp_path), PSEUDONYMS, 1).time is None


def test_the_row_describes_the_written_series(tmp_path: Path) -> None:
    save_ct(tmp_path / "in", 4)
    series = open_series(tmp_path / "in")
    row = series_to_image_row(series, PSEUDONYMS, SUBJECT)
    write_series(tmp_path / "out" / row.path, deidentify_series(series, PSEUDONYMS, SUBJECT))
    again = open_series(tmp_path / "out" / row.path)
    assert again.header.series_uid == row.series_uid
    assert again.header.study_uid == row.study_uid
    assert again.geometry == series.geometry
    assert again.header.study_time == row.time
    assert np.array_equal(again.pixels(), series.pixels())


def test_parts_of_a_mixed_series_become_series_of_their_own(tmp_path: Path) -> None:
    save_ct(tmp_path, 2)
    save(tmp_path / "scout", ct(7, np.zeros((2, 2), np.int16)))
    series: list[Series] = read_folder(tmp_path, Ledger())
    uids = [next(iter(deidentify_series(one, PSEUDONYMS, SUBJECT))).SeriesInstanceUID for one in series]
    assert uids == [series_to_image_row(one, PSEUDONYMS, SUBJECT).series_uid for one in series]
    assert len(set(uids)) == 2


def test_output_is_valid_and_the_same_every_time(tmp_path: Path, dciodvfy: object) -> None:
    assert callable(dciodvfy)
    for name, make in (("ct", ct(1)), ("cr", cr())):
        save(tmp_path / name / "0", make)
        first = _deidentified(tmp_path / name, tmp_path / "1" / name)
        second = _deidentified(tmp_path / name, tmp_path / "2" / name)
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
        assert validate_dataset(pydicom.dcmread(first[0])) == []
        assert dciodvfy(first[0]) == []


def test_a_series_stays_valid_as_a_whole(tmp_path: Path) -> None:
    save_ct(tmp_path / "in", 4)
    datasets = list(deidentify_series(open_series(tmp_path / "in"), PSEUDONYMS, SUBJECT))
    assert validate_series(datasets) == []
    assert [dataset.pixel_array.tolist() for dataset in datasets] == [pixels(z).tolist() for z in range(4)]


def test_nothing_of_a_record_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        save(tmp_path / "0", ct(0, PatientAge="JANE", StudyDate="JANE", PatientSex="JANE"))
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        list(deidentify_series(open_series(tmp_path), PSEUDONYMS, SUBJECT))
    assert "JANE" not in caplog.text


def test_a_colour_image_read_as_grey_leaves_as_a_derived_one(tmp_path: Path) -> None:
    dataset = cr()
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.Rows, dataset.Columns = 1, 2
    dataset.PixelData = bytes([255, 255, 255, 7, 7, 7])
    save(tmp_path / "in" / "0.dcm", dataset)
    (series,) = read_folder(tmp_path / "in", Ledger(), colour="grey")
    (written,) = deidentify_series(series, PSEUDONYMS, SUBJECT)
    assert written.pixel_array.tolist() == [[255, 7]]
    assert (written.SamplesPerPixel, written.PhotometricInterpretation) == (1, "MONOCHROME2")
    assert written.ImageType == ["DERIVED", "PRIMARY"]
    assert "PlanarConfiguration" not in written


def test_one_image_with_burned_in_text_flags_its_series(tmp_path: Path) -> None:
    save(tmp_path / "in" / "0", ct(0))
    save(tmp_path / "in" / "1", ct(1, BurnedInAnnotation="YES"))
    ledger = Ledger()
    _deidentified(tmp_path / "in", tmp_path / "out", ledger)
    assert ledger.flags == {"DICOM.burned-in-annotation": 1}


@pytest.mark.parametrize(
    ("stated", "flag"), [(None, "annotation-not-excluded"), ("NO", None), ("YES", "burned-in-annotation")]
)
def test_a_capture_that_does_not_say_may_show_text(tmp_path: Path, stated: str | None, flag: str | None) -> None:
    dataset = cr(SOPClassUID=uid.SecondaryCaptureImageStorage, ConversionType="WSD")
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    if stated is not None:
        dataset.BurnedInAnnotation = stated
    save(tmp_path / "in" / "0", dataset)
    ledger = Ledger()
    _deidentified(tmp_path / "in", tmp_path / "out", ledger)
    assert ledger.flags == ({f"DICOM.{flag}": 1} if flag else {})


def test_an_enhanced_head_is_flagged(tmp_path: Path) -> None:
    dataset = enhanced(uid.EnhancedMRImageStorage, "MR")
    cells = np.arange(12 * 20, dtype=np.int16).reshape(12, 4, 5)
    first = dataset.PerFrameFunctionalGroupsSequence[0]
    groups = [copy.deepcopy(first) for _ in range(12)]
    for index, group in enumerate(groups):
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, index]
    dataset.PerFrameFunctionalGroupsSequence, dataset.NumberOfFrames = groups, 12
    dataset.PixelData, dataset.BodyPartExamined = cells.tobytes(), "HEAD"
    save(tmp_path / "in" / "0", dataset)
    ledger = Ledger()
    assert len(_deidentified(tmp_path / "in", tmp_path / "out", ledger)) == 12
    assert ledger.flags == {"DICOM.recognisable-head": 1}


def test_the_docs_list_what_gets_out() -> None:
    text = (Path(__file__).parents[2] / "docs" / "dicom_deidentification.md").read_text(encoding="utf-8")
    section = text.partition("## What is written")[2].partition("## Multi-frame")[0]
    paragraphs = [one.replace("\n", " ").rstrip(".").split(", ") for one in section.split("\n\n")]
    assert sorted([*SINGLE_TERMS, *MULTIPLE_TERMS]) in paragraphs
    assert sorted(NUMBERS) in paragraphs


@pytest.mark.parametrize(("spacing", "ratio"), [([0.2, 0.3], None), (None, [2, 3])])
def test_an_aspect_ratio_stands_where_no_spacing_does(tmp_path: Path, spacing: object, ratio: object) -> None:
    save(tmp_path / "in" / "0", cr(ImagerPixelSpacing=spacing, PixelAspectRatio=[2, 3]))
    _deidentified(tmp_path / "in", tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    assert pydicom.dcmread(path).get("PixelAspectRatio") == ratio
    assert open_series(tmp_path / "out").geometry == open_series(tmp_path / "in").geometry
