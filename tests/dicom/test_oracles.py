"""Two programs that share no code with us judge all that we write: dciodvfy each file, dcentvfy a whole study."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pydicom.uid as uid
import pytest
from pydicom.dataset import FileDataset
from pydicom.sr.coding import Code

from medtwin.core.sources import Ledger
from medtwin.dicom import (
    Maker,
    Measurement,
    Segment,
    deidentify_series,
    labels_to_report,
    projection_to_dataset,
    read_folder,
    segmentation_to_dataset,
    synthetic_uid,
    validate_dataset,
    validate_folder,
    volume_to_datasets,
    write_series,
)
from medtwin.dicom.checks.tables import load_tables
from medtwin.dicom.values import quiet
from medtwin.dicom.write import TRANSFER_SYNTAXES, compress, to_secondary_capture
from tests.dicom.defects.bases import series as ct_series
from tests.dicom.defects.planted import SERIES_DEFECTS, SeriesDefect
from tests.dicom.samples import PSEUDONYMS, cr, save, save_ct
from tests.dicom.test_write import CT, MR, PATIENT, RADIOGRAPH, STUDY
from tests.peers import require_peer

_BONE = Segment("Bone", Code("272673000", "SCT", "Bone"), algorithm="threshold")
_MEAN = Measurement(Code("373098007", "SCT", "Mean"), 12.5, Code("[hnsf'U]", "UCUM", "Hounsfield unit"))


def _in_series(number: int) -> dict[str, object]:
    return {"series_uid": synthetic_uid("oracles", number), "series_number": number}


def _ct() -> list[FileDataset]:
    return list(volume_to_datasets(CT, PATIENT, replace(STUDY, **_in_series(1))))  # type: ignore[arg-type]


def _mr() -> list[FileDataset]:
    return list(volume_to_datasets(MR, PATIENT, replace(STUDY, **_in_series(2))))  # type: ignore[arg-type]


def _cr() -> list[FileDataset]:
    return [projection_to_dataset(RADIOGRAPH, PATIENT, replace(STUDY, **_in_series(3)))]  # type: ignore[arg-type]


def _cr_of_8_bits() -> list[FileDataset]:
    image = replace(RADIOGRAPH, stored=np.arange(48, dtype=np.uint8).reshape(6, 8), bits_stored=8)
    return [projection_to_dataset(image, PATIENT, replace(STUDY, **_in_series(4)))]  # type: ignore[arg-type]


def _dx() -> list[FileDataset]:
    image = replace(RADIOGRAPH, modality="DX")
    return [projection_to_dataset(image, PATIENT, replace(STUDY, **_in_series(5)))]  # type: ignore[arg-type]


def _sc(number: int, datasets: list[FileDataset]) -> list[FileDataset]:
    made = [to_secondary_capture(dataset) for dataset in datasets]
    for dataset in made:
        dataset.SeriesInstanceUID, dataset.SeriesNumber = synthetic_uid("oracles", number), number
    return made


def _seg() -> list[FileDataset]:
    sources = _ct()
    mask = np.zeros((3, 4, 5), np.uint8)
    mask[:, 1:3, 1:4] = 1
    return [segmentation_to_dataset(mask, sources, [_BONE], Maker(series_number=10))]


def _reports() -> list[FileDataset]:
    seen = labels_to_report(_cr(), ["SNOMED//233604007"], maker=Maker(series_number=11))
    none = labels_to_report(_dx(), [], [_MEAN], maker=Maker(series_number=12))
    return [seen, none]


WRITTEN: dict[str, Callable[[], list[FileDataset]]] = {
    "CT": _ct,
    "MR": _mr,
    "CR": _cr,
    "CR of 8 bits": _cr_of_8_bits,
    "DX": _dx,
    "SC of CR": lambda: _sc(6, _cr()),
    "SC of CT": lambda: _sc(7, _ct()),
    "SC of DX": lambda: _sc(8, _dx()),
    "SC of MR": lambda: _sc(9, _mr()),
    "SEG": _seg,
    "SR": _reports,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_each_class_is_valid(tmp_path: Path, name: str, dciodvfy: Callable[[Path], list[str]]) -> None:
    for path in write_series(tmp_path, WRITTEN[name]()):
        assert dciodvfy(path) == []
        assert validate_dataset(pydicom.dcmread(path)) == []


_CELLS = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
_VALUES = np.stack([_CELLS % 3000, _CELLS % 2000])

LARGE: dict[str, Callable[[], list[FileDataset]]] = {
    "CT": lambda: list(volume_to_datasets(replace(CT, values=_VALUES.astype(np.int16) - 1024), PATIENT, STUDY)),
    "MR": lambda: list(volume_to_datasets(replace(MR, values=_VALUES), PATIENT, STUDY)),
    "CR": lambda: [projection_to_dataset(replace(RADIOGRAPH, stored=_CELLS), PATIENT, STUDY)],
    "CR of 8 bits": lambda: [
        projection_to_dataset(replace(RADIOGRAPH, stored=_CELLS.astype(np.uint8), bits_stored=8), PATIENT, STUDY)
    ],
    "DX": lambda: [projection_to_dataset(replace(RADIOGRAPH, stored=_CELLS, modality="DX"), PATIENT, STUDY)],
}
"""Encoders of JPEG 2000 refuse images of a few pixels."""


@pytest.mark.parametrize("syntax", sorted(set(TRANSFER_SYNTAXES) - {"explicit_little_endian"}))
@pytest.mark.parametrize("name", LARGE)
def test_each_compressed_class_is_valid(
    tmp_path: Path, name: str, syntax: str, dciodvfy: Callable[[Path], list[str]]
) -> None:
    datasets = LARGE[name]()
    for dataset in datasets:
        compress(dataset, syntax)
    for path in write_series(tmp_path, datasets):
        assert dciodvfy(path) == []
        read = pydicom.dcmread(path)
        assert uid.UID(read.file_meta.TransferSyntaxUID) == TRANSFER_SYNTAXES[syntax]
        assert validate_dataset(read) == []


_OF_ITS_TABLES = "Different information entities for attribute - Element=<AccessionNumber>"
"""Its tables have AccessionNumber of reports in the study, that of images in the series: no matter of the files."""


def _dcentvfy(folder: Path) -> list[str]:
    """What dcentvfy says of the files of a folder: nothing where they fit together."""
    program = require_peer("dcentvfy")
    files = sorted(folder.rglob("*.dcm"))
    done = subprocess.run([program, *files], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))]
    return [line for line in said if _OF_ITS_TABLES not in line]


def test_a_study_of_everything_hangs_together(tmp_path: Path) -> None:
    for number, make in enumerate(WRITTEN.values()):
        write_series(tmp_path / str(number), make())
    assert _dcentvfy(tmp_path) == []
    found = validate_folder(tmp_path)
    assert (found.findings(), found.rejects, found.num_ignored) == ([], [], 0)
    assert set(found.num_objects) == {
        *("ct-image", "mr-image", "computed-radiography-image", "digital-x-ray-image", "secondary-capture-image"),
        *("segmentation", "comprehensive-sr"),
    }


def test_what_was_deidentified_is_valid(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    save_ct(tmp_path / "in" / "ct")
    save(tmp_path / "in" / "cr.dcm", cr())
    for number, series in enumerate(read_folder(tmp_path / "in", Ledger())):
        subject = PSEUDONYMS.subject_id(series.identity)
        paths = write_series(tmp_path / "out" / str(number), deidentify_series(series, PSEUDONYMS, subject))
        assert [error for path in paths for error in dciodvfy(path)] == []
    assert _dcentvfy(tmp_path / "out") == []
    found = validate_folder(tmp_path / "out")
    assert found.findings() == []
    assert sum(found.num_objects.values()) == 4


_SEEN_BY_DCENTVFY = frozenset(
    {"another patient", "another sex", "another study date", "another modality", "another series number"}
    | {"another accession number", "another study", "one instance twice"}
)


@pytest.mark.parametrize("defect", SERIES_DEFECTS, ids=str)
def test_dcentvfy_sees_what_entities_must_share(tmp_path: Path, defect: SeriesDefect) -> None:
    """It knows the attributes of patients, studies and series; geometry it leaves to us."""
    datasets = ct_series()
    defect.damage(datasets)
    write_series(tmp_path, datasets)
    assert bool(_dcentvfy(tmp_path)) == (defect.name in _SEEN_BY_DCENTVFY)


_MISSING = re.compile(r"(?:attribute|Missing|Empty)[^<\n]*Element=<(\w+)>")


def test_what_we_miss_in_foreign_files_dciodvfy_misses_too(dciodvfy: Callable[[Path], list[str]]) -> None:
    """pydicom's test files: no finding of a missing attribute is ours alone, and few are its alone."""
    tables, both, peer_only = load_tables(), 0, Counter[str]()
    for path in _known_files():
        with quiet():
            dataset = pydicom.dcmread(path)
        if tables.iod_of(str(dataset.get("SOPClassUID", ""))) is None:
            continue
        ours = {
            finding.message.split()[0].rpartition(".")[2]
            for finding in validate_dataset(dataset)
            if finding.rule.startswith("type-")
        }
        theirs = set(_MISSING.findall("\n".join(dciodvfy(path))))
        assert ours <= theirs, (path.name, ours - theirs)
        both += len(ours)
        peer_only.update(theirs - ours)
    assert both > 80
    # Whether a body part that is not named is paired, nobody can tell; the rest are one file each.
    assert set(peer_only) <= {"Laterality", "DeidentificationMethodCodeSequence", "PixelData"}


def _known_files() -> list[Path]:
    """The files that pydicom brings along, of which dciodvfy can read the header."""
    kept = []
    for path in sorted(Path(pydicom.data.__file__).parent.glob("test_files/**/*.dcm")):
        with quiet():
            try:
                pydicom.dcmread(path, stop_before_pixels=True)
            except (pydicom.errors.InvalidDicomError, OSError, ValueError):
                continue
        kept.append(path)
    return kept
