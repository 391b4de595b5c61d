"""Bulk Data out of the server, and into it."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.fhir import FhirServer
from tests.servers.fhir.test_server import bundle, observation, patient, put

ASYNC = {"Prefer": "respond-async", "Accept": "application/fhir+json", "Content-Type": "application/fhir+json"}


@pytest.fixture
def client(fhir_server: FhirServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fhir_server.base, headers=ASYNC, timeout=30) as made:
        members = [{"entity": {"reference": "Patient/p1"}}]
        group = {"resourceType": "Group", "id": "g1", "type": "person", "actual": True, "member": members}
        place = {"resourceType": "Location", "id": "l1", "name": "ward"}
        resources = [patient(), patient("p2"), observation(id="o1"), observation("Patient/p2", id="o2"), group, place]
        assert made.post("", json=bundle(*map(put, resources))).status_code == 200
        yield made


def finish(client: httpx.Client, kick_off: httpx.Response) -> httpx.Response:
    assert kick_off.status_code == 202
    place = kick_off.headers["Content-Location"]
    waiting = client.get(place)
    assert (waiting.status_code, waiting.headers["Retry-After"]) == (202, "1")
    assert waiting.headers["X-Progress"]
    return client.get(place)


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("$export", {"p1", "p2", "o1", "o2", "g1", "l1"}),
        ("Patient/$export", {"p1", "p2", "o1", "o2", "g1"}),
        ("Group/g1/$export?_type=Patient,Observation", {"p1", "o1"}),
        ("$export?_type=Observation&_since=2100-01-01T00:00:00Z", set()),
    ],
)
def test_an_export_holds_what_was_asked_for(client: httpx.Client, path: str, ids: set[str]) -> None:
    manifest = finish(client, client.get(path)).json()
    assert {"transactionTime", "request", "requiresAccessToken", "output", "error"} == manifest.keys()
    found = set()
    for output in manifest["output"]:
        lines = client.get(output["url"], headers={"Accept": "application/fhir+ndjson"}).text.splitlines()
        resources = [json.loads(line) for line in lines]
        assert {resource["resourceType"] for resource in resources} == {output["type"]}
        assert len(resources) == output["count"]
        found |= {resource["id"] for resource in resources}
    assert found == ids


def test_an_export_is_asynchronous_and_can_be_dropped(client: httpx.Client, fhir_server: FhirServer) -> None:
    assert client.get("$export", headers={"Prefer": "handling=strict"}).status_code == 400
    place = client.get("$export").headers["Content-Location"]
    assert client.delete(place).status_code == 202
    assert client.get(place).status_code == 404
    fhir_server.control(options={"bulk": {"refuseHaste": True, "polls": 5, "retryAfter": 2}})
    place = client.get("$export").headers["Content-Location"]
    assert client.get(place).status_code == 202
    assert client.get(place).status_code == 429


@pytest.fixture
def files(tmp_path: Path) -> Iterator[str]:
    """Three resources, and below them a fourth that is broken, on a web server of their own."""
    resources = [patient("p8"), patient("p9"), patient("p1"), patient("p7", gender="man")]
    (tmp_path / "Patient.ndjson").write_text("".join(json.dumps(each) + "\n" for each in resources))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/Patient.ndjson"
    server.shutdown()
    thread.join()
    server.server_close()


def parameters(url: str, *more: dict[str, Any]) -> dict[str, Any]:
    part = [{"name": "type", "valueCode": "Patient"}, {"name": "url", "valueUri": url}]
    asked = [{"name": "inputFormat", "valueCode": "application/fhir+ndjson"}, *more, {"name": "input", "part": part}]
    return {"resourceType": "Parameters", "parameter": asked}


@pytest.mark.parametrize(("mode", "taken", "failed"), [("InitialLoad", 2, 2), ("IncrementalLoad", 3, 1)])
def test_an_import_as_azure_has_it(client: httpx.Client, files: str, mode: str, taken: int, failed: int) -> None:
    order = parameters(files, {"name": "mode", "valueString": mode})
    report = finish(client, client.post("$import", json=order)).json()
    assert [(output["type"], output["count"]) for output in report["output"]] == [("Patient", taken)]
    (error,) = report["error"]
    assert error["count"] == failed
    assert len(client.get(error["url"]).text.splitlines()) == failed


def test_an_import_as_hapi_has_it(client: httpx.Client, fhir_server: FhirServer, files: str) -> None:
    fhir_server.control(options={"importDialect": "hapi", "validate": False})
    assert client.post("$import", json=parameters(files)).status_code == 400
    kind = {"name": "type", "valueCode": "https"}
    kick_off = client.post("$import", json=parameters(files, {"name": "storageDetail", "part": [kind]}))
    assert "$import-poll-status?_jobId=" in kick_off.headers["Content-Location"]
    assert finish(client, kick_off).json()["resourceType"] == "OperationOutcome"
    assert fhir_server.counts()["Patient"] == 5


def test_an_import_takes_nothing_from_elsewhere(client: httpx.Client) -> None:
    assert client.post("$import", json=parameters("https://example.org/Patient.ndjson")).status_code == 400
