"""N(0, I): the prior that the VAE is trained with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.timelines.priors.prior import Arrays, Draws, Floats, as_rows, refuse_component, standard_noise


@dataclass(frozen=True)
class NormalPrior:
    """The standard normal law of z.

    Attributes:
        dim: Numbers of z, 1 or more.

    Raises:
        ValueError: If the dimension is below 1.

    >>> NormalPrior(2).log_prob(np.zeros((1, 2))).round(4).tolist()
    [-1.8379]
    """

    dim: int

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"dim must be 1 or more, got {self.dim!r}")

    def draw(self, rng: np.random.Generator, component: int | None = None) -> Draws:
        """One subject's z, (dim,); see `Prior`."""
        z: Draws = self.draw_many([rng], component)[0]
        return z

    def draw_many(self, rngs: Sequence[np.random.Generator], component: int | None = None) -> Draws:
        """One z for each generator, (len(rngs), dim); see `Prior`."""
        refuse_component(self, component)
        return standard_noise(rngs, self.dim).astype(np.float32)

    def log_prob(self, z: NDArray[np.floating[Any]]) -> Floats:
        """Log density in nats, (n,), at z (n, dim)."""
        rows = as_rows(z, self.dim)
        return np.asarray(-0.5 * (rows**2).sum(axis=1) - 0.5 * self.dim * math.log(2 * math.pi))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The dimension."""
        return {"dim": np.array(self.dim)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> NormalPrior:
        """What `to_arrays` gave.

        Raises:
            KeyError, ValueError: If it is something else.
        """
        return cls(int(arrays["dim"]))


@dataclass(frozen=True)
class FitNormal:
    """Makes N(0, I) of the dimension of the posteriors: nothing is fitted."""

    def fit(self, mean: NDArray[np.floating[Any]], log_var: NDArray[np.floating[Any]], *, seed: int) -> NormalPrior:
        """N(0, I); see `PriorFactory`. No subject is looked at, and none is needed.

        Raises:
            ValueError: If the arrays are not (n, dim) both.
        """
        if mean.ndim != 2 or mean.shape != log_var.shape:
            raise ValueError(f"mean and log_var must be (n, dim) both, got {mean.shape} and {log_var.shape}")
        return NormalPrior(int(mean.shape[1]))
