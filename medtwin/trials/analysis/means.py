"""Tests of means and of locations: Student's, Welch's, Wilcoxon's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata, t

from medtwin.trials.analysis.follow_up import Floats, as_level
from medtwin.trials.analysis.results import Interval

Alternative = Literal["two_sided", "greater", "less"]


@dataclass(frozen=True)
class TTest:
    """A test of a mean, or of a difference of means.

    Attributes:
        estimate: The mean, or the first mean less the second. standard_error: Its own.
        t: (estimate - null) / standard_error. degrees_of_freedom: Of t. p_value: Of the alternative.
        low, high: Limits of what is estimated; infinite on the open side of a one-sided test. level: Of the limits.
    """

    estimate: float
    standard_error: float
    t: float
    degrees_of_freedom: float
    p_value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class RankTest:
    """A test of location by ranks.

    Attributes:
        statistic: Mann-Whitney's count of pairs in which the first group is higher, or the sum of positive ranks.
        p_value: Of the alternative. is_exact: Whether from the permutation distribution; else a normal one.
    """

    statistic: float
    p_value: float
    is_exact: bool


def one_sample_t_test(
    values: ArrayLike, *, null: float = 0.0, alternative: Alternative = "two_sided", level: float = 0.95
) -> TTest:
    """Student's test of one mean; for pairs give their differences.

    Args:
        values: (rows,).
        null: The mean under the null.
        alternative: Whether the mean differs from, is above or below it.
        level: Of the limits.

    Raises:
        ValueError: If there are fewer than two values, all alike, or the rest makes no sense.

    >>> round(one_sample_t_test([1.0, 2.0, 3.0]).t, 4)
    3.4641
    """
    x = as_sample("values", values, 2)
    se = float(x.std(ddof=1)) / math.sqrt(len(x))
    return _t_test(float(x.mean()), se, len(x) - 1, null, alternative, level)


def pooled_t_test(
    first: ArrayLike,
    second: ArrayLike,
    *,
    null: float = 0.0,
    alternative: Alternative = "two_sided",
    level: float = 0.95,
) -> TTest:
    """Student's test of two means of equal variances, first less second.

    Args:
        first: (rows,).
        second: (rows,).
        null: The difference under the null.
        alternative: Which way it differs.
        level: Of the limits.

    Raises:
        ValueError: If a group has fewer than two values, nothing varies, or the rest makes no sense.
    """
    x, y = as_sample("first", first, 2), as_sample("second", second, 2)
    df = len(x) + len(y) - 2
    variance = (x.var(ddof=1) * (len(x) - 1) + y.var(ddof=1) * (len(y) - 1)) / df
    se = math.sqrt(variance * (1 / len(x) + 1 / len(y)))
    return _t_test(float(x.mean() - y.mean()), se, df, null, alternative, level)


def welch_t_test(
    first: ArrayLike,
    second: ArrayLike,
    *,
    null: float = 0.0,
    alternative: Alternative = "two_sided",
    level: float = 0.95,
) -> TTest:
    """Welch's test of two means of any variances, first less second; arguments and errors as of `pooled_t_test`.

    Source: Welch 1947, Biometrika 34:28; Satterthwaite 1946, Biometrics Bull 2:110.
    """
    x, y = as_sample("first", first, 2), as_sample("second", second, 2)
    a, b = float(x.var(ddof=1)) / len(x), float(y.var(ddof=1)) / len(y)
    df = (a + b) ** 2 / max(a**2 / (len(x) - 1) + b**2 / (len(y) - 1), 1e-300)
    return _t_test(float(x.mean() - y.mean()), math.sqrt(a + b), df, null, alternative, level)


def as_sample(name: str, values: ArrayLike, least: int = 1) -> Floats:
    """A vector of finite numbers, (rows,).

    Raises:
        ValueError: If it is none, or has fewer rows than the least.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < least or not np.isfinite(x).all():
        raise ValueError(f"{name} must be at least {least} finite numbers, got the shape {x.shape!r}")
    return x


def check_alternative(alternative: str) -> None:
    """Raises ValueError if it is none."""
    if alternative not in get_args(Alternative):
        raise ValueError(f"alternative must be one of {get_args(Alternative)}, got {alternative!r}")


def _t_test(estimate: float, se: float, df: float, null: float, alternative: Alternative, level: float) -> TTest:
    check_alternative(alternative)
    if not se > 0:
        raise ValueError("values must vary, got constant ones")
    level, statistic = as_level("level", level), (estimate - null) / se
    if alternative == "two_sided":
        half = float(t.ppf(0.5 + level / 2, df)) * se
        p, low, high = float(2 * t.sf(abs(statistic), df)), estimate - half, estimate + half
    else:
        half, is_greater = float(t.ppf(level, df)) * se, alternative == "greater"
        p = float(t.sf(statistic if is_greater else -statistic, df))
        low, high = (estimate - half, math.inf) if is_greater else (-math.inf, estimate + half)
    return TTest(estimate, se, statistic, float(df), p, low, high, level)


@dataclass(frozen=True)
class RankStatistic:
    """A sum of ranks with its moments where location does not differ.

    Attributes:
        statistic: As in `RankTest`. mean, variance: Its own, given the ties. ties: See `sum_of_ties`.
    """

    statistic: float
    mean: float
    variance: float
    ties: float


def sum_of_ties(ranks: Floats) -> float:
    """The sum of count^3 - count over the values of some ranks, 0 without ties."""
    counts = np.unique(ranks, return_counts=True)[1].astype(np.float64)
    return float((counts**3 - counts).sum())


def rank_sum(first: Floats, second: Floats) -> RankStatistic:
    """Mann and Whitney's count of pairs in which the first group is higher."""
    n, m = len(first), len(second)
    ranks, total = rankdata(np.concatenate([first, second])), n + m
    ties = sum_of_ties(ranks)
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    return RankStatistic(float(ranks[:n].sum() - n * (n + 1) / 2), n * m / 2, variance, ties)


def signed_rank_sum(differences: Floats) -> RankStatistic:
    """Wilcoxon's sum of the ranks of what is above 0; differences of 0 are left out."""
    x = differences[differences != 0]
    n, ranks = len(x), rankdata(np.abs(x))
    ties = sum_of_ties(ranks)
    variance = n * (n + 1) * (2 * n + 1) / 24 - ties / 48
    return RankStatistic(float(ranks[x > 0].sum()), n * (n + 1) / 4, variance, ties)


def rank_sum_test(
    first: ArrayLike,
    second: ArrayLike,
    *,
    null: float = 0.0,
    alternative: Alternative = "two_sided",
    exact: bool | None = None,
    continuity: bool = True,
) -> RankTest:
    """Wilcoxon's rank-sum test, which is Mann and Whitney's.

    Args:
        first: (rows,).
        second: (rows,).
        null: The shift of the first group under the null.
        alternative: Which way it differs.
        exact: Whether by the permutation distribution, which knows no ties; None: where both groups have fewer than 50.
        continuity: Whether the normal approximation is corrected by one half.

    Raises:
        ValueError: If a group is empty, all values are alike, or the rest makes no sense.

    Source: Wilcoxon 1945, Biometrics Bull 1:80; Mann & Whitney 1947, Ann Math Stat 18:50.

    >>> rank_sum_test([4.0, 5.0, 6.0], [1.0, 2.0, 3.0]).p_value
    0.1
    """
    x, y = as_sample("first", first) - null, as_sample("second", second)
    check_alternative(alternative)
    n, m = len(x), len(y)
    found = rank_sum(x, y)
    asked = max(n, m) < 50 if exact is None else exact
    if asked and not found.ties:
        return RankTest(found.statistic, _exact_p(_rank_sum_law(n, m), found.statistic, alternative), True)
    return RankTest(found.statistic, _normal_p(found, alternative, continuity), False)


def signed_rank_test(
    differences: ArrayLike,
    *,
    null: float = 0.0,
    alternative: Alternative = "two_sided",
    exact: bool | None = None,
    continuity: bool = True,
) -> RankTest:
    """Wilcoxon's signed-rank test of one sample, or of differences of pairs; those at the null are left out.

    Args:
        differences: (rows,).
        null: Their centre of symmetry under the null.
        alternative: Which way it differs.
        exact: Whether by the permutation distribution, which knows neither ties nor values at the null; None: where
            there are fewer than 50.
        continuity: Whether the normal approximation is corrected by one half.

    Raises:
        ValueError: If nothing differs from the null, or the rest makes no sense.
    """
    all_values = as_sample("differences", differences) - null
    check_alternative(alternative)
    n = int((all_values != 0).sum())
    if not n:
        raise ValueError(f"differences must not all be {null!r}, got only such")
    found = signed_rank_sum(all_values)
    asked = n < 50 if exact is None else exact
    if asked and not found.ties and n == len(all_values):
        return RankTest(found.statistic, _exact_p(_signed_rank_law(n), found.statistic, alternative), True)
    return RankTest(found.statistic, _normal_p(found, alternative, continuity), False)


def rank_sum_shift(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Interval:
    """The median of all differences first - second, with limits from the exact law of the rank sum.

    Args:
        first: (rows,), without ties.
        second: (rows,), without ties.
        level: Of the limits.

    Raises:
        ValueError: If a group is empty, or the level does not lie between 0 and 1.

    Source: Hodges & Lehmann 1963, Ann Math Stat 34:598; Bauer 1972, J Am Stat Assoc 67:687.
    """
    x, y = as_sample("first", first), as_sample("second", second)
    return _shift(np.sort((x[:, None] - y).reshape(-1)), _rank_sum_law(len(x), len(y)), level)


def signed_rank_shift(differences: ArrayLike, *, level: float = 0.95) -> Interval:
    """The median of all means of two differences, with limits from the exact law of the signed-rank sum.

    Args:
        differences: (rows,).
        level: Of the limits.

    Raises:
        ValueError: If there are none, or the level does not lie between 0 and 1.
    """
    x = as_sample("differences", differences)
    rows, columns = np.triu_indices(len(x))
    return _shift(np.sort((x[rows] + x[columns]) / 2), _signed_rank_law(len(x)), level)


def _shift(ordered: Floats, law: Floats, level: float) -> Interval:
    tail = (1 - as_level("level", level)) / 2
    k = max(int(np.searchsorted(np.cumsum(law), tail * (1 - 1e-14))), 1)
    return Interval(float(np.median(ordered)), float(ordered[k - 1]), float(ordered[len(ordered) - k]), level)


def _exact_p(law: Floats, statistic: float, alternative: Alternative) -> float:
    k = round(statistic)
    below, above = float(law[: k + 1].sum()), float(law[k:].sum())
    if alternative == "two_sided":
        return min(2 * min(below, above), 1.0)
    return above if alternative == "greater" else below


def _normal_p(found: RankStatistic, alternative: Alternative, continuity: bool) -> float:
    if not found.variance > 0:
        raise ValueError("values must vary, got constant ones")
    excess = found.statistic - found.mean
    step = {"two_sided": np.sign(excess) * 0.5, "greater": 0.5, "less": -0.5}[alternative] if continuity else 0.0
    z = (excess - step) / math.sqrt(found.variance)
    if alternative == "two_sided":
        return float(2 * norm.sf(abs(z)))
    return float(norm.sf(z) if alternative == "greater" else norm.cdf(z))


@cache
def _rank_sum_law(n: int, m: int) -> Floats:
    """Probabilities of the counts 0, ..., n m: the coefficients of a Gaussian binomial."""
    law = np.zeros(n * m + 1)
    law[0] = 1.0
    for k in range(1, n + 1):
        for at in range(n * m, m + k - 1, -1):
            law[at] -= law[at - m - k]
        for at in range(k, n * m + 1):
            law[at] += law[at - k]
    return np.asarray(law / math.comb(n + m, n))


@cache
def _signed_rank_law(n: int) -> Floats:
    """Probabilities of the sums 0, ..., n (n + 1) / 2."""
    law = np.ones(1)
    for k in range(1, n + 1):
        law = np.convolve(law, np.concatenate([[0.5], np.zeros(k - 1), [0.5]]))
    return law
