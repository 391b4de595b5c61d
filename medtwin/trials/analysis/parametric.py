"""Parametric survival regression: accelerated failure times of location-scale families, by maximum likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, log_expit, log_ndtr, ndtri_exp
from scipy.stats import norm

from medtwin.trials.analysis.follow_up import Bools, Floats, as_covariates, follow_up
from medtwin.trials.analysis.results import wald_limits

Family = Literal["weibull", "exponential", "rayleigh", "lognormal", "loglogistic", "gaussian", "logistic", "extreme"]
_FIXED: dict[str, float] = {"exponential": 1.0, "rayleigh": 0.5}
ON_TIME = ("gaussian", "logistic", "extreme")
"""Families whose y is time itself."""
Triple = tuple[Floats, Floats, Floats]


def _extreme(z: Floats, is_event: Bools) -> Triple:
    """The smallest extreme value: log f = z - exp z, log S = -exp z."""
    grown = np.exp(z)
    return np.where(is_event, z - grown, -grown), np.where(is_event, 1.0, 0.0) - grown, -grown


def _normal(z: Floats, is_event: Bools) -> Triple:
    """The standard normal; the hazard is Mills' ratio."""
    log_density = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    mills = np.exp(log_density - log_ndtr(-z))
    return (
        np.where(is_event, log_density, log_ndtr(-z)),
        np.where(is_event, -z, -mills),
        np.where(is_event, -1.0, -mills * (mills - z)),
    )


def _logistic(z: Floats, is_event: Bools) -> Triple:
    """The standard logistic."""
    p = expit(z)
    return (
        np.where(is_event, log_expit(z), 0.0) + log_expit(-z),
        np.where(is_event, 1 - 2 * p, -p),
        np.where(is_event, 2.0, 1.0) * -p * (1 - p),
    )


_LAWS: dict[str, Callable[[Floats, Bools], Triple]] = {
    "weibull": _extreme,
    "exponential": _extreme,
    "rayleigh": _extreme,
    "extreme": _extreme,
    "lognormal": _normal,
    "gaussian": _normal,
    "loglogistic": _logistic,
    "logistic": _logistic,
}


def log_survival(family: Family, errors: Floats) -> Floats:
    """Logarithm of the chance of an error above each of these, of their shape."""
    with np.errstate(invalid="ignore"):
        return _LAWS[family](errors, np.zeros(errors.shape, dtype=bool))[0]


def error_at(family: Family, log_survived: Floats) -> Floats:
    """The error whose chance to be exceeded has this logarithm, of its shape: the inverse of `log_survival`."""
    if _LAWS[family] is _normal:
        return np.asarray(-ndtri_exp(log_survived))
    if _LAWS[family] is _extreme:
        return np.log(-log_survived)
    return np.asarray(np.log(-np.expm1(log_survived)) - log_survived)


@dataclass(frozen=True)
class ParametricModel:
    """A fitted model of y = coefficients x + scale e.

    y is log time, or time itself for the Gaussian, logistic and extreme families.

    A positive coefficient of the arm means longer times. For the Weibull family the log hazard ratio is
    -coefficient / scale.

    Attributes:
        family: Of e. coefficients: (1 + covariates,), the intercept first. scale: Of e.
        covariance: Of the coefficients and, where it is estimated, log scale after them.
        log_likelihood, null_log_likelihood: Of the times, at the estimate and with the intercept (and scale) alone.
    """

    family: Family
    coefficients: Floats
    scale: float
    covariance: Floats
    log_likelihood: float
    null_log_likelihood: float

    @property
    def standard_errors(self) -> Floats:
        """Of the coefficients and, where it is estimated, log scale after them."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def p_values(self) -> Floats:
        """Two-sided, (1 + covariates,)."""
        z = self.coefficients / self.standard_errors[: len(self.coefficients)]
        return np.asarray(2 * norm.sf(np.abs(z)))

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Wald limits of the coefficients, (1 + covariates,) each.

        Raises:
            ValueError: If the level does not lie between 0 and 1.
        """
        return wald_limits(self.coefficients, self.standard_errors[: len(self.coefficients)], level)


def parametric_model(
    time: ArrayLike,
    event: ArrayLike,
    covariates: ArrayLike | None = None,
    *,
    family: Family = "weibull",
    scale: float | None = None,
) -> ParametricModel:
    """Fits an accelerated failure time model to times censored on the right.

    Args:
        time: (subjects,) time to event or censoring, above 0 where its logarithm is modelled.
        event: (subjects,) whether it is an event.
        covariates: (subjects, covariates), or (subjects,) for one, without a constant; none by default.
        family: Of the errors; the exponential and Rayleigh families are the Weibull family at scale 1 and 1/2.
        scale: Of the errors, to fix it.

    Raises:
        ValueError: For data, a family or a scale that make no sense, or a likelihood without a finite maximum.

    Source: Kalbfleisch & Prentice 2002, chapter 3.
    """
    if family not in get_args(Family):
        raise ValueError(f"family must be one of {get_args(Family)}, got {family!r}")
    fixed = _FIXED.get(family, scale)
    if scale is not None and (not scale > 0 or scale != fixed):
        raise ValueError(f"scale must be above 0 and that of the family {family}, got {scale!r}")
    seen = follow_up(time, event)
    if not seen.event.any():
        raise ValueError(f"event must be true of somebody, got {event!r}")
    if family not in ON_TIME and not (seen.time > 0).all():
        raise ValueError(f"time must be above 0 for the family {family}, got {time!r}")
    y = seen.time if family in ON_TIME else np.log(seen.time)
    jacobian = 0.0 if family in ON_TIME else float(y[seen.event].sum())
    constant = np.ones((len(y), 1))
    x = constant if covariates is None else np.hstack([constant, as_covariates(covariates, len(y))])
    null = _maximum(constant, y, seen.event, family, fixed)
    found = null if covariates is None else _maximum(x, y, seen.event, family, fixed)
    beta, log_scale, likelihood, covariance = found
    return ParametricModel(
        family, beta, float(np.exp(log_scale)), covariance, likelihood - jacobian, null[2] - jacobian
    )


def _maximum(
    x: Floats, y: Floats, is_event: Bools, family: Family, fixed: float | None
) -> tuple[Floats, float, float, Floats]:
    """Newton's method on orthogonal covariates, a step that lowers the likelihood halved.

    Gives the coefficients, log scale, the log-likelihood, and the covariance of coefficients and a free log scale.
    """
    orthogonal, triangle = np.linalg.qr(x)
    scaled, triangle = orthogonal * len(y) ** 0.5, triangle / len(y) ** 0.5
    beta = scaled.T @ y / len(y)
    spread = float(np.log(max((y - scaled @ beta).std(), 1e-3)))
    theta = np.append(beta, spread if fixed is None else np.log(fixed))
    free = len(theta) - (fixed is not None)
    value, slope, information = _likelihood(theta, scaled, y, is_event, family)
    for _ in range(100):
        bend = information[:free, :free]
        damp = 0.0 if np.linalg.eigvalsh(bend).min() > 0 else 1.1 * abs(np.linalg.eigvalsh(bend).min()) + 1e-6
        step = np.zeros_like(theta)
        step[:free] = np.linalg.solve(bend + damp * np.eye(free), slope[:free])
        following = _likelihood(theta + step, scaled, y, is_event, family)
        while not following[0] >= value - 1e-10 * abs(value):
            step = step / 2
            following = _likelihood(theta + step, scaled, y, is_event, family)
        theta = theta + step
        value, slope, information = following
        if damp == 0 and (np.abs(step) < 1e-9 * (1 + np.abs(theta))).all():
            back = np.eye(len(theta))
            back[:-1, :-1] = np.linalg.inv(triangle)
            covariance = back[:free, :free] @ np.linalg.inv(information[:free, :free]) @ back[:free, :free].T
            return back[:-1, :-1] @ theta[:-1], float(theta[-1]), value, covariance
    raise ValueError(f"time must leave a finite maximum of the likelihood, got {theta!r} after 100 steps")


def _likelihood(theta: Floats, x: Floats, y: Floats, is_event: Bools, family: Family) -> tuple[float, Floats, Floats]:
    """Log-likelihood of y, its gradient in (coefficients, log scale), and the observed information."""
    sigma = np.exp(theta[-1])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        z = (y - x @ theta[:-1]) / sigma
        value, first, second = _LAWS[family](z, is_event)
        total = float(value.sum() - is_event.sum() * theta[-1])
        gradient = np.append(-(x.T @ first) / sigma, -(first @ z) - is_event.sum())
        cross = x.T @ (second * z + first) / sigma
        corner = (second * z**2 + first * z).sum()
        top = (x * second[:, None]).T @ x / sigma**2
    return total, gradient, -np.block([[top, cross[:, None]], [cross[None, :], np.array([[corner]])]])
