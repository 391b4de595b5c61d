"""Transformer parts: attention with our own projections and a key/value cache, rotary positions, time features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

MINUTES_PER_DAY = 1440.0
MINUTES_PER_YEAR = 525_960.0
_AGE_CENTRES = torch.arange(0.0, 100.0, 5.0)
_AGE_WIDTH = 6.0
# Time constants, in days, of the exponential basis in which a duration is told: from an hour to five years.
_DECAYS = torch.tensor([1 / 24, 0.25, 1.0, 7.0, 30.0, 120.0, 365.0, 1826.0])
NUM_TIME_FEATURES = len(_AGE_CENTRES) + 4 * len(_DECAYS) + 14


@dataclass
class Cache:
    """Keys and values of one layer in generation, (batch, heads, positions, head width), filled up to a position."""

    keys: Tensor
    values: Tensor

    def grow(self) -> None:
        """Doubles the positions that it can hold."""
        self.keys = torch.cat([self.keys, torch.zeros_like(self.keys)], dim=2)
        self.values = torch.cat([self.values, torch.zeros_like(self.values)], dim=2)


class Attention(nn.Module):
    """Multi-head attention by `scaled_dot_product_attention` with rotary positions (Su et al. 2021).

    Own Linear projections, which per-sample gradients can hook, instead of nn.MultiheadAttention.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % (2 * num_heads):
            raise ValueError(f"width must be a multiple of 2 * num_heads = {2 * num_heads}, got {width}")
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width, bias=False)

    def _split(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.view(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(batch, length, width); causal where `key_mask` is None, else to every valid key, (batch, length) bool."""
        position = torch.arange(x.shape[1], device=x.device)
        q, k = rotate(self._split(self.query(x)), position), rotate(self._split(self.key(x)), position)
        mask = None if key_mask is None else key_mask[:, None, None, :]
        y = functional.scaled_dot_product_attention(q, k, self._split(self.value(x)), mask, is_causal=mask is None)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def step(self, x: Tensor, cache: Cache, rows: Tensor, position: Tensor) -> Tensor:
        """One further position of some rows, (n, 1, width), that attends to all before it; writes it into the cache.

        Args:
            x: (n, 1, width).
            cache: Changed.
            rows: (n,) rows of the cache.
            position: (n,) index of the new position of each.
        """
        at = position[:, None, None]
        q = rotate(self._split(self.query(x)), at)
        cache.keys[rows, :, position] = rotate(self._split(self.key(x)), at)[:, :, 0]
        cache.values[rows, :, position] = self._split(self.value(x))[:, :, 0]
        length = int(position.max()) + 1
        k, v = cache.keys[:, :, :length][rows], cache.values[:, :, :length][rows]
        mask = torch.arange(length, device=x.device) <= position[:, None]
        y = functional.scaled_dot_product_attention(q, k, v, mask[:, None, None, :])
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


def rotate(x: Tensor, position: Tensor) -> Tensor:
    """Rotary embedding of (batch, heads, length, head width). Source: Su et al. 2021, equation 34.

    Args:
        x: (batch, heads, length, head width).
        position: (length,), or (batch, 1, 1) of the only position of each row.
    """
    half = x.shape[-1] // 2
    frequency = 10_000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = position.float()[..., None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(batch, length, width) to the same shape."""
        x = x + self.dropout(self.attention(self.norm1(x), key_mask))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out

    def step(self, x: Tensor, cache: Cache, rows: Tensor, position: Tensor) -> Tensor:
        """One further position in generation, (n, 1, width), as of `Attention.step`."""
        x = x + self.attention.step(self.norm1(x), cache, rows, position)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def time_features(minute: Tensor, gap: Tensor, open_minutes: Tensor, person: dict[str, Tensor]) -> Tensor:
    """What the clock says at each position, (batch, length, NUM_TIME_FEATURES) float32.

    Age as a smooth basis, time since the start and until the end of the window, the calendar, the open encounter.

    Args:
        minute: (batch, length) minutes since 1970, int64.
        gap: (batch, length) minutes since the position before.
        open_minutes: (batch, length) minutes until the open encounter ends; 0: none is open.
        person: `age_start_years`, `start_minute`, `window_minutes`, `year_scale` (mean, sd), each (batch, ...).
    """
    elapsed = (minute - person["start_minute"][:, None]).double()
    remaining = (person["window_minutes"][:, None] - elapsed).clamp(min=0)
    age = person["age_start_years"].double()[:, None] + elapsed / MINUTES_PER_YEAR
    known = torch.isfinite(age)
    distance = (torch.nan_to_num(age)[..., None] - _AGE_CENTRES.to(age)) / _AGE_WIDTH
    basis = torch.exp(-0.5 * distance * distance) * known[..., None]
    turn = 2 * torch.pi
    year, day, week = (
        turn * (minute.double() % size) / size for size in (MINUTES_PER_YEAR, MINUTES_PER_DAY, 7 * MINUTES_PER_DAY)
    )
    mean, sd = person["year_scale"].double().unbind(-1)
    calendar = (1970 + minute.double() / MINUTES_PER_YEAR - mean[:, None]) / sd[:, None]
    durations = torch.stack([elapsed.clamp(min=0), remaining, open_minutes.double(), gap.double()], dim=-1)
    decays = torch.exp(-durations[..., None] / (MINUTES_PER_DAY * _DECAYS.to(durations))).flatten(-2)
    columns = [
        known,
        elapsed / MINUTES_PER_YEAR / 10,
        remaining / MINUTES_PER_YEAR / 10,
        remaining == 0,
        *(wave for angle in (year, day, week) for wave in (angle.sin(), angle.cos())),
        torch.log1p(open_minutes.double()) / 10,
        open_minutes > 0,
        torch.log1p(gap.double()) / 10,
        calendar.clamp(-4, 4),
    ]
    return torch.cat([basis, decays, torch.stack([column.double() for column in columns], dim=-1)], dim=-1).float()
