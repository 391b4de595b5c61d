"""The JSON schema of findings.json, made from the dataclasses that are written to it."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal

from medtwin.check.findings import Findings
from medtwin.check.gates import GateResult
from medtwin.check.utility_rows import UtilityFindings

VERSION = 2
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def findings_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12); schemas/findings.schema.json is this, and a test keeps it so.

    >>> findings_schema()["properties"]["measures"]["items"]
    {'$ref': '#/$defs/Measure'}
    """
    definitions: dict[str, Any] = {}
    body = _object(Findings, definitions)
    head = {
        "version": {"const": VERSION},
        "profile": {"type": "string", "minLength": 1},
        "gates": {"type": "array", "items": _of(GateResult, definitions)},
        "utility": {"anyOf": [_of(UtilityFindings, definitions), {"type": "null"}]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"medtwin findings, version {VERSION}",
        "description": "What `medtwin check` measured of one synthetic dataset. Made by medtwin.check.schema.",
        "type": "object",
        "required": [*head, *body["required"]],
        "properties": {**head, **body["properties"]},
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def _object(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    return {
        "type": "object",
        "required": names,
        "properties": {name: _of(hints[name], definitions) for name in names},
        "additionalProperties": False,
    }


def _of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of one type; of a dataclass a reference to its definition."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        name = typing.cast(type, hint).__name__
        if name not in definitions:
            definitions[name] = {}  # stands while its fields are looked at
            definitions[name] = _object(typing.cast(type, hint), definitions)
        return {"$ref": f"#/$defs/{name}"}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(one, definitions) for one in arguments]}
    if origin is tuple and Ellipsis not in arguments:
        items = [_of(one, definitions) for one in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": _of(arguments[0], definitions)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions)}
    return {"type": _PLAIN[hint]}
