"""Against the test server: a program of its own, which checks, limits, forgets answers and ends tokens."""

from __future__ import annotations

import csv
import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from medtwin.core.errors import OutputError
from medtwin.fhir.server import (
    AuthSettings,
    BulkSettings,
    NetworkError,
    Sender,
    SendReport,
    ServerSettings,
    ServerSource,
    fetch_export,
    fetch_search,
    import_request,
    send_import,
    split_files,
    write_failures,
)
from tests.fhir.remote import samples
from tests.fhir.remote.fake import dangling
from tests.peers import ROOT
from tests.servers.fhir import FhirServer

TYPES = ("Patient", "Organization", "Device", "Encounter", "Condition", "Observation", "DiagnosticReport", "Provenance")
FAULTS = [
    {"kind": "status", "status": 429, "retryAfter": 0, "probability": 0.05, "count": 10**6, "match": "POST"},
    {"kind": "status", "status": 503, "probability": 0.05, "count": 10**6, "match": "POST"},
    {"kind": "dropAfterCommit", "probability": 0.02, "count": 10**6, "match": "POST"},
]

# Leaves time to kill the sender, however fast the machine is.
SLOW = {"kind": "slow", "seconds": 0.02, "count": 10**6, "match": "POST"}


def send(folder: Path, server: FhirServer, **chosen: Any) -> SendReport:
    settings = ServerSettings(url=server.base, **chosen)
    with Sender(folder, settings, folder.with_name("journal.jsonl")) as sender:
        sum(sender.steps())
        return sender.report()


def everything(server: FhirServer, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What the server holds, read page by page."""
    folder = tmp_path / "back"
    fetch_search(ServerSource(url=server.base, types=TYPES, page_size=500), folder)
    found = {}
    for path in sorted(folder.glob("*.ndjson")):
        for line in path.read_text().splitlines():
            resource = json.loads(line)
            found[samples.key(resource)] = resource
    return found


def without_meta(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name != "meta"}


def run_killed(folder: Path, server: FhirServer, kill_at: tuple[int, ...], **chosen: Any) -> dict[str, Any]:
    """Sends in a process that is killed (SIGKILL) once its journal has so many lines, and again; then to the end."""
    journal = folder.with_name("journal.jsonl")
    command = [
        sys.executable,
        "-m",
        "tests.fhir.remote.sending",
        folder,
        journal,
        json.dumps({"url": server.base, **chosen}),
    ]
    for lines in kill_at:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= lines):
            assert process.poll() is None, "the sender ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def check_all_there(resources: list[dict[str, Any]], server: FhirServer, tmp_path: Path, write: str) -> None:
    stored = everything(server, tmp_path)
    assert Counter(key.partition("/")[0] for key in stored) == Counter(each["resourceType"] for each in resources)
    assert dangling(stored) == []
    if write == "put":
        sent = {samples.key(each): without_meta(each) for each in resources}
        assert {key: without_meta(each) for key, each in stored.items()} == sent
        return
    own = [
        mark["value"] if "value" in mark else mark["code"]
        for each in stored.values()
        for mark in [*each.get("identifier", []), *each["meta"].get("tag", [])]
        if mark["system"] == "urn:medtwin:id"
    ]
    assert sorted(own) == sorted(each["id"] for each in resources)


@pytest.mark.parametrize("write", [pytest.param("put", marks=pytest.mark.slow), "if_none_exist"])
def test_500_resources_under_faults_and_two_kills(tmp_path: Path, fhir_server: FhirServer, write: str) -> None:
    resources = samples.write_folder(tmp_path / "in", 63, observations=4)
    assert len(resources) == 507
    fhir_server.control(faults=[*FAULTS, SLOW], seed=3)
    report = run_killed(tmp_path / "in", fhir_server, (12, 30), write=write, max_entries=16)
    assert report["failures"] == 0
    assert report["loaded"] == []
    assert sum(report["counts"].values()) == len(resources)
    fhir_server.control(faults=[])
    check_all_there(resources, fhir_server, tmp_path, write)


@pytest.mark.slow
@pytest.mark.parametrize("write", ["put", "if_none_exist"])
def test_10000_resources_under_faults_and_two_kills(tmp_path: Path, fhir_server: FhirServer, write: str) -> None:
    """10 % of the answers are 429 or 503, 2 % are lost after the server did it, and the sender is killed twice."""
    resources = samples.write_folder(tmp_path / "in", 400, observations=21)
    assert len(resources) == 10_003
    fhir_server.control(faults=FAULTS, seed=11)
    report = run_killed(tmp_path / "in", fhir_server, (60, 200), write=write, max_entries=50)
    assert report["failures"] == 0
    assert sum(report["counts"].values()) == len(resources)
    struck = Counter(each.get("fault") for each in fhir_server.log() if each["path"] == "/fhir")
    assert sum(number for fault, number in struck.items() if fault) >= 0.05 * struck.total()
    fhir_server.control(faults=[])
    check_all_there(resources, fhir_server, tmp_path, write)


def test_medplums_own_limits_are_kept(tmp_path: Path, fhir_server: FhirServer) -> None:
    resources = samples.write_folder(tmp_path / "in", 8, observations=12)
    for write in ("put", "if_none_exist"):
        fhir_server.reset(medplumLimits=True)
        chosen = {"write": write, "max_entries": 50, "max_conditional_entries": 8, "concurrency": 2}
        report = send(tmp_path / "in", fhir_server, **chosen)
        assert report.failures == []
        assert sum(fhir_server.counts().values()) == len(resources)
        (tmp_path / "journal.jsonl").unlink()


@pytest.mark.parametrize("write", ["put", "if_none_exist"])
def test_a_small_limit_halves(tmp_path: Path, fhir_server: FhirServer, write: str) -> None:
    resources = samples.write_folder(tmp_path / "in", 10, observations=12)
    fhir_server.reset(maxEntries=9)
    report = send(tmp_path / "in", fhir_server, write=write)
    assert report.failures == []
    assert sum(fhir_server.counts().values()) == len(resources)
    assert any(each["status"] == 413 for each in fhir_server.log())


def test_what_the_server_finds_invalid_is_listed_and_the_rest_arrives(tmp_path: Path, fhir_server: FhirServer) -> None:
    resources = samples.write_folder(tmp_path / "in", 5)
    lines = (tmp_path / "in" / "Observation.ndjson").read_text().splitlines()
    bad = json.loads(lines[4]) | {"status": "done"}
    lines[4] = json.dumps(bad)
    (tmp_path / "in" / "Observation.ndjson").write_text("\n".join(lines))
    report = send(tmp_path / "in", fhir_server, allow_failures=True)
    refused = {each.key: each for each in report.failures}
    assert refused[samples.key(bad)].status == 422
    assert refused[samples.key(bad)].codes
    assert len(refused) == 2  # and the report that refers to it
    assert sum(fhir_server.counts().values()) == len(resources) - 2
    write_failures(tmp_path / "rejected.csv", report.failures)
    assert len(list(csv.reader((tmp_path / "rejected.csv").read_text().splitlines()))) == 3


def clients(tmp_path: Path, scope: str = "system/*.cruds") -> tuple[dict[str, Any], AuthSettings]:
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    public = json.loads(ECAlgorithm.to_jwk(key.public_key())) | {"kid": "k1", "alg": "ES384", "use": "sig"}
    auth = AuthSettings(
        kind="backend_services", client_id="medtwin", key_file=tmp_path / "key.pem", key_id="k1", algorithm="ES384"
    )
    return {"medtwin": {"jwks": {"keys": [public]}, "scope": scope}}, auth


def test_tokens_that_end_meanwhile(tmp_path: Path, fhir_server: FhirServer) -> None:
    resources = samples.write_folder(tmp_path / "in", 30)
    known, auth = clients(tmp_path)
    fhir_server.reset(clients=known, tokenSeconds=300)
    with pytest.raises(NetworkError, match=r"wants a token \(401\)"):
        send(tmp_path / "in", fhir_server)
    (tmp_path / "journal.jsonl").unlink()
    settings = ServerSettings(url=fhir_server.base, auth=auth, max_entries=12, concurrency=2)
    with Sender(tmp_path / "in", settings, tmp_path / "journal.jsonl") as sender:
        for number, _ in enumerate(sender.steps()):
            if number in (3, 8):
                fhir_server.control(expireTokens=True)
        assert sender.report().failures == []
    state = fhir_server.control()
    assert sum(state["counts"].values()) == len(resources)
    assert state["tokens"] == 3


def test_a_key_that_nobody_knows(tmp_path: Path, fhir_server: FhirServer) -> None:
    samples.write_folder(tmp_path / "in", 1)
    known, _ = clients(tmp_path)
    _, stranger = clients(tmp_path)
    fhir_server.reset(clients=known)
    with pytest.raises(NetworkError, match=r"gives no token \(401, invalid_client\)"):
        send(tmp_path / "in", fhir_server, auth=stranger)


def test_another_version_of_fhir_is_refused(tmp_path: Path, fhir_server: FhirServer) -> None:
    samples.write_folder(tmp_path / "in", 1)
    fhir_server.reset(fhirVersion="5.0.0")
    with pytest.raises(NetworkError, match=r"speaks FHIR 5\.0\.0"):
        send(tmp_path / "in", fhir_server)
    assert fhir_server.counts() == {}


def test_answers_cut_short_are_asked_for_again(tmp_path: Path, fhir_server: FhirServer) -> None:
    resources = samples.write_folder(tmp_path / "in", 10)
    faults = [{"kind": kind, "match": "POST", "after": 1, "count": 1} for kind in ("truncate", "drop")]
    fhir_server.control(faults=faults)
    report = send(tmp_path / "in", fhir_server, max_entries=20)
    assert report.num_retries == 2
    assert sum(fhir_server.counts().values()) == len(resources)


def test_a_second_process_is_locked_out_by_the_output(tmp_path: Path) -> None:
    from medtwin.core.output import writing

    with writing(tmp_path / "out", {"to": "fhir_server"}) as output:
        assert output is not None
        with pytest.raises(OutputError, match="being written by another"), writing(tmp_path / "out", {}):
            pass


@pytest.fixture
def filled(tmp_path: Path, fhir_server: FhirServer) -> list[dict[str, Any]]:
    fhir_server.reset(validate=False)
    resources = samples.write_folder(tmp_path / "in", 30)
    send(tmp_path / "in", fhir_server)
    return resources


def count_lines(folder: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for path in folder.glob("*.ndjson"):
        found[path.name.partition(".")[0]] += len(path.read_text().splitlines())
    return found


def test_a_search_reads_every_page(tmp_path: Path, fhir_server: FhirServer, filled: list[dict[str, Any]]) -> None:
    fhir_server.control(faults=[{"status": 503, "match": "GET", "after": 4, "count": 2}])
    told: list[int] = []
    chosen = ServerSource(url=fhir_server.base, types=TYPES, page_size=7)
    report = fetch_search(chosen, tmp_path / "out", on_page=told.append)
    assert report.counts == count_lines(tmp_path / "out") == Counter(each["resourceType"] for each in filled)
    assert sum(told) == len(filled)
    assert max(told) <= 7
    num_asked = len(fhir_server.log())
    assert fetch_search(chosen, tmp_path / "out").counts == report.counts
    assert len(fhir_server.log()) == num_asked + 1  # its metadata


def test_an_export_is_polled_fetched_and_cleared_away(
    tmp_path: Path, fhir_server: FhirServer, filled: list[dict[str, Any]]
) -> None:
    fhir_server.control(options={"validate": False, "bulk": {"polls": 1, "retryAfter": 1, "filesOf": 40}})
    chosen = ServerSource(url=fhir_server.base, how="export", level="system", types=TYPES)
    report = fetch_export(chosen, tmp_path / "out")
    assert report.counts == count_lines(tmp_path / "out") == Counter(each["resourceType"] for each in filled)
    assert len(list((tmp_path / "out").glob("Observation.*.ndjson"))) > 1
    methods = [each["method"] for each in fhir_server.log()]
    assert methods[-1] == "DELETE"
    assert list((tmp_path / "out").glob("*.partial")) == []


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serves files on loopback, as the host of a bulk import would."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def guess_type(self, path: Any) -> str:
            return "application/fhir+ndjson"

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("dialect", ["hapi", "azure"])
def test_a_server_imports_the_files(tmp_path: Path, fhir_server: FhirServer, dialect: Any) -> None:
    fhir_server.reset(importDialect=dialect, bulk={"polls": 1, "retryAfter": 1})
    resources = samples.write_folder(tmp_path / "in", 9)
    with serving(tmp_path / "files") as place:
        chosen = BulkSettings(dialect=dialect, base_url=place, url=fhir_server.base, max_resources=10)
        files = split_files(tmp_path / "in", tmp_path / "files", chosen)
        started: list[str] = []
        outcome = send_import(import_request(files, chosen), chosen, on_start=started.append)
    assert len(started) == 1
    assert fhir_server.counts() == Counter(each["resourceType"] for each in resources)
    if dialect == "azure":
        assert sum(outcome.counts.values()) == len(resources)
    assert outcome.error_files == []
