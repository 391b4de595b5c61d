from __future__ import annotations

from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset

from medtwin.dicom import validate_dataset, validate_series, volume_to_datasets
from medtwin.dicom.values import quiet
from tests.dicom.samples import ct
from tests.dicom.test_write import CT, PATIENT, STUDY


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
        (_set("Rows", 5), "pixel-length"),
        (_set("HighBit", 12), "bits"),
        (_set("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "orientation"),
        (_set("PixelSpacing", [1, 0]), "spacing"),
        (_set("StudyInstanceUID", "1.02.3"), "uid"),
        (_set("StudyDate", "2024-01-02"), "date"),
        (_set("PatientAge", "54"), "age"),
        (_set("PatientIdentityRemoved", "YES"), "deidentification"),
        (_set("Laterality", ""), "laterality"),
        (_set("SOPInstanceUID", "1.2.3"), "file-meta"),
        (_set("PatientSex", "X"), "term"),
        (_set("SOPClassUID", "1.2.3"), "sop-class"),
    ],
)
def test_one_damage_is_one_finding(damage: Callable[[Dataset], None], rule: str) -> None:
    dataset = _valid()
    assert validate_dataset(dataset) == []
    with quiet():
        damage(dataset)
        findings = validate_dataset(dataset, "0.dcm")
    assert [finding.rule for finding in findings] == [rule]
    assert findings[0].where == "0.dcm"


def test_a_series_must_hang_together() -> None:
    datasets = list(volume_to_datasets(CT, PATIENT, STUDY))
    assert validate_series(datasets) == []
    datasets[1].ImagePositionPatient = [0, 0, 23]
    datasets[1].SOPInstanceUID = datasets[0].SOPInstanceUID
    datasets[2].PatientID = "another"
    assert [finding.rule for finding in validate_series(datasets)] == [
        "series-consistency",
        "duplicate-instance",
        "slice-positions",
    ]


def test_a_finding_names_no_value() -> None:
    dataset = ct(0, PatientID="MR4711")
    dataset.PatientSex = "JANE"
    assert "JANE" not in str(validate_dataset(dataset))
