"""Resources as the entries of a request: by an id of ours, or by an identifier for which the server finds its own."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from medtwin.fhir.remote.store import REFERENCE, Line

ID_SYSTEM = "urn:medtwin:id"
_NAMESPACE = uuid.UUID("6f1d0d9e-5a3b-5c0e-9a55-1f5f0f6f7a10")
# R4 resources whose `identifier` is 0..1, and those that have none; of the types that hold records.
_ONE_IDENTIFIER = frozenset({"AdverseEvent", "Bundle", "Composition", "QuestionnaireResponse"})
_NO_IDENTIFIER = frozenset(
    {"AuditEvent", "Binary", "Linkage", "MedicationKnowledge", "Provenance", "VerificationResult"}
)


def put_entry(line: Line, base: str) -> bytes:
    """An entry that puts the resource under the id that it has; doing it twice changes nothing."""
    key = line.key.encode()
    return b"".join(
        (
            b'{"fullUrl":"', base.encode(), b"/", key, b'","resource":', line.data,
            b',"request":{"method":"PUT","url":"', key, b'"}}',
        )
    )  # fmt: skip


def conditional_entry(line: Line, known: Mapping[str, str]) -> bytes:
    """An entry that creates the resource unless the server has one with its identifier.

    Args:
        line: The resource; it loses its id and gains an identifier (a tag, where its type has no identifier).
        known: What its references become: keys to the server's ids, or to the full URLs of the same request.
    """
    resource: dict[str, Any] = orjson.loads(line.data)
    name = resource.pop("id")
    query = _mark(resource, line.type, name)
    data = REFERENCE.sub(
        lambda found: b'"reference":"' + known.get(found[1].decode(), found[1].decode()).encode() + b'"',
        orjson.dumps(resource),
    )
    request = orjson.dumps({"method": "POST", "url": line.type, "ifNoneExist": query})
    return b'{"fullUrl":"' + full_url(line.key).encode() + b'","resource":' + data + b',"request":' + request + b"}"


def full_url(key: str) -> str:
    """The URN that stands for a resource in a request until the server gives it an id; in lower case, as Medplum wants.

    >>> full_url("Patient/p1") == full_url("Patient/p1") != full_url("Patient/p2")
    True
    """
    return f"urn:uuid:{uuid.uuid5(_NAMESPACE, key)}"


def to_bundle(kind: str, entries: list[bytes]) -> bytes:
    """A request of entries that are JSON already."""
    return b'{"resourceType":"Bundle","type":"' + kind.encode() + b'","entry":[' + b",".join(entries) + b"]}"


def _mark(resource: dict[str, Any], kind: str, name: str) -> str:
    """Gives the resource what it can be found by, and returns the search for it."""
    if kind in _NO_IDENTIFIER:
        meta = resource.setdefault("meta", {})
        meta["tag"] = [*meta.get("tag", []), {"system": ID_SYSTEM, "code": name}]
        return f"_tag={ID_SYSTEM}|{name}"
    own = {"system": ID_SYSTEM, "value": name}
    if kind in _ONE_IDENTIFIER:
        found = resource.setdefault("identifier", own)
        return f"identifier={found.get('system', '')}|{found.get('value', '')}"
    resource["identifier"] = [*resource.get("identifier", []), own]
    return f"identifier={ID_SYSTEM}|{name}"
