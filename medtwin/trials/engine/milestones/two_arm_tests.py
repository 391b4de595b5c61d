"""The test of an endpoint in many trials, at a month of each: log-rank with Cox estimate, or difference in rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.survival_batch import Ordered, logrank_z_continuous, order_keys, packed_keys
from medtwin.trials.engine.milestones.conditions import ROUNDING

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_MOST_STEPS = 25
_ENOUGH = 1e-3  # of a step: Newton's error is of the order of its square


@dataclass(frozen=True)
class Tested:
    """What a test finds in each trial, (trials,) each.

    Attributes:
        z: Positive in favour of the experimental arm; 0 where nothing is compared.
        information: Events, or patients assessed.
        estimate: Log hazard ratio, or difference in rates, experimental - control; nan for none.
    """

    z: Floats
    information: Floats
    estimate: Floats


def compare_times(arm: Ints, inside: Bools | None, enrolled: Floats, leaves: Ints, months: Floats) -> Tested:
    """The log-rank test and the Cox estimate of a time to an event.

    Args:
        arm: (trials, patients) 1 experimental.
        inside: Of the population; None: all.
        enrolled: Calendar months.
        leaves: Packed keys of the months from enrolment to event or leaving.
        months: (trials,) calendar months of the analysis.
    """
    until = (months * ROUNDING)[:, None] - enrolled
    np.maximum(until, 0.0, out=until)
    if inside is not None:
        until *= inside
    keys = packed_keys(until, 0, arm, out=until.view(np.int64))
    ordered = order_keys(np.minimum(keys, leaves, out=keys))
    events = ordered.event.sum(axis=1, dtype=np.float64)
    return Tested(logrank_z_continuous(ordered), events, log_hazard_ratios(ordered))


def log_hazard_ratios(ordered: Ordered) -> Floats:
    """The Cox estimates, (trials,), to five digits; a trial's does not depend on those beside it. nan where none is.

    Args:
        ordered: In order of time, no two events at the same.
    """
    observed = np.einsum("ij,ij->i", ordered.arm, ordered.event).astype(np.float64)
    at_0 = ordered.at_risk - ordered.at_risk_1
    mixed = ordered.event * ((ordered.at_risk_1 > 0) & (at_0 > 0))  # the score is of these: each arm must have one
    mixed_1 = np.einsum("ij,ij->i", ordered.arm, mixed)
    is_finite = (mixed_1 > 0) & (mixed_1 < mixed.sum(axis=1))
    with np.errstate(divide="ignore"):
        odds = at_0 / ordered.at_risk_1
    beta, is_open = np.zeros(len(observed)), is_finite.copy()
    for _ in range(_MOST_STEPS):
        p = odds * np.exp(-beta).astype(odds.dtype)[:, None]
        p += 1
        np.divide(ordered.event, p, out=p)
        expected = p.sum(axis=1, dtype=np.float64)
        information = np.where(is_open, expected - np.einsum("ij,ij->i", p, p), 1.0)
        step = np.where(is_open, np.clip((observed - expected) / information, -1.0, 1.0), 0.0)
        beta += step
        is_open &= np.abs(step) >= _ENOUGH
        if not is_open.any():
            break
    return np.where(is_finite, beta, np.nan)


def compare_responses(arm: Ints, assessed: Bools, response: Bools) -> Tested:
    """The test of the difference in response rates, with the pooled variance.

    Args:
        arm: (trials, patients) 1 experimental.
        assessed: Of whom the response is known, of the population.
        response: Whether there is one.

    Source: Fleiss, Levin & Paik 2003, Statistical Methods for Rates and Proportions, section 3.1.
    """
    in_1 = assessed & (arm == 1)
    responders = assessed & response
    n, n_1 = assessed.sum(axis=1).astype(np.float64), in_1.sum(axis=1).astype(np.float64)
    y, y_1 = responders.sum(axis=1).astype(np.float64), (responders & in_1).sum(axis=1).astype(np.float64)
    n_0, y_0 = n - n_1, y - y_1
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = y_1 / n_1 - y_0 / n_0
        rate = y / n
        spread = np.sqrt(rate * (1 - rate) * (1 / n_1 + 1 / n_0))
        z = np.where((n_1 > 0) & (n_0 > 0) & (spread > 0), difference / spread, 0.0)
    return Tested(z, n, difference)
