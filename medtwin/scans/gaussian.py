"""The Gaussian model of the training images: mean, components, their covariance under findings, spectrum of the rest.

It is measured, not trained. It gives the noise levels their scale (sigma_data), and the denoiser its linear part: the
body is scanned in one position, so a few components say most of what a coarse look at a noisy image can say, and the
spectrum says that fine detail is mostly noise. A network then need not learn either (Karras et al. 2022, appendix B.6,
derive the skip of one variance for all directions in the same way).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medtwin.scans.folds import folds
from medtwin.scans.parameterizations import aim
from medtwin.scans.spread import Spread, measure_spread

_MIN_VARIANCE = 1e-6  # of the mean variance: every direction keeps some
_MAX_IMAGES = 4096  # from so many the components are found
_MIN_IMAGES_PER_COMPONENT = 4


class GaussianModel(nn.Module):
    """Mean, principal components with their covariance, and the variance of what is left by frequency.

    Attributes:
        mean: (channels, *size); 0 until `measure`.
        components: Orthonormal, (rank, channels * pixels); 0 where not measured.
        covariance: Of the scores on them where nothing is found, (rank, rank). spread: What each finding adds to it,
            (findings, rank, rank).
        variance: Of the rest, by frequency, (*size); 1 until `measure`.
        total: Variance of a pixel about the mean image, averaged over all: sigma_data^2.
    """

    mean: Tensor
    components: Tensor
    covariance: Tensor
    spread: Tensor
    variance: Tensor
    total: Tensor

    def __init__(self, shape: Sequence[int], rank: int, num_findings: int = 0) -> None:
        """Standard normal images of a shape, (channels, *size).

        Raises:
            ValueError: If the rank or the number of findings is negative.
        """
        super().__init__()
        if rank < 0 or num_findings < 0:
            raise ValueError(f"rank and num_findings must be 0 or more, got {rank!r} and {num_findings!r}")
        pixels = math.prod(shape)
        self.register_buffer("mean", torch.zeros(*shape))
        self.register_buffer("components", torch.zeros(rank, pixels))
        self.register_buffer("covariance", torch.zeros(rank, rank))
        self.register_buffer("spread", torch.zeros(num_findings, rank, rank))
        self.register_buffer("variance", torch.ones(*shape[1:]))
        self.register_buffer("total", torch.ones(()))

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the training images about their mean image."""
        return math.sqrt(float(self.total))

    @torch.no_grad()
    def measure(self, images: Tensor, present: Tensor | None = None) -> None:
        """Measures the training images.

        There are at most a quarter as many components as images, so that none is the portrait of one image. The
        spectrum of the rest is that of images which had no part in the components, averaged over rings of equal
        frequency.

        Args:
            images: (n, channels, *size), in the scale of the network; thinned out evenly beyond 4096.
            present: Findings of each, (n, findings): 0, 1, or in between where it is not said; None: nothing is found.

        Raises:
            ValueError: If there are fewer than two, they have another shape, or all are equal.
        """
        if len(images) < 2 or images.shape[1:] != self.mean.shape:
            raise ValueError(f"there must be 2 or more images of {tuple(self.mean.shape)}, got {tuple(images.shape)}")
        step = -(-len(images) // _MAX_IMAGES)
        images = images[::step]
        present = images.new_zeros(len(images), len(self.spread)) if present is None else present[::step]
        self.mean.copy_(images.mean(dim=0))
        centred = (images - self.mean).flatten(1)
        self.total.copy_(centred.square().mean())
        if not float(self.total) > 0:
            raise ValueError("the training images must not all be equal")
        rank = min(len(self.components), len(images) // _MIN_IMAGES_PER_COMPONENT)
        components = _principal_components(centred, rank)
        self.components[:rank].copy_(components)
        found = measure_spread(centred.cpu() @ components.T.cpu(), present.cpu())
        self.covariance[:rank, :rank].copy_(found.base)
        self.spread[:, :rank, :rank].copy_(found.findings)
        rest = torch.empty_like(centred)
        for fold, others in folds(len(centred)):
            seen = _principal_components(centred[others], rank)
            rest[fold] = centred[fold] - (centred[fold] @ seen.T) @ seen
        self.variance.copy_(_spectrum(rest.reshape(images.shape)))

    def filter(
        self, centred: Tensor, sigma: Tensor, present: Tensor | None = None, after: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The best linear estimate of images less the mean, and its error, were the images Gaussian.

        Args:
            centred: Noisy images less the mean, (batch, channels, *size).
            sigma: Noise levels, (batch,).
            present: Findings of each, (batch, findings); None: nothing is found.
            after: Noise levels to step to, (batch,), 0 to sigma: what a step aims at (`parameterizations.py`) in the
                place of the estimate; None: the estimate.

        Returns:
            Of each direction variance / (variance + sigma^2), (batch, channels, *size); and the root mean square error
            of a pixel of the estimate, (batch,).
        """
        s2 = sigma**2
        present = centred.new_zeros(len(centred), len(self.spread)) if present is None else present
        covariance = Spread(self.covariance.double(), self.spread.double()).at(present)
        noise = s2.double()[:, None, None] * torch.eye(len(self.components), dtype=torch.double, device=s2.device)
        gains = torch.linalg.solve(covariance + noise, covariance).to(centred)  # they commute
        gain = self._gain(s2)
        explained = s2 * gains.diagonal(dim1=1, dim2=2).sum(dim=1) / self.mean.numel()
        error = (explained + s2 * gain.flatten(1).mean(dim=1)).sqrt()
        if after is not None:
            gains = gains @ _aim(covariance, sigma, after).to(centred)
            per_pixel = (-1, 1, *(1,) * self.variance.ndim)
            gain = gain * aim(self.variance[None, None], sigma.reshape(per_pixel), after.reshape(per_pixel))
        shares = centred.flatten(1) @ self.components.T
        rest = (centred.flatten(1) - shares @ self.components).reshape(centred.shape)
        axes = tuple(range(2, centred.ndim))
        rest = torch.fft.ifftn(gain * torch.fft.fftn(rest, dim=axes), dim=axes).real
        kept = torch.einsum("bij,bj->bi", gains, shares) @ self.components
        return kept.reshape(centred.shape) + rest, error

    def _gain(self, s2: Tensor) -> Tensor:
        variance = self.variance[None, None]
        return variance / (variance + s2.reshape(-1, 1, *(1,) * self.variance.ndim))


def _aim(covariance: Tensor, sigma: Tensor, after: Tensor) -> Tensor:
    """`aim` of covariances, (batch, rank, rank)."""
    values, vectors = torch.linalg.eigh(covariance)
    factors = aim(values.clamp(min=0), sigma.double()[:, None], after.double()[:, None])
    aimed: Tensor = (vectors * factors[:, None]) @ vectors.transpose(1, 2)
    return aimed


def _principal_components(centred: Tensor, rank: int) -> Tensor:
    """The first components of images less their mean, (rank, pixels), orthonormal."""
    double = centred.double()
    values, vectors = torch.linalg.eigh(double @ double.T / len(double))
    order = values.argsort(descending=True)[:rank]
    components: Tensor = torch.linalg.qr(double.T @ vectors[:, order]).Q.T.to(centred)
    return components


def _spectrum(images: Tensor) -> Tensor:
    """Mean power by frequency, averaged over rings, (*size); its mean is the variance of a pixel."""
    axes = tuple(range(2, images.ndim))
    power = torch.zeros(images.shape[2:])
    for batch in torch.split(images, 256):
        power += torch.fft.fftn(batch, dim=axes, norm="ortho").abs().square().sum(dim=(0, 1))
    power /= images.shape[0] * images.shape[1]
    grid = torch.meshgrid(*(torch.fft.fftfreq(n) for n in power.shape), indexing="ij")
    ring = (torch.stack(grid).square().sum(dim=0).sqrt() * max(power.shape)).round().long().flatten()
    sums = torch.bincount(ring, weights=power.flatten().double())
    smooth = (sums / torch.bincount(ring).clamp(min=1))[ring].reshape(power.shape).float()
    return smooth.clamp(min=_MIN_VARIANCE * max(float(power.mean()), 1e-12))
