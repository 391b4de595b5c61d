"""A walk along the chain: the records of a tile of subjects, each at a place of its own, one decision at a time."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from medtwin.timelines.baselines.chain import Chain
from medtwin.timelines.baselines.decisions import AT_FIRST, AT_STATIC, FIRST_TOKEN, position_of
from medtwin.timelines.baselines.hard_facts import HardFacts
from medtwin.timelines.generation.generate import People, Timeline, timelines_of
from medtwin.timelines.generation.noise import END, GAP, HOUR, MINUTE, SIZE_WITHIN, TYPE, WITHIN, Noise
from medtwin.timelines.generation.tile import Drawn, MaskedMass
from medtwin.timelines.reading.gaps import MINUTES_PER_DAY, GapLaw

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Tilt(Protocol):
    """What bends a chain towards what one person is to have in all."""

    def weights(self, rows: Ints, step: Ints) -> Floats:
        """(n, V + 1) factors of the probabilities of tokens and of the step's end, of subjects at steps (n,)."""

    def note(self, rows: Ints, token: Ints) -> None:
        """Is told what was said, (n,) each."""

    def is_over(self, rows: Ints, step: Ints) -> Bools:
        """(n,) whether a record ends with this step, whatever the chain says."""

    def longest(self, rows: Ints, step: Ints, minutes_left: Ints) -> Floats:
        """(n,) minutes that the gap after a step may take at most."""

    def scores(self, rows: Ints, token: Ints, normal: Floats) -> Floats:
        """Normal scores of numbers, (n,), of standard normal noise (n,)."""


class Walk:
    """Generates the wanted subjects of a tile.

    Args:
        chain: What draws.
        facts: What can be said of whom.
        people: Who.
        noise: Of theirs.
        mass: Where masked probability is counted.
        tilt: Bends the chain; null: the chain as it was counted.
    """

    def __init__(
        self,
        chain: Chain,
        facts: HardFacts,
        people: People,
        noise: Noise,
        mass: MaskedMass,
        *,
        tilt: Tilt | None = None,
    ) -> None:
        self._chain, self._facts, self._people, self._noise, self._mass = chain, facts, people, noise, mass
        self._tilt = tilt
        num = people.num_needed
        self._persons = facts.persons(people.attributes[:num])
        self._minute = self._persons.start.copy()
        self._step, self._place, self._num_said = (np.zeros(num, dtype=np.int64) for _ in range(3))
        self._state = np.full(num, AT_STATIC, dtype=np.int64)
        self._previous = np.full(num, -1, dtype=np.int64)
        self._dead, self._done, self._is_cut = (np.zeros(num, dtype=bool) for _ in range(3))
        self._possible = np.zeros((num, chain.num_codes), dtype=bool)
        self._score = np.full((num, chain.num_codes), np.nan)
        self._log: list[tuple[Ints, Ints, Ints, Ints, Floats]] = []

    def timelines(self) -> list[Timeline]:
        """The records."""
        self._enter(np.arange(len(self._step)))
        while not self._done.all():
            self._decide(np.flatnonzero(~self._done))
        empty = np.zeros(0, np.int64)
        parts = self._log or [(empty, empty, empty, empty, np.zeros(0))]
        row, step, token, minute, value = (np.concatenate(column) for column in zip(*parts, strict=True))
        drawn = Drawn(row, step, token, minute, value.astype(np.float64), self._is_cut)
        people = self._people
        return timelines_of(drawn, people.attributes[: people.num_needed], people.latent, first=people.start)

    def _enter(self, rows: Ints) -> None:
        at_time = (rows, self._minute[rows], self._step[rows] > 0)
        self._possible[rows] = self._facts.possible(self._persons, *at_time) & ~self._dead[rows, None]
        self._previous[rows], self._place[rows] = -1, 0

    def _decide(self, rows: Ints) -> None:
        """The next token of each subject, or the end of its step."""
        step = self._step[rows]
        uniforms = self._noise.uniforms(rows, step, self._place[rows], range(WITHIN + 1))
        chances = self._chances(rows)
        chosen = drawn_category(chances, uniforms[:, TYPE])
        says = chosen < self._chain.num_codes
        self._say(rows[says], chosen[says], uniforms[says, WITHIN])
        if not says.all():
            self._leave(rows[~says])

    def _chances(self, rows: Ints) -> Floats:
        """Unnormalised probabilities, (n, V + 1): what is impossible has none, and is counted."""
        chances = self._chain.following(self._state[rows])
        if self._tilt is not None:
            chances *= self._tilt.weights(rows, self._step[rows])
        previous, is_static = self._previous[rows], self._step[rows] == 0
        chances[:, :-1] *= self._persons.fact_weight[rows] * self._facts.ordered(previous)
        must_die = self._persons.dies[rows] & ~self._dead[rows] & (self._minute[rows] >= self._persons.end[rows])
        must_die &= ~is_static
        # Who dies does so in the step at the end of the window, where this step would have ended.
        chances[:, :-1] += (must_die * chances[:, -1])[:, None] * self._facts.death_shares
        chances[:, -1] *= (is_static | (previous >= 0)) & ~must_die
        total = chances.sum(axis=1)
        is_full = self._num_said[rows] + 1 >= self._facts.limit
        chances[:, :-1] *= self._possible[rows] & ~is_full[:, None]
        left = chances.sum(axis=1)
        self._mass.total += float((1 - left / np.where(total > 0, total, 1.0))[total > 0].clip(0).sum())
        self._mass.num_decisions += len(rows)
        chances[left <= 0, -1] = 1.0  # a step in which nothing possible is left ends
        return chances

    def _say(self, rows: Ints, token: Ints, uniform: Floats) -> None:
        flag = self._facts.has_number[token] & self._chain.numbers.has[token]
        raw = np.full(len(rows), np.nan)
        raw[flag] = self._numbers(rows[flag], token[flag], ndtri(np.clip(uniform[flag], 1e-12, 1 - 1e-12)))
        if self._tilt is not None:
            self._tilt.note(rows, token)
        self._log.append((rows, self._step[rows], token, self._minute[rows], raw))
        self._dead[rows] |= self._facts.is_death[token] & (self._step[rows] > 0)
        self._previous[rows] = token
        self._state[rows] = FIRST_TOKEN + token
        self._place[rows] += 1
        self._num_said[rows] += 1

    def _numbers(self, rows: Ints, token: Ints, normal: Floats) -> Floats:
        """Numbers in the unit of the source, (n,), that follow those before them of the same tokens."""
        if self._tilt is not None:
            score = self._tilt.scores(rows, token, normal)
        else:
            before, rho = self._score[rows, token], self._chain.persistence[token]
            score = np.where(np.isfinite(before), rho * np.nan_to_num(before) + np.sqrt(1 - rho**2) * normal, normal)
            self._score[rows, token] = score
        scaled = self._chain.numbers.value(token, ndtr(score))
        return self._facts.decode(token, scaled, self._persons.age_start[rows])

    def _leave(self, rows: Ints) -> None:
        """Ends the step of subjects: their record stops, or goes on with the next step."""
        self._num_said[rows] += 1
        dated = self._step[rows] > 0
        stops = np.zeros(len(rows), dtype=bool)  # when a record starts is an attribute
        stops[dated], self._minute[rows[dated]] = self._next(rows[dated])
        self._done[rows[stops]] = True
        goes = rows[~stops]
        state = self._state[goes] + np.where(self._previous[goes] >= 0, self._chain.num_codes, 0)
        self._state[goes] = np.where(self._step[goes] == 0, AT_FIRST, state)
        self._step[goes] += 1
        self._enter(goes)

    def _next(self, rows: Ints) -> tuple[Bools, Ints]:
        """Whether records stop, and the time of their next steps, (n,) each."""
        now, end = self._minute[rows], self._persons.end[rows]
        is_going_to_die = self._persons.dies[rows] & ~self._dead[rows]
        token = np.maximum(self._previous[rows], 0)
        position = position_of(now - self._persons.start[rows], end - now)
        chances = self._chain.going_on(token, position, self._persons.dies[rows])
        gaps = self._facts.gaps
        chances[:, :-1] *= _fitting(gaps, now, end)
        chances[is_going_to_die, -1] = 0.0
        if self._tilt is not None:
            chances[:, -1] = 0.0
            chances[self._tilt.is_over(rows, self._step[rows])] = 0.0
        # Where nothing is left the record stops; who is to die goes on to the end of the window, and dies there.
        nowhere = chances.sum(axis=1) <= 0
        chances[nowhere, np.where(is_going_to_die, gaps.end_class, -1)[nowhere]] = 1.0
        uniforms = self._noise.uniforms(rows, self._step[rows], np.full(len(rows), END), range(MINUTE + 1))
        chosen = drawn_category(chances, uniforms[:, GAP])
        is_full = self._num_said[rows] + 1 >= self._facts.limit
        stops = (chosen == gaps.num_classes) | self._dead[rows] | (now >= end) | is_full
        self._is_cut[rows] |= is_full & ~self._dead[rows]
        gap_class = np.minimum(chosen, gaps.num_classes - 1)
        is_long = gap_class == gaps.long_class
        size = self._chain.log_size(token, is_long, uniforms[:, SIZE_WITHIN])
        if self._tilt is not None:
            most = self._tilt.longest(rows, self._step[rows], end - now) / np.where(is_long, MINUTES_PER_DAY, 1)
            size = np.minimum(size, np.log(np.maximum(most, 1.0)))
        clock = drawn_category(self._chain.clocks(token), uniforms[:, HOUR])
        later = gaps.decode(now, gap_class, size, clock, uniforms[:, MINUTE], end)
        return stops, np.where(stops, now, np.minimum(later, end))


def _fitting(gaps: GapLaw, now: Ints, end: Ints) -> Bools:
    """(n, classes) which gaps end within the window."""
    minutes, days = end - now, end // MINUTES_PER_DAY - now // MINUTES_PER_DAY
    fits = np.ones((len(now), gaps.num_classes), dtype=bool)
    first = 1 + len(gaps.minute_points)
    fits[:, 1:first] = np.array(gaps.minute_points, dtype=np.int64) <= minutes[:, None]
    fits[:, first : gaps.short_class] = np.array(gaps.day_points, dtype=np.int64) <= days[:, None]
    fits[:, gaps.short_class] = fits[:, gaps.end_class] = minutes > 0
    fits[:, gaps.long_class] = days >= 1
    return fits


def drawn_category(mass: Floats, uniform: Floats) -> Ints:
    """Indices, (n,), by inverse distribution function from unnormalised masses (n, C) and uniforms (n,)."""
    total = np.cumsum(mass, axis=1)
    index = (total <= (uniform * total[:, -1])[:, None]).sum(axis=1)
    return np.asarray(np.minimum(index, mass.shape[1] - 1))
