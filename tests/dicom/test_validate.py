from __future__ import annotations

import doctest
import gzip
import json
import os
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid as uid
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset

from medtwin.core.errors import ConfigError, DatasetError, OutputError, SourceError
from medtwin.core.paths import schema_dir
from medtwin.dicom import validate_dataset, validate_series, volume_to_datasets
from medtwin.dicom.checks.build_tables import build_tables, installed_standard
from medtwin.dicom.checks.tables import FILE, load_tables
from medtwin.dicom.validate import FolderValidation, validate_folder
from medtwin.dicom.values import quiet
from medtwin.pipelines.validate import ValidateSettings, main
from tests.dicom.defects.bases import BASES, base
from tests.dicom.defects.bases import series as valid_series
from tests.dicom.samples import ct, save, save_ct
from tests.dicom.test_write import CT, PATIENT, STUDY
from tests.peers import ROOT


def _valid() -> Dataset:
    return next(iter(volume_to_datasets(CT, PATIENT, STUDY)))


def _set(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def _remove(keyword: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, keyword)


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (_remove("FrameOfReferenceUID"), "type-1"),
        (_set("RescaleSlope", None), "type-1"),
        (_remove("PatientBirthDate"), "type-2"),
        (_remove("KVP"), "type-2"),
        (_remove("PatientPosition"), "type-2c"),
        (_set("Rows", 5), "pixel-length"),
        (_set("HighBit", 12), "bits"),
        (_set("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "orientation"),
        (_set("PixelSpacing", [1, 0]), "spacing"),
        (_set("StudyInstanceUID", "1.02.3"), "uid"),
        (_set("StudyDate", "2024-1-2"), "date"),
        (_set("PatientAge", "54"), "age"),
        (_set("PatientIdentityRemoved", "YES"), "type-1c"),
        (_set("Laterality", ""), "laterality"),
        (_set("SOPInstanceUID", "1.2.3"), "file-meta"),
        (_set("PatientSex", "X"), "term"),
        (_set("Modality", "MR"), "sop-class"),
    ],
)
def test_one_damage_is_one_finding(damage: Callable[[Dataset], None], rule: str) -> None:
    dataset = _valid()
    assert validate_dataset(dataset) == []
    with quiet():
        damage(dataset)
        findings = validate_dataset(dataset, "0.dcm")
    assert [(finding.rule, finding.severity) for finding in findings] == [(rule, "error")]
    assert findings[0].where == "0.dcm"


def test_what_the_tables_lack_is_said_not_refused() -> None:
    dataset = _valid()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.RTPlanStorage
    assert [(finding.rule, finding.severity) for finding in validate_dataset(dataset)] == [("sop-class", "warning")]
    dataset.PatientSex = "X"
    assert [finding.rule for finding in validate_dataset(dataset)] == ["sop-class", "term"]


def test_a_position_is_said_once() -> None:
    dataset = _valid()
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "102538003", "SCT", "recumbent"
    dataset.PatientOrientationCodeSequence = [item]
    (finding,) = [each for each in validate_dataset(dataset) if each.rule == "orientation"]
    assert finding.message.startswith("PatientPosition must be absent")
    del dataset.PatientPosition
    assert validate_dataset(dataset) == []


def test_an_empty_dataset_lacks_its_class() -> None:
    assert [finding.rule for finding in validate_dataset(Dataset())] == ["type-1"]


def test_a_series_must_hang_together() -> None:
    datasets = list(volume_to_datasets(CT, PATIENT, STUDY))
    assert validate_series(datasets) == []
    assert validate_series([]) == []
    datasets[1].ImagePositionPatient = [0, 0, 23]
    datasets[1].SOPInstanceUID = datasets[0].SOPInstanceUID
    datasets[2].PatientID = "another"
    assert [(finding.rule, finding.severity) for finding in validate_series(datasets)] == [
        ("study-consistency", "error"),
        ("duplicate-instance", "error"),
        ("slice-positions", "warning"),
    ]


def test_neither_findings_nor_logs_name_a_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        dataset = ct(0, PatientID="JANE" * 20, PatientSex="JANE", StudyDate="JANE", SeriesDescription="JANE" * 20)
        dataset.add_new(0x00080012, "DA", "JANE")
    save(tmp_path / "0.dcm", dataset)
    caplog.clear()
    findings = validate_dataset(pydicom.dcmread(tmp_path / "0.dcm"))
    assert len(findings) > 4
    assert "JANE" not in str(findings) + caplog.text


def test_the_tables_are_those_of_the_installed_highdicom() -> None:
    """If this fails after an update of highdicom: run scripts/dicom_modules."""
    shipped, built = (
        json.loads(gzip.decompress(content))
        for content in ((schema_dir() / FILE).read_bytes(), build_tables(installed_standard()))
    )
    assert shipped == built
    assert "MIT" in shipped["licence"]


def test_the_tables_say_what_the_standard_says() -> None:
    tables = load_tables()
    ct_class, sc_class = str(uid.CTImageStorage), str(uid.SecondaryCaptureImageStorage)
    assert {"FrameOfReferenceUID", "ImagePositionPatient", "RescaleSlope"} <= set(tables.required(ct_class, "1"))
    assert {"KVP", "AcquisitionNumber", "PatientBirthDate"} <= set(tables.required(ct_class, "2"))
    assert "Modality" not in tables.required(sc_class, "1"), "C.8.6.1 overrides General Series"
    assert "ConversionType" in tables.required(sc_class, "1")
    assert tables.required("1.2.3", "1") == []


def test_files_of_every_modality_are_known() -> None:
    tables = load_tables()
    names = {tables.iod_of(str(dataset.SOPClassUID)) for dataset in map(base, BASES)}
    assert len(names) == len(BASES)
    assert None not in names


def test_nested_items_are_checked_and_counted() -> None:
    dataset = base("SEG")
    for item in dataset.SegmentSequence:
        del item.SegmentLabel
    (finding,) = validate_dataset(dataset)
    assert (finding.message, finding.count) == ("SegmentSequence.SegmentLabel must be present with a value", 2)


@pytest.mark.parametrize(
    ("keyword", "value", "is_valid"),
    [
        ("StudyTime", "235960", True),
        ("StudyTime", "10", True),
        ("StudyTime", "1", False),
        ("StudyDate", "20240229", True),
        ("StudyDate", "20230229", False),
        ("AcquisitionDateTime", "2024", True),
        ("AcquisitionDateTime", "20240101101112.5+0100", True),
        ("AcquisitionDateTime", "20241301", False),
        ("AcquisitionDateTime", "20240101101112+2500", False),
        ("PatientName", "M\u00fcller^Zo\u00eb=\u6797^\u4e00=", True),
        ("PatientName", "A^B^C^D^E^F", False),
        ("PatientComments", "one\r\ntwo\tthree", True),
        ("PatientComments", "one\x00two", False),
        ("KVP", "1e2", True),
        ("SliceThickness", ".5", True),
        ("PatientOrientation", ["LF", "P"], True),
        ("PatientOrientation", ["LR", "P"], False),
        ("WindowWidth", "0.5", False),
    ],
)
def test_forms_of_values(keyword: str, value: object, *, is_valid: bool) -> None:
    dataset = _valid()
    with quiet():
        setattr(dataset, keyword, value)
        findings = validate_dataset(dataset)
    assert ([finding for finding in findings if keyword in finding.message] == []) == is_valid


def test_sigmoid_windows_may_be_narrow() -> None:
    dataset = _valid()
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = "40", "0.5", "SIGMOID"
    if "WindowCenterWidthExplanation" in dataset:
        del dataset.WindowCenterWidthExplanation
    assert validate_dataset(dataset) == []


def test_an_encapsulated_image_must_hold_its_frames(tmp_path: Path) -> None:
    dataset = ct(0, np.arange(64, dtype=np.int16).reshape(8, 8), syntax=uid.ExplicitVRLittleEndian)
    dataset.PositionReferenceIndicator, dataset.file_meta.ImplementationClassUID = "", uid.UID("1.2.3")
    dataset.compress(uid.RLELossless)
    assert validate_dataset(dataset) == []
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 4]
    assert [finding.rule for finding in validate_dataset(dataset)] == ["pixel-length"]


def test_a_folder_is_checked_file_by_file_and_as_a_whole(tmp_path: Path) -> None:
    for path in save_ct(tmp_path / "a"):
        dataset = pydicom.dcmread(path)
        dataset.PositionReferenceIndicator = ""
        dataset.save_as(path)
    (tmp_path / "a" / "readme.txt").write_text("no DICOM")
    (tmp_path / "b.dcm").write_bytes(b"named like DICOM, and is not")
    cut = (tmp_path / "a" / "1.dcm").read_bytes()
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "cut.dcm").write_bytes(cut[:-20])
    save(tmp_path / "z" / "copy.dcm", ct(0, PatientSex="M", PositionReferenceIndicator=""))
    found = validate_folder(tmp_path)
    assert (dict(found.num_objects), found.num_ignored) == ({"ct-image": 5}, 1)
    assert [(reject.file, reject.rule) for reject in found.rejects] == [("b.dcm", "corrupt")]
    assert [(finding.rule, finding.severity, finding.where, finding.count) for finding in found.findings()] == [
        ("duplicate-instance", "error", "z/copy.dcm", 2),
        ("patient-consistency", "error", "z/copy.dcm", 1),
        ("pixel-length", "error", "z/cut.dcm", 1),
        ("slice-positions", "warning", "a/0.dcm", 1),
    ]
    assert found.num_errors == 4


def test_a_pipe_does_not_stop_the_check(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    assert validate_folder(tmp_path).num_ignored == 1


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file or folder"):
        validate_folder(tmp_path / "none")


@cache
def _segmentation_file() -> bytes:
    buffer = BytesIO()
    base("SEG").save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@given(cut=st.integers(132, 2000), flips=st.lists(st.tuples(st.integers(132, 2000), st.integers(0, 255)), max_size=8))
@settings(max_examples=40, deadline=None)
def test_a_damaged_file_never_stops_the_check(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flips: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "0.dcm"
    content = bytearray(_segmentation_file())
    for place, byte in flips:
        content[place % len(content)] = byte
    path.write_bytes(content[: max(cut, len(content) - cut)])
    validation = FolderValidation()
    validation.add(path, "0.dcm")
    validation.finish()
    assert sum(validation.num_objects.values()) + len(validation.rejects) + validation.num_media == 1


def _write(folder: Path, datasets: list[FileDataset]) -> Path:
    for index, dataset in enumerate(datasets):
        save(folder / f"{index}.dcm", dataset)
    return folder


def test_the_verb_says_that_files_are_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path / "in", valid_series())
    main({"dicom": str(tmp_path / "in"), "out": str(tmp_path / "new" / "report.json")})
    assert "3 objects of DICOM are valid" in capsys.readouterr().out
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert (report["objects"], report["errors"], report["findings"]) == ({"ct-image": 3}, 0, [])


def test_the_verb_tells_and_writes_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets = valid_series()
    for dataset in datasets[:2]:
        del dataset.KVP
    folder = _write(tmp_path / "in", datasets)
    (folder / "bad.dcm").write_bytes(b"")
    message = "3 objects of DICOM are not valid: 2 errors, 1 unreadable"
    with pytest.raises(DatasetError, match=message):
        main({"dicom": str(folder), "out": str(tmp_path / "found.csv")})
    assert "error: 0.dcm: KVP must be present, empty if unknown [type-2] (2 times)" in capsys.readouterr().out
    assert (tmp_path / "found.csv").read_text().splitlines() == [
        "file,severity,rule,message,count",
        '0.dcm,error,type-2,"KVP must be present, empty if unknown",1',
        '1.dcm,error,type-2,"KVP must be present, empty if unknown",1',
        "bad.dcm,error,corrupt,the file is not whole DICOM (InvalidDicomError): copy it again from its source,1",
    ]
    with pytest.raises(DatasetError, match=message):
        main({"dicom": [str(folder)], "out": str(tmp_path / "report.json")})
    report = json.loads((tmp_path / "report.json").read_text())
    assert [(each["rule"], each["files"], each["count"]) for each in report["findings"]] == [("type-2", 2, 2)]
    assert [each["file"] for each in report["unreadable"]] == ["bad.dcm"]


def test_the_verb_needs_one_thing_to_check(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only one of them"):
        ValidateSettings(dicom=(tmp_path,), fhir=(tmp_path,))
    with pytest.raises(SourceError, match="no file there is DICOM"):
        main({"dicom": str(tmp_path)})
    _write(tmp_path, valid_series())
    (tmp_path / "file").write_text("")
    for out in ("file/report.json", "file/report.csv"):
        with pytest.raises(OutputError, match="choose another out="):
            main({"dicom": str(tmp_path), "out": str(tmp_path / out)})


def test_the_example_of_the_docs_runs() -> None:
    outcome = doctest.testfile(str(ROOT / "docs" / "dicom_validation.md"), module_relative=False)
    assert outcome.attempted >= 4
    assert outcome.failed == 0


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "iod", "num_objects", "errors", "warnings"),
    [
        ("nih_cxr/dicom", "computed-radiography-image", 154, {"laterality"}, set()),
        ("ct_covid_ny_sbu", "ct-image", 20, {"type-1"}, {"term"}),
        ("mr_t1_studyforrest", "mr-image", 32, {"length", "age", "type-1", "type-2", "type-2c", "vm"}, set()),
    ],
)
def test_what_is_found_in_public_scans_is_what_the_docs_say(
    public_data: Path, name: str, iod: str, num_objects: int, errors: set[str], warnings: set[str]
) -> None:
    if not (public_data / name).is_dir():
        pytest.skip(f"needs the public data set {name}")
    found = validate_folder(public_data / name)
    assert (dict(found.num_objects), found.rejects) == ({iod: num_objects}, [])
    rules = {
        severity: {each.rule for each in found.findings() if each.severity == severity}
        for severity in ("error", "warning")
    }
    assert rules == {"error": errors, "warning": warnings}
