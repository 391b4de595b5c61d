"""The distributions that the decoder's heads parametrise: mixtures of normals, categories, and how each is sampled.

Every sampler takes a uniform number, so that the same noise with other parameters gives the counterfactual.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_MOST_WIDTH = 3.0
_SMALL = 1e-9  # what uniform numbers of 53 bits do not tell well
LEAST_WIDTH, FINE = -5.0, -12.0
"""Least log standard deviations: of what is measured, and where some components stand for single numbers."""


def mixture_log_prob(parameters: Tensor, value: Tensor, least: float = LEAST_WIDTH) -> Tensor:
    """Log density, (...,), of values under mixtures of K normals.

    Args:
        parameters: (..., 3K): logits, means, log standard deviations (kept within e**least to e**3).
        value: (...,).
        least: The least log standard deviation.
    """
    logits, means, log_widths = (parameters if parameters.dtype == torch.float64 else parameters.float()).chunk(3, -1)
    log_widths = log_widths.clamp(least, _MOST_WIDTH)
    z = (value[..., None] - means) * torch.exp(-log_widths)
    parts = functional.log_softmax(logits, dim=-1) - 0.5 * z * z - log_widths - _LOG_SQRT_2PI
    return torch.logsumexp(parts, dim=-1)


def sample_mixture(
    parameters: Tensor, uniforms: Tensor, low: Tensor, high: Tensor, least: float = LEAST_WIDTH
) -> Tensor:
    """Values, (...,), of mixtures of normals truncated to [low, high], exactly: by component, then by inverse CDF.

    Args:
        parameters: (..., 3K) as for `mixture_log_prob`.
        uniforms: (..., 2) in [0, 1): for the component, where -1, -2, ... name one; within it, where -q is 1 - q.
        low: (...,) smallest value.
        high: (...,) largest value, not below `low`. Where no component has mass between them, the nearest bound.
        least: As for `mixture_log_prob`.
    """
    law = _truncated(parameters, low, high, least)
    chosen, named = sample_categories(law.mass, uniforms[..., 0]), (-uniforms[..., 0]).round().long() - 1
    one = law.of(torch.where(named >= 0, named, chosen))
    part = uniforms[..., 1].double()
    part, rest = torch.where(part < 0, 1 + part, part), torch.where(part < 0, -part, 1 - part)
    lower = torch.special.ndtri((one.below + part * one.inside).clamp(1e-300, 1 - 2.0**-53))
    upper = -torch.special.ndtri((one.beyond + rest * one.inside).clamp(1e-300, 1 - 2.0**-53))
    value = torch.where(one.below + part * one.inside > 0.5, upper, lower) * one.widths + one.means
    return torch.minimum(torch.maximum(value, low.double()), high.double())


def abduct_mixture(
    parameters: Tensor, value: Tensor, uniforms: Tensor, low: Tensor, high: Tensor, least: float = LEAST_WIDTH
) -> Tensor:
    """Uniform numbers, (..., 2), at which `sample_mixture` gives these values: a draw of the noise behind them.

    What 53 bits cannot tell is given as `sample_mixture` takes it: a component that next to never gives anything by its
    name, and a place far out in the upper tail by what is missing to 1.

    Args:
        parameters: (..., 3K).
        value: (...,) as observed.
        uniforms: (..., 2) in [0, 1): the first decides among the components that may have given the value.
        low: (...,) as for `sample_mixture`.
        high: (...,) as for `sample_mixture`.
        least: As for `mixture_log_prob`.
    """
    law = _truncated(parameters, low, high, least)
    at = torch.minimum(torch.maximum(value.double(), low.double()), high.double())
    z = (at[..., None] - law.means) / law.widths
    logits = parameters.double().chunk(3, dim=-1)[0] - torch.log(law.widths) - 0.5 * z * z
    logits = logits.masked_fill(law.inside <= 0, float("-inf"))
    can_be = (law.inside > 0).any(dim=-1, keepdim=True)
    density = torch.where(can_be, functional.softmax(logits.masked_fill(~can_be, 0.0), dim=-1), law.mass)
    chosen = sample_categories(density, uniforms[..., 0])
    one, z = law.of(chosen), z.gather(-1, chosen[..., None])[..., 0]
    inside = one.inside.clamp(min=1e-300)
    part = ((_ndtr(z) - one.below) / inside).clamp(0, 1)
    rest = ((_ndtr(-z) - one.beyond) / inside).clamp(0, 1)
    within = torch.where(z > 0, torch.where(rest < _SMALL, -rest, 1 - rest), part)  # each where it has its digits
    which = abduct_category(law.mass, chosen, _left_over(density, uniforms[..., 0]))
    is_rare = can_be[..., 0] & (one.mass < _SMALL * law.mass.sum(dim=-1))
    return torch.stack([torch.where(is_rare, -1.0 - chosen, which), within], dim=-1)


def mixture_mass(parameters: Tensor, low: Tensor, high: Tensor, least: float = LEAST_WIDTH) -> Tensor:
    """Probability, (...,), of mixtures (..., 3K), as for `mixture_log_prob`, between bounds (...,)."""
    return _truncated(parameters, low, high, least).mass.sum(dim=-1)


def _ndtr(z: Tensor) -> Tensor:
    """The normal distribution function, with all digits in its lower tail: `torch.special.ndtr` has none beyond -8."""
    below: Tensor = 0.5 * torch.special.erfc(-z * math.sqrt(0.5))
    return below


class _Truncated(NamedTuple):
    """Normals between two bounds, (..., K) each.

    Attributes:
        means, widths: Their means and standard deviations.
        below, beyond, inside: Their probability below, above and between the bounds.
        mass: What the mixture has of each between the bounds.
    """

    means: Tensor
    widths: Tensor
    below: Tensor
    beyond: Tensor
    inside: Tensor
    mass: Tensor

    def of(self, chosen: Tensor) -> _Truncated:
        """Those of one component, (...,) each."""
        return _Truncated(*(part.gather(-1, chosen[..., None])[..., 0] for part in self))


def _truncated(parameters: Tensor, low: Tensor, high: Tensor, least: float) -> _Truncated:
    logits, means, log_widths = parameters.double().chunk(3, dim=-1)
    widths = torch.exp(log_widths.clamp(least, _MOST_WIDTH))
    first, last = ((bound.double()[..., None] - means) / widths for bound in (low, high))
    below, beyond = _ndtr(first), _ndtr(-last)
    # Both probabilities are close to 1 where the bounds lie far above the mean, and to 0 in the other tail.
    inside = torch.where(below > 0.5, _ndtr(-first) - beyond, _ndtr(last) - below)
    return _Truncated(means, widths, below, beyond, inside, functional.softmax(logits, dim=-1) * inside)


def _left_over(mass: Tensor, uniform: Tensor) -> Tensor:
    """A uniform number, (...,): where within its category the one that chose it lies."""
    total = torch.cumsum(mass.double(), dim=-1)
    target = uniform.double() * total[..., -1]
    chosen = sample_categories(mass, uniform)[..., None]
    size = mass.double().gather(-1, chosen)[..., 0]
    return ((target - (total.gather(-1, chosen)[..., 0] - size)) / size.clamp(min=1e-300)).clamp(0, 1 - 1e-9)


def sample_categories(mass: Tensor, uniform: Tensor) -> Tensor:
    """Indices, (...,), drawn by inverse CDF from unnormalised non-negative masses (..., C) and uniforms (...,)."""
    total = torch.cumsum(mass.double(), dim=-1)
    index = (total <= uniform.double()[..., None] * total[..., -1:]).sum(dim=-1)
    return index.clamp(max=mass.shape[-1] - 1)


def abduct_category(mass: Tensor, index: Tensor, uniform: Tensor) -> Tensor:
    """A uniform number, (...,), at which `sample_categories` gives `index` (...,); `uniform` is where in its share."""
    total = torch.cumsum(mass.double(), dim=-1)
    size = mass.double().gather(-1, index[..., None])[..., 0]
    first = total.gather(-1, index[..., None])[..., 0] - size
    inside = uniform.double() * (1 - 2e-9) + 1e-9  # away from the edges, where rounding would choose the neighbour
    return ((first + inside * size) / total[..., -1].clamp(min=1e-300)).clamp(0, 1)


def linear(num_in: int, num_out: int, *, bias: bool = True) -> nn.Linear:
    """A linear map, also from or to nothing (no latent, no facts), of which torch would warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(num_in, num_out, bias=bias)
