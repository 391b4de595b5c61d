"""`medtwin ingest source.server.url=...`: what a live FHIR server has, as files that the FHIR reader reads."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from medtwin.core.output import Output
from medtwin.core.provenance import Input
from medtwin.fhir.server import ServerSource, fetch_server
from medtwin.pipelines.say import counting, tell


def fetch(chosen: ServerSource, output: Output) -> Path:
    """Fetches the resources into the scratch of the output; what a killed run fetched is kept. Returns the folder.

    They are patients as the server has them: the folder goes when the dataset is finished.

    Raises:
        MedtwinError: If the server cannot be used or gives something else than FHIR.
    """
    folder = output.scratch("server") / "fhir"
    with counting("fetching", unit="resource") as count:
        report = fetch_server(chosen, folder, on_number=count)
    for note, number in sorted(report.notes.items()):
        tell(f"the server says: {note} ({number:,})")
    return folder


def describe_server(chosen: ServerSource) -> Input:
    """The server as provenance records it: by its host; the settings have its FHIR base."""
    return Input("server", urlsplit(chosen.base()).netloc)
