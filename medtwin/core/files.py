"""Files that are there whole or not at all, and the manifest that says a directory is finished."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from medtwin.core.errors import DatasetError
from medtwin.core.findings import Finding

MANIFEST = "manifest.json"


@contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """A file that appears under `path` complete, or not at all; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON, sorted and indented, atomically."""
    with atomic_file(path, "w") as file:
        json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False)
        file.write("\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        DatasetError: If the file is missing or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not valid JSON") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path} must hold a JSON object")
    return value


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a parquet file atomically, without dictionary types or pandas metadata (any MEDS reader takes it)."""
    with atomic_file(path) as file:
        pq.write_table(table.replace_schema_metadata(None), file, compression="zstd")


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones and the manifest excepted, as sorted POSIX paths relative to it."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        base = Path(root).relative_to(folder)
        found += [(base / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(name for name in found if name != MANIFEST)


def write_manifest(folder: Path) -> None:
    """Writes manifest.json: sha256 and size of every file. A folder with a manifest is finished and immutable."""
    files = {
        name: {"sha256": file_digest(folder / name), "size": (folder / name).stat().st_size}
        for name in list_files(folder)
    }
    write_json(folder / MANIFEST, {"version": 1, "files": files})


def verify_manifest(folder: Path) -> list[Finding]:
    """What differs between a folder and its manifest: missing, added and changed files."""
    stated = read_json(folder / MANIFEST).get("files", {})
    there = set(list_files(folder))
    findings = [Finding("file-missing", "the manifest names it", where=name) for name in sorted(set(stated) - there)]
    findings += [
        Finding("file-added", "the manifest does not name it", where=name) for name in sorted(there - set(stated))
    ]
    for name in sorted(there & set(stated)):
        path = folder / name
        if path.stat().st_size != stated[name]["size"] or file_digest(path) != stated[name]["sha256"]:
            findings.append(Finding("file-changed", "size or sha256 is not that of the manifest", where=name))
    return findings


def manifest_hash(folder: Path) -> str:
    """The sha256 of the manifest: names the exact content of a finished folder.

    Raises:
        DatasetError: If the folder has no manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DatasetError(f"{folder} has no {MANIFEST}: it is not a finished medtwin directory")
    return file_digest(path)
