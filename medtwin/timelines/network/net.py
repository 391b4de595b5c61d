"""The temporal VAE: a bidirectional encoder to one latent per patient, and a causal decoder conditioned on it.

A transformer reads the record step by step. What a step says is decided event by event from the state before the step,
its time, and what the step has said so far, in this order: does the step go on (type of the next event, or END), which
code, which number. Where the step ends it is decided whether the record stops, and when the next step is. So
p(x | z, attributes) is exact. The transformer sees one position per step, not per event, which is what makes long
records cheap.

Source of the VAE: Kingma & Welling 2014; of free bits: Kingma et al. 2016, section C.8; of history dropout: Bowman et
al. 2016; of sums as sets: Zaheer et al. 2017. See DESIGN section 4 and docs/results/timelines.md for what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from medtwin.timelines.heads import FINE, linear, mixture_log_prob
from medtwin.timelines.network.embedding import LEDGER, EventEmbedding, Ledger, running
from medtwin.timelines.network.event_heads import CodeHeads, NumberMemory, ValueHead
from medtwin.timelines.network.history import above_expected, said_among, since_began, since_said
from medtwin.timelines.network.layers import NUM_TIME_FEATURES, Block, Cache, time_features
from medtwin.timelines.network.time_heads import DAYS, LEFT, MINUTES, TimeHeads
from medtwin.timelines.reading.gaps import MINUTES_PER_DAY, WEEK
from medtwin.timelines.reading.spec import TimelineSpec

Batch = dict[str, Tensor]
SIZES = ("num_codes", "num_ancestors", "num_types", "num_gap_classes", "num_sexes", "num_facts")


class Posterior(NamedTuple):
    """Mean and log variance of q(z | x, attributes), each (batch, latent)."""

    mean: Tensor
    log_var: Tensor

    def sample(self) -> Tensor:
        """z, (batch, latent), by reparametrisation."""
        return self.mean + torch.exp(0.5 * self.log_var) * torch.randn_like(self.mean)

    def kl(self) -> Tensor:
        """KL divergence from N(0, I) per dimension in nats, (batch, latent). Source: Kingma & Welling 2014, app. B."""
        return 0.5 * (self.mean**2 + self.log_var.exp() - 1 - self.log_var)


class LogProb(NamedTuple):
    """Log probability per patient in nats, (batch,) each, by what was decided."""

    stop: Tensor
    gap: Tensor
    type: Tensor
    code: Tensor
    value: Tensor

    def total(self) -> Tensor:
        """Log p(x | z, attributes), (batch,)."""
        return self.stop + self.gap + self.type + self.code + self.value


class Forgetting(NamedTuple):
    """What the decoder is not told of a batch in training.

    Attributes:
        events: (E,) events that it does not see among the steps before.
        numbers: (batch,) subjects of whom it sees no number of the steps before: those numbers then have to follow from
            z and the attributes alone, as a subject's first ones do.
    """

    events: Tensor
    numbers: Tensor


class Read(NamedTuple):
    """A batch as the network reads it: what encoder and decoder share.

    Attributes:
        events: (E, width) every event.
        entries: (E, 2 LEDGER) what each adds to the ledger.
        steps: (batch, T, width) every step, of its events, time and person.
        clock: (batch, T, features) after what the step says.
        attributes: (batch, sexes + K).
    """

    events: Tensor
    entries: Tensor
    steps: Tensor
    clock: Tensor
    attributes: Tensor


class Known(NamedTuple):
    """What is known when a step begins, of all steps of a batch.

    Attributes:
        since: (steps, V) minutes since every token was last said, or inf.
        person: (steps, num_person) as of `TemporalVAE.known_person`.
        clock: (steps, features) before what the step says.
    """

    since: Tensor
    person: Tensor
    clock: Tensor


class TemporalVAE(nn.Module):
    """Encoder, decoder and heads.

    Args:
        sizes: num_codes, num_ancestors, num_types, num_gap_classes, num_sexes and num_facts of the spec; filled in by
            `train`.
        latent_dim: Of z; 0 gives the same decoder without a latent.
        width, num_layers, num_heads: Of the decoder; the encoder has half as many layers.
        dropout: In every block.
        sees_window: Whether the decoder is told for how long the record is looked at.
    """

    conditions_of: Tensor
    year_scale: Tensor

    def __init__(
        self,
        *,
        sizes: Mapping[str, int],
        latent_dim: int = 16,
        width: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.0,
        sees_window: bool = True,
    ) -> None:
        super().__init__()
        if missing := [name for name in SIZES if name not in sizes]:
            raise ValueError(f"sizes must name {', '.join(SIZES)}, got none of {', '.join(missing)}")
        num_codes, num_sexes, num_facts = (sizes[name] for name in ("num_codes", "num_sexes", "num_facts"))
        self.latent_dim, self.num_sexes, self.num_facts, self.width = latent_dim, num_sexes, num_facts, width
        self.num_codes, self.sees_window = num_codes, sees_window
        num_attributes = num_sexes + num_facts
        num_person = num_attributes + 3 * num_facts + latent_dim
        self.event = EventEmbedding(num_codes, sizes["num_ancestors"], sizes["num_types"], width)
        self.ledger = Ledger(num_codes)
        self.step_in = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.ledger_in = linear(2 * LEDGER, width, bias=False)
        self.time, self.person = nn.Linear(NUM_TIME_FEATURES, width), nn.Linear(num_attributes, width)
        self.begin = nn.Parameter(0.1 * torch.randn(width))
        self.latent_in = linear(latent_dim, width)
        self.decoder = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.encoder = nn.ModuleList(Block(width, num_heads, dropout) for _ in range((num_layers + 1) // 2))
        self.encoder_norm, self.pool = nn.LayerNorm(width), nn.Linear(width, 1)
        self.count_in, self.mean_in = (nn.Linear(num_codes, width, bias=False) for _ in range(2))
        self.summary = nn.Sequential(nn.LayerNorm(3 * width), nn.Linear(3 * width, width), nn.GELU())
        self.posterior = linear(width, 2 * latent_dim)
        self.who = linear(num_person, width, bias=False)
        self.when = nn.Sequential(nn.Linear(NUM_TIME_FEATURES, width), nn.GELU(), nn.Linear(width, width))
        self.prefix_in = nn.Sequential(nn.GELU(), nn.Linear(width, width))
        self.previous_in = nn.Linear(width, width, bias=False)
        self.none_before = nn.Parameter(torch.zeros(width))
        self.so_far_in = linear(2 * LEDGER, width, bias=False)
        self.decide_norm = nn.LayerNorm(width)
        self.decide = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.codes = CodeHeads(num_codes, sizes["num_types"], num_person, width)
        self.values = ValueHead(num_codes, num_person, width)
        self.times = TimeHeads(width, sizes["num_gap_classes"])
        self.bag_of_codes = nn.Sequential(
            nn.Linear(latent_dim + num_attributes + 1, 2 * width), nn.GELU(), nn.Linear(2 * width, num_codes)
        )
        self.register_buffer("conditions_of", torch.zeros(num_codes, num_facts))
        self.register_buffer("year_scale", torch.tensor([2000.0, 10.0]))

    def bind(self, spec: TimelineSpec) -> None:
        """Tells the untrained net which token is of which type and group, and how frequent; its state from then on."""
        vocabulary = spec.vocabulary
        self.event.ancestor_of.copy_(torch.from_numpy(vocabulary.ancestor_of))
        self.event.type_of.copy_(torch.from_numpy(vocabulary.type_of))
        codes = self.codes
        codes.type_of.copy_(torch.from_numpy(vocabulary.type_of))
        codes.root_of.copy_(torch.from_numpy(vocabulary.root_of))
        codes.is_root.copy_(torch.from_numpy(vocabulary.is_root))
        codes.type_bounds.copy_(torch.searchsorted(codes.type_of, torch.arange(codes.num_types + 1)))
        numbers = spec.scales, spec.heaps, spec.levels, spec.changes
        self.values.bind(torch.from_numpy(spec.causes(len(self.values.causes))), numbers)
        fact_of = torch.from_numpy(spec.fact_of)
        self.conditions_of.zero_()
        self.conditions_of[fact_of >= 0, fact_of[fact_of >= 0]] = 1
        counts = torch.from_numpy(spec.static_counts.sum(axis=1)).float() + 1
        per_type = torch.zeros(codes.num_types).index_add(0, codes.type_of, counts)
        with torch.no_grad():  # begin at the frequencies of the training subjects
            codes.begin_at(counts, torch.from_numpy(spec.told_again))
            codes.type_out.bias[:-1] = per_type.log() - per_type.log().mean()
        kinds = torch.from_numpy(spec.gaps.has_clock).long()  # 1: a clock follows
        kinds[spec.gaps.short_class] = MINUTES
        kinds[spec.gaps.long_class] = DAYS
        kinds[spec.gaps.end_class] = LEFT
        self.times.kind.copy_(kinds)
        self.year_scale.copy_(torch.tensor([spec.profile.year_mean, spec.profile.year_sd]))

    @torch.no_grad()
    def shrink(self, share: float) -> None:
        """Takes a share of the weights away that tie one feature to the number of one token: few tell of rare tokens.

        Those of z are left alone: a level that is the person's own has no other way into its first number.
        """
        values, first = self.values, self.num_sexes + self.num_facts
        kept = torch.full((values.trait.embedding_dim,), 1 - share, device=values.trait.weight.device)
        kept[first : first + self.latent_dim] = 1.0
        values.trait.weight.mul_(kept)
        for layer in (values.loading, values.effect, values.rhythm):
            layer.weight.mul_(1 - share)

    def attributes(self, batch: Batch) -> Tensor:
        """Sex, one-hot, and facts, (batch, sexes + K)."""
        sex = functional.one_hot(batch["sex"], self.num_sexes).float()
        return torch.cat([sex, batch["facts"].float()], dim=-1)

    def time_features(self, batch: Batch, open_minutes: str) -> Tensor:
        """What the clock says at each step, (batch, T, NUM_TIME_FEATURES)."""
        person = {name: batch[name] for name in ("age_start_years", "start_minute", "window_minutes")}
        if not self.sees_window:
            person["window_minutes"] = torch.zeros_like(person["window_minutes"])
        person["year_scale"] = self.year_scale.expand(len(batch["minute"]), 2)
        return time_features(batch["minute"], batch["gap_minutes"], batch[open_minutes], person)

    def read(self, batch: Batch) -> Read:
        """Events and steps as vectors, without latent and history."""
        events = self.event(batch["event_token"], batch["event_value"], batch["event_has_value"])
        attributes, clock = self.attributes(batch), self.time_features(batch, "open_minutes")
        steps = self._steps(events, batch["event_step"], clock, attributes)
        return Read(events, self._entries(batch), steps, clock, attributes)

    def _steps(self, events: Tensor, event_step: Tensor, clock: Tensor, attributes: Tensor) -> Tensor:
        batch, length, _ = clock.shape
        summed = torch.zeros(batch * length, self.width, device=events.device, dtype=events.dtype)
        said = summed.index_add(0, event_step, events).view(batch, length, self.width)
        steps: Tensor = self.step_in(said) + self.time(clock) + self.person(attributes)[:, None]
        return steps

    def encode(self, batch: Batch, read: Read | None = None) -> Posterior:
        """q(z | x, attributes)."""
        read = read or self.read(batch)
        valid, x = batch["step_valid"], read.steps
        for block in self.encoder:
            x = block(x, valid)
        x = self.encoder_norm(x)
        weights = functional.softmax(self.pool(x)[..., 0].masked_fill(~valid, float("-inf")), dim=-1)
        count, mean = self._summaries(batch)
        pooled = torch.cat([(weights[..., None] * x).sum(dim=1), self.count_in(count), self.mean_in(mean)], dim=-1)
        means, log_var = self.posterior(self.summary(pooled)).chunk(2, dim=-1)
        return Posterior(means, log_var.clamp(-8, 4))

    def _summaries(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log(1 + how often) and mean number of every token, (batch, V) each."""
        size = len(batch["sex"])
        at = batch["event_row"] * self.num_codes + batch["event_token"]
        flag = batch["event_has_value"].float()
        zeros = torch.zeros(size * self.num_codes, device=flag.device)
        count = zeros.index_add(0, at, torch.ones_like(flag))
        measured = zeros.index_add(0, at, flag)
        total = zeros.index_add(0, at, batch["event_value"] * flag)
        mean = total / measured.clamp(min=1)
        return torch.log1p(count).view(size, -1), mean.clamp(-6, 6).view(size, -1)

    def known_person(self, given: Tensor, named: Tensor, left: Tensor, window: Tensor) -> Tensor:
        """What is known of a person at a step, (n, num_person): also what is still to be diagnosed, and by when.

        Args:
            given: (n, sexes + K + latent) attributes and z.
            named: (n, K) facts that the record has named.
            left: (n,) minutes until the window ends.
            window: (n,) minutes of all of it.
        """
        facts = given[:, self.num_sexes : self.num_sexes + self.num_facts]
        pending = (facts - named).clamp(min=0) * float(self.sees_window)
        left = left.float().clamp(min=0)
        days, share = torch.log1p(left / 1440) / 8, left / window.float().clamp(min=1)
        return torch.cat([given, named, pending * days[:, None], pending * torch.exp(-8 * share)[:, None]], dim=-1)

    def decode(
        self, batch: Batch, read: Read, z: Tensor, forgetting: Forgetting | None = None
    ) -> tuple[Tensor, Tensor]:
        """Hidden states before and after each step, (batch, T, width) each.

        Args:
            batch: The patients.
            read: Of `read`.
            z: (batch, latent).
            forgetting: What is hidden; null: nothing.
        """
        length = read.steps.shape[1]
        steps, sums = read.steps, self._sums(batch, read.entries)
        if forgetting is not None:
            nameless = forgetting.numbers[batch["event_row"]][:, None]
            told = torch.where(nameless, self.event.name(batch["event_token"]), read.events)
            told = told.masked_fill(forgetting.events[:, None], 0.0)
            steps = self._steps(told, batch["event_step"], read.clock, read.attributes)
            latest = sums[..., LEDGER:].masked_fill(forgetting.numbers[:, None, None], 0.0)
            sums = torch.cat([sums[..., :LEDGER], latest], dim=-1)
        x = steps + self.ledger_in(sums / 4)
        x = torch.cat([(self.begin + self.person(read.attributes))[:, None], x], dim=1) + self.latent_in(z)[:, None]
        for block in self.decoder:
            x = block(x)
        hidden = self.norm(x)
        return hidden[:, :length], hidden[:, 1:]

    def _sums(self, batch: Batch, added: Tensor) -> Tensor:
        """The ledger after each step, (batch, T, 2 LEDGER)."""
        size, length = batch["step_valid"].shape
        per_step = torch.zeros(size * length, 2 * LEDGER, device=added.device).index_add(0, batch["event_step"], added)
        return per_step.view(size, length, -1).cumsum(dim=1)

    def _entries(self, batch: Batch) -> Tensor:
        names = ("event_token", "event_value", "event_has_value", "event_memory", "event_is_first")
        entries: Tensor = self.ledger(*(batch[name] for name in names))
        return entries.float()

    def decision(self, before: Tensor, so_far: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """What decides on the next event, (n, width).

        Args:
            before: (n, width) of `before_step`.
            so_far: Sum of the step's events so far, and the event before (or `none_before`), (n, width) each; the
                ledger (n, 2 LEDGER).
        """
        summed, previous, ledger = so_far
        x = before + self.prefix_in(summed) + self.previous_in(previous) + self.so_far_in(ledger / 4)
        out: Tensor = x + self.decide(self.decide_norm(x))
        return out

    def before_step(self, hidden: Tensor, clock: Tensor, person: Tensor) -> Tensor:
        """What is known when a step begins, (..., width): the past, the step's time, and the person."""
        out: Tensor = hidden + self.when(clock) + self.who(person)
        return out

    def log_prob(
        self, batch: Batch, read: Read, states: tuple[Tensor, Tensor], z: Tensor, forgetting: Forgetting | None = None
    ) -> LogProb:
        """Log p(x | z, attributes) per patient, from the hidden states of `decode`.

        Args:
            batch: The patients.
            read: Of `read`.
            states: Of `decode`.
            z: (batch, latent).
            forgetting: What is hidden, the same as in `decode`; then numbers are also taken for any that round to them.
        """
        size, length, _ = read.steps.shape
        before, after = states
        known = self._known(batch, torch.cat([read.attributes, z], dim=-1))
        habits = self.codes.type_habits(known.person), self.codes.habits(known.since, known.person)
        step, index, first = batch["decision_step"], batch["decision_event"], batch["decision_first"]
        at_start = index == first
        entered = read.entries
        previous = (
            torch.where(at_start[:, None], self.none_before, read.events.index_select(0, (index - 1).clamp(min=0)))
            if len(read.events)
            else self.none_before.expand(len(index), -1)
        )
        ledger = running(entered, batch["decision_subject"], index)
        if forgetting is not None:  # what the step itself says is known all the same
            forgets = forgetting.numbers[step // length][:, None]
            latest = torch.where(forgets, running(entered[:, LEDGER:], first, index), ledger[:, LEDGER:])
            ledger = torch.cat([ledger[:, :LEDGER], latest], dim=-1)
        begin = self.before_step(before.flatten(0, 1), known.clock, known.person)
        state = self.decision(begin.index_select(0, step), (running(read.events, first, index), previous, ledger))
        target = batch["decision_target"]
        token_before = torch.where(at_start, -1, batch["event_token"][(index - 1).clamp(min=0)])
        can_end = ~at_start | (step % length == 0)  # static facts may be none at all
        types, codes = self.codes.log_prob(state, habits, (step, token_before, target, can_end))
        row = step // length
        valued = torch.nonzero((target >= 0) & batch["event_has_value"][index.clamp(max=len(read.events) - 1)])[:, 0]
        values = self._number_log_prob(batch, index[valued], known, (state[valued], ledger[valued]), forgetting)
        ends = torch.nonzero(batch["stop"] >= 0, as_tuple=True)
        targets = {name: batch[name][ends] for name in ("stop", "gap_class", "gap_size", "clock", "weekday")}
        targets["today"] = batch["minute"][ends] // MINUTES_PER_DAY % WEEK
        if forgetting is not None:
            targets["gap_size"] = self.times.any_size(targets["gap_class"], targets["gap_size"])
        stop, gap = self.times.log_prob(after[ends], read.clock[ends], targets)

        def per_patient(part: Tensor, rows: Tensor) -> Tensor:
            return torch.zeros(size, device=part.device).index_add(0, rows, part.float())

        return LogProb(
            per_patient(stop, ends[0]),
            per_patient(gap, ends[0]),
            per_patient(types, row),
            per_patient(codes, row),
            per_patient(values, row[valued]),
        )

    def _number_log_prob(
        self,
        batch: Batch,
        told: Tensor,
        known: Known,
        decided: tuple[Tensor, Tensor],
        forgetting: Forgetting | None,
    ) -> Tensor:
        """Log density of numbers, (n,), of the events `told` (n,) with their state and ledger, (n, ...) each."""
        memory, value = batch["event_memory"][told], batch["event_value"][told]
        is_hidden = torch.zeros(len(told), dtype=torch.bool, device=value.device)
        if forgetting is not None:
            hides = forgetting.numbers[batch["event_row"][told]]
            is_hidden, memory = hides & (memory[:, 2] > 0), memory.masked_fill(hides[:, None], 0.0)
            # A rounded number is any number that rounds to it (Theis et al. 2016, section 3.1).
            value = value + (2 * torch.rand_like(value) - 1) * batch["event_half"][told]
        token, at, causes = batch["event_token"][told], batch["event_step"][told], self.values.causes
        said = self.values.said(known.since, since_began(batch, causes).flatten(0, 1))
        of_step = self.values.step(known.person, known.clock)
        person, clock, said, of_step = (x.index_select(0, at) for x in (known.person, known.clock, said, of_step))
        now = said_among(batch, causes, batch["event_first"][told], told)
        expected = self.values.expected(token, now, (person, clock, said), ~is_hidden)
        above = above_expected(batch, told, memory, expected)
        above = torch.cat([above[:, :2], torch.where(is_hidden, -1.0, above[:, 2])[:, None]], dim=-1)
        state, ledger = decided
        age_start = batch["age_start_years"][batch["event_row"][told]]
        earlier = NumberMemory(expected, above, memory[:, 0], known.since[at, token], age_start)
        parameters = self.values(token, state, earlier, (ledger, of_step))
        return mixture_log_prob(parameters, value, FINE)

    def _known(self, batch: Batch, given: Tensor) -> Known:
        """What is known at every step.

        When the next step is follows from what the record has said, not from what is still to be said: a visit that a
        pending diagnosis calls forth and that does not make it would call forth the next.
        """
        size, length = batch["step_valid"].shape
        since, said = since_said(batch, self.num_codes)
        named = functional.pad((said[:, :-1].float() @ self.conditions_of).clamp(max=1), (0, 0, 1, 0))
        left = (batch["start_minute"] + batch["window_minutes"])[:, None] - batch["minute"]
        window = batch["window_minutes"][:, None].expand(-1, length).flatten()
        given = given[:, None].expand(-1, length, -1).flatten(0, 1)
        person = self.known_person(given, named.flatten(0, 1), left.flatten(), window)
        clock = self.time_features(batch, "open_before").view(size * length, -1)
        return Known(since.view(size * length, -1), person, clock)

    def bag_of_codes_loss(self, batch: Batch, z: Tensor) -> Tensor:
        """Negative log likelihood in nats of which tokens a record says, (batch,), from z and attributes alone."""
        said = torch.zeros(len(z), self.num_codes, device=z.device)
        said[batch["event_row"], batch["event_token"]] = 1.0
        years = torch.log1p(batch["window_minutes"].double() / 525_960.0).float()[:, None]
        logits = self.bag_of_codes(torch.cat([z, self.attributes(batch), years], dim=-1))
        return functional.binary_cross_entropy_with_logits(logits, said, reduction="none").sum(dim=-1)

    def new_caches(self, batch_size: int, num_positions: int) -> list[Cache]:
        """Empty key/value caches for generation."""
        device = self.begin.device
        caches = []
        for block in self.decoder:
            heads = block.attention.num_heads  # type: ignore[union-attr]
            shape = (batch_size, int(heads), num_positions, self.width // int(heads))  # type: ignore[arg-type]
            caches.append(Cache(torch.zeros(shape, device=device), torch.zeros(shape, device=device)))
        return caches

    def decode_step(self, x: Tensor, z: Tensor, caches: list[Cache], at: tuple[Tensor, Tensor]) -> Tensor:
        """The hidden state after one further position of some rows, (n, width).

        Args:
            x: (n, width) of `first_input` or `step_input`.
            z: (n, latent).
            caches: Of `new_caches`; changed, and grown where they are full.
            at: Rows of the caches and positions, (n,) each: 0 for the first input, then one more for every step.
        """
        rows, position = at
        x = (x + self.latent_in(z))[:, None]
        for block, cache in zip(self.decoder, caches, strict=True):
            while int(position.max()) >= cache.keys.shape[2]:
                cache.grow()
            x = block.step(x, cache, rows, position)  # type: ignore[operator]
        out: Tensor = self.norm(x)[:, 0]
        return out

    def first_input(self, attributes: Tensor) -> Tensor:
        """What the decoder reads before the first step, (batch, width)."""
        out: Tensor = self.begin + self.person(attributes)
        return out

    def step_input(self, summed: Tensor, ledger: Tensor, clock: Tensor, attributes: Tensor) -> Tensor:
        """What the decoder reads of a step, (batch, width).

        Args:
            summed: (batch, width) sum of its events.
            ledger: (batch, 2 LEDGER) after it.
            clock: (batch, features) after it.
            attributes: (batch, sexes + K).
        """
        out: Tensor = self.step_in(summed) + self.time(clock) + self.person(attributes) + self.ledger_in(ledger / 4)
        return out
