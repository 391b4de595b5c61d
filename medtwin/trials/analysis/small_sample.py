"""Tests of coefficients whose variance rests on an estimated covariance: Satterthwaite's, Kenward and Roger's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from medtwin.trials.analysis.follow_up import Bools, Floats, as_level
from medtwin.trials.analysis.results import FTest

Inference = Literal["satterthwaite", "kenward_roger", "kenward_roger_linear", "residual", "between_within"]


@dataclass(frozen=True)
class Pieces:
    """Derivatives by the q parameters of the covariance S, with W its inverse; each sums over subjects.

    Attributes:
        first: x' dW x, (q, columns, columns): P of Kenward and Roger.
        products: x' dW S dW x, (q, q, columns, columns): their Q.
        second: x' W ddS W x, (q, q, columns, columns): their R.
    """

    first: Floats
    products: Floats
    second: Floats


@dataclass(frozen=True)
class ContrastTest:
    """A combination of coefficients with its limits and two-sided t test of 0."""

    estimate: float
    standard_error: float
    degrees_of_freedom: float
    t: float
    p_value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class SmallSample:
    """Coefficients whose covariance rests on estimated parameters.

    Attributes:
        coefficients: (columns,). model_covariance: (columns, columns), as if the parameters were known.
        parameter_covariance: (q, q), the inverse of the observed information.
        pieces: See `Pieces`. inference: How degrees of freedom are found.
        residual_df: Rows less columns. between_df: Subjects less columns that vary in no subject.
        is_within: (columns,) whether a column varies in some subject, or is the constant.

    Source: Satterthwaite 1946, Biometrics Bull 2:110; Kenward & Roger 1997, Biometrics 53:983; between and within
    Schluchter & Elashoff 1990, J Stat Comput Simul 37:69, of several coefficients the fewest.
    """

    coefficients: Floats
    model_covariance: Floats
    parameter_covariance: Floats
    pieces: Pieces
    inference: Inference
    residual_df: int
    between_df: int
    is_within: Bools

    @property
    def covariance(self) -> Floats:
        """Of the coefficients, (columns, columns); Kenward and Roger's is larger than that of the model."""
        v = self.model_covariance
        if not self.inference.startswith("kenward"):
            return v
        first = self.pieces.first
        inner = self.pieces.products - np.einsum("qab,bc,rcd->qrad", first, v, first)
        if self.inference == "kenward_roger":
            inner = inner - self.pieces.second / 4
        return np.asarray(v + 2 * v @ np.einsum("qr,qrab->ab", self.parameter_covariance, inner) @ v)

    @property
    def standard_errors(self) -> Floats:
        """Of the coefficients, (columns,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def degrees_of_freedom(self) -> Floats:
        """Of the t test of each coefficient, (columns,)."""
        return np.array([self._df(row) for row in np.eye(len(self.coefficients))])

    @property
    def t(self) -> Floats:
        """Of each coefficient, (columns,)."""
        return np.asarray(self.coefficients / self.standard_errors)

    @property
    def p_values(self) -> Floats:
        """Two-sided, (columns,)."""
        return np.asarray(2 * t.sf(np.abs(self.t), self.degrees_of_freedom))

    def contrast(self, weights: ArrayLike, level: float = 0.95) -> ContrastTest:
        """A combination of the coefficients, such as the difference of the arms at the last visit.

        Args:
            weights: (columns,).
            level: Of the limits.

        Raises:
            ValueError: If the weights are not one for each coefficient and some not 0, or the level is none.
        """
        row = np.asarray(weights, dtype=np.float64)
        if row.shape != self.coefficients.shape or not row.any():
            raise ValueError(f"weights must be {len(self.coefficients)} numbers, not all 0, got {weights!r}")
        estimate, se, df = float(row @ self.coefficients), float(np.sqrt(row @ self.covariance @ row)), self._df(row)
        half = float(t.ppf(0.5 + as_level("level", level) / 2, df)) * se
        p = float(2 * t.sf(abs(estimate / se), df))
        return ContrastTest(estimate, se, df, estimate / se, p, estimate - half, estimate + half, level)

    def joint_test(self, weights: ArrayLike) -> FTest:
        """That several combinations of coefficients are 0.

        Args:
            weights: (combinations, columns), independent.

        Raises:
            ValueError: If they are not, or have another number of columns.

        Source: Fai & Cornelius 1996, J Stat Comput Simul 54:363, for Satterthwaite's.
        """
        rows = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        size = len(rows)
        if rows.shape[1] != len(self.coefficients) or np.linalg.matrix_rank(rows) < size:
            raise ValueError(f"weights must be independent rows of {len(self.coefficients)}, got {weights!r}")
        if size == 1:
            one = self.contrast(rows[0])
            return FTest(one.t**2, 1, one.degrees_of_freedom, one.p_value)
        estimate = rows @ self.coefficients
        statistic = float(estimate @ np.linalg.solve(rows @ self.covariance @ rows.T, estimate)) / size
        scale, df = self._joint_df(rows)
        return FTest.of(scale * statistic, size, df)

    def _slopes(self, row: Floats) -> Floats:
        """Derivatives of the variance of a combination by the parameters, (q,)."""
        left = self.model_covariance @ row
        return np.asarray(-np.einsum("a,qab,b->q", left, self.pieces.first, left))

    def _df(self, row: Floats) -> float:
        if self.inference == "residual":
            return float(self.residual_df)
        if self.inference == "between_within":
            each = np.where(self.is_within, self.residual_df - self.between_df, self.between_df)
            return float(each[row != 0].min())
        slopes = self._slopes(row)
        return float(2 * (row @ self.model_covariance @ row) ** 2 / (slopes @ self.parameter_covariance @ slopes))

    def _joint_df(self, rows: Floats) -> tuple[float, float]:
        if self.inference.startswith("kenward"):
            return self._kenward_roger(rows)
        if self.inference == "satterthwaite":
            vectors = np.linalg.eigh(rows @ self.model_covariance @ rows.T)[1].T @ rows
            each = np.array([self._df(row) for row in vectors])
            if (each <= 2).any():
                return 1.0, 2.0
            expected = float((each / (each - 2)).sum())
            return 1.0, 2 * expected / (expected - len(rows))
        return 1.0, min(self._df(row) for row in rows)

    def _kenward_roger(self, rows: Floats) -> tuple[float, float]:
        """Scale of F and its denominator degrees of freedom, which match two moments."""
        size, v = len(rows), self.model_covariance
        theta = rows.T @ np.linalg.solve(rows @ v @ rows.T, rows)
        parts = theta @ v @ self.pieces.first @ v
        traces = np.einsum("qaa->q", parts)
        w = self.parameter_covariance
        a1 = float(traces @ w @ traces)
        a2 = float(np.einsum("qr,qab,rba->", w, parts, parts))
        b = (a1 + 6 * a2) / (2 * size)
        g = ((size + 1) * a1 - (size + 4) * a2) / ((size + 2) * a2)
        c = np.array([g, size - g, size + 2 - g]) / (3 * size + 2 * (1 - g))
        expected = 1 / (1 - a2 / size)
        variance = 2 / size * (1 + c[0] * b) / ((1 - c[1] * b) ** 2 * (1 - c[2] * b))
        rho = variance / (2 * expected**2)
        df = 4 + (size + 2) / (size * rho - 1)
        return float(df / (expected * (df - 2))), float(df)
