"""The files of a source: those below a folder, those in its zip archives, and those that a DICOMDIR names.

A DICOMDIR (PS3.10-2023, 8; PS3.3-2023, Annex F) lists the files of a medium. It decides nothing about what is read:
what it names and is not there is rejected, and what is there without being named is read and counted.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError

from medtwin.core.sources import Ledger, Reject
from medtwin.dicom.reading.archive import HEAD_BYTES, KIND, holds_dicom, is_archive, printable, unpack
from medtwin.dicom.values import PARSE_ERRORS, quiet

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
_OTHER_SUFFIXES = frozenset(
    {".bz2", ".csv", ".gz", ".html", ".jpeg", ".jpg", ".json", ".log", ".md", ".ndjson", ".nii", ".npy", ".npz"}
    | {".parquet", ".pdf", ".png", ".tar", ".toml", ".tsv", ".txt", ".xlsx", ".xml", ".yaml", ".yml", ".zip"}
)
_DICOMDIR = "DICOMDIR"
_FILE_ID = re.compile(r"[A-Z0-9_]{1,8}")
_MAX_COMPONENTS = 8
_NOT_IN_USE = 0
_READ_ERRORS = (*PARSE_ERRORS, OSError, EOFError, InvalidDicomError, RecursionError)


def find_files(folder: Path, ledger: Ledger, scratch: Path | None = None) -> list[tuple[Path, str]]:
    """Every file that may be DICOM: where it is, and its name for messages, in the order of the names in each folder.

    A file in an archive is called `archive.zip/member`. The caller decides which are DICOM (`is_dicom`) and counts
    them; here only what never becomes a file is counted, as `read` and rejected, kind `DICOM`: an archive or a member
    that cannot be unpacked (`reading/archive.py`), and a file that a DICOMDIR names and that is not there
    (`dicomdir-missing-file`). Flags: `DICOM.not-in-dicomdir` counts DICOM files on a medium that its DICOMDIR does not
    name, `DICOM.unreadable-dicomdir` those that cannot be followed, `DICOM.archive-not-unpacked` archives where there
    is no scratch.

    Args:
        folder: The source.
        ledger: Takes the rejects and flags.
        scratch: Folder to unpack archives into: `scratch/<number>`, numbered in the order of their names; what an
            earlier run left there is replaced. The files must stay as long as the pixels are wanted. None leaves
            archives packed.
    """
    files: list[tuple[Path, str]] = []
    archives, prefix = 0, len(f"{folder}/")
    for path in _walk(folder):
        name = printable(str(path)[prefix:])
        if not is_archive(path):
            files.append((path, name))
        elif scratch is None:
            ledger.flags[f"{KIND}.archive-not-unpacked"] += 1
        else:
            files += unpack(path, name, scratch / f"{archives:06d}", ledger, looks_like_dicom)
            archives += 1
    for path, name in files:
        if PurePosixPath(name).name.upper() == _DICOMDIR:
            _follow(path, name, files, ledger)
    return files


def has_dicom(folder: Path) -> bool:
    """Whether there is a DICOM file anywhere below a folder, also in an archive."""
    return any(holds_dicom(path, looks_like_dicom) if is_archive(path) else is_dicom(path) for path in _walk(folder))


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does; of one that cannot be opened, whether it is named so."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return path.suffix.lower() in DICOM_SUFFIXES
    return begins_like_dicom(head, path.suffix.lower())


def looks_like_dicom(head: bytes, name: str) -> bool:
    """Whether a file is DICOM or named so, by its first `HEAD_BYTES` bytes and its name."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in DICOM_SUFFIXES or begins_like_dicom(head, suffix)


def begins_like_dicom(head: bytes, suffix: str) -> bool:
    """The DICM prefix (PS3.10 7.1), or a first element of group 2 or 8 as in a bare dataset."""
    if head[128:] == b"DICM":
        return True
    if suffix in _OTHER_SUFFIXES or len(head) < 16:
        return False
    return head[:2] in (b"\x02\x00", b"\x08\x00") and head[3] == 0 and head[2] <= 0x18


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, without pipes, sockets and devices, on which reading would wait for ever."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = f"{parent}/{name}"
            try:
                mode = os.stat(path).st_mode  # noqa: PTH116 (a Path costs more than the rest)
            except OSError:
                yield Path(path)  # a broken link or a forbidden one: the reader says so
                continue
            if stat.S_ISREG(mode):
                yield Path(path)


def _follow(path: Path, name: str, files: list[tuple[Path, str]], ledger: Ledger) -> None:
    try:
        with quiet():
            named = _file_ids(path)
    except _READ_ERRORS:
        ledger.flags[f"{KIND}.unreadable-dicomdir"] += 1
        return
    root = name[: -len(_DICOMDIR)]
    there = {_on_medium(shown[len(root) :]): file for file, shown in files if shown.startswith(root)}
    there.pop(_DICOMDIR, None)
    for number, parts in enumerate(named, start=1):
        if "/".join(parts).upper() not in there:
            ledger.read[KIND] += 1
            ledger.reject(_missing(name, root, number, parts))
    known = {"/".join(parts).upper() for parts in named}
    unnamed = sum(is_dicom(file) for place, file in there.items() if place not in known)
    if unnamed:
        ledger.flags[f"{KIND}.not-in-dicomdir"] += unnamed


def _file_ids(path: Path) -> list[tuple[str, ...]]:
    """The ReferencedFileID of each record in use that has one, without repetition, in the order of the records."""
    dataset = pydicom.dcmread(path, specific_tags=["DirectoryRecordSequence"], force=True)
    named: dict[tuple[str, ...], None] = {}
    for record in dataset.DirectoryRecordSequence:
        value: Any = record.get("ReferencedFileID")
        if not value or record.get("RecordInUseFlag") == _NOT_IN_USE:
            continue
        named[(value,) if isinstance(value, str) else tuple(str(part) for part in value)] = None
    return list(named)


def _on_medium(name: str) -> str:
    """A file name as a File ID: file systems add a version, a full stop or lower case to those of ISO 9660."""
    return name.upper().removesuffix(";1").removesuffix(".")


def _missing(name: str, root: str, number: int, parts: tuple[str, ...]) -> Reject:
    is_file_id = len(parts) <= _MAX_COMPONENTS and all(_FILE_ID.fullmatch(part) for part in parts)
    # What is no File ID by PS3.10 8.2 may be anything: it is named by its place in the DICOMDIR.
    file = root + "/".join(parts) if is_file_id else name
    reason = f"file {number} of those that {name} names is not there: copy the medium again, whole"
    return Reject(file, 0, KIND, "dicomdir-missing-file", reason)
