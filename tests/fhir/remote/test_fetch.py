from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from medtwin.core.errors import OutputError
from medtwin.core.places import NetworkError
from medtwin.fhir.remote.bulk_export import fetch_export
from medtwin.fhir.remote.search import fetch_search
from medtwin.fhir.remote.settings import AuthSettings, ServerSource
from tests.fhir.remote.fake import BASE

pytestmark = pytest.mark.usefixtures("no_waits")
CAPABILITY = {
    "resourceType": "CapabilityStatement",
    "fhirVersion": "4.0.1",
    "rest": [{"mode": "server", "resource": [{"type": "Patient"}, {"type": "Observation"}, {"type": "Basic"}]}],
}
Handler = Callable[[httpx.Request], httpx.Response]


def routes(**paths: Any) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """Answers by path; a list is one answer after the other, the last again and again."""
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.path == "/fhir/metadata":
            return httpx.Response(200, json=CAPABILITY)
        name = request.url.path.removeprefix("/fhir/").replace("/", "_").replace("$", "").replace(".", "_")
        step = paths[name]
        if isinstance(step, list):
            step = step.pop(0) if len(step) > 1 else step[0]
        if callable(step):
            step = step(request)
        if isinstance(step, Exception):
            raise step
        return httpx.Response(200, json=step) if isinstance(step, dict) else step

    return httpx.MockTransport(handle), asked


def page(*names: str, kind: str = "Patient", following: str | None = None) -> dict[str, Any]:
    links = [{"relation": "self", "url": BASE}]
    if following is not None:
        links.append({"relation": "next", "url": following})
    entries = [{"resource": {"resourceType": kind, "id": name}, "search": {"mode": "match"}} for name in names]
    return {"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entries}


def read(folder: Path, name: str) -> list[str]:
    return [json.loads(line)["id"] for line in (folder / name).read_text().splitlines()]


def test_pages_are_followed_and_repeats_dropped(tmp_path: Path) -> None:
    warning = {"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}}
    last = page("c", "d")
    last["entry"] += [warning, {"fullUrl": "x"}]
    pages = [page("a", "b", following="/fhir/Patient?page=2"), page("b", "c", following=f"{BASE}/Patient?page=3"), last]
    empty = {"resourceType": "Bundle", "type": "searchset", "total": 0}
    transport, asked = routes(Patient=pages, Observation=empty)
    source = ServerSource(url=BASE, page_size=2, since="2025-01-01T00:00:00Z")
    report = fetch_search(source, tmp_path / "out", transport=transport)
    assert read(tmp_path / "out", "Patient.ndjson") == ["a", "b", "c", "d"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["Patient.ndjson"]
    assert report.counts == {"Patient": 4}
    assert report.notes == {
        "Patient given on two pages": 2,
        "OperationOutcome among the Patient": 1,
        "entries without a resource": 1,
    }
    first = next(request for request in asked if request.url.path == "/fhir/Patient")
    assert dict(first.url.params) == {"_count": "2", "_lastUpdated": "ge2025-01-01T00:00:00Z"}
    assert {request.url.path for request in asked} == {"/fhir/metadata", "/fhir/Patient", "/fhir/Observation"}


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (page("a", following="https://evil.example/fhir?page=2"), "next page leads to another place"),
        (page("a", following=f"{BASE}/Patient?_count=200"), "lead back to one that was read"),
        ({"resourceType": "Patient", "id": "a"}, "with no Bundle"),
        (httpx.Response(400, json={"resourceType": "OperationOutcome", "issue": [{"code": "not-supported"}]}), "400"),
        (httpx.Response(200, text="<html>"), "not FHIR JSON"),
    ],
)
def test_a_search_that_goes_astray_ends(tmp_path: Path, answer: Any, rule: str) -> None:
    transport, _ = routes(Patient=answer)
    with pytest.raises(NetworkError, match=rule):
        fetch_search(ServerSource(url=BASE, types=("Patient",)), tmp_path / "out", transport=transport)
    assert list((tmp_path / "out").glob("*.ndjson")) == []


def test_pages_and_bytes_are_bounded(tmp_path: Path) -> None:
    number = iter(range(10**6))

    def endless(request: httpx.Request) -> httpx.Response:
        here = next(number)
        return httpx.Response(200, json=page(f"p{here}", following=f"/fhir/Patient?page={here}"))

    transport, _ = routes(Patient=endless)
    with pytest.raises(NetworkError, match="more than max_pages=20 pages"):
        fetch_search(ServerSource(url=BASE, types=("Patient",), max_pages=20), tmp_path / "a", transport=transport)
    with pytest.raises(NetworkError, match="larger than max_bytes=100"):
        fetch_search(ServerSource(url=BASE, types=("Patient",), max_bytes=100), tmp_path / "b", transport=transport)


def test_a_type_that_is_complete_is_kept(tmp_path: Path) -> None:
    transport, asked = routes(Patient=page("a"), Observation=httpx.Response(410))
    source = ServerSource(url=BASE, concurrency=1)
    with pytest.raises(NetworkError, match="Observation be read: 410"):
        fetch_search(source, tmp_path / "out", transport=transport)
    transport, asked = routes(Observation=page("o", kind="Observation"))
    assert fetch_search(source, tmp_path / "out", transport=transport).counts == {"Patient": 1, "Observation": 1}
    assert [request.url.path for request in asked] == ["/fhir/metadata", "/fhir/Observation"]
    with pytest.raises(OutputError, match="was begun from another server"):
        fetch_search(ServerSource(url=BASE, since="2025"), tmp_path / "out", transport=transport)


def started(place: str = f"{BASE}/status") -> httpx.Response:
    return httpx.Response(202, headers={"content-location": place})


def waiting() -> httpx.Response:
    return httpx.Response(202, headers={"retry-after": "0"})


def lines(*names: str, kind: str = "Patient") -> httpx.Response:
    text = "\n".join(json.dumps({"resourceType": kind, "id": name}) for name in names)
    return httpx.Response(200, text=text, headers={"content-type": "application/fhir+ndjson"})


def manifest(*files: tuple[str, str], count: int | None = None, **more: Any) -> dict[str, Any]:
    output = [{"type": kind, "url": url} | ({} if count is None else {"count": count}) for kind, url in files]
    return {
        "transactionTime": "2025-01-01T00:00:00Z",
        "requiresAccessToken": False,
        "output": output,
        "error": [],
    } | more


SOURCE = {"url": BASE, "how": "export", "concurrency": 1}


def test_an_export_is_started_polled_and_fetched(tmp_path: Path) -> None:
    files = [("Patient", f"{BASE}/f1"), ("Patient", "f2"), ("Observation", f"{BASE}/f3")]
    error = [{"type": "OperationOutcome", "url": f"{BASE}/e1"}]
    outcome = json.dumps({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "exception"}]})
    transport, asked = routes(
        Patient_export=started(),
        status=[waiting(), waiting(), manifest(*files, error=error), httpx.Response(202)],
        f1=lines("a", "b"),
        f2=[httpx.Response(503), httpx.ReadError("gone"), lines("c")],
        f3=lines("o", kind="Observation"),
        e1=httpx.Response(200, text=outcome),
    )
    report = fetch_export(
        ServerSource(**SOURCE, types=("Patient", "Observation")), tmp_path / "out", transport=transport
    )
    assert report.counts == {"Patient": 3, "Observation": 1}
    assert report.notes == {"export error: exception": 1, "export cleared away on the server (202)": 1}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "Observation.0002.ndjson",
        "Patient.0000.ndjson",
        "Patient.0001.ndjson",
    ]
    kick = asked[1]
    assert kick.headers["prefer"] == "respond-async"
    assert kick.headers["accept"] == "application/fhir+json"
    assert dict(kick.url.params) == {"_outputFormat": "application/fhir+ndjson", "_type": "Patient,Observation"}
    assert asked[-1].method == "DELETE"


@pytest.mark.parametrize(
    ("more", "path"),
    [({"level": "system"}, "/fhir/$export"), ({"level": "group", "group": "g1"}, "/fhir/Group/g1/$export")],
)
def test_the_level_chooses_the_operation(tmp_path: Path, more: dict[str, Any], path: str) -> None:
    transport, asked = routes(
        export=started(),
        Group_g1_export=started(),
        status=[manifest(("Patient", "f1")), httpx.Response(404)],
        f1=lines("a"),
    )
    fetch_export(ServerSource(**SOURCE, **more), tmp_path / "out", transport=transport)
    assert asked[1].url.path == path


def test_a_killed_export_goes_on_where_it_was(tmp_path: Path) -> None:
    source = ServerSource(**SOURCE, retries=0)
    files = [("Patient", f"{BASE}/f1"), ("Patient", f"{BASE}/f2")]
    transport, _ = routes(Patient_export=started(), status=[waiting(), httpx.ReadError("gone")])
    with pytest.raises(NetworkError, match="does not complete"):
        fetch_export(source, tmp_path / "out", transport=transport)
    transport, asked = routes(status=manifest(*files), f1=lines("a"), f2=httpx.ReadError("gone"))
    with pytest.raises(NetworkError, match="did not come in 1 attempts"):
        fetch_export(source, tmp_path / "out", transport=transport)
    assert "/fhir/Patient/$export" not in [request.url.path for request in asked]
    transport, asked = routes(status=httpx.Response(202), f2=lines("b"))
    assert fetch_export(source, tmp_path / "out", transport=transport).counts == {"Patient": 2}
    assert [request.url.path for request in asked] == ["/fhir/f2", "/fhir/status"]
    # A file that was changed since is not taken for the one that was fetched.
    (tmp_path / "out" / "Patient.0000.ndjson").write_text('{"resourceType":"Patient","id":"z"}')
    transport, asked = routes(status=httpx.Response(404), f1=lines("a"))
    fetch_export(source, tmp_path / "out", transport=transport)
    assert read(tmp_path / "out", "Patient.0000.ndjson") == ["a"]


def test_an_export_that_the_server_forgot_is_started_anew(tmp_path: Path) -> None:
    transport, asked = routes(
        Patient_export=started(),
        status=[httpx.Response(404), manifest(("Patient", "f1")), httpx.Response(202)],
        f1=lines("a"),
    )
    assert fetch_export(ServerSource(**SOURCE), tmp_path / "out", transport=transport).counts == {"Patient": 1}
    assert [request.url.path for request in asked].count("/fhir/Patient/$export") == 2


def failed(status: int) -> httpx.Response:
    return httpx.Response(status, json={"resourceType": "OperationOutcome", "issue": [{"code": "processing"}]})


@pytest.mark.parametrize(
    ("paths", "rule"),
    [
        ({"Patient_export": failed(400)}, r"does not start the export: 400 \(processing\)"),
        ({"Patient_export": httpx.Response(202)}, "without saying where to ask after it"),
        ({"Patient_export": started("https://evil.example/s")}, "status address leads to another place"),
        ({"Patient_export": started(), "status": failed(500)}, r"export failed: 500 \(processing\)"),
        ({"Patient_export": started(), "status": {"output": "x"}}, "has no list of output files"),
        ({"Patient_export": started(), "status": {"output": [{"type": "../x", "url": "f"}]}}, "without a type"),
        (
            {"Patient_export": started(), "status": manifest(("Patient", "f1")), "f1": httpx.Response(403)},
            r"cannot be fetched \(403\): it may have expired",
        ),
        (
            {"Patient_export": started(), "status": manifest(("Patient", "f1"), count=3), "f1": lines("a")},
            "holds 1 resources, and the manifest says 3",
        ),
        (
            {"Patient_export": started(), "status": manifest(("Patient", "https://files.example/f1"))},
            r"stands on files\.example: allow it with file_hosts",
        ),
    ],
)
def test_an_export_that_goes_wrong_is_told(tmp_path: Path, paths: dict[str, Any], rule: str) -> None:
    transport, _ = routes(**paths)
    with pytest.raises(NetworkError, match=rule):
        fetch_export(ServerSource(**SOURCE, max_wait_s=1), tmp_path / "out", transport=transport)


def test_a_token_stays_with_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDTWIN_TEST_TOKEN", "mine")
    auth = AuthSettings(kind="bearer", token_env="MEDTWIN_TEST_TOKEN")
    chosen = {**SOURCE, "auth": auth, "file_hosts": ("files.example",)}

    def answers(needs_token: bool, scheme: str = "https") -> tuple[httpx.MockTransport, list[httpx.Request]]:
        files = manifest(
            ("Patient", f"{scheme}://files.example/fhir/f1"), ("Patient", "f2"), requiresAccessToken=needs_token
        )
        return routes(Patient_export=started(), status=[files, httpx.Response(202)], f1=lines("a"), f2=lines("b"))

    transport, asked = answers(needs_token=False)
    fetch_export(ServerSource(**chosen), tmp_path / "a", transport=transport)
    sent = {str(request.url): request.headers.get("authorization") for request in asked}
    assert sent["https://files.example/fhir/f1"] is None
    assert sent[f"{BASE}/f2"] is None
    assert sent[f"{BASE}/status"] == "Bearer mine"
    transport, asked = answers(needs_token=True)
    with pytest.raises(NetworkError, match=r"wants the token to be sent to files\.example, another host"):
        fetch_export(ServerSource(**chosen), tmp_path / "b", transport=transport)
    transport, _ = answers(needs_token=False, scheme="http")
    with pytest.raises(NetworkError, match="by plain http"):
        fetch_export(ServerSource(**chosen), tmp_path / "c", transport=transport)
