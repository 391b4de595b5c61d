"""The settings of everything that speaks to a PACS; each is a group of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

from medtwin.core.places import SettingError, checked_url, is_loopback
from medtwin.dicom.remote.titles import checked_title

_LARGEST_PDU = 1 << 27


@dataclass(frozen=True)
class AuthSettings:
    """Who we are to a DICOMweb server; a secret is named by where it stands, never given itself.

    Attributes:
        kind: `bearer` sends a token that somebody gave us; `basic` a user and a password.
        token_env: Environment variable that holds the token.
        token_file: File that holds the token; read again when the server refuses it.
        user: Of `basic`.
        password_env: Environment variable that holds the password.
        password_file: File that holds the password.
    """

    kind: Literal["none", "bearer", "basic"] = "none"
    token_env: str | None = None
    token_file: Path | None = None
    user: str | None = None
    password_env: str | None = None
    password_file: Path | None = None

    def __post_init__(self) -> None:
        if self.kind == "bearer" and (self.token_env is None) == (self.token_file is None):
            raise SettingError("auth.kind=bearer needs auth.token_env=NAME or auth.token_file=FILE, one of them")
        if self.kind == "basic" and (
            not self.user or ":" in self.user or (self.password_env is None) == (self.password_file is None)
        ):
            raise SettingError(
                "auth.kind=basic needs auth.user=NAME (without a colon) and auth.password_env=NAME or "
                "auth.password_file=FILE, one of them"
            )


@dataclass(frozen=True)
class WebSettings:
    """How to reach a DICOMweb server, and how patient to be with it.

    Attributes:
        url: The base below which `/studies` stands, such as `https://pacs.example.org/dicom-web`.
        allow_http: Plain http to a host that is not this machine; everyone on the way reads along.
        ca_file: Certificates to trust besides those of the system, PEM.
        client_cert_file: Our own certificate for TLS, PEM, with its chain.
        client_key_file: Its private key, PEM; without it the key stands in client_cert_file.
        proxy: Of http and https; without it those of the environment hold, except for this machine.
        connect_timeout_s, read_timeout_s: Seconds until an attempt counts as dropped.
        retries: Further attempts after a fault that may pass.
        max_wait_s: Longest wait before an attempt, in seconds; a server that asks for more stops the run.
        concurrency: Requests or associations under way at once, at most.
    """

    url: str | None = None
    allow_http: bool = False
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    proxy: str | None = None
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 120.0
    retries: int = 8
    max_wait_s: float = 300.0
    concurrency: int = 2
    auth: AuthSettings = field(default_factory=AuthSettings)

    def __post_init__(self) -> None:
        if self.url is not None:
            checked_url(self.url, "url", allow_http=self.allow_http)
        if self.client_key_file is not None and self.client_cert_file is None:
            raise SettingError("client_key_file goes with client_cert_file")
        _require_positive(self, "connect_timeout_s", "read_timeout_s", "max_wait_s", "concurrency")
        if self.retries < 0:
            raise SettingError(f"retries must be 0 or more, got {self.retries}")

    def base(self) -> str:
        """The base without a slash at its end.

        Raises:
            SettingError: If there is none.
        """
        if self.url is None:
            raise SettingError("url=... is required: the DICOMweb base, such as https://pacs.example.org/dicom-web")
        return checked_url(self.url, "url", allow_http=self.allow_http)


@dataclass(frozen=True)
class PacsSettings(WebSettings):
    """The `pacs` group of `medtwin export to=dimse` and `to=dicomweb`.

    Attributes:
        host, port: Of to=dimse: where the PACS listens for associations.
        called_aet: The AE title of the PACS.
        calling_aet: Ours; many a PACS wants to know it beforehand.
        tls: Speak TLS (to=dimse); ca_file and client_cert_file hold for it too.
        allow_plain: DIMSE without TLS to a host that is not this machine.
        max_pdu: Largest PDU that we take, in bytes; 0: no limit.
        max_instances: Instances of a STOW-RS request, or of an association, at most.
        max_bytes: Size of a STOW-RS request, at most; an object that is larger goes alone.
        verify: Ask the PACS afterwards (QIDO-RS, C-FIND) whether it holds everything.
        allow_unmarked: Send objects without SyntheticData = YES, as those of real patients are.
        allow_failures: Finish although the PACS refused objects; they are listed in rejected/.
        max_failures: Stop when more objects than this were refused.
    """

    host: str | None = None
    port: int = 104
    called_aet: str = "ANY-SCP"
    calling_aet: str = "MEDTWIN"
    tls: bool = False
    allow_plain: bool = False
    max_pdu: int = 131_072
    max_instances: int = 50
    max_bytes: int = 64_000_000
    verify: bool = True
    allow_unmarked: bool = False
    allow_failures: bool = False
    max_failures: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_title(self.called_aet, "called_aet")
        checked_title(self.calling_aet, "calling_aet")
        if not 0 < self.port < 65_536:
            raise SettingError(f"port must be between 1 and 65535, got {self.port}")
        if self.max_pdu != 0 and not 4_096 <= self.max_pdu <= _LARGEST_PDU:
            raise SettingError(f"max_pdu must be 0 or between 4096 and {_LARGEST_PDU}, got {self.max_pdu}")
        _require_positive(self, "max_instances", "max_bytes")
        if self.max_failures < 0:
            raise SettingError(f"max_failures must be 0 or more, got {self.max_failures}")
        if self.host is not None and not (self.tls or self.allow_plain or is_loopback(self.host)):
            raise SettingError(
                f"host is {self.host}, another machine, and DIMSE without TLS can be read and changed by anyone on "
                "the way: use tls=true, or allow_plain=true"
            )

    def peer(self) -> tuple[str, int]:
        """Host and port of the PACS.

        Raises:
            SettingError: If no host is given.
        """
        if self.host is None:
            raise SettingError("host=... is required: where the PACS listens for associations")
        return self.host, self.port


@dataclass(frozen=True)
class WebSource(WebSettings):
    """A DICOMweb server as a source of `medtwin ingest`: which studies to read by QIDO-RS and WADO-RS.

    Attributes:
        modalities: Only series of these, such as CT; empty: all.
        study_uids: Only these studies; empty: all that the other filters leave.
        date_from, date_to: Only studies of these days, both included, as YYYY-MM-DD.
        page_size: Studies or series to ask for in one request.
        max_studies: Studies to read, at most, in the order of their UIDs; None: all.
        max_bytes: Size of all files together, at most; more stops the run.
    """

    modalities: tuple[str, ...] = ()
    study_uids: tuple[str, ...] = ()
    date_from: str | None = None
    date_to: str | None = None
    page_size: int = 100
    max_studies: int | None = None
    max_bytes: int = 1_000_000_000_000

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_positive(self, "page_size", "max_bytes")
        if self.max_studies is not None and self.max_studies < 1:
            raise SettingError(f"max_studies must be 1 or more, got {self.max_studies}")
        odd = [name for name in self.modalities if not (name.isalnum() and name.isupper() and len(name) <= 16)]
        if odd:
            raise SettingError(f"modalities must be DICOM modalities such as CT, got {odd[0]!r}")
        if any(not _is_uid(each) for each in self.study_uids):
            raise SettingError("study_uids must be UIDs: digits and dots, at most 64 characters")
        days = self.days()
        if days[0] is not None and days[1] is not None and days[0] > days[1]:
            raise SettingError("date_from must not be after date_to")

    def days(self) -> tuple[date | None, date | None]:
        """First and last day of the studies to read; None: no bound.

        Raises:
            SettingError: If one is no date.
        """
        return _day(self.date_from, "date_from"), _day(self.date_to, "date_to")


def _day(text: str | None, name: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise SettingError(f"{name} must be a day such as 2024-01-31") from error


def _is_uid(text: str) -> bool:
    return 0 < len(text) <= 64 and all(part.isdecimal() and part.isascii() for part in text.split("."))


def _require_positive(chosen: object, *names: str) -> None:
    for name in names:
        value = getattr(chosen, name)
        if not value > 0:
            raise SettingError(f"{name} must be more than 0, got {value!r}")
