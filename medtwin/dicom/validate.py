"""Checks DICOM: single datasets against their IOD, the datasets of a series together, and all files of a folder.

The types of attributes come from the module tables of the standard (`checks/tables.py`), for the IODs that we read or
write; conditions only where a dataset tells whether they hold. docs/dicom_validation.md lists the rules, and what an
independent program finds beside them.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pydicom.uid as uid
from pydicom import config
from pydicom.dataset import Dataset

from medtwin.core.errors import SourceError
from medtwin.core.findings import Finding
from medtwin.core.sources import Reject
from medtwin.dicom.checks.attributes import check_attributes
from medtwin.dicom.checks.closed import check_terms
from medtwin.dicom.checks.collect import UNREADABLE, Collector, text_of
from medtwin.dicom.checks.images import check_image
from medtwin.dicom.checks.meta import check_meta
from medtwin.dicom.checks.reports import check_report
from medtwin.dicom.checks.segments import check_frames, check_segments
from medtwin.dicom.checks.sets import Book
from medtwin.dicom.checks.syntax import check_values
from medtwin.dicom.checks.tables import load_tables
from medtwin.dicom.values import quiet

_READ_ERRORS = (*UNREADABLE, zlib.error, MemoryError)


def validate_dataset(dataset: Dataset, where: str = "") -> list[Finding]:
    """Every rule that a dataset breaks; none where it is valid as far as this can tell.

    Attributes that the modules of its IOD require, VR, number and form of all values, closed terms, pixels, geometry,
    segments, the content of reports. Of a SOP class that the tables lack, only what holds for every dataset, and a
    warning says so.

    Args:
        dataset: With its pixels; its file meta is checked too if it has one.
        where: Name of the file, for the findings.
    """
    found = Collector()
    with _unjudged():
        tables = load_tables()
        sop_class = text_of(dataset, "SOPClassUID")
        iod = tables.iod_of(sop_class) or ""
        if iod:
            check_attributes(dataset, tables, iod, found)
        elif not sop_class:
            found.add("type-1", "SOPClassUID must be present with a value")
        else:
            found.add("sop-class", "SOPClassUID is of a class whose attributes are not checked", "warning")
        check_values(dataset, found)
        check_terms(dataset, found)
        check_image(dataset, iod, found)
        check_frames(dataset, iod, found)
        if iod == "segmentation":
            check_segments(dataset, found)
        if iod.endswith("-sr"):
            check_report(dataset, found)
        check_meta(dataset, found)
    return found.findings(where)


def validate_series(datasets: Sequence[Dataset], where: str = "") -> list[Finding]:
    """Every rule that the datasets of one series break together; each is checked on its own by `validate_dataset`.

    What the standard leaves to a series, such as uneven slices, is a warning: the series is no volume then.
    """
    book = Book()
    with _unjudged():
        for dataset in datasets:
            book.learn(dataset, where)
        findings = book.findings()
    if len({text_of(dataset, "SeriesInstanceUID") for dataset in datasets}) > 1:
        message = "SeriesInstanceUID must be the same in every object of a series"
        findings.insert(0, Finding("series-consistency", message, "error", where))
    return findings


@dataclass
class FolderValidation:
    """What was found in the files of a folder.

    Attributes:
        num_objects: Checked DICOM objects by the name of their IOD, `other` where the tables lack it.
        num_ignored: Files that are no DICOM.
        num_media: DICOMDIR files, which list others.
        rejects: Files that could not be read.
        kinds: Findings: one for each rule, severity and message, with the first file and the number of times.
        num_files: Of each of these, in how many files.
    """

    num_objects: Counter[str] = field(default_factory=Counter)
    num_ignored: int = 0
    num_media: int = 0
    rejects: list[Reject] = field(default_factory=list)
    kinds: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    num_files: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _book: Book = field(default_factory=Book)

    def add(self, path: Path, file: str) -> list[Finding]:
        """Checks one file; the findings are entered, and given.

        Args:
            path: Where it is.
            file: Its name for findings, relative to the folder.
        """
        if not _has_prefix(path):
            self.num_ignored += 1
            return []
        with _unjudged():
            try:
                dataset = pydicom.dcmread(path)
                if text_of(dataset.file_meta, "MediaStorageSOPClassUID") == uid.MediaStorageDirectoryStorage:
                    self.num_media += 1
                    return []
                findings = validate_dataset(dataset, file)
                self._book.learn(dataset, file)
            except _READ_ERRORS as error:
                reason = f"the file is not whole DICOM ({type(error).__name__}): copy it again from its source"
                self.rejects.append(Reject(file, 0, "DICOM", "corrupt", reason))
                return []
        self.num_objects[load_tables().iod_of(text_of(dataset, "SOPClassUID")) or "other"] += 1
        for finding in findings:
            self._enter(finding)
        return findings

    def finish(self) -> list[Finding]:
        """Enters what the objects break together, once all were added; gives it."""
        with _unjudged():
            findings = self._book.findings()
        for finding in findings:
            self._enter(finding)
        return findings

    def _enter(self, finding: Finding) -> None:
        key = (finding.rule, finding.severity, finding.message)
        known = self.kinds.get(key)
        count = finding.count + (known.count if known else 0)
        where = known.where if known else finding.where
        self.kinds[key] = Finding(finding.rule, finding.message, finding.severity, where, count)
        self.num_files[key] += 1

    def findings(self) -> list[Finding]:
        """Errors first, the most frequent first."""
        order = {"error": 0, "warning": 1, "information": 2}
        return sorted(
            self.kinds.values(), key=lambda each: (order[each.severity], -each.count, each.rule, each.message)
        )

    @property
    def num_errors(self) -> int:
        """How many times a rule was broken that makes an object invalid."""
        return sum(each.count for each in self.kinds.values() if each.severity == "error")


def dicom_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file below a folder, sorted, with its name relative to it; a file stands for itself.

    Raises:
        SourceError: If there is nothing there.
    """
    if folder.is_file():
        yield folder, folder.name
        return
    if not folder.is_dir():
        raise SourceError(f"{folder} is no file or folder: name what holds the DICOM files")
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            yield path, path.relative_to(folder).as_posix()


def validate_folder(folder: Path) -> FolderValidation:
    """Checks every DICOM file below a folder, and what patients, studies and series must share; one file in memory.

    Raises:
        SourceError: If there is no such folder or file.
    """
    validation = FolderValidation()
    for path, file in dicom_files(folder):
        validation.add(path, file)
    validation.finish()
    return validation


@contextmanager
def _unjudged() -> Iterator[None]:
    """Values as they stand: pydicom's own checks would log what is in them, and cost time."""
    before = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    try:
        with quiet():
            yield
    finally:
        config.settings.reading_validation_mode = before


def _has_prefix(path: Path) -> bool:
    """Whether a file has the DICM prefix (PS3.10 7.1), or a name that claims DICOM; a pipe or device is none."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return True
    return head[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")
