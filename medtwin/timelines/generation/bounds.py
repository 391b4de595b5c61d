"""Bounds of a number by the others of its moment: what completes an identity is drawn where it holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.timelines.generation.tile import ScaleTable
from medtwin.timelines.reading.identities import Identity
from medtwin.timelines.reading.spec import TimelineSpec, are_female

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Told:
    """What n subjects have said when a number is drawn.

    Attributes:
        scaled: (n, I) latest numbers of the tokens `NumberBounds.inputs`.
        since: (n, I) minutes since each was said: 0 in this step; inf where it had no number so far.
        age_years, sex: (n,) of the subjects, at this step.
    """

    scaled: Floats
    since: Floats
    age_years: Floats
    sex: Ints


class NumberBounds:
    """The bounds that the identities of a spec set.

    Attributes:
        inputs: (I,) tokens whose numbers bound others.

    Args:
        spec: Of the run.
        scales: Of all tokens.
    """

    def __init__(self, spec: TimelineSpec, scales: ScaleTable) -> None:
        self._scales, self._female = scales, are_female(spec.profile.sexes)
        self._identities = spec.identities
        self._completes = np.zeros((len(spec.identities), len(spec.vocabulary)), dtype=bool)
        for row, one in enumerate(spec.identities):
            self._completes[row, list(one.tokens[one.last])] = True
        self._any: Bools = np.asarray(self._completes.any(axis=0), dtype=bool)
        self.inputs = np.unique([token for one in spec.identities for each in one.tokens.values() for token in each])
        self.inputs = self.inputs.astype(np.int64)

    def concerns(self, what: Ints) -> Ints:
        """Places of the tokens, among `what` (n,), that may complete an identity or come before what does."""
        return np.flatnonzero(self._any[what])

    def __call__(self, what: Ints, told: Told, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Narrower bounds of the scaled numbers of tokens, (n,) each; as they are where the others leave nothing.

        Args:
            what: (n,) tokens.
            told: What their subjects have said.
            low: (n,) least scaled numbers otherwise.
            high: (n,) largest.
        """
        low, high = low.copy(), high.copy()
        for row, one in enumerate(self._identities):
            mine = np.flatnonzero(self._completes[row, what])
            if len(mine):
                self._narrow(one, (mine, what[mine]), told, (low, high))
        return low, high

    def _narrow(self, one: Identity, at: tuple[Ints, Ints], told: Told, ends: tuple[Floats, Floats]) -> None:
        rows, token = at
        values: dict[str, Floats] = {}
        known = np.ones(len(rows), dtype=bool)
        for name in one.others:
            values[name], is_there = self._latest(one, name, told, rows)
            known &= is_there
        if one.follows is not None:
            known &= ~self._latest(one, one.follows, told, rows)[1]
        values |= {"age": np.floor(told.age_years[rows]), "female": self._female[told.sex[rows]]}
        known &= one.about(told.age_years[rows], values["female"])
        if not known.any():
            return
        rows, token = rows[known], token[known]
        values = {name: each[known] for name, each in values.items()}
        least, most = (self._scales.raw(token, end[rows]) for end in ends)
        first, last = one.bounds(values, least, most)
        narrower = (first > least) | (last < most)
        first, last = self._scales.within(token, first, last)
        first, last = np.fmax(first, ends[0][rows]), np.fmin(last, ends[1][rows])
        fits = narrower & (first <= last)
        ends[0][rows[fits]], ends[1][rows[fits]] = first[fits], last[fits]

    def _latest(self, one: Identity, name: str, told: Told, rows: Ints) -> tuple[Floats, Bools]:
        """The latest number of an input, (n,), and whether it is recent enough."""
        place = np.searchsorted(self.inputs, one.tokens[name])
        since = told.since[rows][:, place]
        best = since.argmin(axis=1)
        value = self._scales.decode(self.inputs[place[best]], told.scaled[rows, place[best]])[0]
        return value, since[np.arange(len(rows)), best] <= one.within_minutes[name]
