"""The settings of everything that speaks to a FHIR server; each is a group of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medtwin.core.places import SettingError, checked_url


@dataclass(frozen=True)
class AuthSettings:
    """Who we are to the server; a secret is named by where it stands, never given itself.

    Attributes:
        kind: `bearer` sends a token that somebody gave us; `backend_services` gets one by SMART Backend Services.
        token_env: Environment variable that holds the token.
        token_file: File that holds the token; read again when the server refuses it.
        client_id: As registered with the authorization server.
        key_file: The private key, PEM or JWK.
        key_id: The `kid` of the registered public key.
        algorithm: Of the signature.
        scope: What to ask for.
        token_url: The token endpoint; without it, it is looked up in `.well-known/smart-configuration`.
    """

    kind: Literal["none", "bearer", "backend_services"] = "none"
    token_env: str | None = None
    token_file: Path | None = None
    client_id: str | None = None
    key_file: Path | None = None
    key_id: str | None = None
    algorithm: Literal["RS384", "ES384"] = "RS384"
    scope: str = "system/*.cruds"
    token_url: str | None = None

    def __post_init__(self) -> None:
        if self.kind == "bearer" and (self.token_env is None) == (self.token_file is None):
            raise SettingError("kind=bearer needs token_env=NAME or token_file=FILE, one of them")
        if self.kind == "backend_services" and (self.client_id is None or self.key_file is None):
            raise SettingError("kind=backend_services needs client_id=... and key_file=FILE")


@dataclass(frozen=True)
class ConnectionSettings:
    """How to reach a server, and how patient to be with it.

    Attributes:
        url: The FHIR base, such as `https://example.org/fhir`.
        allow_http: Plain http to a host that is not this machine; everyone on the way reads along.
        ca_file: Certificates to trust besides those of the system, PEM.
        proxy: Of http and https; without it those of the environment hold, except for this machine.
        connect_timeout_s, read_timeout_s: Seconds until an attempt counts as dropped.
        retries: Further attempts of a request after a fault that may pass.
        max_wait_s: Longest wait before an attempt, in seconds; a server that asks for more stops the run.
        concurrency: Requests under way at once, at most.
    """

    url: str | None = None
    allow_http: bool = False
    ca_file: Path | None = None
    proxy: str | None = None
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 120.0
    retries: int = 8
    max_wait_s: float = 300.0
    concurrency: int = 4
    auth: AuthSettings = field(default_factory=AuthSettings)

    def __post_init__(self) -> None:
        if self.url is not None:
            checked_url(self.url, "url", allow_http=self.allow_http)
        _require_positive(self, "connect_timeout_s", "read_timeout_s", "max_wait_s", "concurrency")
        if self.retries < 0:
            raise SettingError(f"retries must be 0 or more, got {self.retries}")

    def base(self) -> str:
        """The FHIR base without a slash at its end.

        Raises:
            SettingError: If there is none.
        """
        if self.url is None:
            raise SettingError("url=... is required: the FHIR base of the server, such as https://example.org/fhir")
        return checked_url(self.url, "url", allow_http=self.allow_http)


@dataclass(frozen=True)
class ServerSettings(ConnectionSettings):
    """The `server` group of `medtwin export to=fhir_server`.

    Attributes:
        write: `put` gives each resource the id it has here; `if_none_exist` lets the server choose ids, and finds what
            it has by an identifier.
        bundle: Of the requests.
        max_entries: Resources of a bundle, at most.
        max_conditional_entries: The same where `write` is `if_none_exist`; without it max_entries holds.
        max_bytes: Size of a request, at most.
        integrity: Whether the server refuses references to what it does not hold; what is referred to then goes first.
        check_capability: Whether a server that does not declare what we need is refused.
        allow_untagged: Send resources without the label HTEST, which keeps test data apart from patients.
        allow_failures: Finish although the server refused resources; they are listed in rejected/.
        max_failures: Stop when more resources than this were refused.
    """

    write: Literal["put", "if_none_exist"] = "put"
    bundle: Literal["transaction", "batch"] = "transaction"
    max_entries: int = 100
    max_conditional_entries: int | None = None
    max_bytes: int = 4_000_000
    integrity: bool = True
    check_capability: bool = True
    allow_untagged: bool = False
    allow_failures: bool = False
    max_failures: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_positive(self, "max_entries", "max_bytes")
        if self.max_conditional_entries is not None and self.max_conditional_entries < 1:
            raise SettingError(f"max_conditional_entries must be 1 or more, got {self.max_conditional_entries}")

    @property
    def entries(self) -> int:
        """Resources of a bundle, at most, in the chosen way of writing."""
        if self.write == "if_none_exist" and self.max_conditional_entries is not None:
            return min(self.max_entries, self.max_conditional_entries)
        return self.max_entries


@dataclass(frozen=True)
class ServerSource(ConnectionSettings):
    """A live server as a source of `medtwin ingest`.

    Attributes:
        how: `search` reads page by page; `export` has the server write Bulk Data files, and fetches them.
        types: Resource types to read; empty: those that medtwin reads and the server declares.
        page_size: Resources to ask for in a page.
        max_pages: Pages of one type, at most.
        level: What `$export` covers: the `system`, all that concerns patients, or those of a `group`.
        group: The id of that Group.
        since: Only what changed since then, an instant such as 2025-01-31T00:00:00Z.
        max_poll_s: Longest time to wait for the server to finish its export, in seconds.
        file_hosts: Further hosts that the files of an export may stand on, such as a storage service.
        max_bytes: Size of all files together, at most.
    """

    how: Literal["search", "export"] = "search"
    types: tuple[str, ...] = ()
    page_size: int = 200
    max_pages: int = 100_000
    level: Literal["system", "patient", "group"] = "patient"
    group: str | None = None
    since: str | None = None
    max_poll_s: float = 86_400.0
    file_hosts: tuple[str, ...] = ()
    max_bytes: int = 1_000_000_000_000

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_positive(self, "page_size", "max_pages", "max_poll_s", "max_bytes")
        if (self.level == "group") != (self.group is not None):
            raise SettingError("level=group and group=ID go together")
        odd = [name for name in self.types if not name.isalpha()]
        if odd:
            raise SettingError(f"types must be resource types such as Patient, got {odd[0]!r}")


@dataclass(frozen=True)
class BulkSettings(ConnectionSettings):
    """The `bulk` group of `medtwin export to=bulk_import`.

    Attributes:
        url: Where the import is started: the FHIR base (hapi, azure), the store's own URL (google); without it the
            request is only written.
        dialect: Whose request to write.
        base_url: Where the files will stand: https (hapi, azure), `gs://bucket/folder`, `s3://bucket/folder`.
        gzip: Compress the files; only for hapi, from a host that says `Content-Encoding: gzip`.
        max_resources: Resources of a file, at most.
        max_file_bytes: Size of a file before compression, at most.
        max_files: Files of a job, at most.
        max_resource_bytes: Size of one resource, at most; None: no limit is known.
        azure_mode: InitialLoad creates in an empty server, IncrementalLoad also updates.
        hapi_batch_resources: Resources of one piece of work inside HAPI; None: HAPI's own choice.
        google_store: `projects/P/locations/L/datasets/D/fhirStores/S`.
        datastore_id, role_arn, output_s3_uri, kms_key_id, region, job_name: Of HealthLake.
        max_poll_s: Longest time to wait for the server to finish, in seconds.
    """

    dialect: Literal["hapi", "azure", "google", "healthlake"] = "hapi"
    base_url: str | None = None
    gzip: bool = False
    max_resources: int = 100_000
    max_file_bytes: int = 200_000_000
    max_files: int = 10_000
    max_resource_bytes: int | None = None
    azure_mode: Literal["InitialLoad", "IncrementalLoad"] = "IncrementalLoad"
    hapi_batch_resources: int | None = None
    google_store: str | None = None
    datastore_id: str | None = None
    role_arn: str | None = None
    output_s3_uri: str | None = None
    kms_key_id: str | None = None
    region: str | None = None
    job_name: str = "medtwin"
    max_poll_s: float = 86_400.0
    allow_untagged: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_positive(self, "max_resources", "max_file_bytes", "max_files", "max_poll_s")
        if self.gzip and self.dialect != "hapi":
            raise SettingError(f"gzip=true is for dialect=hapi alone: {self.dialect} documents plain NDJSON only")


def _require_positive(chosen: object, *names: str) -> None:
    for name in names:
        value = getattr(chosen, name)
        if not value > 0:
            raise SettingError(f"{name} must be more than 0, got {value!r}")
