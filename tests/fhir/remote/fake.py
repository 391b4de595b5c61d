"""A FHIR server in memory, behind httpx.MockTransport: what it was asked, what it holds, and what it is told to do."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

BASE = "https://fhir.example/fhir"
_URN = re.compile(r"urn:uuid:[0-9a-f-]{36}")
_RELATIVE = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")


class RefusedError(Exception):
    def __init__(self, status: int, code: str, expression: str | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.expression = status, code, expression

    def outcome(self) -> dict[str, Any]:
        issue: dict[str, Any] = {"severity": "error", "code": self.code, "diagnostics": "Mrs Secret is wrong"}
        if self.expression:
            issue["expression"] = [self.expression]
        return {"resourceType": "OperationOutcome", "issue": [issue]}


@dataclass
class FakeServer:
    """Answers as a server would: transactions whole or not at all, references checked, limits kept.

    `script` is consumed first: a status, an answer, an exception, a function of the request, or None for nothing.
    """

    max_entries: int = 500
    max_bytes: int = 4_000_000
    integrity: bool = True
    fhir_version: str = "4.0.1"
    interactions: tuple[str, ...] = ("transaction", "batch")
    bad: frozenset[str] = frozenset()
    script: list[Any] = field(default_factory=list)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)
    bundles: list[list[str]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    after_commit: list[Any] = field(default_factory=list)
    token: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._ids = 0

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._handle)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            with self._lock:
                return self._answer(request)
        finally:
            with self._lock:
                self.in_flight -= 1

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path.endswith("/metadata"):
            return self._json(200, self._capability())
        if self.token is not None and not self.token(request.headers.get("authorization", "")):
            return self._json(401, RefusedError(401, "login").outcome())
        if self.script:
            step = self.script.pop(0)
            if callable(step):
                step = step(request)
            if isinstance(step, Exception):
                raise step
            if isinstance(step, httpx.Response):
                return step
            if step is not None:
                return self._json(step, RefusedError(step, "transient").outcome())
        answer = self._bundle(request)
        if self.after_commit:
            step = self.after_commit.pop(0)
            if step is not None:
                raise step
        return answer

    def _capability(self) -> dict[str, Any]:
        return {
            "resourceType": "CapabilityStatement",
            "fhirVersion": self.fhir_version,
            "rest": [{"mode": "server", "interaction": [{"code": code} for code in self.interactions]}],
        }

    def _json(self, status: int, body: dict[str, Any]) -> httpx.Response:
        headers = {"content-type": "application/fhir+json", "date": "Wed, 01 Jan 2025 00:00:00 GMT"}
        return httpx.Response(status, headers=headers, content=json.dumps(body).encode())

    def _bundle(self, request: httpx.Request) -> httpx.Response:
        bundle = json.loads(request.content)
        entries = bundle["entry"]
        if len(entries) > self.max_entries or len(request.content) > self.max_bytes:
            return self._json(413, RefusedError(413, "too-costly").outcome())
        self.bundles.append([f"{each['resource']['resourceType']}" for each in entries])
        is_whole = bundle["type"] == "transaction"
        before, versions = dict(self.stored), dict(self.versions)
        urls: dict[str, str] = {}
        responses, pending = [], []
        for entry in entries:
            try:
                key, response = self._place(entry, urls)
                pending.append((key, entry))
            except RefusedError as refused:
                if is_whole:
                    self.stored, self.versions = before, versions
                    return self._json(refused.status, refused.outcome())
                response = {"status": str(refused.status), "outcome": refused.outcome()}
            responses.append({"response": response})
        try:
            for key, entry in pending:
                self._write(key, entry, urls if is_whole else {})
        except RefusedError as refused:
            self.stored, self.versions = before, versions
            return self._json(refused.status, refused.outcome())
        return self._json(200, {"resourceType": "Bundle", "type": f"{bundle['type']}-response", "entry": responses})

    def _place(self, entry: dict[str, Any], urls: dict[str, str]) -> tuple[str, dict[str, Any]]:
        """Where an entry goes; a transaction may refer to what comes later in it."""
        resource, request = entry["resource"], entry["request"]
        kind = resource["resourceType"]
        known = resource.get("id", "") if request["method"] == "PUT" else self._identifier(resource)
        if f"{kind}/{known}" in self.bad:
            raise RefusedError(422, "value", f"{kind}.status")
        if request["method"] == "PUT":
            key = request["url"]
            assert key == f"{kind}/{resource['id']}"
            status = 200 if key in self.stored else 201
        else:
            assert "id" not in resource
            name, _, value = request["ifNoneExist"].partition("=")
            found = [
                key for key, held in self.stored.items() if key.startswith(f"{kind}/") and _matches(held, name, value)
            ]
            if len(found) > 1:
                raise RefusedError(412, "multiple-matches")
            status = 200 if found else 201
            key = found[0] if found else self._new(kind)
        urls[entry["fullUrl"]] = key
        self.stored.setdefault(key, {})
        self.versions[key] = self.versions.get(key, 0) + (status == 201 or request["method"] == "PUT")
        etag = f'W/"{self.versions[key]}"'
        stamp = "2025-01-01T00:00:05Z" if status == 201 else "2024-12-01T00:00:00Z"
        if request["method"] == "PUT":
            stamp = "2025-01-01T00:00:05Z"
        return key, {"status": str(status), "location": f"{key}/_history/1", "etag": etag, "lastModified": stamp}

    def _identifier(self, resource: dict[str, Any]) -> str:
        values = [each.get("value") for each in resource.get("identifier", []) if isinstance(each, dict)]
        return str(values[-1]) if values else ""

    def _new(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}/s{self._ids}"

    def _write(self, key: str, entry: dict[str, Any], urls: dict[str, str]) -> None:
        text = json.dumps(entry["resource"])
        text = _URN.sub(lambda found: urls.get(found[0], found[0]), text)
        resource = json.loads(text)
        if entry["request"]["method"] == "POST" and self.stored[key]:
            return
        for target in references(resource):
            if self.integrity and (not _RELATIVE.fullmatch(target) or target not in self.stored):
                raise RefusedError(400, "not-found")
        self.stored[key] = resource


def _matches(held: dict[str, Any], name: str, value: str) -> bool:
    system, _, code = value.partition("|")
    if name == "_tag":
        return any(
            tag.get("system") == system and tag.get("code") == code for tag in held.get("meta", {}).get("tag", [])
        )
    return any(each.get("system") == system and each.get("value") == code for each in held.get("identifier", []))


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for each in node for found in references(each)]
    if isinstance(node, dict):
        own = [node["reference"]] if isinstance(node.get("reference"), str) else []
        return own + [found for each in node.values() for found in references(each)]
    return []


def dangling(stored: dict[str, dict[str, Any]]) -> list[str]:
    """References of what is stored that lead nowhere."""
    return [target for held in stored.values() for target in references(held) if target not in stored]
