"""Resources as the NDJSON files that bulk imports want: one type a file, no file larger than the server takes."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medtwin.core.errors import ConfigError
from medtwin.fhir.remote.settings import BulkSettings


@dataclass(frozen=True)
class BulkFile:
    """One file of an import.

    Attributes:
        name: Of the file.
        type: Of all resources in it.
        count: Of resources.
        sha256, size: Of the file as it stands.
    """

    name: str
    type: str
    count: int
    sha256: str
    size: int


def split_files(source: Path, target: Path, chosen: BulkSettings) -> list[BulkFile]:
    """Writes `<Type>.<n>.ndjson` (`.gz`) from a folder of `<Type>.ndjson`, streaming; equal input gives equal bytes.

    Args:
        source: One file a type, one resource a line.
        target: Where the files go; made if it does not exist.
        chosen: The limits.

    Raises:
        ConfigError: If a resource is larger than the server takes, or there would be more files than it takes.
    """
    target.mkdir(parents=True, exist_ok=True)
    files: list[BulkFile] = []
    for path in sorted(source.glob("*.ndjson")):
        kind = path.name.partition(".")[0]
        for number, lines in enumerate(_parts(path, chosen)):
            files.append(_write(target, kind, number, lines, is_gzip=chosen.gzip))
            if len(files) > chosen.max_files:
                raise ConfigError(
                    f"the import would have more than bulk.max_files={chosen.max_files:,} files: raise "
                    "bulk.max_resources and bulk.max_file_bytes"
                )
    return files


def _parts(path: Path, chosen: BulkSettings) -> Iterator[Iterator[bytes]]:
    """The lines of a file in runs that respect the limits; each run must be read before the next is asked for."""
    with path.open("rb") as file:
        lines = _checked(file, path, chosen)
        held = next(lines, None)
        while held is not None:
            taken: list[bytes | None] = [held]
            yield _run(taken, lines, chosen)
            held = taken[0]


def _run(taken: list[bytes | None], lines: Iterator[bytes], chosen: BulkSettings) -> Iterator[bytes]:
    """Lines from the held one on, as many as a file may have; the first that it may not is held instead."""
    count, size = 0, 0
    line = taken[0]
    while (
        line is not None and count < chosen.max_resources and (not count or size + len(line) <= chosen.max_file_bytes)
    ):
        yield line
        count, size = count + 1, size + len(line)
        line = next(lines, None)
    taken[0] = line


def _checked(file: IO[bytes], path: Path, chosen: BulkSettings) -> Iterator[bytes]:
    limit = chosen.max_resource_bytes
    for number, line in enumerate(file, 1):
        data = line.strip()
        if not data:
            continue
        if limit is not None and len(data) > limit:
            raise ConfigError(
                f"{path.name} line {number} is a resource of {len(data):,} bytes, and the server takes at most "
                f"bulk.max_resource_bytes={limit:,}"
            )
        yield data + b"\n"


def _write(target: Path, kind: str, number: int, lines: Iterator[bytes], *, is_gzip: bool) -> BulkFile:
    name = f"{kind}.{number:04d}.ndjson{'.gz' if is_gzip else ''}"
    count = 0
    with (target / name).open("wb") as raw:
        # No name and no time in the header, so that equal resources give equal files.
        file: IO[bytes] = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if is_gzip else raw  # type: ignore[assignment]
        for line in lines:
            file.write(line)
            count += 1
        if is_gzip:
            file.close()
    with (target / name).open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return BulkFile(name, kind, count, digest, (target / name).stat().st_size)
