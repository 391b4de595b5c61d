"""Averages of the weights whose length is chosen after training: any of them is put together from a few snapshots.

Along training, two averages are kept whose weight of step tau at step t goes as tau^gamma: they lengthen with
training, and their relative width does not change. From snapshots of them that were written now and then, the average
of any other width is the least-squares combination of what was stored: the profiles are known functions of time, so
that their inner products are, too.

Source: Karras et al. 2024 (EDM2, arXiv 2312.02696), section 3 and appendix C; written from the paper's equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float64]


def gamma_of(width: float) -> float:
    """The exponent of a profile whose standard deviation is `width` times the length of training.

    It solves width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).

    Args:
        width: Above 0 and below 0.28; 0.05 and 0.1 in the paper.

    Raises:
        ValueError: If the width is out of its range.

    >>> round(gamma_of(0.1), 2), round(gamma_of(0.05), 2)
    (6.94, 16.97)
    """
    if not 0 < width < 0.28:
        raise ValueError(f"width must be above 0 and below 0.28, got {width!r}")
    roots = np.roots([1.0, 7.0, 16.0 - width**-2, 12.0 - width**-2])
    return float(roots[np.isreal(roots)].real.max())


@dataclass(frozen=True)
class Profile:
    """A power average as it was at a step.

    Attributes:
        step: Number of steps that it averages over, 1 or more.
        width: Its standard deviation in shares of them.
    """

    step: int
    width: float


def products(a: Sequence[Profile], b: Sequence[Profile]) -> Floats:
    """Inner products of profiles over time, (len(a), len(b)).

    A profile is (gamma + 1) tau^gamma / t^(gamma + 1) for tau from 0 to t.
    """
    step_a, gamma_a = (np.array(each, np.float64)[:, None] for each in zip(*map(_numbers, a), strict=True))
    step_b, gamma_b = (np.array(each, np.float64)[None] for each in zip(*map(_numbers, b), strict=True))
    total = gamma_a + gamma_b + 1
    log = total * np.log(np.minimum(step_a, step_b)) - (gamma_a + 1) * np.log(step_a) - (gamma_b + 1) * np.log(step_b)
    return np.asarray((gamma_a + 1) * (gamma_b + 1) / total * np.exp(log))


def _numbers(profile: Profile) -> tuple[float, float]:
    return float(profile.step), gamma_of(profile.width)


def shares_of(stored: Sequence[Profile], wanted: Profile) -> Floats:
    """How much of each stored average makes up the wanted one, (stored,); they sum to about 1.

    Raises:
        ValueError: If nothing is stored, or the wanted step is later than all that is.
    """
    if not stored or wanted.step > max(profile.step for profile in stored):
        raise ValueError(f"averages must be stored up to step {wanted.step}, got {len(stored)} of them")
    found = np.linalg.lstsq(products(stored, stored), products(stored, [wanted])[:, 0], rcond=1e-10)[0]
    return np.asarray(found / found.sum())


def combined(states: Sequence[Mapping[str, Tensor]], shares: Floats) -> dict[str, Tensor]:
    """The sum of weights by their shares, of the type of the first."""
    return {
        name: sum((share * state[name].double() for state, share in zip(states, shares.tolist(), strict=True)),
                  start=torch.zeros_like(first, dtype=torch.float64)).to(first)
        for name, first in states[0].items()
    }  # fmt: skip


class PowerAverage:
    """The running average of one width over the parameters of a module.

    Attributes:
        width: Of its profile. weights: By name.
    """

    def __init__(self, module: nn.Module, width: float) -> None:
        self.width, self._gamma = width, gamma_of(width)
        self.weights = {name: value.detach().clone() for name, value in module.named_parameters()}

    def move(self, module: nn.Module, step: int) -> None:
        """Takes in the weights after step 1, 2, ...: beta = (1 - 1 / step)^(gamma + 1) of the average is kept."""
        share = 1.0 - (1.0 - 1.0 / step) ** (self._gamma + 1)
        with torch.no_grad():
            for name, value in module.named_parameters():
                self.weights[name].lerp_(value.to(self.weights[name]), share)
