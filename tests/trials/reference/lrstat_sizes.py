"""Crosswalk of lrstat's designs for means and rates to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from medtwin.trials.design.boundaries import exit_probabilities
from medtwin.trials.design.changing_effects import Looks, scale_for_power, stopping
from medtwin.trials.design.fisher_exact import fisher_arms, fisher_power, fisher_subjects
from medtwin.trials.design.log_rates import LogRatesTest
from medtwin.trials.design.means import MeansTest
from medtwin.trials.design.ordinal import OrdinalTest
from medtwin.trials.design.rates import OneRateTest, RatesTest
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Frame
from tests.trials.reference.lrstat_designs import DESIGN, NO_BOUND, Plan, plan_of
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """What is tested.

    Attributes:
        effect: Under the alternative minus under the null. variance: For one patient in all.
        null_variance: What the test takes it for.
        scale: From an effect minus that under the null to what is reported, and what that is called.
        name: For reports. test: The t test, where there is one.
    """

    effect: float
    variance: float
    null_variance: float
    scale: Callable[[Any], Any]
    name: str
    test: MeansTest | None = None


def _mean(given: Arguments, name: str, null: float, effect: float, sd: float, *, groups: int, log: bool) -> Quantity:
    """A mean, or the logarithm of a ratio of means."""
    if log:
        null, effect, sd = math.log(null), math.log(effect), math.sqrt(math.log(1 + sd**2))
    if "XO" in name:
        # Each patient is compared with himself, so that half the variance of one value is left.
        sd /= math.sqrt(2)
    known = bool(given["normalApproximation"])
    ratio = float(given.get("allocationRatioPlanned", 1.0))
    test = MeansTest(effect, sd, null, groups, allocation_ratio=ratio, known_sd=known)
    variance = test.standard_error**2
    scale = (lambda shift: np.exp(null + shift)) if log else (lambda shift: null + shift)
    return Quantity(effect - null, variance, variance, scale, name.replace("XO", ""), None if known else test)


def _rate(given: Arguments, name: str, null: float) -> Quantity:
    p1, p2, ratio = float(given["pi1"]), float(given["pi2"]), float(given["allocationRatioPlanned"])
    of_null = bool(given["nullVariance"])
    if name == "RiskDiff":
        test = RatesTest(p1, p2, null, allocation_ratio=ratio)
        deviation = test.null_deviation if of_null else test.deviation
        return Quantity(test.effect, test.deviation**2, deviation**2, lambda shift: null + shift, name)
    scale = "ratio" if name == "RiskRatio" else "odds_ratio"
    log = LogRatesTest(p1, p2, null, scale, ratio, of_null)  # type: ignore[arg-type]
    return Quantity(log.effect, log.deviation**2, log.null_deviation**2, lambda shift: null * np.exp(shift), name)


def _looks(quantity: Quantity, plan: Plan, subjects: float) -> Looks:
    """The trial at its information rates; the null's information studentises the test."""
    at = subjects * plan.rates
    effect = np.full(len(at), abs(quantity.effect))
    return Looks(effect, at / quantity.variance, at / quantity.null_variance)


def _lower(plan: Plan, looks: Looks, beta: float | None) -> Floats:
    """Futility bounds of the studentised statistic."""
    scale = looks.bound_scale
    scaled = Plan(plan.rates, plan.upper * scale, plan.lower * scale, plan.given)
    return np.asarray(scaled.futility(looks.information, looks.means, beta) / scale)


def _fixed_t(given: Arguments, quantity: Quantity, test: MeansTest) -> dict[str, Any]:
    """One look of a t test."""
    alpha = float(given["alpha"])
    n = float(given["n"]) if is_missing(given["beta"]) else test.subjects(alpha, 1 - float(given["beta"]))
    n = math.ceil(n - 1e-9) if given["rounding"] else n
    critical = float(t.isf(alpha, n - test.groups))
    information = n / quantity.variance
    drift = abs(quantity.effect) * math.sqrt(information)
    sign = math.copysign(1.0, quantity.effect)
    overall = {
        "overallReject": test.rejects(n, alpha),
        "alpha": alpha,
        "attainedAlpha": alpha,
        "kMax": 1.0,
        "theta": abs(quantity.effect),
        "information": information,
        "expectedInformationH1": information,
        "expectedInformationH0": information,
        "drift": drift,
        "inflationFactor": 1.0,
        "numberOfSubjects": n,
        "expectedNumberOfSubjectsH1": n,
        "expectedNumberOfSubjectsH0": n,
    }
    stages = {
        "informationRates": 1.0,
        "efficacyBounds": critical,
        "rejectPerStage": test.rejects(n, alpha),
        "cumulativeRejection": test.rejects(n, alpha),
        "cumulativeAlphaSpent": alpha,
        f"efficacy{quantity.name}": quantity.scale(sign * critical / math.sqrt(information)),
        "efficacyP": alpha,
        "information": information,
        "numberOfSubjects": n,
    }
    return {"overallResults": Frame(overall), "byStageResults": Frame(stages), "settings": given}


def _designed(given: Arguments, quantity: Quantity) -> dict[str, Any]:
    """lrstat's components of a design of a normal statistic."""
    _refuse_flags(given)
    plan = plan_of(given)
    if quantity.test is not None and len(plan.rates) == 1:
        return _fixed_t(given, quantity, quantity.test)
    beta = None if is_missing(given["beta"]) else float(given["beta"])
    if beta is None:
        n = float(given["n"])
    else:
        one = _looks(quantity, plan, 1.0)
        n = scale_for_power(one, 1 - beta, lambda at: stopping(at, plan.upper, _lower(plan, at, beta)).power)
    if given["rounding"]:
        n = math.ceil(n - 1e-9)
        counts = np.floor(n * plan.rates + 0.5)
        plan = plan_of({**given, "informationRates": counts / n})
        beta = None
    return _results(given, quantity, plan, n, beta)


def _results(given: Arguments, quantity: Quantity, plan: Plan, n: float, beta: float | None) -> dict[str, Any]:
    looks = _looks(quantity, plan, n)
    lower = _lower(plan, looks, beta)
    exits = stopping(looks, plan.upper, lower)
    null = exit_probabilities(looks.null_information, plan.upper, lower, 0.0)
    spent = exit_probabilities(looks.null_information, plan.upper, None, 0.0).upper.cumsum()
    counts, shown = n * plan.rates, np.where(np.isfinite(lower), lower, NO_BOUND)
    critical = float(norm.isf(float(given["alpha"])))
    ratio = quantity.null_variance / quantity.variance
    fixed = ((critical * math.sqrt(ratio) + norm.ppf(exits.power)) / quantity.effect) ** 2
    sign = math.copysign(1.0, quantity.effect)
    overall = {
        "overallReject": exits.power,
        "alpha": float(given["alpha"]),
        "attainedAlpha": null.power,
        "kMax": float(len(plan.rates)),
        "theta": abs(quantity.effect),
        "information": looks.information[-1],
        "expectedInformationH1": exits.expected(looks.information),
        "expectedInformationH0": null.expected(looks.information),
        "drift": looks.means[-1],
        "inflationFactor": looks.information[-1] / fixed,
        "numberOfSubjects": n,
        "expectedNumberOfSubjectsH1": exits.expected(counts),
        "expectedNumberOfSubjectsH0": null.expected(counts),
    }
    error = 1 / np.sqrt(looks.null_information)
    stages = {
        "informationRates": plan.rates,
        "efficacyBounds": plan.upper,
        "futilityBounds": shown,
        "rejectPerStage": exits.upper,
        "futilityPerStage": exits.lower,
        "cumulativeRejection": exits.upper.cumsum(),
        "cumulativeFutility": exits.lower.cumsum(),
        "cumulativeAlphaSpent": spent,
        "efficacyP": norm.sf(plan.upper),
        "futilityP": norm.sf(shown),
        "information": looks.information,
        "rejectPerStageH0": null.upper,
        "futilityPerStageH0": null.lower,
        "cumulativeRejectionH0": null.upper.cumsum(),
        "cumulativeFutilityH0": null.lower.cumsum(),
        f"efficacy{quantity.name}": quantity.scale(sign * plan.upper * error),
        f"futility{quantity.name}": quantity.scale(sign * shown * error),
        "numberOfSubjects": counts,
    }
    settings = {**given, "varianceRatio": ratio}
    return {"overallResults": Frame(overall), "byStageResults": Frame(stages), "settings": settings}


def _refuse_flags(given: Arguments) -> None:
    """Looks without futility bounds come of beta spending only."""
    if not is_missing(given["futilityStopping"]) and given["typeBetaSpending"] == "none":
        raise NotCoveredError("futilityStopping without beta spending")


_SIZE: Arguments = {"beta": None, "n": None}
_PLAN: Arguments = {**DESIGN, "userBetaSpending": None, "spendingTime": None}


def _means(name: str, own: Arguments, *, groups: int, log: bool = False) -> Callable[..., Any]:
    null, effect, sd = list(own)

    def call(given: Arguments) -> dict[str, Any]:
        values = (float(given[each]) for each in (null, effect, sd))
        return _designed(given, _mean(given, name, *values, groups=groups, log=log))

    allocation = {"allocationRatioPlanned": 1.0} if groups == 2 else {}
    formal = {**_SIZE, **own, **allocation, "normalApproximation": True, "rounding": True, **_PLAN}
    return bound(f"getDesign{name}", formal, call)


def _rates(name: str, null: str, default: float, *, null_variance: bool) -> Callable[..., Any]:
    own = {null: default, "pi1": None, "pi2": None, "nullVariance": null_variance, "allocationRatioPlanned": 1.0}

    def call(given: Arguments) -> dict[str, Any]:
        return _designed(given, _rate(given, name, float(given[null])))

    return bound(f"getDesign{name}", {**_SIZE, **own, "rounding": True, **_PLAN}, call)


def _one_proportion(given: Arguments) -> dict[str, Any]:
    """getDesignOneProportion(): the variance is that of the null at the bound; the exact test has one look."""
    null, rate, alpha = float(given["piH0"]), float(given["pi"]), float(given["alpha"])
    if given["normalApproximation"]:
        quantity = Quantity(rate - null, rate * (1 - rate), null * (1 - null), lambda shift: null + shift, "Response")
        return _designed(given, quantity)
    test = OneRateTest(rate, null)
    n = int(given["n"]) if is_missing(given["beta"]) else test.lasting_exact_subjects(alpha, 1 - float(given["beta"]))
    attained = OneRateTest(null + math.copysign(1e-12, rate - null), null).exact_power(n, alpha)
    overall = {
        "overallReject": test.exact_power(n, alpha),
        "alpha": alpha,
        "attainedAlpha": attained,
        "numberOfSubjects": float(n),
    }
    return {"overallResults": Frame(overall)}


def _fisher(given: Arguments) -> Mapping[str, Any]:
    rates, alpha = (float(given["pi1"]), float(given["pi2"])), float(given["alpha"])
    ratio = float(given["allocationRatioPlanned"])
    given_n = is_missing(given["beta"])
    n = int(given["n"]) if given_n else fisher_subjects(rates, alpha, 1 - float(given["beta"]), ratio)
    power = fisher_power(rates, fisher_arms(n, ratio), alpha)
    return Frame({**given, "alpha": alpha, "power": power, "n": float(n)})


def _ordinal(given: Arguments) -> Mapping[str, Any]:
    last = [[*numbers(given[arm]), 1 - sum(numbers(given[arm]))] for arm in ("pi1", "pi2")]
    test = OrdinalTest(last[0], last[1], allocation_ratio=float(given["allocationRatioPlanned"]))
    alpha = float(given["alpha"])
    n = float(given["n"]) if is_missing(given["beta"]) else test.subjects(alpha, 1 - float(given["beta"]))
    n = math.ceil(n - 1e-9) if given["rounding"] else n
    scores = n * test.midranks
    means = {f"meanscore{i + 1}": float(scores @ np.array(shares)) for i, shares in enumerate(last)}
    return {**given, "power": test.power(n, alpha), "alpha": alpha, "n": n, **means}


_ONE_RATE: Arguments = {"piH0": 0.1, "pi": 0.2, "normalApproximation": True, "rounding": True}
_TWO_RATES: Arguments = {"pi1": None, "pi2": None, "allocationRatioPlanned": 1.0}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "getDesignMeanDiff": _means("MeanDiff", {"meanDiffH0": 0.0, "meanDiff": 0.5, "stDev": 1.0}, groups=2),
    "getDesignMeanDiffXO": _means("MeanDiffXO", {"meanDiffH0": 0.0, "meanDiff": 0.5, "stDev": 1.0}, groups=2),
    "getDesignMeanRatio": _means("MeanRatio", {"meanRatioH0": 1.0, "meanRatio": 1.25, "CV": 1.0}, groups=2, log=True),
    "getDesignMeanRatioXO": _means(
        "MeanRatioXO", {"meanRatioH0": 1.0, "meanRatio": 1.25, "CV": 1.0}, groups=2, log=True
    ),
    "getDesignOneMean": _means("Mean", {"meanH0": 0.0, "mean": 0.5, "stDev": 1.0}, groups=1),
    "getDesignPairedMeanDiff": _means("PairedDiff", {"pairedDiffH0": 0.0, "pairedDiff": 0.5, "stDev": 1.0}, groups=1),
    "getDesignPairedMeanRatio": _means(
        "PairedRatio", {"pairedRatioH0": 1.0, "pairedRatio": 1.2, "CV": 1.0}, groups=1, log=True
    ),
    "getDesignRiskDiff": _rates("RiskDiff", "riskDiffH0", 0.0, null_variance=True),
    "getDesignRiskRatio": _rates("RiskRatio", "riskRatioH0", 1.0, null_variance=True),
    "getDesignOddsRatio": _rates("OddsRatio", "oddsRatioH0", 1.0, null_variance=False),
    "getDesignOneProportion": bound("getDesignOneProportion", {**_SIZE, **_ONE_RATE, **_PLAN}, _one_proportion),
    "getDesignFisherExact": bound("getDesignFisherExact", {**_SIZE, **_TWO_RATES, "alpha": 0.05}, _fisher),
    "getDesignTwoOrdinal": bound(
        "getDesignTwoOrdinal", {**_SIZE, "ncats": None, **_TWO_RATES, "rounding": True, "alpha": 0.05}, _ordinal
    ),
}
