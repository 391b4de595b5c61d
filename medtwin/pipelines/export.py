"""`medtwin export`: a dataset -> files, a FHIR server, a PACS, OMOP, MEDS; refused without a verdict that allows it."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from medtwin.check.identifiers.known import Known
from medtwin.config import settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import ReleaseRefusedError
from medtwin.core.files import read_json, write_json
from medtwin.core.output import Output, is_finished, writing
from medtwin.core.provenance import Provenance, creation_time, describe_input, write_provenance
from medtwin.core.verdict import require_release
from medtwin.pipelines.export_files import write_files
from medtwin.pipelines.export_settings import ExportSettings
from medtwin.pipelines.identifier_scan import rows_to_tell, scan_files, summary
from medtwin.pipelines.say import tell, tell_counts
from medtwin.pipelines.sources import fingerprint, public_config, require_outside, require_source

Writer = Callable[[Dataset, ExportSettings, Output], dict[str, int]]
# Each in a module of its own, loaded when it is asked for.
_WRITERS = {
    "fhir_server": "export_server:write_fhir_server",
    "bulk_import": "export_bulk:write_bulk_import",
    "dimse": "export_pacs:write_dimse",
    "dicomweb": "export_pacs:write_dicomweb",
    "omop": "export_omop:write_omop",
    "meds": "export_meds:write_meds",
}
# The settings that matter to each; provenance leaves those of the others out.
_GROUPS = {
    "files": {"formats", "fhir", "dicom"},
    "fhir_server": {"server", "fhir"},
    "bulk_import": {"bulk", "fhir"},
    "dimse": {"pacs", "dicom"},
    "dicomweb": {"pacs", "dicom"},
    "omop": {"omop"},
    "meds": {"meds"},
}
# What can be said of the settings before an output is begun, which other settings would then not continue.
_CHECKS = {
    "files": "export_files:check_files",
    "fhir_server": "export_server:check_fhir_server",
    "bulk_import": "export_bulk:check_bulk_import",
    "dimse": "export_pacs:check_dimse",
    "dicomweb": "export_pacs:check_dicomweb",
}


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    export(settings(ExportSettings, config))


def export(chosen: ExportSettings) -> Path:
    """Writes the export, or says that it is there; returns where it is."""
    dataset = open_dataset(chosen.dataset)
    require_outside(chosen.out, dataset.path)
    overridden = require_release(dataset, chosen.check, override_reason=chosen.override.reason)
    source = dataset.manifest_hash() if dataset.is_finished else fingerprint(dataset.path)
    config = {**_public_settings(chosen), "source_state": source}
    begins = chosen.overwrite or not is_finished(chosen.out)
    known = Known.load(chosen.identifiers) if begins and chosen.identifiers is not None else None
    if begins and chosen.to in _CHECKS:
        _load(_CHECKS[chosen.to])(chosen)
    with writing(chosen.out, config, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        if chosen.to == "files":
            counts = write_files(dataset, chosen, output)
        else:
            write: Writer = _load(_WRITERS[chosen.to])
            counts = {chosen.to: write(dataset, chosen, output)}
        write_json(output.path / "counts.json", counts)
        overridden = _scanned(dataset, chosen, output.path, known, overridden)
        write_provenance(output.path, _provenance(dataset, chosen, config, overridden))
    _tell_result(chosen.out)
    return chosen.out


def _scanned(
    dataset: Dataset, chosen: ExportSettings, folder: Path, known: Known | None, overridden: str | None
) -> str | None:
    """Looks for identifiers in what was written; returns what was overridden, for provenance.

    Simulated patients are nobody, and their files are not looked at.

    Raises:
        ReleaseRefusedError: If there are some, or a file could not be read, and no reason is given.
    """
    if dataset.origin == "simulated":
        return overridden
    scan = scan_files(folder, known)
    write_json(folder / "identifiers.json", summary(scan))
    if not scan.hits and not scan.unreadable:
        return overridden
    tell_counts("identifiers, or what looks like one:", rows_to_tell(scan))
    refusal = f"{len(scan.hits):,} identifiers or what looks like one stand in the files"
    if scan.unreadable:
        refusal = f"{refusal}, and {len(scan.unreadable)} could not be read"
    if not (chosen.override.reason or "").strip():
        raise ReleaseRefusedError(f"{refusal}. To export it all the same, say why: override.reason='...'")
    return f"{overridden}, and {refusal}" if overridden else refusal


def _public_settings(chosen: ExportSettings) -> dict[str, Any]:
    """The settings that decide what is made; of a vocabulary, the state of its files."""
    others = set().union(*_GROUPS.values()) - _GROUPS[chosen.to]
    config = {name: value for name, value in public_config(chosen).items() if name not in others}
    if chosen.identifiers is None:
        del config["identifiers"]  # exports of before knew none
    if chosen.to == "omop" and chosen.omop.vocab is not None:
        config["vocab_state"] = fingerprint(require_source(chosen.omop.vocab, "omop.vocab"))
    return config


def _provenance(
    dataset: Dataset, chosen: ExportSettings, config: Mapping[str, Any], overridden: str | None
) -> Provenance:
    decisions = []
    if overridden is not None:
        decision = {"decision": f"exported although {overridden}", "reason": chosen.override.reason or ""}
        by = chosen.override.by or getpass.getuser()
        decisions.append({**decision, "by": by, "at": creation_time().isoformat(timespec="seconds")})
    source = describe_input("dataset", dataset.path)
    return Provenance("export", dataset.origin, config, None, [source], source.lineage_depth, human_decisions=decisions)


def _load(place: str) -> Any:
    """A function by its module below pipelines and its name."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"medtwin.pipelines.{module}"), name)


def _tell_result(out: Path) -> None:
    counts = read_json(out / "counts.json")
    rows = [{"form": name, "what": what, "written": n} for name, part in counts.items() for what, n in part.items()]
    tell_counts(f"{out}:", rows)
