"""What a server's answers say: outcomes by their codes alone, entries by their own status, where a resource is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from medtwin.core import patience
from medtwin.core.places import NetworkError

# Of FHIR servers a conflict passes too: two writers met.
PASSING = patience.PASSING | {409}

_LOCATION = re.compile(r"([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?$")
_CODE = re.compile(r"[a-z][a-z-]{1,30}")
# An element path, without the literals that a FHIRPath expression may hold.
_ELEMENT = re.compile(r"[A-Za-z]+(\[\d{1,4}\])?(\.[A-Za-z]+(\[\d{1,4}\])?(\[x\])?){0,12}")
_MAX_NAMED = 5


@dataclass(frozen=True)
class Entry:
    """What became of one entry of a request.

    Attributes:
        status: Of HTTP.
        location: Type and id under which the server keeps it, if it says so.
        version: The entity tag, if there is one.
        modified: `lastModified`, if there is one.
        outcome: The OperationOutcome, if there is one.
    """

    status: int
    location: str | None = None
    version: str | None = None
    modified: datetime | None = None
    outcome: Mapping[str, Any] | None = None


def read_entries(bundle: Mapping[str, Any], expected: int) -> list[Entry]:
    """The entries of a batch-response or transaction-response, in the order of the request.

    Raises:
        NetworkError: If it is none, or its entries are not as many as were sent.
    """
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") not in ("batch-response", "transaction-response"):
        raise NetworkError(
            f"the server answered a bundle with {str(bundle.get('resourceType'))[:40]}, not with a response bundle: "
            "is the url its FHIR base?"
        )
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or len(entries) != expected:
        number = len(entries) if isinstance(entries, list) else 0
        raise NetworkError(f"the server answered {number} entries to {expected}: what became of which cannot be told")
    return [_entry(each) for each in entries]


def _entry(value: Any) -> Entry:
    response = value.get("response") if isinstance(value, dict) else None
    if not isinstance(response, dict):
        raise NetworkError("the server answered an entry without a response: what became of it cannot be told")
    text = str(response.get("status", ""))[:3]
    if not text.isdecimal():
        raise NetworkError("the server answered an entry without a status: what became of it cannot be told")
    resource = value.get("resource")
    location = read_location(response.get("location"))
    if location is None and isinstance(resource, dict) and isinstance(resource.get("id"), str):
        location = read_location(f"{resource.get('resourceType')}/{resource['id']}")
    outcome = response.get("outcome")
    version = response.get("etag")
    return Entry(
        int(text),
        location,
        version if isinstance(version, str) else None,
        _instant(response.get("lastModified")),
        outcome if isinstance(outcome, dict) else None,
    )


def read_location(text: Any) -> str | None:
    """Type and id of a location, which may be relative, absolute or versioned.

    >>> read_location("https://example.org/fhir/Patient/p1/_history/2")
    'Patient/p1'
    """
    found = _LOCATION.search(text) if isinstance(text, str) else None
    return found[1] if found else None


def issues_of(outcome: Mapping[str, Any] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The issue codes and the element paths of an OperationOutcome; its texts stay out, for they may quote the record.

    >>> issues_of({"issue": [{"severity": "error", "code": "value", "expression": ["Patient.gender"]}]})
    (('value',), ('Patient.gender',))
    """
    codes: dict[str, None] = {}
    elements: dict[str, None] = {}
    issues = outcome.get("issue") if outcome is not None else None
    for issue in issues if isinstance(issues, list) else ():
        if not isinstance(issue, dict) or issue.get("severity") in ("warning", "information"):
            continue
        code = issue.get("code")
        codes[code if isinstance(code, str) and _CODE.fullmatch(code) else "unknown"] = None
        for name in ("expression", "location"):
            paths = issue.get(name)
            for path in paths if isinstance(paths, list) else ():
                if isinstance(path, str) and _ELEMENT.fullmatch(path):
                    elements[path] = None
    return _some(codes) or ("none-given",), _some(elements)


def _some(names: Sequence[str] | Mapping[str, None]) -> tuple[str, ...]:
    return tuple(names)[:_MAX_NAMED]


def what_became(entry: Entry, started: datetime | None, *, is_conditional: bool) -> str:
    """`created`, `updated` or `unchanged`, as far as the server says.

    A 200 after a create of ours whose answer was lost counts as created where the version says so. Servers that keep
    a resource as it is when nothing differs say when it was last modified: before this export began is unchanged.

    Args:
        entry: Of a success.
        started: The server's time when the export began.
        is_conditional: Whether it was a conditional create, for which 200 means that it was there.
    """
    if entry.status == 201:
        return "created"
    if started is not None and entry.modified is not None and entry.modified < started:
        return "unchanged"
    if entry.version in ('W/"1"', '"1"') and started is not None and entry.modified is not None:
        return "created"
    return "unchanged" if is_conditional else "updated"


def _instant(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
