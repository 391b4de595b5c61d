"""How much each noise level counts in training: as its error is uncertain, learned along the way.

At some noise levels nothing more can be learned, and their error drowns that of others. With u(sigma) the log of the
error that is to be expected there, the loss error / exp(u) + u has its least where u is just that: every noise level
then counts alike. Source: Kendall et al. 2018; Karras et al. 2024 (EDM2), section 2 and appendix B.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_FREQUENCIES = 16


class ExpectedError(nn.Module):
    """The log of the error at a noise level, 0 before training: linear in waves of ln sigma."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        steps = torch.linspace(math.log(0.1), math.log(4.0), _FREQUENCIES)
        self.register_buffer("frequencies", steps.exp())
        self.out = nn.Linear(2 * _FREQUENCIES, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, sigma: Tensor) -> Tensor:
        """(batch,) to (batch,)."""
        phase = sigma.float().log()[:, None] * self.frequencies
        expected: Tensor = self.out(torch.cat([phase.cos(), phase.sin()], dim=1))
        return expected[:, 0]

    def balanced(self, error: Tensor, sigma: Tensor) -> Tensor:
        """The loss of errors (batch,) at their noise levels (batch,), a scalar."""
        expected: Tensor = self(sigma)
        return (error * torch.exp(-expected) + expected).mean()
