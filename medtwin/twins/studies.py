"""The imaging studies of a twin's record: each names exactly the scans that were drawn of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from medtwin.core.codes import CHILD_PREFIX
from medtwin.core.events import Event
from medtwin.dicom import synthetic_uid
from medtwin.twins.rules import NORMAL, ScanCall

_STUDY = f"{CHILD_PREFIX}ImagingStudy."
_SERIES = (f"{_STUDY}series", f"{_STUDY}studyInstanceUID")
# "Diagnostic imaging study". Source: LOINC 2.78.
_REPORT_CODE = "LOINC//18748-4"


@dataclass(frozen=True)
class Drawn:
    """A scan that was drawn of a call.

    Attributes:
        call: What called for it.
        study_uid, series_uid: DICOM UIDs.
        written_modality: That of its files; None: what the call says. A radiograph that was called for as DX is CR
            where too little of it is known for that class.
    """

    call: ScanCall
    study_uid: str
    series_uid: str
    written_modality: str | None = None
    num_images: int = 1

    @property
    def modality(self) -> str:
        """What FHIR and the image table say, as the files do."""
        return self.written_modality or self.call.modality


def scan_uids(run: str, call: ScanCall, number: int) -> tuple[str, str]:
    """Study and series UID of a twin's scan, from 128 bits of SHA-256 of run, subject and number.

    Args:
        run: Names the generation: manifest hashes of its runs.
        call: What calls for it.
        number: Of the call within the subject.
    """
    study = synthetic_uid("twin", run, call.subject_id, "study", number)
    return study, synthetic_uid("twin", run, call.subject_id, "series", number)


def with_studies(events: Sequence[Event], drawn: Sequence[Drawn]) -> list[Event]:
    """A record whose ImagingStudy events name the scans drawn, and no others.

    A study of which no scan was drawn stays: it took place, but points at no image. A scan that a rule called for
    becomes a study of its own, with a report of its findings where they are known.
    """
    by_study = {each.call.study_id: each for each in drawn if each.call.study_id is not None}
    rows: list[Event] = []
    for event in events:
        if event.code.startswith(_SERIES):
            continue
        if event.resource == "ImagingStudy" and event.parent_id is None and event.event_id in by_study:
            each = by_study[event.event_id]
            if event.code == f"DCM//{each.call.modality}":
                event = replace(event, code=f"DCM//{each.modality}")
            rows += [event, *_series_rows(event, each)]
        else:
            rows.append(event)
    for number, each in enumerate(each for each in drawn if each.call.study_id is None):
        rows += _new_study(each, number)
    return rows


def _series_rows(study: Event, drawn: Drawn) -> list[Event]:
    call = drawn.call
    rows = [
        study.child("studyInstanceUID", text_value=drawn.study_uid),
        study.child("series", text_value=drawn.series_uid),
        study.child("series.modality", f"DCM//{drawn.modality}"),
        study.child("series.numberOfInstances", numeric_value=float(drawn.num_images)),
    ]
    if call.view is not None:
        rows.append(study.child("series.view", text_value=call.view))
    return rows


def _new_study(drawn: Drawn, number: int) -> list[Event]:
    call = drawn.call
    study = Event(
        call.subject_id,
        call.time,
        f"DCM//{drawn.modality}",
        event_id=_id_of(drawn.study_uid, "s"),
        status="available",
        resource="ImagingStudy",
        encounter_id=call.encounter_id,
        time_precision="second+00:00",
    )
    rows = [study, *_series_rows(study, drawn)]
    if call.labels is None:
        return rows
    report = Event(
        call.subject_id,
        call.time,
        _REPORT_CODE,
        event_id=_id_of(drawn.study_uid, "r"),
        status="final",
        resource="DiagnosticReport",
        encounter_id=call.encounter_id,
        time_precision="second+00:00",
    )
    conclusions = [report.child("conclusionCode", code) for code in call.labels or (NORMAL,)]
    return [*rows, report, report.child("imagingStudy", text_value=study.event_id), *conclusions]


def _id_of(uid: str, letter: str) -> str:
    """A FHIR id from a UID; the letter keeps it from being purely numeric."""
    return f"{letter}-{int(uid.rpartition('.')[2]):032x}"


def without_series(table: pa.Table) -> pa.Table:
    """Event rows of which no study names an image."""
    return table.filter(pc.invert(pc.or_(*(pc.starts_with(table["code"], name) for name in _SERIES))))


def without_scans(table: pa.Table) -> pa.Table:
    """Event rows without what `with_studies` makes of studies: no image is named, and DX stands for CR too."""
    kept = without_series(table)
    is_cr = pc.and_(pc.equal(kept["resource"], "ImagingStudy"), pc.equal(kept["code"], "DCM//CR"))
    code = pc.if_else(pc.fill_null(is_cr, False), "DCM//DX", kept["code"])
    place = kept.schema.get_field_index("code")
    return kept.set_column(place, kept.schema.field(place), code.cast(kept.schema.field(place).type))


def counts_by_modality(calls: Sequence[ScanCall]) -> Mapping[str, int]:
    """How many scans were called for, by modality."""
    counts: dict[str, int] = {}
    for call in calls:
        counts[call.modality] = counts.get(call.modality, 0) + 1
    return dict(sorted(counts.items()))
