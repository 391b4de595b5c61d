"""Public data: everything is accounted for, and what is written back is valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtwin.core.events import Event
from medtwin.core.sources import Ledger
from medtwin.fhir import (
    ExportContext,
    FhirSource,
    events_to_resources,
    index_source,
    read_events,
    validate_references,
    validate_resource,
)
from medtwin.fhir.elements import ACTORS
from medtwin.fhir.reading.index import actors_table
from medtwin.fhir.writing.actors import shared_resources
from tests.fhir.samples import UNSHIFTED

pytestmark = pytest.mark.real
_EVERY = 50


@pytest.mark.parametrize(
    ("name", "num_read", "rules"),
    [
        pytest.param("mimic4_demo_fhir", 260_073, {"no-coding", "no-time"}, marks=pytest.mark.slow),
        pytest.param("synthea_r4", 118_990, {"duplicate-id"}, marks=pytest.mark.slow),
        ("fhir_examples", None, None),
    ],
)
def test_public_sources(public_data: Path, name: str, num_read: int | None, rules: set[str] | None) -> None:
    source = FhirSource(public_data / name)
    ledger = Ledger()
    subjects: dict[int, list[Event]] = {}
    index = index_source(source)
    for batch in read_events(source, index, UNSHIFTED, ledger):
        for event in batch:
            subjects.setdefault(event.subject_id, []).append(event)
    actors = actors_table(index.actors, UNSHIFTED)
    assert ledger.imbalance() == {}
    if num_read is not None:
        assert ledger.read.total() == num_read
        assert ledger.carried.total() > 0.98 * num_read
        assert set(ledger.rules) == rules
    written = 0
    for rows in subjects.values():
        context = ExportContext("real")
        export = events_to_resources(rows, context=context)
        resources = export.resources
        assert validate_references([*resources, *shared_resources(context, actors, export.actors)]) == []
        for resource in resources[:: _EVERY if len(resources) > _EVERY else 1]:
            findings = [str(each) for each in validate_resource(resource) if each.severity == "error"]
            assert findings == []
        written += len(resources)
    num_events = sum(number for kind, number in ledger.carried.items() if kind not in ACTORS)
    assert written >= num_events - 5
