"""Crosswalk of rpact's timing of events and accrual, and of its conversions between hazards, medians and shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from medtwin.trials.design.hazard import PiecewiseRate, WeibullHazard
from medtwin.trials.design.two_arm_survival import TwoArmSurvival
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.rpact_survival import (
    ACCRUAL,
    HAZARDS,
    Accrual,
    Scenario,
    accrual,
    hazard_results,
    scenarios,
    trial_of,
    with_subjects,
)
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers

_ENTRY: Arguments = {name: value for name, value in ACCRUAL.items() if not name.startswith("dropout")}


def event_probabilities(given: Arguments) -> dict[str, Any]:
    """getEventProbabilities(); per patient planned."""
    entry, found = accrual(given), scenarios(given, (0.2, 0.3, 0.4, 0.5))
    if len(found) > 1:
        raise NotCoveredError("event probabilities of several alternatives")
    trial = _enrolling(given, found[0], entry)
    planned = trial.num_subjects
    both = np.array([trial.events(t)[0] for t in numbers(given["time"])]) / planned
    share = np.array(trial.shares)
    overall = both.sum(axis=1)
    return {
        "time": np.array(numbers(given["time"])),
        "overallEventProbabilities": overall,
        "cumulativeEventProbabilities": overall,
        "eventProbabilities1": both[:, 0] / share[0],
        "eventProbabilities2": both[:, 1] / share[1],
        **hazard_results(given, found[0]),
    }


def _enrolling(given: Arguments, scenario: Scenario, entry: Accrual) -> TwoArmSurvival:
    """The trial whose number of patients does not matter unless it ends enrolment."""
    if not is_missing(given["maxNumberOfSubjects"]) and (entry.end is None or not entry.absolute):
        return with_subjects(given, scenario, entry, float(given["maxNumberOfSubjects"]))
    if entry.end is None:
        raise NotCoveredError("accrual without an end")
    return trial_of(given, scenario, entry.rate, entry.end)


def number_of_subjects(given: Arguments) -> dict[str, Any]:
    """getNumberOfSubjects()."""
    nobody = Scenario(1.0, (PiecewiseRate((0.0,), (1.0,)), PiecewiseRate((0.0,), (1.0,))))
    trial = _enrolling({**ACCRUAL, **given}, nobody, accrual({**ACCRUAL, **given}))
    subjects = trial.subjects(numbers(given["time"]))
    return {
        "time": np.array(numbers(given["time"])),
        "numberOfSubjects": subjects,
        "maxNumberOfSubjects": trial.num_subjects,
        "accrualTime": trial.enroll_duration,
    }


def accrual_time(given: Arguments) -> dict[str, Any]:
    """getAccrualTime(): the cuts of enrolment with its end, and the number of patients."""
    entry, most = accrual(given), given["maxNumberOfSubjects"]
    rate = entry.rate
    if not entry.absolute:
        if is_missing(most) or entry.end is None:
            raise NotCoveredError("getAccrualTime() of relative intensities without maxNumberOfSubjects or an end")
        rate = rate.scaled(float(most) / float(rate.cumulative(entry.end)))
    if entry.end is None and is_missing(most):
        raise NotCoveredError("getAccrualTime() without an end and maxNumberOfSubjects")
    end = float(rate.time_at([float(most)])[0]) if entry.end is None else entry.end
    return {
        "accrualTime": np.array([*rate.starts, end]),
        "accrualIntensity": np.array(rate.rates),
        "maxNumberOfSubjects": float(rate.cumulative(end)),
        "remainingTime": end - float(rate.starts[-1]),
    }


def _times(given: Arguments) -> PiecewiseRate | WeibullHazard:
    rates, kappa = numbers(given["piecewiseLambda"]), float(given["kappa"])
    starts = [0.0] if is_missing(given["piecewiseSurvivalTime"]) else numbers(given["piecewiseSurvivalTime"])
    if kappa == 1:
        return PiecewiseRate(tuple(starts), tuple(rates))
    if len(rates) > 1:
        raise NotCoveredError("kappa of several pieces")
    return WeibullHazard(rates[0], kappa)


_PIECES: Arguments = {"piecewiseSurvivalTime": None, "piecewiseLambda": None, "kappa": 1.0}


def distribution(given: Arguments) -> Any:
    """getPiecewiseExponentialDistribution()."""
    return -np.expm1(-_times(given).cumulative(numbers(given["time"])))


def quantile(given: Arguments) -> Any:
    """getPiecewiseExponentialQuantile()."""
    return _times(given).time_at(-np.log1p(-np.array(numbers(given["quantile"]))))


def _pi_of_rate(rate: Any, given: Arguments) -> Any:
    return -np.expm1(-((rate * float(given["eventTime"])) ** float(given["kappa"])))


def _rate_of_pi(pi: Any, given: Arguments) -> Any:
    return (-np.log1p(-pi)) ** (1 / float(given["kappa"])) / float(given["eventTime"])


def _median_of_rate(rate: Any, given: Arguments) -> Any:
    """Also the rate of a median."""
    return np.log(2) ** (1 / float(given["kappa"])) / rate


def _hazard_ratio(given: Arguments) -> Any:
    treated, control = (_rate_of_pi(np.array(numbers(given[f"pi{arm}"])), given) for arm in (1, 2))
    return (treated / control) ** float(given["kappa"])


def _of(first: str, function: Callable[[Any, Arguments], Any]) -> Callable[[Arguments], Any]:
    return lambda given: function(np.array(numbers(given[first])), given)


_WHEN: Arguments = {"eventTime": 12.0, "kappa": 1.0}
_SIGNATURES: dict[str, tuple[Arguments, Callable[[Arguments], Any]]] = {
    "getAccrualTime": (_ENTRY, accrual_time),
    "getEventProbabilities": ({"time": None, **ACCRUAL, **HAZARDS, "allocationRatioPlanned": 1.0}, event_probabilities),
    "getNumberOfSubjects": ({"time": None, **_ENTRY}, number_of_subjects),
    "getPiecewiseExponentialDistribution": ({"time": None, **_PIECES}, distribution),
    "getPiecewiseExponentialQuantile": ({"quantile": None, **_PIECES}, quantile),
    "ppwexp": ({"t": None, "s": None, "lambda": None, "kappa": 1.0}, lambda given: distribution(_renamed(given, "t"))),
    "qpwexp": ({"q": None, "s": None, "lambda": None, "kappa": 1.0}, lambda given: quantile(_renamed(given, "q"))),
    "getLambdaByPi": ({"piValue": None, **_WHEN}, _of("piValue", _rate_of_pi)),
    "getLambdaByMedian": ({"median": None, "kappa": 1.0}, _of("median", _median_of_rate)),
    "getMedianByLambda": ({"lambda": None, "kappa": 1.0}, _of("lambda", _median_of_rate)),
    "getPiByLambda": ({"lambda": None, **_WHEN}, _of("lambda", _pi_of_rate)),
    "getPiByMedian": (
        {"median": None, **_WHEN},
        _of("median", lambda median, given: _pi_of_rate(_median_of_rate(median, given), given)),
    ),
    "getMedianByPi": (
        {"piValue": None, **_WHEN},
        _of("piValue", lambda pi, given: _median_of_rate(_rate_of_pi(pi, given), given)),
    ),
    "getHazardRatioByPi": ({"pi1": None, "pi2": None, **_WHEN}, _hazard_ratio),
}


def _renamed(given: Arguments, first: str) -> Arguments:
    """The arguments of the short form under the names of the long one."""
    long = {"t": "time", "q": "quantile"}[first]
    pieces = {"piecewiseSurvivalTime": given["s"], "piecewiseLambda": given["lambda"], "kappa": given["kappa"]}
    return {long: given[first], **pieces}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: bound(name, formal, function) for name, (formal, function) in _SIGNATURES.items()
}
