from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm

from medtwin.core.errors import ConfigError
from medtwin.core.places import NetworkError
from medtwin.fhir.remote.settings import AuthSettings, ServerSettings
from medtwin.fhir.remote.tokens import BackendServices, GivenToken, make_credentials

BASE = "https://fhir.example/fhir"
TOKEN_URL = "https://auth.example/token"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP384R1())


def pem(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """An authorization server: discovery, and tokens t1, t2, ... for good assertions."""

    def __init__(self, lifetime: float | None = 300, algorithms: tuple[str, ...] = ("RS384", "ES384")) -> None:
        self.lifetime, self.algorithms = lifetime, algorithms
        self.now = 1_000_000.0
        self.claims: list[dict[str, Any]] = []
        self.headers: list[dict[str, Any]] = []
        self.forms: list[dict[str, list[str]]] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.faults: list[int] = []
        self.discoveries = 0
        self.endpoint = TOKEN_URL

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/.well-known/smart-configuration"):
            self.discoveries += 1
            known = {
                "token_endpoint": self.endpoint,
                "token_endpoint_auth_signing_alg_values_supported": list(self.algorithms),
            }
            return httpx.Response(200, json=known)
        form = parse_qs(request.content.decode())
        self.forms.append(form)
        assertion = form["client_assertion"][0]
        self.headers.append(jwt.get_unverified_header(assertion))
        key = RSA if self.headers[-1]["alg"] == "RS384" else EC
        options = {"verify_exp": False, "verify_iat": False}
        self.claims.append(
            jwt.decode(assertion, key.public_key(), algorithms=["RS384", "ES384"], audience=TOKEN_URL, options=options)
        )
        if self.faults:
            return httpx.Response(self.faults.pop(0))
        if self.refusal is not None:
            return httpx.Response(self.refusal[0], json=self.refusal[1])
        body: dict[str, Any] = {"access_token": f"t{len(self.forms)}", "token_type": "bearer"}
        return httpx.Response(200, json=body | ({"expires_in": self.lifetime} if self.lifetime else {}))

    def services(self, tmp_path: Path, algorithm: str = "RS384", **more: Any) -> BackendServices:
        file = tmp_path / "key.pem"
        file.write_bytes(pem(RSA if algorithm == "RS384" else EC))
        auth = {"client_id": "medtwin", "key_file": file, "algorithm": algorithm, "key_id": "k1"} | more
        settings = ServerSettings(url=BASE, auth=AuthSettings(kind="backend_services", **auth))
        return BackendServices(settings, transport=httpx.MockTransport(self.handle), clock=lambda: self.now)


@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
def test_an_assertion_is_as_smart_wants_it(tmp_path: Path, algorithm: str) -> None:
    authority = Authority()
    services = authority.services(tmp_path, algorithm)
    assert services.token() == "t1"
    assert services.token() == "t1"
    (claims,) = authority.claims
    assert claims["iss"] == claims["sub"] == "medtwin"
    assert claims["aud"] == TOKEN_URL
    assert 0 < claims["exp"] - authority.now <= 300
    assert authority.headers == [{"alg": algorithm, "kid": "k1", "typ": "JWT"}]
    (form,) = authority.forms
    assert form["grant_type"] == ["client_credentials"]
    assert form["scope"] == ["system/*.cruds"]
    assert form["client_assertion_type"] == ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"]


def test_a_token_is_renewed_before_it_ends(tmp_path: Path) -> None:
    authority = Authority(lifetime=300)
    services = authority.services(tmp_path)
    assert services.token() == "t1"
    authority.now += 239
    assert services.token() == "t1"
    authority.now += 2
    assert services.token() == "t2"
    assert len({claims["jti"] for claims in authority.claims}) == 2
    assert authority.discoveries == 1


def test_without_a_stated_lifetime_it_is_five_minutes(tmp_path: Path) -> None:
    authority = Authority(lifetime=None)
    services = authority.services(tmp_path)
    services.token()
    authority.now += 241
    assert services.token() == "t2"


def test_workers_renew_a_refused_token_once(tmp_path: Path) -> None:
    authority = Authority()
    services = authority.services(tmp_path)
    assert services.token() == "t1"
    assert services.renew("t1")
    assert services.renew("t1")
    assert services.token() == "t2"
    assert len(authority.forms) == 2


def test_a_fault_gets_a_fresh_assertion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    authority = Authority()
    authority.faults = [503, 500]
    assert authority.services(tmp_path).token() == "t3"
    assert len({claims["jti"] for claims in authority.claims}) == 3


def test_what_the_authority_refuses_is_told_without_a_secret(tmp_path: Path) -> None:
    authority = Authority()
    authority.refusal = (401, {"error": "invalid_client", "error_description": "Mrs Secret"})
    with pytest.raises(NetworkError, match=r"gives no token \(401, invalid_client\): check auth\.client_id") as caught:
        authority.services(tmp_path).token()
    assert "Secret" not in str(caught.value)
    authority.refusal = (200, {"access_token": None})
    with pytest.raises(NetworkError, match="gives no token"):
        authority.services(tmp_path).token()


def test_discovery_must_lead_somewhere_safe(tmp_path: Path) -> None:
    authority = Authority(algorithms=("ES384",))
    with pytest.raises(NetworkError, match="takes no RS384 signatures"):
        authority.services(tmp_path).token()
    authority = Authority()
    authority.endpoint = "http://auth.example/token"
    with pytest.raises(ConfigError, match="token_endpoint is plain http"):
        authority.services(tmp_path).token()
    services = authority.services(tmp_path, token_url=TOKEN_URL)
    assert services.token() == "t1"


def test_a_jwk_brings_its_kid(tmp_path: Path) -> None:
    authority = Authority()
    file = tmp_path / "key.json"
    file.write_text(json.dumps(json.loads(ECAlgorithm.to_jwk(EC)) | {"kid": "from-jwk"}))
    services = authority.services(tmp_path, "ES384", key_file=file, key_id=None)
    assert services.token() == "t1"
    assert authority.headers[0]["kid"] == "from-jwk"


@pytest.mark.parametrize("content", [b"nothing", b"{}", pem(ec.generate_private_key(ec.SECP384R1()))])
def test_a_key_must_be_one_of_its_kind(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="holds no private RSA key"):
        Authority().services(tmp_path, key_file=file)
    with pytest.raises(ConfigError, match="cannot be read"):
        Authority().services(tmp_path, key_file=tmp_path / "absent")


def test_a_given_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = AuthSettings(kind="bearer", token_env="MEDTWIN_TEST_TOKEN")
    monkeypatch.delenv("MEDTWIN_TEST_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="environment variable MEDTWIN_TEST_TOKEN holds no token"):
        GivenToken(auth)
    monkeypatch.setenv("MEDTWIN_TEST_TOKEN", " hunter2\n")
    given = GivenToken(auth)
    assert given.token() == "hunter2"
    assert not given.renew("hunter2")
    assert "hunter2" not in repr(auth)
    monkeypatch.setenv("MEDTWIN_TEST_TOKEN", "hunter2 and more")
    with pytest.raises(ConfigError, match="must hold one token") as caught:
        GivenToken(auth)
    assert "hunter2" not in str(caught.value)


def test_a_token_file_is_read_again_when_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    given = make_credentials(ServerSettings(url=BASE, auth=AuthSettings(kind="bearer", token_file=file)))
    assert isinstance(given, GivenToken)
    assert given.token() == "old"
    assert not given.renew("old")
    file.write_text("new\n")
    assert given.renew("old")
    assert given.token() == "new"
    assert make_credentials(ServerSettings(url=BASE)) is None
