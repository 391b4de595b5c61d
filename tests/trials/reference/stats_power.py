"""Crosswalk of R's power.*.test and gsDesign's sizes for rates and means to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from medtwin.trials.design.log_rates import LogRatesTest
from medtwin.trials.design.means import MeansTest, anova_power
from medtwin.trials.design.rates import RatesTest
from medtwin.trials.restricted_rates import restricted_rates
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Frame
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers

_PROPORTIONS: Arguments = {
    "n": None,
    "p1": None,
    "p2": None,
    "sig.level": 0.05,
    "power": None,
    "alternative": "two.sided",
    "strict": False,
    "tol": 1e-6,
}
_T: Arguments = {
    "n": None,
    "delta": None,
    "sd": 1.0,
    "sig.level": 0.05,
    "power": None,
    "type": "two.sample",
    "alternative": "two.sided",
    "strict": False,
    "tol": 1e-6,
}
_ANOVA: Arguments = {
    "groups": None,
    "n": None,
    "between.var": None,
    "within.var": None,
    "sig.level": 0.05,
    "power": None,
}


def _solved(
    given: Arguments, power: Callable[[Arguments], float], brackets: dict[str, tuple[float, float]]
) -> Arguments:
    """The arguments with the one that is missing solved for."""
    if is_missing(given["power"]):
        return {**given, "power": _powers(given, power)}
    missing = [name for name in brackets if is_missing(given[name])]
    if len(missing) != 1:
        raise NotCoveredError(f"{len(missing)} arguments to solve for")
    name = missing[0]
    low, high = brackets[name]
    wanted = float(given["power"])
    found = brentq(lambda value: power({**given, name: value}) - wanted, low, high, xtol=1e-12, rtol=1e-13)
    return {**given, name: found}


def _powers(given: Arguments, power: Callable[[Arguments], float]) -> Any:
    """The power, or that for each element of the arguments that are vectors."""
    vectors = {name: numbers(value) for name, value in given.items() if np.ndim(value) == 1}
    if not vectors:
        return power(given)
    size = max(map(len, vectors.values()))
    return np.array(
        [power({**given, **{name: each[i % len(each)] for name, each in vectors.items()}}) for i in range(size)]
    )


def _sides(given: Arguments) -> int:
    return 1 if given["alternative"] == "one.sided" else 2


def power_of_proportions(given: Arguments) -> float:
    """Two rates, as many patients in each arm."""
    p1, p2, per_arm = (float(given[name]) for name in ("p1", "p2", "n"))
    if p1 == p2:
        return float(given["sig.level"]) / _sides(given)
    test, alpha = RatesTest(p1, p2), float(given["sig.level"]) / _sides(given)
    found = test.power(2 * per_arm, alpha)
    if given["strict"] and _sides(given) == 2:
        bound_, shift = float(norm.isf(alpha)) * test.null_deviation, abs(test.effect) * math.sqrt(2 * per_arm)
        found += float(norm.cdf((-bound_ - shift) / test.deviation))
    return found


def power_prop_test(given: Arguments) -> Arguments:
    """power.prop.test()."""
    p1 = 1e-9 if is_missing(given["p1"]) else float(given["p1"])
    p2 = 1 - 1e-9 if is_missing(given["p2"]) else float(given["p2"]) - 1e-9
    brackets = {"n": (1.0, 1e7), "p2": (p1 + 1e-9, 1 - 1e-9), "p1": (1e-9, p2), "sig.level": (1e-10, 1 - 1e-10)}
    return _solved(given, power_of_proportions, brackets)


def power_of_t(given: Arguments) -> float:
    """One mean, pairs or two means, as many patients in each arm."""
    delta, sd, per_arm = (float(given[name]) for name in ("delta", "sd", "n"))
    groups = 2 if given["type"] == "two.sample" else 1
    test = MeansTest(delta, sd, groups=groups)
    both = bool(given["strict"]) and _sides(given) == 2
    if delta < 0 and _sides(given) == 1:
        raise NotCoveredError("a negative delta of one side")
    return test.rejects(groups * per_arm, float(given["sig.level"]) / _sides(given), both_sides=both)


def power_t_test(given: Arguments) -> Arguments:
    """power.t.test()."""
    sd = 1.0 if is_missing(given["sd"]) else float(given["sd"])
    delta = 1.0 if is_missing(given["delta"]) else float(given["delta"])
    brackets = {
        "n": (2.0, 1e7),
        "delta": (sd * 1e-7, sd * 1e7),
        "sd": (delta * 1e-7, delta * 1e7),
        "sig.level": (1e-10, 1 - 1e-10),
    }
    return _solved(given, power_of_t, brackets)


def power_of_anova(given: Arguments) -> float:
    """One-way analysis of variance."""
    return anova_power(
        float(given["groups"]),
        float(given["n"]),
        float(given["between.var"]),
        float(given["within.var"]),
        float(given["sig.level"]),
    )


def power_anova_test(given: Arguments) -> Arguments:
    """power.anova.test()."""
    within = 1.0 if is_missing(given["within.var"]) else float(given["within.var"])
    between = 1.0 if is_missing(given["between.var"]) else float(given["between.var"])
    brackets = {
        "groups": (2.0, 1e2),
        "n": (2.0, 1e5),
        "between.var": (within * 1e-7, within * 1e7),
        "within.var": (between * 1e-7, between * 1e7),
        "sig.level": (1e-10, 1 - 1e-10),
    }
    return _solved(given, power_of_anova, brackets)


_BINOMIAL: Arguments = {
    "p1": None,
    "p2": None,
    "alpha": 0.025,
    "beta": 0.1,
    "delta0": 0.0,
    "ratio": 1.0,
    "sided": 1.0,
    "outtype": 1.0,
    "scale": "Difference",
    "n": None,
}


def _one_binomial(given: Arguments) -> dict[str, float]:
    """One comparison of nBinomial(); arm 2 : arm 1 is the ratio."""
    alpha, ratio = float(given["alpha"]) / float(given["sided"]), 1 / float(given["ratio"])
    p1, p2, delta = (float(given[name]) for name in ("p1", "p2", "delta0"))
    scale = str(given["scale"]).lower()
    test: RatesTest | LogRatesTest
    if scale in ("or", "lnor"):
        test = LogRatesTest(p1, p2, math.exp(delta), "odds_ratio", ratio, null_variance=scale == "or")
        null_rates = restricted_rates((p1, p2), math.exp(delta), scale="odds_ratio", allocation_ratio=ratio)
    elif scale in ("difference", "rr"):
        kind, null = ("difference", delta) if scale == "difference" else ("ratio", math.exp(delta))
        test = RatesTest(p1, p2, null, kind, ratio)  # type: ignore[arg-type]
        null_rates = test.null_rates
    else:
        raise NotCoveredError(f"scale={given['scale']!r} of nBinomial()")
    n = test.subjects(alpha, 1 - float(given["beta"])) if is_missing(given["n"]) else float(given["n"])
    power = 1 - float(given["beta"]) if is_missing(given["n"]) else test.power(n, alpha)
    return {
        "n": n,
        **_arm_sizes(n, float(given["ratio"])),
        "alpha": float(given["alpha"]),
        "sided": float(given["sided"]),
        "beta": 1 - power,
        "Power": power,
        "sigma0": test.null_deviation,
        "sigma1": test.deviation,
        "p1": p1,
        "p2": p2,
        "delta0": delta,
        "p10": null_rates[0],
        "p20": null_rates[1],
    }


def _arm_sizes(n: float, ratio: float) -> dict[str, float]:
    return {"n1": n / (1 + ratio), "n2": n * ratio / (1 + ratio)}


def _over_vectors(given: Arguments, one: Callable[[Arguments], dict[str, float]], *names: str) -> Any:
    """The results for each element of the vectors, in the form of outtype."""
    lists = {name: numbers(given[name]) for name in names if not is_missing(given[name])}
    size = max(map(len, lists.values()))
    rows = [one({**given, **{name: values[i % len(values)] for name, values in lists.items()}}) for i in range(size)]
    table = Frame({name: np.array([row[name] for row in rows]) for name in rows[0]})
    has_n = not is_missing(given["n"])
    match int(given["outtype"]):
        case 1:
            return table["Power" if has_n else "n"]
        case 2:
            return Frame({name: table[name] for name in ("n1", "n2", *(["Power"] if has_n else []))})
        case 3:
            return table
    raise NotCoveredError(f"outtype={given['outtype']!r}")


def n_binomial(given: Arguments) -> Any:
    """nBinomial(): patients in all, or power where n is given."""
    return _over_vectors(given, _one_binomial, "p1", "p2", "n", "delta0", "ratio", "beta")


_NORMAL: Arguments = {
    "delta1": 1.0,
    "sd": 1.7,
    "sd2": None,
    "alpha": 0.025,
    "beta": 0.1,
    "ratio": 1.0,
    "sided": 1.0,
    "n": None,
    "delta0": 0.0,
    "outtype": 1.0,
}


def _one_normal(given: Arguments) -> dict[str, float]:
    """One comparison of nNormal(); deviations known."""
    sd, r = float(given["sd"]), float(given["ratio"])
    other = sd if is_missing(given["sd2"]) else float(given["sd2"])
    # Arms with deviations of their own are one of a common one, at the allocation 1 : ratio.
    common = math.sqrt((1 + r) * (sd**2 + other**2 / r)) / 2
    test = MeansTest(float(given["delta1"]), common, float(given["delta0"]), known_sd=True)
    alpha, beta = float(given["alpha"]) / float(given["sided"]), float(given["beta"])
    n = test.subjects(alpha, 1 - beta) if is_missing(given["n"]) else float(given["n"])
    power = 1 - beta if is_missing(given["n"]) else test.rejects(n, alpha)
    return {
        "n": n,
        **_arm_sizes(n, r),
        "alpha": float(given["alpha"]),
        "sided": float(given["sided"]),
        "beta": 1 - power,
        "Power": power,
        "sd": sd,
        "sd2": other,
        "delta1": float(given["delta1"]),
        "delta0": float(given["delta0"]),
        "se": test.standard_error / math.sqrt(n),
    }


def n_normal(given: Arguments) -> Any:
    """nNormal(): patients in all, or power where n is given."""
    return _over_vectors(given, _one_normal, "delta1", "n", "delta0", "ratio", "sd", "sd2", "beta")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "power.prop.test": bound("power.prop.test", _PROPORTIONS, power_prop_test),
    "power.t.test": bound("power.t.test", _T, power_t_test),
    "power.anova.test": bound("power.anova.test", _ANOVA, power_anova_test),
    "nBinomial": bound("nBinomial", _BINOMIAL, n_binomial),
    "nNormal": bound("nNormal", _NORMAL, n_normal),
}
