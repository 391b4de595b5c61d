"""Crosswalk of gsDesign2's fixed designs to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.design.changing_effects import Looks, stopping
from medtwin.trials.design.max_combo_design import max_combo
from medtwin.trials.design.milestone_design import ArmSummaries, milestone_survival, restricted_mean
from medtwin.trials.design.survival_size import ProportionalHazards
from medtwin.trials.design.two_arm_survival import TwoArmSurvival
from medtwin.trials.design.weighted_logrank_design import weighted_logrank_looks
from medtwin.trials.survival_weights import FlemingHarrington, MagirrBurman
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Frame
from tests.trials.reference.gsdesign2_designs import Law, by_ahr, by_weights, on_scale
from tests.trials.reference.gsdesign2_tables import TRIAL, column, trial_in
from tests.trials.reference.signatures import Arguments, bound, is_missing

Floats = NDArray[np.float64]


def _fixed_looks(given: Arguments, looks: Looks, trial: TwoArmSurvival, title: str, more: Any = None) -> dict[str, Any]:
    """A fixed design by an effect and its information."""
    looks = on_scale(looks, given["info_scale"])
    critical = float(norm.isf(float(given["alpha"])))
    factor, power = 1.0, None
    if is_missing(given["power"]):
        power = stopping(looks, [critical]).power
    else:
        power = float(given["power"])
        spread = critical / math.sqrt(looks.null_information[0]) + norm.ppf(power) / math.sqrt(looks.information[0])
        factor = float((spread / looks.effect[0]) ** 2)
    return _fixed_result(given, trial.enrolling(factor), title, critical, power, more or {})


def _fixed_result(
    given: Arguments, trial: TwoArmSurvival, title: str, critical: float, power: float, more: Mapping[str, Any]
) -> dict[str, Any]:
    time = float(given["study_duration"])
    rates = [np.array(each.enroll_rate.rates[:-1]) for each in trial.strata]
    analysis = Frame(
        design=title,
        n=float(trial.subjects(time)),
        event=trial.total_events(time),
        time=time,
        bound=critical,
        alpha=float(given["alpha"]),
        power=power,
        **more,
    )
    enroll = Frame({**given["enroll_rate"], "rate": np.concatenate(rates)})
    return {"analysis": analysis, "enroll_rate": enroll, "fail_rate": given["fail_rate"], "design": title}


def _fixed_by(law_of: Callable[[Arguments], Law], title: str) -> Callable[[Arguments], dict[str, Any]]:
    def call(given: Arguments) -> dict[str, Any]:
        trial = trial_in(given)
        looks, ratios = law_of(given)(trial, np.array([float(given["study_duration"])]))
        return _fixed_looks(given, looks, trial, title, {"ahr": ratios[0]})

    return call


def _fh_law(given: Arguments) -> Law:
    weight = {"method": "fh", "param": {"rho": given["rho"], "gamma": given["gamma"]}}
    return by_weights({**given, "weight": weight, "approx": "asymptotic"})


def _mb_law(given: Arguments) -> Law:
    weight = MagirrBurman(float(given["tau"]), float(given["w_max"]))

    def law(trial: TwoArmSurvival, times: Floats) -> tuple[Looks, Floats]:
        looks = weighted_logrank_looks(trial, times, weight)
        return looks, np.full(len(times), np.nan)

    return law


def _fixed_summary(
    summary: Callable[[TwoArmSurvival, float, float], ArmSummaries], title: str
) -> Callable[[Arguments], dict[str, Any]]:
    def call(given: Arguments) -> dict[str, Any]:
        trial, end = trial_in(given), float(given["study_duration"])
        found = summary(trial, end, end if is_missing(given["tau"]) else float(given["tau"]))
        information = np.array([found.information])
        looks = Looks(np.array([found.difference]), information, information)
        return _fixed_looks({**given, "info_scale": "h0_h1_info"}, looks, trial, title)

    return call


def _fixed_max_combo(given: Arguments) -> dict[str, Any]:
    trial, time, alpha = trial_in(given), float(given["study_duration"]), float(given["alpha"])
    columns = [np.atleast_1d(given[name]) for name in ("rho", "gamma", "tau")]
    weights = [
        FlemingHarrington(float(rho), float(gamma), float(tau) if tau > 0 else math.inf)
        for rho, gamma, tau in zip(*np.broadcast_arrays(*columns), strict=True)
    ]
    test = max_combo(trial, time, weights)
    critical = test.critical_value(alpha)
    if is_missing(given["power"]):
        return _fixed_result(given, trial, "maxcombo", critical, test.power(alpha), {})
    factor = test.enrolment_factor(alpha, float(given["power"]))
    return _fixed_result(given, trial.enrolling(factor), "maxcombo", critical, float(given["power"]), {})


def _fixed_lachin_foulkes(given: Arguments) -> dict[str, Any]:
    ratios = np.unique(column(given["fail_rate"], "hr").astype(np.float64))
    if len(ratios) > 1:
        raise NotCoveredError("fixed_design_lf() of several hazard ratios")
    trial, time, alpha = trial_in(given), float(given["study_duration"]), float(given["alpha"])
    law = ProportionalHazards(trial, float(ratios[0]))
    critical = float(norm.isf(alpha))
    if is_missing(given["power"]):
        return _fixed_result(given, trial, "lf", critical, law.power(time, alpha), {})
    factor = law.enrolment_factor(time, alpha, float(given["power"]))
    return _fixed_result(given, trial.enrolling(factor), "lf", critical, float(given["power"]), {})


def _no_events(function: Callable[[Arguments], dict[str, Any]]) -> Callable[[Arguments], dict[str, Any]]:
    def call(given: Arguments) -> dict[str, Any]:
        if not is_missing(given["event"]):
            raise NotCoveredError("event of a fixed design")
        return function(given)

    return call


_FIXED: Arguments = {
    **TRIAL,
    "alpha": 0.025,
    "power": None,
    "ratio": 1.0,
    "study_duration": 36.0,
    "info_scale": "h0_h1_info",
    "event": None,
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "fixed_design_ahr": bound("fixed_design_ahr", _FIXED, _no_events(_fixed_by(by_ahr, "ahr"))),
    "fixed_design_fh": bound(
        "fixed_design_fh", {**_FIXED, "rho": 0.0, "gamma": 0.0}, _no_events(_fixed_by(_fh_law, "fh"))
    ),
    "fixed_design_mb": bound(
        "fixed_design_mb", {**_FIXED, "tau": 6.0, "w_max": math.inf}, _no_events(_fixed_by(_mb_law, "mb"))
    ),
    "fixed_design_lf": bound("fixed_design_lf", _FIXED, _no_events(_fixed_lachin_foulkes)),
    "fixed_design_maxcombo": bound(
        "fixed_design_maxcombo",
        {**_FIXED, "rho": [0.0, 0.0, 1.0], "gamma": [0.0, 1.0, 0.0], "tau": [-1.0] * 3},
        _no_events(_fixed_max_combo),
    ),
    "fixed_design_rmst": bound(
        "fixed_design_rmst", {**_FIXED, "tau": None}, _no_events(_fixed_summary(restricted_mean, "rmst"))
    ),
    "fixed_design_milestone": bound(
        "fixed_design_milestone", {**_FIXED, "tau": None}, _no_events(_fixed_summary(milestone_survival, "milestone"))
    ),
}
