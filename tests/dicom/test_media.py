"""What a source holds is found: on a medium with a DICOMDIR, in a zip archive, and nothing leads out of either."""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from medtwin.config import compose
from medtwin.core.errors import SourceError
from medtwin.core.sources import Ledger
from medtwin.dicom import read_folder
from medtwin.dicom.reading import archive
from medtwin.dicom.reading.archive import ArchiveLimits, unpack
from medtwin.dicom.reading.media import find_files, has_dicom, looks_like_dicom
from medtwin.dicom.values import quiet
from medtwin.pipelines.ingest import main
from tests.dicom.samples import ROOT, cr, ct, save, save_ct
from tests.servers.orthanc import running_orthanc


def names(files: list[tuple[Path, str]]) -> list[str]:
    return [name for _, name in files]


def rules(ledger: Ledger) -> list[tuple[str, str]]:
    return [(reject.file, reject.rule) for reject in ledger.rejects]


def bytes_of(tmp_path: Path, index: int) -> bytes:
    return save(tmp_path / "made" / str(index), ct(index)).read_bytes()


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def dicomdir(path: Path, file_ids: list[object], in_use: int = 0xFFFF) -> Path:
    """A DICOMDIR of image records, as far as reading needs one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = "2.25.1", ExplicitVRLittleEndian
    dataset = FileDataset("", Dataset(), preamble=b"\0" * 128, file_meta=meta)
    dataset.FileSetID, dataset.DirectoryRecordSequence = "TEST", []
    for file_id in file_ids:
        record = Dataset()
        record.RecordInUseFlag, record.DirectoryRecordType = in_use, "IMAGE"
        if file_id is not None:
            with quiet():
                record.ReferencedFileID = file_id
        dataset.DirectoryRecordSequence.append(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    with quiet():
        dataset.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return path


# --- folders


def test_files_come_in_the_order_of_their_names_and_pipes_are_left(tmp_path: Path) -> None:
    for name in ("b/2", "a/9", "a/10", "c"):
        save(tmp_path / name, ct(0))
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "broken.dcm").symlink_to(tmp_path / "nowhere")
    ledger = Ledger()
    assert names(find_files(tmp_path, ledger)) == ["broken.dcm", "c", "a/10", "a/9", "b/2"]
    assert ledger == Ledger()


def test_a_name_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"im\xff\n.dcm")).write_bytes(b"")
    ledger = Ledger()
    read_folder(tmp_path, ledger)
    assert rules(ledger) == [("im\\udcff\\x0a.dcm", "not-dicom")]
    assert ledger.rejects[0].file.encode()


def test_dicom_is_found_in_archives_too(tmp_path: Path) -> None:
    zipped(tmp_path / "no.zip", {"readme.txt": b"x" * 200})
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04")
    assert not has_dicom(tmp_path)
    zipped(tmp_path / "sub" / "yes.ZIP", {"readme.txt": b"x", "IM1": bytes_of(tmp_path.parent, 0)})
    assert has_dicom(tmp_path)


# --- DICOMDIR


def test_a_medium_is_read_and_what_its_dicomdir_names_and_lacks_is_rejected(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / "DICOM" / f"IM{index}", ct(index))
    save(tmp_path / "DICOM" / "EXTRA", ct(3))
    (tmp_path / "DICOM" / "README.TXT").write_text("not an image")
    named = [["DICOM", "IM0"], ["DICOM", "IM1"], ["DICOM", "IM2"], ["DICOM", "IM9"], ["DICOM", "IM9"], None]
    dicomdir(tmp_path / "DICOMDIR", named)
    ledger = Ledger()
    (series,) = read_folder(tmp_path, ledger)
    assert len(series.instances) == 4
    assert rules(ledger) == [("DICOM/IM9", "dicomdir-missing-file")]
    assert ledger.flags == {"DICOM.not-in-dicomdir": 1, "DICOM.ignored-file": 1}
    # 4 images, the DICOMDIR (an object without an image), and the file that is not there
    assert (ledger.read["DICOM"], ledger.not_carried["DICOM"], ledger.rejected["DICOM"]) == (6, 1, 1)
    ledger.carried["DICOM"] += 4
    assert ledger.imbalance() == {}


@pytest.mark.parametrize("name", ["dicom/im0", "DICOM/IM0;1", "DICOM/IM0."])
def test_names_as_file_systems_spell_them_are_found(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, ct(0))
    dicomdir(tmp_path / "DICOMDIR", [["DICOM", "IM0"]])
    ledger = Ledger()
    find_files(tmp_path, ledger)
    assert ledger == Ledger()


def test_each_of_several_media_names_its_own_files(tmp_path: Path) -> None:
    for disc in ("cd1", "cd2"):
        save(tmp_path / disc / "IM0", ct(0))
        dicomdir(tmp_path / disc / "DICOMDIR", ["IM0"])
    save(tmp_path / "elsewhere", ct(1))
    ledger = Ledger()
    assert len(find_files(tmp_path, ledger)) == 5
    assert ledger == Ledger()


@pytest.mark.parametrize("file_id", [["..", "..", "etc", "passwd"], "Doe^Jane", ["A"] * 9, "/etc/passwd", "x/../y"])
def test_what_is_no_file_id_leads_nowhere_and_is_not_repeated(tmp_path: Path, file_id: object) -> None:
    dicomdir(tmp_path / "DICOMDIR", [file_id])
    ledger = Ledger()
    assert names(find_files(tmp_path, ledger)) == ["DICOMDIR"]
    assert rules(ledger) == [("DICOMDIR", "dicomdir-missing-file")]
    assert "Doe" not in ledger.rejects[0].reason
    assert "passwd" not in ledger.rejects[0].reason


def test_a_record_that_is_not_in_use_names_nothing(tmp_path: Path) -> None:
    dicomdir(tmp_path / "DICOMDIR", ["GONE"], in_use=0)
    ledger = Ledger()
    find_files(tmp_path, ledger)
    assert ledger == Ledger()


@pytest.mark.parametrize("content", [b"", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 64, b"text"])
def test_a_dicomdir_that_cannot_be_followed_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "DICOMDIR").write_bytes(content)
    save_ct(tmp_path, 1)
    ledger = Ledger()
    assert names(find_files(tmp_path, ledger)) == ["0.dcm", "DICOMDIR"]
    assert ledger.flags == {"DICOM.unreadable-dicomdir": 1}
    assert ledger.rejects == []


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-nooffset"])
def test_a_real_dicomdir_names_its_31_files(tmp_path: Path, name: str) -> None:
    source = get_testdata_file(name, download=False)
    if source is None:
        pytest.skip(f"pydicom's test file {name} is not bundled")
    shutil.copy(source, tmp_path / "DICOMDIR")
    ledger = Ledger()
    find_files(tmp_path, ledger)
    assert set(ledger.rules) == {"dicomdir-missing-file"}
    records = pydicom.dcmread(source).DirectoryRecordSequence
    assert ledger.rejected["DICOM"] == len({str(r.ReferencedFileID) for r in records if "ReferencedFileID" in r}) > 0


# --- archives


def test_the_files_of_an_archive_are_those_of_the_folder(tmp_path: Path) -> None:
    members = {f"CD\\IM{index}": bytes_of(tmp_path, index) for index in range(3)}
    zipped(tmp_path / "in" / "disc.zip", {**members, "viewer.exe": b"MZ", "empty.dcm": b"", "folder/": b""})
    save(tmp_path / "in" / "loose", ct(3))
    ledger = Ledger()
    (series,) = read_folder(tmp_path / "in", ledger, scratch=tmp_path / "scratch")
    assert [one.file for one in series.instances] == [*(f"disc.zip/CD/IM{i}" for i in range(3)), "loose"]
    assert np.array_equal(series.pixels()[2], ct(2).pixel_array.astype(np.float32) - 1024)
    assert rules(ledger) == [("disc.zip/empty.dcm", "not-dicom")]
    assert ledger.flags == {"DICOM.ignored-file": 1}
    assert sorted(path.name for path in (tmp_path / "scratch" / "000000").iterdir()) == [
        "000000",
        "000001",
        "000002",
        "000003",
    ]


def test_without_scratch_archives_stay_packed_and_are_counted(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"IM0": bytes_of(tmp_path / "x", 0)})
    ledger = Ledger()
    assert names(find_files(tmp_path / "x", ledger)) == ["made/0"]
    assert names(find_files(tmp_path, ledger)) == ["x/made/0"]
    assert ledger.flags == {"DICOM.archive-not-unpacked": 1}


def test_a_dicomdir_within_an_archive_is_followed(tmp_path: Path) -> None:
    listing = dicomdir(tmp_path / "made" / "D", [["DICOM", "IM0"], ["DICOM", "IM1"]]).read_bytes()
    zipped(tmp_path / "in" / "cd.zip", {"cd/DICOMDIR": listing, "cd/DICOM/IM0": bytes_of(tmp_path, 0)})
    ledger = Ledger()
    find_files(tmp_path / "in", ledger, tmp_path / "scratch")
    assert rules(ledger) == [("cd.zip/cd/DICOM/IM1", "dicomdir-missing-file")]


@pytest.mark.parametrize("name", ["../out.dcm", "a/../../out.dcm", "/abs.dcm", "C:\\out.dcm", "..\\out.dcm", "c:x.dcm"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    zipped(tmp_path / "in" / "a.zip", {name: bytes_of(tmp_path, 0), "good.dcm": bytes_of(tmp_path, 1)})
    ledger = Ledger()
    files = find_files(tmp_path / "in", ledger, tmp_path / "s" / "scratch")
    assert names(files) == ["a.zip/good.dcm"]
    assert [rule for _, rule in rules(ledger)] == ["member-name"]
    assert [path.parent.name for path in (tmp_path / "s").rglob("*") if path.is_file()] == ["000000"]
    assert not list(tmp_path.rglob("out.dcm"))


def test_a_link_in_an_archive_is_a_file_of_its_text(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w") as file:
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    files = find_files(tmp_path / "in", Ledger(), tmp_path / "scratch")
    assert [(path.is_symlink(), path.read_text()) for path, _ in files] == [(False, "/etc/passwd")]


def test_what_cannot_be_unpacked_is_rejected_by_name(tmp_path: Path) -> None:
    good = bytes_of(tmp_path, 0)
    zipped(tmp_path / "in" / "a.zip", {"a.dcm": good, "b.dcm": good, "c.zip": b"PK"}, zipfile.ZIP_STORED)
    content = bytearray((tmp_path / "in" / "a.zip").read_bytes())
    content[content.index(b"DICM") + 300] ^= 1  # a byte of a.dcm, whose CRC then fails
    (tmp_path / "in" / "a.zip").write_bytes(content)
    (tmp_path / "in" / "b.zip").write_bytes(bytes(content[: len(content) // 2]))
    (tmp_path / "in" / "c.zip").write_bytes(b"")
    ledger = Ledger()
    files = find_files(tmp_path / "in", ledger, tmp_path / "scratch")
    assert names(files) == ["a.zip/b.dcm"]
    assert rules(ledger) == [
        ("a.zip/a.dcm", "unreadable-member"),
        ("a.zip/c.zip", "nested-archive"),
        ("b.zip", "unreadable-archive"),
        ("c.zip", "unreadable-archive"),
    ]
    assert ledger.read["DICOM"] == ledger.rejected["DICOM"]
    assert not list((tmp_path / "scratch").rglob("000000/000000"))


def test_an_encrypted_member_is_rejected(tmp_path: Path) -> None:
    path = zipped(tmp_path / "in" / "a.zip", {"a.dcm": bytes_of(tmp_path, 0)})
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    path.write_bytes(content)
    ledger = Ledger()
    assert find_files(tmp_path / "in", ledger, tmp_path / "scratch") == []
    assert rules(ledger) == [("a.zip/a.dcm", "encrypted-member")]
    assert not has_dicom(tmp_path / "in")


@pytest.mark.parametrize(
    ("limits", "is_read"),
    [
        (ArchiveLimits(), True),
        (ArchiveLimits(members=2), True),
        (ArchiveLimits(members=1), False),
        (ArchiveLimits(member_bytes=999_999), False),
        (ArchiveLimits(total_bytes=1_999_999), False),
        (ArchiveLimits(ratio=100, free_bytes=2_000_000), True),
        (ArchiveLimits(ratio=100, free_bytes=1_000_000), False),
        (ArchiveLimits(ratio=1100, free_bytes=1_000_000), True),
    ],
)
def test_an_archive_beyond_a_limit_is_not_unpacked(tmp_path: Path, limits: ArchiveLimits, is_read: bool) -> None:
    air = b"\0" * 128 + b"DICM" + b"\0" * (1_000_000 - 132)
    path = zipped(tmp_path / "a.zip", {"a.dcm": air, "b.dcm": air})
    ledger = Ledger()
    files = unpack(path, "a.zip", tmp_path / "out", ledger, looks_like_dicom, limits)
    assert len(files) == (2 if is_read else 0)
    assert rules(ledger) == ([] if is_read else [("a.zip", "archive-limits")])
    assert is_read or list((tmp_path / "out").iterdir()) == []


def test_a_member_is_never_longer_than_the_directory_says(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.dcm": b"\0" * 5_000_000})
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = struct.pack("<I", 1000)
    path.write_bytes(content)
    ledger = Ledger()
    assert unpack(path, "a.zip", tmp_path / "out", ledger, looks_like_dicom) == []
    assert rules(ledger) == [("a.zip/a.dcm", "unreadable-member")]


def test_a_full_disk_is_the_disks_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", {"a.dcm": bytes_of(tmp_path, 0)})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(SourceError, match="bytes are needed to unpack it and 10 are free"):
        unpack(path, "a.zip", tmp_path / "out", Ledger(), looks_like_dicom)


def test_unpacking_again_leaves_nothing_of_the_first_time(tmp_path: Path) -> None:
    made: Callable[[dict[str, bytes]], Path] = lambda members: zipped(tmp_path / "in" / "a.zip", members)  # noqa: E731
    made({f"{i}.dcm": bytes_of(tmp_path, i) for i in range(3)})
    find_files(tmp_path / "in", Ledger(), tmp_path / "scratch")
    made({"0.dcm": bytes_of(tmp_path, 7)})
    ((path, _),) = find_files(tmp_path / "in", Ledger(), tmp_path / "scratch")
    assert path.read_bytes() == bytes_of(tmp_path, 7)
    assert [each.name for each in (tmp_path / "scratch").rglob("*") if each.is_file()] == ["000000"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_garbled_archive_never_crashes_and_never_gives_other_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    good = {f"{i}.dcm": bytes_of(folder, i) for i in range(2)}
    path = zipped(folder / "in" / "a.zip", good)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) - 1, len(content) // 2]))])
    ledger = Ledger()
    for file, _ in find_files(folder / "in", ledger, folder / "scratch"):
        assert file.read_bytes() in good.values() or file.stat().st_size == 0
    assert ledger.read == ledger.rejected
    has_dicom(folder / "in")


# --- a PACS


def test_the_scans_of_a_pacs_are_those_of_a_folder(tmp_path: Path) -> None:
    for index, path in enumerate(save_ct(tmp_path / "in", 3)):
        assert path.name == f"{index}.dcm"
    save(tmp_path / "in" / "cr.dcm", cr(StudyInstanceUID=f"{ROOT}.77"))
    key = tmp_path / "key"
    with running_orthanc() as orthanc:
        for path in sorted((tmp_path / "in").iterdir()):
            orthanc.ask("/instances", "POST", path.read_bytes())
        pacs = [f"source.dicomweb.url={orthanc.base}", f"pseudonyms.key_file={key}"]
        for out, source in {
            "pacs": pacs,
            "ct": [*pacs, "source.dicomweb.modalities=[CT]"],
            "folder": [f"source.dicom={tmp_path / 'in'}", f"pseudonyms.key_file={key}"],
        }.items():
            main(compose("ingest", [*source, f"out={tmp_path / out}"]))
    rows = {out: pq.read_table(tmp_path / out / "images.parquet").to_pylist() for out in ("pacs", "ct", "folder")}
    assert rows["pacs"] == rows["folder"]
    assert rows["ct"] == [row for row in rows["folder"] if row["modality"] == "CT"]
    for path in (tmp_path / "folder" / "images").rglob("*.dcm"):
        assert (tmp_path / "pacs" / path.relative_to(tmp_path / "folder")).read_bytes() == path.read_bytes()
    record = (tmp_path / "pacs" / "provenance.json").read_text()
    assert '"role": "dicomweb"' in record
    assert not list((tmp_path / "pacs").rglob("dicomweb"))
