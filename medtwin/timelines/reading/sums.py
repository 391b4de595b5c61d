"""What a spec takes from the sequences of the training subjects, part by part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medtwin.core.seeds import generator
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR, Attributes
from medtwin.timelines.reading.gaps import MINUTES_PER_DAY, GapCounts
from medtwin.timelines.reading.heaps import DAYS, HeapCounts, Heaps
from medtwin.timelines.reading.levels import FirstNumbers
from medtwin.timelines.reading.profile import MAX_SUBJECTS
from medtwin.timelines.reading.scales import Scale
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.vocabulary import Vocabulary

_MINUTES_OFF = 20.0  # scaled values are float32: how long ago something was decades ago is known to some minutes


class SequenceSums:
    """Sums over the sequences of the training subjects.

    Attributes:
        sex_counts, sex_totals, fact_counts, fact_totals, age_range, static_counts, most_said: As of `TimelineSpec`;
            ages are infinite where none is known.
        changes: (2, V) number and sum of absolute changes of numbers.
        youngest_onset: (V,) infinite where none is known.
        gaps: Counts of gaps. first: First numbers.
        subjects: Attributes of a random sample of subjects.
    """

    def __init__(
        self, vocabulary: Vocabulary, scales: Sequence[Scale | None], *, num_sexes: int, num_facts: int
    ) -> None:
        num_tokens = len(vocabulary)
        self._past = {
            index: scale
            for index, (token, scale) in enumerate(zip(vocabulary.tokens, scales, strict=True))
            if token.number == "ago" and scale is not None
        }
        self.youngest_onset = np.full(num_tokens, np.inf)
        self.sex_counts = np.zeros((num_tokens, num_sexes), dtype=np.int64)
        self.sex_totals = np.zeros(num_sexes, dtype=np.int64)
        self.fact_counts = np.zeros((num_tokens, num_facts), dtype=np.int64)
        self.fact_totals = np.zeros(num_facts, dtype=np.int64)
        self.age_range = np.stack([np.full(num_tokens, np.inf), np.full(num_tokens, -np.inf)], axis=1)
        self.static_counts = np.zeros((num_tokens, 2), dtype=np.int64)
        self.most_said = np.zeros(num_tokens, dtype=np.int64)
        self.changes = np.zeros((2, num_tokens))
        self._said = np.zeros((num_tokens, 2), dtype=np.int64)  # first, and again
        self._steps_after, self._num_steps = np.zeros(num_tokens, dtype=np.int64), 0
        self.gaps, self.first = GapCounts(), FirstNumbers()
        self._heaps, self._onsets = HeapCounts(), HeapCounts()
        self.subjects: list[Attributes] = []
        self._num_subjects = 0

    def add(self, part: Sequences) -> None:
        """Adds the subjects of a part."""
        subject_of_step, step = part.subject_of_step(), part.step_of_event()
        subject = subject_of_step[step]
        np.add.at(self.sex_counts, (part.token[part.is_first], part.sex[subject[part.is_first]]), 1)
        np.add.at(self.fact_counts, part.token[part.is_first], part.facts[subject[part.is_first]])
        self.fact_totals += part.facts.sum(axis=0, dtype=np.int64)
        self.sex_totals += np.bincount(part.sex, minlength=len(self.sex_totals))
        elapsed = (part.minute[step] - part.start_minute[subject]) / MINUTES_PER_YEAR
        age = part.age_start_years[subject] + elapsed
        aged = np.isfinite(age)
        np.minimum.at(self.age_range[:, 0], part.token[aged], age[aged])
        np.maximum.at(self.age_range[:, 1], part.token[aged], age[aged])
        is_dated = step != part.step_offsets[:-1][subject]
        np.add.at(self.static_counts, (part.token, is_dated.astype(int)), 1)
        later = np.flatnonzero(np.arange(len(subject_of_step)) > part.step_offsets[:-1][subject_of_step] + 1)
        self.gaps.add(part.minute[later - 1], part.minute[later])
        self._add_repetitions(part, subject, step)
        self._add_onsets(part, subject)
        told = part.has_value
        self._heaps.add(subject[told], part.token[told].astype(np.int64), part.value[told].astype(np.float32))
        known = told & (part.memory[:, 2] > 0)
        begins = told & ~known
        self.first.add(part.token[begins].astype(np.int64), part.value[begins].astype(np.float32), len(self._said))
        np.add.at(self.changes[0], part.token[known], 1)
        np.add.at(self.changes[1], part.token[known], np.abs(part.value - part.memory[:, 0])[known].astype(np.float64))
        self._add_subjects(part)

    def _add_repetitions(self, part: Sequences, subject: NDArray[np.int64], step: NDArray[np.int64]) -> None:
        said, times = np.unique(subject * len(self._said) + part.token, return_counts=True)
        np.maximum.at(self.most_said, said % len(self._said), times)
        first, num_steps = part.is_first, int(part.step_offsets[-1])
        cells = np.unique(part.token.astype(np.int64) * num_steps + step)  # a step may say a token twice
        num_first, num_said = (
            np.bincount(token, minlength=len(self._said)) for token in (part.token[first], cells // max(num_steps, 1))
        )
        self._said += np.stack([num_first, num_said - num_first], axis=1)
        np.add.at(self._steps_after, part.token[first], part.step_offsets[1:][subject[first]] - 1 - step[first])
        self._num_steps += num_steps

    def told_again(self) -> NDArray[np.int64]:
        """As of `TimelineSpec`."""
        steps = np.stack([self._num_steps - self._steps_after, self._steps_after], axis=1)
        return np.stack([steps, self._said], axis=2)

    def heaps(self, scales: Sequence[Scale | None]) -> tuple[Heaps, ...]:
        """The heaps of every token, of scales (V,)."""
        values = self._heaps.heaps(scales)
        ages = self._onsets.heaps([DAYS if token in self._past else None for token in range(len(scales))])
        days = [Heaps(tuple(DAYS.decode(np.array(age.values)).tolist()), age.log_odds, are_ages=True) for age in ages]
        return tuple(age if age.values else value for value, age in zip(values, days, strict=True))

    def _add_onsets(self, part: Sequences, subject: NDArray[np.int64]) -> None:
        age_start = part.age_start_years[subject]
        for token, scale in self._past.items():
            rows = np.flatnonzero((part.token == token) & part.has_value & np.isfinite(age_start))
            ago = scale.decode(part.value[rows].astype(np.float64)) / MINUTES_PER_YEAR
            years = age_start[rows] - ago
            self.youngest_onset[token] = np.min(years, initial=self.youngest_onset[token])
            days = years * MINUTES_PER_YEAR / MINUTES_PER_DAY
            whole = np.abs(days - np.rint(days)) < _MINUTES_OFF / MINUTES_PER_DAY
            scaled = DAYS.encode(np.rint(days[whole])).astype(np.float32)
            self._onsets.add(subject[rows[whole]], np.full(len(scaled), token), scaled)

    def _add_subjects(self, part: Sequences) -> None:
        for attributes in part.attributes():  # a reservoir (Vitter 1985, algorithm R)
            self._num_subjects += 1
            if len(self.subjects) < MAX_SUBJECTS:
                self.subjects.append(attributes)
            elif (place := int(generator(0, "sample", self._num_subjects).integers(self._num_subjects))) < MAX_SUBJECTS:
                self.subjects[place] = attributes
