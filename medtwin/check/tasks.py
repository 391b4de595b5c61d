"""Prediction tasks as data: when to predict, and what happens next; the same rule for real and synthetic timelines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medtwin.check.hashes import GOLDEN, mix
from medtwin.check.records import UNDATED, US_PER_HOUR, Ints, Records
from medtwin.core.codes import BIRTH
from medtwin.core.errors import ConfigError, DatasetError
from medtwin.core.seeds import purpose_key

Bools = NDArray[np.bool_]
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Task:
    """One prediction task: a rule for the prediction times and a rule for the label, both read off a timeline.

    A code that ends in `*` means all that begin so.

    Attributes:
        name: Stable name, snake_case.
        title: What is predicted, in words.
        source: Where the definition comes from.
        outcome: Codes of what is predicted: the label is true if one of them happens in (t, t + horizon].
        anchor: Codes whose first event starts the clock; none: the first dated event.
        first_hours: The first prediction, in hours after the anchor.
        every_hours: Further predictions every so many hours for as long as the record goes on; None: only the first.
        max_per_subject: Keeps at most so many prediction times of a subject, drawn without looking at the label.
        horizon_hours: How far ahead the label looks; None: to the end of the record.
        known_by: Codes that end the observation: without the outcome or one of them after t, the label is unknown.
            Empty: a record that ends without the outcome is a negative.
        labels: A MEDS label file of the real data, a path or relative to the dataset; the rule is checked against it.
        covariates: Codes whose hazard ratios are compared: the mean of the numbers up to t, or whether the code is
            there; `age` is the age at t.

    Raises:
        ConfigError: If it is not complete.
    """

    name: str
    title: str
    source: str
    outcome: tuple[str, ...]
    anchor: tuple[str, ...] = ()
    first_hours: float = 0.0
    every_hours: float | None = None
    max_per_subject: int | None = None
    horizon_hours: float | None = None
    known_by: tuple[str, ...] = ()
    labels: str | None = None
    covariates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.outcome:
            raise ConfigError(f"task {self.name}: outcome must name at least one code")
        if not self.source.strip():
            raise ConfigError(f"task {self.name}: source must say where the definition comes from")
        if self.first_hours < 0:
            raise ConfigError(f"task {self.name}: first_hours must be 0 or more, got {self.first_hours!r}")
        for setting in ("every_hours", "horizon_hours", "max_per_subject"):
            value = getattr(self, setting)
            if value is not None and not value > 0:
                raise ConfigError(f"task {self.name}: {setting} must be above 0 or null, got {value!r}")


def task_from(config: Mapping[str, Any] | None) -> Task | None:
    """The task of a configuration; None where there is none.

    Raises:
        ConfigError: If it is not complete or has unknown settings.
    """
    if not config:
        return None
    values = dict(config)
    for setting in ("outcome", "anchor", "known_by", "covariates"):
        listed = values.get(setting) or ()
        if isinstance(listed, str):
            raise ConfigError(f"task {values.get('name')}: {setting} must be a list, got {listed!r}")
        values[setting] = tuple(listed)
    try:
        return Task(**values)
    except TypeError as error:
        raise ConfigError(f"task {values.get('name')}: {error}") from error


@dataclass(frozen=True)
class Examples:
    """Prediction times of some subjects with their labels, sorted by subject and time.

    Attributes:
        subject: Index into the records' subjects, (rows,), ascending.
        time_us: Prediction time in microseconds, (rows,).
        label: Whether the outcome happens within the horizon, (rows,).
        hours: From the prediction time to the outcome, else to the end of the record, (rows,). happened: Which of the
            two, (rows,).
    """

    subject: Ints
    time_us: Ints
    label: Bools
    hours: NDArray[np.float64]
    happened: Bools

    def __len__(self) -> int:
        return len(self.subject)

    @property
    def num_positive(self) -> int:
        """How many labels are true."""
        return int(self.label.sum())

    def rows(self, index: Ints | Bools) -> Examples:
        """Some of the rows, in their order."""
        parts = (self.subject, self.time_us, self.label, self.hours, self.happened)
        return Examples(*(part[index] for part in parts))  # type: ignore[arg-type]

    @property
    def first_rows(self) -> Ints:
        """The first row of each subject, (subjects with a row,)."""
        return np.flatnonzero(np.r_[True, self.subject[1:] != self.subject[:-1]]) if len(self) else self.subject


@dataclass(frozen=True)
class Excluded:
    """Who or what a task leaves out.

    Attributes:
        no_anchor: Subjects without the anchor. record_over: Subjects whose record ends at or before the first
            prediction.
        already_happened: Prediction times at or after the outcome. unknown: Prediction times whose label is unknown.
        not_drawn: Prediction times beyond `max_per_subject`.
    """

    no_anchor: int = 0
    record_over: int = 0
    already_happened: int = 0
    unknown: int = 0
    not_drawn: int = 0


def matching(records: Records, patterns: tuple[str, ...]) -> Bools:
    """Which events have one of the codes, (events,); a pattern that ends in `*` means all that begin so."""
    exact = {one for one in patterns if not one.endswith("*")}
    prefixes = tuple(one[:-1] for one in patterns if one.endswith("*"))
    names = records.vocabulary.names
    chosen = [name in exact or (bool(prefixes) and name.startswith(prefixes)) for name in names]
    return np.asarray(chosen, bool)[records.code] if names else np.zeros(len(records.code), bool)


def find_examples(task: Task, records: Records, *, seed: int = 0) -> tuple[Examples, Excluded]:
    """Every prediction time of a task with its label, and what was left out.

    Args:
        task: The rule.
        records: Whose timelines.
        seed: Decides which prediction times are kept, where there are more than `max_per_subject`.
    """
    first, last = _spans(task, records)
    has_anchor = first != UNDATED
    start = np.where(has_anchor, first, 0) + round(task.first_hours * US_PER_HOUR)
    is_open = has_anchor & (last > start)
    subject = np.flatnonzero(is_open)
    time = start[subject]
    if task.every_hours is not None and len(subject):
        step = round(task.every_hours * US_PER_HOUR)
        count = -(-(last[subject] - time) // step)  # the times before the last event
        subject, number = np.repeat(subject, count), np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        time = start[subject] + number * step
    found = examples_at(task, records, subject, time)
    drawn = _drawn(records.subjects[found[0].subject], found[0].time_us, task.max_per_subject, seed)
    excluded = Excluded(
        int((~has_anchor).sum()), int((has_anchor & ~is_open).sum()), found[1], found[2], int((~drawn).sum())
    )
    return found[0].rows(drawn), excluded


def examples_at(task: Task, records: Records, subject: Ints, time_us: Ints) -> tuple[Examples, int, int]:
    """The labels at given times; without those where the outcome has happened, or its absence is not known.

    Args:
        task: The rule.
        records: Whose timelines.
        subject: Index into the records' subjects, (rows,), ascending.
        time_us: Times, (rows,).

    Returns:
        The examples, the number of times at or after the outcome, and that of times with an unknown label.
    """
    dated = records.time_us != UNDATED
    outcome = np.flatnonzero(matching(records, task.outcome) & dated)
    earliest = np.full(records.num_subjects, _NEVER)
    np.minimum.at(earliest, records.subject[outcome], records.time_us[outcome])
    happens = earliest[subject]
    has_happened = happens <= time_us
    happened = (happens != _NEVER) & ~has_happened
    _, end = _spans(task, records)
    until = np.where(happened, happens, end[subject])
    hours = np.maximum(until - time_us, 0) / US_PER_HOUR
    label = happened if task.horizon_hours is None else happened & (hours <= task.horizon_hours)
    known = np.ones(len(subject), bool)
    if task.known_by:
        closing = np.flatnonzero(matching(records, task.known_by) & dated)
        closed = np.full(records.num_subjects, UNDATED)
        np.maximum.at(closed, records.subject[closing], records.time_us[closing])
        known = happened | (closed[subject] > time_us)
    kept = ~has_happened & known
    examples = Examples(subject, time_us, label, hours, happened)
    return examples.rows(kept), int(has_happened.sum()), int((~has_happened & ~known).sum())


def _spans(task: Task, records: Records) -> tuple[Ints, Ints]:
    """The anchor and the last dated event of each subject, (subjects,) both; `UNDATED` where there is none."""
    is_dated = (records.time_us != UNDATED) & (records.code != records.vocabulary.codes.get(BIRTH, -1))
    starts = np.flatnonzero(is_dated & matching(records, task.anchor) if task.anchor else is_dated)
    first, last = np.full(records.num_subjects, UNDATED), np.full(records.num_subjects, UNDATED)
    first[records.subject[starts[::-1]]] = records.time_us[starts[::-1]]
    events = np.flatnonzero(is_dated)
    last[records.subject[events]] = records.time_us[events]
    return first, last


def _drawn(subject_id: Ints, time_us: Ints, limit: int | None, seed: int) -> Bools:
    """Which rows stay where a subject keeps at most `limit`: those of least hash of seed, subject and time."""
    if limit is None or not len(subject_id):
        return np.ones(len(subject_id), bool)
    word = np.uint64(purpose_key("utility", "times", seed)[0])
    mixed = mix((mix((subject_id.astype(np.uint64) ^ word) + GOLDEN) ^ time_us.astype(np.uint64)) + GOLDEN)
    order = np.lexsort((mixed, subject_id))
    ordered = subject_id[order]
    first = np.searchsorted(ordered, ordered, side="left")
    chosen = np.zeros(len(subject_id), bool)
    chosen[order] = np.arange(len(order)) - first < limit
    return chosen


@dataclass(frozen=True)
class Labels:
    """A MEDS label file: (rows,) each, sorted by subject and time."""

    subject_id: Ints
    time_us: Ints
    label: Bools


def read_labels(path: Path) -> Labels:
    """A MEDS label file (MEDS 0.4 LabelSchema with boolean_value), a file or a folder of them.

    Raises:
        DatasetError: If it is not one, a label is null, or a subject has two labels at one time.
    """
    if not path.exists():
        raise DatasetError(f"labels {path} does not exist")
    table = pq.read_table(path)
    missing = [one for one in ("subject_id", "prediction_time", "boolean_value") if one not in table.column_names]
    if missing:
        raise DatasetError(f"labels {path} must have the columns of a MEDS label file, there is no {missing[0]}")
    if any(table[one].null_count for one in ("subject_id", "prediction_time", "boolean_value")):
        raise DatasetError(f"labels {path} must have a subject, a time and a boolean_value in every row")
    try:
        time = table["prediction_time"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
        label = table["boolean_value"].cast(pa.bool_()).to_numpy().astype(bool)
        subject = table["subject_id"].cast(pa.int64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DatasetError(f"labels {path} must have the column types of a MEDS label file") from error
    order = np.lexsort((time, subject))
    subject, time, label = subject[order], time[order], label[order]
    if np.any((subject[1:] == subject[:-1]) & (time[1:] == time[:-1])):
        raise DatasetError(f"labels {path} must have one label per subject and time")
    return Labels(subject, time, label)


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """How a task's rule compares with a label file.

    Attributes:
        num_labels: Rows of the file that belong to these subjects.
        num_compared: Of them, those that the rule labels too; it leaves out times at or after the outcome.
        num_equal: Of those, equal labels.
        num_times: Prediction times of the rule. num_times_in_file: Those that the file has as well.
    """

    num_labels: int
    num_compared: int
    num_equal: int
    num_times: int
    num_times_in_file: int

    @property
    def share(self) -> float:
        """Equal labels among those compared; nan where there are none."""
        return self.num_equal / self.num_compared if self.num_compared else float("nan")


def agree_with_labels(task: Task, records: Records, examples: Examples, labels: Labels) -> LabelAgreement:
    """The rule against a label file: its labels at all times of the file, and its times among those of the file."""
    mine = np.isin(labels.subject_id, records.subjects)
    subject = np.searchsorted(records.subjects, labels.subject_id[mine])
    time, label = labels.time_us[mine], labels.label[mine]
    found, _, _ = examples_at(task, records, subject, time)
    times = np.unique(np.r_[time, examples.time_us])
    in_file, of_found, wanted = (
        who * len(times) + np.searchsorted(times, when)
        for who, when in ((subject, time), (found.subject, found.time_us), (examples.subject, examples.time_us))
    )
    place = np.searchsorted(in_file, of_found)
    num_shared = int(np.isin(wanted, in_file).sum())
    return LabelAgreement(len(time), len(found), int((label[place] == found.label).sum()), len(examples), num_shared)
