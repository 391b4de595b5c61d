"""A two-arm trial with an endpoint that is read once, as data, and what it becomes: patients, design, timing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.trials.design.group_sequential import GroupSequential
from medtwin.trials.engine.course import BLOCK, MAX_SUBJECTS
from medtwin.trials.engine.covariate_columns import covariate_columns
from medtwin.trials.engine.response_batch import ResponsePlan, draw_patients, responses_of
from medtwin.trials.engine.response_design import Hypothesis, ResponseDesign, Superiority
from medtwin.trials.engine.response_tests import CovarianceAnalysis, ResponseTest, ScoreTestOfRates, StudentTest
from medtwin.trials.enrolment.accrual import Accrual, RampedAccrual
from medtwin.trials.enrolment.adherence import Dropout
from medtwin.trials.enrolment.randomisation import PermutedBlocks, Randomisation, ratio_parts
from medtwin.trials.outcome.prognosis import strata_of
from medtwin.trials.outcome.response import BinaryResponse, ContinuousResponse, Response, ResponsePool
from medtwin.trials.outcome.response_fit import FittedResponse, fit_response
from medtwin.trials.population.attrition import GroupRow, attrition_by_group, days_of_reference, demographics
from medtwin.trials.population.cohort import Code, Cohort
from medtwin.trials.population.criteria import AttritionRow, Criterion, IndexDay, Lab, baseline, find_eligible
from medtwin.trials.population.evaluation import criteria_of
from medtwin.trials.population.measures import Measure

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ResponseTrial:
    """A two-arm group-sequential trial whose endpoint is read once, some months after randomisation.

    Attributes:
        title: For the report.
        plan: Looks, errors, power. Information is the number of patients with an outcome.
        endpoint: A `ContinuousResponse` or `BinaryResponse`, with the alternative.
        hypothesis: `Superiority`, or `NonInferiority` with a margin.
        analysis: Of the looks; None: Student's t test of a number, Miettinen and Nurminen's of rates.
        index: On which days subjects may enter. eligibility: What must hold then, as in `SurvivalTrial`.
        labs: Baseline covariates beside age and sex. measures: What names in `eligibility` stand for.
        allocation_ratio: Experimental : control. randomisation: In that ratio.
        num_subjects: Patients; None: as many as make the outcomes that the power needs.
        accrual: How they come. annual_dropout: Share who leave within a year, or how they leave by arm and time; who
            leaves before the endpoint is read has no outcome.
        max_months: The last analysis comes by then; None: when everybody has an outcome or has left.
        ridge: Penalty of the prognostic score (`fit_response`).

    Raises:
        ValueError: If the randomisation cannot allocate in the ratio, the analysis is not of the endpoint's kind, or
            the design makes no sense.
    """

    title: str
    plan: GroupSequential
    endpoint: Response
    hypothesis: Hypothesis = field(default_factory=Superiority)
    analysis: ResponseTest | None = None
    index: IndexDay = field(default_factory=IndexDay)
    eligibility: Sequence[Criterion | str] = ()
    labs: Sequence[Lab] = ()
    measures: Mapping[str, Measure] = field(default_factory=dict)
    allocation_ratio: float = 1.0
    randomisation: Randomisation = field(default_factory=lambda: PermutedBlocks(4, ("sex",)))
    num_subjects: int | None = None
    accrual: RampedAccrual | Accrual = field(default_factory=lambda: RampedAccrual(24.0, 6.0))
    annual_dropout: float | Dropout = 0.05
    max_months: float | None = None
    ridge: float = 4.0

    def __post_init__(self) -> None:
        _ = self.criteria, self.dropout  # raise where they make no sense
        if not isinstance(self.endpoint, ContinuousResponse | BinaryResponse):
            raise ValueError(f"endpoint must be a ContinuousResponse or BinaryResponse, got {self.endpoint!r}")
        if self.test.is_binary != isinstance(self.endpoint, BinaryResponse):
            kind = "rates" if isinstance(self.endpoint, BinaryResponse) else "means"
            raise ValueError(f"analysis must be of {kind}, as the endpoint is, got {type(self.test).__name__}")
        if self.num_subjects is not None and self.num_subjects < 1:
            raise ValueError(f"num_subjects must be 1 or more, got {self.num_subjects}")
        if self.max_months is not None and not self.max_months > self.endpoint.months:
            raise ValueError(
                f"max_months must be above the {self.endpoint.months:g} of the endpoint, got {self.max_months!r}"
            )
        self.randomisation.check(ratio_parts(self.allocation_ratio))
        design = ResponseDesign(self.plan, self.endpoint, self.hypothesis, 0.0, self.allocation_ratio)
        _ = design.max_outcomes  # raises where the power is out of reach

    @property
    def test(self) -> ResponseTest:
        """The analysis of the looks."""
        if self.analysis is not None:
            return self.analysis
        return ScoreTestOfRates() if isinstance(self.endpoint, BinaryResponse) else StudentTest()

    @cached_property
    def criteria(self) -> Sequence[Criterion]:
        """The criteria of eligibility, those written in the language among them."""
        return criteria_of(self.eligibility, self.labs, self.measures)

    @property
    def dropout(self) -> Dropout:
        """How patients leave."""
        share = self.annual_dropout
        return share if isinstance(share, Dropout) else Dropout.of_share(share)

    def codes(self) -> list[Code]:
        """Every code, and family of codes, that it asks a cohort for."""
        needed = [code for criterion in self.criteria for code in criterion.codes]
        needed += [*(self.index.codes or ()), *(code for lab in self.labs for code in lab.codes)]
        record = self.endpoint.record
        return list(dict.fromkeys([*needed, *(record.codes if record is not None else ())]))


@dataclass(frozen=True)
class ResponseStudy:
    """A trial on its patients, ready to be simulated.

    Attributes:
        trial: As configured. plan: For the engine, with the endpoint as the cohort has it.
        attrition: The flow of the cohort, and `attrition_by_group` that of its groups; empty without a cohort.
        fitted: The endpoint as the cohort has it; None where it is assumed.
        cohort_size, num_eligible: Subjects; 0 without a cohort.
    """

    trial: ResponseTrial
    plan: ResponsePlan
    attrition: Sequence[AttritionRow] = ()
    fitted: FittedResponse | None = None
    cohort_size: int = 0
    num_eligible: int = 0
    attrition_by_group: Sequence[GroupRow] = ()

    @property
    def months_of_looks(self) -> Floats:
        """Calendar month at which each look is expected, (looks,); at most the trial's last month."""
        plan, delay = self.plan, self.plan.design.response.months
        early = np.asarray(plan.design.outcomes[:-1], dtype=np.float64) / plan.retained
        months = plan.enroll_rate.time_at(np.minimum(early, plan.num_subjects)) + delay
        last = plan.accrual.enrolment_months(plan.num_subjects) + delay
        return np.asarray(np.minimum(np.append(months, last), plan.max_months))


def prepare_responses(trial: ResponseTrial, cohort: Cohort | None) -> ResponseStudy:
    """The trial on a cohort, or without one on parametric patients.

    Raises:
        ConfigError: If nobody is eligible, a code is unknown, the endpoint is too rare in the record, or more patients
            would be needed than any trial has. Each names what to change.
    """
    if cohort is None:
        return ResponseStudy(trial, response_plan(trial, trial.endpoint, ResponsePool.parametric()))
    found = find_eligible(cohort, trial.index, trial.criteria)
    covariates = baseline(cohort, found.entry, trial.labs)
    fitted, response = None, trial.endpoint
    pool = ResponsePool.of(np.zeros(len(covariates.subject_id)), strata_of(covariates.sex), covariates)
    if response.record is not None:
        fitted = fit_response(response, cohort, found.entry, covariates, ridge=trial.ridge)
        response, pool = fitted.response, fitted.pool
    plan = response_plan(trial, response, pool)
    groups = attrition_by_group(found, demographics(cohort, days_of_reference(cohort, trial.index, found.entry)))
    eligible = len(covariates.subject_id)
    return ResponseStudy(trial, plan, found.attrition, fitted, len(cohort.subject_id), eligible, groups)


def response_plan(trial: ResponseTrial, response: Response, pool: ResponsePool) -> ResponsePlan:
    """The plan of the engine: solves for the number of patients where the trial leaves it open.

    Raises:
        ConfigError: If more than 20,000 patients would be needed or more than can ever be enrolled, the trial ends
            before its first look, or a factor or covariate is unknown.
    """
    unit = trial.randomisation.check(ratio_parts(trial.allocation_ratio))
    try:
        shares = [math.exp(-float(each.cumulative(response.months))) for each in trial.dropout.arms]
        retained = float(np.average(shares, weights=ratio_parts(trial.allocation_ratio)))
        fixed = None if trial.num_subjects is None else math.floor(trial.num_subjects * retained + 1e-9)
        explained = explained_by(trial.test, response, pool)
        covariates = len(trial.test.covariates)
        hypothesis, ratio = trial.hypothesis, trial.allocation_ratio
        design = ResponseDesign(trial.plan, response, hypothesis, explained, ratio, fixed, covariates)
        num_subjects = trial.num_subjects
        if num_subjects is None:
            num_subjects = math.ceil(design.outcomes[-1] / retained / unit - 1e-9) * unit
        most = min(float(MAX_SUBJECTS), trial.accrual.most)
        if num_subjects > most:
            raise ConfigError(
                f"too many patients: {num_subjects:,} are needed, at most {most:,.0f} can be enrolled: choose an "
                "effect further from the null, a larger margin, or fewer dropouts (trial.endpoint.effect=...)"
            )
        accrual = trial.accrual.of_size(num_subjects)
        ends = trial.max_months
        if ends is None:
            ends = math.inf
        elif ends <= response.months + accrual.enrolment_months(min(design.outcomes[0] / retained, num_subjects)):
            raise ConfigError(f"trial.max_months must leave time for the first look, got {ends:g}")
        _ = design.bounds
        return ResponsePlan(design, pool, num_subjects, accrual, trial.dropout, ends, trial.test, trial.randomisation)
    except ValueError as error:
        raise ConfigError(f"trial: {error}") from error


def explained_by(test: ResponseTest, response: Response, pool: ResponsePool) -> float:
    """The share of the variance within arms that an analysis of covariance takes away; 0 for other tests.

    Of what the score says of the endpoint it is the part that its covariates say of the score.

    Raises:
        ValueError: If the pool lacks a covariate.
    """
    if not isinstance(test, CovarianceAnalysis) or not isinstance(response, ContinuousResponse):
        return 0.0
    x = pool.columns(test.covariates)
    total = float(pool.score @ pool.score)
    if total == 0:
        return 0.0
    beta = np.linalg.lstsq(x, pool.score, rcond=None)[0]
    return response.correlation**2 * min(float(pool.score @ (x @ beta)) / total, 1.0)


def example_patients(
    study: ResponseStudy, seed: int, months: float, trial_index: int = 0, effect: float | None = None
) -> dict[str, Sequence[object]]:
    """The patient table of one simulated trial, as of a calendar month: column to values.

    The responses under either arm stand beside what was observed: they are those of the same patient.

    Args:
        study: The trial.
        seed: Of the run.
        months: The calendar month of the analysis.
        trial_index: Which of the simulated trials, from 0.
        effect: True difference; None: the alternative.
    """
    plan, row = study.plan, trial_index % BLOCK
    true = plan.design.response.effect if effect is None else effect
    drawn = draw_patients(plan, seed, trial_index // BLOCK)
    keep = np.flatnonzero(drawn.enrolled[row] <= months)
    index, resolved = drawn.index[row][keep], drawn.resolved[row][keep]
    both = [responses_of(plan, drawn, true, np.full_like(drawn.arm, arm))[row][keep] for arm in (0, 1)]
    observed = drawn.is_observed[row][keep] & (resolved <= months)
    arm = drawn.arm[row][keep]
    value = np.where(arm == 1, both[1], both[0])
    left = ~drawn.is_observed[row][keep] & (resolved <= months)
    status = np.where(observed, "outcome", np.where(left, "left", "waiting"))
    columns: dict[str, Sequence[object]] = {"patient": list(range(1, len(keep) + 1))}
    columns |= covariate_columns(plan.pool.baseline, index)
    columns |= {
        "arm": ["experimental" if each else "control" for each in arm],
        "stratum": plan.pool.stratum[index].tolist(),
        "site": (drawn.site[row][keep] + 1).tolist(),
        "score": plan.pool.score[index].round(4).tolist(),
        "enrolled_month": drawn.enrolled[row][keep].round(3).tolist(),
        "status": status.tolist(),
        "resolved_month": [round(float(m), 3) if m <= months else None for m in resolved],
        "response": [round(float(v), 6) if seen else None for v, seen in zip(value, observed, strict=True)],
        "response_control": both[0].round(6).tolist(),
        "response_experimental": both[1].round(6).tolist(),
    }
    return columns
