"""The server gives tokens as SMART Backend Services has it, and refuses what the rules refuse."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.servers.fhir import FhirServer

KEYS = {"RS384": rsa.generate_private_key(65537, 2048), "ES384": ec.generate_private_key(ec.SECP384R1())}
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def public_keys() -> list[dict[str, Any]]:
    kinds = {"RS384": jwt.algorithms.RSAAlgorithm, "ES384": jwt.algorithms.ECAlgorithm}
    return [
        {**kind.to_jwk(KEYS[name].public_key(), as_dict=True), "kid": name, "alg": name} for name, kind in kinds.items()
    ]


@pytest.fixture
def client(fhir_server: FhirServer) -> Iterator[httpx.Client]:
    clients = {"medtwin": {"jwks": {"keys": public_keys()}, "scope": "system/*.cruds"}}
    fhir_server.reset(clients=clients)
    with httpx.Client(base_url=fhir_server.base, timeout=30) as made:
        yield made


def ask(server: FhirServer, algorithm: str = "RS384", scope: str = "system/*.cruds", **claims: Any) -> httpx.Response:
    endpoint = f"{server.root}/auth/token"
    base = {"iss": "medtwin", "sub": "medtwin", "aud": endpoint, "exp": time.time() + 200, "jti": str(uuid.uuid4())}
    signed = jwt.encode(base | claims, KEYS[algorithm], algorithm, headers={"kid": algorithm})
    form = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION, "client_assertion": signed}
    return httpx.post(endpoint, data=form | {"scope": scope})


@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
def test_a_signed_assertion_buys_a_token(client: httpx.Client, fhir_server: FhirServer, algorithm: str) -> None:
    assert client.get("metadata").status_code == 200
    assert client.get(".well-known/smart-configuration").json()["token_endpoint"] == f"{fhir_server.root}/auth/token"
    assert client.get("Patient").status_code == 401
    given = ask(fhir_server, algorithm).json()
    assert (given["token_type"], given["expires_in"]) == ("bearer", 300)
    bearer = {"Authorization": f"Bearer {given['access_token']}"}
    assert client.get("Patient", headers=bearer).status_code == 200
    fhir_server.control(expireTokens=True)
    assert client.get("Patient", headers=bearer).status_code == 401


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"aud": "http://127.0.0.1/elsewhere"}, 401),
        ({"exp": 1}, 401),
        ({"exp": 4_000_000_000}, 401),
        ({"iss": "other", "sub": "other"}, 401),
        ({"sub": "other"}, 401),
        ({"jti": None}, 401),
        ({"scope": "user/*.cruds"}, 400),
    ],
)
@pytest.mark.usefixtures("client")
def test_an_assertion_that_breaks_a_rule_buys_nothing(
    fhir_server: FhirServer, claims: dict[str, Any], status: int
) -> None:
    answer = ask(fhir_server, **claims)
    assert answer.status_code == status
    assert answer.json()["error"] == ("invalid_scope" if status == 400 else "invalid_client")


@pytest.mark.usefixtures("client")
def test_an_assertion_counts_once(fhir_server: FhirServer) -> None:
    assert ask(fhir_server, jti="once").status_code == 200
    assert ask(fhir_server, jti="once").status_code == 401


def test_a_token_reaches_as_far_as_its_scopes(client: httpx.Client, fhir_server: FhirServer) -> None:
    token = ask(fhir_server, scope="system/Patient.rs system/Observation.u").json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert client.get("Patient", headers=bearer).status_code == 200
    assert client.get("Condition", headers=bearer).status_code == 403
    entry = {"resource": {"resourceType": "Patient", "id": "p"}, "request": {"method": "PUT", "url": "Patient/p"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    kind = {"Content-Type": "application/fhir+json"}
    assert client.post("", json=bundle, headers=bearer | kind).status_code == 403


def test_a_token_runs_out(client: httpx.Client, fhir_server: FhirServer) -> None:
    fhir_server.control(options={"tokenSeconds": 0.3})
    bearer = {"Authorization": f"Bearer {ask(fhir_server).json()['access_token']}"}
    assert client.get("Patient", headers=bearer).status_code == 200
    time.sleep(0.4)
    assert client.get("Patient", headers=bearer).status_code == 401
