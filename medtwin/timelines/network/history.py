"""What a batch of whole records says before each of its steps and events, in one pass over all of them.

`Sampler` keeps the same step by step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medtwin.timelines.network.embedding import running

Batch = dict[str, Tensor]
WASHOUT = 400 * 1440
"""Minutes: what the record first says later than this began then; what it says from the start may have begun before it
(the washout of a new-user design, Ray 2003, Am J Epidemiol 158:915; yearly prescriptions come round within it)."""


def since_said(batch: Batch, num_codes: int) -> tuple[Tensor, Tensor]:
    """Minutes since every token was last said, or inf, before each step; and whether it was said by its end.

    Args:
        batch: As of `collate`.
        num_codes: V.

    Returns:
        Two times (batch, T, V), float and bool.
    """
    size, length = batch["step_valid"].shape
    elapsed = (batch["minute"] - batch["start_minute"][:, None]).float()
    last = torch.full((size * length, num_codes), float("-inf"), device=elapsed.device)
    step = batch["event_step"]
    last[step, batch["event_token"]] = elapsed.view(-1)[step]
    last = last.view(size, length, -1)
    shift = 1
    while shift < length:  # a running maximum by doubling: torch.cummax is many times slower on a CPU
        last = torch.cat([last[:, :shift], torch.maximum(last[:, shift:], last[:, :-shift])], dim=1)
        shift *= 2
    before = functional.pad(last[:, :-1], (0, 0, 1, 0), value=float("-inf"))
    return (elapsed[..., None] - before).clamp(min=0), torch.isfinite(last)


def since_began(batch: Batch, causes: Tensor) -> Tensor:
    """Minutes since tokens (C,) were first said, if after the washout, before each step, (batch, T, C); or inf."""
    size, length = batch["step_valid"].shape
    step = batch["event_step"]
    elapsed = (batch["minute"] - batch["start_minute"][:, None]).float()
    at = elapsed.flatten()[step]
    said = (batch["event_token"][:, None] == causes) & (batch["event_is_first"] & (at > WASHOUT))[:, None]
    nothing = torch.zeros(size * length, len(causes), device=said.device)
    sums = []
    for what in (said.float(), said * at[:, None]):
        total = nothing.index_add(0, step, what).view(size, length, -1).cumsum(dim=1)
        sums.append(functional.pad(total[:, :-1], (0, 0, 1, 0)))
    return (elapsed[..., None] - sums[1]).masked_fill(sums[0] == 0, float("inf"))


def said_among(batch: Batch, causes: Tensor, first: Tensor, before: Tensor) -> Tensor:
    """Which tokens (C,) the events `first` to `before` (n,), exclusive, say, (n, C) bool."""
    return running((batch["event_token"][:, None] == causes).float(), first, before) > 0


def above_expected(batch: Batch, told: Tensor, memory: Tensor, expected: Tensor) -> Tensor:
    """What the last number and the mean so far lay above what was expected of them, and log(1 + n), (n, 3).

    Args:
        batch: As of `collate`.
        told: (n,) the events with a number.
        memory: (n, 3) as in `Sequences.memory`.
        expected: (n,).
    """
    order, first = batch["valued_event"], batch["valued_first"]
    nothing = torch.zeros(len(batch["event_token"]), 3, device=expected.device, dtype=expected.dtype)
    ordered = nothing[:, 0].index_copy(0, told, expected).index_select(0, order)
    place = torch.arange(len(order), device=order.device)
    last = ordered.index_select(0, (place - 1).clamp(min=0))
    mean = running(ordered[:, None], first, place)[:, 0] / (place - first).clamp(min=1)
    before = torch.stack([last, mean, torch.zeros_like(last)], dim=-1)
    before = nothing.index_copy(0, order, before).index_select(0, told)
    return memory - before * (memory[:, 2:] > 0)
