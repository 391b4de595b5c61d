"""Cox regression of one trial: late entry and recurrent events, strata, ties, clusters; proportionality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata

from medtwin.trials.analysis.follow_up import (
    Floats,
    FollowUp,
    Ints,
    as_codes,
    as_covariates,
    follow_up,
)
from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.analysis.results import ChiSquare, wald_limits

Ties = Literal["efron", "breslow"]
TimeScale = Literal["km", "rank", "identity", "log"]


@dataclass(frozen=True)
class HazardModel:
    """A fitted model of proportional hazards.

    Attributes:
        coefficients: (covariates,) log hazard ratios.
        covariance: (covariates, covariates).
        naive_covariance: The inverse information.
        null_log_likelihood, log_likelihood: Partial, without covariates and at the estimate.
    """

    coefficients: Floats
    covariance: Floats
    naive_covariance: Floats
    null_log_likelihood: float
    log_likelihood: float

    @property
    def hazard_ratios(self) -> Floats:
        """exp(coefficients), (covariates,)."""
        return np.exp(self.coefficients)

    @property
    def standard_errors(self) -> Floats:
        """Of the coefficients, (covariates,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def z(self) -> Floats:
        """Of each coefficient, (covariates,)."""
        return np.asarray(self.coefficients / self.standard_errors)

    @property
    def p_values(self) -> Floats:
        """Two-sided, (covariates,)."""
        return np.asarray(2 * norm.sf(np.abs(self.z)))

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Wald limits of the hazard ratios, (covariates,) each.

        Raises:
            ValueError: If the level does not lie between 0 and 1.
        """
        low, high = wald_limits(self.coefficients, self.standard_errors, level)
        return np.exp(low), np.exp(high)


@dataclass(frozen=True)
class CoxModel(HazardModel):
    """A fitted Cox model; z < 0 of the arm's coefficient favours the experimental arm, as its hazard ratio is below 1.

    Attributes:
        covariance: (covariates, covariates), robust where there are clusters.
        score_test, wald_test, likelihood_ratio_test: That all coefficients are 0; only Wald's is robust.
        risk_score: (rows,) linear predictor less its mean. residuals: (rows, covariates) score residuals.
        num_rows, num_events: What was fitted.
    """

    score_test: ChiSquare
    wald_test: ChiSquare
    likelihood_ratio_test: ChiSquare
    risk_score: Floats
    residuals: Floats
    num_rows: int
    num_events: int


@dataclass(frozen=True)
class _Sums:
    """Which rows enter the sums over each risk set, in one order by time and one by entry, strata apart.

    A row of the sums is one event; ties have one risk set. Position q of a cumulative sum is that of the first q rows.
    """

    by_time: Ints
    by_entry: Ints
    first: Ints
    entered: Ints
    step: Ints
    events: Ints
    share: Floats
    tied: Ints
    until: Ints
    since: Ints


def _sums(seen: FollowUp, stratum: Ints, ties: Ties) -> _Sums:
    """The order of the rows. Times of all strata lie on one axis: (stratum, time) is ranked as a pair."""
    pairs = np.concatenate([seen.time, seen.entry])
    strata = np.concatenate([stratum, stratum])
    order = np.lexsort((pairs, strata))
    is_later = pairs[order][1:] > pairs[order][:-1]
    is_new = np.concatenate([[False], is_later | (np.diff(strata[order]) > 0)])
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.cumsum(is_new)
    time, entry = place[: len(seen)], place[len(seen) :]
    events = np.flatnonzero(seen.event)
    events = events[np.argsort(time[events], kind="stable")]
    steps, step, count = np.unique(time[events], return_inverse=True, return_counts=True)
    rank = np.arange(len(events)) - np.searchsorted(time[events], time[events], side="left")
    share = rank / count[step] if ties == "efron" else np.zeros(len(events))
    by_time, by_entry = np.argsort(time, kind="stable"), np.argsort(entry, kind="stable")
    return _Sums(
        by_time=by_time,
        by_entry=by_entry,
        first=np.searchsorted(time[by_time], steps, side="left"),
        entered=np.searchsorted(entry[by_entry], steps, side="left"),
        step=step,
        events=events,
        share=share,
        tied=np.searchsorted(time[events], time, side="left"),
        until=np.searchsorted(time[events], time, side="right"),
        since=np.searchsorted(time[events], entry, side="right"),
    )


def _risk_set_sums(values: Floats, sums: _Sums) -> Floats:
    """Sums of values over the risk set of each event, less the share of tied events: those that entered and not left.

    Entered before a time: all of earlier strata and those of this one. Left before: the same, so earlier strata cancel.
    """
    zero = np.zeros((1, *values.shape[1:]))
    entered = np.concatenate([zero, np.cumsum(values[sums.by_entry], axis=0)])[sums.entered]
    left = np.concatenate([zero, np.cumsum(values[sums.by_time], axis=0)])[sums.first]
    at_risk = entered - left
    tied = np.zeros_like(at_risk)
    np.add.at(tied, sums.step, values[sums.events])
    share = sums.share.reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(at_risk[sums.step] - share * tied[sums.step])


@dataclass(frozen=True)
class _State:
    log_likelihood: float
    score: Floats
    information: Floats
    risk: Floats
    total: Floats
    mean: Floats


def _state(x: Floats, beta: Floats, sums: _Sums) -> _State:
    """Partial log-likelihood, score and information at given coefficients."""
    eta = x @ beta
    shift = eta.max(initial=0.0)
    risk = np.exp(eta - shift)
    products = risk[:, None, None] * x[:, :, None] * x[:, None, :]
    total = _risk_set_sums(risk, sums)
    mean = _risk_set_sums(risk[:, None] * x, sums) / total[:, None]
    square = _risk_set_sums(products, sums) / total[:, None, None]
    information = square.sum(axis=0) - mean.T @ mean
    likelihood = float((eta[sums.events] - shift - np.log(total)).sum())
    return _State(likelihood, (x[sums.events] - mean).sum(axis=0), information, risk, total, mean)


def cox_model(
    time: ArrayLike,
    event: ArrayLike,
    covariates: ArrayLike,
    *,
    entry: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    ties: Ties = "efron",
) -> CoxModel:
    """Fits a Cox model by Newton's method.

    Recurrent events have a row for each interval (entry, time]: with all in one risk set this is Andersen and Gill's
    model, with the number of the event as stratum Prentice, Williams and Peterson's; `cluster` is then the subject.

    Args:
        time: (rows,) end of the interval.
        event: (rows,) whether an event ends it.
        covariates: (rows, covariates), or (rows,) for one.
        entry: (rows,) start of the interval where it is late.
        strata: (rows,) labels of strata, each with its own baseline hazard.
        cluster: (rows,) labels within which rows may depend on each other; makes the covariance robust.
        ties: Of events at one time.

    Raises:
        ValueError: For data that make no sense, or that have no finite estimate.

    Source: Cox 1972; Efron 1977; Breslow 1974; Andersen & Gill 1982; Prentice et al. 1981; robust covariance of Lin &
    Wei 1989.
    """
    if ties not in get_args(Ties):
        raise ValueError(f"ties must be one of {get_args(Ties)}, got {ties!r}")
    seen = follow_up(time, event, entry)
    x = as_covariates(covariates, len(seen))
    if not seen.event.any():
        raise ValueError(f"event must be true of somebody, got {event!r}")
    stratum = as_codes("strata", np.zeros(len(seen)) if strata is None else strata, len(seen))[1]
    sums = _sums(seen, stratum, ties)
    unit = x.std(axis=0)
    x = (x - x.mean(axis=0)) / unit
    null = _state(x, np.zeros(x.shape[1]), sums)
    beta, final = _newton(x, null, sums)
    naive: Floats = np.linalg.inv(final.information).astype(np.float64)
    residuals = _score_residuals(x, seen, final, sums)
    covariance = naive
    if cluster is not None:
        levels, code = as_codes("cluster", cluster, len(seen))
        influence = np.zeros((len(levels), x.shape[1]))
        np.add.at(influence, code, residuals @ naive)
        covariance = np.asarray(influence.T @ influence)
    return CoxModel(
        coefficients=beta / unit,
        covariance=covariance / np.outer(unit, unit),
        naive_covariance=naive / np.outer(unit, unit),
        null_log_likelihood=null.log_likelihood,
        log_likelihood=final.log_likelihood,
        score_test=ChiSquare.of(float(null.score @ np.linalg.solve(null.information, null.score)), len(beta)),
        wald_test=ChiSquare.of(float(beta @ np.linalg.solve(covariance, beta)), len(beta)),
        likelihood_ratio_test=ChiSquare.of(2 * (final.log_likelihood - null.log_likelihood), len(beta)),
        risk_score=x @ beta,
        residuals=residuals * unit,
        num_rows=len(seen),
        num_events=int(seen.event.sum()),
    )


@dataclass(frozen=True)
class ProportionalityTest:
    """Whether coefficients of a Cox model change with time.

    Attributes:
        tests: That of each term, all other coefficients free but constant. overall: That of all terms together.
    """

    tests: tuple[ChiSquare, ...]
    overall: ChiSquare


def proportional_hazards_test(
    time: ArrayLike,
    event: ArrayLike,
    covariates: ArrayLike,
    *,
    entry: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    scale: TimeScale = "km",
    terms: Sequence[Sequence[int]] | None = None,
) -> ProportionalityTest:
    """Score tests of proportional hazards: of g(time) times each covariate, added to the fitted model; ties by Efron.

    Args:
        time: (rows,) end of the interval.
        event: (rows,) whether an event ends it.
        covariates: (rows, covariates), or (rows,) for one.
        entry: (rows,) start of the interval where it is late.
        strata: (rows,) labels of strata.
        scale: g: 1 less the pooled Kaplan-Meier curve just before the event; the rank of the time among all; the time;
            its log.
        terms: Columns of each term that is tested as one, such as the levels of a factor; None: each alone.

    Raises:
        ValueError: For data that make no sense, that have no finite estimate, or a scale that is not known.

    Source: Grambsch & Therneau 1994, Biometrika 81:515, with the score test's own variance; Therneau & Grambsch 2000,
    Modeling Survival Data, section 6.2.
    """
    if scale not in get_args(TimeScale):
        raise ValueError(f"scale must be one of {get_args(TimeScale)}, got {scale!r}")
    fit = cox_model(time, event, covariates, entry=entry, strata=strata)
    seen = follow_up(time, event, entry)
    x = as_covariates(covariates, len(seen))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    stratum = as_codes("strata", np.zeros(len(seen)) if strata is None else strata, len(seen))[1]
    sums = _sums(seen, stratum, "efron")
    risk = np.exp(fit.risk_score - fit.risk_score.max())
    total = _risk_set_sums(risk, sums)
    mean = _risk_set_sums(risk[:, None] * x, sums) / total[:, None]
    products = risk[:, None, None] * x[:, :, None] * x[:, None, :]
    spread = _risk_set_sums(products, sums) / total[:, None, None] - mean[:, :, None] * mean[:, None, :]
    g = _on_scale(seen, sums.events, scale)
    g = g - g.mean()
    score = g @ (x[sums.events] - mean)
    information, cross, square = (np.tensordot(power, spread, axes=1) for power in (np.ones(len(g)), g, g**2))
    variance = square - cross @ np.linalg.solve(information, cross)
    columns = [[j] for j in range(len(score))] if terms is None else [list(term) for term in terms]
    tests = []
    for own in [*columns, list(range(len(score)))]:
        part = np.ix_(own, own)
        tests.append(ChiSquare.of(float(score[own] @ np.linalg.solve(variance[part], score[own])), len(own)))
    return ProportionalityTest(tuple(tests[:-1]), tests[-1])


def _on_scale(seen: FollowUp, events: Ints, scale: TimeScale) -> Floats:
    """The function g of the time of each event, (events,)."""
    times = seen.time[events]
    if scale == "km":
        curve = kaplan_meier(seen.time, seen.event, entry=seen.entry)
        return np.asarray(1.0 - curve.at(np.nextafter(times, -np.inf)))
    if scale == "rank":
        return np.asarray(rankdata(seen.time)[events], dtype=np.float64)
    return np.asarray(np.log(times) if scale == "log" else times)


def _newton(x: Floats, start: _State, sums: _Sums) -> tuple[Floats, _State]:
    """The maximum of the partial likelihood; a step that lowers it is halved."""
    beta, state = np.zeros(x.shape[1]), start
    for _ in range(50):
        if np.linalg.eigvalsh(state.information)[0] < 1e-13 * len(sums.events):
            break
        step = np.linalg.solve(state.information, state.score)
        following = _state(x, beta + step, sums)
        while following.log_likelihood < state.log_likelihood - 1e-9 * abs(state.log_likelihood):
            step = step / 2
            following = _state(x, beta + step, sums)
        gain = following.log_likelihood - state.log_likelihood
        beta, state = beta + step, following
        if abs(gain) < 1e-12 * max(abs(state.log_likelihood), 1.0) and np.abs(step).max() < 1e-9 * (
            1 + np.abs(beta).max()
        ):
            return beta, state
    raise ValueError(f"covariates must leave a finite maximum of the partial likelihood, got coefficients {beta!r}")


def _score_residuals(x: Floats, seen: FollowUp, state: _State, sums: _Sums) -> Floats:
    """Each row's part of the score, (rows, covariates): its own events less its compensator, ties by their shares."""
    hazard = 1 / state.total
    drift = state.mean * hazard[:, None]

    def between(values: Floats) -> Floats:
        """Sums of the events' values in (entry, time] of each row, its own tied events by their share."""
        zero = np.zeros((1, *values.shape[1:]))
        along = np.concatenate([zero, np.cumsum(values, axis=0)])
        spared = np.concatenate([zero, np.cumsum(values * sums.share.reshape(-1, *[1] * (values.ndim - 1)), axis=0)])
        own = spared[sums.until] - spared[sums.tied]
        own[~seen.event] = 0.0
        return np.asarray(along[sums.until] - along[sums.since] - own)

    counted = np.zeros_like(x)
    centre = np.zeros((int(sums.step.max()) + 1, x.shape[1]))
    np.add.at(centre, sums.step, state.mean)
    size = np.bincount(sums.step)
    counted[sums.events] = x[sums.events] - (centre / size[:, None])[sums.step]
    return np.asarray(counted - state.risk[:, None] * (x * between(hazard)[:, None] - between(drift)))
