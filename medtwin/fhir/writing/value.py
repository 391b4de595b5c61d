"""The value[x] of an Observation or of one of its components from event columns, the inverse of `values.read_value`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from medtwin.fhir.codings import codes_to_concept
from medtwin.fhir.terms import is_result_word, is_time_of_day
from medtwin.fhir.writing.rows import Quantities, Rows

_is_word = lru_cache(maxsize=1 << 12)(is_result_word)
_concept = lru_cache(maxsize=1 << 12)(codes_to_concept)
Value = tuple[str, Any]


def write_value(rows: Rows, row: int, guides: dict[str, int], quantities: Quantities) -> Value | None:
    """Name and value of the value[x] of a row; None if it has none, or one that may not leave as text.

    Args:
        rows: The columns.
        row: An Observation or a component.
        guides: Its child rows `valueType`, `valueCodeableConcept` and `comparator`, by path.
        quantities: Gives the Quantity.
    """
    number, text = rows.number[row], rows.text[row]
    if number is not None:
        if not guides:
            return "valueQuantity", quantities.of(rows, row)
        return _number(rows, row, guides, quantities)
    if text is None:
        return None
    return _text(rows, text, guides)


def _number(rows: Rows, row: int, guides: dict[str, int], quantities: Quantities) -> Value:
    if "valueType" in guides and rows.text[guides["valueType"]] == "integer" and isinstance(rows.number[row], int):
        return "valueInteger", rows.number[row]
    quantity = quantities.of(rows, row) or {}
    if "comparator" in guides:
        quantity = {**quantity, "comparator": rows.text[guides["comparator"]]}
    return "valueQuantity", quantity


def _text(rows: Rows, text: str, guides: dict[str, int]) -> Value | None:
    kind = rows.text[guides["valueType"]] if "valueType" in guides else None
    if kind == "boolean" and text in ("true", "false"):
        return "valueBoolean", text == "true"
    if kind == "time" and is_time_of_day(text):
        return "valueTime", text
    if _is_word(text):
        return "valueString", text
    if kind == "string" or "//" not in text:
        return None
    source = rows.source[guides["valueCodeableConcept"]] if "valueCodeableConcept" in guides else None
    return "valueCodeableConcept", _concept(text, source)
