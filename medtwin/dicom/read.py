"""Reads folders of DICOM files: every file is part of a series, or in the ledger with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from medtwin.core.errors import SourceError
from medtwin.core.sources import Ledger, Reject
from medtwin.dicom.reading.headers import ImageFile, NotImageError, UnfitError, read_image_file
from medtwin.dicom.reading.series import Series
from medtwin.dicom.reading.stacks import stack_series

KIND = "DICOM"
_DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
_OTHER_SUFFIXES = frozenset(
    {".bz2", ".csv", ".gz", ".html", ".jpeg", ".jpg", ".json", ".log", ".md", ".ndjson", ".nii", ".npy", ".npz"}
    | {".parquet", ".pdf", ".png", ".tar", ".toml", ".tsv", ".txt", ".xlsx", ".xml", ".yaml", ".yml", ".zip"}
)


def read_folder(folder: Path, ledger: Ledger) -> list[Series]:
    """The image series below a folder, whatever its files are called, sorted by patient, study, series and part.

    Counts in the ledger, kind `DICOM`: `read` every DICOM file, `rejected` those that are corrupt or cannot be carried,
    `not_carried` objects without an image. Those that are in a series are for the caller to count as `carried`. Flags
    begin with `DICOM.`; other files are counted by the flag `DICOM.ignored-file`.

    Raises:
        SourceError: If the folder does not exist.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder: name the folder that holds the DICOM files")
    images: list[ImageFile] = []
    seen: set[str] = set()
    for path in _files(folder):
        file = path.relative_to(folder).as_posix()
        try:
            image = _read_file(path, file, ledger)
            if image is not None and image.instance.sop_uid in seen:
                raise UnfitError("duplicate-instance", "another file has the same SOPInstanceUID: the first is kept")
        except UnfitError as error:
            ledger.reject(Reject(file, 0, KIND, error.rule, str(error)))
            continue
        if image is not None:
            seen.add(image.instance.sop_uid)
            images.append(image)
            ledger.flags.update({f"{KIND}.{name}": count for name, count in image.flags.items()})
    series = stack_series(images)
    for one in series:
        ledger.flags.update(f"{KIND}.{finding.rule}" for finding in one.findings)
    return series


def has_dicom(folder: Path) -> bool:
    """Whether there is a DICOM file anywhere below a folder."""
    return any(_is_dicom(path) for path in _files(folder))


def open_series(folder: Path) -> Series:
    """The one series that a folder of a dataset holds.

    Raises:
        SourceError: If a file in it cannot be read, or it holds no series or several.
    """
    ledger = Ledger()
    series = read_folder(folder, ledger)
    if ledger.rejects:
        first = ledger.rejects[0]
        raise SourceError(f"{folder / first.file}: {first.reason} [{first.rule}]")
    if len(series) != 1:
        raise SourceError(f"{folder} must hold one DICOM series, got {len(series)}")
    return series[0]


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(parent, name)


def _read_file(path: Path, file: str, ledger: Ledger) -> ImageFile | None:
    """The image of a file; None where it is no DICOM file, or a DICOM object without an image."""
    if not _is_dicom(path):
        if path.suffix.lower() not in _DICOM_SUFFIXES:
            ledger.flags[f"{KIND}.ignored-file"] += 1
            return None
        ledger.read[KIND] += 1
        raise UnfitError("not-dicom", "the file is named like DICOM but is empty or something else")
    ledger.read[KIND] += 1
    try:
        return read_image_file(path, file)
    except NotImageError as error:
        ledger.not_carried[KIND] += 1
        ledger.elements_not_carried[f"{KIND}.{error}"] += 1
        return None


def _is_dicom(path: Path) -> bool:
    """Whether a file has the DICM prefix (PS3.10 7.1), or begins with group 2 or 8 as a bare dataset does."""
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return path.suffix.lower() in _DICOM_SUFFIXES
    if head[128:] == b"DICM":
        return True
    if path.suffix.lower() in _OTHER_SUFFIXES or len(head) < 16:
        return False
    return head[:2] in (b"\x02\x00", b"\x08\x00") and head[3] == 0 and head[2] <= 0x18
