"""The schema layer: every resource against the JSON schema of its type, and each miss as findings without values."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

import jsonschema_rs

from medtwin.core.findings import Finding
from medtwin.fhir.checks.tables import path_text, rules_table, schema_table

Resource: TypeAlias = dict[str, Any]
_PREFIX = "#/definitions/"
# Resources within a resource are checked on their own, each by the validator of its type.
_NESTED = {"type": "object", "required": ["resourceType"], "properties": {"resourceType": {"type": "string"}}}
_BY_KEYWORD = {
    "additionalProperties": "unknown-element",
    "required": "missing-element",
    "type": "json-type",
    "pattern": "format",
    "enum": "value-set",
    "minItems": "empty",
    "minProperties": "empty",
    "minimum": "format",
    "maximum": "format",
    "maxLength": "format",
}
_MESSAGES = {
    "unknown-element": "FHIR R4 has no such element here",
    "missing-element": "the element must be there",
    "json-type": "the element must have the JSON type of its definition",
    "format": "the value must have the form of its type",
    "value-set": "the code must be in its required value set",
    "empty": "an element must have content: no null, no empty text, list or object",
    "choice": "a choice of types must be made once",
    "reference-type": "the reference must be to a type that is allowed here",
    "absolute-uri": "the URI must be absolute",
    "dicom-uid": "a UID of DICOM must be numbers with dots between, without leading zeros, 64 characters at most",
    "sampled-data": "the data must be decimals, E, U or L, with spaces between",
    "degrees": "the position must lie on earth: longitude -180 to 180, latitude -90 to 90",
    "id": "id must be 1 to 64 letters, digits, hyphens and dots",
    "not-json": "the resource must be JSON: text in UTF-8, finite numbers, and names that are texts",
}
_MAX_FINDINGS = 100


def check_schema(resource: Resource) -> list[Finding]:
    """What the JSON schema of its type finds in a resource of a known type; nested resources are not entered."""
    kind = resource["resourceType"]
    try:
        if schema_validator(kind).is_valid(resource):
            return []
        return list(_explain(kind, resource))
    except (ValueError, UnicodeEncodeError):
        return [Finding("not-json", _MESSAGES["not-json"])]


@cache
def schema_validator(kind: str) -> jsonschema_rs.Draft7Validator:
    """The compiled schema of one resource type."""
    definitions = {name: schema_table()["definitions"][name] for name in _reachable(kind)} | {"Resource": _NESTED}
    schema = {"allOf": [{"$ref": _PREFIX + kind}], "definitions": definitions}
    return jsonschema_rs.Draft7Validator(schema, pattern_options=jsonschema_rs.RegexOptions(), validate_formats=False)


def _reachable(kind: str) -> set[str]:
    """The definitions that a type needs, without those of resources within it."""
    found: set[str] = set()
    waiting = [kind]
    while waiting:
        name = waiting.pop()
        if name not in found and name != "Resource":
            found.add(name)
            waiting += _references(name)
    return found


@cache
def _references(name: str) -> tuple[str, ...]:
    found: set[str] = set()
    waiting: list[Any] = [schema_table()["definitions"][name]]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                found.add(reference.removeprefix(_PREFIX))
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return tuple(sorted(found))


def _explain(kind: str, resource: Resource) -> Iterator[Finding]:
    seen: set[tuple[str, str]] = set()
    for error in schema_validator(kind).iter_errors(resource):
        for rule, steps in _places(error):
            where = path_text(steps)
            if (rule, where) in seen:
                continue
            seen.add((rule, where))
            yield Finding(rule, _message(rule), where=where)
            if len(seen) == _MAX_FINDINGS:
                return


def _places(error: jsonschema_rs.ValidationError) -> Iterator[tuple[str, list[int | str]]]:
    """The rules that an error of jsonschema_rs stands for, with their paths."""
    steps, keyword = list(error.instance_path), error.kind.name
    title, label = _titled(list(error.schema_path))
    if keyword == "additionalProperties":
        for name in getattr(error.kind, "unexpected", ()):
            yield "unknown-element", [*steps, name]
        return
    if keyword == "required" and not title:
        yield "missing-element", [*steps, getattr(error.kind, "property", "")]
        return
    rule = title or _BY_KEYWORD.get(keyword, "format")
    if rule in ("missing-element", "choice"):
        yield rule, [*steps, label.removesuffix("[x]")]
    elif keyword == "type" or (keyword == "enum" and error.instance is None):
        yield ("empty" if error.instance is None else "json-type"), steps
    elif error.instance == "":
        yield "empty", steps
    elif steps == ["id"]:
        yield "id", steps
    else:
        yield rule, steps


def _titled(schema_path: list[int | str]) -> tuple[str, str]:
    """The title and the comment of the innermost titled schema on the way to what failed."""
    title, label = "", ""
    node: Any = schema_table()
    for step in schema_path:
        if isinstance(node, dict) and "$ref" in node and step != "$ref":
            node = schema_table()["definitions"][node["$ref"].removeprefix(_PREFIX)]
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            break
        if isinstance(node, dict) and "title" in node:
            title, label = node["title"], node.get("$comment", "")
    return title, label


def _message(rule: str) -> str:
    if rule in _MESSAGES:
        return _MESSAGES[rule]
    expression = _expressions().get(rule, "")
    return f"the invariant must hold: {expression}" if 0 < len(expression) <= 160 else "the invariant must hold"


@cache
def _expressions() -> dict[str, str]:
    return {each["key"]: each["expression"] for each in rules_table()["invariants"]}
