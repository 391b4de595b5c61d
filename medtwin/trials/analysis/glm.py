"""Generalised linear models of one trial: logistic, Poisson, negative binomial and their kin, by Fisher scoring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, expit, gammaln, polygamma, xlogy
from scipy.stats import norm

from medtwin.trials.analysis.follow_up import Floats
from medtwin.trials.analysis.linear import Robust, as_regression, sandwich
from medtwin.trials.analysis.results import wald_limits

Distribution = Literal["binomial", "poisson", "gaussian", "gamma", "negative_binomial"]
LinkName = Literal["logit", "probit", "cloglog", "log", "identity", "inverse", "sqrt"]
_CANONICAL: dict[str, LinkName] = {
    "binomial": "logit",
    "poisson": "log",
    "gaussian": "identity",
    "gamma": "inverse",
    "negative_binomial": "log",
}
_MOST_STEPS = 100


@dataclass(frozen=True)
class Link:
    """A link g(mean) = x b: its inverse, the derivative of that by x b, and g."""

    inverse: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    forward: Callable[[Floats], Floats]


def _tame(eta: Floats) -> Floats:
    return np.clip(eta, -700.0, 700.0)


LINKS: dict[str, Link] = {
    "logit": Link(expit, lambda eta: expit(eta) * expit(-eta), lambda mu: np.log(mu / (1 - mu))),
    "probit": Link(norm.cdf, norm.pdf, norm.ppf),
    "cloglog": Link(
        lambda eta: -np.expm1(-np.exp(_tame(eta))),
        lambda eta: np.exp(_tame(eta) - np.exp(_tame(eta))),
        lambda mu: np.log(-np.log1p(-mu)),
    ),
    "log": Link(lambda eta: np.exp(_tame(eta)), lambda eta: np.exp(_tame(eta)), np.log),
    "identity": Link(lambda eta: eta, np.ones_like, lambda mu: mu),
    "inverse": Link(lambda eta: 1 / eta, lambda eta: -1 / eta**2, lambda mu: 1 / mu),
    "sqrt": Link(np.square, lambda eta: 2 * eta, np.sqrt),
}
"""By name; see `Link`."""


@dataclass(frozen=True)
class Family:
    """A distribution of the response and a link of its mean.

    Attributes:
        distribution: See `Distribution`.
        link: None: the usual one, that of the canonical parameter, or log for negative binomial.
        theta: Of the negative binomial, whose variance is mean + mean^2 / theta.
        is_quasi: Whether the dispersion is estimated where the distribution fixes it.

    Raises:
        ValueError: If a name is not known, or theta is not positive.
    """

    distribution: Distribution
    link: LinkName | None = None
    theta: float = np.inf
    is_quasi: bool = False

    def __post_init__(self) -> None:
        if self.distribution not in get_args(Distribution):
            raise ValueError(f"distribution must be one of {get_args(Distribution)}, got {self.distribution!r}")
        if self.link is not None and self.link not in LINKS:
            raise ValueError(f"link must be one of {tuple(LINKS)}, got {self.link!r}")
        if not self.theta > 0:
            raise ValueError(f"theta must be above 0, got {self.theta!r}")

    @property
    def functions(self) -> Link:
        """Of the link."""
        return LINKS[self.link or _CANONICAL[self.distribution]]

    @property
    def has_free_dispersion(self) -> bool:
        """Whether the dispersion is estimated."""
        return self.is_quasi or self.distribution in ("gaussian", "gamma")

    def variance(self, mu: Floats) -> Floats:
        """Of a response with such a mean, for a dispersion of 1."""
        match self.distribution:
            case "binomial":
                return mu * (1 - mu)
            case "poisson":
                return mu
            case "gamma":
                return mu**2
            case "negative_binomial":
                return np.asarray(mu + mu**2 / self.theta)
        return np.ones_like(mu)

    def start(self, y: Floats, weights: Floats) -> Floats:
        """Means to start from."""
        match self.distribution:
            case "binomial":
                return np.asarray((weights * y + 0.5) / (weights + 1))
            case "poisson":
                return y + 0.1
            case "negative_binomial":
                return np.asarray(y + (y == 0) / 6)
        return y

    def is_valid(self, mu: Floats) -> bool:
        """Whether such means are possible."""
        if self.distribution == "gaussian":
            return bool(np.isfinite(mu).all())
        return bool((mu > 0).all() and (self.distribution != "binomial" or (mu < 1).all()))

    def deviances(self, y: Floats, mu: Floats) -> Floats:
        """Of each response, (rows,)."""
        match self.distribution:
            case "binomial":
                return np.asarray(2 * (xlogy(y, y / mu) + xlogy(1 - y, (1 - y) / (1 - mu))))
            case "poisson":
                return np.asarray(2 * (xlogy(y, y / mu) - (y - mu)))
            case "gamma":
                return np.asarray(-2 * (np.log(np.where(y == 0, 1, y / mu)) - (y - mu) / mu))
            case "negative_binomial":
                th = self.theta
                return np.asarray(2 * (xlogy(y, y / mu) - (y + th) * np.log((y + th) / (mu + th))))
        return (y - mu) ** 2

    def log_likelihood(self, y: Floats, mu: Floats, weights: Floats, deviance: float) -> float:
        """Of all responses, at the maximum-likelihood dispersion; nan for quasi-likelihoods."""
        if self.is_quasi:
            return float("nan")
        match self.distribution:
            case "binomial":
                k = weights * y
                terms = gammaln(weights + 1) - gammaln(k + 1) - gammaln(weights - k + 1)
                return float((terms + xlogy(k, mu) + xlogy(weights - k, 1 - mu)).sum())
            case "poisson":
                return float((weights * (xlogy(y, mu) - mu - gammaln(y + 1))).sum())
            case "negative_binomial":
                return float((weights * _nb_terms(y, mu, self.theta)).sum())
            case "gamma":
                shape = float(weights.sum()) / deviance
                terms = shape * np.log(shape * y / mu) - shape * y / mu - np.log(y) - gammaln(shape)
                return float((weights * terms).sum())
        n = len(y)
        return float(-n / 2 * (np.log(2 * np.pi * deviance / n) + 1) + np.log(weights).sum() / 2)


def _nb_terms(y: Floats, mu: Floats, theta: float) -> Floats:
    gammas = gammaln(theta + y) - gammaln(theta) - gammaln(y + 1)
    return np.asarray(gammas + theta * np.log(theta) + xlogy(y, mu) - (theta + y) * np.log(theta + mu))


@dataclass(frozen=True)
class GeneralisedLinearModel:
    """A fit of g(mean) = x b + offset.

    Attributes:
        family: With the theta that was found. x: (rows, columns). response: (rows,), shares for binomial counts.
        weights: (rows,), numbers of trials for binomial counts. offset: (rows,).
        coefficients: (columns,). information: (columns, columns), Fisher's at the last step, for a dispersion of 1.
        working_weights: (rows,) of that step. fitted: (rows,) means.
        theta_error: Standard error of theta, nan where it was not estimated.
    """

    family: Family
    x: Floats
    response: Floats
    weights: Floats
    offset: Floats
    coefficients: Floats
    information: Floats
    working_weights: Floats
    fitted: Floats
    theta_error: float = np.nan

    @property
    def degrees_of_freedom(self) -> int:
        """Of the residuals."""
        return int((self.weights > 0).sum() - self.x.shape[1])

    @property
    def deviance(self) -> float:
        """Twice the log-likelihood that is lost against a parameter for each row."""
        return float((self.weights * self.family.deviances(self.response, self.fitted)).sum())

    @property
    def pearson(self) -> Floats:
        """Pearson's residuals, (rows,)."""
        spread = np.sqrt(self.family.variance(self.fitted) / self.weights)
        return np.asarray((self.response - self.fitted) / spread)

    @property
    def dispersion(self) -> float:
        """Pearson's, or 1 where the distribution fixes it."""
        if not self.family.has_free_dispersion:
            return 1.0
        return float((self.pearson**2).sum()) / self.degrees_of_freedom

    @property
    def covariance(self) -> Floats:
        """Of the coefficients, (columns, columns), by Fisher's information; theta is taken as known."""
        return np.asarray(self.dispersion * np.linalg.inv(self.information))

    @property
    def standard_errors(self) -> Floats:
        """Of the coefficients, (columns,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def z(self) -> Floats:
        """Of each coefficient, (columns,)."""
        return np.asarray(self.coefficients / self.standard_errors)

    @property
    def log_likelihood(self) -> float:
        """See `Family.log_likelihood`."""
        return self.family.log_likelihood(self.response, self.fitted, self.weights, self.deviance)

    @property
    def num_parameters(self) -> int:
        """Coefficients, and the dispersion or theta where it was estimated."""
        extra = self.family.has_free_dispersion or not np.isnan(self.theta_error)
        return int(self.x.shape[1] + extra)

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Wald limits of the coefficients, (columns,) each.

        Raises:
            ValueError: If the level does not lie between 0 and 1.
        """
        return wald_limits(self.coefficients, self.standard_errors, level)

    def predict(self, x: ArrayLike, offset: ArrayLike = 0.0) -> Floats:
        """Means at other covariates, (rows, columns) to (rows,)."""
        eta = np.asarray(x, dtype=np.float64) @ self.coefficients + np.asarray(offset, dtype=np.float64)
        return self.family.functions.inverse(eta)

    @property
    def scores(self) -> Floats:
        """Of each row, (rows, columns): they sum to 0."""
        residuals = (self.response - self.fitted) / self._slopes()
        return np.asarray(self.x * (self._at_fit() * residuals)[:, None])

    def robust_covariance(self, kind: Robust = "HC0") -> Floats:
        """Of the coefficients, valid for any variance of the response, (columns, columns); see `LinearModel`.

        Raises:
            ValueError: If the kind is not known.
        """
        bread = np.linalg.inv((self.x.T * self._at_fit()) @ self.x)
        leverages = self._at_fit() * np.einsum("ij,jk,ik->i", self.x, bread, self.x)
        return sandwich(np.asarray(bread, dtype=np.float64), self.scores, leverages, kind)

    def _slopes(self) -> Floats:
        return self.family.functions.slope(self.x @ self.coefficients + self.offset)

    def _at_fit(self) -> Floats:
        return np.asarray(self.weights * self._slopes() ** 2 / self.family.variance(self.fitted))


def generalised_linear_model(
    response: ArrayLike,
    x: ArrayLike,
    family: Family,
    *,
    weights: ArrayLike = 1.0,
    offset: ArrayLike = 0.0,
    tolerance: float = 1e-8,
) -> GeneralisedLinearModel:
    """The maximum-likelihood fit of a generalised linear model.

    Args:
        response: (rows,); for binomial counts the shares of trials that succeeded.
        x: (rows, columns), with its constant.
        family: Of the response.
        weights: (rows,) or one; for binomial counts the numbers of trials.
        offset: (rows,) or one, added to x b.
        tolerance: Of the relative change of the deviance at which steps end.

    Raises:
        ValueError: If the response does not fit the family, columns depend on one another, or steps do not end.

    Source: McCullagh & Nelder 1989, Generalized Linear Models, section 2.5.

    >>> x = [[1.0, 0], [1, 0], [1, 0], [1, 1], [1, 1], [1, 1]]
    >>> fit = generalised_linear_model([0.0, 0, 1, 0, 1, 1], x, Family("binomial"))
    >>> [round(b, 3) for b in fit.coefficients.tolist()]
    [-0.693, 1.386]
    """
    y, design = as_regression(response, x)
    given = np.broadcast_to(np.asarray(weights, dtype=np.float64), y.shape)
    added = np.broadcast_to(np.asarray(offset, dtype=np.float64), y.shape)
    _check_response(family, y, given)
    link, mu = family.functions, family.start(y, given)
    eta, deviance = link.forward(mu), np.inf
    b: Floats = np.zeros(design.shape[1])
    for step in range(_MOST_STEPS):
        slope = link.slope(eta)
        w = given * slope**2 / family.variance(mu)
        information = (design.T * w) @ design
        root = np.sqrt(w)
        working = eta - added + (y - mu) / slope
        before = b
        b = np.asarray(np.linalg.lstsq(design * root[:, None], working * root, rcond=None)[0], dtype=np.float64)
        eta = design @ b + added
        while step and not family.is_valid(link.inverse(eta)):
            b = (b + before) / 2
            eta = design @ b + added
        mu = link.inverse(eta)
        if not family.is_valid(mu):
            raise ValueError("means must stay inside the range of the family, got others at the first step")
        last, deviance = deviance, float((given * family.deviances(y, mu)).sum())
        if abs(deviance - last) < tolerance * (abs(deviance) + 0.1):
            return GeneralisedLinearModel(family, design, y, given, added, b, information, w, mu)
    raise ValueError(f"the likelihood must have a maximum inside, got none after {_MOST_STEPS} steps")


def _check_response(family: Family, y: Floats, weights: Floats) -> None:
    if family.distribution == "binomial" and ((y < 0) | (y > 1)).any():
        raise ValueError("response must be shares between 0 and 1, got others")
    if family.distribution in ("poisson", "negative_binomial") and (y < 0).any():
        raise ValueError("response must be counts, got negative ones")
    if family.distribution == "gamma" and (y <= 0).any():
        raise ValueError("response must be above 0, got others")
    if not (weights >= 0).all():
        raise ValueError("weights must not be negative, got such")


def negative_binomial_model(
    response: ArrayLike,
    x: ArrayLike,
    *,
    link: LinkName = "log",
    weights: ArrayLike = 1.0,
    offset: ArrayLike = 0.0,
) -> GeneralisedLinearModel:
    """The maximum-likelihood fit of a negative binomial model, theta with the coefficients.

    Args:
        response: (rows,) counts.
        x: (rows, columns), with its constant.
        link: Of the mean.
        weights: (rows,) or one.
        offset: (rows,) or one, added to x b, such as the logarithm of the time at risk.

    Raises:
        ValueError: If the counts vary no more than Poisson's, so that theta is infinite, or as of
            `generalised_linear_model`.

    Source: Lawless 1987, Can J Stat 15:209.
    """
    options: dict[str, Any] = {"weights": weights, "offset": offset, "tolerance": 1e-12}
    fit = generalised_linear_model(response, x, Family("poisson", link), **options)
    theta = _moment_theta(fit)
    for _ in range(_MOST_STEPS):
        fit = generalised_linear_model(response, x, Family("negative_binomial", link, theta), **options)
        before, theta = theta, _best_theta(fit, theta)
        if abs(theta - before) < 1e-10 * theta:
            _, information = _theta_score(fit, theta)
            return replace(fit, theta_error=1 / np.sqrt(information))
    raise ValueError("response must vary more than Poisson's counts, got a theta without end")


def _moment_theta(fit: GeneralisedLinearModel) -> float:
    return float(fit.weights.sum() / (fit.weights * (fit.response / fit.fitted - 1) ** 2).sum())


def _theta_score(fit: GeneralisedLinearModel, theta: float) -> tuple[float, float]:
    """Derivative of the log-likelihood by theta at known means, and minus the second one."""
    y, mu, w = fit.response, fit.fitted, fit.weights
    score = digamma(theta + y) - digamma(theta) + np.log(theta) + 1 - np.log(theta + mu) - (y + theta) / (mu + theta)
    bend = -polygamma(1, theta + y) + polygamma(1, theta) - 1 / theta
    bend = bend + 2 / (mu + theta) - (y + theta) / (mu + theta) ** 2
    return float((w * score).sum()), float((w * bend).sum())


def _best_theta(fit: GeneralisedLinearModel, theta: float) -> float:
    """Newton's steps for the logarithm of theta."""
    for _ in range(_MOST_STEPS):
        score, information = _theta_score(fit, theta)
        curvature = theta * theta * information - theta * score
        step = theta * score / (curvature if curvature > 0 else theta * theta * abs(information) + abs(theta * score))
        theta *= float(np.exp(np.clip(step, -1.0, 1.0)))
        if theta > 1e7:
            raise ValueError("response must vary more than Poisson's counts, got a theta without end")
        if abs(step) < 1e-12:
            break
    return theta
