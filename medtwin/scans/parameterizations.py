"""What the network is asked to predict, and how it is wrapped at each noise level.

A noisy image is always x = x0 + sigma n, about a mean image. With x less the mean, a parameterisation is
D(x, sigma) = c_skip x + c_out F(c_in x, c_noise). The papers of v-prediction and rectified flow assume data of unit
variance; here each counts in units of sigma_data, the standard deviation that was measured on the training images.

A model of few steps predicts where to step to instead of what is clean: D(x, sigma, after) is what the straight step
x_after = r x + (1 - r) D, r = after / sigma, has to aim at to land where the probability-flow ODE does. For
after = sigma that is the clean image. Only c_skip differs, so that images of variance sigma_data^2 need nothing of the
network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Coefficients(NamedTuple):
    """How the network is wrapped at each sigma; tensors of sigma's shape, (batch,)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def aim(variance: Tensor, sigma: Tensor, after: Tensor) -> Tensor:
    """Of a Gaussian direction, by what the gain of its denoiser is multiplied to aim where the ODE is at `after`.

    The ODE multiplies a direction of variance v by sqrt((v + after^2) / (v + sigma^2)); that less r, over 1 - r, is the
    denoiser's v / (v + sigma^2) times (1 + r) over the sum of that root and r.

    Args:
        variance: v.
        sigma: From where.
        after: To where, 0 to sigma; the shapes fit each other.

    >>> one = torch.tensor(1.0)
    >>> aim(one, one, one).item(), round(aim(one, one, 0 * one).item(), 4)  # 1 / 2 times it: 1 / sqrt(2)
    (1.0, 1.4142)
    """
    r = after / sigma
    root = ((variance + after**2) / (variance + sigma**2)).sqrt()
    return (1 + r) / (root + r)


def edm(sigma: Tensor, sigma_data: float, after: Tensor | None = None) -> Coefficients:
    """Unit variance in and out at every noise level (Karras et al. 2022, table 1).

    Args:
        sigma: Noise levels, above 0, (batch,).
        sigma_data: Standard deviation of the training images about their mean.
        after: Noise levels to step to, (batch,), 0 to sigma; None: sigma itself.

    >>> [round(c.item(), 3) for c in edm(torch.tensor([0.5]), 0.5)]
    [0.5, 0.354, 1.414, -0.173]
    """
    total = sigma**2 + sigma_data**2
    c_skip = sigma_data**2 / total
    if after is not None:
        c_skip = c_skip * aim(torch.full_like(sigma, sigma_data**2), sigma, after)
    return Coefficients(c_skip, sigma * sigma_data / total.sqrt(), total.rsqrt(), sigma.log() / 4)


def v_prediction(sigma: Tensor, sigma_data: float, after: Tensor | None = None) -> Coefficients:
    """The network predicts v = alpha n - sigma' x0 / sigma_data of the variance-preserving process.

    alpha = cos(phi) and sigma' = sin(phi), tan(phi) = sigma / sigma_data; the network is told phi, 0 to pi / 2, where
    `edm` tells it ln(sigma) / 4. Skip and scales are those of `edm`, but for the sign of what is predicted.

    Source: Salimans & Ho 2022, section 4 and appendix D.

    >>> [round(c.item(), 3) for c in v_prediction(torch.tensor([0.5]), 0.5)]
    [0.5, -0.354, 1.414, 0.785]
    """
    of_edm = edm(sigma, sigma_data, after)
    return of_edm._replace(c_out=-of_edm.c_out, c_noise=torch.atan(sigma / sigma_data))


def rectified_flow(sigma: Tensor, sigma_data: float, after: Tensor | None = None) -> Coefficients:
    """The network predicts the velocity n - x0 / sigma_data along z = (1 - t) x0 / sigma_data + t n.

    Hence t = sigma / (sigma_data + sigma); log-normal sigma is logit-normal t. Towards `after` the coefficients are the
    same, and what is predicted is the mean velocity on the way.

    Source: Liu et al. 2023; Esser et al. 2024 (logit-normal times).

    >>> [round(c.item(), 3) for c in rectified_flow(torch.tensor([0.5]), 0.5)]
    [0.5, -0.25, 1.0, 0.5]
    """
    t = sigma / (sigma_data + sigma)
    return Coefficients(1 - t, -sigma_data * t, 1 / (sigma_data + sigma), t)


PARAMETERIZATIONS: dict[str, Callable[[Tensor, float, Tensor | None], Coefficients]] = {
    "edm": edm,
    "v": v_prediction,
    "flow": rectified_flow,
}
