"""Cox regression of several covariates, ties by Efron's method, for one group of subjects.

The trials' own kernel (`medtwin.trials.analysis.survival_batch`) estimates one arm's effect in many trials at once;
this one estimates many covariates' effects once. The two agree in a test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_MAX_STEPS = 40


@dataclass(frozen=True)
class CoxFit:
    """Log hazard ratios.

    Attributes:
        beta: (covariates,) log hazard ratio per unit; nan where the likelihood has no maximum.
        standard_error: (covariates,) from the information at the maximum.
        log_likelihood: Partial, at the maximum.
        num_events: How many.
    """

    beta: Floats
    standard_error: Floats
    log_likelihood: float
    num_events: int


def fit_cox(time: Floats, event: Bools, covariates: Floats, *, start: Floats | None = None) -> CoxFit:
    """The maximum of the partial likelihood, by Newton's method with halved steps.

    Args:
        time: (subjects,) time to the event or to the end of observation.
        event: (subjects,) whether it is the event.
        covariates: (subjects, covariates), without missing values; columns should be of order 1.
        start: (covariates,) where to begin; None: 0.

    Source: Cox 1972, J R Stat Soc B 34:187; Efron 1977, J Am Stat Assoc 72:557.
    """
    sets = _RiskSets(time, event, covariates)
    size = covariates.shape[1]
    nothing = np.full(size, np.nan)
    if not sets.num_events or not size:
        return CoxFit(nothing, nothing, float("nan"), sets.num_events)
    beta = np.zeros(size) if start is None or not np.isfinite(start).all() else np.array(start, np.float64)
    value, gradient, information = sets.likelihood(beta)
    for _ in range(_MAX_STEPS):
        if np.linalg.cond(information) > 1e12:
            break
        step = np.linalg.solve(information, gradient)
        if np.abs(step).max() < 1e-6:  # Newton's step squares the error: what is left is of order 1e-12
            error = np.sqrt(np.diag(np.linalg.inv(information)))
            return CoxFit(beta + step, error, value, sets.num_events)
        step *= min(1.0, 5.0 / np.abs(step).max())
        for _halving in range(30):
            following = sets.likelihood(beta + step)
            if following[0] >= value - 1e-10 * abs(value):
                break
            step = step / 2
        beta = beta + step
        value, gradient, information = following
        if np.abs(beta).max() > 20:  # a hazard ratio of 5e8: there is no maximum
            break
    return CoxFit(nothing, nothing, float("nan"), sets.num_events)


class _RiskSets:
    """Subjects from the longest time to the shortest, so that who is at risk is a running sum."""

    def __init__(self, time: Floats, event: Bools, covariates: Floats) -> None:
        order = np.argsort(-time, kind="stable")
        t = time[order]
        self._x = covariates[order]
        size = covariates.shape[1]
        self._upper = np.triu_indices(size)
        products = self._x[:, self._upper[0]] * self._x[:, self._upper[1]]
        self._terms = np.hstack([np.ones((len(t), 1)), self._x, products])
        rows = np.flatnonzero(event[order])
        self._events, self.num_events = rows, len(rows)
        if not len(rows):
            return
        # One risk set per distinct event time: it ends after the last subject of that time.
        times, self._tie, count = np.unique(-t[rows], return_inverse=True, return_counts=True)
        ends = np.searchsorted(-t, times, side="right")
        self._parts, self._num_at_risk = np.r_[0, ends[:-1]], int(ends[-1])
        self._starts = np.cumsum(count) - count
        rank = np.arange(len(rows)) - self._starts[self._tie]
        self._share = (rank / count[self._tie])[:, None]

    def likelihood(self, beta: Floats) -> tuple[float, Floats, Floats]:
        """Log partial likelihood, its gradient (covariates,) and the information (covariates, covariates)."""
        rows, size = self._events, len(beta)
        eta = np.clip(self._x @ beta, -500, 500)
        terms = self._terms * np.exp(eta)[:, None]
        at_risk = np.cumsum(np.add.reduceat(terms[: self._num_at_risk], self._parts, axis=0), axis=0)
        tied = np.add.reduceat(terms[rows], self._starts, axis=0)
        sums = at_risk[self._tie] - self._share * tied[self._tie]
        moments = sums[:, 1:] / sums[:, :1]
        mean = moments[:, :size]
        value = float(eta[rows].sum() - np.log(sums[:, 0]).sum())
        gradient = self._x[rows].sum(axis=0) - mean.sum(axis=0)
        information = np.zeros((size, size))
        information[self._upper] = moments[:, size:].sum(axis=0)
        information += np.triu(information, 1).T
        return value, gradient, information - mean.T @ mean
