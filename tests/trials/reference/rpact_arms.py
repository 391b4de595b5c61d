"""Crosswalk of rpact's closed tests of several arms to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.adaptive.closed_test import ArmsData, ArmsOfEvents, ArmsOfMeans, ArmsOfRates, ClosedTest
from medtwin.trials.adaptive.combined_tests import GroupSequentialTest, InverseNormalTest
from medtwin.trials.analysis.stage_data import LogRankData, RatesData, Sample
from tests.trials.reference import rpact_analysis
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.rpact_analysis import IGNORED, OPTIONS, PLANNING, Lazy, test_of
from tests.trials.reference.rpact_data import Dataset, by_stage, log_rank, sample
from tests.trials.reference.signatures import Arguments, bound, is_missing

Floats = NDArray[np.float64]
_TESTS: dict[str, Any] = {
    "Dunnett": "dunnett",
    "Bonferroni": "bonferroni",
    "Simes": "simes",
    "Sidak": "sidak",
    "Hierarchical": "hierarchical",
}
_VARIANCES: dict[str, Any] = {
    "overallPooled": "overall_pooled",
    "pairwisePooled": "pairwise_pooled",
    "notPooled": "not_pooled",
}
_ARMS: Arguments = {"intersectionTest": "Dunnett", "varianceOption": "overallPooled"}


def _last(data: Dataset, name: str, arm: int, stages: int) -> int:
    """The stages of which an arm has data."""
    return int(np.isfinite(data.column(name, arm, stages)).sum())


def _arms(data: Dataset, stages: int, given: Arguments) -> ArmsData:
    numbers_of = {"means": "n", "rates": "n", "survival": "z"}
    arms = range(1, data.arms + (1 if data.kind == "survival" else 0))
    ends = {arm: _last(data, numbers_of[data.kind], arm, stages) for arm in range(1, data.arms + 1)}
    if data.kind == "means":
        samples: list[Sample] = [sample(data, arm, ends[arm]) for arm in arms]
        variance = _named(_VARIANCES, given["varianceOption"], "varianceOption")
        normal = bool(given["normalApproximation"])
        return ArmsOfMeans(samples, sample(data, data.arms, stages), variance, normal)
    if data.kind == "survival":
        comparisons: list[LogRankData] = [log_rank(data, arm, ends[arm]) for arm in arms]
        return ArmsOfEvents(comparisons)
    rates = [
        RatesData(by_stage(data, "events", arm, ends[arm]), by_stage(data, "n", arm, ends[arm]))
        for arm in range(1, data.arms + 1)
    ]
    exact = not (given["normalApproximation"] is None or bool(given["normalApproximation"]))
    return ArmsOfRates(rates[:-1], rates[-1], exact)


def _named(names: Mapping[str, Any], value: Any, argument: str) -> Any:
    if value not in names:
        raise NotCoveredError(f"{argument}={value!r}")
    return names[value]


def _closed(given: Arguments) -> ClosedTest:
    test, data = test_of(given["design"]), given["dataInput"]
    if isinstance(test, GroupSequentialTest) and not isinstance(test, InverseNormalTest):
        raise NotCoveredError("several arms in a group-sequential design without combination")
    stages = min(data.stages if is_missing(given["stage"]) else int(given["stage"]), test.looks)
    theta0 = 0.0 if is_missing(given["thetaH0"]) else float(given["thetaH0"])
    if data.kind == "survival":
        theta0 = 0.0 if is_missing(given["thetaH0"]) else math.log(theta0)
    intersection = _named(_TESTS, given["intersectionTest"], "intersectionTest")
    arms, is_upper = _arms(data, stages, given), bool(given["directionUpper"])
    return ClosedTest(test, arms if is_upper else arms.mirrored, theta0 if is_upper else -theta0, intersection)


def _order(closed: ClosedTest) -> list[int]:
    """The intersections as rpact has them: the larger first."""
    return sorted(range(len(closed.members)), key=lambda row: -int(closed.members[row].sum()))


def _padded(closed: ClosedTest, rows: Any) -> Floats:
    values = np.asarray(rows, dtype=np.float64)
    found = np.full((len(values), closed.test.looks), np.nan)
    found[:, : values.shape[1]] = values
    return found


def _separate(closed: ClosedTest) -> Floats:
    return _padded(closed, [closed.data_p_values(arm) for arm in range(closed.data.arms)])


def _stage_results(given: Arguments) -> dict[str, Any]:
    closed = _closed(given)
    return {
        "_closed": closed,
        "separatePValues": _separate(closed),
        "singleStepAdjustedPValues": _padded(closed, closed.single_step_p_values(closed.null)),
    }


def closed_results(given: Arguments) -> dict[str, Any]:
    """getClosedCombinationTestResults()."""
    closed = given["stageResults"].get("_closed") if isinstance(given["stageResults"], Mapping) else None
    if not isinstance(closed, ClosedTest):
        raise NotCoveredError("stageResults that are not of several arms")
    order = _order(closed)
    statistics = _padded(closed, closed.statistics)[order]
    rejected = _padded(closed, closed.rejected)
    return {
        "indices": closed.members[order].astype(float),
        "separatePValues": _separate(closed),
        "adjustedStageWisePValues": _padded(closed, closed.stage_p_values)[order],
        "overallAdjustedTestStatistics": statistics
        if isinstance(closed.test, InverseNormalTest)
        else np.exp(-statistics),
        "rejected": rejected,
    }


def _limits(given: Arguments, side: int) -> Floats:
    """Lower (0) or upper limits of all arms, on R's scale."""
    closed = _closed(given)
    is_upper = bool(given["directionUpper"])
    own = side if is_upper else 1 - side
    found = _padded(closed, [closed.repeated_interval(arm)[own] for arm in range(closed.data.arms)])
    turned = found if is_upper else -found
    return np.exp(turned) if given["dataInput"].kind == "survival" else turned


def _analysis(given: Arguments) -> dict[str, Any]:
    closed = _closed(given)
    components = {
        ".stageResults": _stage_results(given),
        "repeatedPValues": lambda: _padded(closed, closed.repeated_p_values),
        "conditionalRejectionProbabilities": lambda: _padded(closed, closed.conditional_errors),
        "repeatedConfidenceIntervalLowerBounds": lambda: _limits(given, 0),
        "repeatedConfidenceIntervalUpperBounds": lambda: _limits(given, 1),
    }
    return Lazy(components)


def _either(one: Callable[[Arguments], Any], several: Callable[[Arguments], Any]) -> Callable[[Arguments], Any]:
    """By the number of arms of the data."""

    def answer(given: Arguments) -> Any:
        data = given["dataInput"]
        if isinstance(data, Dataset) and (data.arms > 2 or (data.kind == "survival" and data.arms > 1)):
            return several(given)
        for key, default in _ARMS.items():
            if given[key] != default:
                raise NotCoveredError(f"{key} of two arms")
        return one(given)

    return answer


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "getStageResults": bound(
        "getStageResults", {**OPTIONS, **_ARMS, **IGNORED}, _either(rpact_analysis.stage_results, _stage_results)
    ),
    "getAnalysisResults": bound(
        "getAnalysisResults",
        {**OPTIONS, **PLANNING, **_ARMS, **IGNORED},
        _either(rpact_analysis.analysis_results, _analysis),
    ),
    "getClosedCombinationTestResults": bound("getClosedCombinationTestResults", {"stageResults": None}, closed_results),
}
