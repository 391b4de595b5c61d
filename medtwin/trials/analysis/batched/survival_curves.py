"""Kaplan-Meier curves of both arms of many trials: survival at times, milestones and restricted means compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from scipy.special import ndtr

from medtwin.trials.analysis.batched.survival_order import TrialsInOrder
from medtwin.trials.analysis.follow_up import Bools, Floats
from medtwin.trials.analysis.milestone import Scale


@dataclass(frozen=True)
class ArmEstimates:
    """An estimate in both arms, (trials, times) or (trials,); nan where an arm is not followed so long.

    Attributes:
        experimental, control: The estimates.
        experimental_error, control_error: Their standard errors; nan where there is none, as where nobody is left.
    """

    experimental: Floats
    control: Floats
    experimental_error: Floats
    control_error: Floats


@dataclass(frozen=True)
class DifferenceTests:
    """Tests of a difference between the arms, (trials,); nan where a trial allows none.

    Attributes:
        arms: Both estimates. estimate: What is tested, above 0 where the experimental arm fares better.
        standard_error: Of the estimate.
    """

    arms: ArmEstimates
    estimate: Floats
    standard_error: Floats

    @property
    def z(self) -> Floats:
        """Positive where the experimental arm fares better."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.standard_error > 0, self.estimate / self.standard_error, np.nan)

    @property
    def p_value(self) -> Floats:
        """One-sided, of a better experimental arm."""
        return np.asarray(ndtr(-self.z))


def survival_at(trials: TrialsInOrder, times: Sequence[float]) -> ArmEstimates:
    """Kaplan-Meier estimates of each arm at times, (trials, times), with Greenwood's standard errors.

    Args:
        trials: In order, without strata.
        times: 0 or more.

    Raises:
        ValueError: For trials in strata, or times below 0.

    Source: Kaplan & Meier 1958, J Am Stat Assoc 53:457; Greenwood 1926.
    """
    _check(trials, "times", min(times, default=0.0) >= 0, times)
    here = [trials.time <= trials.as_time(at) for at in times]
    fall, spread = _steps(trials)
    found = []
    for is_arm, last in _arms(trials):
        survival, error = [], []
        for at, until in zip(times, here, strict=True):
            seen = until & is_arm
            survival.append(np.exp(fall.sum(axis=1, where=seen)))
            with np.errstate(invalid="ignore"):  # 0 times inf where nobody is left
                error.append(survival[-1] * np.sqrt(spread.sum(axis=1, where=seen)))
            survival[-1][last < trials.as_time(at)] = np.nan
        found.append((np.stack(survival, axis=1), np.stack(error, axis=1)))
    (s1, e1), (s0, e0) = found
    return ArmEstimates(s1, s0, np.where(s1 > 0, e1, np.nan), np.where(s0 > 0, e0, np.nan))


def milestone(trials: TrialsInOrder, at: float, *, scale: Scale = "log-log") -> DifferenceTests:
    """The test of survival at one time in every trial.

    Args:
        trials: In order, without strata.
        at: The time.
        scale: "naive" tests the difference itself, "log-log" that of log(-log survival).

    Raises:
        ValueError: For trials in strata, a time below 0, or a scale that is not known.

    Source: Klein et al. 2007, Stat Med 26:4505, equations 1 and 3.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"scale must be one of {get_args(Scale)}, got {scale!r}")
    both = survival_at(trials, [at])
    s1, s0, e1, e0 = (
        each[:, 0] for each in (both.experimental, both.control, both.experimental_error, both.control_error)
    )
    is_inside = (s1 > 0) & (s1 < 1) & (s0 > 0) & (s0 < 1)
    p1, p0 = np.where(is_inside, s1, 0.5), np.where(is_inside, s0, 0.5)
    if scale == "naive":
        estimate, error = p1 - p0, np.hypot(e1, e0)
    else:
        estimate = np.log(-np.log(p0)) - np.log(-np.log(p1))
        error = np.hypot(e1 / (p1 * np.log(p1)), e0 / (p0 * np.log(p0)))
    known = np.where(is_inside, 1.0, np.nan)
    return DifferenceTests(ArmEstimates(s1, s0, e1, e0), estimate * known, error * known)


def restricted_mean_difference(trials: TrialsInOrder, tau: float) -> DifferenceTests:
    """The test of restricted mean survival until tau in every trial.

    Args:
        trials: In order, without strata.
        tau: The horizon.

    Raises:
        ValueError: For trials in strata, or a horizon that is not above 0.

    Source: Uno et al. 2014, J Clin Oncol 32:2380; variance as in Klein & Moeschberger 2003, equation 4.5.2.
    """
    _check(trials, "tau", 0 < tau < np.inf, tau)
    until = np.minimum(trials.time, tau)
    widths = np.diff(until, axis=1, append=tau)
    fall, spread = _steps(trials)
    spread[np.isinf(spread)] = 0.0  # nobody of the arm is left, nor is any area
    (m1, e1), (m0, e0) = (
        _restricted_mean(
            trials,
            (np.where(is_arm, fall, 0.0), spread * is_arm),
            (until, widths),
            is_arm,
            last >= trials.as_time(tau),
        )
        for is_arm, last in _arms(trials)
    )
    return DifferenceTests(ArmEstimates(m1, m0, e1, e0), m1 - m0, np.hypot(e1, e0))


def _restricted_mean(
    trials: TrialsInOrder, steps: tuple[Floats, Floats], until: tuple[Floats, Floats], is_arm: Bools, is_followed: Bools
) -> tuple[Floats, Floats]:
    """The mean of one arm and its standard error, (trials,) each, from its steps, and times and gaps up to tau."""
    fall, spread = steps
    pieces = np.exp(np.cumsum(fall, axis=1)) * until[1]
    rest = np.cumsum(pieces[:, ::-1], axis=1)[:, ::-1]
    mean = until[0][:, 0] + rest[:, 0]
    error = np.sqrt(np.einsum("ij,ij,ij->i", rest, rest, spread))
    is_known = is_followed if is_followed.all() else is_followed | _ends_with_event(trials, is_arm)
    return np.where(is_known, mean, np.nan), np.where(is_known, error, np.nan)


def _ends_with_event(trials: TrialsInOrder, is_arm: Bools) -> Bools:
    """Whether all of an arm who are followed longest have the event, (trials,)."""
    time = np.where(is_arm, trials.time, -1.0)
    last = time.max(axis=1, keepdims=True)
    is_last = time == last
    return np.asarray((last[:, 0] > 0) & ~(is_last & ~trials.event).any(axis=1))


def _arms(trials: TrialsInOrder) -> tuple[tuple[Bools, Floats], tuple[Bools, Floats]]:
    """Who is of the experimental and of the control arm, and the last time of each in every trial, -1 for nobody."""
    return (
        (trials.arm, np.where(trials.arm, trials.time, -1.0).max(axis=1)),
        (~trials.arm, np.where(trials.arm, -1.0, trials.time).max(axis=1)),
    )


def _steps(trials: TrialsInOrder) -> tuple[Floats, Floats]:
    """Steps of log survival and of its Greenwood variance in the arm of each event, tied events of it sharing them.

    Both are (trials, patients), 0 where nothing happens.
    """
    n = np.where(trials.arm, trials.at_risk_1, trials.at_risk - trials.at_risk_1)
    left = 1.0 / n
    d = np.where(trials.arm, trials.tied_1, trials.tied - trials.tied_1) if trials.tied.max() > 1 else 1
    with np.errstate(divide="ignore", invalid="ignore"):
        fall = np.log(1 - d * left) / d
        spread = left / (n - d)
    fall[~trials.event], spread[~trials.event] = 0.0, 0.0
    return fall, spread


def _check(trials: TrialsInOrder, name: str, is_right: bool, value: object) -> None:
    if trials.num_strata > 1:
        raise ValueError(f"trials must be without strata, got {trials.num_strata}")
    if not is_right:
        raise ValueError(f"{name} must be finite and 0 or more (tau above 0), got {value!r}")
