"""The part of `medtwin ingest` that reads images: DICOM series, and pictures with a table of labels."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from medtwin.config import build
from medtwin.core.dataset_writer import EventSpill
from medtwin.core.errors import ConfigError, DatasetError, SourceError
from medtwin.core.events import Event, events_to_table
from medtwin.core.images import ImageRow, accession_number
from medtwin.core.output import Output
from medtwin.core.provenance import Origin
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger, Reject
from medtwin.dicom import (
    Patient,
    ProjectionImage,
    Series,
    Study,
    deidentify_series,
    projection_to_dataset,
    read_folder,
    series_to_image_row,
    write_series,
)
from medtwin.dicom.findings_tag import FindingsTag
from medtwin.pipelines.imaging_events import StudyIndex, labelled_row, report_events, study_events
from medtwin.pipelines.say import progress


@dataclass
class ImageReader:
    """Reads images into a dataset in the making, and joins them with the records that were read before.

    Attributes:
        identities: Who has been read, and those whom the images add.
        aliases: Other names of theirs.
        images: What was read.
    """

    output: Output
    ledger: Ledger
    spill: EventSpill
    pseudonyms: Pseudonyms
    identities: dict[str, int]
    aliases: Mapping[str, str]
    images: list[ImageRow] = field(default_factory=list)
    _studies: StudyIndex = field(default_factory=StudyIndex)
    _known_subjects: set[int] = field(default_factory=set)
    _written: set[str] = field(default_factory=set)

    def note(self, table: pa.Table) -> None:
        """Notes the events, (rows,) of `EVENT_SCHEMA`, that images may be joined with."""
        self._studies.add(table)
        self._known_subjects.update(pc.unique(table["subject_id"]).to_pylist())

    def _spill(self, events: list[Event]) -> None:
        if not events:
            return
        table = events_to_table(events)
        self.note(table)
        self.spill.add(table)

    def read_dicom(
        self,
        folder: Path,
        colour: Literal["refuse", "grey"] = "refuse",
        dicom_label: Mapping[str, Any] | None = None,
    ) -> None:
        """Reads the DICOM series below a folder.

        The findings of a series are those of the reports of its study; without any, those that `dicom_label` reads
        from its headers, which become a report.

        Args:
            folder: Where they are, also in zip archives.
            colour: What becomes of colour images: refused, or read as grey ones.
            dicom_label: The config of a `FindingsTag`.

        Raises:
            ConfigError: If the config names no usable attribute.
            SourceError: If there is no DICOM file.
        """
        findings = build(dicom_label, "dicom_label") if dicom_label else None
        all_series = read_folder(folder, self.ledger, colour=colour, scratch=self.output.scratch("archives"))
        if not self.ledger.read["DICOM"]:
            raise SourceError(f"source.dicom: {folder} holds no DICOM file")
        by_study: dict[str, list[ImageRow]] = {}
        for series in progress(all_series, "reading DICOM", unit="series", total=len(all_series)):
            subject = self._subject_of(series.identity)
            row = series_to_image_row(series, self.pseudonyms, subject)
            row = replace(row, labels=self._labels(series, row, findings))
            try:
                self._write_series(row, deidentify_series(series, self.pseudonyms, subject, ledger=self.ledger))
            except SourceError as error:
                for instance in series.instances:
                    reason = f"its series cannot be read whole: {error}"
                    self.ledger.reject(Reject(instance.file, 0, "DICOM", "unreadable-series", reason))
                continue
            self.ledger.carried["DICOM"] += len(series.instances)
            self.images.append(row)
            by_study.setdefault(row.study_uid, []).append(row)
        for study, rows in by_study.items():
            known = self._studies.event_id(study)
            if known is None:
                self._spill(study_events(rows, is_new=rows[0].subject_id not in self._known_subjects))
            elif self._studies.labels(study) is None:
                self._spill(report_events(rows, known))

    def _labels(self, series: Series, row: ImageRow, findings: FindingsTag | None) -> list[str] | None:
        """The findings of the study's reports, else those of the headers."""
        reported = self._studies.labels(row.study_uid)
        stated = findings.labels(series, self.ledger) if findings is not None else None
        if reported is not None and stated is not None and stated != reported:
            self.ledger.flags["DICOM.label-differs-from-report"] += 1
        return stated if reported is None else reported

    def read_labelled(
        self, folder: Path, label_file: Path | None, labels: Mapping[str, Any] | None, origin: Origin
    ) -> None:
        """Reads the pictures of a folder.

        Args:
            folder: Where they are.
            label_file: The table that says who and what is on each.
            labels: The config of its mapping.
            origin: Of the dataset.

        Raises:
            ConfigError: If there is no mapping.
        """
        table = build(labels, "labels") if labels else None
        if table is None:
            raise ConfigError("source.images needs labels=<mapping>: `medtwin ingest --help` lists them")
        for image in progress(table.read(folder, label_file, self.ledger), "reading images", unit="image"):
            subject = self._subject_of(f"image:{image.subject}")
            series_uid = self.pseudonyms.uid(f"{folder.name}/{image.study}/{image.file}/{image.line}")
            study_uid = self.pseudonyms.uid(f"{folder.name}/study/{image.study}")
            shift = self.pseudonyms.shift(subject)
            time = image.time + shift if image.time else None
            bits = 8 if image.pixels.dtype == "uint8" else 16
            row = labelled_row(image, subject, (study_uid, series_uid), time)
            dataset = projection_to_dataset(
                ProjectionImage(image.pixels, bits, image.view, image.spacing_mm),
                Patient(str(subject), sex=image.sex, age_years=image.age_years),
                Study(
                    study_uid,
                    series_uid,
                    origin,
                    time,
                    body_part=image.body_part,
                    accession_number=accession_number(study_uid),
                ),
            )
            self._write_series(row, [dataset])
            self.images.append(row)
            self._spill(study_events([row], is_new=subject not in self._known_subjects))

    def _write_series(self, row: ImageRow, datasets: Iterable[Any]) -> None:
        """Writes a series whole or not at all; one that a killed run wrote is kept."""
        if row.series_uid in self._written:
            raise DatasetError("a fault of medtwin: two series of the source would get one UID")
        self._written.add(row.series_uid)
        final = self.output.path / row.path
        if final.is_dir():
            return
        part = self.output.scratch("series") / row.series_uid
        shutil.rmtree(part, ignore_errors=True)
        write_series(part, datasets)
        final.parent.mkdir(parents=True, exist_ok=True)
        part.rename(final)

    def _subject_of(self, identity: str) -> int:
        identity = self.aliases.get(identity, identity)
        subject = self.identities.get(identity)
        if subject is None:
            subject = self.identities[identity] = self.pseudonyms.subject_id(identity)
        return subject
