"""`medtwin export to=fhir_server`: the resources of a dataset, sent to a FHIR server."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError, OutputError
from medtwin.core.output import Output
from medtwin.fhir.server import Sender, SendReport, check_server, write_failures
from medtwin.pipelines.export_fhir import write_fhir
from medtwin.pipelines.export_settings import ExportSettings
from medtwin.pipelines.say import progress

_REJECTED = "rejected/rejected.csv"


def check_fhir_server(chosen: ExportSettings) -> None:
    """Refuses settings and a server that cannot be used, before anything is made.

    Raises:
        MedtwinError: If the server is not named, cannot be reached, or cannot do what is wanted.
    """
    if chosen.server.url is None:
        raise ConfigError("server.url=... is required: the FHIR base of the server, such as https://example.org/fhir")
    check_server(chosen.server)


def write_fhir_server(dataset: Dataset, chosen: ExportSettings, output: Output) -> dict[str, int]:
    """Sends the dataset; what a killed or stopped run sent is not sent again.

    The output keeps `journal.jsonl`, which says what was sent when, and `rejected/rejected.csv`, where the server
    refused something; the resources themselves do not stay.

    Args:
        dataset: What to send.
        chosen: The settings; those of the server are its group `server`.
        output: The directory in the making.

    Returns:
        Resources by type and by what became of them, and what the export counted.

    Raises:
        MedtwinError: If the server cannot be used, or refuses resources and allow_failures is not set.
    """
    server = chosen.server
    folder = write_resources(dataset, chosen, output)
    with Sender(folder, server, output.path / "journal.jsonl") as sender:
        try:
            for _ in progress(_one_by_one(sender.steps()), "sending", total=len(sender), unit="resource"):
                pass
        finally:
            report = sender.report()
            _write_rejected(output.path / _REJECTED, report)
    if report.failures and not server.allow_failures:
        raise OutputError(
            f"the server refused {len(report.failures):,} resources: {output.path / _REJECTED} says which and why. "
            "The same command tries them again, and nothing else; server.allow_failures=true finishes without them"
        )
    return {**output.result("resources"), **report.counts, "requests sent again": report.num_retries}


def write_resources(dataset: Dataset, chosen: ExportSettings, output: Output) -> Path:
    """Writes the resources as NDJSON where they do not become part of the output, once; returns the folder."""
    folder = output.scratch("resources")
    if not output.is_done("resources"):
        shutil.rmtree(folder)
        folder.mkdir()
        as_ndjson = replace(chosen, fhir=replace(chosen.fhir, form="ndjson"))
        counts = write_fhir(dataset, as_ndjson, folder)
        told = {name: number for name, number in counts.items() if ":" in name or " " in name}
        output.mark_done("resources", told)
    return folder


def _one_by_one(steps: Iterable[int]) -> Iterable[int]:
    return (number for step in steps for number in range(step))


def _write_rejected(path: Path, report: SendReport) -> None:
    if report.failures:
        write_failures(path, report.failures)
    else:
        shutil.rmtree(path.parent, ignore_errors=True)
