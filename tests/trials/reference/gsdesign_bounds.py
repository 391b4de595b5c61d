"""Crosswalk of gsDesign's group-sequential designs to medtwin's bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from medtwin.trials.design.changing_effects import futility_bounds, null_spending_bounds
from medtwin.trials.design.selected_looks import (
    TestedLooks,
    exits_with_harm,
    harm_bounds,
    selected_spending_both,
    spent_where_tested,
)
from medtwin.trials.design.spending import (
    BetaSpending,
    ExponentialSpending,
    GappedSpending,
    PointSpending,
    Quantiles,
    Spending,
    SpendingFunction,
    TrimmedSpending,
    TruncatedSpending,
    TwoParameterSpending,
)
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.rpact_bounds import symmetric_bounds
from tests.trials.reference.signatures import Arguments, bound, flags, is_missing, numbers, refuse

Floats = NDArray[np.float64]
VARIABLES = {
    name: name
    for name in (
        *("sfLDOF", "sfLDPocock", "sfHSD", "sfPower", "sfPoints", "z2NC", "z2Z", "z2Fisher", "sfExponential"),
        *("sfLogistic", "sfNormal", "sfCauchy", "sfExtremeValue", "sfExtremeValue2", "sfTDist", "sfBetaDist"),
        *("sfLinear", "sfStep", "sfTrimmed", "sfTruncated", "sfGapped"),
    )
}
NO_BOUND = 20.0  # gsDesign's bound where there is none

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
    "testUpper": True,
    "testLower": True,
    "sfharm": "sfHSD",
    "sfharmparam": -2.0,
    "testHarm": True,
}


def _two_parameters(law: Quantiles) -> Callable[[list[float]], SpendingFunction]:
    """Of (intercept, slope), or of two fractions and the shares spent by them; Student's law has its freedom last."""

    def built(parameters: list[float]) -> SpendingFunction:
        freedom = parameters[-1] if law == "student" else None
        rest = parameters[:-1] if law == "student" else parameters
        if len(rest) == 2:
            return TwoParameterSpending(law, rest[0], rest[1], freedom)
        if len(rest) != 4:
            raise NotCoveredError(f"{len(rest)} parameters of a spending function of the law {law}")
        return TwoParameterSpending.through(law, (rest[0], rest[1]), (rest[2], rest[3]), freedom)

    return built


def _points(parameters: list[float], *, steps: bool) -> PointSpending:
    half = len(parameters) // 2
    return PointSpending(tuple(parameters[:half]), tuple(parameters[half:]), steps)


_OTHERS: dict[str, Callable[[list[float]], SpendingFunction]] = {
    "sfExponential": lambda parameters: ExponentialSpending(parameters[0]),
    "sfBetaDist": lambda parameters: BetaSpending(parameters[0], parameters[1]),
    "sfLinear": lambda parameters: _points(parameters, steps=False),
    "sfStep": lambda parameters: _points(parameters, steps=True),
    "sfLogistic": _two_parameters("logistic"),
    "sfNormal": _two_parameters("normal"),
    "sfCauchy": _two_parameters("cauchy"),
    "sfExtremeValue": _two_parameters("extreme_value"),
    "sfExtremeValue2": _two_parameters("extreme_value_2"),
    "sfTDist": _two_parameters("student"),
}


_IN_RANGE: dict[str, Callable[[SpendingFunction, float, float], SpendingFunction]] = {
    "sfTrimmed": TrimmedSpending,
    "sfTruncated": TruncatedSpending,
    "sfGapped": GappedSpending,
}
_NAMED = {"sfLDOF": "obrien_fleming", "sfLDPocock": "pocock", "sfHSD": "hwang_shih_decani", "sfPower": "kim_demets"}


def spent(kind: Any, parameter: Any, t: Floats, total: float) -> Floats:
    """The error that a spending function of gsDesign has spent at the looks."""
    if kind == "sfPoints":
        return total * np.array([*numbers(parameter), 1.0])[: len(t)]
    if kind == "sfLDOF" and not is_missing(parameter) and np.ndim(parameter) == 0 and float(parameter) > 0:
        t = t ** float(parameter)
    return np.asarray(_function(kind, parameter).spent(t, total))


def _function(kind: Any, parameter: Any) -> SpendingFunction:
    if kind in _IN_RANGE:
        start, end = numbers(parameter["trange"])
        return _IN_RANGE[kind](_function(parameter["sf"], parameter.get("param")), start, end)
    if kind in _OTHERS:
        return _OTHERS[kind](numbers(parameter))
    if kind not in _NAMED:
        raise NotCoveredError(f"the spending function {kind!r}")
    parametric = kind in ("sfHSD", "sfPower")
    return Spending(_NAMED[kind], float(parameter) if parametric else None)  # type: ignore[arg-type]


class Spent:
    """A spending function of gsDesign, as medtwin's."""

    def __init__(self, kind: Any, parameter: Any, at: Floats) -> None:
        self._kind, self._parameter, self._at = kind, parameter, at

    def spent(self, fraction: Any, total: float) -> Floats:
        """The error spent at the looks."""
        return spent(self._kind, self._parameter, self._at, total)


def design(given: Arguments) -> dict[str, Any]:
    """gsDesign()."""
    refuse("gsDesign", given, DESIGN, "overrun", *([] if _is_updated(given) else ["maxn.IPlan"]))
    kind, alpha, beta = int(given["test.type"]), float(given["alpha"]), float(given["beta"])
    unit, delta, fixed = fixed_drift(alpha, 1 - beta), float(given["delta"]), float(given["n.fix"])
    fixed = fixed if delta == 0 else (unit / delta) ** 2
    delta = unit / math.sqrt(fixed)
    if _is_updated(given):
        information = np.array(numbers(given["n.I"]))
        bounds = _updated(given, kind, information, delta)
    else:
        bounds = _bounds(given, kind, _timing(given), alpha, beta)
        information = fixed * (bounds.drift / unit) ** 2 * bounds.fractions
    theta = np.array([0.0, delta])
    return {
        "k": float(len(information)),
        "test.type": float(kind),
        "alpha": alpha,
        "beta": beta,
        "n.fix": fixed,
        "timing": information / information[-1],
        "delta": delta,
        "theta": theta,
        "n.I": information,
        **_crossings(given, kind, information, bounds, theta),
    }


def _crossings(given: Arguments, kind: int, information: Floats, bounds: Bounds, theta: Floats) -> dict[str, Any]:
    """Bounds and crossing probabilities; with bounds for harm, those of the three are exclusive."""
    if kind not in (7, 8):
        return probabilities(information, bounds.efficacy, bounds.futility, theta)
    looks = len(information)
    total = float(given["astar"]) or 0.1
    spends = spent(given["sfharm"], given["sfharmparam"], information / information[-1], total)
    spends = spent_where_tested(spends, flags(given["testHarm"], looks))
    if flags(given["testHarm"], looks)[-1] and not flags(given["testLower"], looks)[-1]:
        raise NotCoveredError("testHarm at the last analysis without testLower")
    harm = harm_bounds(information, bounds.efficacy, bounds.futility, spends)
    drifts = [each * math.sqrt(information[-1]) for each in theta]
    exits = [exits_with_harm(information, bounds.efficacy, bounds.futility, harm, drift) for drift in drifts]
    stops = [each.upper + each.futility + each.harm for each in exits]
    return {
        "upper": _side(bounds.efficacy, [each.upper for each in exits]),
        "lower": _side(bounds.futility, [each.futility for each in exits]),
        "harm": _side(harm, [each.harm for each in exits]),
        "en": np.array([each[:-1] @ information[:-1] + (1 - each[:-1].sum()) * information[-1] for each in stops]),
    }


def _side(bound_: Floats, probability: list[Floats]) -> dict[str, Any]:
    return {"bound": np.clip(bound_, -NO_BOUND, NO_BOUND), "prob": np.column_stack(probability)}


def probabilities(information: Floats, upper: Floats, lower: Floats, theta: Floats) -> dict[str, Any]:
    """Bounds and the probabilities to cross them, (looks, thetas), as gsProbability() gives them."""
    exits = [exit_probabilities(information, upper, lower, each * math.sqrt(information[-1])) for each in theta]
    en = np.array([each.expected(information) for each in exits])
    return {
        "upper": _side(upper, [each.upper for each in exits]),
        "lower": _side(lower, [each.lower for each in exits]),
        "en": en,
    }


def _timing(given: Arguments) -> Floats:
    looks, timing = int(given["k"]), numbers(given["timing"])
    if len(timing) == looks - 1:
        timing = [*timing, 1.0]
    if len(timing) != looks or looks == 1:
        return np.arange(1, looks + 1) / looks
    return np.array(timing)


def _is_updated(given: Arguments) -> bool:
    return not is_missing(given["n.I"]) and len(numbers(given["n.I"])) > 1


def _updated(given: Arguments, kind: int, information: Floats, delta: float) -> Bounds:
    """Bounds at the information that was observed, spent by its fraction of the planned maximum."""
    planned = float(given["maxn.IPlan"]) or information[-1]
    at = np.minimum(information / planned, 1.0)
    looks, alpha, beta = len(at), float(given["alpha"]), float(given["beta"])
    upper_at, lower_at = (
        at if is_missing(given[name]) else np.array(numbers(given[name])) for name in ("usTime", "lsTime")
    )
    if given["sfu"] in ("OF", "Pocock", "WT") or kind > 6:
        raise NotCoveredError(f"n.I with test.type={kind} and sfu={given['sfu']!r}")
    drift = delta * math.sqrt(information[-1])
    efficacy, futility = _flags(given, kind, looks)
    alphas = spent_where_tested(spent(given["sfu"], given["sfupar"], upper_at, alpha), efficacy)
    if kind in (1, 2):
        upper = cumulative_bounds(information, alphas, two_sided=kind == 2)
        lower = -upper if kind == 2 else np.full(looks, -np.inf)
        return Bounds(at, upper, lower, drift)
    total = beta if kind in (3, 4) else float(given["astar"]) or 1 - alpha
    lows = spent_where_tested(spent(given["sfl"], given["sflpar"], lower_at, total), futility)
    if kind in (5, 6):
        return Bounds(at, *null_spending_bounds(information, alphas, lows, binding=kind == 5), drift)
    upper, means = cumulative_bounds(information, alphas), delta * np.sqrt(information)
    lower = futility_bounds(information, upper, means, lows)
    for _ in range(50 if kind == 3 else 0):
        upper = cumulative_bounds(information, alphas, lower=lower)
        lower = futility_bounds(information, upper, means, lows)
    return Bounds(at, upper, lower, drift)


def _flags(given: Arguments, kind: int, looks: int) -> tuple[list[bool], list[bool]]:
    """At which looks there is an efficacy and a futility bound."""
    if kind in (1, 2):
        return [True] * looks, [True] * looks
    return flags(given["testUpper"], looks), flags(given["testLower"], looks)


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
            upper = cumulative_bounds(t, spent(given["sfu"], given["sfupar"], upper_at, alpha), two_sided=two)
        return efficacy_only(t, upper, 1 - beta) if kind == 1 else symmetric_bounds(t, upper, 1 - beta)
    if shaped:
        raise NotCoveredError(f"sfu={given['sfu']!r} with test.type={kind}")
    spending = Spent(given["sfu"], given["sfupar"], upper_at), Spent(given["sfl"], given["sflpar"], lower_at)
    tested = _flags(given, kind, len(t))
    if kind in (3, 4, 7, 8):
        binding = kind in (3, 7)
        if all(map(all, tested)):
            return spending_both(t, alpha, beta, spending, binding=binding)  # type: ignore[arg-type]
        return selected_spending_both(t, alpha, beta, spending, TestedLooks(*tested), binding=binding)
    if kind not in (5, 6):
        raise NotCoveredError(f"test.type={kind}")
    total = float(given["astar"]) or 1 - alpha
    wanted = [
        spent_where_tested(each.spent(t, error), looks)
        for each, error, looks in zip(spending, (alpha, total), tested, strict=True)
    ]
    return _null_lower(t, beta, wanted, binding=kind == 5)


def _null_lower(t: Floats, beta: float, cumulative: list[Floats], *, binding: bool) -> Bounds:
    """Lower bounds that spend an error under the null."""
    upper, lower = null_spending_bounds(t, cumulative[0], cumulative[1], binding=binding)
    kept = lower[-1]
    found = with_futility(t, upper, lower, 1 - beta)
    found.futility[-1] = kept
    return found


def plan_of(x: Mapping[str, Any]) -> tuple[Floats, Floats, Floats]:
    """Information, upper and lower bounds of a design."""
    lower = np.asarray(x["lower"]["bound"], dtype=np.float64).copy()
    lower[lower <= -NO_BOUND] = -np.inf
    if int(x["test.type"]) == 1:
        lower[:] = -np.inf
    return np.asarray(x["n.I"]), np.asarray(x["upper"]["bound"]), lower


def _probability(given: Arguments) -> dict[str, Any]:
    x, theta = given["d"], np.array(numbers(given["theta"]))
    if x is None:
        information, upper = np.array(numbers(given["n.I"])), np.array(numbers(given["b"]))
        lower = np.array(numbers(given["a"]))
        return {"k": given["k"], "theta": theta, "n.I": information, **probabilities(information, upper, lower, theta)}
    information, upper, lower = plan_of(x)
    return {**x, "theta": theta, **probabilities(information, upper, lower, theta)}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "gsDesign": bound("gsDesign", DESIGN, design),
    "gsProbability": bound(
        "gsProbability",
        {"k": 0.0, "theta": None, "n.I": None, "a": None, "b": None, "r": 18.0, "d": None},
        _probability,
    ),
}
