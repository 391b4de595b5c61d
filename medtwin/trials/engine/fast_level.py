"""Operating characteristics by the canonical statistic, in the table that the patient level has.

What follows from patients alone stands as it is planned: the month of each look, who is enrolled by then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.boundaries import Exits, exit_probabilities
from medtwin.trials.engine.bound_surface import InformationRange
from medtwin.trials.engine.canonical import CanonicalCounts, CanonicalDesign, CanonicalTask, Drift, canonical_tasks
from medtwin.trials.engine.estimates import Estimate
from medtwin.trials.engine.response_scenarios import EffectLine, EffectScenario, theory_of
from medtwin.trials.engine.response_trial import ResponseStudy
from medtwin.trials.engine.scenarios import Line, Scenario
from medtwin.trials.engine.survival_trial import Study
from medtwin.trials.engine.tasks import POWER_CURVE

Floats = NDArray[np.float64]
Row = TypeVar("Row", Line, EffectLine)


@dataclass(frozen=True)
class FastScenario:
    """A scenario of the patient level as the law of its statistic.

    Attributes:
        name, effect, num_trials: Of the scenario; the effect is a hazard ratio or a difference.
        design: Of the trial. drift: Of the effect.
        unit: Of the effect (of the log hazard ratio) per unit of drift. null: Where the drift is 0.
        amounts: Name to what each look has of it, (looks,). exits: What numerical integration says; None: nothing.
        scale: Whole amount of information at the planned last look. information: Its name.
        is_null: Whether the effect is that of the null.
    """

    name: str
    effect: float
    num_trials: int
    design: CanonicalDesign
    drift: Drift
    unit: float
    null: float
    amounts: dict[str, Floats]
    exits: Exits | None
    scale: float
    information: str
    is_null: bool

    def tasks(self, seed: int) -> list[CanonicalTask]:
        """The work; all scenarios of a seed have the same noise."""
        return canonical_tasks(self.design, [self.drift], self.num_trials, seed)


def survival_scenarios(
    study: Study, scenarios: Sequence[Scenario], observed: InformationRange | None = None
) -> list[FastScenario]:
    """The scenarios of a trial of times to an event; Schoenfeld's drift, risks of all patients alike.

    Args:
        study: The trial on its patients.
        scenarios: Of the patient level.
        observed: Where the information lies; None: looks have the events planned.

    Raises:
        ValueError: If patients change treatment, or the ranges do not fit the looks: the statistic has no such law.
    """
    if study.plan.changes:
        raise ValueError(
            "treatment_changes have no place in level=statistic, whose effect is one number: level=patient"
        )
    survival = study.plan.design
    events = np.asarray(survival.events, dtype=np.float64)
    found = []
    for scenario in scenarios:
        design = CanonicalDesign(survival.plan, survival.events, observed, obeys_futility=scenario.obeys_futility)
        drift, bounds = survival.drift(scenario.hazard_ratio), design.bounds
        months = study.months_of_looks(scenario.hazard_ratio)
        enrolled = np.minimum(study.plan.enroll_rate.cumulative(months), study.plan.num_subjects)
        futility = bounds.futility if scenario.obeys_futility else None
        exits = None if observed else exit_probabilities(bounds.fractions, bounds.efficacy, futility, drift)
        amounts = {"subjects at stop": np.asarray(enrolled), "duration, months": months}
        unit = math.log(survival.hazard_ratio) / survival.drift(survival.hazard_ratio)
        made = (scenario.name, scenario.hazard_ratio, scenario.num_trials, design, drift, unit, 0.0, amounts, exits)
        found.append(FastScenario(*made, float(events[-1]), "events at stop", drift == 0))
    return found


def response_fast_scenarios(
    study: ResponseStudy, scenarios: Sequence[EffectScenario], observed: InformationRange | None = None
) -> list[FastScenario]:
    """The scenarios of a trial whose endpoint is read once.

    Args:
        study: The trial on its patients.
        scenarios: Of the patient level.
        observed: Where the information lies; None: early looks have the outcomes planned, the last as many as patients
            stay, to within their variance.

    Raises:
        ValueError: If the ranges do not fit the looks.
    """
    plan, response = study.plan, study.plan.design
    ranges = stayers(study) if observed is None else observed
    found = []
    for scenario in scenarios:
        design = CanonicalDesign(response.plan, response.outcomes, ranges, obeys_futility=scenario.obeys_futility)
        theory = theory_of(study, scenario.effect, obeys_futility=scenario.obeys_futility)
        months = study.months_of_looks
        enrolled = np.minimum(plan.enroll_rate.cumulative(months), plan.num_subjects)
        amounts = {"subjects at stop": np.asarray(enrolled), "duration, months": months}
        effect, looks = scenario.effect, response.outcomes
        each = list(zip(looks, design.bounds.efficacy.tolist(), design.bounds.futility.tolist(), strict=True))
        means = [plan.law.mean_at_bound(effect, n, upper) for n, upper, _ in each]
        shift = [plan.law.futility_shift(effect, n, upper, lower) for n, upper, lower in each]
        design = replace(design, futility_shift=shift)
        drift = tuple((np.array(means) / np.sqrt(design.fractions)).tolist())
        unit = (response.response.effect - response.null) / response.drift(response.response.effect)
        exits = theory.exits if theory is not None and observed is None else None
        made = (scenario.name, scenario.effect, scenario.num_trials, design, drift, unit, response.null, amounts, exits)
        last, is_null = float(response.outcomes[-1]), effect == response.null
        found.append(FastScenario(*made, last, "outcomes at stop", is_null))
    return found


def stayers(study: ResponseStudy) -> InformationRange | None:
    """The range of the last look's outcomes with the mean and variance of the patients who stay; None for no chance.

    Early looks come with as many as planned.
    """
    plan, planned = study.plan, study.plan.design.outcomes
    mean = plan.num_subjects * plan.retained
    half = math.sqrt(3 * mean * (1 - plan.retained))
    early = [n / planned[-1] for n in planned[:-1]]
    low, high = (mean - half) / planned[-1], (mean + half) / planned[-1]
    if low == high == 1.0:
        return None
    return InformationRange([*early, max(low, (early[-1] if early else 0.0) + 0.01)], [*early, high])


@dataclass(frozen=True)
class FastLine:
    """A row of the table, whatever the effect is; see `survival_lines` and `response_lines`."""

    characteristic: str
    look: int | None
    estimate: Estimate
    analytical: float | None


def fast_lines(scenario: FastScenario, found: CanonicalCounts) -> list[FastLine]:
    """Every characteristic of a scenario that its statistic has, beside the analytical value where there is one."""
    exits, what = scenario.exits, "type I error" if scenario.is_null else "power"
    information = found.mean_information(0)
    lines = [
        FastLine(what, None, found.power(0), None if exits is None else exits.power),
        FastLine(scenario.information, None, _scaled(information, scenario.scale), None),
    ]
    for name, amounts in scenario.amounts.items():
        exact = None if exits is None else exits.expected(amounts)
        lines.append(FastLine(name, None, found.mean_of_looks(0, amounts), exact))
    if scenario.name != POWER_CURVE:
        looks = range(scenario.design.num_looks)
        for look in looks:
            exact = None if exits is None else float(exits.upper[look])
            lines.append(FastLine("rejected at look", look + 1, found.rejected_at(0, look), exact))
        if scenario.design.plan.futility is not None and scenario.design.obeys_futility:
            for look in looks[:-1]:
                exact = None if exits is None else float(exits.lower[look])
                lines.append(FastLine("futile at look", look + 1, found.futile_at(0, look), exact))
    return lines


def _scaled(estimate: Estimate, by: float, above: float = 0.0) -> Estimate:
    """An estimate in another unit."""
    low, high = sorted((estimate.low * by, estimate.high * by))
    return replace(
        estimate,
        value=estimate.value * by + above,
        standard_error=estimate.standard_error * abs(by),
        low=low + above,
        high=high + above,
    )


def _estimates(scenario: FastScenario, found: CanonicalCounts, truth: float) -> tuple[Estimate, Estimate]:
    """Mean estimate of the effect at the stop, and its bias."""
    estimate = _scaled(found.mean_estimate(0), scenario.unit, scenario.null)
    return estimate, _scaled(estimate, 1.0, -truth)


def _rows(kind: Callable[..., Row], scenario: FastScenario, trials: int, lines: Sequence[FastLine]) -> list[Row]:
    """The lines as rows of a scenario."""
    return [
        kind(scenario.name, scenario.effect, each.characteristic, each.look, each.estimate, each.analytical, trials)
        for each in lines
    ]


def survival_lines(scenario: FastScenario, found: CanonicalCounts) -> list[Line]:
    """The rows of a trial of times to an event."""
    lines = fast_lines(scenario, found)
    if scenario.name != POWER_CURVE:
        estimate, bias = _estimates(scenario, found, math.log(scenario.effect))
        lines += [
            FastLine("log hazard ratio at stop", None, estimate, None),
            FastLine("bias at stop", None, bias, None),
        ]
    return _rows(Line, scenario, found.num_trials, lines)


def response_lines(scenario: FastScenario, found: CanonicalCounts) -> list[EffectLine]:
    """The rows of a trial whose endpoint is read once."""
    lines = fast_lines(scenario, found)
    if scenario.name != POWER_CURVE:
        estimate, bias = _estimates(scenario, found, scenario.effect)
        lines += [FastLine("estimate at stop", None, estimate, None), FastLine("bias at stop", None, bias, None)]
    return _rows(EffectLine, scenario, found.num_trials, lines)
