"""Files for a disc: names of 8 characters and the DICOMDIR that lists them (PS3.10 8, PS3.3 F)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pydicom
import pydicom.uid as uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from medtwin.core.errors import DatasetError, OutputError
from medtwin.dicom.uids import synthetic_uid
from medtwin.dicom.values import quiet
from medtwin.dicom.writing.encode import READ_ERRORS, file_dataset

DICOMDIR = "DICOMDIR"
_COMPONENT = re.compile("[A-Z0-9_]{1,8}")
_PREFIXES = ("PT", "ST", "SE", "IM")
_LARGEST = 999_999
_IN_USE = 0xFFFF
_SEQUENCE_HEADER, _ITEM_HEADER = 12, 8
_RECORDS: dict[str, tuple[str, ...]] = {
    # PS3.3 F.5.1, F.5.2, F.5.3, F.5.4
    "PATIENT": ("PatientName", "PatientID"),
    "STUDY": ("StudyDate", "StudyTime", "StudyDescription", "StudyInstanceUID", "StudyID", "AccessionNumber"),
    "SERIES": ("Modality", "SeriesInstanceUID", "SeriesNumber"),
    "IMAGE": ("InstanceNumber",),
    # F.5.25
    "SR DOCUMENT": (
        *("InstanceNumber", "CompletionFlag", "VerificationFlag", "ContentDate", "ContentTime"),
        "ConceptNameCodeSequence",
    ),
}
"""Type of a directory record to its keys."""


class Entry(NamedTuple):
    """What the DICOMDIR says of a file.

    Attributes:
        file_id: Its path below the DICOMDIR, at most 8 names.
        header: The keys of its records.
    """

    file_id: tuple[str, ...]
    header: Dataset


def media_name(patient: int, study: int, series: int, image: int) -> str:
    """The path of a file by the numbers of what it belongs to, each from 0 within the one above.

    Raises:
        OutputError: If one has more than six digits.

    >>> media_name(0, 2, 0, 11)
    'PT000000/ST000002/SE000000/IM000011'
    """
    numbers = (patient, study, series, image)
    if max(numbers) > _LARGEST or min(numbers) < 0:
        raise OutputError(
            "dicom.layout=media holds at most 1,000,000 patients, studies, series, images: split the export"
        )
    return "/".join(f"{prefix}{number:06d}" for prefix, number in zip(_PREFIXES, numbers, strict=True))


def read_entry(root: Path, path: Path) -> Entry:
    """What the DICOMDIR in `root` says of a file below it.

    Raises:
        DatasetError: If the file cannot be read.
    """
    keywords = {keyword for keys in _RECORDS.values() for keyword in keys}
    name = path.relative_to(root)
    try:
        with quiet():
            found = pydicom.dcmread(
                path, stop_before_pixels=True, specific_tags=[*keywords, "SOPInstanceUID", "SOPClassUID"]
            )
            header = Dataset()
            header.update({element.tag: element for element in found})
            header.ReferencedTransferSyntaxUIDInFile = found.file_meta.TransferSyntaxUID
    except READ_ERRORS as error:
        raise DatasetError(f"{name} cannot be read ({type(error).__name__})") from error
    return Entry(name.parts, header)


@dataclass
class _Record:
    """A directory record with those below it."""

    dataset: Dataset
    below: dict[str, _Record] = field(default_factory=dict)
    offset: int = 0

    def walk(self) -> Iterator[_Record]:
        yield self
        for record in self.below.values():
            yield from record.walk()


def write_dicomdir(root: Path, entries: Iterable[Entry]) -> Path:
    """Writes `root/DICOMDIR`, whole or not at all, and returns its path.

    The numbers StudyID, SeriesNumber and InstanceNumber, which the directory demands, count from 1 where the images
    have none; a StudyTime that is not known is midnight.

    Args:
        root: Where the files stand.
        entries: What it lists, in order.

    Raises:
        OutputError: If there is no entry, a study has no date, or a path is not made of names of 8 characters.
    """
    top: dict[str, _Record] = {}
    instances: list[str] = []
    for entry in entries:
        _add(top, entry)
        instances.append(str(entry.header.SOPInstanceUID))
    if not top:
        raise OutputError("dicom.dicomdir=true needs at least one image, and the dataset has none")
    directory = Dataset()
    directory.SOPClassUID = uid.MediaStorageDirectoryStorage
    directory.SOPInstanceUID = synthetic_uid("DICOMDIR", *instances)
    content = _directory_bytes(file_dataset(directory), list(top.values()))
    path = root / DICOMDIR
    partial = root / f".{DICOMDIR}.tmp"
    partial.write_bytes(content)
    partial.replace(path)
    return path


def _add(top: dict[str, _Record], entry: Entry) -> None:
    header = entry.header
    if len(entry.file_id) > 8 or not all(map(_COMPONENT.fullmatch, entry.file_id)):
        raise OutputError("a DICOMDIR names files by up to 8 names of up to 8 of A-Z, 0-9 and _ (PS3.10 8.2)")
    places = (
        ("PATIENT", str(header.get("PatientID", ""))),
        ("STUDY", str(header.StudyInstanceUID)),
        ("SERIES", str(header.SeriesInstanceUID)),
    )
    level = top
    for kind, key in places:
        if key not in level:
            level[key] = _Record(_record(kind, header, len(level) + 1))
        level = level[key].below
    kind = "SR DOCUMENT" if "CompletionFlag" in header else "IMAGE"
    leaf = _record(kind, header, len(level) + 1)
    leaf.ReferencedFileID = list(entry.file_id)
    leaf.ReferencedSOPClassUIDInFile = header.SOPClassUID
    leaf.ReferencedSOPInstanceUIDInFile = header.SOPInstanceUID
    leaf.ReferencedTransferSyntaxUIDInFile = header.ReferencedTransferSyntaxUIDInFile
    level[str(header.SOPInstanceUID)] = _Record(leaf)


def _record(kind: str, header: Dataset, number: int) -> Dataset:
    record = Dataset()
    record.OffsetOfTheNextDirectoryRecord = 0
    record.RecordInUseFlag = _IN_USE
    record.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    record.DirectoryRecordType = kind
    record.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _RECORDS[kind]:
        if keyword in header:
            record[keyword] = header[keyword]
        else:
            setattr(record, keyword, None)
    if kind == "STUDY":
        if not record.StudyDate:
            raise OutputError("dicom.dicomdir=true needs a date of every study, and one has none: export without it")
        record.StudyTime = record.StudyTime or "000000"
    for keyword in ("StudyID", "SeriesNumber", "InstanceNumber"):
        if keyword in _RECORDS[kind] and record[keyword].is_empty:
            setattr(record, keyword, str(number))
    return record


def _directory_bytes(directory: FileDataset, top: Sequence[_Record]) -> bytes:
    """The file: records stand depth first, and point at the next of their kind and the first below them by offset."""
    directory.pop("SpecificCharacterSet")
    del directory.SOPClassUID, directory.SOPInstanceUID  # they stand in the file meta only (PS3.10 8.6)
    directory.FileSetID = "MEDTWIN"
    directory.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    directory.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    directory.FileSetConsistencyFlag = 0
    buffer = BytesIO()
    directory.save_as(buffer, enforce_file_format=True)
    records = [record for each in top for record in each.walk()]
    offset = len(buffer.getvalue()) + _SEQUENCE_HEADER
    for record in records:
        record.offset = offset
        offset += _ITEM_HEADER + len(_encoded(record.dataset))
    for siblings in [list(top), *(list(record.below.values()) for record in records)]:
        for record, following in pairwise(siblings):
            record.dataset.OffsetOfTheNextDirectoryRecord = following.offset
    for record in records:
        first = next(iter(record.below.values()), None)
        record.dataset.OffsetOfReferencedLowerLevelDirectoryEntity = first.offset if first else 0
    directory.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = top[0].offset
    directory.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = top[-1].offset
    head = BytesIO()
    directory.save_as(head, enforce_file_format=True)
    items = []
    for record in records:
        content = _encoded(record.dataset)
        items.append(b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content)
    body = b"".join(items)
    return head.getvalue() + b"\x04\x00\x20\x12SQ\0\0" + len(body).to_bytes(4, "little") + body


def _encoded(record: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, record)
    return buffer.getvalue()
