"""MONAI's DiffusionModelUNet behind the interface of our own network: `net(x, noise_level, cond)`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from torch import Tensor, nn

from medtwin.scans.unet import COORDINATES, coordinates, crop, fold_patches, pad_to_multiple, unfold_patches

_STEPS_PER_UNIT = 100.0
"""MONAI expects step numbers from 0 to 1000 and turns one step by 1 rad: noise levels here span about 3 units."""


class MonaiUNet(nn.Module):
    """MONAI's U-Net: noise level added in each block, the condition as one token of cross-attention.

    It has no FiLM, dropout or checkpointing (notes/images.md, section 4); padding, patches and coordinates are added
    around it. The condition acts where there is attention: at `attention_levels` and in the middle.

    Attributes:
        cond_channels: Width of the condition that `forward` takes.
    """

    def __init__(  # noqa: PLR0913 - settings of a configuration, each by its name
        self,
        *,
        spatial_dims: int = 2,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 64, 96),
        num_res_blocks: int = 1,
        attention_levels: Sequence[bool] = (False, True, True),
        patch: int = 1,
        cond_channels: int = 128,
        head_channels: int = 32,
        gain: bool = False,
        sees_noisy: bool = False,
    ) -> None:
        """Makes the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the images: 1, or of latents (`codec.py`) as many as they have.
            channels: Width of each level, the finest first; multiples of 8.
            num_res_blocks: Residual blocks of a level.
            attention_levels: Whether a level has self-attention and sees the condition.
            patch: Pixels of a side that are folded into channels; 1: none.
            cond_channels: Width of the condition.
            head_channels: Width of an attention head.
            gain: Whether the network also says how much of the noise of each pixel goes (`denoiser.py`).
            sees_noisy: Whether it sees the noisy image, too, in as many channels, beside what the denoiser makes of it.

        Raises:
            ValueError: If a size cannot be used.
        """
        super().__init__()
        if spatial_dims not in (2, 3) or patch < 1:
            raise ValueError(f"spatial_dims must be 2 or 3 and patch 1 or more, got {spatial_dims!r} and {patch!r}")
        if in_channels < 1:
            raise ValueError(f"in_channels must be 1 or more, got {in_channels!r}")
        self.spatial_dims, self.patch, self.in_channels = spatial_dims, patch, in_channels
        self.cond_channels, self.sees_noisy = cond_channels, sees_noisy
        self.multiple = patch * 2 ** (len(channels) - 1)
        self.body = DiffusionModelUNet(
            spatial_dims=spatial_dims,
            in_channels=(1 + sees_noisy) * in_channels * patch**spatial_dims + COORDINATES * spatial_dims,
            out_channels=(1 + gain) * in_channels * patch**spatial_dims,
            num_res_blocks=num_res_blocks,
            channels=tuple(channels),
            attention_levels=tuple(attention_levels),
            norm_num_groups=8,
            num_head_channels=head_channels,
            with_conditioning=True,
            cross_attention_dim=cond_channels,
        )

    def forward(self, x: Tensor, noise_level: Tensor, cond: Tensor) -> Tensor:
        """The raw output of the network; arguments and shape as of `unet.UNet.forward`."""
        size = x.shape[2:]
        h = fold_patches(pad_to_multiple(x, self.multiple), self.patch)
        h = self.body(
            torch.cat([h, coordinates(h)], dim=1), timesteps=noise_level * _STEPS_PER_UNIT, context=cond[:, None, :]
        )
        return crop(unfold_patches(h, self.patch), size)
