"""Crosswalk of rpact's group-sequential designs, and of its sizes and power for means and rates, to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from medtwin.trials.design.boundaries import exit_probabilities, fixed_drift
from medtwin.trials.design.means import MeansTest
from medtwin.trials.design.rates import OneRateTest, RatesTest
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.rpact_bounds import RPACT_DESIGN, RpactDesign, Stops, design_of, rpact_design
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers

Floats = NDArray[np.float64]
AnyTest = MeansTest | RatesTest | OneRateTest
NO_FUTILITY = -6.0  # rpact's futility bound where there is none


def group_sequential(given: Arguments) -> dict[str, Any]:
    """getDesignGroupSequential()."""
    return _described(rpact_design(given), given)


def _described(design: RpactDesign, given: Mapping[str, Any]) -> dict[str, Any]:
    bounds = design.bounds
    spent = np.cumsum(design.null_stops.reject)
    alternative = design.stops(bounds.drift if design.wedge is None else design.wedge.drift)
    if design.wedge is not None:
        futility = design.wedge.wedge[:-1]
    elif design.sided == 2:
        futility = np.full(len(bounds.efficacy) - 1, NO_FUTILITY)
    else:
        futility = np.maximum(bounds.futility[:-1], NO_FUTILITY)
    has_beta = given["typeBetaSpending"] != "none" or given["typeOfDesign"] == "PT"
    unknown = np.full(len(bounds.efficacy), np.nan)
    return {
        "_design": design,
        "kMax": float(len(bounds.efficacy)),
        "alpha": design.alpha,
        "beta": design.beta,
        "sided": float(design.sided),
        "informationRates": bounds.fractions,
        "criticalValues": bounds.efficacy,
        "futilityBounds": futility,
        "alphaSpent": spent,
        "stageLevels": norm.sf(bounds.efficacy),
        "power": np.cumsum(alternative.upper) if has_beta else unknown,
        "betaSpent": _beta_spent(alternative) if has_beta else unknown,
    }


def _beta_spent(alternative: Stops) -> Floats:
    """Missed by each look; at the last all that is not rejected."""
    missed = np.cumsum(alternative.futility)
    missed[-1] = 1 - alternative.reject.sum()
    return missed


def characteristics(given: Arguments) -> dict[str, Any]:
    """getDesignCharacteristics()."""
    design = design_of(given)
    bounds, ratio = design.bounds, design.inflation
    if len(bounds.efficacy) == 1:
        return _of_one_look(design)
    exits = design.stops(bounds.drift)
    futility = exits.futility[:-1]
    return {
        "nFixed": fixed_drift(design.one_sided_alpha, 1 - design.beta) ** 2,
        "shift": bounds.drift**2,
        "inflationFactor": ratio,
        "information": bounds.drift**2 * bounds.fractions,
        "power": np.cumsum(exits.upper),
        "rejectionProbabilities": exits.upper,
        "futilityProbabilities": futility,
        **{
            f"averageSampleNumber{name}": design.stops(at * bounds.drift).exits.expected(bounds.fractions) * ratio
            for name, at in (("1", 1.0), ("01", 0.5), ("0", 0.0))
        },
    }


def _of_one_look(design: RpactDesign) -> dict[str, Any]:
    """Of a fixed design R says no more than the number."""
    nothing = np.zeros(0)
    names = ("information", "averageSampleNumber1", "averageSampleNumber01", "averageSampleNumber0")
    return {
        "nFixed": design.bounds.drift**2,
        "shift": design.bounds.drift**2,
        "inflationFactor": 1.0,
        "power": 1 - design.beta,
        "rejectionProbabilities": math.nan,
        "futilityProbabilities": nothing,
        **dict.fromkeys(names, nothing),
    }


def power_and_sample_number(given: Arguments) -> dict[str, Any]:
    """getPowerAndAverageSampleNumber(): of a z test of one mean with deviation 1."""
    design, most = design_of(given), float(given["nMax"])
    rows = [_course(design, theta * math.sqrt(most), most) for theta in numbers(given["theta"])]
    found = _columns(rows)
    return {
        "theta": np.array(numbers(given["theta"])),
        "averageSampleNumber": found["expectedNumberOfSubjects"],
        "calculatedPower": found["overallReject"],
        "overallReject": found["overallReject"],
        "overallFutility": found["futilityStop"],
        "overallEarlyStop": found["earlyStop"],
        "rejectPerStage": found["rejectPerStage"],
        "futilityPerStage": found["futilityPerStage"],
    }


def group_sequential_probabilities(given: Arguments) -> Any:
    """getGroupSequentialProbabilities(): by look below the lower bound; below the upper bound; still there."""
    bounds = np.asarray(given["decisionMatrix"], dtype=np.float64)
    if bounds.shape[0] != 2:
        raise NotCoveredError("a decisionMatrix with bounds around a region in the middle")
    exits = exit_probabilities(numbers(given["informationRates"]), bounds[1], bounds[0], 0.0)
    there = 1.0 - np.concatenate([[0.0], np.cumsum(exits.upper + exits.lower)[:-1]])
    return np.array([exits.lower, there - exits.upper, there])


def _course(design: RpactDesign, drift: float, subjects: float) -> dict[str, Any]:
    """Where a trial of so many patients stops under a drift."""
    stops = design.stops(drift)
    return {
        **stops.by_stage,
        "expectedNumberOfSubjects": stops.exits.expected(design.bounds.fractions) * subjects,
    }


def _columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Results of several alternatives: vectors of them, or matrices with looks in rows."""
    return {name: _joined([row[name] for row in rows]) for name in rows[0]}


def _joined(values: list[Any]) -> Any:
    """Looks in rows, alternatives in columns; one column where they do not differ, as rpact shows it."""
    if not np.ndim(values[0]):
        return np.array(values)
    if all(np.array_equal(each, values[0], equal_nan=True) for each in values):
        return values[0]
    return np.column_stack(values)


# --- means and rates ---

_FIXED: Arguments = {"alpha": None, "beta": None, "sided": None}
_MEANS: Arguments = {
    "design": None,
    "groups": 2.0,
    "normalApproximation": False,
    "meanRatio": False,
    "thetaH0": None,
    "alternative": None,
    "stDev": 1.0,
}
_RATES: Arguments = {
    "design": None,
    "groups": 2.0,
    "normalApproximation": True,
    "riskRatio": False,
    "thetaH0": None,
    "pi1": None,
    "pi2": 0.2,
}
_EMPTY: dict[str, Any] = {
    f"{name}EffectScale{side}": np.zeros(0)
    for name in ("criticalValues", "futilityBounds")
    for side in ("", "Lower", "Upper")
} | {"futilityBoundsPValueScale": np.zeros(0)}
_SIZE: Arguments = {"allocationRatioPlanned": None, **_FIXED}
_POWER: Arguments = {"directionUpper": None, "maxNumberOfSubjects": None, "allocationRatioPlanned": None, **_FIXED}


@dataclass(frozen=True)
class _Question:
    """The tests of several alternatives, one for each."""

    tests: Callable[[float], list[AnyTest]]
    groups: int
    exact: bool = False


def _means(given: Arguments, alternatives: list[float]) -> _Question:
    is_ratio, groups = bool(given["meanRatio"]), int(given["groups"])
    null = (1.0 if is_ratio else 0.0) if is_missing(given["thetaH0"]) else float(given["thetaH0"])
    wanted = alternatives if is_missing(given["alternative"]) else numbers(given["alternative"])
    known = bool(given["normalApproximation"])

    def tests(ratio: float) -> list[AnyTest]:
        sds = numbers(given["stDev"])
        return [
            MeansTest(effect, sds[i % len(sds)], null, groups, is_ratio, ratio, known)
            for i, effect in enumerate(wanted)
        ]

    return _Question(tests, groups)


def _rates(given: Arguments, alternatives: list[float]) -> _Question:
    groups = int(given["groups"])
    wanted = alternatives if is_missing(given["pi1"]) else numbers(given["pi1"])
    null = None if is_missing(given["thetaH0"]) else float(given["thetaH0"])
    if groups == 1:
        one = [OneRateTest(rate, 0.5 if null is None else null) for rate in wanted]
        return _Question(lambda _: list(one), groups, exact=not given["normalApproximation"])
    if not given["normalApproximation"]:
        raise NotCoveredError("normalApproximation=FALSE of two rates")
    scale = "ratio" if given["riskRatio"] else "difference"

    def tests(ratio: float) -> list[AnyTest]:
        return [RatesTest(rate, float(given["pi2"]), null, scale, ratio) for rate in wanted]  # type: ignore[arg-type]

    return _Question(tests, groups)


def _ratio(given: Arguments) -> float:
    return 1.0 if is_missing(given["allocationRatioPlanned"]) else float(given["allocationRatioPlanned"])


def _sized(question: _Question, design: RpactDesign, ratio: float) -> dict[str, Any]:
    rows = []
    for i, test in enumerate(question.tests(ratio or 1.0)):
        used = ratio
        if ratio == 0:
            used = _best_ratio(question, i, design)
            test = question.tests(used)[i]
        fixed = _fixed_subjects(test, design, exact=question.exact)
        rows.append(_size_results(test, design, fixed, used if question.groups == 2 else math.nan))
    found = _columns(rows)
    found |= {name: found[name][:1] for name in ("overallReject", "earlyStop", "futilityStop")}
    if not _has_futility(design):
        found["futilityPerStage"] = np.zeros(0)
    return {**_EMPTY, **found, "informationRates": design.bounds.fractions}


def _best_ratio(question: _Question, i: int, design: RpactDesign) -> float:
    """The allocation ratio of fewest patients."""

    def subjects(log_ratio: float) -> float:
        return _fixed_subjects(question.tests(math.exp(log_ratio))[i], design, exact=False)

    return math.exp(minimize_scalar(subjects, bounds=(-2.0, 2.0), method="bounded", options={"xatol": 1e-8}).x)


def _fixed_subjects(test: AnyTest, design: RpactDesign, *, exact: bool) -> float:
    alpha, power = design.one_sided_alpha, 1 - design.beta
    if exact and isinstance(test, OneRateTest):
        return float(_bisected_subjects(test, alpha, power))
    if isinstance(test, MeansTest):
        return test.subjects(alpha, power)
    return test.subjects(alpha, power)


def _bisected_subjects(test: OneRateTest, alpha: float, power: float) -> int:
    """Where bisection between powers of two ends: the power saw-tooths, so this need not be the least number."""
    high = 2
    while test.exact_power(high, alpha) < power:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if test.exact_power(middle, alpha) >= power else (middle, high)
    return high


def _size_results(test: AnyTest, design: RpactDesign, fixed: float, ratio: float) -> dict[str, Any]:
    bounds = design.bounds
    most = fixed * design.inflation
    found = _course(design, bounds.drift, most)
    expected = {
        f"expectedNumberOfSubjects{name}": design.stops(at * bounds.drift).exits.expected(bounds.fractions) * most
        for name, at in (("H0", 0.0), ("H01", 0.5), ("H1", 1.0))
    }
    subjects = most * bounds.fractions
    if design.sided == 2:
        towards = design.stops(bounds.drift).towards.by_stage
        found |= {name: towards[name] for name in ("rejectPerStage", "earlyStop")}
    return {
        **found,
        **expected,
        **_arms("nFixed", fixed, ratio),
        **_arms("maxNumberOfSubjects", most, ratio),
        **_arms("numberOfSubjects", subjects, ratio),
        **_effect_scale(test, design, subjects, up=test.drift(most, design.one_sided_alpha) >= 0),
        "effect": _observed(test),
        "allocationRatioPlanned": ratio,
    }


def _arms(name: str, subjects: Any, ratio: float) -> dict[str, Any]:
    if math.isnan(ratio):
        return {name: subjects, f"{name}1": np.zeros(0), f"{name}2": np.zeros(0)}
    return {
        name: subjects,
        f"{name}1": subjects * ratio / (1 + ratio),
        f"{name}2": subjects / (1 + ratio),
    }


def _effect_scale(test: AnyTest, design: RpactDesign, subjects: Floats, *, up: bool) -> dict[str, Any]:
    """Bounds as effects, above the null or below it, and as p values."""
    bounds = design.bounds
    found: dict[str, Any] = {"criticalValuesPValueScale": norm.sf(bounds.efficacy) * design.sided}
    sign = 1.0 if design.sided == 2 or up else -1.0

    def effects(z: Floats) -> Floats:
        return np.array([test.effect_at(sign * each, n) for each, n in zip(z, subjects, strict=False)])

    found["criticalValuesEffectScale"] = effects(bounds.efficacy)
    if design.sided == 2:
        found["criticalValuesEffectScale"] = np.zeros(0)
        found["criticalValuesEffectScaleUpper"] = effects(bounds.efficacy)
        found["criticalValuesEffectScaleLower"] = effects(-bounds.efficacy)
        if design.wedge is not None:
            found["futilityBoundsPValueScale"] = norm.sf(design.wedge.wedge[:-1])
    elif _has_futility(design):
        found["futilityBoundsEffectScale"] = effects(bounds.futility[:-1])
        found["futilityBoundsPValueScale"] = norm.sf(bounds.futility[:-1])
    return found


def _has_futility(design: RpactDesign) -> bool:
    one_sided = design.sided == 1 and bool(np.isfinite(design.bounds.futility[:-1]).any())
    return design.wedge is not None or one_sided


def _observed(test: AnyTest) -> float:
    """The alternative less the null, or the ratio of the means or rates less theirs."""
    if isinstance(test, RatesTest):
        ratio = test.scale == "ratio"
        value = test.experimental / test.control if ratio else test.experimental - test.control
        return value - test.null_value
    return (test.effect if isinstance(test, MeansTest) else test.rate) - test.null


def _powered(question: _Question, design: RpactDesign, given: Arguments) -> dict[str, Any]:
    most, ratio = float(given["maxNumberOfSubjects"]), _ratio(given)
    shown = ratio if question.groups == 2 else math.nan
    up = is_missing(given["directionUpper"]) or bool(given["directionUpper"]) or design.sided == 2
    if question.exact:
        raise NotCoveredError("normalApproximation=FALSE of power")
    rows = []
    for test in question.tests(ratio):
        drift = test.drift(most, design.one_sided_alpha) * (1 if up else -1)
        subjects = most * design.bounds.fractions
        rows.append(
            {
                **_course(design, drift, most),
                **_arms("numberOfSubjects", subjects, shown),
                **_arms("maxNumberOfSubjects", most, shown),
                **_effect_scale(test, design, subjects, up=up),
                "effect": _observed(test),
            }
        )
    stages = {name: np.column_stack([row[name] for row in rows]) for name in ("rejectPerStage", "futilityPerStage")}
    if design.sided == 2 and not _has_futility(design):
        stages["futilityPerStage"] = np.full_like(stages["futilityPerStage"], np.nan)
    return {**_EMPTY, **_columns(rows), **stages, "informationRates": design.bounds.fractions}


def _grid(low: float, high: float, step: float) -> list[float]:
    return [low + step * i for i in range(round((high - low) / step) + 1)]


def sample_size_means(given: Arguments) -> dict[str, Any]:
    """getSampleSizeMeans()."""
    return _sized(_means(given, _grid(0.2, 1.0, 0.2)), design_of(given), _ratio(given))


def sample_size_rates(given: Arguments) -> dict[str, Any]:
    """getSampleSizeRates()."""
    return _sized(_rates(given, [0.4, 0.5, 0.6]), design_of(given), _ratio(given))


def power_means(given: Arguments) -> dict[str, Any]:
    """getPowerMeans()."""
    return _powered(_means(given, _grid(0.0, 1.0, 0.2)), design_of(given), given)


def power_rates(given: Arguments) -> dict[str, Any]:
    """getPowerRates()."""
    return _powered(_rates(given, _grid(0.2, 0.5, 0.1)), design_of(given), given)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "getDesignGroupSequential": bound("getDesignGroupSequential", RPACT_DESIGN, group_sequential),
    "getDesignInverseNormal": bound("getDesignInverseNormal", RPACT_DESIGN, group_sequential),
    "getDesignCharacteristics": bound("getDesignCharacteristics", {"design": None}, characteristics),
    "getPowerAndAverageSampleNumber": bound(
        "getPowerAndAverageSampleNumber",
        {"design": None, "theta": np.arange(-1.0, 1.01, 0.02), "nMax": 100.0},
        power_and_sample_number,
    ),
    "getGroupSequentialProbabilities": bound(
        "getGroupSequentialProbabilities",
        {"decisionMatrix": None, "informationRates": None},
        group_sequential_probabilities,
    ),
    "getSampleSizeMeans": bound("getSampleSizeMeans", {**_MEANS, **_SIZE}, sample_size_means),
    "getSampleSizeRates": bound("getSampleSizeRates", {**_RATES, **_SIZE}, sample_size_rates),
    "getPowerMeans": bound("getPowerMeans", {**_MEANS, **_POWER}, power_means),
    "getPowerRates": bound("getPowerRates", {**_RATES, **_POWER}, power_rates),
}
