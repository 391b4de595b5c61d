"""Log-rank test and Cox hazard ratio of two arms, many trials at once.

Arrays are (trials, patients). z > 0 favours the experimental arm (arm 1), hazard ratios are experimental / control.

Cox's estimate of many trials is computed in three ways, of times that may tie or not, exactly or fast:

| function | ties | precision | for |
|---|---|---|---|
| `cox_log_hazard_ratio` | Efron's | 1e-9, double | true estimands; tests in `batched.survival_hazard_ratio` |
| `cox_log_hazard_ratio_continuous` | none | five digits, single | scores of designs; estimands in strata or by trial |
| `event_shares.cox_log_hazard_ratio_of_shares` | Efron's | 1e-6, single | the engine, where a trial stops |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class RiskSets:
    """Patients of every trial in order of time: who is at risk at each one's time, ties taken together.

    Attributes:
        event: (trials, patients) bool. arm: (trials, patients) 0 or 1.
        at_risk, at_risk_1: Patients, and experimental ones, at risk at that time.
        tied, tied_1: Events, and experimental ones, at that time.
        rank: Number of the event among those at its time, from 0.
    """

    event: Bools
    arm: Ints
    at_risk: Ints
    at_risk_1: Ints
    tied: Ints
    tied_1: Ints
    rank: Ints


def risk_sets(time: Floats, event: Bools, arm: Ints) -> RiskSets:
    """The risk sets of every trial.

    Args:
        time: (trials, patients) time to event or censoring; a patient not yet enrolled has time 0 and no event.
        event: (trials, patients) whether it is an event.
        arm: (trials, patients) 1 experimental, 0 control.
    """
    order = np.argsort(time, axis=1, kind="stable")
    t, d, a = _take(time, order), _take(event, order), _take(arm, order)
    count = t.shape[1]
    position = np.broadcast_to(np.arange(count), t.shape)
    changes = np.diff(t, axis=1) > 0
    edge = np.ones((len(t), 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, changes]), position, 0), axis=1)
    last = np.minimum.accumulate(np.where(np.hstack([changes, edge]), position, count - 1)[:, ::-1], axis=1)[:, ::-1]
    from_here_1 = np.cumsum(a[:, ::-1], axis=1)[:, ::-1]
    events, events_1 = np.cumsum(d, axis=1), np.cumsum(d * a, axis=1)
    before: Ints = _take(events - d, first)
    tied, tied_1 = _take(events, last) - before, _take(events_1, last) - _take(events_1 - d * a, first)
    return RiskSets(d, a, count - first, _take(from_here_1, first), tied, tied_1, events - d - before)


def _take(values: NDArray[Scalar], index: Ints) -> NDArray[Scalar]:
    """The values of each row in the order of its indices."""
    return values[np.arange(len(values))[:, None], index]


def logrank_z(sets: RiskSets) -> Floats:
    """The log-rank z of every trial, (trials,), hypergeometric variance; 0 where there is nothing to compare.

    Source: Mantel 1966, Cancer Chemother Rep 50:163.
    """
    n, share = sets.at_risk, sets.at_risk_1 / sets.at_risk
    correction = np.where(n > 1, (n - sets.tied) / np.maximum(n - 1, 1), 0.0)
    expected = (share * sets.event).sum(axis=1)
    variance = (share * (1 - share) * correction * sets.event).sum(axis=1)
    return _ratio(expected - (sets.arm * sets.event).sum(axis=1), np.sqrt(variance))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.zeros_like(bottom), where=bottom > 0)


@dataclass(frozen=True)
class Ordered:
    """Patients of every trial in order of time where no two event times are equal; float32, (trials, patients).

    Attributes:
        arm: 1 experimental, 0 control. event: 1 or 0. at_risk_1: Experimental patients at risk at that time.
        at_risk: All patients at risk then, of the same stratum; (1, patients) where all trials have the same.
    """

    arm: Singles
    event: Singles
    at_risk_1: Singles
    at_risk: Singles

    def rows(self, index: Ints | Bools) -> Ordered:
        """Some of the trials."""
        at_risk = self.at_risk if len(self.at_risk) == 1 else self.at_risk[index]
        return Ordered(self.arm[index], self.event[index], self.at_risk_1[index], at_risk)


def order_continuous(time: Floats, event: Bools, arm: Ints) -> Ordered:
    """The patients in order of time, several times faster than `risk_sets`; for times without ties.

    The two lowest bits of each time carry event and arm, so that one plain sort orders all three.

    Args:
        time: (trials, patients) 0 or more; changed by at most 3 units in the last place.
        event: (trials, patients).
        arm: (trials, patients) 1 experimental, 0 control.
    """
    return order_keys(packed_keys(time, event, arm))


def packed_keys(time: Floats, event: Bools | int, arm: Ints, out: Ints | None = None) -> Ints:
    """Numbers in the order of time, (trials, patients), whose lowest two bits are event and arm.

    The least of two keys of a patient is that of what comes first, an event or the end of follow-up.

    Args:
        time: (trials, patients) 0 or more; its two lowest bits make room.
        event: (trials, patients), or 0 where nobody has one.
        arm: (trials, patients) 1 experimental, 0 control.
        out: Where to put them; None: a new array. It may be that of `time`.
    """
    keys = np.bitwise_and(np.ascontiguousarray(time, dtype=np.float64).view(np.int64), ~np.int64(3), out=out)
    keys |= arm
    if not isinstance(event, int):
        keys |= np.left_shift(event, 1, dtype=np.int64)
    return keys


def order_keys(keys: Ints) -> Ordered:
    """The patients in order of packed keys, (trials, patients), which are sorted in place."""
    keys.sort(axis=1)
    bits = keys.astype(np.uint8)
    a, d = bits & 1, (bits >> 1 & 1).astype(np.float32)
    count = np.arange(a.shape[1], 0, -1, dtype=np.float32)[None]
    at_risk_1 = np.cumsum(a[:, ::-1], axis=1, dtype=np.int32)[:, ::-1]
    return Ordered(a.astype(np.float32), d, at_risk_1.astype(np.float32), count)


def order_continuous_in_strata(time: Floats, event: Bools, arm: Ints, stratum: Ints) -> Ordered:
    """As `order_continuous`, with risk sets within strata: the log-rank test and the Cox model become stratified.

    The ten highest bits of each key carry the stratum, at the cost of ten bits of the time's precision (2^-42).

    Args:
        time: (trials, patients) 0 or more.
        event: (trials, patients).
        arm: (trials, patients) 1 experimental, 0 control.
        stratum: (trials, patients) from 0, at most 1023.

    Raises:
        ValueError: If there are more strata.
    """
    if stratum.max(initial=0) > 1023:
        raise ValueError(f"strata must be at most 1024, got {int(stratum.max()) + 1}")
    bits = np.ascontiguousarray(time, dtype=np.float64).view(np.int64) >> 10 & ~np.int64(3)
    keys = stratum << 53 | bits | event.astype(np.int64) << 1 | arm
    keys.sort(axis=1)
    a, d = (keys & 1).astype(np.float32), (keys >> 1 & 1).astype(np.float32)
    group, count = keys >> 53, keys.shape[1]
    is_last = np.concatenate([np.diff(group, axis=1) > 0, np.ones((len(group), 1), dtype=bool)], axis=1)
    position = np.arange(count)
    end = np.minimum.accumulate(np.where(is_last, position, count)[:, ::-1], axis=1)[:, ::-1]
    until = np.cumsum(a, axis=1)
    at_risk_1 = _take(until, end) - until + a
    return Ordered(a, d, at_risk_1, (end - position + 1).astype(np.float32))


def logrank_z_continuous(ordered: Ordered) -> Floats:
    """The log-rank z of every trial, (trials,), where no two event times are equal."""
    a, d = ordered.arm, ordered.event
    share = ordered.at_risk_1 / ordered.at_risk
    at_event = share * d
    expected = at_event.sum(axis=1, dtype=np.float64)
    variance = expected - np.einsum("ij,ij->i", share, at_event)
    observed = np.einsum("ij,ij->i", a, d)
    return _ratio(expected - observed, np.sqrt(np.maximum(variance, 0.0)))


@dataclass(frozen=True)
class LogHazardRatio:
    """Estimates of the log hazard ratio and their standard errors, both (trials,); nan where there is none."""

    estimate: Floats
    standard_error: Floats

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Wald limits of the hazard ratio, each (trials,)."""
        half = norm.ppf(0.5 + level / 2) * self.standard_error
        return np.exp(self.estimate - half), np.exp(self.estimate + half)


def cox_log_hazard_ratio(sets: RiskSets) -> LogHazardRatio:
    """The Cox estimate of the arm's effect in every trial, ties by Efron's method, by Newton's.

    A trial in which an arm has no event while the other is at risk has no finite estimate (the likelihood is monotone):
    nan, which rejects nothing.

    Source: Heinze & Schemper 2001, Biometrics 57:114 (monotone likelihood); Efron 1977, J Am Stat Assoc 72:557.
    """
    share = np.where(sets.event, sets.rank / np.maximum(sets.tied, 1), 0.0)
    at_1 = sets.at_risk_1 - share * sets.tied_1
    at_0 = (sets.at_risk - sets.at_risk_1) - share * (sets.tied - sets.tied_1)
    return _newton(at_1, at_0, sets.event, (sets.event * sets.arm).sum(axis=1), 1e-9)


def cox_log_hazard_ratio_continuous(ordered: Ordered) -> LogHazardRatio:
    """The same where no two event times are equal, to five digits."""
    num_1 = np.einsum("ij,ij->i", ordered.arm, ordered.event)
    # Newton's error is of the order of the last step's square
    return _newton(ordered.at_risk_1, ordered.at_risk - ordered.at_risk_1, ordered.event, num_1, 1e-3)


def _newton(
    at_1: NDArray[np.floating],
    at_0: NDArray[np.floating],
    event: Bools | Singles,
    num_1: NDArray[np.generic],
    tolerance: float,
) -> LogHazardRatio:
    """Solves the score equation of one binary covariate from the numbers at risk at each event, not both 0."""
    is_event = event > 0
    observed = np.asarray(num_1, dtype=np.float64)
    # the likelihood has a maximum where each arm has an event while the other is at risk
    only_1, any_1 = ((is_event & here).sum(axis=1, dtype=np.int32) for here in (at_0 <= 0, at_1 > 0))
    is_finite = (only_1 < observed) & (observed < any_1)
    with np.errstate(divide="ignore"):
        odds = at_0 / at_1
    beta = np.zeros(len(at_1))
    information = np.ones(len(at_1))
    for _ in range(25):
        p = odds * np.exp(-beta).astype(odds.dtype)[:, None]
        p += 1
        np.divide(event, p, out=p)
        expected = p.sum(axis=1, dtype=np.float64)
        information = np.where(is_finite, expected - np.einsum("ij,ij->i", p, p), 1.0)
        step = np.where(is_finite, (observed - expected) / information, 0.0)
        beta = beta + np.clip(step, -1.0, 1.0)
        if np.abs(step).max(initial=0.0) < tolerance:
            break
    missing = np.where(is_finite, 0.0, np.nan)
    return LogHazardRatio(beta + missing, 1 / np.sqrt(information) + missing)
