"""Crosswalk of rpact's analysis of trials with stages to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.adaptive.combined_tests import (
    CombinedTest,
    FisherTest,
    GroupSequentialTest,
    InverseNormalTest,
)
from medtwin.trials.adaptive.planned_effects import effective_sizes, rate_effect
from medtwin.trials.adaptive.trial_analysis import TrialAnalysis
from medtwin.trials.design.combination import FisherDesign, fisher_design
from medtwin.trials.design.survival_size import effect_per_event
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.rpact_bounds import RPACT_DESIGN, rpact_design
from tests.trials.reference.rpact_data import Dataset, by_stage, dataset, stage_data
from tests.trials.reference.rpact_designs import group_sequential
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers, simple

Floats = NDArray[np.float64]
FISHER: Arguments = {
    "kMax": None,
    "alpha": 0.025,
    "method": "equalAlpha",
    "userAlphaSpending": None,
    "alpha0Vec": None,
    "informationRates": None,
    "sided": 1.0,
    "bindingFutility": None,
    "tolerance": 1e-14,
    "iterations": 0.0,
    "seed": None,
}
_METHODS: dict[str, Any] = {
    "equalAlpha": "equal_alpha",
    "fullAlpha": "full_alpha",
    "noInteraction": "no_interaction",
    "userDefinedAlpha": "user_defined_alpha",
}

# --- designs ---


def _group_sequential(kind: type[GroupSequentialTest]) -> Callable[[Arguments], dict[str, Any]]:
    def design(given: Arguments) -> dict[str, Any]:
        return {**group_sequential(given), "_test": lambda: _sequential_test(kind, given)}

    return design


def _sequential_test(kind: type[GroupSequentialTest], given: Arguments) -> GroupSequentialTest:
    plan = rpact_design(given)
    sided, bounds = plan.sided, plan.bounds
    futility = bounds.futility[:-1] if sided == 1 and len(bounds.futility) > 1 else np.zeros(0)
    if not np.isfinite(futility).any():
        futility = np.zeros(0)
    by_hand = given["typeOfDesign"] == "asUser"

    def at(alpha: float) -> Floats:
        return rpact_design({**given, "alpha": alpha * sided}).bounds.efficacy

    return kind(
        bounds.fractions,
        None if by_hand else at,
        plan.one_sided_alpha,
        bounds.efficacy,
        futility,
        bool(given["bindingFutility"]),
        sided == 2,
    )


def fisher(given: Arguments) -> dict[str, Any]:
    """getDesignFisher()."""
    if given["sided"] != 1:
        raise NotCoveredError("sided=2 of getDesignFisher()")
    alpha = float(given["alpha"])
    design = _fisher(given, alpha)
    by_hand = given["method"] == "userDefinedAlpha"
    test = FisherTest(design, None if by_hand else lambda level: _fisher(given, level), alpha)
    return {
        "_test": lambda: test,
        "kMax": float(len(design.critical)),
        "alpha": alpha,
        "method": given["method"],
        "informationRates": design.information,
        "criticalValues": design.critical,
        "alphaSpent": design.alpha_spent,
        "stageLevels": design.stage_levels,
        "alpha0Vec": design.futility,
        "scale": design.weights[1:],
        "nonStochasticCurtailment": bool(np.allclose(design.critical, design.critical[-1])),
    }


def _fisher(given: Arguments, alpha: float) -> FisherDesign:
    if is_missing(given["informationRates"]):
        looks = 3 if is_missing(given["kMax"]) else int(given["kMax"])
        for name, more in (("userAlphaSpending", 0), ("alpha0Vec", 1)):
            if is_missing(given["kMax"]) and not is_missing(given[name]):
                looks = len(numbers(given[name])) + more
        rates = [(k + 1) / looks for k in range(looks)]
    else:
        rates = numbers(given["informationRates"])
    futility = None if is_missing(given["alpha0Vec"]) or len(rates) == 1 else numbers(given["alpha0Vec"])
    binding = futility is not None and (given["bindingFutility"] is None or bool(given["bindingFutility"]))
    if given["method"] not in _METHODS:
        raise NotCoveredError(f"method={given['method']!r} of getDesignFisher()")
    spent = None if is_missing(given["userAlphaSpending"]) else numbers(given["userAlphaSpending"])
    method = _METHODS[given["method"]]
    return fisher_design(rates, alpha, method, futility=futility, binding=binding, spent=spent)


def test_of(design: Any) -> CombinedTest:
    """The test of a design."""
    if not isinstance(design, Mapping) or "_test" not in design:
        raise NotCoveredError("a design that is none of rpact's")
    found: CombinedTest = design["_test"]()
    return found


# --- analysis ---

OPTIONS: Arguments = {
    "design": None,
    "dataInput": None,
    "stage": None,
    "directionUpper": True,
    "thetaH0": None,
    "normalApproximation": None,
    "equalVariances": True,
}
PLANNING: Arguments = {
    "nPlanned": None,
    "allocationRatioPlanned": 1.0,
    "thetaH1": None,
    "assumedStDev": None,
    "pi1": None,
    "pi2": None,
}
IGNORED: Arguments = {"tolerance": 1e-6, "showWarnings": None, "iterations": None, "seed": None, "maxInformation": None}


@dataclass(frozen=True)
class Stages:
    """A getStageResults() of one hypothesis: the analysis, on the side of larger effects, and how to read it."""

    analysis: TrialAnalysis
    dataset: Dataset
    is_upper: bool
    theta0: float

    @property
    def looks(self) -> int:
        """Planned."""
        return self.analysis.test.looks

    def padded(self, values: Any) -> Floats:
        """With nan for looks to come."""
        found = np.full(self.looks, np.nan)
        found[: len(values)] = values
        return found

    def effect(self, value: Any) -> Any:
        """On R's scale: turned back, and the hazard ratio of its logarithm."""
        own = np.asarray(value if self.is_upper else -np.asarray(value), dtype=np.float64)
        return np.exp(own) if self.dataset.kind == "survival" else own

    def limits(self, lower: Any, upper: Any) -> tuple[Floats, Floats]:
        """On R's scale."""
        ends = self.effect(lower), self.effect(upper)
        return ends if self.is_upper else ends[::-1]


def _stages(given: Arguments) -> Stages:
    test, data = test_of(given["design"]), given["dataInput"]
    if not isinstance(data, Dataset):
        raise NotCoveredError("dataInput that is no getDataset()")
    if data.arms > 2:
        raise NotCoveredError(f"{data.arms} arms")
    stages = min(data.stages if is_missing(given["stage"]) else int(given["stage"]), test.looks)
    theta0 = _null(given["thetaH0"], data)
    null = math.log(theta0) if data.kind == "survival" else theta0
    found, is_upper = stage_data(data, stages, given), bool(given["directionUpper"])
    analysis = TrialAnalysis(test, found if is_upper else found.mirrored, null if is_upper else -null)
    return Stages(analysis, data, is_upper, theta0)


def _null(theta0: Any, data: Dataset) -> float:
    if not is_missing(theta0):
        return float(theta0)
    if data.kind == "rates" and data.arms == 1:
        raise NotCoveredError("thetaH0 left out of one rate")
    return 1.0 if data.kind == "survival" else 0.0


def stage_results(given: Arguments) -> dict[str, Any]:
    """getStageResults()."""
    return _stage_results(_stages(given))


def _stage_results(one: Stages) -> dict[str, Any]:
    data, test, null = one.analysis.data, one.analysis.test, one.analysis.null
    p_values = data.p_values(null)
    found: dict[str, Any] = {
        "_stages": one,
        "pValues": one.padded(p_values),
        "overallPValues": one.padded(data.cumulative_p_values(null)),
        "effectSizes": one.padded(one.effect(data.effects)),
        "combInverseNormal": None,
        "combFisher": None,
    }
    if isinstance(test, FisherTest):
        found |= {
            "combFisher": one.padded(test.design.products(p_values)),
            "weightsFisher": test.design.weights,
        }
    elif isinstance(test, GroupSequentialTest):
        found |= {"combInverseNormal": one.padded(test.combine(p_values)), "weightsInverseNormal": test.weights}
    return found


def _conditional_errors(one: Stages) -> Floats:
    test = one.analysis.test
    if isinstance(test, GroupSequentialTest) and test.two_sided:
        raise NotCoveredError("conditional rejection probabilities of a two-sided design")
    return one.analysis.conditional_errors


def _is_simulated(one: Stages, given: Arguments) -> bool:
    """Whether rpact simulates the conditional power; it then shows none but in conditionalPowerSimulated."""
    is_product = isinstance(one.analysis.test, FisherTest) and one.looks - one.analysis.data.stages > 1
    return is_product and not is_missing(given["nPlanned"])


def _conditional_power(one: Stages, given: Arguments) -> Floats:
    found = np.full(one.looks, np.nan)
    if is_missing(given["nPlanned"]):
        return found
    stage = one.analysis.data.stages
    if _is_simulated(one, given):
        raise NotCoveredError("conditional power of Fisher's product over several stages, which rpact simulates")
    ratio = float(given["allocationRatioPlanned"])
    planned = np.array(numbers(given["nPlanned"]))
    effect, sizes = _planned(one, given, planned, ratio)
    found[stage:] = one.analysis.conditional_power(effect if one.is_upper else -effect, sizes)
    return found


def _planned(one: Stages, given: Arguments, planned: Floats, ratio: float) -> tuple[float, Floats]:
    """The standardised effect and the effective sizes, as R counts the direction."""
    data = one.analysis.data
    observed = float(one.effect(data.effects)[-1])
    theta1 = observed if is_missing(given["thetaH1"]) else float(given["thetaH1"])
    if one.dataset.kind == "survival":
        return effect_per_event(theta1, ratio, one.theta0), planned
    sizes = effective_sizes(planned, ratio) if one.dataset.arms == 2 else planned
    if one.dataset.kind == "means":
        sd = float(data.scales[-1]) if is_missing(given["assumedStDev"]) else float(given["assumedStDev"])
        return (theta1 - one.theta0) / sd, sizes
    rates = _rates(one, given)
    error = float(one.analysis.conditional_errors[data.stages - 1])
    if one.is_upper:
        return rate_effect(rates, one.theta0, error, sizes, ratio), sizes
    others = 1 - rates[0], None if rates[1] is None else 1 - rates[1]
    null = -one.theta0 if rates[1] is not None else 1 - one.theta0
    return -rate_effect(others, null, error, sizes, ratio), sizes


def _rates(one: Stages, given: Arguments) -> tuple[float, float | None]:
    """Assumed, or observed of all stages so far."""
    found: list[float | None] = []
    stages = one.analysis.data.stages
    for arm, name in ((1, "pi1"), (2, "pi2")):
        if arm > one.dataset.arms:
            found.append(None)
        elif not is_missing(given[name]):
            found.append(float(given[name]))
        else:
            events, n = (by_stage(one.dataset, each, arm, stages).sum() for each in ("events", "n"))
            found.append(float(events / n))
    return float(found[0] or 0.0), found[1]


def _final(one: Stages) -> dict[str, Any]:
    """The final look, p value, estimate and limits; nan where rpact has none."""
    nothing = {"look": None, "p": math.nan, "estimate": math.nan, "lower": math.nan, "upper": math.nan}
    analysis, look = one.analysis, one.analysis.final_look
    if look is None or (isinstance(analysis.test, FisherTest) and look > 1 and one.looks > 2):
        return nothing
    found = {**nothing, "look": look, "p": analysis.final_p_value}
    is_fisher = isinstance(analysis.test, FisherTest)
    if is_fisher and (look > 1 or one.dataset.kind != "means"):
        return found
    inference = analysis.final_inference()
    if inference is None:
        return found
    lower, upper = one.limits(inference.lower, inference.upper)
    return {**found, "estimate": float(one.effect(inference.estimate)), "lower": float(lower), "upper": float(upper)}


def _at_look(one: Stages, found: Mapping[str, Any], name: str) -> Floats:
    values = np.full(one.looks, np.nan)
    if found["look"] is not None:
        values[found["look"] - 1] = found[name]
    return values


class Lazy(dict[str, Any]):
    """Components computed when they are read."""

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        return value() if callable(value) else value


def analysis_results(given: Arguments) -> dict[str, Any]:
    """getAnalysisResults()."""
    one = _stages(given)
    actions: list[Any] = [*one.analysis.actions, *[None] * one.looks][: one.looks]
    interval: list[tuple[Floats, Floats]] = []

    def limit(side: int) -> Floats:
        if not interval:
            interval.append(one.limits(*one.analysis.repeated_interval))
        return one.padded(_known(interval[0][side]))

    return Lazy(
        {
            ".stageResults": _stage_results(one),
            ".design": given["design"],
            "testActions": np.array(actions, dtype=object),
            "conditionalRejectionProbabilities": lambda: _conditional_errors(one),
            "conditionalPower": lambda: np.zeros(0) if _is_simulated(one, given) else _conditional_power(one, given),
            "conditionalPowerSimulated": lambda: _conditional_power(one, given) if _is_simulated(one, given) else None,
            "repeatedPValues": lambda: one.padded(one.analysis.repeated_p_values),
            "repeatedConfidenceIntervalLowerBounds": lambda: limit(0),
            "repeatedConfidenceIntervalUpperBounds": lambda: limit(1),
            "finalStage": lambda: _final(one)["look"],
            "finalPValues": lambda: _at_look(one, _final(one), "p"),
            "finalConfidenceIntervalLowerBounds": lambda: _at_look(one, _final(one), "lower"),
            "finalConfidenceIntervalUpperBounds": lambda: _at_look(one, _final(one), "upper"),
            "medianUnbiasedEstimates": lambda: _at_look(one, _final(one), "estimate"),
        }
    )


def _of_stages(given: Arguments) -> Stages:
    found = given["stageResults"]
    if not isinstance(found, Mapping) or not isinstance(found.get("_stages"), Stages):
        raise NotCoveredError("stageResults that are no getStageResults()")
    stages: Stages = found["_stages"]
    return stages


def _repeated_intervals(given: Arguments) -> Floats:
    one = _stages(given)
    return np.array([one.padded(_known(each)) for each in one.limits(*one.analysis.repeated_interval)])


def _known(limits: Floats) -> Floats:
    """R's NA where there is no bound, and so no limit."""
    return np.where(np.isfinite(limits), limits, np.nan)


def _final_interval(given: Arguments) -> dict[str, Any]:
    found = _final(_stages(given))
    return {
        "finalStage": found["look"],
        "medianUnbiased": found["estimate"],
        "finalConfidenceInterval": np.array([found["lower"], found["upper"]]),
    }


def _final_p(given: Arguments) -> dict[str, Any]:
    found = _final(_of_stages(given))
    return {"finalStage": found["look"], "pFinal": found["p"]}


def _power_result(given: Arguments) -> dict[str, Any]:
    one = _of_stages(given)
    return {"conditionalPower": _conditional_power(one, given), "nPlanned": simple(given["nPlanned"])}


_OF_STAGES: Arguments = {"stageResults": None, **IGNORED}
_SEQUENTIAL: dict[str, type[GroupSequentialTest]] = {
    "getDesignGroupSequential": GroupSequentialTest,
    "getDesignInverseNormal": InverseNormalTest,
}
_WITH_DATA: dict[str, tuple[Arguments, Callable[[Arguments], Any]]] = {
    "getStageResults": ({**OPTIONS, **IGNORED}, stage_results),
    "getAnalysisResults": ({**OPTIONS, **PLANNING, **IGNORED}, analysis_results),
    "getRepeatedConfidenceIntervals": ({**OPTIONS, **IGNORED}, _repeated_intervals),
    "getFinalConfidenceInterval": ({**OPTIONS, **IGNORED}, _final_interval),
    "getRepeatedPValues": (_OF_STAGES, lambda given: _padded_p_values(_of_stages(given))),
    "getConditionalRejectionProbabilities": (_OF_STAGES, lambda given: _conditional_errors(_of_stages(given))),
    "getConditionalPower": ({**_OF_STAGES, **PLANNING}, _power_result),
    "getFinalPValue": (_OF_STAGES, _final_p),
    "getTestActions": (
        _OF_STAGES,
        lambda given: np.array(_of_stages(given).analysis.actions, dtype=object),
    ),
}


def _padded_p_values(one: Stages) -> Floats:
    return one.padded(one.analysis.repeated_p_values)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: bound(name, RPACT_DESIGN, _group_sequential(kind)) for name, kind in _SEQUENTIAL.items()},
    "getDesignFisher": bound("getDesignFisher", FISHER, fisher),
    **{name: bound(name, formal, function) for name, (formal, function) in _WITH_DATA.items()},
    **{f"getDataset{suffix}": dataset for suffix in ("", "Means", "Rates", "Survival")},
}
