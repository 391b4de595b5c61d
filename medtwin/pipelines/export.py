"""`medtwin export`: a dataset -> files, a FHIR server, OMOP, MEDS; refused where the verdict does not allow it."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from medtwin.config import settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.files import read_json, write_json
from medtwin.core.output import Output, writing
from medtwin.core.provenance import Provenance, creation_time, describe_input, write_provenance
from medtwin.core.verdict import require_release
from medtwin.pipelines.export_files import write_files
from medtwin.pipelines.export_settings import ExportSettings
from medtwin.pipelines.say import tell, tell_counts
from medtwin.pipelines.sources import fingerprint, public_config, require_outside

Writer = Callable[[Dataset, ExportSettings, Output], dict[str, int]]
# Each in a module of its own, loaded when it is asked for.
_WRITERS = {
    "fhir_server": "export_server:write_fhir_server",
    "bulk_import": "export_bulk:write_bulk_import",
    "omop": "export_omop:write_omop",
    "meds": "export_meds:write_meds",
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
    config = {**public_config(chosen), "source_state": source}
    with writing(chosen.out, config, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        if chosen.to == "files":
            counts = write_files(dataset, chosen, output)
        else:
            counts = {chosen.to: _writer(chosen.to)(dataset, chosen, output)}
        write_json(output.path / "counts.json", counts)
        write_provenance(output.path, _provenance(dataset, chosen, config, overridden))
    _tell_result(chosen.out)
    return chosen.out


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


def _writer(to: str) -> Writer:
    module, _, name = _WRITERS[to].partition(":")
    found: Writer = getattr(import_module(f"medtwin.pipelines.{module}"), name)
    return found


def _tell_result(out: Path) -> None:
    counts = read_json(out / "counts.json")
    rows = [{"form": name, "what": what, "written": n} for name, part in counts.items() for what, n in part.items()]
    tell_counts(f"{out}:", rows)
