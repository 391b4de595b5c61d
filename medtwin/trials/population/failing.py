"""Which criteria of eligibility fail on the possible days of entry, and in which patterns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.population.cohort import Cohort
from medtwin.trials.population.criteria import Candidates, Criterion, IndexDay

Ints = NDArray[np.int64]
_MAX_CRITERIA = 62  # bits of a mask


@dataclass(frozen=True)
class Failures:
    """Which criteria fail on the possible days of entry, each set of them once a subject.

    Attributes:
        subject: (rows,) index into the cohort, sorted. mask: (rows,) bit k: criterion k does not hold.
        unknown: (rows,) bit k: it could not be evaluated.
        labels: Of the criteria.
    """

    subject: Ints
    mask: Ints
    unknown: Ints
    labels: Sequence[str]

    def admitted(self, ignoring: int = 0) -> Ints:
        """Indices of the subjects with a day on which no criterion fails but those of a mask."""
        return _without_repeats(self.subject[(self.mask & ~ignoring) == 0])[0]


def failures(cohort: Cohort, index: IndexDay, criteria: Sequence[Criterion]) -> Failures:
    """Asks every criterion on every possible day.

    Raises:
        ConfigError: If a code is unknown.
        ValueError: If there is no criterion, or more than 62.
    """
    at, mask, unknown = _asked(cohort, index, criteria)
    # days that follow each other are often alike
    subject, mask, unknown = _without_repeats(at.subject, mask, unknown)
    order = _order(subject, mask, unknown, len(criteria))
    subject, mask, unknown = _without_repeats(subject[order], mask[order], unknown[order])
    return Failures(subject, mask, unknown, [criterion.label for criterion in criteria])


def near_entries(cohort: Cohort, index: IndexDay, criteria: Sequence[Criterion]) -> Candidates:
    """The day on which each subject enters, or would without one of the criteria.

    Of the eligible the first day on which all hold, of others the first on which all but one do; who has no such day
    has no entry.

    Raises:
        ConfigError: If a code is unknown.
        ValueError: If there is no criterion, or more than 62.
    """
    at, mask, _ = _asked(cohort, index, criteria)
    few = np.bitwise_count(mask)
    near = np.flatnonzero(few <= 1)
    order = near[np.lexsort((at.day[near], few[near], at.subject[near]))]
    return at.where(order[np.diff(at.subject[order], prepend=-1) != 0])


def _asked(cohort: Cohort, index: IndexDay, criteria: Sequence[Criterion]) -> tuple[Candidates, Ints, Ints]:
    """Every possible day, with the masks of the criteria that fail and of those that cannot be evaluated."""
    if not 1 <= len(criteria) <= _MAX_CRITERIA:
        raise ValueError(f"criteria must be 1 to {_MAX_CRITERIA}, got {len(criteria)}")
    at = index.candidates(cohort)
    mask, unknown = np.zeros(len(at.day), dtype=np.int64), np.zeros(len(at.day), dtype=np.int64)
    for bit, criterion in enumerate(criteria):
        answer = criterion.ask(cohort, at)
        mask |= np.where(answer.holds, 0, 1 << bit)
        unknown |= np.where(answer.is_unknown, 1 << bit, 0)
    return at, mask, unknown


def _order(subject: Ints, mask: Ints, unknown: Ints, num_bits: int) -> Ints:
    """The order by subject, mask and unknown; by one key where the three fit into it, which sorts faster."""
    if len(subject) and int(subject.max()).bit_length() + 2 * num_bits < 63:
        return np.argsort((subject << num_bits | mask) << num_bits | unknown)
    return np.lexsort((unknown, mask, subject))


def _without_repeats(*columns: Ints) -> tuple[Ints, ...]:
    """Rows that differ from the one before."""
    is_new = np.zeros(len(columns[0]), dtype=np.bool_)
    for column in columns:
        is_new |= np.diff(column, prepend=-1) != 0
    return tuple(column[is_new] for column in columns)


@dataclass(frozen=True)
class Patterns:
    """The different ways in which subjects fail: whoever fails alike is admitted under the same subsets of criteria.

    Attributes:
        subject: (subjects,) index into the cohort of whoever has a possible day. number: (subjects,) of its pattern.
        mask: (rows,) the masks of all patterns, one after the other: those that contain no other one.
        starts: (patterns,) first row of each.
    """

    subject: Ints
    number: Ints
    mask: Ints
    starts: Ints

    @property
    def counts(self) -> Ints:
        """Subjects of each pattern, (patterns,)."""
        return np.bincount(self.number, minlength=len(self.starts))

    def admitted(self, ignoring: int = 0) -> NDArray[np.bool_]:
        """Which patterns admit where the criteria of a mask are ignored, (patterns,)."""
        passes = (self.mask & ~ignoring) == 0
        return np.logical_or.reduceat(passes, self.starts) if len(self.starts) else np.zeros(0, dtype=np.bool_)


def patterns_of(failing: Failures) -> Patterns:
    """The patterns in which subjects fail."""
    mask, starts, count = _minimal(failing)
    known: dict[bytes, int] = {}
    number = np.array(
        [known.setdefault(mask[a : a + n].tobytes(), len(known)) for a, n in zip(starts, count, strict=True)],
        dtype=np.int64,
    )
    parts = [np.frombuffer(each, dtype=np.int64) for each in known]
    sizes = np.array([len(part) for part in parts], dtype=np.int64)
    joined = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    return Patterns(np.unique(failing.subject), number, joined, np.cumsum(sizes) - sizes)


def _minimal(failing: Failures) -> tuple[Ints, Ints, Ints]:
    """The masks that decide who is admitted under any subset of the criteria: those that contain no other one.

    Returns:
        The masks, (rows,); of each subject its first row, (subjects,), and its number of rows, (subjects,).
    """
    subject, mask = _without_repeats(failing.subject, failing.mask)
    is_kept = np.ones(len(mask), dtype=np.bool_)
    for distance in range(1, len(mask)):
        together = subject[distance:] == subject[:-distance]
        if not together.any():
            break
        # masks of a subject increase, so that none contains a later one
        contains = together & (mask[distance:] & mask[:-distance] == mask[:-distance])
        is_kept[distance:] &= ~contains
    subject, mask = subject[is_kept], mask[is_kept]
    starts = np.flatnonzero(np.diff(subject, prepend=-1) != 0)
    return mask, starts, np.diff(starts, append=len(mask))
