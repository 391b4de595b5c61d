"""The scan for identifiers as `scan`, `check` and `export` run it, and what of it is written."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medtwin.check.identifiers.known import Known
from medtwin.check.identifiers.scan import Hit, Scan, scan_folder
from medtwin.check.identifiers.sources import add_dataset
from medtwin.core.dataset import Dataset
from medtwin.core.files import atomic_file
from medtwin.pipelines.say import progress

PRIVATE_FILE = "identifiers.parquet"
MAX_TOLD = 20


def known_of(real: Dataset, given: Path | None) -> Known:
    """What is known of a source: the file that is given, or lies beside the dataset, and the dataset's own ids.

    Raises:
        ConfigError: If the file is none.
    """
    beside = real.path.absolute().with_name(f"{real.path.name}.private") / PRIVATE_FILE
    path = given or (beside if beside.is_file() else None)
    known = Known() if path is None else Known.load(path)
    add_dataset(known, real)
    return known


def scan_files(folder: Path, known: Known | None) -> Scan:
    """Scans a folder, with a progress bar."""
    return scan_folder(folder, known, watch=_watch)


def _watch(paths: Iterable[Path]) -> Iterable[Path]:
    return progress(paths, "scan", unit="file")


def summary(scan: Scan) -> dict[str, Any]:
    """What may stand beside the files: no hash, no count of the source's people."""
    found = Counter((one.kind, one.source) for one in scan.hits)
    return {
        "files": scan.files,
        "texts": scan.texts,
        "looked_for": sorted(scan.known),
        "found": [{"kind": kind, "source": source, "hits": hits} for (kind, source), hits in sorted(found.items())],
        "unreadable": len(scan.unreadable),
    }


def write_hits(path: Path, scan: Scan) -> None:
    """Writes where what was found, as CSV: file, field, kind, source, digest, count."""
    with atomic_file(path, "w") as file:
        writer = csv.DictWriter(file, list(Hit.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in scan.hits)


def rows_to_tell(scan: Scan) -> list[dict[str, Any]]:
    """The first hits, and how many more there are."""
    rows = [
        {"file": one.file, "field": one.field, "kind": one.kind, "times": one.count} for one in scan.hits[:MAX_TOLD]
    ]
    if len(scan.hits) > MAX_TOLD:
        rows.append({"file": f"and {len(scan.hits) - MAX_TOLD:,} more", "field": "", "kind": "", "times": 0})
    return rows
