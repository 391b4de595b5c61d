"""Tests of several groups: of ranks, means, rates in order, and of tables in strata."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kruskal, rankdata

from medtwin.trials.analysis.follow_up import Floats
from medtwin.trials.analysis.linear import LinearModel
from medtwin.trials.analysis.means import as_sample, sum_of_ties
from medtwin.trials.analysis.results import ChiSquare, FTest


def _samples(groups: Sequence[ArrayLike], least: int) -> list[Floats]:
    if len(groups) < 2:
        raise ValueError(f"groups must be at least two, got {len(groups)!r}")
    return [as_sample(f"groups[{i}]", each, least) for i, each in enumerate(groups)]


def kruskal_wallis_test(groups: Sequence[ArrayLike]) -> ChiSquare:
    """Kruskal and Wallis' test that groups do not differ in location, corrected for ties.

    Args:
        groups: Vectors of values, one a group.

    Raises:
        ValueError: If there are fewer than two groups, one is empty, or all values are alike.

    Source: Kruskal & Wallis 1952, J Am Stat Assoc 47:583.

    >>> round(kruskal_wallis_test([[1.0, 2], [3, 4], [5, 6]]).chi_square, 4)
    4.5714
    """
    samples = _samples(groups, 1)
    if not np.ptp(np.concatenate(samples)) > 0:
        raise ValueError("groups must vary, got constant values")
    return ChiSquare.of(float(kruskal(*samples).statistic), len(samples) - 1)


def friedman_test(values: ArrayLike) -> ChiSquare:
    """Friedman's test that treatments do not differ within blocks, corrected for ties.

    Args:
        values: (blocks, treatments), at least two of each.

    Raises:
        ValueError: If there are fewer, or no block says something.

    Source: Friedman 1937, J Am Stat Assoc 32:675.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError(f"values must be finite, two blocks and treatments at least, got the shape {x.shape!r}")
    n, k = x.shape
    ranks = rankdata(x, axis=1)
    ties = sum(sum_of_ties(row) for row in ranks)
    spread = n * k * (k + 1) - ties / (k - 1)
    if not spread > 0:
        raise ValueError("values must vary within a block, got constant blocks")
    statistic = 12 * float(((ranks.sum(axis=0) - n * (k + 1) / 2) ** 2).sum()) / spread
    return ChiSquare.of(statistic, k - 1)


def one_way_test(groups: Sequence[ArrayLike], *, equal_variances: bool = False) -> FTest:
    """The test that the means of groups do not differ: Fisher's, or Welch's for any variances.

    Args:
        groups: Vectors of values, one a group.
        equal_variances: Whether the variances are taken to be the same.

    Raises:
        ValueError: If there are fewer than two groups, or one has fewer than two values or does not vary.

    Source: Welch 1951, Biometrika 38:330.
    """
    samples = _samples(groups, 2)
    n = np.array([len(each) for each in samples], dtype=np.float64)
    means, variances = (np.array([getattr(np, name)(each) for each in samples]) for name in ("mean", "var"))
    variances = variances * n / (n - 1)
    k, total = len(n), float(n.sum())
    if not (variances > 0).all():
        raise ValueError("groups must vary, got a constant one")
    if equal_variances:
        between = float((n * (means - n @ means / total) ** 2).sum()) / (k - 1)
        return FTest.of(between * (total - k) / float((n - 1) @ variances), k - 1, total - k)
    w = n / variances
    centre = float(w @ means / w.sum())
    rest = float(((1 - w / w.sum()) ** 2 / (n - 1)).sum()) / (k**2 - 1)
    between = float((w * (means - centre) ** 2).sum()) / (k - 1)
    return FTest.of(between / (1 + 2 * (k - 2) * rest), k - 1, 1 / (3 * rest))


def nested_models_test(smaller: LinearModel, larger: LinearModel, within: LinearModel | None = None) -> FTest:
    """The F test that the columns which a larger linear model has more say nothing.

    Args:
        smaller: With some of the columns.
        larger: Of the same response.
        within: The model whose residuals measure the error; None: the larger one.

    Raises:
        ValueError: If the larger model has no more columns, or another response.
    """
    added = smaller.degrees_of_freedom - larger.degrees_of_freedom
    if added < 1 or not np.array_equal(smaller.response, larger.response):
        raise ValueError(f"larger must have more columns for the same response, got {added!r} more")
    error = larger if within is None else within
    gain = float(smaller.residuals @ smaller.residuals - larger.residuals @ larger.residuals)
    return FTest.of(gain / added / error.sigma**2, added, error.degrees_of_freedom)


def trend_test(events: ArrayLike, subjects: ArrayLike, scores: ArrayLike | None = None) -> ChiSquare:
    """Cochran and Armitage's test of a trend of rates over ordered groups.

    Args:
        events: (groups,).
        subjects: (groups,).
        scores: (groups,); None: 1, 2, ...

    Raises:
        ValueError: If the counts make no sense, all rates are 0 or 1, or scores do not differ.

    Source: Cochran 1954, Biometrics 10:417; Armitage 1955, Biometrics 11:375.
    """
    k, n = np.asarray(events, dtype=np.float64), np.asarray(subjects, dtype=np.float64)
    if k.shape != n.shape or k.ndim != 1 or not ((k >= 0) & (k <= n) & (n > 0)).all():
        raise ValueError(f"events must be between 0 and subjects, got {events!r} of {subjects!r}")
    at = np.arange(1.0, len(k) + 1) if scores is None else np.asarray(scores, dtype=np.float64)
    rate, centre = float(k.sum() / n.sum()), float(n @ at / n.sum())
    variance = rate * (1 - rate) * float((n * (at - centre) ** 2).sum())
    if not variance > 0:
        raise ValueError("rates and scores must vary, got constant ones")
    statistic = float((at - centre) @ k) ** 2 / variance
    return ChiSquare.of(statistic, 1)


def stratified_association_test(tables: ArrayLike) -> ChiSquare:
    """Cochran, Mantel and Haenszel's test of general association of two factors in strata.

    Args:
        tables: (strata, rows, columns) of counts.

    Raises:
        ValueError: If they are no such tables, or say nothing.

    Source: Landis, Heyman & Koch 1978, Int Stat Rev 46:237.
    """
    x = np.asarray(tables, dtype=np.float64)
    if x.ndim != 3 or min(x.shape[1:]) < 2 or not (x >= 0).all():
        raise ValueError(f"tables must be tables of counts in strata, got the shape {x.shape!r}")
    df = (x.shape[1] - 1) * (x.shape[2] - 1)
    gap, variance = np.zeros(df), np.zeros((df, df))
    for each in x:
        n = float(each.sum())
        if n < 2:
            continue
        rows, columns = each.sum(axis=1)[:-1], each.sum(axis=0)[:-1]
        gap += (each[:-1, :-1] - np.outer(rows, columns) / n).ravel()
        spread = [np.diag(margin) * n - np.outer(margin, margin) for margin in (rows, columns)]
        variance += np.kron(*spread) / (n**2 * (n - 1))
    if np.linalg.matrix_rank(variance) < df:
        raise ValueError("tables must hold every row and column, got an empty one")
    statistic = float(gap @ np.linalg.solve(variance, gap))
    return ChiSquare.of(statistic, df)
