"""Tests of rates of one trial: chi-square, Fisher's, McNemar's, of strata; limits of differences, ratios and odds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import beta, binomtest, chi2, chi2_contingency, norm

from medtwin.trials.analysis.follow_up import Floats, as_level
from medtwin.trials.analysis.means import Alternative, check_alternative
from medtwin.trials.analysis.results import ChiSquare, Interval
from medtwin.trials.restricted_rates import Scale, restricted_rates

RootFinder = Callable[[Callable[[float], float], float, float], float]
"""A root of a function between two numbers where its signs differ."""


def exact_root(function: Callable[[float], float], low: float, high: float) -> float:
    """To the last digits."""
    return float(brentq(function, low, high, xtol=1e-300, rtol=1e-14))


@dataclass(frozen=True)
class FisherTest:
    """Fisher's exact test of a 2 x 2 table.

    Attributes:
        p_value: Of the alternative.
        odds_ratio: The conditional maximum-likelihood estimate, with exact limits.
    """

    p_value: float
    odds_ratio: Interval


@dataclass(frozen=True)
class RateTest:
    """A z test of a null and the estimate that belongs to it; z > 0 where the estimate is above the null."""

    estimate: float
    z: float
    p_value: float


@dataclass(frozen=True)
class StratifiedTest:
    """Cochran, Mantel and Haenszel's test, and the common odds ratio of the strata.

    Attributes:
        chi_square, p_value: Of the test. odds_ratio: Mantel and Haenszel's.
    """

    chi_square: float
    p_value: float
    odds_ratio: Interval


def as_table(counts: ArrayLike, name: str = "counts") -> Floats:
    """A table of counts, (rows, columns).

    Raises:
        ValueError: If it has fewer than two rows or columns, or negative or no counts.
    """
    found = np.asarray(counts, dtype=np.float64)
    if found.ndim != 2 or min(found.shape) < 2 or not (found >= 0).all() or found.sum() == 0:
        raise ValueError(f"{name} must be a table of counts, two rows and columns at least, got {counts!r}")
    return found


def as_two_by_two_tables(tables: ArrayLike) -> Floats:
    """Tables of counts of strata, (strata, 2, 2).

    Raises:
        ValueError: If they are none.
    """
    x = np.asarray(tables, dtype=np.float64)
    if x.ndim != 3 or x.shape[1:] != (2, 2) or not (x >= 0).all():
        raise ValueError(f"tables must be 2 x 2 tables of counts, got the shape {x.shape!r}")
    return x


def chi_square_test(counts: ArrayLike, *, continuity: bool = True) -> ChiSquare:
    """Pearson's test of independence.

    Args:
        counts: (rows, columns).
        continuity: Whether a 2 x 2 table is corrected by Yates' one half, at most the deviation itself.

    Raises:
        ValueError: If it is no table of counts, or a margin is empty.

    >>> round(chi_square_test([[31, 20], [19, 30]]).chi_square, 4)
    4.0016
    """
    table = as_table(counts)
    if not (table.sum(axis=0).all() and table.sum(axis=1).all()):
        raise ValueError("counts must have no empty margin, got one")
    found = chi2_contingency(table, correction=continuity)
    return ChiSquare(float(found.statistic), int(found.dof), float(found.pvalue))


def mcnemar_test(counts: ArrayLike, *, continuity: bool = True) -> ChiSquare:
    """McNemar's test of paired answers.

    Args:
        counts: (2, 2), the first answer by the second.
        continuity: Whether the difference of the discordant counts is corrected by one.

    Raises:
        ValueError: If it is no 2 x 2 table, or no pair is discordant.
    """
    table = as_table(counts)
    b, c = float(table[0, 1]), float(table[1, 0])
    if table.shape != (2, 2) or b + c == 0:
        raise ValueError(f"counts must be a 2 x 2 table with discordant pairs, got {counts!r}")
    gap = abs(b - c) - (1 if continuity and b != c else 0)
    return ChiSquare.of(gap**2 / (b + c), 1)


def fisher_test(
    counts: ArrayLike,
    *,
    null: float = 1.0,
    alternative: Alternative = "two_sided",
    level: float = 0.95,
    find_root: RootFinder = exact_root,
) -> FisherTest:
    """Fisher's exact test of a 2 x 2 table, conditional on its margins.

    Args:
        counts: (2, 2).
        null: Odds ratio under the null.
        alternative: Whether the odds ratio differs from it, is above or below it; two-sided: all tables that are
            no more likely than the one observed.
        level: Of the limits.
        find_root: Of the equations of the odds ratio and its limits, or of their reciprocals, between 0 and 1.

    Raises:
        ValueError: If it is no 2 x 2 table, or the rest makes no sense.

    Source: Fisher 1935, J R Stat Soc 98:39; limits Cornfield 1956.

    >>> fisher_test([[3, 1], [1, 3]]).p_value.__round__(4)
    0.4857
    """
    table = as_table(counts)
    if table.shape != (2, 2) or not null > 0:
        raise ValueError(f"counts must be a 2 x 2 table and null above 0, got {counts!r} and {null!r}")
    return ConditionalLaw.of(table, find_root).test(float(table[0, 0]), null, alternative, level)


@dataclass(frozen=True)
class ConditionalLaw:
    """The law of a first cell, or of a sum of those of strata, given the margins: noncentral hypergeometric.

    Attributes:
        support: (values,) whole numbers in a row. log_weights: (values,) of the law for an odds ratio of 1.
        find_root: Of the equations of the odds ratio and its limits, or of their reciprocals, between 0 and 1.
    """

    support: Floats
    log_weights: Floats
    find_root: RootFinder

    @classmethod
    def of(cls, table: Floats, find_root: RootFinder) -> ConditionalLaw:
        """Of a 2 x 2 table."""
        row, column, total = float(table[0].sum()), float(table[:, 0].sum()), float(table.sum())
        k = np.arange(max(0.0, row + column - total), min(row, column) + 1)
        weights = [gammaln(a + 1) for a in (k, row - k, column - k, total - row - column + k)]
        return cls(k, -np.sum(weights, axis=0), find_root)

    def plus(self, other: ConditionalLaw) -> ConditionalLaw:
        """The law of the sum with that of an independent table."""
        weights = [np.exp(each.log_weights - each.log_weights.max()) for each in (self, other)]
        support = self.support[0] + other.support[0] + np.arange(len(weights[0]) + len(weights[1]) - 1.0)
        return ConditionalLaw(support, np.log(np.maximum(np.convolve(*weights), 1e-300)), self.find_root)

    def test(self, x: float, null: float, alternative: Alternative, level: float) -> FisherTest:
        """The exact test of an odds ratio given the first cell; see `fisher_test`."""
        check_alternative(alternative)
        x = float(round(x))
        at_null = self.probabilities(null)
        if alternative == "two_sided":
            p = float(at_null[at_null <= at_null[self.support == x] * (1 + 1e-7)].sum())
        else:
            p = self.tail(x, null, upper=alternative == "greater")
        tail = (1 - as_level("level", level)) / (2 if alternative == "two_sided" else 1)
        low = 0.0 if alternative == "less" else self.limit(x, tail, upper=True)
        high = math.inf if alternative == "greater" else self.limit(x, tail, upper=False)
        return FisherTest(min(p, 1.0), Interval(self.most_likely(x), low, high, level))

    def probabilities(self, odds_ratio: float) -> Floats:
        """Of the values of the support, (values,)."""
        if odds_ratio == 0:
            return np.asarray(self.support == self.support[0], dtype=np.float64)
        logs = self.log_weights + self.support * math.log(odds_ratio)
        weights = np.exp(logs - logs.max())
        return np.asarray(weights / weights.sum())

    def tail(self, x: float, odds_ratio: float, *, upper: bool) -> float:
        """Probability of x and what is above, or below."""
        return float(self.probabilities(odds_ratio)[self.support >= x if upper else self.support <= x].sum())

    def _solve(self, excess: Callable[[float], float]) -> float:
        """The odds ratio where an excess vanishes that rises or falls with it."""
        if excess(1.0) == 0:
            return 1.0
        if (excess(0.0) > 0) != (excess(1.0) > 0):
            return self.find_root(excess, 0.0, 1.0)
        return 1 / self.find_root(lambda inverse: excess(1 / inverse), float(np.finfo(np.float64).eps), 1.0)

    def most_likely(self, x: float) -> float:
        """The odds ratio for which x is the mean."""
        if x == self.support[0]:
            return 0.0
        if x == self.support[-1]:
            return math.inf
        return self._solve(lambda odds: float(self.probabilities(odds) @ self.support) - x)

    def limit(self, x: float, tail: float, *, upper: bool) -> float:
        """Where the tail has such a probability; the upper tail gives the lower limit."""
        if x == self.support[0 if upper else -1]:
            return 0.0 if upper else math.inf
        return self._solve(lambda odds: self.tail(x, odds, upper=upper) - tail)


def stratified_test(
    tables: ArrayLike, *, continuity: bool = True, alternative: Alternative = "two_sided", level: float = 0.95
) -> StratifiedTest:
    """Cochran, Mantel and Haenszel's test of 2 x 2 tables, one a stratum.

    Args:
        tables: (strata, 2, 2); strata with an empty margin say nothing.
        continuity: Whether the deviation is corrected by one half, at most by itself.
        alternative: Whether the common odds ratio differs from 1, is above or below it.
        level: Of the limits.

    Raises:
        ValueError: If they are no 2 x 2 tables, or none says something.

    Source: Mantel & Haenszel 1959, J Natl Cancer Inst 22:719; variance Robins, Breslow & Greenland 1986,
    Biometrics 42:311.
    """
    x = as_two_by_two_tables(tables)
    check_alternative(alternative)
    x = x[x.sum(axis=(1, 2)) > 1]
    n, rows, columns = x.sum(axis=(1, 2)), x.sum(axis=2), x.sum(axis=1)
    variance = float((rows.prod(axis=1) * columns.prod(axis=1) / (n**2 * (n - 1))).sum())
    if not variance > 0:
        raise ValueError("tables must hold a stratum without an empty margin, got none")
    gap = float((x[:, 0, 0] - rows[:, 0] * columns[:, 0] / n).sum())
    step = min(0.5, abs(gap)) if continuity else 0.0
    statistic = (abs(gap) - step) ** 2 / variance
    z = math.copysign(math.sqrt(statistic), gap)
    p = {"two_sided": chi2.sf(statistic, 1), "greater": norm.sf(z), "less": norm.cdf(z)}[alternative]
    return StratifiedTest(statistic, float(p), _common_odds_ratio(x, n, alternative, level))


def _common_odds_ratio(x: Floats, n: Floats, alternative: Alternative, level: float) -> Interval:
    r, s = x[:, 0, 0] * x[:, 1, 1] / n, x[:, 0, 1] * x[:, 1, 0] / n
    p, q = (x[:, 0, 0] + x[:, 1, 1]) / n, (x[:, 0, 1] + x[:, 1, 0]) / n
    estimate = float(r.sum() / s.sum()) if s.sum() > 0 else math.inf
    if not (r.sum() > 0 and s.sum() > 0):
        return Interval(estimate, 0.0, math.inf, level)
    parts = (p @ r) / r.sum() ** 2 + (p @ s + q @ r) / (r.sum() * s.sum()) + (q @ s) / s.sum() ** 2
    sides = 2 if alternative == "two_sided" else 1
    half = float(norm.isf((1 - as_level("level", level)) / sides)) * math.sqrt(float(parts) / 2)
    low = 0.0 if alternative == "less" else estimate * math.exp(-half)
    high = math.inf if alternative == "greater" else estimate * math.exp(half)
    return Interval(estimate, low, high, level)


def _counts(events: tuple[float, float], subjects: tuple[float, float]) -> tuple[tuple[float, float], float]:
    """Rates, and the total."""
    if not all(0 <= k <= n and n > 0 for k, n in zip(events, subjects, strict=True)):
        raise ValueError(f"events must be between 0 and subjects, got {events!r} of {subjects!r}")
    return (events[0] / subjects[0], events[1] / subjects[1]), float(sum(subjects))


def miettinen_nurminen_test(
    events: tuple[float, float],
    subjects: tuple[float, float],
    null: float | None = None,
    *,
    scale: Scale = "difference",
    bias_corrected: bool = True,
) -> RateTest:
    """The score test of two rates against a difference, ratio or odds ratio; without correction Farrington, Manning's.

    Args:
        events: Experimental, control.
        subjects: Experimental, control.
        null: On the scale; None: of no difference.
        scale: Difference experimental - control, or ratio experimental : control of risks or odds.
        bias_corrected: Whether the variance is enlarged by N/(N - 1).

    Raises:
        ValueError: If the counts make no sense.

    Source: Miettinen & Nurminen 1985, Stat Med 4:213; Farrington & Manning 1990, Stat Med 9:1447.
    """
    (p1, p2), total = _counts(events, subjects)
    value = (0.0 if scale == "difference" else 1.0) if null is None else null
    q1, q2 = restricted_rates((p1, p2), value, scale=scale, allocation_ratio=subjects[0] / subjects[1])
    correction = total / (total - 1) if bias_corrected else 1.0
    v1, v2 = q1 * (1 - q1) / subjects[0] * correction, q2 * (1 - q2) / subjects[1] * correction
    if scale == "odds_ratio":
        estimate = p1 * (1 - p2) / (p2 * (1 - p1)) if p2 > 0 and p1 < 1 else math.inf
        z = (p1 - q1) * subjects[0] * math.sqrt(1 / (subjects[0] * q1 * (1 - q1)) + 1 / (subjects[1] * q2 * (1 - q2)))
        z = z / math.sqrt(correction)
    else:
        is_ratio = scale == "ratio"
        estimate = (p1 / p2 if p2 > 0 else math.inf) if is_ratio else p1 - p2
        gap = p1 - value * p2 if is_ratio else p1 - p2 - value
        spread = math.sqrt(v1 + v2 * (value**2 if is_ratio else 1.0))
        z = gap / spread if spread > 0 else math.copysign(math.inf, gap) if gap else 0.0
    return RateTest(estimate, z, float(2 * norm.sf(abs(z))))


def miettinen_nurminen_interval(
    events: tuple[float, float],
    subjects: tuple[float, float],
    *,
    scale: Scale = "difference",
    level: float = 0.95,
    bias_corrected: bool = True,
) -> Interval:
    """The values that the score test does not reject; arguments and errors as of `miettinen_nurminen_test`.

    >>> found = miettinen_nurminen_interval((56, 48), (70, 80))
    >>> round(found.low, 4), round(found.high, 4)
    (0.0528, 0.3382)
    """
    bound = float(norm.isf((1 - as_level("level", level)) / 2))

    def value(at: float) -> float:
        return at if scale == "difference" else math.exp(at)

    def excess(at: float, sign: float) -> float:
        test = miettinen_nurminen_test(events, subjects, value(at), scale=scale, bias_corrected=bias_corrected)
        return test.z - sign * bound

    end = 1 - 1e-9 if scale == "difference" else 20.0
    limits = [-end, end]
    for side, sign in enumerate((1.0, -1.0)):
        if excess(-end, sign) * excess(end, sign) < 0:
            limits[side] = brentq(excess, -end, end, args=(sign,), xtol=1e-12)
        else:
            limits[side] = math.copysign(1.0 if scale == "difference" else math.inf, limits[side])
    estimate = miettinen_nurminen_test(events, subjects, scale=scale).estimate
    shown = [each if scale == "difference" else math.exp(each) for each in limits]
    return Interval(estimate, shown[0], shown[1], level)


def wilson_interval(events: float, subjects: float, *, level: float = 0.95, continuity: float = 0.0) -> Interval:
    """The values of a rate that the score test does not reject.

    Args:
        events: Of the subjects.
        subjects: More than 0.
        level: Of the limits.
        continuity: By how many events the test is corrected, most often 0 or 0.5.

    Raises:
        ValueError: If the counts make no sense.

    Source: Wilson 1927, J Am Stat Assoc 22:209.
    """
    (p, _), _ = _counts((events, events), (subjects, subjects))
    z, n, step = float(norm.isf((1 - as_level("level", level)) / 2)), subjects, continuity

    def limit(sign: float) -> float:
        a = p + sign * step / n
        root = math.sqrt(max(a * (1 - a) / n + z**2 / (4 * n**2), 0.0))
        return float((a + z**2 / (2 * n) + sign * z * root) / (1 + z**2 / n))

    return Interval(p, max(limit(-1.0), 0.0), min(limit(1.0), 1.0), level)


def newcombe_interval(
    events: tuple[float, float], subjects: tuple[float, float], *, level: float = 0.95, continuity: bool = False
) -> Interval:
    """Limits of the difference experimental - control that join Wilson's limits of the arms.

    Args:
        events: Experimental, control.
        subjects: Experimental, control.
        level: Of the limits.
        continuity: Whether Wilson's limits are corrected by one half.

    Raises:
        ValueError: If the counts make no sense.

    Source: Newcombe 1998, Stat Med 17:873, methods 10 and 11.
    """
    one, other = (
        wilson_interval(k, n, level=level, continuity=0.5 * continuity) for k, n in zip(events, subjects, strict=True)
    )
    gap = one.estimate - other.estimate
    low = gap - math.hypot(one.estimate - one.low, other.high - other.estimate)
    high = gap + math.hypot(one.high - one.estimate, other.estimate - other.low)
    return Interval(gap, low, high, level)


def wald_interval(
    events: tuple[float, float],
    subjects: tuple[float, float],
    *,
    alternative: Alternative = "two_sided",
    level: float = 0.95,
    continuity: bool = False,
) -> Interval:
    """Limits of the difference experimental - control by unpooled variances.

    Args:
        events: Experimental, control.
        subjects: Experimental, control.
        alternative: Which limits are wanted: both, the lower (greater) or the upper one (less).
        level: Of the limits.
        continuity: Whether they are widened by half the sum of the reciprocals of subjects, at most by the difference.

    Raises:
        ValueError: If the counts make no sense.
    """
    (p1, p2), _ = _counts(events, subjects)
    check_alternative(alternative)
    gap = p1 - p2
    se = math.sqrt(p1 * (1 - p1) / subjects[0] + p2 * (1 - p2) / subjects[1])
    tail = (1 - as_level("level", level)) / (2 if alternative == "two_sided" else 1)
    half = float(norm.isf(tail)) * se
    half += min(abs(gap), (1 / subjects[0] + 1 / subjects[1]) / 2) if continuity else 0.0
    low = -1.0 if alternative == "less" else max(gap - half, -1.0)
    high = 1.0 if alternative == "greater" else min(gap + half, 1.0)
    return Interval(gap, low, high, level)


def exact_rate(events: float, subjects: float, *, level: float = 0.95) -> Interval:
    """A rate with Clopper and Pearson's limits.

    Args:
        events: Of the subjects.
        subjects: More than 0.
        level: Of the limits.

    Raises:
        ValueError: If the counts make no sense.

    Source: Clopper & Pearson 1934, Biometrika 26:404.
    """
    (p, _), _ = _counts((events, events), (subjects, subjects))
    tail = (1 - as_level("level", level)) / 2
    low = 0.0 if events == 0 else float(beta.ppf(tail, events, subjects - events + 1))
    high = 1.0 if events == subjects else float(beta.isf(tail, events + 1, subjects - events))
    return Interval(p, low, high, level)


def binomial_test(events: int, subjects: int, null: float, *, alternative: Alternative = "two_sided") -> float:
    """The exact p-value of a rate; two-sided: of all counts that are no more likely than the one observed.

    Args:
        events: Of the subjects.
        subjects: More than 0.
        null: The rate under the null.
        alternative: Which way it differs.

    Raises:
        ValueError: If the counts or the null make no sense.
    """
    _counts((events, events), (subjects, subjects))
    if not 0 <= null <= 1:
        raise ValueError(f"null must be between 0 and 1, got {null!r}")
    check_alternative(alternative)
    return float(binomtest(events, subjects, null, alternative=alternative.replace("_", "-")).pvalue)
