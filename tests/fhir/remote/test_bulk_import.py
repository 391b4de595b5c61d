from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from medtwin.core.errors import ConfigError
from medtwin.core.places import NetworkError
from medtwin.fhir.remote.bulk_files import BulkFile, split_files
from medtwin.fhir.remote.bulk_import import import_request, send_import
from medtwin.fhir.remote.settings import AuthSettings, BulkSettings
from tests.fhir.remote import samples
from tests.fhir.remote.fake import BASE

pytestmark = pytest.mark.usefixtures("no_waits")
FILES = [
    BulkFile("Patient.0000.ndjson", "Patient", 2, "aa", 10),
    BulkFile("Observation.0000.ndjson", "Observation", 3, "bb", 20),
]
STORE = "projects/p/locations/europe-west3/datasets/d/fhirStores/s"
LAKE = {
    "dialect": "healthlake",
    "base_url": "s3://bucket/in/",
    "datastore_id": "0123",
    "role_arn": "arn:aws:iam::123456789012:role/importer",
    "output_s3_uri": "s3://bucket/out/",
    "kms_key_id": "arn:aws:kms:eu-west-1:123456789012:key/1",
}


def test_hapis_request() -> None:
    chosen = BulkSettings(dialect="hapi", base_url="https://files.example/in/", hapi_batch_resources=500)
    request = import_request(FILES, chosen)
    assert (request.method, request.path) == ("POST", "$import")
    assert request.headers == {"content-type": "application/fhir+json", "prefer": "respond-async"}
    assert request.body == {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "inputFormat", "valueCode": "application/fhir+ndjson"},
            {"name": "inputSource", "valueUri": "https://files.example/in"},
            {
                "name": "storageDetail",
                "part": [
                    {"name": "type", "valueCode": "https"},
                    {"name": "maxBatchResourceCount", "valueString": "500"},
                ],
            },
            {
                "name": "input",
                "part": [
                    {"name": "type", "valueCode": "Patient"},
                    {"name": "url", "valueUri": "https://files.example/in/Patient.0000.ndjson"},
                ],
            },
            {
                "name": "input",
                "part": [
                    {"name": "type", "valueCode": "Observation"},
                    {"name": "url", "valueUri": "https://files.example/in/Observation.0000.ndjson"},
                ],
            },
        ],
    }


def test_azures_request() -> None:
    chosen = BulkSettings(dialect="azure", base_url="https://x.blob.core.windows.net/in", azure_mode="InitialLoad")
    request = import_request(FILES[:1], chosen)
    assert request.body["parameter"] == [
        {"name": "inputFormat", "valueString": "application/fhir+ndjson"},
        {"name": "mode", "valueString": "InitialLoad"},
        {
            "name": "input",
            "part": [
                {"name": "type", "valueString": "Patient"},
                {"name": "url", "valueUri": "https://x.blob.core.windows.net/in/Patient.0000.ndjson"},
            ],
        },
    ]


def test_googles_request() -> None:
    request = import_request(FILES, BulkSettings(dialect="google", base_url="gs://bucket/in", google_store=STORE))
    assert request.path == f"{STORE}:import"
    assert request.body == {"contentStructure": "RESOURCE", "gcsSource": {"uri": "gs://bucket/in/*.ndjson"}}
    assert "gcloud healthcare fhir-stores import gcs s --project=p --location=europe-west3" in request.command
    assert "'--gcs-uri=gs://bucket/in/*.ndjson' --content-structure=resource" in request.command


def test_healthlakes_request() -> None:
    request = import_request(FILES, BulkSettings(**LAKE, region="eu-west-1"))
    token = request.body.pop("ClientToken")
    assert request.body == {
        "JobName": "medtwin",
        "InputDataConfig": {"S3Uri": "s3://bucket/in/"},
        "JobOutputDataConfig": {
            "S3Configuration": {"S3Uri": "s3://bucket/out/", "KmsKeyId": "arn:aws:kms:eu-west-1:123456789012:key/1"}
        },
        "DatastoreId": "0123",
        "DataAccessRoleArn": "arn:aws:iam::123456789012:role/importer",
    }
    assert len(token) == 64
    assert token.isalnum()
    assert request.headers["x-amz-target"] == "HealthLake.StartFHIRImportJob"
    assert request.command == (
        "aws healthlake start-fhir-import-job --region eu-west-1 --cli-input-json file://request.json"
    )
    assert import_request(FILES, BulkSettings(**LAKE)).body["ClientToken"] == token
    assert import_request(FILES[:1], BulkSettings(**LAKE)).body["ClientToken"] != token


@pytest.mark.parametrize(
    ("chosen", "rule"),
    [
        ({"dialect": "hapi"}, "base_url must say where the files will stand, https://"),
        ({"dialect": "hapi", "base_url": "http://files.example/in"}, "base_url is plain http"),
        ({"dialect": "azure", "base_url": "gs://bucket"}, "base_url must say"),
        (
            {"dialect": "google", "base_url": "https://files.example"},
            "base_url must say where the files will stand, gs://",
        ),
        ({"dialect": "google", "base_url": "gs://bucket"}, "google_store must be projects/P"),
        ({**LAKE, "base_url": "s3://"}, "base_url must say"),
        ({**LAKE, "kms_key_id": None}, r"kms_key_id=\.\.\. is required by dialect=healthlake"),
        ({**LAKE, "role_arn": "importer"}, "role_arn must be like"),
    ],
)
def test_what_a_dialect_lacks_is_named(chosen: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        import_request(FILES, BulkSettings(**chosen))


def lines_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()


@pytest.mark.parametrize("is_gzip", [False, True])
def test_files_are_split_by_number_and_lose_nothing(tmp_path: Path, is_gzip: bool) -> None:
    samples.write_folder(tmp_path / "in", 5)
    chosen = BulkSettings(dialect="hapi", max_resources=4, gzip=is_gzip)
    files = split_files(tmp_path / "in", tmp_path / "out", chosen)
    assert [(each.name.partition(".n")[0], each.count) for each in files if each.type == "Observation"] == [
        ("Observation.0000", 4),
        ("Observation.0001", 4),
        ("Observation.0002", 4),
        ("Observation.0003", 3),
    ]
    for each in files:
        path = tmp_path / "out" / each.name
        assert len(lines_of(path)) == each.count
        assert hashlib.sha256(path.read_bytes()).hexdigest() == each.sha256
        assert {json.loads(line)["resourceType"] for line in lines_of(path)} == {each.type}
    for source in (tmp_path / "in").iterdir():
        parts = [lines_of(tmp_path / "out" / each.name) for each in files if each.type == source.stem]
        assert [line for part in parts for line in part] == source.read_bytes().splitlines()
    assert split_files(tmp_path / "in", tmp_path / "again", chosen) == files


def test_files_are_split_by_size(tmp_path: Path) -> None:
    samples.write_folder(tmp_path / "in", 5)
    files = split_files(tmp_path / "in", tmp_path / "out", BulkSettings(max_file_bytes=1500))
    assert all(each.size <= 1500 or each.count == 1 for each in files)
    assert max(each.count for each in files) > 1
    with pytest.raises(ConfigError, match=r"more than bulk\.max_files=3 files"):
        split_files(tmp_path / "in", tmp_path / "more", BulkSettings(max_file_bytes=1500, max_files=3))
    with pytest.raises(
        ConfigError, match=r"\.ndjson line \d+ is a resource of .* at most bulk\.max_resource_bytes=200"
    ):
        split_files(tmp_path / "in", tmp_path / "large", BulkSettings(max_resource_bytes=200))


def answering(*steps: Any) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    asked: list[httpx.Request] = []
    left = list(steps)

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        step = left.pop(0)
        return httpx.Response(200, json=step) if isinstance(step, dict) else step

    return httpx.MockTransport(handle), asked


STARTED = httpx.Response(202, headers={"content-location": f"{BASE}/$import-poll-status?_jobId=1"})
RUNNING = httpx.Response(202, headers={"retry-after": "0"})


def test_azure_tells_what_it_took_and_what_not() -> None:
    chosen = BulkSettings(dialect="azure", base_url="https://x.example/in", url=BASE)
    done = {
        "output": [
            {"type": "Patient", "count": 2, "inputUrl": "https://x.example/in/Patient.0000.ndjson"},
            {"type": "Observation", "count": 1, "inputUrl": "https://x.example/in/Observation.0000.ndjson"},
        ],
        "error": [
            {
                "type": "OperationOutcome",
                "count": 2,
                "inputUrl": "https://x.example/in/Observation.0000.ndjson",
                "url": "https://x.example/log/Observation1.ndjson?sig=hunter2",
            }
        ],
    }
    transport, asked = answering(STARTED, RUNNING, done)
    outcome = send_import(import_request(FILES, chosen), chosen, transport=transport)
    assert outcome.counts == {"Patient imported": 2, "Observation imported": 1, "Observation refused": 2}
    assert outcome.error_files == ["https://x.example/log/Observation1.ndjson"]
    assert asked[0].headers["prefer"] == "respond-async"
    assert asked[0].url.path == "/fhir/$import"
    assert json.loads(asked[0].content) == import_request(FILES, chosen).body


def test_hapi_says_that_it_is_done_or_not() -> None:
    chosen = BulkSettings(dialect="hapi", base_url="https://x.example/in", url=BASE)
    request = import_request(FILES, chosen)

    def outcome(severity: str, status: int = 200) -> httpx.Response:
        issue = {"severity": severity, "code": "processing", "diagnostics": "Mrs Secret"}
        return httpx.Response(status, json={"resourceType": "OperationOutcome", "issue": [issue]})

    transport, asked = answering(STARTED, outcome("information"))
    assert send_import(request, chosen, transport=transport).counts == {}
    assert asked[1].url.query == b"_jobId=1"
    for answer in (outcome("error"), outcome("error", 500)):
        transport, _ = answering(STARTED, answer)
        with pytest.raises(NetworkError, match=r"import failed: (200|500) \(processing\)") as caught:
            send_import(request, chosen, transport=transport)
        assert "Secret" not in str(caught.value)
    transport, _ = answering(outcome("error", 422))
    with pytest.raises(NetworkError, match=r"does not start the import: 422 \(processing\)"):
        send_import(request, chosen, transport=transport)


def test_an_import_that_was_started_is_not_started_again() -> None:
    chosen = BulkSettings(dialect="hapi", base_url="https://x.example/in", url=BASE)
    request = import_request(FILES, chosen)
    told: list[str] = []
    transport, _ = answering(STARTED, httpx.Response(502), httpx.Response(502))
    with pytest.raises(NetworkError, match="still answers 502"):
        send_import(request, BulkSettings(**(vars(chosen) | {"retries": 1})), on_start=told.append, transport=transport)
    assert told == [f"{BASE}/$import-poll-status?_jobId=1"]
    transport, asked = answering({"output": [{"type": "Patient", "count": 2}]})
    assert send_import(request, chosen, started=told[0], transport=transport).counts == {"Patient imported": 2}
    assert [each.method for each in asked] == ["GET"]
    transport, asked = answering({})
    with pytest.raises(NetworkError, match="leads to another place"):
        send_import(request, chosen, started="https://evil.example/", transport=transport)


def test_google_is_asked_after_its_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDTWIN_TEST_TOKEN", "mine")
    monkeypatch.setattr("medtwin.core.patience.Pace.wait", lambda self, seconds=0.0: None)
    chosen = BulkSettings(
        dialect="google",
        base_url="gs://bucket/in",
        google_store=STORE,
        url="https://healthcare.googleapis.com/v1",
        auth=AuthSettings(kind="bearer", token_env="MEDTWIN_TEST_TOKEN"),
    )
    request = import_request(FILES, chosen)
    name = "projects/p/locations/europe-west3/datasets/d/operations/7"
    counter = {"counter": {"success": "4", "failure": "1"}}
    transport, asked = answering({"name": name}, {"name": name}, {"name": name, "done": True, "metadata": counter})
    assert send_import(request, chosen, transport=transport).counts == {"resource imported": 4, "resource refused": 1}
    assert str(asked[0].url) == f"https://healthcare.googleapis.com/v1/{STORE}:import"
    assert asked[0].headers["authorization"] == "Bearer mine"
    assert asked[0].headers["content-type"] == "application/json"
    assert str(asked[1].url) == f"https://healthcare.googleapis.com/v1/{name}"
    transport, _ = answering(
        {"name": name}, {"name": name, "done": True, "error": {"code": 7, "message": "Mrs Secret"}}
    )
    with pytest.raises(NetworkError, match=r"import failed: code 7") as caught:
        send_import(request, chosen, transport=transport)
    assert "Secret" not in str(caught.value)
    transport, _ = answering({"name": "https://evil.example"})
    with pytest.raises(NetworkError, match="without naming its operation"):
        send_import(request, chosen, transport=transport)


def test_healthlake_is_started_by_whoever_has_credentials() -> None:
    chosen = BulkSettings(**LAKE, url="https://healthlake.eu-west-1.amazonaws.com")
    with pytest.raises(ConfigError, match=r"no AWS credentials .* run command\.sh"):
        send_import(import_request(FILES, chosen), chosen)
