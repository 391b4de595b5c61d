"""Probabilities of several correlated normal statistics: comparisons of arms with one control and the like.

Where the correlations are products of one factor's loadings, as of comparisons with a common control, the probability
is a one-dimensional integral; elsewhere it is integrated numerically.

Source: Dunnett 1955, J Am Stat Assoc 50:1096; Genz & Bretz 2009, Computation of Multivariate Normal and t
Probabilities.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi, multivariate_normal, norm

Floats = NDArray[np.float64]
_MOST_POINTS = 30_000


@cache
def _normal_nodes(count: int = 160) -> tuple[Floats, Floats]:
    """Nodes and weights of the standard normal law on -9 to 9."""
    x, w = np.polynomial.legendre.leggauss(count)
    return 9 * x, 9 * w * norm.pdf(9 * x)


def many_to_one_correlation(allocation_ratios: ArrayLike) -> Floats:
    """Correlations of comparisons with one control, (arms, arms), from the arms' sizes relative to the control's."""
    ratios = np.asarray(allocation_ratios, dtype=np.float64)
    if (ratios <= 0).any():
        raise ValueError(f"allocation_ratios must be above 0, got {ratios.tolist()}")
    loadings = np.sqrt(ratios / (1 + ratios))
    found = np.outer(loadings, loadings)
    np.fill_diagonal(found, 1.0)
    return found


def probability_below(upper: ArrayLike, correlation: ArrayLike) -> float:
    """P(each standard normal statistic is below its limit).

    Args:
        upper: Limits, (statistics,).
        correlation: (statistics, statistics).

    Raises:
        ValueError: If it is no correlation matrix of that size.

    >>> round(probability_below([0.0, 0.0], [[1.0, 0.5], [0.5, 1.0]]), 6)
    0.333333
    """
    b, rho = np.asarray(upper, dtype=np.float64), np.asarray(correlation, dtype=np.float64)
    if rho.shape != (len(b), len(b)) or not np.allclose(rho, rho.T) or not np.allclose(np.diag(rho), 1.0):
        raise ValueError(f"correlation must be a correlation matrix of {len(b)} statistics, got {rho.tolist()}")
    if len(b) == 1:
        return float(ndtr(b[0]))
    loadings = _one_factor(rho)
    if loadings is None:
        settings = {"maxpts": _MOST_POINTS * len(b), "abseps": 1e-7, "releps": 1e-7, "rng": np.random.default_rng(0)}
        return float(multivariate_normal.cdf(b, np.zeros(len(b)), rho, allow_singular=True, **settings))
    return float(_given_factor(b[None, :], loadings)[0])


def _given_factor(upper: Floats, loadings: Floats, lower: Floats | None = None) -> Floats:
    """P(all between the limits), (cases,), of limits (cases, statistics or 1) with one factor's loadings."""
    x, w = _normal_nodes()
    spread = np.sqrt(1 - loadings**2)
    inside = ndtr((upper[:, None, :] - loadings * x[:, None]) / spread)
    if lower is not None:
        inside = inside - ndtr((lower[:, None, :] - loadings * x[:, None]) / spread)
    return np.asarray(inside.prod(axis=2) @ w)


def _one_factor(rho: Floats) -> Floats | None:
    """Loadings with products as in a correlation matrix, all below 0.999; None if there are none."""
    size = len(rho)
    if size == 2:
        root = np.sqrt(abs(rho[0, 1]))
        loadings = np.array([root, np.copysign(root, rho[0, 1])])
    else:
        others = rho[~np.eye(size, dtype=bool)]
        if np.allclose(others, 0.0):
            return np.zeros(size)
        if (np.abs(others) < 1e-12).any():
            return None
        square = np.array([rho[i, (i + 1) % size] * rho[i, (i + 2) % size] for i in range(size)])
        square /= [rho[(i + 1) % size, (i + 2) % size] for i in range(size)]
        if (square < 0).any():
            return None
        loadings = np.sqrt(square) * np.sign(rho[0])
    product = np.outer(loadings, loadings)
    np.fill_diagonal(product, 1.0)
    return loadings if np.allclose(product, rho, atol=1e-10) and (np.abs(loadings) < 0.999).all() else None


def critical_value(
    alpha: float, correlation: ArrayLike, *, two_sided: bool = False, degrees_of_freedom: float | None = None
) -> float:
    """The limit that the largest of several statistics is above with probability alpha.

    Args:
        alpha: Familywise error.
        correlation: (statistics, statistics).
        two_sided: Whether it is the largest absolute value; needs correlations of one factor.
        degrees_of_freedom: Of the variance estimate that all share; None: known variance.

    Raises:
        ValueError: If alpha is not between 0 and 1, or the correlations are not of one factor where they must be.

    Source: Dunnett 1955.

    >>> round(critical_value(0.025, many_to_one_correlation([1, 1, 1])), 3)
    2.349
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha!r}")
    rho = np.asarray(correlation, dtype=np.float64)

    def excess(c: float) -> float:
        return 1 - alpha - _probability_within(c, rho, two_sided, degrees_of_freedom)

    low, high = -8.0, 8.0
    while degrees_of_freedom is not None and excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0 if two_sided else low, high, xtol=1e-10))


def _probability_within(c: float, rho: Floats, two_sided: bool, degrees_of_freedom: float | None) -> float:
    """P(the largest statistic is below c), of t statistics if there are degrees of freedom."""
    if degrees_of_freedom is None:
        scales, weights = np.ones(1), np.ones(1)
    else:
        law = chi(degrees_of_freedom, scale=1 / np.sqrt(degrees_of_freedom))
        x, w = np.polynomial.legendre.leggauss(60)
        low, high = law.ppf([1e-14, 1 - 1e-14])
        scales = 0.5 * (high - low) * x + 0.5 * (high + low)
        weights = 0.5 * (high - low) * w * law.pdf(scales)
    loadings = _one_factor(rho) if len(rho) > 1 else np.zeros(1)
    if loadings is None:
        if two_sided:
            raise ValueError("correlation must be of one factor for two-sided limits")
        return float(weights @ [probability_below(np.full(len(rho), c * scale), rho) for scale in scales])
    limits = (c * scales)[:, None]
    return float(weights @ _given_factor(limits, loadings, -limits if two_sided else None))


def weighted_p_value(p_values: ArrayLike, weights: ArrayLike, correlation: ArrayLike) -> float:
    """The p value of the intersection of hypotheses by the weighted parametric test.

    It is the chance under the null that some p value, over its weight, is as small as the least observed, over the sum
    of the weights. Hypotheses of weight 0 do not count.

    Args:
        p_values: One-sided, of standard normal statistics, (hypotheses,).
        weights: (hypotheses,), sum at most 1.
        correlation: Of the statistics, (hypotheses, hypotheses).

    Source: Bretz et al. 2011, Biometrical Journal 53:894, section 3.2; Xi et al. 2017, Biometrical Journal 59:918.
    """
    p, w = np.asarray(p_values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    counts = w > 0
    if not counts.any():
        return 1.0
    least = float(np.min(p[counts] / w[counts]))
    limits = norm.isf(np.minimum(least * w[counts], 1.0))
    rho = np.asarray(correlation, dtype=np.float64)[np.ix_(counts, counts)]
    return min(1.0, (1 - probability_below(limits, rho)) / float(w[counts].sum()))


def dunnett_p_value(largest: float, correlation: ArrayLike, degrees_of_freedom: float | None = None) -> float:
    """P(the largest of several statistics is at or above what was seen).

    Args:
        largest: The largest seen.
        correlation: (statistics, statistics).
        degrees_of_freedom: Of the variance estimate that all share; None: standard normal statistics.
    """
    return 1 - _probability_within(largest, np.asarray(correlation, dtype=np.float64), False, degrees_of_freedom)
