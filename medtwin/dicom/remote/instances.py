"""The DICOM files of a folder, as they are sent: what each one is, whether it is marked, and in which requests."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from medtwin.core.files import list_files
from medtwin.core.places import NetworkError
from medtwin.dicom.values import PARSE_ERRORS, quiet

_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SyntheticData",
)
FILE_ERRORS = (*PARSE_ERRORS, EOFError, OSError, struct.error, zlib.error, InvalidDicomError, RecursionError)
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Instance:
    """One object to send.

    Attributes:
        path: The file.
        name: The file relative to the folder, for messages.
        sop_class, sop_uid, study_uid, series_uid: What it says of itself.
        syntax: Its transfer syntax.
        size: Of the file, in bytes.
        sha256: Of the file, in hexadecimal.
        is_marked: Whether it says SyntheticData = YES.
    """

    path: Path
    name: str
    sop_class: str
    sop_uid: str
    study_uid: str
    series_uid: str
    syntax: str
    size: int
    sha256: str
    is_marked: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one instance.

    Attributes:
        state: `stored`, `warning` (stored, and the PACS had something to say), `refused`, or `missing` (the PACS took
            it, and did not hold it when it was asked).
        status: Of the PACS, as four hexadecimal digits, or a name of ours where there is none.
    """

    state: str
    status: str

    @property
    def is_stored(self) -> bool:
        """Whether the PACS holds it."""
        return self.state in ("stored", "warning")


Record = Callable[[Instance, Outcome], None]
"""Is told what became of an instance."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An object that is not in the PACS: its file, its SOP Instance UID (empty where it has none), and why."""

    name: str
    sop_uid: str
    status: str


@dataclass(frozen=True)
class Folder:
    """What is to be sent: the objects, in the order of their files, and the files that cannot be sent."""

    instances: tuple[Instance, ...]
    unfit: tuple[Failure, ...]

    def require_marked(self) -> None:
        """Refuses objects that could be taken for those of a patient.

        Raises:
            NetworkError: If some do not say SyntheticData = YES.
        """
        unmarked = [each.name for each in self.instances if not each.is_marked]
        if unmarked:
            raise NetworkError(
                f"{len(unmarked):,} of {len(self.instances):,} objects do not say SyntheticData = YES "
                f"({', '.join(unmarked[:_NAMED])}{', ...' if len(unmarked) > _NAMED else ''}): a PACS would show them "
                "as those of patients; pacs.allow_unmarked=true sends them all the same"
            )


def files_below(folder: Path) -> list[tuple[Path, str]]:
    """The files of a folder, each with its name relative to it; DICOMDIR and what is hidden excepted."""
    return [(folder / name, name) for name in list_files(folder) if Path(name).name != "DICOMDIR"]


def read_instances(files: Iterable[tuple[Path, str]]) -> Folder:
    """What files hold; every one is read once, for its hash.

    A file that is no DICOM object is unfit, and so is one whose SOP Instance UID another file has already.

    Args:
        files: Each with the name by which messages call it.
    """
    instances: dict[str, Instance] = {}
    unfit: list[Failure] = []
    with quiet():
        for path, name in files:
            found = _read(path, name)
            if isinstance(found, Failure):
                unfit.append(found)
            elif found.sop_uid in instances:
                unfit.append(Failure(name, found.sop_uid, "duplicate-sop-instance"))
            else:
                instances[found.sop_uid] = found
    return Folder(tuple(instances.values()), tuple(unfit))


def _read(path: Path, name: str) -> Instance | Failure:
    try:
        with path.open("rb") as file:
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
            found = {keyword: str(dataset.get(keyword) or "").strip() for keyword in _TAGS}
            syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except FILE_ERRORS:
        return Failure(name, "", "not-a-dicom-file")
    lacking = [keyword for keyword in _TAGS[:4] if not found[keyword]]
    if lacking or not syntax:
        return Failure(name, found["SOPInstanceUID"], f"lacks-{lacking[0] if lacking else 'TransferSyntaxUID'}")
    return Instance(
        path=path,
        name=name,
        sop_class=found["SOPClassUID"],
        sop_uid=found["SOPInstanceUID"],
        study_uid=found["StudyInstanceUID"],
        series_uid=found["SeriesInstanceUID"],
        syntax=syntax,
        size=size,
        sha256=digest,
        is_marked=found["SyntheticData"] == "YES",
    )


def parcels(instances: Iterable[Instance], *, max_instances: int, max_bytes: int) -> Iterator[list[Instance]]:
    """The instances in their order, in lists of at most so many and so many bytes; a larger one is alone."""
    parcel: list[Instance] = []
    size = 0
    for each in instances:
        if parcel and (len(parcel) >= max_instances or size + each.size > max_bytes):
            yield parcel
            parcel, size = [], 0
        parcel.append(each)
        size += each.size
    if parcel:
        yield parcel


def by_series(instances: Sequence[Instance]) -> dict[tuple[str, str], list[Instance]]:
    """The instances by study and series."""
    found: dict[tuple[str, str], list[Instance]] = {}
    for each in instances:
        found.setdefault((each.study_uid, each.series_uid), []).append(each)
    return found
