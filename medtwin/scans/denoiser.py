"""One contract, `denoise(x, sigma, cond) -> x0`, whatever the network was asked to predict.

A noisy image is always x = x0 + sigma n. A parameterisation (`parameterizations.py`) says what the network sees and
predicts: D(x, sigma) = mean + k + c_out F, k = c_skip (x - mean), so that every sampler works with each. With mean 0
this is eq. 7 of Karras et al. 2022. The mean, which the conditions move linearly, sigma_data and the spectrum are
measured on training images.

F = shift + gain * clip(k / c_out), of which the network makes the shift and, if asked, the gain (else it is 0). Where
a tissue is even, all that is left in k is noise, about as large as c_out. That it should go is one number per place
(gain -1); a shift would have to be the noise itself, pixel by pixel, through layers that see patches of them, and small
networks do not learn that (docs/results/scans_volumes.md). What is larger than noise is clipped, and so it stays: soft
thresholding (Donoho 1995) of pixels, where the network says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from medtwin.scans.conditions import CONDITIONS
from medtwin.scans.effects import ConditionEffects
from medtwin.scans.gaussian import GaussianModel
from medtwin.scans.parameterizations import PARAMETERIZATIONS
from medtwin.scans.unet import NoiseFeatures

_REACH = 3.0
"""Of what the gain acts on, in units of the error of the linear estimate: noise lies within, an edge beyond."""
_FINDINGS = CONDITIONS.index("findings")


class Net(Protocol):
    """What a network of the `net` group is: `net(x, noise_level, cond)`.

    Attributes:
        cond_channels: Width of the condition that it takes.
        spatial_dims: 2 or 3. in_channels: Channels of the image.
        sees_noisy: Whether it takes twice as many channels: the noisy image after the linear estimate.
    """

    cond_channels: int
    spatial_dims: int
    in_channels: int
    sees_noisy: bool

    def __call__(self, x: Tensor, noise_level: Tensor, cond: Tensor) -> Tensor:
        """Shift of each pixel, (batch, in_channels, *size), and its gain in as many channels, where it has one."""
        ...


class Condition(NamedTuple):
    """Conditions as the denoiser takes them.

    Attributes:
        vector: Embedded, (batch, cond_channels).
        effect: What they do to the mean image, (batch, channels, *size).
        present: Findings, (batch, findings): 0, 1, or their share of the training images where it is not said.
    """

    vector: Tensor
    effect: Tensor
    present: Tensor


def without_findings(known: Tensor) -> Tensor:
    """Which conditions are known, (n, conditions), with the findings not said: what guidance compares with."""
    without = known.clone()
    without[:, _FINDINGS] = 0.0
    return without


class ConditionEmbedding(nn.Module):
    """Conditions as one vector: a linear map of the values of each known condition, a learned null of each missing one.

    Any subset of the conditions may be known: what is missing adds its own null vector and nothing else. The vector has
    unit variance whatever is known, without which the conditions take long to be noticed.
    """

    condition_of_value: Tensor

    def __init__(self, condition_widths: Sequence[int], width: int) -> None:
        super().__init__()
        owners = [index for index, n in enumerate(condition_widths) for _ in range(n)]
        self.register_buffer("condition_of_value", torch.tensor(owners, dtype=torch.long), persistent=False)
        num_conditions = len(condition_widths)
        self.values = nn.Parameter(torch.randn(len(owners), width) * 0.5)
        self.known = nn.Parameter(torch.zeros(num_conditions, width))
        self.null = nn.Parameter(torch.randn(num_conditions, width) * 0.5)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, values: Tensor, known: Tensor) -> Tensor:
        """(batch, values) and (batch, conditions) of 0 and 1, to (batch, width)."""
        kept = values * known[:, self.condition_of_value]
        h = kept @ self.values + known @ self.known + (1 - known) @ self.null
        return cast(Tensor, self.layers(h))


class Denoiser(nn.Module):
    """A network, the embedding of its conditions, and how the network is wrapped.

    With `edm` and a rank above 0 the skip is the best linear denoiser given the conditions: about a mean image that
    they move (`ConditionEffects`), with the covariance of a `GaussianModel`, to which findings add. The skip of Karras
    et al. is the case of one mean and equal variance in all directions. The network sees how this estimate of the image
    differs from its mean, in which there is no noise where there is no signal, and learns what is not linear. What is
    finer than the noise is drowned in that estimate: the net may ask for the noisy image, too (`sees_noisy`).

    Attributes:
        effects, prior: What was measured on the training images.
        step_features: How the network is told of steps; None: it is not.
    """

    is_finding: Tensor

    def __init__(
        self,
        net: Net,
        condition_widths: Sequence[int],
        size: Sequence[int],
        *,
        rank: int = 0,
        parameterization: str = "edm",
        takes_steps: bool = False,
    ) -> None:
        """Wraps a network.

        Args:
            net: The network.
            condition_widths: Numbers of each condition.
            size: Of the images, one number per spatial dimension.
            rank: Principal components of the Gaussian model; 0: its variance is one number, sigma_data^2, and it is the
                same under all conditions.
            parameterization: One of PARAMETERIZATIONS; the Gaussian model is for edm alone.
            takes_steps: Whether the network is told how far a step goes: a model of few steps (`shortcut.py`).

        Raises:
            ValueError: If the parameterisation is unknown or has no use for the rank, or the size has another number of
                dimensions than the net.
        """
        super().__init__()
        if parameterization not in PARAMETERIZATIONS:
            raise ValueError(f"parameterization must be {', '.join(PARAMETERIZATIONS)}, got {parameterization!r}")
        if rank and parameterization != "edm":
            raise ValueError(f"rank must be 0 with parameterization={parameterization}, got {rank!r}")
        if len(size) != net.spatial_dims:
            raise ValueError(f"size must have {net.spatial_dims} numbers, as the net has dimensions, got {list(size)}")
        self.net = net
        self.embedding = ConditionEmbedding(condition_widths, net.cond_channels)
        self.effects = ConditionEffects(condition_widths, (net.in_channels, *size))
        is_finding = self.effects.condition_of_value == _FINDINGS
        self.register_buffer("is_finding", is_finding, persistent=False)
        self.prior = GaussianModel((net.in_channels, *size), rank, int(is_finding.sum()))
        self._coefficients = PARAMETERIZATIONS[parameterization]
        self._is_gaussian = rank > 0
        self.step_features = StepFeatures(net.cond_channels) if takes_steps else None

    def measure(self, images: Tensor, values: Tensor, known: Tensor) -> None:
        """Measures the training images: what the conditions do to them, and the Gaussian model of what that leaves.

        Args:
            images: (n, channels, *size).
            values: Numbers of their conditions, (n, values).
            known: Which conditions are known, (n, conditions) of 1 and 0.

        Raises:
            ValueError: If there are fewer than two images, they have another shape, or all are equal.
        """
        if self._is_gaussian:
            rest = self.effects.measure(images, values, known)
            self.prior.measure(rest, self._present(values, known))
        else:
            self.prior.measure(images)

    def embed(self, values: Tensor, known: Tensor) -> Condition:
        """Conditions, (batch, values) and (batch, conditions), as the denoiser takes them."""
        return Condition(self.embedding(values, known), self.effects(values, known), self._present(values, known))

    def _present(self, values: Tensor, known: Tensor) -> Tensor:
        is_known = known[:, _FINDINGS : _FINDINGS + 1] > 0
        return torch.where(is_known, values[:, self.is_finding], self.effects.centre[self.is_finding])

    def mean_image(self, values: Tensor, known: Tensor) -> Tensor:
        """The mean image under some conditions, (batch, channels, *size)."""
        effect: Tensor = self.effects(values, known)
        return self.prior.mean + effect

    def denoise(self, x: Tensor, sigma: Tensor, cond: Condition) -> Tensor:
        """The expected clean image x0 given x = x0 + sigma n.

        Args:
            x: (batch, channels, *size).
            sigma: Noise levels, (batch,), above 0.
            cond: From `embed`.
        """
        return self.denoise_and_weight(x, sigma, cond)[0]

    def denoise_to(self, x: Tensor, sigma: Tensor, after: Tensor, cond: Condition) -> Tensor:
        """What a step from sigma to `after` aims at: x_after = r x + (1 - r) of it, r = after / sigma.

        Args:
            x: (batch, channels, *size).
            sigma: Noise levels, (batch,), above 0.
            after: Noise levels, (batch,), from 0 to sigma.
            cond: From `embed`.

        Raises:
            ValueError: If the network is not told of steps.
        """
        return self.denoise_and_weight(x, sigma, cond, after)[0]

    def denoise_and_weight(
        self, x: Tensor, sigma: Tensor, cond: Condition, after: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The clean image, and the weight 1 / c_out^2 with which its squared error counts, (batch, 1, ...).

        With that weight the loss is the squared error of what the network predicts (Karras et al. 2022, eq. 8). With
        `after` it is what a step aims at, as of `denoise_to`.
        """
        if after is not None and self.step_features is None:
            raise ValueError("takes_steps must be true of a denoiser that is to step to a noise level")
        shape = (-1, *(1,) * (x.ndim - 1))
        sigma = sigma.float()
        vector = cond.vector
        if self.step_features is not None:
            vector = vector + self.step_features(torch.ones_like(sigma) if after is None else after / sigma)
        with torch.autocast(x.device.type, enabled=False):  # what was measured keeps its precision
            c_skip, c_out, c_in, c_noise = self._coefficients(sigma, self.prior.sigma_data, after)
            mean = self.prior.mean + cond.effect
            centred = x.float() - mean
            if self._is_gaussian:
                kept, c_out = self.prior.filter(centred, sigma, cond.present, after)
                seen = kept / self.prior.sigma_data
            else:
                kept, seen = c_skip.reshape(shape) * centred, c_in.reshape(shape) * centred
            if self.net.sees_noisy:
                seen = torch.cat([seen, c_in.reshape(shape) * centred], dim=1)
        scale = c_out.reshape(shape)
        out = self.net(seen, c_noise, vector)
        shift = out[:, : self.net.in_channels]
        if out.shape[1] > self.net.in_channels:
            gain = out[:, self.net.in_channels :]
            shift = shift + gain * (kept / scale).clamp(-_REACH, _REACH)
        return mean + kept + scale * shift, scale**-2


class StepFeatures(nn.Module):
    """What is added to the condition for a step to a share r of its noise level, 0 to 1; nothing before training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = NoiseFeatures(width, highest=8.0)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, r: Tensor) -> Tensor:
        """(batch,) to (batch, width)."""
        return cast(Tensor, self.out(self.features(r)))
