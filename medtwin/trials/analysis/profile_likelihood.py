"""Limits of a coefficient by the profile of the likelihood."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from medtwin.trials.analysis.follow_up import as_level
from medtwin.trials.analysis.glm import GeneralisedLinearModel, generalised_linear_model
from medtwin.trials.analysis.results import Interval

_MOST_STEPS = 60


def profile_interval(model: GeneralisedLinearModel, column: int, level: float = 0.95) -> Interval:
    """The values of a coefficient that the likelihood-ratio test does not reject, the others at their best.

    The dispersion, and theta of a negative binomial model, stay as they were estimated.

    Args:
        model: With at least two columns.
        column: Place of the coefficient, from 0.
        level: Of the limits.

    Raises:
        ValueError: If there is no such column or no other one, the level does not lie between 0 and 1, or the
            likelihood falls too little on one side.

    Source: Venzon & Moolgavkar 1988, Appl Stat 37:87.

    >>> from medtwin.trials.analysis.glm import Family
    >>> x = [[1.0, 0], [1, 1]]
    >>> fit = generalised_linear_model([0.38, 0.62], x, Family("binomial"), weights=[50, 50])
    >>> found = profile_interval(fit, 1)
    >>> round(found.low, 3), round(found.high, 3)
    (0.182, 1.803)
    """
    size = model.x.shape[1]
    if not 0 <= column < size or size < 2:
        raise ValueError(f"column must be a place below {size} with others beside it, got {column!r}")
    bound = float(norm.isf((1 - as_level("level", level)) / 2))
    rest = np.delete(model.x, column, axis=1)
    estimate, step = float(model.coefficients[column]), float(model.standard_errors[column])

    def excess(at: float) -> float:
        offset = model.offset + model.x[:, column] * at
        fit = generalised_linear_model(model.response, rest, model.family, weights=model.weights, offset=offset)
        return math.sqrt(max(fit.deviance - model.deviance, 0.0) / model.dispersion) - bound

    ends = []
    for sign in (-1.0, 1.0):
        inner, outer = estimate, estimate + sign * bound * step
        for _ in range(_MOST_STEPS):
            if excess(outer) > 0:
                break
            inner, outer = outer, outer + sign * bound * step
        else:
            raise ValueError(f"the likelihood must fall on both sides of {estimate!r}, got one where it does not")
        ends.append(float(brentq(excess, inner, outer, xtol=1e-10)))
    return Interval(estimate, ends[0], ends[1], level)
