from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset

from medtwin.core.images import accession_number
from medtwin.dicom import (
    Patient,
    ProjectionImage,
    Study,
    Volume,
    open_series,
    projection_to_dataset,
    synthetic_uid,
    validate_dataset,
    validate_series,
    volume_to_datasets,
    write_series,
)
from medtwin.dicom.uids import IMPLEMENTATION_UID

PATIENT = Patient("MT-0001", "Subject^One", "F", date(1970, 1, 2), 54.2)
STUDY = Study(
    study_uid=synthetic_uid("run", 1, "study"),
    series_uid=synthetic_uid("run", 1, "series", 0),
    origin="synthetic",
    time=datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
    model="unet-diffusion",
    body_part="CHEST",
)
RADIOGRAPH = ProjectionImage(np.arange(48, dtype=np.uint16).reshape(6, 8) * 85, view="PA", pixel_spacing_mm=(1.4, 1.5))
CT = Volume(
    np.linspace(-1024, 3071, 3 * 4 * 5).reshape(3, 4, 5), "CT", (0.7, 0.8), 2.5, origin_mm=(-100.123456789, -90, 20)
)
MR = Volume(np.arange(3 * 4 * 5).reshape(3, 4, 5), "MR", (1.0, 1.0), 1 / 3, slice_thickness_mm=0.5)

CASES: dict[str, Callable[[], list[FileDataset]]] = {
    "CR": lambda: [projection_to_dataset(RADIOGRAPH, PATIENT, STUDY)],
    "CR of 8 bits, odd size, real, little known": lambda: [
        projection_to_dataset(
            ProjectionImage(np.full((3, 5), 7, np.uint8), bits_stored=8),
            Patient("X"),
            replace(STUDY, origin="real", time=None, body_part=None),
        )
    ],
    "CR of a hand, date only": lambda: [
        projection_to_dataset(
            replace(RADIOGRAPH, laterality="L", view=None),
            PATIENT,
            replace(STUDY, body_part="HAND", time=datetime(2024, 1, 2)),
        )
    ],
    "DX": lambda: [projection_to_dataset(replace(RADIOGRAPH, modality="DX"), PATIENT, STUDY)],
    "DX lateral": lambda: [projection_to_dataset(replace(RADIOGRAPH, modality="DX", view="LL"), PATIENT, STUDY)],
    "CT": lambda: list(volume_to_datasets(CT, PATIENT, replace(STUDY, origin="simulated"))),
    "CT beyond 12 bits": lambda: list(volume_to_datasets(replace(CT, values=CT.values * 9), PATIENT, STUDY)),
    "CT of 16 bits, sagittal": lambda: list(
        volume_to_datasets(replace(CT, bits_stored=16, orientation=(0, 1, 0, 0, 0, -1)), PATIENT, STUDY)
    ),
    "MR": lambda: list(volume_to_datasets(MR, PATIENT, replace(STUDY, body_part="HEAD"))),
    "MR, floating time, no body part": lambda: list(
        volume_to_datasets(MR, Patient("X"), replace(STUDY, body_part=None, time=datetime(2024, 1, 2, 3)))
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_valid(tmp_path: Path, name: str, dciodvfy: Callable[[Path], list[str]]) -> None:
    datasets = CASES[name]()
    assert [finding for dataset in datasets for finding in validate_dataset(dataset)] == []
    assert validate_series(datasets) == []
    for path in write_series(tmp_path, datasets):
        assert dciodvfy(path) == []


@pytest.mark.parametrize("name", CASES)
def test_equal_input_gives_equal_bytes(tmp_path: Path, name: str) -> None:
    first = write_series(tmp_path / "1", CASES[name]())
    second = write_series(tmp_path / "2", CASES[name]())
    assert [path.name for path in first] == [f"{index:04d}.dcm" for index in range(len(first))]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert sorted(tmp_path.rglob(".*")) == []


def test_a_radiograph_reads_back(tmp_path: Path) -> None:
    write_series(tmp_path, [projection_to_dataset(RADIOGRAPH, PATIENT, STUDY)])
    series = open_series(tmp_path)
    assert np.array_equal(series.pixels()[0], RADIOGRAPH.stored)
    header, geometry = series.header, series.geometry
    assert (header.modality, header.body_part, header.view, header.sex) == ("CR", "CHEST", "PA", "F")
    assert (header.age_years, header.study_time, header.patient_id) == (54.0, STUDY.time, "MT-0001")
    assert (header.study_uid, header.series_uid) == (STUDY.study_uid, STUDY.series_uid)
    assert (geometry.pixel_spacing_row_mm, geometry.pixel_spacing_column_mm) == (1.4, 1.5)
    assert geometry.spacing_source == "ImagerPixelSpacing"
    assert series.findings == ()


def test_a_ct_reads_back_in_hounsfield_units(tmp_path: Path) -> None:
    write_series(tmp_path, volume_to_datasets(CT, PATIENT, STUDY))
    series = open_series(tmp_path)
    assert np.array_equal(series.pixels(), np.rint(CT.values))
    assert series.header.intensity_unit == "HU"
    assert series.geometry.slice_spacing_mm == pytest.approx(2.5)
    assert series.header.slice_thickness_mm == 2.5
    assert series.instances[0].position == pytest.approx((-100.123457, -90, 20))
    assert series.instances[2].position == pytest.approx((-100.123457, -90, 25))
    assert series.findings == ()


@given(
    values=st.lists(st.floats(-1024, 3071, width=32), min_size=1, max_size=12),
    spacing=st.tuples(*[st.floats(0.05, 50)] * 3),
    angle=st.floats(0, 6.28),
)
@settings(max_examples=25, deadline=None)
def test_any_volume_reads_back(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], spacing: tuple[float, ...], angle: float
) -> None:
    folder = tmp_path_factory.mktemp("volume")
    sine, cosine = float(np.sin(angle)), float(np.cos(angle))
    volume = Volume(
        values=np.array([values, values[::-1]])[:, np.newaxis],
        modality="CT",
        pixel_spacing_mm=spacing[:2],
        slice_spacing_mm=spacing[2],
        orientation=(cosine, sine, 0, 0, 0, -1),
    )
    datasets = list(volume_to_datasets(volume, PATIENT, STUDY))
    assert [finding for dataset in datasets for finding in validate_dataset(dataset)] == []
    write_series(folder, datasets)
    series = open_series(folder)
    assert np.array_equal(series.pixels(), np.rint(volume.values))
    assert series.geometry.slice_spacing_mm == pytest.approx(spacing[2], abs=1e-5)
    assert series.geometry.pixel_spacing_row_mm == pytest.approx(spacing[0])


def test_a_ct_that_12_bits_do_not_hold_is_written_in_16_signed_ones(tmp_path: Path) -> None:
    volume = replace(CT, values=np.array([[[-32_768.0, -1024.4], [3071.4, 32_767.0]]]))
    (dataset,) = volume_to_datasets(volume, PATIENT, STUDY)
    assert (dataset.PixelRepresentation, dataset.BitsStored, dataset.RescaleIntercept) == (1, 16, 0)
    write_series(tmp_path, [dataset])
    assert open_series(tmp_path).pixels().tolist() == [[[-32_768, -1024], [3071, 32_767]]]
    (small,) = volume_to_datasets(replace(volume, values=np.array([[[-1024.4, 3071.4]]])), PATIENT, STUDY)
    assert (small.PixelRepresentation, small.BitsStored, small.RescaleIntercept) == (0, 12, -1024)


def test_a_ct_has_a_window_for_soft_tissue_and_one_for_the_lung() -> None:
    dataset = next(volume_to_datasets(CT, PATIENT, STUDY))
    windows = zip(dataset.WindowCenterWidthExplanation, dataset.WindowCenter, dataset.WindowWidth, strict=True)
    assert list(windows) == [("SOFT TISSUE", 40, 400), ("LUNG", -600, 1500)]


def test_a_dx_codes_its_view_and_region() -> None:
    dataset = projection_to_dataset(replace(RADIOGRAPH, modality="DX", view="LL"), PATIENT, STUDY)
    assert (dataset.PresentationIntentType, dataset.ImageLaterality) == ("FOR PRESENTATION", "U")
    assert dataset.ViewCodeSequence[0].CodeMeaning == "left lateral"
    assert dataset.AnatomicRegionSequence[0].CodeValue == "816094009"
    assert (dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign) == ("LOG", -1)
    assert dataset.PresentationLUTShape == "IDENTITY"


def test_eight_bits_stay_eight_bits() -> None:
    dataset = projection_to_dataset(ProjectionImage(np.full((3, 5), 7, np.uint8), bits_stored=8), PATIENT, STUDY)
    assert dataset.SOPClassUID.name == "Computed Radiography Image Storage"
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (8, 8, 7)
    assert dataset["PixelData"].VR == "OB"


def test_the_number_of_a_patient_names_its_issuer_and_a_study_its_accession() -> None:
    study = replace(STUDY, accession_number=accession_number(STUDY.study_uid))
    dataset = projection_to_dataset(RADIOGRAPH, Patient("7", name="Müller^Zoë"), study)
    assert dataset.IssuerOfPatientID == "urn:medtwin:subject"
    assert len(dataset.AccessionNumber) == 16
    assert str(dataset.PatientName) == "Müller^Zoë"
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert "IssuerOfPatientID" not in projection_to_dataset(RADIOGRAPH, Patient("7", issuer=None), study)


def test_years_before_1000_keep_their_zeros() -> None:
    dataset = projection_to_dataset(
        RADIOGRAPH, Patient("7", birth_date=date(987, 6, 5)), replace(STUDY, time=datetime(999, 1, 2, 3))
    )
    assert (dataset.PatientBirthDate, dataset.StudyDate) == ("09870605", "09990102")


def test_synthetic_images_say_so_everywhere() -> None:
    dataset = projection_to_dataset(RADIOGRAPH, PATIENT, STUDY)
    assert dataset.SyntheticData == "YES"
    assert dataset.ImageType == ["DERIVED", "SECONDARY"]
    assert dataset.ContentQualification == "RESEARCH"
    assert dataset.SeriesDescription.startswith("SYNTHETIC")
    (equipment,) = dataset.ContributingEquipmentSequence
    (purpose,) = equipment.PurposeOfReferenceCodeSequence
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109100", "DCM")
    assert equipment.ManufacturerModelName == "unet-diffusion"
    assert dataset.preamble == b"\0" * 128
    assert dataset.file_meta.ImplementationClassUID == IMPLEMENTATION_UID


def test_real_images_do_not_claim_to_be_anything_else() -> None:
    dataset = projection_to_dataset(RADIOGRAPH, PATIENT, replace(STUDY, origin="real"))
    assert "SyntheticData" not in dataset
    assert "ContributingEquipmentSequence" not in dataset
    assert dataset.ImageType == ["DERIVED", "SECONDARY"]
    assert dataset.Manufacturer == ""
    assert dataset.PatientIdentityRemoved == "YES"


@pytest.mark.parametrize(
    ("time", "written"),
    [
        (datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), ("20240102", "030405", "+0000")),
        (datetime(2024, 1, 2, 0, 30, tzinfo=timezone(timedelta(hours=1))), ("20240101", "233000", "+0000")),
        (datetime(2024, 1, 2, 3, 4, 5, 250000), ("20240102", "030405.250000", "")),
        (datetime(2024, 1, 2), ("20240102", "", "")),
        (None, ("", "", "")),
    ],
)
def test_study_time(tmp_path: Path, time: datetime | None, written: tuple[str, str, str]) -> None:
    dataset = projection_to_dataset(RADIOGRAPH, PATIENT, replace(STUDY, time=time))
    assert (dataset.StudyDate, dataset.StudyTime, dataset.get("TimezoneOffsetFromUTC", "")) == written
    write_series(tmp_path, [dataset])
    found = open_series(tmp_path).header.study_time
    assert found == time
    assert (found is None or found.tzinfo) == (time is None or (time.tzinfo and UTC))


def test_slices_do_not_share_elements() -> None:
    datasets = list(volume_to_datasets(CT, PATIENT, STUDY))
    assert [dataset.InstanceNumber for dataset in datasets] == [1, 2, 3]
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == 3
    assert len({dataset.FrameOfReferenceUID for dataset in datasets}) == 1
    datasets[0].PatientSex = "M"
    assert datasets[1].PatientSex == "F"


def test_the_uid_depends_on_every_part() -> None:
    uids = [synthetic_uid(*parts) for parts in [("r", 1, 2), ("r", 12), ("r", 1), ("r", 2, 1), ("s", 1, 2)]]
    assert len(set(uids)) == 5
    assert all(uid.is_valid and len(uid) <= 64 and uid.startswith("2.25.") for uid in uids)
    with pytest.raises(ValueError, match="at least one part"):
        synthetic_uid()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Patient(""), "patient_id"),
        (lambda: Patient("X", sex="female"), "sex must be"),
        (lambda: replace(STUDY, origin="fake"), "origin must be"),
        (lambda: replace(STUDY, body_part="JANE"), "body_part"),
        (lambda: replace(RADIOGRAPH, view="FRONT"), "view must be"),
        (lambda: replace(RADIOGRAPH, laterality="left"), "laterality"),
        (lambda: replace(RADIOGRAPH, bits_stored=8), "bits_stored"),
        (lambda: replace(RADIOGRAPH, stored=np.zeros((2, 2))), "uint8 or uint16"),
        (lambda: replace(RADIOGRAPH, stored=np.zeros((0, 2), np.uint8)), "rows, columns"),
        (lambda: replace(RADIOGRAPH, pixel_spacing_mm=(0, 1)), "positive"),
        (lambda: replace(RADIOGRAPH, modality="DX", pixel_spacing_mm=None), "DX must have"),
        (lambda: replace(RADIOGRAPH, modality="US"), "modality"),
        (lambda: replace(CT, values=CT.values + 1, bits_stored=12), "values must be finite, from -1024 to 3071"),
        (lambda: replace(CT, values=CT.values + 32_000), "values must be finite, from -32768 to 32767"),
        (lambda: replace(CT, values=CT.values, bits_stored=17), "bits_stored"),
        (lambda: replace(CT, origin_mm=(0, 0, np.nan)), "origin_mm"),
        (lambda: replace(CT, values=np.zeros((1, 1, 70_000))), "65,535"),
        (lambda: replace(MR, values=MR.values + 65_536), "values must be finite, from 0 to 65535"),
        (lambda: Patient("X\\Y"), "no backslash"),
        (lambda: Patient("X", name="A" * 65), "name must have"),
        (lambda: Patient("X", name="A\nB"), "control character"),
        (lambda: Patient("X", issuer="I" * 65), "issuer"),
        (lambda: replace(STUDY, accession_number="1" * 17), "accession_number"),
        (lambda: replace(STUDY, study_uid="1.02"), "study_uid must be a UID"),
        (lambda: replace(STUDY, description="a\\b"), "description"),
        (lambda: replace(CT, values=CT.values * np.nan), "values must be finite"),
        (lambda: replace(MR, values=-MR.values), "values must be finite, from 0"),
        (lambda: replace(CT, values=CT.values[0]), "slices, rows, columns"),
        (lambda: replace(CT, orientation=(1, 0, 0, 1, 0, 0)), "right angles"),
        (lambda: replace(CT, slice_spacing_mm=0), "positive"),
        (lambda: replace(CT, modality="PT"), "modality"),
        (lambda: projection_to_dataset(replace(RADIOGRAPH, laterality="L"), PATIENT, STUDY), "unpaired"),
        (
            lambda: projection_to_dataset(replace(RADIOGRAPH, modality="DX"), PATIENT, replace(STUDY, body_part=None)),
            "DX must have a body_part",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    dataset = projection_to_dataset(RADIOGRAPH, PATIENT, STUDY)
    del dataset.file_meta.TransferSyntaxUID
    with pytest.raises((ValueError, AttributeError)):
        write_series(tmp_path / "out", [dataset])
    assert list((tmp_path / "out").iterdir()) == []


def test_viewers_find_a_plain_file(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path, [projection_to_dataset(RADIOGRAPH, PATIENT, STUDY)])
    assert path.read_bytes()[128:132] == b"DICM"
    assert pydicom.dcmread(path).pixel_array.tolist() == RADIOGRAPH.stored.tolist()
