"""Crosswalk of gsDesign's designs of times to events to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.design.boundaries import (
    fixed_drift,
)
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.survival_size import (
    ExponentialTrial,
    ProportionalHazards,
    effect_per_event,
    enroll_duration_for,
    events_for_drift,
    follow_up_for,
    information_per_event,
)
from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import Stratum, TwoArmSurvival
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Frame
from tests.trials.reference.gsdesign_bounds import DESIGN, design
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers, refuse

Floats = NDArray[np.float64]
_SURVIVAL: Arguments = {
    "lambdaC": math.log(2) / 6,
    "hr": 0.6,
    "hr0": 1.0,
    "eta": 0.0,
    "etaE": None,
    "gamma": 1.0,
    "R": 12.0,
    "S": None,
    "T": 18.0,
    "minfup": 6.0,
    "ratio": 1.0,
}


def _table(value: Any) -> Floats:
    """Rates by period (rows) and stratum (columns)."""
    found = np.asarray(value, dtype=np.float64)
    return found if found.ndim == 2 else np.atleast_1d(found)[:, None]


def _spread(value: Any, periods: int, strata: int) -> Floats:
    found = _table(value)
    rows = found if found.shape[0] == periods else np.repeat(found[:1], periods, axis=0)
    return rows if rows.shape[1] == strata else np.repeat(rows[:, :1], strata, axis=1)


def _survival_trial(given: Arguments) -> ProportionalHazards:
    control = _table(given["lambdaC"])
    lengths = [] if is_missing(given["S"]) else numbers(given["S"])
    entry_lengths = numbers(given["R"])
    gamma = _table(given["gamma"])
    strata = max(control.shape[1], gamma.shape[1])
    control, gamma = _spread(control, len(lengths) + 1, strata), _spread(gamma, len(entry_lengths), strata)
    eta = _spread(given["eta"], len(lengths) + 1, strata)
    eta_e = eta if is_missing(given["etaE"]) else _spread(given["etaE"], len(lengths) + 1, strata)
    starts = tuple(np.concatenate([[0.0], np.cumsum(lengths)]).tolist())
    entry = tuple(np.concatenate([[0.0], np.cumsum(entry_lengths[:-1])]).tolist())
    ratio = float(given["hr"])
    groups = []
    for i in range(strata):
        hazard = PiecewiseRate(starts, tuple(control[:, i]))
        arms = (
            Arm(hazard.scaled(ratio), PiecewiseRate(starts, tuple(eta_e[:, i]))),
            Arm(hazard, PiecewiseRate(starts, tuple(eta[:, i]))),
        )
        groups.append(Stratum(*arms, PiecewiseRate(entry, tuple(gamma[:, i]))))
    allocation = numbers(given["ratio"])
    if len(allocation) > 1:
        raise NotCoveredError("ratio by stratum")
    trial = TwoArmSurvival(tuple(groups), sum(entry_lengths), allocation[0])
    null = "control" if given["method"] == "BernsteinLagakos" else "pooled"
    return ProportionalHazards(trial, ratio, float(given["hr0"]), null)  # type: ignore[arg-type]


_EVENT_FORMULAS = {"Schoenfeld": "schoenfeld", "Freedman": "freedman"}


def _fixed(given: Arguments) -> tuple[ProportionalHazards, float, float]:
    """The fixed design: hazards with the enrolment that is needed, the end, and one-sided alpha."""
    law, alpha = _survival_trial(given), float(given["alpha"]) / float(given["sided"])
    method = given["method"]

    def excess(trial: TwoArmSurvival, time: float) -> float:
        if method in _EVENT_FORMULAS:
            return trial.total_events(time) - _events_needed(given, alpha)
        return law.with_trial(trial).drift_excess(time, alpha, 1 - float(given["beta"]))

    if is_missing(given["minfup"]):
        return law, law.trial.enroll_duration + follow_up_for(law.trial, excess), alpha
    if is_missing(given["T"]):
        months = float(given["minfup"])
        duration = enroll_duration_for(law.trial, months, excess)
        return law.with_trial(law.trial.enrolling_for(duration)), duration + months, alpha
    end = float(given["T"])
    law = law.with_trial(law.trial.enrolling_for(end - float(given["minfup"])))
    if is_missing(given["beta"]):
        return law, end, alpha
    if method in _EVENT_FORMULAS:
        factor = _events_needed(given, alpha) / law.trial.total_events(end)
    else:
        factor = law.enrolment_factor(end, alpha, 1 - float(given["beta"]))
    return law.with_trial(law.trial.enrolling(factor)), end, alpha


def _events_needed(given: Arguments, alpha: float) -> float:
    formula = _EVENT_FORMULAS[given["method"]]
    drift = fixed_drift(alpha, 1 - float(given["beta"]))
    ratios = float(given["hr"]), float(given["ratio"]), float(given["hr0"])
    return events_for_drift(drift, *ratios, formula)  # type: ignore[arg-type]


def n_surv(given: Arguments) -> dict[str, Any]:
    """nSurv()."""
    given = {**given, "method": _method(given)}
    law, end, alpha = _fixed(given)
    found = _survival_results(given, law, end)
    if is_missing(given["beta"]):
        found["power"] = law.power(end, alpha)
        found["beta"] = 1 - found["power"]
    else:
        found["beta"], found["power"] = float(given["beta"]), 1 - float(given["beta"])
    return found


def _method(given: Arguments) -> str:
    return str(np.atleast_1d(given["method"])[0])


def _survival_results(given: Arguments, law: ProportionalHazards, end: float) -> dict[str, Any]:
    trial = law.trial
    events, null = trial.events(end), law.null_trial.events(end)
    by_stratum = np.array([float(each.enroll_rate.cumulative(trial.enroll_duration)) for each in trial.strata])
    lengths = numbers(given["R"])
    before = sum(lengths[:-1])
    lengths = [*lengths[:-1], trial.enroll_duration - before]
    return {
        "d": events.sum(),
        "n": trial.num_subjects,
        "eDC": events[:, 1],
        "eDE": events[:, 0],
        "eDC0": null[:, 1],
        "eDE0": null[:, 0],
        "eNC": by_stratum * trial.shares[1],
        "eNE": by_stratum * trial.shares[0],
        "gamma": np.column_stack([each.enroll_rate.rates for each in trial.strata]),
        "R": np.array(lengths),
        "T": end,
        "minfup": end - trial.enroll_duration,
        "hr": law.hazard_ratio,
        "hr0": law.null_hazard_ratio,
        "ratio": trial.allocation_ratio,
        "alpha": given["alpha"],
        "sided": given["sided"],
    }


def gs_surv(given: Arguments) -> dict[str, Any]:
    """gsSurv()."""
    given = {**given, "method": _method(given)}
    law, end, alpha = _fixed(given)
    events = law.trial.total_events(end)
    plan = design({**DESIGN, **{key: given[key] for key in given if key in DESIGN}, "alpha": alpha, "n.fix": events})
    target = float(plan["n.I"][-1])
    if is_missing(given["minfup"]):
        end = law.trial.enroll_duration + follow_up_for(law.trial, lambda each, t: each.total_events(t) - target)
    elif is_missing(given["T"]):
        months = float(given["minfup"])
        duration = enroll_duration_for(law.trial, months, lambda each, t: each.total_events(t) - target)
        law, end = law.with_trial(law.trial.enrolling_for(duration)), duration + months
    else:
        law = law.with_trial(law.trial.enrolling(target / events))
    return {**plan, **_looks(given, law, plan["n.I"], end), "n.fix": events}


def _looks(given: Arguments, law: ProportionalHazards, events: Floats, end: float) -> dict[str, Any]:
    trial = law.trial
    times = np.array([*trial.time_of_events(events[:-1]), end])
    by_look = np.array([trial.events(t) for t in times])
    enrolled = np.array(
        [[float(s.enroll_rate.cumulative(min(t, trial.enroll_duration))) for s in trial.strata] for t in times]
    )
    found = _survival_results(given, law, end)
    return {
        **found,
        "T": times,
        "eDC": by_look[:, :, 1],
        "eDE": by_look[:, :, 0],
        "eNC": enrolled * trial.shares[1],
        "eNE": enrolled * trial.shares[0],
        "_law": law,
        "variable": None,
    }


def _events_at(given: Arguments) -> Any:
    plan, time = given["x"], float(given["tIA"])
    law: ProportionalHazards = plan["_law"]
    events = law.trial.events(time)
    if given["simple"]:
        return events.sum() - float(given["target"])
    enrolled = float(law.trial.subjects(time))
    shares = law.trial.shares
    return {
        "T": time,
        "eDC": events[:, 1].sum(),
        "eDE": events[:, 0].sum(),
        "eNC": enrolled * shares[1],
        "eNE": enrolled * shares[0],
    }


def _time_at(given: Arguments) -> Any:
    plan = given["x"]
    law: ProportionalHazards = plan["_law"]
    total = law.trial.total_events(float(np.atleast_1d(plan["T"])[-1]))
    time = float(law.trial.time_of_events([float(given["timing"]) * total])[0])
    return _events_at({"x": plan, "tIA": time, "simple": False, "target": 0.0})


def expected_events(given: Arguments) -> dict[str, Any]:
    """eEvents(): events and patients of one arm."""
    refuse("eEvents", given, _EVENTS, "Tfinal")
    hazards = _table(given["lambda"])
    inner = {
        **_SURVIVAL,
        "lambdaC": hazards,
        "eta": given["eta"],
        "gamma": given["gamma"],
        "R": given["R"],
        "S": given["S"],
        "hr": 0.5,
        "method": "LachinFoulkes",
    }
    trial = _survival_trial(inner).trial
    end = float(given["T"])
    trial = trial.enrolling_for(min(trial.enroll_duration, end - float(given["minfup"])))
    return {
        "d": 2 * trial.events(end)[:, 1],
        "n": np.array([float(s.enroll_rate.cumulative(trial.enroll_duration)) for s in trial.strata]),
    }


def _n_survival(given: Arguments) -> dict[str, Any]:
    kind = str(np.atleast_1d(given["type"])[0])
    entry = str(np.atleast_1d(given["entry"])[0])
    gamma = float(given["gamma"]) if entry == "expo" else 0.0
    trial = ExponentialTrial(
        float(given["lambda1"]),
        float(given["lambda2"]),
        float(given["Tr"]),
        float(given["Ts"]),
        float(given["eta"]),
        float(given["ratio"]),
        gamma,
    )
    alpha, power = float(given["alpha"]) / float(given["sided"]), 1 - float(given["beta"])
    scale = "ratio" if kind == "rr" else "difference"
    subjects = trial.subjects(alpha, power, scale=scale, pooled=not given["approx"])  # type: ignore[arg-type]
    return {**given, "n": subjects, "nEvents": trial.events(subjects)}


def _n_events(given: Arguments) -> Any:
    names = ("hr", "alpha", "beta", "ratio", "sided", "hr0", "n")
    size = max(len(numbers(given[name])) for name in names)
    rows = [{name: numbers(given[name])[i % len(numbers(given[name]))] for name in names} for i in range(size)]
    found = []
    for row in rows:
        effect = abs(effect_per_event(row["hr"], row["ratio"], row["hr0"]))
        critical = float(norm.isf(row["alpha"] / row["sided"]))
        power = 1 - row["beta"] if row["n"] == 0 else float(norm.cdf(effect * math.sqrt(row["n"]) - critical))
        events = row["n"] or ((critical + norm.ppf(power)) / effect) ** 2
        spread = 1 / math.sqrt(events * information_per_event(row["ratio"]))
        found.append({**row, "n": events, "beta": 1 - power, "Power": power, "delta": effect, "se": spread})
    if given["tbl"]:
        return Frame({name: np.array([row[name] for row in found]) for name in found[0]})
    wanted = "n" if numbers(given["n"])[0] == 0 else "Power"
    return np.array([row[wanted] for row in found])


def _vectors(given: Arguments, *names: str) -> list[Floats]:
    return [np.array(each) for each in np.broadcast_arrays(*(np.atleast_1d(given[name]) for name in names))]


def _ratio_to_z(given: Arguments) -> Floats:
    hr, n, ratio, hr0, hr1 = _vectors(given, "hr", "n", "ratio", "hr0", "hr1")
    information = np.array([information_per_event(float(each)) for each in ratio])
    return np.asarray(np.where(hr1 < hr0, -1.0, 1.0) * np.sqrt(n * information) * np.log(hr / hr0))


def _z_to_ratio(given: Arguments) -> Floats:
    z, n, ratio, hr0, hr1 = _vectors(given, "z", "n", "ratio", "hr0", "hr1")
    information = np.array([information_per_event(float(each)) for each in ratio])
    return np.asarray(hr0 * np.exp(np.where(hr1 < hr0, -1.0, 1.0) * z / np.sqrt(n * information)))


def _events_of_z(given: Arguments) -> Floats:
    hr, z, ratio, hr0 = _vectors(given, "hr", "z", "ratio", "hr0")
    information = np.array([information_per_event(float(each)) for each in ratio])
    return np.asarray((z / np.log(hr / hr0)) ** 2 / information)


_EVENTS: Arguments = {
    "lambda": 1.0,
    "eta": 0.0,
    "gamma": 1.0,
    "R": 1.0,
    "S": None,
    "T": 2.0,
    "Tfinal": None,
    "minfup": 0.0,
    "simple": True,
}
_METHOD = {"tol": None, "method": "LachinFoulkes"}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "nSurv": bound("nSurv", {**_SURVIVAL, "alpha": 0.025, "beta": 0.1, "sided": 1.0, **_METHOD}, n_surv),
    "gsSurv": bound(
        "gsSurv",
        {
            **{key: value for key, value in DESIGN.items() if key not in ("delta", "n.fix", "n.I", "maxn.IPlan")},
            "sided": 1.0,
            **_SURVIVAL,
            **_METHOD,
        },
        gs_surv,
    ),
    "nEventsIA": bound("nEventsIA", {"tIA": 5.0, "x": None, "target": 0.0, "simple": True}, _events_at),
    "tEventsIA": bound("tEventsIA", {"x": None, "timing": 0.25, "tol": None}, _time_at),
    "eEvents": bound("eEvents", _EVENTS, expected_events),
    "nSurvival": bound(
        "nSurvival",
        {
            "lambda1": 1 / 12,
            "lambda2": 1 / 24,
            "Ts": 24.0,
            "Tr": 12.0,
            "eta": 0.0,
            "ratio": 1.0,
            "alpha": 0.025,
            "beta": 0.1,
            "sided": 1.0,
            "approx": False,
            "type": "rr",
            "entry": "unif",
            "gamma": None,
        },
        _n_survival,
    ),
    "nEvents": bound(
        "nEvents",
        {
            "hr": 0.6,
            "alpha": 0.025,
            "beta": 0.1,
            "ratio": 1.0,
            "sided": 1.0,
            "hr0": 1.0,
            "n": 0.0,
            "tbl": False,
        },
        _n_events,
    ),
    "hrn2z": bound("hrn2z", {"hr": None, "n": None, "ratio": 1.0, "hr0": 1.0, "hr1": 0.7}, _ratio_to_z),
    "zn2hr": bound("zn2hr", {"z": None, "n": None, "ratio": 1.0, "hr0": 1.0, "hr1": 0.7}, _z_to_ratio),
    "hrz2n": bound("hrz2n", {"hr": None, "z": None, "ratio": 1.0, "hr0": 1.0}, _events_of_z),
}
