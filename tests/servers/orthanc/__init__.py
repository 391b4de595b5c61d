"""Orthanc with DICOMweb for pytest, reachable from this machine alone as far as that is in our hands.

Debian's Orthanc 1.10 listens on all addresses and has no setting for that. So: HTTP refuses every other machine
(`RemoteAccessAllowed`), DICOM takes associations only from the AE titles below coming from 127.0.0.1 and calling it by
its own title, nothing is stored, found or echoed for others; ports are chosen by the system anew each time. Where
stricter is wanted, run pytest in `unshare -n` with `ip link set lo up`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers import require_peer

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
AET = "ORTHANC"
CALLING = "MEDTWIN"
_STARTS_S = 30.0


class Orthanc:
    """A running Orthanc: where it is, and what tests ask of it beside DICOM."""

    def __init__(self, http_port: int, dicom_port: int) -> None:
        self.root = f"http://127.0.0.1:{http_port}"
        self.base = f"{self.root}/dicom-web"
        self.port = dicom_port

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> Any:
        """What Orthanc's own REST interface answers."""
        request = urllib.request.Request(f"{self.root}{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            data = answer.read()
        return json.loads(data) if data else None

    def count(self) -> int:
        """How many instances it holds."""
        return int(self.ask("/statistics")["CountInstances"])

    def empty(self) -> None:
        """Removes everything."""
        for patient in self.ask("/patients"):
            self.ask(f"/patients/{patient}", "DELETE")

    def files(self) -> Iterator[bytes]:
        """Every instance as it is kept."""
        for instance in self.ask("/instances"):
            with urllib.request.urlopen(f"{self.root}/instances/{instance}/file", timeout=60) as answer:
                yield answer.read()


@contextlib.contextmanager
def running_orthanc(**settings: Any) -> Iterator[Orthanc]:
    """An Orthanc of its own, empty, on free ports; it ends with the block.

    Args:
        settings: Of Orthanc's configuration, in place of ours.
    """
    program = require_peer("Orthanc")
    if not PLUGIN.exists():
        require_peer("Orthanc with its DICOMweb plugin")
    store = Path(tempfile.mkdtemp(prefix="orthanc-"))
    http_port, dicom_port = _free_ports()
    config = store / "orthanc.json"
    config.write_text(json.dumps(_config(store, http_port, dicom_port) | settings))
    # Without TCP_NODELAY each of its answers to C-STORE waits 40 ms for an acknowledgement.
    environment = {**os.environ, "TCP_NODELAY": "1"}
    with (store / "log").open("wb") as log:
        process = subprocess.Popen([program, config], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            orthanc = Orthanc(http_port, dicom_port)
            _wait_for(f"{orthanc.root}/system", process, store / "log")
            yield orthanc
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            shutil.rmtree(store, ignore_errors=True)


def _config(store: Path, http_port: int, dicom_port: int) -> dict[str, Any]:
    may = {f"Allow{what}": True for what in ("Echo", "Find", "Get", "Store")}
    return {
        "Name": "medtwin-test",
        "StorageDirectory": str(store / "db"),
        "IndexDirectory": str(store / "db"),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": AET,
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True,
        "DicomAlwaysAllowEcho": False,
        "DicomAlwaysAllowStore": False,
        "DicomAlwaysAllowFind": False,
        "DicomAlwaysAllowGet": False,
        "DicomModalities": {"medtwin": {"AET": CALLING, "Host": "127.0.0.1", "Port": 1, **may}},
        "OverwriteInstances": False,
        "StableAge": 1,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
    }


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return int(first.getsockname()[1]), int(second.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _STARTS_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"Orthanc ended at once: {log.read_text(errors='replace')[-2000:]}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(url)


@pytest.fixture(scope="session")
def orthanc_process() -> Iterator[Orthanc]:
    """The Orthanc of this worker."""
    with running_orthanc() as orthanc:
        yield orthanc


@pytest.fixture
def orthanc(orthanc_process: Orthanc) -> Orthanc:
    """Orthanc, empty."""
    orthanc_process.empty()
    return orthanc_process
