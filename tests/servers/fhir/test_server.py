"""The test server keeps the rules that medtwin's tests count on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.servers.fhir import FhirServer

HTEST = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
TAG = {"system": "http://example.org/tags", "code": "synthetic"}
URN = "urn:uuid:3f1c2a00-1111-4000-8000-00000000000"
IDENTIFIER = {"system": "http://example.org/mrn", "value": "7"}
FHIR_JSON = {"Content-Type": "application/fhir+json"}


@pytest.fixture
def client(fhir_server: FhirServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fhir_server.base, headers=FHIR_JSON, timeout=30) as made:
        yield made


def patient(name: str = "p1", **elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": name, "meta": {"security": [HTEST], "tag": [TAG]}} | elements


def observation(subject: str = "Patient/p1", **elements: Any) -> dict[str, Any]:
    base = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": subject}}
    return base | elements


def post(resource: dict[str, Any], full_url: str | None = None, **request: str) -> dict[str, Any]:
    entry = {"resource": resource, "request": {"method": "POST", "url": resource["resourceType"], **request}}
    return entry if full_url is None else {"fullUrl": full_url, **entry}


def put(resource: dict[str, Any]) -> dict[str, Any]:
    return {"resource": resource, "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}}


def bundle(*entries: dict[str, Any], kind: str = "transaction") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def statuses(answer: httpx.Response) -> list[str]:
    return [entry["response"]["status"][:3] for entry in answer.json()["entry"]]


def test_versions_etags_and_deletions(client: httpx.Client) -> None:
    made = client.put("Patient/p1", json=patient())
    assert (made.status_code, made.headers["ETag"]) == (201, 'W/"1"')
    assert made.headers["Location"].endswith("/fhir/Patient/p1/_history/1")
    assert client.put("Patient/p1", json=patient(gender="male"), headers={"If-Match": 'W/"9"'}).status_code == 412
    changed = client.put("Patient/p1", json=patient(gender="male"), headers={"If-Match": 'W/"1"'})
    assert (changed.status_code, changed.headers["ETag"]) == (200, 'W/"2"')
    assert "gender" not in client.get("Patient/p1/_history/1").json()
    assert [entry["resource"]["meta"]["versionId"] for entry in client.get("Patient/p1/_history").json()["entry"]] == [
        "2",
        "1",
    ]
    assert client.delete("Patient/p1").status_code == 204
    assert client.get("Patient/p1").status_code == 410
    assert client.get("Patient/nobody").status_code == 404
    assert client.put("Patient/p1", json=patient()).status_code == 201


def test_a_create_takes_no_id_from_the_client_and_looks_for_a_match_when_told(client: httpx.Client) -> None:
    made = client.post("Patient", json=patient("mine", identifier=[IDENTIFIER]))
    assert made.status_code == 201
    assert made.json()["id"] != "mine"
    condition = {"If-None-Exist": "identifier=http://example.org/mrn|7"}
    again = client.post("Patient", json=patient(identifier=[IDENTIFIER]), headers=condition)
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
    client.post("Patient", json=patient(identifier=[IDENTIFIER]))
    assert client.post("Patient", json=patient(identifier=[IDENTIFIER]), headers=condition).status_code == 412


def test_a_transaction_resolves_its_references_and_happens_once(client: httpx.Client, fhir_server: FhirServer) -> None:
    whole = bundle(
        post(patient(identifier=[IDENTIFIER]), f"{URN}1", ifNoneExist="identifier=http://example.org/mrn|7"),
        post(observation(f"{URN}1"), f"{URN}2"),
        post(observation("Patient?identifier=http://example.org/mrn|none"), f"{URN}3"),
    )
    assert client.post("", json=whole).status_code == 412  # a conditional reference without a match
    assert fhir_server.counts() == {}
    whole["entry"].pop()
    answer = client.post("", json=whole)
    assert statuses(answer) == ["201", "201"]
    place = answer.json()["entry"][0]["response"]["location"].removesuffix("/_history/1")
    assert client.get("Observation").json()["entry"][0]["resource"]["subject"] == {"reference": place}
    assert statuses(client.post("", json=whole)) == ["200", "201"]
    assert fhir_server.counts() == {"Observation": 2, "Patient": 1}


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        (put(observation("Patient/nobody", id="o2")), 400),
        (put(observation(id="o2", status="done")), 422),
        (put(observation(f"{URN}9", id="o2")), 400),
        (put(patient()), 400),  # twice in one transaction
        ({"resource": observation(), "request": {"method": "PUT"}}, 400),
    ],
)
def test_a_transaction_that_fails_leaves_nothing(
    client: httpx.Client, fhir_server: FhirServer, entry: dict[str, Any], status: int
) -> None:
    client.put("Patient/old", json=patient("old"))
    answer = client.post("", json=bundle(put(patient()), put(patient("old", gender="male")), entry))
    assert answer.status_code == status
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert fhir_server.counts() == {"Patient": 1}
    assert client.get("Patient/old").json()["meta"]["versionId"] == "1"
    assert "gender" not in client.get("Patient/old").json()


def test_a_batch_answers_entry_by_entry(client: httpx.Client, fhir_server: FhirServer) -> None:
    fhir_server.control(faults=[{"kind": "entry", "status": 429, "after": 3, "count": 1}])
    entries = [put(patient()), put(observation(id="o1")), put(observation(id="o2", status="done")), put(patient("p2"))]
    answer = client.post("", json=bundle(*entries, kind="batch"))
    assert (answer.status_code, statuses(answer)) == (200, ["201", "201", "422", "429"])
    assert fhir_server.counts() == {"Observation": 1, "Patient": 1}


def test_reads_in_a_bundle_give_what_was_read(client: httpx.Client) -> None:
    read = {"request": {"method": "GET", "url": "Patient/p1"}}
    search = {"request": {"method": "GET", "url": "Patient?_id=p1"}}
    answer = client.post("", json=bundle(put(patient()), search, read)).json()["entry"]
    assert answer[1]["resource"]["total"] == 1
    assert answer[2]["resource"]["id"] == "p1"
    assert "resource" not in answer[0]


def test_a_search_by_post_and_conditional_updates(client: httpx.Client, fhir_server: FhirServer) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    client.put("Patient/p1", json=patient(identifier=[IDENTIFIER]))
    assert client.post("Patient/_search", data={"_id": "p1"}, headers=form).json()["total"] == 1
    changed = patient(identifier=[IDENTIFIER], gender="male")
    del changed["id"]
    assert client.put("Patient?identifier=http://example.org/mrn|7", json=changed).status_code == 200
    assert client.get("Patient/p1").json()["gender"] == "male"
    assert client.delete("Patient?identifier=http://example.org/mrn|7").status_code == 204
    assert fhir_server.counts() == {}


def test_searches_page_by_opaque_links(client: httpx.Client) -> None:
    client.post("", json=bundle(put(patient()), *(put(observation(id=f"o{number}")) for number in range(45))))
    found, url = [], "Observation?patient=p1&_count=20"
    while url:
        page = client.get(url).json()
        found += [entry["resource"]["id"] for entry in page["entry"]]
        url = {link["relation"]: link["url"] for link in page["link"]}.get("next", "")
        assert page["total"] == 45
    assert len(found) == len(set(found)) == 45


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (f"Patient?_security={HTEST['system']}|HTEST", 2),
        ("Patient?_tag=http://example.org/tags|synthetic", 2),
        ("Patient?_tag=http://example.org/tags|other", 0),
        ("Patient?_id=p1,p3", 1),
        ("Patient?_id=p1&_revinclude=Observation:subject", 2),
        ("Observation?subject=Patient/p1&_include=Observation:subject", 2),
        ("Patient?identifier=http://example.org/mrn|7", 1),
        ("Patient?_lastUpdated=gt2100-01-01", 0),
        ("Patient?birthdate=ge1970&gender=female", 1),
    ],
)
def test_searches_find_what_they_name(client: httpx.Client, query: str, count: int) -> None:
    first = patient(identifier=[IDENTIFIER], gender="female", birthDate="1980-02-01")
    client.post("", json=bundle(put(first), put(patient("p2")), put(observation(id="o1"))))
    assert len(client.get(query).json().get("entry", [])) == count


def test_what_is_not_understood_is_refused(client: httpx.Client, fhir_server: FhirServer) -> None:
    assert client.get("Observation?colour=red").status_code == 400
    assert client.get("Hospital").status_code == 404
    assert client.post("", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post("", content=b"{").status_code == 400
    fhir_server.reset(maxEntries=2, maxBytes=3000)
    assert client.post("", json=bundle(*(put(patient(f"p{number}")) for number in range(3)))).status_code == 413
    assert client.post("", content=b" " * 4000).status_code == 413
    bomb = gzip.compress(b" " * 4000)
    assert client.post("", content=bomb, headers={"Content-Encoding": "gzip"}).status_code == 413


def test_medplum_limits_are_those_of_medplum(client: httpx.Client, fhir_server: FhirServer) -> None:
    fhir_server.reset(medplumLimits=True)
    patients = [put(patient(f"p{number}")) for number in range(51)]
    assert client.post("", json=bundle(*patients)).status_code == 400
    assert statuses(client.post("", json=bundle(*patients[:50]))) == ["200"] * 50
    conditional = post(patient(identifier=[IDENTIFIER]), ifNoneExist="identifier=http://example.org/mrn|7")
    assert client.post("", json=bundle(conditional, *patients[:8])).status_code == 400
    assert client.post("", json=bundle(conditional, *patients[:7])).status_code == 200


def test_faults_strike_as_ordered(client: httpx.Client, fhir_server: FhirServer) -> None:
    fhir_server.control(
        faults=[
            {"status": 429, "retryAfter": 3, "count": 1},
            {"status": 503, "retryAt": 60, "count": 1},
            {"kind": "drop", "count": 1},
            {"kind": "dropAfterCommit", "count": 1},
            {"kind": "truncate", "count": 1},
        ]
    )
    limited = client.get("Patient")
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "3")
    busy = client.get("Patient")
    assert (busy.status_code, busy.headers["Retry-After"][-3:]) == (503, "GMT")
    with pytest.raises(httpx.TransportError):
        client.put("Patient/p1", json=patient())
    assert fhir_server.counts() == {}
    with pytest.raises(httpx.TransportError):
        client.put("Patient/p1", json=patient())
    assert fhir_server.counts() == {"Patient": 1}
    with pytest.raises(httpx.TransportError):
        client.get("Patient/p1")
    assert client.get("Patient/p1").status_code == 200
    assert [entry.get("fault") for entry in fhir_server.log()][-2:] == ["truncate", None]


def test_chance_faults_come_again_with_the_seed(client: httpx.Client, fhir_server: FhirServer) -> None:
    def draw() -> list[int]:
        fhir_server.reset()
        fhir_server.control(faults=[{"status": 503, "probability": 0.3}], seed=11)
        return [client.get("Patient").status_code for _ in range(60)]

    first = draw()
    assert 8 < first.count(503) < 30
    assert draw() == first


def test_the_log_tells_what_came(client: httpx.Client, fhir_server: FhirServer) -> None:
    client.post("", json=bundle(put(patient())), headers={"Prefer": "return=minimal"})
    (entry,) = fhir_server.log()
    assert (entry["method"], entry["status"], entry["entries"]) == ("POST", 200, 1)
    assert entry["headers"]["prefer"] == "return=minimal"


def test_validate_tells_what_is_wrong(client: httpx.Client) -> None:
    good = client.post("Observation/$validate", json=observation()).json()
    assert [issue["severity"] for issue in good["issue"]] == ["information"]
    bad = client.post("Observation/$validate", json=observation(status="done")).json()
    assert bad["issue"][0]["severity"] == "error"


def test_the_capability_statement_names_what_there_is(client: httpx.Client) -> None:
    statement = json.loads(client.get("metadata").content)
    assert (statement["fhirVersion"], statement["format"]) == ("4.0.1", ["json"])
    (rest,) = statement["rest"]
    assert {"code": "transaction"} in rest["interaction"]
    parameters = {each["type"]: {one["name"] for one in each["searchParam"]} for each in rest["resource"]}
    assert {"identifier", "_security", "_lastUpdated"} <= parameters["Patient"]
