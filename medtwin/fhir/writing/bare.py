"""Rows of a foreign MEDS dataset as events that FHIR can hold: which resource a bare code means, and an id for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from medtwin.core.codes import BARE_RESOURCES, BARE_STAYS, CHILD_PREFIX, NEGATED_PREFIX
from medtwin.core.events import Event
from medtwin.core.images import ImageRow
from medtwin.fhir.writing.context import stable_id
from medtwin.fhir.writing.patient import is_patient_code

# What a code of a system without a value most likely is; everything else is an Observation.
_RESOURCES = BARE_RESOURCES | dict.fromkeys(BARE_STAYS, "Encounter")
# Encounter classes of v3-ActCode. Source: hl7.org/fhir/R4/v3/ActEncounterCode.
_CLASSES = frozenset({"AMB", "EMER", "FLD", "HH", "IMP", "ACUTE", "NONAC", "OBSENC", "PRENC", "SS", "VR"})
# DICOM Body Part Examined to SNOMED CT. Source: DICOM PS3.16 annex L.
_BODY_PARTS = {
    "CHEST": "51185008",
    "HEAD": "69536005",
    "BRAIN": "12738006",
    "NECK": "45048000",
    "ABDOMEN": "818983003",
    "PELVIS": "12921003",
    "SPINE": "421060004",
    "BREAST": "76752008",
    "HAND": "85562004",
    "KNEE": "72696002",
    "HIP": "29836001",
    "FOOT": "56459004",
    "ANKLE": "70258002",
    "WRIST": "8205005",
    "SHOULDER": "16982005",
}


def complete(events: Iterable[Event]) -> list[Event]:
    """The events, bare ones with a resource type and an id, and their admissions and discharges joined."""
    done: list[Event] = []
    stays: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for event in events:
        if not _is_bare(event):
            done.append(event)
            continue
        kind = event.resource or _resource_of(event)
        key = f"{event.subject_id}|{event.time}|{event.code}|{event.numeric_value}|{event.text_value}"
        counts[key] += 1
        named = replace(event, resource=kind, event_id=event.event_id or stable_id(f"{key}|{counts[key]}"))
        if kind == "Encounter":
            _add_stay(named, done, stays)
        else:
            done.append(named)
    return done


def _is_bare(event: Event) -> bool:
    if event.parent_id is not None or event.code.startswith(CHILD_PREFIX):
        return False
    return (event.event_id is None or event.resource is None) and not is_patient_code(
        event.code, is_static=event.time is None
    )


def _resource_of(event: Event) -> str:
    system, _, rest = event.code.removeprefix(NEGATED_PREFIX).partition("//")
    has_value = event.numeric_value is not None or event.text_value is not None
    kind = _RESOURCES.get(system, "Observation")
    is_stay = rest in _CLASSES or "//" not in rest or "ADMISSION" in rest or "DISCHARGE" in rest
    if has_value or event.time is None or (kind == "Encounter" and not is_stay):
        return "Observation"
    return kind


def _add_stay(event: Event, done: list[Event], stays: dict[str, int]) -> None:
    """Appends an encounter; a discharge ends the stay that is open instead."""
    setting = event.code.split("//")[1] if event.code.startswith("ENCOUNTER//") else ""
    place = setting or event.code.partition("_")[0]
    open_at = stays.pop(place, None) if "DISCHARGE" in event.code else None
    if open_at is not None:
        stay = done[open_at]
        done[open_at] = replace(stay, end_time=event.time, status="finished")
        # After the stay's own rows; the writer joins them by id.
        done.append(done[open_at].child("hospitalization.dischargeDisposition", event.code))
        return
    stay = replace(event, encounter_id=event.event_id)
    if "DISCHARGE" not in event.code:
        stays[place] = len(done)
    done.append(stay)
    if setting in _CLASSES:
        done.append(stay.child("class", f"ACTCODE//{setting}"))


def with_images(events: list[Event], images: Iterable[ImageRow]) -> list[Event]:
    """The events with the series of the image table: their ImagingStudy where it is missing, and number of slices."""
    rows = list(events)
    studies = {event.text_value: event.parent_id for event in events if event.code == _STUDY_UID}
    by_id = {event.event_id: event for event in events if event.resource == "ImagingStudy" and event.parent_id is None}
    series: dict[str, list[str]] = {}
    for event in events:
        if event.code.startswith(_SERIES) and event.text_value and "." not in event.code.removeprefix(_SERIES):
            series.setdefault(event.parent_id or "", []).append(event.text_value)
    for image in images:
        study = by_id.get(studies.get(image.study_uid))
        if study is None:
            study = _new_study(image)
            by_id[study.event_id] = study
            studies[image.study_uid] = study.event_id
            rows += [study, study.child("studyInstanceUID", text_value=image.study_uid)]
        known = series.setdefault(study.event_id or "", [])
        is_new = image.series_uid not in known
        if is_new:
            known.append(image.series_uid)
        rows += _series_rows(study, image, known.index(image.series_uid), is_new=is_new)
    return rows


_STUDY_UID = f"{CHILD_PREFIX}ImagingStudy.studyInstanceUID"
_SERIES = f"{CHILD_PREFIX}ImagingStudy.series"


def _new_study(image: ImageRow) -> Event:
    return Event(
        image.subject_id,
        image.time,
        f"DCM//{image.modality}",
        event_id=stable_id(image.study_uid),
        status="available",
        resource="ImagingStudy",
    )


def _series_rows(study: Event, image: ImageRow, number: int, *, is_new: bool) -> list[Event]:
    path = f"series[{number}]" if number else "series"
    rows = [study.child(f"{path}.numberOfInstances", numeric_value=float(image.num_slices))]
    if not is_new:
        return rows
    rows += [
        study.child(path, text_value=image.series_uid),
        study.child(f"{path}.modality", f"DCM//{image.modality}"),
    ]
    body_site = _BODY_PARTS.get((image.body_part or "").upper())
    if body_site is not None:
        rows.append(study.child(f"{path}.bodySite", f"SNOMED//{body_site}"))
    if image.view is not None:
        rows.append(study.child(f"{path}.view", text_value=image.view))
    return rows
