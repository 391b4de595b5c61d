"""A two-arm time-to-event trial as data, and what it becomes on a cohort: patients, design, timing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator
from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.hazard import PiecewiseRate, dropout_rate
from medtwin.trials.design.timing import Arm, expected_events, time_of_events
from medtwin.trials.engine.batch import BLOCK, TrialPlan, course_of, draw_patients, snapshot
from medtwin.trials.enrolment import block_arms, ramped_rate
from medtwin.trials.outcome.endpoint import Endpoint, follow_up
from medtwin.trials.outcome.prognosis import (
    MIN_EVENTS,
    AssumedOutcome,
    FittedOutcome,
    PatientPool,
    fit_outcome,
    strata_of,
)
from medtwin.trials.population.attrition import GroupRow, attrition_by_group, days_of_reference, demographics
from medtwin.trials.population.cohort import Code, Cohort
from medtwin.trials.population.criteria import (
    AttritionRow,
    Baseline,
    Criterion,
    IndexDay,
    Lab,
    baseline,
    find_eligible,
)
from medtwin.trials.population.evaluation import statements
from medtwin.trials.population.measures import Measure

Floats = NDArray[np.float64]
MAX_SUBJECTS = 20_000


@dataclass(frozen=True)
class SurvivalTrial:
    """A two-arm group-sequential trial with a time-to-event endpoint; time in months.

    Attributes:
        title: For the report.
        plan: Looks, errors, power. hazard_ratio: The alternative, experimental / control, below 1.
        index: On which days subjects may enter. eligibility: What must hold then, in order; text is in the language of
            `medtwin.trials.population.language`, and each of the propositions that `&` joins in it is a criterion.
        measures: What names in `eligibility` stand for, beside those of `labs` and the common ones.
        endpoint: What is waited for. labs: Baseline covariates beside age and sex.
        allocation_ratio: Experimental : control. block_size: Of the randomisation, stratified by sex.
        num_subjects: Patients; None: as many as make the events expected by the planned end.
        accrual_months: Enrolment's duration. ramp_months: Until its full rate.
        follow_up_months: From the last patient in to the planned end.
        max_months: The last analysis comes by then; None: twice the planned duration.
        annual_dropout: Share of patients who leave within a year.
        ridge: Penalty of the prognostic score (`fit_outcome`).
        assumed: The outcome where there is no cohort. assume_if_too_few: Also where too few events occurred in it.

    Raises:
        ValueError: If durations are not positive or the block cannot hold the ratio.
    """

    title: str
    plan: GroupSequential
    hazard_ratio: float
    index: IndexDay = field(default_factory=IndexDay)
    eligibility: Sequence[Criterion | str] = ()
    endpoint: Endpoint = field(default_factory=Endpoint)
    labs: Sequence[Lab] = ()
    allocation_ratio: float = 1.0
    block_size: int = 4
    num_subjects: int | None = None
    accrual_months: float = 24.0
    ramp_months: float = 6.0
    follow_up_months: float = 36.0
    max_months: float | None = None
    annual_dropout: float = 0.05
    ridge: float = 4.0
    assumed: AssumedOutcome | None = None
    assume_if_too_few: bool = False
    measures: Mapping[str, Measure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.eligibility, str):
            raise ValueError(f"eligibility must be a list, got {self.eligibility!r}")
        _ = self.criteria  # raises where a text is no expression
        if not (self.accrual_months > 0 and self.follow_up_months > 0):
            raise ValueError("accrual_months and follow_up_months must be above 0")
        if self.num_subjects is not None and self.num_subjects < 1:
            raise ValueError(f"num_subjects must be 1 or more, got {self.num_subjects}")
        if self.max_months is not None and self.max_months < self.accrual_months:
            raise ValueError(f"max_months must be at least accrual_months, got {self.max_months!r}")
        if self.assume_if_too_few and self.assumed is None:
            raise ValueError("assume_if_too_few needs an assumed outcome")
        block_arms(self.allocation_ratio, self.block_size)
        ramped_rate(1.0, self.accrual_months, self.ramp_months)
        dropout_rate(self.annual_dropout)
        _ = self.design.bounds  # raises where the looks are less than an event apart or the power is out of reach

    @cached_property
    def design(self) -> SurvivalDesign:
        """The log-rank design."""
        return SurvivalDesign(self.plan, self.hazard_ratio, self.allocation_ratio)

    @cached_property
    def criteria(self) -> Sequence[Criterion]:
        """The criteria of eligibility, those written in the language among them."""
        measures = {lab.name: Measure(lab.codes, lab.unit) for lab in self.labs} | dict(self.measures)
        found: list[Criterion] = []
        for each in self.eligibility:
            found += statements(each, measures) if isinstance(each, str) else [each]
        return found

    @property
    def planned_months(self) -> float:
        """The planned duration."""
        return self.accrual_months + self.follow_up_months

    def codes(self) -> list[Code]:
        """Every code, and family of codes, that it asks a cohort for."""
        needed = [code for criterion in self.criteria for code in criterion.codes]
        needed += [*(self.index.codes or ()), *self.endpoint.codes]
        return list(dict.fromkeys([*needed, *(code for lab in self.labs for code in lab.codes)]))


@dataclass(frozen=True)
class Study:
    """A trial on its patients, ready to be simulated.

    Attributes:
        trial: As configured. plan: For the engine.
        attrition: The flow of the cohort, and `attrition_by_group` that of its women and men, its ages and races; empty
            without a cohort.
        fitted: The outcome as the cohort has it; None where it is assumed.
        cohort_size, num_eligible: Subjects; 0 without a cohort. num_events: Endpoints in their record.
    """

    trial: SurvivalTrial
    plan: TrialPlan
    attrition: Sequence[AttritionRow] = ()
    fitted: FittedOutcome | None = None
    cohort_size: int = 0
    num_eligible: int = 0
    num_events: int = 0
    attrition_by_group: Sequence[GroupRow] = ()

    def arms(self, hazard_ratio: float, hazard_factor: float = 1.0) -> tuple[Arm, Arm]:
        """Experimental and control arm, for expected event counts."""
        pool = self.plan.pool
        control = Arm(pool.hazard.scaled(hazard_factor), self.plan.dropout_rate, pool.risk_groups())
        return control.treated(hazard_ratio), control

    def months_of_looks(self, hazard_ratio: float, hazard_factor: float = 1.0) -> Floats:
        """Calendar month at which each look's events are expected, (looks,); at most the trial's last month.

        Args:
            hazard_ratio: Of each patient.
            hazard_factor: On the hazard of all.
        """
        arms, plan = self.arms(hazard_ratio, hazard_factor), self.plan
        share = self.trial.allocation_ratio / (1 + self.trial.allocation_ratio)

        def expected(month: float) -> float:
            return float(expected_events([month], arms, plan.enroll_rate, plan.num_subjects, share)[0])

        found = time_of_events(plan.design.events, expected, latest=plan.max_months)
        return np.minimum(found, plan.max_months)


def prepare(trial: SurvivalTrial, cohort: Cohort | None, seed: int) -> Study:
    """The trial on a cohort, or without one on parametric patients.

    Raises:
        ConfigError: If nobody is eligible, a code is unknown, the endpoint occurs too rarely, or more patients would
            be needed than any trial has. Each names what to change.
    """
    if cohort is None:
        if trial.assumed is None:
            raise ConfigError("a trial without a cohort needs an outcome: trial.assumed.control_median_months=...")
        pool = trial.assumed.pool(generator(seed, "parametric patients"))
        return Study(trial, engine_plan(trial, pool))
    found = find_eligible(cohort, trial.index, trial.criteria)
    covariates = baseline(cohort, found.entry, trial.labs)
    followed = follow_up(cohort, found.entry, trial.endpoint)
    num_events, stratum = int(followed.event.sum()), strata_of(covariates.sex)
    if trial.assumed is not None and trial.assume_if_too_few and num_events < MIN_EVENTS:
        pool, fitted = trial.assumed.pool_of(covariates, stratum), None
    else:
        fitted = fit_outcome(
            covariates, followed, stratum, ridge=trial.ridge, horizon_months=trial.endpoint.horizon_months
        )
        pool = fitted.pool
    plan = engine_plan(trial, pool)
    eligible = len(covariates.subject_id)
    groups = attrition_by_group(found, demographics(cohort, days_of_reference(cohort, trial.index, found.entry)))
    return Study(trial, plan, found.attrition, fitted, len(cohort.subject_id), eligible, num_events, groups)


def engine_plan(trial: SurvivalTrial, pool: PatientPool) -> TrialPlan:
    """The plan of the engine: solves for the number of patients where the trial leaves it open.

    Raises:
        ConfigError: If more than 20,000 patients would be needed, or fewer are planned than events.
    """
    design = trial.design
    leaving = dropout_rate(trial.annual_dropout)
    num_subjects = trial.num_subjects
    if num_subjects is None:
        needed = required_subjects(trial, pool, design.events[-1], leaving)
        if not needed <= MAX_SUBJECTS:
            raise ConfigError(
                f"too few events: {design.events[-1]} are needed, for which {needed:,.0f} patients would have to be "
                f"followed for {trial.planned_months:g} months: choose a more frequent trial.endpoint, a longer "
                "trial.follow_up_months, or a stronger trial.hazard_ratio"
            )
        num_subjects = math.ceil(max(needed, design.events[-1]) / trial.block_size) * trial.block_size
    if num_subjects < design.events[-1]:
        raise ConfigError(f"trial.num_subjects must be at least the {design.events[-1]} events, got {num_subjects}")
    rate = ramped_rate(num_subjects, trial.accrual_months, trial.ramp_months)
    last = 2 * trial.planned_months if trial.max_months is None else trial.max_months
    return TrialPlan(design, pool, num_subjects, rate, leaving, trial.block_size, last)


def required_subjects(trial: SurvivalTrial, pool: PatientPool, events: float, leaving: float) -> float:
    """Patients, fractional, of whom so many events are expected by the planned end under the alternative."""
    control = Arm(pool.hazard, leaving, pool.risk_groups())
    share = trial.allocation_ratio / (1 + trial.allocation_ratio)
    rate: PiecewiseRate = ramped_rate(1.0, trial.accrual_months, trial.ramp_months)
    arms = (control.treated(trial.hazard_ratio), control)
    per_subject = float(expected_events([trial.planned_months], arms, rate, 1.0, share)[0])
    return events / per_subject if per_subject > 0 else math.inf


def example_patients(study: Study, seed: int, months: float, trial_index: int = 0) -> dict[str, Sequence[object]]:
    """The patient table of one simulated trial under its alternative, as of a calendar month: column to values.

    Both potential event times stand beside what was observed: `months_to_event_control` and `_experimental` are the
    same patient under either arm, neither of them censored.

    Args:
        study: The trial.
        seed: Of the run.
        months: The calendar month of the analysis.
        trial_index: Which of the simulated trials.
    """
    ratio = study.trial.hazard_ratio
    drawn = draw_patients(study.plan, seed, trial_index // BLOCK)
    row = trial_index % BLOCK
    data = snapshot(course_of(study.plan, drawn, ratio), np.array([row]), np.array([months]))
    keep = np.flatnonzero(drawn.enrolled[row] <= months)
    index, time, event = drawn.index[row][keep], data.time[0][keep], data.event[0][keep]
    amount = drawn.amount[row][keep]
    left = ~event & (drawn.dropout[row][keep] <= time)
    columns: dict[str, Sequence[object]] = {"patient": list(range(1, len(keep) + 1))}
    columns |= _covariate_columns(study.plan.pool.baseline, index)
    columns |= {
        "arm": ["experimental" if arm else "control" for arm in drawn.arm[row][keep]],
        "stratum": study.plan.pool.stratum[index].tolist(),
        "enrolled_month": drawn.enrolled[row][keep].round(3).tolist(),
        "months_at_risk": time.round(3).tolist(),
        "event": event.astype(int).tolist(),
        "ended_by": np.where(event, "event", np.where(left, "dropout", "analysis")).tolist(),
        "months_to_event_control": _finite(study.plan.pool.hazard.time_at(amount)),
        "months_to_event_experimental": _finite(study.plan.pool.hazard.time_at(amount / ratio)),
        "log_risk": study.plan.pool.log_risk[index].round(4).tolist(),
    }
    return columns


def _finite(values: Floats) -> list[float | None]:
    """Three decimals; None for an event that never comes."""
    return [round(value, 3) if math.isfinite(value) else None for value in values.tolist()]


def _covariate_columns(covariates: Baseline | None, index: NDArray[np.int64]) -> dict[str, Sequence[object]]:
    if covariates is None:
        return {}
    columns: dict[str, Sequence[object]] = {
        "source_subject_id": covariates.subject_id[index].tolist(),
        "sex": covariates.sex[index].tolist(),
    }
    for name, values in zip(covariates.names, covariates.values.T, strict=True):
        if name != "is_female":
            picked = values[index]
            columns[name] = [None if math.isnan(value) else float(f"{value:.6g}") for value in picked]
    return columns
