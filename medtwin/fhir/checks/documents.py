"""FHIR files as whole documents for validation: each line of NDJSON, each JSON file; a bundle is one document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from medtwin.core.sources import Reject
from medtwin.fhir.reading.lines import BadLine, Line, read_document, read_lines
from medtwin.fhir.reading.source import FhirSource, is_ndjson

_LIVES = (b'"Patient"', b'"Encounter"')


def documents(source: FhirSource, *, only_lives: bool = False) -> Iterator[dict[str, Any] | Reject]:
    """Every document of every file, or why it could not be read.

    Args:
        source: The files.
        only_lives: Leave out, unparsed, what holds no Patient or Encounter.
    """
    for path, name in source.files:
        for line in _lines(path, source):
            if isinstance(line, BadLine):
                yield Reject(name, line.number, "", line.rule, line.reason)
                continue
            number, text, _ = line
            if not only_lives or any(word in text for word in _LIVES):
                yield _parse(text, name, number)


def _lines(path: Path, source: FhirSource) -> Iterator[Line | BadLine]:
    return read_lines(path, source.limits) if is_ndjson(path) else read_document(path, source.limits)


def _parse(text: bytes, name: str, number: int) -> dict[str, Any] | Reject:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        reason = "the text must be one whole JSON object in UTF-8, nested less than a thousand levels deep"
        return Reject(name, number, "", "malformed-json", reason)
    if not isinstance(document, dict):
        return Reject(name, number, "", "malformed-json", "the text must be a JSON object")
    return document
