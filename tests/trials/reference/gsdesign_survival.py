"""Crosswalk of gsDesign's designs of times to events and its conditional power to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from medtwin.trials.design.boundaries import (
    Bounds,
    cumulative_bounds,
    efficacy_only,
    exit_probabilities,
    fixed_drift,
    shaped_bounds,
    spending_both,
    with_futility,
)
from medtwin.trials.design.changing_effects import futility_bounds
from medtwin.trials.design.conditional_power import TwoStage, predictive_power, remainder
from medtwin.trials.design.group_sequential import information_per_event
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.spending import Spending
from medtwin.trials.design.survival_size import (
    ExponentialTrial,
    ProportionalHazards,
    effect_per_event,
    enroll_duration_for,
    events_for_drift,
    follow_up_for,
)
from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import Stratum, TwoArmSurvival
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Frame
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers, refuse

Floats = NDArray[np.float64]
VARIABLES = {
    name: name
    for name in ("sfLDOF", "sfLDPocock", "sfHSD", "sfPower", "sfPoints", "z2NC", "z2Z", "z2Fisher", "sfExponential")
}
_NONE = 20.0  # gsDesign's bound where there is none

DESIGN: Arguments = {
    "k": 3.0,
    "test.type": 4.0,
    "alpha": 0.025,
    "beta": 0.1,
    "astar": 0.0,
    "delta": 0.0,
    "n.fix": 1.0,
    "timing": 1.0,
    "sfu": "sfHSD",
    "sfupar": -4.0,
    "sfl": "sfHSD",
    "sflpar": -2.0,
    "tol": 1e-6,
    "r": 18.0,
    "n.I": 0.0,
    "maxn.IPlan": 0.0,
    "nFixSurv": 0.0,
    "endpoint": None,
    "delta1": 1.0,
    "delta0": 0.0,
    "overrun": 0.0,
    "usTime": None,
    "lsTime": None,
}
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


def _spent(kind: Any, parameter: Any, t: Floats, total: float) -> Floats:
    named = {"sfLDOF": "obrien_fleming", "sfLDPocock": "pocock", "sfHSD": "hwang_shih_decani", "sfPower": "kim_demets"}
    if kind == "sfPoints":
        return total * np.array(numbers(parameter))[: len(t)]
    if kind == "sfExponential":
        return np.asarray(total ** (t ** -float(parameter)))
    if kind not in named:
        raise NotCoveredError(f"the spending function {kind!r}")
    ours = named[kind]
    parametric = ours in ("hwang_shih_decani", "kim_demets")
    return Spending(ours, float(parameter) if parametric else None).spent(t, total)  # type: ignore[arg-type]


class _Spent:
    """A spending function of gsDesign, as medtwin's."""

    def __init__(self, kind: Any, parameter: Any, at: Floats) -> None:
        self._kind, self._parameter, self._at = kind, parameter, at

    def spent(self, fraction: Any, total: float) -> Floats:
        """The error spent at the looks."""
        return _spent(self._kind, self._parameter, self._at, total)


def design(given: Arguments) -> dict[str, Any]:
    """gsDesign()."""
    refuse("gsDesign", given, DESIGN, "overrun", "maxn.IPlan")
    kind, alpha, beta = int(given["test.type"]), float(given["alpha"]), float(given["beta"])
    t = _timing(given)
    bounds = _bounds(given, kind, t, alpha, beta)
    fixed = float(given["n.fix"])
    delta = float(given["delta"])
    unit = fixed_drift(alpha, 1 - beta)
    fixed = fixed if delta == 0 else (unit / delta) ** 2
    delta = unit / math.sqrt(fixed)
    information = fixed * (bounds.drift / unit) ** 2 * t
    theta = np.array([0.0, delta])
    return {
        "k": float(len(t)),
        "test.type": float(kind),
        "alpha": alpha,
        "beta": beta,
        "n.fix": fixed,
        "timing": t,
        "delta": delta,
        "theta": theta,
        "n.I": information,
        **probabilities(information, bounds.efficacy, bounds.futility, theta),
    }


def probabilities(information: Floats, upper: Floats, lower: Floats, theta: Floats) -> dict[str, Any]:
    """Bounds and the probabilities to cross them, (looks, thetas), as gsProbability() gives them."""
    exits = [exit_probabilities(information, upper, lower, each * math.sqrt(information[-1])) for each in theta]
    en = np.array([each.expected(information) for each in exits])
    return {
        "upper": {"bound": upper, "prob": np.column_stack([each.upper for each in exits])},
        "lower": {"bound": np.maximum(lower, -_NONE), "prob": np.column_stack([each.lower for each in exits])},
        "en": en,
    }


def _timing(given: Arguments) -> Floats:
    looks, timing = int(given["k"]), numbers(given["timing"])
    if not is_missing(given["n.I"]) and len(numbers(given["n.I"])) > 1:
        raise NotCoveredError("n.I of gsDesign()")
    if len(timing) == looks - 1:
        timing = [*timing, 1.0]
    if len(timing) != looks or looks == 1:
        return np.arange(1, looks + 1) / looks
    return np.array(timing)


def _bounds(given: Arguments, kind: int, t: Floats, alpha: float, beta: float) -> Bounds:
    upper_at = t if is_missing(given["usTime"]) else np.array(numbers(given["usTime"]))
    lower_at = t if is_missing(given["lsTime"]) else np.array(numbers(given["lsTime"]))
    shapes = {"OF": 0.0, "Pocock": 0.5, "WT": given["sfupar"]}
    shaped = given["sfu"] in shapes
    if kind in (1, 2):
        two = kind == 2
        if shaped:
            upper = shaped_bounds(t, alpha * kind, float(shapes[given["sfu"]]), two_sided=two)
        else:
            upper = cumulative_bounds(t, _spent(given["sfu"], given["sfupar"], upper_at, alpha), two_sided=two)
        return efficacy_only(t, upper, 1 - beta) if kind == 1 else _symmetric(t, upper, 1 - beta)
    if shaped:
        raise NotCoveredError(f"sfu={given['sfu']!r} with test.type={kind}")
    spending = _Spent(given["sfu"], given["sfupar"], upper_at), _Spent(given["sfl"], given["sflpar"], lower_at)
    if kind in (3, 4):
        return spending_both(t, alpha, beta, spending, binding=kind == 3)  # type: ignore[arg-type]
    if kind not in (5, 6):
        raise NotCoveredError(f"test.type={kind}")
    return _null_lower(t, alpha, beta, spending, float(given["astar"]) or 1 - alpha, binding=kind == 5)


def _symmetric(t: Floats, upper: Floats, power: float) -> Bounds:
    drift = brentq(lambda d: exit_probabilities(t, upper, -upper, d).power - power, 0.0, 20.0, xtol=1e-11)
    return Bounds(t, upper, -upper, float(drift))


def _null_lower(
    t: Floats, alpha: float, beta: float, spending: tuple[_Spent, _Spent], total: float, *, binding: bool
) -> Bounds:
    """Lower bounds that spend an error under the null."""
    wanted = spending[0].spent(t, alpha)
    upper, low = cumulative_bounds(t, wanted), spending[1].spent(t, total)
    lower = futility_bounds(t, upper, np.zeros(len(t)), low)
    for _ in range(100 if binding else 0):
        before = upper
        upper = cumulative_bounds(t, wanted, lower=lower)
        lower = futility_bounds(t, upper, np.zeros(len(t)), low)
        if np.abs(upper - before).max() < 1e-11:
            break
    kept = lower[-1]
    found = with_futility(t, upper, lower, 1 - beta)
    found.futility[-1] = kept
    return found


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
    events, total = law.trial.events(time), law.trial.total_events(float(np.atleast_1d(plan["T"])[-1]))
    if given["simple"]:
        return events.sum() / total - float(given["target"])
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
        1.0 / float(given["ratio"]) if given.get("_placebo_first") else float(given["ratio"]),
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
    return np.where(hr1 < hr0, -1.0, 1.0) * np.sqrt(n * information) * np.log(hr / hr0)


def _z_to_ratio(given: Arguments) -> Floats:
    z, n, ratio, hr0, hr1 = _vectors(given, "z", "n", "ratio", "hr0", "hr1")
    information = np.array([information_per_event(float(each)) for each in ratio])
    return hr0 * np.exp(np.where(hr1 < hr0, -1.0, 1.0) * z / np.sqrt(n * information))


def _events_of_z(given: Arguments) -> Floats:
    hr, z, ratio, hr0 = _vectors(given, "hr", "z", "ratio", "hr0")
    information = np.array([information_per_event(float(each)) for each in ratio])
    return np.asarray((z / np.log(hr / hr0)) ** 2 / information)


def _plan(given: Arguments) -> tuple[Floats, Floats, Floats]:
    x = given["x"]
    lower = np.asarray(x["lower"]["bound"], dtype=np.float64).copy()
    lower[lower <= -_NONE] = -np.inf
    if int(x["test.type"]) == 1:
        lower[:] = -np.inf
    return np.asarray(x["n.I"]), np.asarray(x["upper"]["bound"]), lower


def _conditional(given: Arguments) -> dict[str, Any]:
    information, upper, lower = _plan(given)
    look, z = int(given["i"]), float(given["zi"])
    theta = given["theta"]
    if is_missing(theta):
        theta = [z / math.sqrt(information[look - 1]), *numbers(given["x"]["theta"])]
    rest = remainder(look, z, information, upper, lower)
    found = probabilities(rest.information, rest.upper, rest.lower, np.array(numbers(theta)))
    return {"k": float(len(rest.upper)), "theta": np.array(numbers(theta)), "n.I": rest.information, **found}


def _bound_conditional(given: Arguments) -> Floats:
    information, upper, lower = _plan(given)
    columns = []
    for bounds in (lower, upper):
        if not np.isfinite(bounds[:-1]).all():
            continue
        column = []
        for i, z in enumerate(bounds[:-1]):
            theta = z / math.sqrt(information[i]) if given["theta"] == "thetahat" else float(given["theta"])
            column.append(remainder(i + 1, float(z), information, upper, lower).power(theta))
        columns.append(column)
    return np.column_stack(columns)


def _predictive(given: Arguments) -> Any:
    theta = numbers(given["theta"])
    weights = numbers(given["wgts"]) * (len(theta) if len(numbers(given["wgts"])) == 1 else 1)
    information, upper, lower = _plan(given)
    found = predictive_power(int(given["i"]), float(given["zi"]), information, upper, lower, (theta, weights))
    return found.sum() if given["total"] else found


def _prior_success(given: Arguments) -> float:
    information, upper, lower = _plan(given)
    theta, weights = np.array(numbers(given["theta"])), np.array(numbers(given["wgts"]))
    root = math.sqrt(information[-1])
    exits = [exit_probabilities(information, upper, lower, each * root) for each in theta]
    if "i" not in given:
        return float(weights @ [each.power for each in exits])
    look = int(given["i"])
    later = weights @ [each.upper[look:].sum() for each in exits]
    going = weights @ [1 - each.upper[:look].sum() - each.lower[:look].sum() for each in exits]
    return float(later / going)


def _interval(given: Arguments) -> Floats:
    information = np.asarray(given["x"]["n.I"])
    i, j, z, level = int(given["i"]), int(given["j"]), float(given["zi"]), float(given["level"])
    theta, prior = np.array(numbers(given["theta"])), np.array(numbers(given["wgts"]))
    known, later = information[i - 1], information[j - 1]
    weights = prior * norm.pdf(z - theta * math.sqrt(known))
    weights = weights / weights.sum()
    step = later - known
    mean = (z * math.sqrt(known) + theta * step) / math.sqrt(later)
    spread = math.sqrt(step / later)

    def quantile(p: float) -> float:
        low, high = float(mean.min()) - 10.0, float(mean.max()) + 10.0
        return float(brentq(lambda y: weights @ norm.cdf((y - mean) / spread) - p, low, high, xtol=1e-11))

    if level == 0:
        return np.array([quantile(0.5)])
    return np.array([quantile((1 - level) / 2), quantile((1 + level) / 2)])


def _normal_grid(given: Arguments) -> dict[str, Any]:
    """A grid for integrals with a normal density; Gauss-Legendre nodes in place of gsDesign's Simpson's rule."""
    mu, sigma = float(given["mu"]), float(given["sigma"])
    low, high = numbers(given["bounds"])
    if low >= high:
        low, high = mu - 9 * sigma, mu + 9 * sigma
    x, w = np.polynomial.legendre.leggauss(200)
    z = 0.5 * (high - low) * x + 0.5 * (high + low)
    density, weights = norm.pdf(z, mu, sigma), 0.5 * (high - low) * w
    return {"z": z, "density": density, "gridwgts": weights, "wgts": density * weights}


def _two_stage(x: Mapping[str, Any]) -> TwoStage:
    information, upper = np.asarray(x["n.I"]), np.asarray(x["upper"]["bound"])
    if len(upper) != 2:
        raise NotCoveredError("condPower() of a design that has not two looks")
    return TwoStage(float(information[0]), float(information[1]), (float(upper[0]), float(upper[1])))


def _rule(trial: TwoStage, name: Any) -> Callable[[float, float], float]:
    rules = {"z2NC": trial.weighted, "z2Z": trial.sufficient, "z2Fisher": trial.fisher}
    if name not in rules:
        raise NotCoveredError(f"z2={name!r}")
    return rules[name]


def _cond_power(given: Arguments) -> Floats:
    trial = _two_stage(given["x"])
    rule = _rule(trial, given["z2"])
    z1, second = np.broadcast_arrays(np.atleast_1d(given["z1"]), np.atleast_1d(given["n2"]))
    theta = [None] * len(z1) if is_missing(given["theta"]) else np.broadcast_to(numbers(given["theta"]), z1.shape)
    return np.array(
        [
            trial.conditional_power(float(z), float(n), rule, None if t is None else float(t))
            for z, n, t in zip(z1, second, theta, strict=True)
        ]
    )


def _second_bound(name: str) -> Callable[[Arguments], Floats]:
    def call(given: Arguments) -> Floats:
        trial = _two_stage(given["x"])
        second = trial.planned - trial.first if is_missing(given["n2"]) else float(given["n2"])
        return np.array([_rule(trial, name)(float(z), second) for z in np.atleast_1d(given["z1"])])

    return call


def _resized(given: Arguments) -> dict[str, Any]:
    x = given["x"]
    trial = _two_stage(x)
    rule = _rule(trial, given["z2"])
    beta = float(x["beta"]) if is_missing(given["beta"]) else float(given["beta"])
    adjust = [0.5, 1 - beta] if is_missing(given["cpadj"]) else numbers(given["cpadj"])
    _, upper, lower = _plan(given)
    planned = trial.planned - trial.first
    largest = float(given["maxinc"]) * trial.planned
    rows = []
    for z in numbers(given["z1"]):
        theta = z / math.sqrt(trial.first) if is_missing(given["theta"]) else float(given["theta"])
        power = trial.conditional_power(z, planned, rule, theta)
        total = trial.planned
        if z >= upper[0] or z <= lower[0]:
            total = trial.first + float(given["overrun"])
        elif adjust[0] <= power < adjust[1]:
            total = min(trial.first + trial.resized(z, 1 - beta, rule, theta), largest)
        rows.append({"z1": z, "n2": total, "CP": power, "theta": theta})
    return {**given, "dat": Frame({name: np.array([row[name] for row in rows]) for name in rows[0]})}


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
_LOOK: Arguments = {"x": None, "i": 1.0, "zi": 0.0}
_Z2: Arguments = {"z1": None, "x": None, "n2": None}


def _default_x(function: Callable[[Arguments], Any]) -> Callable[[Arguments], Any]:
    """Fills in gsDesign(k=2, timing=.5) where no design is given."""

    def call(given: Arguments) -> Any:
        if given["x"] is None:
            given = {**given, "x": design({**DESIGN, "k": 2.0, "timing": 0.5})}
        return function(given)

    return call


def _probability(given: Arguments) -> dict[str, Any]:
    x, theta = given["d"], np.array(numbers(given["theta"]))
    if x is None:
        information, upper = np.array(numbers(given["n.I"])), np.array(numbers(given["b"]))
        lower = np.array(numbers(given["a"]))
        return {"k": given["k"], "theta": theta, "n.I": information, **probabilities(information, upper, lower, theta)}
    information, upper, lower = _plan({"x": x})
    return {**x, "theta": theta, **probabilities(information, upper, lower, theta)}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "gsDesign": bound("gsDesign", DESIGN, design),
    "gsProbability": bound(
        "gsProbability",
        {"k": 0.0, "theta": None, "n.I": None, "a": None, "b": None, "r": 18.0, "d": None},
        _probability,
    ),
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
    "gsCP": bound("gsCP", {"x": None, "theta": None, "i": 1.0, "zi": 0.0, "r": 18.0}, _conditional),
    "gsBoundCP": bound("gsBoundCP", {"x": None, "theta": "thetahat", "r": 18.0}, _bound_conditional),
    "gsPP": bound("gsPP", {**_LOOK, "theta": [0.0, 3.0], "wgts": [0.5, 0.5], "r": 18.0, "total": True}, _predictive),
    "gsPI": bound("gsPI", {**_LOOK, "j": 2.0, "level": 0.95, "theta": [0.0, 3.0], "wgts": [0.5, 0.5]}, _interval),
    "gsPOS": bound("gsPOS", {"x": None, "theta": None, "wgts": None}, _prior_success),
    "gsCPOS": bound("gsCPOS", {"i": None, "x": None, "theta": None, "wgts": None}, _prior_success),
    "normalGrid": bound("normalGrid", {"r": 18.0, "bounds": [0.0, 0.0], "mu": 0.0, "sigma": 1.0}, _normal_grid),
    "condPower": bound(
        "condPower", {"z1": None, "n2": None, "z2": "z2NC", "theta": None, "x": None}, _default_x(_cond_power)
    ),
    "z2NC": bound("z2NC", _Z2, _second_bound("z2NC")),
    "z2Z": bound("z2Z", _Z2, _second_bound("z2Z")),
    "z2Fisher": bound("z2Fisher", _Z2, _second_bound("z2Fisher")),
    "ssrCP": bound(
        "ssrCP",
        {
            "z1": None,
            "theta": None,
            "maxinc": 2.0,
            "overrun": 0.0,
            "beta": None,
            "cpadj": None,
            "x": None,
            "z2": "z2NC",
        },
        _default_x(_resized),
    ),
}
