"""Reads any MEDS 0.4 dataset into our event table: ids, times and codes verbatim, what breaks the rules rejected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medtwin.core.dataset import SPLITS, Dataset
from medtwin.core.errors import DatasetError, SourceError
from medtwin.core.events import EVENT_SCHEMA, MEDS_COLUMNS
from medtwin.core.seeds import uniform_of
from medtwin.core.sources import Ledger, Reject

BATCH_ROWS = 500_000
_REQUIRED = ("subject_id", "time", "code")


def chosen_subjects(dataset: Dataset, limit: int, seed: int) -> set[int]:
    """At most `limit` subjects of a dataset, by hash of (seed, subject): never by their order or their records."""
    ranked = sorted(dataset.subject_splits(), key=lambda subject: uniform_of(seed, "subset", subject))
    return set(ranked[:limit])


def read_meds(dataset: Dataset, ledger: Ledger, subjects: set[int] | None = None) -> Iterator[tuple[str, pa.Table]]:
    """The split and the events of every batch of a MEDS dataset; of some subjects only, if they are given.

    Rows of other subjects are counted as not carried. Rows without subject or code, and rows with a number that is not
    finite, are rejected; other rules are the reader's of the result (`validate_events`). Columns that are not ours are
    counted as not carried.

    Raises:
        SourceError: If a shard is unreadable, or lacks a required column.
    """
    for split in dataset.splits:
        for path in dataset.shards(split):
            for table in _read_shard(path, dataset.path, ledger):
                yield split, table if subjects is None else _of_subjects(table, subjects, ledger)


def _of_subjects(table: pa.Table, subjects: set[int], ledger: Ledger) -> pa.Table:
    kept = table.filter(pc.is_in(table["subject_id"], value_set=pa.array(sorted(subjects), pa.int64())))
    ledger.carried["row"] -= len(table) - len(kept)
    ledger.not_carried["row"] += len(table) - len(kept)
    return kept


def _read_shard(path: Path, root: Path, ledger: Ledger) -> Iterator[pa.Table]:
    name = path.relative_to(root).as_posix()
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"source.meds: {name} is no readable parquet file") from error
    columns = file.schema_arrow.names
    if missing := [column for column in _REQUIRED if column not in columns]:
        raise SourceError(f"source.meds: {name} lacks the columns {', '.join(missing)}: not a MEDS dataset")
    for column in set(columns) - set(EVENT_SCHEMA.names):
        ledger.elements_not_carried[f"column {column}"] += file.metadata.num_rows
    wanted = [column for column in EVENT_SCHEMA.names if column in columns]
    start = 1
    try:
        for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
            table = pa.Table.from_batches([batch])
            yield _accepted(table, name, start, ledger)
            start += len(table)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"source.meds: {name} is damaged from row {start} on") from error


def _accepted(table: pa.Table, name: str, start: int, ledger: Ledger) -> pa.Table:
    full = _cast(table, name)
    ledger.read["row"] += len(full)
    checks = (
        ("no-subject", pc.is_null(full["subject_id"]), "subject_id must not be null"),
        (
            "no-code",
            pc.or_(pc.is_null(full["code"]), pc.fill_null(pc.equal(full["code"], ""), True)),
            "code must be given",
        ),
        (
            "not-finite",
            pc.fill_null(pc.invert(pc.is_finite(full["numeric_value"])), False),
            "numeric_value must be finite",
        ),
    )
    bad = pa.chunked_array([pa.array([False] * len(full))])
    for rule, mask, reason in checks:
        fresh = pc.and_(mask, pc.invert(bad))
        for index in pc.indices_nonzero(fresh.combine_chunks()).to_pylist():
            ledger.reject(Reject(name, start + index, "row", rule, reason))
        bad = pc.or_(bad, mask)
    kept = full.filter(pc.invert(bad)).cast(EVENT_SCHEMA)
    ledger.carried["row"] += len(kept)
    return kept


def _cast(table: pa.Table, name: str) -> pa.Table:
    columns = []
    for field in EVENT_SCHEMA:
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        try:
            columns.append(table.column(field.name).cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            kind = "MEDS 0.4" if field.name in MEDS_COLUMNS else "medtwin"
            raise SourceError(f"source.meds: {name}: column {field.name} must be {field.type} ({kind})") from error
    return pa.table(columns, schema=pa.schema([field.with_nullable(True) for field in EVENT_SCHEMA]))


def stated_splits(dataset: Dataset) -> dict[int, str]:
    """The split of every subject where the source says it, in MEDS names; empty where it has none."""
    stated = dataset.subject_splits()
    return {subject: split for subject, split in stated.items() if split in SPLITS}


def code_metadata(dataset: Dataset) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Description and parent codes by code, as the source's codes.parquet gives them."""
    table = dataset.codes()
    if "code" not in table.column_names:
        raise DatasetError(f"{dataset.path}: metadata/codes.parquet has no column code")
    descriptions: dict[str, str] = {}
    parents: dict[str, list[str]] = {}
    for row in table.to_pylist():
        if row.get("description"):
            descriptions[row["code"]] = row["description"]
        if row.get("parent_codes"):
            parents[row["code"]] = list(row["parent_codes"])
    return descriptions, parents
