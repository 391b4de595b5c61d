"""Scenarios: what is true of a trial that was planned on other assumptions. Its design stays as planned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.core.errors import ConfigError
from medtwin.trials.design.average_hazard_ratio import average_hazard_ratio_looks
from medtwin.trials.design.boundaries import Exits
from medtwin.trials.design.changing_effects import exits_with_means
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import Stratum, TwoArmSurvival
from medtwin.trials.engine.batch import BLOCK, TrialPlan
from medtwin.trials.engine.scenarios import Line, Scenario
from medtwin.trials.engine.survival_trial import Study
from medtwin.trials.enrolment.accrual import Accrual, Site
from medtwin.trials.enrolment.adherence import Dropout, TreatmentChange
from medtwin.trials.enrolment.effect_over_time import EffectFrom, effect_over_time

Floats = NDArray[np.float64]
MIN_PRIOR_BLOCKS = 5  # with fewer, the parts of a prior are coarser than the Monte-Carlo error


@dataclass(frozen=True)
class EffectPrior:
    """A normal prior on the log hazard ratio, over which assurance averages power.

    Attributes:
        log_sd: Standard deviation of the log hazard ratio.
        median: Median hazard ratio; None: the one that the trial was planned for.

    Raises:
        ValueError: If a number is not above 0.

    Source: O'Hagan, Stevens & Campbell 2005, Pharm Stat 4:187.
    """

    log_sd: float
    median: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("log_sd", self.log_sd), ("median", 1.0 if self.median is None else self.median)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, got {value!r}")

    def hazard_ratios(self, count: int, planned: float) -> Floats:
        """Hazard ratios at the middles of equally likely parts of the prior, (count,).

        Args:
            count: How many.
            planned: The median where none is stated.
        """
        median = planned if self.median is None else self.median
        return np.asarray(median * np.exp(self.log_sd * _middles(count)))


@dataclass(frozen=True)
class DifferencePrior:
    """A normal prior on a difference of means or rates, over which assurance averages power.

    Attributes:
        sd: Standard deviation of the difference.
        mean: Its mean; None: the difference that the trial was planned for.

    Raises:
        ValueError: If a number is out of its range.

    Source: O'Hagan, Stevens & Campbell 2005, Pharm Stat 4:187.
    """

    sd: float
    mean: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sd < math.inf:
            raise ValueError(f"sd must be above 0, got {self.sd!r}")
        if self.mean is not None and not math.isfinite(self.mean):
            raise ValueError(f"mean must be finite, got {self.mean!r}")

    def differences(self, count: int, planned: float) -> Floats:
        """Differences at the middles of equally likely parts of the prior, (count,).

        Args:
            count: How many.
            planned: The mean where none is stated.
        """
        mean = planned if self.mean is None else self.mean
        return np.asarray(mean + self.sd * _middles(count))


def _middles(count: int) -> Floats:
    """Of equally likely parts of a standard normal, (count,)."""
    return np.asarray(norm.ppf((np.arange(count) + 0.5) / count))


def check_blocks_of_prior(num_blocks: int, effect: str) -> None:
    """Refuses a prior over too few blocks.

    Args:
        num_blocks: Over how many it is spread.
        effect: Which has it.

    Raises:
        ConfigError: If each is a coarser part of the prior than the Monte-Carlo error.
    """
    if num_blocks < MIN_PRIOR_BLOCKS:
        raise ConfigError(
            f"num_trials must be {BLOCK * MIN_PRIOR_BLOCKS} or more where the {effect} has a prior, of which each "
            f"hundred trials have a part, got {BLOCK * num_blocks}"
        )


@dataclass(frozen=True)
class Assumptions:
    """What is true in a scenario. What is left out is as the trial was planned.

    Attributes:
        hazard_ratio: Experimental / control, of each patient; 1 is the null, also of means and rates; or a prior of it.
            None: as planned.
        effect: (month since enrolment, part of the log hazard ratio from then on) pairs, the first at month 0; empty:
            the whole effect throughout.
        hazard_factor: On the hazard of the event of all patients.
        accrual_factor: On the rate at which patients come.
        annual_dropout: Share of patients who leave within a year, or how they leave; None: as planned.
        treatment_changes: Who stops or switches treatment; None: as planned.
        difference: Of means or rates, experimental less control; or a prior of it. None: as planned.
        sd_factor: On the standard deviation of a number that is read once.
        control_rate: Of an endpoint of yes and no; the difference stays. None: as planned.

    Raises:
        ValueError: If a number is out of its range, or the effect changes over time where patients change treatment.
    """

    hazard_ratio: float | EffectPrior | None = None
    effect: Sequence[Sequence[float]] = ()
    hazard_factor: float = 1.0
    accrual_factor: float = 1.0
    annual_dropout: float | Dropout | None = None
    treatment_changes: Sequence[TreatmentChange] | None = None
    difference: float | DifferencePrior | None = None
    sd_factor: float = 1.0
    control_rate: float | None = None

    def __post_init__(self) -> None:
        numbers = [(name, getattr(self, name)) for name in ("hazard_factor", "accrual_factor", "sd_factor")]
        if isinstance(self.hazard_ratio, (int, float)):
            numbers.append(("hazard_ratio", self.hazard_ratio))
        for name, value in numbers:
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, got {value!r}")
        if isinstance(self.difference, (int, float)) and not math.isfinite(self.difference):
            raise ValueError(f"difference must be finite, got {self.difference!r}")
        if self.control_rate is not None and not 0 < self.control_rate < 1:
            raise ValueError(f"control_rate must be between 0 and 1, got {self.control_rate!r}")
        effect_over_time(self.effect)
        if isinstance(self.annual_dropout, (int, float)):
            Dropout.of_share(self.annual_dropout)
        if self.effect and self.treatment_changes:
            raise ValueError("effect cannot change over time where patients change treatment: leave one of them out")

    @property
    def is_planned(self) -> bool:
        """Whether all is as planned."""
        return not self.describe()

    def dropout(self, planned: Dropout) -> Dropout:
        """How patients leave.

        Args:
            planned: How the trial was planned that they do.
        """
        found = planned if self.annual_dropout is None else self.annual_dropout
        return found if isinstance(found, Dropout) else Dropout.of_share(found)

    def ratios(self, planned: float, num_blocks: int) -> Floats:
        """The hazard ratio of each block of trials, (blocks,).

        Args:
            planned: What the trial was planned for.
            num_blocks: Over how many a prior is spread.

        Raises:
            ConfigError: If they are too few for the prior.
        """
        if isinstance(self.hazard_ratio, EffectPrior):
            check_blocks_of_prior(num_blocks, "hazard ratio")
            return self.hazard_ratio.hazard_ratios(num_blocks, planned)
        return np.full(num_blocks, planned if self.hazard_ratio is None else self.hazard_ratio)

    def _describe_responses(self) -> list[str]:
        told = []
        if isinstance(self.difference, DifferencePrior):
            mean = "the planned one" if self.difference.mean is None else f"{self.difference.mean:g}"
            told.append(
                f"the difference follows a normal prior with mean {mean}, standard deviation {self.difference.sd:g}"
            )
        elif self.difference is not None:
            told.append(f"the difference is {self.difference:g}")
        if self.sd_factor != 1:
            told.append(f"the standard deviation is {self.sd_factor:g} times the planned one in both arms")
        if self.control_rate is not None:
            told.append(f"the control rate is {self.control_rate:g}")
        return told

    def describe(self) -> list[str]:
        """What is not as planned, in words."""
        told = []
        if isinstance(self.hazard_ratio, EffectPrior):
            median = "the planned one" if self.hazard_ratio.median is None else f"{self.hazard_ratio.median:g}"
            told.append(
                f"the hazard ratio follows a log-normal prior with median {median}, log standard deviation "
                f"{self.hazard_ratio.log_sd:g}"
            )
        elif self.hazard_ratio is not None:
            told.append(f"the hazard ratio is {self.hazard_ratio:g}" if self.hazard_ratio != 1 else "the null is true")
        told += self._describe_responses()
        if self.effect:
            parts = ", ".join(f"{part:.0%} from month {month:g}" for month, part in self.effect)
            told.append(f"the part of the log hazard ratio since enrolment is {parts}")
        if self.hazard_factor != 1:
            told.append(f"events come at {self.hazard_factor:g} times the planned hazard in both arms")
        if self.accrual_factor != 1:
            told.append(f"patients come at {self.accrual_factor:g} times the planned rate")
        if isinstance(self.annual_dropout, Dropout):
            told.append("patients leave at other rates")
        elif self.annual_dropout is not None:
            told.append(f"{self.annual_dropout:.3g} of the patients leave within a year")
        if self.treatment_changes is not None:
            kinds = [type(change).__name__ for change in self.treatment_changes]
            told.append(f"patients change treatment: {', '.join(kinds)}" if kinds else "nobody changes treatment")
        return told


def refused(field: str, value: object, why: str, instead: str) -> ConfigError:
    """The error of a scenario that has no meaning for an endpoint.

    Args:
        field: Of the scenario.
        value: That it has.
        why: It has no meaning.
        instead: What to do.
    """
    return ConfigError(f"scenario.{field} {why}, got {value!r}: {instead}")


def _check_survival(assumptions: Assumptions) -> None:
    """Refuses what has no meaning for a time to an event.

    Raises:
        ConfigError: Names the field.
    """
    why = "has no meaning for a time to an event"
    if assumptions.difference is not None:
        raise refused("difference", assumptions.difference, why, "state scenario.hazard_ratio")
    if assumptions.sd_factor != 1:
        raise refused("sd_factor", assumptions.sd_factor, why, "leave it at 1")
    if assumptions.control_rate is not None:
        raise refused("control_rate", assumptions.control_rate, why, "state scenario.hazard_factor")


def study_under(study: Study, assumptions: Assumptions) -> Study:
    """The study as it is in a scenario: its looks, bounds, patients and last month are those that were planned.

    Raises:
        ConfigError: If the scenario cannot be: too few patients ever come, an effect changes over time where patients
            change treatment, or it says something of means or rates.
    """
    _check_survival(assumptions)
    plan = study.plan
    changes = plan.changes if assumptions.treatment_changes is None else assumptions.treatment_changes
    pieces = effect_over_time(assumptions.effect)
    if pieces and changes:
        raise ConfigError(
            "scenario.effect cannot change over time where patients change treatment: "
            "leave trial.treatment_changes empty, or scenario.treatment_changes=[]"
        )
    try:
        found = replace(
            plan,
            pool=replace(plan.pool, hazard=plan.pool.hazard.scaled(assumptions.hazard_factor)),
            accrual=at_rate(plan.accrual, assumptions.accrual_factor),
            dropout=assumptions.dropout(plan.dropout),
            changes=[*changes, *pieces],
        )
    except ValueError as error:
        raise ConfigError(f"scenario: {error}") from error
    return replace(study, plan=found)


def at_rate(accrual: Accrual, factor: float) -> Accrual:
    """The same sites, at which patients come faster or slower."""
    sites = []
    for site in accrual.sites:
        rate = site.rate if isinstance(site.rate, PiecewiseRate) else PiecewiseRate((0.0,), (float(site.rate),))
        sites.append(Site(rate.scaled(factor), site.opens, site.closes))
    return accrual if factor == 1 else replace(accrual, sites=sites)


def scenarios_under(scenarios: Sequence[Scenario], assumptions: Assumptions) -> list[Scenario]:
    """What is simulated of a trial in a scenario: its own hazard ratio takes the alternative's place, 1 the null's.

    Args:
        scenarios: Of the trial, as planned.
        assumptions: What is true.

    Raises:
        ConfigError: If the hazard ratio has a prior.
    """
    ratio = assumptions.hazard_ratio
    if ratio is None:
        return list(scenarios)
    if isinstance(ratio, EffectPrior):
        raise ConfigError("scenario.hazard_ratio has a prior: `medtwin compare` averages over it")
    if ratio == 1:
        return [each for each in scenarios if each.hazard_ratio == 1]
    return [replace(each, hazard_ratio=ratio) if each.name == "alternative" else each for each in scenarios]


def analytical_exits(study: Study, hazard_ratio: float) -> Exits | None:
    """Where a study stops by numerical integration, with the mean of its log-rank statistic at each expected look.

    Under an effect that changes over time the statistic is that of the average hazard ratio at the look. None where
    patients change treatment or differ in its effect, or the calendar is expected to end the trial short of its events:
    there is no formula here.

    Args:
        study: In its scenario.
        hazard_ratio: Of the whole effect.

    Source: Mukhopadhyay et al. 2020, Contemp Clin Trials 95:106058.
    """
    plan, design = study.plan, study.plan.design
    bounds = design.bounds
    if any(not isinstance(change, EffectFrom) for change in plan.changes) or plan.pool.effect is not None:
        return None
    trial = _two_arms(plan, hazard_ratio)
    months = trial.time_of_events(design.events, latest=plan.max_months)
    if not (months < plan.max_months).all():
        return None
    if not plan.changes or hazard_ratio == 1:
        return bounds.exits(design.drift(hazard_ratio))
    looks = average_hazard_ratio_looks(trial, months)
    means = looks.effect * np.sqrt(looks.null_information)
    return exits_with_means(bounds.fractions, bounds.efficacy, bounds.futility, means)


def _two_arms(plan: TrialPlan, hazard_ratio: float) -> TwoArmSurvival:
    """The plan in expectation, under an effect that changes over time."""
    pieces = [change for change in plan.changes if isinstance(change, EffectFrom)]
    control, hazard = plan.dropout.arms[0], plan.pool.hazard
    starts = tuple(sorted({*hazard.starts, *(piece.month for piece in pieces)}))
    parts = [next((p.effect for p in reversed(pieces) if p.month <= start), 1.0) for start in starts]
    rates = hazard.at(starts) * hazard_ratio ** np.array(parts)
    groups, ratio = plan.pool.risk_groups(), plan.design.allocation_ratio
    arms = (
        Arm(PiecewiseRate(starts, tuple(rates.tolist())), plan.dropout.arms[1], groups),
        Arm(PiecewiseRate(starts, tuple(hazard.at(starts).tolist())), control, groups),
    )
    ends = float(plan.enroll_rate.time_at(plan.num_subjects))
    return TwoArmSurvival([Stratum(*arms, plan.enroll_rate)], ends, ratio)


def with_theory(study: Study, lines: Sequence[Line]) -> list[Line]:
    """The lines, beside whose power and stops stands what numerical integration says under the study's scenario.

    Args:
        study: In its scenario.
        lines: Of it; those of proportional hazards have their analytical values already.
    """
    if not study.plan.changes:
        return list(lines)
    found = []
    for line in lines:
        exits = analytical_exits(study, line.hazard_ratio) if line.hazard_ratio != 1 else None
        theory = line.analytical
        if exits is not None and line.look is None:
            values = {"power": exits.power, "events at stop": exits.expected(study.plan.design.events)}
            theory = values.get(line.characteristic, theory)
        elif exits is not None and line.look is not None:
            stops = exits.upper if line.characteristic.startswith("rejected") else exits.lower
            theory = float(stops[line.look - 1])
        found.append(replace(line, analytical=theory))
    return found
