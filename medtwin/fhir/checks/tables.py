"""The shipped tables: the JSON schema of FHIR R4, and what the walk over a resource needs to know of its types."""

from __future__ import annotations

import gzip
import re
from functools import cache
from typing import Any

import orjson

from medtwin.core.paths import schema_dir

SCHEMA_FILE = "fhir-r4.schema.json.gz"
RULES_FILE = "fhir-r4.rules.json.gz"


@cache
def schema_table() -> dict[str, Any]:
    """The JSON schema of any FHIR R4 resource; its `definitions` have one entry for each type."""
    return _read(SCHEMA_FILE)


@cache
def rules_table() -> dict[str, Any]:
    """Children of each type, invariants that Python evaluates, vital signs by LOINC code."""
    return _read(RULES_FILE)


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(gzip.decompress((schema_dir() / name).read_bytes()))
    return document


@cache
def resource_types() -> frozenset[str]:
    """The names of all concrete resource types of R4."""
    return frozenset(rules_table()["resources"])


@cache
def element_names() -> frozenset[str]:
    """The JSON names of all elements of R4: what a path in a message may show."""
    return frozenset(rules_table()["elements"])


_ID = re.compile(r"[A-Za-z0-9.\-]{1,64}")


def place_of(resource: dict[str, Any]) -> str:
    """Type and id of a resource; without what is no id, and `unknown` for what is no type.

    >>> place_of({"resourceType": "Patient", "id": "p1"}), place_of({"resourceType": "Patient", "id": "J. Smith"})
    ('Patient/p1', 'Patient')
    """
    kind, name = resource.get("resourceType"), resource.get("id")
    known = kind if isinstance(kind, str) and kind in resource_types() else "unknown"
    return f"{known}/{name}" if isinstance(name, str) and _ID.fullmatch(name) else known


def path_text(steps: list[int | str]) -> str:
    """A JSON path in which a name that FHIR does not know stands as `?`.

    >>> path_text(["name", 0, "given"]), path_text(["Smith"])
    ('name[0].given', '?')
    """
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step if step in element_names() else '?'}"
    return text.removeprefix(".")
