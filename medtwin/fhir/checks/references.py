"""Where the references of a set of resources lead: to a resource of the set, or nowhere; and ids that stand twice."""

from __future__ import annotations

import re
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
    buffer: dict[int, int] = field(default_factory=dict)

    def add(self, value: int, count: int = 1) -> None:
        self.buffer[value] = self.buffer.get(value, 0) + count
        if len(self.buffer) >= _BUFFER:
            self.settle()

    def settle(self) -> None:
        if not self.buffer:
            return
        fresh = np.fromiter(self.buffer.keys(), np.int64, len(self.buffer))
        numbers = np.fromiter(self.buffer.values(), np.int64, len(self.buffer))
        merged, inverse = np.unique(np.concatenate([self.values, fresh]), return_inverse=True)
        counts = np.zeros(len(merged), np.int64)
        np.add.at(counts, inverse, np.concatenate([self.counts, numbers]))
        self.values, self.counts, self.buffer = merged, counts, {}


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
        # References as they stand, each once: its count, and the first that holds it. Most are to a few targets.
        self._texts: dict[tuple[str, str], list[Any]] = {}

    def add(self, resource: Resource, references: Iterable[Resource], *, is_root: bool = True) -> None:
        """Enters a resource and its references.

        Args:
            resource: Parsed JSON.
            references: The Reference objects in it.
            is_root: Whether it can be referred to from outside: it is not contained.
        """
        kind, name = resource.get("resourceType"), resource.get("id")
        if not isinstance(kind, str) or kind not in resource_types():
            kind = "unknown"
        if is_root and isinstance(name, str):
            tally = self._ids.get(kind)
            if tally is None:
                tally = self._ids[kind] = _Tally()
            tally.add(hash((kind, name)))
        texts = self._texts
        for node in references:
            text = node.get("reference")
            if isinstance(text, str):
                known = texts.get((kind, text))
                if known is None:
                    texts[kind, text] = [1, place_of(resource)]
                else:
                    known[0] += 1
        if len(texts) >= _BUFFER:
            self._settle()

    def _settle(self) -> None:
        """Enters the targets of the references that were gathered."""
        for (_, text), (count, place) in self._texts.items():
            match = _TEXT.fullmatch(text) if text[:1] != "#" else None
            if match is not None:
                self._want(place.partition("/")[0], place, match.group(1), match.group(2), count)
        self._texts.clear()

    def _want(self, kind: str, place: str, target: str, target_id: str, count: int) -> None:
        way, key = (kind, target), hash((target, target_id))
        tally = self._wanted.get(way)
        if tally is None:
            tally = self._wanted[way] = _Tally()
            self._first[way] = {}
        tally.add(key, count)
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
        self._settle()
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
