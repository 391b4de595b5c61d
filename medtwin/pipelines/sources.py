"""What the verbs say of their inputs and settings in provenance: names and hashes, never a place on this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from medtwin.core.errors import OutputError, SourceError

# Settings that change how a verb works but not what it makes.
_NOT_CONTENT = {"out", "overwrite", "workers", "cache"}
# How a server is reached, and how patiently: a run that was stopped may go on with other values.
_NOT_CONTENT |= {"auth", "ca_file", "proxy", "concurrency", "retries", "max_wait_s", "max_poll_s"}
_NOT_CONTENT |= {"connect_timeout_s", "read_timeout_s", "allow_failures", "max_failures"}
_NOT_CONTENT |= {"client_cert_file", "client_key_file", "calling_aet", "max_pdu", "max_instances", "verify"}


def public_config(chosen: Any) -> dict[str, Any]:
    """Settings as provenance records them: paths by their last name, without those that do not change the result."""
    record = {}
    for field in fields(chosen):
        if field.name not in _NOT_CONTENT:
            record[field.name] = _public(getattr(chosen, field.name))
    return record


def _public(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return public_config(value)
    if isinstance(value, Path):
        return value.resolve().name
    if isinstance(value, Mapping):
        return {str(key): _public(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(inner) for inner in value]
    return value


def require_source(path: Path, setting: str) -> Path:
    """The path, if it is there and can be read.

    Raises:
        SourceError: Naming the setting and what is wrong.
    """
    if not path.exists():
        raise SourceError(f"{setting}: {path} does not exist")
    needed = os.R_OK | os.X_OK if path.is_dir() else os.R_OK
    if not os.access(path, needed):
        raise SourceError(f"{setting}: {path} cannot be read: change its permissions")
    if path.is_dir() and not any(path.iterdir()):
        raise SourceError(f"{setting}: {path} is empty")
    return path


def require_outside(out: Path, source: Path) -> None:
    """Refuses an output inside its own source, which it would change while reading it.

    Raises:
        OutputError: If `out` is the source or lies in it.
    """
    place, home = out.resolve(), source.resolve()
    if place == home or home in place.parents:
        raise OutputError(f"out={out} lies inside its own source {source}: choose another out=")


def fingerprint(path: Path) -> str:
    """Names the state of a source by the names, sizes and times of its files; cheap, also for many files."""
    digest = hashlib.sha256()
    for root, folders, names in os.walk(path) if path.is_dir() else [(str(path.parent), [], [path.name])]:
        folders.sort()
        for name in sorted(names):
            file = Path(root) / name
            state = file.stat()
            digest.update(f"{file.relative_to(path.parent)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum((Path(root) / name).stat().st_size for root, _, names in os.walk(path) for name in names)
