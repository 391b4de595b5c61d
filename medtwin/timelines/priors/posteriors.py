"""The posteriors of the training subjects, whose mixture a prior is fitted to, and the one Gaussian nearest to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from medtwin.core.errors import ConfigError
from medtwin.timelines.priors.prior import Floats
from medtwin.training.threads import torch_threads

MIN_SUBJECTS = 20
"""Training subjects below which no prior is fitted: it would describe single people."""


@dataclass(frozen=True, eq=False)
class Posteriors:
    """q(z | x_i) of every subject, Gaussians with independent dimensions.

    Attributes:
        mean: (n, dim).
        var: Variances, (n, dim), 0 or more.
    """

    mean: Floats
    var: Floats

    @classmethod
    def of(cls, mean: NDArray[np.floating[Any]], log_var: NDArray[np.floating[Any]]) -> Posteriors:
        """From what the encoder gives.

        Raises:
            ValueError: If the shapes differ or are not (n, dim), or a number is not finite (a log variance
                may be -inf).
            ConfigError: If there are fewer than `MIN_SUBJECTS` subjects.
        """
        if mean.ndim != 2 or mean.shape[1] < 1 or mean.shape != log_var.shape:
            raise ValueError(f"mean and log_var must be (n, dim) both, got {mean.shape} and {log_var.shape}")
        var = np.exp(np.asarray(log_var, dtype=np.float64))
        if not np.isfinite(mean).all() or not np.isfinite(var).all():
            raise ValueError("mean and log_var must be finite, log_var may be -inf")
        if len(mean) < MIN_SUBJECTS:
            raise ConfigError(
                f"a prior is fitted to {MIN_SUBJECTS} training subjects or more, got {len(mean)}: use prior=normal"
            )
        return cls(np.asarray(mean, dtype=np.float64), var)

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def dim(self) -> int:
        """Numbers of z."""
        return int(self.mean.shape[1])

    def take(self, rows: NDArray[np.integer[Any]]) -> Posteriors:
        """Those of some subjects."""
        return Posteriors(self.mean[rows], self.var[rows])

    def split(self, share: float, rng: np.random.Generator) -> tuple[Posteriors, Posteriors]:
        """Training and held-out subjects, at random; at least one of them is held out.

        Args:
            share: Of the subjects that are held out, above 0 and below 1.
            rng: Decides who.
        """
        order = rng.permutation(len(self))
        held = max(1, round(share * len(self)))
        return self.take(order[held:]), self.take(order[:held])

    def sample(self, per_subject: int, rng: np.random.Generator) -> Floats:
        """Draws of z, (per_subject * n, dim): all subjects once, then all again, and so on."""
        noise = rng.standard_normal((per_subject, *self.mean.shape))
        return np.asarray((self.mean + np.sqrt(self.var) * noise).reshape(-1, self.dim))


@dataclass(frozen=True, eq=False)
class Affine:
    """z = shift + scale w: what makes standard normal noise w a Gaussian.

    Attributes:
        shift: (dim,).
        scale: (dim, dim), lower triangular with a positive diagonal.

    Raises:
        ValueError: If the shapes do not fit, or the scale is no such matrix.
    """

    shift: Floats
    scale: Floats

    def __post_init__(self) -> None:
        if self.shift.ndim != 1 or self.scale.shape != (len(self.shift),) * 2:
            raise ValueError(
                f"shift must be (dim,) and scale (dim, dim), got {self.shift.shape} and {self.scale.shape}"
            )
        if np.triu(self.scale, 1).any() or not (np.diag(self.scale) > 0).all():
            raise ValueError("scale must be lower triangular with a positive diagonal")

    @cached_property
    def _inverse(self) -> Floats:
        return np.asarray(np.linalg.inv(self.scale), dtype=np.float64)

    @property
    def log_det(self) -> float:
        """Log determinant of the scale, in nats."""
        return float(np.log(np.diag(self.scale)).sum())

    def colour(self, w: Floats) -> Floats:
        """z, (n, dim), of w (n, dim); every row is computed alone, so that it depends on no other."""
        return np.asarray(self.shift + np.matmul(self.scale, w[:, :, None])[:, :, 0])

    def whiten(self, z: Floats) -> Floats:
        """w, (n, dim), of z (n, dim)."""
        return np.asarray((z - self.shift) @ self._inverse.T)

    def expected_log_prob(self, posteriors: Posteriors) -> Floats:
        """Expectation of log N(z; shift, scale scale^T) in nats under each posterior, (n,)."""
        squares = (self.whiten(posteriors.mean) ** 2).sum(axis=1)
        squares += posteriors.var @ (self._inverse**2).sum(axis=0)
        return np.asarray(-0.5 * (squares + posteriors.dim * math.log(2 * math.pi)) - self.log_det)


def nearest_gaussian(train: Posteriors, held: Posteriors) -> Affine:
    """N(0, I), a Gaussian of independent dimensions, or one with all covariances: what held-out subjects fit best.

    Moments are those of the aggregated posterior: the variance of the means, and the mean of the variances.
    """
    shift = train.mean.mean(axis=0)
    centred = train.mean - shift
    covariance = centred.T @ centred / len(train) + np.diag(train.var.mean(axis=0))
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    candidates = [Affine(np.zeros(train.dim), np.eye(train.dim)), Affine(shift, np.diag(spread))]
    # A tiny share of the variances, in case dimensions depend on one another exactly.
    candidates.append(Affine(shift, np.linalg.cholesky(covariance + 1e-6 * np.diag(spread**2))))
    scores = [float(candidate.expected_log_prob(held).mean()) for candidate in candidates]
    return candidates[int(np.argmax(scores))]


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, numpy and torch compute with one thread: the last digits of a sum depend on how many share it."""
    with torch_threads(1), threadpool_limits(1):
        yield
