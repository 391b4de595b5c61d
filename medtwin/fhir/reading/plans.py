"""How the elements of a resource are to be read, worked out once for every set of names that resources have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medtwin.fhir.elements import TABLES, Element, Kind, Node, ResourceTable, implied_time
from medtwin.fhir.reading.details import RECORDED, row_name
from medtwin.fhir.reading.values import VALUE_NAMES
from medtwin.fhir.terms import ELEMENT_NAMES

# How many different texts of one element are remembered.
MAX_MEMO = 1 << 14


@dataclass(slots=True, eq=False)
class Given:
    """What one text of one element gives.

    Attributes:
        rows: Templates of rows; of a code: of the event, and of the event that did not happen.
        left: Paths that are not carried.
        flags: Flags for the books.
        hits: How many carried resources it was read for, where it leaves something behind or raises a flag.
        codes: The codings, of an element that says what happened.
        value: Template of a value.
        is_dated: Whether it holds a date, which moves with its subject: then each shift has rows of its own.
        of_subject: Whether these rows are of one shift.
        recorded: Time and precision of an element that is a row only where it is not the event's own.
    """

    rows: tuple[int, ...] = ()
    left: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    hits: int = 0
    codes: tuple[str, ...] = ()
    value: int = 0
    is_dated: bool = False
    of_subject: bool = False
    recorded: tuple[int, str] | None = None


Memo = dict[Any, Given]


@dataclass(slots=True, eq=False)
class Detail:
    """An element of a resource that gives child rows.

    Attributes:
        root: A tree that holds this element alone.
        place: Prefix of its rows' paths, and path of the structure in which it stands.
        known: Paths in it that were read already.
        refers: Whether it refers to something: then it means something else in another bundle.
        may_be_dated: Whether it may hold a date.
        is_recorded: Whether it is a row only where it is not the time of its event.
        leaf: The element, where it is one that neither repeats nor has elements of its own, and the path of its row.
        row: Path of the row of its element, if it is one.
        targets: What it may refer to, if it is a reference to another event.
        parts: Its own elements, where each gives the same whatever stands beside it; None: it is read whole.
    """

    name: str
    root: Node
    place: tuple[str, str]
    known: frozenset[str]
    refers: bool
    may_be_dated: bool
    is_recorded: bool
    leaf: tuple[Element, str] | None
    row: str = ""
    targets: frozenset[str] = frozenset()
    memo: Memo = field(default_factory=dict)
    parts: dict[str, Detail] | None = None


@dataclass(slots=True, eq=False)
class Route:
    """How the elements of a resource are read, its time being known.

    Attributes:
        details: The elements that give child rows, in the order of the resource.
        left: Paths that are not carried.
        hits: How many carried resources were read so.
    """

    details: tuple[Detail, ...]
    left: tuple[str, ...]
    hits: int = 0


@dataclass(slots=True, eq=False)
class Shape:
    """A set of names that resources have.

    Attributes:
        places: Where each name stands.
        value: The value[x] that is read into the event's own row.
        num_values: How many value[x] there are.
        routes: By the element that dates the resource.
    """

    names: tuple[str, ...]
    places: dict[str, int]
    value: str | None
    num_values: int
    routes: dict[str | None, Route] = field(default_factory=dict)


class TimeChoice:
    """An element that may date a resource.

    Attributes:
        name: As in the table.
        path: Of the element in the resource.
        top: The top-level element in which it stands.
        steps: The names below that, and whether each repeats.
        is_borrowed: Whether it is the encounter that dates it.
    """

    __slots__ = ("is_borrowed", "is_period", "name", "path", "steps", "top")

    def __init__(self, kind: str, name: str) -> None:
        self.name = name
        self.path = f"{kind}.{name.replace('*', '')}"
        self.top, *steps = name.split(".")
        self.steps = tuple((step.rstrip("*"), step.endswith("*")) for step in steps)
        self.is_borrowed = name.startswith("@")
        self.is_period = name.lower().endswith("period")


class Plan:
    """How resources of one type are read.

    Attributes:
        memos: What elements gave, by element.
        statuses: The status that an element says, by its text.
        subjects: Whom a reference means, by its text.
        visits: Which encounter a reference means, by its text and the subject.
        code_names: The elements that say what happened, the first that does so alone.
        encounter: The top-level element in which its encounter stands.
        times: The elements that may date it, the best first.
        time_names: The top-level elements in which these stand, and that of its end.
        instant: The best of them, if it is an instant.
        implied: The one of which no row tells: without, and with an end.
    """

    def __init__(self, table: ResourceTable) -> None:
        self.table, self.name = table, table.name
        self.shapes: dict[tuple[str, ...], Shape] = {}
        self.memos: dict[Any, Memo] = {}
        self.statuses: dict[bytes, str | None] = {}
        self.subjects: dict[bytes, Any] = {}
        self.visits: dict[tuple[bytes, int], Any] = {}
        self._details: dict[tuple[str, frozenset[str]], Detail] = {}
        self._fixed = _names_read_elsewhere(table)
        self.encounter = table.encounter.split(".")[0].rstrip("*") if table.encounter is not None else None
        self.code_names = code_names(table)
        self.implied = tuple(implied_time(table, has_end=has_end) for has_end in (False, True))
        first = TimeChoice(table.name, table.times[0])
        is_instant = not (first.steps or first.is_period or first.is_borrowed)
        self.instant = first.top if is_instant else None
        self.times = tuple(TimeChoice(table.name, choice) for choice in table.times)
        tops = [choice.top for choice in self.times if not choice.is_borrowed]
        self.time_names = tuple(tops if table.end is None else [*tops, table.end])

    def memo(self, name: Any) -> Memo:
        """What an element gave so far."""
        return self.memos.setdefault(name, {})

    def shape(self, names: tuple[str, ...]) -> Shape:
        """The shape of resources with these names."""
        found = self.shapes.get(names)
        if found is None:
            values = [name for name in names if name.startswith("value")] if self.name == "Observation" else []
            value = values[0] if values and values[0] in VALUE_NAMES else None
            found = self.shapes[names] = Shape(
                names, {name: place for place, name in enumerate(names)}, value, len(values)
            )
        return found

    def route(self, shape: Shape, choice: str | None) -> Route:
        """The route of a shape whose time `choice` says."""
        found = shape.routes.get(choice)
        if found is None:
            found = shape.routes[choice] = self._new_route(shape.names, choice)
        return found

    def _new_route(self, names: tuple[str, ...], choice: str | None) -> Route:
        table = self.table
        known = {f"{self.name}.{choice.replace('*', '')}"} if choice is not None else set()
        if table.end is not None and choice is not None:
            known.add(f"{self.name}.{table.end}")
        if table.encounter is not None and "." in table.encounter:
            known.add(f"{self.name}.{table.encounter.rstrip('*')}")
        details, left = [], []
        for name in names:
            path = f"{self.name}.{name}"
            node = table.tree.children.get(name)
            if name in self._fixed or path in known:
                continue
            if node is None:
                left.append(path if name.lstrip("_") in ELEMENT_NAMES else f"{self.name}.?")
            else:
                details.append(self._detail(name, node, frozenset(known)))
        return Route(tuple(details), tuple(left))

    def _detail(self, name: str, node: Node, known: frozenset[str]) -> Detail:
        inside = frozenset(path for path in known if path.startswith(f"{self.name}.{name}."))
        found = self._details.get((name, inside))
        if found is None:
            found = self._details[name, inside] = self._new_detail(name, node, ("", self.name), inside)
        return found

    def _new_detail(self, name: str, node: Node, place: tuple[str, str], known: frozenset[str]) -> Detail:
        prefix, path = place
        refers = _holds(node, Kind.REFERENCE) or _holds(node, Kind.ACTOR)
        is_dated = _holds(node, Kind.DATE)
        element = node.element
        row = row_name(element, prefix, name) if element is not None else ""
        leaf = (element, row) if element is not None and not node.repeats else None
        detail = Detail(name, Node(children={name: node}), place, known, refers, is_dated, name == RECORDED, leaf)
        if element is not None and element.kind is Kind.REFERENCE:
            detail.row, detail.targets = row, element.targets
        detail.memo = self.memo((path, name, known))
        # In lists, and where a unit stands beside its number, elements are not independent; dates seldom come again.
        is_apart = not node.repeats and not any(child.is_read_along for child in node.children.values())
        if is_apart and any(not _is_date(child) for child in node.children.values()):
            inner = (f"{prefix}{name}.", f"{path}.{name}")
            detail.parts = {each: self._new_detail(each, child, inner, known) for each, child in node.children.items()}
        return detail


def _holds(node: Node, kind: Kind) -> bool:
    is_it = node.element is not None and node.element.kind is kind
    return is_it or any(_holds(child, kind) for child in node.children.values())


def _is_date(node: Node) -> bool:
    return node.element is not None and node.element.kind is Kind.DATE


def code_names(table: ResourceTable) -> tuple[str, ...]:
    """The elements that say what happened, the first that does so alone."""
    if table.code == "medication":
        return "medicationCodeableConcept", "medicationReference"
    if table.code == "modality":
        return "modality", "series"
    if table.name == "Encounter":
        return "type", "class"
    return (table.code.rstrip("*"),)


_CODE_ELEMENTS = {
    "medication": ("medicationCodeableConcept", "medicationReference", "contained"),
    "modality": (),
    "type*": (),
    "category*": (),
}


def _names_read_elsewhere(table: ResourceTable) -> frozenset[str]:
    """Top-level elements that are read, but not as details."""
    names = {"resourceType", "id", table.subject, table.status, *_CODE_ELEMENTS.get(table.code, (table.code,))}
    if table.encounter is not None and "." not in table.encounter:
        names.add(table.encounter)
    if table.name == "Observation":
        names |= {"component", *VALUE_NAMES}
    return frozenset(names)


def plans() -> dict[str, Plan]:
    """A plan for every resource type that is an event, with nothing remembered yet."""
    return {name: Plan(table) for name, table in TABLES.items()}
