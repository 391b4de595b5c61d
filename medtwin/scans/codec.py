"""Images as latents of unit variance: what diffusion is learned on where images are too large for it, and back.

The network is that of a finished run of `model=scan_autoencoder`. It is not trained further, and its weights are in
every checkpoint of the model that uses it, which then needs the other run no more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medtwin.scans.autoencoder_net import AutoencoderNet, Posterior, at_once

_MEASURE_SEED = 20220621


class LatentCodec(nn.Module):
    """Encodes images to latents that have mean 0 and variance 1 in each channel, and decodes them.

    Attributes:
        image_size, size: Of the images and of the latents. channels: Of the latents.
        shift, scale: Mean and standard deviation of the latents of training images, by channel, (channels, 1, ...); 0
            and 1 until `measure`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: AutoencoderNet, image_size: Sequence[int]) -> None:
        """Wraps a network, whose weights may come later.

        Raises:
            ValueError: If the images have another number of dimensions than the network.
        """
        super().__init__()
        if len(image_size) != net.spatial_dims:
            raise ValueError(
                f"size must have {net.spatial_dims} numbers, as the autoencoder has dimensions, got {list(image_size)}"
            )
        self.net = net.requires_grad_(False)
        self.image_size, self.size, self.channels = tuple(image_size), net.latent_size(image_size), net.latent_channels
        per_channel = (net.latent_channels, *(1,) * net.spatial_dims)
        self.register_buffer("shift", torch.zeros(per_channel))
        self.register_buffer("scale", torch.ones(per_channel))

    @torch.no_grad()
    def measure(self, images: Tensor) -> Tensor:
        """Measures shift and scale on training images, (n, 1, *size), and returns their latents, scaled.

        Raises:
            ValueError: If a channel of the latents is the same everywhere in all images.
        """
        drawn = torch.Generator().manual_seed(_MEASURE_SEED)
        latents = torch.cat(
            [
                posterior.sample(torch.randn(posterior.mean.shape, generator=drawn))
                for part in torch.split(images, at_once(self.image_size))
                for posterior in [self.net.encode(part)]
            ]
        )
        by_channel = latents.transpose(0, 1).flatten(1).double()
        if not bool((by_channel.std(dim=1) > 0).all()):
            raise ValueError("every channel of the latents must vary over the training images")
        self.shift.copy_(by_channel.mean(dim=1).reshape(self.shift.shape))
        self.scale.copy_(by_channel.std(dim=1).reshape(self.scale.shape))
        return (latents - self.shift) / self.scale

    @torch.no_grad()
    def posterior(self, images: Tensor) -> Posterior:
        """What images, (n, 1, *image_size), say of their latents, scaled: (n, channels, *size)."""
        found = [self.net.encode(part) for part in torch.split(images, at_once(self.image_size))]
        mean, sigma = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Posterior((mean - self.shift) / self.scale, sigma / self.scale)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The images of latents, (n, 1, *image_size), about -1 to 1."""
        parts = torch.split(latents * self.scale + self.shift, at_once(self.image_size))
        return torch.cat([self.net.decode(part, self.image_size) for part in parts])
