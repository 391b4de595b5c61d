"""Norms of the U-Net: over groups of channels and all pixels, or over the channels of each pixel alone.

GroupNorm is what diffusion models are usually made with. Its backward pass takes half of the time of a step in bfloat16
on a CPU (notes/images.md, section 4); a norm of each pixel is a sum over what lies side by side in memory
(`channels_last`).

Sources: Wu & He 2018 (group); Ba et al. 2016 (layer); Zhang & Sennrich 2019 (root mean square).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

NORMS = ("group", "layer", "rms")


def make_norm(kind: str, width: int, most_groups: int) -> nn.Module:
    """A norm of images (batch, width, *size).

    Args:
        kind: One of NORMS.
        width: Channels.
        most_groups: Of a GroupNorm; the largest number up to it that divides the width.

    Raises:
        ValueError: If there is no such norm.
    """
    if kind not in NORMS:
        raise ValueError(f"norm must be {', '.join(NORMS)}, got {kind!r}")
    if kind == "group":
        groups = next(n for n in range(min(most_groups, width), 0, -1) if width % n == 0)
        return nn.GroupNorm(groups, width)
    return PixelNorm(width, is_centred=kind == "layer")


class PixelNorm(nn.Module):
    """Unit variance, or unit mean square, over the channels of each pixel; then a scale and a shift of each channel.

    Args:
        width: Channels.
        is_centred: Whether the mean over channels is taken away first (layer); else it is kept (rms).
    """

    def __init__(self, width: int, *, is_centred: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.is_centred, self.eps = is_centred, 1e-5

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`, (batch, width, *size)."""
        last = x.movedim(1, -1)
        if self.is_centred:
            normed = functional.layer_norm(last, self.weight.shape, self.weight, self.bias, self.eps)
        else:
            normed = functional.rms_norm(last, self.weight.shape, self.weight, self.eps) + self.bias
        return normed.movedim(-1, 1)
