"""One HTTP client for all: retries, redirects, tokens, and bounds on what is under way and on what comes back."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import orjson

from medtwin import __version__
from medtwin.core.errors import ConfigError
from medtwin.core.patience import Pace, Stopped, retry_after
from medtwin.core.places import NetworkError, is_loopback, origin
from medtwin.fhir.remote.answers import PASSING
from medtwin.fhir.remote.places import followed
from medtwin.fhir.remote.settings import ConnectionSettings

FHIR_JSON = "application/fhir+json"
_MAX_REDIRECTS = 5
_MAX_BODY = 200_000_000
_KEEPS_METHOD = (307, 308)
_REDIRECTS = (301, 302, 303, *_KEEPS_METHOD)


class Credentials(Protocol):
    """Where the token of a request comes from."""

    def token(self) -> str | None:
        """The token to send, renewed where it is about to end; None for none."""

    def renew(self, refused: str) -> bool:
        """Gets another token because the server refused this one; returns whether there is another."""


@dataclass(frozen=True)
class Answer:
    """A complete answer.

    Attributes:
        status: Of HTTP.
        headers: Their names in lower case.
        body: Decoded; at most 200 MB.
        url: Where it came from, redirects followed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def resource(self, what: str) -> dict[str, Any]:
        """The JSON object of the body.

        Raises:
            NetworkError: If it is none, as when a proxy or a login page answers in place of the server.
        """
        try:
            value = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            kind = self.headers.get("content-type", "").partition(";")[0].strip() or "an unknown type"
            raise NetworkError(
                f"{what}: the server answered {self.status} with {kind[:60]}, not FHIR JSON: is the url its FHIR base?"
            )
        return value


class FhirClient:
    """Speaks to one server; safe to share between threads.

    Args:
        chosen: Where it is, and how patient to be.
        credentials: Where tokens come from; without it none is sent.
        pace: The waits that all workers share.
        transport: For tests: what answers in place of the network.
    """

    def __init__(
        self,
        chosen: ConnectionSettings,
        *,
        credentials: Credentials | None = None,
        pace: Pace | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base = chosen.base()
        self.pace = pace or Pace(chosen.max_wait_s)
        self.retries = chosen.retries
        self.num_retries = 0
        self._credentials = credentials
        self._places = threading.BoundedSemaphore(chosen.concurrency)
        self._count_lock = threading.Lock()
        self._http = make_http(chosen, transport)

    def __enter__(self) -> FhirClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections, requests under way included."""
        self._http.close()

    def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        passing: Collection[int] = PASSING,
    ) -> Answer:
        """The answer to a request, once a fault that may pass has passed.

        Args:
            method: Of HTTP; a request that is sent again must come to the same when it is done twice.
            url: Absolute; the token goes along only to the host of the base.
            content: JSON to send.
            headers: Besides those that say that we speak FHIR.
            passing: The statuses after which to ask again.

        Returns:
            An answer of any status that asking again would not change; of 409, when it did not pass.

        Raises:
            NetworkError: If the fault did not pass, or the server redirects elsewhere or refuses the token.
            Stopped: If the run is being stopped.
        """
        for attempt in range(self.retries + 1):
            with self._places:
                self.pace.wait()
                answer = self._attempt(method, url, content, headers)
            if isinstance(answer, Answer) and answer.status not in passing:
                return answer
            if attempt < self.retries:
                self._hold_back(attempt, answer)
        if isinstance(answer, Answer) and answer.status == 409:
            return answer
        raise NetworkError(_gave_up(answer, self.retries, urlsplit(url).hostname or ""))

    @contextmanager
    def stream(self, url: str, headers: Mapping[str, str], *, with_token: bool = True) -> Iterator[httpx.Response]:
        """A streamed GET; its status is for the caller to judge, its token goes only to the host of the base."""
        token = self._token(url) if with_token else None
        with self._places, self._http.stream("GET", url, headers=_headers(headers, token, FHIR_JSON)) as response:
            yield response

    def _hold_back(self, attempt: int, answer: Answer | httpx.TransportError) -> None:
        with self._count_lock:
            self.num_retries += 1
        asked = retry_after(answer.headers.get("retry-after")) if isinstance(answer, Answer) else None
        if asked is not None:
            self.pace.hold(asked)
        self.pace.wait(self.pace.backoff(attempt) if not asked else 0.0)

    def _attempt(
        self, method: str, url: str, content: bytes | None, headers: Mapping[str, str] | None
    ) -> Answer | httpx.TransportError:
        """One attempt; a refused token is renewed once, a redirect followed on the same host."""
        renewed = False
        for _ in range(_MAX_REDIRECTS + 1):
            token = self._token(url)
            try:
                answer = self._exchange(method, url, content, _headers(headers, token, FHIR_JSON, content))
            except httpx.TransportError as error:
                _raise_if_lasting(error, url)
                if self.pace.is_stopped:
                    raise Stopped from error
                return error
            except RuntimeError as error:  # httpx: the client was closed under us, because the run is being stopped
                raise Stopped from error
            if answer.status == 401 and token is not None and not renewed:
                renewed = True
                if self._credentials is not None and self._credentials.renew(token):
                    continue
            if answer.status in (401, 403):
                raise NetworkError(_refused(answer.status, token is not None))
            if answer.status not in _REDIRECTS:
                return answer
            url = _redirected(answer, method)
        raise NetworkError(f"the server redirects more than {_MAX_REDIRECTS} times: check the url")

    def _token(self, url: str) -> str | None:
        if self._credentials is None or origin(url) != origin(self.base):
            return None
        return self._credentials.token()

    def _exchange(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        with self._http.stream(method, url, content=content, headers=headers) as response:
            parts, size = [], 0
            for part in response.iter_bytes():
                size += len(part)
                if size > _MAX_BODY:
                    raise NetworkError(f"the server's answer is larger than {_MAX_BODY:,} bytes: ask for smaller pages")
                parts.append(part)
            names = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, names, b"".join(parts), str(response.url))


def make_http(chosen: ConnectionSettings, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """An HTTP client with the trust, the proxy and the timeouts of the settings; it follows no redirect by itself."""
    host = urlsplit(chosen.base()).hostname or ""
    timeout = httpx.Timeout(chosen.read_timeout_s, connect=chosen.connect_timeout_s, pool=None)
    limits = httpx.Limits(max_connections=chosen.concurrency + 1, max_keepalive_connections=chosen.concurrency + 1)
    try:
        return httpx.Client(
            timeout=timeout,
            limits=limits,
            verify=_trust(chosen.ca_file),
            proxy=chosen.proxy,
            transport=transport,
            trust_env=not is_loopback(host),
            follow_redirects=False,
        )
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError("proxy must be a URL such as http://proxy.example:3128") from error


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"ca_file: {ca_file} cannot be read as PEM certificates") from error
    return context


def _headers(
    given: Mapping[str, str] | None, token: str | None, accept: str, content: bytes | None = None
) -> dict[str, str]:
    headers = {"accept": accept, "user-agent": f"medtwin/{__version__}"}
    if content is not None:
        headers["content-type"] = FHIR_JSON
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return headers | dict(given or {})


def _redirected(answer: Answer, method: str) -> str:
    target = followed(answer.headers.get("location", ""), answer.url, "redirect")
    if method != "GET" and answer.status not in _KEEPS_METHOD:
        raise NetworkError(
            f"the server redirects the request ({answer.status}), which would lose its body: use url={target}"
        )
    return target


def _raise_if_lasting(error: httpx.TransportError, url: str) -> None:
    """Some faults of a connection are there to stay: a certificate that is not trusted, a URL that makes no sense."""
    host = urlsplit(url).hostname or ""
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.ProxyError)):
        raise NetworkError(f"{host} cannot be asked: {type(error).__name__}; check url and proxy") from error
    if "CERTIFICATE_VERIFY_FAILED" in str(error) or "certificate verify failed" in str(error):
        raise NetworkError(f"the certificate of {host} is not trusted: name its authority with ca_file=FILE") from error


def _gave_up(answer: Answer | httpx.TransportError, retries: int, host: str) -> str:
    if isinstance(answer, Answer):
        what = f"{host} still answers {answer.status}"
    elif isinstance(answer, (httpx.ConnectError, httpx.ConnectTimeout)):
        what = f"{host} cannot be reached"
    else:
        what = f"{host} does not complete its answers ({type(answer).__name__})"
    return f"{what} after {retries + 1} attempts: repeat the command later, it continues where it was"


def _refused(status: int, had_token: bool) -> str:
    if status == 403:
        return "the server forbids this (403): the account or the scope lacks the right to do it"
    if had_token:
        return "the server refuses the token (401), also after it was renewed: check auth and its scope"
    return "the server wants a token (401): set auth.kind=bearer or auth.kind=backend_services"
