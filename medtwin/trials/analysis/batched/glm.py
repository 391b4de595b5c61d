"""Logistic and log-linear models of many trials at once, (trials, patients), by Newton's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, xlog1py, xlogy

from medtwin.trials.analysis.batched.ancova import design_of, inverse_of_gram
from medtwin.trials.analysis.batched.arms import Arms, as_matrix, seen, two_arms
from medtwin.trials.analysis.batched.contrasts import Contrasts
from medtwin.trials.analysis.follow_up import Bools, Floats

LinkName = Literal["logit", "log"]
_MOST_STEPS, _TOLERANCE, _MOST_ETA = 50, 1e-9, 30.0
_SMALL_GAIN = 0.1  # of log-likelihood: a step that promises no more needs no check that it loses none


@dataclass(frozen=True)
class BatchedModels:
    """Fits of a model with constant, arm and covariates in every trial.

    Attributes:
        link: logit for binary responses, log for counts. theta: (trials,) of the negative binomial, else inf.
        arms: Who is analysed. response, offset: (trials, patients).
        x: (trials, columns, patients): constant, arm, covariates.
        coefficients: (trials, columns). bread: (trials, columns, columns), the inverse of Fisher's information; nan
            where a fit has no end, as with an arm in which all or nobody responds.
        converged: (trials,).
    """

    link: LinkName
    theta: Floats
    arms: Arms
    response: Floats
    offset: Floats
    x: Floats
    coefficients: Floats
    bread: Floats
    converged: Bools

    @property
    def fitted(self) -> Floats:
        """Means, (trials, patients); those of who is not analysed mean nothing."""
        return self.predict(self.x)

    def predict(self, x: Floats) -> Floats:
        """Means at another design, (trials, columns, patients)."""
        eta = np.matmul(self.coefficients[:, None], x)[:, 0] + self.offset
        return np.asarray(expit(eta) if self.link == "logit" else np.exp(np.clip(eta, -700, 700)))

    @property
    def arm_effect(self) -> Contrasts:
        """Wald's contrast of the arm: a logarithm of odds, or of rates, given the covariates."""
        return Contrasts.normal(self.coefficients[:, 1], np.sqrt(self.bread[:, 1, 1]))


def logistic_models(
    response: ArrayLike,
    experimental: ArrayLike,
    covariates: ArrayLike | None = None,
    *,
    observed: ArrayLike | None = None,
) -> BatchedModels:
    """Logistic regressions of a binary response on arm and covariates in every trial.

    Args:
        response: (trials, patients) 0 or 1.
        experimental: (trials, patients) or (patients,): 1 experimental, 0 control.
        covariates: (trials, patients, covariates), or (trials, patients) for one; None: the arm alone.
        observed: (trials, patients) or (patients,) who is analysed; None: everybody.

    Raises:
        ValueError: If shapes do not fit, responses are not 0 or 1, or columns of some trial depend on one another.

    Source: McCullagh & Nelder 1989, Generalized Linear Models, section 2.5.
    """
    y = as_matrix("response", response)
    arms = two_arms(y.shape, experimental, observed)
    y = seen("response", y, arms.observed)
    if not ((y == 0) | (y == 1)).all():
        raise ValueError("response must be 0 or 1 for patients who are analysed, got other values")
    x = design_of(arms, np.empty((*y.shape, 0)) if covariates is None else covariates)
    return fit_models("logit", arms, y, x)


def poisson_models(
    counts: ArrayLike,
    experimental: ArrayLike,
    time: ArrayLike,
    covariates: ArrayLike | None = None,
    *,
    observed: ArrayLike | None = None,
) -> BatchedModels:
    """Poisson regressions of counts on arm and covariates in every trial; the arm's effect is a log ratio of rates.

    Args:
        counts: (trials, patients) events of each patient.
        experimental: (trials, patients) or (patients,): 1 experimental, 0 control.
        time: (trials, patients) at risk.
        covariates: (trials, patients, covariates), or (trials, patients) for one; None: the arm alone.
        observed: (trials, patients) or (patients,) who is analysed; None: everybody.

    Raises:
        ValueError: If shapes do not fit, counts are no whole numbers, times not above 0, or columns depend on one
            another.
    """
    return fit_models("log", *count_data(counts, experimental, time, covariates, observed))


def count_data(
    counts: ArrayLike,
    experimental: ArrayLike,
    time: ArrayLike,
    covariates: ArrayLike | None,
    observed: ArrayLike | None,
) -> tuple[Arms, Floats, Floats, Floats]:
    """Arms, counts, design and offset of models of counts; see `poisson_models`."""
    y = as_matrix("counts", counts)
    arms = two_arms(y.shape, experimental, observed)
    here = arms.observed
    y, t = seen("counts", y, here), seen("time", time, here)
    if (y < 0).any() or (y != np.round(y)).any():
        raise ValueError("counts must be whole numbers from 0 on, got other values")
    if (t[here > 0] <= 0).any():
        raise ValueError("time must be above 0 for patients who are analysed, got other values")
    x = design_of(arms, np.empty((*y.shape, 0)) if covariates is None else covariates)
    return arms, y, x, np.log(np.where(here > 0, t, 1.0))


def fit_models(
    link: LinkName,
    arms: Arms,
    y: Floats,
    x: Floats,
    offset: Floats | None = None,
    theta: Floats | None = None,
    start: Floats | None = None,
) -> BatchedModels:
    """Fits by Fisher scoring with halved steps; a trial whose likelihood has no maximum inside is not converged.

    Args:
        link: Of the mean.
        arms: Who is analysed.
        y: (trials, patients) responses, 0 for who is not analysed.
        x: (trials, columns, patients), the same.
        offset: (trials, patients) added to x b; None: 0.
        theta: (trials,) of the negative binomial; None: infinite, Poisson's.
        start: (trials, columns) coefficients; None: those of the overall rate.
    """
    here, num = arms.observed, len(y)
    added = np.zeros_like(y) if offset is None else offset
    shape = np.full(num, np.inf) if theta is None else theta
    inverse_of_gram(np.matmul(x, x.transpose(0, 2, 1)))  # columns that depend on one another are refused there
    b = _start(link, y, here, added, x.shape[1]) if start is None else start.copy()
    done = np.zeros(num, dtype=bool)
    bread = np.full((num, x.shape[1], x.shape[1]), np.nan)
    active = np.arange(num)
    for _ in range(_MOST_STEPS):
        part = _Part(link, y[active], x[active], added[active], here[active], shape[active])
        step, inverse, at_maximum = part.step(b[active])
        bad = np.asarray(~np.isfinite(step).all(axis=1))
        end = np.asarray(at_maximum & ~bad)
        done[active[end]], bread[active[end]] = True, inverse[end]
        b[active] += np.where(bad[:, None], 0.0, step)
        active = active[~(end | bad)]
        if not len(active):
            break
    return BatchedModels(link, shape, arms, y, added, x, b, bread, done)


def _start(link: LinkName, y: Floats, here: Floats, offset: Floats, columns: int) -> Floats:
    events = y.sum(axis=1)
    b = np.zeros((len(y), columns))
    if link == "logit":
        share = (events + 0.5) / (here.sum(axis=1) + 1)
        b[:, 0] = np.log(share / (1 - share))
    else:
        b[:, 0] = np.log((events + 0.5) / (np.exp(offset) * here).sum(axis=1))
    return b


@dataclass(frozen=True)
class _Part:
    """The trials that are still being fitted."""

    link: LinkName
    y: Floats
    x: Floats
    offset: Floats
    here: Floats
    theta: Floats

    def step(self, b: Floats) -> tuple[Floats, Floats, Bools]:
        """The next step, the inverse of the information at b, and whether b is the maximum."""
        eta = np.matmul(b[:, None], self.x)[:, 0] + self.offset
        mu, weights, score = self._moments(eta)
        gram = np.matmul(self.x * weights[:, None], self.x.transpose(0, 2, 1))
        slope = np.matmul(self.x, score[:, :, None])
        inverse = np.full_like(gram, np.nan)
        usable = (np.abs(eta * self.here).max(axis=1) < _MOST_ETA) & np.isfinite(gram).all(axis=(1, 2))
        if usable.any():
            inverse[usable] = np.linalg.inv(gram[usable])
        step = np.matmul(inverse, slope)[:, :, 0]
        gain = np.einsum("tp,tp->t", step, slope[:, :, 0])
        end = gain < _TOLERANCE**2 * self.here.sum(axis=1)
        return self._halved(b, step, mu) if (gain > _SMALL_GAIN).any() else step, inverse, end

    def _moments(self, eta: Floats) -> tuple[Floats, Floats, Floats]:
        """Means, weights of Fisher's information, and derivatives of the log-likelihood by eta."""
        if self.link == "logit":
            mu = expit(eta)
            return mu, mu * (1 - mu) * self.here, (self.y - mu) * self.here
        mu = np.exp(np.clip(eta, -700, 700))
        spread = 1 + mu / self.theta[:, None]
        return mu, mu / spread * self.here, (self.y - mu) / spread * self.here

    def _halved(self, b: Floats, step: Floats, mu: Floats) -> Floats:
        """Steps that do not lose likelihood."""
        before = self._log_likelihood(mu)
        for _ in range(10):
            eta = np.matmul((b + step)[:, None], self.x)[:, 0] + self.offset
            worse = self._log_likelihood(self._moments(eta)[0]) < before - 1e-9 * np.abs(before)
            if not worse.any():
                break
            step = np.where(worse[:, None], step / 2, step)
        return step

    def _log_likelihood(self, mu: Floats) -> Floats:
        """Up to what does not depend on the means, (trials,)."""
        if self.link == "logit":
            return np.asarray(((xlogy(self.y, mu) + xlog1py(1 - self.y, -mu)) * self.here).sum(axis=1))
        th = self.theta[:, None]
        with np.errstate(invalid="ignore"):
            nb = xlogy(self.y, mu) - (self.y + th) * np.log1p(mu / th)
        return np.asarray((np.where(np.isinf(th), xlogy(self.y, mu) - mu, nb) * self.here).sum(axis=1))
