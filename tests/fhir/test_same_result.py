"""One result, however it is computed: with memory or without, in one process or several, in one pass or two."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from medtwin.core.dataset_writer import EventSpill, write_events
from medtwin.core.encoded import decode_events
from medtwin.core.events import Event, table_to_events
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger
from medtwin.fhir import FhirSource, index_source
from medtwin.fhir.read import Reader, read_tables
from medtwin.fhir.reading.index import IncompleteIndexError
from medtwin.pipelines.ingest_fhir import FhirRecords, read_fhir
from tests.fhir.hostile import hostile_resources
from tests.fhir.samples import ENCOUNTER, PATIENT, ndjson, observation, read_resources

_KEYED = Pseudonyms(b"s" * 32)


def _read(source: FhirSource, *, remembers: bool, **options: Any) -> tuple[list[Event], Ledger]:
    ledger = Ledger()
    reader = Reader(index_source(source), _KEYED, ledger, remembers=remembers)
    events = [
        event for table in read_tables(source, reader, **options) for event in table_to_events(decode_events(table))
    ]
    assert ledger.imbalance() == {}
    return events, ledger


def _assert_same_with_and_without_memory(source: FhirSource) -> None:
    events, ledger = _read(source, remembers=True)
    plain, plain_ledger = _read(source, remembers=False)
    assert events == plain
    assert (ledger.as_dict(), ledger.rejects) == (plain_ledger.as_dict(), plain_ledger.rejects)


def test_hostile_resources_give_the_same_with_and_without_memory(tmp_path: Path) -> None:
    lines = [*hostile_resources(random.Random(3), 600)] * 2
    (tmp_path / "all.ndjson").write_bytes(ndjson(*lines))
    _assert_same_with_and_without_memory(FhirSource(tmp_path))


def test_small_batches_give_the_same(tmp_path: Path) -> None:
    read_resources(tmp_path, PATIENT, *hostile_resources(random.Random(4), 200))
    source = FhirSource(tmp_path)
    assert _read(source, remembers=True, batch_events=1) == _read(source, remembers=True)


@pytest.mark.real
@pytest.mark.parametrize("name", ["synthea_r4/bundles", "fhir_examples", "mimic4_demo_fhir/fhir"])
def test_public_data_give_the_same_with_and_without_memory(public_data: Path, name: str) -> None:
    source = FhirSource(public_data / name)
    source.files = [file for file in source.files if file[0].stat().st_size < 200_000]
    _assert_same_with_and_without_memory(source)


def _digests(records: FhirRecords, folder: Path) -> dict[str, str]:
    spill = EventSpill(folder / "spill", 3)
    for files in records.spilled:
        spill.adopt(files)
    write_events(folder / "d", spill.close(), split_of=lambda subject: "train" if subject % 2 else "held_out")
    files = sorted(path for path in (folder / "d").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(name="split_source")
def _split_source(tmp_path: Path) -> FhirSource:
    """Files that repeat each other's ids and persons."""
    folder = tmp_path / "source"
    folder.mkdir()
    lines = [*hostile_resources(random.Random(5), 300)]
    other = PATIENT | {"id": "p2"}  # the same medical record number
    for number in range(6):
        part = [line for at, line in enumerate(lines) if at % 5 in (number % 5, (number + 1) % 5)]
        (folder / f"{number}.ndjson").write_bytes(ndjson(*([PATIENT] if number == 3 else [other]), ENCOUNTER, *part))
    return FhirSource(folder)


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_processes_gives_the_same_files(tmp_path: Path, split_source: FhirSource, workers: int) -> None:
    one = read_fhir(split_source, _KEYED, tmp_path / "one", num_buckets=3)
    many = read_fhir(split_source, _KEYED, tmp_path / "many", num_buckets=3, workers=workers)
    assert one.ledger.rules["duplicate-id"] > 100
    assert one.ledger.rules["duplicate-person"] > 5
    assert (one.ledger.as_dict(), one.ledger.rejects) == (many.ledger.as_dict(), many.ledger.rejects)
    assert _digests(one, tmp_path / "a") == _digests(many, tmp_path / "b")


def _strays(folder: Path) -> Iterator[FhirSource]:
    for number, order in enumerate(([PATIENT, ENCOUNTER], [ENCOUNTER, PATIENT])):
        place = folder / str(number)
        place.mkdir()
        pulses = [observation(f"o{at}", encounter={"reference": "Encounter/e1"}) for at in range(100)]
        (place / "a.ndjson").write_bytes(ndjson(*pulses, order[1]))
        (place / "b.ndjson").write_bytes(ndjson(order[0]))
        yield FhirSource(place)


def test_what_stands_where_the_index_did_not_look_makes_it_look_again(tmp_path: Path) -> None:
    for number, source in enumerate(_strays(tmp_path)):
        partial = index_source(source, whole=False)
        assert partial.files == {"b.ndjson"}
        with pytest.raises(IncompleteIndexError):
            list(read_tables(source, Reader(partial, _KEYED, Ledger())))
        records = read_fhir(source, _KEYED, tmp_path / f"spill{number}", num_buckets=1)
        assert records.ledger.carried == {"Observation": 100, "Patient": 1, "Encounter": 1}
        assert records.ledger.flags["unknown-encounter"] == 0


def test_files_of_other_types_alone_are_not_looked_into_twice(tmp_path: Path) -> None:
    (tmp_path / "Observation.ndjson").write_bytes(ndjson(*(observation(f"o{at}") for at in range(10))))
    (tmp_path / "Patient.ndjson").write_bytes(ndjson(PATIENT))
    (tmp_path / "bundle.json").write_bytes(orjson.dumps({"resourceType": "Bundle", "type": "collection"}))
    index = index_source(FhirSource(tmp_path), whole=False)
    assert index.files == {"Patient.ndjson", "bundle.json"}
