"""Structures of the covariance of repeated measurements: matrices of free parameters, and their derivatives.

Standard deviations are exponentials of their parameters, correlations are t / sqrt(1 + t^2) of theirs. Derivatives are
exact: first ones by steps in the complex plane (Squire & Trapp 1998, SIAM Rev 40:110), which do not cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.follow_up import Floats

StructureName = Literal["us", "toep", "toeph", "ar1", "ar1h", "cs", "csh", "ad", "adh", "sp_exp"]
_Matrix = NDArray[Any]
_COMPLEX_STEP, _REAL_STEP = 1e-30, 1e-5


@dataclass(frozen=True)
class CovarianceStructure:
    """A family of covariance matrices of one subject's measurements.

    Attributes:
        name: us: unstructured; toep: one correlation for each distance of visits; ar1: powers of one correlation;
            cs: one correlation, compound symmetry; ad: products of correlations of neighbours, ante-dependence;
            sp_exp: powers of one correlation by the distance of positions. With an h at the end the variances differ
            between visits, as they do for us.
        positions: (visits,) where the visits lie; only sp_exp minds.

    Raises:
        ValueError: If the name is not known, or there is no visit.
    """

    name: StructureName
    positions: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.name not in get_args(StructureName):
            raise ValueError(f"name must be one of {get_args(StructureName)}, got {self.name!r}")
        if not self.positions:
            raise ValueError("positions must be of one visit at least, got none")

    @property
    def num_visits(self) -> int:
        """Rows of the matrix."""
        return len(self.positions)

    @property
    def num_deviations(self) -> int:
        """Parameters for standard deviations, which come first."""
        return self.num_visits if self.name == "us" or self.name.endswith("h") else 1

    @property
    def num_parameters(self) -> int:
        """Of all parameters."""
        m, family = self.num_visits, self.name.removesuffix("h")
        others = {"us": m * (m - 1) // 2, "toep": m - 1, "ad": m - 1}.get(family, 1)
        return self.num_deviations + (others if m > 1 else 0)

    def start(self, deviations: Floats) -> Floats:
        """Parameters to start from, (num_parameters,), given a standard deviation for each visit, (visits,)."""
        log_sd = np.log(deviations)
        first = log_sd if self.num_deviations > 1 else [log_sd.mean()]
        return np.concatenate([first, np.zeros(self.num_parameters - self.num_deviations)])

    def matrix(self, theta: _Matrix) -> _Matrix:
        """The covariance matrix, (visits, visits), of real or complex parameters, (num_parameters,)."""
        sd = np.exp(theta[: self.num_deviations])
        rest = theta[self.num_deviations :]
        if self.name == "us":
            root = np.eye(self.num_visits, dtype=theta.dtype)
            root[_below_diagonal(self.num_visits)] = rest
            root = sd[:, None] * root
            return np.asarray(root @ root.T)
        correlation = _CORRELATIONS[self.name.removesuffix("h")](rest, np.asarray(self.positions))
        sd = sd if len(sd) == self.num_visits else np.full(self.num_visits, sd[0])
        return np.asarray(sd[:, None] * correlation * sd)

    def first_derivatives(self, theta: Floats) -> Floats:
        """Of the matrix by each parameter, (num_parameters, visits, visits)."""
        steps = _COMPLEX_STEP * 1j * np.eye(len(theta))
        return np.array([self.matrix(theta + step).imag for step in steps]) / _COMPLEX_STEP

    def second_derivatives(self, theta: Floats) -> Floats:
        """Of the matrix by two parameters, (num_parameters, num_parameters, visits, visits), to about 1e-10."""
        steps = _REAL_STEP * np.eye(len(theta))
        change = [self.first_derivatives(theta + step) - self.first_derivatives(theta - step) for step in steps]
        return np.array(change) / (2 * _REAL_STEP)


@lru_cache(maxsize=16)
def _below_diagonal(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places below the diagonal of a square matrix; asked for thousands of times in a fit."""
    return np.tril_indices(size, -1)


def _bounded(t: _Matrix) -> _Matrix:
    return np.asarray(t / np.sqrt(1 + t**2))


def _toeplitz(t: _Matrix, positions: Floats) -> _Matrix:
    return _by_distance(_bounded(t))


def _autoregressive(t: _Matrix, positions: Floats) -> _Matrix:
    return _by_distance(np.cumprod(np.repeat(_bounded(t[:1]), len(positions) - 1)))


def _by_distance(correlations: _Matrix) -> _Matrix:
    visits = np.arange(len(correlations) + 1)
    distances = np.abs(np.subtract.outer(visits, visits))
    return np.concatenate([np.ones(1, dtype=correlations.dtype), correlations])[distances]


def _compound_symmetric(t: _Matrix, positions: Floats) -> _Matrix:
    m = len(positions)
    return np.eye(m) + (1 - np.eye(m)) * (_bounded(t[0]) if m > 1 else 0)


def _ante_dependent(t: _Matrix, positions: Floats) -> _Matrix:
    m, rho = len(positions), _bounded(t)
    found = np.eye(m, dtype=t.dtype)
    for i in range(m):
        for j in range(i):
            found[i, j] = found[j, i] = np.prod(rho[j:i])
    return found


def _exponential(t: _Matrix, positions: Floats) -> _Matrix:
    """The correlation at distance 1 is the logistic function of its parameter."""
    distances = np.abs(np.subtract.outer(positions, positions))
    return np.exp(-np.log(1 + np.exp(-t[0])) * distances) if len(positions) > 1 else np.eye(1)


_CORRELATIONS: dict[str, Callable[[_Matrix, Floats], _Matrix]] = {
    "toep": _toeplitz,
    "ar1": _autoregressive,
    "cs": _compound_symmetric,
    "ad": _ante_dependent,
    "sp_exp": _exponential,
}
