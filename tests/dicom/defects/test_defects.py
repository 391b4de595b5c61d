"""Every planted defect is found by our check, by a finding that names it; what dciodvfy finds stands in the docs."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from pydicom import config
from pydicom.dataset import FileDataset

from medtwin.core.findings import Finding
from medtwin.dicom import validate_dataset, validate_series
from medtwin.dicom.values import quiet
from tests.dicom.defects.bases import BASES, base, series
from tests.dicom.defects.planted import DEFECTS, SERIES_DEFECTS, Defect, SeriesDefect
from tests.peers import ROOT, require_peer

DOC = ROOT / "docs" / "dicom_validation.md"
_BEGIN, _END = "<!-- planted defects -->", "<!-- end -->"


def _planted(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> FileDataset:
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)
    dataset = base(defect.iod)
    with quiet():
        defect.damage(dataset)
    return dataset


def _write(path: Path, dataset: FileDataset, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.IGNORE)
    dataset.SpecificCharacterSet = dataset.get("SpecificCharacterSet")
    if dataset.SpecificCharacterSet is None:
        del dataset.SpecificCharacterSet
    dataset.file_meta.FileMetaInformationGroupLength = 0  # pydicom corrects it; it completes nothing else
    with quiet():
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True, force_encoding=True)
    return path


def _naming(findings: list[Finding], attribute: str) -> list[Finding]:
    return [finding for finding in findings if re.search(rf"(?<!\w){re.escape(attribute)}(?!\w)", finding.message)]


@pytest.mark.parametrize("iod", BASES)
def test_what_defects_are_planted_in_is_valid(tmp_path: Path, iod: str) -> None:
    assert validate_dataset(base(iod)) == []
    base(iod).save_as(tmp_path / "base.dcm", enforce_file_format=True)
    assert validate_dataset(pydicom.dcmread(tmp_path / "base.dcm")) == []


def test_the_defects_are_many_and_distinct() -> None:
    assert len(DEFECTS) >= 60
    assert set(Counter(defect.iod for defect in DEFECTS)) == set(BASES)
    assert max(Counter(map(str, DEFECTS)).values()) == 1


@pytest.mark.parametrize("defect", DEFECTS, ids=str)
def test_a_defect_is_found(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = validate_dataset(_planted(defect, monkeypatch), "planted.dcm")
    assert _naming(findings, defect.attribute), [str(finding) for finding in findings]
    assert {finding.where for finding in findings} == {"planted.dcm"}


@pytest.mark.parametrize("defect", SERIES_DEFECTS, ids=str)
def test_a_defect_of_a_series_is_found(defect: SeriesDefect) -> None:
    datasets = series()
    assert validate_series(datasets) == []
    defect.damage(datasets)
    assert _naming(validate_series(datasets), defect.attribute)


def test_the_docs_say_what_dciodvfy_finds_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of docs/dicom_validation.md; with MEDTWIN_UPDATE_DOCS=1 it is written."""
    program = require_peer("dciodvfy")
    rows = ["| object | defect | our rule | dciodvfy |", "|---|---|---|---|"]
    sound = {iod: _lines(program, _write(tmp_path / f"{iod}.dcm", base(iod), monkeypatch)) for iod in BASES}
    for index, defect in enumerate(DEFECTS):
        dataset = _planted(defect, monkeypatch)
        rule, *_ = [finding.rule for finding in _naming(validate_dataset(dataset), defect.attribute)]
        path = _write(tmp_path / f"{index}.dcm", dataset, monkeypatch)
        said = [line for line in _lines(program, path) if line not in sound[defect.iod]]
        rows.append(f"| {defect.iod} | {defect.name} | {rule} | {_word(said)} |")
    before, _, rest = DOC.read_text(encoding="utf-8").partition(_BEGIN)
    table, _, after = rest.partition(_END)
    if os.environ.get("MEDTWIN_UPDATE_DOCS") == "1":
        DOC.write_text("\n".join([before + _BEGIN, *rows, _END + after]), encoding="utf-8")
        return
    assert table.strip().splitlines() == rows, "run this test with MEDTWIN_UPDATE_DOCS=1"


def _lines(program: Path, path: Path) -> list[str]:
    done = subprocess.run([program, path], capture_output=True, check=False)
    return done.stderr.decode("latin-1").splitlines()


def _word(lines: list[str]) -> str:
    for word in ("Error", "Warning"):
        if any(word in line for line in lines):
            return word.lower()
    return "-"
