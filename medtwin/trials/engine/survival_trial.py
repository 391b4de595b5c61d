"""A two-arm time-to-event trial as data, and what it becomes on a cohort: patients, design, timing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator
from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.timing import Arm, expected_events, time_of_events
from medtwin.trials.engine.batch import BLOCK, TrialPlan, course_of, draw_patients, snapshot
from medtwin.trials.engine.course import MAX_SUBJECTS
from medtwin.trials.engine.covariate_columns import covariate_columns
from medtwin.trials.engine.estimand import Estimand
from medtwin.trials.enrolment.accrual import Accrual, RampedAccrual
from medtwin.trials.enrolment.adherence import Dropout, TreatmentChange
from medtwin.trials.enrolment.factors import Factor, as_factors
from medtwin.trials.enrolment.minimisation import Minimisation
from medtwin.trials.enrolment.randomisation import PermutedBlocks, Randomisation, ratio_parts
from medtwin.trials.outcome.effect import EffectModel, parse_effect
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
    Criterion,
    IndexDay,
    Lab,
    baseline,
    find_eligible,
)
from medtwin.trials.population.evaluation import criteria_of
from medtwin.trials.population.measures import Measure

Floats = NDArray[np.float64]


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
        allocation_ratio: Experimental : control. randomisation: In that ratio.
        analysis_strata: Factors in whose strata the log-rank test and the Cox model compare; empty or None: no strata.
            With minimisation it has to be said: its factors, or none of them.
        num_subjects: Patients; None: as many as make the events expected by the planned end.
        accrual: How they come, at rates that follow their number (`RampedAccrual`) or are absolute (`Accrual`).
        follow_up_months: From the last patient in to the planned end.
        max_months: The last analysis comes by then; None: twice the planned duration.
        annual_dropout: Share of patients who leave within a year, or how they leave by arm and time.
        treatment_changes: Who stops or switches treatment, when.
        effect: The log hazard ratio of each patient by covariates, as text (`medtwin.trials.outcome.effect`); None:
            that of `hazard_ratio` for all. The alternative simulates it, the power curve multiples of it.
        external_controls: There are none: twins take part as patients who are simulated, never beside randomised ones.
        estimand: What the trial is to estimate; None: nobody has said, patients are followed whatever they take.
        ridge: Penalty of the prognostic score (`fit_outcome`).
        assumed: The outcome where there is no cohort. assume_if_too_few: Also where too few events occurred in it.

    Raises:
        ValueError: If durations are not positive, the randomisation cannot allocate in the ratio, minimisation comes
            without a word on the analysis, or patients change treatment in a trial whose size is left open.
    """

    title: str
    plan: GroupSequential
    hazard_ratio: float
    index: IndexDay = field(default_factory=IndexDay)
    eligibility: Sequence[Criterion | str] = ()
    endpoint: Endpoint = field(default_factory=Endpoint)
    labs: Sequence[Lab] = ()
    allocation_ratio: float = 1.0
    randomisation: Randomisation = field(default_factory=lambda: PermutedBlocks(4, ("sex",)))
    analysis_strata: Sequence[Factor | str] | None = None
    num_subjects: int | None = None
    accrual: RampedAccrual | Accrual = field(default_factory=lambda: RampedAccrual(24.0, 6.0))
    follow_up_months: float = 36.0
    max_months: float | None = None
    annual_dropout: float | Dropout = 0.05
    treatment_changes: Sequence[TreatmentChange] = ()
    ridge: float = 4.0
    assumed: AssumedOutcome | None = None
    assume_if_too_few: bool = False
    measures: Mapping[str, Measure] = field(default_factory=dict)
    effect: str | None = None
    estimand: Estimand | None = None
    external_controls: None = None

    def __post_init__(self) -> None:
        _ = self.criteria, self.effect_model  # raise where a text is no expression
        if not self.follow_up_months > 0:
            raise ValueError(f"follow_up_months must be above 0, got {self.follow_up_months!r}")
        if self.num_subjects is not None and self.num_subjects < 1:
            raise ValueError(f"num_subjects must be 1 or more, got {self.num_subjects}")
        if self.treatment_changes and self.num_subjects is None:
            raise ValueError("num_subjects must be given where patients change treatment, got None")
        if self.estimand is not None and (
            wrong := self.estimand.inconsistencies(self.treatment_changes, self.endpoint)
        ):
            raise ValueError(f"the estimand is not that of the trial: {'; '.join(wrong)}")
        if self.external_controls is not None:
            raise ValueError(
                "external_controls must be null: twins, or whoever was not randomised, never enter the primary test. "
                "Adjust for a prognostic score (medtwin.trials.design.prognostic), or declare a borrowing prior beside "
                "it (medtwin.trials.analysis.bayes)"
            )
        if not self.endpoint.death and self.endpoint.competing is None and self.estimand is None:
            raise ValueError(
                "endpoint.competing must say how death is handled where it does not count, got None: a competing risk "
                "would be censored silently. Say competing: cause_specific, or let it count (death: true)"
            )
        if self.analysis_strata is None and isinstance(self.randomisation, Minimisation):
            raise ValueError("analysis_strata must be given with minimisation (its factors, or []), got None")
        if self.assume_if_too_few and self.assumed is None:
            raise ValueError("assume_if_too_few needs an assumed outcome")
        self.randomisation.check(ratio_parts(self.allocation_ratio))
        _ = self.dropout, as_factors(self.analysis_strata or ())  # raise where they make no sense
        _ = self.design.bounds  # raises where the looks are less than an event apart or the power is out of reach

    @cached_property
    def design(self) -> SurvivalDesign:
        """The log-rank design."""
        return SurvivalDesign(self.plan, self.hazard_ratio, self.allocation_ratio)

    @cached_property
    def criteria(self) -> Sequence[Criterion]:
        """The criteria of eligibility, those written in the language among them."""
        return criteria_of(self.eligibility, self.labs, self.measures)

    @cached_property
    def effect_model(self) -> EffectModel | None:
        """The effect by covariates, parsed; None where it is the same for all."""
        return None if self.effect is None else parse_effect(self.effect)

    def with_effects(self, pool: PatientPool) -> PatientPool:
        """The pool, each of whom has an effect of its own where the trial says so.

        Raises:
            ConfigError: If the effect names a covariate that the pool lacks.
        """
        if self.effect_model is None:
            return pool
        found = self.effect_model.log_hazard_ratios(pool.log_risk, pool.baseline)
        return replace(pool, effect=found / math.log(self.hazard_ratio))

    @property
    def dropout(self) -> Dropout:
        """How patients leave."""
        share = self.annual_dropout
        return share if isinstance(share, Dropout) else Dropout.of_share(share)

    def enrolment_months(self, num_subjects: float) -> float:
        """The month by which so many patients are expected to be enrolled."""
        return self.accrual.of_size(num_subjects).enrolment_months(num_subjects)

    def planned_months(self, num_subjects: float) -> float:
        """The planned duration with so many patients."""
        return self.enrolment_months(num_subjects) + self.follow_up_months

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
        return arms_of(self.plan.pool, self.plan.dropout, hazard_ratio, hazard_factor)

    def months_of_looks(self, hazard_ratio: float, hazard_factor: float = 1.0) -> Floats:
        """Calendar month at which each look's events are expected, (looks,); at most the trial's last month.

        Where patients change treatment it is the mean of 100 simulated trials.

        Args:
            hazard_ratio: Of each patient.
            hazard_factor: On the hazard of all.
        """
        plan = self.plan
        if plan.changes:
            drawn = draw_patients(plan, 0, 0, "months of looks")
            course = course_of(plan, replace(drawn, amount=drawn.amount / hazard_factor), hazard_ratio)
            months = np.sort(course.calendar, axis=1)[:, np.array(plan.design.events) - 1]
            return np.asarray(np.minimum(months, plan.max_months).mean(axis=0))
        arms = self.arms(hazard_ratio, hazard_factor)
        share = self.trial.allocation_ratio / (1 + self.trial.allocation_ratio)

        def expected(month: float) -> float:
            return float(expected_events([month], arms, plan.enroll_rate, plan.num_subjects, share)[0])

        found = time_of_events(plan.design.events, expected, latest=plan.max_months)
        return np.minimum(found, plan.max_months)


def arms_of(pool: PatientPool, dropout: Dropout, hazard_ratio: float, hazard_factor: float = 1.0) -> tuple[Arm, Arm]:
    """Experimental and control arm, for expected event counts.

    Args:
        pool: From which patients are drawn.
        dropout: How they leave.
        hazard_ratio: Of each patient.
        hazard_factor: On the hazard of all.
    """
    control, experimental = (
        Arm(pool.hazard.scaled(hazard_factor), leaving, pool.risk_groups()) for leaving in dropout.arms
    )
    if pool.effect is None:
        return experimental.treated(hazard_ratio), control
    return replace(experimental, risks=pool.risk_groups(hazard_ratio=hazard_ratio)), control


def prepare(trial: SurvivalTrial, cohort: Cohort | None, seed: int) -> Study:
    """The trial on a cohort, or without one on parametric patients.

    Raises:
        ConfigError: If nobody is eligible, a code is unknown, the endpoint occurs too rarely, or more patients would
            be needed than any trial has. Each names what to change.
    """
    if cohort is None:
        if trial.assumed is None:
            raise ConfigError("a trial without a cohort needs an outcome: trial.assumed.control_median_months=...")
        pool = trial.with_effects(trial.assumed.pool(generator(seed, "parametric patients")))
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
    plan = engine_plan(trial, trial.with_effects(pool))
    eligible = len(covariates.subject_id)
    groups = attrition_by_group(found, demographics(cohort, days_of_reference(cohort, trial.index, found.entry)))
    return Study(trial, plan, found.attrition, fitted, len(cohort.subject_id), eligible, num_events, groups)


def engine_plan(trial: SurvivalTrial, pool: PatientPool) -> TrialPlan:
    """The plan of the engine: solves for the number of patients where the trial leaves it open.

    Raises:
        ConfigError: If more than 20,000 patients would be needed or more than can ever be enrolled, fewer are planned
            than events, the trial ends before its enrolment, or a factor is unknown.
    """
    design, accrual = trial.design, trial.accrual
    unit = trial.randomisation.check(ratio_parts(trial.allocation_ratio))
    num_subjects = trial.num_subjects
    if num_subjects is None:
        needed = max(required_subjects(trial, pool, design.events[-1]), design.events[-1])
        num_subjects = math.ceil(needed / unit - 1e-9) * unit
    if num_subjects < design.events[-1]:
        raise ConfigError(f"trial.num_subjects must be at least the {design.events[-1]} events, got {num_subjects}")
    try:
        ends = trial.enrolment_months(num_subjects)
        last = 2 * trial.planned_months(num_subjects) if trial.max_months is None else trial.max_months
        if last < ends - 1e-6:
            raise ConfigError(f"trial.max_months must be at least the {ends:g} months of enrolment, got {last!r}")
        strata = as_factors(trial.analysis_strata or ())
        return TrialPlan(
            design,
            pool,
            num_subjects,
            accrual.of_size(num_subjects),
            trial.dropout,
            last,
            trial.randomisation,
            strata,
            trial.treatment_changes,
            {} if trial.estimand is None else trial.estimand.strategies,
        )
    except ValueError as error:
        raise ConfigError(f"trial: {error}") from error


def required_subjects(trial: SurvivalTrial, pool: PatientPool, events: float) -> float:
    """Patients, fractional, of whom so many events are expected by the planned end under the alternative.

    Raises:
        ConfigError: If more than 20,000 would be needed, or more than can ever be enrolled.
    """
    arms = arms_of(pool, trial.dropout, trial.hazard_ratio)
    share = trial.allocation_ratio / (1 + trial.allocation_ratio)

    def excess(num_subjects: float) -> float:
        """Expected events with so many patients, above those wanted."""
        end, rate = trial.planned_months(num_subjects), trial.accrual.of_size(num_subjects).enroll_rate(num_subjects)
        return float(expected_events([end], arms, rate, num_subjects, share)[0]) - events

    most = min(float(MAX_SUBJECTS), trial.accrual.most)
    beyond = excess(most) if most >= 1 else -events
    if beyond < 0:
        found = events + beyond
        needed = f"{most * events / found:,.0f} patients" if found > 0 else "more patients than there are"
        raise ConfigError(
            f"too few events: {events:g} are needed, for which {needed} would have to be enrolled and followed for "
            f"at least {trial.follow_up_months:g} months (at most {most:,.0f} can be): choose a more frequent "
            "trial.endpoint, a longer trial.follow_up_months, or a stronger trial.hazard_ratio"
        )
    return float(brentq(excess, min(1.0, most), most, xtol=1e-9, rtol=1e-12))


def example_patients(
    study: Study, seed: int, months: float, trial_index: int = 0, *, hazard_ratio: float | None = None
) -> dict[str, Sequence[object]]:
    """The patient table of one simulated trial, as of a calendar month: column to values.

    Both potential event times stand beside what was observed: `months_to_event_control` and `_experimental` are the
    same patient under either arm, neither of them censored.

    Args:
        study: The trial.
        seed: Of the run.
        months: The calendar month of the analysis.
        trial_index: Which of the simulated trials.
        hazard_ratio: Under which; None: the trial's alternative.
    """
    ratio = study.trial.hazard_ratio if hazard_ratio is None else hazard_ratio
    drawn = draw_patients(study.plan, seed, trial_index // BLOCK)
    row = trial_index % BLOCK
    course, both = course_of(study.plan, drawn, ratio), course_of(study.plan, drawn.doubled(), ratio)
    data = snapshot(course, np.array([row]), np.array([months]))
    keep = np.flatnonzero(drawn.enrolled[row] <= months)
    index, time, event = drawn.index[row][keep], data.time[0][keep], data.event[0][keep]
    potential = both.event[row].reshape(2, -1)[:, keep]
    left = ~event & (course.dropout[row][keep] <= time)
    columns: dict[str, Sequence[object]] = {"patient": list(range(1, len(keep) + 1))}
    columns |= covariate_columns(study.plan.pool.baseline, index)
    columns |= {
        "arm": ["experimental" if arm else "control" for arm in drawn.arm[row][keep]],
        "stratum": study.plan.pool.stratum[index].tolist(),
        "site": (drawn.site[row][keep] + 1).tolist(),
        "enrolled_month": drawn.enrolled[row][keep].round(3).tolist(),
        "months_at_risk": time.round(3).tolist(),
        "event": event.astype(int).tolist(),
        "ended_by": np.where(event, "event", np.where(left, "dropout", "analysis")).tolist(),
        "months_to_event_control": _finite(potential[0]),
        "months_to_event_experimental": _finite(potential[1]),
        "log_risk": study.plan.pool.log_risk[index].round(4).tolist(),
    }
    return columns


def _finite(values: Floats) -> list[float | None]:
    """Three decimals; None for an event that never comes."""
    return [round(value, 3) if math.isfinite(value) else None for value in values.tolist()]
