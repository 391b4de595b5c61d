"""Independent marginals: the floor. Sex, age and facts have their law; all else of a record is drawn by itself.

The number of steps, the events of a step, the gap to the next step, the code of an event and its number each have the
distribution of the training subjects, whoever it is, whatever came before and whatever time is left. A child of an
event (a component, a detail) comes beneath it by chance of its own. Facts are those that were drawn of the person
(`HardFacts`), and who is to die does so in the last step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.core.codes import DEATH
from medtwin.timelines.baselines.chain import count_chain, shares_of, size_group
from medtwin.timelines.baselines.decisions import parts_of
from medtwin.timelines.baselines.hard_facts import HardFacts, Persons
from medtwin.timelines.baselines.knots import Knots
from medtwin.timelines.baselines.law import CountedLaw, CountedSource
from medtwin.timelines.baselines.tables import Tables
from medtwin.timelines.baselines.walk import drawn_category
from medtwin.timelines.generation.generate import People, Timeline, timelines_of
from medtwin.timelines.generation.masks import Masks
from medtwin.timelines.generation.noise import (
    COMPONENT,
    END,
    GAP,
    HOUR,
    MINUTE,
    SIZE_COMPONENT,
    SIZE_WITHIN,
    SLOT,
    STOP,
    TYPE,
    WITHIN,
    Noise,
)
from medtwin.timelines.generation.tile import Drawn, MaskedMass
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import TimelineSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DEATH = 7  # the channel, where a step ends, by which the token of death is chosen
_AT_ONCE = 4096  # events whose codes are drawn at once
_STATIC, _DATED, _STEPS = range(3)  # groups of sizes: events of static facts, events of a step, steps of a record
_NAMES = (
    "code_counts", "gap_shares", "clock_shares", "gap_values", "gap_offsets", "number_values", "number_offsets",
    "size_values", "size_offsets", "fact_shares",
)  # fmt: skip


class Marginals(CountedLaw):
    """Independent marginals as a model.

    Args:
        sizes: Filled in from the data.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__(sizes)
        self.tables = Tables(_NAMES)

    def count(self, sequences: Sequences, spec: TimelineSpec, seed: int) -> None:
        """See `CountedLaw`."""
        chain, num_types = count_chain(sequences, spec), len(spec.vocabulary.types)
        classes = chain["next_cell"].astype(np.int64) % (spec.gaps.num_classes + 1)
        gap_counts = np.bincount(classes, chain["next_count"].astype(np.float64), spec.gaps.num_classes + 1)
        gap_shares = gap_counts[:-1].astype(np.float64)
        gap_shares[spec.gaps.end_class] = 0  # no record knows of its window here
        every = Knots(chain["size_values"].astype(np.float64), chain["size_offsets"].astype(np.int64))
        pooled = size_group(np.full(2, num_types), np.array([False, True]), num_types)
        gaps = [every.values[every.offsets[group] : every.offsets[group + 1]] for group in pooled]
        sizes = _sizes(sequences, spec)
        self.tables.fill(
            {
                "code_counts": spec.static_counts.astype(np.float64),
                "gap_shares": shares_of(gap_shares),
                "clock_shares": shares_of(chain["clock_counts"].sum(axis=0).astype(np.float64)),
                "gap_values": np.concatenate(gaps),
                "gap_offsets": np.cumsum([0, *(len(part) for part in gaps)]),
                "number_values": chain["number_values"],
                "number_offsets": chain["number_offsets"],
                "size_values": sizes.values,
                "size_offsets": sizes.offsets,
                "fact_shares": chain["fact_shares"],
            }
        )

    def _source(self, spec: TimelineSpec, masks: Masks) -> CountedSource:
        return _MarginalSource(self, spec, masks)


def _sizes(sequences: Sequences, spec: TimelineSpec) -> Knots:
    """How many events (children and death not counted) static facts and dated steps have, and steps records."""
    is_counted = spec.vocabulary.is_root & ~_is_death(spec)
    values, groups, subjects = [], [], []
    for part in parts_of(sequences):
        roots = np.bincount(part.step_of_event()[is_counted[part.token]], minlength=len(part.minute))
        number = np.arange(len(roots)) - part.step_offsets[:-1][part.subject_of_step()]
        values += [roots, part.num_steps - 1]
        groups += [np.where(number == 0, _STATIC, _DATED), np.full(len(part), _STEPS)]
        subjects += [np.asarray(part.subject_id)[part.subject_of_step()], np.asarray(part.subject_id)]
    return Knots.of(np.concatenate(values).astype(np.float64), np.concatenate(groups), np.concatenate(subjects), 3)


def _is_death(spec: TimelineSpec) -> NDArray[np.bool_]:
    is_death = np.zeros(len(spec.vocabulary), dtype=bool)
    is_death[spec.vocabulary.where([DEATH])] = True
    return is_death


@dataclass(frozen=True)
class _Events:
    """Events in the making, (E,) each; `number` is the event's place in its step, a child has its event's."""

    row: Ints
    step: Ints
    number: Ints
    token: Ints
    root: Ints
    uniform: Floats

    def take(self, at: NDArray[np.integer] | NDArray[np.bool_]) -> _Events:
        return _Events(*(getattr(self, name)[at] for name in self.__dataclass_fields__))


class _MarginalSource(CountedSource):
    def __init__(self, law: Marginals, spec: TimelineSpec, masks: Masks) -> None:
        super().__init__(law, spec)
        tables, vocabulary = law.tables, spec.vocabulary
        self._facts, self._tables = HardFacts(spec, masks, tables["fact_shares"]), tables
        self._gap_sizes = Knots(tables["gap_values"], tables["gap_offsets"])
        self._numbers = Knots(tables["number_values"], tables["number_offsets"])
        self._sizes = Knots(tables["size_values"], tables["size_offsets"])
        counts = tables["code_counts"]
        is_drawn = vocabulary.is_root & ~self._facts.is_death
        self._shares = np.stack([shares_of(counts[:, phase] * is_drawn) for phase in (0, 1)])
        per_root = np.bincount(vocabulary.root_of, counts.sum(axis=1) * vocabulary.is_root, len(vocabulary))
        self._child_share = counts.sum(axis=1) / np.maximum(per_root[vocabulary.root_of], 1)
        self._children = np.flatnonzero(~vocabulary.is_root)
        self._root_of = vocabulary.root_of

    def timelines(self, people: People, noise: Noise, mass: MaskedMass) -> list[Timeline]:
        persons = self._facts.persons(people.attributes[: people.num_needed])
        rows = np.arange(people.num_needed)
        uniforms = noise.uniforms(rows, np.zeros_like(rows), np.full(len(rows), END), (STOP, GAP))
        num_steps = np.maximum(self._counts(np.full(len(rows), _STEPS), uniforms), 1)
        minutes = self._minutes(persons, num_steps, noise)
        events, is_cut = self._places(num_steps, noise)
        events = self._coded(events, persons, minutes, noise, mass)
        events = self._with_children(events, persons, minutes, noise)
        events = self._with_death(events, persons, num_steps, noise)
        order = np.lexsort((events.token, events.number, events.root, events.step, events.row))
        events = events.take(order)
        raw = np.full(len(order), np.nan)
        flag = self._facts.has_number[events.token] & self._numbers.has[events.token]
        scaled = self._numbers.value(events.token[flag], events.uniform[flag])
        raw[flag] = self._facts.decode(events.token[flag], scaled, persons.age_start[events.row[flag]])
        minute = minutes[events.row, events.step]
        drawn = Drawn(events.row, events.step, events.token, minute, raw, is_cut)
        return timelines_of(drawn, people.attributes[: people.num_needed], people.latent, first=people.start)

    def _counts(self, group: Ints, uniforms: Floats) -> Ints:
        """Whole numbers whose mean is that of the training subjects', (n,)."""
        value = np.zeros(len(group))
        has = self._sizes.has[group]
        value[has] = self._sizes.value(group[has], uniforms[has, 0])
        return np.maximum(np.floor(value + uniforms[:, 1]), 0).astype(np.int64)

    def _minutes(self, persons: Persons, num_steps: Ints, noise: Noise) -> Ints:
        """(n, steps) times of steps; the first dated one begins with the record."""
        gaps, rows = self._facts.gaps, np.arange(len(num_steps))
        minutes = np.tile(persons.start[:, None], (1, int(num_steps.max()) + 1))
        for step in range(1, minutes.shape[1] - 1):
            place = (np.full(len(rows), step), np.full(len(rows), END))
            uniforms = noise.uniforms(rows, *place, range(MINUTE + 1))
            chosen = _pick(self._tables["gap_shares"], uniforms[:, GAP])
            size, is_long = np.zeros(len(rows)), (chosen == gaps.long_class).astype(np.int64)
            has = self._gap_sizes.has[is_long]
            size[has] = self._gap_sizes.value(is_long[has], uniforms[has, SIZE_WITHIN])
            clock = _pick(self._tables["clock_shares"], uniforms[:, HOUR])
            now = minutes[:, step]
            minutes[:, step + 1] = gaps.decode(now, chosen, size, clock, uniforms[:, MINUTE], now)
        return minutes

    def _places(self, num_steps: Ints, noise: Noise) -> tuple[_Events, NDArray[np.bool_]]:
        """Events without codes; and whose records are longer than is allowed, and are cut."""
        row = np.repeat(np.arange(len(num_steps)), num_steps + 1)
        step = np.arange(len(row)) - np.repeat(np.cumsum(num_steps + 1) - (num_steps + 1), num_steps + 1)
        uniforms = noise.uniforms(row, step, np.full(len(row), END), (SIZE_COMPONENT, SLOT))
        size = np.maximum(self._counts(np.where(step == 0, _STATIC, _DATED), uniforms), step > 0)
        total = np.cumsum(size + 1)
        first = np.flatnonzero(step == 0)
        used = total - (total[first] - size[first] - 1)[row]
        kept = used <= self._facts.limit
        is_cut = np.bincount(row[~kept], minlength=len(num_steps)) > 0
        row, step, size = row[kept], step[kept], size[kept]
        at = np.repeat(np.arange(len(row)), size)
        number = np.arange(len(at)) - np.repeat(np.cumsum(size) - size, size)
        none = np.full(len(at), -1, dtype=np.int64)
        uniform = noise.uniforms(row[at], step[at], number, (WITHIN,))[:, 0]
        return _Events(row[at], step[at], number, none, none, uniform), is_cut

    def _coded(self, events: _Events, persons: Persons, minutes: Ints, noise: Noise, mass: MaskedMass) -> _Events:
        """The events with their codes; one that nothing possible is left for is none."""
        token = np.full(len(events.row), -1, dtype=np.int64)
        for first in range(0, len(token), _AT_ONCE):
            some = events.take(np.arange(first, min(first + _AT_ONCE, len(token))))
            is_dated = some.step > 0
            shares = self._shares[is_dated.astype(int)] * persons.fact_weight[some.row]
            total = shares.sum(axis=1)
            shares = shares * self._facts.possible(persons, some.row, minutes[some.row, some.step], is_dated)
            left = shares.sum(axis=1)
            mass.total += float((1 - left / np.where(total > 0, total, 1.0)).clip(0).sum())
            mass.num_decisions += len(left)
            chosen = drawn_category(shares, noise.uniforms(some.row, some.step, some.number, (TYPE,))[:, 0])
            token[first : first + len(left)] = np.where(left > 0, chosen, -1)
        coded = _Events(events.row, events.step, events.number, token, token, events.uniform)
        return coded.take(token >= 0)

    def _with_children(self, events: _Events, persons: Persons, minutes: Ints, noise: Noise) -> _Events:
        found = [events]
        for ordinal, child in enumerate(self._children.tolist()):
            mine = events.take(self._root_of[events.token] == self._root_of[child])
            place = END + 1 + (mine.number * len(self._children) + ordinal) % (END - 1)
            uniforms = noise.uniforms(mine.row, mine.step, place, (COMPONENT, WITHIN))
            token = np.full(len(mine.row), child, dtype=np.int64)
            children = _Events(mine.row, mine.step, mine.number, token, mine.root, uniforms[:, 1])
            children = children.take(uniforms[:, 0] < self._child_share[child])
            at_time = (minutes[children.row, children.step], children.step > 0)
            found.append(children.take(self._facts.possible(persons, children.row, *at_time)[:, child]))
        return _joined(found)

    def _with_death(self, events: _Events, persons: Persons, num_steps: Ints, noise: Noise) -> _Events:
        row = np.flatnonzero(persons.dies & self._facts.death_shares.any())
        last = np.zeros_like(num_steps)
        np.maximum.at(last, events.row, events.step)
        step = np.maximum(last[row], 1)
        uniform = noise.uniforms(row, num_steps[row], np.full(len(row), END), (_DEATH,))[:, 0]
        token = _pick(self._facts.death_shares, uniform)
        return _joined([events, _Events(row, step, np.zeros_like(row), token, token, np.zeros(len(row)))])


def _pick(shares: Floats, uniform: Floats) -> Ints:
    """Indices, (n,), from shares (C,) and uniforms (n,)."""
    total = np.cumsum(shares)
    index: Ints = np.searchsorted(total, uniform * total[-1], side="right").astype(np.int64)
    return np.minimum(index, len(shares) - 1)


def _joined(parts: list[_Events]) -> _Events:
    return _Events(*(np.concatenate([getattr(p, name) for p in parts]) for name in _Events.__dataclass_fields__))
