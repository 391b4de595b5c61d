"""Where the references of a set of resources lead: to a resource of the set, or nowhere; and ids that stand twice."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medtwin.core.findings import Finding
from medtwin.fhir.checks.chronology import entries_of
from medtwin.fhir.checks.tables import place_of, resource_types

Resource: TypeAlias = dict[str, Any]
_Ints: TypeAlias = NDArray[np.int64]
_BUFFER = 1 << 17
_EXAMPLES = 64
_TEXT = re.compile(r"(?:https?://[^?#]*/)?([A-Z][A-Za-z]+)/([A-Za-z0-9.\-]{1,64})(?:/_history/[A-Za-z0-9.\-]{1,64})?")
_MESSAGE = "a reference must lead to a resource of the export"


@dataclass(slots=True)
class _Tally:
    """How often each of many numbers came, in sorted arrays behind a short buffer: 16 bytes for each distinct one."""

    values: _Ints = field(default_factory=lambda: np.empty(0, np.int64))
    counts: _Ints = field(default_factory=lambda: np.empty(0, np.int64))
    buffer: array[int] = field(default_factory=lambda: array("q"))

    def add(self, value: int) -> None:
        self.buffer.append(value)
        if len(self.buffer) >= _BUFFER:
            self.settle()

    def settle(self) -> None:
        if not self.buffer:
            return
        fresh, numbers = np.unique(np.array(self.buffer, np.int64), return_counts=True)
        merged, inverse = np.unique(np.concatenate([self.values, fresh]), return_inverse=True)
        counts = np.zeros(len(merged), np.int64)
        np.add.at(counts, inverse, np.concatenate([self.counts, numbers]))
        self.values, self.counts, self.buffer = merged, counts, array("q")


@dataclass(slots=True)
class Dangling:
    """References of one type to another that lead nowhere.

    Attributes:
        place: Such as `Observation to Encounter`.
        count: How many references.
        first: Some of the resources that hold them, as type and id.
    """

    place: str
    count: int
    first: list[str]


class ReferenceBook:
    """Gathers ids and references in any order; at the end it tells which lead nowhere.

    Memory is bounded by what is distinct: 16 bytes for each id and each target. References to a part of the same
    resource or the same bundle (`#id`, `urn:uuid:`) are the rules' task, and conditional ones (`Patient?..`) no one's.
    """

    def __init__(self) -> None:
        self._ids: dict[str, _Tally] = {}
        self._wanted: dict[tuple[str, str], _Tally] = {}
        self._first: dict[tuple[str, str], dict[int, str]] = {}

    def add(self, resource: Resource, references: Iterable[Resource], *, is_root: bool = True) -> None:
        """Enters a resource and its references.

        Args:
            resource: Parsed JSON.
            references: The Reference objects in it.
            is_root: Whether it can be referred to from outside: it is not contained.
        """
        place, name = place_of(resource), resource.get("id")
        kind = place.partition("/")[0]
        if is_root and isinstance(name, str):
            self._ids.setdefault(kind, _Tally()).add(hash((kind, name)))
        for node in references:
            text = node.get("reference")
            match = _TEXT.fullmatch(text) if isinstance(text, str) and text[:1] != "#" else None
            if match is not None:
                self._want(kind, place, match.group(1), match.group(2))

    def _want(self, kind: str, place: str, target: str, target_id: str) -> None:
        way, key = (kind, target), hash((target, target_id))
        tally = self._wanted.get(way)
        if tally is None:
            tally = self._wanted[way] = _Tally()
            self._first[way] = {}
        tally.add(key)
        first = self._first[way]
        if len(first) < _EXAMPLES:
            first.setdefault(key, place)

    def add_resource(self, resource: Resource) -> None:
        """Enters a resource that no rule has walked over; a bundle enters its entries."""
        if resource.get("resourceType") == "Bundle":
            for _, inner in entries_of(resource):
                self.add_resource(inner)
            return
        self.add(resource, (each for each in _objects(resource) if "reference" in each))

    def duplicates(self) -> dict[str, int]:
        """How many resources of each type repeat an id."""
        found = {}
        for kind, tally in sorted(self._ids.items()):
            tally.settle()
            if extra := int((tally.counts - 1).sum()):
                found[kind] = extra
        return found

    def dangling(self) -> list[Dangling]:
        """The references that lead nowhere, by type and target type."""
        found: list[Dangling] = []
        for (kind, target), tally in sorted(self._wanted.items()):
            tally.settle()
            known = self._ids.get(target, _Tally())
            known.settle()
            lost = ~np.isin(tally.values, known.values, assume_unique=True)
            if not lost.any():
                continue
            named = target if target in resource_types() else "unknown"
            keys = set(tally.values[lost].tolist())
            first = [label for key, label in self._first[kind, target].items() if key in keys]
            found.append(Dangling(f"{kind} to {named}", int(tally.counts[lost].sum()), first[:5]))
        return found

    def findings(self) -> list[Finding]:
        """Ids that stand twice, then references that lead nowhere, each with its count."""
        twice = [
            Finding("duplicate-id", "type and id must be unique", where=kind, count=count)
            for kind, count in self.duplicates().items()
        ]
        lost = [Finding("dangling-reference", _MESSAGE, where=each.place, count=each.count) for each in self.dangling()]
        return twice + lost


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within a value."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)
