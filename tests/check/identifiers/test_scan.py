"""What is planted in a file of any kind is found, told without its value, and clean files raise no alarm."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medtwin.check.identifiers.birth_dates import too_many_birth_dates
from medtwin.check.identifiers.known import Known
from medtwin.check.identifiers.patterns import patterns_in
from medtwin.check.identifiers.scan import Scan, scan_folder
from medtwin.check.identifiers.sources import add_dicom, add_resource
from medtwin.core.errors import ConfigError

NOTE = "fell from the blue ladder behind the old mill on sunday"
SECRETS = (
    "Quillfeather",
    "Ottoline",
    "QF-0098124",
    "12 Larkspur Terrace",
    "555-201-7788",
    "ottoline@mail.net",
    "1.3.6.1.4.1.99.7.8",
)
PATIENT = {
    "resourceType": "Patient",
    "id": "src-patient-000917",
    "identifier": [{"value": "QF-0098124"}],
    "name": [{"family": "Quillfeather", "given": ["Ottoline", "Mae"]}],
    "telecom": [{"value": "555-201-7788"}, {"value": "ottoline@mail.net"}],
    "address": [{"line": ["12 Larkspur Terrace"], "city": "Hull"}],
    "birthDate": "1950-02-03",
    "note": [{"text": NOTE}],
}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    known, notes = Known(), Counter[str]()
    add_resource(known, {"resourceType": "Bundle", "entry": [{"resource": PATIENT}]}, notes)
    for text in notes:
        known.add_text(text)
    path = tmp_path_factory.mktemp("source") / "one.dcm"
    _dicom(path, PatientID="QF-0098124", StudyInstanceUID="1.3.6.1.4.1.99.7.8", PatientName="Quillfeather^Ottoline")
    add_dicom(known, path)
    return known


def _dicom(path: Path, **elements: str) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.7"
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def _kinds(found: Scan) -> set[str]:
    return {one.kind for one in found.hits}


Write = Callable[[Path, str], None]


def _parquet(path: Path, text: str) -> None:
    pq.write_table(pa.table({"code": ["A", "B"], "notes": pa.array([["fine"], [text]])}), path)


def _zip(path: Path, text: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner/deep.json", json.dumps({"a": [{"b": text}]}))


WRITERS: dict[str, Write] = {
    "a.json": lambda path, text: (
        path.write_text(json.dumps({"resourceType": "Observation", "valueString": text})) and None
    ),
    "a.ndjson": lambda path, text: path.write_text(f'{{"x": 1}}\n{json.dumps({"display": text})}\n') and None,
    "a.csv": lambda path, text: path.write_text(f'code,display\nA,"{text}"\n') and None,
    "a.html": lambda path, text: path.write_text(f"<p>all <b>{text}</b></p>") and None,
    "a.txt": lambda path, text: path.write_text(f"so says\n{text}\n") and None,
    "a.json.gz": lambda path, text: path.write_bytes(gzip.compress(json.dumps([text]).encode())) and None,
    "a.bin": lambda path, text: path.write_bytes(b"\xff\xfe\x00\x01" + text.encode() + b"\x00\xff") and None,
    "a.parquet": _parquet,
    "a.zip": _zip,
    "a.dcm": lambda path, text: _dicom(path, ImageComments=text) and None,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OTTOLINE  Quillfeather", "name"),
        ("number qf 0098124", "identifier"),
        ("lives at 12, larkspur terrace", "address"),
        ("+1 (555) 201 7788", "telephone number"),
        ("Ottoline@Mail.net", "e-mail address"),
        ("1.3.6.1.4.1.99.7.8", "UID"),
        ("she fell from the blue ladder behind it", "free text"),
    ],
)
def test_every_kind_is_found_in_every_kind_of_file(
    known: Known, tmp_path: Path, name: str, text: str, kind: str
) -> None:
    WRITERS[name](tmp_path / name, text)
    found = scan_folder(tmp_path, known)
    assert found.unreadable == ()
    assert kind in {one.kind for one in found.hits if one.source == "source"}
    told = repr(found).casefold()
    assert not [secret for secret in SECRETS if secret.casefold() in told]
    assert "ladder" not in told


def test_clean_files_raise_no_alarm(known: Known, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean = {
        "resourceType": "Observation",
        "id": "a1234567-89ab-4cde-8f01-23456789abcd",
        "effectiveDateTime": "1950-02-03T10:00:00+00:00",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0", "display": "Creatinine in Serum"}]},
        "valueQuantity": {"value": 98124, "unit": "mg/dL"},
        "birthDate": "1950-02-03",
    }
    lines = [json.dumps({**clean, "id": f"a{rng.integers(10**15)}"}) for _ in range(200)]
    (tmp_path / "Observation.ndjson").write_text("\n".join(lines))
    (tmp_path / "t.csv").write_text(
        "numeric_value,code\n" + "".join(f"{rng.normal():.9f},NDC//0069-2587-10\n" for _ in range(500))
    )
    (tmp_path / "noise.bin").write_bytes(rng.bytes(200_000))
    (tmp_path / "mae").mkdir()
    (tmp_path / "mae" / "0.json").write_text("{}")  # one name alone is no name in a path
    _dicom(tmp_path / "a.dcm", PatientID="77", StudyDate="20200101", PatientBirthDate="19500203", PatientName="Twin")
    busy = Known(known.key, {kind: set(found) for kind, found in known.hashes.items()}, set(known.address_words))
    busy.add_number("100085")  # stands in UIDs of DICOM as 10008.5
    busy.add_subjects([5, 100_001])  # counted up
    busy.add_name("Twin", "Simulated")
    add_resource(busy, {"resourceType": "Device", "id": "device-77777777"}, Counter())
    (tmp_path / "Device.json").write_text('{"resourceType": "Device", "id": "device-77777777"}')
    assert scan_folder(tmp_path, busy).hits == ()
    assert scan_folder(tmp_path).measure().estimate is not None


def test_places_where_a_dicom_file_hides_things_are_told(tmp_path: Path) -> None:
    dataset = _dicom(tmp_path / "a.dcm", BurnedInAnnotation="YES")
    dataset.private_block(0x0011, "SOMEBODY", create=True).add_new(1, "LO", "x")
    dataset.add_new(0x60003000, "OW", b"\1\0")
    dataset.preamble = b"x" * 128
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    kinds = _kinds(scan_folder(tmp_path))
    assert {"preamble", "burned-in annotation", "overlay", "private element (0011,0010)"} <= kinds


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("SSN 123-45-6789", "social security number"),
        ("write to jane@clinic.org", "e-mail address"),
        ("(212) 555-0147", "telephone number"),
        ("DOB: 02/03/1950", "date of birth"),
        ("MRN 00123456", "number of a record"),
        ("seen by Dr. Watson", "name with a title"),
        ("seen on 2019-04-01 in the clinic", "date in a text"),
        ("2019-04-01", None),
        ("NDC 0069-2587-10", None),
        ("000-12-3456 and 666-12-3456 and 900-12-3456", None),
        ("user@example.org", None),
        ("a1234567-89ab-4cde-8f01-212555014789", None),
    ],
)
def test_patterns(text: str, kind: str | None) -> None:
    found = {one for one, _ in patterns_in(text)}
    assert (found == set()) if kind is None else (kind in found)


def test_a_name_of_a_file_or_a_field_is_not_told_where_it_is_an_identifier(known: Known, tmp_path: Path) -> None:
    (tmp_path / "Quillfeather Ottoline.txt").write_text("nothing")
    (tmp_path / "k.json").write_text(json.dumps({"qf-0098124555": "Ottoline Quillfeather"}))
    found = scan_folder(tmp_path, known)
    assert _kinds(found) == {"name"}
    assert "uillfeather" not in repr(found)
    assert "0098124555" not in repr(found)


def test_files_are_passed_over_in_the_state_of_the_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / ".state" / "files"
    (folder / ".state").mkdir(parents=True)
    for place in (folder, folder / ".state"):
        (place / "mail.txt").write_text("jane@clinic.org")
    assert [one.file for one in scan_folder(folder).hits] == ["mail.txt"]


def test_a_broken_file_leaves_the_scan_unmeasured(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"a": ')
    found = scan_folder(tmp_path)
    assert found.measure().estimate is None
    assert "1 files could not be read" in found.measure().reason
    (tmp_path / "mail.txt").write_text("jane@clinic.org")
    estimate = scan_folder(tmp_path).measure().estimate
    assert estimate is not None
    assert estimate.value == 1


def test_dates_of_birth_count_only_beyond_chance() -> None:
    rng = np.random.default_rng(1)
    start = date(1930, 1, 1)
    source = [start + timedelta(days=int(day)) for day in rng.integers(0, 30_000, 2000)]
    known = Known()
    for day in source:
        known.add_birth_date(day.isoformat())
    alarms = 0
    for _ in range(20):
        others = [start + timedelta(days=int(day)) for day in rng.integers(0, 30_000, 500)]
        assert sum(known.is_birth_date(day.isoformat()) for day in others) > 5  # equal by chance
        alarms += too_many_birth_dates(others, known) > 0
    assert alarms == 0
    others[:100] = source[:100]
    assert too_many_birth_dates(others, known) >= 100


def test_hashes_are_kept_in_a_file_of_their_owner_alone(known: Known, tmp_path: Path) -> None:
    path = tmp_path / "known.parquet"
    known.save(path)
    assert path.stat().st_mode & 0o077 == 0
    assert Known.load(path) == known
    assert not [one for one in SECRETS if one.encode() in path.read_bytes()]
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match="medtwin scan source="):
        Known.load(tmp_path / "other.parquet")
