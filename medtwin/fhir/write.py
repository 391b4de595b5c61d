"""FHIR R4 out: the events of a subject as resources, the inverse of `medtwin.fhir.read`. See docs/conventions.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import medtwin
from medtwin.core.codes import CHILD_PREFIX, NEGATED_PREFIX, SYSTEMS
from medtwin.core.events import Event, split_child_code
from medtwin.core.images import ImageRow
from medtwin.fhir.bare import complete, stable_id, with_images
from medtwin.fhir.codings import code_to_coding, codes_to_concept, columns_to_quantity, plain_number
from medtwin.fhir.elements import COMPONENT_ELEMENTS, TABLES, Element, Kind, ResourceTable, implied_time
from medtwin.fhir.index import HTEST_SYSTEM, ORIGIN_SYSTEM
from medtwin.fhir.patient import is_patient_row, patient_id, rows_to_patient
from medtwin.fhir.terms import ELEMENT_NAMES, VITAL_SIGNS
from medtwin.fhir.times import BadDateError, format_moment, parse_moment
from medtwin.fhir.values import write_value

Resource = dict[str, Any]
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_STEP = re.compile(r"([A-Za-z]+)(?:\[(\d{1,3})\])?")
_CHOICE = re.compile(r"(value|rate|dose|asNeeded)(?!AndRate)[A-Z]\w+")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
# Child rows that say how another row is to be written.
_GUIDES = frozenset(
    {"time", "endPrecision", "valueType", "valueCodeableConcept", "comparator", "medication.ingredient"}
)
_COMPONENT_ROWS = {element.row_path: element for element in COMPONENT_ELEMENTS}


@dataclass(frozen=True)
class ExportContext:
    """What every resource of an export says of where it comes from.

    Attributes:
        origin: Whether the subjects are real, simulated or synthetic; all but real are labelled as test data.
        run: URI that names the export; stands in `meta.source`.
        recorded: When it was made.
    """

    origin: Literal["real", "simulated", "synthetic"]
    run: str = "urn:medtwin:export"
    recorded: datetime = field(default_factory=lambda: datetime.now(UTC))
    version: str = medtwin.__version__

    def meta(self) -> Resource:
        """The `meta` of a resource."""
        meta: Resource = {"source": self.run}
        if self.origin != "real":
            label = {"system": HTEST_SYSTEM, "code": "HTEST", "display": "test health data"}
            meta |= {"security": [label], "tag": [{"system": ORIGIN_SYSTEM, "code": self.origin}]}
        return meta


@dataclass(frozen=True)
class SubjectExport:
    """The resources of one subject, the Patient first, and what of its rows FHIR could not hold, by kind of row."""

    resources: list[Resource]
    not_carried: Counter[str]


def events_to_resources(
    events: Iterable[Event], *, context: ExportContext, images: Iterable[ImageRow] = ()
) -> SubjectExport:
    """The resources of one subject.

    Args:
        events: All rows of the subject, child rows included; bare MEDS rows are given a resource type and an id.
        context: Where they come from.
        images: The subject's series: they complete its ImagingStudy resources.

    Raises:
        ValueError: If the rows are of several subjects, or there are none.
    """
    rows = with_images(complete(events), images)
    subjects = {row.subject_id for row in rows}
    if len(subjects) != 1:
        raise ValueError(f"events must be of one subject, got {len(subjects)}")
    subject = _Subject(subjects.pop(), rows)
    resources = [rows_to_patient(subject.subject_id, subject.person)]
    resources += [subject.resource(event) for event in subject.roots]
    for resource in resources:
        tags = resource.get("meta", {}).get("tag", [])
        meta = context.meta()
        if tags or "tag" in meta:
            meta["tag"] = meta.get("tag", []) + tags
        resource["meta"] = meta
    return SubjectExport(resources, subject.not_carried)


def fhir_id(event_id: str) -> str:
    """The id of an event's resource: its own, where FHIR and its servers allow it."""
    return event_id if _ID.fullmatch(event_id) and not event_id.isdecimal() else stable_id(event_id)


class _Subject:
    """The rows of one subject by what they are for."""

    def __init__(self, subject_id: int, rows: list[Event]) -> None:
        self.subject_id = subject_id
        self.person: list[Event] = []
        self.roots: list[Event] = []
        self.children: dict[str, list[Event]] = {}
        self.not_carried: Counter[str] = Counter()
        for row in rows:
            if row.parent_id is not None:
                self.children.setdefault(row.parent_id, []).append(row)
            elif is_patient_row(row):
                self.person.append(row)
            elif row.resource in TABLES and row.event_id is not None:
                self.roots.append(row)
            else:
                self.not_carried["row-without-resource"] += 1
        self.kinds = {root.event_id: root.resource for root in self.roots}
        for parent, children in self.children.items():
            if parent not in self.kinds and parent.rpartition(".")[0] not in self.kinds:
                self.not_carried["child-without-event"] += len(children)

    def reference(self, event_id: str | None, targets: frozenset[str]) -> Resource | None:
        """A reference to another event of the subject; None if it has none of that id and kind."""
        kind = self.kinds.get(event_id)
        if event_id is None or kind is None or kind not in targets:
            return None
        return {"reference": f"{kind}/{fhir_id(event_id)}"}

    def resource(self, event: Event) -> Resource:
        """The resource of an event with its child rows."""
        table = TABLES[event.resource or ""]
        children = self.children.get(event.event_id or "", [])
        guides = {path: row for row in children if (path := _path_of(row)) in _GUIDES}
        body: Resource = {"resourceType": table.name, "id": fhir_id(event.event_id or "")}
        _write_status(body, event, table, self.not_carried)
        _write_code(body, event, table, children)
        body[table.subject] = {"reference": f"Patient/{patient_id(self.subject_id)}"}
        encounter = self.reference(event.encounter_id, frozenset({"Encounter"}))
        if table.encounter is not None and encounter is not None:
            body[table.encounter] = encounter
        self._write_times(body, event, table, guides)
        if table.name == "Observation":
            body |= self._value(event, guides)
        self._write_details(body, children, table.by_row)
        if table.name == "Observation":
            self._write_components(body, children)
            _add_vital_sign_category(body, event)
        else:
            self._count_values(event)
        # Only a row with an index can leave a gap before it.
        has_gaps = any("[" in row.code for row in children)
        return _finish(_pruned(body) if has_gaps else body, table)

    def _value(self, event: Event, guides: dict[str, Event]) -> Resource:
        value = write_value(event, guides)
        if not value:
            self._count_values(event)
        return value

    def _count_values(self, event: Event) -> None:
        for name in ("numeric_value", "text_value"):
            if getattr(event, name) is not None:
                self.not_carried[f"{event.resource}.{name}"] += 1

    def _write_times(self, body: Resource, event: Event, table: ResourceTable, guides: dict[str, Event]) -> None:
        """Writes the element that dates the event, and its end."""
        if event.time is None:
            body.update(table.undated)
            return
        implied = implied_time(table, has_end=event.end_time is not None)
        choice = split_child_code(guides["time"].code)[2] if "time" in guides else implied
        is_second = event.time_precision is None or event.time_precision.startswith("second")
        if choice in ("encounter-end", "encounter-start"):
            choice = ""
        elif choice not in table.times or (choice in ("issued", "effectiveInstant") and not is_second):
            choice = implied
        start = format_moment(event.time, event.time_precision)
        end = None
        if event.end_time is not None:
            precision = guides["endPrecision"].text_value if "endPrecision" in guides else event.time_precision
            end = format_moment(event.end_time, precision)
        if choice.lower().endswith("period"):
            _set_path(body, choice, {"start": start, "end": end} if end else {"start": start})
        elif choice:
            _set_path(body, choice, start)
        if end and table.end is not None:
            body[table.end] = end
        elif end and not choice.lower().endswith("period"):
            self.not_carried[f"{table.name}.end_time"] += 1

    def _write_details(self, body: Resource, children: list[Event], elements: dict[str, Element]) -> None:
        for row in children:
            path = _path_of(row)
            if path is None or path in _GUIDES:
                continue
            element = elements.get(path)
            value = _WRITERS[element.kind](self, element, row) if element is not None else None
            if element is None or value is None or not _place(body, element, split_child_code(row.code)[1], value):
                known = all(step in ELEMENT_NAMES for step in path.split("."))
                self.not_carried[f"{row.resource}.{path if known else '?'}"] += 1

    def _write_components(self, body: Resource, children: list[Event]) -> None:
        """Writes the components in the order of their numbers."""
        found = [row for row in children if not row.code.startswith(CHILD_PREFIX)]
        found.sort(key=_component_number)
        for row in found:
            code = row.code.removeprefix(NEGATED_PREFIX)
            component: Resource = {"code": codes_to_concept(code, row.source_code)}
            details = self.children.get(row.event_id or "", [])
            guides = {path: detail for detail in details if (path := _path_of(detail)) in _GUIDES}
            component |= self._value(row, guides)
            self._write_details(component, details, _COMPONENT_ROWS)
            body.setdefault("component", []).append(_pruned(component))


def _component_number(row: Event) -> int:
    number = (row.event_id or "").rpartition(".")[2]
    return int(number) if number.isdecimal() else 0


def _path_of(row: Event) -> str | None:
    """The element path of a child row without indices; None for a component."""
    return _bare_path(row.code)


@lru_cache(maxsize=1 << 16)
def _bare_path(code: str) -> str | None:
    return re.sub(r"\[\d+\]", "", split_child_code(code)[1]) if code.startswith(CHILD_PREFIX) else None


def _write_status(body: Resource, event: Event, table: ResourceTable, not_carried: Counter[str]) -> None:
    """Writes the status. A negated code must stay negated, whatever the status says."""
    status = event.status
    if status is not None and status not in table.statuses:
        not_carried[f"{table.name}.status"] += 1
        status = None
    if event.code.startswith(NEGATED_PREFIX) and status not in table.negated:
        if any(element.path == "doNotPerform" for element in table.elements):
            body["doNotPerform"] = True
        elif table.negated:
            status = table.negated[0]
    if status is None:
        return
    if table.status_system is None:
        body[table.status] = status
    else:
        body[table.status] = {"coding": [{"system": table.status_system, "code": status}]}


def _write_code(body: Resource, event: Event, table: ResourceTable, children: list[Event]) -> None:
    code = event.code.removeprefix(NEGATED_PREFIX)
    concept = codes_to_concept(code, event.source_code)
    if table.code == "medication":
        _write_medication(body, concept, [row for row in children if _path_of(row) == "medication.ingredient"])
    elif table.code == "modality":
        body["modality"] = [code_to_coding(code)]
    elif table.code.endswith("*"):
        classes = {split_child_code(row.code)[2] for row in children if _path_of(row) == "class"}
        # An encounter without a type goes by its class, which its own element says.
        if not any(each and code == f"ENCOUNTER//{each.partition('//')[2]}" for each in classes):
            body[table.code.rstrip("*")] = [concept]
    else:
        body[table.code] = concept


def _write_medication(body: Resource, concept: Resource, ingredients: list[Event]) -> None:
    """A medication by its code; a mixture without one as a contained resource with its ingredients."""
    if not ingredients:
        body["medicationCodeableConcept"] = concept
        return
    parts = [
        {"itemCodeableConcept": codes_to_concept(split_child_code(row.code)[2] or "", row.source_code)}
        for row in ingredients
    ]
    body["contained"] = [{"resourceType": "Medication", "id": "mixture", "ingredient": parts}]
    body["medicationReference"] = {"reference": "#mixture"}


def _add_vital_sign_category(body: Resource, event: Event) -> None:
    """R4's vital-sign profiles claim these codes, and demand their category."""
    codes = [event.code, *(event.source_code or "").split(" | ")]
    if not any(code.removeprefix("LOINC//") in VITAL_SIGNS for code in codes if code.startswith("LOINC//")):
        return
    category = {"coding": [{"system": SYSTEMS["OBSCATEGORY"], "code": "vital-signs"}]}
    categories = body.setdefault("category", [])
    words = {coding.get("code") for each in categories for coding in each["coding"]}
    if "vital-signs" not in words:
        categories.append(category)


def _set_path(body: Resource, path: str, value: Any) -> None:
    *steps, name = path.split(".")
    for step in steps:
        body = body.setdefault(step, {})
    body[name] = value


def _place(body: Resource, element: Element, row_path: str, value: Any) -> bool:
    """Puts a value where its element stands; the row's path says which of repeated structures it belongs to.

    Returns:
        False if it was not written, because another form of the same element, such as of rate[x], is there.
    """
    indices = {name: int(number) for name, number in _STEP.findall(row_path) if number}
    *steps, (name, repeats) = element.steps
    for step, is_list in steps:
        if _is_taken(body, step):
            return False
        inner = body.setdefault(step, [] if is_list else {})
        if is_list:
            index = indices.get(step, 0)
            inner.extend({} for _ in range(index + 1 - len(inner)))
            inner = inner[index]
        body = inner
    if _is_taken(body, name):
        return False
    if element.kind is Kind.TIMED:
        body |= {name if key == "value" else f"{name}Unit": each for key, each in value.items()}
    elif repeats:
        body.setdefault(name, []).append(value)
    else:
        body[name] = value
    return True


def _is_taken(body: Resource, name: str) -> bool:
    """Whether a choice element such as value[x] has another of its forms already."""
    choice = _choice_of(name)
    return choice is not None and any(other != name and _choice_of(other) == choice for other in body)


@lru_cache(maxsize=256)
def _choice_of(name: str) -> str | None:
    if name == "dataAbsentReason":  # obs-6: it stands in the place of a value.
        return "value"
    found = _CHOICE.fullmatch(name)
    return found.group(1) if found else None


def _finish(body: Resource, table: ResourceTable) -> Resource:
    """Drops structures that lack what they need, and adds what R4 requires."""
    for path, name in table.needs.items():
        if path in body:
            body[path] = [each for each in body[path] if each.get(name)]
            if not body[path]:
                del body[path]
    for path, least in table.required.items():
        *steps, name = path.split(".")
        for holder in _holders(body, steps):
            holder.setdefault(name, least)
    if table.name == "ImagingStudy":
        _count_instances(body)
    return body


def _count_instances(study: Resource) -> None:
    series = study.get("series", [])
    for each in series:
        each.setdefault("modality", study["modality"][0])
    if series:
        study["numberOfSeries"] = len(series)
    counts = [each.get("numberOfInstances") for each in series]
    if counts and None not in counts:
        study["numberOfInstances"] = sum(counts)


def _holders(body: Resource, steps: list[str]) -> list[Resource]:
    """The objects at a path, of which there are none where a step is absent."""
    holders = [body]
    for step in steps:
        inner = [holder[step.rstrip("*")] for holder in holders if step.rstrip("*") in holder]
        holders = [each for list_ in inner for each in list_] if step.endswith("*") else inner
    return holders


def _pruned(value: Any) -> Any:
    """The value without empty objects and lists."""
    if isinstance(value, dict):
        kept = {name: _pruned(inner) for name, inner in value.items()}
        return {name: inner for name, inner in kept.items() if inner not in ({}, [])}
    if isinstance(value, list):
        return [inner for inner in map(_pruned, value) if inner not in ({}, [])]
    return value


def _concept(_subject: _Subject, _element: Element, row: Event) -> Any:
    code = split_child_code(row.code)[2]
    return codes_to_concept(code, row.source_code) if code else None


def _coding(_subject: _Subject, _element: Element, row: Event) -> Any:
    code = split_child_code(row.code)[2]
    return code_to_coding(code) if code else None


def _code(_subject: _Subject, element: Element, row: Event) -> Any:
    return row.text_value if row.text_value in element.words else None


def _boolean(_subject: _Subject, _element: Element, row: Event) -> Any:
    return {"true": True, "false": False}.get(row.text_value or "")


def _integer(_subject: _Subject, _element: Element, row: Event) -> Any:
    number = plain_number(row.numeric_value) if row.numeric_value is not None else None
    return number if isinstance(number, int) and number >= 0 else None


def _timed(_subject: _Subject, _element: Element, row: Event) -> Any:
    if row.numeric_value is None:
        return None
    value = {"value": plain_number(row.numeric_value)}
    return value | {"unit": row.unit} if row.unit else value


def _quantity(_subject: _Subject, _element: Element, row: Event) -> Any:
    return columns_to_quantity(row.numeric_value, row.unit, row.source_unit) if row.numeric_value is not None else None


def _reference(subject: _Subject, element: Element, row: Event) -> Any:
    return subject.reference(row.text_value, element.targets)


def _date(_subject: _Subject, _element: Element, row: Event) -> Any:
    try:
        return str(parse_moment(row.text_value or ""))
    except BadDateError:
        return None


def _uid(_subject: _Subject, _element: Element, row: Event) -> Any:
    uid = row.text_value or ""
    return uid if len(uid) <= 64 and _UID.fullmatch(uid) else None


def _study_uid(subject: _Subject, element: Element, row: Event) -> Any:
    uid = _uid(subject, element, row)
    return {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"} if uid else None


_WRITERS: dict[Kind, Callable[[_Subject, Element, Event], Any]] = {
    Kind.CONCEPT: _concept,
    Kind.CODING: _coding,
    Kind.CODE: _code,
    Kind.BOOLEAN: _boolean,
    Kind.INTEGER: _integer,
    Kind.TIMED: _timed,
    Kind.QUANTITY: _quantity,
    Kind.REFERENCE: _reference,
    Kind.DATE: _date,
    Kind.UID: _uid,
    Kind.STUDY_UID: _study_uid,
}
