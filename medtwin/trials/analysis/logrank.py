"""Log-rank tests of two or more groups, weighted and stratified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtwin.trials.analysis.follow_up import Floats, FollowUp, Ints, as_codes, count_at, follow_up
from medtwin.trials.analysis.results import ChiSquare


@dataclass(frozen=True)
class EventTable:
    """The risk set at each event time of each stratum; rows in order of stratum and time.

    Attributes:
        time: (rows,) event times. stratum: (rows,) number of the stratum.
        at_risk: (rows, groups) subjects at risk just before. events: (rows, groups) events.
        survival: (rows,) Kaplan-Meier estimate of all groups of the stratum together, just before.
        groups, strata: Their levels in order.
    """

    time: Floats
    stratum: Ints
    at_risk: Ints
    events: Ints
    survival: Floats
    groups: tuple[Any, ...]
    strata: tuple[Any, ...]

    def observed_minus_expected(self) -> Floats:
        """Events less those expected if all groups share one hazard, (rows, groups)."""
        share = self.at_risk / self.at_risk.sum(axis=1, keepdims=True)
        return np.asarray(self.events - share * self.events.sum(axis=1, keepdims=True))

    def covariance(self) -> Floats:
        """Hypergeometric covariance of the events at each time, (rows, groups, groups)."""
        n, d = self.at_risk.sum(axis=1), self.events.sum(axis=1)
        share = self.at_risk / n[:, None]
        spread = share[:, :, None] * (np.eye(len(self.groups)) - share[:, None, :])
        return np.asarray((d * (n - d) / np.maximum(n - 1, 1))[:, None, None] * spread)


Weight = Callable[[EventTable], Floats]
"""Weights of the rows of an event table, (rows,); see `medtwin.trials.survival_weights`."""


def event_table(
    time: ArrayLike,
    event: ArrayLike,
    group: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    entry: ArrayLike | None = None,
) -> EventTable:
    """The risk sets of a trial at its event times.

    Args:
        time: (subjects,) time to event or censoring.
        event: (subjects,) whether it is an event.
        group: (subjects,) labels of the groups to compare.
        strata: (subjects,) labels of strata, whose risk sets are apart.
        entry: (subjects,) start of observation where it is late; a subject is at risk in (entry, time].

    Raises:
        ValueError: For times, events or labels that make no sense, or fewer than two groups.
    """
    seen = follow_up(time, event, entry)
    groups, code = as_codes("group", group, len(seen))
    if len(groups) < 2:
        raise ValueError(f"group must be of two levels or more, got {groups!r}")
    levels, stratum = as_codes("strata", np.zeros(len(seen)) if strata is None else strata, len(seen))
    tables = [_table(seen, code, stratum == s, len(groups)) for s in range(len(levels))]
    return EventTable(
        time=np.concatenate([each[0] for each in tables]),
        stratum=np.repeat(np.arange(len(levels)), [len(each[0]) for each in tables]),
        at_risk=np.concatenate([each[1] for each in tables]),
        events=np.concatenate([each[2] for each in tables]),
        survival=np.concatenate([_survival_before(each[1], each[2]) for each in tables]),
        groups=groups,
        strata=levels,
    )


def _table(seen: FollowUp, code: Ints, here: NDArray[np.bool_], num_groups: int) -> tuple[Floats, Ints, Ints]:
    steps = np.unique(seen.time[here & seen.event])
    at_risk = np.empty((len(steps), num_groups), dtype=np.int64)
    events = np.empty_like(at_risk)
    for g in range(num_groups):
        mine = seen.of(here & (code == g))
        at_risk[:, g] = mine.at_risk(steps)
        events[:, g] = count_at(mine.time[mine.event], steps)
    return steps, at_risk, events


def _survival_before(at_risk: Ints, events: Ints) -> Floats:
    after = np.cumprod(1 - events.sum(axis=1) / at_risk.sum(axis=1))
    return np.concatenate([[1.0], after])[: len(after)]


@dataclass(frozen=True)
class LogRankTest:
    """A test that the hazards of all groups are equal.

    Attributes:
        groups, strata: Their levels, in the order of the arrays.
        observed, expected: (groups, strata) events, weighted, and those expected under equal hazards.
        variance: (groups, groups) of observed less expected.
        chi_square: The statistic. degrees_of_freedom: Of its law. p_value: Two-sided.
    """

    groups: tuple[Any, ...]
    strata: tuple[Any, ...]
    observed: Floats
    expected: Floats
    variance: Floats
    chi_square: float
    degrees_of_freedom: int
    p_value: float


def logrank_test(
    time: ArrayLike,
    event: ArrayLike,
    group: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    entry: ArrayLike | None = None,
    weight: Weight | None = None,
) -> LogRankTest:
    """The log-rank test of two or more groups, hypergeometric variance.

    Args:
        time: (subjects,) time to event or censoring.
        event: (subjects,) whether it is an event.
        group: (subjects,) labels of the groups to compare.
        strata: (subjects,) labels of strata, whose risk sets are apart.
        entry: (subjects,) start of observation where it is late.
        weight: Of each event time, for instance `FlemingHarrington(rho=1)` for Peto & Peto's test; one by default.

    Raises:
        ValueError: As `event_table`; or without any event.

    Source: Mantel 1966; weights and more groups as in Harrington & Fleming 1982.
    """
    table = event_table(time, event, group, strata=strata, entry=entry)
    if not len(table.time):
        raise ValueError(f"event must be true of somebody, got {event!r}")
    w = np.ones(len(table.time)) if weight is None else weight(table)
    apart = np.eye(len(table.strata))[table.stratum] * w[:, None]
    observed = table.events.T @ apart
    expected = observed - table.observed_minus_expected().T @ apart
    variance = np.tensordot(w**2, table.covariance(), axes=1)
    score = (observed - expected).sum(axis=1)
    test = ChiSquare.of_scores(score, variance)
    found = (test.chi_square, test.degrees_of_freedom, test.p_value)
    return LogRankTest(table.groups, table.strata, observed, expected, variance, *found)
