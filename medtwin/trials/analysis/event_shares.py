"""Log-rank test and Cox hazard ratio of two arms, many trials at once, from the arms' shares of those at risk.

All that either needs of a trial is which share of the patients at risk at each event is experimental. Arrays are
(trials, patients), float32: sums have a relative error of about 1e-7. z > 0 favours the experimental arm (arm 1).
Made for the engine's looks; `survival_batch` says which of the Cox estimates of many trials is for what.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.survival_batch import LogHazardRatio, Ordered, RiskSets, order_continuous, risk_sets

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Keys = NDArray[np.int32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
EVENT, EXPERIMENTAL = 1, 2
_TOLERANCE = 1e-6
_FAR = 4.0  # a log hazard ratio that may be on its way to infinity


@dataclass(frozen=True)
class EventShares:
    """The risk sets of trials, patients in any order that is the same in all arrays.

    Attributes:
        event: (trials, patients) 1 at an event, 0 elsewhere.
        share: (trials, patients) experimental share of those at risk, in [0, 1]; of no meaning where there is no event.
        events: (trials,) events. observed: Those of the experimental arm.
        expected: Those expected of it. variance: Of the log-rank test, hypergeometric.
    """

    event: Singles
    share: Singles
    events: Floats
    observed: Floats
    expected: Floats
    variance: Floats

    @staticmethod
    def empty(num_trials: int, count: int) -> EventShares:
        """Room for trials of so many patients."""
        event, share = np.empty((2, num_trials, count), dtype=np.float32)
        return EventShares(event, share, *np.empty((4, num_trials)))

    def fill(self, rows: slice, keys: Keys) -> Keys:
        """Fills in some trials; returns the least difference of two keys of each, (some,).

        Args:
            rows: Which.
            keys: (some, patients), overwritten. The later a patient's time, the less the key; its lowest bits are
                `EVENT` and `EXPERIMENTAL`.
        """
        event, share = self.event[rows], self.share[rows]
        keys.sort(axis=1)
        least = np.subtract(keys[:, 1:], keys[:, :-1]).min(axis=1, initial=np.iinfo(np.int32).max)
        np.copyto(event, keys & EVENT, casting="unsafe")
        keys &= EXPERIMENTAL
        np.copyto(share, keys, casting="unsafe")
        self.observed[rows] = np.vecdot(share, event) / EXPERIMENTAL
        np.copyto(share, np.cumsum(keys, axis=1, dtype=np.int32, out=keys), casting="unsafe")
        share /= np.arange(EXPERIMENTAL, EXPERIMENTAL * (keys.shape[1] + 1), EXPERIMENTAL, dtype=np.float32)
        self.events[rows] = np.vecdot(event, event)
        at_event = event * share
        self.expected[rows] = at_event.sum(axis=1, dtype=np.float64)
        self.variance[rows] = np.vecdot(at_event, 1 - share)
        return np.asarray(least)

    @staticmethod
    def of_events(event: Singles, share: Singles, observed: Floats) -> EventShares:
        """Those of trials where no two events fall together.

        Args:
            event: (trials, patients) 1 or 0.
            share: (trials, patients).
            observed: (trials,) events of the experimental arm.
        """
        at_event = event * share
        expected = at_event.sum(axis=1, dtype=np.float64)
        variance = np.vecdot(at_event, 1 - share).astype(np.float64)
        events = np.vecdot(event, event).astype(np.float64)
        return EventShares(event, share, events, observed, expected, variance)

    @staticmethod
    def of_ordered(ordered: Ordered) -> EventShares:
        """Those of patients in order of time where no two events fall together."""
        observed = np.vecdot(ordered.arm, ordered.event).astype(np.float64)
        return EventShares.of_events(ordered.event, ordered.at_risk_1 / ordered.at_risk, observed)

    @staticmethod
    def of_risk_sets(sets: RiskSets) -> EventShares:
        """Those of trials with ties: the log-rank variance is hypergeometric, shares are those of Efron's method.

        Source: Mantel 1966, Cancer Chemother Rep 50:163; Efron 1977, J Am Stat Assoc 72:557.
        """
        d, share = sets.event, sets.at_risk_1 / sets.at_risk
        correction = (sets.at_risk - sets.tied) / np.maximum(sets.at_risk - 1, 1)
        gone = np.where(d, sets.rank / np.maximum(sets.tied, 1), 0.0)
        efron = (sets.at_risk_1 - gone * sets.tied_1) / (sets.at_risk - gone * sets.tied)
        return EventShares(
            d.astype(np.float32),
            efron.astype(np.float32),
            d.sum(axis=1, dtype=np.float64),
            (d * sets.arm).sum(axis=1, dtype=np.float64),
            (d * share).sum(axis=1),
            (d * share * (1 - share) * correction).sum(axis=1),
        )

    def rows(self, kept: Bools) -> EventShares:
        """Some of the trials."""
        return self if kept.all() else EventShares(*(getattr(self, each.name)[kept] for each in fields(self)))

    def put(self, where: Bools, other: EventShares) -> None:
        """Puts other trials in the place of some, whose order of patients may be another."""
        for each in fields(self):
            getattr(self, each.name)[where] = getattr(other, each.name)

    @property
    def z(self) -> Floats:
        """The log-rank z of every trial, (trials,); 0 where there is nothing to compare."""
        deviation = np.sqrt(self.variance)
        return np.divide(
            self.expected - self.observed, deviation, out=np.zeros_like(deviation), where=self.variance > 0
        )


def exact_shares(time: Floats, event: Bools, arm: Ints) -> EventShares:
    """The risk sets of trials, ties and all.

    Args:
        time: (trials, patients) time to event or censoring; 0 before enrolment.
        event: (trials, patients) whether it is an event.
        arm: (trials, patients) 1 experimental.
    """
    found = EventShares.of_ordered(order_continuous(time, event, arm))
    times = np.sort(time, axis=1)
    is_close = (np.diff(times, axis=1) < 2.0**-48 * times[:, 1:]) & (times[:, 1:] > 0)
    is_tied = np.asarray(is_close.any(axis=1))
    if is_tied.any():
        found.put(is_tied, EventShares.of_risk_sets(risk_sets(time[is_tied], event[is_tied], arm[is_tied])))
    return found


def cox_log_hazard_ratio_of_shares(shares: EventShares) -> LogHazardRatio:
    """The Cox estimate of the arm's effect in every trial, to 1e-6.

    A trial where one arm has no events, or all those for which both arms were at risk, has no finite estimate: nan.
    Halley's steps start from the ratio of observed to expected events of the log-rank test.

    Source: Cox 1972, J R Stat Soc B 34:187; Berry, Kitchin & Mock 1991, Stat Med 10:749 (the start).
    """
    is_finite = (shares.observed > 0) & (shares.observed < shares.events) & (shares.variance > 0)
    beta, information = np.full(len(is_finite), np.nan), np.full(len(is_finite), np.nan)
    open_, part = np.flatnonzero(is_finite), shares.rows(is_finite)
    event, odds, observed = part.event, _odds(part.share), part.observed
    here = np.log(observed / part.expected * ((part.events - part.expected) / (part.events - observed)))
    for _ in range(50):
        p = odds * np.exp(-here).astype(np.float32)[:, None]
        p += 1
        np.divide(event, p, out=p)
        expected = p.sum(axis=1, dtype=np.float64)
        square = p * p
        second, third = np.vecdot(square, event), np.vecdot(square, p)
        found, skew = np.maximum(expected - second, 1e-9), expected - 3.0 * second + 2.0 * third
        step = (observed - expected) / found
        step = np.clip(step / np.maximum(1 + 0.5 * step * skew / found, 0.5), -1.0, 1.0)
        here = here + step
        beta[open_], information[open_] = here, np.maximum(found + skew * step, 1e-9)
        is_open = abs(step) ** 3 > _TOLERANCE  # Halley's error is less than the cube of the last step
        if (abs(here) > _FAR).any():
            endless = ~_has_maximum(event, odds, observed)
            beta[open_[endless]] = information[open_[endless]] = np.nan
            is_open &= ~endless
        if not is_open.any():
            break
        if not is_open.all():
            open_, here, odds, event, observed = (each[is_open] for each in (open_, here, odds, event, observed))
    return LogHazardRatio(beta, 1 / np.sqrt(information))


def _has_maximum(event: Singles, odds: Singles, observed: Floats) -> Bools:
    """Whether the partial likelihood has one, (trials,): neither arm has all events for which both were at risk."""
    only_1, any_1 = (((odds == 0) & (event > 0)).sum(axis=1), ((odds < np.inf) & (event > 0)).sum(axis=1))
    return np.asarray((only_1 < observed) & (observed < any_1))


def _odds(share: Singles) -> Singles:
    """Control patients at risk for each experimental one."""
    with np.errstate(divide="ignore"):
        odds = np.reciprocal(share)
    odds -= 1
    return odds
