"""Crosswalk of lrstat's designs of times to events to medtwin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from medtwin.trials.design.boundaries import exit_probabilities
from medtwin.trials.design.changing_effects import exits_with_means, futility_bounds, own_futility_bounds
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.milestone_design import ArmSummaries, milestone_survival, restricted_mean
from medtwin.trials.design.selected_looks import spent_where_tested
from medtwin.trials.design.survival_size import enroll_duration_for, follow_up_for
from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import Stratum, TwoArmSurvival
from medtwin.trials.design.weighted_logrank_design import (
    log_hazard_ratio,
    log_hazard_ratio_variance,
    weighted_score,
)
from medtwin.trials.survival_weights import FlemingHarrington
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Frame
from tests.trials.reference.lrstat_bounds import looks_tested, lrstat_bounds, lrstat_spending
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers

Floats = NDArray[np.float64]
NO_BOUND = -6.0  # lrstat's futility bound where there is none

ENTRY: Arguments = {
    "allocationRatioPlanned": 1.0,
    "accrualTime": 0.0,
    "accrualIntensity": None,
    "piecewiseSurvivalTime": 0.0,
    "stratumFraction": 1.0,
    "lambda1": None,
    "lambda2": None,
    "gamma1": 0.0,
    "gamma2": 0.0,
    "accrualDuration": None,
}
DESIGN: Arguments = {
    "kMax": 1.0,
    "informationRates": None,
    "efficacyStopping": None,
    "futilityStopping": None,
    "criticalValues": None,
    "alpha": 0.025,
    "typeAlphaSpending": "sfOF",
    "parameterAlphaSpending": None,
    "userAlphaSpending": None,
    "futilityBounds": None,
    "typeBetaSpending": "none",
    "parameterBetaSpending": None,
    "spendingTime": None,
}
FOLLOW: Arguments = {"followupTime": None, "fixedFollowup": False}
LOGRANK: Arguments = {
    "hazardRatioH0": 1.0,
    "rho1": 0.0,
    "rho2": 0.0,
    "estimateHazardRatio": True,
    "typeOfComputation": "direct",
}


def rates_by_stratum(values: Any, strata: int, intervals: int) -> list[list[float]]:
    """Rates by stratum and interval; fewer values hold for all."""
    found = numbers(values)
    if len(found) == strata * intervals:
        return [found[i * intervals : (i + 1) * intervals] for i in range(strata)]
    if len(found) in (1, intervals):
        return [found * (intervals if len(found) == 1 else 1)] * strata
    if len(found) == strata:
        return [[each] * intervals for each in found]
    raise NotCoveredError(f"{len(found)} rates for {strata} strata and {intervals} intervals")


def trial_of(given: Arguments) -> TwoArmSurvival:
    """The trial that lrstat's arguments describe."""
    starts, shares = tuple(numbers(given["piecewiseSurvivalTime"])), numbers(given["stratumFraction"])
    rates = [
        rates_by_stratum(given[name], len(shares), len(starts)) for name in ("lambda1", "lambda2", "gamma1", "gamma2")
    ]
    entry = PiecewiseRate(tuple(numbers(given["accrualTime"])), tuple(numbers(given["accrualIntensity"])))
    strata = []
    for i, share in enumerate(shares):
        pieces = [PiecewiseRate(starts, tuple(each[i])) for each in rates]
        strata.append(Stratum(Arm(pieces[0], pieces[2]), Arm(pieces[1], pieces[3]), entry.scaled(share)))
    duration = 1.0 if is_missing(given["accrualDuration"]) else float(given["accrualDuration"])
    fixed = bool(given.get("fixedFollowup")) and not is_missing(given.get("followupTime"))
    limit = float(given["followupTime"]) if fixed else math.inf
    return TwoArmSurvival(tuple(strata), duration, float(given["allocationRatioPlanned"]), limit)


@dataclass(frozen=True)
class Statistic:
    """The test of a design, as a function of the trial and a calendar time.

    Attributes:
        effect: E Z of unit variance. information: On the statistic's scale. clock: What information rates are of.
        extra: Further columns by stage.
    """

    effect: Callable[[TwoArmSurvival, float], float]
    information: Callable[[TwoArmSurvival, float], float]
    clock: Callable[[TwoArmSurvival, float], float]
    extra: Callable[[TwoArmSurvival, Floats, Floats, Floats], dict[str, Any]]


def _logrank(given: Arguments) -> Statistic:
    weight = FlemingHarrington(float(given["rho1"]), float(given["rho2"]))
    null, schoenfeld = float(given["hazardRatioH0"]), str(given["typeOfComputation"]).lower().startswith("s")

    def information(trial: TwoArmSurvival, time: float) -> float:
        if schoenfeld:
            return trial.total_events(time) * math.prod(trial.shares)
        return weighted_score(trial, time, weight, null).variance

    def effect(trial: TwoArmSurvival, time: float) -> float:
        if schoenfeld:
            theta = -(log_hazard_ratio(trial, time) - math.log(null))
            return theta * math.sqrt(information(trial, time))
        return weighted_score(trial, time, weight, null).z

    def clock(trial: TwoArmSurvival, time: float) -> float:
        return trial.total_events(time) if weight == FlemingHarrington() else information(trial, time)

    def extra(trial: TwoArmSurvival, times: Floats, upper: Floats, lower: Floats) -> dict[str, Any]:
        if not given["estimateHazardRatio"]:
            return {}
        spread = np.sqrt([log_hazard_ratio_variance(trial, t, weight) for t in times])
        return {
            "HR": np.exp([log_hazard_ratio(trial, t, weight) for t in times]),
            "efficacyHR": null * np.exp(-upper * spread),
            "futilityHR": null * np.exp(-lower * spread),
        }

    return Statistic(effect, information, clock, extra)


def _summary(given: Arguments, name: str, summary: Callable[[TwoArmSurvival, float, float], ArmSummaries]) -> Statistic:
    milestone, null = float(given["milestone"]), float(given[f"{name}DiffH0"])
    title = name[0].upper() + name[1:] + "Diff"

    def information(trial: TwoArmSurvival, time: float) -> float:
        return summary(trial, time, milestone).information

    def effect(trial: TwoArmSurvival, time: float) -> float:
        found = summary(trial, time, milestone)
        return (found.difference - null) * math.sqrt(found.information)

    def extra(trial: TwoArmSurvival, times: Floats, upper: Floats, lower: Floats) -> dict[str, Any]:
        spread = 1 / np.sqrt([information(trial, t) for t in times])
        reached = np.array([trial.at_risk([milestone], t)[0].sum() for t in times])
        return {
            f"efficacy{title}": null + upper * spread,
            f"futility{title}": null + lower * spread,
            "numberOfMilestone": reached,
        }

    return Statistic(effect, information, information, extra)


@dataclass(frozen=True)
class Plan:
    """Looks and bounds of lrstat.

    Attributes:
        rates: Information rates. upper: Efficacy bounds. lower: Given futility bounds. given: The arguments.
    """

    rates: Floats
    upper: Floats
    lower: Floats
    given: Arguments

    @property
    def spends_beta(self) -> bool:
        """Whether futility bounds come of beta spending."""
        return self.given["typeBetaSpending"] != "none" and len(self.rates) > 1

    def beta_spent(self, beta: float) -> Floats:
        """Type II error spent by each look."""
        given = self.given
        spending = lrstat_spending(
            given["typeBetaSpending"], given["parameterBetaSpending"], given.get("userBetaSpending")
        )
        at = self.rates if is_missing(given["spendingTime"]) else np.array(numbers(given["spendingTime"]))
        return spent_where_tested(spending.spent(at, beta), looks_tested(given["futilityStopping"], len(self.rates)))

    def futility(self, information: Floats, means: Floats, beta: float | None) -> Floats:
        """Futility bounds under an alternative; the last meets the efficacy bound."""
        lower = self.lower
        if self.spends_beta and beta is None:
            lower, _ = own_futility_bounds(information, self.upper, means, self.beta_spent)
        elif self.spends_beta:
            lower = futility_bounds(information, self.upper, means, self.beta_spent(float(beta or 0.0)))
        lower = lower.copy()
        lower[-1] = self.upper[-1]
        return lower


def plan_of(given: Arguments) -> Plan:
    """The looks and bounds that the arguments describe."""
    looks = int(given["kMax"])
    rates = np.array(numbers(given["informationRates"])) if not is_missing(given["informationRates"]) else None
    rates = np.arange(1, looks + 1) / looks if rates is None else rates
    if is_missing(given["criticalValues"]):
        upper = lrstat_bounds(given, rates, float(given["alpha"]), tested=given["efficacyStopping"])
    else:
        upper = np.array(numbers(given["criticalValues"]))
    lower = np.full(looks, -np.inf)
    if not is_missing(given["futilityBounds"]):
        values = numbers(given["futilityBounds"])[: looks - 1]
        lower[: len(values)] = [each if each > NO_BOUND else -np.inf for each in values]
    return Plan(rates, upper, lower, given)


@dataclass(frozen=True)
class Solved:
    """A trial at its looks."""

    trial: TwoArmSurvival
    plan: Plan
    statistic: Statistic
    times: Floats
    means: Floats
    information: Floats

    def lower(self, beta: float | None) -> Floats:
        """Futility bounds."""
        return self.plan.futility(self.information, self.means, beta)

    def power(self, beta: float | None) -> float:
        """P(an efficacy bound is crossed)."""
        return exits_with_means(self.information, self.plan.upper, self.lower(beta), self.means).power


def at_looks(trial: TwoArmSurvival, plan: Plan, statistic: Statistic, end: float) -> Solved:
    """The trial that ends at a calendar month, at its information rates."""
    total = statistic.clock(trial, end)

    def when(rate: float) -> float:
        if rate == 1:
            return end
        low = 1e-4 * end
        while True:
            try:
                if statistic.clock(trial, low) >= rate * total:
                    raise NotCoveredError("a look before the milestone")
                break
            except ValueError:
                low += 0.01 * end
        return float(brentq(lambda t: statistic.clock(trial, t) - rate * total, low, end, xtol=1e-9))

    times = np.array([when(float(rate)) for rate in plan.rates])
    means = np.array([statistic.effect(trial, t) for t in times])
    information = np.array([statistic.information(trial, t) for t in times])
    return Solved(trial, plan, statistic, times, means, information)


def results(solved: Solved, follow_up: float, beta: float | None, extra: dict[str, Any]) -> dict[str, Any]:
    """lrstat's components of a design."""
    trial, plan, times = solved.trial, solved.plan, solved.times
    lower = solved.lower(beta)
    exits = exits_with_means(solved.information, plan.upper, lower, solved.means)
    shown = np.where(np.isfinite(lower), lower, NO_BOUND)
    null = exit_probabilities(solved.information, plan.upper, None, 0.0).upper.cumsum()
    events = np.array([trial.events(t).sum(axis=0) for t in times])
    dropouts = np.array([trial.dropouts(t).sum(axis=0) for t in times])
    subjects = np.array([float(trial.subjects(t)) for t in times])
    counts = {"Events": events.sum(axis=1), "Dropouts": dropouts.sum(axis=1), "Subjects": subjects}
    stages = {
        "informationRates": plan.rates,
        "efficacyBounds": plan.upper,
        "futilityBounds": shown,
        "rejectPerStage": exits.upper,
        "futilityPerStage": exits.lower,
        "cumulativeRejection": exits.upper.cumsum(),
        "cumulativeFutility": exits.lower.cumsum(),
        "cumulativeAlphaSpent": null,
        **{f"numberOf{name}": count for name, count in counts.items()},
        "analysisTime": times,
        "efficacyP": norm.sf(plan.upper),
        "futilityP": norm.sf(shown),
        "information": solved.information,
        **solved.statistic.extra(trial, times, plan.upper, shown),
    }
    overall = {
        "overallReject": exits.power,
        "alpha": null[-1],
        **{f"numberOf{name}": count[-1] for name, count in counts.items()},
        "studyDuration": times[-1],
        "information": solved.information[-1],
        **{f"expectedNumberOf{name}": exits.expected(count) for name, count in counts.items()},
        "expectedStudyDuration": exits.expected(times),
        "expectedInformation": exits.expected(solved.information),
        "accrualDuration": trial.enroll_duration,
        "followupTime": follow_up,
        "kMax": float(len(times)),
        **extra,
    }
    if "numberOfMilestone" in stages:
        overall["numberOfMilestone"] = stages["numberOfMilestone"][-1]
    shares = trial.shares
    arms = {}
    for i in (0, 1):
        arms[f"numberOfEvents{i + 1}"] = events[:, i]
        arms[f"numberOfDropouts{i + 1}"] = dropouts[:, i]
        arms[f"numberOfSubjects{i + 1}"] = shares[i] * subjects
    return {"overallResults": Frame(overall), "byStageResults": Frame(stages), "byTreatmentCounts": arms}


def _power(statistic_of: Callable[[Arguments], Statistic], more: Callable[..., dict[str, Any]]) -> Any:
    def call(given: Arguments) -> dict[str, Any]:
        if not all(looks_tested(given["futilityStopping"], 1)):
            raise NotCoveredError("futilityStopping")
        trial, plan, statistic = trial_of(given), plan_of(given), statistic_of(given)
        end = trial.enroll_duration + float(given["followupTime"])
        if not is_missing(given["studyDuration"]):
            end = float(given["studyDuration"])
        solved = at_looks(trial, plan, statistic, end)
        return results(solved, float(given["followupTime"]), None, more(given, trial, end))

    return call


def _no_more(given: Arguments, trial: TwoArmSurvival, end: float) -> dict[str, Any]:
    return {}


def _summaries(name: str, summary: Callable[[TwoArmSurvival, float, float], ArmSummaries]) -> Any:
    def more(given: Arguments, trial: TwoArmSurvival, end: float) -> dict[str, Any]:
        found = summary(trial, end, float(given["milestone"]))
        return {
            "milestone": given["milestone"],
            f"{name}1": found.values[0],
            f"{name}2": found.values[1],
            f"{name}Diff": found.difference,
        }

    return more


def _sample_size(statistic_of: Callable[[Arguments], Statistic], more: Callable[..., dict[str, Any]]) -> Any:
    def call(given: Arguments) -> dict[str, Any]:
        plan, statistic, beta = plan_of(given), statistic_of(given), float(given["beta"])
        trial = trial_of(given)

        def excess(each: TwoArmSurvival, end: float) -> float:
            try:
                return at_looks(each, plan, statistic, end).power(beta) - (1 - beta)
            except (ValueError, NotCoveredError):
                return -1.0

        trial, follow_up = _solve(given, trial, excess)
        if given["rounding"]:
            trial, follow_up, plan = _rounded(given, trial, follow_up, plan, statistic)
        end = trial.enroll_duration + follow_up
        solved = at_looks(trial, plan, statistic, end)
        found = results(solved, follow_up, beta, more(given, trial, end))
        return {"resultsUnderH1": found, "resultsUnderH0": _under_null(given, solved, follow_up, beta, more)}

    return call


def _solve(
    given: Arguments, trial: TwoArmSurvival, excess: Callable[[TwoArmSurvival, float], float]
) -> tuple[TwoArmSurvival, float]:
    """Solves what is missing: the duration of accrual, of follow-up, or the factor on the rates."""
    if is_missing(given["accrualDuration"]):
        months = float(given["followupTime"])
        return trial.enrolling_for(enroll_duration_for(trial, months, excess)), months
    if is_missing(given["followupTime"]):
        if given["fixedFollowup"]:
            raise NotCoveredError("the duration of a fixed follow-up")
        return trial, follow_up_for(trial, excess)
    end = trial.enroll_duration + float(given["followupTime"])
    low, high = 1e-3, 1.0
    while excess(trial.enrolling(high), end) < 0:
        high *= 2.0
    factor = float(brentq(lambda f: excess(trial.enrolling(f), end), low, high, xtol=1e-12))
    return trial.enrolling(factor), float(given["followupTime"])


def _rounded(
    given: Arguments, trial: TwoArmSurvival, follow_up: float, plan: Plan, statistic: Statistic
) -> tuple[TwoArmSurvival, float, Plan]:
    """Whole patients and, for the log-rank test, whole events; the follow-up is what they need."""
    if given["fixedFollowup"]:
        raise NotCoveredError("rounding of a design with fixed follow-up")
    end = trial.enroll_duration + follow_up
    target = statistic.clock(trial, end)
    counts_events = abs(target - trial.total_events(end)) < 1e-9
    if counts_events:
        target = math.ceil(target - 1e-12)
        events = np.floor(target * plan.rates + 0.5)
        spent_at = plan.rates if is_missing(given["spendingTime"]) else given["spendingTime"]
        plan = plan_of({**given, "informationRates": events / target, "spendingTime": spent_at})
    whole = math.ceil(trial.num_subjects - 1e-12)
    if whole - trial.num_subjects > 1e-6:
        solved_rate = not is_missing(given["accrualDuration"]) and not is_missing(given["followupTime"])
        trial = trial.enrolling(whole / trial.num_subjects) if solved_rate else _enrol_until(trial, whole)
    months = follow_up_for(trial, lambda each, t: _clock_or_none(statistic, each, t) - target)
    return trial, months, plan


def _clock_or_none(statistic: Statistic, trial: TwoArmSurvival, time: float) -> float:
    try:
        return statistic.clock(trial, time)
    except ValueError:
        return 0.0


def _enrol_until(trial: TwoArmSurvival, subjects: float) -> TwoArmSurvival:
    long = trial.enrolling_for(1e4)
    return trial.enrolling_for(float(brentq(lambda t: float(long.subjects(t)) - subjects, 0.0, 1e4, xtol=1e-12)))


def _under_null(
    given: Arguments, solved: Solved, follow_up: float, beta: float, more: Callable[..., dict[str, Any]]
) -> Any:
    """The same design if the null holds: as much information, when it comes."""
    if "hazardRatioH0" not in given:
        return None
    trial = solved.trial.under_null(float(given["hazardRatioH0"]))
    plan, statistic = solved.plan, solved.statistic
    target = statistic.clock(solved.trial, solved.times[-1])
    try:
        months = follow_up_for(trial, lambda each, t: statistic.clock(each, t) - target)
    except ValueError:
        return None
    fixed = replace(plan, lower=solved.lower(beta), given={**plan.given, "typeBetaSpending": "none"})
    null = at_looks(trial, fixed, statistic, trial.enroll_duration + months)
    return results(null, months, None, more(given, trial, trial.enroll_duration + months))


_POWER = {**DESIGN, **ENTRY, **FOLLOW, "studyDuration": None}
_SIZE = {**DESIGN, **ENTRY, **FOLLOW, "beta": 0.2, "userBetaSpending": None, "interval": None, "rounding": True}
_RM: Arguments = {"milestone": None, "rmstDiffH0": 0.0}
_KM: Arguments = {"milestone": None, "survDiffH0": 0.0}


def _rm(given: Arguments) -> Statistic:
    return _summary(given, "rmst", restricted_mean)


def _km(given: Arguments) -> Statistic:
    return _summary(given, "surv", milestone_survival)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "lrpower": bound("lrpower", {**_POWER, **LOGRANK}, _power(_logrank, _no_more)),
    "lrsamplesize": bound("lrsamplesize", {**_SIZE, **LOGRANK}, _sample_size(_logrank, _no_more)),
    "rmpower": bound("rmpower", {**_POWER, **_RM}, _power(_rm, _summaries("rmst", restricted_mean))),
    "rmsamplesize": bound("rmsamplesize", {**_SIZE, **_RM}, _sample_size(_rm, _summaries("rmst", restricted_mean))),
    "kmpower": bound("kmpower", {**_POWER, **_KM}, _power(_km, _summaries("surv", milestone_survival))),
    "kmsamplesize": bound("kmsamplesize", {**_SIZE, **_KM}, _sample_size(_km, _summaries("surv", milestone_survival))),
}
