"""The residual likelihood of an unstructured covariance in many trials at once, with its derivatives.

Parameters are the entries of the covariance S themselves, in which it is linear. With W its inverse at the visits that
were seen, x the columns, V the covariance of the coefficients and r the residuals, derivatives by two entries are
traces of products of W, xVx' and rr'. Sums are of two visits by two numbers of patients, and become columns at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medtwin.trials.analysis.batched.mmrm_sums import PatternSums, VisitDesign
from medtwin.trials.analysis.follow_up import Bools, Floats, Ints


@dataclass(frozen=True)
class Entries:
    """The entries of a symmetric matrix: its lower triangle.

    Attributes:
        rows, columns: (entries,). basis: (visits^2, entries), derivatives of the matrix by its entries.
    """

    rows: Ints
    columns: Ints
    basis: Floats

    @classmethod
    def of(cls, visits: int) -> Entries:
        """Of matrices of such a size."""
        rows, columns = np.tril_indices(visits)
        basis = np.zeros((visits, visits, len(rows)))
        basis[rows, columns, np.arange(len(rows))] = 1
        basis[columns, rows, np.arange(len(rows))] = 1
        return cls(rows, columns, basis.reshape(visits**2, -1))

    def matrix(self, values: Floats) -> Floats:
        """(trials, entries) to (trials, visits, visits)."""
        size = round(len(self.basis) ** 0.5)
        return np.asarray((values @ self.basis.T).reshape(len(values), size, size))


@dataclass(frozen=True)
class ResidualLikelihood:
    """The likelihood at one covariance of each trial.

    Attributes:
        design: Of the model. visits: (patterns, visits) 0 or 1. sums: Of the patterns.
        sigma: (trials, visits, visits), positive definite.
    """

    design: VisitDesign
    visits: Floats
    sums: PatternSums
    sigma: Floats

    @cached_property
    def entries(self) -> Entries:
        """Of the covariance."""
        return Entries.of(self.sigma.shape[1])

    @cached_property
    def _seen(self) -> Floats:
        """(patterns, visits, visits) 1 where both visits were seen."""
        return self.visits[:, :, None] * self.visits[:, None, :]

    @cached_property
    def _padded(self) -> Floats:
        """The covariance of each pattern, with 1 for visits that were not seen, (trials, patterns, visits, visits)."""
        return np.asarray(self.sigma[:, None] * self._seen + np.eye(len(self.sigma[0])) * (1 - self.visits)[:, None])

    @cached_property
    def inverses(self) -> Floats:
        """W of each pattern, 0 for visits that were not seen, (trials, patterns, visits, visits)."""
        return np.asarray(np.linalg.inv(self._padded) * self._seen)

    @cached_property
    def _uu(self) -> Floats:
        """(trials, patterns, numbers^2)."""
        return np.asarray(self.sums.uu.reshape(*self.sums.uu.shape[:2], -1))

    def by_columns(self, matrices: Floats) -> Floats:
        """Sums of x' M x, (trials, columns, columns); M of each pattern, (trials, patterns, visits, visits)."""
        flat = matrices.reshape(*matrices.shape[:2], -1).transpose(0, 2, 1)
        return self.design.of_columns(np.matmul(flat, self._uu))

    @cached_property
    def information(self) -> Floats:
        """On the coefficients, (trials, columns, columns)."""
        return self.by_columns(self.inverses)

    @cached_property
    def covariance(self) -> Floats:
        """V, of the coefficients if the covariance were known, (trials, columns, columns)."""
        return np.asarray(np.linalg.inv(self.information), dtype=np.float64)

    @cached_property
    def coefficients(self) -> Floats:
        """(trials, columns)."""
        right = np.matmul(self.inverses, self.sums.uy.transpose(0, 1, 3, 2)).sum(axis=1)
        return np.asarray(np.matmul(right.reshape(len(right), 1, -1) @ self.design.placed, self.covariance)[:, 0])

    @cached_property
    def _ur(self) -> Floats:
        """Sums of u r', (trials, patterns, numbers, visits)."""
        return np.asarray((self.sums.uy - np.matmul(self.sums.uu, self._b)) * self.visits[:, None])

    @cached_property
    def _b(self) -> Floats:
        """Coefficients of numbers by visits, (trials, 1, numbers, visits)."""
        placed = (self.coefficients @ self.design.placed.T).reshape(len(self.sigma), 1, len(self.visits[0]), -1)
        return np.asarray(placed.transpose(0, 1, 3, 2))

    @cached_property
    def _rr(self) -> Floats:
        """Sums of r r', (trials, patterns, visits, visits)."""
        turned = self._b.transpose(0, 1, 3, 2)
        cross = np.matmul(self.sums.uy.transpose(0, 1, 3, 2), self._b) + np.matmul(turned, self._ur)
        return np.asarray((self.sums.yy - cross) * self._seen)

    @cached_property
    def _spread(self) -> Floats:
        """Sums of x V x', (trials, patterns, visits, visits)."""
        found = np.matmul(self._uu, self.design.of_numbers(self.covariance).transpose(0, 2, 1))
        return np.asarray(found.reshape(self._rr.shape) * self._seen)

    @cached_property
    def value(self) -> Floats:
        """The logarithm, up to a constant, (trials,)."""
        total = np.linalg.slogdet(self.information)[1]
        total = total + (self.sums.count * np.linalg.slogdet(self._padded)[1]).sum(axis=1)
        return np.asarray(-(total + (self.inverses * self._rr).sum(axis=(1, 2, 3))) / 2)

    @cached_property
    def gradient(self) -> Floats:
        """By the entries, (trials, entries)."""
        w = self.inverses
        bent = np.matmul(np.matmul(w, self._rr + self._spread), w)
        slope = (self.sums.count[:, :, None, None] * w - bent).sum(axis=1)
        return np.asarray(-slope.reshape(len(slope), -1) @ self.entries.basis / 2)

    @cached_property
    def _bent(self) -> Floats:
        """W dS W by each entry, (trials, entries, visits, patterns, visits)."""
        w, rows, columns = self.inverses, self.entries.rows, self.entries.columns
        left = (w[:, :, rows] * np.where(rows == columns, 0.5, 1.0)[:, None]).transpose(0, 2, 1, 3)
        right = w[:, :, columns].transpose(0, 2, 1, 3)
        outer = left.transpose(0, 1, 3, 2)[..., None] * right[:, :, None]
        return np.asarray(outer + right.transpose(0, 1, 3, 2)[..., None] * left[:, :, None])

    @cached_property
    def first(self) -> Floats:
        """Sums of x' W dS W x, (trials, entries, columns, columns): minus derivatives of the information."""
        size, visits = len(self.entries.rows), len(self.visits[0])
        flat = self._bent.transpose(0, 1, 2, 4, 3).reshape(len(self.sigma), -1, len(self.visits))
        return self.design.of_columns(np.matmul(flat, self._uu).reshape(len(self.sigma), size, visits**2, -1))

    @cached_property
    def _traces(self) -> Floats:
        """Of V P V P' for two of `first`, (trials, entries, entries)."""
        products = np.matmul(self.covariance[:, None], self.first)
        flat = products.shape[0], products.shape[1], -1
        turned = products.transpose(0, 1, 3, 2).reshape(flat)
        return np.asarray(np.matmul(products.reshape(flat), turned.transpose(0, 2, 1)))

    def curvature(self, observed: Bools) -> Floats:
        """Observed or expected information on the entries, (trials, entries, entries).

        Args:
            observed: (trials,) which of the two.
        """
        sign, w = np.where(observed, -0.5, 0.5)[:, None, None], self.inverses
        inner = np.where(observed[:, None, None, None], self._rr + self._spread, -self._spread)
        right = sign[..., None] * self.sums.count[:, :, None, None] * w + np.matmul(np.matmul(w, inner), w)
        total = _kronecker_sum(w, right)
        found = np.matmul(np.matmul(self.entries.basis.T, total), self.entries.basis) + sign * self._traces
        ur = self._ur.transpose(0, 1, 3, 2).reshape(len(w), -1, self._ur.shape[2])
        flat = self._bent.reshape(len(w), -1, ur.shape[1])
        slopes = np.matmul(flat, ur).reshape(len(w), len(self.entries.rows), -1) @ self.design.placed
        bent = np.matmul(np.matmul(slopes, self.covariance), slopes.transpose(0, 2, 1))
        return np.asarray(found - observed[:, None, None] * bent)


def _kronecker_sum(a: Floats, b: Floats) -> Floats:
    """The symmetric part of the sum over patterns of Kronecker's products, (trials, visits^2, visits^2)."""
    trials, patterns, size, _ = a.shape
    flat = a.reshape(trials, patterns, -1).transpose(0, 2, 1)
    product = np.matmul(flat, b.reshape(trials, patterns, -1)).reshape(trials, size, size, size, size)
    total = product.transpose(0, 1, 3, 2, 4).reshape(trials, size * size, size * size)
    return np.asarray((total + total.transpose(0, 2, 1)) / 2)
