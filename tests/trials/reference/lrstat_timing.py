"""Crosswalk of lrstat's timing of events, numbers at risk and exit probabilities to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.changing_effects import exits_with_means
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import Stratum, TwoArmSurvival
from medtwin.trials.design.weighted_logrank_design import (
    log_hazard_ratio,
    log_hazard_ratio_variance,
    weighted_score,
)
from medtwin.trials.survival_weights import FlemingHarrington
from tests.trials.reference.evaluate import Frame
from tests.trials.reference.lrstat_designs import ENTRY, FOLLOW, rates_by_stratum, trial_of
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers

Floats = NDArray[np.float64]


def _caltime(given: Arguments) -> Any:
    return trial_of(given).time_of_events(numbers(given["nevents"]))


def _lrstat(given: Arguments) -> Frame:
    trial, times = trial_of(given), numbers(given["time"])
    weight, null = FlemingHarrington(float(given["rho1"]), float(given["rho2"])), float(given["hazardRatioH0"])
    events = np.array([trial.events(t).sum(axis=0) for t in times])
    dropouts = np.array([trial.dropouts(t).sum(axis=0) for t in times])
    scores = [weighted_score(trial, t, weight, null) for t in times]
    found = {
        "time": np.array(times),
        "subjects": trial.subjects(times),
        "nevents": events.sum(axis=1),
        "nevents1": events[:, 0],
        "nevents2": events[:, 1],
        "ndropouts": dropouts.sum(axis=1),
        "ndropouts1": dropouts[:, 0],
        "ndropouts2": dropouts[:, 1],
        "uscore": np.array([score.mean for score in scores]),
        "vscore": np.array([score.variance for score in scores]),
        "logRankZ": np.array([-score.z for score in scores]),
    }
    if int(given["predictTarget"]) == 3:
        beta = np.array([log_hazard_ratio(trial, t, weight) for t in times])
        spread = np.array([log_hazard_ratio_variance(trial, t, weight) for t in times])
        found |= {"HR": np.exp(beta), "vlogHR": spread, "zlogHR": (beta - math.log(null)) / np.sqrt(spread)}
    return Frame(found)


def _by_calendar(given: Arguments) -> Floats:
    trial = replace(trial_of(given), max_follow_up=float(given["maxFollowupTime"]))
    return np.array([trial.events(t).sum(axis=0) for t in numbers(given["time"])])


def _end(given: Arguments) -> float:
    return float(given["accrualDuration"]) + float(given["minFollowupTime"])


def _by_follow_up(given: Arguments) -> Floats:
    trial = replace(trial_of(given), max_follow_up=float(given["maxFollowupTime"]))
    return np.array(
        [
            sum(seen.events.sum(axis=1) for seen in trial.all_follow_up(_end(given), until=u)) if u > 0 else np.zeros(2)
            for u in numbers(given["time"])
        ]
    )


def _at_risk(given: Arguments) -> Floats:
    trial = replace(trial_of(given), max_follow_up=float(given["maxFollowupTime"]))
    return trial.at_risk(numbers(given["time"]), _end(given))


def _one_arm(given: Arguments) -> Arm:
    starts = tuple(numbers(given["piecewiseSurvivalTime"]))
    hazard, leaving = (
        PiecewiseRate(starts, tuple(rates_by_stratum(given[name], 1, len(starts))[0])) for name in ("lambda", "gamma")
    )
    return Arm(hazard, leaving)


def _event_shares(given: Arguments) -> Floats:
    arm = _one_arm(given)
    trial = TwoArmSurvival([Stratum(arm, arm, PiecewiseRate((0.0,), (1e9,)))], 1e-9)
    return np.array([trial.total_events(t) for t in numbers(given["time"])])


def _accrual(given: Arguments) -> Floats:
    rate = PiecewiseRate(tuple(numbers(given["accrualTime"])), tuple(numbers(given["accrualIntensity"])))
    return rate.cumulative(np.minimum(numbers(given["time"]), float(given["accrualDuration"])))


def _accrual_duration(given: Arguments) -> Floats:
    rate = PiecewiseRate(tuple(numbers(given["accrualTime"])), tuple(numbers(given["accrualIntensity"])))
    return rate.time_at(numbers(given["nsubjects"]))


def _exitprob(given: Arguments) -> dict[str, Any]:
    upper = np.array(numbers(given["b"]))
    information = np.array(numbers(given["I"])) if not is_missing(given["I"]) else np.arange(1.0, len(upper) + 1)
    lower = None if is_missing(given["a"]) else np.array(numbers(given["a"]))
    if lower is None:
        lower = np.full(len(upper), -np.inf)
        lower[-1] = upper[-1]
    theta = np.broadcast_to(numbers(given["theta"]), upper.shape)
    exits = exits_with_means(information, upper, lower, theta * np.sqrt(information))
    return {"exitProbUpper": exits.upper, "exitProbLower": exits.lower}


_AT: Arguments = {**ENTRY, "minFollowupTime": None, "maxFollowupTime": None}
_ARM: Arguments = {"piecewiseSurvivalTime": 0.0, "lambda": None, "gamma": 0.0}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "caltime": bound("caltime", {"nevents": None, **ENTRY, **FOLLOW}, _caltime),
    "lrstat": bound(
        "lrstat",
        {"time": None, **ENTRY, **FOLLOW, "hazardRatioH0": 1.0, "rho1": 0.0, "rho2": 0.0, "predictTarget": 2.0},
        _lrstat,
    ),
    "nevent": bound("nevent", {"time": None, **_AT}, _by_follow_up),
    "nevent2": bound("nevent2", {"time": None, **_AT}, _by_calendar),
    "natrisk": bound("natrisk", {"time": None, **_AT}, _at_risk),
    "patrisk": bound("patrisk", {"time": None, **_ARM}, lambda a: _one_arm(a).retained(numbers(a["time"]))),
    "pevent": bound("pevent", {"time": None, **_ARM}, _event_shares),
    "accrual": bound(
        "accrual", {"time": None, "accrualTime": 0.0, "accrualIntensity": None, "accrualDuration": None}, _accrual
    ),
    "getAccrualDurationFromN": bound(
        "getAccrualDurationFromN",
        {"nsubjects": None, "accrualTime": 0.0, "accrualIntensity": None},
        _accrual_duration,
    ),
    "exitprob": bound("exitprob", {"b": None, "a": None, "theta": 0.0, "I": None}, _exitprob),
}
