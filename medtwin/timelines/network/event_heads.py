"""Within a step: which event is next, or is the step over, and the number that an event carries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medtwin.timelines.heads import FINE, LEAST_WIDTH, mixture_log_prob
from medtwin.timelines.network.embedding import LEDGER
from medtwin.timelines.network.layers import NUM_TIME_FEATURES
from medtwin.timelines.network.time_heads import GAIN
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR
from medtwin.timelines.reading.gaps import MINUTES_PER_DAY
from medtwin.timelines.reading.heaps import MAX_HEAPS, Heaps
from medtwin.timelines.reading.levels import NUM_LEVELS
from medtwin.timelines.reading.scales import Scale

FloatArray = NDArray[np.float64]

NUM_COMPONENTS = NUM_LEVELS
# Time constants, in minutes, of how long a number says what the next one will be: a stay, a week, a year.
_FADING = (360.0, 7 * 1440.0, 365.25 * 1440.0)
_MEMORY = 3 + len(_FADING)
# Time constants, in minutes, of the recency with which a token was said before: a day, a month and a year.
_RECENCY = (1440.0, 30 * 1440.0, 365.25 * 1440.0)
NUM_CAUSES = 96
"""At most so many tokens are told to the numbers one by one; all others through the ledger and the state."""
_LASTING = _RECENCY[1:]
_RISING = 10 * 1440.0  # minutes in which the effect of what is begun comes about, such as of a drug
# Weights of each: said now, at all, as something new, as something quite new, lately.
_OF_CAUSES, _NEW = 4 + len(_LASTING), 2
_FEW = 2.0
_CALM = 2.0  # gain of what begins where it is to be
_LEAST_SPREAD = -3.0  # log, to begin with
# Of the component that repeats the last number: log odds to begin with, and without a last number; its width as a
# share of half the rounding, so that 19 of 20 draws round to it.
_AGAIN, _NEVER, _SHARE = -3.0, -40.0, 0.5
_MINUTES = 15.0  # standard deviation of what is of a certain age to the day: numbers are float32


class CodeHeads(nn.Module):
    """The type of the next event or the end of the step, then its code among those of the type.

    Args:
        num_codes, num_types: Of the vocabulary, whose tokens stand type by type.
        num_person: Width of what is known of the person.
        width: Of the state of a decision.
    """

    type_of: Tensor
    root_of: Tensor
    is_root: Tensor
    type_bounds: Tensor

    def __init__(self, num_codes: int, num_types: int, num_person: int, width: int) -> None:
        super().__init__()
        self.num_types = num_types
        self.type_out = nn.Linear(width, num_types + 1)
        self.type_of_person = nn.Linear(num_person, num_types + 1, bias=False)
        self.code_out = nn.Linear(width, num_codes)
        self.repeat = nn.Embedding(num_codes, 2 + len(_RECENCY))
        self.of_person = nn.Linear(num_person, num_codes, bias=False)
        for direct in (self.repeat, self.of_person, self.type_of_person):
            nn.init.normal_(direct.weight, std=0.003)
        for name in ("type_of", "root_of"):
            self.register_buffer(name, torch.zeros(num_codes, dtype=torch.long))
        self.register_buffer("is_root", torch.zeros(num_codes, dtype=torch.bool))
        self.register_buffer("type_bounds", torch.zeros(num_types + 1, dtype=torch.long))

    def begin_at(self, counts: Tensor, told_again: Tensor) -> None:
        """Sets the untrained heads to how often tokens are said, and roots by who had them before.

        Args:
            counts: (V,) events of each token, above 0.
            told_again: (V, 2, 2) as of `TimelineSpec`.
        """
        steps, said = told_again.double().unbind(-1)
        odds = torch.log((said + 0.5) / (steps - said + 0.5).clamp(min=0.5))
        bias = torch.where(self.is_root, odds[:, 0], torch.log(counts / (steps[0].sum() + 1)))
        self.code_out.bias.copy_(bias - bias.mean())
        self.repeat.weight[:, 0] = torch.where(self.is_root, odds[:, 1] - odds[:, 0], 0.0) / GAIN

    def habits(self, since: Tensor, person: Tensor) -> Tensor:
        """What who it is and what was said in earlier steps adds to the logits of all tokens, (n, V).

        Args:
            since: (n, V) minutes since a token was last said, or inf.
            person: (n, num_person).
        """
        seen = torch.isfinite(since).to(person.dtype)
        groups = torch.zeros_like(seen).index_add(1, self.root_of, seen)[:, self.root_of] - seen
        weights = (GAIN * self.repeat.weight).unbind(-1)
        added = GAIN * self.of_person(person) + weights[0] * seen + weights[1] * (groups > 0)
        for weight, constant in zip(weights[2:], _RECENCY, strict=True):
            added = added + weight * torch.exp(-since / constant)
        habits: Tensor = added
        return habits

    def type_habits(self, person: Tensor) -> Tensor:
        """What who it is adds to the logits of the types and of the end of the step, (n, types + 1)."""
        added: Tensor = GAIN * self.type_of_person(person)
        return added

    def allowed_types(self, previous: Tensor, can_end: Tensor) -> Tensor:
        """Which types may follow within a step, (n, types + 1), END last: no type before the last one.

        Args:
            previous: (n,) token before, or -1 at the start of the step.
            can_end: (n,) whether the step may end here: none but the one of static facts is empty.
        """
        every = torch.arange(self.num_types, device=previous.device)
        later = every >= torch.where(previous >= 0, self.type_of[previous.clamp(min=0)], 0)[:, None]
        return torch.cat([later, can_end[:, None]], dim=-1)

    def allowed_codes(self, previous: Tensor, codes: slice) -> Tensor:
        """Which tokens of a slice may follow, (n, codes): groups never go back, children follow their open group."""
        before = previous.clamp(min=0)
        place = torch.arange(len(self.root_of), device=previous.device)[codes]
        root, is_root = self.root_of[codes], self.is_root[codes]
        open_root = self.root_of[before][:, None]
        follows = (is_root & (root > open_root)) | ((root == open_root) & (is_root | (place > before[:, None])))
        return torch.where((previous >= 0)[:, None], follows, is_root)

    def log_prob(
        self, state: Tensor, habits: tuple[Tensor, Tensor], decision: tuple[Tensor, Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log probabilities in nats, (n,) each, of the types and of the codes (0 where the step ends).

        Args:
            state: (n, width).
            habits: Those of the types, (m, types + 1), and of the tokens, (m, V), of the steps.
            decision: (n,) each: step of every decision, token before or -1, token or -1 for the end, and whether the
                step may end here.
        """
        step, previous, target, can_end = decision
        wanted = torch.where(target < 0, self.num_types, self.type_of[target.clamp(min=0)])
        allowed = self.allowed_types(previous, can_end)
        type_logits = self.type_out(state).float() + habits[0].index_select(0, step)
        types = functional.log_softmax(type_logits.masked_fill(~allowed, float("-inf")), dim=-1)
        type_part = types.gather(-1, wanted[:, None])[:, 0]
        code_part = torch.zeros_like(type_part)
        bounds = self.type_bounds.tolist()
        for kind in range(self.num_types):
            rows = torch.nonzero(wanted == kind)[:, 0]
            codes = slice(bounds[kind], bounds[kind + 1])
            if len(rows) and codes.stop - codes.start > 1:
                logits = functional.linear(
                    state.index_select(0, rows), self.code_out.weight[codes], self.code_out.bias[codes]
                )
                logits = logits.float() + habits[1][:, codes].index_select(0, step[rows])
                logits = logits.masked_fill(~self.allowed_codes(previous[rows], codes), float("-inf"))
                own = functional.log_softmax(logits, dim=-1).gather(-1, (target[rows] - codes.start)[:, None])[:, 0]
                code_part = code_part.index_add(0, rows, own)
        return type_part, code_part


class NumberMemory(NamedTuple):
    """What is known of a token when its number is drawn, of n events.

    Attributes:
        expected: (n,) what `ValueHead.expected` says, scaled.
        above: (n, 3) what the last number and the mean so far lay above what was expected of them, and log(1 + number
            of values), or 0, 0, -1 where there were some and training hides them.
        last: (n,) the last number, scaled; 0 where there was none.
        since: (n,) minutes since the token was last said, or inf.
        age_start: (n,) age in years when the subject was first seen, or nan.
    """

    expected: Tensor
    above: Tensor
    last: Tensor
    since: Tensor
    age_start: Tensor


class HeapsOf(NamedTuple):
    """Where the numbers of n events heap.

    Attributes:
        at: (n, MAX_HEAPS) scaled.
        width: (n, MAX_HEAPS) log of half of what counts as the heap, scaled.
        narrow: (n, MAX_HEAPS) log of the standard deviation of what is drawn from it, scaled.
        exist: (n, MAX_HEAPS) bool.
    """

    at: Tensor
    width: Tensor
    narrow: Tensor
    exist: Tensor


class ValueHead(nn.Module):
    """The number of an event as a mixture of normals on the token's scale.

    A number is expected from the person, the time, and what was said (a drug, a diagnosis). What the token's last
    number, and its mean so far, lay above what was expected *then* is carried on: a drug shifts the level, and what is
    the person's own stays (an autoregression with explanatory variables, Box & Tiao 1975). The latest numbers of other
    tokens move it (a body mass index follows from them), and a network adds the rest. One component of the mixture is
    the last number itself: what was charted again and not measured. Others are the values, or the ages at which a
    history begins, at which numbers heap: each takes in proportion to the smooth density there. How far numbers spread
    is a matter of the token, and of whether the subject has had one before. In training the earlier ones are hidden at
    times; what is then said is no first number, and has a level and a spread of its own.

    Args:
        num_codes: Of the vocabulary.
        num_person: Width of what is known of the person.
        width: Of the state of a decision.
    """

    causes: Tensor
    rounding: Tensor
    is_log: Tensor
    heap_at: Tensor
    heap_width: Tensor
    is_heap: Tensor
    heaps_at_ages: Tensor

    def __init__(self, num_codes: int, num_person: int, width: int) -> None:
        super().__init__()
        # One layer over all that is known, in parts, so that what is the same for a whole step is computed once.
        self.of_token, self.of_state = nn.Embedding(num_codes, 2 * width), nn.Linear(width, 2 * width)
        self.of_ledger = nn.Linear(2 * LEDGER, 2 * width, bias=False)
        self.of_memory = nn.Linear(_MEMORY, 2 * width, bias=False)
        self.of_step = nn.Linear(num_person + NUM_TIME_FEATURES, 2 * width, bias=False)
        self.out = nn.Linear(2 * width, 3 * NUM_COMPONENTS + 2)
        self.base = nn.Embedding(num_codes, 3 * NUM_COMPONENTS + 2)
        self.heaped = nn.Embedding(num_codes, MAX_HEAPS)
        self.spread, self.forgotten = nn.Embedding(num_codes, 3), nn.Embedding(num_codes, 1)
        self.recall, self.fading = nn.Embedding(num_codes, 4), nn.Embedding(num_codes, len(_FADING))
        self.trait, self.loading = nn.Embedding(num_codes, num_person), nn.Embedding(num_codes, 2 * LEDGER)
        num_causes = min(NUM_CAUSES, num_codes)
        self.effect = nn.Embedding(num_codes, _OF_CAUSES * num_causes)
        self.rhythm = nn.Embedding(num_codes, NUM_TIME_FEATURES)
        self.register_buffer("causes", torch.arange(num_causes))
        self.register_buffer("rounding", torch.tensor([1e-6, 0.0, 1.0]).repeat(num_codes, 1))
        self.register_buffer("is_log", torch.zeros(num_codes, dtype=torch.bool))
        self.register_buffer("heap_at", torch.zeros(num_codes, MAX_HEAPS))
        self.register_buffer("heap_width", torch.zeros(num_codes, MAX_HEAPS))
        self.register_buffer("is_heap", torch.zeros(num_codes, MAX_HEAPS, dtype=torch.bool))
        self.register_buffer("heaps_at_ages", torch.zeros(num_codes, dtype=torch.bool))
        for level in (self.heaped, self.spread, self.fading, self.forgotten):
            nn.init.zeros_(level.weight)
        nn.init.normal_(self.of_token.weight, std=0.1)
        nn.init.constant_(self.recall.weight, 0.3 / GAIN)
        for direct in (self.trait, self.loading, self.effect, self.rhythm):
            nn.init.normal_(direct.weight, std=0.003)
        with torch.no_grad():  # spread the components, so that they can specialise
            k = NUM_COMPONENTS
            self.out.bias.zero_()
            self.base.weight.zero_()
            self.base.weight[:, k : 2 * k] = torch.linspace(-1, 1, k) / _CALM
            self.out.weight.mul_(0.1)

    def bind(
        self, causes: Tensor, numbers: tuple[Sequence[Scale | None], Sequence[Heaps], FloatArray, FloatArray]
    ) -> None:
        """Tells the untrained head what it has to know of the data.

        Args:
            causes: (C,) which tokens are causes.
            numbers: (V, ...) each, of a token's numbers: how they are rounded, where they heap, the law of the first of
                a subject, and their mean absolute change within a subject (nan: not known).
        """
        scales, heaps, levels, changes = numbers
        self.causes.copy_(causes)
        for token, scale in enumerate(scales):
            if scale is not None:
                self.rounding[token] = torch.tensor([0.5 * 10.0**-scale.decimals, scale.centre, scale.width])
                self.is_log[token] = scale.form != "linear"
        known = np.flatnonzero(np.isfinite(levels).all(axis=1))
        with torch.no_grad():
            self.base.weight[known, : 3 * NUM_COMPONENTS] = torch.from_numpy(levels[known]).float() / _CALM
        log_change = torch.log(torch.from_numpy(changes).float()).nan_to_num(0.0).clamp(_LEAST_SPREAD, 0.0)
        with torch.no_grad():
            self.spread.weight[:, 1] = log_change / GAIN
        for token, each in enumerate(heaps):
            if count := len(each.values):
                self.is_heap[token, :count] = True
                self.heap_at[token, :count] = torch.tensor(each.values)
                self.heaps_at_ages[token] = each.are_ages
                half = self._log_half(torch.full((count,), token), self.heap_at[token, :count])
                self.heap_width[token, :count] = 0.0 if each.are_ages else half
                with torch.no_grad():
                    self.heaped.weight[token, :count] = torch.tensor(each.log_odds) / GAIN

    def _recalled(self, token: Tensor, above: Tensor, faded: Tensor) -> Tensor:
        """What is carried on of what earlier numbers lay above the expected, over `GAIN`, (n,).

        One number tells little of what is the person's own and many tell all of it: the weights go from those of few
        to those of many with n / (n + 2), as the shrinkage of a random intercept does (Robinson 1991, Stat Sci 6:15).
        What is of the moment, such as an inflammation, is carried on to what follows soon.
        """
        count = torch.expm1(above[:, 2:])
        few, many = self.recall(token).split([2, 2], dim=-1)
        weight = few + (many - few) * count / (count + _FEW)
        recalled: Tensor = (weight * above[:, :2]).sum(dim=-1) + (self.fading(token) * faded).sum(dim=-1) * above[:, 0]
        return recalled

    def _log_half(self, token: Tensor, last: Tensor) -> Tensor:
        """Log of half the rounding, scaled, at the last numbers, (n,)."""
        half, centre, width = self.rounding[token].unbind(-1)
        slope = torch.where(self.is_log[token], torch.exp(-(last * width + centre)).clamp(max=1 / half), 1.0)
        return torch.log((half * slope / width).clamp(min=1e-6))

    def _heaps(self, token: Tensor, age_start: Tensor) -> HeapsOf:
        """The heaps of tokens (n,), of subjects first seen at an age (n,)."""
        at, width, exist = self.heap_at[token], self.heap_width[token], self.is_heap[token]
        narrow = width + math.log(_SHARE)
        rows = torch.nonzero(self.heaps_at_ages[token])[:, 0]
        if len(rows):
            _, centre, scale = self.rounding[token[rows], None].double().unbind(-1)
            ago = age_start[rows, None].double() * MINUTES_PER_YEAR - at[rows].double() * MINUTES_PER_DAY
            scaled = ((torch.log1p(ago.clamp(min=0)) - centre) / scale).to(at.dtype)
            minute = self._log_half(token[rows, None], scaled) + math.log(2)
            at = at.index_copy(0, rows, torch.nan_to_num(scaled))
            width = width.index_copy(0, rows, torch.nan_to_num(minute + math.log(MINUTES_PER_DAY / 2)))
            narrow = narrow.index_copy(0, rows, torch.nan_to_num(minute + math.log(_MINUTES)))
            exist = exist.index_copy(0, rows, exist[rows] & (ago > 0))
        return HeapsOf(at, width, narrow, exist)

    def _masses(self, token: Tensor, heaps: HeapsOf, smooth: Tensor, heaping: Tensor) -> Tensor:
        """Log masses, (n, MAX_HEAPS), of the heaps of tokens (n,) beside a mixture (n, 3K) of mass one."""
        inside = mixture_log_prob(smooth[:, None], heaps.at) + heaps.width + math.log(2)
        masses: Tensor = (inside + heaping + GAIN * self.heaped(token)).masked_fill(~heaps.exist, _NEVER)
        return masses

    def step(self, person: Tensor, clock: Tensor) -> Tensor:
        """What a step contributes, (n, 2 width), of the person (n, num_person) and the clock (n, features)."""
        out: Tensor = self.of_step(torch.cat([person, clock], dim=-1))
        return out

    def said(self, since: Tensor, began: Tensor) -> Tensor:
        """What was said before a step of the causes, (n, 5C): at all, as new, as quite new, this month, this year.

        Args:
            since: (n, V) minutes since a token was last said, or inf.
            began: (n, C) minutes since the record said a cause for the first time, after `WASHOUT`, or inf.
        """
        mine = since.index_select(-1, self.causes)
        ever, new = (torch.isfinite(each).to(mine.dtype) for each in (mine, began))
        rising = torch.exp(-began / _RISING)
        return torch.cat([ever, new, rising, *(torch.exp(-mine / time) for time in _LASTING)], dim=-1)

    def expected(
        self, token: Tensor, now: Tensor, known: tuple[Tensor, Tensor, Tensor], compares: Tensor | None = None
    ) -> Tensor:
        """The number that is expected of a token whatever it was before, scaled, (n,).

        Args:
            token: (n,).
            now: (n, C) which causes the step itself has said so far.
            known: The person (n, num_person), the clock (n, features), and `said` (n, 5C).
            compares: (n,) bool, whose numbers teach what a cause does that the record has begun; None: all. Who is
                given a drug differs from who is not (confounding by indication, Miettinen 1983, Stat Med 2:267): where
                earlier numbers are hidden, the two are compared, and not a person with an earlier self.
        """
        person, clock, said = known
        causes = torch.cat([now.to(said.dtype), said], dim=-1)
        of_causes = self.effect(token) * causes
        told = (self.trait(token) * person).sum(dim=-1) + (self.rhythm(token) * clock).sum(dim=-1)
        expected: Tensor = GAIN * (told + of_causes.sum(dim=-1))
        if compares is not None:
            blocks = len(causes), _OF_CAUSES, len(self.causes)
            confounded = (causes.view(blocks)[:, _NEW] > 0) & ~compares[:, None]
            theirs = GAIN * (of_causes.view(blocks).sum(dim=1) * confounded).sum(dim=-1)
            expected = expected - theirs + theirs.detach()
        return expected

    def forward(self, token: Tensor, state: Tensor, memory: NumberMemory, known: tuple[Tensor, Tensor]) -> Tensor:
        """Parameters of the mixture, (n, 3 (K + 1 + MAX_HEAPS)).

        Args:
            token: (n,).
            state: (n, width) of the decision that chose it.
            memory: Of the token's earlier numbers.
            known: The ledger (n, 2 LEDGER), and `step` (n, 2 width).
        """
        ledger, of_step = known
        expected, above, last, since, age_start = memory
        faded = torch.stack([torch.exp(-since / time) for time in _FADING], dim=-1) * (above[:, 2:] > 0)
        recent = torch.cat([above, faded], dim=-1)
        x = self.of_token(token) + self.of_state(state) + self.of_ledger(ledger) + self.of_memory(recent) + of_step
        k = NUM_COMPONENTS
        parameters = self.out(functional.gelu(x)) + _CALM * self.base(token)
        logits, means, widths, again, heaping = parameters.split([k, k, k, 1, 1], dim=-1)
        related = (self.loading(token) * ledger).sum(dim=-1)
        first, later, hidden = (GAIN * self.spread(token)).unbind(-1)
        is_hidden = above[:, 2] < 0
        spread = torch.where(above[:, 2] > 0, later, torch.where(is_hidden, hidden, first))[:, None]
        carried = self._recalled(token, above, faded) + related + self.forgotten(token)[:, 0] * is_hidden
        means = means * torch.exp(spread) + (expected + GAIN * carried)[:, None]
        widths = (widths + spread).clamp(min=LEAST_WIDTH)
        again = (again + _AGAIN).masked_fill(above[:, 2:] <= 0, _NEVER)
        logits = functional.log_softmax(logits, dim=-1)
        heaps = self._heaps(token, age_start)
        rows = torch.nonzero(heaps.exist.any(dim=-1))[:, 0]
        mixture = torch.cat([logits, means, widths], dim=-1)
        there = HeapsOf(*(part[rows] for part in heaps))
        masses = self._masses(token[rows], there, mixture[rows], heaping[rows])
        masses = torch.full_like(heaps.at, _NEVER).index_copy(0, rows, masses.to(heaps.at.dtype))
        repeated = self._log_half(token, last)[:, None] + math.log(_SHARE)
        narrow = torch.cat([repeated, heaps.narrow], dim=-1).clamp(min=FINE)
        return torch.cat([logits, again, masses, means, last[:, None], heaps.at, widths, narrow], dim=-1)
