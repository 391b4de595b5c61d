"""Generalised estimating equations for repeated responses, with the robust variance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from medtwin.trials.analysis.follow_up import Floats, Ints, as_codes
from medtwin.trials.analysis.glm import Family, generalised_linear_model
from medtwin.trials.analysis.linear import as_regression

Correlation = Literal["independence", "exchangeable", "ar1", "unstructured"]
_MOST_STEPS = 200


@dataclass(frozen=True)
class EstimatingEquations:
    """A fit of g(mean) = x b + offset to clusters of responses.

    Attributes:
        coefficients: (columns,). covariance: (columns, columns), robust: it holds for any correlation.
        naive_covariance: The same if the working correlation is the true one.
        correlation: (parameters,) of the working correlation, none for independence.
        scale: Mean square of Pearson's residuals. fitted: (rows,) means, rows as given.
        num_clusters: Of them.
    """

    coefficients: Floats
    covariance: Floats
    naive_covariance: Floats
    correlation: Floats
    scale: float
    fitted: Floats
    num_clusters: int

    @property
    def standard_errors(self) -> Floats:
        """Robust, (columns,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def wald(self) -> Floats:
        """Chi-square of each coefficient on one degree of freedom, (columns,)."""
        return np.asarray((self.coefficients / self.standard_errors) ** 2)


@dataclass(frozen=True)
class GEE:
    """How clusters of responses are modelled.

    Attributes:
        family: Of a response.
        correlation: Working correlation within a cluster.
        scale: None: estimated, without correction for the coefficients; else a known one.

    Raises:
        ValueError: If the correlation is not known, or the scale not positive.

    Source: Liang & Zeger 1986, Biometrika 73:13; moments of the correlation as in Yan & Fine 2004, Stat Med 23:859.
    """

    family: Family
    correlation: Correlation = "independence"
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.correlation not in get_args(Correlation):
            raise ValueError(f"correlation must be one of {get_args(Correlation)}, got {self.correlation!r}")
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"scale must be above 0, got {self.scale!r}")

    def fit(
        self,
        response: ArrayLike,
        x: ArrayLike,
        cluster: ArrayLike,
        *,
        wave: ArrayLike | None = None,
        offset: ArrayLike = 0.0,
    ) -> EstimatingEquations:
        """Solves the equations.

        Args:
            response: (rows,).
            x: (rows, columns), with its constant.
            cluster: (rows,) labels.
            wave: (rows,) whole numbers, the place of a row in its cluster; None: in the order of the rows.
            offset: (rows,) or one, added to x b.

        Raises:
            ValueError: If the equations have no solution, or as of `generalised_linear_model`.
        """
        y, design = as_regression(response, x)
        labels, clusters = as_codes("cluster", cluster, len(y))
        added = np.broadcast_to(np.asarray(offset, dtype=np.float64), y.shape)
        places = _places(clusters) if wave is None else as_codes("wave", wave, len(y))[1]
        blocks = _blocks(clusters, places)
        b = generalised_linear_model(y, design, self.family, offset=added).coefficients
        link = self.family.functions
        for _ in range(_MOST_STEPS):
            eta = design @ b + added
            mu = link.inverse(eta)
            sd = np.sqrt(self.family.variance(mu))
            residuals = (y - mu) / sd
            scale = float((residuals**2).mean()) if self.scale is None else self.scale
            alpha = _ESTIMATES[self.correlation](residuals / np.sqrt((residuals**2).mean()), blocks)
            slopes = design * (link.slope(eta) / sd)[:, None]
            bread, scores = self._sums(slopes, residuals, blocks, alpha)
            step = np.linalg.solve(bread, scores.sum(axis=0))
            b = b + step
            if np.abs(step).max() < 1e-10 * (1 + np.abs(b).max()):
                inverse: Floats = np.asarray(np.linalg.inv(bread), dtype=np.float64)
                robust = inverse @ scores.T @ scores @ inverse
                return EstimatingEquations(b, robust, scale * inverse, alpha, scale, mu, len(labels))
        raise ValueError(f"the estimating equations must have a solution, got none after {_MOST_STEPS} steps")

    def _sums(self, slopes: Floats, residuals: Floats, blocks: list[_Block], alpha: Floats) -> tuple[Floats, Floats]:
        """The derivative of the equations, (columns, columns), and each cluster's part of them, (clusters, columns)."""
        bread, scores = np.zeros((slopes.shape[1],) * 2), []
        for each in blocks:
            inverse = np.linalg.inv(_MATRICES[self.correlation](alpha, each.places))
            d, r = slopes[each.rows], residuals[each.rows]
            bread += np.einsum("cai,ab,cbj->ij", d, inverse, d)
            scores.append(np.einsum("cai,ab,cb->ci", d, inverse, r))
        return bread, np.concatenate(scores)


@dataclass(frozen=True)
class _Block:
    """Clusters with rows at the same places: rows, (clusters, k), and places, (k,)."""

    rows: Ints
    places: Ints

    def products(self, r: Floats) -> tuple[Ints, Ints, Floats]:
        """Places of the pairs of a cluster, (pairs,) each, and products of residuals, (clusters, pairs)."""
        first, second = np.triu_indices(len(self.places), 1)
        values = r[self.rows]
        return self.places[first], self.places[second], values[:, first] * values[:, second]


def _places(clusters: Ints) -> Ints:
    found, seen = np.zeros(len(clusters), dtype=np.int64), dict[int, int]()
    for i, each in enumerate(clusters.tolist()):
        found[i] = seen[each] = seen.get(each, -1) + 1
    return found


def _blocks(clusters: Ints, places: Ints) -> list[_Block]:
    order = np.lexsort((places, clusters))
    rows_of: dict[bytes, list[Ints]] = {}
    for rows in np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1):
        if len(np.unique(places[rows])) < len(rows):
            raise ValueError("wave must be given once for each cluster, got one twice")
        rows_of.setdefault(places[rows].tobytes(), []).append(rows)
    return [_Block(np.stack(rows), places[rows[0]]) for rows in rows_of.values()]


def _none(r: Floats, blocks: list[_Block]) -> Floats:
    return np.zeros(0)


def _mean_product(r: Floats, blocks: list[_Block]) -> Floats:
    products = np.concatenate([each.products(r)[2].reshape(-1) for each in blocks])
    return np.array([products.mean() if len(products) else 0.0])


def _autoregression(r: Floats, blocks: list[_Block]) -> Floats:
    """Least squares of the products on powers of the correlation by the distance of their places."""
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for each in blocks:
        first, second, products = each.products(r)
        for lag in np.unique(second - first).tolist():
            at = second - first == lag
            sums[lag] = sums.get(lag, 0.0) + float(products[:, at].sum())
            counts[lag] = counts.get(lag, 0) + int(at.sum()) * len(products)

    def equation(alpha: float) -> float:
        return sum(lag * alpha ** (lag - 1) * (sums[lag] - counts[lag] * alpha**lag) for lag in sums)

    if not sums:
        return np.zeros(1)
    if equation(0.0) == 0:
        return np.zeros(1)
    end = np.copysign(1 - 1e-9, equation(0.0))
    if equation(0.0) * equation(end) > 0:
        raise ValueError("the correlation of neighbours must lie between -1 and 1, got one beyond")
    return np.array([brentq(equation, 0.0, end, xtol=1e-14)])


def _each_pair(r: Floats, blocks: list[_Block]) -> Floats:
    size = 1 + max(int(each.places.max()) for each in blocks)
    sums, counts = np.zeros((size, size)), np.zeros((size, size))
    for each in blocks:
        first, second, products = each.products(r)
        sums[first, second] += products.sum(axis=0)
        counts[first, second] += len(products)
    upper = np.triu_indices(size, 1)
    return np.asarray(sums[upper] / np.maximum(counts[upper], 1))


def _identity(alpha: Floats, places: Ints) -> Floats:
    return np.eye(len(places))


def _constant(alpha: Floats, places: Ints) -> Floats:
    return np.asarray(alpha[0] + (1 - alpha[0]) * np.eye(len(places)))


def _powers(alpha: Floats, places: Ints) -> Floats:
    return np.asarray(alpha[0] ** np.abs(np.subtract.outer(places, places)))


def _free(alpha: Floats, places: Ints) -> Floats:
    size = round((1 + np.sqrt(1 + 8 * len(alpha))) / 2)
    whole = np.eye(size)
    whole[np.triu_indices(size, 1)] = alpha
    whole = whole + np.triu(whole, 1).T
    return np.asarray(whole[np.ix_(places, places)])


_ESTIMATES: dict[str, Callable[[Floats, list[_Block]], Floats]] = {
    "independence": _none,
    "exchangeable": _mean_product,
    "ar1": _autoregression,
    "unstructured": _each_pair,
}
_MATRICES: dict[str, Callable[[Floats, Ints], Floats]] = {
    "independence": _identity,
    "exchangeable": _constant,
    "ar1": _powers,
    "unstructured": _free,
}
