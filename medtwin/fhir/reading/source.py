"""FHIR files as a stream of resources: bundles, single resources, NDJSON, gzipped or not, in any mix of folders.

A resource comes as its top-level elements, each still as JSON text: `msgspec` finds where they begin and end and checks
the grammar of what it skips, and an element is parsed only by whoever reads it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import orjson

from medtwin.core.errors import SourceError
from medtwin.fhir.codings import ShapeError
from medtwin.fhir.reading.bulk import check_manifest, read_manifest
from medtwin.fhir.reading.lines import BadLine, Limits, read_document, read_lines
from medtwin.fhir.terms import RESOURCE_TYPES

_SUFFIXES = (".json", ".ndjson", ".jsonl")
_MAX_BUNDLE_DEPTH = 4
# Lines in a row that are no FHIR after which a file is given up: it is something else, and may be endless.
_MAX_STRANGERS = 10_000
# JSON text of an element.
Raw = msgspec.Raw
Fields = dict[str, Raw]
# The same as bytes of their own, which no longer keep the line that they stood in.
Texts = Mapping[str, bytes]
_AS_FIELDS = msgspec.json.Decoder(Fields)
_AS_LIST = msgspec.json.Decoder(list[Raw])


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an item could not be read: a rule, and a reason without content."""

    rule: str
    reason: str


@dataclass(slots=True)
class Scope:
    """What references can mean inside one bundle.

    Attributes:
        full_urls: The resource that a full URL names, as type and id.
        memo: What elements of this bundle gave that refer to something; the reader's.
    """

    full_urls: dict[str, tuple[str, str]] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict)


_NO_SCOPE = Scope()


@dataclass(slots=True)
class Item:
    """One resource of the source, or why there is none.

    Attributes:
        file: Path relative to the source.
        line: 1-based line or bundle entry; 0 for a whole file.
        fields: The elements as JSON text; None if it is no object.
        kind: The resource type; empty where it is none of FHIR R4.
        full_url: Of its bundle entry.
    """

    file: str
    line: int
    fields: Fields | None = None
    kind: str = ""
    fault: Fault | None = None
    scope: Scope = field(default_factory=lambda: _NO_SCOPE)
    full_url: str | None = None

    def parsed(self) -> dict[str, Any]:
        """The whole resource as Python values.

        Raises:
            orjson.JSONDecodeError: If an element holds what JSON has no number for.
        """
        return {name: orjson.loads(bytes(raw)) for name, raw in (self.fields or {}).items()}


class FhirSource:
    """The FHIR files below some paths.

    Attributes:
        files: Files that may hold FHIR, with their path relative to the source.
        ignored: Files of other kinds, such as DICOM, README or the manifest of an export, relative to the source.
        flags: What is to be known of the files: flags for the books.
        limits: How long a line or document may be.

    Raises:
        SourceError: If a path is missing or unreadable, or nothing there may hold FHIR.
    """

    def __init__(self, paths: Path | Iterable[Path], limits: Limits | None = None) -> None:
        roots = [paths] if isinstance(paths, Path) else list(paths)
        self.limits = limits or Limits()
        self.files: list[tuple[Path, str]] = []
        self.ignored: list[str] = []
        self.flags: Counter[str] = Counter()
        for root in roots:
            self._add(root)
        self.flags["ignored-files"] += len(self.ignored)
        self.flags = +self.flags
        if not self.files:
            places = ", ".join(str(root) for root in roots)
            raise SourceError(
                f"no FHIR in {places}: looked for .json, .ndjson, .jsonl and their .gz in all folders, "
                f"and found {len(self.ignored)} other files"
            )

    def _add(self, root: Path) -> None:
        if not root.exists():
            raise SourceError(f"{root} does not exist: expected a file or folder of FHIR JSON")
        if not root.is_dir():
            self.files.append((root, root.name))
            return
        manifests = []
        for path in _walk(root):
            name = path.relative_to(root).as_posix()
            manifest = read_manifest(path)
            if manifest is not None:
                manifests.append((path, manifest))
                self.ignored.append(name)
            elif path.name.lower().removesuffix(".gz").endswith(_SUFFIXES):
                self.files.append((path, name))
            else:
                self.ignored.append(name)
        for path, manifest in manifests:
            below = [str(file) for file, _ in self.files if path.parent in file.parents]
            is_named = check_manifest(path, manifest, below)
            self.flags["export-manifests"] += 1
            self.flags["export-manifest-with-other-names"] += not is_named
            self.flags["export-error-files"] += manifest.num_errors
            self.flags["export-deleted-files"] += manifest.num_deleted

    def parts(self, count: int) -> list[FhirSource]:
        """The source as so many sources at most, of about equal size, their files in the order of all of them."""
        sizes = [path.stat().st_size for path, _ in self.files]
        limit, parts, size = sum(sizes) / count, [copy(self)], 0.0
        parts[0].files = []
        for file, num_bytes in zip(self.files, sizes, strict=True):
            if parts[-1].files and size + num_bytes / 2 > limit * len(parts) and len(parts) < count:
                parts.append(copy(self))
                parts[-1].files = []
            parts[-1].files.append(file)
            size += num_bytes
        return parts

    def items(self, names: Iterable[str] | None = None) -> Iterator[Item]:
        """Every resource of every file, in order of path; what cannot be read is an item with a fault.

        Args:
            names: Only these files.
        """
        chosen = None if names is None else frozenset(names)
        for path, name in self.files:
            if chosen is None or name in chosen:
                yield from _read_file(path, name, self.limits)


def has_fhir(path: Path) -> bool:
    """Whether some file there may hold FHIR, by its name."""
    return path.is_dir() and any(each.name.lower().removesuffix(".gz").endswith(_SUFFIXES) for each in _walk(path))


def _walk(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename} cannot be read: {error.strerror}") from error

    for folder, names, files in os.walk(root, onerror=refuse):
        names.sort()
        for file in sorted(files):
            yield Path(folder) / file


def texts_of(elements: Sequence[Raw]) -> list[bytes]:
    """The texts of elements: JSON holds no NUL, so one copy of all of them can be cut at it.

    >>> texts_of([Raw(b'"a"'), Raw(b"true")])
    [b'"a"', b'true']
    """
    return b"\0".join(elements).split(b"\0") if elements else []


def is_ndjson(path: Path) -> bool:
    """Whether a file is NDJSON by its name."""
    return path.name.lower().removesuffix(".gz").endswith((".ndjson", ".jsonl"))


def _read_file(path: Path, name: str, limits: Limits) -> Iterator[Item]:
    lines = read_lines(path, limits) if is_ndjson(path) else read_document(path, limits)
    strangers = 0
    for line in lines:
        if isinstance(line, BadLine):
            yield Item(name, line.number, fault=Fault(line.rule, line.reason))
            continue
        number, text, is_utf8 = line
        fields, kind = _split(text, is_utf8=is_utf8)
        strangers = 0 if kind else strangers + 1
        if strangers > _MAX_STRANGERS:
            reason = f"{_MAX_STRANGERS} lines in a row are no FHIR resource: the file was read no further"
            yield Item(name, number, fault=Fault("not-fhir", reason))
            return
        if kind is None:
            yield Item(name, number, fault=_json_fault(text))
        elif kind == "Bundle":
            yield from _expand(fields or {}, (name, number), 0)
        else:
            yield Item(name, number, fields, kind)


def _split(text: bytes, *, is_utf8: bool) -> tuple[Fields | None, str | None]:
    """The elements of a text and its resource type; no type if it is no JSON."""
    try:
        if not is_utf8:
            text.decode()  # what is skipped must be UTF-8 too
        fields = _AS_FIELDS.decode(text)
    except msgspec.ValidationError:
        return None, "" if _is_json(text) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, None
    return fields, kind_of(fields)


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def fields_of(text: bytes, path: str) -> Fields:
    """The elements of a JSON object.

    Raises:
        ShapeError: If the text is no object.
    """
    try:
        return _AS_FIELDS.decode(text)
    except msgspec.ValidationError:
        raise ShapeError(f"{path} must be an object") from None


_KINDS: dict[bytes, str] = {f'"{kind}"'.encode(): kind for kind in RESOURCE_TYPES}


def kind_of(fields: Fields) -> str:
    """The resource type that the elements state; empty where it is none of FHIR R4."""
    raw = fields.get("resourceType")
    if raw is None:
        return ""
    text = bytes(raw)
    return _KINDS.get(text) or (_unescaped_kind(text) if b"\\" in text else "")


def _unescaped_kind(text: bytes) -> str:
    value = _value_of(Raw(text))
    return value if isinstance(value, str) and value in RESOURCE_TYPES else ""


def _json_fault(text: bytes) -> Fault:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return Fault("not-utf8", "the text must be UTF-8")
    return Fault("malformed-json", "the text must be one whole JSON object, nested less than a thousand levels deep")


Place = tuple[str, int]


def _expand(bundle: Fields, place: Place, depth: int) -> Iterator[Item]:
    """A bundle as items: itself, then the resource of each entry."""
    name, line = place
    yield Item(name, line, bundle, "Bundle")
    try:
        entries = _AS_LIST.decode(bundle["entry"]) if "entry" in bundle else []
    except msgspec.ValidationError:
        entries = None
    if entries is None or depth >= _MAX_BUNDLE_DEPTH:
        reason = f"entry of a bundle must be a list, and bundles nested {_MAX_BUNDLE_DEPTH} deep at most"
        yield Item(name, line, fault=Fault("malformed-bundle", reason))
        return
    scope = Scope()
    read = [_Entry(raw, f"{name}#{line}.{number}") for number, raw in enumerate(entries, start=1)]
    for entry in read:
        if entry.url is not None and entry.kind:
            scope.full_urls[entry.url] = (entry.kind, entry.id)
    for number, entry in enumerate(read, start=1):
        here = (name, line or number)
        if not entry.has_resource:
            # A deletion or the answer to a request rightly has no resource.
            if not entry.is_request:
                yield Item(*here, fault=Fault("malformed-bundle", "a bundle entry must have a resource"))
        elif entry.kind == "Bundle":
            yield from _expand(entry.fields or {}, here, depth + 1)
        else:
            yield Item(*here, entry.fields, entry.kind, scope=scope, full_url=entry.url)


class _Entry:
    """One entry of a bundle.

    Attributes:
        fields: The elements of its resource; None if that is no object.
        id: The id of the resource: its own, else the UUID of its full URL, else its place.
    """

    __slots__ = ("fields", "has_resource", "id", "is_request", "kind", "url")

    def __init__(self, raw: Raw, place: str) -> None:
        entry = _object_of(raw) or {}
        resource = entry.get("resource")
        self.has_resource = resource is not None and bytes(resource) != b"null"
        self.is_request = "request" in entry or "response" in entry
        self.fields = _object_of(resource) if self.has_resource else None
        self.kind = kind_of(self.fields) if self.fields else ""
        url = _value_of(entry.get("fullUrl"))
        self.url = url if isinstance(url, str) else None
        given = (self.fields or {}).get("id")
        own = _value_of(given)
        self.id = own if isinstance(own, str) else self._other_id(place)
        if self.fields is not None and (given is None or bytes(given) == b"null"):
            self.fields["id"] = Raw(orjson.dumps(self.id))

    def _other_id(self, place: str) -> str:
        return self.url.rpartition(":")[2] if self.url is not None and self.url.startswith("urn:") else place


def _object_of(raw: Raw | None) -> Fields | None:
    try:
        return _AS_FIELDS.decode(raw) if raw is not None else None
    except msgspec.ValidationError:
        return None


def _value_of(raw: Raw | None) -> Any:
    """The value of an element; None if it holds a number that no computer can."""
    try:
        return orjson.loads(bytes(raw)) if raw is not None else None
    except orjson.JSONDecodeError:
        return None
