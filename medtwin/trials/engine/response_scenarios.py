"""Which effects are simulated of a trial whose endpoint is read once, the work cut into tasks, the table of results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from medtwin.trials.design.boundaries import Exits
from medtwin.trials.design.changing_effects import exits_with_means
from medtwin.trials.design.monitoring import MIN_STEP
from medtwin.trials.engine.course import BLOCK
from medtwin.trials.engine.estimates import Estimate
from medtwin.trials.engine.response_batch import (
    ResponseCharacteristics,
    ResponsePlan,
    ResponseStops,
    draw_patients,
    run_trials,
)
from medtwin.trials.engine.response_tests import StandardisedRates
from medtwin.trials.engine.response_trial import ResponseStudy
from medtwin.trials.engine.tasks import POWER_CURVE, blocks_of_tasks, by_scenario

Floats = NDArray[np.float64]
BLOCKS_PER_TASK = 2
_CURVE = (0.25, 0.5, 0.75, 1.25, 1.5)
_LAST_LOOKS = 9


@dataclass(frozen=True)
class EffectScenario:
    """One truth to simulate under. `obeys_futility`: trials stop at futility bounds."""

    name: str
    effect: float
    num_trials: int
    obeys_futility: bool = True


@dataclass(frozen=True)
class ResponseTask:
    """A few blocks of trials, under every scenario that has so many: a unit of work that depends on nothing else."""

    plan: ResponsePlan
    seed: int
    blocks: Sequence[int]
    scenarios: Sequence[EffectScenario]


def effect_scenarios(study: ResponseStudy, num_trials: int, num_curve: int) -> list[EffectScenario]:
    """The alternative, the null, the null with non-binding futility bounds disregarded, and the power curve.

    Effects of the curve lie between the null and half as far again beyond the alternative, as far as there are such.

    Args:
        study: The trial on its patients.
        num_trials: Of the first ones, rounded up to whole blocks of 100.
        num_curve: Trials at each further effect.
    """
    rounded, curve = (math.ceil(n / BLOCK) * BLOCK for n in (num_trials, num_curve))
    design = study.plan.design
    target, null = design.response.effect, design.null
    scenarios = [EffectScenario("alternative", target, rounded), EffectScenario("null", null, rounded)]
    if study.trial.plan.futility is not None and not study.trial.plan.binding:
        scenarios.append(EffectScenario("null, futility disregarded", null, rounded, obeys_futility=False))
    for share in _CURVE:
        effect = null + share * (target - null)
        try:
            design.response.check_effect(effect)
        except ValueError:
            continue  # a rate beyond 0 or 1
        scenarios.append(EffectScenario(POWER_CURVE, effect, curve))
    return scenarios


def response_tasks(study: ResponseStudy, scenarios: Sequence[EffectScenario], seed: int) -> list[ResponseTask]:
    """The work, in a fixed order."""
    parts = blocks_of_tasks(max(scenario.num_trials for scenario in scenarios), BLOCKS_PER_TASK)
    return [ResponseTask(study.plan, seed, part, scenarios) for part in parts]


def run_response_task(task: ResponseTask) -> list[list[ResponseStops]]:
    """How the trials of a task ended: for each scenario, its blocks, all on the same patients."""
    found: list[list[ResponseStops]] = [[] for _ in task.scenarios]
    for block in task.blocks:
        patients = draw_patients(task.plan, task.seed, block)
        for parts, scenario in zip(found, task.scenarios, strict=True):
            if block < scenario.num_trials // BLOCK:
                parts.append(run_trials(task.plan, patients, scenario.effect, obeys_futility=scenario.obeys_futility))
    return found


def response_characteristics(
    scenarios: Sequence[EffectScenario], results: Iterable[Sequence[Sequence[ResponseStops]]]
) -> list[ResponseCharacteristics]:
    """The operating characteristics of each scenario, from the results of the tasks in their order."""
    return [
        ResponseCharacteristics(scenario.effect, ResponseStops.join(mine))
        for scenario, mine in zip(scenarios, by_scenario(len(scenarios), results), strict=True)
    ]


@dataclass(frozen=True)
class EffectLine:
    """A row of operating_characteristics.csv: an estimate with its Monte-Carlo error beside what theory says."""

    scenario: str
    effect: float
    characteristic: str
    look: int | None
    estimate: Estimate
    analytical: float | None
    num_trials: int


@dataclass(frozen=True)
class Theory:
    """What numerical integration says of a trial under an effect.

    Attributes:
        exits: Where it stops. outcomes: (looks,) expected at each look. months: (looks,) when.
        subjects: (looks,) enrolled by then.
    """

    exits: Exits
    outcomes: Floats
    months: Floats
    subjects: Floats


def theory_of(study: ResponseStudy, effect: float, *, obeys_futility: bool = True) -> Theory | None:
    """The analytical counterpart of a scenario; None where there is none.

    The statistic is taken as canonical joint normal, with the mean at each look at which it crosses the look's bound as
    often as the endpoint's test does. The last look has as many outcomes as patients stay, which is binomial; its bound
    is recomputed at each number. There is no such value where the calendar may end the trial before, or rates are
    standardised by covariates under an effect.
    """
    plan, design = study.plan, study.plan.design
    last_month = plan.accrual.enrolment_months(plan.num_subjects) + design.response.months
    is_adjusted = isinstance(plan.test, StandardisedRates) and getattr(design.response, "prognostic_sd", 0.0) > 0
    if last_month > plan.max_months or (is_adjusted and effect != design.null):
        return None
    early = np.asarray(design.outcomes[:-1], dtype=np.float64)
    levels = (np.arange(_LAST_LOOKS) + 0.5) / _LAST_LOOKS
    last = np.unique(binom.ppf(levels, plan.num_subjects, plan.retained), return_counts=True)
    upper, lower = np.zeros(len(design.outcomes)), np.zeros(len(design.outcomes))
    for outcomes, count in zip(*last, strict=True):
        now = np.append(early, outcomes)
        if len(early) and outcomes < early[-1] + MIN_STEP * design.outcomes[-1]:
            return None  # so many leave that the last look may bring nothing new
        efficacy = np.append(design.bounds.efficacy[:-1], design.last_bound(len(early), int(outcomes)))
        futility = np.append(design.bounds.futility[:-1], -np.inf) if obeys_futility else None
        means = [plan.law.mean_at_bound(effect, float(n), z) for n, z in zip(now, efficacy, strict=True)]
        if futility is not None:
            each = zip(now, efficacy, futility, strict=True)
            futility = futility + [plan.law.futility_shift(effect, float(n), z, low) for n, z, low in each]
        found = exits_with_means(now, efficacy, futility, means)
        upper += count / _LAST_LOOKS * found.upper
        lower += count / _LAST_LOOKS * found.lower
    expected = np.append(early, float(last[0] @ last[1]) / _LAST_LOOKS)
    months = study.months_of_looks
    subjects = np.minimum(plan.enroll_rate.cumulative(months), plan.num_subjects)
    return Theory(Exits(upper, lower), expected, months, np.asarray(subjects))


def response_table(study: ResponseStudy, scenario: EffectScenario, found: ResponseCharacteristics) -> list[EffectLine]:
    """Every characteristic of a scenario, beside the analytical value where there is one."""
    theory = theory_of(study, scenario.effect, obeys_futility=scenario.obeys_futility)

    def mean_of(amounts: str) -> float | None:
        return None if theory is None else theory.exits.expected(getattr(theory, amounts))

    is_null = scenario.effect == study.plan.design.null
    power = None if theory is None else theory.exits.power
    lines: list[tuple[str, int | None, Estimate, float | None]] = [
        ("type I error" if is_null else "power", None, found.power, power),
        ("outcomes at stop", None, found.outcomes, mean_of("outcomes")),
        ("subjects at stop", None, found.subjects, mean_of("subjects")),
        ("duration, months", None, found.months, mean_of("months")),
    ]
    if scenario.name != POWER_CURVE:
        looks = range(len(study.plan.design.outcomes))
        for look in looks:
            exact = None if theory is None else float(theory.exits.upper[look])
            lines.append(("rejected at look", look + 1, found.rejected_at(look), exact))
        if study.trial.plan.futility is not None and scenario.obeys_futility:
            for look in looks[:-1]:
                exact = None if theory is None else float(theory.exits.lower[look])
                lines.append(("futile at look", look + 1, found.futile_at(look), exact))
        lines += [
            ("estimate at stop", None, found.estimate, None),
            ("bias at stop", None, found.bias, None),
            ("coverage of the 95 % interval at stop", None, found.coverage, None),
        ]
    return [
        EffectLine(scenario.name, scenario.effect, what, look, estimate, exact, found.num_trials)
        for what, look, estimate, exact in lines
    ]
