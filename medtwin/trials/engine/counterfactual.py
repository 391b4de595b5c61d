"""The true estimand of a scenario, from the same patients under both arms with the same noise.

Every patient is given either arm: between the two potential outcomes nothing differs but the treatment, so a contrast
of the arms has far less Monte-Carlo variance than one of different patients. It is computed once for a scenario, and
every design is scored against it.

Source: ICH E9(R1) 2019; Kalbfleisch & Prentice 1981, Biometrika 68:105 (average hazard ratio).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.survival_batch import (
    cox_log_hazard_ratio,
    cox_log_hazard_ratio_continuous,
    order_continuous_in_strata,
    risk_sets,
)
from medtwin.trials.engine.batch import (
    BLOCK,
    Estimate,
    Patients,
    TrialPlan,
    course_of,
    draw_patients,
    mean_of,
    snapshot,
)
from medtwin.trials.enrolment.adherence import ChangeDraws
from medtwin.trials.enrolment.intercurrent import Strategy, strategies_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Measure = Literal[
    "marginal_log_hazard_ratio",
    "average_log_hazard_ratio",
    "restricted_mean_difference",
    "milestone_difference",
    "risk_difference",
]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Scalar = TypeVar("Scalar", bound=np.generic)
_GROUP = 10  # trials whose patients make one estimate


@dataclass(frozen=True)
class Potential:
    """What becomes of the same patients in either arm, (2, pairs), the control arm first.

    Attributes:
        event: Months from enrolment to the event as the estimand counts it; inf where it never comes.
        ends: Month up to which the estimand counts; inf where it always does.
        time, is_event: Follow-up in trials like this one that do not stop early, and whether it ends with the event.
        stratum: Of the trial's analysis.
    """

    event: Floats
    ends: Floats
    time: Floats
    is_event: Bools
    stratum: Ints

    def of(self, members: Bools) -> Potential:
        """Those of some of the pairs, (pairs,)."""
        return Potential(*(getattr(self, name)[:, members] for name in Potential.__annotations__))


def potential_outcomes(
    plan: TrialPlan,
    seed: int,
    block: int,
    hazard_ratio: float,
    strategies: Mapping[str, Strategy] | None = None,
    *,
    is_paired: bool = True,
) -> list[tuple[Potential, Ints]]:
    """The patients of a block of trials under both arms, in groups of ten trials; with their places in the pool.

    Args:
        plan: The trial.
        seed: Of the draws, apart from the trials'.
        block: Which hundred trials.
        hazard_ratio: Of the scenario.
        strategies: Of each kind of change of treatment; None: those of the plan.
        is_paired: Whether both arms are the same patients; else they are others.
    """
    named = plan.strategies if strategies is None else strategies
    chosen = strategies_of(plan.changes, named)
    kept = [number for number, strategy in enumerate(chosen) if strategy != "hypothetical"]
    shorter = replace(plan, changes=[plan.changes[n] for n in kept], strategies=named)
    first = draw_patients(plan, seed, block, "both arms")
    second = first if is_paired else draw_patients(plan, seed, block, "other patients")
    patients = _in_either_arm(first, second, kept)
    course = course_of(shorter, patients, hazard_ratio)
    ends = np.full(course.event.shape, np.inf)
    risk = np.exp(plan.pool.log_risk)[patients.index]
    for change, draws, strategy in zip(shorter.changes, patients.changes, shorter.handling, strict=True):
        if strategy == "while_on_treatment":
            ends = np.minimum(ends, change.months(draws, patients.arm, patients.enrolled, risk))
    wanted = min(2 * plan.design.events[-1], course.calendar.shape[1]) - 1
    months = np.minimum(np.partition(course.calendar, wanted, axis=1)[:, wanted], plan.max_months)
    seen = snapshot(course, np.arange(BLOCK), months)
    found = []
    for start in range(0, BLOCK, _GROUP):
        rows = slice(start, start + _GROUP)
        event, until, time = (_stacked(each[rows]) for each in (course.event, ends, seen.time))
        outcomes = Potential(event, until, time, _stacked(seen.event[rows]), _stacked(patients.stratum[rows]))
        found.append((outcomes, patients.index[rows, : first.index.shape[1]].ravel()))
    return found


def _in_either_arm(first: Patients, second: Patients, kept: Sequence[int]) -> Patients:
    """The first patients in the control arm beside the second in the experimental one, with some of the changes."""
    pairs = {
        name: np.hstack([getattr(first, name), getattr(second, name)])
        for name in Patients.__annotations__
        if name != "changes"
    }
    pairs["arm"] = np.hstack([np.zeros_like(first.arm), np.ones_like(second.arm)])
    changes = [
        ChangeDraws(
            np.hstack([first.changes[n].amount, second.changes[n].amount]),
            np.hstack([first.changes[n].uniform, second.changes[n].uniform]),
        )
        for n in kept
    ]
    return Patients(**pairs, changes=changes)


def _stacked(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """(trials, 2 patients) as (2, trials x patients)."""
    control, experimental = np.split(values, 2, axis=1)
    return np.stack([control.ravel(), experimental.ravel()])


@dataclass(frozen=True)
class Question:
    """What is asked of a scenario.

    Attributes:
        measures: The marginal hazard ratio is the limit of the Cox estimate of this trial, its follow-up and strata;
            the average one is that of Kalbfleisch and Prentice until tau, which no censoring changes.
        tau: Months; all but the marginal hazard ratio need it.
        strategies: Of each kind of change of treatment; None: those of the plan.
        members: (pool,) a subgroup; None: all.

    Raises:
        ValueError: If tau is missing, nobody is in the subgroup, or the measure means nothing under the strategies.
    """

    measures: Sequence[Measure] = ("marginal_log_hazard_ratio",)
    tau: float | None = None
    strategies: Mapping[str, Strategy] | None = None
    members: Bools | None = None

    def __post_init__(self) -> None:
        for measure in self.measures:
            check_measure(measure, self.tau, tuple((self.strategies or {}).values()))
        if self.members is not None and not self.members.any():
            raise ValueError("members must have somebody, got nobody")


def true_estimands(
    plan: TrialPlan,
    seed: int,
    hazard_ratio: float,
    question: Question,
    *,
    num_blocks: int = 4,
    is_paired: bool = True,
) -> dict[Measure, Estimate]:
    """The true values of summary measures, experimental less control (of logarithms for ratios).

    Args:
        plan: The trial.
        seed: Of the draws, apart from the trials'.
        hazard_ratio: Of the scenario.
        question: What is asked.
        num_blocks: Blocks of 100 trials' patients, each under both arms.
        is_paired: Whether both arms are the same patients.

    Raises:
        ValueError: If a measure means nothing under the plan's strategies.
    """
    measures, members = question.measures, question.members
    named = plan.strategies if question.strategies is None else question.strategies
    chosen = strategies_of(plan.changes, named)
    for measure in measures:
        check_measure(measure, question.tau, chosen)
    if hazard_ratio == 1 and not {"composite", "while_on_treatment"} & set(chosen):
        return dict.fromkeys(measures, Estimate(0.0, 0.0, 0.0, 0.0))  # both arms of a patient are the same
    drawn: dict[Measure, list[float]] = {measure: [] for measure in measures}
    for block in range(num_blocks):
        for outcomes, index in potential_outcomes(plan, seed, block, hazard_ratio, named, is_paired=is_paired):
            mine = outcomes if members is None else outcomes.of(members[index])
            for measure in measures:
                drawn[measure].append(_MEASURED[measure](mine, question.tau or 0.0))
    return {measure: mean_of(np.array(values)) for measure, values in drawn.items()}


def check_measure(measure: str, tau: float | None, strategies: Sequence[str] = ()) -> None:
    """Refuses a summary measure that means nothing.

    Raises:
        ValueError: If it is none, tau is missing, or follow-up that ends with treatment leaves no survival to compare.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {measure!r}")
    if measure != "marginal_log_hazard_ratio" and not (tau is not None and 0 < tau < np.inf):
        raise ValueError(f"tau must be a number of months above 0 for the {measure}, got {tau!r}")
    allowed = ("marginal_log_hazard_ratio", "risk_difference")
    if "while_on_treatment" in strategies and measure not in allowed:
        raise ValueError(
            f"measure must be one of {', '.join(allowed)} while on treatment, got {measure!r}: survival is not defined "
            "after treatment ends; use the composite strategy"
        )


def _marginal(outcomes: Potential, tau: float) -> float:
    arm = np.repeat([[0], [1]], outcomes.time.shape[1], axis=1)
    time, event, arm = outcomes.time.reshape(1, -1), outcomes.is_event.reshape(1, -1), arm.reshape(1, -1)
    if (stratum := outcomes.stratum.reshape(1, -1)).any():
        ordered = order_continuous_in_strata(time, event, arm, stratum)
        return float(cox_log_hazard_ratio_continuous(ordered).estimate[0])
    return float(cox_log_hazard_ratio(risk_sets(time, event, arm)).estimate[0])


def _average(outcomes: Potential, tau: float) -> float:
    """Log of P(experimental event first) / P(control event first), until tau, of independent patients."""
    first, second = (np.sort(each) for each in outcomes.event)
    return float(np.log(_before(second, first, tau) / _before(first, second, tau)))


def _before(times: Floats, others: Floats, tau: float) -> float:
    """P(a time comes by tau, and before another one); ties count half. Both are sorted."""
    early = times[times <= tau]
    later = len(others) - 0.5 * (np.searchsorted(others, early, "left") + np.searchsorted(others, early, "right"))
    return float(later.sum() / (len(times) * len(others)))


def _restricted_mean(outcomes: Potential, tau: float) -> float:
    means = np.minimum(outcomes.event, tau).mean(axis=1)
    return float(means[1] - means[0])


def _milestone(outcomes: Potential, tau: float) -> float:
    shares = (outcomes.event > tau).mean(axis=1)
    return float(shares[1] - shares[0])


def _risk(outcomes: Potential, tau: float) -> float:
    shares = (outcomes.event <= np.minimum(outcomes.ends, tau)).mean(axis=1)
    return float(shares[1] - shares[0])


_MEASURED: Mapping[Measure, Callable[[Potential, float], float]] = {
    "marginal_log_hazard_ratio": _marginal,
    "average_log_hazard_ratio": _average,
    "restricted_mean_difference": _restricted_mean,
    "milestone_difference": _milestone,
    "risk_difference": _risk,
}
