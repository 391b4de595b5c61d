"""`medtwin ingest source.dicomweb.url=...`: what a DICOMweb server has, as files that the DICOM reader reads."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from medtwin.core.output import Output
from medtwin.core.provenance import Input
from medtwin.core.sources import Ledger
from medtwin.dicom.network import WebSource, fetch_studies
from medtwin.pipelines.say import counting


def fetch(chosen: WebSource, output: Output, ledger: Ledger) -> Path:
    """Fetches the studies into the scratch of the output; what a killed run fetched is kept. Returns the folder.

    They are patients as the server has them: the folder goes when the dataset is finished.

    Args:
        chosen: The server and what to read.
        output: The directory in the making.
        ledger: Takes the series that the server lists and does not give whole.

    Raises:
        MedtwinError: If the server cannot be used.
    """
    folder = output.scratch("dicomweb") / "dicom"
    with counting("fetching", unit="object") as count:
        fetch_studies(chosen, folder, ledger, on_number=count)
    return folder


def describe_server(chosen: WebSource) -> Input:
    """The server as provenance records it: by its host; the settings have its DICOMweb base."""
    return Input("dicomweb", urlsplit(chosen.base()).netloc)
