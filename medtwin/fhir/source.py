"""FHIR files as a stream of resources: bundles, single resources, NDJSON, gzipped or not, in any mix of folders."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from medtwin.core.errors import SourceError

_SUFFIXES = (".json", ".ndjson", ".jsonl")
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_GZIP = b"\x1f\x8b"
_MAX_BUNDLE_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an item could not be read: a rule, and a reason without content."""

    rule: str
    reason: str


@dataclass(slots=True)
class Scope:
    """What references can mean inside one bundle: the resource that a full URL names, as type and id."""

    full_urls: dict[str, tuple[str, str]] = field(default_factory=dict)


_NO_SCOPE = Scope()


@dataclass(slots=True)
class Item:
    """One resource of the source, or why there is none.

    Attributes:
        file: Path relative to the source.
        line: 1-based line or bundle entry; 0 for a whole file.
        resource: The parsed JSON.
        full_url: Of its bundle entry.
    """

    file: str
    line: int
    resource: Any = None
    fault: Fault | None = None
    scope: Scope = field(default_factory=lambda: _NO_SCOPE)
    full_url: str | None = None


class FhirSource:
    """The FHIR files below some paths.

    Attributes:
        files: Files that may hold FHIR, with their path relative to the source.
        ignored: Files of other kinds, such as DICOM or README, relative to the source.

    Raises:
        SourceError: If a path is missing or unreadable, or nothing there may hold FHIR.
    """

    def __init__(self, paths: Path | Iterable[Path]) -> None:
        roots = [paths] if isinstance(paths, Path) else list(paths)
        self.files: list[tuple[Path, str]] = []
        self.ignored: list[str] = []
        for root in roots:
            self._add(root)
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
        for path in _walk(root):
            name = path.relative_to(root).as_posix()
            if path.name.lower().removesuffix(".gz").endswith(_SUFFIXES):
                self.files.append((path, name))
            else:
                self.ignored.append(name)

    def items(self, only: tuple[bytes, ...] | None = None) -> Iterator[Item]:
        """Every resource of every file, in order of path; what cannot be read is an item with a fault.

        Args:
            only: Lines of NDJSON that hold none of these are skipped unread.
        """
        for path, name in self.files:
            yield from _read_file(path, name, only)


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


def _read_file(path: Path, name: str, only: tuple[bytes, ...] | None) -> Iterator[Item]:
    line = [0]
    try:
        with _open(path) as file:
            if _is_ndjson(path):
                yield from _read_lines(file, name, only, line)
            else:
                yield from _read_document(file.read(), name)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        reason = "the compressed file ends early or is damaged: what stands before this line was read; copy it again"
        yield Item(name, line[0], fault=Fault("truncated-gzip", reason))
    except OSError as error:
        yield Item(name, line[0], fault=Fault("unreadable-file", f"cannot be read: {error.strerror}"))


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP
    return gzip.open(path, "rb") if is_gzip else path.open("rb")


def _is_ndjson(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith((".ndjson", ".jsonl"))


def _read_lines(lines: Iterable[bytes], name: str, only: tuple[bytes, ...] | None, at: list[int]) -> Iterator[Item]:
    """The items of NDJSON lines; `at` holds the line that was reached, also when reading fails."""
    for number, raw in enumerate(lines, start=1):
        at[0] = number
        text = raw.removeprefix(_BOM).strip() if number == 1 else raw
        if number == 1 and text.startswith(_UTF16):
            yield Item(name, 1, fault=Fault("not-utf8", "the file must be UTF-8, and is UTF-16: none of it was read"))
            return
        if only is not None and not any(word in text for word in only):
            continue
        if text and not text.isspace():
            yield from _parse(text, name, number)


def _parse(text: bytes, name: str, line: int) -> Iterator[Item]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        yield Item(name, line, fault=_json_fault(text))
    else:
        yield from _expand(document, name, line)


def _read_document(text: bytes, name: str) -> Iterator[Item]:
    """The items of a JSON file; one that holds NDJSON under the wrong name is read as such."""
    text = text.removeprefix(_BOM)
    if text.startswith(_UTF16):
        yield Item(name, 0, fault=Fault("not-utf8", "the file must be UTF-8, and is UTF-16: none of it was read"))
        return
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        first, _, rest = text.lstrip().partition(b"\n")
        if rest.strip() and _is_json_object(first):
            yield from _read_lines(text.splitlines(), name, None, [0])
        else:
            yield Item(name, 0, fault=_json_fault(text))
        return
    yield from _expand(document, name, 0)


def _is_json_object(text: bytes) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _json_fault(text: bytes) -> Fault:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return Fault("not-utf8", "the text must be UTF-8")
    return Fault("malformed-json", "the text must be one whole JSON object")


def _expand(document: Any, name: str, line: int, depth: int = 0) -> Iterator[Item]:
    """A document as items: a bundle gives itself, then the resource of each entry."""
    yield Item(name, line, document)
    if not isinstance(document, dict) or document.get("resourceType") != "Bundle":
        return
    entries = document.get("entry", [])
    if not isinstance(entries, list) or depth >= _MAX_BUNDLE_DEPTH:
        reason = f"entry of a bundle must be a list, and bundles nested {_MAX_BUNDLE_DEPTH} deep at most"
        yield Item(name, line, fault=Fault("malformed-bundle", reason))
        return
    scope = Scope()
    for number, entry in enumerate(entries, start=1):
        _add_url(scope, entry, _entry_id(entry, name, line, number))
    for number, entry in enumerate(entries, start=1):
        yield from _expand_entry(entry, scope, (name, line, number), depth)


def _expand_entry(entry: Any, scope: Scope, place: tuple[str, int, int], depth: int) -> Iterator[Item]:
    name, line, number = place
    if not isinstance(entry, dict) or entry.get("resource") is None:
        # A deletion or the answer to a request rightly has no resource.
        if not isinstance(entry, dict) or not {"request", "response"} & set(entry):
            yield Item(name, line or number, fault=Fault("malformed-bundle", "a bundle entry must have a resource"))
        return
    resource, url = entry["resource"], entry.get("fullUrl")
    if isinstance(resource, dict) and resource.get("resourceType") == "Bundle":
        yield from _expand(resource, name, line or number, depth + 1)
        return
    if isinstance(resource, dict) and resource.get("id") is None:
        resource = {**resource, "id": _entry_id(entry, name, line, number)}
    yield Item(name, line or number, resource, scope=scope, full_url=url if isinstance(url, str) else None)


def _entry_id(entry: Any, name: str, line: int, number: int) -> str:
    """The id of an entry's resource: its own, else the UUID of its full URL, else its place."""
    if isinstance(entry, dict):
        resource, url = entry.get("resource"), entry.get("fullUrl")
        if isinstance(resource, dict) and isinstance(resource.get("id"), str):
            return str(resource["id"])
        if isinstance(url, str) and url.startswith("urn:"):
            return url.rpartition(":")[2]
    return f"{name}#{line}.{number}"


def _add_url(scope: Scope, entry: Any, resource_id: str) -> None:
    if not isinstance(entry, dict) or not isinstance(entry.get("fullUrl"), str):
        return
    resource = entry.get("resource")
    if isinstance(resource, dict) and isinstance(resource.get("resourceType"), str):
        scope.full_urls[entry["fullUrl"]] = (resource["resourceType"], resource_id)
