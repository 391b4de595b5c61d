"""Scores of predicted probabilities, for many bootstrap draws at once: discrimination and calibration.

Every function takes scores (rows,), labels (rows,) and weights (draws, rows), and gives (draws,); nan where a draw has
only one class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from medtwin.check.estimates import LEVEL

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Weights = NDArray[np.floating[Any]]
_DRAWS_AT_ONCE = 32
_SMALLEST = 1e-6
_MAX_STEPS = 50


def auroc(score: Floats, label: Bools, weights: Weights) -> Floats:
    """Area under the ROC curve, ties counted half.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]), np.ones((1, 4)))
    array([0.875])
    """
    return _by_ties(score, label, weights, _auroc)


def auprc(score: Floats, label: Bools, weights: Weights) -> Floats:
    """Average precision: precision at each threshold, weighted by the recall that it adds (as scikit-learn has it).

    >>> auprc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]), np.ones((1, 4))).round(4)
    array([0.8333])
    """
    return _by_ties(score, label, weights, _auprc)


def _by_ties(score: Floats, label: Bools, weights: Weights, of: Callable[[Floats, Floats], Floats]) -> Floats:
    """A function of the weights of positives and negatives at each distinct score, (draws, scores), ascending."""
    order = np.argsort(score, kind="stable")
    ordered, positive = score[order], label[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    out = np.full(len(weights), np.nan)
    for first in range(0, len(weights), _DRAWS_AT_ONCE):
        chosen = weights[first : first + _DRAWS_AT_ONCE][:, order].astype(np.float64)
        with_event = np.add.reduceat(chosen * positive, starts, axis=1)
        without = np.add.reduceat(chosen * ~positive, starts, axis=1)
        has_both = (with_event.sum(axis=1) > 0) & (without.sum(axis=1) > 0)
        part = out[first : first + _DRAWS_AT_ONCE]
        part[has_both] = of(with_event[has_both], without[has_both])
    return out


def _auroc(positive: Floats, negative: Floats) -> Floats:
    below = np.cumsum(negative, axis=1) - negative / 2
    area: Floats = (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
    return area


def _auprc(positive: Floats, negative: Floats) -> Floats:
    true = np.cumsum(positive[:, ::-1], axis=1)
    called = true + np.cumsum(negative[:, ::-1], axis=1)
    precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
    area: Floats = (precision * positive[:, ::-1]).sum(axis=1) / positive.sum(axis=1)
    return area


def calibration_slope(probability: Floats, label: Bools, weights: Weights) -> Floats:
    """Slope of the logistic regression of the label on the logit of the probability: 1 is calibrated, less too extreme.

    nan where there is no finite one, as for a constant probability.

    Source: Cox 1958, Biometrika 45:562; Van Calster et al. 2019, BMC Medicine 17:230.
    """
    logit = _logit(probability)
    design = np.stack([np.ones_like(logit), logit])
    slope: Floats = _logistic(design, np.zeros_like(logit), label, weights)[:, 1]
    return slope


def calibration_intercept(probability: Floats, label: Bools, weights: Weights) -> Floats:
    """Calibration in the large: what must be added to every logit to give as many events as there are; 0 is calibrated.

    Source: Cox 1958, Biometrika 45:562 (slope held at 1); Van Calster et al. 2019, BMC Medicine 17:230.
    """
    logit = _logit(probability)
    intercept: Floats = _logistic(np.ones((1, len(logit))), logit, label, weights)[:, 0]
    return intercept


def _logit(probability: Floats) -> Floats:
    bounded = np.clip(probability, _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(bounded / (1 - bounded)))


def _logistic(design: Floats, offset: Floats, label: Bools, weights: Weights) -> Floats:
    """Logistic regressions of a few columns, one per draw, by Newton's method: (draws, columns), nan if it diverges."""
    first = _newton(design, offset, label, weights[:1].astype(np.float64), np.zeros(len(design)))
    start = np.nan_to_num(first[0])
    parts = [
        _newton(design, offset, label, weights[row : row + _DRAWS_AT_ONCE].astype(np.float64), start)
        for row in range(1, len(weights), _DRAWS_AT_ONCE)
    ]
    return np.concatenate([first, *parts])


def _newton(design: Floats, offset: Floats, label: Bools, weights: Floats, start: Floats) -> Floats:
    outer = (design[:, None] * design[None]).reshape(-1, design.shape[1])
    size = len(design)
    beta, step = np.tile(start, (len(weights), 1)), np.full((len(weights), size), np.inf)
    events = (weights * label).sum(axis=1)
    is_solvable = (events > 0) & (events < weights.sum(axis=1))
    for _ in range(_MAX_STEPS):
        p = 1 / (1 + np.exp(-np.clip(beta @ design + offset, -500, 500)))
        gradient = (weights * (label - p)) @ design.T
        information = ((weights * p * (1 - p)) @ outer.T).reshape(-1, size, size)
        is_solvable &= np.abs(np.linalg.det(information)) > 1e-12
        information[~is_solvable] = np.eye(size)
        step = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
        step[~is_solvable] = 0
        beta = beta + np.clip(step, -2, 2)
        if np.abs(step).max(initial=0) < 1e-6:  # Newton's step squares the error
            break
    beta[~is_solvable | (np.abs(step).max(axis=1) >= 1e-6)] = np.nan
    return beta


SCORES: dict[str, Callable[[Floats, Bools, Weights], Floats]] = {
    "auroc": auroc,
    "auprc": auprc,
    "calibration_slope": calibration_slope,
    "calibration_intercept": calibration_intercept,
}


@dataclass(frozen=True, slots=True)
class Summary:
    """A score with its interval.

    Attributes:
        value: Mean over the fits. low, high: Its interval at `LEVEL`.
        between: Standard deviation between the fits, such as generator seeds; None where there is one.
    """

    value: float
    low: float
    high: float
    between: float | None


def summarise(draws: Floats) -> Summary | None:
    """Mean over fits, with an interval for the patients and the fits together; None where it is not defined.

    The patients' part is the percentile interval of the bootstrap, shifted so that its middle is the value; the fits'
    part is Student's interval of their mean. The two are independent, so their lengths add as squares (Howe 1974, J Am
    Stat Assoc 69:789).

    Args:
        draws: (fits, 1 + resamples) the score of each fit; the first column of the patients as they are.
    """
    values = draws[:, 0]
    if not np.isfinite(values).all():
        return None
    value = float(values.mean())
    resampled = draws[:, 1:].mean(axis=0)
    resampled = resampled[np.isfinite(resampled)]
    if not len(resampled):
        return None
    low, high = np.quantile(resampled - np.median(resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    num_fits = len(values)
    between = float(values.std(ddof=1)) if num_fits > 1 else None
    more = 0.0 if between is None else float(student_t.ppf((1 + LEVEL) / 2, num_fits - 1)) * between / num_fits**0.5
    return Summary(value, value - float(np.hypot(low, more)), value + float(np.hypot(high, more)), between)
