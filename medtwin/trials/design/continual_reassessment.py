"""The continual reassessment method: one parameter that moves a curve of dose and toxicity, by its posterior on a grid.

Source: O'Quigley, Pepe & Fisher 1990, Biometrics 46:33; O'Quigley & Chevret 1991, Stat Med 10:1647 (logistic model);
Lee & Cheung 2009, Clin Trials 6:227 (skeletons by indifference intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_POINTS, _REACH = 2001, 8.0
"""Of the grid, and standard deviations of the prior that it reaches: few nodes on the prior miss the posterior."""


@dataclass(frozen=True)
class Posterior:
    """What is known of the curves of trials after their data, (trials,) or (trials, doses).

    Attributes:
        mean, variance: Of the parameter. toxicity: Of each dose, at the parameter's mean.
        dose: From 0: whose toxicity lies nearest to the target.
    """

    mean: Floats
    variance: Floats
    toxicity: Floats
    dose: Ints


@dataclass(frozen=True)
class ReassessmentModel:
    """A curve with a normal prior of mean 0 on its parameter a.

    Attributes:
        skeleton: (doses,) toxicity at a = 0, increasing.
        target: Toxicity that is looked for.
        intercept: Of the logistic curve, whose slope is exp(a); None: the power curve skeleton^exp(a).
        prior_variance: Of a.

    Raises:
        ValueError: If the skeleton does not increase between 0 and 1, or a number is out of its range.
    """

    skeleton: Sequence[float]
    target: float
    intercept: float | None = None
    prior_variance: float = 1.34

    def __post_init__(self) -> None:
        curve = np.asarray(self.skeleton, dtype=np.float64)
        if curve.ndim != 1 or not len(curve) or not (np.diff(curve, prepend=0.0) > 0).all() or not curve[-1] < 1:
            raise ValueError(f"skeleton must increase between 0 and 1, got {list(self.skeleton)}")
        if not 0 < self.target < 1 or not self.prior_variance > 0:
            raise ValueError(
                f"target must be between 0 and 1 and prior_variance above 0, got {self.target!r}, "
                f"{self.prior_variance!r}"
            )

    def curve(self, a: ArrayLike) -> Floats:
        """Toxicity of each dose at parameters, (..., doses)."""
        slope = np.exp(np.asarray(a, dtype=np.float64))[..., None]
        p = np.asarray(self.skeleton, dtype=np.float64)
        if self.intercept is None:
            return np.asarray(p**slope)
        return np.asarray(expit(self.intercept + slope * (logit(p) - self.intercept)))

    @cached_property
    def _grid(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Points, log prior weights, and the logarithms of toxicity and of none, (points, doses)."""
        a = np.linspace(-_REACH, _REACH, _POINTS) * np.sqrt(self.prior_variance)
        p = np.clip(self.curve(a), 1e-300, 1 - 1e-16)
        return a, -0.5 * a**2 / self.prior_variance, np.log(p), np.log1p(-p)

    def after(self, toxicities: ArrayLike, patients: ArrayLike) -> Posterior:
        """The posterior of trials.

        Args:
            toxicities: (trials, doses) or (doses,) counts.
            patients: The same: of those treated.

        Raises:
            ValueError: If they are not of the doses, or there are more toxicities than patients.

        >>> model = ReassessmentModel([0.05, 0.12, 0.25, 0.4, 0.55], 0.25)
        >>> model.after([[0, 0, 0, 0, 0], [0, 0, 1, 0, 0]], [[3, 0, 0, 0, 0], [0, 0, 3, 0, 0]]).dose.tolist()
        [3, 1]
        """
        y, n = (np.atleast_2d(np.asarray(each, dtype=np.float64)) for each in (toxicities, patients))
        if y.shape != n.shape or y.shape[1] != len(self.skeleton) or (y < 0).any() or (y > n).any():
            raise ValueError(f"toxicities must be at most the patients of {len(self.skeleton)} doses, got {y.tolist()}")
        a, prior, hit, miss = self._grid
        log = prior + y @ hit.T + (n - y) @ miss.T
        weight = np.exp(log - log.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
        mean = weight @ a
        variance = weight @ a**2 - mean**2
        found = self.curve(mean)
        return Posterior(mean, variance, found, np.argmin(np.abs(found - self.target), axis=1))


def skeleton_of_intervals(
    target: float, halfwidth: float, doses: int, at: int, intercept: float | None = None
) -> Floats:
    """The skeleton in which each dose is the target's for an interval of toxicities, (doses,).

    Args:
        target: Toxicity that is looked for.
        halfwidth: Of the indifference interval around it.
        doses: How many.
        at: The dose, from 0, that has the target.
        intercept: Of a logistic model; None: the power model.

    Raises:
        ValueError: If the interval leaves (0, 1), or the dose is none.

    >>> skeleton_of_intervals(0.25, 0.05, 3, 1).round(4).tolist()
    [0.1567, 0.25, 0.3545]
    """
    if not 0 < target - halfwidth < target < target + halfwidth < 1:
        raise ValueError(f"halfwidth must be above 0 and leave target between 0 and 1, got {halfwidth!r}")
    if not 0 <= at < doses:
        raise ValueError(f"at must be from 0 to {doses - 1}, got {at!r}")

    def scale(p: float) -> float:
        return float(np.log(p)) if intercept is None else float(logit(p)) - intercept

    step = scale(target - halfwidth) / scale(target + halfwidth)
    x = scale(target) * step ** (at - np.arange(doses, dtype=np.float64))
    return np.asarray(np.exp(x) if intercept is None else expit(x + intercept))
