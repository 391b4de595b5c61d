"""DICOM files in a zip archive, unpacked within limits: nothing of the archive decides where on the disk it lands."""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medtwin.core.errors import SourceError
from medtwin.core.sources import Ledger, Reject

KIND = "DICOM"
HEAD_BYTES = 132
"""What tells a DICOM file: the preamble and the prefix DICM."""

_CHUNK = 1 << 20
_BACKSLASH = "\\"
_DRIVE = re.compile(r"[A-Za-z]:")
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, LookupError, OverflowError, NotImplementedError, RuntimeError),
)
"""What zipfile raises on an archive that is cut, garbled, encrypted or of an unknown method."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may be at most.

    Attributes:
        members: Files in one archive.
        member_bytes: Size of one file, unpacked.
        total_bytes: Size of all files, unpacked.
        ratio: Unpacked to packed size; held only beyond `free_bytes`, as an image of air packs well.
        free_bytes: Unpacked size up to which any ratio is harmless.
    """

    members: int = 200_000
    member_bytes: int = 8 << 30
    total_bytes: int = 256 << 30
    ratio: float = 100.0
    free_bytes: int = 256 << 20


class _MemberError(Exception):
    """A member that cannot be unpacked: a stable rule name, and what to do."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


def is_archive(path: Path) -> bool:
    """Whether a file is named like a zip archive."""
    return path.suffix.lower() == ".zip"


def holds_dicom(path: Path, looks_like_dicom: Callable[[bytes, str], bool]) -> bool:
    """Whether an archive has a member that begins like a DICOM file; False where it cannot be opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.is_dir() or member.flag_bits & 1:
                    continue
                with archive.open(member) as stream:
                    if looks_like_dicom(stream.read(HEAD_BYTES), member.filename):
                        return True
    except _ZIP_ERRORS:
        return False
    return False


def unpack(
    path: Path,
    name: str,
    folder: Path,
    ledger: Ledger,
    looks_like_dicom: Callable[[bytes, str], bool],
    limits: ArchiveLimits | None = None,
) -> list[tuple[Path, str]]:
    """The DICOM files of an archive: where each was unpacked to, and its name for messages, by member name.

    What is neither DICOM nor named so stays packed and is counted by the flag `DICOM.ignored-file`. An archive beyond
    its limits, and a member that cannot be unpacked, is counted as `read` and rejected.

    Args:
        path: The zip file.
        name: Its name in messages.
        folder: Where to unpack to; emptied first. Files are called by their number, whatever the archive calls them.
        ledger: Takes the rejects.
        looks_like_dicom: Tells from the first `HEAD_BYTES` bytes and the name of a file.
        limits: None takes the defaults.

    Raises:
        SourceError: If the disk has no room for the files.
    """
    limits = limits or ArchiveLimits()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(
                (member for member in archive.infolist() if not member.is_dir()), key=lambda member: member.filename
            )
            _check(path, members, limits)
            _require_room(folder, name, sum(member.file_size for member in members))
            return _unpacked(archive, members, name, folder, ledger, looks_like_dicom)
    except _MemberError as error:
        _reject(ledger, name, error)
    except _ZIP_ERRORS as error:
        reason = f"the archive is cut or garbled ({type(error).__name__}): transfer it again, or unpack it yourself"
        _reject(ledger, name, _MemberError("unreadable-archive", reason))
    return []


def printable(name: str) -> str:
    r"""A file name as text that can be written: what is no text, and control characters, as escapes.

    >>> printable("a\udcff\n.dcm")
    'a\\udcff\\x0a.dcm'
    """
    if name.isprintable():
        return name
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _unpacked(
    archive: zipfile.ZipFile,
    members: list[zipfile.ZipInfo],
    name: str,
    folder: Path,
    ledger: Ledger,
    looks_like_dicom: Callable[[bytes, str], bool],
) -> list[tuple[Path, str]]:
    files: list[tuple[Path, str]] = []
    for index, member in enumerate(members):
        target, shown = folder / f"{index:06d}", f"{name}/{printable(member.filename.replace(_BACKSLASH, '/'))}"
        try:
            _check_member(member)
            with archive.open(member) as stream:
                head = stream.read(HEAD_BYTES)
                if not looks_like_dicom(head, member.filename):
                    ledger.flags[f"{KIND}.ignored-file"] += 1
                    continue
                _copy(stream, head, target)
        except _MemberError as error:
            _reject(ledger, shown, error)
            continue
        except _ZIP_ERRORS as error:
            target.unlink(missing_ok=True)
            reason = f"the member is cut or garbled ({type(error).__name__}): make the archive again"
            _reject(ledger, shown, _MemberError("unreadable-member", reason))
            continue
        files.append((target, shown))
    return files


def _copy(stream: IO[bytes], head: bytes, target: Path) -> None:
    """Writes a member; zipfile gives no more bytes than the directory states, and checks their CRC at the end."""
    with target.open("wb") as file:
        chunk = head
        while chunk:
            try:
                file.write(chunk)
            except OSError as error:
                raise SourceError(f"the archive cannot be unpacked: {error.strerror}") from error
            chunk = stream.read(_CHUNK)


def _check(path: Path, members: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    total = sum(member.file_size for member in members)
    if len(members) > limits.members:
        raise _MemberError("archive-limits", f"the archive has more than {limits.members} files: split it")
    if total > limits.total_bytes or any(member.file_size > limits.member_bytes for member in members):
        reason = (
            f"the archive unpacks to a file of more than {limits.member_bytes} bytes, or to more than "
            f"{limits.total_bytes} bytes: split it, or unpack it yourself"
        )
        raise _MemberError("archive-limits", reason)
    # Against the size of the whole file: members that overlap in it state packed sizes that it does not have.
    if total > limits.free_bytes and total > limits.ratio * path.stat().st_size:
        reason = f"the archive unpacks to more than {limits.ratio:g} times its size, as a bomb does: unpack it yourself"
        raise _MemberError("archive-limits", reason)


def _check_member(member: zipfile.ZipInfo) -> None:
    parts = member.filename.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or _DRIVE.match(parts[0]):
        raise _MemberError("member-name", "the member's name leads out of the archive: make the archive again")
    if member.flag_bits & 1:
        raise _MemberError("encrypted-member", "the member is encrypted: unpack the archive yourself")
    if parts[-1].lower().endswith(".zip"):
        raise _MemberError("nested-archive", "an archive within an archive is not read: unpack the outer one")


def _require_room(folder: Path, name: str, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SourceError(f"{name}: {needed:,} bytes are needed to unpack it and {free:,} are free: make room")


def _reject(ledger: Ledger, file: str, error: _MemberError) -> None:
    ledger.read[KIND] += 1
    ledger.reject(Reject(file, 0, KIND, error.rule, str(error)))
