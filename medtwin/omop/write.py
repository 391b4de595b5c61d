"""A dataset as OMOP CDM 5.4: parquet files, one per table, written shard by shard; and the account of what was left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medtwin import __version__
from medtwin.core.codes import NEGATED_PREFIX
from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError, DatasetError
from medtwin.core.events import split_child_code, with_all_columns
from medtwin.omop import concepts
from medtwin.omop.actors import read_actors
from medtwin.omop.clinical import Clinical, Context, DetailsSetting, clinical_tables
from medtwin.omop.people import PersonIds, person_ids, read_people
from medtwin.omop.shard import COLUMN, NOT_CARRIED, WRITTEN, Shard
from medtwin.omop.tables import CDM_VERSION, CLINICAL_TABLES, TABLES
from medtwin.omop.visits import read_visits
from medtwin.omop.vocabulary import Vocabulary, load_vocabulary

ETL_REFERENCE = "medtwin"
# Measured on physionet2012 (3.3 million rows): see scripts/bench/omop.py for what another size costs.
CHUNK_ROWS = 250_000
_SHARD_COLUMNS = ("code", "text_value", "unit")


@dataclass(frozen=True)
class OmopOptions:
    """How a dataset becomes OMOP.

    Attributes:
        vocab: An unpacked Athena download; None: concept 0 with source values, but for the fixed concepts.
        systems: Code systems of the dataset and the vocabulary_id of each, beside those that are known.
        gap_days: A gap longer than this ends an observation period; None: one period per person.
        details: What becomes of details that have no column (`medtwin.omop.clinical.Context`).
        released: The day that cdm_source names as that of the release.

    Raises:
        ConfigError: If a value is out of range.
    """

    vocab: Path | None = None
    systems: Mapping[str, str] = field(default_factory=dict)
    gap_days: int | None = None
    details: DetailsSetting = "columns"
    released: date = field(default_factory=date.today)

    def __post_init__(self) -> None:
        if self.gap_days is not None and self.gap_days < 0:
            raise ConfigError(f"omop.gap_days must be 0 or more, got {self.gap_days}")
        if self.details not in ("columns", "observations"):
            raise ConfigError(f"omop.details must be columns or observations, got {self.details!r}")


@dataclass
class Books:
    """What became of the rows of a dataset.

    The books balance: event_rows = the sum of written, columns and not_carried. Rows of a table are the events
    written there, and what was made besides: further rows of one code, persons' periods.
    """

    event_rows: int = 0
    written: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    not_carried: Counter[str] = field(default_factory=Counter)
    further: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    tables: Counter[str] = field(default_factory=Counter)
    longer: Counter[str] = field(default_factory=Counter)
    mapping: Counter[tuple[str, bool]] = field(default_factory=Counter)
    without_period: int = 0

    def add_shard(self, shard: Shard, clinical: Clinical) -> None:
        """Counts a shard; every row of it must have its fate."""
        self.event_rows += shard.num_rows
        books = {WRITTEN: self.written, COLUMN: self.columns, NOT_CARRIED: self.not_carried}
        for (kind, what), count in shard.fates.counts().items():
            if count:
                books[kind][what] += count
        self.further.update(clinical.further)
        self.lost.update(clinical.lost)
        self.mapping.update(clinical.mapping)

    def require_balance(self) -> None:
        """Checks that nothing was dropped, and that every table holds the rows that were counted.

        Raises:
            DatasetError: If not: a fault of medtwin.
        """
        told = sum(self.written.values()) + sum(self.columns.values()) + sum(self.not_carried.values())
        wrong = [name for name in CLINICAL_TABLES if self.tables[name] != self.written[name] + self.further[name]]
        if told != self.event_rows or wrong:
            raise DatasetError(
                f"the books do not balance, which is a fault of medtwin: {self.event_rows} rows read, {told} told; "
                f"tables that differ: {', '.join(wrong) or 'none'}"
            )

    def as_dict(self) -> dict[str, Any]:
        """The content of loss.json."""
        systems = sorted({system for system, _ in self.mapping})
        told = sum(self.written.values()) + sum(self.columns.values()) + sum(self.not_carried.values())
        return {
            "event_rows": self.event_rows,
            "silently_dropped": self.event_rows - told,
            "written_as_row": dict(sorted(self.written.items())),
            "written_as_column": dict(sorted(self.columns.items())),
            "not_carried": dict(sorted(self.not_carried.items())),
            "further_rows_of_one_code": dict(sorted((+self.further).items())),
            "columns_not_carried": dict(sorted((+self.lost).items())),
            "table_rows": dict(sorted(self.tables.items())),
            "longer_than_the_cdm_column": dict(sorted(self.longer.items())),
            "persons_without_period": self.without_period,
            "events_by_code_system": {
                system: {"with standard concept": self.mapping[system, True], "without": self.mapping[system, False]}
                for system in systems
            },
        }


def export_omop(dataset: Dataset, folder: Path, options: OmopOptions) -> Iterator[Path | Books]:
    """Writes the tables of a dataset into a folder, and yields each shard when it is written, then the books.

    Args:
        dataset: The dataset, ours or a bare MEDS one.
        folder: Where `<table>.parquet` go; must not hold them yet.
        options: How.

    Raises:
        SourceError: If the vocabulary cannot be read.
        DatasetError: If the dataset cannot be read, or rows of it would be dropped silently.
    """
    content = _survey(dataset)
    vocabulary = Vocabulary()
    if options.vocab is not None:
        vocabulary = load_vocabulary(options.vocab, content.codes, content.units, options.systems)
    actors = read_actors(dataset.path)
    context = Context(vocabulary, actors, options.details)
    ids = person_ids(content.subjects)
    books = Books()
    folder.mkdir(parents=True, exist_ok=True)
    with _Writers(folder, books) as writers:
        for name, table in actors.tables(vocabulary).items():
            writers.write(name, table)
        for path in dataset.shards():
            for table in whole_subjects(path):
                _write_shard(Shard(table), context, ids, options, writers)
            yield path
        writers.write("cdm_source", _cdm_source(dataset, options, vocabulary))
        writers.write("metadata", _metadata(dataset, options))
    books.require_balance()
    yield books


def whole_subjects(path: Path, num_rows: int = CHUNK_ROWS) -> Iterator[pa.Table]:
    """The events of a shard in pieces of about `num_rows` rows that hold whole subjects, with every column.

    Raises:
        DatasetError: If the shard cannot be read.
    """
    kept: list[pa.Table] = []
    try:
        for batch in pq.ParquetFile(path).iter_batches(num_rows):
            table = with_all_columns(pa.Table.from_batches([batch]))
            subject = table["subject_id"].to_numpy()
            changes = np.flatnonzero(np.diff(subject)) + 1
            if kept and kept[-1]["subject_id"][-1].as_py() != subject[0]:
                changes = np.append(0, changes)
            if len(changes):
                last = int(changes[-1])
                yield pa.concat_tables([*kept, table.slice(0, last)])
                kept = [table.slice(last)]
            else:
                kept.append(table)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path} is not a readable shard of events") from error
    if kept:
        yield pa.concat_tables(kept)


def _write_shard(shard: Shard, context: Context, ids: PersonIds, options: OmopOptions, writers: _Writers) -> None:
    first = {name: writers.books.tables[name] + 1 for name in TABLES}
    people = read_people(shard, ids, gap_days=options.gap_days, first_period=first["observation_period"])
    person_of_row = ids.of(shard.subject)
    visits = read_visits(shard, person_of_row, context.vocabulary, context.actors, first)
    clinical = clinical_tables(shard, context, person_of_row, visits, people.first_date, first)
    books = writers.books
    books.add_shard(shard, clinical)
    books.lost["encounter_id (names no encounter that is there)"] += visits.num_unknown
    books.lost["Encounter.class (visit concept says less)"] += visits.num_merged
    books.without_period += people.num_without_period
    writers.write("person", people.person)
    writers.write("death", people.death)
    writers.write("observation_period", people.periods)
    writers.write("visit_occurrence", visits.occurrence)
    writers.write("visit_detail", visits.detail)
    for name, table in clinical.tables.items():
        writers.write(name, table)


class _Writers:
    """One parquet file per table of the CDM, also for those that stay empty."""

    def __init__(self, folder: Path, books: Books) -> None:
        self.books = books
        self._files = {
            name: pq.ParquetWriter(folder / f"{name}.parquet", table.schema, compression="zstd")
            for name, table in TABLES.items()
        }

    def __enter__(self) -> _Writers:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def write(self, name: str, table: pa.Table) -> None:
        """Appends rows."""
        for column in TABLES[name].columns:
            values = table.column(column.name)
            if column.required and values.null_count:
                raise DatasetError(f"a fault of medtwin: it would write {name}.{column.name} without a value")
            if column.width is not None:
                long = int(pc.sum(pc.greater(pc.utf8_length(values), column.width)).as_py() or 0)
                if long:
                    self.books.longer[f"{name}.{column.name}"] += long
        if len(table):
            self._files[name].write_table(table)
        self.books.tables[name] += len(table)


@dataclass
class _Content:
    """What a dataset uses: its subjects, codes and units."""

    subjects: set[int] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)
    units: set[str] = field(default_factory=set)


def _survey(dataset: Dataset) -> _Content:
    """Reads the columns that say which concepts are needed, shard by shard."""
    content = _Content()
    for path in dataset.shards():
        file = pq.ParquetFile(path)
        present = [name for name in _SHARD_COLUMNS if name in file.schema_arrow.names]
        table = file.read(columns=["subject_id", *present])
        content.subjects.update(pc.unique(table["subject_id"]).to_pylist())
        content.codes.update(_all_codes(pc.unique(table["code"]).to_pylist()))
        if "text_value" in present:
            texts = pc.unique(table["text_value"].filter(pc.match_substring(table["text_value"], "//")))
            content.codes.update(texts.to_pylist())
        if "unit" in present:
            content.units.update(pc.unique(table["unit"]).drop_null().to_pylist())
    return content


def _all_codes(codes: Iterable[str]) -> Iterator[str]:
    """The codes, and those that child rows state."""
    for code in codes:
        coded = split_child_code(code)[2] if code.startswith("FHIR//") else code.removeprefix(NEGATED_PREFIX)
        if coded is not None:
            yield coded


def _cdm_source(dataset: Dataset, options: OmopOptions, vocabulary: Vocabulary) -> pa.Table:
    row = {
        "cdm_source_name": dataset.path.name,
        "cdm_source_abbreviation": dataset.path.name[:25],
        "cdm_holder": "not stated",
        "source_description": f"{dataset.origin} patients; exported by medtwin {__version__}; times are UTC",
        "cdm_etl_reference": f"{ETL_REFERENCE} {__version__}",
        "source_release_date": options.released,
        "cdm_release_date": options.released,
        "cdm_version": CDM_VERSION,
        "cdm_version_concept_id": concepts.CDM_5_4,
        "vocabulary_version": vocabulary.version,
    }
    return pa.Table.from_pylist([row], TABLES["cdm_source"].schema)


def _metadata(dataset: Dataset, options: OmopOptions) -> pa.Table:
    """What a user of the tables must know: that the persons are no people, that times are UTC."""
    facts = {"origin": dataset.origin, "time zone": "UTC", "details": options.details}
    rows = [
        {
            "metadata_id": number,
            "metadata_concept_id": concepts.NO_CONCEPT,
            "metadata_type_concept_id": concepts.EHR,
            "name": f"medtwin {name}",
            "value_as_string": value,
            "metadata_date": options.released,
        }
        for number, (name, value) in enumerate(facts.items(), start=1)
    ]
    return pa.Table.from_pylist(rows, TABLES["metadata"].schema)
