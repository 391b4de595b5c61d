"""FHIR R4 in: every resource that happened to a subject becomes an event with child rows. See docs/conventions.md.

Two passes: `index_source` finds patients, encounters and medications; `read_events` then streams the events, so that
memory grows with the number of patients and encounters and not with that of events.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from medtwin.core.codes import NEGATED_PREFIX, preferred
from medtwin.core.events import Event
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger, Reject
from medtwin.fhir.codings import ShapeError, as_list, as_object, as_text, coding_code, joined
from medtwin.fhir.details import Draft, RejectedError, parse_date, walk
from medtwin.fhir.elements import COMPONENT_TREE, TABLES, ResourceTable, implied_time
from medtwin.fhir.index import FhirIndex, Medication, contained_resources, item_id, read_medication
from medtwin.fhir.patient import patient_rows
from medtwin.fhir.source import FhirSource, Item
from medtwin.fhir.terms import RESOURCE_TYPES
from medtwin.fhir.times import BadDateError, Moment, join_period
from medtwin.fhir.values import VALUE_NAMES, Detail, read_value

_BATCH_ROWS = 20_000


def read_events(
    source: FhirSource,
    index: FhirIndex,
    pseudonyms: Pseudonyms,
    ledger: Ledger,
    *,
    batch_rows: int = _BATCH_ROWS,
) -> Iterator[list[Event]]:
    """The events of a source in batches, each event before its child rows; in the order of the files.

    Args:
        source: The files.
        index: What `index_source` found in them.
        pseudonyms: Gives subjects, ids, UIDs and the shift of dates.
        ledger: Takes the books: what was read, carried, not carried and rejected.
        batch_rows: Rows after which a batch is given out.
    """
    reader = _Reader(index, pseudonyms, ledger)
    ledger.flags["ignored-files"] += len(source.ignored)
    batch: list[Event] = []
    for item in source.items():
        batch += reader.read(item)
        if len(batch) >= batch_rows:
            yield batch
            batch = []
    if batch:
        yield batch


class _When(NamedTuple):
    """When an event was: start, end, the precision of an end that differs, and the element where it is not implied."""

    time: datetime | None
    end_time: datetime | None
    precision: str | None
    end_precision: str | None
    choice: str | None


class _What(NamedTuple):
    """What happened: all codings, and further child rows that its code element gives."""

    codes: list[str]
    details: list[Detail]


class _Reader:
    """Turns items into rows; knows the subjects and what was read before."""

    def __init__(self, index: FhirIndex, pseudonyms: Pseudonyms, ledger: Ledger) -> None:
        self.index, self.pseudonyms, self.ledger = index, pseudonyms, ledger
        self._subjects: dict[str, tuple[int, timedelta]] = {}
        self._persons: set[int] = set()
        self._seen: set[int] = set()

    def read(self, item: Item) -> list[Event]:
        """The rows of one item; none if it is not carried or rejected, which the ledger then says."""
        kind = _kind_of(item)
        self.ledger.read[kind or "unreadable"] += 1
        if item.fault is not None:
            return self._reject(item, kind, item.fault.rule, item.fault.reason)
        if kind == "":
            return self._reject(item, kind, "unknown-type", "resourceType must name a FHIR R4 resource type")
        if kind not in TABLES and kind != "Patient":
            self.ledger.not_carried[kind] += 1
            return []
        try:
            draft = self._patient(item) if kind == "Patient" else self._event(item, TABLES[kind])
        except RejectedError as error:
            return self._reject(item, kind, error.rule, error.reason)
        except ShapeError as error:
            return self._reject(item, kind, "malformed-resource", str(error))
        draft.settle(self.ledger)
        # A Patient of whom nothing but a name is known gives no row.
        (self.ledger.carried if draft.rows else self.ledger.not_carried)[kind] += 1
        return draft.rows

    def _reject(self, item: Item, kind: str, rule: str, reason: str) -> list[Event]:
        self.ledger.reject(Reject(item.file, item.line, kind, rule, reason))
        return []

    def _claim(self, item: Item) -> str:
        """The id of an item's resource, which nothing before it may have had."""
        kind, name = item.resource["resourceType"], item_id(item)
        if name is None:
            raise ShapeError(f"{kind}.id must be a short text")
        key = hash((kind, name))
        if key in self._seen:
            raise RejectedError("duplicate-id", "type and id must be unique: the first of them was taken")
        self._seen.add(key)
        return name

    def _subject(self, patient: str) -> tuple[int, timedelta]:
        known = self._subjects.get(patient)
        if known is None:
            subject_id = self.pseudonyms.subject_id(self.index.identities[patient])
            known = self._subjects[patient] = subject_id, self.pseudonyms.shift(subject_id)
        return known

    def _patient(self, item: Item) -> Draft:
        subject_id, shift = self._subject(self._claim(item))
        if subject_id in self._persons:
            reason = "another Patient has the same medical record number: its events were joined, its person facts not"
            raise RejectedError("duplicate-person", reason)
        draft = Draft("Patient", self.index, item.scope, self.pseudonyms, shift)
        patient_rows(item.resource, subject_id, draft)
        self._persons.add(subject_id)
        return draft

    def _event(self, item: Item, table: ResourceTable) -> Draft:
        resource = item.resource
        status = _status_of(resource, table)
        name = self._claim(item)
        patient = self._patient_of(item, table)
        subject_id, shift = self._subject(patient)
        draft = Draft(table.name, self.index, item.scope, self.pseudonyms, shift)
        event_id = self.pseudonyms.event_id(table.name, name)
        visit = (table.name, name) if table.name == "Encounter" else self._encounter_of(item, table, patient, draft)
        known = _known_paths(table)
        when = self._when(resource, table, visit, draft, known)
        what = self._what(resource, table, draft)
        columns, details = read_value(resource, table.name, draft) if table.name == "Observation" else ({}, [])
        negated = status in table.negated or resource.get("doNotPerform") is True
        code = preferred(what.codes)
        draft.begin(
            Event(
                subject_id,
                when.time,
                NEGATED_PREFIX + code if negated else code,
                encounter_id=self.pseudonyms.event_id(*visit) if visit is not None else None,
                event_id=event_id,
                end_time=when.end_time,
                status=status,
                time_precision=when.precision,
                source_code=joined(what.codes),
                resource=table.name,
                **columns,
            )
        )
        _add_details(draft, when, [*what.details, *details])
        walk(draft, table.tree, resource, ("", table.name), frozenset(known))
        if table.name == "Observation":
            _components(resource, draft, negated=negated)
        return draft

    def _patient_of(self, item: Item, table: ResourceTable) -> str:
        """The Patient id of a resource's subject."""
        path = f"{table.name}.{table.subject}"
        reference = item.resource.get(table.subject)
        if reference is None:
            raise RejectedError("no-subject", f"{path} must refer to a Patient")
        found = self.index.resolve(reference, item.scope, path)
        if found is None or found[0] != "Patient" or found[1] not in self.index.identities:
            raise RejectedError("unknown-subject", f"{path} must refer to a Patient of this source")
        return found[1]

    def _encounter_of(self, item: Item, table: ResourceTable, patient: str, draft: Draft) -> tuple[str, str] | None:
        """The encounter of a resource, if it is one of the same patient."""
        reference = item.resource.get(table.encounter) if table.encounter else None
        if reference is None:
            return None
        path = f"{table.name}.{table.encounter}"
        found = self.index.resolve(reference, item.scope, path)
        draft.leave_all(reference, ("reference", "type"), path)
        period = self.index.encounters.get(found[1]) if found is not None and found[0] == "Encounter" else None
        owner = period.patient if period is not None else None
        if owner is None or self.index.identities.get(owner[1]) != self.index.identities[patient]:
            draft.left.append(path)
            draft.flags.append("unknown-encounter")
            return None
        return found

    def _when(
        self,
        resource: dict[str, Any],
        table: ResourceTable,
        visit: tuple[str, str] | None,
        draft: Draft,
        known: set[str],
    ) -> _When:
        """When it was: by the first of the table's elements that says so."""
        for choice in table.times:
            start, end = self._moments(resource, choice, table, visit)
            if start is not None:
                break
        else:
            if not table.may_be_undated:
                raise RejectedError("no-time", f"{table.name} must be dated by {' or '.join(_elements_of(table))}")
            draft.flags.append(f"undated-{table.name}")
            return _When(None, None, None, None, None)
        known.add(f"{table.name}.{choice}")
        if table.end is not None:
            known.add(f"{table.name}.{table.end}")
            value = _dig(resource, table.end, table.name)
            end = parse_date(value, f"{table.name}.{table.end}") if value is not None else None
        start = start.moved(draft.shift)
        if start.precision == "second":
            draft.flags.append("instant-without-offset")
        try:
            end_time, end_precision = join_period(start, end.moved(draft.shift)) if end else (None, None)
        except BadDateError:
            raise RejectedError("ends-before-start", f"{table.name} must not end before it starts") from None
        label = _borrowed_label(choice, visit, self.index)
        implied = implied_time(table, has_end=end is not None)
        return _When(start.time, end_time, start.precision, end_precision, None if label == implied else label)

    def _moments(
        self, resource: dict[str, Any], choice: str, table: ResourceTable, visit: tuple[str, str] | None
    ) -> tuple[Moment | None, Moment | None]:
        """Start and end by one element, or by the encounter's."""
        if choice.startswith("@"):
            period = self.index.encounters.get(visit[1]) if visit is not None else None
            if period is None:
                return None, None
            return (period.end if choice == "@encounter-end" else None) or period.start, None
        value = _dig(resource, choice, table.name)
        path = f"{table.name}.{choice}"
        if value is None:
            return None, None
        if not choice.lower().endswith("period"):
            return parse_date(value, path), None
        moments = []
        for name in ("start", "end"):
            text = as_object(value, path).get(name)
            moments.append(parse_date(text, f"{path}.{name}") if text is not None else None)
        return moments[0], moments[1]

    def _what(self, resource: dict[str, Any], table: ResourceTable, draft: Draft) -> _What:
        """What happened, by the table's code element."""
        if table.code == "medication":
            what = self._medication(resource, draft)
        elif table.code == "modality":
            what = _modality(resource, draft)
        elif table.code.endswith("*"):
            what = _first_concept(resource, table, draft)
        else:
            value = resource.get(table.code)
            what = _What(draft.concept(value, f"{table.name}.{table.code}") if value is not None else [], [])
        if not what.codes:
            path = f"{table.name}.{table.code.rstrip('*')}"
            reason = f"{path} must have a coding, its code of at most 64 characters: text alone is not carried"
            raise RejectedError("no-coding", reason)
        return what

    def _medication(self, resource: dict[str, Any], draft: Draft) -> _What:
        concept, reference = resource.get("medicationCodeableConcept"), resource.get("medicationReference")
        if concept is not None:
            return _What(draft.concept(concept, f"{draft.kind}.medicationCodeableConcept"), [])
        if reference is None:
            return _What([], [])
        path = f"{draft.kind}.medicationReference"
        found = self.index.resolve(reference, draft.scope, path)
        contained = contained_resources(resource).get(str(reference.get("reference")))
        if contained is not None and contained.get("resourceType") == "Medication":
            medication = read_medication(contained)
        else:
            medication = self.index.medications.get(found[1], Medication()) if found else Medication()
        if medication.codes:
            return _What(list(medication.codes), [])
        parts = [*medication.ingredients, *(self._ingredient(name) for name in medication.references)]
        details: list[Detail] = [
            ("medication.ingredient", preferred(part), {"source_code": joined(list(part))}) for part in parts if part
        ]
        return _What([code for _, code, _ in details[:1] if code], details)

    def _ingredient(self, name: str) -> tuple[str, ...]:
        medication = self.index.medications.get(name)
        return medication.codes if medication is not None else ()


def _kind_of(item: Item) -> str:
    """The resource type of an item; empty where it is none of FHIR R4."""
    kind = item.resource.get("resourceType") if isinstance(item.resource, dict) else None
    return kind if isinstance(kind, str) and kind in RESOURCE_TYPES else ""


def _status_of(resource: dict[str, Any], table: ResourceTable) -> str | None:
    """The status, which must be known: one that cannot be read could mean that it never happened."""
    value, path = resource.get(table.status), f"{table.name}.{table.status}"
    if table.status_system is not None and value is not None:
        codings = [as_object(each, path) for each in as_list(as_object(value, path).get("coding"), path)]
        words = [coding.get("code") for coding in codings if coding.get("code") is not None]
        known = (word for word in words if isinstance(word, str) and word in table.statuses)
        value = next(known, words[0] if words else None)
    if value is None:
        return None
    status = as_text(value, path)
    if status == "entered-in-error":
        raise RejectedError("entered-in-error", "its source withdrew it")
    if status not in table.statuses:
        raise ShapeError(f"{path} must be in the value set that FHIR R4 requires")
    return status


_PLAIN = ("resourceType", "id", "contained")
_CODE_ELEMENTS = {
    "medication": ("medicationCodeableConcept", "medicationReference"),
    "modality": (),
    "type*": (),
    "category*": (),
}


def _known_paths(table: ResourceTable) -> set[str]:
    """Paths that are read outside of the tree of details."""
    return set(_KNOWN_PATHS[table.name])


def _fixed_paths(table: ResourceTable) -> list[str]:
    names = [*_PLAIN, table.subject, table.status, *_CODE_ELEMENTS.get(table.code, (table.code,))]
    if table.encounter is not None:
        names.append(table.encounter)
    if table.name == "Observation":
        names += ["component", *VALUE_NAMES]
    return [f"{table.name}.{name}" for name in names]


_KNOWN_PATHS = {table.name: _fixed_paths(table) for table in TABLES.values()}


def _elements_of(table: ResourceTable) -> list[str]:
    return [choice.replace("@encounter-", "the encounter's ") for choice in table.times]


def _dig(resource: dict[str, Any], path: str, name: str) -> Any:
    """The value at a path without lists; None if any step of it is absent."""
    value: Any = resource
    for step in path.split("."):
        if value is None:
            return None
        value = as_object(value, f"{name}.{path}").get(step)
    return value


def _borrowed_label(choice: str, visit: tuple[str, str] | None, index: FhirIndex) -> str:
    """The name of a time; an encounter that has not ended lends its start."""
    if choice == "@encounter-end" and visit is not None and index.encounters[visit[1]].end is None:
        return "encounter-start"
    return choice.removeprefix("@")


def _first_concept(resource: dict[str, Any], table: ResourceTable, draft: Draft) -> _What:
    """The first coded concept of a list; the others stay details. Without one an Encounter goes by its class."""
    name = table.code.rstrip("*")
    path = f"{table.name}.{name}"
    for number, concept in enumerate(as_list(resource.get(name), path)):
        codes = draft.concept(concept, path)
        if codes:
            draft.main = (path, number)
            return _What(codes, [])
    if table.name == "Encounter" and resource.get("class") is not None:
        code = coding_code(resource["class"], "Encounter.class")
        return _What([f"ENCOUNTER//{code.partition('//')[2]}"] if code else [], [])
    return _What([], [])


def _modality(resource: dict[str, Any], draft: Draft) -> _What:
    """The modality of a study, else that of its first series."""
    for number, coding in enumerate(as_list(resource.get("modality"), "ImagingStudy.modality")):
        code = coding_code(coding, "ImagingStudy.modality")
        if code is not None:
            draft.main = ("ImagingStudy.modality", number)
            return _What([code], [])
    for series in as_list(resource.get("series"), "ImagingStudy.series"):
        coding = as_object(series, "ImagingStudy.series").get("modality")
        code = coding_code(coding, "ImagingStudy.series.modality") if coding is not None else None
        if code is not None:
            return _What([code], [])
    return _What([], [])


def _add_details(draft: Draft, when: _When, details: list[Detail]) -> None:
    if when.choice is not None:
        draft.add("time", when.choice)
    if when.end_precision is not None:
        draft.add("endPrecision", text_value=when.end_precision)
    for row, code, values in details:
        draft.add(row, code, **values)


def _components(resource: dict[str, Any], draft: Draft, *, negated: bool) -> None:
    """Appends the components of an Observation: events of their own that name it as their parent."""
    parent, path = draft.event, "Observation.component"
    for number, component in enumerate(as_list(resource.get("component"), path), start=1):
        concept = as_object(component, path).get("code")
        codes = draft.concept(concept, f"{path}.code") if concept is not None else []
        if not codes:
            draft.left.append(path)
            continue
        columns, details = read_value(component, path, draft)
        code = preferred(codes)
        draft.begin(
            Event(
                parent.subject_id,
                parent.time,
                NEGATED_PREFIX + code if negated else code,
                encounter_id=parent.encounter_id,
                event_id=f"{parent.event_id}.{number}",
                parent_id=parent.event_id,
                end_time=parent.end_time,
                status=parent.status,
                time_precision=parent.time_precision,
                source_code=joined(codes),
                resource=parent.resource,
                **columns,
            )
        )
        for row, coded, values in details:
            draft.add(row, coded, **values)
        known = frozenset(f"{path}.{name}" for name in ("code", *VALUE_NAMES))
        walk(draft, COMPONENT_TREE, component, ("", path), known)
