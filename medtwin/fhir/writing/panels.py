"""Blood pressure as one Observation: R4 has no profile for a systolic or a diastolic pressure that stands alone."""

from __future__ import annotations

from medtwin.core.codes import CHILD_PREFIX
from medtwin.core.events import split_child_code
from medtwin.fhir.elements import COMPONENT_ELEMENTS
from medtwin.fhir.writing.actions import bare_path
from medtwin.fhir.writing.context import stable_id
from medtwin.fhir.writing.rows import Rows
from medtwin.fhir.writing.vitals import DIASTOLIC, PANEL, SYSTOLIC

_PAIR = (SYSTOLIC, DIASTOLIC)
_OF_COMPONENT = frozenset({element.row_path for element in COMPONENT_ELEMENTS})
_OF_VALUE = frozenset({"valueType", "valueCodeableConcept", "comparator"})
_VITAL_CATEGORY = f"{CHILD_PREFIX}Observation.category//OBSCATEGORY//vital-signs"
Children = dict[str, list[int]]


def join_pressures(rows: Rows, roots: list[int], children: Children) -> list[tuple[int, tuple[str, str]]]:
    """Joins a systolic and a diastolic pressure of the same time, encounter and status in a panel with components.

    What only a whole Observation can have (method, specimen, performer ...) must be the same of both, or they stay as
    they are; so do pressures of which several stand at the same time, because which belong together cannot be told.

    Args:
        rows: Takes the rows of the panels and their components.
        roots: The subject's events; a panel takes the place of its systolic pressure.
        children: The rows of details, by their event.

    Returns:
        Of each panel its row, and the ids of the two events that it stands for.
    """
    groups: dict[tuple[object, ...], tuple[list[int], list[int]]] = {}
    codes = rows.code
    for row in roots:
        if codes[row] in _PAIR and rows.resource[row] == "Observation":
            groups.setdefault(_key(rows, row), ([], []))[_PAIR.index(codes[row])].append(row)
    joined: list[tuple[int, tuple[str, str]]] = []
    places: dict[int, int | None] = {}
    for upper, lower in groups.values():
        if len(upper) == len(lower) == 1 and _common(rows, upper[0], children) == _common(rows, lower[0], children):
            panel = _join(rows, upper[0], lower[0], children)
            places |= {upper[0]: panel[0], lower[0]: None}
            joined.append(panel)
    if joined:
        kept = [places.get(row, row) for row in roots]
        roots[:] = [row for row in kept if row is not None]
    return joined


def _key(rows: Rows, row: int) -> tuple[object, ...]:
    return rows.time[row], rows.precision[row], rows.encounter[row], rows.status[row], rows.end[row]


def _details(rows: Rows, row: int, children: Children) -> tuple[list[int], list[int]]:
    """The child rows of an event: those that a component can have, and those that only the whole can."""
    own: list[int] = []
    common: list[int] = []
    for child in children.get(rows.event_id[row] or "", ()):
        path = bare_path(split_child_code(rows.code[child])[1]) if rows.code[child].startswith(CHILD_PREFIX) else ""
        (own if path in _OF_COMPONENT or path in _OF_VALUE else common).append(child)
    return own, common


def _common(rows: Rows, row: int, children: Children) -> list[tuple[str, ...]]:
    """What only the whole can say of an event, as comparable texts; the category is that of every pressure."""
    common = _details(rows, row, children)[1]
    columns = (rows.code, rows.source, rows.text, rows.number, rows.unit, rows.source_unit)
    return sorted(tuple(str(column[each]) for column in columns) for each in common if not _is_category(rows, each))


def _is_category(rows: Rows, row: int) -> bool:
    return rows.code[row] == _VITAL_CATEGORY and rows.source[row] is None


def _join(rows: Rows, upper: int, lower: int, children: Children) -> tuple[int, tuple[str, str]]:
    names = (rows.event_id[upper] or "", rows.event_id[lower] or "")
    name = stable_id(f"panel|{names[0]}|{names[1]}")
    bare = {"number": None, "text": None, "unit": None, "source_unit": None, "source": None}
    panel = rows.copy(upper, code=PANEL, event_id=name, **bare)
    common = _details(rows, upper, children)[1]
    if not any(_is_category(rows, each) for each in common):
        common += [each for each in _details(rows, lower, children)[1] if _is_category(rows, each)]
    parts = []
    for number, row in enumerate((upper, lower), start=1):
        part = f"{name}.{number}"
        own = _details(rows, row, children)[0]
        parts.append(rows.copy(row, event_id=part, parent=name))
        if own:
            children[part] = own
    for old in names:
        children.pop(old, None)
    children[name] = [*parts, *common]
    return panel, names
