"""The linear mixed model with random effects of each subject, such as an intercept, or an intercept and a slope."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, minimize
from scipy.stats import t

from medtwin.trials.analysis.follow_up import Bools, Floats, Ints, as_codes
from medtwin.trials.analysis.linear import as_regression

_STARTS = (-4.0, -2.0, 0.0, 2.0)
"""Logarithms of the standard deviations of the effects over that of the errors."""


@dataclass(frozen=True)
class RandomEffects:
    """A fit of y = x b + z u + e, with u ~ N(0, D) for each subject and e ~ N(0, residual_sd^2).

    Attributes:
        coefficients: (columns,) b. covariance: (columns, columns).
        random_covariance: (effects, effects), D. residual_sd: Of e.
        log_likelihood: Restricted, or full.
        degrees_of_freedom: (columns,) of t tests: of what varies within subjects, or only between them.
    """

    coefficients: Floats
    covariance: Floats
    random_covariance: Floats
    residual_sd: float
    log_likelihood: float
    degrees_of_freedom: Floats

    @property
    def standard_errors(self) -> Floats:
        """Of the coefficients, (columns,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def p_values(self) -> Floats:
        """Two-sided, (columns,)."""
        return np.asarray(2 * t.sf(np.abs(self.coefficients / self.standard_errors), self.degrees_of_freedom))

    @property
    def random_sds(self) -> Floats:
        """Standard deviations of the random effects, (effects,)."""
        return np.sqrt(np.diag(self.random_covariance))

    @property
    def random_correlation(self) -> Floats:
        """Correlations of the random effects, (effects, effects)."""
        return np.asarray(self.random_covariance / np.outer(self.random_sds, self.random_sds))


@dataclass(frozen=True)
class _Products:
    """Sums over rows, by subject where random effects take part; `both` is x with y as its last column."""

    zz: Floats
    zb: Floats
    bb: Floats
    num_rows: int

    def at(self, root: Floats, *, is_restricted: bool) -> tuple[float, Floats, Floats, float]:
        """Minus twice the log-likelihood, b, the inverse of x'Wx, and the residual variance, for D = s^2 root root'."""
        p = len(self.bb) - 1
        inner = np.eye(len(root)) + root.T @ self.zz @ root
        half = root.T @ self.zb
        whole = self.bb - np.einsum("sij,sik->jk", half, np.linalg.solve(inner, half))
        inverse = np.linalg.inv(whole[:p, :p])
        b = inverse @ whole[:p, p]
        rest = float(whole[p, p] - b @ whole[:p, p])
        free = self.num_rows - (p if is_restricted else 0)
        variance = rest / free
        total = free * (np.log(2 * np.pi * variance) + 1) + float(np.linalg.slogdet(inner)[1].sum())
        if is_restricted:
            total -= float(np.linalg.slogdet(inverse)[1])
        return total, b, inverse, variance


def random_effects_model(
    response: ArrayLike, x: ArrayLike, z: ArrayLike, subject: ArrayLike, *, is_restricted: bool = True
) -> RandomEffects:
    """The fit of a linear model with random effects of each subject, of any covariance.

    Args:
        response: (rows,).
        x: (rows, columns), with its constant.
        z: (rows, effects), of the random effects; a constant is a random intercept.
        subject: (rows,) labels.
        is_restricted: Whether by residual maximum likelihood.

    Raises:
        ValueError: If z does not fit, no subject has two rows, columns depend on one another, or no maximum is found.

    Source: Laird & Ware 1982, Biometrics 38:963; profiled over relative Cholesky factors, Pinheiro & Bates 2000,
    section 2.2; degrees of freedom section 2.4.2.
    """
    y, design = as_regression(response, x)
    effects = np.asarray(z, dtype=np.float64)
    if effects.ndim != 2 or len(effects) != len(y) or np.linalg.matrix_rank(effects) < effects.shape[1]:
        raise ValueError(f"z must be {len(y)} rows of independent columns, got the shape {effects.shape!r}")
    labels, codes = as_codes("subject", subject, len(y))
    if np.bincount(codes).max() < 2:
        raise ValueError("subject must have two rows at least once, got none that has")
    # Orthogonal columns make the search well scaled; D is turned back at the end.
    turned, triangle = np.linalg.qr(effects)
    turned, triangle = turned * np.sqrt(len(y)), triangle / np.sqrt(len(y))
    q = effects.shape[1]
    both = np.column_stack([design, y])
    products = _Products(
        zz=_by_subject(turned[:, :, None] * turned[:, None, :], codes, len(labels)),
        zb=_by_subject(turned[:, :, None] * both[:, None, :], codes, len(labels)),
        bb=both.T @ both,
        num_rows=len(y),
    )
    lower = np.tril_indices(q)
    diagonal = lower[0] == lower[1]

    def root(theta: Floats) -> Floats:
        found = np.zeros((q, q))
        found[lower] = np.where(diagonal, np.exp(np.where(diagonal, theta, 0.0)), theta)
        return found

    def negative(theta: Floats) -> float:
        return products.at(root(theta), is_restricted=is_restricted)[0] / 2

    found = _search(negative, diagonal)
    if not np.isfinite(found.fun):
        raise ValueError("subject must leave a finite maximum of the likelihood, got none")
    total, b, inverse, variance = products.at(root(found.x), is_restricted=is_restricted)
    factor = np.linalg.solve(triangle, root(found.x))
    spread = variance * factor @ factor.T
    degrees = _degrees_of_freedom(design, codes, len(labels))
    return RandomEffects(b, variance * inverse, spread, float(np.sqrt(variance)), -total / 2, degrees)


def _search(negative: Callable[[Floats], float], diagonal: Bools) -> OptimizeResult:
    """The best of several starts: where an effect hardly varies the likelihood is flat, and one start may end there."""
    bounds = [(-12.0, 8.0) if on_diagonal else (None, None) for on_diagonal in diagonal]
    options = {"ftol": 1e-15, "gtol": 1e-9}
    found = [
        minimize(
            negative, np.where(diagonal, start, 0.0), method="L-BFGS-B", jac="3-point", bounds=bounds, options=options
        )
        for start in _STARTS
    ]
    return min(found, key=lambda each: float(each.fun))


def _degrees_of_freedom(design: Floats, codes: Ints, num_subjects: int) -> Floats:
    """Rows or subjects, less the columns that vary within or only between subjects, (columns,)."""
    means = _by_subject(design, codes, num_subjects) / np.bincount(codes)[:, None]
    scale = np.maximum(np.abs(design).max(axis=0), 1e-300)
    is_within = np.abs(design - means[codes]).max(axis=0) > 1e-9 * scale
    is_constant = np.ptp(design, axis=0) == 0
    between = num_subjects - int((~is_within).sum()) - int(not is_constant.any())
    within = len(design) - num_subjects - int(is_within.sum())
    return np.where(is_within | is_constant, float(within), float(between))


def _by_subject(values: Floats, codes: Ints, count: int) -> Floats:
    sums = np.zeros((count, *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums
