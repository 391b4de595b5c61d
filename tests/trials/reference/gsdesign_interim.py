"""Crosswalk of gsDesign's conditional and predictive power to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.design.conditional_power import (
    TwoStage,
    predicted_statistic,
    predictive_power,
    probability_of_success,
    remainder,
)
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Frame
from tests.trials.reference.gsdesign_bounds import DESIGN, design, plan_of, probabilities
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers

Floats = NDArray[np.float64]
_LOOK: Arguments = {"x": None, "i": 1.0, "zi": 0.0}
_Z2: Arguments = {"z1": None, "x": None, "n2": None}


def _conditional(given: Arguments) -> dict[str, Any]:
    information, upper, lower = plan_of(given["x"])
    look, z = int(given["i"]), float(given["zi"])
    theta = given["theta"]
    if is_missing(theta):
        theta = [z / math.sqrt(information[look - 1]), *numbers(given["x"]["theta"])]
    rest = remainder(look, z, information, upper, lower)
    found = probabilities(rest.information, rest.upper, rest.lower, np.array(numbers(theta)))
    return {"k": float(len(rest.upper)), "theta": np.array(numbers(theta)), "n.I": rest.information, **found}


def _bound_conditional(given: Arguments) -> Floats:
    information, upper, lower = plan_of(given["x"])
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
    information, upper, lower = plan_of(given["x"])
    found = predictive_power(int(given["i"]), float(given["zi"]), information, upper, lower, (theta, weights))
    return found.sum() if given["total"] else found


def _prior_success(given: Arguments) -> float:
    information, upper, lower = plan_of(given["x"])
    prior = numbers(given["theta"]), numbers(given["wgts"])
    return probability_of_success(information, upper, lower, prior, int(given.get("i") or 0))


def _interval(given: Arguments) -> Floats:
    information, level = np.asarray(given["x"]["n.I"]), float(given["level"])
    known, later = (float(information[int(given[name]) - 1]) for name in ("i", "j"))
    prior = numbers(given["theta"]), numbers(given["wgts"])
    wanted = [0.5] if level == 0 else [(1 - level) / 2, (1 + level) / 2]
    return np.array([predicted_statistic(float(given["zi"]), (known, later), prior, each) for each in wanted])


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
    _, upper, lower = plan_of(x)
    largest = float(given["maxinc"]) * trial.planned
    rows = []
    for z in numbers(given["z1"]):
        theta = z / math.sqrt(trial.first) if is_missing(given["theta"]) else float(given["theta"])
        power = trial.conditional_power(z, trial.planned - trial.first, rule, theta)
        total = trial.promising_zone((adjust[0], adjust[1]), z, 1 - beta, rule, theta, largest)
        if z >= upper[0] or z <= lower[0]:
            total = trial.first + float(given["overrun"])
        rows.append({"z1": z, "n2": total, "CP": power, "theta": theta})
    return {**given, "dat": Frame({name: np.array([row[name] for row in rows]) for name in rows[0]})}


def _default_x(function: Callable[[Arguments], Any]) -> Callable[[Arguments], Any]:
    """Fills in gsDesign(k=2, timing=.5) where no design is given."""

    def call(given: Arguments) -> Any:
        if given["x"] is None:
            given = {**given, "x": design({**DESIGN, "k": 2.0, "timing": 0.5})}
        return function(given)

    return call


FUNCTIONS: dict[str, Callable[..., Any]] = {
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
