"""A folder of NDJSON as what is to be sent: what is shared first, then subject by subject, what speaks of them last."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from medtwin.core.errors import DatasetError, ReleaseRefusedError
from medtwin.fhir.terms import HTEST_SYSTEM

REFERENCE = re.compile(rb'"reference"\s*:\s*"([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})"')
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_SUBJECT_ELEMENTS = ("subject", "patient", "beneficiary", "individual")
# Their references say what was done with the others, so the others must be there first.
_TOLD_LAST = frozenset({"Provenance", "AuditEvent"})
_SHARED, _LAST = -2, -1


@dataclass(frozen=True)
class Line:
    """A resource as it stands in its file.

    Attributes:
        key: Type and id, as a relative reference has it.
        data: Its JSON in UTF-8.
    """

    key: str
    data: bytes

    @property
    def type(self) -> str:
        """Its resource type."""
        return self.key.partition("/")[0]

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The keys that its references name, each once, in their order."""
        return tuple(dict.fromkeys(found.decode() for found in REFERENCE.findall(self.data)))


class ResourceStore:
    """The resources of the NDJSON files of a folder, found again by place, whatever order they stand in.

    Holds some 30 bytes for each resource, and the ids of the patients.

    Attributes:
        counts: Resources by type.
        untagged: Those without the label HTEST, by type.
        num_subjects: Patients that resources are or speak of.

    Args:
        folder: Files `*.ndjson`, one resource a line.

    Raises:
        DatasetError: If a line is no resource with a type and an id, or an id stands twice.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("*.ndjson"))
        if not self._paths:
            raise DatasetError(f"{folder} holds no .ndjson file: there is nothing to send")
        self.counts: Counter[str] = Counter()
        self.untagged: Counter[str] = Counter()
        self._subjects: dict[str, int] = {}
        owners, files, offsets, sizes, names = array("i"), array("i"), array("q"), array("i"), array("Q")
        for number, path in enumerate(self._paths):
            for offset, data in _lines(path):
                key, owner = self._index(data, path)
                owners.append(owner)
                files.append(number)
                offsets.append(offset)
                sizes.append(len(data))
                names.append(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big"))
        if not names:
            raise DatasetError(f"the .ndjson files of {folder} are empty: there is nothing to send")
        if len(np.unique(np.frombuffer(names, np.uint64))) != len(names):
            raise DatasetError(f"{folder}: two resources have the same type and id; each must stand once")
        self._owners = np.frombuffer(owners, np.int32)
        self._files = np.frombuffer(files, np.int32)
        self._offsets = np.frombuffer(offsets, np.int64)
        self._sizes = np.frombuffer(sizes, np.int32)
        self.num_subjects = len(self._subjects)

    def __len__(self) -> int:
        return len(self._owners)

    def _index(self, data: bytes, path: Path) -> tuple[str, int]:
        """The key of a resource and whose it is."""
        resource = _parse(data, path)
        kind, name = resource["resourceType"], resource["id"]
        self.counts[kind] += 1
        if not is_tagged(resource):
            self.untagged[kind] += 1
        return f"{kind}/{name}", self._owner(resource, data)

    def _owner(self, resource: dict[str, Any], data: bytes) -> int:
        kind = resource["resourceType"]
        if kind == "Patient":
            return self._ordinal(f"Patient/{resource['id']}")
        if kind in _TOLD_LAST:
            return _LAST
        for name in _SUBJECT_ELEMENTS:
            value = resource.get(name)
            reference = value.get("reference") if isinstance(value, dict) else None
            if isinstance(reference, str) and reference.startswith("Patient/"):
                return self._ordinal(reference)
        return _LAST if any(found.startswith(b"Patient/") for found in REFERENCE.findall(data)) else _SHARED

    def _ordinal(self, patient: str) -> int:
        return self._subjects.setdefault(patient, len(self._subjects))

    def require_tagged(self) -> None:
        """Refuses what would not be told from patients on the server.

        Raises:
            ReleaseRefusedError: Naming the types.
        """
        if self.untagged:
            kinds = ", ".join(f"{kind} {number:,}" for kind, number in sorted(self.untagged.items()))
            raise ReleaseRefusedError(
                f"resources without the label HTEST are not sent, for nothing would tell them from patients: {kinds}; "
                "allow_untagged=true sends them"
            )

    def shared(self) -> list[Line]:
        """What belongs to no subject: organizations, practitioners, locations, devices."""
        return list(self._read(np.flatnonzero(self._owners == _SHARED)))

    def last(self) -> list[Line]:
        """What speaks of subjects without being of one: Provenance, groups, lists."""
        return list(self._read(np.flatnonzero(self._owners == _LAST)))

    def subjects(self) -> Iterator[list[Line]]:
        """The resources of each subject, the Patient first, the subjects in the order in which they are first named."""
        order = np.argsort(self._owners, kind="stable")
        owners = self._owners[order]
        order, owners = order[owners >= 0], owners[owners >= 0]
        if not len(order):
            return
        bounds = np.flatnonzero(np.diff(owners)) + 1
        for part in np.split(order, bounds):
            lines = list(self._read(part))
            yield sorted(lines, key=lambda line: line.type != "Patient")

    def _read(self, numbers: Iterable[int]) -> Iterator[Line]:
        opened: dict[int, IO[bytes]] = {}
        try:
            for number in numbers:
                place = int(self._files[number])
                if place not in opened:
                    opened[place] = self._paths[place].open("rb")
                opened[place].seek(int(self._offsets[number]))
                data = opened[place].read(int(self._sizes[number]))
                yield Line(_key(data), data)
        finally:
            for file in opened.values():
                file.close()


def is_tagged(resource: dict[str, Any]) -> bool:
    """Whether a resource carries the security label HTEST, test health data."""
    meta = resource.get("meta")
    labels = meta.get("security", []) if isinstance(meta, dict) else []
    return any(label.get("system") == HTEST_SYSTEM and label.get("code") == "HTEST" for label in labels)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            data = line.strip()
            if data:
                yield offset + len(line) - len(line.lstrip()), data
            offset += len(line)


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    try:
        resource = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DatasetError(f"{path.name} holds a line that is no JSON") from error
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        raise DatasetError(f"{path.name} holds a line that is no FHIR resource")
    name = resource.get("id")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise DatasetError(f"{path.name} holds a resource without a valid id")
    return resource


def _key(data: bytes) -> str:
    resource = orjson.loads(data)
    return f"{resource['resourceType']}/{resource['id']}"
