"""Samplers of the probability-flow ODE dx/dsigma = (x - D(x, sigma)) / sigma, or its SDE, from noise to an image.

They take any `denoise(x, sigma)` and the exact grid of sigmas at which it is evaluated. The grid and every coefficient
are computed in float64; what is added to the image is of its own type. Nothing here draws a random number: what the SDE
adds comes from `noise`, which knows to whom it belongs.

Sources: Karras et al. 2022, algorithm 1 and eq. 5; Lu et al. 2022 (DPM-Solver++, algorithm 2, data prediction, and its
SDE of section 6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
DenoiseTo = Callable[[Tensor, float, float], Tensor]
StepNoise = Callable[[int], Tensor]
"""Standard normal noise of the shape of the images for step 0, 1, ...; of every image its own."""
Sampler = Callable[[Denoise, Tensor, Sequence[float], StepNoise], Tensor]


@dataclass(frozen=True)
class NoiseSchedule:
    """Where a sampler evaluates the denoiser.

    Attributes:
        sigma_max: First noise level; must drown the data, whose range is -1 to 1. sigma_min: Last one above 0.
        rho: How densely the small noise levels are visited; 7 in Karras et al. 2022.
    """

    sigma_max: float = 30.0
    sigma_min: float = 0.01
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"0 < sigma_min < sigma_max must hold, got {self.sigma_min!r} and {self.sigma_max!r}")
        if not self.rho > 0:
            raise ValueError(f"rho must be positive, got {self.rho!r}")

    def sigmas(self, num_steps: int) -> list[float]:
        """The grid from sigma_max to sigma_min, then 0: num_steps + 1 numbers.

        Raises:
            ValueError: If num_steps is below 2.

        >>> NoiseSchedule(sigma_max=4.0, sigma_min=1.0, rho=1.0).sigmas(3)
        [4.0, 2.5, 1.0, 0.0]
        """
        if num_steps < 2:
            raise ValueError(f"num_steps must be 2 or more, got {num_steps!r}")
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        inner = [(high + i / (num_steps - 1) * (low - high)) ** self.rho for i in range(num_steps)]
        return [self.sigma_max, *inner[1:-1], self.sigma_min, 0.0]


def no_noise(step: int) -> Tensor:
    """For samplers that need none.

    Raises:
        ValueError: If one asks for some.
    """
    raise ValueError(f"this sampler needs noise, in step {step}")


def euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: StepNoise = no_noise) -> Tensor:
    """First order: one evaluation a step.

    Args:
        denoise: The clean image expected at (x, sigma).
        x: sigmas[0] times standard normal noise.
        sigmas: Falling, the last one 0.
        noise: Not asked for.
    """
    for sigma, after in pairwise(sigmas):
        ratio = after / sigma
        x = ratio * x + (1 - ratio) * denoise(x, sigma)
    return x


def heun(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: StepNoise = no_noise) -> Tensor:
    """Second order: two evaluations a step, one in the last (Karras et al. 2022, algorithm 1). Arguments of `euler`."""
    for sigma, after in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        ahead = x + (after - sigma) * slope
        if after > 0:
            slope = 0.5 * (slope + (ahead - denoise(ahead, after)) / after)
            ahead = x + (after - sigma) * slope
        x = ahead
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: StepNoise = no_noise) -> Tensor:
    """DPM-Solver++(2M): second order by remembering the last evaluation, one a step. Arguments of `euler`.

    With lambda = -log sigma, h the step in lambda and r the last step over this one, x0 is extrapolated to
    (1 + 1 / 2r) D_i - 1 / 2r D_(i-1). The last step goes to sigma 0, where the image is the last evaluation itself.
    """
    last: Tensor | None = None
    h_last = 0.0
    for sigma, after in pairwise(sigmas):
        x0 = denoise(x, sigma)
        if after == 0:
            return x0
        h = math.log(sigma / after)
        ratio = after / sigma
        x = ratio * x + (1 - ratio) * _extrapolated(x0, last, h, h_last)
        last, h_last = x0, h
    return x


def dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: StepNoise = no_noise) -> Tensor:
    """The same for the SDE of the reverse process: what is left of earlier errors falls faster, and noise is added.

    Arguments of `euler`, and `noise`. Between sigma and the next the old noise falls by exp(-2h) instead of exp(-h),
    and so much is added that its variance is that of the next sigma.
    """
    last: Tensor | None = None
    h_last = 0.0
    for step, (sigma, after) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        if after == 0:
            return x0
        h = math.log(sigma / after)
        kept = (after / sigma) ** 2
        x = kept * x + (1 - kept) * _extrapolated(x0, last, h, h_last)
        x = x + after * math.sqrt(1 - kept) * noise(step)
        last, h_last = x0, h
    return x


def _extrapolated(x0: Tensor, last: Tensor | None, h: float, h_last: float) -> Tensor:
    """The clean image in the middle of a step of length h, by this evaluation and the last, h_last before."""
    if last is None:
        return x0
    half = 0.5 * h / h_last
    return (1 + half) * x0 - half * last


def even_sigmas(num_steps: int, *, sigma_max: float, sigma_data: float) -> list[float]:
    """The grid of a model of few steps, num_steps + 1 noise levels from sigma_max to 0.

    Its steps are even in the time sigma / (sigma + sigma_data) of a rectified flow, so that every second noise level of
    twice as many steps is one of these.

    Raises:
        ValueError: If num_steps is below 1, or a standard deviation is not positive.

    >>> [round(sigma, 3) for sigma in even_sigmas(2, sigma_max=1.5, sigma_data=0.5)]
    [1.5, 0.3, 0.0]
    """
    if num_steps < 1 or not (sigma_max > 0 and sigma_data > 0):
        raise ValueError(f"num_steps must be 1 or more and sigmas positive, got {num_steps}, {sigma_max}, {sigma_data}")
    first = sigma_max / (sigma_max + sigma_data)
    times = [first * (1 - i / num_steps) for i in range(1, num_steps)]
    return [sigma_max, *(sigma_data * t / (1 - t) for t in times), 0.0]


def shortcut(denoise_to: DenoiseTo, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Steps of a model that was told how far each goes (`shortcut.py`); one evaluation a step.

    Args:
        denoise_to: What to aim at from (x, sigma) to get to the next noise level.
        x: sigmas[0] times standard normal noise.
        sigmas: Falling, the last one 0.
    """
    for sigma, after in pairwise(sigmas):
        ratio = after / sigma
        x = ratio * x + (1 - ratio) * denoise_to(x, sigma, after)
    return x


def num_steps_of(sampler: str, num_evaluations: int) -> int:
    """Steps of a sampler that evaluates the denoiser at most so often.

    >>> num_steps_of("dpmpp_2m", 20), num_steps_of("heun", 20)
    (20, 10)
    """
    return (num_evaluations + 1) // 2 if sampler == "heun" else num_evaluations


SAMPLERS: dict[str, Sampler] = {"dpmpp_2m": dpmpp_2m, "dpmpp_2m_sde": dpmpp_2m_sde, "heun": heun, "euler": euler}
