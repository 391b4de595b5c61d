"""Small FHIR resources and short ways to read and write them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson

from medtwin.core.events import Event
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger
from medtwin.fhir import FhirSource, index_source, read_events

UNSHIFTED = Pseudonyms(b"k" * 32, max_shift_weeks=0)
LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
OBSCATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [{"type": {"coding": [{"code": "MR"}]}, "value": "4711"}],
    "gender": "female",
    "birthDate": "1980-02-01",
}
SUBJECT_ID = UNSHIFTED.subject_id("mr:4711")
ENCOUNTER = {
    "resourceType": "Encounter",
    "id": "e1",
    "status": "finished",
    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
    "subject": {"reference": "Patient/p1"},
    "period": {"start": "2020-03-01T10:00:00+01:00", "end": "2020-03-05T12:00:00+01:00"},
}


def concept(system: str, *codes: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code} for code in codes]}


def resource(kind: str, name: str = "r1", **elements: Any) -> dict[str, Any]:
    return {"resourceType": kind, "id": name, "subject": {"reference": "Patient/p1"}} | elements


def observation(name: str = "o1", **elements: Any) -> dict[str, Any]:
    base = {"status": "final", "code": concept(LOINC, "8867-4"), "effectiveDateTime": "2020-03-02T08:00:00+01:00"}
    return resource("Observation", name, **(base | elements))


def ndjson(*resources: Any) -> bytes:
    return b"\n".join(each if isinstance(each, bytes) else orjson.dumps(each) for each in resources) + b"\n"


def read(folder: Path, pseudonyms: Pseudonyms = UNSHIFTED) -> tuple[list[Event], Ledger]:
    source = FhirSource(folder)
    ledger = Ledger()
    batches = read_events(source, index_source(source), pseudonyms, ledger)
    events = [event for batch in batches for event in batch]
    assert ledger.imbalance() == {}
    return events, ledger


def read_resources(folder: Path, *resources: Any, pseudonyms: Pseudonyms = UNSHIFTED) -> tuple[list[Event], Ledger]:
    folder.mkdir(exist_ok=True)
    (folder / "all.ndjson").write_bytes(ndjson(*resources))
    return read(folder, pseudonyms)


def rows_of(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event.resource == kind]


def write_gzip(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data))
