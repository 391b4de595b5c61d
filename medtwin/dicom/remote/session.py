"""One HTTP session for all: retries, the token, trust, and bounds on what comes back."""

from __future__ import annotations

import base64
import os
import ssl
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from medtwin import __version__
from medtwin.core.errors import ConfigError
from medtwin.core.patience import PASSING, Pace, Stopped, retry_after
from medtwin.core.places import NetworkError, SettingError, is_loopback, origin
from medtwin.dicom.remote.settings import AuthSettings, WebSettings

Result = TypeVar("Result")


class Passing(Exception):  # noqa: N818 (no fault of ours: it is tried again)
    """A fault that may pass: what it was, and how long the server asks to wait."""

    def __init__(self, what: str, asked: float | None = None) -> None:
        super().__init__(what)
        self.asked = asked


class WebSession:
    """Speaks to one DICOMweb server; safe to share between threads.

    Redirects are not followed: a POST would lose its body, and another host would be shown the query and the token.

    Args:
        chosen: Where it is, and how patient to be.

    Raises:
        ConfigError: If a certificate, a key or a secret is not there or is none.
    """

    def __init__(self, chosen: WebSettings) -> None:
        self.base = chosen.base()
        self.pace = Pace(chosen.max_wait_s)
        self.retries = chosen.retries
        self.timeout = (chosen.connect_timeout_s, chosen.read_timeout_s)
        self.http = requests.Session()
        self._auth = _Authorization(chosen.auth, self.base)
        self._host = urlsplit(self.base).hostname or ""
        self.http.auth = self._auth
        self.http.headers["User-Agent"] = f"medtwin/{__version__}"
        self.http.trust_env = not is_loopback(self._host)
        if chosen.proxy is not None:
            self.http.proxies = {"http": chosen.proxy, "https": chosen.proxy}
        adapter = _Adapter(_trust(chosen), pool_maxsize=chosen.concurrency + 1)
        self.http.mount("https://", adapter)
        self.http.mount("http://", HTTPAdapter(pool_maxsize=chosen.concurrency + 1))

    def close(self) -> None:
        """Ends the connections."""
        self.http.close()

    def persist(self, attempt_once: Callable[[], Result]) -> Result:
        """The result of something that may fail and be tried again.

        Args:
            attempt_once: Raises `Passing`, or what `exchange` lets through.

        Raises:
            NetworkError: If the fault did not pass, or is there to stay.
            Stopped: If the run is being stopped.
        """
        for attempt in range(self.retries + 1):
            self.pace.wait()
            try:
                with self.explained():
                    return attempt_once()
            except Passing as fault:
                if self.pace.is_stopped:
                    raise Stopped from fault
                last = fault
            if attempt < self.retries:
                self.pace.again(attempt, last.asked)
        raise NetworkError(
            f"{self._host}: {last} after {self.retries + 1} attempts: repeat the command later, it continues where it "
            "was"
        )

    def request(
        self,
        method: str,
        url: str,
        *,
        body: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        passing: Collection[int] = PASSING,
        stream: bool = False,
    ) -> requests.Response:
        """One attempt of a request; its answer, of any status that asking again would not change.

        Args:
            method: Of HTTP.
            url: Absolute.
            body: Gives the parts of the body; called anew where the token was renewed.
            headers: Besides those of the session; a `Content-Length` keeps the body from being sent in chunks.
            passing: The statuses after which to ask again.
            stream: Whether the body of the answer stays to be read.

        Raises:
            Passing: After a fault that may pass.
            NetworkError: If the server redirects, or refuses us.
        """
        answer = self._send(method, url, body, headers, stream=stream)
        if answer.status_code == 401 and self._auth.renew(answer.request.headers.get("Authorization")):
            answer.close()
            answer = self._send(method, url, body, headers, stream=stream)
        status = answer.status_code
        if status in passing:
            answer.close()
            raise Passing(f"the server still answers {status}", retry_after(answer.headers.get("Retry-After")))
        if status in (401, 403):
            raise NetworkError(_refused(status, has_secret=self._auth.has_secret))
        if 300 <= status < 400:
            raise NetworkError(
                f"the server redirects ({status}), which is not followed: give the place where it really is as url"
            )
        return answer

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what `requests` raises into faults that may pass, and those that are there to stay."""
        try:
            yield
        except requests.exceptions.SSLError as error:
            raise NetworkError(
                f"the TLS connection to {self._host} failed ({_reason(error)}): name the authority of its certificate "
                "with ca_file=FILE; a server that wants to know ours needs client_cert_file=FILE"
            ) from error
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise NetworkError(f"{self._host} cannot be asked: check url and proxy") from error
        except requests.exceptions.ProxyError as error:
            raise NetworkError(f"the proxy to {self._host} cannot be used: check proxy") from error
        except requests.exceptions.ConnectTimeout as error:
            raise Passing("it cannot be reached") from error
        except requests.exceptions.ConnectionError as error:
            raise Passing("it cannot be reached, or hung up") from error
        except (requests.exceptions.RequestException, OSError) as error:
            raise Passing(f"it does not complete its answers ({type(error).__name__})") from error

    def _send(
        self,
        method: str,
        url: str,
        body: Callable[[], Iterator[bytes]] | None,
        headers: Mapping[str, str] | None,
        *,
        stream: bool,
    ) -> requests.Response:
        prepared = self.http.prepare_request(
            requests.Request(method, url, headers=dict(headers or {}), data=body() if body is not None else None)
        )
        if "Content-Length" in prepared.headers:
            prepared.headers.pop("Transfer-Encoding", None)  # requests sets it for every generator
        settings = self.http.merge_environment_settings(url, {}, stream, None, None)
        return self.http.send(prepared, timeout=self.timeout, allow_redirects=False, **settings)


class _Authorization(requests.auth.AuthBase):
    """The header of every request to the server's own host; the secret is never logged, shown or written."""

    def __init__(self, auth: AuthSettings, base: str) -> None:
        self._auth = auth
        self._origin = origin(base)
        self._lock = threading.Lock()
        self._header = self._read()

    @property
    def has_secret(self) -> bool:
        return self._header is not None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # dicomweb-client states a host without its port, which is wrong for any other than the default.
        request.headers.pop("Host", None)
        if self._header is not None and origin(request.url or "") == self._origin:
            request.headers["Authorization"] = self._header
        return request

    def renew(self, refused: str | bytes | None) -> bool:
        """Whether the file, or another worker, has another secret by now."""
        with self._lock:
            if self._header is not None and self._header == refused:
                self._header = self._read()
            return self._header is not None and self._header != refused

    def _read(self) -> str | None:
        auth = self._auth
        if auth.kind == "bearer":
            return f"Bearer {_secret(auth.token_env, auth.token_file, 'auth.token')}"
        if auth.kind == "basic":
            pair = f"{auth.user}:{_secret(auth.password_env, auth.password_file, 'auth.password')}"
            return f"Basic {base64.b64encode(pair.encode()).decode()}"
        return None


class _Adapter(HTTPAdapter):
    """Connections of https under the trust of the settings."""

    def __init__(self, context: ssl.SSLContext | None, *, pool_maxsize: int) -> None:
        self._context = context
        super().__init__(pool_maxsize=pool_maxsize)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(*args, **kwargs, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        # The context has what it needs; requests would load its own authorities beside it.
        if self._context is None:
            super().cert_verify(conn, url, verify, cert)


def tls_context(chosen: WebSettings) -> ssl.SSLContext:
    """What we trust, and the certificate that we show, by ca_file, client_cert_file and client_key_file.

    Raises:
        ConfigError: If one of them cannot be read.
    """
    context = ssl.create_default_context()
    if chosen.ca_file is not None:
        try:
            context.load_verify_locations(chosen.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"ca_file: {chosen.ca_file} cannot be read as PEM certificates") from error
    if chosen.client_cert_file is not None:
        try:
            context.load_cert_chain(chosen.client_cert_file, chosen.client_key_file, password=_no_password)
        except (OSError, ssl.SSLError, _EncryptedKeyError) as error:
            raise ConfigError(
                f"client_cert_file: {chosen.client_cert_file} and its key cannot be read as PEM without a password, "
                "or do not belong together"
            ) from error
    return context


class _EncryptedKeyError(Exception):
    """The key wants a password, which nobody is asked for."""


def _no_password() -> str:
    raise _EncryptedKeyError


def _trust(chosen: WebSettings) -> ssl.SSLContext | None:
    """None where the authorities that `requests` brings along, or REQUESTS_CA_BUNDLE, are to hold."""
    if chosen.ca_file is None and chosen.client_cert_file is None:
        return None
    return tls_context(chosen)


def _secret(variable: str | None, file: Path | None, setting: str) -> str:
    if variable is not None:
        place, secret = f"{setting}_env: the environment variable {variable}", os.environ.get(variable, "")
    else:
        place = f"{setting}_file: {file}"
        try:
            secret = file.read_text(encoding="utf-8") if file is not None else ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{place} cannot be read") from error
    secret = secret.strip("\r\n\t ")
    if not secret:
        raise ConfigError(f"{place} holds nothing")
    if not secret.isprintable() or (setting == "auth.token" and (not secret.isascii() or " " in secret)):
        raise SettingError(f"{place} must hold the secret and nothing else")
    return secret


def _reason(error: Exception) -> str:
    return "the certificate is not trusted" if "CERTIFICATE_VERIFY_FAILED" in str(error) else "the handshake failed"


def _refused(status: int, *, has_secret: bool) -> str:
    if status == 403:
        return "the server forbids this (403): the account lacks the right to do it"
    if has_secret:
        return "the server refuses what auth gives it (401)"
    return "the server wants to know who we are (401): set auth.kind=bearer or auth.kind=basic"
