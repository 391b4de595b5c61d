"""Writes the event half of a dataset directory: spill by subject as events come, then sort and place each shard.

Memory is bounded by one shard: events are appended to per-bucket spill files while the source is read, and each bucket
is sorted, checked and written on its own. A subject's bucket and split depend on the subject and the seed only.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtwin import __version__
from medtwin.core.ages import cap_ages
from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.dataset import CODES_SCHEMA
from medtwin.core.encoded import ENCODED_SCHEMA, TEXT_COLUMNS, encode_events, in_order, only_used
from medtwin.core.errors import DatasetError, SourceError
from medtwin.core.events import EVENT_SCHEMA, row_findings, sort_events
from medtwin.core.files import atomic_file, write_json, write_table
from medtwin.core.findings import errors_in
from medtwin.core.seeds import uniform_of
from medtwin.core.text_columns import rows_with_text, text_codes

# Measured on the MIMIC demo (15 MB gzipped): ingest peaks at 0.98 GiB with one bucket and at 0.79 GiB with the
# two that this size gives. Each bucket is an open file while the source is read, and a process may have 1,024.
BYTES_PER_BUCKET = 16 * 2**20
MAX_BUCKETS = 512


@dataclass(frozen=True)
class SplitRule:
    """Which split a new subject goes to: by hash of (seed, subject), so that it never depends on the other subjects.

    Raises:
        SourceError: If the shares are not in 0..1, or leave nothing to train on.
    """

    seed: int = 0
    tuning: float = 0.1
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if min(self.tuning, self.held_out) < 0 or self.tuning + self.held_out >= 1:
            raise SourceError(f"splits: tuning and held_out must be 0 or more and sum to less than 1, got {self}")

    def __call__(self, subject_id: int) -> str:
        """The split of a subject."""
        draw = uniform_of(self.seed, "split", subject_id)
        if draw < self.held_out:
            return "held_out"
        return "tuning" if draw < self.held_out + self.tuning else "train"


class EventSpill:
    """Takes event tables in any order and keeps them on disk by bucket of subjects."""

    def __init__(self, folder: Path, num_buckets: int) -> None:
        self._folder = folder
        self._num_buckets = num_buckets
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}
        self._adopted: list[list[Path]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, table: pa.Table) -> None:
        """Appends events, (rows,) of `EVENT_SCHEMA` or of `ENCODED_SCHEMA`."""
        encoded = encode_events(table)
        bucket = encoded["subject_id"].to_numpy() % self._num_buckets
        for number in np.unique(bucket):
            writer = self._writers.get(int(number)) or self._open(int(number))
            rows = pa.array(np.flatnonzero(bucket == number))
            writer.write_table(only_used(encoded.take(rows)) if len(rows) < len(encoded) else encoded)

    def _open(self, bucket: int) -> pa.RecordBatchStreamWriter:
        self._writers[bucket] = pa.ipc.new_stream(self._folder / f"{bucket:05d}.arrow", ENCODED_SCHEMA)
        return self._writers[bucket]

    def adopt(self, files: list[Path]) -> None:
        """Appends what another spill of as many buckets wrote and closed, after everything that came before.

        Args:
            files: What its `close` gave.
        """
        self._close_files()
        self._adopted.append(files)

    def _close_files(self) -> None:
        """Closes the spill files so far; what follows goes to files of its own."""
        for writer in self._writers.values():
            writer.close()
        written = [self._folder / f"{bucket:05d}.arrow" for bucket in sorted(self._writers)]
        if written:
            self._adopted.append(written)
            self._folder = self._folder.with_name(f"{self._folder.name}+")
            self._folder.mkdir(parents=True, exist_ok=True)
        self._writers = {}

    def close(self) -> list[Path]:
        """Closes the spill files and names them: by bucket, those of one bucket in the order in which they came."""
        self._close_files()
        files = [path for group in self._adopted for path in group]
        return sorted(files, key=lambda path: path.name)


@dataclass
class CodeCounts:
    """What codes.parquet says of every code; filled shard by shard."""

    num_events: Counter[str] = field(default_factory=Counter)
    num_subjects: Counter[str] = field(default_factory=Counter)
    unit: dict[str, Counter[str]] = field(default_factory=dict)
    resource: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        """Counts the rows of one shard; its subjects must stand in no other."""
        columns, texts = {}, {}
        for name in ("code", "unit", "resource"):
            columns[name], values = text_codes(table[name])
            texts[name] = [*values.to_pylist(), None]  # -1 is null
        coded = pa.table(columns | {"subject_id": table["subject_id"]})
        keys = ["code", "unit", "resource"]
        groups = coded.group_by(keys).aggregate([([], "count_all")]).to_pylist()
        counted = [(*(texts[name][row[name]] for name in keys), row["count_all"]) for row in groups]
        # In alphabetical order, so that of two units as frequent as each other always the same one is told.
        for code, unit, resource, count in sorted(counted, key=lambda row: (row[0], row[1] or "", row[2] or "")):
            self.num_events[code] += count
            if unit is not None:
                self.unit.setdefault(code, Counter())[unit] += count
            if resource is not None:
                self.resource.setdefault(code, Counter())[resource] += count
        pairs = coded.group_by(["code", "subject_id"]).aggregate([])
        for row in pairs.group_by("code").aggregate([([], "count_all")]).to_pylist():
            self.num_subjects[texts["code"][row["code"]]] += row["count_all"]

    def table(self, descriptions: Mapping[str, str], parents: Mapping[str, list[str]]) -> pa.Table:
        """The rows of codes.parquet, by code; unit and resource are the most frequent ones."""
        rows = [
            {
                "code": code,
                "description": descriptions.get(code),
                "parent_codes": parents.get(code),
                "unit": self.unit[code].most_common(1)[0][0] if code in self.unit else None,
                "resource": self.resource[code].most_common(1)[0][0] if code in self.resource else None,
                "num_events": self.num_events[code],
                "num_subjects": self.num_subjects[code],
            }
            for code in sorted(self.num_events)
        ]
        return pa.Table.from_pylist(rows, schema=CODES_SCHEMA)


@dataclass(frozen=True)
class WrittenEvents:
    """What `write_events` wrote."""

    num_subjects: dict[str, int]
    num_events: int
    num_rows: int
    flags: Counter[str]


def write_events(
    folder: Path,
    spilled: list[Path],
    *,
    split_of: Callable[[int], str],
    descriptions: Mapping[str, str] | None = None,
    parents: Mapping[str, list[str]] | None = None,
    cap_age: bool = True,
) -> WrittenEvents:
    """Writes data/, codes.parquet and subject_splits.parquet from spilled events.

    Args:
        folder: The dataset directory in the making.
        spilled: Spill files; each holds whole subjects.
        split_of: Split of a subject.
        descriptions: Code to description, for codes.parquet.
        parents: Code to parent codes, for codes.parquet.
        cap_age: Move births so that nobody is older than 90 (docs/conventions.md, identity).

    Raises:
        SourceError: If there is no event at all.
        DatasetError: If the events break a rule of the event table.
    """
    codes, splits, flags = CodeCounts(), dict[int, str](), Counter[str]()
    num_events = num_rows = 0
    for stem, paths in groupby(spilled, key=lambda path: path.stem):
        table = _read_spilled(list(paths))
        if cap_age:
            table, dropped = cap_ages(table)
            flags["rows-before-capped-birth"] += dropped
        table = _without_conflicts(sort_events(table), flags)
        if errors := errors_in(row_findings(table, where=stem)):
            raise DatasetError("the source gives events that break the rules: " + "; ".join(map(str, errors)))
        codes.add(table)
        num_rows += len(table)
        num_events += table["parent_id"].null_count
        splits.update({subject: split_of(subject) for subject in table["subject_id"].unique().to_pylist()})
        _write_shards(folder, stem, table, splits)
    if not splits:
        raise SourceError("the source holds no patient event that can be read: see rejected/rejected.csv")
    write_table(folder / "metadata" / "codes.parquet", codes.table(descriptions or {}, parents or {}))
    write_subject_splits(folder, splits)
    counts = Counter(splits.values())
    return WrittenEvents(dict(sorted(counts.items())), num_events, num_rows, +flags)


def _read_spilled(paths: list[Path]) -> pa.Table:
    """The events of one bucket, encoded, in the order in which they came."""
    tables = []
    for path in paths:
        with pa.memory_map(str(path)) as source:
            tables.append(pa.ipc.open_stream(source).read_all())
    return encode_events(pa.concat_tables(tables))


def _without_conflicts(table: pa.Table, flags: Counter[str]) -> pa.Table:
    """Keeps the first birth and the first death of a subject, and counts the others as flags."""
    keep = np.ones(len(table), dtype=bool)
    for code, flag in ((BIRTH, "further-birth-dropped"), (DEATH, "further-death-dropped")):
        rows = np.flatnonzero(rows_with_text(table["code"], code))
        _, first = np.unique(table["subject_id"].to_numpy()[rows], return_index=True)
        extra = np.delete(rows, first)
        keep[extra] = False
        flags[flag] += len(extra)
    return table if keep.all() else table.filter(pa.array(keep))


def _write_shards(folder: Path, stem: str, table: pa.Table, splits: Mapping[int, str]) -> None:
    subject = table["subject_id"].to_numpy()
    subjects, position = np.unique(subject, return_inverse=True)
    names, split = np.unique([splits[int(each)] for each in subjects], return_inverse=True)
    for number, name in enumerate(names):
        rows = pa.array(np.flatnonzero(split[position] == number))
        path = folder / "data" / str(name) / f"{stem}.parquet"
        write_event_table(path, table.take(rows) if len(names) > 1 else table)


def write_event_table(path: Path, table: pa.Table) -> None:
    """Writes encoded events as a parquet file of `EVENT_SCHEMA`, atomically; any MEDS reader takes it.

    The texts go to parquet's own dictionaries as they are; ids repeat too little for one, but begin alike.
    """
    ids = ["event_id", "parent_id"]
    with_dictionary = [name for name in TEXT_COLUMNS if name not in ids]
    table = in_order(table, with_dictionary)
    schema = base64.b64encode(EVENT_SCHEMA.serialize().to_pybytes())
    with (
        atomic_file(path) as file,
        pq.ParquetWriter(
            file,
            table.schema,
            compression="zstd",
            use_dictionary=[name for name in EVENT_SCHEMA.names if name not in ids],
            column_encoding=dict.fromkeys(ids, "DELTA_BYTE_ARRAY"),
            write_statistics=["subject_id", "time", "code", "numeric_value"],
            store_schema=False,
        ) as writer,
    ):
        # What Arrow reads the columns as: without it a large_string would come back as a string.
        writer.add_key_value_metadata({"ARROW:schema": schema})
        writer.write_table(table)


def write_subject_splits(folder: Path, splits: Mapping[int, str]) -> None:
    """Writes metadata/subject_splits.parquet: the split of every subject."""
    subjects = sorted(splits)
    schema = pa.schema([pa.field("subject_id", pa.int64()), pa.field("split", pa.string())])
    table = pa.table({"subject_id": subjects, "split": [splits[s] for s in subjects]}, schema=schema)
    write_table(folder / "metadata" / "subject_splits.parquet", table)


def write_dataset_metadata(folder: Path, name: str, origin: str, **more: Any) -> None:
    """Writes metadata/dataset.json: the MEDS dataset metadata, and our `origin`."""
    record = {
        "dataset_name": name,
        "dataset_version": "1",
        "etl_name": "medtwin",
        "etl_version": __version__,
        "meds_version": "0.4.1",
        "other_extension_columns": EVENT_SCHEMA.names[5:],
        "origin": origin,
        **more,
    }
    write_json(folder / "metadata" / "dataset.json", record)


def num_buckets(num_bytes: int) -> int:
    """How many spill buckets a source of records of this size needs, so that each fits in memory comfortably."""
    return max(1, min(MAX_BUCKETS, -(-num_bytes // BYTES_PER_BUCKET)))
