"""Codings, quantities and references in FHIR's form and in the form of the event table."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from medtwin.core.codes import LOCAL_SYSTEM, SYSTEMS, preferred, split_code, system_name
from medtwin.core.events import shortest_decimal
from medtwin.core.units import to_ucum
from medtwin.fhir.terms import is_unit_word

JOIN = " | "
UCUM = SYSTEMS["UCUM"]
# Units that UCUM lacks, as their source coded or wrote them.
UNIT_SYSTEM = "urn:medtwin:unit"
MAX_CODE_LENGTH = 64
MAX_FLOAT32 = 3.4028234663852886e38
COMPARATORS = frozenset({"<", "<=", ">=", ">"})

# FHIR R4 datatypes, `code`; narrower in that control characters and our own separator are left out.
_CODE = re.compile(r"[^\s\x00-\x1f\x7f]+( [^\s\x00-\x1f\x7f]+)*")
_SYSTEM = re.compile(r"(https?://[A-Za-z0-9._~%+()-]+[./][A-Za-z0-9._~:/%+()-]+|urn:[a-z]+:[A-Za-z0-9._~:/%+-]+)")
_OWN_NAMES = frozenset({"FHIR", "NEGATED", "MEDTWIN"})
_MAX_EXACT_INTEGER = 2**53


class ShapeError(ValueError):
    """A value of another JSON type than FHIR gives the element; the message names the element only."""


def as_object(value: Any, path: str) -> dict[str, Any]:
    """The value, if it is a JSON object.

    Raises:
        ShapeError: If it is not.
    """
    if isinstance(value, dict):
        return value
    raise ShapeError(f"{path} must be an object")


def as_list(value: Any, path: str) -> list[Any]:
    """The value, if it is a JSON array; an absent one is empty.

    Raises:
        ShapeError: If it is not.
    """
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise ShapeError(f"{path} must be a list")


def as_text(value: Any, path: str) -> str:
    """The value, if it is a JSON string.

    Raises:
        ShapeError: If it is not.
    """
    if isinstance(value, str):
        return value
    raise ShapeError(f"{path} must be a string")


def as_number(value: Any, path: str) -> float:
    """The value, if it is a JSON number that a float32 can hold.

    Raises:
        ShapeError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ShapeError(f"{path} must be a number")
    if not -MAX_FLOAT32 <= value <= MAX_FLOAT32:
        raise ShapeError(f"{path} must be finite and within a float32")
    return float(value)


@lru_cache(maxsize=1 << 16)
def code_of(system: str | None, code: str) -> str | None:
    """`SYSTEM//code` of a coding; None if the code is none by FHIR's grammar, or longer than 64 characters.

    A code of `urn:medtwin:code` comes back verbatim, as the foreign MEDS dataset had it.

    >>> code_of("http://loinc.org", "4548-4"), code_of("urn:medtwin:code:LAB", "50912"), code_of(None, " x")
    ('LOINC//4548-4', 'LAB//50912', None)
    """
    if len(code) > MAX_CODE_LENGTH or JOIN in code or _CODE.fullmatch(code) is None:
        return None
    if system == LOCAL_SYSTEM.rstrip(":"):
        return None if "//" in code or code in _OWN_NAMES else code
    return f"{_name_of(system)}//{code}"


def _name_of(system: str | None) -> str:
    if system is None or len(system) > 200 or _SYSTEM.fullmatch(system) is None or "//" in system[8:]:
        return "LOCAL"
    name = system.removeprefix(LOCAL_SYSTEM)
    if name != system:
        return "LOCAL" if name in _OWN_NAMES or name in SYSTEMS else name
    return system_name(system)


def coding_code(coding: Any, path: str) -> str | None:
    """`SYSTEM//code` of a Coding; None without a usable code.

    Raises:
        ShapeError: If an element of it has the wrong JSON type.
    """
    code = as_object(coding, path).get("code")
    if code is None:
        return None
    system = coding.get("system")
    if system is not None:
        as_text(system, f"{path}.system")
    return code_of(system, as_text(code, f"{path}.code"))


def concept_codes(concept: Any, path: str) -> list[str]:
    """The `SYSTEM//code` of every coding of a CodeableConcept, in its order, each once.

    Raises:
        ShapeError: If an element of it has the wrong JSON type.
    """
    codings = as_object(concept, path).get("coding")
    if codings is None:
        return []
    found = (coding_code(coding, f"{path}.coding") for coding in as_list(codings, f"{path}.coding"))
    return list(dict.fromkeys(code for code in found if code is not None))


def joined(codes: list[str]) -> str | None:
    """What `source_code` keeps: all codings, where they are more than one."""
    return JOIN.join(codes) if len(codes) > 1 else None


def code_to_coding(code: str) -> dict[str, str]:
    """The Coding of `SYSTEM//code`."""
    system, bare = split_code(code)
    return {"code": bare} if code.startswith("LOCAL//") else {"system": system, "code": bare}


def codes_to_concept(code: str, source_code: str | None = None) -> dict[str, Any]:
    """The CodeableConcept of a code, with all codings that its source gave if `source_code` holds them."""
    codes = source_code.split(JOIN) if source_code else [code]
    if code not in codes:
        codes = [code]
    elif preferred(codes) != code:
        # The reader must find the same code again, so it goes first.
        codes = [code, *(each for each in codes if each != code)]
    return {"coding": [code_to_coding(each) for each in codes]}


def quantity_columns(quantity: Any, path: str) -> dict[str, Any]:
    """The event columns of a Quantity: numeric_value, unit, source_unit; empty if it has no value.

    Raises:
        ShapeError: If an element of it has the wrong JSON type, or the number does not fit a float32.
    """
    value = as_object(quantity, path).get("value")
    if value is None:
        return {}
    number = as_number(value, f"{path}.value")
    text, code = quantity.get("unit"), quantity.get("code")
    for name in ("unit", "code", "system"):
        if quantity.get(name) is not None:
            as_text(quantity[name], f"{path}.{name}")
    unit, source_unit = _units_of(code, text)
    return {"numeric_value": number, "unit": unit, "source_unit": source_unit}


@lru_cache(maxsize=1 << 13)
def _units_of(code: str | None, text: str | None) -> tuple[str | None, str | None]:
    """The UCUM code of a Quantity, and what its source wrote, where that is something else and may pass."""
    given = code if code is not None and code_of(None, code) is not None else None
    shown = text if text is not None and is_unit_word(text) else None
    unit = _unit_of(given, shown)
    source = shown or given
    return unit, source.strip() if source and source != unit else None


def _unit_of(code: str | None, text: str | None) -> str | None:
    """The UCUM code: the coded one if it is valid, else what the words mean."""
    for candidate in (code, text):
        unit = to_ucum(candidate) if candidate is not None else None
        if unit is not None:
            return unit
    return None


def has_unread_unit(quantity: dict[str, Any]) -> bool:
    """Whether the unit of a Quantity is a text that may not pass."""
    text = quantity.get("unit")
    return isinstance(text, str) and not is_unit_word(text) and quantity.get("code") != text


def columns_to_quantity(number: float, unit: str | None, source_unit: str | None) -> dict[str, Any]:
    """The Quantity of a number and its unit."""
    quantity: dict[str, Any] = {"value": plain_number(number)}
    shown = source_unit or unit
    if shown:
        quantity["unit"] = shown
    if unit:
        quantity |= {"system": UCUM, "code": unit}
    elif source_unit and code_of(None, source_unit) is not None:
        quantity |= {"system": UNIT_SYSTEM, "code": source_unit}
    return quantity


def plain_number(number: float) -> int | float:
    """The shortest decimal of a float32; an int where it is one.

    >>> plain_number(7.0), plain_number(7.1)
    (7, 7.1)
    """
    decimal = shortest_decimal(number)
    return int(decimal) if decimal.is_integer() and abs(decimal) < _MAX_EXACT_INTEGER else decimal


_REFERENCE = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([A-Za-z0-9.\-]{1,64})(?:/_history/[^/]+)?$")


@lru_cache(maxsize=1 << 16)
def parse_reference(text: str) -> tuple[str, str] | None:
    """Type and id of a literal reference: relative, absolute or versioned; None for other forms.

    >>> parse_reference("https://x.org/fhir/Patient/7/_history/2"), parse_reference("urn:uuid:7")
    (('Patient', '7'), None)
    """
    found = _REFERENCE.search(text)
    return (found.group(1), found.group(2)) if found else None
