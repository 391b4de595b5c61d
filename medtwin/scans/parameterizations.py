"""What the network is asked to predict, and how it is wrapped at each noise level.

A noisy image is always x = x0 + sigma n, about a mean image. With x less the mean, a parameterisation is
D(x, sigma) = c_skip x + c_out F(c_in x, c_noise). The papers of v-prediction and rectified flow assume data of unit
variance; here each counts in units of sigma_data, the standard deviation that was measured on the training images.
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


def edm(sigma: Tensor, sigma_data: float) -> Coefficients:
    """Unit variance in and out at every noise level (Karras et al. 2022, table 1).

    Args:
        sigma: Noise levels, above 0, (batch,).
        sigma_data: Standard deviation of the training images about their mean.

    >>> [round(c.item(), 3) for c in edm(torch.tensor([0.5]), 0.5)]
    [0.5, 0.354, 1.414, -0.173]
    """
    total = sigma**2 + sigma_data**2
    return Coefficients(sigma_data**2 / total, sigma * sigma_data / total.sqrt(), total.rsqrt(), sigma.log() / 4)


def v_prediction(sigma: Tensor, sigma_data: float) -> Coefficients:
    """The network predicts v = alpha n - sigma' x0 / sigma_data of the variance-preserving process.

    alpha = cos(phi) and sigma' = sin(phi), tan(phi) = sigma / sigma_data; the network is told phi, 0 to pi / 2, where
    `edm` tells it ln(sigma) / 4. Skip and scales are those of `edm`, but for the sign of what is predicted.

    Source: Salimans & Ho 2022, section 4 and appendix D.

    >>> [round(c.item(), 3) for c in v_prediction(torch.tensor([0.5]), 0.5)]
    [0.5, -0.354, 1.414, 0.785]
    """
    ratio = sigma / sigma_data
    alpha = (1 + ratio**2).rsqrt()
    return Coefficients(alpha**2, -sigma * alpha, alpha / sigma_data, torch.atan(ratio))


def rectified_flow(sigma: Tensor, sigma_data: float) -> Coefficients:
    """The network predicts the velocity n - x0 / sigma_data along z = (1 - t) x0 / sigma_data + t n.

    Hence t = sigma / (sigma_data + sigma); log-normal sigma is logit-normal t.

    Source: Liu et al. 2023; Esser et al. 2024 (logit-normal times).

    >>> [round(c.item(), 3) for c in rectified_flow(torch.tensor([0.5]), 0.5)]
    [0.5, -0.25, 1.0, 0.5]
    """
    t = sigma / (sigma_data + sigma)
    return Coefficients(1 - t, -sigma_data * t, 1 / (sigma_data + sigma), t)


PARAMETERIZATIONS: dict[str, Callable[[Tensor, float], Coefficients]] = {
    "edm": edm,
    "v": v_prediction,
    "flow": rectified_flow,
}
