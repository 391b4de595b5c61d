"""Crosswalk of rpact's time-to-event designs (getSampleSizeSurvival and its kin) to medtwin."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.design.boundaries import Bounds
from medtwin.trials.design.event_driven import EventDrivenLooks, event_driven_looks
from medtwin.trials.design.hazard import PiecewiseRate, WeibullHazard, dropout_rate
from medtwin.trials.design.survival_size import (
    EventFormula,
    effect_per_event,
    enroll_duration_for,
    events_for_drift,
    follow_up_for,
    optimal_allocation_ratio,
)
from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import Stratum, TwoArmSurvival
from tests.trials.reference import rpact_designs
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.rpact_bounds import RpactDesign, design_of
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers

Floats = NDArray[np.float64]
Hazard = PiecewiseRate | WeibullHazard
_FORMULAS: dict[str, EventFormula] = {
    "Schoenfeld": "schoenfeld",
    "Freedman": "freedman",
    "HsiehFreedman": "hsieh_freedman",
}
HAZARDS: Arguments = {
    "pi1": None,
    "pi2": None,
    "lambda1": None,
    "lambda2": None,
    "median1": None,
    "median2": None,
    "kappa": 1.0,
    "hazardRatio": None,
    "piecewiseSurvivalTime": None,
    "eventTime": 12.0,
}
ACCRUAL: Arguments = {
    "accrualTime": None,
    "accrualIntensity": None,
    "accrualIntensityType": "auto",
    "maxNumberOfSubjects": None,
    "dropoutRate1": 0.0,
    "dropoutRate2": 0.0,
    "dropoutTime": 12.0,
}
_FIXED = {"alpha": None, "beta": None, "sided": None, "twoSidedPower": None}
_TEST: Arguments = {
    "design": None,
    "typeOfComputation": "Schoenfeld",
    "thetaH0": 1.0,
    "allocationRatioPlanned": 1.0,
    **_FIXED,
}
_SHOWN_ONCE = {
    "analysisTime",
    "followUpTime",
    "eventsPerStage",
    "criticalValuesEffectScale",
    "criticalValuesPValueScale",
    "rejectPerStage",
}


@dataclass(frozen=True)
class Scenario:
    """One alternative: hazards of the treatment and the control, and their ratio."""

    ratio: float
    hazards: tuple[Hazard, Hazard]


def _intervals(value: Any) -> tuple[list[float], list[float]]:
    """Starts and values of a list such as list("0 - <6" = 0.1, ">=6" = 0.2); an end, if there is one, comes last."""
    ends = [[float(each) for each in re.findall(r"[\d.]+", name)] for name in value]
    starts = [0.0 if name.strip().startswith("<") else bounds[0] for name, bounds in zip(value, ends, strict=True)]
    closed = [] if list(value)[-1].strip().startswith(">") else [ends[-1][-1]]
    return [*starts, *closed], [float(np.atleast_1d(each)[0]) for each in value.values()]


def scenarios(given: Arguments, default_pi1: tuple[float, ...]) -> list[Scenario]:
    """The alternatives that the arguments stand for."""
    kappa = float(given["kappa"])
    if not is_missing(given["piecewiseSurvivalTime"]):
        return _piecewise(given)
    to_rate: dict[str, Callable[[float], float]] = {
        "lambda": lambda x: x,
        "median": lambda x: math.log(2) ** (1 / kappa) / x,
        "pi": lambda x: (-math.log1p(-x)) ** (1 / kappa) / float(given["eventTime"]),
    }

    def rates(arm: int) -> list[float] | None:
        for name, convert in to_rate.items():
            if not is_missing(given[f"{name}{arm}"]):
                return [convert(each) for each in numbers(given[f"{name}{arm}"])]
        return None

    control, treated, ratios = rates(2), rates(1), given["hazardRatio"]
    if control is None and treated is not None and not is_missing(ratios):
        control = [treated[0] / numbers(ratios)[0] ** (1 / kappa)]
    elif control is None:
        control = [to_rate["pi"](0.2)]
    if treated is None and is_missing(ratios):
        treated = [to_rate["pi"](each) for each in default_pi1]
    if treated is None:
        treated = [control[0] * ratio ** (1 / kappa) for ratio in numbers(ratios)]
    if len(control) > 1:
        raise NotCoveredError("several control hazards without piecewiseSurvivalTime")
    return [
        Scenario((rate / control[0]) ** kappa, (_hazard(rate, kappa), _hazard(control[0], kappa))) for rate in treated
    ]


def proportional(given: Arguments, default_pi1: tuple[float, ...]) -> list[Scenario]:
    """The same where each has a hazard ratio that does not change."""
    found = scenarios(given, default_pi1)
    if any(math.isnan(each.ratio) for each in found):
        raise NotCoveredError("hazards of lambda1 that are not proportional")
    return found


def _hazard(rate: float, kappa: float) -> Hazard:
    return PiecewiseRate((0.0,), (rate,)) if kappa == 1 else WeibullHazard(rate, kappa)


def _piecewise(given: Arguments) -> list[Scenario]:
    times, rates = given["piecewiseSurvivalTime"], given["lambda2"]
    if float(given["kappa"]) != 1:
        raise NotCoveredError("kappa with piecewiseSurvivalTime")
    if isinstance(times, dict):
        times, rates = _intervals(times)
    control = PiecewiseRate(tuple(numbers(times)), tuple(numbers(rates)))
    if not is_missing(given["hazardRatio"]):
        return [Scenario(ratio, (control.scaled(ratio), control)) for ratio in numbers(given["hazardRatio"])]
    treated = PiecewiseRate(tuple(numbers(times)), tuple(numbers(given["lambda1"])))
    ratios = np.array(treated.rates) / np.array(control.rates)
    return [Scenario(float(ratios[0]) if np.ptp(ratios) < 1e-8 else math.nan, (treated, control))]


@dataclass(frozen=True)
class Accrual:
    """Enrolment: its rates, absolute or relative, and its end where that is known."""

    rate: PiecewiseRate
    end: float | None
    absolute: bool


def accrual(given: Arguments) -> Accrual:
    """What accrualTime and accrualIntensity say."""
    times, intensity = given["accrualTime"], given["accrualIntensity"]
    if isinstance(times, dict):
        times, intensity = _intervals(times)
    breaks = [0.0, 12.0] if is_missing(times) else numbers(times)
    if len(breaks) == 1 and breaks[0] > 0:
        breaks = [0.0, *breaks]
    if is_missing(intensity):
        if len(breaks) > 2:
            raise NotCoveredError("accrualTime of several intervals without accrualIntensity")
        return Accrual(PiecewiseRate((0.0,), (1.0,)), breaks[1] if len(breaks) > 1 else None, False)
    values = numbers(intensity)
    kind = given["accrualIntensityType"]
    relative = kind == "relative" or (kind == "auto" and max(values) < 1)
    end = breaks[-1] if len(breaks) == len(values) + 1 else None
    return Accrual(PiecewiseRate(tuple(breaks[: len(values)]), tuple(values)), end, not relative)


def trial_of(given: Arguments, scenario: Scenario, rate: PiecewiseRate, end: float) -> TwoArmSurvival:
    treated, control = (
        Arm(hazard, dropout_rate(float(given[f"dropoutRate{i + 1}"]), float(given["dropoutTime"])))
        for i, hazard in enumerate(scenario.hazards)
    )
    return TwoArmSurvival([Stratum(treated, control, rate)], end, float(given.get("allocationRatioPlanned") or 1.0))


def with_subjects(given: Arguments, scenario: Scenario, entry: Accrual, subjects: float) -> TwoArmSurvival:
    """The trial that enrols so many patients."""
    if entry.absolute:
        end = float(entry.rate.time_at([subjects])[0])
        if entry.end is not None and abs(end - entry.end) > 1e-6:
            raise NotCoveredError("maxNumberOfSubjects that accrualTime and accrualIntensity do not give")
        return trial_of(given, scenario, entry.rate, end)
    if entry.end is None:
        raise NotCoveredError("relative accrualIntensity without an end of accrual")
    factor = subjects / float(entry.rate.cumulative(entry.end))
    return trial_of(given, scenario, entry.rate.scaled(factor), entry.end)


def _planned(given: Arguments, scenario: Scenario, entry: Accrual, events: float) -> tuple[TwoArmSurvival, float]:
    """The trial with as many patients as the events need, and its follow-up."""

    def excess(trial: TwoArmSurvival, time: float) -> float:
        return trial.total_events(time) - events

    if not is_missing(given["maxNumberOfSubjects"]):
        trial = with_subjects(given, scenario, entry, float(given["maxNumberOfSubjects"]))
        return trial, follow_up_for(trial, excess)
    follow_up = None if is_missing(given["followUpTime"]) else float(given["followUpTime"])
    if entry.absolute and entry.end is not None:
        if follow_up is not None:
            raise NotCoveredError("followUpTime beside accrual that is complete")
        trial = trial_of(given, scenario, entry.rate, entry.end)
        return trial, follow_up_for(trial, excess)
    months = 6.0 if follow_up is None else follow_up
    if entry.absolute:
        trial = trial_of(given, scenario, entry.rate, float(entry.rate.starts[-1]) + 1.0)
        return trial.enrolling_for(enroll_duration_for(trial, months, excess)), months
    if entry.end is None:
        raise NotCoveredError("relative accrualIntensity without an end of accrual")
    trial = trial_of(given, scenario, entry.rate, entry.end)
    return trial.enrolling(events / trial.total_events(entry.end + months)), months


def _design(given: Arguments) -> RpactDesign:
    design = design_of(given)
    if design.wedge is not None:
        raise NotCoveredError("a two-sided design with futility")
    return design


def _arms_of(trial: TwoArmSurvival, subjects: Any) -> dict[str, Any]:
    shares = trial.shares
    return {"": subjects, "1": subjects * shares[0], "2": subjects * shares[1]}


def _columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Results of several alternatives: vectors of them, or matrices with looks in rows.

    rpact shows some only once where they are the same for all.
    """
    return {name: _joined(name, [row[name] for row in rows]) for name in rows[0]}


def _joined(name: str, values: list[Any]) -> Any:
    if name in _SHOWN_ONCE and all(np.allclose(each, values[0], rtol=1e-8, equal_nan=True) for each in values):
        return values[0]
    return np.column_stack(values) if np.ndim(values[0]) else np.array(values)


def hazard_results(given: Arguments, scenario: Scenario) -> dict[str, Any]:
    found: dict[str, Any] = {"hazardRatio": scenario.ratio}
    for i, hazard in enumerate(scenario.hazards):
        if isinstance(hazard, PiecewiseRate) and len(hazard.rates) > 1:
            continue
        rate, kappa = (hazard.rates[0], 1.0) if isinstance(hazard, PiecewiseRate) else (hazard.rate, hazard.shape)
        found[f"lambda{i + 1}"] = rate
        found[f"median{i + 1}"] = math.log(2) ** (1 / kappa) / rate
        found[f"pi{i + 1}"] = 1 - math.exp(-((rate * float(given["eventTime"])) ** kappa))
    return found


def _effect_scale(given: Arguments, bounds: Bounds, events: Floats, sided: int, sign: float) -> dict[str, Any]:
    """Bounds as hazard ratios and p values."""
    r = float(given["allocationRatioPlanned"])
    spread = (1 + r) / np.sqrt(r * events)
    null = float(given["thetaH0"])
    lower = np.where(np.isfinite(bounds.futility), bounds.futility, np.nan)[:-1]
    found: dict[str, Any] = {
        "criticalValuesEffectScale": null * np.exp(sign * bounds.efficacy * spread),
        "criticalValuesPValueScale": norm.sf(bounds.efficacy) * sided,
    }
    if sided == 2:
        found["criticalValuesEffectScale"] = np.zeros(0)
        found["criticalValuesEffectScaleLower"] = null * np.exp(-bounds.efficacy * spread)
        found["criticalValuesEffectScaleUpper"] = null * np.exp(bounds.efficacy * spread)
    elif len(lower):
        found["futilityBoundsEffectScale"] = null * np.exp(sign * lower * spread[:-1])
        found["futilityBoundsPValueScale"] = norm.sf(lower)
    return found


def sample_size(given: Arguments) -> dict[str, Any]:
    """getSampleSizeSurvival()."""
    design, entry = _design(given), accrual(given)
    rows = [_sized(_allocated(given, design, entry, s), design, entry, s) for s in proportional(given, (0.4, 0.5, 0.6))]
    found = _columns(rows)
    found["informationRates"] = design.bounds.fractions
    found["earlyStop"] = _joined("rejectPerStage", [row["earlyStop"] for row in rows])
    found["accrualIntensity"] = found["accrualIntensity"][:, 0] if entry.absolute else found["accrualIntensity"].ravel()
    if not entry.absolute and len(design.bounds.efficacy) == 1:
        found["accrualIntensity"] = _fixed_intensity(found["nFixed"], entry)
    return found


def _fixed_intensity(subjects: Floats, entry: Accrual) -> Floats:
    """The relative accrual intensity of a fixed design, which rpact gives as patients over each cut of accrualTime."""
    cuts = np.array([*entry.rate.starts[1:], entry.end])
    size = max(len(subjects), len(cuts))
    return np.resize(subjects, size) / np.resize(cuts, size)


def _allocated(given: Arguments, design: RpactDesign, entry: Accrual, scenario: Scenario) -> Arguments:
    """The arguments with the allocation ratio of fewest patients where 0 asks for it."""
    if float(given["allocationRatioPlanned"]) != 0:
        return given

    def subjects(ratio: float) -> float:
        tried = {**given, "allocationRatioPlanned": ratio}
        events = _fixed_events(tried, design, scenario) * design.inflation
        if not given["accountForObservationTimes"]:
            return events / _event_share(tried, scenario)
        return _planned(tried, scenario, entry, events)[0].num_subjects

    return {**given, "allocationRatioPlanned": optimal_allocation_ratio(subjects)}


def _fixed_events(given: Arguments, design: RpactDesign, scenario: Scenario) -> float:
    drift = design.bounds.drift / math.sqrt(design.inflation)
    ratios = scenario.ratio, float(given["allocationRatioPlanned"]), float(given["thetaH0"])
    return events_for_drift(drift, *ratios, _FORMULAS[given["typeOfComputation"]])


def _event_share(given: Arguments, scenario: Scenario) -> float:
    """The share of patients with an event by eventTime, whenever they enter."""
    r, months = float(given["allocationRatioPlanned"]), float(given["eventTime"])
    treated, control = (1 - math.exp(-float(hazard.cumulative(months))) for hazard in scenario.hazards)
    return (r * treated + control) / (1 + r)


def _unobserved(given: Arguments, scenario: Scenario, entry: Accrual, events: Floats) -> tuple[Any, EventDrivenLooks]:
    """The trial whose patients are all followed to eventTime: when its looks come is not known."""
    trial = with_subjects(given, scenario, entry, float(events[-1]) / _event_share(given, scenario))
    unknown = np.full(len(events), np.nan)
    return trial, EventDrivenLooks(events, unknown, np.append(unknown[:-1], trial.num_subjects))


def _sized(given: Arguments, design: RpactDesign, entry: Accrual, scenario: Scenario) -> dict[str, Any]:
    bounds = design.bounds
    fixed_events = _fixed_events(given, design, scenario)
    events = fixed_events * design.inflation * bounds.fractions
    if given["accountForObservationTimes"]:
        trial, follow_up = _planned(given, scenario, entry, float(events[-1]))
        looks = event_driven_looks(trial, events)
    else:
        (trial, looks), follow_up = _unobserved(given, scenario, entry, events), math.nan
    total = trial.num_subjects
    alternative = design.stops(bounds.drift)
    course = looks.expected(alternative.towards.exits)
    sign = -1.0 if scenario.ratio < float(given["thetaH0"]) else 1.0
    return {
        **hazard_results(given, scenario),
        **{f"nFixed{i}": n for i, n in _arms_of(trial, total / design.inflation).items()},
        **{f"maxNumberOfSubjects{i}": n for i, n in _arms_of(trial, total).items()},
        **{f"numberOfSubjects{i}": n for i, n in _arms_of(trial, looks.subjects).items()},
        **_event_results(looks),
        **alternative.towards.by_stage,
        **_effect_scale(given, bounds, looks.events, design.sided, sign),
        "eventsFixed": fixed_events,
        "allocationRatioPlanned": float(given["allocationRatioPlanned"]),
        "accrualTime": trial.enroll_duration,
        "totalAccrualTime": trial.enroll_duration,
        "accrualIntensity": np.array(trial.strata[0].enroll_rate.rates),
        "followUpTime": follow_up,
        "maxStudyDuration": looks.times[-1],
        "studyDuration": course.duration,
        "studyDurationH1": course.duration,
        "expectedEventsH0": looks.expected(design.stops(0.0).exits).events,
        "expectedEventsH01": looks.expected(design.stops(bounds.drift / 2).exits).events,
        "expectedEventsH1": looks.expected(alternative.exits).events,
        "expectedNumberOfSubjectsH1": course.subjects,
    }


def _event_results(looks: EventDrivenLooks) -> dict[str, Any]:
    return {
        "maxNumberOfEvents": looks.events[-1],
        "analysisTime": looks.times,
        "eventsPerStage": looks.events,
        "cumulativeEventsPerStage": looks.events,
        "singleEventsPerStage": np.diff(looks.events, prepend=0.0),
    }


def power(given: Arguments) -> dict[str, Any]:
    """getPowerSurvival()."""
    design, entry = _design(given), accrual(given)
    rows = [_powered(given, design, entry, each) for each in proportional(given, (0.2, 0.3, 0.4, 0.5))]
    found = _columns(rows)
    found["informationRates"] = design.bounds.fractions
    found["accrualIntensity"] = found["accrualIntensity"][:, 0]
    return found


def _powered(given: Arguments, design: RpactDesign, entry: Accrual, scenario: Scenario) -> dict[str, Any]:
    bounds, formula = design.bounds, _FORMULAS[given["typeOfComputation"]]
    events = float(given["maxNumberOfEvents"]) * bounds.fractions
    if entry.absolute and entry.end is not None and is_missing(given["maxNumberOfSubjects"]):
        trial = trial_of(given, scenario, entry.rate, entry.end)
    else:
        trial = with_subjects(given, scenario, entry, float(given["maxNumberOfSubjects"]))
    looks = event_driven_looks(trial, events)
    up = given["directionUpper"] is None or bool(given["directionUpper"]) or design.sided == 2
    sign = 1.0 if up else -1.0
    effect = sign * effect_per_event(
        scenario.ratio, float(given["allocationRatioPlanned"]), float(given["thetaH0"]), formula
    )
    stops = design.stops(effect * math.sqrt(events[-1]))
    course = looks.expected(stops.exits)
    return {
        **hazard_results(given, scenario),
        **{f"maxNumberOfSubjects{i}": n for i, n in _arms_of(trial, trial.num_subjects).items()},
        **{f"numberOfSubjects{i}": n for i, n in _arms_of(trial, looks.subjects).items()},
        **_event_results(looks),
        **stops.by_stage,
        **_effect_scale(given, bounds, looks.events, design.sided, sign),
        "accrualTime": trial.enroll_duration,
        "totalAccrualTime": trial.enroll_duration,
        "accrualIntensity": np.array(trial.strata[0].enroll_rate.rates),
        "followUpTime": looks.times[-1] - trial.enroll_duration,
        "maxStudyDuration": looks.times[-1],
        "studyDuration": course.duration,
        "expectedNumberOfEvents": course.events,
        "expectedNumberOfSubjects": course.subjects,
        "minNumberOfSubjects": looks.subjects[0],
    }


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "getDesignGroupSequential": rpact_designs.FUNCTIONS["getDesignGroupSequential"],
    "getDesignInverseNormal": rpact_designs.FUNCTIONS["getDesignInverseNormal"],
    "getSampleSizeSurvival": bound(
        "getSampleSizeSurvival",
        {**_TEST, **HAZARDS, **ACCRUAL, "followUpTime": None, "accountForObservationTimes": True},
        sample_size,
    ),
    "getPowerSurvival": bound(
        "getPowerSurvival",
        {**_TEST, **HAZARDS, **ACCRUAL, "directionUpper": None, "maxNumberOfEvents": None},
        power,
    ),
}
