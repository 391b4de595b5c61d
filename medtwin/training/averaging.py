"""The moving average of the weights: what validates and generates, while what is trained still jumps about."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Averaging:
    """The exponential moving average of the weights.

    Attributes:
        half_life_steps: After so many steps a weight counts half. ramp: At step n the half-life is at most n times
            this, so that the random first weights are forgotten (Karras et al. 2022, appendix F.2).
    """

    half_life_steps: float = 50.0
    ramp: float = 0.1

    def __post_init__(self) -> None:
        if not (self.half_life_steps >= 0 and self.ramp > 0):
            raise ValueError("half_life_steps must be 0 or more and ramp above 0")

    def share(self, step: int) -> float:
        """The share of the new weights in the average after step 1, 2, ..."""
        half_life = min(self.half_life_steps, step * self.ramp)
        return 1.0 - 0.5 ** (1.0 / half_life) if half_life > 0 else 1.0

    def move(self, average: nn.Module, trained: nn.Module, step: int) -> None:
        """Moves the parameters of an average towards those of what is trained, after step 1, 2, ...

        Buffers are left alone: what is measured or bound is equal in both.
        """
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(trained.parameters()), self.share(step))
