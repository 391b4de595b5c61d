"""How a child row is written: its code is compiled once to a function that puts the row's value where it belongs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from medtwin.core.codes import CHILD_PREFIX
from medtwin.core.events import split_child_code
from medtwin.fhir.codings import UNIT_SYSTEM, code_to_coding, codes_to_concept
from medtwin.fhir.kinds import Element, Kind
from medtwin.fhir.terms import ELEMENT_NAMES
from medtwin.fhir.times import BadDateError, parse_moment
from medtwin.fhir.writing.rows import Quantities, Resource, Rows

_STEP = re.compile(r"([A-Za-z]+)(?:\[(\d{1,3})\])?")
_CHOICE = re.compile(r"(value|rate|dose|asNeeded|reported)(?!AndRate)[A-Z]\w+")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_ACTOR = re.compile(r"([A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}")
# Source: hl7.org/fhir/R4/valueset-units-of-time.html.
_UNITS_OF_TIME = frozenset({"s", "min", "h", "d", "wk", "mo", "a"})
# Marks of actions.
INDEXED, PAIRED = 1, 2
# Child rows that say how another row is to be written.
GUIDES = frozenset({"time", "endPrecision", "valueType", "valueCodeableConcept", "comparator", "medication.ingredient"})


class Links(Protocol):
    """What the rows of a subject can refer to."""

    quantities: Quantities

    def reference(self, event_id: str | None, targets: frozenset[str]) -> Resource | None:
        """A reference to another event of the subject; None if it has none of that id and kind."""

    def actor(self, reference: str) -> Resource:
        """A reference to who or where."""


Getter = Callable[[Rows, int, Links], Any]
Placer = Callable[[Resource, Rows, int, Links], bool]


@dataclass(frozen=True, slots=True)
class Action:
    """What becomes of a child row.

    Attributes:
        place: Puts the row's value into a resource; False if it cannot. None where no element is written.
        guide: The path of a row that says how another is to be written.
        is_component: Whether the row is a component of an Observation.
        marks: INDEXED: the row names one of several structures, so that those before it may be missing; PAIRED: the
            element is half of a Period or of a Ratio.
        lost: The name under which the row is counted if it is not written.
    """

    place: Placer | None = None
    guide: str | None = None
    is_component: bool = False
    marks: int = 0
    lost: str = ""


_HALVES = (".start", ".end", ".numerator", ".denominator")
_COMPONENT = Action(is_component=True)


def compile_action(name: str, elements: dict[str, Element], code: str, source_code: str | None) -> Action:
    """The action of a row's code.

    Args:
        name: Resource type of its event.
        elements: What the event may have, by the path of rows.
        code: Of the row.
        source_code: All codings of a coded row that has several.
    """
    if not code.startswith(CHILD_PREFIX):
        return _COMPONENT
    _, row_path, coded = split_child_code(code)
    path = bare_path(row_path)
    if path in GUIDES:
        return Action(guide=path)
    known = all(step in ELEMENT_NAMES for step in path.split("."))
    lost = f"{name}.{path if known else '?'}"
    element = elements.get(path)
    if element is None:
        return Action(lost=lost)
    getter = _getter(element, coded, source_code)
    if getter is None:
        return Action(lost=lost)
    marks = (INDEXED if "[" in row_path else 0) | (PAIRED if element.path.endswith(_HALVES) else 0)
    return Action(_placer(element, row_path, getter), marks=marks, lost=lost)


@lru_cache(maxsize=1 << 12)
def bare_path(row_path: str) -> str:
    """A row's path without the numbers of repeated structures."""
    return re.sub(r"\[\d+\]", "", row_path)


def _getter(element: Element, coded: str | None, source_code: str | None) -> Getter | None:
    """Gives the value of a row; None if its code can have none."""
    if element.kind in (Kind.CONCEPT, Kind.CODING):
        if not coded:
            return None
        value = codes_to_concept(coded, source_code) if element.kind is Kind.CONCEPT else code_to_coding(coded)
        return lambda _rows, _row, _links: value
    return _GETTERS[element.kind](element)


def _code(element: Element) -> Getter:
    words = element.words

    def get(rows: Rows, row: int, _links: Links) -> str | None:
        word = rows.text[row]
        return word if word in words else None

    return get


def _boolean(_element: Element) -> Getter:
    words = {"true": True, "false": False}
    return lambda rows, row, _links: words.get(rows.text[row] or "")


def _integer(_element: Element) -> Getter:
    def get(rows: Rows, row: int, _links: Links) -> int | None:
        number = rows.number[row]
        return number if isinstance(number, int) and number >= 0 else None

    return get


def _timed(_element: Element) -> Getter:
    """A time that repeats or lasts: it has a unit (tim-1, tim-2) and is not negative (tim-4, tim-5)."""

    def get(rows: Rows, row: int, _links: Links) -> Resource | None:
        number, unit = rows.number[row], rows.unit[row]
        if number is None or number < 0 or unit not in _UNITS_OF_TIME:
            return None
        return {"value": number, "unit": unit}

    return get


def _quantity(element: Element) -> Getter:
    if element.path.lower().endswith("duration"):
        return lambda rows, row, links: as_duration(links.quantities.of(rows, row))
    return lambda rows, row, links: links.quantities.of(rows, row)


def as_duration(quantity: Resource | None) -> Resource | None:
    """The quantity as a Duration, whose code is UCUM or none (drt-1); the word for people stays."""
    if quantity is None or quantity.get("system") != UNIT_SYSTEM:
        return quantity
    return {name: each for name, each in quantity.items() if name not in ("system", "code")}


def _reference(element: Element) -> Getter:
    targets = element.targets
    return lambda rows, row, links: links.reference(rows.text[row], targets)


def _actor(element: Element) -> Getter:
    targets = element.targets

    def get(rows: Rows, row: int, links: Links) -> Resource | None:
        text = rows.text[row] or ""
        found = _ACTOR.fullmatch(text)
        return links.actor(text) if found and found.group(1) in targets else None

    return get


@lru_cache(maxsize=1 << 16)
def _date_text(text: str | None) -> str | None:
    """A date in FHIR's form, an instant with its offset; None if it is none."""
    try:
        return str(parse_moment(text or ""))
    except BadDateError:
        return None


def _date(_element: Element) -> Getter:
    return lambda rows, row, _links: _date_text(rows.text[row])


def _uid_text(text: str | None) -> str | None:
    return text if text and len(text) <= 64 and _UID.fullmatch(text) else None


def _uid(_element: Element) -> Getter:
    return lambda rows, row, _links: _uid_text(rows.text[row])


def _study_uid(_element: Element) -> Getter:
    def get(rows: Rows, row: int, _links: Links) -> Resource | None:
        uid = _uid_text(rows.text[row])
        return {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"} if uid else None

    return get


_GETTERS: dict[Kind, Callable[[Element], Getter]] = {
    Kind.CODE: _code,
    Kind.BOOLEAN: _boolean,
    Kind.INTEGER: _integer,
    Kind.TIMED: _timed,
    Kind.QUANTITY: _quantity,
    Kind.REFERENCE: _reference,
    Kind.ACTOR: _actor,
    Kind.DATE: _date,
    Kind.UID: _uid,
    Kind.STUDY_UID: _study_uid,
}


def _placer(element: Element, row_path: str, get: Getter) -> Placer:
    """Puts a value where its element stands; the row's path says which of repeated structures it belongs to."""
    indices = {name: int(number) for name, number in _STEP.findall(row_path) if number}
    *steps, (name, repeats) = element.steps
    put = _put_timed if element.kind is Kind.TIMED else _put_last if repeats else _put_only
    has_choice = _choice_of(name) is not None
    if not steps and not has_choice:
        return _plain_placer(name, put, get)
    walked = [(step, indices.get(step, 0) if is_list else None, _choice_of(step)) for step, is_list in steps]

    def place(body: Resource, rows: Rows, row: int, links: Links) -> bool:
        value = get(rows, row, links)
        if value is None:
            return False
        for step, index, choice in walked:
            if choice is not None and is_taken(body, step):
                return False
            body = _enter(body, step, index)
        if has_choice and is_taken(body, name):
            return False
        put(body, name, value)
        return True

    return place


def _plain_placer(name: str, put: Callable[[Resource, str, Any], None], get: Getter) -> Placer:
    def place(body: Resource, rows: Rows, row: int, links: Links) -> bool:
        value = get(rows, row, links)
        if value is None:
            return False
        put(body, name, value)
        return True

    return place


def _enter(body: Resource, step: str, index: int | None) -> Resource:
    """The object at a step; of a list that at the index, with empty ones before it."""
    inner = body.get(step)
    if index is None:
        if inner is None:
            inner = body[step] = {}
        return inner
    if inner is None:
        inner = body[step] = []
    while len(inner) <= index:
        inner.append({})
    found: Resource = inner[index]
    return found


def _put_only(body: Resource, name: str, value: Any) -> None:
    body[name] = value


def _put_last(body: Resource, name: str, value: Any) -> None:
    there = body.get(name)
    if there is None:
        body[name] = [value]
    else:
        there.append(value)


def _put_timed(body: Resource, name: str, value: Any) -> None:
    body[name], body[f"{name}Unit"] = value["value"], value["unit"]


def is_taken(body: Resource, name: str) -> bool:
    """Whether a choice element such as value[x] has another of its forms already."""
    choice = _choice_of(name)
    return choice is not None and any(other != name and _choice_of(other) == choice for other in body)


@lru_cache(maxsize=1024)
def _choice_of(name: str) -> str | None:
    if name == "dataAbsentReason":  # obs-6: it stands in the place of a value.
        return "value"
    found = _CHOICE.fullmatch(name)
    return found.group(1) if found else None
