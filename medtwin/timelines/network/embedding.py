"""Events as vectors: what the network reads of one event, and what it keeps of all events before."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LEDGER = 32
"""Width of each half of the ledger: what was said, and the latest number of everything that was measured."""

Batch = dict[str, Tensor]


class EventEmbedding(nn.Module):
    """An event is the sum of its token, the token's ancestor and type, its number, and the number on the token's axis.

    Tokens that few people have learn from those that share their ancestor (another unit, another ICD code of the
    category) and their type.

    Args:
        num_codes, num_ancestors, num_types: Of the vocabulary.
        width: Of the result.
    """

    ancestor_of: Tensor
    type_of: Tensor

    def __init__(self, num_codes: int, num_ancestors: int, num_types: int, width: int) -> None:
        super().__init__()
        self.token, self.ancestor = nn.Embedding(num_codes, width), nn.Embedding(num_ancestors, width)
        self.kind = nn.Embedding(num_types, width)
        self.axis, self.axis_in = nn.Embedding(num_codes, LEDGER), nn.Linear(LEDGER, width, bias=False)
        self.number = nn.Linear(4, width, bias=False)
        for table in (self.token, self.ancestor, self.kind):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.normal_(self.axis.weight, std=LEDGER**-0.5)
        self.register_buffer("ancestor_of", torch.zeros(num_codes, dtype=torch.long))
        self.register_buffer("type_of", torch.zeros(num_codes, dtype=torch.long))

    def name(self, token: Tensor) -> Tensor:
        """Tokens (n,) without their numbers, (n, width)."""
        name: Tensor = self.token(token) + self.ancestor(self.ancestor_of[token]) + self.kind(self.type_of[token])
        return name

    def forward(self, token: Tensor, value: Tensor, has_value: Tensor) -> Tensor:
        """Events, (n, width), of tokens, scaled numbers and whether there is one, (n,) each."""
        flag = has_value.to(value.dtype)
        clipped = value.clamp(-4, 4) * flag
        numbers = torch.stack([flag, clipped, clipped.abs(), torch.tanh(value) * flag], dim=-1)
        event: Tensor = self.name(token) + self.number(numbers) + self.axis_in(self.axis(token) * clipped[:, None])
        return event


class Ledger(nn.Module):
    """What a record has said so far: the sum over tokens said, and the latest number of each on the token's axis.

    The second half is linear in the latest numbers, so that a number that follows from others (a body mass index from
    height and weight, a mean pressure from two) can be read off it.

    Args:
        num_codes: Of the vocabulary.
    """

    def __init__(self, num_codes: int) -> None:
        super().__init__()
        self.said, self.latest = nn.Embedding(num_codes, LEDGER), nn.Embedding(num_codes, LEDGER)
        nn.init.normal_(self.said.weight, std=0.1)
        nn.init.normal_(self.latest.weight, std=LEDGER**-0.5)

    def forward(self, token: Tensor, value: Tensor, has_value: Tensor, memory: Tensor, is_first: Tensor) -> Tensor:
        """What each event adds, (n, 2 LEDGER).

        Args:
            token: (n,).
            value: (n,) scaled.
            has_value: (n,).
            memory: (n, 3) as in `Sequences.memory`.
            is_first: (n,) whether the record says the token for the first time.
        """
        change = (value - memory[:, 0]).clamp(-8, 8) * has_value
        added = [self.said(token) * is_first[:, None], self.latest(token) * change[:, None]]
        return torch.cat(added, dim=-1)


def running(x: Tensor, first: Tensor, before: Tensor) -> Tensor:
    """Sums of rows `first` to `before`, exclusive, of x (n, d): (m, d) for indices (m,)."""
    total = functional.pad(x.double().cumsum(dim=0), (0, 0, 1, 0))
    return (total.index_select(0, before) - total.index_select(0, first)).to(x.dtype)
