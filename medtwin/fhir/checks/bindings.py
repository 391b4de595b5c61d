"""Required value sets of FHIR R4, expanded from the definitions: codes by system, or a form for what has no list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from medtwin.fhir.checks import primitives
from medtwin.fhir.checks.definitions import Definitions

_HL7 = "http://hl7.org/fhir/ValueSet/"
UCUM_UNITS = f"{_HL7}ucum-units"
MIME_TYPES = (f"{_HL7}mimetypes", "http://www.rfc-editor.org/bcp/bcp13.txt")
LANGUAGES = f"{_HL7}all-languages"
CURRENCIES = f"{_HL7}currencies"


def value_set_name(url: str) -> str:
    """The last step of a value set's URL."""
    return url.rpartition("/")[2]


def expand(definitions: Definitions, url: str) -> dict[str, list[str]] | None:
    """The codes of a value set by system; None where the definitions do not list them."""
    found: dict[str, set[str]] = {}
    value_set = definitions.value_sets.get(url)
    compose = value_set.get("compose", {}) if value_set else {}
    if not compose.get("include") or compose.get("exclude"):
        return None
    for include in compose["include"]:
        part = _expand_include(definitions, include)
        if part is None:
            return None
        for system, codes in part:
            found.setdefault(system, set()).update(codes)
    return {system: sorted(codes) for system, codes in sorted(found.items())}


def _expand_include(definitions: Definitions, include: dict[str, Any]) -> list[tuple[str, Iterable[str]]] | None:
    if include.get("filter"):
        return None
    parts: list[tuple[str, Iterable[str]]] = []
    for url in include.get("valueSet", ()):
        inner = expand(definitions, url.partition("|")[0])
        if inner is None:
            return None
        parts += inner.items()
    if "system" not in include:
        return parts
    system = include["system"]
    code_system = definitions.code_systems.get(system, {})
    if include.get("concept"):
        parts.append((system, [each["code"] for each in include["concept"]]))
    elif code_system.get("content") == "complete":
        parts.append((system, list(_codes(code_system.get("concept", ())))))
    else:
        return None
    return parts


def _codes(concepts: Iterable[dict[str, Any]]) -> Iterator[str]:
    for concept in concepts:
        yield concept["code"]
        yield from _codes(concept.get("concept", ()))


def code_schema(definitions: Definitions, url: str, path: str) -> dict[str, Any] | None:
    """The schema of a `code` that must be in a value set; None where nothing can be said.

    Args:
        definitions: What to expand from.
        url: Of the value set.
        path: Of the element: formats of a capability statement may be FHIR's short words.
    """
    if url in MIME_TYPES:
        mime = {"type": "string", "pattern": primitives.MIME_TYPE}
        words = {"enum": list(primitives.FORMAT_WORDS)}
        return {"anyOf": [mime, words]} if path.startswith("CapabilityStatement.") else mime
    if url == LANGUAGES:
        return {"type": "string", "pattern": primitives.LANGUAGE}
    if url == CURRENCIES:
        return {"type": "string", "enum": sorted(primitives.CURRENCIES)}
    codes = expand(definitions, url)
    if codes is None:
        return None
    return {"type": "string", "enum": sorted({code for each in codes.values() for code in each})}


def coding_schema(definitions: Definitions, url: str) -> dict[str, Any] | None:
    """The schema of a Coding that is in a value set; None where nothing can be said."""
    if url == UCUM_UNITS:
        return {"properties": {"system": {"const": "http://unitsofmeasure.org"}}, "required": ["system", "code"]}
    codes = expand(definitions, url)
    if codes is None:
        return None
    required = ["system", "code"]
    forms = [
        {"properties": {"system": {"const": system}, "code": {"enum": each}}, "required": required}
        for system, each in codes.items()
    ]
    return forms[0] if len(forms) == 1 else {"anyOf": forms}
