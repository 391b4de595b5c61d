"""The DICOM of `medtwin export`: the images of a dataset as files of the wanted class, encoding and layout."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError, OutputError
from medtwin.core.images import ImageRow, table_to_images
from medtwin.core.provenance import PROVENANCE, read_provenance
from medtwin.core.shards import map_shards
from medtwin.dicom.write import (
    Finding,
    has_syntax,
    media_name,
    read_entry,
    report_of,
    require_codec,
    rewrite_file,
    write_dicomdir,
    write_series,
)
from medtwin.pipelines.dicom_settings import DicomSettings
from medtwin.pipelines.say import progress

_UNCOMPRESSED = "files that cannot be compressed without loss, left uncompressed"
_UNDATED = "labelled series without a date, not reported"
_REPORT_FILE = "0000.dcm"


@dataclass(frozen=True)
class SeriesTask:
    """A series to write.

    Attributes:
        sources: Its files in the dataset, in order. names: What they are called in `target`.
        target: The folder to make.
        settings: How to write them.
        report: Where its report goes, a file; None: it has none. findings: What the report says.
        time: When the labels were made, of a report on images without a date; None: not known.
    """

    sources: tuple[Path, ...]
    names: tuple[str, ...]
    target: Path
    settings: DicomSettings
    report: Path | None = None
    findings: tuple[Finding, ...] = ()
    time: datetime | None = None

    @property
    def files(self) -> list[Path]:
        """The images written, and the report if there is one."""
        report = [self.report] if self.report is not None and self.report.is_file() else []
        return [*(self.target / name for name in self.names), *report]


def write_dicom(dataset: Dataset, chosen: DicomSettings, folder: Path) -> dict[str, int]:
    """Writes the images of a dataset below a folder; the series that a killed run completed are kept.

    Args:
        dataset: Whose images.
        chosen: Class, transfer syntax and layout.
        folder: What stands in it is of an earlier run with the same settings.

    Returns:
        Series, files and reports written, and how many files could not be encoded without loss and were left as they
        were.

    Raises:
        MedtwinError: If a file is missing or cannot be written in the wanted form.
    """
    require_codec(chosen.transfer_syntax)
    tasks = _tasks(dataset, chosen, folder)
    if chosen.dicomdir and not tasks:
        raise OutputError("dicom.dicomdir=true needs images, and the dataset has none")
    counts = Counter({"series": 0, "files": 0})
    done = map_shards(write_task, tasks, num_workers=chosen.workers)
    for part in progress(done, "DICOM", total=len(tasks), unit="series"):
        counts.update(part)
    if chosen.dicomdir:
        files = [file for task in tasks for file in task.files]
        write_dicomdir(folder, progress((read_entry(folder, file) for file in files), "DICOMDIR", total=len(files)))
    return dict(counts)


def dicom_files(dataset: Dataset, chosen: DicomSettings, folder: Path) -> Iterator[Path]:
    """The files to send, in the order of the image table: those of the dataset where they are what is wanted.

    Others, and reports, are written below `folder` first, series by series, each whole or not at all; what a killed run
    wrote there is used again.

    Args:
        dataset: Whose images.
        chosen: Class, transfer syntax and reports; layout and DICOMDIR do not matter to what is sent.
        folder: A scratch folder of the output, kept until everything is sent.

    Raises:
        MedtwinError: If a file is missing, cannot be read or cannot be written in the wanted form.
    """
    require_codec(chosen.transfer_syntax)
    as_uids = DicomSettings(chosen.iod, chosen.transfer_syntax, sr=chosen.sr)
    for task in _tasks(dataset, as_uids, folder):
        if chosen.iod == "source" and all(has_syntax(source, chosen.transfer_syntax) for source in task.sources):
            yield from task.sources
            if _write_report(task, task.sources) and task.report is not None:
                yield task.report
            continue
        write_task(task)
        yield from task.files


def write_task(task: SeriesTask) -> dict[str, int]:
    """Writes a series whole or not at all, and counts; one that is there is left alone."""
    chosen = task.settings
    if not task.target.is_dir():
        part = task.target.with_name(f"{task.target.name}.partial")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for source, name in zip(task.sources, task.names, strict=True):
            rewrite_file(source, part / name, iod=chosen.iod, transfer_syntax=chosen.transfer_syntax)
        part.rename(task.target)
    images = tuple(task.target / name for name in task.names)
    counts = {"series": 1, "files": len(images)}
    if left := sum(not has_syntax(image, chosen.transfer_syntax) for image in images):
        counts[_UNCOMPRESSED] = left
    if task.report is not None:
        counts["reports" if _write_report(task, images) else _UNDATED] = 1
    return counts


def _write_report(task: SeriesTask, images: tuple[Path, ...]) -> bool:
    """Writes the report on a series where it is to have one and none is there; returns whether it has one."""
    if task.report is None or task.report.is_file():
        return task.report is not None
    made = report_of(images, task.findings, task.time)
    if made is None:
        return False
    (path,) = write_series(task.report.parent, [made])
    path.rename(task.report)
    return True


@dataclass
class _Places:
    """Folders below the export: <PatientID>/<study>/<series>, as PACS importers expect, or numbers for media."""

    folder: Path
    has_media_names: bool
    patients: dict[int, int] = field(default_factory=dict)
    studies: dict[int, dict[str, int]] = field(default_factory=dict)
    num_series: Counter[tuple[int, int]] = field(default_factory=Counter)

    def files(self, row: ImageRow, series: str, names: list[str]) -> list[Path]:
        """Where the files of a further series of a study go.

        Args:
            row: Names patient and study.
            series: Names the series within the study.
            names: Of the files, in the layout that has names.
        """
        if not self.has_media_names:
            return [self.folder / str(row.subject_id) / row.study_uid / series / name for name in names]
        patient = self.patients.setdefault(row.subject_id, len(self.patients))
        known = self.studies.setdefault(patient, {})
        study = known.setdefault(row.study_uid, len(known))
        number = self.num_series[patient, study]
        self.num_series[patient, study] += 1
        return [self.folder / media_name(patient, study, number, index) for index in range(len(names))]


def _tasks(dataset: Dataset, chosen: DicomSettings, folder: Path) -> list[SeriesTask]:
    """A task per series of the image table."""
    places = _Places(folder, chosen.has_media_names)
    meanings, time = _words(dataset) if chosen.sr else ({}, None)
    tasks = []
    for row in table_to_images(dataset.images()):
        sources = tuple(sorted((dataset.path / row.path).glob("*.dcm")))
        if len(sources) != row.num_slices or not sources:
            raise DatasetError(
                f"{row.path}: images.parquet says {row.num_slices} images, and {len(sources)} files are there: "
                "make the dataset again"
            )
        files = places.files(row, row.series_uid, [source.name for source in sources])
        names = tuple(file.name for file in files)
        report: Path | None = None
        findings: tuple[Finding, ...] = ()
        if chosen.sr and row.labels is not None:
            (report,) = places.files(row, f"{row.series_uid}.SR", [_REPORT_FILE])
            findings = tuple(Finding(code, meanings.get(code)) for code in row.labels)
        tasks.append(SeriesTask(sources, names, files[0].parent, chosen, report, findings, time))
    return tasks


def _words(dataset: Dataset) -> tuple[dict[str, str | None], datetime | None]:
    """Descriptions of the dataset's codes, and when it was made, where it says so."""
    codes = dataset.codes()
    meanings = dict(zip(codes["code"].to_pylist(), codes["description"].to_pylist(), strict=True))
    if not (dataset.path / PROVENANCE).is_file():
        return meanings, None
    return meanings, datetime.fromisoformat(read_provenance(dataset.path)["created"])
