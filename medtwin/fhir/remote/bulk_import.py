"""The requests that start a bulk import, in the dialect of each server; sent where that can be done from here."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from medtwin.core.errors import ConfigError
from medtwin.core.places import NetworkError, checked_url
from medtwin.fhir.remote.bulk_files import BulkFile
from medtwin.fhir.remote.client import Answer, FhirClient
from medtwin.fhir.remote.jobs import explain, kick_off, poll
from medtwin.fhir.remote.places import followed
from medtwin.fhir.remote.settings import BulkSettings
from medtwin.fhir.remote.tokens import make_credentials

_NDJSON = "application/fhir+ndjson"
_STORE = re.compile(r"projects/[^/]+/locations/[^/]+/datasets/[^/]+/fhirStores/[^/]+")
# API_StartFHIRImportJob of the HealthLake API reference.
_ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::[0-9]{12}:role/.+")


_PLAIN_JSON = {"accept": "application/json", "content-type": "application/json"}


@dataclass(frozen=True)
class BulkRequest:
    """What starts an import.

    Attributes:
        method, path: Of HTTP; the path is relative to the FHIR base, or to the API.
        headers: Besides those of authentication.
        body: JSON.
        command: The same for a shell, to be run by whoever has the credentials.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    command: str


@dataclass
class BulkOutcome:
    """What an import came to.

    Attributes:
        counts: By type, `imported` or `refused`, as far as the server says.
        error_files: Where it wrote what is wrong with the rest.
    """

    counts: Counter[str] = field(default_factory=Counter)
    error_files: list[str] = field(default_factory=list)


def import_request(files: Sequence[BulkFile], chosen: BulkSettings) -> BulkRequest:
    """The request that starts the import of the files, in the dialect of the settings.

    Raises:
        ConfigError: Naming the setting that the dialect needs.
    """
    if not files:
        raise ConfigError("there is no file to import")
    return _REQUESTS[chosen.dialect](files, chosen)


def _hapi(files: Sequence[BulkFile], chosen: BulkSettings) -> BulkRequest:
    """Source: hapifhir/hapi-fhir, BulkDataImportProvider.java; it sorts the files by what refers to what itself."""
    base = _base(chosen, ("https://", "http://"))
    detail = [{"name": "type", "valueCode": "https"}]
    if chosen.hapi_batch_resources is not None:
        detail.append({"name": "maxBatchResourceCount", "valueString": str(chosen.hapi_batch_resources)})
    parameters: list[dict[str, Any]] = [
        {"name": "inputFormat", "valueCode": _NDJSON},
        {"name": "inputSource", "valueUri": base},
        {"name": "storageDetail", "part": detail},
    ]
    for each in files:
        part = [{"name": "type", "valueCode": each.type}, {"name": "url", "valueUri": f"{base}/{each.name}"}]
        parameters.append({"name": "input", "part": part})
    return _fhir_request(parameters)


def _azure(files: Sequence[BulkFile], chosen: BulkSettings) -> BulkRequest:
    """Source: learn.microsoft.com, Azure Health Data Services, Import FHIR data."""
    base = _base(chosen, ("https://", "http://"))
    parameters: list[dict[str, Any]] = [
        {"name": "inputFormat", "valueString": _NDJSON},
        {"name": "mode", "valueString": chosen.azure_mode},
    ]
    for each in files:
        part = [{"name": "type", "valueString": each.type}, {"name": "url", "valueUri": f"{base}/{each.name}"}]
        parameters.append({"name": "input", "part": part})
    return _fhir_request(parameters)


def _fhir_request(parameters: list[dict[str, Any]]) -> BulkRequest:
    headers = {"content-type": "application/fhir+json", "prefer": "respond-async"}
    command = (
        "curl -X POST -H 'Content-Type: application/fhir+json' -H 'Prefer: respond-async' "
        '-H "Authorization: Bearer $TOKEN" --data @request.json "$FHIR_BASE/\\$import"'
    )
    return BulkRequest("POST", "$import", headers, {"resourceType": "Parameters", "parameter": parameters}, command)


def _google(files: Sequence[BulkFile], chosen: BulkSettings) -> BulkRequest:
    """Source: cloud.google.com, Cloud Healthcare API, Method: fhirStores.import."""
    base = _base(chosen, ("gs://",))
    store = chosen.google_store or ""
    if not _STORE.fullmatch(store):
        raise ConfigError("google_store must be projects/P/locations/L/datasets/D/fhirStores/S")
    uri = f"{base}/*.ndjson"
    _, project, _, location, _, dataset, _, name = store.split("/")
    command = shlex.join(
        [
            "gcloud", "healthcare", "fhir-stores", "import", "gcs", name, f"--project={project}",
            f"--location={location}", f"--dataset={dataset}", f"--gcs-uri={uri}", "--content-structure=resource",
        ]
    )  # fmt: skip
    body = {"contentStructure": "RESOURCE", "gcsSource": {"uri": uri}}
    return BulkRequest("POST", f"{store}:import", {**_PLAIN_JSON}, body, command)


def _healthlake(files: Sequence[BulkFile], chosen: BulkSettings) -> BulkRequest:
    """Source: docs.aws.amazon.com, HealthLake API reference, StartFHIRImportJob."""
    base = _base(chosen, ("s3://",))
    needed = ("datastore_id", "role_arn", "output_s3_uri", "kms_key_id")
    missing = [name for name in needed if not getattr(chosen, name)]
    if missing:
        raise ConfigError(f"{missing[0]}=... is required by dialect=healthlake")
    if not _ROLE.fullmatch(chosen.role_arn or ""):
        raise ConfigError("role_arn must be like arn:aws:iam::123456789012:role/name")
    body = {
        "JobName": chosen.job_name,
        "InputDataConfig": {"S3Uri": f"{base}/"},
        "JobOutputDataConfig": {"S3Configuration": {"S3Uri": chosen.output_s3_uri, "KmsKeyId": chosen.kms_key_id}},
        "DatastoreId": chosen.datastore_id,
        "DataAccessRoleArn": chosen.role_arn,
        "ClientToken": _client_token(files, chosen),
    }
    region = ["--region", chosen.region] if chosen.region else []
    command = shlex.join(
        ["aws", "healthlake", "start-fhir-import-job", *region, "--cli-input-json", "file://request.json"]
    )
    headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "HealthLake.StartFHIRImportJob"}
    return BulkRequest("POST", "", headers, body, command)


_REQUESTS = {"hapi": _hapi, "azure": _azure, "google": _google, "healthlake": _healthlake}


def _client_token(files: Sequence[BulkFile], chosen: BulkSettings) -> str:
    """The same files to the same store give the same token, so that asking twice starts one job."""
    digest = hashlib.sha256(f"{chosen.datastore_id}\n{chosen.base_url}\n".encode())
    for each in files:
        digest.update(f"{each.name} {each.sha256}\n".encode())
    return digest.hexdigest()[:64]


def _base(chosen: BulkSettings, schemes: tuple[str, ...]) -> str:
    base = (chosen.base_url or "").rstrip("/")
    if not base.startswith(schemes) or not base.partition("://")[2]:
        wanted = schemes[0]
        raise ConfigError(f"base_url must say where the files will stand, {wanted}..., for dialect={chosen.dialect}")
    return checked_url(base, "base_url", allow_http=chosen.allow_http) if base.startswith("http") else base


def send_import(
    request: BulkRequest,
    chosen: BulkSettings,
    *,
    started: str | None = None,
    on_start: Callable[[str], None] = lambda place: None,
    transport: httpx.BaseTransport | None = None,
) -> BulkOutcome:
    """Starts the import, unless an earlier call did, and waits for its end.

    HAPI and Azure are asked after until they are done. Google's is a long-running operation of its API, started and
    asked after with a bearer token. HealthLake wants requests that are signed with AWS credentials, which medtwin does
    not hold: run the command of the request instead.

    Args:
        request: What to send.
        chosen: Where, and how long to wait.
        started: What `on_start` was told by an earlier call that was killed.
        on_start: Told where to ask after the import, once it is started.
        transport: For tests: what answers in place of the network.

    Raises:
        ConfigError: For HealthLake.
        NetworkError: If the server does not start the import, or it fails.
    """
    if chosen.dialect == "healthlake":
        raise ConfigError("url: medtwin holds no AWS credentials to sign with: leave url out, and run command.sh")
    with FhirClient(chosen, credentials=make_credentials(chosen, transport=transport), transport=transport) as client:
        if started is None:
            start = _start_google if chosen.dialect == "google" else _start
            started = start(client, request)
            on_start(started)
        if chosen.dialect == "google":
            return _await_google(client, started, chosen)
        answer = poll(client, followed(started, client.base, "status address"), chosen.max_poll_s, "import")
    if answer.status != 200:
        raise NetworkError(f"the server's import failed: {explain(answer)}; what it took before stays there")
    return read_outcome(answer)


def read_outcome(answer: Answer) -> BulkOutcome:
    """What HAPI (an OperationOutcome) or Azure (a manifest) says of a finished import.

    Raises:
        NetworkError: If it is an OperationOutcome that tells of an error.
    """
    value = answer.resource("the result of the import")
    outcome = BulkOutcome()
    if value.get("resourceType") == "OperationOutcome":
        if any(issue.get("severity") in ("error", "fatal") for issue in value.get("issue", [])):
            raise NetworkError(f"the server's import failed: {explain(answer)}")
        return outcome
    for part, what in (("output", "imported"), ("error", "refused")):
        for each in _objects(value.get(part)):
            # An error file is of OperationOutcomes; the file that it speaks of says what was refused.
            kind = str(each.get("inputUrl", "")).rpartition("/")[2].partition(".")[0] or str(each.get("type"))
            number = each.get("count", 0)
            outcome.counts[f"{kind if kind.isalpha() else 'resource'} {what}"] += (
                number if isinstance(number, int) else 0
            )
            if part == "error" and isinstance(each.get("url"), str):
                outcome.error_files.append(each["url"].partition("?")[0])
    return outcome


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _start(client: FhirClient, request: BulkRequest) -> str:
    body = orjson.dumps(request.body)
    return kick_off(client, "POST", f"{client.base}/{request.path}", content=body, what="import")


def _start_google(client: FhirClient, request: BulkRequest) -> str:
    """Source: cloud.google.com, Cloud Healthcare API, Method: fhirStores.import; it answers with an operation."""
    body = orjson.dumps(request.body)
    started = client.request("POST", f"{client.base}/{request.path}", content=body, headers=request.headers)
    if started.status != 200:
        raise NetworkError(f"the server does not start the import: {explain(started)}")
    name = started.resource("the import").get("name")
    if not isinstance(name, str) or not re.fullmatch(r"projects/[A-Za-z0-9_./-]+", name):
        raise NetworkError("the server started the import without naming its operation")
    return name


def _await_google(client: FhirClient, name: str, chosen: BulkSettings) -> BulkOutcome:
    """Source: cloud.google.com, Cloud Healthcare API, OperationMetadata and its ProgressCounter."""
    waited, pause = 0.0, 1.0
    while True:
        operation = client.request("GET", f"{client.base}/{name}", headers=_PLAIN_JSON).resource("the operation")
        if operation.get("done") is True:
            break
        if waited > chosen.max_poll_s:
            raise NetworkError(
                f"the import is not done after max_poll_s={chosen.max_poll_s:.0f}: look at operation {name}"
            )
        client.pace.wait(pause)
        waited, pause = waited + pause, min(2 * pause, 120.0)
    if isinstance(error := operation.get("error"), dict):
        raise NetworkError(f"the server's import failed: code {error.get('code')}; its log says which resources")
    counter = operation.get("metadata", {}).get("counter", {})
    found = Counter({f"resource {what}": int(counter.get(key, 0)) for what, key in _GOOGLE_COUNTS.items()})
    return BulkOutcome(+found)


_GOOGLE_COUNTS = {"imported": "success", "refused": "failure"}
