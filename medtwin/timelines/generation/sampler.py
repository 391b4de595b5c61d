"""A tile of subjects while their records are generated: step by step, and within a step event by event.

The same code follows a known record instead of drawing one: every decision is then the one that the record made, and
the noise that makes the model decide so is inferred (abduction). After a known beginning it draws on.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medtwin.timelines.generation.bounds import NumberBounds, Told
from medtwin.timelines.generation.noise import (
    CODE,
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
    WEEKDAY,
    WITHIN,
)
from medtwin.timelines.generation.tile import Context, Drawn, MaskedMass, SpecArrays, Tile, TimelineModel
from medtwin.timelines.heads import (
    FINE,
    abduct_category,
    abduct_mixture,
    mixture_mass,
    sample_categories,
    sample_mixture,
)
from medtwin.timelines.network.embedding import LEDGER
from medtwin.timelines.network.event_heads import NumberMemory
from medtwin.timelines.network.history import WASHOUT
from medtwin.timelines.network.layers import time_features
from medtwin.timelines.network.time_heads import DAYS, LEFT
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR
from medtwin.timelines.reading.gaps import MINUTES_PER_DAY, SLOTS, WEEK

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_WAITING = 2  # so many speak for every one that waits


class Sampler:
    """Generates one tile, each subject at a step and a place of its own.

    Those that are at the same kind of decision go on together.

    Args:
        model: What draws.
        tile: Who is drawn.
        mass: Where masked probability is counted.
    """

    def __init__(self, model: TimelineModel, tile: Tile, mass: MaskedMass) -> None:
        self.net, self.spec, self.masks = model.net, model.spec, model.masks
        self.tile, self.mass, self.noise = tile, mass, tile.noise
        self.known = SpecArrays(model.spec)
        self.bounds = NumberBounds(model.spec, self.known.scales)
        size, num_codes = len(tile.attributes), len(model.spec.vocabulary)
        self.limit = model.spec.settings.max_positions
        self.z = torch.from_numpy(tile.latent)
        self.sex = np.array([a.sex for a in tile.attributes])
        self.age_start = np.array([a.age_start_years for a in tile.attributes])
        self.start = np.array([a.start_minute for a in tile.attributes])
        self.end = self.start + np.array([a.window_minutes for a in tile.attributes])
        facts = torch.tensor([a.facts for a in tile.attributes], dtype=torch.float32).reshape(size, -1)
        self.given = model.net.attributes({"sex": torch.from_numpy(self.sex), "facts": facts})
        # Facts hold for the whole record: who is not to have a condition is never diagnosed with it.
        self.may_have = (1 - facts) @ model.net.conditions_of.T == 0
        if self.masks.needs is not None:  # nor does it have what only that condition brings
            self.may_have &= (1 - facts) @ torch.from_numpy(self.masks.needs).float() == 0
        index = self.known.death_fact
        self.dies = np.zeros(size, dtype=bool) if index is None else facts[:, index].numpy() > 0
        self.minute, self.gap = self.start.copy(), np.zeros(size, dtype=np.int64)
        self.step, self.place, self.num_said = (np.zeros(size, dtype=np.int64) for _ in range(3))
        self.previous = np.full(size, -1, dtype=np.int64)
        self.open_until = self.start.astype(np.float64)
        self.dead, self.done, self.is_cut = (np.zeros(size, dtype=bool) for _ in range(3))
        self.waits = np.zeros(size, dtype=bool)
        self.times_said = np.zeros((size, num_codes), dtype=np.int32)
        self.seen, self.now = (torch.zeros(size, num_codes, dtype=torch.bool) for _ in range(2))
        self.last_said, self.began = (torch.full((size, num_codes), float("-inf")) for _ in range(2))
        # Last, total and count of the numbers of every token; last and total of what was expected of them.
        self.memory = np.zeros((5, size, num_codes))
        self.ledger = torch.zeros(size, 2 * LEDGER)
        self.summed, self.before = (torch.zeros(size, model.net.width) for _ in range(2))
        self.context: Context | None = None
        self.caches = model.net.new_caches(size, min(64, self.limit + 1))
        self.log: list[tuple[Ints, Ints, Ints, Ints, Floats]] = []
        self._said: list[tuple[Ints, Ints]] = []

    def run(self) -> Drawn:
        """Generates until the records that are needed have ended."""
        rows = np.arange(len(self.sex))
        at = (torch.from_numpy(rows), torch.zeros(len(rows), dtype=torch.long))
        self._enter(rows, self.net.decode_step(self.net.first_input(self.given), self.z, self.caches, at))
        while not self.done[: self.tile.num_needed].all():
            alive = ~self.done
            waiting = np.flatnonzero(alive & self.waits)
            speaking = np.flatnonzero(alive & ~self.waits)
            # Transformers are worth their call for many at once.
            if len(speaking) and _WAITING * len(waiting) < len(speaking):
                self._speak(speaking)
            else:
                self._leave(waiting)
        return self._drawn()

    def _drawn(self) -> Drawn:
        empty = np.zeros(0, np.int64)
        row, step, token, minute, value = zip(*self.log, strict=True) if self.log else ([empty],) * 5
        rows, steps, tokens, minutes = (np.concatenate(parts) for parts in (row, step, token, minute))
        return Drawn(rows, steps, tokens, minutes, np.concatenate(value), self.is_cut)

    def _clock(self, rows: Ints) -> Tensor:
        window = (self.end - self.start)[rows] if self.net.sees_window else np.zeros(len(rows), dtype=np.int64)
        person = {
            "age_start_years": torch.from_numpy(self.age_start[rows]),
            "start_minute": torch.from_numpy(self.start[rows]),
            "window_minutes": torch.from_numpy(window),
            "year_scale": self.net.year_scale.expand(len(rows), 2),
        }
        is_open = np.maximum(self.open_until - self.minute, 0)[rows].astype(np.float32)
        minute, gap, opened = (torch.from_numpy(x[:, None]) for x in (self.minute[rows], self.gap[rows], is_open))
        return time_features(minute, gap, opened, person)[:, 0]

    # --- a step begins ---

    def _enter(self, rows: Ints, hidden: Tensor) -> None:
        """Lets subjects begin their step, of which the time is known."""
        clock, at = self._clock(rows), torch.from_numpy(rows)
        elapsed = torch.from_numpy((self.minute - self.start)[rows]).float()
        since = (elapsed[:, None] - self.last_said[at]).clamp(min=0)
        named = (torch.isfinite(since).float() @ self.net.conditions_of).clamp(max=1)
        person = self._person(rows, named)
        context = Context(
            begin=self.net.before_step(hidden, clock, person),
            types=self.net.codes.type_habits(person),
            habits=self.net.codes.habits(since, person),
            possible=self._possible(rows),
            person=person,
            said=self.net.values.said(since, elapsed[:, None] - self.began[at][:, self.net.values.causes]),
            clock=clock,
            of_values=self.net.values.step(person, clock),
        )
        if self.context is None:
            self.context = context
        else:
            self.context.put(at, context)
        self.summed[at], self.before[at] = 0.0, self.net.none_before
        self.previous[rows], self.place[rows], self.waits[rows] = -1, 0, False
        self.now[at] = False

    def _person(self, rows: Ints, named: Tensor) -> Tensor:
        """(rows, num_person) of which the record has named the facts `named`, (rows, K)."""
        at = torch.from_numpy(rows)
        left, window = (torch.from_numpy(self.end[rows] - since[rows]) for since in (self.minute, self.start))
        return self.net.known_person(torch.cat([self.given[at], self.z[at]], dim=-1), named, left, window)

    def _possible(self, rows: Ints) -> Tensor:
        """(rows, V) which tokens can be said in this step at all."""
        age = self.age_start[rows] + (self.minute - self.start)[rows] / MINUTES_PER_YEAR
        possible = torch.from_numpy(self.masks.allowed(self.sex[rows], age)) & self.may_have[torch.from_numpy(rows)]
        phase = torch.from_numpy((self.step[rows] > 0).astype(np.int64))
        possible = possible & self.known.phases[phase] & torch.from_numpy(~self.dead[rows])[:, None]
        if self.known.death_fact is not None:  # the window of who dies ends with death
            at_end = torch.from_numpy(self.minute[rows] >= self.end[rows])
            possible = possible & (at_end[:, None] | ~self.known.death)
        return possible

    # --- the events of a step ---

    def _speak(self, who: Ints) -> None:
        """The next event of each subject, or the end of its step."""
        if self.context is None:
            raise RuntimeError("nobody has begun a step")
        at = torch.from_numpy(who)
        context = self.context.at(at)
        so_far = (self.summed[at], self.before[at], self.ledger[at])
        state = self.net.decision(context.begin, so_far)
        uniforms = self.noise.uniforms(who, self.step[who], self.place[who], range(4))
        chosen = self._choose(who, state, context, uniforms)
        says = np.flatnonzero(chosen >= 0)
        self.waits[who[chosen < 0]] = True
        if len(says):
            kept = torch.from_numpy(says)
            self._say(who[says], chosen[says], (state[kept], context.at(kept)), uniforms[says])

    def _choose(self, who: Ints, state: Tensor, context: Context, uniforms: Floats) -> Ints:
        """The next token of each subject, or -1 where its step ends; what is impossible has no probability."""
        codes, before = self.net.codes, torch.from_numpy(self.previous[who])
        says_some = torch.from_numpy((self.step[who] == 0) | (self.previous[who] >= 0))  # no dated step is empty
        dies_now = self.dies[who] & ~self.dead[who] & (self.minute[who] >= self.end[who]) & (self.step[who] > 0)
        must_go = torch.from_numpy(dies_now)
        is_over = torch.from_numpy((self.num_said[who] + 1 >= self.limit) | self.dead[who])
        ordered = codes.allowed_codes(before, slice(None))
        is_left = torch.from_numpy(self.masks.is_left(self.times_said[who]))
        possible = context.possible & ordered & is_left & ~is_over[:, None]
        has_any = torch.zeros(len(who), codes.num_types).index_add_(1, codes.type_of, possible.float()) > 0
        in_order = codes.allowed_types(before, says_some)
        type_logits = (codes.type_out(state) + context.types).double()
        types = functional.softmax(type_logits.masked_fill(~in_order, float("-inf")), dim=-1)
        mass = types * torch.cat([has_any, ~must_go[:, None]], dim=-1)
        if dies_now.any():  # what would have ended the step ends the life
            death = codes.type_of[self.known.death][0]
            mass[:, death] += types[:, -1] * must_go * has_any[:, death]
        left = mass.sum(dim=-1)
        mass[left <= 0, -1] = 1.0  # a step in which nothing possible is left ends
        known = self._known_token(who)
        wanted = torch.where(known >= 0, codes.type_of[known.clamp(min=0)], codes.num_types)
        wanted = torch.where(known < -1, -1, wanted)
        kind = self._pick((who, TYPE), mass, uniforms[:, TYPE], wanted)
        says = torch.nonzero(kind < codes.num_types)[:, 0]
        in_type = ordered[says] & (codes.type_of == kind[says][:, None])
        logits = (codes.code_out(state[says]) + context.habits[says]).double().masked_fill(~in_type, float("-inf"))
        shares = functional.softmax(logits, dim=-1)
        allowed = shares * possible[says]
        kept = allowed.sum(dim=-1)
        self.mass.total += float((1 - left).clamp(min=0).sum() + (1 - kept).clamp(min=0).sum())
        self.mass.num_decisions += len(who)
        allowed = torch.where(kept[:, None] > 0, allowed, (possible[says] & in_type).double())
        token = np.full(len(who), -1, dtype=np.int64)
        index = says.numpy()
        token[index] = self._pick(
            (who[index], CODE), allowed, uniforms[index, CODE], torch.where(known < -1, -1, known)[says]
        ).numpy()
        return token

    def _known_token(self, who: Ints) -> Tensor:
        """The token that a followed record says here, -1 where its step ends, -2 where nothing is followed."""
        follows = self.tile.follows
        if follows is None:
            return torch.full((len(who),), -2)
        step, is_known = self.step[who], self.step[who] < self.tile.num_known[who]
        at = follows.step_offsets[:-1][who] + np.where(is_known, step, 0)
        first, stop = follows.event_offsets[:-1][at] + self.place[who], follows.event_offsets[1:][at]
        token = np.append(follows.token, -1)[np.minimum(first, len(follows.token))]
        return torch.from_numpy(np.where(is_known, np.where(first < stop, token, -1), -2).astype(np.int64))

    def _pick(self, at: tuple[Ints, int], mass: Tensor, uniform: Floats, known: Tensor) -> Tensor:
        """Categories (n,) by masses (n, C); `known` ones (-1: none) are kept, and their noise is inferred."""
        chosen = sample_categories(mass, torch.from_numpy(uniform))
        if self.tile.follows is None:
            return chosen
        followed = torch.nonzero(known >= 0)[:, 0]
        # What the masks forbid and the record says all the same has no noise that would make the model say it.
        value = abduct_category(mass[followed], known[followed], torch.from_numpy(uniform)[followed])
        who, channel = at
        rows = who[followed.numpy()]
        place = np.full(len(rows), END) if self.waits[rows].all() else self.place[rows]
        self.noise.infer(rows, self.step[rows], place, channel, value.numpy())
        return torch.where(known >= 0, known, chosen)

    def _say(self, who: Ints, what: Ints, given: tuple[Tensor, Context], uniforms: Floats) -> None:
        """Draws the numbers of the tokens `what` of subjects `who`, and notes the events."""
        state, context = given
        at, token = torch.from_numpy(who), torch.from_numpy(what)
        flag = self.known.has_number[what]
        last, total, count, last_expected, total_expected = self.memory[:, who, what]
        ledger, several = self.ledger[at], np.maximum(count, 1)
        now = self.now[at][:, self.net.values.causes]
        expected = self.net.values.expected(token, now, (context.person, context.clock, context.said))
        memory, above = (
            torch.from_numpy(np.stack([one, other / several, np.log1p(count)], axis=1).astype(np.float32))
            for one, other in ((last, total), (last - last_expected, total - total_expected))
        )
        elapsed = torch.from_numpy((self.minute - self.start)[who])
        since = (elapsed.float() - self.last_said[at, token]).clamp(min=0)
        earlier = NumberMemory(expected, above, memory[:, 0], since, torch.from_numpy(self.age_start[who]))
        parameters = self.net.values(token, state, earlier, (ledger, context.of_values))
        high = self.known.scales.high[token]
        past = self.known.histories
        if (tells := past.concerns(what)).any():
            high = torch.minimum(high, torch.from_numpy(past.most_ago(what, self.age_start[who])))
        low, high = self._bounded((who, what), torch.minimum(self.known.scales.low[token], high), high, parameters)
        law = (parameters, torch.from_numpy(uniforms[:, COMPONENT : WITHIN + 1]), low, high)
        raw, scaled = self.known.scales.decode(what, sample_mixture(*law, least=FINE).numpy())
        if tells.any():
            raw, scaled = past.to_the_day(what, self.age_start[who], (raw, scaled))
        if self.tile.follows is not None:
            scaled, raw, flag = self._follow_values((who, what), law, (scaled, raw, flag))
        scaled, raw = np.where(flag, scaled, 0.0), np.where(flag, raw, np.nan)
        numbers = (torch.from_numpy(scaled).float(), torch.from_numpy(flag))
        fresh = ~self.seen[at, token]
        self.ledger[at] += self.net.ledger(token, *numbers, memory, fresh)
        events = self.net.event(token, *numbers)
        self.summed[at] += events
        self.before[at] = events
        self.seen[at, token] = self.now[at, token] = True
        begins = fresh & (elapsed > WASHOUT)
        self.began[at[begins], token[begins]] = elapsed[begins].float()
        valued = who[flag], what[flag]
        self.memory[3][valued] = expected.numpy()[flag]
        self.memory[4][valued] += expected.numpy()[flag]
        self._note(who, what, scaled, raw, flag)

    def _note(self, who: Ints, what: Ints, scaled: Floats, raw: Floats, flag: Bools) -> None:
        valued = who[flag], what[flag]
        self.memory[0][valued] = scaled[flag]
        self.memory[1][valued] += scaled[flag]
        self.memory[2][valued] += 1
        opens = self.known.is_encounter[what] & flag & np.isfinite(raw)
        if opens.any():
            until = self.minute[who[opens]] + raw[opens]
            self.open_until[who[opens]] = np.maximum(self.open_until[who[opens]], until)
        self.dead[who] |= self.known.death.numpy()[what] & (self.step[who] > 0)
        self.log.append((who, self.step[who], what, self.minute[who], raw))
        self._said.append((who, what))
        self.times_said[who, what] += 1
        self.previous[who] = what
        self.place[who] += 1
        self.num_said[who] += 1

    def _follow_values(
        self, event: tuple[Ints, Ints], law: tuple[Tensor, ...], drawn: tuple[Floats, Floats, Bools]
    ) -> tuple[Floats, Floats, Bools]:
        """The numbers of followed records in the place of drawn ones, and the noise behind them."""
        follows, (who, what) = self.tile.follows, event
        rows = np.flatnonzero(self.step[who] < self.tile.num_known[who])
        if follows is None or not len(rows):
            return drawn
        scaled, raw, flag = drawn[0].copy(), drawn[1].copy(), drawn[2].copy()
        mine = who[rows]
        at = follows.event_offsets[:-1][follows.step_offsets[:-1][mine] + self.step[mine]] + self.place[mine]
        scaled[rows], flag[rows] = follows.value[at], follows.has_value[at]
        raw[rows] = self.known.scales.decode(what[rows], scaled[rows])[0]
        parameters, uniforms, low, high = (part[torch.from_numpy(rows)] for part in law)
        inferred = abduct_mixture(parameters, torch.from_numpy(scaled[rows]), uniforms, low, high, FINE).numpy()
        for column, channel in enumerate((COMPONENT, WITHIN)):
            self.noise.infer(mine, self.step[mine], self.place[mine], channel, inferred[:, column])
        return scaled, raw, flag

    def _bounded(
        self, event: tuple[Ints, Ints], low: Tensor, high: Tensor, parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Bounds of the scaled numbers of tokens, (n,) each, that the identities leave which they complete."""
        rows = self.bounds.concerns(event[1])
        if not len(rows):
            return low, high
        who, what = event[0][rows], event[1][rows]
        at, elapsed = torch.from_numpy(who), torch.from_numpy((self.minute - self.start)[who]).float()
        cells, places = (at[:, None], torch.from_numpy(self.bounds.inputs)), (who[:, None], self.bounds.inputs)
        since = (elapsed[:, None] - self.last_said[cells]).masked_fill(self.now[cells], 0.0).numpy()
        told = Told(
            scaled=self.memory[0][places],
            since=np.where(self.memory[2][places] > 0, since, np.inf),
            age_years=self.age_start[who] + elapsed.numpy() / MINUTES_PER_YEAR,
            sex=self.sex[who],
        )
        mine = torch.from_numpy(rows)
        ends = self.bounds(what, told, low[mine].numpy(), high[mine].numpy())
        first, last = (
            bound.index_copy(0, mine, torch.from_numpy(end)) for bound, end in zip((low, high), ends, strict=True)
        )
        is_bound = torch.nonzero((first > low) | (last < high))[:, 0]
        if len(is_bound):
            usual, inside = (
                mixture_mass(parameters[is_bound], least[is_bound], most[is_bound], FINE)
                for least, most in ((low, high), (first, last))
            )
            self.mass.outside += float((1 - inside / usual.clamp(min=1e-300)).clamp(0, 1).sum())
            self.mass.num_bound += len(is_bound)
        return first, last

    # --- a step ends ---

    def _leave(self, rows: Ints) -> None:
        """Ends the step of subjects: their record stops, or goes on with the next step."""
        if self._said:
            who, what = (np.concatenate(parts) for parts in zip(*self._said, strict=True))
            leaves = np.isin(who, rows)
            elapsed = torch.from_numpy((self.minute - self.start)[who[leaves]]).float()
            self.last_said[who[leaves], what[leaves]] = elapsed
            self._said = [(who[~leaves], what[~leaves])]
        at, clock = torch.from_numpy(rows), self._clock(rows)
        x = self.net.step_input(self.summed[at], self.ledger[at], clock, self.given[at])
        position = torch.from_numpy(self.step[rows] + 1)
        hidden = self.net.decode_step(x, self.z[at], self.caches, (at, position))
        self.num_said[rows] += 1
        goes = self._end(rows, hidden, clock)
        self.step[rows] += 1
        if goes.any():
            self._enter(rows[goes], hidden[torch.from_numpy(goes)])

    def _end(self, rows: Ints, hidden: Tensor, clock: Tensor) -> Bools:
        """Which records go on, (n,), and the time of their next steps."""
        times, place = self.net.times, np.full(len(rows), END)
        is_first = self.step[rows] == 0  # when a record starts is an attribute
        state = times.state(hidden, clock)
        share = torch.sigmoid(times.stop_logit(state, clock).double()).numpy()
        uniforms = self.noise.uniforms(rows, self.step[rows], place, range(8))
        known_next = self._known_next(rows)
        stops = (uniforms[:, STOP] < share) & ~(self.dies & ~self.dead)[rows]
        follows = (known_next > -2) & ~is_first
        if follows.any():
            stops = np.where(follows, known_next == -1, stops)
            u, p = uniforms[follows, STOP], share[follows]
            value = np.where(stops[follows], u * p, p + u * (1 - p))
            self.noise.infer(rows[follows], self.step[rows[follows]], place[follows], STOP, value)
        is_full = self.num_said[rows] + 1 >= self.limit
        over = self.dead[rows] | (self.minute[rows] >= self.end[rows]) | is_full
        stops = (stops | (over & (known_next < 0))) & ~is_first
        if not self.spec.has_times:  # the static facts are the whole record
            stops = np.ones_like(stops)
        self.is_cut[rows] |= is_full & stops & ~self.dead[rows]
        later = self._next_minutes(rows, state, clock, uniforms, known_next)
        self.done[rows] |= stops
        moves = rows[~stops & ~is_first]
        self.gap[moves] = (later - self.minute[rows])[~stops & ~is_first]
        self.minute[moves] = later[~stops & ~is_first]
        return np.asarray(~stops)

    def _known_next(self, rows: Ints) -> Ints:
        """The time of a followed record's next step, -1 where it stops, -2 where nothing is followed any more."""
        follows = self.tile.follows
        if follows is None:
            return np.full(len(rows), -2, dtype=np.int64)
        step, num = self.step[rows] + 1, follows.num_steps[rows]
        at = follows.step_offsets[:-1][rows] + np.minimum(step, num - 1)
        ends = (step >= num) & (self.tile.num_known[rows] >= num) & ~follows.is_cut[rows]
        return np.where(step < self.tile.num_known[rows], follows.minute[at], np.where(ends, -1, -2))

    def _next_minutes(self, rows: Ints, state: Tensor, clock: Tensor, uniforms: Floats, known: Ints) -> Ints:
        """The time of each subject's next step, within its window: a gap beyond it has no probability."""
        times, gaps = self.net.times, self.spec.gaps
        last, now = self.end[rows], self.minute[rows]
        minutes = np.maximum(last - now, 1)
        days = np.maximum(last // MINUTES_PER_DAY - now // MINUTES_PER_DAY, 0)
        fits = torch.from_numpy(self._fitting(rows, minutes, days))
        chances = functional.softmax(times.gap_logits(state, clock).double(), dim=-1) * fits
        follows = torch.from_numpy(known >= 0)
        classes, sizes, clocks = gaps.encode(now, np.where(known >= 0, known, now), last)

        def pick(channel: int, mass: Tensor, wanted: Ints) -> Tensor:
            chosen = torch.where(follows, torch.from_numpy(wanted), -1)
            return self._pick((rows, channel), mass, uniforms[:, channel], chosen)

        gap_class = pick(GAP, chances, classes)
        kinds = times.kind[gap_class].numpy()
        sizes_at_most = [np.log(np.maximum(days, 1) + WEEK / 2 - 0.01), gaps.longest_left(now, last)]
        most = torch.from_numpy(np.select([kinds == DAYS, kinds == LEFT], sizes_at_most, np.log(minutes)))
        pair = torch.from_numpy(uniforms[:, SIZE_COMPONENT : SIZE_WITHIN + 1])
        law = (times.size_parameters(state, gap_class), pair, torch.zeros(len(rows)), most)
        size = sample_mixture(*law)
        hour = pick(HOUR, functional.softmax(times.clock_logits(state, gap_class).double(), dim=-1), clocks // SLOTS)
        slots = functional.softmax(times.clock_logits(state, gap_class, hour).double(), dim=-1)
        slot = pick(SLOT, slots, clocks % SLOTS)
        clock_slot = (hour * SLOTS + slot).numpy()
        size = torch.where(follows, torch.from_numpy(sizes).double(), size)
        today = now // MINUTES_PER_DAY % WEEK
        week = times.weekday_logits(state, gap_class, size, torch.from_numpy(today)).double()
        week = functional.softmax(week, dim=-1) * torch.from_numpy(_reachable(today, days))
        weekday = pick(WEEKDAY, week, np.where(known >= 0, known, now) // MINUTES_PER_DAY % WEEK).numpy()
        later = gaps.decode(now, gap_class.numpy(), size.numpy(), clock_slot, uniforms[:, MINUTE], last, weekday)
        later = np.where((kinds == LEFT) & self.dies[rows], last, later)  # death is where the window ends
        if follows.any():
            self._infer_sizes(rows[known >= 0], law, follows, sizes)
            part = (known[known >= 0] % 5 + 0.5) / 5
            mine = rows[known >= 0]
            self.noise.infer(mine, self.step[mine], np.full(len(mine), END), MINUTE, part)
        # On the last day the clock may run past the end.
        return np.where(known >= 0, known, np.minimum(later, np.maximum(last, now + 1)))

    def _infer_sizes(self, rows: Ints, law: tuple[Tensor, ...], follows: Tensor, sizes: NDArray[np.float32]) -> None:
        parameters, pair, low, high = (part[follows] for part in law)
        inferred = abduct_mixture(parameters, torch.from_numpy(sizes)[follows], pair, low, high).numpy()
        for column, channel in enumerate((SIZE_COMPONENT, SIZE_WITHIN)):
            self.noise.infer(rows, self.step[rows], np.full(len(rows), END), channel, inferred[:, column])

    def _fitting(self, rows: Ints, minutes: Ints, days: Ints) -> Bools:
        """(rows, classes) which gaps end within the window."""
        gaps = self.spec.gaps
        sizes = np.zeros((1, gaps.num_classes), dtype=np.int64)
        first = 1 + len(gaps.minute_points)
        sizes[0, 1:first] = gaps.minute_points
        fits = sizes <= minutes[:, None]
        fits[:, first : gaps.short_class] = np.array(gaps.day_points, dtype=np.int64) <= days[:, None]
        fits[:, gaps.long_class] = days >= 1
        fits[:, gaps.end_class] = self.end[rows] > self.minute[rows]
        return np.asarray(fits)


def _reachable(today: Ints, days: Ints) -> Bools:
    """(n, 7) weekdays that come within `days` (n,) days after weekdays `today` (n,); all where there is no day left."""
    ahead = (np.arange(WEEK) - today[:, None] - 1) % WEEK + 1
    return np.asarray((ahead <= days[:, None]) | (days < 1)[:, None])
