"""A Gaussian mixture on principal components, and noise of the measured spectrum for what they do not hold.

The conditions move the mean image linearly, as in the diffusion model (`effects.py`); what is left is the mixture's.
The number of its components is the one under which images that it has not seen are likeliest.

Source: Tipping & Bishop 1999, Neural Comput 11:443 (mixtures of principal component analysers; here of one subspace).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from medtwin.scans.drawing import Tile
from medtwin.scans.effects import ConditionEffects
from medtwin.scans.folds import folds
from medtwin.scans.gaussian import GaussianModel
from medtwin.scans.module import ScanBatch

_RIDGE = 1e-3  # of the mean variance of the scores, added to every covariance


class ScanMixture(nn.Module):
    """The law; buffers hold what was fitted.

    Attributes:
        rank: Principal components. most: Components of the mixture that are tried at most.
        weights, means, roots: Of the mixture: (most,), (most, rank) and (most, rank, rank); unused ones have weight 0.
    """

    weights: Tensor
    means: Tensor
    roots: Tensor

    def __init__(self, *, rank: int = 48, most: int = 8) -> None:
        """Says how large it may be.

        Raises:
            ValueError: If a number is below 1.
        """
        super().__init__()
        if rank < 1 or most < 1:
            raise ValueError(f"rank and most must be 1 or more, got {rank!r} and {most!r}")
        self.rank, self.most = rank, most

    def shape_for(self, condition_widths: Sequence[int], size: Sequence[int]) -> None:
        """Makes the buffers."""
        self.effects = ConditionEffects(condition_widths, (1, *size))
        self.gaussian = GaussianModel((1, *size), self.rank)
        self.register_buffer("weights", torch.zeros(self.most))
        self.register_buffer("means", torch.zeros(self.most, self.rank))
        self.register_buffer("roots", torch.zeros(self.most, self.rank, self.rank))

    @torch.no_grad()
    def fit(self, batch: ScanBatch, seed: int) -> None:
        """Measures effects, components and spectrum, and fits the mixture to the scores."""
        rest = self.effects.measure(batch["image"], batch["values"], batch["known"])
        self.gaussian.measure(rest)
        used = int(self.gaussian.components.any(dim=1).sum())
        scores = ((rest - self.gaussian.mean).flatten(1) @ self.gaussian.components[:used].T).double().numpy()
        ridge = _RIDGE * float((scores**2).mean())
        candidates = [n for n in range(1, self.most + 1) if 2 * n * (used + 1) <= len(scores)] or [1]
        likelihoods = [_held_out(scores, n, ridge, seed) for n in candidates]
        best = candidates[int(np.argmax(likelihoods))]
        found = _mixture(best, ridge, seed).fit(scores)
        for buffer in (self.weights, self.means, self.roots):
            buffer.zero_()
        self.weights[:best] = torch.from_numpy(found.weights_).float()
        self.means[:best, :used] = torch.from_numpy(found.means_).float()
        self.roots[:best, :used, :used] = torch.from_numpy(np.linalg.cholesky(found.covariances_)).float()

    def draw(self, tile: Tile) -> Tensor:
        """The images of a tile, (tile, 1, *size)."""
        shape, gaussian = tuple(self.gaussian.mean.shape), self.gaussian
        uniform = torch.special.ndtr(tile.noise("component", (1,))[:, 0].double())
        which = torch.searchsorted(self.weights.double().cumsum(0), uniform).clamp(max=self.most - 1)
        which = torch.minimum(which, (self.weights > 0).sum() - 1)
        scores = self.means[which] + torch.einsum("nij,nj->ni", self.roots[which], tile.noise("scores", (self.rank,)))
        white, axes = tile.noise("", shape), tuple(range(2, len(shape) + 1))
        rest = torch.fft.ifftn(gaussian.variance.sqrt() * torch.fft.fftn(white, dim=axes), dim=axes).real.flatten(1)
        rest = rest - (rest @ gaussian.components.T) @ gaussian.components
        effect: Tensor = self.effects(tile.values, tile.known)
        images: Tensor = gaussian.mean + effect + (scores @ gaussian.components + rest).reshape(-1, *shape)
        return images


def _mixture(number: int, ridge: float, seed: int) -> GaussianMixture:
    return GaussianMixture(number, reg_covar=ridge, random_state=seed % 2**32, max_iter=200, init_params="kmeans")


def _held_out(scores: np.ndarray, number: int, ridge: float, seed: int) -> float:
    """Mean log-likelihood of scores under mixtures that were fitted without them."""
    total = 0.0
    for fold, others in folds(len(scores)):
        fitted = _mixture(number, ridge, seed).fit(scores[others.numpy()])
        total += float(fitted.score_samples(scores[fold.numpy()]).sum())
    return total / len(scores)
