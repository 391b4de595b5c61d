"""The temporal VAE: a bidirectional encoder to one latent per patient, and a causal decoder conditioned on it.

The decoder decides at every position in this order: does the step go on (type of the next event, or END), which code,
which value; and where the step ends: does the record stop, when is the next step. So p(x | z, attributes) is exact.
Source of the VAE: Kingma & Welling 2014; of free bits: Kingma et al. 2016, section C.8; of history dropout: Bowman et
al. 2016. See DESIGN section 4 for what was measured.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from medtwin.timelines.gaps import HOURS, SLOTS
from medtwin.timelines.heads import masked_log_softmax, mixture_log_prob
from medtwin.timelines.layers import NUM_TIME_FEATURES, Block, Cache, time_features
from medtwin.timelines.sequences import BOS, EVENT, PAD, STEP
from medtwin.timelines.spec import TimelineSpec

Batch = dict[str, Tensor]
SIZES = ("num_codes", "num_types", "num_gap_classes", "num_sexes", "num_conditions")
_NUM_COMPONENTS = 3  # normals of every mixture
_BAG = 32
_MEMORY = 3
# Time constants, in minutes, of the recency with which a token was said before: a month and a year.
_RECENCY = (30 * 1440.0, 365.25 * 1440.0)
_NUM_REPEATS = 2 + len(_RECENCY)
# Weights of single tokens see few examples: told in larger units they learn as fast as the shared ones.
_GAIN = 10.0
MISSING = 4  # the kind of a position that history dropout hides


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


class TemporalVAE(nn.Module):
    """Encoder, decoder and heads.

    Args:
        sizes: num_codes, num_types, num_gap_classes, num_sexes and num_conditions of the spec; filled in by `train`.
        latent_dim: Of z; 0 gives the same decoder without a latent.
        width, num_layers, num_heads: Of the decoder.
        encoder_layers: Of the encoder, of the same width.
        dropout: In every block.
    """

    def __init__(
        self,
        *,
        sizes: Mapping[str, int],
        latent_dim: int = 16,
        width: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        encoder_layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if missing := [name for name in SIZES if name not in sizes]:
            raise ValueError(f"sizes must name {', '.join(SIZES)}, got none of {', '.join(missing)}")
        num_codes, num_types, num_gap_classes, num_sexes, num_conditions = (sizes[name] for name in SIZES)
        self.latent_dim, self.num_types, self.num_components = latent_dim, num_types, _NUM_COMPONENTS
        self.token = nn.Embedding(num_codes, width)
        self.kind = nn.Embedding(5, width)
        self.number = nn.Linear(4, width, bias=False)
        self.time = nn.Linear(NUM_TIME_FEATURES, width)
        self.bag = nn.Embedding(num_codes, _BAG)
        self.bag_in = nn.Linear(_BAG, width, bias=False)
        self.person = nn.Linear(num_sexes + num_conditions, width)
        self.latent_in = _linear(latent_dim, width)
        self.decoder = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(num_layers))
        self.encoder = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(encoder_layers))
        self.norm, self.encoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.pool = nn.Linear(width, 1)
        self.posterior = _linear(width, 2 * latent_dim)
        self.clock = nn.Sequential(nn.Linear(NUM_TIME_FEATURES, width), nn.GELU(), nn.Linear(width, width))
        self.stop = nn.Linear(width, 1)
        self.stop_of_clock = nn.Linear(NUM_TIME_FEATURES, 1, bias=False)
        self.gap = nn.Linear(width, num_gap_classes)
        self.gap_class = nn.Embedding(num_gap_classes, width)
        self.gap_size = nn.Linear(width, 2 * 3 * _NUM_COMPONENTS)
        self.hour, self.slot, self.hour_in = (
            nn.Linear(width, HOURS),
            nn.Linear(width, SLOTS),
            nn.Embedding(HOURS, width),
        )
        self.type_out = nn.Linear(width, num_types + 1)
        self.code = nn.Linear(width, width)
        self.code_out = nn.Linear(width, num_codes)
        self.repeat = nn.Embedding(num_codes, _NUM_REPEATS)
        person = num_sexes + 2 * num_conditions + latent_dim
        self.code_of_person = nn.Linear(person, num_codes, bias=False)
        self.trait = nn.Embedding(num_codes, person)
        given = num_sexes + 2 * num_conditions + NUM_TIME_FEATURES + _MEMORY
        self.value = nn.Sequential(nn.Linear(2 * width + given, 2 * width), nn.GELU())
        self.value_out = nn.Linear(2 * width, 3 * _NUM_COMPONENTS)
        self.recall = nn.Embedding(num_codes, 2)
        self.bag_of_codes = nn.Sequential(
            nn.Linear(latent_dim + num_sexes + num_conditions + 1, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, num_codes),
        )
        self.num_sexes, self.num_conditions = num_sexes, num_conditions
        self._register(num_codes, num_gap_classes)
        self._initialise()

    type_of: Tensor
    root_of: Tensor
    conditions_of: Tensor
    is_root: Tensor
    gap_kind: Tensor
    year_scale: Tensor

    def _register(self, num_codes: int, num_gap_classes: int) -> None:
        """What `bind` fills in; part of the state, so that a run holds it."""
        for name in ("type_of", "root_of"):
            self.register_buffer(name, torch.zeros(num_codes, dtype=torch.long))
        self.register_buffer("conditions_of", torch.zeros(num_codes, self.num_conditions))
        self.register_buffer("is_root", torch.zeros(num_codes, dtype=torch.bool))
        self.register_buffer("gap_kind", torch.zeros(num_gap_classes, dtype=torch.long))
        self.register_buffer("year_scale", torch.tensor([2000.0, 10.0]))

    def _initialise(self) -> None:
        for embedding in (self.token, self.kind, self.bag, self.gap_class, self.hour_in):
            nn.init.normal_(embedding.weight, std=0.1)
        nn.init.constant_(self.recall.weight, 0.3)
        for direct in (self.repeat, self.code_of_person, self.trait, self.stop_of_clock):
            nn.init.normal_(direct.weight, std=0.003)
        nn.init.constant_(self.stop.bias, -4.0)  # most steps are followed by another
        with torch.no_grad():  # spread the components, so that they can specialise
            spread = torch.linspace(-1, 1, self.num_components)
            self.value_out.bias[self.num_components : 2 * self.num_components] = spread
            self.value_out.weight.mul_(0.1)
            k = self.num_components
            self.gap_size.bias.copy_(torch.cat([torch.cat([torch.zeros(k), 3 + 2 * spread, torch.zeros(k)])] * 2))

    def bind(self, spec: TimelineSpec) -> None:
        """Tells the untrained net which token is of which type and group, and how frequent; its state from then on."""
        vocabulary = spec.vocabulary
        self.type_of.copy_(torch.from_numpy(vocabulary.type_of))
        self.root_of.copy_(torch.from_numpy(vocabulary.root_of))
        self.is_root.copy_(torch.from_numpy(vocabulary.is_root))
        condition_of = torch.from_numpy(spec.condition_of)
        self.conditions_of.zero_()
        self.conditions_of[condition_of >= 0, condition_of[condition_of >= 0]] = 1
        counts = torch.from_numpy(spec.static_counts.sum(axis=1)).float() + 1
        per_type = torch.zeros(self.num_types).index_add(0, self.type_of, counts)
        with torch.no_grad():  # begin at the frequencies of the training subjects
            self.code_out.bias.copy_(counts.log() - counts.log().mean())
            self.type_out.bias[:-1] = per_type.log() - per_type.log().mean()
        kinds = torch.from_numpy(spec.gaps.has_clock).long()  # 1: a clock follows
        kinds[spec.gaps.short_class] = 2
        kinds[spec.gaps.long_class] = 3
        self.gap_kind.copy_(kinds)
        self.year_scale.copy_(torch.tensor([spec.attributes.year_mean, spec.attributes.year_sd]))

    def attributes(self, batch: Batch) -> Tensor:
        """Sex, one-hot, and index conditions, (batch, sexes + K)."""
        sex = functional.one_hot(batch["sex"], self.num_sexes).float()
        return torch.cat([sex, batch["conditions"].float()], dim=-1)

    def _inputs(self, batch: Batch) -> Tensor:
        """Embedded positions without latent and history, (batch, length, width)."""
        kind, value, flag = batch["kind"], batch["value"], batch["has_value"].float()
        clipped = value.clamp(-4, 4)
        numbers = torch.stack([flag, clipped * flag, clipped.abs() * flag, torch.tanh(value) * flag], dim=-1)
        is_event = (kind == EVENT)[..., None]
        x = self.kind(kind) + self.time(self.time_features(batch)) + self.person(self.attributes(batch))[:, None]
        embedded: Tensor = x + torch.where(is_event, self.token(batch["token"]) + self.number(numbers), 0.0)
        return embedded

    def time_features(self, batch: Batch) -> Tensor:
        """What the clock says at each position, (batch, length, NUM_TIME_FEATURES)."""
        person = {name: batch[name] for name in ("age_start_years", "start_minute", "window_minutes")}
        person["year_scale"] = self.year_scale.expand(len(batch["kind"]), 2)
        return time_features(batch["minute"], batch["gap_minutes"], batch["open_minutes"], person)

    def stop_logit(self, ending: Tensor, clock: Tensor) -> Tensor:
        """Log odds, (n,), that the record stops where a step ends."""
        logit: Tensor = self.stop(ending) + _GAIN * self.stop_of_clock(clock)
        return logit[:, 0]

    def ending(self, hidden: Tensor, clock: Tensor) -> Tensor:
        """What decides where a step ends, (n, width): the hidden state and the clock itself, (n, features)."""
        out: Tensor = hidden + self.clock(clock)
        return out

    def encode(self, batch: Batch) -> Posterior:
        """q(z | x, attributes)."""
        valid = batch["kind"] != PAD
        x = self._inputs(batch)
        for block in self.encoder:
            x = block(x, valid)
        x = self.encoder_norm(x)
        weights = functional.softmax(self.pool(x)[..., 0].masked_fill(~valid, float("-inf")), dim=-1)
        mean, log_var = self.posterior((weights[..., None] * x).sum(dim=1)).chunk(2, dim=-1)
        return Posterior(mean, log_var.clamp(-8, 4))

    def history(self, batch: Batch) -> Tensor:
        """What the record has said so far, (batch, length, bag): the sum over tokens said for the first time."""
        said = self.bag(batch["token"]) * batch["is_first"][..., None]
        count = batch["is_first"].float().cumsum(dim=1)[..., None]
        bag: Tensor = said.cumsum(dim=1) / torch.sqrt(1 + count)
        return bag

    def decode(self, batch: Batch, z: Tensor, history_dropout: float = 0.0) -> Tensor:
        """Hidden states, (batch, length, width): position i knows positions 0 to i, z and the attributes."""
        bag = self.bag_in(self.history(batch))
        if history_dropout > 0:
            hidden = (torch.rand_like(batch["value"]) < history_dropout) & (batch["kind"] == EVENT)
            kind = torch.where(hidden, MISSING, batch["kind"])
            kept = torch.rand(len(z), 1, 1, device=z.device) >= history_dropout
            x = self._inputs({**batch, "kind": kind}) + bag * kept
        else:
            x = self._inputs(batch) + bag
        x = x + self.latent_in(z)[:, None]
        for block in self.decoder:
            x = block(x)
        out: Tensor = self.norm(x)
        return out

    def new_caches(self, batch_size: int, num_positions: int) -> list[Cache]:
        """Empty key/value caches for generation."""
        shapes = []
        for block in self.decoder:
            heads = block.attention.num_heads  # type: ignore[union-attr]
            head_width = self.token.embedding_dim // int(heads)  # type: ignore[arg-type]
            shapes.append((batch_size, int(heads), num_positions, head_width))  # type: ignore[arg-type]
        device = self.token.weight.device
        return [Cache(torch.zeros(shape, device=device), torch.zeros(shape, device=device)) for shape in shapes]

    def decode_step(self, batch: Batch, bag: Tensor, z: Tensor, caches: list[Cache], position: int) -> Tensor:
        """The hidden state of one further position, (batch, width).

        Args:
            batch: The position alone, (batch, 1), and the attributes.
            bag: `history` at the position, (batch, bag).
            z: (batch, latent).
            caches: Of `new_caches`; changed.
            position: Its index.
        """
        x = self._inputs(batch) + self.bag_in(bag)[:, None] + self.latent_in(z)[:, None]
        for block, cache in zip(self.decoder, caches, strict=True):
            x = block.step(x, cache, position)  # type: ignore[operator]
        out: Tensor = self.norm(x)[:, 0]
        return out

    def allowed_codes(self, kind: Tensor, token: Tensor) -> Tensor:
        """Which tokens may follow within the step, (n, V): groups never go back, children follow their open group.

        Args:
            kind: (n,) of the position before.
            token: (n,) of the position before, where it is an EVENT.
        """
        every = torch.arange(len(self.root_of), device=token.device)
        root = self.root_of[token][:, None]
        is_later = self.is_root & (self.root_of > root)
        is_same = (self.root_of == root) & (self.is_root | (every > token[:, None]))
        return torch.where((kind == EVENT)[:, None], is_later | is_same, self.is_root)

    def allowed_types(self, kind: Tensor, token: Tensor) -> Tensor:
        """Which types may follow within the step, (n, types + 1), END last: no type before the last; no empty step."""
        every = torch.arange(self.num_types, device=token.device)
        later = every >= self.type_of[token][:, None]
        types = torch.where((kind == EVENT)[:, None], later, True)
        return torch.cat([types, (kind != STEP)[:, None]], dim=-1)

    def person_of(self, attributes: Tensor, z: Tensor, said: Tensor) -> Tensor:
        """Who it is by now, (n, sexes + 2 K + latent), from which single tokens learn directly.

        Args:
            attributes: (n, sexes + K).
            z: (n, latent).
            said: (n, V) minutes since a token was last said, or inf: which index conditions the record names so far.
        """
        known = (torch.isfinite(said).float() @ self.conditions_of).clamp(max=1)
        return torch.cat([attributes, known, z], dim=-1)

    def code_logits(self, hidden: Tensor, said: Tensor, person: Tensor) -> Tensor:
        """(n, V) of hidden states (n, width), of what was said before, and of who it is.

        That a token recurs, or that another of its group was said, shifts its logit by weights of its own.

        Args:
            hidden: (n, width).
            said: (n, V) minutes since a token was last said, or inf.
            person: (n, sexes + 2 K + latent), of `person_of`.
        """
        logits: Tensor = self.code_out(functional.gelu(self.code(hidden)))
        seen = torch.isfinite(said).float()
        groups = torch.zeros_like(seen).index_add(1, self.root_of, seen)[:, self.root_of] - seen
        recent = [torch.exp(-said / constant) for constant in _RECENCY]
        weights = (_GAIN * self.repeat.weight).unbind(-1)
        for weight, feature in zip(weights, [seen, (groups > 0).float(), *recent], strict=True):
            logits = logits + weight * feature
        shifted: Tensor = logits + _GAIN * self.code_of_person(person)
        return shifted

    def said_before(self, batch: Batch, row: Tensor, column: Tensor) -> Tensor:
        """Minutes since every token was last said, (n, V), up to positions (row, column), (n,) each; else inf."""
        minute = (batch["minute"] - batch["start_minute"][:, None]).float()
        last = torch.full((*minute.shape, len(self.root_of)), float("-inf"), device=minute.device)
        at = torch.nonzero(batch["kind"] == EVENT, as_tuple=True)
        last[(*at, batch["token"][at])] = minute[at]
        shift = 1
        while shift < last.shape[1]:  # a running maximum by doubling: torch.cummax is many times slower on a CPU
            last = torch.cat([last[:, :shift], torch.maximum(last[:, shift:], last[:, :-shift])], dim=1)
            shift *= 2
        return minute[row, column][:, None] - last[row, column]

    def value_parameters(self, hidden: Tensor, token: Tensor, memory: Tensor, known: tuple[Tensor, Tensor]) -> Tensor:
        """(n, 3K) of the value of a token.

        The mean is drawn to what was measured before and, the less the more was, to what the person's traits imply.

        Args:
            hidden: (n, width).
            token: (n,).
            memory: (n, 3) as in `Sequences.memory`.
            known: The person, of `person_of`, and the clock (n, features).
        """
        person, clock = known
        given = torch.cat([person[:, : self.num_sexes + 2 * self.num_conditions], clock], dim=-1)
        parameters = self.value_out(self.value(torch.cat([hidden, self.token(token), memory, given], dim=-1)))
        recall = self.recall(token)
        recalled = (recall * memory[:, :2]).sum(dim=-1, keepdim=True)
        weight = recall.sum(dim=-1, keepdim=True) * (memory[:, 2:] > 0)
        expected = _GAIN * (self.trait(token) * person).sum(dim=-1, keepdim=True)
        k = self.num_components
        logits, means, widths = parameters.split([k, k, k], dim=-1)
        return torch.cat([logits, means + recalled + (1 - weight) * expected, widths], dim=-1)

    def size_parameters(self, hidden: Tensor, is_long: Tensor) -> Tensor:
        """(n, 3K) of the log size of a gap: days where `is_long` (n,), else minutes."""
        short, long = self.gap_size(hidden).chunk(2, dim=-1)
        return torch.where(is_long[:, None], long, short)

    def clock_logits(self, hidden: Tensor, gap_class: Tensor, hour: Tensor | None = None) -> Tensor:
        """Logits of the hour (n, 24), or given the hour (n,), of its five-minute slot (n, 12)."""
        x = hidden + self.gap_class(gap_class)
        logits: Tensor = self.hour(x) if hour is None else self.slot(x + self.hour_in(hour))
        return logits

    def log_prob(self, batch: Batch, hidden: Tensor, z: Tensor, memory_dropout: float = 0.0) -> LogProb:
        """Log p(x | z, attributes) per patient, from the hidden states of `decode`.

        Args:
            batch: The patients.
            hidden: (batch, length, width).
            z: (batch, latent).
            memory_dropout: Share of values that are told without what was measured before.
        """
        size = len(hidden)
        row, column = torch.nonzero(batch["kind"] != PAD, as_tuple=True)
        h = hidden[row, column]
        kind, token = batch["kind"][row, column], batch["token"][row, column]
        following = functional.pad(batch["kind"], (0, 1), value=PAD)[row, column + 1]
        goes_on = following == EVENT

        def per_patient(values: Tensor, rows: Tensor) -> Tensor:
            return torch.zeros(size, device=h.device).index_add(0, rows, values)

        nxt = torch.where(goes_on, functional.pad(batch["token"], (0, 1))[row, column + 1], 0)
        wanted = torch.where(goes_on, self.type_of[nxt], self.num_types)
        types = masked_log_softmax(self.type_out(h), self.allowed_types(kind, token))
        type_part = per_patient(types.gather(-1, wanted[:, None])[:, 0], row)

        on = torch.nonzero(goes_on)[:, 0]
        codes_ok = self.allowed_codes(kind[on], token[on]) & (self.type_of == wanted[on][:, None])
        said = self.said_before(batch, row[on], column[on])
        person = self.person_of(self.attributes(batch)[row[on]], z[row[on]], said)
        codes = masked_log_softmax(self.code_logits(h[on], said, person), codes_ok)
        code_part = per_patient(codes.gather(-1, nxt[on][:, None])[:, 0], row[on])

        has_value = batch["has_value"][row[on], column[on] + 1]
        valued = on[has_value]
        place = (row[valued], column[valued] + 1)
        memory = batch["memory"][place]
        if memory_dropout > 0:
            memory = memory * (torch.rand(len(memory), 1, device=h.device) >= memory_dropout)
        clock = self.time_features(batch)
        known = (person[has_value], clock[row[valued], column[valued]])
        parameters = self.value_parameters(h[valued], nxt[valued], memory, known)
        value_part = per_patient(mixture_log_prob(parameters, batch["value"][place]), row[valued])

        ends = torch.nonzero(~goes_on & (kind != STEP))[:, 0]
        at_end = self.ending(h[ends], clock[row[ends], column[ends]])
        stops = self.stop_logit(at_end, clock[row[ends], column[ends]])
        stop_part, gap_part = self._log_prob_of_ends(batch, (at_end, stops), row[ends], column[ends])
        return LogProb(
            per_patient(stop_part, row[ends]), per_patient(gap_part, row[ends]), type_part, code_part, value_part
        )

    def _log_prob_of_ends(
        self, batch: Batch, ends: tuple[Tensor, Tensor], row: Tensor, column: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log probabilities, (n,) each, of stopping or not and of the gap, at positions that end their step."""
        stop = batch["stop"][row, column].float()
        h, logit = ends
        known = (stop >= 0).float()
        stop_part = -functional.binary_cross_entropy_with_logits(logit, stop.clamp(min=0), reduction="none") * known
        goes = (stop == 0).float()
        gap_class = batch["gap_class"][row, column]
        gap = functional.log_softmax(self.gap(h), dim=-1).gather(-1, gap_class[:, None])[:, 0]
        kinds = self.gap_kind[gap_class]
        parameters = self.size_parameters(h + self.gap_class(gap_class), kinds == 3)
        size = mixture_log_prob(parameters, batch["gap_size"][row, column]) * (kinds >= 2)
        clock = batch["clock"][row, column]
        hour, slot = clock // SLOTS, clock % SLOTS
        hours = functional.log_softmax(self.clock_logits(h, gap_class), dim=-1).gather(-1, hour[:, None])[:, 0]
        slots = functional.log_softmax(self.clock_logits(h, gap_class, hour), dim=-1).gather(-1, slot[:, None])[:, 0]
        has_clock = ((kinds == 1) | (kinds == 3)).float()
        return stop_part, (gap + size + (hours + slots) * has_clock) * goes

    def bag_of_codes_loss(self, batch: Batch, z: Tensor) -> Tensor:
        """Negative log likelihood in nats of which tokens a record says, (batch,), from z and attributes alone."""
        said = torch.zeros(len(z), len(self.root_of), device=z.device)
        row, column = torch.nonzero(batch["is_first"], as_tuple=True)
        said[row, batch["token"][row, column]] = 1.0
        years = torch.log1p(batch["window_minutes"].double() / 525_960.0).float()[:, None]
        logits = self.bag_of_codes(torch.cat([z, self.attributes(batch), years], dim=-1))
        return functional.binary_cross_entropy_with_logits(logits, said, reduction="none").sum(dim=-1)


def _linear(num_in: int, num_out: int) -> nn.Linear:
    """A linear map, also from or to nothing (no latent), of which torch would warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(num_in, num_out)


def num_parameters(net: nn.Module) -> int:
    """Trainable parameters."""
    return sum(math.prod(p.shape) for p in net.parameters() if p.requires_grad)


__all__ = ["BOS", "EVENT", "PAD", "STEP", "Batch", "LogProb", "Posterior", "TemporalVAE", "num_parameters"]
