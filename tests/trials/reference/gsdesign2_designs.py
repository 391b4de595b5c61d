"""Crosswalk of gsDesign2's designs under hazards that are not proportional to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from medtwin.trials.design.average_hazard_ratio import average_hazard_ratio, average_hazard_ratio_looks
from medtwin.trials.design.boundaries import cumulative_bounds, fractions
from medtwin.trials.design.changing_effects import (
    Looks,
    futility_bounds,
    scale_for_power,
    stopping,
    stopping_under_null,
)
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.selected_looks import spent_where_tested
from medtwin.trials.design.two_arm_survival import TwoArmSurvival
from medtwin.trials.design.weighted_logrank_design import weighted_logrank_looks, weighted_score
from medtwin.trials.survival_weights import LOGRANK, FlemingHarrington, MagirrBurman, Weight
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Environment, Frame
from tests.trials.reference.gsdesign2_tables import (
    ENROLL,
    FAIL,
    TRIAL,
    frame,
    rate_table,
    starts_of,
    strata_of,
    trial_in,
    trial_of,
)
from tests.trials.reference.gsdesign_bounds import spent
from tests.trials.reference.rcalls import Call
from tests.trials.reference.signatures import Arguments, bound, flags, is_missing, numbers, simple

Floats = NDArray[np.float64]
VARIABLES = {name: name for name in ("gs_b", "gs_spending_bound", "wlr_weight_fh", "wlr_weight_mb", "wlr_weight_1")}
_LAST = 1e5  # months


@dataclass(frozen=True)
class WeightFunction:
    """A function of R that returns weights: the call in its body."""

    body: Call
    env: Environment


def _ahr(given: Arguments) -> Frame:
    trial, times = trial_in(given), numbers(given["total_duration"])
    found = [average_hazard_ratio(trial, t) for t in times]
    if given["simple"]:
        return Frame(
            time=np.array(times),
            ahr=np.array([each.hazard_ratio for each in found]),
            n=trial.subjects(times),
            event=np.array([each.events for each in found]),
            info=np.array([each.information for each in found]),
            info0=np.array([each.null_information for each in found]),
        )
    return _pieces(given, found)


def _pieces(given: Arguments, found: Any) -> Frame:
    names = strata_of(given["fail_rate"])
    share = math.prod(trial_in(given).shares)
    rows = [(each, piece) for each in found for piece in each.pieces]
    return Frame(
        time=np.array([each.time for each, _ in rows]),
        stratum=np.array([names[piece.stratum] for _, piece in rows]),
        t=np.array([piece.start for _, piece in rows]),
        hr=np.array([piece.hazard_ratio for _, piece in rows]),
        event=np.array([piece.total for _, piece in rows]),
        info=np.array([piece.information for _, piece in rows]),
        info0=np.array([piece.total * share for _, piece in rows]),
    )


def _pieces_only(given: Arguments) -> Frame:
    return _ahr({**given, "simple": False})


def _expected_time(given: Arguments) -> Frame:
    trial = trial_in(given)
    times = trial.time_of_events(numbers(given["target_event"]))
    return _ahr({**given, "total_duration": times, "simple": True})


def _expected_accrual(given: Arguments) -> Floats:
    nobody = Frame(stratum=np.array(strata_of(given["enroll_rate"])))
    nobody |= {"duration": np.ones(1), "fail_rate": np.ones(1), "dropout_rate": np.zeros(1)}
    return trial_of(given["enroll_rate"], nobody).subjects(np.maximum(numbers(given["time"]), 0.0))


def _expected_event(given: Arguments) -> Any:
    fail = Frame({name: value for name, value in given["fail_rate"].items() if name != "hr"})
    trial = trial_of(given["enroll_rate"], fail)
    end = float(given["total_duration"])
    if given["simple"]:
        return trial.total_events(end)
    found = average_hazard_ratio(trial, end)
    return Frame(
        t=np.array([piece.start for piece in found.pieces]),
        fail_rate=np.array([float(trial.strata[p.stratum].control.hazard.at(p.start)) for p in found.pieces]),
        event=np.array([piece.total for piece in found.pieces]),
    )


def _ppwe(given: Arguments) -> Floats:
    rate = PiecewiseRate(starts_of(np.array(numbers(given["duration"]))), tuple(numbers(given["rate"])))
    survival = np.exp(-rate.cumulative(numbers(given["x"])))
    return 1 - survival if given["lower_tail"] else survival


def _error_spent(par: Mapping[str, Any], at: Floats) -> Floats:
    timing = par.get("timing")
    t = np.minimum(at, 1.0) if is_missing(timing) else np.array(numbers(timing))
    parameter = par.get("param")
    return spent(simple(par["sf"]), None if is_missing(parameter) else parameter, t, float(par["total_spend"]))


def _given_bounds(par: Any, looks: int) -> Floats:
    values = numbers(par)
    return np.resize(values, looks) if len(values) == 1 else np.array(values[:looks])


@dataclass(frozen=True)
class BoundRules:
    """How gsDesign2 sets bounds: by spending, or given."""

    given: Arguments

    def bounds(self, looks: Looks) -> tuple[Floats, Floats]:
        """Upper and lower z bounds."""
        given, size = self.given, len(looks.effect)
        lower = self._lower(looks, np.full(size, np.inf)) if given["lower"] == "gs_b" else None
        upper = self._upper(looks, lower if given["binding"] else None)
        if lower is None:
            lower = self._lower(looks, upper)
            for _ in range(60 if given["binding"] else 0):
                before, upper = upper, self._upper(looks, lower)
                lower = self._lower(looks, upper)
                if np.abs(upper - before).max() < 1e-10:
                    break
        return upper, np.minimum(lower, upper)

    def _upper(self, looks: Looks, lower: Floats | None) -> Floats:
        given, size = self.given, len(looks.effect)
        tested = flags(given["test_upper"], size)
        if given["upper"] == "gs_b":
            return np.where(tested, _given_bounds(given["upar"], size), np.inf)
        error = spent_where_tested(_error_spent(given["upar"], fractions(looks.null_information)), tested)
        return cumulative_bounds(looks.null_information, error, lower=lower)

    def _lower(self, looks: Looks, upper: Floats) -> Floats:
        given, size = self.given, len(looks.effect)
        tested = flags(given["test_lower"], size)
        if given["lower"] == "gs_b":
            return np.where(tested, _given_bounds(given["lpar"], size), -np.inf)
        if given["h1_spending"]:
            information, means = looks.information, looks.means
        else:
            information, means = looks.null_information, np.zeros(size)
        return futility_bounds(information, upper, means, _error_spent(given["lpar"], fractions(information)), tested)


def on_scale(looks: Looks, scale: Any) -> Looks:
    """Information of the null, of the alternative, or of either where it belongs."""
    match str(np.atleast_1d(scale)[0]):
        case "h0_h1_info":
            return looks
        case "h0_info":
            return Looks(looks.effect, looks.null_information, looks.null_information)
        case "h1_info":
            return Looks(looks.effect, looks.information, looks.information)
    raise NotCoveredError(f"info_scale={scale!r}")


@dataclass(frozen=True)
class Designed:
    """A design of gsDesign2: the trial, its times, and what its test is based on."""

    trial: TwoArmSurvival
    times: Floats
    looks: Looks
    hazard_ratios: Floats

    def result(self, given: Arguments) -> dict[str, Any]:
        """The components of its result."""
        looks = on_scale(self.looks, given["info_scale"])
        upper, lower = BoundRules(given).bounds(looks)
        exits = stopping(looks, upper, lower, "first_look")
        null = stopping_under_null(looks, upper, lower)
        events = np.array([self.trial.total_events(t) for t in self.times])
        analysis = Frame(
            analysis=np.arange(1.0, len(self.times) + 1),
            time=self.times,
            n=self.trial.subjects(self.times),
            event=events,
            ahr=self.hazard_ratios,
            theta=looks.effect,
            info=looks.information,
            info0=looks.null_information,
            info_frac=fractions(looks.information),
            info_frac0=fractions(looks.null_information),
        )
        rows: list[dict[str, Any]] = []
        for k in range(len(self.times)):
            sides = (("upper", upper[k], exits.upper, null.upper), ("lower", lower[k], exits.lower, null.lower))
            for side, z, alternative, none in sides:
                if np.isfinite(z) and (side == "upper" or len(self.times) > 1):
                    rows.append(_bound_row(k, side, z, alternative, none, looks))
        rates = [np.array(each.enroll_rate.rates[:-1]) for each in self.trial.strata]
        bounds = Frame({name: np.array([row[name] for row in rows]) for name in rows[0]})
        return {
            "analysis": analysis,
            "bound": bounds,
            "bounds": bounds,
            "enroll_rate": Frame({**given["enroll_rate"], "rate": np.concatenate(rates)}),
            "fail_rate": given["fail_rate"],
        }


def _bound_row(k: int, side: str, z: float, alternative: Floats, none: Floats, looks: Looks) -> dict[str, Any]:
    return {
        "analysis": k + 1.0,
        "bound": side,
        "probability": alternative[: k + 1].sum(),
        "probability0": none[: k + 1].sum(),
        "z": z,
        "~hr at bound": math.exp(-z / math.sqrt(looks.null_information[k])),
        "nominal p": float(norm.sf(z)),
    }


Law = Callable[[TwoArmSurvival, Floats], tuple[Looks, Floats]]


def by_ahr(given: Arguments) -> Law:
    def law(trial: TwoArmSurvival, times: Floats) -> tuple[Looks, Floats]:
        looks = average_hazard_ratio_looks(trial, times)
        return looks, np.exp(-looks.effect)

    return law


def by_weights(given: Arguments) -> Law:
    weight = _weight(given["weight"])
    approximation = str(given["approx"]).replace(" ", "_")
    if approximation == "event_driven":
        raise NotCoveredError("approx='event_driven'")

    def law(trial: TwoArmSurvival, times: Floats) -> tuple[Looks, Floats]:
        looks = weighted_logrank_looks(trial, times, weight, approximation)  # type: ignore[arg-type]
        masses = np.array([_weight_mass(trial, float(t), weight) for t in times])
        return looks, np.exp(-looks.effect * looks.information / masses)

    return law


def _weight_mass(trial: TwoArmSurvival, time: float, weight: Weight) -> float:
    """The integral of the weight with the log-rank variance."""
    if weight == LOGRANK:
        return weighted_score(trial, time).variance
    if isinstance(weight, FlemingHarrington):
        half = FlemingHarrington(weight.rho / 2, weight.gamma / 2, weight.tau)
        return weighted_score(trial, time, half).variance
    raise NotCoveredError("the average hazard ratio of weights other than Fleming and Harrington's")


def _weight(value: Any) -> Weight:
    if isinstance(value, WeightFunction):
        named = {key: simple(value.env.run(node)) for key, node in value.body.named.items()}
        return _named_weight(value.body.name, named)
    if isinstance(value, Mapping):
        return _named_weight(f"wlr_weight_{simple(value['method'])}", value.get("param", {}))
    return _named_weight(f"wlr_weight_{value}".replace("wlr_weight_wlr", "wlr"), {})


def _named_weight(name: str, parameters: Mapping[str, Any]) -> Weight:
    found = {key: float(simple(value)) for key, value in parameters.items() if not is_missing(simple(value))}
    if name in ("wlr_weight_logrank", "wlr_weight_1", "wlr_weight_NULL"):
        return LOGRANK
    if name == "wlr_weight_fh":
        tau = found.get("tau", -1.0)
        return FlemingHarrington(found.get("rho", 0.0), found.get("gamma", 0.0), tau if tau > 0 else math.inf)
    if name == "wlr_weight_mb":
        tau = found.get("tau", -1.0)
        return MagirrBurman(tau if tau > 0 else math.inf, found.get("w_max", math.inf))
    raise NotCoveredError(f"the weight {name}")


def _power_times(given: Arguments, trial: TwoArmSurvival) -> Floats:
    """Each look waits for its events and its month."""
    waits = []
    if not is_missing(given["event"]):
        waits.append(trial.time_of_events(numbers(given["event"])))
    if not is_missing(given["analysis_time"]):
        waits.append(np.array(numbers(given["analysis_time"])))
    size = max(len(each) for each in waits)
    return np.asarray(np.max([np.resize(each, size) for each in waits], axis=0))


def _power(law_of: Callable[[Arguments], Law]) -> Callable[[Arguments], dict[str, Any]]:
    def call(given: Arguments) -> dict[str, Any]:
        trial, law = trial_in(given), law_of(given)
        times = _power_times(given, trial)
        return Designed(trial, times, *law(trial, times)).result(_default_pars(given, len(times)))

    return call


def _default_pars(given: Arguments, looks: int) -> Arguments:
    """Spending of all of alpha and beta where parameters are left out."""
    defaults = {
        "upar": {"sf": "sfLDOF", "total_spend": given.get("alpha", 0.025)},
        "lpar": {"sf": "sfLDOF", "total_spend": given.get("beta", 0.1)},
    }
    return {**given, **{name: value for name, value in defaults.items() if given[name] is None}}


def _design_times(given: Arguments, trial: TwoArmSurvival, law: Law) -> Floats:
    """Months of the looks: as given, or when an information fraction is reached, or the later of both."""
    months = np.array(numbers(given["analysis_time"]))
    if is_missing(given["info_frac"]) or np.array_equal(numbers(given["info_frac"]), [1.0]):
        return months
    wanted, end = np.array(numbers(given["info_frac"])), float(months[-1])
    scale = str(np.atleast_1d(given["info_scale"])[0])

    def information(time: float) -> float:
        looks, _ = law(trial, np.array([time]))
        return float((looks.information if scale == "h1_info" else looks.null_information)[0])

    total = information(end)

    def when(fraction: float) -> float:
        if fraction >= 1:
            return end
        return float(brentq(lambda t: information(t) - fraction * total, 1e-3 * end, end, xtol=1e-9))

    reached = [when(each) for each in wanted]
    return np.maximum(reached, months) if len(months) == len(wanted) else np.array(reached)


def _design(law_of: Callable[[Arguments], Law]) -> Callable[[Arguments], dict[str, Any]]:
    def call(given: Arguments) -> dict[str, Any]:
        trial, law = trial_in(given), law_of(given)
        times = _design_times(given, trial, law)
        given = _default_pars(given, len(times))
        looks, ratios = law(trial, times)
        rules, scaled = BoundRules(given), on_scale(looks, given["info_scale"])

        def power_at(each: Looks) -> float:
            upper, lower = rules.bounds(each)
            if len(times) == 1:
                lower = np.full(1, -np.inf)
            return stopping(each, upper, lower, "first_look").power

        factor = scale_for_power(scaled, 1 - float(given["beta"]), power_at)
        return Designed(trial.enrolling(factor), times, looks.scaled(factor), ratios).result(given)

    return call


def _capture(env: Environment, node: Call) -> WeightFunction:
    body = node.args[-1]
    while isinstance(body, Call) and body.name == "{" and len(body.args) == 1:
        body = body.args[0]
    if not isinstance(body, Call):
        raise NotCoveredError("a function that is not one call")
    return WeightFunction(body, env)


_RULES: Arguments = {
    "binding": False,
    "upper": "gs_spending_bound",
    "upar": None,
    "lower": "gs_spending_bound",
    "lpar": None,
    "test_upper": True,
    "test_lower": True,
    "h1_spending": True,
    "info_scale": "h0_h1_info",
    "r": 18.0,
    "tol": 1e-6,
    "interval": None,
}
_WEIGHT: Arguments = {"weight": "logrank", "approx": "asymptotic"}
_DESIGN: Arguments = {
    **TRIAL,
    "alpha": 0.025,
    "beta": 0.1,
    "info_frac": None,
    "analysis_time": 36.0,
    "ratio": 1.0,
    **_RULES,
}
_POWER: Arguments = {**TRIAL, "event": [30.0, 40.0, 50.0], "analysis_time": None, "ratio": 1.0, **_RULES}


def _info(law_of: Callable[[Arguments], Law]) -> Callable[[Arguments], Frame]:
    def call(given: Arguments) -> Frame:
        trial = trial_in(given)
        times = _power_times(given, trial)
        looks, ratios = law_of(given)(trial, times)
        return Frame(
            analysis=np.arange(1.0, len(times) + 1),
            time=times,
            n=trial.subjects(times),
            event=np.array([trial.total_events(t) for t in times]),
            ahr=ratios,
            theta=looks.effect,
            info=looks.information,
            info0=looks.null_information,
        )

    return call


NATIVES: dict[str, Callable[[Environment, Call], Any]] = {"function": _capture}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "define_enroll_rate": bound("define_enroll_rate", {"duration": None, "rate": None, "stratum": "All"}, rate_table),
    "define_fail_rate": bound(
        "define_fail_rate",
        {"duration": None, "fail_rate": None, "dropout_rate": None, "hr": 1.0, "stratum": "All"},
        rate_table,
    ),
    "tibble": frame,
    "ahr": bound("ahr", {**TRIAL, "total_duration": 30.0, "ratio": 1.0, "simple": True}, _ahr),
    "pw_info": bound(
        "pw_info", {**TRIAL, "total_duration": 30.0, "ratio": 1.0}, lambda a: _ahr({**a, "simple": False})
    ),
    "expected_time": bound(
        "expected_time", {**TRIAL, "target_event": 150.0, "ratio": 1.0, "interval": None}, _expected_time
    ),
    "expected_accrual": bound("expected_accrual", {"time": None, "enroll_rate": ENROLL}, _expected_accrual),
    "expected_event": bound(
        "expected_event",
        {"enroll_rate": ENROLL, "fail_rate": FAIL, "total_duration": 25.0, "simple": True},
        _expected_event,
    ),
    "ppwe": bound("ppwe", {"x": None, "duration": None, "rate": None, "lower_tail": False}, _ppwe),
    "gs_info_ahr": bound("gs_info_ahr", {**_POWER, "event": None}, _info(by_ahr)),
    "gs_info_wlr": bound("gs_info_wlr", {**_POWER, "event": None, **_WEIGHT}, _info(by_weights)),
    "gs_design_ahr": bound("gs_design_ahr", _DESIGN, _design(by_ahr)),
    "gs_power_ahr": bound("gs_power_ahr", _POWER, _power(by_ahr)),
    "gs_design_wlr": bound("gs_design_wlr", {**_DESIGN, **_WEIGHT}, _design(by_weights)),
    "gs_power_wlr": bound("gs_power_wlr", {**_POWER, **_WEIGHT}, _power(by_weights)),
}
