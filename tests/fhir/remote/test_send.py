from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from medtwin.core.errors import ConfigError, DatasetError, ReleaseRefusedError
from medtwin.core.places import NetworkError
from medtwin.fhir import write_ndjson
from medtwin.fhir.remote.answers import issues_of, read_location
from medtwin.fhir.remote.send import Sender, SendReport, write_failures
from medtwin.fhir.remote.settings import AuthSettings, ServerSettings
from tests.fhir.remote import samples
from tests.fhir.remote.fake import BASE, FakeServer, dangling, references

pytestmark = pytest.mark.usefixtures("no_waits")
WRITES = ["put", "if_none_exist"]
BUNDLES = ["transaction", "batch"]


def send(tmp_path: Path, server: FakeServer, **chosen: Any) -> SendReport:
    settings = ServerSettings(url=BASE, **chosen)
    with Sender(tmp_path / "in", settings, tmp_path / "journal.jsonl", transport=server.transport()) as sender:
        done = sum(sender.steps())
        assert done == len(sender)
        return sender.report()


def logical(stored: dict[str, dict[str, Any]]) -> list[str]:
    """The keys that resources were sent under, whatever ids the server gave them."""
    found = []
    for held in stored.values():
        named = [each for each in held.get("identifier", []) if each.get("system") == "urn:medtwin:id"]
        tagged = [each for each in held.get("meta", {}).get("tag", []) if each.get("system") == "urn:medtwin:id"]
        name = named[0]["value"] if named else tagged[0]["code"] if tagged else held["id"]
        found.append(f"{held['resourceType']}/{name}")
    return sorted(found)


def expected(resources: list[samples.Resource]) -> list[str]:
    return sorted(map(samples.key, resources))


@pytest.mark.parametrize("write", WRITES)
def test_everything_arrives_once_and_every_reference_resolves(tmp_path: Path, write: str) -> None:
    resources = samples.write_folder(tmp_path / "in", 12)
    server = FakeServer()
    report = send(tmp_path, server, write=write, max_entries=20)
    assert logical(server.stored) == expected(resources)
    assert dangling(server.stored) == []
    assert report.failures == []
    assert report.counts["Observation created"] == 36
    assert sum(report.counts.values()) == len(resources)
    if write == "put":
        assert server.stored == {samples.key(each): each for each in resources}


@pytest.mark.parametrize("write", WRITES)
def test_a_large_subject_goes_in_order(tmp_path: Path, write: str) -> None:
    resources = samples.write_folder(tmp_path / "in", 3, observations=40)
    server = FakeServer()
    send(tmp_path, server, write=write, max_entries=8)
    assert logical(server.stored) == expected(resources)
    assert dangling(server.stored) == []
    assert max(map(len, server.bundles)) <= 8


def test_shared_resources_go_first_and_provenance_last(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 6)
    server = FakeServer()
    send(tmp_path, server, max_entries=8)
    assert server.bundles[0] == ["Device", "Organization"]
    assert server.bundles[-1] == ["Provenance"]
    assert sum("Organization" in bundle for bundle in server.bundles) == 1


@pytest.mark.parametrize("write", WRITES)
def test_sending_again_changes_nothing(tmp_path: Path, write: str) -> None:
    resources = samples.write_folder(tmp_path / "in", 5)
    server = FakeServer()
    send(tmp_path, server, write=write)
    (tmp_path / "journal.jsonl").unlink()
    report = send(tmp_path, server, write=write)
    assert logical(server.stored) == expected(resources)
    what = "updated" if write == "put" else "unchanged"
    assert report.counts["Patient " + what] == 5
    num_asked = len(server.requests)
    assert send(tmp_path, server, write=write).counts == report.counts
    assert [request.url.path for request in server.requests[num_asked:]] == ["/fhir/metadata"]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_answer_that_is_lost_leaves_no_double(tmp_path: Path, write: str, after: int) -> None:
    resources = samples.write_folder(tmp_path / "in", 8)
    server = FakeServer(after_commit=[None] * after + [httpx.ReadError("gone")])
    report = send(tmp_path, server, write=write, max_entries=16, concurrency=1)
    assert logical(server.stored) == expected(resources)
    assert report.num_retries == 1
    assert report.failures == []


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_stopped_run_continues_wherever_it_stopped(tmp_path: Path, write: str, bundle: str) -> None:
    """Stops at every request in turn, before or after the server did it, and goes on."""
    resources = samples.write_folder(tmp_path / "in", 6)
    if bundle == "batch":  # which cannot bring in a stay and its diagnosis, which refer to each other
        resources = without_rings(tmp_path)
    chosen = {"write": write, "bundle": bundle, "max_entries": 10, "concurrency": 2, "retries": 0}
    server = FakeServer()
    for attempt in range(60):
        fault = httpx.ReadError("gone")
        server.script = [None, None, fault] if attempt % 2 else []
        server.after_commit = [] if attempt % 2 else [None, fault]
        try:
            report = send(tmp_path, server, **chosen)
            break
        except NetworkError:
            continue
    assert attempt > 2
    assert logical(server.stored) == expected(resources)
    assert dangling(server.stored) == []
    assert sum(report.counts.values()) == len(resources)


def without_rings(tmp_path: Path) -> list[samples.Resource]:
    folder = tmp_path / "in"
    resources = []
    for path in sorted(folder.glob("*.ndjson")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for each in lines:
            each.pop("diagnosis", None)
        path.unlink()
        resources += lines
    write_ndjson(folder, resources)
    return resources


@pytest.mark.parametrize("write", WRITES)
def test_a_batch_sends_level_by_level(tmp_path: Path, write: str) -> None:
    samples.write_folder(tmp_path / "in", 9)
    resources = without_rings(tmp_path)
    server = FakeServer()
    report = send(tmp_path, server, write=write, bundle="batch", max_entries=10)
    assert logical(server.stored) == expected(resources)
    assert dangling(server.stored) == []
    assert report.counts["Encounter created"] == 9


def test_an_entry_of_a_batch_may_fail_alone(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 4)
    resources = without_rings(tmp_path)
    bad = f"Observation/{samples.name(2, 'obs', 1)}"
    server = FakeServer(bad=frozenset({bad}))
    report = send(tmp_path, server, bundle="batch", allow_failures=True)
    lost = {bad, f"DiagnosticReport/{samples.name(2, 'report')}"}
    assert logical(server.stored) == sorted(set(expected(resources)) - lost)
    assert {each.key: (each.status, each.codes) for each in report.failures} == {
        bad: (422, ("value",)),
        f"DiagnosticReport/{samples.name(2, 'report')}": (0, ("target-refused",)),
    }
    assert report.counts["Observation refused"] == 1
    # Still wrong, it is tried once more, and nothing that arrived is.
    num_bundles = len(server.bundles)
    counts = report.counts
    assert send(tmp_path, server, bundle="batch", allow_failures=True).counts == counts
    assert server.bundles[num_bundles:] == [["Observation"]]
    # Mended, the same command sends what is missing and nothing else.
    server.bad = frozenset()
    num_bundles = len(server.bundles)
    report = send(tmp_path, server, bundle="batch")
    assert logical(server.stored) == expected(resources)
    assert sorted(server.bundles[num_bundles:]) == [["DiagnosticReport"], ["Observation"]]
    assert report.failures == []
    assert sum(report.counts.values()) == len(resources)


@pytest.mark.parametrize("write", WRITES)
def test_a_refused_transaction_is_divided_until_the_culprit_stands_alone(tmp_path: Path, write: str) -> None:
    resources = samples.write_folder(tmp_path / "in", 5)
    bad = f"Observation/{samples.name(2, 'obs', 1)}"
    server = FakeServer(bad=frozenset({bad}))
    report = send(tmp_path, server, write=write, allow_failures=True)
    report_key = f"DiagnosticReport/{samples.name(2, 'report')}"
    assert logical(server.stored) == sorted(set(expected(resources)) - {bad, report_key})
    assert dangling(server.stored) == []
    assert [(each.key, each.status) for each in sorted(report.failures, key=lambda each: each.key)] == [
        (report_key, 0),
        (bad, 422),
    ]
    (culprit,) = [each for each in report.failures if each.key == bad]
    assert culprit.codes == ("value",)
    assert culprit.elements == ("Observation.status",)
    server.bad = frozenset()
    report = send(tmp_path, server, write=write)
    assert logical(server.stored) == expected(resources)
    assert report.failures == []
    assert sum(report.counts.values()) == len(resources)


def test_too_many_refusals_stop_the_run(tmp_path: Path) -> None:
    resources = samples.write_folder(tmp_path / "in", 20)
    server = FakeServer(bad=frozenset(key for key in map(samples.key, resources) if key.startswith("Observation")))
    with pytest.raises(
        NetworkError, match=r"refused \d+ resources \(the last for: .*\), more than server\.max_failures=5"
    ):
        send(tmp_path, server, max_failures=5)


def test_an_ambiguous_identifier_is_not_tried_again(tmp_path: Path) -> None:
    resources = samples.write_folder(tmp_path / "in", 2)
    server = FakeServer()
    send(tmp_path, server, write="if_none_exist")
    twin = next(held for held in server.stored.values() if held["resourceType"] == "Patient")
    server.stored["Patient/double"] = dict(twin)
    (tmp_path / "journal.jsonl").unlink()
    report = send(tmp_path, server, write="if_none_exist", allow_failures=True)
    ambiguous = [each for each in report.failures if each.status == 412]
    assert len(ambiguous) == 1
    assert ambiguous[0].codes == ("multiple-matches",)
    assert report.num_retries == 0
    assert len(server.stored) == len(resources) + 1


@pytest.mark.parametrize("write", WRITES)
def test_too_large_a_request_is_halved(tmp_path: Path, write: str) -> None:
    resources = samples.write_folder(tmp_path / "in", 12)
    server = FakeServer(max_entries=10)
    report = send(tmp_path, server, write=write, max_entries=100, concurrency=1)
    assert logical(server.stored) == expected(resources)
    assert dangling(server.stored) == []
    assert report.failures == []
    assert max(map(len, server.bundles)) <= 10


def test_what_was_too_large_is_not_asked_again(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 40)
    server = FakeServer(max_bytes=6_000)
    send(tmp_path, server, max_entries=14, concurrency=1)
    refused = len(server.requests) - 1 - len(server.bundles)
    assert 0 < refused <= 3


def test_one_resource_that_is_too_large_ends_it(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 1)
    server = FakeServer(max_bytes=300)
    with pytest.raises(
        NetworkError, match=r"^(Device|Organization)/\S+ alone, [\d,]+ bytes, is larger than the server acc"
    ):
        send(tmp_path, server)


def test_a_ring_that_is_too_large_ends_it(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 1)
    with pytest.raises(NetworkError, match=r"2 resources that refer to each other in a ring \(Condition, Encounter\)"):
        send(tmp_path, FakeServer(max_entries=1))
    server = FakeServer(max_entries=1, integrity=False)
    (tmp_path / "journal.jsonl").unlink()
    assert send(tmp_path, server, integrity=False).failures == []
    assert dangling(server.stored) == []


def test_medplum_keeps_its_two_limits(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 3, observations=30)
    for write, most in (("put", 50), ("if_none_exist", 8)):
        server = FakeServer(max_entries=most)
        report = send(tmp_path, server, write=write, max_entries=50, max_conditional_entries=8)
        assert report.failures == []
        assert 4 < max(map(len, server.bundles)) <= most
        assert len(server.requests) == len(server.bundles) + 1
        (tmp_path / "journal.jsonl").unlink()


def test_a_transaction_that_is_done_as_a_batch_is_read_entry_by_entry(tmp_path: Path) -> None:
    """As Medplum does without saying so."""
    samples.write_folder(tmp_path / "in", 2)

    def silently(request: httpx.Request) -> httpx.Response:
        entries = json.loads(request.content)["entry"]
        responses = [{"response": {"status": "201", "location": each["request"]["url"]}} for each in entries]
        responses[0] = {"response": {"status": "429"}}
        responses[1] = {"response": {"status": "400", "outcome": {"issue": [{"severity": "error", "code": "invalid"}]}}}
        return httpx.Response(200, json={"resourceType": "Bundle", "type": "batch-response", "entry": responses})

    server = FakeServer(script=[None, silently], integrity=False)
    report = send(tmp_path, server, concurrency=1, allow_failures=True)
    assert [(each.status, each.codes) for each in report.failures] == [(400, ("invalid",))]
    assert server.bundles[1] == ["Patient"]


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (
            httpx.Response(200, content=b"<html>", headers={"content-type": "text/html"}),
            "with text/html, not FHIR JSON",
        ),
        (httpx.Response(200, json={"resourceType": "Patient"}), "not with a response bundle"),
        (httpx.Response(200, json={"resourceType": "Bundle", "type": "transaction-response"}), "0 entries to 2"),
        (
            httpx.Response(
                200, json={"resourceType": "Bundle", "type": "transaction-response", "entry": [{"response": {}}, {}]}
            ),
            "an entry without a status",
        ),
        (404, "answers 404 to a bundle: is the url its FHIR base"),
        (405, "answers 405 to a bundle"),
        (415, "answers 415 to a bundle"),
        (403, r"forbids this \(403\)"),
        (httpx.Response(302, headers={"location": "https://login.example/"}), "leads to another place"),
    ],
)
def test_an_answer_that_makes_no_sense_ends_it(tmp_path: Path, answer: Any, rule: str) -> None:
    samples.write_folder(tmp_path / "in", 2)
    server = FakeServer(script=[answer])
    with pytest.raises(NetworkError, match=rule):
        send(tmp_path, server)
    assert len(server.requests) == 2


def test_a_server_must_speak_r4_and_do_what_we_need(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 1)
    for server, rule in [
        (FakeServer(fhir_version="5.0.0"), r"speaks FHIR 5\.0\.0, and medtwin R4"),
        (FakeServer(fhir_version="3.0.2"), r"speaks FHIR 3\.0\.2"),
        (
            FakeServer(interactions=("batch",)),
            r"does not declare the transaction interaction: use server\.bundle=batch",
        ),
        (FakeServer(interactions=("history-system",)), r"transaction interaction: server\.check_capability=false"),
    ]:
        with pytest.raises(NetworkError, match=rule):
            send(tmp_path, server)
        assert server.stored == {}
    assert send(tmp_path, FakeServer(interactions=()), check_capability=False).failures == []


def test_resources_without_their_label_are_not_sent(tmp_path: Path) -> None:
    resources = [*samples.subject(1), samples.organization()]
    for each in resources[1:3]:
        each["meta"] = {"tag": [{"system": "x", "code": "HTEST"}]}
    write_ndjson(tmp_path / "in", resources)
    server = FakeServer()
    with pytest.raises(
        ReleaseRefusedError, match=r"without the label HTEST .*: Condition 1, Encounter 1; allow_untagged=true"
    ):
        send(tmp_path, server)
    assert server.requests == []
    send(tmp_path, server, allow_untagged=True)
    assert len(server.stored) == len(resources)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{", "a line that is no JSON"),
        ("[]", "a line that is no FHIR resource"),
        ('{"resourceType":"Patient"}', "without a valid id"),
        ('{"resourceType":"Patient","id":"a b"}', "without a valid id"),
        ("", "there is nothing to send"),
        ('{"resourceType":"Patient","id":"a"}\n{"resourceType":"Patient","id":"a"}', "the same type and id"),
    ],
)
def test_what_is_no_resource_is_told_before_anything_is_sent(tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Patient.ndjson").write_text(text)
    server = FakeServer()
    with pytest.raises(DatasetError, match=rule):
        send(tmp_path, server, allow_untagged=True)
    assert server.requests == []


def test_resources_are_found_in_any_order_and_file(tmp_path: Path) -> None:
    resources = samples.write_folder(tmp_path / "in", 7)
    lines = [line for path in sorted((tmp_path / "in").glob("*")) for line in path.read_text().splitlines()]
    for path in (tmp_path / "in").glob("*"):
        path.unlink()
    (tmp_path / "in" / "all.ndjson").write_text("\n\n  ".join(reversed(lines)))
    server = FakeServer()
    send(tmp_path, server, max_entries=9)
    assert server.stored == {samples.key(each): each for each in resources}


def test_no_more_requests_are_under_way_than_allowed(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 30)
    server = FakeServer()
    send(tmp_path, server, max_entries=7, concurrency=3)
    assert server.most_in_flight <= 3


def test_a_token_that_ends_meanwhile_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples.write_folder(tmp_path / "in", 10)
    (tmp_path / "token").write_text("one")
    used: list[str] = []

    def check(header: str) -> bool:
        used.append(header)
        if len(used) == 4:
            (tmp_path / "token").write_text("two")
        return header == ("Bearer one" if len(used) < 4 else "Bearer two")

    auth = AuthSettings(kind="bearer", token_file=tmp_path / "token")
    server = FakeServer(token=check)
    assert send(tmp_path, server, auth=auth, max_entries=7, concurrency=1).failures == []
    assert {"Bearer one", "Bearer two"} == set(used)
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "token")
    assert b"Bearer" not in everything


def test_rejected_tells_codes_and_places_alone(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 1)
    bad = f"Patient/{samples.name(0)}"
    server = FakeServer(bad=frozenset({bad}))
    report = send(tmp_path, server, allow_failures=True)
    write_failures(tmp_path / "rejected" / "rejected.csv", report.failures)
    text = (tmp_path / "rejected" / "rejected.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert {(row["resource"], row["status"], row["rule"], row["elements"]) for row in rows} >= {
        ("Patient", "422", "value", "Patient.status")
    }
    assert "Secret" not in text
    assert "Secret" not in (tmp_path / "journal.jsonl").read_text()


def test_conditional_creates_refer_by_urn_or_by_the_servers_id(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 2, observations=10)
    server = FakeServer()
    send(tmp_path, server, write="if_none_exist", max_entries=6, concurrency=1)
    own = set(references(list(server.stored.values())))
    assert all(target in server.stored for target in own)
    first = json.loads(server.requests[2].content)["entry"]
    assert all(each["fullUrl"].startswith("urn:uuid:") for each in first)
    assert all("id" not in each["resource"] for each in first)
    patient = next(each for each in first if each["resource"]["resourceType"] == "Patient")
    assert patient["request"]["ifNoneExist"] == f"identifier=urn:medtwin:id|{samples.name(0)}"


def test_a_location_may_be_absolute_or_versioned() -> None:
    assert read_location("Patient/1") == "Patient/1"
    assert read_location("https://x.example/fhir/Patient/1/_history/abc") == "Patient/1"
    assert read_location("nonsense") is None
    assert read_location(None) is None


def test_outcomes_give_codes_without_texts() -> None:
    outcome = {
        "issue": [
            {"severity": "warning", "code": "informational"},
            {
                "severity": "error",
                "code": "value",
                "diagnostics": "Mrs Secret",
                "expression": ["Patient.name[0].given"],
            },
            {"severity": "error", "code": "Mrs Secret", "expression": ["Patient.where(name='Secret')"]},
            "nonsense",
        ]
    }
    assert issues_of(outcome) == (("value", "unknown"), ("Patient.name[0].given",))
    assert issues_of(None) == (("none-given",), ())
    assert issues_of({"issue": None}) == (("none-given",), ())


def test_a_ring_that_no_request_holds_is_told_before_it_is_sent(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 1)
    with pytest.raises(ConfigError, match="in a ring"):
        send(tmp_path, FakeServer(), max_entries=1)
