"""Patient events as flat arrays: what every measure reads. Built shard by shard; codes and units become numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from medtwin.core.codes import BIRTH, CHILD_PREFIX, DEATH, NEGATED_PREFIX, SEPARATOR
from medtwin.core.dataset import Dataset

UNDATED = np.iinfo(np.int64).min
"""Time of what has none; it sorts before every other."""
US_PER_HOUR = 3_600_000_000
US_PER_DAY = 24 * US_PER_HOUR
US_PER_YEAR = 365.25 * US_PER_DAY

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class Vocabulary:
    """Numbers for codes and units, the same for every dataset that is read with it.

    Attributes:
        codes, units: The number of each text.
        kinds: The kind of each code: the FHIR type of the first event that has it, else its code system.
    """

    codes: dict[str, int] = field(default_factory=dict)
    units: dict[str, int] = field(default_factory=lambda: {"": 0})
    kinds: dict[str, str] = field(default_factory=dict)

    def number(self, column: pa.ChunkedArray, table: dict[str, int]) -> Ints:
        """The numbers of a column's texts, (rows,); new texts get the next ones. Null counts as the empty text."""
        encoded = pc.fill_null(column.cast(pa.string()), "").combine_chunks().dictionary_encode()
        numbers = np.array([table.setdefault(text, len(table)) for text in encoded.dictionary.to_pylist()], np.int64)
        return numbers[encoded.indices.to_numpy(zero_copy_only=False)] if len(column) else np.zeros(0, np.int64)

    def add_kinds(self, codes: pa.ChunkedArray, resources: pa.ChunkedArray) -> None:
        """Notes the kinds of the codes that are new."""
        pairs = pa.table({"code": codes.cast(pa.string()), "resource": resources.cast(pa.string())})
        first = pairs.group_by("code", use_threads=False).aggregate([("resource", "first")])
        for code, resource in zip(first["code"].to_pylist(), first["resource_first"].to_pylist(), strict=True):
            self.kinds.setdefault(code, resource or code.partition(SEPARATOR)[0])

    @property
    def names(self) -> list[str]:
        """The codes in the order of their numbers."""
        return list(self.codes)

    @property
    def kind_names(self) -> list[str]:
        """The kind of each code in the order of their numbers."""
        return [self.kinds.get(code, "") for code in self.codes]


@dataclass(frozen=True)
class Steps:
    """The distinct times of each subject, in order; birth is none of them.

    Attributes:
        event: Rows of the events that stand in a step, (events in steps,).
        step: Number of the step of each of them, (events in steps,), ascending.
        subject: Subject of each step, (steps,), ascending. time_us: Its time, (steps,).
    """

    event: Ints
    step: Ints
    subject: Ints
    time_us: Ints


@dataclass(frozen=True)
class Records:
    """The clinical events of some subjects: no details (`FHIR//`) and no negations, sorted by subject and time.

    Attributes:
        vocabulary: What the numbers in `code` and `unit` mean.
        subjects: Subject ids, (subjects,).
        subject: Index into `subjects`, (events,), ascending.
        time_us: Microseconds, (events,); `UNDATED` for static facts.
        code, unit: Numbers of the vocabulary, (events,). value: NaN where there is none, (events,).
        encounter: Number of the encounter, (events,); -1 where there is none.
    """

    vocabulary: Vocabulary
    subjects: Ints
    subject: Ints
    time_us: Ints
    code: Ints
    unit: Ints
    value: NDArray[np.float32]
    encounter: Ints

    @property
    def num_subjects(self) -> int:
        """How many subjects there are."""
        return len(self.subjects)

    @cached_property
    def steps(self) -> Steps:
        """The distinct times of each subject."""
        event = np.flatnonzero((self.time_us != UNDATED) & (self.code != self.vocabulary.codes.get(BIRTH, -1)))
        subject, time = self.subject[event], self.time_us[event]
        is_new = np.ones(len(event), dtype=bool)
        is_new[1:] = (subject[1:] != subject[:-1]) | (time[1:] != time[:-1])
        return Steps(event, np.cumsum(is_new) - 1, subject[is_new], time[is_new])

    @cached_property
    def counts(self) -> sparse.csr_array:
        """Events by subject and code, (subjects, codes known when it is first read)."""
        shape = (self.num_subjects, len(self.vocabulary.codes))
        ones = np.ones(len(self.code), np.float32)
        matrix = sparse.csr_array(sparse.coo_array((ones, (self.subject, self.code)), shape=shape))
        matrix.sum_duplicates()
        return matrix

    @cached_property
    def years(self) -> Floats:
        """Years from a subject's first to last step, (subjects,); 0 where there is one, or none."""
        first, last = self.span
        return np.where(last > first, (last - first) / US_PER_YEAR, 0.0)

    @cached_property
    def num_events(self) -> Ints:
        """Dated events of each subject without birth, (subjects,)."""
        return np.bincount(self.subject[self.steps.event], minlength=self.num_subjects).astype(np.int64)

    @cached_property
    def ages(self) -> Floats:
        """Age in years at the first step, (subjects,); NaN where birth is unknown or nothing is dated."""
        first, _ = self.span
        birth = self.time_of(BIRTH)
        known = (birth != UNDATED) & (first != UNDATED)
        return np.where(known, (first - np.where(known, birth, 0)) / US_PER_YEAR, np.nan)

    @cached_property
    def span(self) -> tuple[Ints, Ints]:
        """The time of the first and of the last step, (subjects,) both; `UNDATED` where there is none."""
        first, last = np.full(self.num_subjects, UNDATED), np.full(self.num_subjects, UNDATED)
        steps = self.steps
        last[steps.subject] = steps.time_us  # ascending: the last one stays
        first[steps.subject[::-1]] = steps.time_us[::-1]
        return first, last

    @cached_property
    def survival(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Years from the first step to death or the last step, and whether it was death, (subjects,)."""
        death = self.time_of(DEATH)
        first, last = self.span
        died = (death != UNDATED) & (first != UNDATED)
        end = np.where(died, death, last)
        return np.where(first != UNDATED, np.maximum(end - first, 0) / US_PER_YEAR, 0.0), died

    def has(self, code: str) -> NDArray[np.bool_]:
        """Which subjects have a code at any time, or without one, (subjects,)."""
        found = np.zeros(self.num_subjects, dtype=bool)
        found[self.subject[self.code == self.vocabulary.codes.get(code, -1)]] = True
        return found

    def take(self, which: Ints) -> Records:
        """The records of some subjects, numbered anew in this order, (chosen,); one may be taken several times."""
        count = np.bincount(self.subject, minlength=self.num_subjects)
        start = np.cumsum(count) - count
        length = count[which]
        first = np.cumsum(length) - length
        subject = np.repeat(np.arange(len(which)), length)
        row = start[which][subject] + np.arange(len(subject)) - first[subject]
        return replace(self.select(row), subjects=self.subjects[which], subject=subject)

    def select(self, rows: NDArray[np.bool_] | Ints) -> Records:
        """The records with some rows only, a mask or numbers in order; subjects stay, also those left without any."""
        return replace(
            self,
            subject=self.subject[rows],
            time_us=self.time_us[rows],
            code=self.code[rows],
            unit=self.unit[rows],
            value=self.value[rows],
            encounter=self.encounter[rows],
        )

    def time_of(self, code: str) -> Ints:
        """When a code that a subject has once happened, (subjects,); `UNDATED` where it did not."""
        times = np.full(self.num_subjects, UNDATED)
        rows = np.flatnonzero(self.code == self.vocabulary.codes.get(code, -1))
        times[self.subject[rows]] = self.time_us[rows]
        return times


def read_records(
    dataset: Dataset,
    vocabulary: Vocabulary,
    splits: Iterable[str],
    *,
    look: Callable[[pa.Table], None] | None = None,
) -> Records:
    """The clinical events of some splits, read shard by shard.

    Args:
        dataset: Where they stand.
        vocabulary: Grows by the codes and units that are new.
        splits: Names of splits.
        look: Sees every shard as it stands, details and negations included.
    """
    tables = (table for split in splits for table in dataset.iter_events(split))
    return tables_to_records(tables, vocabulary, look=look)


def tables_to_records(
    tables: Iterable[pa.Table], vocabulary: Vocabulary, *, look: Callable[[pa.Table], None] | None = None
) -> Records:
    """The clinical events of some event tables (`EVENT_SCHEMA`), each held in memory only while it is read."""
    parts: list[tuple[NDArray[Any], ...]] = []
    num_encounters = 0
    for table in tables:
        if look is not None:
            look(table)
        hidden = pc.or_(pc.starts_with(table["code"], CHILD_PREFIX), pc.starts_with(table["code"], NEGATED_PREFIX))
        columns = ["subject_id", "time", "code", "unit", "numeric_value", "encounter_id", "resource"]
        shown = table.select(columns).filter(pc.invert(hidden))
        vocabulary.add_kinds(shown["code"], shown["resource"])
        encounter = _numbered(shown["encounter_id"], num_encounters)
        num_encounters = max(num_encounters, int(encounter.max(initial=-1)) + 1)
        parts.append(
            (
                shown["subject_id"].to_numpy(),
                shown["time"].cast(pa.int64()).fill_null(UNDATED).to_numpy(),
                vocabulary.number(shown["code"], vocabulary.codes),
                vocabulary.number(shown["unit"], vocabulary.units),
                shown["numeric_value"].fill_null(np.nan).to_numpy().astype(np.float32),
                encounter,
            )
        )
    if not parts:
        empty = np.zeros(0, np.int64)
        parts = [(empty, empty, empty, empty, np.zeros(0, np.float32), empty)]
    ids, time, code, unit, value, encounter = (np.concatenate([part[i] for part in parts]) for i in range(6))
    subjects, subject = np.unique(ids, return_inverse=True)
    order = np.lexsort((time, subject))
    # Stable: rows of one instant keep their order.
    return Records(
        vocabulary, subjects, subject[order], time[order], code[order], unit[order], value[order], encounter[order]
    )


def _numbered(column: pa.ChunkedArray, first: int) -> Ints:
    """Numbers for the texts of one shard from `first` on, (rows,); -1 for null. An encounter stands in one shard."""
    indices = column.cast(pa.string()).combine_chunks().dictionary_encode().indices
    numbers = indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(numbers >= 0, numbers + first, -1)
