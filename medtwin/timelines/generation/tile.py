"""Who is generated together, what is known of all of them, and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medtwin.core.codes import DEATH
from medtwin.timelines.generation.masks import MARGIN_YEARS, Masks
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.network.net import TemporalVAE
from medtwin.timelines.priors.shift import LatentShift
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR, Attributes
from medtwin.timelines.reading.gaps import MINUTES_PER_DAY
from medtwin.timelines.reading.heaps import MAX_HEAPS
from medtwin.timelines.reading.scales import Scale
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import TimelineSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass
class MaskedMass:
    """How much probability the hard masks took away, over all decisions: 0 is a model that needs none.

    Attributes:
        total: Of what is said. num_decisions: So many times.
        outside: Of numbers, beyond the bounds that identities leave. num_bound: So many numbers were bound.
    """

    total: float = 0.0
    num_decisions: int = 0
    outside: float = 0.0
    num_bound: int = 0

    @property
    def share(self) -> float:
        """Mean share of probability that was masked."""
        return self.total / max(self.num_decisions, 1)


@dataclass(frozen=True)
class TimelineModel:
    """What draws timelines.

    Attributes:
        net: Trained, bound to the spec.
        spec: Of the run.
        masks: What can be said of whom.
        shift: What z has in common with the attributes; None: nothing.
    """

    net: TemporalVAE
    spec: TimelineSpec
    masks: Masks
    shift: LatentShift | None = None

    @property
    def latent_dim(self) -> int:
        """Numbers of z."""
        return self.net.latent_dim


@dataclass(frozen=True)
class Drawn:
    """What a tile drew, in the order in which it was drawn; E events in all.

    Attributes:
        row, step, token, minute: (E,) of every event. value: (E,) in the unit of the source, or nan.
        is_cut: (rows,) whether the record was longer than the model's context, and ends early.
    """

    row: Ints
    step: Ints
    token: Ints
    minute: Ints
    value: Floats
    is_cut: Bools


@dataclass(frozen=True)
class Tile:
    """Who is generated together.

    Attributes:
        attributes: (R,) of the subjects.
        latent: (R, latent) their z.
        noise: Of R subjects; what is inferred of followed records is put into it.
        follows: Known records of the R subjects, or None.
        num_known: (R,) steps of the known record that are followed, the one of static facts included.
        num_needed: Rows whose records are wanted; the others fill the tile.
    """

    attributes: Sequence[Attributes]
    latent: NDArray[np.float32]
    noise: Noise
    num_needed: int
    follows: Sequences | None = None
    num_known: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


_ROUNDS, _TINY = 0.49, 1e-6  # of a unit of the last digit: what rounds to a number, and what rounding in a float is


class ScaleTable:
    """The scales of all tokens as arrays, to decode many tokens at once."""

    def __init__(self, scales: Sequence[Scale | None]) -> None:
        plain = [scale or Scale("linear", 0.0, 1.0, 0.0, 0.0, 0) for scale in scales]
        self.low, self.high = (torch.tensor([getattr(s, name) for s in plain]).double() for name in ("low", "high"))
        self._centre, self._width = (np.array([getattr(s, name) for s in plain]) for name in ("centre", "width"))
        self._decimals = np.array([scale.decimals for scale in plain])
        self._is_log, self._is_log1p = (np.array([s.form == form for s in plain]) for form in ("log", "log1p"))
        self.is_known = np.array([scale is not None for scale in scales])

    def decode(self, token: Ints, scaled: Floats) -> tuple[Floats, Floats]:
        """Values in the unit of the source, as a float32 column holds them, and scaled again, (n,) each."""
        is_log, is_log1p, unit = self._is_log[token], self._is_log1p[token], 10.0 ** self._decimals[token]
        with np.errstate(invalid="ignore", divide="ignore"):
            raw = np.rint(self.raw(token, scaled) * unit) / unit + 0.0
            # A number is scaled again as it will be read: from a float32 column, unless it is a duration.
            held = raw.astype(np.float32).astype(np.float64)
            again = np.where(is_log, np.log(held), np.where(is_log1p, np.log1p(raw), held))
        again = (again - self._centre[token]) / self._width[token]
        return raw, np.where(np.isfinite(again), again, scaled)

    def raw(self, token: Ints, scaled: Floats) -> Floats:
        """Values in the unit of the source, not rounded, (n,)."""
        is_log, is_log1p = self._is_log[token], self._is_log1p[token]
        shaped = scaled * self._width[token] + self._centre[token]
        with np.errstate(over="ignore"):  # of what is not scaled so
            return np.asarray(np.where(is_log, np.exp(shaped), np.where(is_log1p, np.expm1(shaped), shaped)))

    def within(self, token: Ints, first: Floats, last: Floats) -> tuple[Floats, Floats]:
        """Scaled bounds, (n,) each, of what rounds to numbers from `first` to `last`, or to the nearest to both."""
        unit = 10.0 ** self._decimals[token]
        low, high = np.ceil(first * unit - _TINY), np.floor(last * unit + _TINY)
        middle = np.rint((first + last) / 2 * unit)
        low, high = np.where(low > high, middle, low), np.where(low > high, middle, high)
        return self.encode(token, (low - _ROUNDS) / unit), self.encode(token, (high + _ROUNDS) / unit)

    def encode(self, token: Ints, raw: Floats) -> Floats:
        """Scaled values, (n,)."""
        is_log, is_log1p = self._is_log[token], self._is_log1p[token]
        with np.errstate(invalid="ignore", divide="ignore"):
            shaped = np.where(is_log, np.log(raw), np.where(is_log1p, np.log1p(raw), raw))
        return np.asarray((shaped - self._centre[token]) / self._width[token])


class Histories:
    """What the tokens tell whose number is how many minutes ago something began.

    Args:
        spec: Of the run.
        scales: Of its tokens.
    """

    def __init__(self, spec: TimelineSpec, scales: ScaleTable) -> None:
        self._scales = scales
        self._is_past = np.array([token.number == "ago" for token in spec.vocabulary.tokens]) & scales.is_known
        self._youngest = np.maximum(np.nan_to_num(spec.youngest_onset - MARGIN_YEARS), 0.0)
        self._ages = np.full((len(spec.heaps), MAX_HEAPS), np.nan)  # minutes
        for token, heaps in enumerate(spec.heaps):
            if heaps.are_ages:
                self._ages[token, : len(heaps.values)] = np.array(heaps.values) * MINUTES_PER_DAY

    def concerns(self, what: Ints) -> Bools:
        """Which of some tokens tell of a history, (n,)."""
        return np.asarray(self._is_past[what])

    def most_ago(self, what: Ints, age_start: Floats) -> Floats:
        """The largest scaled number of each, (n,): history does not reach back before the age at which it can begin.

        Args:
            what: (n,) tokens.
            age_start: (n,) age in years at the start of the record, or nan.
        """
        most = np.full(len(what), np.inf)
        rows = np.flatnonzero(self._is_past[what] & np.isfinite(age_start))
        years = np.maximum(age_start[rows] - self._youngest[what[rows]], 0.0)
        most[rows] = self._scales.encode(what[rows], years * MINUTES_PER_YEAR)
        return most

    def to_the_day(self, what: Ints, age_start: Floats, numbers: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        """Numbers, in minutes and scaled, (n,) each, that begin to the day where an age is one at which many began.

        Args:
            what: (n,) tokens.
            age_start: (n,) age in years at the start of the record, or nan.
            numbers: As drawn: a scaled number of decades tells the day, not the minute.
        """
        raw, scaled = numbers
        birth = age_start * MINUTES_PER_YEAR
        off = birth[:, None] - raw[:, None] - self._ages[what]
        distance = np.nan_to_num(np.abs(off), nan=np.inf)
        nearest = distance.argmin(axis=1)
        rows = np.flatnonzero(distance.min(axis=1) < MINUTES_PER_DAY / 2)
        raw, scaled = raw.copy(), scaled.copy()
        raw[rows] = np.rint(birth[rows] - self._ages[what[rows], nearest[rows]])
        scaled[rows] = self._scales.encode(what[rows], raw[rows])
        return raw, scaled


class SpecArrays:
    """What of a spec every tile needs, as arrays."""

    def __init__(self, spec: TimelineSpec) -> None:
        tokens = spec.vocabulary.tokens
        self.scales = ScaleTable(spec.scales)
        self.death = torch.zeros(len(tokens), dtype=torch.bool)
        self.death[torch.from_numpy(spec.vocabulary.where([DEATH]))] = True
        self.is_encounter = np.array([t.type == "Encounter" and t.number == "duration" for t in tokens])
        self.histories = Histories(spec, self.scales)
        said_static, said_dated = (spec.static_counts > 0).T
        self.phases = torch.from_numpy(np.stack([said_static, said_dated]))
        self.has_number = spec.vocabulary.has_number & self.scales.is_known
        place = {code: index for index, code in enumerate(spec.profile.facts)}
        self.death_fact = place.get(DEATH)


@dataclass(frozen=True)
class Context:
    """What holds for a step of n subjects: (n, ...) each."""

    begin: Tensor
    types: Tensor
    habits: Tensor
    possible: Tensor
    person: Tensor
    said: Tensor
    clock: Tensor
    of_values: Tensor

    def at(self, index: Tensor) -> Context:
        """That of some of the subjects."""
        return Context(**{each.name: getattr(self, each.name)[index] for each in fields(self)})

    def put(self, index: Tensor, other: Context) -> None:
        """Replaces that of some of the subjects."""
        for each in fields(self):
            getattr(self, each.name)[index] = getattr(other, each.name)
