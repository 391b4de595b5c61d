"""Competing risks: cumulative incidence, Gray's test, and Fine and Gray's regression."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medtwin.trials.analysis.cox import HazardModel
from medtwin.trials.analysis.follow_up import (
    Bools,
    Floats,
    Ints,
    as_codes,
    as_covariates,
    count_at,
    count_before,
    follow_up,
    values_at,
)
from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.analysis.results import ChiSquare


@dataclass(frozen=True)
class CumulativeIncidence:
    """The chance of an event of one cause by each time, others competing; a step at each, from 0 at time 0.

    Attributes:
        time: (steps,) times of events of the cause. estimate: (steps,) after each. variance: (steps,) of the estimate.
    """

    time: Floats
    estimate: Floats
    variance: Floats

    def at(self, times: ArrayLike) -> Floats:
        """The estimate at each time."""
        return values_at(self.time, self.estimate, times, before=0.0)

    def variance_at(self, times: ArrayLike) -> Floats:
        """Its variance at each time."""
        return values_at(self.time, self.variance, times, before=0.0)


@dataclass(frozen=True)
class GrayTest:
    """A test that groups have one cumulative incidence of a cause.

    Attributes:
        groups: Levels in order. score: (groups,) weighted differences. variance: (groups, groups) of the score.
        chi_square: The statistic. degrees_of_freedom: Of its law. p_value: Two-sided.
    """

    groups: tuple[Any, ...]
    score: Floats
    variance: Floats
    chi_square: float
    degrees_of_freedom: int
    p_value: float


@dataclass(frozen=True)
class FineGrayModel(HazardModel):
    """A proportional hazards model of the subdistribution of one cause; hazard ratios are of the subdistribution.

    Attributes:
        covariance: (covariates, covariates), robust.
    """


def _causes(time: ArrayLike, cause: ArrayLike, of_interest: Hashable, censored: Hashable) -> tuple[Floats, Ints]:
    """Times, and 0 for censored, 1 for the cause of interest, 2 for the others, (subjects,) each."""
    found = np.asarray(cause)
    t = np.asarray(time, dtype=np.float64)
    if found.shape != t.shape:
        raise ValueError(f"cause must be one value for each of {len(t)} subjects, got shape {found.shape!r}")
    if of_interest == censored:
        raise ValueError(f"of_interest must be a cause of events, got {of_interest!r}")
    kind = np.where(found == censored, 0, np.where(found == of_interest, 1, 2)).astype(np.int64)
    if not (kind == 1).any():
        raise ValueError(f"of_interest must be the cause of some event, got {of_interest!r}")
    return follow_up(t, kind > 0).time, kind


@dataclass(frozen=True)
class _Table:
    """Times of any event: at risk, events of the cause and of others, survival before and after, incidence after."""

    time: Floats
    at_risk: Ints
    own: Ints
    other: Ints
    before: Floats
    after: Floats
    incidence: Floats


def _table(t: Floats, kind: Ints, times: Floats | None = None) -> _Table:
    steps = np.unique(t[kind > 0]) if times is None else times
    n = len(t) - count_before(t, steps)
    own, other = (count_at(t[kind == k], steps) for k in (1, 2))
    hazard = np.divide(own + other, n, out=np.zeros(len(steps)), where=n > 0)
    after = np.cumprod(1 - hazard)
    before = np.concatenate([[1.0], after])[: len(steps)]
    rise = np.divide(before * own, n, out=np.zeros(len(steps)), where=n > 0)
    return _Table(steps, n, own, other, before, after, np.cumsum(rise))


def cumulative_incidence(
    time: ArrayLike, cause: ArrayLike, *, of_interest: Hashable = 1, censored: Hashable = 0
) -> CumulativeIncidence:
    """The cumulative incidence of one cause in one group, by Aalen and Johansen's estimator.

    The variance is that of the estimator as a martingale integral; ties count by their hypergeometric factor.

    Args:
        time: (subjects,) time to event or censoring.
        cause: (subjects,) which event it is.
        of_interest: The cause.
        censored: The value of `cause` that is no event.

    Raises:
        ValueError: For data that make no sense, or a cause that nobody has.

    Source: Aalen & Johansen 1978; variance as in Gray 1988, section 4, and Pepe 1991.

    >>> cumulative_incidence([1, 2, 3, 4], [1, 2, 0, 1]).estimate
    array([0.25, 0.75])
    """
    table = _table(*_causes(time, cause, of_interest, censored))
    n, f = table.at_risk, table.incidence
    inverse = np.divide(1.0, table.after, out=np.zeros(len(n)), where=table.after > 0)
    parts = np.stack([_tied(table.own, n), np.where(table.after > 0, _tied(table.other, n), 0.0)])
    unit = (table.before / n) ** 2 * parts
    constant, slope = np.stack([1 + f * inverse, f * inverse]), inverse
    sums = [np.cumsum((unit * c).sum(axis=0)) for c in (constant**2, constant * slope, np.stack([slope**2] * 2))]
    variance = sums[0] - 2 * f * sums[1] + f**2 * sums[2]
    here = table.own > 0
    return CumulativeIncidence(table.time[here], f[here], np.maximum(variance[here], 0.0))


def _tied(events: Ints, at_risk: Ints) -> Floats:
    """Events, less what their ties take from the variance."""
    return np.asarray(events * (1 - np.maximum(events - 1, 0) / np.maximum(at_risk - 1, 1)))


def gray_test(
    time: ArrayLike,
    cause: ArrayLike,
    group: ArrayLike,
    *,
    of_interest: Hashable = 1,
    censored: Hashable = 0,
    strata: ArrayLike | None = None,
    rho: float = 0.0,
) -> GrayTest:
    """Gray's test that groups have one cumulative incidence of a cause.

    Args:
        time: (subjects,) time to event or censoring.
        cause: (subjects,) which event it is.
        group: (subjects,) labels of the groups.
        strata: (subjects,) labels over which scores are summed.
        of_interest: The cause.
        censored: The value of `cause` that is no event.
        rho: Differences are weighted by (1 - pooled incidence)^rho.

    Raises:
        ValueError: For data that make no sense, a cause that nobody has, or fewer than two groups.

    Source: Gray 1988, Ann Stat 16:1141, sections 2 and 3.
    """
    t, kind = _causes(time, cause, of_interest, censored)
    groups, code = as_codes("group", group, len(t))
    if len(groups) < 2:
        raise ValueError(f"group must be of two levels or more, got {groups!r}")
    if not 0 <= rho < np.inf:
        raise ValueError(f"rho must be 0 or more, got {rho!r}")
    levels, stratum = as_codes("strata", np.zeros(len(t)) if strata is None else strata, len(t))
    score, variance = np.zeros(len(groups)), np.zeros((len(groups), len(groups)))
    for s in range(len(levels)):
        here = stratum == s
        steps = np.unique(t[here & (kind > 0)])
        tables = [_table(t[here & (code == g)], kind[here & (code == g)], steps) for g in range(len(groups))]
        part = _gray_parts(tables, rho)
        score, variance = score + part[0], variance + part[1]
    test = ChiSquare.of_scores(score, variance)
    return GrayTest(groups, score, variance, test.chi_square, test.degrees_of_freedom, test.p_value)


def _gray_parts(tables: list[_Table], rho: float) -> tuple[Floats, Floats]:
    """Score and variance of one stratum; h, R, F and the integrals c are those of the paper, (groups, times)."""
    at_risk, own, before = (np.stack([getattr(each, name) for each in tables]) for name in ("at_risk", "own", "before"))
    incidence = np.stack([np.concatenate([[0.0], each.incidence])[:-1] for each in tables])
    h = np.divide(at_risk, before, out=np.zeros(before.shape), where=at_risk > 0)
    total = own.sum(axis=0)
    d_f = np.divide(total, h.sum(axis=0), out=np.zeros(len(total)), where=total > 0)
    f = np.cumsum(d_f)
    rest = 1 - np.concatenate([[0.0], f])[:-1]
    r = h * (1 - incidence)
    weight = rest**rho
    expected = np.divide(r, r.sum(axis=0), out=np.zeros(r.shape), where=r.sum(axis=0) > 0) * total
    score = ((own - expected) * weight).sum(axis=1)
    share = np.divide(h, h.sum(axis=0), out=np.zeros(h.shape), where=h.sum(axis=0) > 0)
    variance = np.zeros((len(tables), len(tables)))
    for i, table in enumerate(tables):
        direct = weight * (np.eye(len(tables))[i][:, None] - share) * h[i]
        rise = direct * np.divide(d_f, rest, out=np.zeros(len(rest)), where=rest > 0)
        later = np.cumsum(rise[:, ::-1], axis=1)[:, ::-1] - rise
        lost = np.divide(1 - f, table.after, out=np.zeros(len(f)), where=table.after > 0)
        inverse = np.divide(1.0, h[i], out=np.zeros(len(f)), where=h[i] > 0)
        size = h.sum(axis=0) * table.before
        tie = 1 - np.divide(total - 1, size - 1, out=np.zeros(len(f)), where=(total > 1) & (size > 1))
        of_cause, of_others = direct + (1 - lost) * later, lost * later
        others = np.where(table.after > 0, _tied(table.other, table.at_risk), 0.0)
        variance += (of_cause * (d_f * inverse * tie)) @ of_cause.T
        variance += (of_others * (others * inverse**2)) @ of_others.T
    return score, variance


def fine_gray_model(
    time: ArrayLike,
    cause: ArrayLike,
    covariates: ArrayLike,
    *,
    of_interest: Hashable = 1,
    censored: Hashable = 0,
    censoring_group: ArrayLike | None = None,
) -> FineGrayModel:
    """Fine and Gray's proportional subdistribution hazards model; ties by Breslow's method.

    Subjects who had another event stay at risk, weighted by their chance of not being censored since. The covariance
    is a sandwich that counts the estimation of the censoring law.

    Args:
        time: (subjects,) time to event or censoring.
        cause: (subjects,) which event it is.
        covariates: (subjects, covariates), or (subjects,) for one.
        of_interest: The cause.
        censored: The value of `cause` that is no event.
        censoring_group: (subjects,) labels of groups with censoring laws of their own.

    Raises:
        ValueError: For data that make no sense, a cause that nobody has, or data without a finite estimate.

    Source: Fine & Gray 1999, J Am Stat Assoc 94:496.
    """
    t, kind = _causes(time, cause, of_interest, censored)
    x = as_covariates(covariates, len(t))
    x = x - x.mean(axis=0)
    own_group = np.zeros(len(t)) if censoring_group is None else censoring_group
    code = as_codes("censoring_group", own_group, len(t))[1]
    steps, tied = np.unique(t[kind == 1], return_counts=True)
    weight = _subdistribution_weights(t, kind, code, steps)
    own = x[kind == 1]
    beta = np.zeros(x.shape[1])
    state = _subdistribution_state(x, beta, weight, tied, own)
    null = state[0]
    for _ in range(50):
        step = np.linalg.solve(state[2], state[1])
        following = _subdistribution_state(x, beta + step, weight, tied, own)
        while following[0] < state[0] - 1e-10 * abs(state[0]):
            step = step / 2
            following = _subdistribution_state(x, beta + step, weight, tied, own)
        beta, state = beta + step, following
        if np.abs(step).max() < 1e-9 * (1 + np.abs(beta).max()):
            break
    else:
        raise ValueError(f"covariates must leave a finite maximum of the likelihood, got coefficients {beta!r}")
    naive: Floats = np.linalg.inv(state[2]).astype(np.float64)
    influence = _influence(x, beta, weight, (t, kind, code), (steps, tied))
    return FineGrayModel(beta, naive @ influence.T @ influence @ naive, naive, null, state[0])


def _subdistribution_weights(t: Floats, kind: Ints, code: Ints, steps: Floats) -> Floats:
    """Weight in the risk set of each event time, (steps, subjects): 1 while observed, then G(step-) / G(time-)."""
    weight = (t[None, :] >= steps[:, None]).astype(np.float64)
    for g in range(int(code.max()) + 1):
        here = code == g
        kept = kaplan_meier(t[here], kind[here] == 0)
        gone = np.flatnonzero(here & (kind == 2))
        before = kept.at(np.nextafter(steps, -np.inf))
        since = kept.at(np.nextafter(t[gone], -np.inf))
        fading = before[:, None] / since[None, :]
        weight[:, gone] = np.where(t[gone][None, :] >= steps[:, None], 1.0, fading)
    return weight


def _subdistribution_state(
    x: Floats, beta: Floats, weight: Floats, tied: Ints, own: Floats
) -> tuple[float, Floats, Floats]:
    """Log-likelihood, score and information; `own` are the covariates of the events of the cause."""
    risk = np.exp(x @ beta)
    total = weight @ risk
    mean = weight @ (risk[:, None] * x) / total[:, None]
    square = (weight * (tied / total)[:, None]).sum(axis=0) * risk
    information = (x * square[:, None]).T @ x - (mean * tied[:, None]).T @ mean
    likelihood = float((own @ beta).sum() - tied @ np.log(total))
    return likelihood, own.sum(axis=0) - tied @ mean, information


def _influence(
    x: Floats, beta: Floats, weight: Floats, seen: tuple[Floats, Ints, Ints], events: tuple[Floats, Ints]
) -> Floats:
    """Each subject's part of the score, (subjects, covariates): eta + psi of Fine & Gray, section 4."""
    (t, kind, code), (steps, tied) = seen, events
    risk = np.exp(x @ beta)
    total = weight @ risk
    mean = weight @ (risk[:, None] * x) / total[:, None]
    hazard = tied / total
    place = np.searchsorted(steps, t)
    eta = np.where((kind == 1)[:, None], x - mean[np.minimum(place, len(steps) - 1)], 0.0)
    along = weight * hazard[:, None]
    eta = eta - risk[:, None] * (x * along.sum(axis=0)[:, None] - along.T @ mean)
    psi = np.zeros_like(eta)
    for g in range(int(code.max()) + 1):
        here = code == g
        at, count = np.unique(t[here & (kind == 0)], return_counts=True)
        if len(at):
            psi[here] = _censoring_part(x, risk, along, mean, (t, kind, here), (steps, at, count))
    return np.asarray(eta + psi)


def _censoring_part(
    x: Floats,
    risk: Floats,
    along: Floats,
    mean: Floats,
    seen: tuple[Floats, Ints, Bools],
    times: tuple[Floats, Floats, Ints],
) -> Floats:
    """What estimating the censoring law of one group adds: integrals of q / pi by the censoring martingales."""
    (t, kind, here), (steps, at, count) = seen, times
    gone = np.flatnonzero(here & (kind == 2))
    after = along[:, gone] * risk[gone] * (t[gone][None, :] < steps[:, None])
    later = np.cumsum(after[::-1], axis=0)[::-1]
    drift = np.cumsum((after[:, :, None] * mean[:, None, :])[::-1], axis=0)[::-1]
    edge = np.searchsorted(steps, at, side="left")
    pad = np.zeros((1, *later.shape[1:]))
    padded = np.concatenate([later, pad])[edge]
    drifted = np.concatenate([drift, np.zeros((1, *drift.shape[1:]))])[edge]
    is_gone = t[gone][None, :] < at[:, None]
    q = (is_gone * padded) @ x[gone] - (is_gone[:, :, None] * drifted).sum(axis=1)
    at_risk = (t[here][None, :] >= at[:, None]).sum(axis=1)
    share = q / at_risk[:, None]
    fall = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(share * (count / at_risk)[:, None], axis=0)])
    until = np.searchsorted(at, t[here], side="right")
    own = np.where((kind[here] == 0)[:, None], share[np.maximum(until - 1, 0)], 0.0)
    return np.asarray(own - fall[until])
