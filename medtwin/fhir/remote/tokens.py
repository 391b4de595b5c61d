"""Tokens: one that somebody gave us, or SMART Backend Services. No token is ever logged, shown or written."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import orjson

from medtwin.core.errors import ConfigError
from medtwin.core.places import NetworkError, checked_url
from medtwin.fhir.remote.client import Credentials, make_http
from medtwin.fhir.remote.settings import AuthSettings, ConnectionSettings

# SMART App Launch 2.2, client-confidential-asymmetric: exp no more than five minutes in the future.
_ASSERTION_S = 240
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# SMART App Launch 2.2, backend-services: the recommended lifetime, where the server states none.
_DEFAULT_LIFETIME_S = 300.0


def make_credentials(chosen: ConnectionSettings, *, transport: httpx.BaseTransport | None = None) -> Credentials | None:
    """Where the tokens come from by the settings; None if none is needed.

    Raises:
        ConfigError: If the variable, the file or the key is not there or is none.
    """
    if chosen.auth.kind == "bearer":
        return GivenToken(chosen.auth)
    if chosen.auth.kind == "backend_services":
        return BackendServices(chosen, transport=transport)
    return None


class GivenToken:
    """A bearer token from an environment variable or a file; the file is read again when the server refuses it."""

    def __init__(self, auth: AuthSettings) -> None:
        self._auth = auth
        self._lock = threading.Lock()
        self._token = self._read()

    def token(self) -> str:
        """The token as it was last read."""
        return self._token

    def renew(self, refused: str) -> bool:
        """Whether the file, or another worker, has another token by now."""
        with self._lock:
            if self._token == refused and self._auth.token_file is not None:
                self._token = self._read()
            return self._token != refused

    def _read(self) -> str:
        if self._auth.token_env is not None:
            token = os.environ.get(self._auth.token_env, "")
            place = f"auth.token_env: the environment variable {self._auth.token_env}"
        else:
            place = f"auth.token_file: {self._auth.token_file}"
            token = _read_secret(self._auth.token_file, "auth.token_file").decode("ascii", errors="replace")
        token = token.strip()
        if not token:
            raise ConfigError(f"{place} holds no token")
        if not token.isascii() or any(character.isspace() for character in token):
            raise ConfigError(f"{place} must hold one token and nothing else")
        return token


class BackendServices:
    """Access tokens by SMART Backend Services: a signed assertion for a token, renewed before it ends.

    Source: SMART App Launch 2.2, backend-services and client-confidential-asymmetric.
    """

    def __init__(
        self,
        chosen: ConnectionSettings,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._chosen = chosen
        self._auth = chosen.auth
        self._transport = transport
        self._clock = clock
        self._key, self._key_id = _read_key(chosen.auth)
        self._endpoint: str | None = None
        self._token: str | None = None
        self._renew_at = 0.0
        self._lock = threading.Lock()

    def token(self) -> str:
        """A token that lasts for a while yet.

        Raises:
            NetworkError: If the authorization server gives none.
        """
        with self._lock:
            if self._token is None or self._clock() >= self._renew_at:
                self._ask()
            assert self._token is not None
            return self._token

    def renew(self, refused: str) -> bool:
        """Gets another token unless another worker has already done so.

        Raises:
            NetworkError: If the authorization server gives none.
        """
        with self._lock:
            if self._token == refused:
                self._ask()
        return True

    def assertion(self, endpoint: str) -> str:
        """A signed statement of who we are, for this token endpoint, good for four minutes and one use."""
        now = int(self._clock())
        claims = {
            "iss": self._auth.client_id,
            "sub": self._auth.client_id,
            "aud": endpoint,
            "iat": now,
            "exp": now + _ASSERTION_S,
            "jti": str(uuid.uuid4()),
        }
        headers = {"kid": self._key_id} if self._key_id else None
        return jwt.encode(claims, self._key, algorithm=self._auth.algorithm, headers=headers)

    def _ask(self) -> None:
        with make_http(self._chosen, self._transport) as http:
            try:
                if self._endpoint is None:
                    self._endpoint = self._find_endpoint(http)
                endpoint = self._endpoint
                # A new assertion each time: the server may have spent the jti of one whose answer was lost.
                answer = _with_retries(lambda: http.post(endpoint, data=self._form(endpoint)), self._chosen.retries)
            except httpx.TransportError as error:
                raise NetworkError(f"the authorization server cannot be asked: {type(error).__name__}") from error
        value = _object(answer)
        if answer.status_code != 200 or not isinstance(value.get("access_token"), str):
            code = value.get("error")
            shown = code if isinstance(code, str) and code.replace("_", "").isalpha() else "no reason given"
            raise NetworkError(
                f"the authorization server gives no token ({answer.status_code}, {shown[:40]}): "
                "check auth.client_id, auth.key_file, auth.key_id and auth.scope"
            )
        lifetime = value.get("expires_in", _DEFAULT_LIFETIME_S)
        seconds = float(lifetime) if isinstance(lifetime, (int, float)) and lifetime > 0 else _DEFAULT_LIFETIME_S
        self._renew_at = self._clock() + seconds - min(60.0, 0.2 * seconds)
        self._token = value["access_token"]

    def _form(self, endpoint: str) -> dict[str, str]:
        return {
            "grant_type": "client_credentials",
            "scope": self._auth.scope,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": self.assertion(endpoint),
        }

    def _find_endpoint(self, http: httpx.Client) -> str:
        allow_http = self._chosen.allow_http
        if self._auth.token_url is not None:
            return checked_url(self._auth.token_url, "auth.token_url", allow_http=allow_http)
        place = f"{self._chosen.base()}/.well-known/smart-configuration"
        headers = {"accept": "application/json"}
        answer = _with_retries(lambda: http.get(place, headers=headers), self._chosen.retries)
        value = _object(answer) if answer.status_code == 200 else {}
        endpoint = value.get("token_endpoint")
        if not isinstance(endpoint, str):
            raise NetworkError(
                f"the server has no .well-known/smart-configuration with a token_endpoint ({answer.status_code}): "
                "give the endpoint as auth.token_url"
            )
        known = value.get("token_endpoint_auth_signing_alg_values_supported")
        if isinstance(known, list) and known and self._auth.algorithm not in known:
            raise NetworkError(
                f"the server takes no {self._auth.algorithm} signatures: set auth.algorithm to one it lists"
            )
        return checked_url(endpoint, "the server's token_endpoint", allow_http=allow_http)


def _with_retries(ask: Callable[[], httpx.Response], retries: int) -> httpx.Response:
    """Asks the authorization server, which gets the same short patience whatever the FHIR server gets."""
    for attempt in range(min(retries, 4) + 1):
        is_last = attempt == min(retries, 4)
        try:
            answer = ask()
        except httpx.TransportError:
            if is_last:
                raise
        else:
            if answer.status_code not in (429, 500, 502, 503, 504) or is_last:
                return answer
        time.sleep(0.25 * 2.0**attempt)
    raise AssertionError("the last attempt returns or raises")


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        value = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _read_secret(path: Path | None, setting: str) -> bytes:
    assert path is not None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}") from error


def _read_key(auth: AuthSettings) -> tuple[Any, str | None]:
    """The private key, and its `kid`, which a JWK may carry itself."""
    data = _read_secret(auth.key_file, "auth.key_file")
    wrong = f"auth.key_file: {auth.key_file} holds no private {'RSA' if auth.algorithm == 'RS384' else 'P-384'} key"
    key: Any = data
    key_id = auth.key_id
    try:
        if data.lstrip().startswith(b"{"):
            known = orjson.loads(data)
            key_id = key_id or known.get("kid")
            key = jwt.PyJWK(known, algorithm=auth.algorithm).key
        jwt.encode({"check": 1}, key, algorithm=auth.algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{wrong} for auth.algorithm={auth.algorithm} (PEM or JWK)") from error
    return key, key_id
