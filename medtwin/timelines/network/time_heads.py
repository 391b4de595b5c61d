"""Where a step ends: does the record stop, and if not, when is the next step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medtwin.timelines.heads import mixture_log_prob
from medtwin.timelines.network.layers import NUM_TIME_FEATURES
from medtwin.timelines.reading.gaps import HOURS, SLOTS, WEEK

Batch = dict[str, Tensor]
NUM_COMPONENTS = 3
_SIZE_FEATURES = 3
GAIN = 10.0
"""Weights of single features see few examples: told in larger units they learn as fast as the shared ones."""
MINUTES, DAYS, LEFT = 2, 3, 4  # the classes whose size is continuous


class TimeHeads(nn.Module):
    """Stopping as a hazard; gaps as nothing, scheduled intervals, and log-normal mixtures of minutes and days.

    Args:
        width: Of the hidden state.
        num_gap_classes: Of the law of gaps.
    """

    kind: Tensor

    def __init__(self, width: int, num_gap_classes: int) -> None:
        super().__init__()
        self.clock = nn.Sequential(nn.Linear(NUM_TIME_FEATURES, width), nn.GELU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.stop, self.stop_of_clock = nn.Linear(width, 1), nn.Linear(NUM_TIME_FEATURES, 1, bias=False)
        self.gap, self.gap_of_clock = (
            nn.Linear(width, num_gap_classes),
            nn.Linear(NUM_TIME_FEATURES, num_gap_classes, bias=False),
        )
        self.gap_class = nn.Embedding(num_gap_classes, width)
        self.size = nn.Linear(width, 3 * 3 * NUM_COMPONENTS)
        self.hour, self.slot = nn.Linear(width, HOURS), nn.Linear(width, SLOTS)
        # Of the days since 1970, and counted from the day of the step: what comes next day, and what comes on Mondays.
        self.size_in = nn.Linear(_SIZE_FEATURES, width)
        self.weekday, self.ahead = nn.Linear(width, WEEK), nn.Linear(width, WEEK)
        self.hour_in = nn.Embedding(HOURS, width)
        self.register_buffer("kind", torch.zeros(num_gap_classes, dtype=torch.long))
        for table in (self.gap_class, self.hour_in):
            nn.init.normal_(table.weight, std=0.1)
        for head in (self.weekday, self.ahead):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        for direct in (self.stop_of_clock, self.gap_of_clock):
            nn.init.normal_(direct.weight, std=0.003)
        nn.init.constant_(self.stop.bias, -4.0)  # most steps are followed by another
        with torch.no_grad():  # spread the components, so that they can specialise
            spread, nothing = torch.linspace(-1, 1, NUM_COMPONENTS), torch.zeros(NUM_COMPONENTS)
            self.size.bias.copy_(torch.cat([nothing, 3 + 2 * spread, nothing] * 3))

    def state(self, hidden: Tensor, clock: Tensor) -> Tensor:
        """What decides where a step ends, (n, width), of hidden states (n, width) and the clock (n, features)."""
        x = hidden + self.clock(clock)
        out: Tensor = x + self.mix(self.norm(x))
        return out

    def stop_logit(self, state: Tensor, clock: Tensor) -> Tensor:
        """Log odds, (n,), that the record stops."""
        logit: Tensor = self.stop(state) + GAIN * self.stop_of_clock(clock)
        return logit[:, 0]

    def gap_logits(self, state: Tensor, clock: Tensor) -> Tensor:
        """(n, classes) of the gap."""
        logits: Tensor = self.gap(state) + GAIN * self.gap_of_clock(clock)
        return logits

    def size_parameters(self, state: Tensor, gap_class: Tensor) -> Tensor:
        """(n, 3K) of the log size of a gap: minutes, days, or minutes left of the window, as its class says."""
        kinds = self.size(state + self.gap_class(gap_class)).unflatten(-1, (3, 3 * NUM_COMPONENTS))
        which = (self.kind[gap_class] - MINUTES).clamp(min=0)
        parameters: Tensor = kinds.gather(1, which[:, None, None].expand(-1, 1, kinds.shape[-1]))[:, 0]
        return parameters

    def clock_logits(self, state: Tensor, gap_class: Tensor, hour: Tensor | None = None) -> Tensor:
        """Logits of the hour (n, 24), or given the hour (n,), of its five-minute slot (n, 12)."""
        x = state + self.gap_class(gap_class)
        logits: Tensor = self.hour(x) if hour is None else self.slot(x + self.hour_in(hour))
        return logits

    def weekday_logits(self, state: Tensor, gap_class: Tensor, size: Tensor, today: Tensor) -> Tensor:
        """Logits, (n, 7), of the weekday of the next step.

        Args:
            state: (n, width).
            gap_class: (n,).
            size: (n,) log days of the gap.
            today: (n,) days since 1970 modulo 7 of the step.
        """
        days = torch.exp(size.clamp(max=12.0)).float()
        features = torch.stack([size.float() / 4, torch.exp(-days / 2), torch.exp(-days / 7)], dim=-1)
        x = functional.gelu(state + self.gap_class(gap_class) + self.size_in(features))
        ahead = (torch.arange(WEEK, device=today.device) - today[:, None]) % WEEK
        logits: Tensor = self.weekday(x) + self.ahead(x).gather(-1, ahead)
        return logits

    def any_size(self, gap_class: Tensor, size: Tensor) -> Tensor:
        """For gaps of other days, log days (n,) of any size that is decoded to as many with the weekday."""
        days = torch.round(torch.exp(size))
        low = torch.where(days > WEEK, days - WEEK / 2, 1.0)
        any_of = torch.log(low + torch.rand_like(days) * (days + WEEK / 2 - low))
        return torch.where(self.kind[gap_class] == DAYS, any_of, size)

    def log_prob(self, hidden: Tensor, clock: Tensor, target: Batch) -> tuple[Tensor, Tensor]:
        """Log probabilities in nats, (n,) each, of stopping or not, and of the gap where the record goes on.

        Args:
            hidden: (n, width).
            clock: (n, features).
            target: stop, gap_class, gap_size, clock and weekday as in `collate`, (n,) each, stop being 0 or 1; and
                `today`, (n,) days since 1970 modulo 7 of the step.
        """
        state = self.state(hidden, clock)
        stops = target["stop"].float()
        stop = -functional.binary_cross_entropy_with_logits(
            self.stop_logit(state, clock).float(), stops, reduction="none"
        )
        gap_class, slot = target["gap_class"], target["clock"]
        gaps = functional.log_softmax(self.gap_logits(state, clock).float(), dim=-1)
        gap = gaps.gather(-1, gap_class[:, None])[:, 0]
        kinds = self.kind[gap_class]
        size = mixture_log_prob(self.size_parameters(state, gap_class), target["gap_size"]) * (kinds >= MINUTES)
        hour, slot = slot // SLOTS, slot % SLOTS
        hours = functional.log_softmax(self.clock_logits(state, gap_class).float(), dim=-1).gather(-1, hour[:, None])
        slots = functional.log_softmax(self.clock_logits(state, gap_class, hour).float(), dim=-1).gather(
            -1, slot[:, None]
        )
        has_clock = (kinds == 1) | (kinds == DAYS)
        rows = torch.nonzero(kinds == DAYS)[:, 0]
        week = self.weekday_logits(state[rows], gap_class[rows], target["gap_size"][rows], target["today"][rows])
        weekday = functional.log_softmax(week.float(), dim=-1).gather(-1, target["weekday"][rows, None])[:, 0]
        size = size.index_add(0, rows, weekday)
        return stop, (gap + size + (hours + slots)[:, 0] * has_clock) * (1 - stops)
