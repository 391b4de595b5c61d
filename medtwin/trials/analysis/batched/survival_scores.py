"""Log-rank tests of many trials: plain, weighted and stratified, and the largest of several weights (MaxCombo)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from medtwin.trials.analysis.batched.survival_maximum import upper_tails_of_maximum
from medtwin.trials.analysis.batched.survival_order import TrialsInOrder
from medtwin.trials.analysis.follow_up import Floats
from medtwin.trials.analysis.weighted_logrank import USUAL_WEIGHTS
from medtwin.trials.survival_weights import AtRiskPower, EarlyZero, FlemingHarrington, MagirrBurman, Weight


@dataclass(frozen=True)
class LogRankTests:
    """Weighted log-rank tests, (trials,) each; where nothing is compared, z and the p value are nan.

    Attributes:
        score: Weighted events of the experimental arm less those expected under equal hazards.
        standard_error: Of the score. z: Positive where the experimental arm fares better.
    """

    score: Floats
    standard_error: Floats
    z: Floats

    @property
    def p_value(self) -> Floats:
        """One-sided, of a better experimental arm."""
        return np.asarray(ndtr(-self.z))


@dataclass(frozen=True)
class MaxComboTests:
    """The largest of several weighted log-rank tests in every trial; nan where one of them compares nothing.

    Attributes:
        z: (trials, weights). correlation: (trials, weights, weights) of them under equal hazards.
    """

    z: Floats
    correlation: Floats

    @property
    def largest(self) -> Floats:
        """The largest z, (trials,)."""
        return np.asarray(self.z.max(axis=1))

    @property
    def p_value(self) -> Floats:
        """One-sided, (trials,): that any of them reaches the largest under equal hazards."""
        return upper_tails_of_maximum(self.largest, self.correlation)


def logrank(trials: TrialsInOrder) -> LogRankTests:
    """The log-rank test of every trial, within strata where there are any, hypergeometric variance.

    Source: Mantel 1966, Cancer Chemother Rep 50:163.
    """
    excess, variance = _excess_and_variance(trials)
    return _tests(excess.sum(axis=1), variance.sum(axis=1))


def weighted_logrank(trials: TrialsInOrder, weight: Weight) -> LogRankTests:
    """A weighted log-rank test of every trial, within strata where there are any.

    Args:
        trials: In order.
        weight: Of the event times, from the pooled survival of the stratum; see `medtwin.trials.survival_weights`.

    Raises:
        ValueError: If the weight is of no known kind.

    Source: Harrington & Fleming 1982, Biometrika 69:553.
    """
    excess, variance = _excess_and_variance(trials)
    w = _weights(trials, weight)
    return _tests(np.einsum("ij,ij->i", w, excess), np.einsum("ij,ij,ij->i", w, w, variance))


def max_combo(trials: TrialsInOrder, weights: Sequence[Weight] = USUAL_WEIGHTS) -> MaxComboTests:
    """The MaxCombo test of every trial, within strata where there are any.

    Args:
        trials: In order.
        weights: Of the tests.

    Raises:
        ValueError: Without any weight, or for one of no known kind.

    Source: Lin et al. 2020, Stat Biopharm Res 12:187; Karrison 2016, Stata J 16:678.
    """
    if not weights:
        raise ValueError(f"weights must be one or more, got {list(weights)!r}")
    excess, variance = _excess_and_variance(trials)
    w = np.stack([_weights(trials, weight) for weight in weights], axis=1)
    score = np.einsum("ikj,ij->ik", w, excess)
    covariance = (w * variance[:, None]) @ w.transpose(0, 2, 1)
    spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return MaxComboTests(-score / spread, covariance / (spread[:, :, None] * spread[:, None, :]))


def _excess_and_variance(trials: TrialsInOrder) -> tuple[Floats, Floats]:
    """Observed less expected and its variance at each event, (trials, patients), tied events an equal part each."""
    n = trials.at_risk
    share = trials.at_risk_1 / n
    shared = share * trials.event
    variance = shared * (1 - share)
    if trials.tied.max() > 1:
        variance *= (n - trials.tied) / np.maximum(n - 1, 1)
    return (trials.arm & trials.event) - shared, variance


def _tests(score: Floats, variance: Floats) -> LogRankTests:
    spread = np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(variance > 0, -score / spread, np.nan)
    return LogRankTests(score, spread, z)


def _weights(trials: TrialsInOrder, weight: Weight) -> Floats:
    """The weights of the event times, (trials, patients)."""
    match weight:
        case FlemingHarrington(rho=rho, gamma=gamma, tau=tau):
            survival = _held_from(trials, tau)
            found = np.ones(trials.time.shape) if rho == 0 else survival**rho
            return found if gamma == 0 else np.asarray(found * np.maximum(1 - survival, 0.0) ** gamma)
        case MagirrBurman(delay=delay, max_weight=most):
            return np.asarray(np.minimum(1 / _held_from(trials, delay), most))
        case EarlyZero(early_period=period):
            return np.asarray((trials.time >= trials.as_time(period)).astype(np.float64))
        case AtRiskPower(power=power):
            most_at_risk = _by_stratum(trials, np.where(trials.event, trials.at_risk, 1).astype(np.float64))
            return np.asarray((trials.at_risk / most_at_risk) ** power)
    raise ValueError(f"weight must be one of those of medtwin.trials.survival_weights, got {weight!r}")


def _held_from(trials: TrialsInOrder, until: float) -> Floats:
    """Pooled survival, (trials, patients), that past a time stays at that just before the last event up to it."""
    if until == np.inf:
        return trials.survival
    early = trials.event & (trials.time <= trials.as_time(until))
    return np.maximum(trials.survival, -_by_stratum(trials, np.where(early, -trials.survival, -1.0)))


def _by_stratum(trials: TrialsInOrder, values: Floats) -> Floats:
    """The largest value in the stratum of each patient, (trials, patients) or (trials, 1)."""
    if trials.num_strata == 1:
        return np.asarray(values.max(axis=1, keepdims=True))
    largest = np.empty_like(values)
    for stratum in range(trials.num_strata):
        is_here = trials.stratum == stratum
        most = np.where(is_here, values, -np.inf).max(axis=1, keepdims=True)
        np.copyto(largest, most, where=is_here)
    return largest
