"""Linear regression of one trial by least squares, as in the analysis of covariance, with robust variances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from medtwin.trials.analysis.follow_up import Floats, as_level

Robust = Literal["HC0", "HC1", "HC2", "HC3", "HC4"]


@dataclass(frozen=True)
class LinearModel:
    """A least-squares fit of y = x b + e.

    Attributes:
        x: (rows, columns) design, with its constant. response: (rows,).
        coefficients: (columns,). unscaled: (columns, columns), the inverse of x'x.
        residuals: (rows,). leverages: (rows,), the diagonal of the hat matrix.
        log_weight: Sum of the logarithms of the weights; in a weighted fit design, response and residuals are those
            multiplied by the roots of the weights.
    """

    x: Floats
    response: Floats
    coefficients: Floats
    unscaled: Floats
    residuals: Floats
    leverages: Floats
    log_weight: float = 0.0

    @property
    def degrees_of_freedom(self) -> int:
        """Of the residuals."""
        return int(self.x.shape[0] - self.x.shape[1])

    @property
    def sigma(self) -> float:
        """Residual standard deviation."""
        return float(np.sqrt(self.residuals @ self.residuals / self.degrees_of_freedom))

    @property
    def fitted(self) -> Floats:
        """Expectations of the rows, (rows,)."""
        return self.response - self.residuals

    @property
    def covariance(self) -> Floats:
        """Of the coefficients, for errors of one variance, (columns, columns)."""
        return self.sigma**2 * self.unscaled

    @property
    def standard_errors(self) -> Floats:
        """Roots of the diagonal of `covariance`, (columns,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def log_likelihood(self) -> float:
        """Of normal errors at the maximum-likelihood variance."""
        n = len(self.residuals)
        spread = np.log(2 * np.pi * (self.residuals @ self.residuals) / n) + 1
        return float((self.log_weight - n * spread) / 2)

    def robust_covariance(self, kind: Robust = "HC3") -> Floats:
        """Of the coefficients, valid for errors of any variance, (columns, columns).

        Args:
            kind: How a squared residual is enlarged: HC0 not at all, HC1 by n/(n - p), HC2 by 1/(1 - h),
                HC3 by 1/(1 - h)^2, HC4 by 1/(1 - h)^min(4, n h / p).

        Raises:
            ValueError: If the kind is not known.

        Source: White 1980, Econometrica 48:817; MacKinnon & White 1985, J Econom 29:305; Cribari-Neto 2004,
        Comput Stat Data Anal 45:215.
        """
        return sandwich(self.unscaled, self.x * self.residuals[:, None], self.leverages, kind)

    def p_values(self) -> Floats:
        """Two-sided, of t tests that a coefficient is 0, (columns,)."""
        return np.asarray(2 * t.sf(np.abs(self.coefficients / self.standard_errors), self.degrees_of_freedom))

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Limits of the coefficients, (columns,) each.

        Raises:
            ValueError: If the level does not lie between 0 and 1.
        """
        half = t.ppf(0.5 + as_level("level", level) / 2, self.degrees_of_freedom) * self.standard_errors
        return self.coefficients - half, self.coefficients + half


def sandwich(bread: Floats, scores: Floats, leverages: Floats, kind: Robust) -> Floats:
    """The robust covariance of coefficients, (columns, columns), see `LinearModel.robust_covariance`.

    Args:
        bread: (columns, columns), the inverse of the information.
        scores: (rows, columns).
        leverages: (rows,).
        kind: How scores are enlarged.

    Raises:
        ValueError: If the kind is not known.
    """
    if kind not in get_args(Robust):
        raise ValueError(f"kind must be one of {get_args(Robust)}, got {kind!r}")
    n, p = scores.shape
    power = {"HC0": 0.0, "HC1": 0.0, "HC2": 1.0, "HC3": 2.0, "HC4": np.minimum(4.0, n * leverages / p)}[kind]
    influence = scores / ((1 - leverages) ** (np.asarray(power) / 2))[:, None] @ bread
    return np.asarray(influence.T @ influence * (n / (n - p) if kind == "HC1" else 1.0))


def linear_model(response: ArrayLike, x: ArrayLike, *, weights: ArrayLike = 1.0) -> LinearModel:
    """The least-squares fit of a response to covariates, such as an analysis of covariance.

    Args:
        response: (rows,).
        x: (rows, columns), with a column of ones where there is a constant.
        weights: (rows,) or one, by which the variances of the errors are divided.

    Raises:
        ValueError: If lengths differ, values are not finite, weights not positive, or columns depend on one another.

    >>> linear_model([1.0, 2, 4], [[1.0, 0], [1, 0], [1, 1]]).coefficients.round(3).tolist()
    [1.5, 2.5]
    """
    y, design = as_regression(response, x)
    w = np.broadcast_to(np.asarray(weights, dtype=np.float64), y.shape)
    if not ((w > 0) & np.isfinite(w)).all():
        raise ValueError("weights must be finite and above 0, got others")
    y, design = y * np.sqrt(w), design * np.sqrt(w)[:, None]
    q, r = np.linalg.qr(design)
    inverse = np.linalg.inv(r)
    b = inverse @ (q.T @ y)
    leverages = (q**2).sum(axis=1)
    return LinearModel(design, y, b, inverse @ inverse.T, y - design @ b, leverages, float(np.log(w).sum()))


def as_regression(response: ArrayLike, x: ArrayLike) -> tuple[Floats, Floats]:
    """Response, (rows,), and design, (rows, columns), as arrays.

    Raises:
        ValueError: If lengths differ, values are not finite, or columns depend on one another.
    """
    y, design = np.asarray(response, dtype=np.float64), np.asarray(x, dtype=np.float64)
    if y.ndim != 1 or not np.isfinite(y).all():
        raise ValueError(f"response must be a vector of finite numbers, got the shape {y.shape!r}")
    if design.ndim != 2 or len(design) != len(y):
        raise ValueError(f"x must be a matrix of {len(y)} rows, got the shape {design.shape!r}")
    if not np.isfinite(design).all():
        raise ValueError("x must be finite, got values that are not")
    if np.linalg.matrix_rank(design / np.maximum(np.abs(design).max(axis=0), 1e-300)) < design.shape[1]:
        raise ValueError(f"x must have columns that do not depend on one another, got {design.shape[1]} that do")
    return y, design
