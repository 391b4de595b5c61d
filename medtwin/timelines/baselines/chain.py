"""A first-order Markov chain over the tokens of a record, and over the types of its steps for gaps and the end.

- What comes next follows from the state (`decisions`): the token before, and whether a new step begins. Counts of a
  token are smoothed by those of all tokens of its type, and these by the frequencies of all, by Witten and Bell's rule:
  p(c | s) = (n(s, c) + t(s) p(c | type of s)) / (n(s) + t(s)), t(s) the number of different things that followed s.
- The gap to the next step, or that there is none, follows from the type of the step's last token, from how much of the
  window has passed and is left (`position_of`), and from whether the person dies in it; smoothed in the same way over
  types, then over what is left, then over all.
- Its size follows from its class and the type; the clock time of a dated gap from the type, smoothed over types.
- A number follows from the last number of the same token: an autoregression of order one of normal scores, so that the
  numbers of a token have the distribution of the training subjects.

Source: Witten & Bell 1991, IEEE Trans Inf Theory 37:1085 (method C).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medtwin.core.codes import DEATH
from medtwin.timelines.baselines.decisions import (
    FIRST_TOKEN,
    NUM_LEFT,
    NUM_POSITIONS,
    StepEnds,
    parts_of,
    said,
    step_ends,
)
from medtwin.timelines.baselines.knots import Knots
from medtwin.timelines.baselines.tables import Tables
from medtwin.timelines.reading.gaps import HOURS, SLOTS
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import TimelineSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_VALUES = 5_000_000  # numbers that distributions and autocorrelations are taken of
_PAIRS = 10  # pairs of values that a correlation of 0 counts as
NAMES = (
    "follower_state", "follower", "follower_count", "type_counts", "code_counts", "next_cell", "next_count",
    "clock_counts", "size_values", "size_offsets", "number_values", "number_offsets", "persistence", "fact_shares",
)  # fmt: skip


def witten_bell(counts: Floats, backoff: Floats) -> Floats:
    """Shares, (..., C), of counts (..., C) smoothed by other shares (..., C), of which each row sums to 1.

    >>> witten_bell(np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), np.array([[0.2, 0.3, 0.5]])).round(2).tolist()
    [[0.48, 0.32, 0.2], [0.2, 0.3, 0.5]]
    """
    total, kinds = counts.sum(axis=-1, keepdims=True), (counts > 0).sum(axis=-1, keepdims=True)
    smoothed = (counts + kinds * backoff) / np.maximum(total + kinds, 1)
    return np.asarray(np.where(total > 0, smoothed, backoff))


def shares_of(counts: Floats) -> Floats:
    """Shares, (C,), of counts; all alike where nothing was counted."""
    total = counts.sum()
    return counts / total if total > 0 else np.full(len(counts), 1.0 / len(counts))


class Counting:
    """Counts a chain from training subjects, part by part.

    Args:
        spec: Of the run.
    """

    def __init__(self, spec: TimelineSpec) -> None:
        self._spec = spec
        self._num, self._type_of = len(spec.vocabulary), spec.vocabulary.type_of
        self._num_types = len(spec.vocabulary.types)
        self._pairs: list[tuple[Ints, Ints]] = []
        shape = (2, self._num_types, NUM_POSITIONS, spec.gaps.num_classes + 1)
        self._next_counts, self._clock_counts = np.zeros(shape), np.zeros((self._num_types, HOURS * SLOTS))
        self._fact_counts, self._num_subjects = np.zeros(spec.profile.num_facts), 0
        self._sizes: list[tuple[Floats, Ints, Ints]] = []
        self._numbers: list[tuple[Floats, Ints, Ints, Floats]] = []
        self._num_numbers = 0
        self._death = fact_index(spec, DEATH)

    def add(self, part: Sequences) -> None:
        """Counts some subjects."""
        state, target = said(part, self._num)
        self._pairs.append(_unique(state * (self._num + 1) + target))
        if len(self._pairs) > 50:
            self._pairs = [_merged(self._pairs)]
        self._fact_counts += part.facts.sum(axis=0)
        self._num_subjects += len(part)
        dies = np.zeros(len(part), dtype=bool) if self._death is None else part.facts[:, self._death] > 0
        ends = step_ends(part, self._spec.gaps, dies)
        is_dying = np.isin(ends.subject, np.asarray(part.subject_id)[dies])
        self._add_gaps(ends, is_dying)
        if self._num_numbers < _MOST_VALUES:
            self._add_numbers(part)

    def _add_gaps(self, ends: StepEnds, is_dying: NDArray[np.bool_]) -> None:
        gaps, kind = self._spec.gaps, self._type_of[ends.token]
        np.add.at(self._next_counts, (is_dying.astype(int), kind, ends.position, ends.gap_class), 1.0)
        is_sized = (ends.gap_class == gaps.short_class) | (ends.gap_class == gaps.long_class)
        group = size_group(kind, ends.gap_class == gaps.long_class, self._num_types)
        self._sizes.append((ends.log_size[is_sized], group[is_sized], ends.subject[is_sized]))
        has_clock = np.append(gaps.has_clock, False)[ends.gap_class]
        np.add.at(self._clock_counts, (kind[has_clock], ends.clock[has_clock]), 1.0)

    def _add_numbers(self, part: Sequences) -> None:
        at = np.flatnonzero(part.has_value)
        subject = np.asarray(part.subject_id)[part.subject_of_step()[part.step_of_event()[at]]]
        before = np.where(part.memory[at, 2] > 0, part.memory[at, 0], np.nan)
        self._numbers.append(
            (part.value[at].astype(np.float64), part.token[at].astype(np.int64), subject, before.astype(np.float64))
        )
        self._num_numbers += len(at)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The tables of a `Chain`, by `NAMES`."""
        code, count = _merged(self._pairs)
        state, token = np.divmod(code, self._num + 1)
        kinds = np.zeros((FIRST_TOKEN + 2 * self._num_types, self._num + 1))
        np.add.at(kinds, (kind_of_state(state, self._type_of, self._num_types), token), count)
        size, group, subject = (np.concatenate(column) for column in zip(*self._sizes, strict=True))
        whole = size_group(np.full(len(group), self._num_types), group >= self._num_types + 1, self._num_types)
        twice = (np.tile(size, 2), np.concatenate([group, whole]), np.tile(subject, 2))
        sizes = Knots.of(*twice, 2 * (self._num_types + 1))
        numbers, persistence = self._fit_numbers()
        return {
            "follower_state": state,
            "follower": token,
            "follower_count": count.astype(np.float64),
            "type_counts": kinds,
            "code_counts": np.bincount(token, count, self._num + 1),
            "next_cell": np.flatnonzero(self._next_counts),
            "next_count": self._next_counts[self._next_counts > 0],
            "clock_counts": self._clock_counts,
            "size_values": sizes.values,
            "size_offsets": sizes.offsets,
            "number_values": numbers.values,
            "number_offsets": numbers.offsets,
            "persistence": persistence,
            "fact_shares": self._fact_counts / self._num_subjects,
        }

    def _fit_numbers(self) -> tuple[Knots, Floats]:
        value, token, subject, before = (np.concatenate(column) for column in zip(*self._numbers, strict=True))
        knots = Knots.of(value, token, subject, self._num)
        known = np.isfinite(before)
        now, last = knots.score(token[known], value[known]), knots.score(token[known], before[known])
        sums = [np.bincount(token[known], each, self._num) for each in (now * last, now * now, last * last)]
        # Pairs that speak for no correlation hold back those of tokens that few people have twice.
        scale = np.sqrt((sums[1] + _PAIRS) * (sums[2] + _PAIRS))
        return knots, np.clip(sums[0] / scale, -0.99, 0.99)


def fact_index(spec: TimelineSpec, code: str) -> int | None:
    """The place of a fact in the profile, or None."""
    return spec.profile.facts.index(code) if code in spec.profile.facts else None


def size_group(kind: Ints, is_long: NDArray[np.bool_], num_types: int) -> Ints:
    """The group of a gap's size: minutes by type and of all types, then days by type and of all types."""
    return kind + is_long * (num_types + 1)


def kind_of_state(state: Ints, type_of: Ints, num_types: int) -> Ints:
    """What states share their smoothing with: the two that begin, then within steps and then at new ones by type."""
    number = len(type_of)
    is_token, token = state >= FIRST_TOKEN, np.maximum(state - FIRST_TOKEN, 0)
    is_new = token >= number
    return np.where(is_token, FIRST_TOKEN + type_of[token - number * is_new] + num_types * is_new, state)


def _unique(codes: Ints) -> tuple[Ints, Ints]:
    found, count = np.unique(codes, return_counts=True)
    return found, count.astype(np.int64)


def _merged(pairs: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    codes, counts = (np.concatenate(column) for column in zip(*pairs, strict=True))
    found, place = np.unique(codes, return_inverse=True)
    return found, np.bincount(place, counts, len(found)).astype(np.int64)


def count_chain(sequences: Sequences, spec: TimelineSpec) -> dict[str, NDArray[np.generic]]:
    """The tables of a chain, of all training subjects."""
    counting = Counting(spec)
    for part in parts_of(sequences):
        counting.add(part)
    return counting.arrays()


class Chain:
    """A counted chain, ready to be drawn from.

    Args:
        tables: What `count_chain` gave.
        spec: Of the run.
    """

    def __init__(self, tables: Tables, spec: TimelineSpec) -> None:
        self._tables = tables
        self.num_codes, self._type_of = len(spec.vocabulary), spec.vocabulary.type_of
        self._num_types = len(spec.vocabulary.types)
        self._num_next = spec.gaps.num_classes + 1
        self.sizes = Knots(tables["size_values"], tables["size_offsets"])
        self.numbers = Knots(tables["number_values"], tables["number_offsets"])
        self.persistence: Floats = tables["persistence"]

    @cached_property
    def _by_type(self) -> Floats:
        """(kinds, V + 1) shares by what states share."""
        frequency = shares_of(self._tables["code_counts"] + 1.0 / (self.num_codes + 1))
        return witten_bell(self._tables["type_counts"], frequency)

    @cached_property
    def _bounds(self) -> Ints:
        states = np.arange(FIRST_TOKEN + 2 * self.num_codes + 1)
        return np.searchsorted(self._tables["follower_state"], states)

    @cached_property
    def _next(self) -> Floats:
        """(2, types, positions, classes + 1) shares of gap classes, the last for the end of the record."""
        counts = np.zeros((2, self._num_types, NUM_POSITIONS, self._num_next))
        counts.flat[self._tables["next_cell"]] = self._tables["next_count"]
        by_position = counts.sum(axis=1)
        by_passed = by_position.reshape(2, -1, NUM_LEFT, self._num_next).sum(axis=2)
        pooled = np.stack([shares_of(each) for each in by_passed.sum(axis=1)])
        by_passed = np.repeat(witten_bell(by_passed, pooled[:, None]), NUM_LEFT, axis=1)
        return witten_bell(counts, witten_bell(by_position, by_passed)[:, None])

    @cached_property
    def _clocks(self) -> Floats:
        counts = self._tables["clock_counts"]
        return witten_bell(counts, shares_of(counts.sum(axis=0)))

    def following(self, state: Ints) -> Floats:
        """Probability of every token, and last of the step's end, after states (n,): (n, V + 1)."""
        first, last = self._bounds[state], self._bounds[state + 1]
        counts = np.zeros((len(state), self.num_codes + 1))
        row = np.repeat(np.arange(len(state)), last - first)
        at = np.arange(len(row)) + np.repeat(first - np.cumsum(last - first) + (last - first), last - first)
        counts[row, self._tables["follower"][at]] = self._tables["follower_count"][at]
        return witten_bell(counts, self._by_type[kind_of_state(state, self._type_of, self._num_types)])

    def going_on(self, token: Ints, position: Ints, dies: NDArray[np.bool_]) -> Floats:
        """Probability of every gap class, and last of the record's end, after steps (n,): (n, classes + 1)."""
        return np.asarray(self._next[dies.astype(int), self._type_of[token], position])

    def clocks(self, token: Ints) -> Floats:
        """Probability of clock slots, (n, 288)."""
        return np.asarray(self._clocks[self._type_of[token]])

    def log_size(self, token: Ints, is_long: NDArray[np.bool_], uniform: Floats) -> Floats:
        """Log sizes of gaps after steps that ended with tokens, (n,) each: minutes, or days where long."""
        kind = self._type_of[token]
        group = size_group(kind, is_long, self._num_types)
        group = np.where(
            self.sizes.has[group], group, size_group(np.full_like(kind, self._num_types), is_long, self._num_types)
        )
        drawn, has = np.zeros(len(token)), self.sizes.has[group]
        drawn[has] = self.sizes.value(group[has], uniform[has])
        return drawn
