"""The FHIR part of `medtwin ingest`: files into a spill, in this process or several, with the same result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medtwin.core.collector import without_cycles
from medtwin.core.dataset_writer import EventSpill
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.shards import map_shards
from medtwin.core.sources import Ledger
from medtwin.fhir import FhirIndex, FhirSource, index_source
from medtwin.fhir.read import Claims, Reader, read_tables
from medtwin.fhir.reading.index import IncompleteIndexError
from medtwin.pipelines.say import progress

# Pieces of work per process: files differ in size, and one that had to be read again costs little then.
_SHARDS_PER_WORKER = 4
_DIGEST = np.dtype("V16")


@dataclass
class FhirRecords:
    """What a source of FHIR gave.

    Attributes:
        index: Who its patients are.
        ledger: The books.
        spilled: The events, by bucket; to be adopted by a spill of as many buckets, in this order.
    """

    index: FhirIndex
    ledger: Ledger
    spilled: list[list[Path]]

    def tables(self) -> Iterator[pa.Table]:
        """The events again, in tables of `ENCODED_SCHEMA`."""
        for files in self.spilled:
            for path in files:
                with pa.memory_map(str(path)) as file:
                    yield from (pa.Table.from_batches([batch]) for batch in pa.ipc.open_stream(file))


def read_fhir(
    source: FhirSource, pseudonyms: Pseudonyms, scratch: Path, *, num_buckets: int, workers: int = 1
) -> FhirRecords:
    """Reads a source.

    Args:
        source: The files.
        pseudonyms: Of the dataset.
        scratch: A folder for the events; what is in it is removed.
        num_buckets: Into how many files the subjects are divided.
        workers: Processes; the result is the same for any number.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    try:
        return _read(source, index_source(source, whole=False), pseudonyms, (scratch, num_buckets, workers))
    except IncompleteIndexError:
        return _read(source, index_source(source), pseudonyms, (scratch, num_buckets, workers))


@dataclass(frozen=True)
class _Shard:
    """Some files of a source, to be read in one process.

    Attributes:
        before: What the files before them claimed, as far as these claim it too.
    """

    source: FhirSource
    index: FhirIndex
    pseudonyms: Pseudonyms
    folder: Path
    num_buckets: int
    before: Claims = field(default_factory=Claims)


@dataclass(frozen=True)
class _Result:
    ledger: Ledger
    files: list[Path]
    ids: NDArray[np.void]
    persons: frozenset[int]


def _read(source: FhirSource, index: FhirIndex, pseudonyms: Pseudonyms, how: tuple[Path, int, int]) -> FhirRecords:
    scratch, num_buckets, workers = how
    shutil.rmtree(scratch, ignore_errors=True)
    parts = source.parts(1 if workers == 1 else workers * _SHARDS_PER_WORKER)
    shards = [
        _Shard(part, index, pseudonyms, scratch / f"{number:04d}", num_buckets) for number, part in enumerate(parts)
    ]
    records = FhirRecords(index, Ledger(), [])
    records.ledger.flags.update(source.flags)
    ids, persons = np.zeros(0, dtype=_DIGEST), frozenset[int]()
    for shard, first in zip(shards, map_shards(_read_shard, shards, num_workers=workers), strict=True):
        taken = np.intersect1d(first.ids, ids, assume_unique=True)
        result = first
        if len(taken) or first.persons & persons:
            # Files before claimed what these claim too: read as if those had been read before, which they were not.
            shutil.rmtree(shard.folder)
            before = Claims({digest.tobytes() for digest in taken}, set(first.persons & persons))
            result = _read_shard(replace(shard, before=before))
        ids, persons = np.union1d(ids, result.ids), persons | result.persons
        records.ledger.add(result.ledger)
        records.spilled.append(result.files)
    return records


def _read_shard(shard: _Shard) -> _Result:
    ledger = Ledger()
    spill = EventSpill(shard.folder, shard.num_buckets)
    reader = Reader(shard.index, shard.pseudonyms, ledger, claims=shard.before)
    with without_cycles():
        for table in progress(read_tables(shard.source, reader), "reading FHIR", unit="batch"):
            spill.add(table)
    ids = np.frombuffer(b"".join(reader.claims.ids), dtype=_DIGEST)
    return _Result(ledger, spill.close(), np.sort(ids), frozenset(reader.claims.persons))
