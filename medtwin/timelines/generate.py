"""New timelines from a trained temporal VAE: fixed tiles of subjects, noise of each subject's own.

Subject *i* depends on (seed, i) only: its latent, attributes and every uniform number come from its own generators, and
it stands in the same row of a tile of the same shape whatever else is generated. Replaying the noise with another
attribute gives the counterfactual twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medtwin.core.codes import DEATH
from medtwin.core.seeds import generator
from medtwin.timelines.attributes import MINUTES_PER_YEAR, Attributes
from medtwin.timelines.gaps import MINUTES_PER_DAY, SLOTS
from medtwin.timelines.heads import sample_categories, sample_mixture
from medtwin.timelines.masks import Masks
from medtwin.timelines.net import Batch, TemporalVAE
from medtwin.timelines.scales import Scale
from medtwin.timelines.sequences import BOS, EVENT, STEP
from medtwin.timelines.spec import TimelineSpec
from medtwin.training.threads import torch_threads

TILE = 64
"""Subjects that are generated together. Part of what a seed means: another tile gives other last digits."""

STATIC = -(2**62)
"""The time of a static fact."""

_NUM_UNIFORMS = 10
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class Timeline:
    """One generated timeline.

    Attributes:
        index: Number of the twin.
        attributes: As drawn.
        latent: (latent,) z.
        tokens: Of every event, in order. minutes: Its time (minutes since 1970), or `STATIC`.
        steps: Number of the step that it stands in; static facts are step 0.
        values: Its number in the unit of the source, or nan.
        is_cut: Whether the record was longer than the model's context, and ends early.
    """

    index: int
    attributes: Attributes
    latent: NDArray[np.float32]
    tokens: list[int] = field(default_factory=list)
    minutes: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    is_cut: bool = False


@dataclass
class MaskedMass:
    """How much probability the hard masks took away, over all decisions: 0 is a model that needs none."""

    total: float = 0.0
    num_decisions: int = 0

    @property
    def share(self) -> float:
        """Mean share of probability that was masked."""
        return self.total / max(self.num_decisions, 1)


class ScaleTable:
    """The scales of all tokens as arrays, to decode many tokens at once."""

    def __init__(self, scales: Sequence[Scale | None]) -> None:
        plain = [scale or Scale("linear", 0.0, 1.0, 0.0, 0.0, 0) for scale in scales]
        self.low, self.high = (torch.tensor([getattr(s, name) for s in plain]) for name in ("low", "high"))
        self._scales = plain
        self.is_known = np.array([scale is not None for scale in scales])

    def decode(self, token: Ints, scaled: Floats) -> tuple[Floats, Floats]:
        """Values in the unit of the source, as a float32 column holds them, and scaled again, (n,) each."""
        raw, again = np.empty(len(token)), np.empty(len(token))
        for index in np.unique(token):
            mine = token == index
            raw[mine] = self._scales[index].decode(scaled[mine])
            again[mine] = self._scales[index].encode(raw[mine])
        return raw, np.where(np.isfinite(again), again, scaled)


@dataclass(frozen=True)
class TimelineModel:
    """What draws timelines.

    Attributes:
        net: Trained, bound to the spec.
        spec: Of the run.
        masks: What can be said of whom.
    """

    net: TemporalVAE
    spec: TimelineSpec
    masks: Masks


def generate_timelines(
    model: TimelineModel,
    *,
    num_subjects: int,
    seed: int,
    first: int = 0,
    mass: MaskedMass | None = None,
    wanted: Mapping[str, Any] | None = None,
) -> Iterator[Timeline]:
    """Timelines `first` to `first + num_subjects - 1`, in order.

    Args:
        model: What draws them.
        num_subjects: How many.
        first: Number of the first one, a multiple of TILE.
        seed: With the number of a twin it decides everything about it.
        mass: Is filled with the masked probability.
        wanted: Targets for attributes, as `AttributeLaw.draw` takes them.

    Raises:
        ConfigError: If no attributes meet the targets.
        ValueError: If `first` is no multiple of TILE.
    """
    if first % TILE:
        raise ValueError(f"first must be a multiple of {TILE}, got {first!r}")
    for start in range(first, first + num_subjects, TILE):
        drawn = [
            model.spec.attributes.draw(generator(seed, "attributes", index), wanted)
            for index in range(start, start + TILE)
        ]
        latent = [
            generator(seed, "latent", index).standard_normal(model.net.latent_dim)
            for index in range(start, start + TILE)
        ]
        tile = _Tile(model, start, seed, drawn, np.array(latent, dtype=np.float32))
        yield from tile.run(mass or MaskedMass(), min(TILE, first + num_subjects - start))


def replay_timeline(model: TimelineModel, timeline: Timeline, attributes: Attributes, seed: int) -> Timeline:
    """The same twin, latent and noise, with other attributes: the counterfactual.

    The twin keeps its row of the tile; with its own attributes it comes out as it was.
    """
    start = timeline.index // TILE * TILE
    row = timeline.index - start
    latent = np.zeros((TILE, model.net.latent_dim), dtype=np.float32)
    latent[:] = timeline.latent
    tile = _Tile(model, start, seed, [attributes] * TILE, latent)
    return tile.run(MaskedMass(), TILE)[row]


class _Tile:
    """The state of TILE subjects while they are generated, one position of each at a time."""

    def __init__(
        self,
        model: TimelineModel,
        start: int,
        seed: int,
        drawn: Sequence[Attributes],
        latent: NDArray[np.float32],
    ) -> None:
        self.net, self.spec, self.masks = model.net, model.spec, model.masks
        net, spec = model.net, model.spec
        size, num_codes = len(drawn), len(spec.vocabulary)
        self.limit = spec.settings.max_positions
        self.uniforms = np.stack(
            [generator(seed, "timeline", start + row).random((self.limit, _NUM_UNIFORMS)) for row in range(size)]
        )
        self.z = torch.from_numpy(latent)
        self.sex = np.array([a.sex for a in drawn])
        self.age_start = np.array([a.age_start_years for a in drawn])
        self.start = np.array([a.start_minute for a in drawn])
        self.window = np.array([a.window_minutes for a in drawn])
        self.person: Batch = {
            "sex": torch.from_numpy(self.sex),
            "age_start_years": torch.from_numpy(self.age_start),
            "start_minute": torch.from_numpy(self.start),
            "window_minutes": torch.from_numpy(self.window),
            "conditions": torch.tensor([a.conditions for a in drawn], dtype=torch.uint8).reshape(size, -1),
        }
        self.timelines = [Timeline(start + row, drawn[row], latent[row]) for row in range(size)]
        self.scales = ScaleTable(spec.scales)
        self.death = spec.vocabulary.where([DEATH])
        self.is_encounter = np.array([t.type == "Encounter" and t.number == "duration" for t in spec.vocabulary.tokens])
        self.is_past = np.array([token.number == "ago" for token in spec.vocabulary.tokens])
        self.said_static, self.said_dated = (spec.static_counts > 0).T
        self.has_number = spec.vocabulary.has_number & self.scales.is_known
        # The index conditions are given as a whole: who is not to have one is never diagnosed with it.
        has = torch.tensor([list(attributes.conditions) for attributes in drawn], dtype=torch.float32)
        self.may_have = ((1 - has.reshape(size, -1)) @ net.conditions_of.T == 0).numpy()
        self.kind, self.token = np.full(size, BOS), np.zeros(size, dtype=np.int64)
        self.value, self.flag = np.zeros(size), np.zeros(size, dtype=bool)
        self.minute, self.gap = self.start.copy(), np.zeros(size, dtype=np.int64)
        self.step, self.open_until = np.zeros(size, dtype=np.int64), self.start.copy()
        self.dead, self.done = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        self.seen = np.zeros((size, num_codes), dtype=bool)
        self.said = np.full((size, num_codes), -np.inf)
        self.known = (torch.zeros(size, 0), torch.zeros(size, 0))
        self.last, self.total, self.count = (np.zeros((size, num_codes)) for _ in range(3))
        self.bag = torch.zeros(size, net.bag.embedding_dim)
        self.num_seen = torch.zeros(size, 1)

    def run(self, mass: MaskedMass, num_rows: int) -> list[Timeline]:
        """Generates until the first `num_rows` subjects have stopped; the other rows fill the tile."""
        caches = self.net.new_caches(len(self.sex), self.limit)
        with torch.inference_mode(), torch_threads(1):
            for position in range(self.limit):
                hidden = self.net.decode_step(self._batch(), self._history(), self.z, caches, position)
                self._decide(hidden, self.uniforms[:, position], mass)
                if self.done[:num_rows].all():
                    break
        for timeline, done in zip(self.timelines, self.done, strict=True):
            timeline.is_cut = not done
        return self.timelines[:num_rows]

    def _history(self) -> torch.Tensor:
        return self.bag / torch.sqrt(1 + self.num_seen)

    def _batch(self) -> Batch:
        """The current position of every subject, as the net reads it."""
        columns = {
            "kind": self.kind,
            "token": self.token,
            "value": self.value.astype(np.float32),
            "has_value": self.flag,
            "minute": self.minute,
            "gap_minutes": self.gap,
            "open_minutes": np.maximum(self.open_until - self.minute, 0).astype(np.float32),
        }
        return {**self.person, **{name: torch.from_numpy(column[:, None]) for name, column in columns.items()}}

    def _decide(self, hidden: torch.Tensor, uniform: Floats, mass: MaskedMass) -> None:
        batch = self._batch()
        clock = self.net.time_features(batch)[:, 0]
        said = torch.from_numpy((self.minute - self.start)[:, None] - self.said).float()
        self.known = (self.net.person_of(self.net.attributes(batch), self.z, said), clock)
        active = ~self.done
        chosen = self._choose(hidden, said, torch.from_numpy(uniform[:, 0]), mass)
        says = active & (chosen < len(self.spec.vocabulary))
        ends = active & ~says
        if ends.any():
            self._end_steps(self.net.ending(hidden, clock), uniform, ends)
        if says.any():
            self._say(hidden, uniform, says, chosen)

    def _choose(self, hidden: torch.Tensor, said: torch.Tensor, uniform: torch.Tensor, mass: MaskedMass) -> Ints:
        """The next token of each subject, or V where its step ends; what is impossible has no probability."""
        kind, token = torch.from_numpy(self.kind), torch.from_numpy(self.token)
        ordered = self.net.allowed_codes(kind, token)
        types = self.net.type_out(hidden).masked_fill(~self.net.allowed_types(kind, token), float("-inf"))
        types = torch.softmax(types.double(), dim=-1)
        logits = self.net.code_logits(hidden, said, self.known[0]).double().masked_fill(~ordered, float("-inf"))
        weights = torch.exp(logits - logits.amax(dim=-1, keepdim=True))
        age = self.age_start + (self.minute - self.start) / MINUTES_PER_YEAR
        phase = np.where((self.step == 0)[:, None], self.said_static, self.said_dated)
        allowed = self.masks.allowed(self.sex, age) & phase & self.may_have & ~self.dead[:, None]
        possible = torch.from_numpy(allowed)
        every, left = (
            torch.zeros_like(types[:, :-1]).index_add(1, self.net.type_of, part)
            for part in (weights, weights * possible)
        )
        # A type keeps its probability as long as it has a code that is possible: the codes share it.
        kept = (types[:, :-1] / left.clamp(min=1e-300))[:, self.net.type_of] * weights * possible
        active = torch.from_numpy(~self.done)
        lost = (types[:, :-1] * (1 - left / every.clamp(min=1e-300)) * (every > 0)).sum(dim=-1)[active]
        mass.total, mass.num_decisions = mass.total + float(lost.sum()), mass.num_decisions + len(lost)
        everything = torch.cat([kept, types[:, -1:]], dim=-1)
        none_left = everything.sum(dim=-1) <= 0  # a step in which nothing possible is left ends, empty
        everything[none_left, -1] = 1.0
        return sample_categories(everything, uniform).numpy()

    def _say(self, hidden: torch.Tensor, uniform: Floats, says: NDArray[np.bool_], chosen: Ints) -> None:
        rows = np.flatnonzero(says)
        token = chosen[rows]
        valued = self.has_number[token]
        self.value[rows], self.flag[rows] = 0.0, valued
        raw = np.full(len(rows), np.nan)
        if valued.any():
            who, what = rows[valued], token[valued]
            raw[valued], self.value[who] = self._sample_values(hidden, uniform, who, what)
        fresh = ~self.seen[rows, token]
        embedded = self.net.bag(torch.from_numpy(token)) * torch.from_numpy(fresh)[:, None]
        self.bag[rows] += embedded
        self.num_seen[rows, 0] += torch.from_numpy(fresh).float()
        self.seen[rows, token] = True
        self.said[rows, token] = (self.minute - self.start)[rows]
        self.last[rows[valued], token[valued]] = self.value[rows[valued]]
        self.total[rows[valued], token[valued]] += self.value[rows[valued]]
        self.count[rows[valued], token[valued]] += 1
        opens = self.is_encounter[token] & np.isfinite(raw)
        ending = self.minute[rows[opens]] + raw[opens].astype(np.int64)
        self.open_until[rows[opens]] = np.maximum(self.open_until[rows[opens]], ending)
        self.dead[rows] |= np.isin(token, self.death)
        self.kind[rows], self.token[rows], self.gap[rows] = EVENT, token, 0
        for row, index, value in zip(rows.tolist(), token.tolist(), raw.tolist(), strict=True):
            timeline = self.timelines[row]
            timeline.tokens.append(index)
            timeline.values.append(value)
            timeline.minutes.append(int(self.minute[row]) if self.step[row] else STATIC)
            timeline.steps.append(int(self.step[row]))

    def _sample_values(self, hidden: torch.Tensor, uniform: Floats, who: Ints, what: Ints) -> tuple[Floats, Floats]:
        """Values of tokens `what` of subjects `who`, (n,) each: in the unit of the source, and scaled."""
        count = self.count[who, what]
        mean = self.total[who, what] / np.maximum(count, 1)
        memory = np.stack([self.last[who, what], mean, np.log1p(count)], axis=1).astype(np.float32)
        # All rows of the tile pass through the net, so that its shapes never depend on who says what.
        tokens, memories = np.zeros(len(self.sex), dtype=np.int64), np.zeros((len(self.sex), 3), dtype=np.float32)
        tokens[who], memories[who] = what, memory
        parameters = self.net.value_parameters(hidden, torch.from_numpy(tokens), torch.from_numpy(memories), self.known)
        pairs = torch.from_numpy(uniform[who, 1:3])
        at = torch.from_numpy(what)
        high = self.scales.high[at].double()
        high = torch.minimum(high, torch.from_numpy(self._most_ago(who, what)))
        scaled = sample_mixture(
            parameters[torch.from_numpy(who)], pairs, torch.minimum(self.scales.low[at], high), high
        )
        return self.scales.decode(what, scaled.numpy())

    def _most_ago(self, who: Ints, what: Ints) -> Floats:
        """The largest scaled number of each, (n,): history does not reach back before birth; else infinite."""
        most = np.full(len(who), np.inf)
        for place in np.flatnonzero(self.is_past[what]):
            scale, age = self.spec.scales[what[place]], self.age_start[who[place]]
            if scale is not None and np.isfinite(age):
                most[place] = scale.encode(np.array([max(age, 0.0) * MINUTES_PER_YEAR]))[0]
        return most

    def _end_steps(self, hidden: torch.Tensor, uniform: Floats, ends: NDArray[np.bool_]) -> None:
        stops = (
            ends
            & (self.step > 0)
            & (uniform[:, 3] < torch.sigmoid(self.net.stop_logit(hidden, self.known[1])).double().numpy())
        )
        stops |= ends & (self.dead | (self.minute >= self.start + self.window))
        later = np.where(self.step > 0, self._next_minutes(hidden, uniform), self.start)
        self.done |= stops
        goes = np.flatnonzero(ends & ~stops)
        self.gap[goes] = later[goes] - self.minute[goes]
        self.minute[goes] = later[goes]
        self.step[goes] += 1
        self.kind[goes], self.token[goes], self.value[goes], self.flag[goes] = STEP, 0, 0.0, False

    def _next_minutes(self, hidden: torch.Tensor, uniform: Floats) -> Ints:
        """The time of each subject's next step, within its window: a gap beyond it has no probability."""
        net, u = self.net, torch.from_numpy(uniform)
        last = self.start + self.window
        minutes = np.maximum(last - self.minute, 1)
        days = np.maximum(last // MINUTES_PER_DAY - self.minute // MINUTES_PER_DAY, 0)
        chances = torch.softmax(net.gap(hidden).double(), dim=-1) * torch.from_numpy(self._fitting(minutes, days))
        gap_class = sample_categories(chances, u[:, 4])
        x = hidden + net.gap_class(gap_class)
        is_long = net.gap_kind[gap_class] == 3
        parameters = net.size_parameters(x, is_long)
        most = torch.from_numpy(np.log(np.where(is_long.numpy(), np.maximum(days, 1) + 0.49, minutes)))
        size = sample_mixture(parameters, u[:, 5:7], torch.zeros(len(u)), most).numpy()
        hour = sample_categories(torch.softmax(net.clock_logits(hidden, gap_class).double(), dim=-1), u[:, 7])
        slots = net.clock_logits(hidden, gap_class, hour)
        slot = sample_categories(torch.softmax(slots.double(), dim=-1), u[:, 8])
        clock = (hour * SLOTS + slot).numpy()
        classes, gaps = gap_class.numpy(), self.spec.gaps
        columns = zip(
            self.minute.tolist(), classes.tolist(), size.tolist(), clock.tolist(), uniform[:, 9].tolist(), strict=True
        )
        later = np.array([gaps.decode(*row) for row in columns], dtype=np.int64)
        return np.asarray(
            np.minimum(later, np.maximum(last, self.minute + 1))
        )  # on the last day the clock may run past the end

    def _fitting(self, minutes: Ints, days: Ints) -> NDArray[np.bool_]:
        """(B, classes) which gaps end within the window."""
        gaps = self.spec.gaps
        sizes = np.zeros((1, gaps.num_classes), dtype=np.int64)
        first = 1 + len(gaps.minute_points)
        sizes[0, 1:first] = gaps.minute_points
        fits = sizes <= minutes[:, None]
        fits[:, first : gaps.short_class] = np.array(gaps.day_points, dtype=np.int64) <= days[:, None]
        fits[:, gaps.long_class] = days >= 1
        return np.asarray(fits)
