from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.coding import Code

from medtwin.dicom import (
    Maker,
    Measurement,
    labels_to_report,
    projection_to_dataset,
    validate_dataset,
    volume_to_datasets,
)
from medtwin.dicom.writing.derived import code_of
from tests.dicom.samples import cr, save
from tests.dicom.test_write import CT, PATIENT, RADIOGRAPH, STUDY

PNEUMONIA, NODULE = "SNOMED//233604007", "NIHCXR14//Nodule"
MEANINGS = {PNEUMONIA: "Pneumonia"}
MEAN = Measurement(Code("373098007", "SCT", "Mean"), -812.25, Code("[hnsf'U]", "UCUM", "Hounsfield unit"))


def _radiograph(**changed: Any) -> list[FileDataset]:
    return [projection_to_dataset(RADIOGRAPH, PATIENT, replace(STUDY, **changed))]


def _slices() -> list[FileDataset]:
    return list(volume_to_datasets(CT, PATIENT, STUDY))


def _bytes(dataset: FileDataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _content(item: Dataset, concept: str) -> list[Dataset]:
    """Every content item, at any depth, whose concept name has a code value."""
    found = []
    for child in item.get("ContentSequence", []):
        name = child.get("ConceptNameCodeSequence")
        if name and name[0].get("CodeValue") == concept:
            found.append(child)
        found += _content(child, concept)
    return found


def _findings(report: Dataset) -> list[tuple[str, str, str, str]]:
    """Scheme, value and meaning of each finding, and whether it is present."""
    made = []
    for group in _content(report, "125007"):
        (finding,) = _content(group, "121071")
        (presence,) = _content(group, "121052")
        code = finding.ConceptCodeSequence[0]
        value = code.get("CodeValue") or code.LongCodeValue
        answer = presence.ConceptCodeSequence[0].CodeMeaning
        made.append((code.CodingSchemeDesignator, value, code.CodeMeaning, answer))
    return made


def test_labels_are_findings_on_the_images(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    sources = _slices()
    report = labels_to_report(sources, [PNEUMONIA, NODULE], meanings=MEANINGS)
    assert validate_dataset(report) == []
    path = save(tmp_path / "sr.dcm", report)
    assert dciodvfy(path) == []
    read = pydicom.dcmread(path)
    assert validate_dataset(read) == []
    assert _findings(read) == [
        ("99NIHCXR14", "Nodule", "Nodule", "Present"),
        ("SCT", "233604007", "Pneumonia", "Present"),
    ]
    for group in _content(read, "125007"):
        seen = {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in _content(group, "121112")}
        assert seen == {source.SOPInstanceUID for source in sources}
        (site,) = _content(group, "363698007")
        assert site.ConceptCodeSequence[0].CodeMeaning == "Chest"
    assert read.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_no_label_is_no_finding(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    report = labels_to_report(_radiograph(), [])
    assert _findings(report) == [("SCT", "404684003", "Clinical finding", "Absent")]
    assert validate_dataset(report) == []
    assert dciodvfy(save(tmp_path / "sr.dcm", report)) == []


def test_measurements_are_numbers_with_a_unit(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    report = labels_to_report(_slices(), None, [MEAN])
    (number,) = _content(report, "373098007")
    (value,) = number.MeasuredValueSequence
    assert float(value.NumericValue) == -812.25
    assert value.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"
    assert validate_dataset(report) == []
    assert dciodvfy(save(tmp_path / "sr.dcm", report)) == []


def test_it_belongs_to_the_study_and_says_what_it_is() -> None:
    (source,) = sources = _radiograph()
    report = labels_to_report(sources, [PNEUMONIA], maker=Maker("labeller", "3", series_number=9, description="labels"))
    for keyword in ("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "StudyDate", "AccessionNumber", "PatientSex"):
        assert report[keyword].value == source[keyword].value, keyword
    assert (report.Modality, report.SeriesNumber, report.SeriesDescription) == ("SR", 9, "SYNTHETIC labels")
    assert (report.SyntheticData, report.ManufacturerModelName) == ("YES", "labeller")
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )


def test_a_report_on_real_images_is_not_marked(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    report = labels_to_report([cr()], [PNEUMONIA])
    assert "SyntheticData" not in report
    assert validate_dataset(report) == []
    assert dciodvfy(save(tmp_path / "sr.dcm", report)) == []


def test_equal_input_gives_equal_bytes_and_other_labels_another_instance() -> None:
    first = labels_to_report(_radiograph(), [PNEUMONIA, NODULE], [MEAN])
    assert _bytes(first) == _bytes(labels_to_report(_radiograph(), [NODULE, PNEUMONIA, NODULE], [MEAN]))
    others = [
        labels_to_report(_radiograph(), [PNEUMONIA], [MEAN]),
        labels_to_report(_radiograph(), [], [MEAN]),
        labels_to_report(_radiograph(), None, [MEAN]),
        labels_to_report(_radiograph(), [PNEUMONIA, NODULE], [replace(MEAN, value=1.0)]),
    ]
    assert len({str(report.SOPInstanceUID) for report in (first, *others)}) == 5


@given(
    labels=st.lists(
        st.tuples(
            st.sampled_from(["SNOMED", "LOINC", "ICD10CM", "own/system", "http://x.org/a"]),
            st.text(
                st.characters(
                    codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp"), exclude_characters="\\ "
                ),
                min_size=1,
            ),
        ).map("//".join),
        max_size=3,
    ),
    value=st.floats(-1e30, 1e30),
)
@settings(max_examples=12, deadline=None)
def test_any_code_and_number_makes_a_valid_report(labels: list[str], value: float) -> None:
    report = labels_to_report(_radiograph(), labels, [replace(MEAN, value=value)])
    assert validate_dataset(pydicom.dcmread(BytesIO(_bytes(report)))) == []


@pytest.mark.parametrize(
    ("meaning", "written"),
    [
        (None, "1"),
        ("", "1"),
        (" A ", "A"),
        ("a\\b", "1"),
        ("a\nb", "1"),
        ("x" * 70, "x" * 64),
        ("\u00c4pfel", "\u00c4pfel"),
    ],
)
def test_words_that_an_attribute_cannot_hold_give_way_to_the_code(meaning: str | None, written: str) -> None:
    assert code_of("SNOMED//1", meaning).meaning == written


@pytest.mark.parametrize(
    ("code", "scheme"),
    [
        ("LOINC//718-7", "LN"),
        ("ICD10CM//J18.9", "I10C"),
        ("NIHCXR14//Nodule", "99NIHCXR14"),
        ("a.very/long system name//x", "99AVERYLONGSYSTE"),
    ],
)
def test_schemes(code: str, scheme: str) -> None:
    assert code_of(code).scheme_designator == scheme


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: labels_to_report([], [PNEUMONIA]), "got none"),
        (lambda: labels_to_report(_radiograph(), None), "nothing to report"),
        (lambda: labels_to_report(_radiograph(), ["pneumonia"]), "SYSTEM//code"),
        (lambda: labels_to_report(_radiograph(), ["SNOMED//a\\b"]), "without backslash"),
        (lambda: labels_to_report(_radiograph(), ["SNOMED// "]), "SYSTEM//code"),
        (lambda: labels_to_report(_radiograph(time=None), [PNEUMONIA]), r"give maker\.time"),
        (lambda: labels_to_report([*_radiograph(), cr()], [PNEUMONIA]), "of one series"),
        (lambda: replace(MEAN, value=float("nan")), "finite"),
    ],
)
def test_what_cannot_be_reported_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_undated_images_take_the_time_of_the_maker() -> None:
    report = labels_to_report(_radiograph(time=None), [], maker=Maker(time=datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)))
    assert (report.ContentDate, report.ContentTime) == ("20240506", "070809")
    assert validate_dataset(report) == []
