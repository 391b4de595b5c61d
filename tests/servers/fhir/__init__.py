"""The FHIR test server for pytest: started once for each worker, emptied before each test.

A test folder that wants it imports the fixtures in its ``conftest.py``::

    from tests.servers.fhir import fhir_process, fhir_server  # noqa: F401
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers import require_peer

FOLDER = Path(__file__).parent


class FhirServer:
    """A running server: its addresses, and what tests ask of it beside FHIR."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.root = base.removesuffix("/fhir")

    def control(self, **order: Any) -> dict[str, Any]:
        """Carries out an order (`reset`, `options`, `faults`, `seed`, `expireTokens`) and gives the state after it."""
        body = json.dumps(order).encode()
        request = urllib.request.Request(f"{self.root}/_control", body, method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))

    def reset(self, **options: Any) -> None:
        """Empties the server and gives it the options (README.md lists them) instead of its defaults."""
        self.control(reset=True, options=options)

    def counts(self) -> dict[str, int]:
        """How many resources of each type it holds."""
        return dict(self.control()["counts"])

    def log(self) -> list[dict[str, Any]]:
        """The requests since it was emptied: method, path, query, bytes, entries, headers, status, fault."""
        with urllib.request.urlopen(f"{self.root}/_log", timeout=30) as answer:
            return list(json.load(answer))


@contextlib.contextmanager
def running_server(**options: Any) -> Iterator[FhirServer]:
    """A server of its own, on a free port, that ends with the block (and with this process)."""
    require_peer("fhir_server")
    require_peer("r4_core")
    command = [require_peer("node"), FOLDER / "server.mjs", "--tied", "--options", json.dumps(options)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening "), "the FHIR test server ended at once"
        yield FhirServer(line.split()[1])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def fhir_process() -> Iterator[FhirServer]:
    """The server of this worker."""
    with running_server() as server:
        yield server


@pytest.fixture
def fhir_server(fhir_process: FhirServer) -> FhirServer:
    """The server, empty and with its default options."""
    fhir_process.reset()
    return fhir_process
