"""How findings change the covariance of images: an opacity lies on either side, so it moves the spread, not the mean.

The scores of an image on the components are N(0, base + the sum of the spreads of its findings), fitted by expectation
maximisation as sums of normal parts of which only the total is seen (Dempster, Laird & Rubin 1977, section 4.4). A few
dozen images of a finding overstate its spread, so the fit is shrunk to the covariance of all images (as in Friedman
1989), by as much as denoises images best that had no part in it; it may be that findings change nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medtwin.scans.folds import folds

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the fit; the rest is the covariance of all images
_ROUNDS = 30
_IMAGES_PER_DIRECTION = 4
_NUM_LEVELS = 7
_FLOOR = 1e-6  # of the mean variance: every direction keeps some


class Spread(NamedTuple):
    """Covariance of the scores: `base` where nothing is found, plus `findings[f]` where f is.

    Attributes:
        base: (rank, rank). findings: (findings, rank, rank), each positive semidefinite.
    """

    base: Tensor
    findings: Tensor

    def at(self, present: Tensor) -> Tensor:
        """The covariances under some findings, (n, rank, rank), from (n, findings) of 0 to 1."""
        return self.base + torch.einsum("nf,fij->nij", present.to(self.findings), self.findings)


def measure_spread(scores: Tensor, present: Tensor) -> Spread:
    """The spread of scores about their mean under findings.

    Args:
        scores: (n, rank), of mean 0.
        present: Findings of each, (n, findings): 0, 1, or in between where it is not said.
    """
    scores, present = scores.double(), present.double()
    pooled = _pooled(scores, present)
    if not scores.numel() or not present.numel() or not float(present.var(dim=0, correction=0).sum()):
        return pooled
    errors = _left_out(scores, present)
    share = _SHARES[int((errors / errors[0]).mean(dim=1).argmin())]
    return _mixed(pooled, _maximised(scores, present, pooled.base), share) if share else pooled


def _pooled(scores: Tensor, present: Tensor) -> Spread:
    """The covariance of all images, to which findings add nothing."""
    rank = scores.shape[1]
    covariance = scores.T @ scores / max(len(scores), 1) + _floor(scores)
    return Spread(covariance, scores.new_zeros(present.shape[1], rank, rank))


def _mixed(pooled: Spread, fit: Spread, share: float) -> Spread:
    return Spread((1 - share) * pooled.base + share * fit.base, share * fit.findings)


def _maximised(scores: Tensor, present: Tensor, pooled: Tensor) -> Spread:
    """The fit of greatest likelihood, each finding kept to a direction for every four of its images."""
    kinds, kind_of = torch.unique(present, dim=0, return_inverse=True)
    onto = torch.nn.functional.one_hot(kind_of, len(kinds)).to(scores)
    counts = onto.sum(dim=0)
    moments = torch.einsum("nk,ni,nj->kij", onto, scores, scores)
    of_finding = (counts[:, None] * kinds).sum(dim=0).clamp(min=1e-9)
    fit = Spread(pooled.clone(), pooled.expand(present.shape[1], -1, -1) / 2)
    for _ in range(_ROUNDS):
        inverse = torch.linalg.inv(fit.at(kinds) + _floor(scores))
        surplus = inverse @ moments @ inverse - counts[:, None, None] * inverse  # how far a kind is from its covariance
        by_finding = torch.einsum("kf,kij->fij", kinds, surplus) / of_finding[:, None, None]
        base = fit.base + fit.base @ (surplus.sum(dim=0) / len(scores)) @ fit.base
        fit = Spread(base, fit.findings + fit.findings @ by_finding @ fit.findings)
    root = torch.linalg.cholesky(fit.base + _floor(scores))
    found = torch.linalg.solve_triangular(root, fit.findings, upper=False)
    found = torch.linalg.solve_triangular(root, found.transpose(1, 2), upper=False)
    values, vectors = torch.linalg.eigh(found)
    rank = scores.shape[1]
    is_kept = rank - 1 - torch.arange(rank) < (of_finding // _IMAGES_PER_DIRECTION)[:, None]
    half = root @ vectors * (values.clamp(min=0) * is_kept).sqrt()[:, None]
    return Spread(fit.base, half @ half.transpose(1, 2))


def _left_out(scores: Tensor, present: Tensor) -> Tensor:
    """Squared error of denoising by shares of fits without each image's own fold, at some noise levels.

    Returns:
        (shares, levels).
    """
    spectrum = scores.square().mean(dim=0).clamp(min=1e-12).sqrt().log()
    levels = torch.linspace(float(spectrum.min()), float(spectrum.max()), _NUM_LEVELS, dtype=torch.float64).exp()
    errors = torch.zeros(len(_SHARES), len(levels), dtype=torch.float64)
    identity = torch.eye(scores.shape[1], dtype=torch.float64)
    for fold, others in folds(len(scores)):
        pooled = _pooled(scores[others], present[others])
        fit = _maximised(scores[others], present[others], pooled.base)
        kinds, kind_of = torch.unique(present[fold], dim=0, return_inverse=True)
        for row, share in enumerate(_SHARES):
            covariance = _mixed(pooled, fit, share).at(kinds)
            for column, level in enumerate(levels):
                lost = level**2 * torch.linalg.inv(covariance + level**2 * identity)  # what the filter takes away
                missed = torch.einsum("nij,nj->ni", lost[kind_of], scores[fold]).square().sum()
                noise = level**2 * (identity - lost)[kind_of].square().sum()
                errors[row, column] += missed + noise
    return errors


def _floor(scores: Tensor) -> Tensor:
    variance = _FLOOR * scores.square().mean() if scores.numel() else scores.new_tensor(1.0)
    return variance.clamp(min=1e-12) * torch.eye(scores.shape[1], dtype=scores.dtype)
