"""`medtwin export formats=[dicom]`, and the hospital's FHIR and DICOM beside each other."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest

from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError, DatasetError, OutputError
from medtwin.core.images import ACCESSION_SYSTEM, ImageRow, accession_number, image_path, images_to_table
from medtwin.dicom import (
    Patient,
    ProjectionImage,
    Study,
    Volume,
    open_series,
    projection_to_dataset,
    synthetic_uid,
    write_series,
    write_volume,
)
from medtwin.pipelines.dicom_settings import DicomSettings
from medtwin.pipelines.export_dicom import dicom_files, write_dicom
from medtwin.pipelines.generate_scans import Person
from medtwin.pipelines.hospital import Shard, make_shard
from medtwin.twins.rules import ScanCall
from tests.dicom.test_write_files import file_set

TIME = datetime(2024, 1, 2, 3, 4, 5)
SYNTAXES = ["jpeg_ls", "jpeg_2000", "rle"]


def _row(subject: int, number: int, study: str, series: str, modality: str) -> ImageRow:
    num_slices = 3 if modality == "CT" else 1
    return ImageRow(
        subject_id=subject,
        time=TIME + timedelta(days=number),
        modality=modality,
        body_part="CHEST",
        view="PA" if modality == "CR" else None,
        rows=40,
        columns=48,
        num_slices=num_slices,
        pixel_spacing_row_mm=8.0,
        pixel_spacing_column_mm=8.0,
        spacing_source="ImagerPixelSpacing" if modality == "CR" else "PixelSpacing",
        slice_spacing_mm=None if num_slices == 1 else 2.5,
        slice_thickness_mm=None,
        intensity_unit="HU" if modality == "CT" else None,
        photometric="MONOCHROME2",
        bits_stored=12,
        sex="F",
        age_years=50.0,
        labels=None,
        study_uid=study,
        series_uid=series,
        path=image_path(subject, series),
    )


def _dataset(folder: Path, time: datetime | None = TIME) -> Dataset:
    """Two patients, of whom the first has two studies: a radiograph with a CT of three slices, and a radiograph."""
    rng = np.random.default_rng(0)
    rows = []
    for subject, number, modality in [(1, 0, "CR"), (1, 0, "CT"), (1, 1, "CR"), (2, 0, "CR")]:
        study_uid = synthetic_uid("export", subject, number)
        series_uid = synthetic_uid("export", subject, number, modality)
        study = Study(study_uid, series_uid, "simulated", time and time.replace(tzinfo=UTC), body_part="CHEST")
        patient = Patient(str(subject), sex="F", age_years=50.0)
        noise = rng.integers(0, 4096, (3, 40, 48))
        target = folder / image_path(subject, series_uid)
        if modality == "CT":
            write_volume(target, Volume(noise - 1024, "CT", (8.0, 8.0), 2.5), patient, study)
        else:
            image = ProjectionImage(noise[0].astype(np.uint16), 12, "PA", (8.0, 8.0))
            write_series(target, [projection_to_dataset(image, patient, study)])
        rows.append(_row(subject, number, study_uid, series_uid, modality))
    pq.write_table(images_to_table(rows), folder / "images.parquet")
    return Dataset(folder, "simulated")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return _dataset(tmp_path / "dataset")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _pixels(folder: Path) -> dict[str, list[Any]]:
    """Values by series UID, as the reader gives them."""
    found = {}
    for path in {path.parent for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR"}:
        series = open_series(path)
        found[series.header.series_uid] = series.pixels().tolist()
    return found


def test_files_of_a_dataset_go_out_as_they_are(dataset: Dataset, tmp_path: Path) -> None:
    assert write_dicom(dataset, DicomSettings(), tmp_path / "out") == {"series": 4, "files": 6}
    files = _files(tmp_path / "out")
    for row in dataset.images().to_pylist():
        for source in (dataset.path / row["path"]).iterdir():
            place = f"{row['subject_id']}/{row['study_uid']}/{row['series_uid']}/{source.name}"
            assert files.pop(place) == source.read_bytes()
    assert files == {}


@pytest.mark.parametrize("iod", ["source", "sc"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_class_and_encoding_has_the_same_values(dataset: Dataset, tmp_path: Path, iod: Any, syntax: Any) -> None:
    settings = DicomSettings(iod, syntax)
    assert write_dicom(dataset, settings, tmp_path / "out") == {"series": 4, "files": 6}
    for path in (tmp_path / "out").rglob("*.dcm"):
        made = pydicom.dcmread(path)
        assert made.file_meta.TransferSyntaxUID.is_compressed
        assert ("ConversionType" in made) == (iod == "sc")
        assert made.SyntheticData == "YES"
    if iod == "source":
        assert _pixels(tmp_path / "out") == _pixels(dataset.path / "images")


def test_two_processes_write_the_same_files(dataset: Dataset, tmp_path: Path) -> None:
    settings = DicomSettings(transfer_syntax="rle", dicomdir=True)
    write_dicom(dataset, settings, tmp_path / "one")
    write_dicom(dataset, replace(settings, workers=2), tmp_path / "two")
    assert _files(tmp_path / "one") == _files(tmp_path / "two")


def test_media_have_a_dicomdir_and_names_of_eight_characters(
    dataset: Dataset, tmp_path: Path, dciodvfy: Callable[[Path], list[str]]
) -> None:
    write_dicom(dataset, DicomSettings(dicomdir=True), tmp_path / "out")
    paths = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "DICOMDIR"]
    assert all(
        re.fullmatch(r"PT\d{6}/ST\d{6}/SE\d{6}/IM\d{6}", str(path.relative_to(tmp_path / "out"))) for path in paths
    )
    by_series = Counter(str(path.parent.relative_to(tmp_path / "out")) for path in paths)
    assert sorted(by_series) == [
        *("PT000000/ST000000/SE000000", "PT000000/ST000000/SE000001", "PT000000/ST000001/SE000000"),
        "PT000001/ST000000/SE000000",
    ]
    assert sorted(by_series.values()) == [1, 1, 1, 3]
    with file_set(tmp_path / "out" / "DICOMDIR") as found:
        assert len(found) == 6
    assert dciodvfy(tmp_path / "out" / "DICOMDIR") == []
    assert _pixels(tmp_path / "out") == _pixels(dataset.path / "images")


def test_a_dicomdir_of_studies_without_a_date_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a date of every study"):
        write_dicom(_dataset(tmp_path / "d", time=None), DicomSettings(dicomdir=True), tmp_path / "out")
    with pytest.raises(ConfigError, match="layout=media"):
        DicomSettings(layout="uids", dicomdir=True)
    with pytest.raises(ConfigError, match="workers"):
        DicomSettings(workers=0)


def test_a_file_that_is_missing_stops_the_export(dataset: Dataset, tmp_path: Path) -> None:
    path = next(row["path"] for row in dataset.images().to_pylist() if row["num_slices"] == 3)
    (dataset.path / path / "0001.dcm").unlink()
    with pytest.raises(DatasetError, match="says 3 images, and 2 files are there"):
        write_dicom(dataset, DicomSettings(), tmp_path / "out")


def test_an_export_goes_on_where_it_was_stopped(dataset: Dataset, tmp_path: Path) -> None:
    settings = DicomSettings(transfer_syntax="jpeg_ls")
    write_dicom(dataset, settings, tmp_path / "whole")
    write_dicom(dataset, settings, tmp_path / "out")
    kept, redone = sorted(path.parent for path in (tmp_path / "out").rglob("0000.dcm"))[:2]
    mark = kept.stat().st_ino
    for file in redone.iterdir():
        file.unlink()
    redone.rename(redone.with_name(f"{redone.name}.partial"))
    assert write_dicom(dataset, settings, tmp_path / "out") == {"series": 4, "files": 6}
    assert kept.stat().st_ino == mark
    assert _files(tmp_path / "out") == _files(tmp_path / "whole")


def test_what_cannot_be_compressed_is_told(tmp_path: Path, dataset: Dataset) -> None:
    row = dataset.images().to_pylist()[0]
    small = ProjectionImage(np.full((4, 4), 7, np.uint16), 12, "PA")  # JPEG 2000 halves an image five times
    study = Study(row["study_uid"], row["series_uid"], "simulated")
    for path in (dataset.path / row["path"]).iterdir():
        path.unlink()
    images = [projection_to_dataset(small, Patient("1"), study, index) for index in range(row["num_slices"])]
    write_series(dataset.path / row["path"], images)
    counts = write_dicom(dataset, DicomSettings(transfer_syntax="jpeg_2000"), tmp_path / "out")
    left = "files that cannot be compressed without loss, left uncompressed"
    assert counts == {"series": 4, "files": 6, left: row["num_slices"]}
    assert write_dicom(dataset, DicomSettings(transfer_syntax="jpeg_2000"), tmp_path / "out") == counts


def test_what_is_sent_is_the_datasets_own_where_nothing_changes(dataset: Dataset, tmp_path: Path) -> None:
    own = list(dicom_files(dataset, DicomSettings(dicomdir=True), tmp_path / "scratch"))
    assert len(own) == 6
    assert all(dataset.path in path.parents for path in own)
    assert not (tmp_path / "scratch").exists()
    for settings in (DicomSettings("sc"), DicomSettings(transfer_syntax="rle")):
        made = list(dicom_files(dataset, settings, tmp_path / settings.iod))
        assert [path.name for path in made] == [path.name for path in own]
        assert all((tmp_path / settings.iod) in path.parents for path in made)


_KILLED = """
import os, signal, sys
from pathlib import Path
from medtwin.core.dataset import Dataset
from medtwin.pipelines import export_dicom
from medtwin.pipelines.dicom_settings import DicomSettings

rewrite, calls = export_dicom.rewrite_file, []

def rewrite_until_killed(*arguments, **options):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return rewrite(*arguments, **options)

export_dicom.rewrite_file = rewrite_until_killed
settings = DicomSettings("sc", "rle", dicomdir=True)
export_dicom.write_dicom(Dataset(Path(sys.argv[1]), "simulated"), settings, Path(sys.argv[2]))
"""


def test_an_export_that_was_killed_is_completed(dataset: Dataset, tmp_path: Path) -> None:
    settings = DicomSettings("sc", "rle", dicomdir=True)
    write_dicom(dataset, settings, tmp_path / "whole")
    command = [sys.executable, "-c", _KILLED, str(dataset.path), str(tmp_path / "killed")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    left = _files(tmp_path / "killed")
    assert left
    assert set(left) != set(_files(tmp_path / "whole"))
    write_dicom(dataset, settings, tmp_path / "killed")
    assert _files(tmp_path / "killed") == _files(tmp_path / "whole")


def _labelled(dataset: Dataset) -> Dataset:
    """The same, the radiographs labelled: one with a finding, the others with none."""
    rows = dataset.images().to_pylist()
    radiographs = [row for row in rows if row["modality"] == "CR"]
    for row in radiographs:
        row["labels"] = []
    radiographs[0]["labels"] = ["SNOMED//233604007"]
    pq.write_table(images_to_table([ImageRow(**row) for row in rows]), dataset.path / "images.parquet")
    return dataset


@pytest.mark.parametrize("settings", [DicomSettings(sr=True), DicomSettings("sc", "rle", dicomdir=True, sr=True)])
def test_a_labelled_series_has_a_report_on_the_very_images_written(
    dataset: Dataset, tmp_path: Path, settings: DicomSettings, dciodvfy: Callable[[Path], list[str]]
) -> None:
    counts = write_dicom(_labelled(dataset), settings, tmp_path / "out")
    assert counts == {"series": 4, "files": 6, "reports": 3}
    images, reports = {}, {}
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and path.name != "DICOMDIR":
            made = pydicom.dcmread(path)
            (reports if made.Modality == "SR" else images)[made.SOPInstanceUID] = made
            assert dciodvfy(path) == []
    assert (len(images), len(reports)) == (6, 3)
    referenced = [
        each.ReferencedSOPInstanceUID
        for report in reports.values()
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    ]
    assert sorted(referenced) == sorted(uid for uid, image in images.items() if image.Modality == "CR")
    assert sum("233604007" in str(report) for report in reports.values()) == 1
    before = _files(tmp_path / "out")
    assert write_dicom(dataset, settings, tmp_path / "out") == counts
    assert _files(tmp_path / "out") == before
    sent = list(dicom_files(dataset, settings, tmp_path / "sent"))
    assert {pydicom.dcmread(path).SOPInstanceUID for path in sent} == {*images, *reports}
    if settings.dicomdir:
        with file_set(tmp_path / "out" / "DICOMDIR") as found:
            assert len(found) == 9


def test_a_series_of_no_date_has_no_report_and_is_counted(tmp_path: Path) -> None:
    dataset = _labelled(_dataset(tmp_path / "d", time=None))
    counts = write_dicom(dataset, DicomSettings(sr=True), tmp_path / "out")
    assert counts == {"series": 4, "files": 6, "labelled series without a date, not reported": 3}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patients of a hospital, of whom two have a CT."""
    return make_shard(Shard(tmp_path_factory.mktemp("h") / "hospital", (0, 1, 2, 3, 29, 37), seed=3, images=True))


def _resources(hospital: Path, kind: str) -> Iterator[dict[str, Any]]:
    for line in (hospital / "fhir" / f"{kind}.ndjson").read_text().splitlines():
        yield json.loads(line)


def test_fhir_and_dicom_say_the_same_of_patient_and_study(hospital: Path) -> None:
    patients = {f"Patient/{each['id']}": each for each in _resources(hospital, "Patient")}
    requests = {f"ServiceRequest/{each['id']}": each for each in _resources(hospital, "ServiceRequest")}
    series_found = set()
    modalities = set()
    for study in _resources(hospital, "ImagingStudy"):
        patient = patients[study["subject"]["reference"]]
        number = next(each for each in patient["identifier"] if each["type"]["coding"][0]["code"] == "MR")
        identifiers = {each["system"]: each["value"] for each in study["identifier"]}
        study_uid = identifiers["urn:dicom:uid"].removeprefix("urn:oid:")
        ordered = requests[study["basedOn"][0]["reference"]]["identifier"]
        assert [each["value"] for each in ordered] == [identifiers[ACCESSION_SYSTEM]] == [accession_number(study_uid)]
        for series in study["series"]:
            folder = hospital / "dicom" / number["value"] / study_uid / series["uid"]
            made = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.iterdir())]
            assert len(made) == series["numberOfInstances"]
            for image in made:
                assert (image.StudyInstanceUID, image.SeriesInstanceUID) == (study_uid, series["uid"])
                assert (image.PatientID, image.IssuerOfPatientID) == (number["value"], number["system"])
                assert image.PatientBirthDate == patient["birthDate"].replace("-", "")
                assert {"F": "female", "M": "male"}[image.PatientSex] == patient["gender"]
                assert image.Modality == series["modality"]["code"]
                offset = image.TimezoneOffsetFromUTC
                said = datetime.strptime(image.StudyDate + image.StudyTime + offset, "%Y%m%d%H%M%S%z")
                assert said == datetime.fromisoformat(study["started"])
                assert image.AccessionNumber == identifiers[ACCESSION_SYSTEM]
                modalities.add(image.Modality)
            series_found.add(series["uid"])
    assert modalities == {"CR", "CT"}
    assert {path.parent.name for path in (hospital / "dicom").rglob("*.dcm")} == series_found


def test_radiographs_of_the_hospital_are_as_wide_as_a_detector(hospital: Path) -> None:
    widths = []
    for path in (hospital / "dicom").rglob("*.dcm"):
        image = pydicom.dcmread(path, stop_before_pixels=True)
        if image.Modality == "CR":
            widths.append(image.Columns * image.ImagerPixelSpacing[1])
    assert widths
    assert all(250 <= width <= 480 for width in widths)


@pytest.mark.parametrize(
    ("precision", "written"),
    [
        ("second+00:00", ("20240102", "030405", "+0000")),
        ("second-05:00", ("20240102", "030405", "+0000")),
        ("day", ("20240102", "", None)),
        ("month", ("", "", None)),
        ("year", ("", "", None)),
    ],
)
def test_a_twins_study_is_dated_as_precisely_as_its_record(
    precision: str, written: tuple[str, str, str | None]
) -> None:
    call = ScanCall(1, "study", None, TIME, "CR", "CHEST", "PA", ())
    time = Person("F", None, {"study": precision}).study_time(call)
    study = Study("2.25.1", "2.25.2", "synthetic", time, body_part="CHEST")
    image = projection_to_dataset(ProjectionImage(np.zeros((2, 2), np.uint8), 8), Patient("1"), study)
    assert (image.StudyDate, image.StudyTime, image.get("TimezoneOffsetFromUTC")) == written
