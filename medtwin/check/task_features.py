"""Features of a prediction: what a timeline says at or before the prediction time, never after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.check.records import UNDATED, US_PER_HOUR, US_PER_YEAR, Ints, Records
from medtwin.check.tasks import Examples
from medtwin.core.codes import BIRTH

STATISTICS = ("last", "mean", "min", "max", "sd", "count", "hours")
"""Of every number: `sd` from two values on, `hours` since the last one."""
MAX_CODES = 250
"""Codes with features, the commonest among the training examples; a wide vocabulary has a long tail."""
MIN_SHARE = 0.01
MIN_SUBJECTS = 10
"""A code below both shares of training subjects makes no feature."""

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureSpace:
    """The columns that a model sees, from training examples alone.

    Attributes:
        numbers: Code and unit of each code with numbers, its commonest unit; centre: (numbers,) mean of its values,
            only subtracted before squares are summed.
        counted: Codes without numbers: how often they stand at or before the prediction.
        static: Codes without a time: whether they are there.
        names: (columns,) what each is. groups: (columns,) the code it comes from.
    """

    numbers: tuple[tuple[str, str], ...]
    centre: NDArray[np.float64]
    counted: tuple[str, ...]
    static: tuple[str, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def matrix(self, records: Records, examples: Examples) -> Matrix:
        """The features, (rows, columns); NaN where there is nothing to say.

        Args:
            records: The timelines; codes and units that training does not know are not looked at.
            examples: Prediction times in them.
        """
        events = _before_last(records, examples)
        parts = [self._numbers(records, examples, events), self._counts(records, examples, events)]
        has = np.zeros((records.num_subjects, len(self.static)), np.float32)
        undated = records.time_us == UNDATED
        for column, code in enumerate(self.static):
            rows = np.flatnonzero(undated & (records.code == records.vocabulary.codes.get(code, -1)))
            has[records.subject[rows], column] = 1
        parts += [has[examples.subject], _clock(records, examples)]
        return np.hstack(parts)

    def _numbers(self, records: Records, examples: Examples, events: Ints) -> Matrix:
        units = records.vocabulary.units
        codes = records.vocabulary.codes
        column = np.full(len(codes), -1)
        unit = np.full(len(codes), -1)
        for place, (code, name) in enumerate(self.numbers):
            if code in codes:
                column[codes[code]], unit[codes[code]] = place, units.get(name, -1)
        rows = events[np.isfinite(records.value[events])]
        rows = rows[(column[records.code[rows]] >= 0) & (unit[records.code[rows]] == records.unit[rows])]
        ranges = _Ranges(records, examples, rows, column[records.code[rows]], len(self.numbers))
        value = records.value[ranges.rows].astype(np.float64)
        centred = value - self.centre[ranges.column]
        shape = len(examples), len(self.numbers)
        out = np.full((*shape, len(STATISTICS)), np.nan, np.float32)
        count = ranges.count
        example, number = np.nonzero(count)
        if len(example):
            n = count[example, number]
            mean, square = ranges.reduce(np.add, centred) / n, ranges.reduce(np.add, centred**2) / n
            variance = np.maximum(square - mean**2, 0) * n / np.maximum(n - 1, 1)
            last = ranges.rows[ranges.end[example, number] - 1]
            since = examples.time_us[example] - records.time_us[last]
            statistics = (
                records.value[last],
                mean + self.centre[number],
                ranges.reduce(np.minimum, value),
                ranges.reduce(np.maximum, value),
                np.where(n > 1, np.sqrt(variance), np.nan),
                n,
                since / US_PER_HOUR,
            )
            out[example, number] = np.stack(statistics, axis=1)
        out[:, :, STATISTICS.index("count")] = count
        return out.reshape(len(examples), len(self.numbers) * len(STATISTICS))

    def _counts(self, records: Records, examples: Examples, events: Ints) -> Matrix:
        column = np.full(len(records.vocabulary.codes), -1)
        for number, code in enumerate(self.counted):
            if code in records.vocabulary.codes:
                column[records.vocabulary.codes[code]] = number
        rows = events[column[records.code[events]] >= 0]
        ranges = _Ranges(records, examples, rows, column[records.code[rows]], len(self.counted))
        return ranges.count.astype(np.float32)


def fit_feature_space(records: Records, examples: Examples) -> FeatureSpace:
    """The columns for some training examples: their codes, commonest first, and each code's commonest unit.

    Args:
        records: Training timelines; nothing after a subject's last prediction is looked at.
        examples: Prediction times in them.
    """
    names, units = records.vocabulary.names, list(records.vocabulary.units)
    events = _before_last(records, examples)
    has_example = np.zeros(records.num_subjects, bool)
    has_example[examples.subject] = True
    fewest = max(MIN_SUBJECTS, MIN_SHARE * has_example.sum())
    dated = _codes_by_subjects(records, events, fewest)
    undated = np.flatnonzero((records.time_us == UNDATED) & has_example[records.subject])
    static = [names[code] for code in _codes_by_subjects(records, undated, fewest)]
    numbers: list[tuple[str, str]] = []
    centre: list[float] = []
    counted: list[str] = []
    valued = events[np.isfinite(records.value[events])]
    for code in dated:
        rows = valued[records.code[valued] == code]
        if len(np.unique(records.subject[rows])) < fewest:
            counted.append(names[code])
            continue
        unit = int(np.bincount(records.unit[rows]).argmax())
        numbers.append((names[code], units[unit]))
        centre.append(float(records.value[rows[records.unit[rows] == unit]].mean(dtype=np.float64)))
    columns = [(f"{code} {statistic}", code) for code, _ in numbers for statistic in STATISTICS]
    columns += [(f"{code} count", code) for code in counted] + [(code, code) for code in static]
    columns += [("age in years", "age"), ("hours since the first event", "time")]
    return FeatureSpace(
        tuple(numbers),
        np.asarray(centre, np.float64),
        tuple(counted),
        tuple(static),
        tuple(name for name, _ in columns),
        tuple(group for _, group in columns),
    )


def _codes_by_subjects(records: Records, events: Ints, fewest: float) -> Sequence[int]:
    """Codes that at least so many subjects have among some events, commonest first, at most `MAX_CODES`."""
    pairs = np.unique(records.subject[events] * len(records.vocabulary.codes) + records.code[events])
    count = np.bincount(pairs % max(len(records.vocabulary.codes), 1), minlength=len(records.vocabulary.codes))
    count[[number for code, number in records.vocabulary.codes.items() if code == BIRTH]] = 0
    order = np.argsort(-count, kind="stable")[:MAX_CODES]
    return [int(code) for code in order if count[code] >= fewest]


def _before_last(records: Records, examples: Examples) -> Ints:
    """Dated events at or before the last prediction of their subject, (events of use,); birth is none of them."""
    last = np.full(records.num_subjects, UNDATED)
    last[examples.subject] = examples.time_us  # ascending: the last one stays
    is_of_use = (records.time_us != UNDATED) & (records.time_us <= last[records.subject])
    return np.flatnonzero(is_of_use & (records.code != records.vocabulary.codes.get(BIRTH, -1)))


def _clock(records: Records, examples: Examples) -> Matrix:
    """Age in years, and hours since the first event, (rows, 2)."""
    birth = records.time_of(BIRTH)[examples.subject]
    age = np.where(birth != UNDATED, (examples.time_us - np.where(birth != UNDATED, birth, 0)) / US_PER_YEAR, np.nan)
    hours = (examples.time_us - records.span[0][examples.subject]) / US_PER_HOUR
    return np.stack([age, hours], axis=1).astype(np.float32)


class _Ranges:
    """Events sorted by subject, column and time, and the stretch of them that each example sees of each column.

    Attributes:
        rows: Events in that order. column: Of each of them.
        end: (examples, columns) where the stretch ends. count: (examples, columns) its length.
    """

    def __init__(self, records: Records, examples: Examples, rows: Ints, column: Ints, num_columns: int) -> None:
        order = np.lexsort((records.time_us[rows], column, records.subject[rows]))
        self.rows, self.column = rows[order], column[order]
        times = np.unique(np.r_[records.time_us[rows], examples.time_us])
        place = records.subject[self.rows] * num_columns + self.column
        key = place * len(times) + np.searchsorted(times, records.time_us[self.rows])
        wanted = examples.subject[:, None] * num_columns + np.arange(num_columns)
        now = np.searchsorted(times, examples.time_us)[:, None]
        self._start = np.searchsorted(key, wanted * len(times), side="left")
        self.end = np.searchsorted(key, wanted * len(times) + now, side="right")
        self.count = self.end - self._start

    def reduce(self, ufunc: np.ufunc, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """A ufunc over each stretch that is not empty, in the order of `numpy.nonzero(count)`."""
        filled = self.count > 0
        bounds = np.stack([self._start[filled], self.end[filled]], axis=1).ravel()
        # Every other result is of what lies between two stretches; a last value lets the last stretch end.
        reduced: NDArray[np.float64] = ufunc.reduceat(np.r_[values, 0.0], bounds)[::2]
        return reduced
