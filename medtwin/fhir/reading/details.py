"""The details of a resource as child rows: walks the tree of a resource's elements and counts what is left behind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from medtwin.core.codes import preferred
from medtwin.core.events import child_code
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.fhir.codings import (
    ShapeError,
    as_list,
    as_number,
    as_object,
    as_text,
    code_of,
    coding_code,
    concept_codes,
    has_unread_unit,
    joined,
    quantity_columns,
)
from medtwin.fhir.elements import Element, Kind, Node
from medtwin.fhir.reading.batch import Row
from medtwin.fhir.reading.index import FhirIndex
from medtwin.fhir.reading.source import Scope
from medtwin.fhir.terms import ELEMENT_NAMES
from medtwin.fhir.times import BadDateError, Moment, moved_text, parse_moment

# A date that is a row only where it is not that of the event.
RECORDED = "recordedDate"
# Source: hl7.org/fhir/R4/valueset-units-of-time.html.
_UNITS_OF_TIME = frozenset({"s", "min", "h", "d", "wk", "mo", "a"})
_DICOM_UID_SYSTEMS = ("urn:dicom:uid", "urn:ietf:rfc:3986")


class RejectedError(Exception):
    """A resource that cannot be carried: the rule, and a reason that names elements only."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule, self.reason = rule, reason


class Draft:
    """What some elements of a resource give, in the making.

    Attributes:
        kind: Resource type.
        shift: How far the dates of its subject move.
        rows: Rows without their event.
        left: Paths of elements that are not carried.
        main: Path and index of the list item that already became the event's code.
        component: `Row.component` of the rows to come.
        is_dated: Whether a date was moved: what it gives is good for this subject only.
        recorded: Time and precision of an element that is a row only where it is not the event's own.
    """

    __slots__ = (
        "component",
        "flags",
        "index",
        "is_dated",
        "kind",
        "left",
        "main",
        "pseudonyms",
        "recorded",
        "rows",
        "scope",
        "shift",
    )

    def __init__(self, kind: str, index: FhirIndex, scope: Scope, pseudonyms: Pseudonyms, shift: timedelta) -> None:
        self.kind, self.index, self.scope, self.pseudonyms, self.shift = kind, index, scope, pseudonyms, shift
        self.rows: list[Row] = []
        self.left: list[str] = []
        self.flags: list[str] = []
        self.main: tuple[str, int] | None = None
        self.component = 0
        self.is_dated = False
        self.recorded: tuple[int, str] | None = None

    def add(self, path: str, code: str | None = None, **values: Any) -> None:
        """Appends a child row: `FHIR//<resource>.<path>[//SYSTEM//code]`."""
        self.rows.append(Row(child_code(self.kind, path, code), component=self.component, **values))

    def leave(self, path: str, name: str) -> None:
        """Counts an element that is not carried, by its name if FHIR has such a name."""
        self.left.append(f"{path}.{name if name.lstrip('_') in ELEMENT_NAMES else '?'}")

    def leave_all(self, value: dict[str, Any], known: tuple[str, ...], path: str) -> None:
        """Counts the elements of an object other than the known ones."""
        for name in value:
            if name not in known:
                self.leave(path, name)

    def moment(self, value: Any, path: str) -> Moment:
        """The moved moment of a date.

        Raises:
            RejectedError: If it is no date that a living person can have.
            ShapeError: If it is no string.
        """
        moment = parse_date(value, path)
        if moment.precision == "second":
            self.flags.append("instant-without-offset")
        return moment.moved(self.shift)

    def concept(self, value: Any, path: str) -> list[str]:
        """The codes of a CodeableConcept; its texts are counted as left behind.

        Raises:
            ShapeError: If an element of it has the wrong JSON type.
        """
        codes = concept_codes(value, path)
        self.leave_all(value, ("coding",), path)
        for coding in value.get("coding") or ():
            self.coding_rest(coding, f"{path}.coding")
        return codes

    def coding_rest(self, coding: dict[str, Any], path: str) -> None:
        """Counts what of a Coding is left behind."""
        code = coding.get("code")
        if code is not None and code_of(coding.get("system"), code) is None:
            self.leave(path, "code")
        if len(coding) > 2 or "display" in coding:
            self.leave_all(coding, ("system", "code"), path)


def parse_date(value: Any, path: str) -> Moment:
    """The moment of a date element.

    Raises:
        RejectedError: If it is no date that a living person can have.
        ShapeError: If it is no string.
    """
    try:
        return parse_moment(as_text(value, path))
    except BadDateError:
        raise bad_date(path) from None


def bad_date(path: str) -> RejectedError:
    """What is said of a date that is none."""
    return RejectedError("bad-date", f"{path} must be a FHIR date or instant between the years 1850 and 2300")


def walk(draft: Draft, node: Node, value: dict[str, Any], place: tuple[str, str], known: frozenset[str]) -> None:
    """Appends the child rows of an object.

    Args:
        draft: Takes the rows.
        node: The elements to carry.
        value: The object.
        place: Prefix of the row paths, and path of the object in the resource.
        known: Paths that were read already.

    Raises:
        RejectedError, ShapeError: If an element of it is malformed.
    """
    prefix, path = place
    for name, inner in value.items():
        child = node.children.get(name)
        here = f"{path}.{name}"
        if child is None:
            if here not in known:
                draft.leave(path, name)
        elif inner is not None and not child.is_read_along and here not in known:
            items = as_list(inner, here) if child.repeats else [inner]
            for number, item in enumerate(items):
                if child.element is None:
                    index = f"[{number}]" if number else ""
                    walk(draft, child, as_object(item, here), (f"{prefix}{name}{index}.", here), known)
                elif item is not None and draft.main != (here, number):
                    row = row_name(child.element, prefix, name)
                    read_element(draft, child.element, item, (row, here), value)


def row_name(element: Element, prefix: str, name: str) -> str:
    """Path of the row: that of the element, unless the table names the row otherwise."""
    if not element.row:
        return prefix + name
    if not prefix:
        return element.row
    return prefix.rstrip(".") + element.row.removeprefix(element.steps[0][0])


Place = tuple[str, str]
Holder = dict[str, Any]


def read_element(draft: Draft, element: Element, item: Any, place: Place, holder: Holder) -> None:
    """Appends the child row of one element.

    Args:
        draft: Takes it.
        element: What it is.
        item: Its value, or one of its values; not None.
        place: Path of the row, and path of the element in the resource.
        holder: The object in which it stands.

    Raises:
        RejectedError, ShapeError: If it is malformed.
    """
    _READERS[element.kind](draft, element, item, place, holder)


def _read_concept(draft: Draft, _element: Element, item: Any, place: Place, _holder: Holder) -> None:
    codes = draft.concept(item, place[1])
    if codes:
        draft.add(place[0], preferred(codes), source_code=joined(codes))


def _read_coding(draft: Draft, _element: Element, item: Any, place: Place, _holder: Holder) -> None:
    code = coding_code(item, place[1])
    draft.coding_rest(item, place[1])
    if code is not None:
        draft.add(place[0], code)


def _read_code(draft: Draft, element: Element, item: Any, place: Place, _holder: Holder) -> None:
    word = as_text(item, place[1])
    if word in element.words or (not element.words and code_of(None, word) is not None):
        draft.add(place[0], text_value=word)
    else:
        draft.left.append(place[1])


def _read_boolean(draft: Draft, _element: Element, item: Any, place: Place, _holder: Holder) -> None:
    if not isinstance(item, bool):
        raise ShapeError(f"{place[1]} must be true or false")
    draft.add(place[0], text_value="true" if item else "false")


def _read_integer(draft: Draft, _element: Element, item: Any, place: Place, _holder: Holder) -> None:
    number = as_number(item, place[1])
    if not number.is_integer():
        raise ShapeError(f"{place[1]} must be a whole number")
    draft.add(place[0], numeric_value=number)


def _read_timed(draft: Draft, _element: Element, item: Any, place: Place, holder: Holder) -> None:
    name = place[1].rpartition(".")[2]
    unit = holder.get(f"{name}Unit")
    if unit is not None and as_text(unit, f"{place[1]}Unit") not in _UNITS_OF_TIME:
        draft.left.append(place[1])
        return
    draft.add(place[0], numeric_value=as_number(item, place[1]), unit=unit)


def _read_quantity(draft: Draft, _element: Element, item: Any, place: Place, _holder: Holder) -> None:
    columns = quantity_columns(item, place[1])
    # "Less than 5" as a dose or limit is no 5.
    if not columns or item.get("comparator") is not None:
        draft.left.append(place[1])
        return
    if has_unread_unit(item):
        draft.leave(place[1], "unit")
    draft.add(place[0], **columns)


def _read_reference(draft: Draft, element: Element, item: Any, place: Place, _holder: Holder) -> None:
    found = draft.index.resolve(item, draft.scope, place[1])
    draft.leave_all(item, ("reference", "type"), place[1])
    if found is None or found[0] not in element.targets:
        draft.left.append(place[1])
    else:
        draft.add(place[0], text_value=draft.pseudonyms.event_id(*found))


def _read_actor(draft: Draft, element: Element, item: Any, place: Place, _holder: Holder) -> None:
    found = draft.index.resolve(item, draft.scope, place[1])
    draft.leave_all(item, ("reference", "type"), place[1])
    if found is None or found[0] not in element.targets:
        draft.left.append(place[1])
    else:
        draft.add(place[0], text_value=f"{found[0]}/{draft.pseudonyms.event_id(*found)}")


def _read_date(draft: Draft, element: Element, item: Any, place: Place, _holder: Holder) -> None:
    try:
        text, micros, precision = moved_text(as_text(item, place[1]), draft.shift)
    except BadDateError:
        raise bad_date(place[1]) from None
    draft.is_dated = True
    if precision == "second":
        draft.flags.append("instant-without-offset")
    if element.path == RECORDED:
        draft.recorded = micros, precision
    draft.add(place[0], text_value=text)


def _read_uid(draft: Draft, _element: Element, item: Any, place: Place, _holder: Holder) -> None:
    uid = as_text(item, place[1]).removeprefix("urn:oid:")
    if uid and len(uid) <= 64 and uid.replace(".", "").isdecimal():
        draft.add(place[0], text_value=draft.pseudonyms.uid(uid))
    else:
        draft.left.append(place[1])


def _read_study_uid(draft: Draft, element: Element, item: Any, place: Place, holder: Holder) -> None:
    identifier = as_object(item, place[1])
    value = identifier.get("value")
    if identifier.get("system") in _DICOM_UID_SYSTEMS and isinstance(value, str) and value.startswith("urn:oid:"):
        _read_uid(draft, element, value, place, holder)
    else:
        draft.left.append(place[1])


_READERS: dict[Kind, Callable[[Draft, Element, Any, Place, Holder], None]] = {
    Kind.CONCEPT: _read_concept,
    Kind.CODING: _read_coding,
    Kind.CODE: _read_code,
    Kind.BOOLEAN: _read_boolean,
    Kind.INTEGER: _read_integer,
    Kind.QUANTITY: _read_quantity,
    Kind.TIMED: _read_timed,
    Kind.REFERENCE: _read_reference,
    Kind.ACTOR: _read_actor,
    Kind.DATE: _read_date,
    Kind.UID: _read_uid,
    Kind.STUDY_UID: _read_study_uid,
}
