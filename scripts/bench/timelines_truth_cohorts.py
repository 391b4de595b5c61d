"""Records for the known truth: of datasets, and drawn from the embedded hospital without a detour through FHIR files.

What is drawn here is what `medtwin hospital` and `medtwin ingest` make of the same seed, but for the identities and the
shift of dates by whole weeks, which no measure reads; ages over 89 are capped alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medtwin.check.records import UNDATED, US_PER_YEAR, Records, Vocabulary, tables_to_records
from medtwin.core.ages import cap_ages
from medtwin.core.codes import BIRTH, CHILD_PREFIX, DEATH
from medtwin.core.dataset import open_dataset
from medtwin.core.events import events_to_table
from medtwin.hospital import codes
from medtwin.hospital.simulate import SubjectRecord

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Draw = Callable[[int], SubjectRecord]

SMOKING = (codes.NEVER_SMOKER, codes.FORMER_SMOKER, codes.CURRENT_SMOKER)
BANDS = ((18, 40), (40, 60), (60, 86))
STATICS = ("GENDER", "BIRTHSEX", "RACE", "ETHNICITY", "LANGUAGE")
CKD = (codes.CKD_3, codes.CKD_4, codes.CKD_5)
_AT_ONCE = 250
_SLIM = ("subject_id", "time", "code", "unit", "numeric_value", "text_value", "encounter_id", "resource")
_ONE_DAY = 1 / 365.25


@dataclass(frozen=True)
class Cohort:
    """The records of some subjects, and what a record says of a subject as a whole.

    Attributes:
        records: Their clinical events.
        smoking: (subjects,) position in `SMOKING` of the first smoking status; -1 where none is said.
    """

    records: Records
    smoking: Ints

    @property
    def size(self) -> int:
        """How many subjects there are."""
        return self.records.num_subjects

    def take(self, which: Ints) -> Cohort:
        """Some of the subjects, in this order."""
        return Cohort(self.records.take(which), self.smoking[which])

    @cached_property
    def start_us(self) -> Ints:
        """Time of the first event of an encounter, else of the first step, (subjects,).

        Problems that began before the record stand before it; they are no part of its length.
        """
        records = self.records
        start = records.span[0].copy()
        rows = np.flatnonzero((records.encounter >= 0) & (records.time_us != UNDATED))
        start[records.subject[rows[::-1]]] = records.time_us[rows[::-1]]
        return start

    @cached_property
    def age(self) -> Floats:
        """Age in years at the start, (subjects,); NaN where birth or start is unknown."""
        birth = self.records.time_of(BIRTH)
        known = (birth != UNDATED) & (self.start_us != UNDATED)
        return np.where(known, (self.start_us - np.where(known, birth, 0)) / US_PER_YEAR, np.nan)

    @cached_property
    def male(self) -> Bools:
        """Whether the sex is M, (subjects,)."""
        return self.records.has("GENDER//M")

    @cached_property
    def years(self) -> Floats:
        """Years from the start to the last step, (subjects,)."""
        last = self.records.span[1]
        return np.where(last > self.start_us, (last - self.start_us) / US_PER_YEAR, 0.0)

    @cached_property
    def died(self) -> Bools:
        """Whether the record holds a death, (subjects,)."""
        return self.records.has(DEATH)

    @cached_property
    def num_encounters(self) -> Ints:
        """Encounters of each subject, (subjects,)."""
        records = self.records
        inside = records.encounter >= 0
        width = int(records.encounter.max(initial=0)) + 1
        pairs = np.unique(records.subject[inside] * width + records.encounter[inside])
        return np.bincount(pairs // width, minlength=self.size).astype(np.int64)

    def rows_of(self, *wanted: str) -> Ints:
        """Rows of the dated events that have one of some codes."""
        numbers = [self.records.vocabulary.codes.get(code, -1) for code in wanted]
        return np.flatnonzero(np.isin(self.records.code, numbers) & (self.records.time_us != UNDATED))

    def onset(self, *wanted: str) -> Floats:
        """Years from the start to the first event with one of some codes, (subjects,); infinite without one."""
        rows = self.rows_of(*wanted)[::-1]
        found = np.full(self.size, np.inf)
        who = self.records.subject[rows]
        found[who] = (self.records.time_us[rows] - self.start_us[who]) / US_PER_YEAR
        return found

    def had(self, *wanted: str) -> Bools:
        """Who had one of some codes within a day of the start, (subjects,)."""
        return self.onset(*wanted) <= _ONE_DAY

    def numbers_of(self, code: str) -> tuple[Ints, Floats, Floats]:
        """Subject, years since the start and value of every number of a code, in order of time within a subject."""
        rows = self.rows_of(code)
        rows = rows[np.isfinite(self.records.value[rows])]
        who = self.records.subject[rows]
        return (
            who,
            (self.records.time_us[rows] - self.start_us[who]) / US_PER_YEAR,
            self.records.value[rows].astype(float),
        )

    def first_value(self, code: str) -> Floats:
        """The first number of a code, (subjects,); NaN without one."""
        who, _, value = self.numbers_of(code)
        found = np.full(self.size, np.nan)
        found[who[::-1]] = value[::-1]
        return found

    def mean_value(self, code: str) -> Floats:
        """The mean of a code's numbers, (subjects,); NaN without one."""
        who, _, value = self.numbers_of(code)
        count = np.bincount(who, minlength=self.size)
        total = np.bincount(who, weights=value, minlength=self.size)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def static(self, system: str) -> Ints:
        """The number of the first code of a system that each subject has, (subjects,); -1 without one."""
        names = self.records.vocabulary.names
        chosen = [number for number, name in enumerate(names) if name.startswith(f"{system}//")]
        rows = np.flatnonzero(np.isin(self.records.code, chosen))[::-1]
        found = np.full(self.size, -1)
        found[self.records.subject[rows]] = self.records.code[rows]
        return found


class _SmokingStatus:
    """Looks at every shard for the first smoking status of each subject."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[Any, str]] = {}

    def look(self, table: pa.Table) -> None:
        """Reads one shard."""
        rows = table.filter(pc.equal(table["code"], codes.SMOKING_STATUS)).select(["subject_id", "time", "text_value"])
        for subject, time, text in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
            known = self._first.get(subject)
            if time is not None and text is not None and (known is None or time < known[0]):
                self._first[subject] = (time, text)

    def of(self, subjects: Ints) -> Ints:
        """(subjects,) positions in `SMOKING`."""
        place = {code: number for number, code in enumerate(SMOKING)}
        return np.array([place.get(self._first.get(int(one), (None, ""))[1], -1) for one in subjects], np.int64)


def cohort_of(tables: Iterable[pa.Table], vocabulary: Vocabulary) -> Cohort:
    """The cohort of some event tables; a subject must stand in one of them."""
    smoking = _SmokingStatus()
    records = tables_to_records(tables, vocabulary, look=smoking.look)
    return Cohort(records, smoking.of(records.subjects))


def read_cohort(folder: Path, vocabulary: Vocabulary, split: str | None = None) -> Cohort:
    """The cohort of a dataset directory, or of one of its splits."""
    dataset = open_dataset(folder)
    splits = [split] if split is not None and split in dataset.splits else list(dataset.splits)
    return cohort_of((table for one in splits for table in dataset.iter_events(one)), vocabulary)


def draw_tables(draw: Draw, num_subjects: int) -> Iterator[pa.Table]:
    """The event tables of the first subjects of a hospital, without details, ages over 89 capped."""
    for first in range(0, num_subjects, _AT_ONCE):
        members = range(first, min(first + _AT_ONCE, num_subjects))
        events = [event for one in members for event in draw(one).events if not event.code.startswith(CHILD_PREFIX)]
        yield cap_ages(events_to_table(events))[0]


def cached_tables(folder: Path, name: str, draw: Draw, num_subjects: int) -> Iterator[pa.Table]:
    """The same from a file of the folder, made if it is missing; `name` must say all that the draw depends on."""
    path = folder / f"{name}-n{num_subjects}.parquet"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        writer: pq.ParquetWriter | None = None
        for table in draw_tables(draw, num_subjects):
            slim = table.select(list(_SLIM))
            writer = writer or pq.ParquetWriter(partial, slim.schema, compression="zstd")
            writer.write_table(slim, row_group_size=len(slim))
        if writer is not None:
            writer.close()
        partial.rename(path)
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        yield file.read_row_group(group)


def shuffled_values(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    """The numbers of each code dealt anew over all subjects: what each code measures stays, whose it is does not."""
    records = cohort.records
    value = records.value.copy()
    rows = np.flatnonzero(np.isfinite(value))
    order = np.argsort(records.code[rows], kind="stable")
    dealt = np.lexsort((rng.random(len(rows)), records.code[rows]))
    value[rows[order]] = records.value[rows[dealt]]
    return replace(cohort, records=replace(records, value=value))


def shuffled_subjects(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    """Sex, birth and all undated facts dealt anew over the records: lengths and diseases forget age and sex."""
    records = cohort.records
    order = rng.permutation(cohort.size)
    birth = records.vocabulary.codes.get(BIRTH, -1)
    is_fact = (records.time_us == UNDATED) | (records.code == birth)
    subject = np.where(is_fact, order[records.subject], records.subject)
    moved = replace(records, subject=subject)
    in_order = np.lexsort((moved.time_us, subject))
    return replace(cohort, records=moved.select(in_order))
