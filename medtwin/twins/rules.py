"""Which scans a record calls for: the studies it names, or, where the source records no studies, what a rule says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

from medtwin.core.codes import CHILD_PREFIX, NEGATED_PREFIX
from medtwin.core.events import Event

# "Normal" as the conclusion of a report: nothing was found. Source: SNOMED CT International Edition.
NORMAL = "SNOMED//17621005"
_CONCLUSION = f"{CHILD_PREFIX}DiagnosticReport.conclusionCode//"
_REPORTED = f"{CHILD_PREFIX}DiagnosticReport.imagingStudy"
_VIEW = f"{CHILD_PREFIX}ImagingStudy.series.view"
_BODY_SITE = f"{CHILD_PREFIX}ImagingStudy.series.bodySite//"
_CLASS = f"{CHILD_PREFIX}Encounter.class//"


@dataclass(frozen=True)
class ScanCall:
    """One scan that a record calls for.

    Attributes:
        study_id: `event_id` of its ImagingStudy; None where a rule calls for it.
        encounter_id, time: Where and when.
        modality, body_part, view: DICOM terms; body part and view may be unknown.
        labels: Findings that it is to show, sorted; empty: none; None: the record does not say.
    """

    subject_id: int
    study_id: str | None
    encounter_id: str | None
    time: datetime | None
    modality: str
    body_part: str | None
    view: str | None
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class Fallback:
    """What calls for a scan in records of sources that name no imaging studies.

    Attributes:
        encounters: Patterns of encounter codes or classes; the first such encounter of a subject, and each in which a
            condition maps to a finding, calls for one scan at its start.
        modality, body_part, view: Of that scan.
    """

    encounters: tuple[str, ...]
    modality: str = "CR"
    body_part: str | None = "CHEST"
    view: str | None = "AP"


@dataclass(frozen=True)
class ScanRules:
    """The `scan_rules` group: from record to scan.

    Attributes:
        modalities: Code of an ImagingStudy to DICOM modality; other studies call for nothing.
        body_parts: Code of a body site to BodyPartExamined.
        fallback: Used where the timelines that were learned have no ImagingStudy; None: no scan then.
        findings: Finding (as in the labels of images) to patterns of record codes that imply it.
    """

    modalities: Mapping[str, str]
    body_parts: Mapping[str, str]
    fallback: Fallback | None = None
    findings: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def implied(self, codes: Sequence[str]) -> tuple[str, ...]:
        """Findings that record codes imply, sorted; negated codes imply nothing."""
        said = [code for code in codes if not code.startswith(NEGATED_PREFIX)]
        found = {
            finding
            for finding, patterns in self.findings.items()
            if any(fnmatchcase(code, pattern) for code in said for pattern in patterns)
        }
        return tuple(sorted(found))


def scan_calls(events: Sequence[Event], rules: ScanRules, *, names_studies: bool) -> list[ScanCall]:
    """The scans that one subject's record calls for, in its order.

    Args:
        events: The subject's rows.
        rules: What calls for what.
        names_studies: Whether the source of the timelines records imaging studies; else the fallback applies.
    """
    if names_studies:
        return _calls_of_studies(events, rules)
    return [] if rules.fallback is None else _calls_of_encounters(events, rules, rules.fallback)


def _calls_of_studies(events: Sequence[Event], rules: ScanRules) -> list[ScanCall]:
    children = _children(events)
    reports: dict[str, str] = {}
    for event in events:
        if event.code == _REPORTED and event.parent_id is not None and event.text_value is not None:
            reports[event.text_value] = event.parent_id
    calls = []
    for study in events:
        modality = rules.modalities.get(study.code)
        if study.resource != "ImagingStudy" or study.parent_id is not None or modality is None:
            continue
        details = children.get(study.event_id or "", [])
        view = next((row.text_value for row in details if row.code == _VIEW), None)
        site = next((row.code.removeprefix(_BODY_SITE) for row in details if row.code.startswith(_BODY_SITE)), "")
        labels = _concluded(children.get(reports.get(study.event_id or "", ""), []))
        calls.append(
            ScanCall(
                study.subject_id,
                study.event_id,
                study.encounter_id,
                study.time,
                modality,
                rules.body_parts.get(site),
                view,
                labels,
            )
        )
    return calls


def _concluded(rows: Sequence[Event]) -> tuple[str, ...] | None:
    """Findings of a report; empty if it is normal, None without a coded conclusion."""
    codes = {row.code.removeprefix(_CONCLUSION) for row in rows if row.code.startswith(_CONCLUSION)}
    return tuple(sorted(codes - {NORMAL})) if codes else None


def _calls_of_encounters(events: Sequence[Event], rules: ScanRules, fallback: Fallback) -> list[ScanCall]:
    children = _children(events)
    calls: list[ScanCall] = []
    for encounter in events:
        if encounter.resource != "Encounter" or encounter.parent_id is not None or encounter.time is None:
            continue
        classes = [row.code.removeprefix(_CLASS) for row in children.get(encounter.event_id or "", [])]
        names = [encounter.code, *classes]
        if not any(fnmatchcase(name, pattern) for name in names for pattern in fallback.encounters):
            continue
        inside = [e.code for e in events if e.parent_id is None and e.encounter_id == encounter.event_id]
        findings = rules.implied(inside)
        if calls and not findings:
            continue
        calls.append(
            ScanCall(
                encounter.subject_id,
                None,
                encounter.event_id,
                encounter.time,
                fallback.modality,
                fallback.body_part,
                fallback.view,
                findings or None,
            )
        )
    return calls


def _children(events: Sequence[Event]) -> dict[str, list[Event]]:
    children: dict[str, list[Event]] = {}
    for event in events:
        if event.parent_id is not None:
            children.setdefault(event.parent_id, []).append(event)
    return children
