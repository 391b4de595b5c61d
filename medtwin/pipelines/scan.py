"""`medtwin scan`: files that are to leave -> where identifiers of the source stand in them, or what looks like one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtwin.check.identifiers.known import Known
from medtwin.check.identifiers.sources import add_dataset, add_files
from medtwin.config import settings
from medtwin.core.dataset import open_dataset
from medtwin.core.errors import ConfigError, ReleaseRefusedError
from medtwin.core.files import write_json
from medtwin.core.output import writing
from medtwin.core.provenance import Provenance, describe_input, write_provenance
from medtwin.pipelines.identifier_scan import rows_to_tell, scan_files, summary, write_hits
from medtwin.pipelines.say import progress, tell, tell_counts
from medtwin.pipelines.sources import fingerprint, public_config, require_outside, require_source


@dataclass(frozen=True)
class ScanSettings:
    """The settings of configs/scan.yaml."""

    out: Path
    files: Path | None = None
    source: Path | None = None
    real: Path | None = None
    known: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.files is None and (self.known is None or not self.gathers):
            raise ConfigError("scan needs files=DIR to scan, or source=DIR (and real=DATASET) with known=FILE to write")

    @property
    def gathers(self) -> bool:
        """Whether hashes are gathered anew."""
        return self.source is not None or self.real is not None


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend, and where something was found.
    """
    scan(settings(ScanSettings, config))


def scan(chosen: ScanSettings) -> None:
    """Gathers hashes, scans, writes what was found.

    Raises:
        ReleaseRefusedError: If something was found, or a file could not be read.
    """
    known = _known(chosen)
    if chosen.files is None:
        return
    files = require_source(chosen.files, "files")
    require_outside(chosen.out, files)
    config = {**public_config(chosen), "files_state": fingerprint(files)}
    with writing(chosen.out, config, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return
        found = scan_files(files, known)
        write_hits(output.path / "hits.csv", found)
        write_json(output.path / "identifiers.json", summary(found))
        inputs = [describe_input("files", files)]
        depth = inputs[0].lineage_depth
        write_provenance(output.path, Provenance("scan", "real", config, None, inputs, depth))
    tell_counts(f"{chosen.out}:", rows_to_tell(found))
    if found.hits or found.unreadable:
        raise ReleaseRefusedError(
            f"{files} must not leave: {len(found.hits):,} identifiers or what looks like one, "
            f"{len(found.unreadable)} files that could not be read; look at {chosen.out / 'hits.csv'}"
        )
    tell(f"{files}: nothing found in {found.texts:,} texts of {sum(found.files.values()):,} files")


def _known(chosen: ScanSettings) -> Known | None:
    if not chosen.gathers:
        return None if chosen.known is None else Known.load(chosen.known)
    known = Known()
    if chosen.source is not None:
        folder = require_source(chosen.source, "source")
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        add_files(known, progress(paths, "source", total=len(paths), unit="file"))
    if chosen.real is not None:
        add_dataset(known, open_dataset(chosen.real))
    if chosen.known is not None:
        if chosen.files is not None:
            require_outside(chosen.known, chosen.files)
        chosen.known.parent.mkdir(parents=True, exist_ok=True)
        known.save(chosen.known)
        tell_counts(f"{chosen.known}:", [{"kind": kind, "known": count} for kind, count in known.counts().items()])
    return known
