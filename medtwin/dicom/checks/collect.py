"""Gathers findings of one object: the same finding again, as in the items of a sequence, is counted."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence

from medtwin.core.findings import Finding, Severity
from medtwin.dicom.values import PARSE_ERRORS, Values

Path = tuple[str, ...]

UNREADABLE = (*PARSE_ERRORS, InvalidDicomError, EOFError, OSError, RecursionError, struct.error)
"""What pydicom raises on a malformed element or sequence, which it reads when it is asked for."""


class Collector:
    """Findings in the order in which they were first added."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, Severity]] = Counter()

    def add(self, rule: str, message: str, severity: Severity = "error") -> None:
        """Adds a finding; `message` names attributes and what is right, never a value of the record."""
        self._counts[rule, message, severity] += 1

    def findings(self, where: str) -> list[Finding]:
        """All of them, each once."""
        return [
            Finding(rule, message, severity, where, count) for (rule, message, severity), count in self._counts.items()
        ]


def dotted(path: Path, keyword: str) -> str:
    """The attribute as messages name it, such as `SegmentSequence.SegmentLabel`."""
    return ".".join((*path, keyword))


def text_of(dataset: Dataset, keyword: str) -> str:
    """The text of an attribute, its values joined by backslashes; empty where it is absent or unreadable."""
    return Values(dataset).text(keyword) or ""


def items_of(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent, or no sequence."""
    try:
        value = dataset.get(keyword)
    except UNREADABLE:
        return []
    return list(value) if isinstance(value, Sequence) else []


def all_items(dataset: Dataset) -> Iterator[Dataset]:
    """The dataset and every item in it, at any depth; sequences that cannot be read are passed over."""
    yield dataset
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except UNREADABLE:
            continue
        if isinstance(element.value, Sequence):
            for item in element.value:
                yield from all_items(item)
