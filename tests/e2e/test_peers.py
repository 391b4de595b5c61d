"""Programs that medtwin's authors did not write take what it exports."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Medtwin
from tests.peers import require_peer
from tests.servers.fhir import running_server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: bytes | None = None, kind: str = "application/fhir+json") -> dict[str, object]:
    request = urllib.request.Request(url, body, {"Content-Type": kind} if body else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer))


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "the peer ended at once"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(url)


@pytest.fixture(scope="module")
def transactions(medtwin: Medtwin, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A transaction bundle for each of six patients, then the one that speaks of them all."""
    folder = tmp_path_factory.mktemp("transactions")
    medtwin("hospital", "n=6", "seed=5", f"out={folder / 'h'}")
    medtwin("ingest", f"source={folder / 'h'}", f"out={folder / 'd'}")
    medtwin("export", f"dataset={folder / 'd'}", f"out={folder / 'e'}", "formats=[fhir]", "fhir.form=transaction")
    bundles = sorted((folder / "e" / "fhir").glob("*.json"), key=lambda path: path.name == "shared.json")
    assert len(bundles) == 7
    return bundles


@pytest.fixture
def fhir_server() -> Iterator[str]:
    with running_server(maxEntries=100_000, maxBytes=100_000_000) as server:
        yield server.base


def test_a_fhir_server_with_strict_validation_takes_the_transactions(
    fhir_server: str, transactions: list[Path]
) -> None:
    num_resources = 0
    for path in transactions:
        entries = ask(fhir_server, path.read_bytes())["entry"]
        assert isinstance(entries, list)
        num_resources += len(entries)
        assert {entry["response"]["status"][:3] for entry in entries} <= {"200", "201"}
    assert num_resources > 300
    assert ask(f"{fhir_server}/Patient?_summary=count&_total=accurate")["total"] == 6


def test_orthanc_takes_the_images_and_knows_their_patients(dataset: Path, tmp_path: Path) -> None:
    orthanc, port = require_peer("Orthanc"), free_port()
    config = {
        "Name": "medtwin-test",
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "StorageDirectory": str(tmp_path / "db"),
        "IndexDirectory": str(tmp_path / "db"),
        "Plugins": [],
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    command = [str(orthanc), str(tmp_path / "orthanc.json")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/system", process)
        files = sorted((dataset / "images").rglob("*.dcm"))
        for path in files:
            assert ask(f"{url}/instances", path.read_bytes(), "application/dicom")["Status"] == "Success"
        assert ask(f"{url}/statistics")["CountInstances"] == len(files)
        with urllib.request.urlopen(f"{url}/patients?expand", timeout=60) as answer:
            patients = {patient["MainDicomTags"]["PatientID"] for patient in json.load(answer)}
        assert patients == {path.name for path in (dataset / "images").iterdir()}
    finally:
        process.terminate()
        process.wait(30)


def test_dciodvfy_finds_no_error_in_the_images(dataset: Path) -> None:
    dciodvfy = require_peer("dciodvfy")
    folders = sorted({path.parent for path in (dataset / "images").rglob("*.dcm")})
    for folder in folders[:20]:
        done = subprocess.run([dciodvfy, next(folder.iterdir())], capture_output=True, text=True, check=False)
        errors = [
            line
            for line in done.stderr.splitlines()
            if line.startswith("Error") and "(0x0008,0x001c)" not in line.lower()
        ]
        assert errors == []
