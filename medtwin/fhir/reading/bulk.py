"""The manifest of a Bulk Data export: which files it should have, and whether they are there.

Source: HL7 FHIR Bulk Data Access 2.0, export, response of the complete status.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from medtwin.core.errors import SourceError

_MAX_MANIFEST_BYTES = 64 * 2**20
_SHOWN = 5


@dataclass(frozen=True)
class Manifest:
    """What an export says of itself.

    Attributes:
        outputs: Names of the files with resources, without folders, query and `.gz`.
        num_errors: How many files of OperationOutcome it lists.
        num_deleted: How many files of deletions it lists.
    """

    outputs: tuple[str, ...]
    num_errors: int
    num_deleted: int


def read_manifest(path: Path) -> Manifest | None:
    """The manifest in a file; None if it is not one.

    Raises:
        SourceError: If it is a manifest, and malformed.
    """
    if "manifest" not in path.name.lower() or path.suffix.lower() != ".json":
        return None
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        return None
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict) or "resourceType" in value or "transactionTime" not in value:
        return None
    outputs = tuple(_names(value.get("output"), path))
    return Manifest(outputs, len(list(_names(value.get("error"), path))), len(list(_names(value.get("deleted"), path))))


def _names(entries: Any, path: Path) -> Iterable[str]:
    for entry in entries if isinstance(entries, list) else [] if entries is None else [entries]:
        url = entry.get("url") if isinstance(entry, dict) else None
        if not isinstance(url, str):
            raise SourceError(f"{path.name}: every entry of output, error and deleted must be an object with a url")
        yield _plain(PurePosixPath(unquote(urlsplit(url).path)).name)


def _plain(name: str) -> str:
    return name.lower().removesuffix(".gz")


def check_manifest(path: Path, manifest: Manifest, files: Iterable[str]) -> bool:
    """Whether the files of an export bear the names that its manifest gives; a download may rename them all.

    Args:
        path: The manifest.
        manifest: What it says.
        files: Names of the files that are there.

    Raises:
        SourceError: If some are there under their names, and others are not.
    """
    there = {_stem(PurePosixPath(name).name) for name in files}
    missing = sorted({name for name in manifest.outputs if _stem(name) not in there})
    if not missing:
        return True
    if len(missing) == len(set(manifest.outputs)) and there:
        return False
    shown = ", ".join(missing[:_SHOWN]) + (" ..." if len(missing) > _SHOWN else "")
    raise SourceError(
        f"{path} lists {len(set(manifest.outputs))} files of resources, and {len(missing)} of them are not there "
        f"({shown}): download them, or remove the manifest to read what there is"
    )


def _stem(name: str) -> str:
    return _plain(name).removesuffix(".ndjson").removesuffix(".jsonl")
