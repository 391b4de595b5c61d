"""Exact tests beyond one 2 x 2 table: strata, larger tables, and rates of events per time."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import reduce
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln
from scipy.stats import gamma, poisson

from medtwin.trials.analysis.follow_up import as_level
from medtwin.trials.analysis.means import Alternative, check_alternative
from medtwin.trials.analysis.rates import (
    ConditionalLaw,
    FisherTest,
    RootFinder,
    as_table,
    as_two_by_two_tables,
    binomial_test,
    exact_rate,
    exact_root,
)
from medtwin.trials.analysis.results import Interval

_MOST_STATES = 2_000_000


def exact_stratified_test(
    tables: ArrayLike,
    *,
    alternative: Alternative = "two_sided",
    level: float = 0.95,
    find_root: RootFinder = exact_root,
) -> FisherTest:
    """The exact conditional test of an odds ratio common to strata, with its conditional estimate and limits.

    Args:
        tables: (strata, 2, 2).
        alternative: Whether the odds ratio differs from 1, is above or below it.
        level: Of the limits.
        find_root: See `fisher_test`.

    Raises:
        ValueError: If they are no 2 x 2 tables, or the rest makes no sense.

    Source: Mehta, Patel & Gray 1985, J Am Stat Assoc 80:969.
    """
    x = as_two_by_two_tables(tables)
    law = reduce(ConditionalLaw.plus, [ConditionalLaw.of(each, find_root) for each in x])
    return law.test(float(x[:, 0, 0].sum()), 1.0, alternative, level)


def fisher_freeman_halton_test(counts: ArrayLike) -> float:
    """The p-value of Fisher's test of a table of any size: of all tables no more likely than the one observed.

    Args:
        counts: (rows, columns).

    Raises:
        ValueError: If it is no table of counts, or there are too many tables to list.

    Source: Freeman & Halton 1951, Biometrika 38:141; tables are built up by columns, with those of equal margins and
    probability counted together, as in Mehta & Patel 1983, J Am Stat Assoc 78:427.

    >>> round(fisher_freeman_halton_test([[3, 1], [1, 3]]), 4)
    0.4857
    """
    table = as_table(counts)
    table = table if table.shape[0] <= table.shape[1] else table.T
    states: dict[tuple[int, ...], dict[float, float]] = {tuple(int(n) for n in table.sum(axis=1)): {0.0: 1.0}}
    for size in table.sum(axis=0).astype(int).tolist():
        following: dict[tuple[int, ...], dict[float, float]] = defaultdict(lambda: defaultdict(float))
        for left, values in states.items():
            for cells in _columns(left, size):
                step = float(gammaln(np.array(cells) + 1.0).sum())
                into = following[tuple(n - k for n, k in zip(left, cells, strict=True))]
                for value, number in values.items():
                    into[round(value + step, 9)] += number
        states = following
        if sum(map(len, states.values())) > _MOST_STATES:
            raise ValueError(f"counts must have fewer tables of their margins, got a sum of {table.sum():g}")
    ((_, found),) = states.items()
    logs, numbers = np.array(list(found)), np.array(list(found.values()))
    weights = numbers * np.exp(logs.min() - logs)
    here = float(gammaln(table + 1).sum())
    return float(min(weights[logs >= here - 1e-7].sum() / weights.sum(), 1.0))


def _columns(left: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    """All columns of such a sum that the rows have left."""
    inner = product(*(range(min(each, size) + 1) for each in left[:-1]))
    return [(*cells, size - sum(cells)) for cells in inner if 0 <= size - sum(cells) <= left[-1]]


def exact_event_rate(
    events: float, time: float, *, alternative: Alternative = "two_sided", level: float = 0.95
) -> Interval:
    """A rate of events per time with exact limits.

    Args:
        events: That were seen.
        time: At risk.
        alternative: Which limits are wanted: both, the lower (greater) or the upper one (less).
        level: Of the limits.

    Raises:
        ValueError: If the events are negative, there is no time, or the rest makes no sense.

    Source: Garwood 1936, Biometrika 28:437.
    """
    _check_events(events, time)
    check_alternative(alternative)
    tail = (1 - as_level("level", level)) / (2 if alternative == "two_sided" else 1)
    low = 0.0 if events == 0 or alternative == "less" else float(gamma.ppf(tail, events))
    high = math.inf if alternative == "greater" else float(gamma.isf(tail, events + 1))
    return Interval(events / time, low / time, high / time, level)


def event_rate_test(events: int, time: float, null: float = 1.0, *, alternative: Alternative = "two_sided") -> float:
    """The exact p-value of a rate; two-sided: of all counts that are no more likely than the one observed.

    Args:
        events: That were seen.
        time: At risk.
        null: The rate under the null.
        alternative: Which way it differs.

    Raises:
        ValueError: If the events are negative, or time or null not positive.
    """
    _check_events(events, time)
    check_alternative(alternative)
    if not null > 0:
        raise ValueError(f"null must be above 0, got {null!r}")
    law = poisson(null * time)
    if alternative != "two_sided":
        return float(law.sf(events - 1) if alternative == "greater" else law.cdf(events))
    counts = np.arange(int(law.ppf(1 - 1e-16)) + int(events) + 2)
    likely = law.pmf(counts) > law.pmf(events) * (1 + 1e-7)
    return float(1 - law.pmf(counts[likely]).sum()) if likely.any() else 1.0


def exact_rate_ratio(
    events: tuple[float, float],
    times: tuple[float, float],
    null: float = 1.0,
    *,
    alternative: Alternative = "two_sided",
    level: float = 0.95,
) -> FisherTest:
    """The exact test of two rates of events, given their sum; the estimate is the ratio experimental : control.

    Args:
        events: Experimental, control.
        times: At risk, experimental, control.
        null: The ratio under the null.
        alternative: Which way it differs.
        level: Of the limits.

    Raises:
        ValueError: If the events are negative or none, or times or null not positive.

    Source: Przyborowski & Wilenski 1940, Biometrika 31:313.
    """
    for each, time in zip(events, times, strict=True):
        _check_events(each, time)
    check_alternative(alternative)
    total = sum(events)
    if not (null > 0 and total > 0):
        raise ValueError(f"null must be above 0 and events be seen, got {null!r} and {events!r}")
    share = null * times[0] / (null * times[0] + times[1])
    p = binomial_test(round(events[0]), round(total), share, alternative=alternative)
    both = exact_rate(events[0], total, level=level if alternative == "two_sided" else 2 * level - 1)
    low = 0.0 if alternative == "less" else _odds(both.low) * times[1] / times[0]
    high = math.inf if alternative == "greater" else _odds(both.high) * times[1] / times[0]
    estimate = _odds(events[0] / total) * times[1] / times[0]
    return FisherTest(p, Interval(estimate, low, high, level))


def _odds(share: float) -> float:
    return share / (1 - share) if share < 1 else math.inf


def _check_events(events: float, time: float) -> None:
    if not (events >= 0 and time > 0):
        raise ValueError(f"events must not be negative and time be above 0, got {events!r} and {time!r}")
