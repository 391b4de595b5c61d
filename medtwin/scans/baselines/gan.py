"""A generative adversarial network of images under conditions.

A generator grows noise and conditions into an image by convolutions; a critic says how real image and conditions look
together, by a projection. The loss does not saturate; the critic's gradient at real images is kept small. What draws is
the moving average of the generator's weights.

Sources: Goodfellow et al. 2014; Radford et al. 2016 (convolutional GAN); Miyato & Koyama 2018 (projection); Mescheder
et al. 2018 (R1 penalty); Yazici et al. 2019 (averaged weights).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medtwin.scans.denoiser import ConditionEmbedding
from medtwin.scans.drawing import Tile
from medtwin.scans.module import ScanBatch
from medtwin.scans.unet import convolution, crop, pad_to_multiple
from medtwin.training.averaging import Averaging
from medtwin.training.batches import torch_seed

_LEAK = 0.2
_COARSEST = 4


@dataclass(frozen=True)
class GanTraining:
    """How the two are trained.

    Attributes:
        num_steps: Of each. batch_size: Images of a step. learning_rate: Of Adam, for both.
        gradient_penalty: Weight of the squared gradient of the critic at real images, halved (R1).
        half_life_steps: Of the average of the generator's weights.
        condition_dropout: Share of images that lose a condition, for each condition by itself.
    """

    num_steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 1e-3
    gradient_penalty: float = 1.0
    half_life_steps: float = 100.0
    condition_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.batch_size < 1:
            raise ValueError("num_steps and batch_size must be 1 or more")
        if not (self.learning_rate > 0 and self.half_life_steps > 0 and self.gradient_penalty >= 0):
            raise ValueError("learning_rate and half_life_steps must be positive, gradient_penalty 0 or more")
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(f"condition_dropout must be 0 or more and below 1, got {self.condition_dropout!r}")


class ScanGan(nn.Module):
    """The law.

    Attributes:
        latent: Numbers of noise. width: Channels at the finest level; twice as many at each coarser one.
    """

    def __init__(self, *, latent: int = 64, width: int = 16, training: GanTraining | None = None) -> None:
        """Says how large it may be.

        Raises:
            ValueError: If a number is below 1.
        """
        super().__init__()
        if latent < 1 or width < 1:
            raise ValueError(f"latent and width must be 1 or more, got {latent!r} and {width!r}")
        self.latent, self.width = latent, width
        self.options = training or GanTraining()

    def shape_for(self, condition_widths: Sequence[int], size: Sequence[int]) -> None:
        """Makes the networks."""
        levels = max(1, round(math.log2(max(size) / _COARSEST)))
        widths = [self.width * 2 ** min(level, 3) for level in range(levels + 1)]
        self.generator = _Generator(condition_widths, size, self.latent, widths)
        self.critic = _Critic(condition_widths, len(size), widths)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)

    def fit(self, batch: ScanBatch, seed: int) -> None:
        """Trains on images that are all in memory, (n, 1, *size); all that is random comes from the seed."""
        options = self.options
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(torch_seed(seed, "gan"))
            optimizers = [
                torch.optim.Adam(part.parameters(), lr=options.learning_rate, betas=(0.0, 0.99))
                for part in (self.generator, self.critic)
            ]
            self.train()
            for step in range(options.num_steps):
                self._step(batch, optimizers, step)
        self.eval()

    def _step(self, batch: ScanBatch, optimizers: Sequence[torch.optim.Optimizer], step: int) -> None:
        options = self.options
        chosen = torch.randint(len(batch["image"]), (options.batch_size,))
        real, values = batch["image"][chosen].requires_grad_(True), batch["values"][chosen]
        known = batch["known"][chosen] * (torch.rand(len(chosen), batch["known"].shape[1]) >= options.condition_dropout)
        made = self.generator(torch.randn(len(real), self.latent), values, known)
        for_critic = self.critic(real, values, known)
        loss = functional.softplus(-for_critic).mean()
        loss = loss + functional.softplus(self.critic(made.detach(), values, known)).mean()
        slope = cast(Any, torch.autograd.grad)(for_critic.sum(), real, create_graph=True)[0]
        loss = loss + 0.5 * options.gradient_penalty * slope.square().flatten(1).sum(dim=1).mean()
        optimizers[1].zero_grad()
        torch.autograd.backward(loss)
        optimizers[1].step()
        optimizers[0].zero_grad()
        torch.autograd.backward(functional.softplus(-self.critic(made, values, known)).mean())
        optimizers[0].step()
        Averaging(options.half_life_steps).move(self.average, self.generator, step + 1)

    def draw(self, tile: Tile) -> Tensor:
        """The images of a tile, (tile, 1, *size)."""
        return cast(Tensor, self.average(tile.noise("", (self.latent,)), tile.values, tile.known))


class _Generator(nn.Module):
    """Noise and conditions to images."""

    def __init__(
        self, condition_widths: Sequence[int], size: Sequence[int], latent: int, widths: Sequence[int]
    ) -> None:
        super().__init__()
        dims, self.size = len(size), tuple(size)
        self.start = [math.ceil(n / 2 ** (len(widths) - 1)) for n in size]
        self.embedding = ConditionEmbedding(condition_widths, latent)
        self.first = nn.Linear(2 * latent, widths[-1] * math.prod(self.start))
        self.grow = nn.ModuleList(
            [convolution(dims, a, b, 3) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)]
        )
        self.out = convolution(dims, widths[0], 1, 3)

    def forward(self, noise: Tensor, values: Tensor, known: Tensor) -> Tensor:
        given = torch.cat([noise, self.embedding(values, known)], dim=1)
        h = self.first(given).reshape(len(noise), -1, *self.start)
        for layer in self.grow:
            h = functional.interpolate(_unit(functional.leaky_relu(h, _LEAK)), scale_factor=2.0, mode="nearest")
            h = layer(h)
        return crop(torch.tanh(self.out(functional.leaky_relu(h, _LEAK))), self.size)


class _Critic(nn.Module):
    """Images and conditions to how real they look, (batch,)."""

    def __init__(self, condition_widths: Sequence[int], dims: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        self.first = convolution(dims, 1, widths[0], 3)
        self.shrink = nn.ModuleList([convolution(dims, a, b, 3, stride=2) for a, b in pairwise(widths)])
        self.embedding = ConditionEmbedding(condition_widths, widths[-1])
        self.out = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor, values: Tensor, known: Tensor) -> Tensor:
        h = self.first(pad_to_multiple(images, self.multiple))
        for layer in self.shrink:
            h = layer(functional.leaky_relu(h, _LEAK))
        h = functional.leaky_relu(h, _LEAK).flatten(2).mean(dim=2)
        score: Tensor = self.out(h)[:, 0] + (self.embedding(values, known) * h).mean(dim=1)
        return score


def _unit(h: Tensor) -> Tensor:
    """Of unit mean square over the channels of each pixel."""
    return h * (h.square().mean(dim=1, keepdim=True) + 1e-6).rsqrt()
