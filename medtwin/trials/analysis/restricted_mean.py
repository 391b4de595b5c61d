"""Restricted mean survival time: of one group, of two arms compared, and adjusted for covariates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from medtwin.trials.analysis.follow_up import Bools, Floats, as_covariates, as_flags, as_level, follow_up
from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.analysis.results import Comparison, wald_limits

Contrast = Literal["difference", "ratio", "loss_ratio"]


@dataclass(frozen=True)
class RestrictedMean:
    """Mean time to the event within [0, tau] of one group.

    Attributes:
        estimate: The area under the survival curve until tau. standard_error: Its own.
        low, high: Its limits. level: Of the limits. tau: The horizon.
    """

    estimate: float
    standard_error: float
    low: float
    high: float
    level: float
    tau: float

    @property
    def time_lost(self) -> float:
        """Mean time lost to the event within [0, tau]; its standard error is that of the estimate."""
        return self.tau - self.estimate


@dataclass(frozen=True)
class RestrictedMeanComparison:
    """Restricted means of two arms, and their contrasts; z > 0 favours the experimental arm.

    Attributes:
        experimental, control: Of each arm. difference, ratio: Of the means. loss_ratio: Of the times lost.
    """

    experimental: RestrictedMean
    control: RestrictedMean
    difference: Comparison
    ratio: Comparison
    loss_ratio: Comparison


@dataclass(frozen=True)
class RestrictedMeanRegression:
    """A regression of the time to the event within [0, tau]; arrays are (1 + 1 + covariates,).

    Attributes:
        coefficients: Of the intercept, the experimental arm, and the covariates; logarithms for the ratios.
        covariance: Theirs, robust. level: Of the limits. contrast: What the coefficients are of.
        comparison: Of the arms, at equal covariates; z > 0 favours the experimental arm.
    """

    coefficients: Floats
    covariance: Floats
    level: float
    contrast: Contrast
    comparison: Comparison

    @property
    def standard_errors(self) -> Floats:
        """Of the coefficients."""
        return np.sqrt(np.diag(self.covariance))


def restricted_mean(
    time: ArrayLike, event: ArrayLike, tau: float, *, level: float = 0.95, extend: bool = False
) -> RestrictedMean:
    """The restricted mean survival time of one group.

    Args:
        time: (subjects,) time to event or censoring.
        event: (subjects,) whether it is an event.
        tau: The horizon.
        level: Of the limits.
        extend: Whether the curve keeps its last value until a horizon that is past the last subject's time.

    Raises:
        ValueError: For data that make no sense, or a horizon that is not above 0, or past the last subject's time
            unless that was an event or the curve is extended.

    Source: Irwin 1949; variance as in Klein & Moeschberger 2003, equation 4.5.2.

    >>> restricted_mean([1, 2, 3, 4], [1, 1, 1, 1], 3).estimate
    2.25
    """
    seen = follow_up(time, event)
    as_level("level", level)
    last = seen.time.max(initial=0.0)
    is_closed = last > 0 and seen.event[seen.time == last].all()
    if not (0 < tau < math.inf and (tau <= last or is_closed or extend)):
        raise ValueError(f"tau must be above 0 and within the observation, which ends at {last!r}, got {tau!r}")
    curve = kaplan_meier(seen.time, seen.event)
    inside = curve.time < tau
    steps, d, n = curve.time[inside], curve.events[inside], curve.at_risk[inside]
    widths = np.diff(np.concatenate([steps, [tau]]))
    rest = np.cumsum((widths * curve.survival[inside])[::-1])[::-1]
    first = float(steps[0]) if len(steps) else float(tau)
    estimate = first + float(rest[0] if len(steps) else 0.0)
    term = np.divide(d, n * (n - d), out=np.zeros(len(d)), where=n > d)
    error = float(np.sqrt((rest**2 * term).sum()))
    low, high = wald_limits(estimate, error, level)
    return RestrictedMean(estimate, error, low, high, level, float(tau))


def _loss_ratio(log_ratio: float, error: float, level: float) -> Comparison:
    found = Comparison.of_ratio(log_ratio, error, level)
    return replace(found, z=-found.z)


_COMPARE: dict[Contrast, Callable[[float, float, float], Comparison]] = {
    "difference": Comparison.of_difference,
    "ratio": Comparison.of_ratio,
    "loss_ratio": _loss_ratio,
}


def compare_restricted_means(
    time: ArrayLike, event: ArrayLike, arm: ArrayLike, tau: float | None = None, *, level: float = 0.95
) -> RestrictedMeanComparison:
    """The restricted means of two arms, their difference and ratio, and the ratio of the times lost.

    Args:
        time: (subjects,) time to event or censoring.
        event: (subjects,) whether it is an event.
        arm: (subjects,) 1 experimental, 0 control.
        tau: The horizon; the earlier of the last times of both arms by default.
        level: Of the limits.

    Raises:
        ValueError: As `restricted_mean`; or an arm without subjects.

    Source: Uno et al. 2014; ratios by the delta method on the logarithm.
    """
    t, d = np.asarray(time, dtype=np.float64), np.asarray(event)
    here = as_flags("arm", arm, len(t))
    if not here.any() or here.all():
        raise ValueError(f"arm must have subjects of both arms, got {arm!r}")
    tau = min(float(t[here].max()), float(t[~here].max())) if tau is None else tau
    one, zero = (restricted_mean(t[side], d[side], tau, level=level) for side in (here, ~here))
    error = math.hypot(one.standard_error, zero.standard_error)
    of_means = math.hypot(one.standard_error / one.estimate, zero.standard_error / zero.estimate)
    of_losses = math.hypot(one.standard_error / one.time_lost, zero.standard_error / zero.time_lost)
    return RestrictedMeanComparison(
        one,
        zero,
        Comparison.of_difference(one.estimate - zero.estimate, error, level),
        Comparison.of_ratio(math.log(one.estimate / zero.estimate), of_means, level),
        _loss_ratio(math.log(one.time_lost / zero.time_lost), of_losses, level),
    )


def adjusted_restricted_mean(
    time: ArrayLike,
    event: ArrayLike,
    arm: ArrayLike,
    covariates: ArrayLike,
    tau: float,
    *,
    contrast: Contrast = "difference",
    level: float = 0.95,
) -> RestrictedMeanRegression:
    """A regression of the time within [0, tau] on arm and covariates, weighted by the inverse chance of being seen.

    The chance of not being censored is Kaplan and Meier's within each arm; the covariance counts its estimation.

    Args:
        time: (subjects,) time to event or censoring.
        event: (subjects,) whether it is an event.
        arm: (subjects,) 1 experimental, 0 control.
        covariates: (subjects, covariates).
        tau: The horizon.
        contrast: Of mean times with identity link, or of mean times or times lost with log link.
        level: Of the limits.

    Raises:
        ValueError: For data that make no sense, a horizon that is not above 0, a contrast that is not known, or a
            regression that does not converge.

    Source: Tian, Zhao & Wei 2014, Biostatistics 15:222.
    """
    if contrast not in get_args(Contrast):
        raise ValueError(f"contrast must be one of {get_args(Contrast)}, got {contrast!r}")
    if not 0 < tau < math.inf:
        raise ValueError(f"tau must be above 0, got {tau!r}")
    as_level("level", level)
    seen = follow_up(time, event)
    is_experimental = as_flags("arm", arm, len(seen))
    z = as_covariates(np.column_stack([is_experimental, np.asarray(covariates, dtype=np.float64)]), len(seen))
    x = np.column_stack([np.ones(len(seen)), z])
    y = np.minimum(seen.time, tau)
    is_seen = seen.event | (seen.time >= tau)
    weight = np.zeros(len(y))
    for here in (is_experimental, ~is_experimental):
        kept = kaplan_meier(y[here], ~is_seen[here]).at(y[here])
        weight[here] = is_seen[here] / np.where(kept > 0, kept, 1.0)
    response = tau - y if contrast == "loss_ratio" else y
    beta, mean, slope = _fit(x, response, weight, is_log=contrast != "difference")
    score = x * (weight * (response - mean))[:, None]
    for here in (is_experimental, ~is_experimental):
        score[here] += _censoring_terms(y[here], ~is_seen[here], score[here])
    bread = np.linalg.inv((x * slope[:, None]).T @ x)
    covariance = bread @ score.T @ score @ bread
    error = float(np.sqrt(covariance[1, 1]))
    compare = {"difference": Comparison.of_difference, "ratio": Comparison.of_ratio, "loss_ratio": _loss_ratio}[
        contrast
    ]
    return RestrictedMeanRegression(beta, covariance, level, contrast, compare(float(beta[1]), error, level))


def _fit(x: Floats, y: Floats, weight: Floats, *, is_log: bool) -> tuple[Floats, Floats, Floats]:
    """Solves sum weight x (y - mean) = 0; gives the coefficients, the means and their slopes in the predictor."""
    if not is_log:
        root = np.sqrt(weight)
        beta: Floats = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0].astype(np.float64)
        return beta, x @ beta, np.ones(len(y))
    beta = np.zeros(x.shape[1])
    beta[0] = math.log((weight @ y) / weight.sum())
    for _ in range(50):
        mean = np.exp(x @ beta)
        step = np.linalg.solve((x * (weight * mean)[:, None]).T @ x, x.T @ (weight * (y - mean)))
        beta = (beta + step).astype(np.float64)
        if np.abs(step).max() < 1e-10:
            mean = np.exp(x @ beta)
            return beta, mean, mean
    raise ValueError(f"covariates must allow a log-linear fit, got no convergence after {50!r} steps")


def _censoring_terms(y: Floats, is_censored: Bools, score: Floats) -> Floats:
    """What estimating the censoring law of one arm adds to each subject's score: integrals of its martingale."""
    steps, count = np.unique(y[is_censored], return_counts=True)
    if not len(steps):
        return np.zeros_like(score)
    at_risk = (y[None, :] >= steps[:, None]).sum(axis=1)
    later = (y[None, :] >= steps[:, None]).astype(np.float64) @ score / at_risk[:, None]
    drift = np.cumsum(later * (count / at_risk)[:, None], axis=0)
    until = np.searchsorted(steps, y, side="right")
    own = np.where(is_censored[:, None], later[np.maximum(until - 1, 0)], 0.0)
    return np.asarray(own - np.concatenate([np.zeros((1, score.shape[1])), drift])[until])
