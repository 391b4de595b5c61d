"""Negative binomial models of many trials at once, (trials, patients): theta with the coefficients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from medtwin.trials.analysis.batched.arms import Arms
from medtwin.trials.analysis.batched.glm import BatchedModels, count_data, fit_models
from medtwin.trials.analysis.follow_up import Floats, Ints

_MOST_ROUNDS, _MOST_THETA = 200, 1e7


def negative_binomial_models(
    counts: ArrayLike,
    experimental: ArrayLike,
    time: ArrayLike,
    covariates: ArrayLike | None = None,
    *,
    observed: ArrayLike | None = None,
) -> BatchedModels:
    """Negative binomial regressions of counts on arm and covariates in every trial.

    Standard errors take theta as known, as those of `negative_binomial_model`. A trial whose counts vary no more than
    Poisson's has the theta inf and Poisson's fit, which is the limit of the likelihood.

    Args:
        counts: (trials, patients) events of each patient.
        experimental: (trials, patients) or (patients,): 1 experimental, 0 control.
        time: (trials, patients) at risk.
        covariates: (trials, patients, covariates), or (trials, patients) for one; None: the arm alone.
        observed: (trials, patients) or (patients,) who is analysed; None: everybody.

    Raises:
        ValueError: As of `poisson_models`.

    Source: Lawless 1987, Can J Stat 15:209.
    """
    arms, y, x, offset = count_data(counts, experimental, time, covariates, observed)
    fit = fit_models("log", arms, y, x, offset)
    above = _counts_above(y)
    theta = _moment_theta(fit)
    active = np.flatnonzero(np.isfinite(theta) & fit.converged)
    found = (theta.copy(), fit.coefficients.copy(), fit.bread.copy(), fit.converged.copy())
    for _ in range(_MOST_ROUNDS):
        if not len(active):
            break
        part = fit_models(
            "log", _some(fit, active), y[active], x[active], offset[active], found[0][active], found[1][active]
        )
        best = _best_theta(part, above[active])
        change = np.abs(best - found[0][active])
        for into, values in zip(found, (best, part.coefficients, part.bread, part.converged), strict=True):
            into[active] = values
        going = (change > 1e-11 * best) & np.isfinite(best) & part.converged
        without_end = active[~np.isfinite(best)]
        for into, values in zip(found[1:], (fit.coefficients, fit.bread, fit.converged), strict=True):
            into[without_end] = values[without_end]
        active = active[going]
    found[3][active] = False
    return replace(fit, theta=found[0], coefficients=found[1], bread=found[2], converged=found[3])


def _some(fit: BatchedModels, rows: Ints) -> Arms:
    arms = fit.arms
    return replace(
        arms,
        experimental=arms.experimental[rows],
        control=arms.control[rows],
        num_experimental=arms.num_experimental[rows],
        num_control=arms.num_control[rows],
    )


def _moment_theta(fit: BatchedModels) -> Floats:
    """Thetas to start from; inf where counts spread less than Poisson's."""
    here, mu = fit.arms.observed, fit.fitted
    spread = (((fit.response / mu - 1) ** 2 - 1 / mu) * here).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, fit.arms.total / spread, 50.0)


def _counts_above(y: Floats) -> Floats:
    """Patients with more than 0, 1, 2, ... events, (trials, most events)."""
    most = int(y.max())
    return np.stack([(y > j).sum(axis=1) for j in range(max(most, 1))], axis=1).astype(np.float64)


def _best_theta(fit: BatchedModels, above: Floats) -> Floats:
    """Newton's steps for the logarithm of theta at known means; inf where the likelihood rises without end.

    The digamma and trigamma functions of theta + count less those of theta are sums over the counts below it.
    """
    here, mu, y = fit.arms.observed, fit.fitted, fit.response
    theta, j = fit.theta.copy(), np.arange(above.shape[1])
    for _ in range(30):
        th = theta[:, None]
        rest = np.log1p(mu / th) - 1 + (y + th) / (mu + th)
        score = (above / (th + j)).sum(axis=1) - (rest * here).sum(axis=1)
        bend = -1 / th + 2 / (mu + th) - (y + th) / (mu + th) ** 2
        information = (above / (th + j) ** 2).sum(axis=1) + (bend * here).sum(axis=1)
        curvature = theta**2 * information - theta * score
        plain = theta**2 * np.abs(information) + np.abs(theta * score) + 1e-300
        step = theta * score / np.where(curvature > 0, curvature, plain)
        theta = theta * np.exp(np.clip(step, -1.0, 1.0))
        if (np.abs(step) < 1e-13).all() or (theta > _MOST_THETA).all():
            break
        theta = np.minimum(theta, 10 * _MOST_THETA)
    return np.where(theta > _MOST_THETA, np.inf, theta)
