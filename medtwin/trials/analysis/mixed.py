"""The linear mixed model with a random intercept, by residual or full maximum likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.stats import t

from medtwin.trials.analysis.follow_up import Floats, Ints, as_codes
from medtwin.trials.analysis.linear import as_regression


@dataclass(frozen=True)
class RandomIntercept:
    """A fit of y = x b + u + e, with u ~ N(0, between_sd^2) for each subject and e ~ N(0, within_sd^2).

    Attributes:
        coefficients: (columns,). covariance: (columns, columns).
        between_sd, within_sd: Of u and of e. log_likelihood: Restricted, or full.
        degrees_of_freedom: (columns,) of t tests: of what varies within subjects, or only between them.
        effects: (subjects,) predicted u, in the order of their labels.
    """

    coefficients: Floats
    covariance: Floats
    between_sd: float
    within_sd: float
    log_likelihood: float
    degrees_of_freedom: Floats
    effects: Floats

    @property
    def standard_errors(self) -> Floats:
        """Of the coefficients, (columns,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def p_values(self) -> Floats:
        """Two-sided, (columns,)."""
        return np.asarray(2 * t.sf(np.abs(self.coefficients / self.standard_errors), self.degrees_of_freedom))


def random_intercept_model(
    response: ArrayLike, x: ArrayLike, subject: ArrayLike, *, is_restricted: bool = True
) -> RandomIntercept:
    """The fit of a linear model with a random intercept for each subject.

    Args:
        response: (rows,).
        x: (rows, columns), with its constant.
        subject: (rows,) labels.
        is_restricted: Whether by residual maximum likelihood.

    Raises:
        ValueError: If no subject has two rows, or columns depend on one another.

    Source: Laird & Ware 1982, Biometrics 38:963; degrees of freedom Pinheiro & Bates 2000, section 2.4.2.
    """
    y, design = as_regression(response, x)
    labels, codes = as_codes("subject", subject, len(y))
    counts = np.bincount(codes).astype(np.float64)
    if counts.max() < 2:
        raise ValueError("subject must have two rows at least once, got none that has")
    n, p = design.shape
    both = np.column_stack([design, y])
    sums = np.stack([np.bincount(codes, column) for column in both.T], axis=1)
    squares = both.T @ both
    lost = p if is_restricted else 0

    def parts(ratio: float) -> tuple[Floats, Floats, float]:
        """Coefficients, the inverse of x'Wx, and y'Wy less what they explain, W of unit variance within."""
        shrink = ratio / (1 + ratio * counts)
        whole = squares - (sums.T * shrink) @ sums
        inverse: Floats = np.asarray(np.linalg.inv(whole[:p, :p]), dtype=np.float64)
        b = inverse @ whole[:p, p]
        return b, inverse, float(whole[p, p] - b @ whole[:p, p])

    def negative(log_ratio: float) -> float:
        ratio = float(np.exp(log_ratio))
        _, inverse, rest = parts(ratio)
        total = (n - lost) * (np.log(2 * np.pi * rest / (n - lost)) + 1) + np.log1p(ratio * counts).sum()
        return float(total - is_restricted * np.linalg.slogdet(inverse)[1]) / 2

    grid = np.linspace(-20, 20, 81)
    best = grid[int(np.argmin([negative(each) for each in grid]))]
    at = minimize_scalar(negative, bounds=(best - 1, best + 1), method="bounded", options={"xatol": 1e-10}).x
    ratio = float(np.exp(at))
    b, inverse, rest = parts(ratio)
    variance = rest / (n - lost)
    residual_sums = sums[:, p] - sums[:, :p] @ b
    within = np.array([_varies(column, codes, counts) for column in design.T])
    constant = np.ptp(design, axis=0) == 0
    between_df = len(labels) - int((~within).sum()) - int(not constant.any())
    within_df = n - len(labels) - int(within.sum())
    return RandomIntercept(
        coefficients=b,
        covariance=variance * inverse,
        between_sd=float(np.sqrt(variance * ratio)),
        within_sd=float(np.sqrt(variance)),
        log_likelihood=-negative(at),
        degrees_of_freedom=np.where(within | constant, float(within_df), float(between_df)),
        effects=residual_sums * ratio / (1 + ratio * counts),
    )


def _varies(column: Floats, codes: Ints, counts: Floats) -> bool:
    means = np.bincount(codes, column) / counts
    return bool(np.abs(column - means[codes]).max() > 1e-9 * max(float(np.abs(column).max()), 1e-300))
