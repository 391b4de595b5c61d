"""What the record says of images: ImagingStudy and DiagnosticReport rows of a series, the findings of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from medtwin.core.codes import CHILD_PREFIX
from medtwin.core.events import Event
from medtwin.core.images import ImageRow, image_path
from medtwin.dicom.labels import LabelledImage

STUDY_UID = f"{CHILD_PREFIX}ImagingStudy.studyInstanceUID"
CONCLUSION = f"{CHILD_PREFIX}DiagnosticReport.conclusionCode//"
REPORTED_STUDY = f"{CHILD_PREFIX}DiagnosticReport.imagingStudy"

# "Normal" as the conclusion of a report says that nothing was found. Source: SNOMED CT International Edition.
NORMAL = "SNOMED//17621005"
# "Diagnostic imaging study". Source: LOINC 2.78.
REPORT_CODE = "LOINC//18748-4"


@dataclass
class StudyIndex:
    """Joins the DICOM studies of a source with its record: which are known, and what their reports concluded."""

    _study_of_uid: dict[str, str] = field(default_factory=dict)
    _uid_of_study: dict[str, str] = field(default_factory=dict)
    _study_of_report: dict[str, str] = field(default_factory=dict)
    _codes_of_report: dict[str, set[str]] = field(default_factory=dict)
    _labels: dict[str, list[str]] | None = None

    def add(self, table: pa.Table) -> None:
        """Takes what the rows of an event table say of studies."""
        for row in _rows(table, pc.equal(table["code"], STUDY_UID)):
            self._study_of_uid.setdefault(row["text_value"], row["parent_id"])
            self._uid_of_study[row["parent_id"]] = row["text_value"]
        for row in _rows(table, pc.equal(table["code"], REPORTED_STUDY)):
            self._study_of_report[row["parent_id"]] = row["text_value"]
        for row in _rows(table, pc.starts_with(table["code"], CONCLUSION)):
            self._codes_of_report.setdefault(row["parent_id"], set()).add(row["code"].removeprefix(CONCLUSION))

    def event_id(self, study_uid: str) -> str | None:
        """The event of a study that the record has; None: it has none."""
        return self._study_of_uid.get(study_uid)

    def labels(self, study_uid: str) -> list[str] | None:
        """The findings that the reports of a study name; empty: reported as normal; None: no coded report."""
        if self._labels is None:
            found: dict[str, set[str]] = {}
            for report, study in self._study_of_report.items():
                uid = self._uid_of_study.get(study)
                if uid is not None and report in self._codes_of_report:
                    found.setdefault(uid, set()).update(self._codes_of_report[report])
            self._labels = {uid: sorted(codes - {NORMAL}) for uid, codes in found.items()}
        return self._labels.get(study_uid)


def _rows(table: pa.Table, mask: pa.ChunkedArray) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = table.filter(mask).select(["code", "text_value", "parent_id"]).to_pylist()
    return rows


def study_events(rows: Sequence[ImageRow], *, is_new: bool) -> list[Event]:
    """The events of one imaging study whose source has no ImagingStudy.

    Args:
        rows: Its series.
        is_new: Whether the subject has no record: then the sex that the images state is given too.
    """
    first = rows[0]
    events = []
    if is_new and first.sex is not None:
        events.append(Event(first.subject_id, None, f"GENDER//{first.sex}", resource="Patient"))
    study = Event(
        first.subject_id,
        first.time,
        f"DCM//{first.modality}",
        event_id=_event_id("study", first.study_uid),
        status="available",
        resource="ImagingStudy",
    )
    events += [study, study.child("studyInstanceUID", text_value=first.study_uid)]
    for index, row in enumerate(rows):
        events += _series_rows(study, row, "" if index == 0 else f"[{index}]")
    events += report_events(rows, study.event_id)
    return events


def report_events(rows: Sequence[ImageRow], study_event_id: str | None) -> list[Event]:
    """The report that the findings of a study's series make; none where no series has any.

    Args:
        rows: Its series, each with the findings that its labels or headers state.
        study_event_id: The event of the study.
    """
    stated = [row.labels for row in rows if row.labels is not None]
    if not stated:
        return []
    first = rows[0]
    report = Event(
        first.subject_id,
        first.time,
        REPORT_CODE,
        event_id=_event_id("report", first.study_uid),
        status="final",
        resource="DiagnosticReport",
    )
    codes = sorted(set().union(*stated)) or [NORMAL]
    conclusions = [report.child("conclusionCode", code) for code in codes]
    return [report, report.child("imagingStudy", text_value=study_event_id), *conclusions]


def _series_rows(study: Event, row: ImageRow, index: str) -> list[Event]:
    rows = [
        study.child(f"series{index}", text_value=row.series_uid),
        study.child(f"series{index}.modality", f"DCM//{row.modality}"),
    ]
    if row.view is not None:
        rows.append(study.child(f"series{index}.view", text_value=row.view))
    return rows


def _event_id(kind: str, uid: str) -> str:
    """A FHIR id for what a pseudonymous UID names; the letter keeps it from being purely numeric."""
    return f"{kind}-{int(uid.rpartition('.')[2]):032x}"


def labelled_row(image: LabelledImage, subject_id: int, uids: tuple[str, str], time: datetime | None) -> ImageRow:
    """The image table row of an image with a label row; `uids` are those of study and series."""
    study_uid, series_uid = uids
    rows, columns = image.pixels.shape
    spacing = image.spacing_mm or (None, None)
    return ImageRow(
        subject_id=subject_id,
        time=time,
        modality=image.modality,
        body_part=image.body_part,
        view=image.view,
        rows=rows,
        columns=columns,
        num_slices=1,
        pixel_spacing_row_mm=spacing[0],
        pixel_spacing_column_mm=spacing[1],
        spacing_source="ImagerPixelSpacing" if image.spacing_mm else None,
        slice_spacing_mm=None,
        slice_thickness_mm=None,
        intensity_unit=None,
        photometric="MONOCHROME2",
        bits_stored=8 if image.pixels.dtype == "uint8" else 16,
        sex=image.sex,
        age_years=image.age_years,
        labels=image.labels,
        study_uid=study_uid,
        series_uid=series_uid,
        path=image_path(subject_id, series_uid),
    )
