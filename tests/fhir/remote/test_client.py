from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from medtwin.core.errors import ConfigError
from medtwin.core.patience import Pace, Stopped
from medtwin.core.places import NetworkError
from medtwin.fhir.remote.client import FhirClient
from medtwin.fhir.remote.settings import ServerSettings

BASE = "https://fhir.example/fhir"


class NoWait(Pace):
    """Notes waits in place of waiting."""

    def __init__(self, max_wait_s: float = 300.0) -> None:
        super().__init__(max_wait_s)
        self.waits: list[float] = []
        self.holds: list[float] = []

    def hold(self, seconds: float) -> None:
        super().hold(seconds)
        self.holds.append(seconds)
        self._not_before = 0.0

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        super()._sleep(0.0)


def client_of(steps: list[Any], **chosen: Any) -> tuple[FhirClient, list[httpx.Request], NoWait]:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, httpx.Response) else httpx.Response(step)

    pace = NoWait()
    settings = ServerSettings(url=BASE, **chosen)
    return FhirClient(settings, pace=pace, transport=httpx.MockTransport(handle)), asked, pace


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_a_passing_fault_is_tried_again(status: int) -> None:
    client, asked, _ = client_of([status, status, 200])
    assert client.request("POST", BASE, content=b"{}").status == 200
    assert len(asked) == 3
    assert client.num_retries == 2
    assert asked[0].headers["content-type"] == "application/fhir+json"


@pytest.mark.parametrize("status", [400, 404, 405, 410, 412, 413, 415, 422, 501])
def test_what_is_our_fault_is_not(status: int) -> None:
    client, asked, _ = client_of([status])
    assert client.request("POST", BASE, content=b"{}").status == status
    assert len(asked) == 1


@pytest.mark.parametrize(
    "error", [httpx.ReadError("x"), httpx.RemoteProtocolError("x"), httpx.ReadTimeout("x"), httpx.ConnectError("x")]
)
def test_a_dropped_connection_is_tried_again(error: Exception) -> None:
    client, asked, _ = client_of([error, error, 200])
    assert client.request("GET", BASE).status == 200
    assert len(asked) == 3


def test_it_gives_up_after_so_many_attempts() -> None:
    client, asked, _ = client_of([503], retries=3)
    with pytest.raises(NetworkError, match=r"fhir\.example still answers 503 after 4 attempts"):
        client.request("GET", BASE)
    assert len(asked) == 4
    client, _, _ = client_of([httpx.ConnectError("x")], retries=1)
    with pytest.raises(NetworkError, match="cannot be reached after 2 attempts"):
        client.request("GET", BASE)


def test_a_conflict_that_stays_is_an_answer() -> None:
    client, asked, _ = client_of([409], retries=2)
    assert client.request("POST", BASE, content=b"{}").status == 409
    assert len(asked) == 3


def test_retry_after_is_kept() -> None:
    client, _, pace = client_of([httpx.Response(429, headers={"retry-after": "7"}), 200])
    assert client.request("GET", BASE).status == 200
    assert pace.holds == [7.0]
    client, _, _ = client_of([httpx.Response(503, headers={"retry-after": "999"}), 200])
    with pytest.raises(NetworkError, match="asks to wait 999 s"):
        client.request("GET", BASE)


def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    client, asked, _ = client_of([httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")])
    with pytest.raises(
        NetworkError, match=r"certificate of fhir\.example is not trusted: name its authority with ca_file"
    ):
        client.request("GET", BASE)
    assert len(asked) == 1


def test_a_certificate_file_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="cannot be read as PEM"):
        FhirClient(ServerSettings(url=BASE, ca_file=tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match="proxy must be a URL"):
        FhirClient(ServerSettings(url=BASE, proxy="nonsense"))


def redirect(status: int, to: str) -> httpx.Response:
    return httpx.Response(status, headers={"location": to})


def test_redirects_are_followed_on_the_same_host() -> None:
    client, asked, _ = client_of([redirect(307, "/fhir/"), 200])
    assert client.request("POST", BASE, content=b"{}").status == 200
    assert asked[1].method == "POST"
    assert asked[1].content == b"{}"
    client, asked, _ = client_of([redirect(301, "/fhir/metadata/"), 200])
    assert client.request("GET", f"{BASE}/metadata").status == 200


@pytest.mark.parametrize(
    ("method", "answer", "rule"),
    [
        ("GET", redirect(302, "https://login.example/"), "leads to another place"),
        ("GET", redirect(302, "http://fhir.example/fhir"), "leads to another place"),
        ("POST", redirect(301, "/fhir/"), "would lose its body: use url=https://fhir.example/fhir/"),
        ("GET", redirect(307, "/fhir"), "redirects more than 5 times"),
    ],
)
def test_other_redirects_are_not(method: str, answer: httpx.Response, rule: str) -> None:
    client, _, _ = client_of([answer])
    with pytest.raises(NetworkError, match=rule):
        client.request(method, BASE, content=b"{}" if method == "POST" else None)


def test_a_page_in_place_of_fhir_is_told() -> None:
    page = httpx.Response(200, headers={"content-type": "text/html; charset=utf-8"}, content=b"<html>login</html>")
    client, _, _ = client_of([page])
    with pytest.raises(NetworkError, match=r"answered 200 with text/html, not FHIR JSON: is the url its FHIR base\?"):
        client.request("GET", BASE).resource("/metadata")


def test_a_huge_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtwin.fhir.remote.client._MAX_BODY", 1000)
    client, _, _ = client_of([httpx.Response(200, content=b"x" * 1001)])
    with pytest.raises(NetworkError, match="larger than 1,000 bytes"):
        client.request("GET", BASE)


class Given:
    """Credentials of a list of tokens."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)

    def token(self) -> str:
        return self.tokens[0]

    def renew(self, refused: str) -> bool:
        if self.tokens[0] == refused and len(self.tokens) > 1:
            self.tokens.pop(0)
        return self.tokens[0] != refused


def guarded(valid: str) -> tuple[Callable[[httpx.Request], httpx.Response], list[str | None]]:
    seen: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200 if seen[-1] == f"Bearer {valid}" else 401)

    return handle, seen


def test_a_refused_token_is_renewed_once() -> None:
    handle, seen = guarded("new")
    settings = ServerSettings(url=BASE)
    client = FhirClient(settings, credentials=Given("old", "new"), transport=httpx.MockTransport(handle))
    assert client.request("GET", BASE).status == 200
    assert seen == ["Bearer old", "Bearer new"]
    client = FhirClient(settings, credentials=Given("old", "older"), transport=httpx.MockTransport(handle))
    with pytest.raises(NetworkError, match=r"refuses the token \(401\)") as caught:
        client.request("GET", BASE)
    assert "old" not in str(caught.value)
    client = FhirClient(settings, transport=httpx.MockTransport(handle))
    with pytest.raises(NetworkError, match=r"wants a token \(401\): set auth\.kind"):
        client.request("GET", BASE)


def test_a_token_goes_to_its_own_host_only() -> None:
    handle, seen = guarded("mine")
    client = FhirClient(ServerSettings(url=BASE), credentials=Given("mine"), transport=httpx.MockTransport(handle))
    with client.stream("https://files.example/x.ndjson", {}) as response:
        assert response.status_code == 401
    with client.stream(f"{BASE}/x.ndjson", {}, with_token=False) as response:
        assert response.status_code == 401
    assert seen == [None, None]


def test_what_is_forbidden_is_told() -> None:
    client, asked, _ = client_of([403])
    with pytest.raises(NetworkError, match=r"forbids this \(403\)"):
        client.request("GET", BASE)
    assert len(asked) == 1


def test_no_more_are_under_way_than_allowed() -> None:
    lock, now, most = threading.Lock(), [0], [0]
    gate = threading.Event()

    def handle(request: httpx.Request) -> httpx.Response:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        gate.wait(0.02)
        with lock:
            now[0] -= 1
        return httpx.Response(200)

    client = FhirClient(ServerSettings(url=BASE, concurrency=3), transport=httpx.MockTransport(handle))
    workers = [threading.Thread(target=client.request, args=("GET", BASE)) for _ in range(12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most[0] == 3


def test_a_stopped_client_does_not_ask() -> None:
    client, asked, pace = client_of([503])
    pace.stop()
    with pytest.raises(Stopped):
        client.request("GET", BASE)
    assert asked == []


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[str, Path]]:
    """An https server on loopback with a certificate of its own making: its url, and the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://localhost:{server.server_address[1]}/fhir", folder / "cert.pem"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_authority_of_ones_own_is_trusted_when_it_is_named(tmp_path: Path) -> None:
    with tls_server(tmp_path) as (url, certificate):
        with (
            FhirClient(ServerSettings(url=url)) as client,
            pytest.raises(
                NetworkError, match="certificate of localhost is not trusted: name its authority with ca_file"
            ),
        ):
            client.request("GET", url)
        with FhirClient(ServerSettings(url=url, ca_file=certificate)) as client:
            assert client.request("GET", url).resource("it") == {}
