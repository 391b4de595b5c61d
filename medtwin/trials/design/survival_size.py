"""Events and patients that a log-rank test needs under proportional hazards, and what enrolment gives them.

Source: Schoenfeld 1981, Biometrika 68:316; Freedman 1982, Stat Med 1:121; Hsieh 1992, Stat Med 11:1091; Lachin &
Foulkes 1986, Biometrics 42:507; Bernstein & Lagakos 1978, J Stat Comput Simul 8:65.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import Stratum, TwoArmSurvival

Floats = NDArray[np.float64]
EventFormula = Literal["schoenfeld", "freedman", "hsieh_freedman"]
NullHazards = Literal["pooled", "control"]


def information_per_event(allocation_ratio: float) -> float:
    """Information on the log hazard ratio per event: p (1 - p), p the experimental share of patients.

    Source: Schoenfeld 1981, Biometrika 68:316.
    """
    if not allocation_ratio > 0:
        raise ValueError(f"allocation_ratio must be above 0, got {allocation_ratio!r}")
    return allocation_ratio / (1 + allocation_ratio) ** 2


def effect_per_event(
    hazard_ratio: float,
    allocation_ratio: float = 1.0,
    null_hazard_ratio: float = 1.0,
    formula: EventFormula = "schoenfeld",
) -> float:
    """E Z of the log-rank test after one event, below 0 for a hazard ratio below the null; E Z grows with its root.

    Args:
        hazard_ratio: Experimental / control.
        allocation_ratio: Experimental : control.
        null_hazard_ratio: The hazard ratio that is tested; 1 but for Schoenfeld's formula.
        formula: Whose approximation; `hsieh_freedman` is Freedman's with the shares of patients in Schoenfeld's way.

    Raises:
        ValueError: If a ratio is not above 0, or the formula is not known or not for this null.

    >>> round(effect_per_event(0.7), 6), round(effect_per_event(0.7, formula="freedman"), 6)
    (-0.178337, -0.176471)
    """
    for name, value in (("hazard_ratio", hazard_ratio), ("null_hazard_ratio", null_hazard_ratio)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value!r}")
    if formula != "schoenfeld" and null_hazard_ratio != 1:
        raise ValueError(f"formula must be schoenfeld for a null hazard ratio other than 1, got {formula!r}")
    spread = math.sqrt(information_per_event(allocation_ratio))
    match formula:
        case "schoenfeld":
            return spread * math.log(hazard_ratio / null_hazard_ratio)
        case "freedman":
            return math.sqrt(allocation_ratio) * (hazard_ratio - 1) / (1 + hazard_ratio * allocation_ratio)
        case "hsieh_freedman":
            return 2 * spread * (hazard_ratio - 1) / (hazard_ratio + 1)
    raise ValueError(f"formula must be schoenfeld, freedman or hsieh_freedman, got {formula!r}")


def events_for_drift(
    drift: float,
    hazard_ratio: float,
    allocation_ratio: float = 1.0,
    null_hazard_ratio: float = 1.0,
    formula: EventFormula = "schoenfeld",
) -> float:
    """Events, fractional, after which |E Z| of the log-rank test is the drift; see `effect_per_event`.

    Raises:
        ValueError: If the alternative is the null.

    >>> round(events_for_drift(1.959964 + 1.281552, 0.7, formula="freedman"), 1)
    337.4
    """
    effect = effect_per_event(hazard_ratio, allocation_ratio, null_hazard_ratio, formula)
    if effect == 0:
        raise ValueError(f"hazard_ratio must not be the null hazard ratio, got {hazard_ratio!r}")
    return (drift / effect) ** 2


@dataclass(frozen=True)
class ProportionalHazards:
    """A trial whose arms differ by one hazard ratio in every stratum, and the test of another.

    Attributes:
        trial: Under the alternative.
        hazard_ratio: Experimental / control. null_hazard_ratio: The one that is tested.
        null_hazards: Of the null variance: `pooled` the mean of the alternative's (Lachin & Foulkes), `control` those
            of the control arm (Bernstein & Lagakos).
    """

    trial: TwoArmSurvival
    hazard_ratio: float
    null_hazard_ratio: float = 1.0
    null_hazards: NullHazards = "pooled"

    def __post_init__(self) -> None:
        if not (self.hazard_ratio > 0 and self.null_hazard_ratio > 0) or self.hazard_ratio == self.null_hazard_ratio:
            raise ValueError(
                f"hazard_ratio must be above 0 and not {self.null_hazard_ratio}, got {self.hazard_ratio!r}"
            )
        if self.null_hazards not in ("pooled", "control"):
            raise ValueError(f"null_hazards must be pooled or control, got {self.null_hazards!r}")

    @property
    def null_trial(self) -> TwoArmSurvival:
        """The trial under the null."""
        r, null = self.trial.allocation_ratio, self.null_hazard_ratio
        factor = (1 + self.hazard_ratio * r) / (1 + null * r) if self.null_hazards == "pooled" else 1.0
        strata = tuple(
            Stratum(
                Arm(s.control.hazard.scaled(factor * null), s.experimental.dropout_rate),
                Arm(s.control.hazard.scaled(factor), s.control.dropout_rate),
                s.enroll_rate,
            )
            for s in self.trial.strata
        )
        return TwoArmSurvival(strata, self.trial.enroll_duration, r, self.trial.max_follow_up)

    def with_trial(self, trial: TwoArmSurvival) -> ProportionalHazards:
        """The same hazards with another enrolment."""
        return ProportionalHazards(trial, self.hazard_ratio, self.null_hazard_ratio, self.null_hazards)

    def drift_excess(self, time: float, alpha: float, power: float) -> float:
        """How much |log hazard ratio - log null| exceeds z_alpha sd_0 + z_beta sd_1 at a calendar month."""
        null, alternative = (_information(trial.events(time)) for trial in (self.null_trial, self.trial))
        needed = norm.isf(alpha) / math.sqrt(null) + norm.ppf(power) / math.sqrt(alternative)
        return float(abs(math.log(self.hazard_ratio / self.null_hazard_ratio)) - needed)

    def enrolment_factor(self, time: float, alpha: float, power: float) -> float:
        """What the rates of enrolment are to be multiplied with for the power at a calendar month.

        Args:
            time: Calendar month of the analysis.
            alpha: One-sided.
            power: Wanted.
        """
        null, alternative = (_information(trial.events(time)) for trial in (self.null_trial, self.trial))
        needed = norm.isf(alpha) / math.sqrt(null) + norm.ppf(power) / math.sqrt(alternative)
        return float((needed / math.log(self.hazard_ratio / self.null_hazard_ratio)) ** 2)

    def power(self, time: float, alpha: float) -> float:
        """The power of a test at a calendar month, alpha one-sided."""
        null, alternative = (_information(trial.events(time)) for trial in (self.null_trial, self.trial))
        effect = abs(math.log(self.hazard_ratio / self.null_hazard_ratio))
        return float(norm.cdf((effect - norm.isf(alpha) / math.sqrt(null)) * math.sqrt(alternative)))


def _information(events: Floats) -> float:
    """On the log hazard ratio, of expected events (strata, 2), summed over strata."""
    return float((events.prod(axis=1) / events.sum(axis=1)).sum())


def enroll_duration_for(
    trial: TwoArmSurvival, follow_up: float, excess: Callable[[TwoArmSurvival, float], float], latest: float = 1200.0
) -> float:
    """The months of enrolment after which an excess, such as of power or events, is 0 at the end of a trial.

    Args:
        trial: With rates of enrolment that hold as long as wanted.
        follow_up: Months from the end of enrolment to the analysis.
        excess: Of a trial at a calendar month, increasing with enrolment.
        latest: Months looked at.

    Raises:
        ValueError: If no duration will do.
    """

    def at(duration: float) -> float:
        return excess(trial.enrolling_for(duration), duration + follow_up)

    return _root(at, 1e-6, latest, "enroll_duration")


def follow_up_for(
    trial: TwoArmSurvival, excess: Callable[[TwoArmSurvival, float], float], latest: float = 1200.0
) -> float:
    """The months from the end of enrolment to an analysis at which an excess is 0; see `enroll_duration_for`.

    Raises:
        ValueError: If the trial has too many patients or too few.
    """
    return _root(lambda months: excess(trial, trial.enroll_duration + months), 0.0, latest, "follow_up")


def _root(function: Callable[[float], float], low: float, latest: float, name: str) -> float:
    if function(low) > 0:
        raise ValueError(f"{name} must be above {low:g} months, but less is enough")
    high = max(2 * low, 1.0)
    while function(high) < 0:
        if high >= latest:
            raise ValueError(f"{name} must be within {latest:g} months, but more is needed")
        low, high = high, min(2 * high, latest)
    return float(brentq(function, low, high, xtol=1e-10, rtol=1e-13))


def optimal_allocation_ratio(subjects: Callable[[float], float]) -> float:
    """The allocation ratio, experimental : control between 1 : 20 and 20 : 1, with the fewest patients.

    Args:
        subjects: Patients of both arms for an allocation ratio.
    """
    limit = math.log(20.0)
    found = minimize_scalar(
        lambda x: subjects(math.exp(x)), bounds=(-limit, limit), method="bounded", options={"xatol": 1e-9}
    )
    return float(math.exp(found.x))


@dataclass(frozen=True)
class ExponentialTrial:
    """Lachin & Foulkes' trial: exponential times, one rate of dropout, uniform or exponential entry.

    Attributes:
        control_hazard: Per month. experimental_hazard: Per month.
        enroll_duration: Months. study_duration: Months.
        dropout_rate: Per month, of both arms. allocation_ratio: Experimental : control.
        entry_rate: gamma of the entry density gamma exp(-gamma t) / (1 - exp(-gamma T)); 0: uniform.
    """

    control_hazard: float
    experimental_hazard: float
    enroll_duration: float
    study_duration: float
    dropout_rate: float = 0.0
    allocation_ratio: float = 1.0
    entry_rate: float = 0.0

    def __post_init__(self) -> None:
        for name in ("control_hazard", "experimental_hazard", "enroll_duration", "allocation_ratio"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")
        if not self.study_duration >= self.enroll_duration:
            raise ValueError(f"study_duration must be at least the enroll_duration, got {self.study_duration!r}")

    def event_probability(self, hazard: float) -> float:
        """P(event by the end) of a patient with a hazard."""
        total, accrual, gamma = hazard + self.dropout_rate, self.enroll_duration, self.entry_rate
        last = math.exp(-total * self.study_duration)
        if gamma == 0:
            censored = last * math.expm1(total * accrual) / (total * accrual)
        else:
            entered = math.expm1((total - gamma) * accrual) / (total - gamma) if total != gamma else accrual
            censored = last * gamma * entered / -math.expm1(-gamma * accrual)
        return hazard / total * (1 - censored)

    def subjects(
        self, alpha: float, power: float, *, scale: Literal["ratio", "difference"], pooled: bool = True
    ) -> float:
        """Patients of both arms, fractional, for a test of the log hazard ratio or of the hazards' difference.

        Args:
            alpha: One-sided.
            power: Wanted.
            scale: `ratio`: of the log hazard ratio; `difference`: of the hazards.
            pooled: The null variance is that of the pooled hazard; else it is the alternative's.

        Raises:
            ValueError: If the hazards are equal or the scale is not known.
        """
        if scale not in ("ratio", "difference"):
            raise ValueError(f"scale must be ratio or difference, got {scale!r}")
        if self.control_hazard == self.experimental_hazard:
            raise ValueError(f"experimental_hazard must not be the control's, got {self.experimental_hazard!r}")
        share = self.allocation_ratio / (1 + self.allocation_ratio)
        hazards = (self.experimental_hazard, self.control_hazard)
        mean = share * hazards[0] + (1 - share) * hazards[1]

        def variance(each: tuple[float, float]) -> float:
            numerators = (1.0, 1.0) if scale == "ratio" else (each[0] ** 2, each[1] ** 2)
            probabilities = [self.event_probability(hazard) for hazard in each]
            return numerators[0] / (share * probabilities[0]) + numerators[1] / ((1 - share) * probabilities[1])

        alternative = variance(hazards)
        null = variance((mean, mean)) if pooled else alternative
        effect = math.log(hazards[0] / hazards[1]) if scale == "ratio" else hazards[0] - hazards[1]
        quantiles = norm.isf(alpha) * math.sqrt(null) + norm.ppf(power) * math.sqrt(alternative)
        return float((quantiles / effect) ** 2)

    def events(self, subjects: float) -> float:
        """Expected events of so many patients."""
        share = self.allocation_ratio / (1 + self.allocation_ratio)
        experimental = self.event_probability(self.experimental_hazard)
        return subjects * (share * experimental + (1 - share) * self.event_probability(self.control_hazard))
