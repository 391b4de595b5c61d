"""The distributions that the decoder's heads parametrise: mixtures of normals, categories, and how each is sampled.

Every sampler takes a uniform number, so that the same noise with other parameters gives the counterfactual.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_LOG_WIDTH_RANGE = (-5.0, 3.0)


def mixture_log_prob(parameters: Tensor, value: Tensor) -> Tensor:
    """Log density, (...,), of values under mixtures of K normals.

    Args:
        parameters: (..., 3K): logits, means, log standard deviations (kept within e**-5 to e**3).
        value: (...,).
    """
    logits, means, log_widths = parameters.chunk(3, dim=-1)
    log_widths = log_widths.clamp(*_LOG_WIDTH_RANGE)
    z = (value[..., None] - means) * torch.exp(-log_widths)
    parts = functional.log_softmax(logits, dim=-1) - 0.5 * z * z - log_widths - _LOG_SQRT_2PI
    return torch.logsumexp(parts, dim=-1)


def sample_mixture(parameters: Tensor, uniforms: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Values, (...,), of mixtures of normals truncated to [low, high], exactly: by component, then by inverse CDF.

    Args:
        parameters: (..., 3K) as for `mixture_log_prob`.
        uniforms: (..., 2) in [0, 1): for the component, and within it.
        low: (...,) smallest value.
        high: (...,) largest value, not below `low`. Where no component has mass between them, the nearest bound.
    """
    logits, means, log_widths = parameters.double().chunk(3, dim=-1)
    widths = torch.exp(log_widths.clamp(*_LOG_WIDTH_RANGE))
    below = torch.special.ndtr((low.double()[..., None] - means) / widths)
    above = torch.special.ndtr((high.double()[..., None] - means) / widths)
    mass = functional.softmax(logits, dim=-1) * (above - below)
    chosen = sample_categories(mass, uniforms[..., 0])[..., None]
    first, last = below.gather(-1, chosen)[..., 0], above.gather(-1, chosen)[..., 0]
    part = (first + uniforms[..., 1].double() * (last - first)).clamp(1e-12, 1 - 1e-12)
    value = torch.special.ndtri(part) * widths.gather(-1, chosen)[..., 0] + means.gather(-1, chosen)[..., 0]
    return torch.minimum(torch.maximum(value, low.double()), high.double())


def sample_categories(mass: Tensor, uniform: Tensor) -> Tensor:
    """Indices, (...,), drawn by inverse CDF from unnormalised non-negative masses (..., C) and uniforms (...,)."""
    total = torch.cumsum(mass.double(), dim=-1)
    index = (total <= uniform.double()[..., None] * total[..., -1:]).sum(dim=-1)
    return index.clamp(max=mass.shape[-1] - 1)


def masked_log_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Log probabilities, (..., C), among the allowed categories; -inf for the others."""
    return functional.log_softmax(logits.masked_fill(~allowed, float("-inf")), dim=-1)
