"""A live server into a folder that the FHIR reader reads, in the way that the settings choose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx

from medtwin.fhir.remote.bulk_export import fetch_export
from medtwin.fhir.remote.search import FetchReport, fetch_search
from medtwin.fhir.remote.settings import ServerSource


def fetch_server(
    chosen: ServerSource,
    folder: Path,
    *,
    on_number: Callable[[int], None] = lambda number: None,
    transport: httpx.BaseTransport | None = None,
) -> FetchReport:
    """Fetches what the settings choose, by search or by Bulk Data export; continues what an earlier call began.

    The folder then holds patients as the server has them: it belongs into scratch, not into an output.

    Args:
        chosen: The server and what to read.
        folder: Where NDJSON files go; `<folder>.state.json` beside it says what is complete.
        on_number: Told how many resources came with each page or file.
        transport: For tests: what answers in place of the network.

    Raises:
        MedtwinError: For settings or a server that cannot be used.
    """
    if chosen.how == "export":
        return fetch_export(chosen, folder, on_file=on_number, transport=transport)
    return fetch_search(chosen, folder, on_page=on_number, transport=transport)
