"""Dates of many resources in their order: nothing before birth, little after death, events within their encounter.

Births, deaths and encounters are learnt in a first pass over patients and encounters; then each event is compared as it
comes. Memory: some 200 bytes for each patient and each encounter.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from medtwin.core.findings import Finding
from medtwin.fhir.checks.order import is_certainly_before, moment_bounds
from medtwin.fhir.checks.tables import place_of

Resource: TypeAlias = dict[str, Any]
_Bounds: TypeAlias = tuple[datetime, datetime]

# What dates an event as it happened (not as it was recorded), by type; a Period counts with both ends.
EVENTS: dict[str, tuple[str, ...]] = {
    "Encounter": ("period",),
    "Observation": ("effectiveDateTime", "effectiveInstant", "effectivePeriod"),
    "Procedure": ("performedDateTime", "performedPeriod"),
    "Immunization": ("occurrenceDateTime",),
    "MedicationAdministration": ("effectiveDateTime", "effectivePeriod"),
    "MedicationDispense": ("whenHandedOver",),
    "MedicationRequest": ("authoredOn",),
    "ImagingStudy": ("started",),
    "DiagnosticReport": ("effectiveDateTime", "effectivePeriod"),
    "ServiceRequest": ("authoredOn",),
}
# A death is often known to the day only, and its paperwork takes another.
_AFTER_DEATH = timedelta(days=1)
# Encounters begin at a desk: what was drawn or given while somebody typed is no fault.
_AROUND_ENCOUNTER = timedelta(hours=1)
_FAR = datetime(9999, 12, 31)


class Chronology:
    """Knows births, deaths and encounters, and compares events with them.

    Attributes:
        num_compared: How many events were compared with an encounter, by type.
        num_outside: How many of those were outside of it.
    """

    def __init__(self) -> None:
        self._lives: dict[str, tuple[str, _Bounds | None]] = {}
        self._encounters: dict[str, tuple[datetime | None, datetime | None]] = {}
        self.num_compared: Counter[str] = Counter()
        self.num_outside: Counter[str] = Counter()

    def learn(self, resource: Resource, url: Any = None) -> None:
        """Enters a Patient or an Encounter, or those in a bundle; others are left alone.

        Args:
            resource: Parsed JSON.
            url: The URN of a bundle entry, which references in the bundle name.
        """
        kind, name = resource.get("resourceType"), resource.get("id")
        if kind == "Bundle":
            for entry, inner in entries_of(resource):
                self.learn(inner, entry.get("fullUrl"))
            return
        if isinstance(url, str) and url.startswith("urn:"):
            self._learn(kind, url, resource)
        if isinstance(name, str):
            self._learn(kind, name, resource)

    def _learn(self, kind: Any, name: str, resource: Resource) -> None:
        if kind == "Patient":
            birth = resource.get("birthDate")
            death = _bounds(resource.get("deceasedDateTime"))
            self._lives[name] = (birth if isinstance(birth, str) else "", death)
        elif kind == "Encounter" and isinstance(period := resource.get("period"), dict):
            start, end = _bounds(period.get("start")), _bounds(period.get("end"))
            self._encounters[name] = (start[0] if start else None, end[1] if end else None)

    def check(self, resource: Resource) -> list[Finding]:
        """What is out of order in one resource, or in the entries of a bundle; at any precision and offset certain."""
        kind = resource.get("resourceType")
        if kind == "Bundle":
            return [each for _, inner in entries_of(resource) for each in self.check(inner)]
        names = EVENTS.get(kind) if isinstance(kind, str) else None
        if names is None or resource.get("status") in ("entered-in-error", "cancelled", "not-done"):
            return []
        found: list[Finding] = []
        for name in names:
            value = resource.get(name)
            ends = (value.get("start"), value.get("end")) if isinstance(value, dict) else (value, value)
            first, last = _bounds(ends[0]), _bounds(ends[1])
            if moment := first or last:
                found += self._compare_life(resource, name, ends, first)
                found += self._compare_encounter(resource, name, moment)
        if not found:
            return found
        place = place_of(resource)
        return [Finding(each.rule, each.message, each.severity, f"{place} {each.where}") for each in found]

    def _compare_life(self, resource: Resource, name: str, ends: Any, first: _Bounds | None) -> list[Finding]:
        subject = resource.get("subject") or resource.get("patient")
        birth, death = self._lives.get(_target(subject, "Patient/"), ("", None))
        found: list[Finding] = []
        if birth and any(isinstance(each, str) and is_certainly_before(each, birth) for each in ends):
            message = "an event should not lie before the birth of its subject"
            found.append(Finding("before-birth", message, "warning", name))
        if death and first and first[0] > _later(death[1], _AFTER_DEATH):
            message = "an event should not begin more than a day after the death of its subject"
            found.append(Finding("after-death", message, "warning", name))
        return found

    def _compare_encounter(self, resource: Resource, name: str, moment: _Bounds) -> list[Finding]:
        encounter = resource.get("encounter") or resource.get("context")
        window = self._encounters.get(_target(encounter, "Encounter/"))
        if window is None:
            return []
        kind = str(resource["resourceType"])
        self.num_compared[kind] += 1
        start, end = window
        too_early = start is not None and _later(moment[1], _AROUND_ENCOUNTER) < start
        if not too_early and not (end is not None and moment[0] > _later(end, _AROUND_ENCOUNTER)):
            return []
        self.num_outside[kind] += 1
        message = "an event should lie within its encounter, give or take an hour"
        return [Finding("outside-encounter", message, "warning", name)]


def entries_of(bundle: Resource) -> list[tuple[Resource, Resource]]:
    """The entries of a bundle that have a resource, each with it."""
    entries = bundle.get("entry")
    listed = [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
    return [(each, each["resource"]) for each in listed if isinstance(each.get("resource"), dict)]


def _bounds(value: Any) -> _Bounds | None:
    return moment_bounds(value) if isinstance(value, str) else None


def _later(moment: datetime, span: timedelta) -> datetime:
    try:
        return moment + span
    except OverflowError:
        return _FAR.replace(tzinfo=moment.tzinfo)


def _target(reference: Any, prefix: str) -> str:
    """The id that a reference to a type names; empty if it names none."""
    text = reference.get("reference") if isinstance(reference, dict) else None
    if not isinstance(text, str):
        return ""
    if text.startswith("urn:"):
        return text
    before, found, name = text.partition("/_history/")[0].rpartition(prefix)
    return name if found and (not before or before.endswith("/")) else ""
