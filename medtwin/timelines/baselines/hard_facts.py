"""What can be said of whom and when: the rules that every law of records is held to, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.timelines.generation.masks import Masks
from medtwin.timelines.generation.tile import SpecArrays
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR, Attributes
from medtwin.timelines.reading.spec import TimelineSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_LEAST_SHARE = 0.01  # a fact that fewer have is said no more eagerly than if so many had it


@dataclass(frozen=True)
class Persons:
    """Attributes of n subjects as arrays, (n, ...) each.

    Attributes:
        sex, age_start, start: As of `Attributes`. end: Of the window, minutes since 1970.
        fact_weight: (n, V) factors of tokens' probabilities: of one that names a fact 0 where the subject does not have
            it, else 1 / share of the training subjects that have it; 1 of all others.
        dies: Whether death is one of the subject's facts.
    """

    sex: Ints
    age_start: Floats
    start: Ints
    end: Ints
    fact_weight: Floats
    dies: Bools


class HardFacts:
    """The rules of a run.

    Args:
        spec: Of the run.
        masks: Of the run.
        fact_shares: (K,) share of the training subjects that have each fact.

    Attributes:
        limit: Positions after which a record is cut.
        is_death, has_number: (V,) of tokens.
        death_shares: (V,) shares of the tokens of death, 0 of all others.
        gaps: The law of gaps.
    """

    def __init__(self, spec: TimelineSpec, masks: Masks, fact_shares: Floats) -> None:
        arrays = SpecArrays(spec)
        vocabulary = spec.vocabulary
        self._masks, self._scales = masks, arrays.scales
        self._fact_of, self._death_fact = spec.fact_of, arrays.death_fact
        self._fact_weight = np.append(1.0 / np.maximum(fact_shares, _LEAST_SHARE), 1.0)
        self._phases, self._histories = arrays.phases.numpy(), arrays.histories
        self._root_of, self._is_root = vocabulary.root_of, vocabulary.is_root
        self.is_death, self.has_number = arrays.death.numpy(), arrays.has_number
        counts = spec.static_counts.sum(axis=1) * self.is_death
        self.death_shares = counts / max(int(counts.sum()), 1)
        self.limit, self.gaps = spec.settings.max_positions, spec.gaps

    def persons(self, attributes: Sequence[Attributes]) -> Persons:
        """Subjects as arrays."""
        facts = np.array([one.facts for one in attributes], dtype=bool).reshape(len(attributes), -1)
        none = np.ones((len(attributes), 1), dtype=bool)  # what -1 in `fact_of` points at
        weight = np.concatenate([facts, none], axis=1) * self._fact_weight
        start = np.array([one.start_minute for one in attributes], dtype=np.int64)
        return Persons(
            sex=np.array([one.sex for one in attributes], dtype=np.int64),
            age_start=np.array([one.age_start_years for one in attributes], dtype=np.float64),
            start=start,
            end=start + np.array([one.window_minutes for one in attributes], dtype=np.int64),
            fact_weight=weight[:, self._fact_of],
            dies=np.zeros(len(start), dtype=bool) if self._death_fact is None else facts[:, self._death_fact],
        )

    def possible(self, persons: Persons, rows: Ints, minute: Ints, is_dated: Bools) -> Bools:
        """(n, V) what can be said of subjects `rows` at these times, (n,) each."""
        age = persons.age_start[rows] + (minute - persons.start[rows]) / MINUTES_PER_YEAR
        possible = self._masks.allowed(persons.sex[rows], age) & self._phases[is_dated.astype(int)]
        if self._death_fact is not None:  # the window of who dies ends with death
            possible &= ~self.is_death | (minute >= persons.end[rows])[:, None]
        return np.asarray(possible)

    def ordered(self, previous: Ints) -> Bools:
        """(n, V) what may follow a token, or -1, in a step: groups never go back, children follow their open group."""
        before = np.maximum(previous, 0)
        open_root = self._root_of[before][:, None]
        is_same, place = self._root_of == open_root, np.arange(len(self._root_of))
        follows = (self._is_root & (self._root_of > open_root)) | (
            is_same & (self._is_root | (place > before[:, None]))
        )
        return np.where((previous >= 0)[:, None], follows, self._is_root)

    def decode(self, token: Ints, scaled: Floats, age_start: Floats) -> Floats:
        """Numbers in the unit of the source, (n,), within the bounds of their scales; history is never before birth."""
        low, high = self._scales.low.numpy()[token], self._scales.high.numpy()[token]
        is_bound = self._histories.concerns(token) & np.isfinite(age_start)
        most = np.where(is_bound, np.maximum(np.nan_to_num(age_start), 0.0) * MINUTES_PER_YEAR, 0.0)
        high = np.where(is_bound, np.minimum(high, self._scales.encode(token, most)), high)
        raw, _ = self._scales.decode(token, np.clip(scaled, np.minimum(low, high), high))
        return raw
