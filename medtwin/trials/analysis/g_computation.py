"""Standardised means of two arms from a working model, and their contrasts: the analysis of covariance for any link."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medtwin.trials.analysis.follow_up import Floats, as_flags
from medtwin.trials.analysis.glm import GeneralisedLinearModel
from medtwin.trials.analysis.results import Comparison


@dataclass(frozen=True)
class StandardisedMeans:
    """Means of all subjects if all were in one arm.

    Attributes:
        experimental, control: Such means; risks for a binary response.
        covariance: (2, 2) of the two, experimental first.
    """

    experimental: float
    control: float
    covariance: Floats

    def difference(self, level: float = 0.95) -> Comparison:
        """Experimental less control."""
        return Comparison.of_difference(self.experimental - self.control, self._error(np.array([1.0, -1.0])), level)

    def ratio(self, level: float = 0.95) -> Comparison:
        """Experimental by control."""
        slope = np.array([1 / self.experimental, -1 / self.control])
        return Comparison.of_ratio(math.log(self.experimental / self.control), self._error(slope), level)

    def odds_ratio(self, level: float = 0.95) -> Comparison:
        """Of the marginal risks, not of the model."""
        p, q = self.experimental, self.control
        slope = np.array([1 / (p * (1 - p)), -1 / (q * (1 - q))])
        return Comparison.of_ratio(math.log(p / (1 - p) / (q / (1 - q))), self._error(slope), level)

    def _error(self, slope: Floats) -> float:
        """Standard error of a function of the means, by the delta method."""
        return float(np.sqrt(slope @ self.covariance @ slope))


def standardised_means(
    model: GeneralisedLinearModel,
    x_experimental: ArrayLike,
    x_control: ArrayLike,
    *,
    covariance: ArrayLike | None = None,
) -> StandardisedMeans:
    """Standardised means with the variance of the delta method, for the covariates as they are in the trial.

    Args:
        model: The working model.
        x_experimental: (rows, columns), the design of all subjects as if in the experimental arm.
        x_control: (rows, columns), as if in the control arm.
        covariance: (columns, columns) of the coefficients; None: that of the model.

    Raises:
        ValueError: If a design has another number of columns than the model.

    Source: Ge et al. 2011, Drug Inf J 45:481.
    """
    means, jacobian = [], []
    for x in (x_experimental, x_control):
        design = _design(model, x)
        means.append(float(model.predict(design).mean()))
        slopes = model.family.functions.slope(design @ model.coefficients)
        jacobian.append((design * slopes[:, None]).mean(axis=0))
    j = np.array(jacobian)
    v = model.covariance if covariance is None else np.asarray(covariance, dtype=np.float64)
    return StandardisedMeans(means[0], means[1], j @ v @ j.T)


def augmented_means(
    model: GeneralisedLinearModel, x_experimental: ArrayLike, x_control: ArrayLike, experimental: ArrayLike
) -> StandardisedMeans:
    """Standardised means with the variance of their influence function, for the population the subjects are from.

    The means have the mean residual of an arm added, which is 0 for canonical links, so that they are valid for any
    working model in a randomised trial.

    Args:
        model: The working model.
        x_experimental: (rows, columns), the design of all subjects as if in the experimental arm.
        x_control: (rows, columns), as if in the control arm.
        experimental: (rows,) whether a subject is in the experimental arm.

    Raises:
        ValueError: If a design has another number of columns than the model, or an arm is empty.

    Source: Tsiatis et al. 2008, Stat Med 27:4658; Ye et al. 2023, Stat Biosci 15:321.
    """
    arm = as_flags("experimental", experimental, len(model.response))
    if not 0 < arm.sum() < len(arm):
        raise ValueError("experimental must name subjects of both arms, got one arm")
    means, influence = [], []
    for x, here in ((x_experimental, arm), (x_control, ~arm)):
        predicted = model.predict(_design(model, x))
        part = here * (model.response - predicted) / here.mean() + predicted
        means.append(float(part.mean()))
        influence.append(part - part.mean())
    n = len(arm)
    return StandardisedMeans(means[0], means[1], np.cov(np.array(influence)) / n)


def _design(model: GeneralisedLinearModel, x: ArrayLike) -> Floats:
    design = np.asarray(x, dtype=np.float64)
    if design.ndim != 2 or design.shape[1] != model.x.shape[1]:
        raise ValueError(f"x must have {model.x.shape[1]} columns, got the shape {design.shape!r}")
    return design
