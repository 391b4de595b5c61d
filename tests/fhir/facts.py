"""What is coded in a FHIR resource, by a walk that knows nothing of medtwin's tables; what a round trip loses.

A fact is a Coding (system and code), a Quantity (value and unit), a `code` element, or a date. Names, texts, displays,
identifiers and `meta` are none: DESIGN keeps them out on purpose.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from medtwin.core.sources import Ledger
from medtwin.fhir import ExportContext, FhirSource, index_source, read_events
from medtwin.fhir.write import events_to_resources
from tests.fhir.samples import UNSHIFTED

Fact = tuple[str, ...]
Lost = Counter[tuple[str, str]]
_SKIPPED = frozenset({"meta", "text", "display", "identifier", "name", "telecom", "address", "resourceType", "id"})
# Elements of the type `code`, where their value is a string. Source: hl7.org/fhir/R4, the resource definitions.
_CODES = frozenset(
    [
        "status",
        "intent",
        "priority",
        "gender",
        "criticality",
        "severity",
        "comparator",
        "periodUnit",
        "durationUnit",
        "docStatus",
        "type",
        "category",
        "use",
        "contentType",
        "language",
        "dayOfWeek",
        "when",
        "mode",
        "valueCode",
    ]
)
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?")
_DATE_NAMES = re.compile(
    r"(\w+(DateTime|Date|Instant)|start|end|date|issued|started|authoredOn|recorded|created|dateAsserted|receivedTime"
    r"|whenPrepared|whenHandedOver|event|lastOccurrence|timestamp|time|creation|sent|received)"
)


def facts(value: Any, path: str = "") -> Iterator[tuple[str, Fact]]:
    """Every fact within a value, with its path without numbers."""
    if isinstance(value, list):
        for item in value:
            yield from facts(item, path)
    elif isinstance(value, dict):
        yield from _own_facts(value, path)
        for name, inner in value.items():
            if name not in _SKIPPED and not name.startswith("_"):
                yield from facts(inner, f"{path}.{name}".lstrip("."))
    elif isinstance(value, str):
        yield from _text_facts(value, path)


def _own_facts(value: dict[str, Any], path: str) -> Iterator[tuple[str, Fact]]:
    number, code = value.get("value"), value.get("code")
    if isinstance(number, (int, float)) and not isinstance(number, bool):
        units = {value.get("code"), value.get("unit")} - {None} or {""}
        yield path, ("quantity", repr(np.float32(number)), *sorted(map(str, units)))
    elif isinstance(code, str) and "resourceType" not in value:
        yield path, ("coding", str(value.get("system", "")), code)


def _text_facts(text: str, path: str) -> Iterator[tuple[str, Fact]]:
    name = path.rpartition(".")[2]
    if _DATE_NAMES.fullmatch(name) and _DATE.fullmatch(text):
        yield path, ("date", _instant(text))
    elif name in _CODES:
        yield path, ("code", text)


def _instant(text: str) -> str:
    """A date as it stands; an instant in UTC, where it has an offset."""
    if len(text) <= 10:
        return text
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def lost_facts(source: dict[str, Any], written: dict[str, Any]) -> Counter[str]:
    """How many facts of a resource are not in what was written of it, by path.

    A fact that stands at another place counts as carried, once: a contained Medication becomes a CodeableConcept.
    """
    missing = Counter(facts(source))
    spare = Counter(facts(written))
    missing, spare = missing - spare, spare - missing
    there: Counter[Fact] = Counter()
    for (_, fact), number in spare.items():
        there[fact] += number
    units = _units_of(there)
    lost: Counter[str] = Counter()
    for path, fact in missing.elements():
        if there[fact] > 0:
            there[fact] -= 1
        elif fact[0] != "quantity" or not _take_quantity(fact, units):
            lost[path] += 1
    return lost


def _units_of(there: Counter[Fact]) -> Counter[tuple[str, str]]:
    return Counter((fact[1], unit) for fact in there.elements() if fact[0] == "quantity" for unit in fact[2:])


def _take_quantity(fact: Fact, units: Counter[tuple[str, str]]) -> bool:
    """Whether a quantity was written with one of its units: the word for people, or the code."""
    return any(units[fact[1], unit] > 0 for unit in fact[2:])


def _resources(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("*.ndjson*")):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            yield from map(orjson.loads, lines)


class RoundTrip:
    """Reads a source, writes it again, and compares each resource with what was written of it.

    Attributes:
        facts: How many facts there were, by type and path.
        lost: How many of them were not written again.
        compared: Resources compared.
    """

    def __init__(self) -> None:
        self.facts: Lost = Counter()
        self.lost: Lost = Counter()
        self.compared = 0

    def run(self, folder: Path) -> None:
        """Takes a source of NDJSON files; of resources with the same type and id the first, as the reader does."""
        source = FhirSource(folder)
        index = index_source(source)
        subjects: dict[int, list[Any]] = {}
        for batch in read_events(source, index, UNSHIFTED, Ledger()):
            for event in batch:
                subjects.setdefault(event.subject_id, []).append(event)
        written = {}
        for rows in subjects.values():
            for resource in events_to_resources(rows, context=ExportContext("real")).resources:
                written[resource["resourceType"], resource["id"]] = orjson.dumps(resource)
        del subjects
        for resource in _resources(folder):
            if isinstance(resource.get("id"), str):
                self._compare(resource, written, index)

    def _compare(self, resource: dict[str, Any], written: dict[tuple[str, str], bytes], index: Any) -> None:
        kind, name = resource.get("resourceType"), resource["id"]
        if kind == "Patient":
            identity = index.identities.get(name)
            name = f"subject-{UNSHIFTED.subject_id(identity)}" if identity else name
        else:
            name = UNSHIFTED.event_id(str(kind), name)
        if (str(kind), name) not in written:
            return
        again = orjson.loads(written.pop((str(kind), name)))
        self.compared += 1
        for path, _ in facts(resource):
            self.facts[str(kind), path] += 1
        for path, number in lost_facts(resource, again).items():
            self.lost[str(kind), path] += number


def one_patient(source: Path, target: Path) -> None:
    """Copies one patient of a source of NDJSON files, and all that belongs to nobody."""
    target.mkdir()
    paths = sorted(source.rglob("*.ndjson.gz"))
    first = next(path for path in paths if path.name.removeprefix("Mimic").startswith("Patient."))
    with gzip.open(first) as lines:
        name = orjson.loads(next(iter(lines)))["id"].encode()
    for path in paths:
        is_shared = path.name.removeprefix("Mimic").startswith(("Medication.", "Location", "Organization"))
        with gzip.open(path) as lines, (target / path.stem).open("wb") as out:
            out.writelines(line for line in lines if is_shared or name in line)


_REASONS = (
    (re.compile(r"(.*\.)?extension\b"), "of extensions only US Core's race, ethnicity and birth sex are read"),
    (re.compile(r"contained\b"), "of a contained resource only what it is referred to for is read"),
    (re.compile(r"(component\.)?valueQuantity$"), "a unit that is none of UCUM or of our list of words stays out"),
    (re.compile(r"birthDate$"), "of two Patients with one record number one is taken"),
    (re.compile(r"(statusHistory|classHistory)\b"), "the record of changes is not kept"),
    (re.compile(r"(contact|photo|link|communication)\b"), "who the person is and knows stays out"),
    (re.compile(r"(\w+\.)*(attachment|presentedForm|relatesTo)\b"), "of a document only what it is, not its content"),
    (re.compile(r"(issued|created|dateAsserted|whenPrepared|occurrence\w+(\.\w+)?|receivedTime|recordedDate)"), "date"),
    (re.compile(r"series\.instance\b"), "the image table has the images"),
)


def reason_of(path: str) -> str:
    """Why the facts at a path are not carried."""
    found = next((reason for pattern, reason in _REASONS if pattern.match(path)), "no row for this element")
    return "an event has one date: the best of its elements" if found == "date" else found


def not_carried_table(trip: RoundTrip) -> str:
    """The facts that a round trip loses, as a Markdown table by resource type and element."""
    lines = ["| resource | element | facts lost | of | why |", "|---|---|---:|---:|---|"]
    for (kind, path), number in sorted(trip.lost.items()):
        lines.append(f"| {kind} | {path} | {number:,} | {trip.facts[kind, path]:,} | {reason_of(path)} |")
    return "\n".join(lines) + "\n"


def documented(page: str) -> set[tuple[str, str]]:
    """The resource types and elements of such a table."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    return {(row[0], row[1]) for row in cells if row[0] != "resource"}
