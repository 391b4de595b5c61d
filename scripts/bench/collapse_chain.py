"""A generator of records that is cheap enough to be learned from its own twins again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medtwin.check.collapse.tokens import END, FIRST_EVENT, START, Coder
from medtwin.check.records import UNDATED, US_PER_YEAR, Records
from medtwin.core.codes import BIRTH

Ints = NDArray[np.int64]
FIRST_STEP_US = 1_577_836_800_000_000
"""2020-01-01, when the record of every twin begins."""


class RecordChain:
    """A first-order Markov chain over check's tokens: a code with its band of numbers, or a gap.

    What the token leaves open is drawn from the training records that have it: the number within its band, the hours
    within their class, the age at the start. Nothing is smoothed: what training does not hold is never said again.

    Args:
        training: Whom it learns from; at least one.
    """

    def __init__(self, training: Records) -> None:
        self._training, coder = training, Coder.of(training)
        told = coder.sequences(training)
        before = np.r_[START, told.token[:-1]]
        before[np.r_[True, told.subject[1:] != told.subject[:-1]]] = START
        pairs, count = np.unique(np.stack([before, told.token]), axis=1, return_counts=True)
        self._next, self._cumulative = pairs[1], np.cumsum(count)
        self._states, first = np.unique(pairs[0], return_index=True)
        self._start = np.r_[0, self._cumulative][first]
        self._end = np.r_[self._start[1:], self._cumulative[-1]]
        self._longest = int(np.bincount(told.subject).max())
        self._events = _Pool(*coder.event_tokens(training))
        self._gaps = _Pool(*coder.gap_tokens(training))
        ages = training.ages
        self._ages = ages[np.isfinite(ages)]

    def draw(self, number: int, rng: np.random.Generator) -> Records:
        """So many twins, in the vocabulary of those that it learned from."""
        subject, token = self._tokens(number, rng)
        is_gap = (token < FIRST_EVENT) & (token != END)
        chosen = np.flatnonzero(token >= FIRST_EVENT)
        row = self._events.draw(token[chosen], rng)
        length = np.zeros(len(token))
        length[is_gap] = self._gaps.draw(token[is_gap], rng)
        time = np.cumsum(length)
        first = np.searchsorted(subject, np.arange(number))
        clock = FIRST_STEP_US + (time - np.r_[time, 0.0][first][subject]).astype(np.int64)
        undated = self._training.time_us[row] == UNDATED
        made = replace(
            self._training,
            subjects=np.arange(number),
            subject=subject[chosen],
            time_us=np.where(undated, UNDATED, clock[chosen]),
            code=self._training.code[row],
            unit=self._training.unit[row],
            value=self._training.value[row],
            encounter=np.full(len(row), -1),
        )
        return self._with_birth(made, number, rng)

    def _tokens(self, number: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Tokens of all twins and whose they are, one twin after the other."""
        state, alive = np.full(number, START), np.arange(number)
        said: list[tuple[Ints, Ints]] = []
        for _ in range(self._longest):
            place = np.searchsorted(self._states, state[alive])
            low, high = self._start[place], self._end[place]
            picked = low + (rng.random(len(alive)) * (high - low)).astype(np.int64)
            token = self._next[np.searchsorted(self._cumulative, picked, side="right")]
            said.append((alive, token))
            state[alive] = token
            alive = alive[token != END]
            if not len(alive):
                break
        subject, token = (np.concatenate(part) for part in zip(*said, strict=True))
        order = np.argsort(subject, kind="stable")
        return subject[order], token[order]

    def _with_birth(self, made: Records, number: int, rng: np.random.Generator) -> Records:
        code = made.vocabulary.codes.get(BIRTH)
        if code is None or not len(self._ages):
            return made
        birth = FIRST_STEP_US - (rng.choice(self._ages, number) * US_PER_YEAR).astype(np.int64)
        born = replace(
            made,
            subject=np.arange(number),
            time_us=birth,
            code=np.full(number, code),
            unit=np.zeros(number, np.int64),
            value=np.full(number, np.nan, np.float32),
            encounter=np.full(number, -1),
        )
        both = _rows_of([born, made], [0, 0])
        return both.select(np.lexsort((both.time_us, both.subject)))


class _Pool:
    """Things to draw from by token."""

    def __init__(self, token: Ints, thing: NDArray[np.int64]) -> None:
        order = np.argsort(token, kind="stable")
        self._thing = thing[order]
        self._kinds, self._first, self._count = np.unique(token[order], return_index=True, return_counts=True)

    def draw(self, token: Ints, rng: np.random.Generator) -> Ints:
        place = np.searchsorted(self._kinds, token)
        return self._thing[self._first[place] + (rng.random(len(token)) * self._count[place]).astype(np.int64)]


def join(parts: Sequence[Records]) -> Records:
    """The records of several, which share a vocabulary, as those of different people."""
    number = np.cumsum([0, *(one.num_subjects for one in parts)])
    return replace(_rows_of(parts, number[:-1].tolist()), subjects=np.arange(number[-1]))


def _rows_of(parts: Sequence[Records], first: Sequence[int]) -> Records:
    """The events of several, whose subjects are numbered from there on."""
    return replace(
        parts[0],
        subject=np.concatenate([one.subject + start for one, start in zip(parts, first, strict=True)]),
        time_us=np.concatenate([one.time_us for one in parts]),
        code=np.concatenate([one.code for one in parts]),
        unit=np.concatenate([one.unit for one in parts]),
        value=np.concatenate([one.value for one in parts]),
        encounter=np.concatenate([one.encounter for one in parts]),
    )
