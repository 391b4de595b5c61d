"""Records as sequences of tokens: facts, then step by step how long since the last one, and what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.check.records import US_PER_HOUR, Records
from medtwin.core.codes import BIRTH

NUM_BANDS = 5
"""Bands of a number: fifths of the real ones."""
MIN_VALUES = 50
"""Real numbers of a code and unit below which they are not divided."""
GAP_HOURS = (0.25, 1.5, 6.0, 30.0, 24.0 * 8, 24.0 * 45, 24.0 * 200)
"""Bounds of the classes of time from one step to the next: minutes, an hour, a shift, a day, a week, a month, half a
year, longer. Our choice."""
START, END = 0, 1
"""Tokens of the beginning of a record, which is said of nobody, and of its end."""
_FIRST_GAP = 2
FIRST_EVENT = _FIRST_GAP + len(GAP_HOURS) + 1

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """The tokens of some subjects, one subject after the other, each ended by `END`.

    Attributes:
        token: (tokens,). subject: Whose, (tokens,), ascending. num_subjects: How many subjects there are.
    """

    token: Ints
    subject: Ints
    num_subjects: int


@dataclass(frozen=True)
class Coder:
    """Turns events into tokens: the bands of numbers are decided on real records, and are the same for all.

    Attributes:
        rank: Place of each code in the alphabet, (codes,): events of one time are said in this order.
        kinds: Code and unit as one number, of what has bands, (kinds,), ascending.
        bounds: Upper bounds of all but the last band, (kinds, NUM_BANDS - 1).
    """

    rank: Ints
    kinds: Ints
    bounds: NDArray[np.float32]

    @staticmethod
    def of(real: Records) -> Coder:
        """The coder of real records; every record that it is to code must be read already, with their vocabulary."""
        names = real.vocabulary.names
        rank = np.empty(len(names), np.int64)
        rank[np.argsort(names, kind="stable")] = np.arange(len(names))
        rows = np.flatnonzero(~np.isnan(real.value))
        kinds, place, count = np.unique(_kind(real, rows), return_inverse=True, return_counts=True)
        order = np.lexsort((real.value[rows], place))
        values = np.split(real.value[rows][order], np.cumsum(count)[:-1])
        has_bands = np.flatnonzero(count >= MIN_VALUES)
        inner = np.arange(1, NUM_BANDS) / NUM_BANDS
        bounds = [np.quantile(values[one], inner, method="inverted_cdf") for one in has_bands]
        return Coder(rank, kinds[has_bands], np.array(bounds, np.float32).reshape(-1, NUM_BANDS - 1))

    def sequences(self, records: Records) -> Sequences:
        """The records as tokens: facts without a time, then every step's gap and events, in alphabetical order."""
        token, event = self.event_tokens(records)
        gap, _ = self.gap_tokens(records)
        steps = records.steps
        follows = _following(records)
        everybody = np.arange(records.num_subjects)
        columns = (
            (records.subject[event], steps.subject[follows], everybody),
            (records.time_us[event], steps.time_us[follows], np.full(len(everybody), np.iinfo(np.int64).max)),
            (self.rank[records.code[event]] + 1, np.zeros(len(gap), np.int64), np.zeros(len(everybody), np.int64)),
            (token, gap, np.full(len(everybody), END)),
        )
        subject, time, place, token = (np.concatenate(column) for column in columns)
        order = np.lexsort((token, place, time, subject))
        return Sequences(token[order], subject[order], records.num_subjects)

    def event_tokens(self, records: Records) -> tuple[Ints, Ints]:
        """The token of every event but births, and its row, (events,) both."""
        row = np.flatnonzero(records.code != records.vocabulary.codes.get(BIRTH, -1))
        return FIRST_EVENT + records.code[row] * (NUM_BANDS + 1) + self._bands(records, row), row

    def gap_tokens(self, records: Records) -> tuple[Ints, Ints]:
        """The token of the time from each step to the subject's next, and its microseconds, (gaps,) both."""
        time, follows = records.steps.time_us, _following(records)
        length = time[follows] - time[follows - 1]
        return _FIRST_GAP + np.searchsorted(GAP_HOURS, length / US_PER_HOUR, side="right"), length

    def _bands(self, records: Records, rows: Ints) -> Ints:
        """0 without a number, or of a code and unit without bands; else the band from 1 on, (rows,)."""
        band = np.zeros(len(rows), np.int64)
        if not len(self.kinds):
            return band
        kind = _kind(records, rows)
        place = np.minimum(np.searchsorted(self.kinds, kind), len(self.kinds) - 1)
        known = (self.kinds[place] == kind) & ~np.isnan(records.value[rows])
        above = records.value[rows[known], None] > self.bounds[place[known]]
        band[known] = 1 + above.sum(axis=1)
        return band


def _following(records: Records) -> Ints:
    """The steps that are not a subject's first, (gaps,)."""
    subject = records.steps.subject
    return np.flatnonzero(subject[1:] == subject[:-1]) + 1


def _kind(records: Records, rows: Ints) -> Ints:
    """Code and unit as one number, (rows,), whatever other units are read later."""
    return records.code[rows] * 2**20 + records.unit[rows]


def with_starts(sequences: Sequence[Sequences]) -> list[Ints]:
    """For each side the tokens with the two before them, (tokens, 3); `START` stands before a record."""
    found = []
    for one in sequences:
        rows = np.full((len(one.token), 3), START, np.int64)
        rows[:, 2] = one.token
        for back in (1, 2):
            same = one.subject[back:] == one.subject[:-back]
            rows[back:, 2 - back][same] = one.token[:-back][same]
        found.append(rows)
    return found
