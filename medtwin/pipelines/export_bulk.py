"""`medtwin export to=bulk_import`: NDJSON files and the request that has a FHIR server import them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError
from medtwin.core.files import atomic_file, read_json, write_json
from medtwin.core.output import Output
from medtwin.fhir.server import (
    BulkFile,
    BulkOutcome,
    BulkRequest,
    BulkSettings,
    ResourceStore,
    import_request,
    send_import,
    split_files,
)
from medtwin.pipelines.export_server import write_resources
from medtwin.pipelines.export_settings import ExportSettings
from medtwin.pipelines.say import tell


def check_bulk_import(chosen: ExportSettings) -> None:
    """Refuses settings that lack what the dialect needs, before anything is made.

    Raises:
        ConfigError: Naming the setting.
    """
    import_request([BulkFile("Patient.0000.ndjson", "Patient", 1, "", 1)], chosen.bulk)
    if chosen.bulk.url is not None and chosen.bulk.dialect == "healthlake":
        raise ConfigError("bulk.url: medtwin holds no AWS credentials to sign with: leave it out, and run command.sh")


def write_bulk_import(dataset: Dataset, chosen: ExportSettings, output: Output) -> dict[str, int]:
    """Writes `files/`, `request.json` and `command.sh`; starts the import where `bulk.url` says.

    Args:
        dataset: What to write.
        chosen: The settings; those of the import are its group `bulk`.
        output: The directory in the making.

    Returns:
        Resources and files by type, and what the server said of them.

    Raises:
        MedtwinError: For settings that the dialect lacks, or an import that fails.
    """
    bulk = chosen.bulk
    folder = write_resources(dataset, chosen, output)
    if not bulk.allow_untagged:
        ResourceStore(folder).require_tagged()
    files = split_files(folder, output.path / "files", bulk)
    request = import_request(files, bulk)
    _write_request(output, request, files)
    counts = Counter({f"{kind} files": 0 for kind in sorted({each.type for each in files})})
    for each in files:
        counts[each.type] += each.count
        counts[f"{each.type} files"] += 1
    if bulk.url is not None:
        counts += _send(request, bulk, output).counts
    else:
        tell(f"put files/ at {bulk.base_url}, then send request.json as command.sh says")
    return {**output.result("resources"), **dict(sorted(counts.items()))}


def _write_request(output: Output, request: BulkRequest, files: Sequence[BulkFile]) -> None:
    write_json(output.path / "request.json", request.body)
    with atomic_file(output.path / "command.sh", "w") as file:
        names = "\n".join(f"#   {name}: {value}" for name, value in request.headers.items())
        file.write(f"#!/bin/sh\n# {request.method} {request.path}\n{names}\n{request.command}\n")
    listed = {each.name: {"type": each.type, "count": each.count, "sha256": each.sha256} for each in files}
    write_json(output.path / "files.json", listed)


def _send(request: BulkRequest, bulk: BulkSettings, output: Output) -> BulkOutcome:
    """Starts the import once, and waits for it; a killed run goes on waiting."""
    place = output.scratch("import") / "started.json"
    started = read_json(place)["at"] if place.exists() else None
    outcome = send_import(request, bulk, started=started, on_start=lambda at: write_json(place, {"at": at}))
    if outcome.error_files:
        tell(f"the server wrote what is wrong to {len(outcome.error_files)} files; outcome.json names them")
    write_json(output.path / "outcome.json", {"counts": dict(outcome.counts), "error_files": list(outcome.error_files)})
    return outcome
