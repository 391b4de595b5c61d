"""The value[x] of an Observation or of one of its components as event columns; `write_value` is the inverse."""

from __future__ import annotations

from typing import Any

from medtwin.core.codes import preferred
from medtwin.fhir.codings import (
    COMPARATORS,
    ShapeError,
    as_number,
    as_text,
    has_unread_unit,
    joined,
    quantity_columns,
)
from medtwin.fhir.reading.details import Draft
from medtwin.fhir.terms import is_result_word, is_time_of_day

# Read here; the other forms of value[x] are child rows by the element table.
VALUE_NAMES = ("valueQuantity", "valueCodeableConcept", "valueString", "valueInteger", "valueBoolean", "valueTime")
Columns = dict[str, Any]
# Row path, coded part and columns of a child row that waits for its event.
Detail = tuple[str, str | None, Columns]


def read_value(holder: dict[str, Any], path: str, draft: Draft) -> tuple[Columns, list[Detail]]:
    """The event columns of a value, and the child rows that say what the columns cannot.

    Raises:
        ShapeError: If the value is malformed, or there are several.
    """
    names = [name for name in holder if name.startswith("value")]
    if len(names) > 1:
        raise ShapeError(f"{path} must have one value[x] at most")
    name = names[0] if names else ""
    value = holder.get(name)
    if name not in VALUE_NAMES or value is None:
        return {}, []
    here = f"{path}.{name}"
    if name == "valueQuantity":
        return _read_quantity(value, here, draft)
    if name == "valueCodeableConcept":
        codes = draft.concept(value, here)
        if not codes:
            return {}, []
        code, source = preferred(codes), joined(codes)
        return {"text_value": code}, [("valueCodeableConcept", code, {"source_code": source})] if source else []
    if name == "valueInteger":
        return {"numeric_value": as_number(value, here)}, [_type("integer")]
    if name == "valueBoolean":
        if not isinstance(value, bool):
            raise ShapeError(f"{here} must be true or false")
        return {"text_value": "true" if value else "false"}, [_type("boolean")]
    return _read_text(name, as_text(value, here).strip(), here, draft)


def _type(word: str) -> Detail:
    return "valueType", None, {"text_value": word}


def _read_quantity(value: Any, path: str, draft: Draft) -> tuple[Columns, list[Detail]]:
    columns = quantity_columns(value, path)
    if not columns:
        draft.left.append(path)
        return {}, []
    if has_unread_unit(value):
        draft.leave(path, "unit")
    comparator = value.get("comparator")
    if comparator is None:
        return columns, []
    if as_text(comparator, f"{path}.comparator") not in COMPARATORS:
        raise ShapeError(f"{path}.comparator must be one of <, <=, >=, >")
    return columns, [("comparator", None, {"text_value": comparator})]


def _read_text(name: str, text: str, path: str, draft: Draft) -> tuple[Columns, list[Detail]]:
    is_time = name == "valueTime"
    if is_time_of_day(text) if is_time else is_result_word(text):
        return {"text_value": text}, [_type("time" if is_time else "string")]
    draft.left.append(path)
    return {}, []
