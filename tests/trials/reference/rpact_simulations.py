"""Crosswalk of rpact's simulations of trials to medtwin's engine; answers carry the Monte-Carlo error of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.hazard import PiecewiseRate, dropout_rate
from medtwin.trials.engine.arm_selection import (
    ArmSelectionCharacteristics,
    ArmSelectionTrial,
    Intersection,
    Selection,
    simulate_arm_selection,
)
from medtwin.trials.engine.milestones import (
    EndpointScenario,
    Enrolled,
    Events,
    Hypothesis,
    Milestone,
    MilestoneTrial,
    Response,
    TimeToEvent,
    simulate_milestones,
)
from medtwin.trials.enrolment.accrual import EvenAccrual, Site
from medtwin.trials.enrolment.adherence import Dropout
from tests.trials.reference.cases import NotCoveredError, Simulated
from tests.trials.reference.rpact_bounds import RpactDesign
from tests.trials.reference.rpact_survival import HAZARDS, Scenario, accrual, scenarios, with_subjects
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers, refuse

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
NUM_TRIALS = 10_000
SEED = 20_261
_FOR_EVER = 1e6
"""Months at which trials end whose events never come."""
_ADAPTIVE: Arguments = {"conditionalPower": None, "thetaH1": None}
_RUN: Arguments = {"maxNumberOfIterations": 1000.0, "seed": None, "showStatistics": False}
SURVIVAL: Arguments = {
    "design": None,
    "thetaH0": 1.0,
    "directionUpper": True,
    **HAZARDS,
    "allocation1": 1.0,
    "allocation2": 1.0,
    "accrualTime": None,
    "accrualIntensity": None,
    "accrualIntensityType": "auto",
    "dropoutRate1": 0.0,
    "dropoutRate2": 0.0,
    "dropoutTime": 12.0,
    "maxNumberOfSubjects": None,
    "plannedEvents": None,
    "minNumberOfEventsPerStage": None,
    "maxNumberOfEventsPerStage": None,
    **_ADAPTIVE,
    **_RUN,
    "maxNumberOfRawDatasetsPerStage": 0.0,
    "longTimeSimulationAllowed": False,
    "calcEventsFunction": None,
}
RATES: Arguments = {
    "design": None,
    "groups": 2.0,
    "normalApproximation": True,
    "riskRatio": False,
    "thetaH0": None,
    "pi1": np.array([0.2, 0.3, 0.4, 0.5]),
    "pi2": None,
    "plannedSubjects": None,
    "directionUpper": True,
    "allocationRatioPlanned": 1.0,
    "minNumberOfSubjectsPerStage": None,
    "maxNumberOfSubjectsPerStage": None,
    "conditionalPower": None,
    "pi1H1": None,
    "pi2H1": None,
    **_RUN,
    "calcSubjectsFunction": None,
}
ARMS: Arguments = {
    "design": None,
    "activeArms": 3.0,
    "effectMatrix": None,
    "typeOfShape": "linear",
    "muMaxVector": np.linspace(0.0, 1.0, 6),
    "gED50": None,
    "slope": 1.0,
    "intersectionTest": "Dunnett",
    "stDev": 1.0,
    "adaptations": None,
    "typeOfSelection": "best",
    "effectMeasure": "effectEstimate",
    "successCriterion": "all",
    "epsilonValue": None,
    "rValue": None,
    "threshold": -math.inf,
    "plannedSubjects": None,
    "allocationRatioPlanned": None,
    "minNumberOfSubjectsPerStage": None,
    "maxNumberOfSubjectsPerStage": None,
    **_ADAPTIVE,
    "stDevH1": None,
    **_RUN,
    "calcSubjectsFunction": None,
    "selectArmsFunction": None,
}
_INTERSECTIONS: dict[str, Intersection] = {
    "Dunnett": "dunnett",
    "Bonferroni": "bonferroni",
    "Sidak": "sidak",
    "Simes": "simes",
}


def share(hits: Bools, reference_trials: float) -> Simulated:
    """A share of the trials; its error is that of a share in the middle of both, never 0."""
    p = (float(hits.sum()) + 1) / (len(hits) + 2)
    return Simulated(float(hits.mean()), math.sqrt(p * (1 - p) * (1 / len(hits) + 1 / reference_trials)))


def mean(values: Floats, reference_trials: float) -> Simulated:
    """A mean over those of the trials that have a value; nan for none."""
    kept = values[~np.isnan(values)]
    if len(kept) < 2:
        return Simulated(math.nan, 0.0)
    part = len(kept) / len(values)
    error = float(kept.std()) * math.sqrt(1 / len(kept) + 1 / (part * reference_trials))
    return Simulated(float(kept.mean()), error)


@dataclass(frozen=True)
class Stages:
    """A trial with stages that was simulated to its end: where the bounds of a design would have stopped it.

    Attributes:
        reached, rejected, futile: (trials, looks).
    """

    reached: Bools
    rejected: Bools
    futile: Bools

    @staticmethod
    def of(design: RpactDesign, z: Floats) -> Stages:
        """From the statistics of all looks, (trials, looks)."""
        if design.sided != 1 or design.wedge is not None:
            raise NotCoveredError("simulation of a two-sided design")
        bounds, looks = design.bounds, z.shape[1]
        rejects = z >= bounds.efficacy
        stops_low = (z <= np.where(np.isfinite(bounds.futility), bounds.futility, -np.inf)) & ~rejects
        stops_low[:, -1] = False
        stops = rejects | stops_low
        before = np.cumsum(stops, axis=1) - stops
        reached = before == 0
        assert looks == len(bounds.efficacy)
        return Stages(reached, rejects & reached, stops_low & reached)

    def at_stop(self, values: Floats) -> Floats:
        """The value at the look at which each trial stops, (trials,), of (trials, looks)."""
        return np.asarray(values[np.arange(len(values)), self.reached.sum(axis=1) - 1])

    def results(self, n: float) -> dict[str, Any]:
        """rpact's names of the shares."""
        early = (self.rejected | self.futile)[:, :-1].any(axis=1)
        return {
            "overallReject": share(self.rejected.any(axis=1), n),
            "rejectPerStage": [share(column, n) for column in self.rejected.T],
            "futilityPerStage": [share(column, n) for column in self.futile.T[:-1]],
            "futilityStop": share(self.futile.any(axis=1), n),
            "earlyStop": share(early, n),
        }


def _design(given: Arguments) -> RpactDesign:
    found = given["design"]
    if not isinstance(found, dict) or not isinstance(found.get("_design"), RpactDesign):
        raise NotCoveredError("simulation of a design that is no getDesignGroupSequential()")
    design: RpactDesign = found["_design"]
    return design


def survival(given: Arguments) -> dict[str, Any]:
    """getSimulationSurvival() of a group-sequential design; several alternatives are not told apart by rows."""
    refuse(
        "getSimulationSurvival",
        given,
        SURVIVAL,
        "thetaH0",
        "conditionalPower",
        "minNumberOfEventsPerStage",
        "maxNumberOfEventsPerStage",
        "calcEventsFunction",
    )
    found = [_survival(given, _design(given), each) for each in scenarios(given, (0.2, 0.3, 0.4, 0.5))]
    return joined(found)


def joined(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Results of several alternatives: lists of them, or lists by look of lists, as matrices are flattened by row."""
    if len(rows) == 1:
        return dict(rows[0])
    first = rows[0]
    return {
        name: [list(each) for each in zip(*(row[name] for row in rows), strict=True)]
        if isinstance(first[name], list)
        else [row[name] for row in rows]
        for name in first
    }


def _survival(given: Arguments, design: RpactDesign, scenario: Scenario) -> dict[str, Any]:
    if not all(isinstance(each, PiecewiseRate) for each in scenario.hazards):
        raise NotCoveredError("simulation with kappa")
    events, subjects = [int(each) for each in numbers(given["plannedEvents"])], int(given["maxNumberOfSubjects"])
    rate = with_subjects(given, scenario, accrual(given), float(subjects)).strata[0].enroll_rate
    names = [f"look {k + 1}" for k in range(len(events))]
    trial = MilestoneTrial(
        subjects,
        EvenAccrual([Site(rate)]),
        [Milestone(name, Events("event", count)) for name, count in zip(names, events, strict=True)],
        _FOR_EVER,
        [Hypothesis("event", "event", names, planned=float(events[-1]))],
        allocation_ratio=float(given["allocation1"]) / float(given["allocation2"]),
        dropout=Dropout(
            *(_leaving(given, arm) for arm in (2, 1)),
        ),
    )
    treated, control = scenario.hazards
    assert isinstance(treated, PiecewiseRate)
    assert isinstance(control, PiecewiseRate)
    truth = EndpointScenario("", [TimeToEvent("event", control, treated)])
    records = simulate_milestones(trial, truth, NUM_TRIALS, seed=SEED).records
    sign = -1.0 if bool(given["directionUpper"]) else 1.0
    stages, n = Stages.of(design, sign * records.z[:, 0]), float(given["maxNumberOfIterations"])
    months = np.where(stages.reached, records.months, np.nan)
    counts = np.broadcast_to(np.array(events, dtype=np.float64), months.shape)
    enrolled = np.minimum(rate.cumulative(records.months), subjects)
    return {
        **stages.results(n),
        "analysisTime": [mean(column, n) for column in months.T],
        "studyDuration": mean(stages.at_stop(records.months), n),
        "expectedNumberOfEvents": mean(stages.at_stop(counts), n),
        "expectedNumberOfSubjects": mean(stages.at_stop(np.floor(enrolled + 1e-9)), n),
        "eventsPerStage": np.diff(events, prepend=0).astype(float),
        "overallEventsPerStage": np.array(events, dtype=float),
        "maxNumberOfIterations": n,
    }


def _leaving(given: Arguments, arm: int) -> PiecewiseRate:
    return PiecewiseRate((0.0,), (dropout_rate(float(given[f"dropoutRate{arm}"]), float(given["dropoutTime"])),))


def rates(given: Arguments) -> dict[str, Any]:
    """getSimulationRates() of two groups in a group-sequential design, by the pooled normal test."""
    refuse(
        "getSimulationRates",
        given,
        RATES,
        "groups",
        "normalApproximation",
        "riskRatio",
        "thetaH0",
        "conditionalPower",
        "calcSubjectsFunction",
    )
    control = 0.2 if is_missing(given["pi2"]) else float(given["pi2"])
    return joined([_rates(given, _design(given), pi, control) for pi in numbers(given["pi1"])])


def _rates(given: Arguments, design: RpactDesign, treated: float, control: float) -> dict[str, Any]:
    subjects = [int(each) for each in numbers(given["plannedSubjects"])]
    names = [f"look {k + 1}" for k in range(len(subjects))]
    trial = MilestoneTrial(
        subjects[-1],
        EvenAccrual([Site(1.0)]),
        [Milestone(name, Enrolled(count)) for name, count in zip(names, subjects, strict=True)],
        _FOR_EVER,
        [Hypothesis("rate", "rate", names, planned=float(subjects[-1]))],
        allocation_ratio=float(given["allocationRatioPlanned"]),
    )
    truth = EndpointScenario("", [Response("rate", 0.0, control, treated)])
    z = simulate_milestones(trial, truth, NUM_TRIALS, seed=SEED).records.z[:, 0]
    sign = 1.0 if bool(given["directionUpper"]) else -1.0
    stages, n = Stages.of(design, sign * z), float(given["maxNumberOfIterations"])
    counts = np.broadcast_to(np.array(subjects, dtype=np.float64), z.shape)
    return {**stages.results(n), "expectedNumberOfSubjects": mean(stages.at_stop(counts), n)}


def multi_arm_means(given: Arguments) -> dict[str, Any]:
    """getSimulationMultiArmMeans() of an inverse normal design."""
    refuse(
        "getSimulationMultiArmMeans",
        given,
        ARMS,
        "adaptations",
        "gED50",
        "slope",
        "conditionalPower",
        "calcSubjectsFunction",
        "selectArmsFunction",
    )
    design, n = _design(given), float(given["maxNumberOfIterations"])
    if np.isfinite(design.bounds.futility[:-1]).any():
        raise NotCoveredError("futility bounds of several arms")
    trial = ArmSelectionTrial(
        numbers(given["plannedSubjects"]),
        design.bounds.efficacy.tolist(),
        design.bounds.fractions.tolist(),
        _selection(given),
        _INTERSECTIONS[given["intersectionTest"]],
        1.0 if is_missing(given["allocationRatioPlanned"]) else 1 / float(given["allocationRatioPlanned"]),
        given["successCriterion"] == "atLeastOne",
        float(given["stDev"]),
    )
    return joined([_arms(simulate_arm_selection(trial, each, 20_000, seed=SEED), n) for each in _effects(given)])


def _effects(given: Arguments) -> list[Floats]:
    """The mean differences of each scenario; a matrix counts only where the shape is the user's, as in rpact."""
    if given["typeOfShape"] == "userDefined":
        return list(np.atleast_2d(np.asarray(given["effectMatrix"], dtype=np.float64)))
    if given["typeOfShape"] != "linear":
        raise NotCoveredError(f"typeOfShape={given['typeOfShape']!r}")
    arms = int(given["activeArms"])
    return [most * np.arange(1, arms + 1) / arms for most in numbers(given["muMaxVector"])]


def _selection(given: Arguments) -> Selection:
    above = float(given["threshold"])
    match given["typeOfSelection"]:
        case "best":
            return Selection(best=1, above=above)
        case "rBest":
            return Selection(best=int(given["rValue"]), above=above)
        case "epsilon" if given["effectMeasure"] == "effectEstimate":
            return Selection(within=float(given["epsilonValue"]), above=above)
        case "all":
            return Selection(above=above)
    raise NotCoveredError(f"typeOfSelection={given['typeOfSelection']!r} by {given['effectMeasure']}")


def _arms(found: ArmSelectionCharacteristics, n: float) -> dict[str, Any]:
    looks = range(found.active.shape[1] - 1)
    early = found.ended_at < len(looks)
    return {
        "futilityPerStage": [share(found.is_futile & (found.ended_at == look), n) for look in looks],
        "rejectAtLeastOne": share(np.any(found.rejected_at >= 0, axis=1), n),
        "earlyStop": share(early, n),
        "futilityStop": share(found.is_futile, n),
        "expectedNumberOfSubjects": mean_or_rare(found.subjects, n),
    }


def mean_or_rare(values: Floats, reference_trials: float) -> Simulated:
    """A mean of what is nearly always the same: its error counts one more trial that is the other way."""
    found = mean(values, reference_trials)
    least = float(np.ptp(values)) * math.sqrt(1 / len(values) * (1 / len(values) + 1 / reference_trials))
    return Simulated(found.value, math.hypot(found.error, least))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "getSimulationSurvival": bound("getSimulationSurvival", SURVIVAL, survival),
    "getSimulationRates": bound("getSimulationRates", RATES, rates),
    "getSimulationMultiArmMeans": bound("getSimulationMultiArmMeans", ARMS, multi_arm_means),
}
