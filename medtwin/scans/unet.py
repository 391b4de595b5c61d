"""The U-Net of the denoiser: 2-D or 3-D, modulated by noise level and condition (FiLM), attention at the coarse levels.

Sources: Ronneberger et al. 2015 (U-Net); Perez et al. 2018 (FiLM); Dhariwal & Nichol 2021 (residual blocks);
Liu et al. 2018 (coordinate channels); Shi et al. 2016 (pixel shuffle); Hoogeboom et al. 2023 (patches in pixel space).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from medtwin.scans.norms import make_norm

_CONVOLUTIONS: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(frozen=True)
class UNetShape:
    """The sizes of a U-Net that are seldom changed.

    Attributes:
        cond_channels: Width of the condition and of the noise features.
        norm_groups: Most groups of a GroupNorm. head_channels: Width of an attention head.
        norm: group, layer or rms (`norms.py`).
        checkpoint_levels: Whether a level recomputes its blocks in the backward pass, less memory for a third more of
            its time; the finest first, as `channels`. Empty: none does.
        channels_last: Whether weights lie in memory with the channels of a pixel side by side, faster with norm=layer
            (docs/results/scans_speed.md). What is computed is the same, but for rounding.
    """

    cond_channels: int = 128
    norm_groups: int = 8
    head_channels: int = 32
    norm: str = "group"
    checkpoint_levels: Sequence[bool] = ()
    channels_last: bool = False

    def __post_init__(self) -> None:
        for name in ("cond_channels", "norm_groups", "head_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)!r}")

    def recomputes(self, num_levels: int) -> tuple[bool, ...]:
        """Of each level, whether it recomputes its blocks.

        Raises:
            ValueError: If `checkpoint_levels` is of another number of levels.
        """
        if len(self.checkpoint_levels) not in (0, num_levels):
            raise ValueError(f"checkpoint_levels must be empty, or have as many entries as channels, {num_levels}")
        return tuple(self.checkpoint_levels) or (False,) * num_levels


class UNet(nn.Module):
    """Maps a noisy image, a noise level and a condition to what the denoiser asks for; zero before training.

    The body is scanned in one position, so where a pixel lies says what is likely there: the coordinates of each pixel
    are input channels. Images of any size are padded to a multiple of what the levels need, and cropped again.

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
        attention_levels: Sequence[bool] = (False, False, True),
        patch: int = 1,
        dropout: float = 0.0,
        gain: bool = False,
        sees_noisy: bool = False,
        shape: UNetShape | None = None,
    ) -> None:
        """Checks the sizes and makes the layers.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the images: 1, or of latents (`codec.py`) as many as they have.
            channels: Width of each level, the finest first; each level halves the size.
            num_res_blocks: Residual blocks of a level, down; up has one more.
            attention_levels: Whether a level has attention after each block.
            patch: Pixels of a side that are folded into channels before the first level; 1: none. Time falls with
                its square, as does the sharpness that a small net reaches.
            dropout: Share of features dropped inside each block in training, 0 to below 1.
            gain: Whether the network also says how much of the noise of each pixel goes (`denoiser.py`).
            sees_noisy: Whether it sees the noisy image, too, in as many channels, beside what the denoiser makes of it.
            shape: Further sizes; None: the defaults.

        Raises:
            ValueError: If a size cannot be used.
        """
        super().__init__()
        shape = shape or UNetShape()
        _check(spatial_dims, in_channels, channels, attention_levels, num_res_blocks, patch)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be 0 or more and below 1, got {dropout!r}")
        self.spatial_dims, self.patch = spatial_dims, patch
        self.in_channels, self.sees_noisy = in_channels, sees_noisy
        self.cond_channels = shape.cond_channels
        self.recomputes = shape.recomputes(len(channels))
        self.multiple = patch * 2 ** (len(channels) - 1)
        self.noise_features = NoiseFeatures(shape.cond_channels)
        pixels = patch**spatial_dims

        def block(inputs: int, outputs: int, level: int) -> _Block:
            return _Block(spatial_dims, inputs, outputs, shape, dropout=dropout, attention=attention_levels[level])

        seen = (1 + sees_noisy) * in_channels * pixels + COORDINATES * spatial_dims
        self.stem = convolution(spatial_dims, seen, channels[0], 3)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        widths, width = [channels[0]], channels[0]
        for level, outputs in enumerate(channels):
            if level:
                self.shrink.append(convolution(spatial_dims, width, outputs, 3, stride=2))
                width = outputs
                widths.append(width)
            blocks = nn.ModuleList()
            for _ in range(num_res_blocks):
                blocks.append(block(width, outputs, level))
                width = outputs
                widths.append(width)
            self.down.append(blocks)
        self.middle = block(width, width, len(channels) - 1)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(channels))):
            blocks = nn.ModuleList()
            for _ in range(num_res_blocks + 1):
                blocks.append(block(width + widths.pop(), channels[level], level))
                width = channels[level]
            self.up.append(blocks)
            if level:
                self.grow.append(convolution(spatial_dims, width, channels[level - 1], 3))
                width = channels[level - 1]
        self.norm_out = make_norm(shape.norm, width, shape.norm_groups)
        self.out = _zeroed(convolution(spatial_dims, width, (1 + gain) * in_channels * pixels, 3))
        if shape.channels_last:
            cast(Any, self).to(memory_format=_CHANNELS_LAST[spatial_dims])

    def forward(self, x: Tensor, noise_level: Tensor, cond: Tensor) -> Tensor:
        """The raw output of the network, (batch, in_channels, *size), or twice the channels with a gain.

        Args:
            x: Scaled images, (batch, in_channels, *size); twice the channels where it sees the noisy ones, too.
            noise_level: What the parameterisation makes of sigma, (batch,).
            cond: Embedded conditions, (batch, cond_channels).
        """
        size = x.shape[2:]
        h = fold_patches(pad_to_multiple(x, self.multiple), self.patch)
        h = self.stem(torch.cat([h, coordinates(h)], dim=1))
        emb = functional.silu(self.noise_features(noise_level) + cond)
        kept = [h]
        for level, blocks in enumerate(self.down):
            if level:
                h = self.shrink[level - 1](h)
                kept.append(h)
            for block in cast(nn.ModuleList, blocks):
                h = self._run(block, h, emb, level)
                kept.append(h)
        h = self._run(self.middle, h, emb, len(self.down) - 1)
        for index, blocks in enumerate(self.up):
            for block in cast(nn.ModuleList, blocks):
                h = self._run(block, torch.cat([h, kept.pop()], dim=1), emb, len(self.down) - 1 - index)
            if index < len(self.grow):
                h = self.grow[index](functional.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = unfold_patches(self.out(functional.silu(self.norm_out(h))), self.patch)
        return crop(h, size)

    def _run(self, block: nn.Module, h: Tensor, emb: Tensor, level: int) -> Tensor:
        if self.recomputes[level] and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(block, h, emb, use_reentrant=False))
        return cast(Tensor, block(h, emb))


class NoiseFeatures(nn.Module):
    """A vector of unit variance for each noise level: cosines and sines of fixed frequencies, then two layers."""

    frequencies: Tensor

    def __init__(self, width: int, num_frequencies: int = 16, highest: float = 64.0) -> None:
        super().__init__()
        steps = torch.linspace(math.log(0.25), math.log(highest), num_frequencies)
        self.register_buffer("frequencies", steps.exp())
        self.layers = nn.Sequential(
            nn.Linear(2 * num_frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width)
        )

    def forward(self, noise_level: Tensor) -> Tensor:
        """(batch,) to (batch, width)."""
        phase = noise_level.float()[:, None] * self.frequencies
        return cast(Tensor, self.layers(torch.cat([phase.cos(), phase.sin()], dim=1)))


class _Block(nn.Module):
    """A residual block whose second norm is scaled and shifted by noise level and condition; then attention."""

    def __init__(
        self, dims: int, inputs: int, outputs: int, shape: UNetShape, *, dropout: float, attention: bool
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(shape.norm, inputs, shape.norm_groups)
        self.conv1 = convolution(dims, inputs, outputs, 3)
        self.film = nn.Linear(shape.cond_channels, 2 * outputs)
        self.norm2 = make_norm(shape.norm, outputs, shape.norm_groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(dims, outputs, outputs, 3)
        self.skip = nn.Identity() if inputs == outputs else convolution(dims, inputs, outputs, 1)
        self.attention = _Attention(dims, outputs, shape) if attention else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        scale, shift = self.film(emb)[(..., *(None,) * (x.ndim - 2))].chunk(2, dim=1)
        h = functional.silu(torch.addcmul(shift, self.norm2(h), scale + 1))
        h = self.skip(x) + self.conv2(self.dropout(h))
        return cast(Tensor, self.attention(h))


class _Attention(nn.Module):
    """Self-attention over all positions, residual, with PyTorch's fused kernel."""

    def __init__(self, dims: int, width: int, shape: UNetShape) -> None:
        super().__init__()
        self.num_heads = max(1, width // shape.head_channels)
        if width % self.num_heads:
            raise ValueError(f"channels with attention must be divisible by head_channels {shape.head_channels}")
        self.norm = make_norm(shape.norm, width, shape.norm_groups)
        self.qkv = convolution(dims, width, 3 * width, 1)
        self.out = _zeroed(convolution(dims, width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, width = x.shape[:2]
        # The fused kernel wants the channels of a head side by side.
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).contiguous()
        q, k, v = qkv.reshape(batch, -1, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        h = functional.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, x + self.out(h.transpose(1, 2).reshape(batch, -1, width).transpose(1, 2).reshape(x.shape)))


def coordinates(x: Tensor) -> Tensor:
    """Where each pixel lies, (batch, COORDINATES * dims, *size), for images (batch, channels, *size).

    Along each axis: the position from -1 to 1, and its sines and cosines of one and two waves.

    >>> coordinates(torch.zeros(1, 1, 2, 4))[0, 1]
    tensor([[-0.7500, -0.2500,  0.2500,  0.7500],
            [-0.7500, -0.2500,  0.2500,  0.7500]])
    """
    axes = [(torch.arange(n, device=x.device, dtype=x.dtype) * 2 + 1) / n - 1 for n in x.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    waves = [wave(math.pi * count * grid) for count in (1, 2) for wave in (torch.sin, torch.cos)]
    grid = torch.cat([grid, *waves])
    return grid.expand(x.shape[0], *grid.shape)


COORDINATES = 5
"""Channels of `coordinates` for each axis."""


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeats the last pixels of each axis until its size is a multiple."""
    padding = [(-n) % multiple for n in x.shape[2:]]
    return functional.pad(x, [p for n in reversed(padding) for p in (0, n)], mode="replicate") if any(padding) else x


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first pixels of each axis, as many as `size` says."""
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, 0, n)
    return x


def fold_patches(x: Tensor, patch: int) -> Tensor:
    """Moves the pixels of each patch into channels: (batch, channels * patch^dims, *size / patch)."""
    if patch == 1:
        return x
    for axis in range(2, x.ndim):
        x = x.reshape(*x.shape[:axis], -1, patch, *x.shape[axis + 1 :]).movedim(axis + 1, 1).flatten(1, 2)
    return x


def unfold_patches(x: Tensor, patch: int) -> Tensor:
    """The inverse of `fold_patches`."""
    if patch == 1:
        return x
    for axis in reversed(range(2, x.ndim)):
        x = x.reshape(x.shape[0], patch, -1, *x.shape[2:]).movedim(1, axis + 1).flatten(axis, axis + 1)
    return x


def _check(
    dims: int,
    in_channels: int,
    channels: Sequence[int],
    attention_levels: Sequence[bool],
    num_res_blocks: int,
    patch: int,
) -> None:
    if dims not in _CONVOLUTIONS:
        raise ValueError(f"spatial_dims must be 2 or 3, got {dims!r}")
    if not channels or min(*channels, in_channels) < 1:
        raise ValueError(f"channels and in_channels must be positive, got {list(channels)!r} and {in_channels!r}")
    if len(attention_levels) != len(channels):
        raise ValueError(f"attention_levels must have as many entries as channels, {len(channels)}")
    if num_res_blocks < 1 or patch < 1:
        raise ValueError(f"num_res_blocks and patch must be 1 or more, got {num_res_blocks!r} and {patch!r}")


def convolution(dims: int, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    """A convolution of images (dims 2) or volumes (3) that keeps their size, but for the stride; the kernel is odd."""
    return _CONVOLUTIONS[dims](inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def _zeroed(layer: Any) -> nn.Module:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return cast(nn.Module, layer)
