"""The network of the autoencoder: MONAI's AutoencoderKL, for images or volumes of one channel and any size.

Sources: Rombach et al. 2022, section 3.1; Kingma & Welling 2014 (posterior and divergence).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.nets.autoencoderkl import AutoencoderKL
from torch import Tensor, nn

from medtwin.scans.unet import crop, pad_to_multiple

_VALUES_AT_ONCE = 2**20


class Posterior(NamedTuple):
    """A normal distribution of latents, its numbers independent: (batch, latent_channels, *latent size) each."""

    mean: Tensor
    sigma: Tensor

    def sample(self, noise: Tensor | None = None) -> Tensor:
        """Latents; None: standard normal noise from torch's global generator."""
        noise = torch.randn(self.mean.shape) if noise is None else noise
        return self.mean + self.sigma * noise.to(self.mean)

    def kl(self) -> Tensor:
        """KL divergence from the standard normal in nats, by number, of the shape of the mean.

        >>> Posterior(torch.ones(1), torch.ones(1)).kl()
        tensor([0.5000])
        """
        return 0.5 * (self.mean.square() + self.sigma.square() - 1) - self.sigma.log()


class AutoencoderNet(nn.Module):
    """MONAI's AutoencoderKL for images of one channel and any size.

    Attributes:
        spatial_dims: 2 or 3. latent_channels: Of the latents. factor: Pixels of a side for one latent.
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 2,
        channels: Sequence[int] = (32, 64, 64),
        num_res_blocks: int = 1,
        attention_levels: Sequence[bool] = (False, False, False),
        latent_channels: int = 4,
        norm_groups: int = 8,
        recomputes: bool = False,
    ) -> None:
        """Makes the network.

        Args:
            spatial_dims: 2 or 3.
            channels: Width of each level, the finest first, multiples of norm_groups; each level halves the size.
            num_res_blocks: Residual blocks of a level.
            attention_levels: Whether a level has self-attention, whose memory grows with the square of its positions.
            latent_channels: Channels of the latents.
            norm_groups: Groups of each GroupNorm.
            recomputes: Whether encoder and decoder are computed again in the backward pass, for less memory.

        Raises:
            ValueError: If a size cannot be used.
        """
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
        if len(channels) < 2 or min(channels) < 1:
            raise ValueError(f"channels must be 2 or more positive numbers, got {list(channels)!r}")
        if len(attention_levels) != len(channels):
            raise ValueError(f"attention_levels must have as many entries as channels, {len(channels)}")
        for name, value in (
            ("num_res_blocks", num_res_blocks), ("latent_channels", latent_channels), ("norm_groups", norm_groups)
        ):  # fmt: skip
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value!r}")
        if any(width % norm_groups for width in channels):
            raise ValueError(f"channels must be multiples of norm_groups {norm_groups}, got {list(channels)!r}")
        self.spatial_dims, self.latent_channels = spatial_dims, latent_channels
        self.factor = 2 ** (len(channels) - 1)
        self.body = AutoencoderKL(
            spatial_dims=spatial_dims,
            in_channels=1,
            out_channels=1,
            num_res_blocks=num_res_blocks,
            channels=tuple(channels),
            attention_levels=tuple(attention_levels),
            latent_channels=latent_channels,
            norm_num_groups=norm_groups,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
            use_checkpoint=recomputes,
        )

    def latent_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Of the latents of images of a size.

        >>> AutoencoderNet(channels=[8, 8], attention_levels=[False, False]).latent_size([7, 8])
        (4, 4)
        """
        return tuple(math.ceil(n / self.factor) for n in size)

    def encode(self, images: Tensor) -> Posterior:
        """What images, (batch, 1, *size), say of their latents."""
        mean, sigma = self.body.encode(pad_to_multiple(images, self.factor))
        return Posterior(mean.float(), sigma.float())

    def decode(self, latents: Tensor, size: Sequence[int]) -> Tensor:
        """The images of latents, (batch, 1, *size)."""
        return crop(self.body.decode(latents), size).float()


def at_once(size: Sequence[int]) -> int:
    """Images of a size that go through the network together, where no gradient is wanted."""
    return max(1, _VALUES_AT_ONCE // math.prod(size))
