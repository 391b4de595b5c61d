"""How precise a trial's results on a cohort are: its source's patients, several cohorts; precision.csv."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator
from medtwin.report import Section, Table
from medtwin.trials import Cohort, Study
from medtwin.trials.design.timing import Arm, expected_events, time_of_events
from medtwin.trials.engine.batch import Characteristics, Estimate
from medtwin.trials.engine.precision import (
    Precision,
    Spread,
    across_cohorts,
    effective_subjects,
    source_error,
    within_cohort,
)
from medtwin.trials.outcome.endpoint import FollowedUp, follow_up
from medtwin.trials.outcome.prognosis import fit_outcome, strata_of
from medtwin.trials.population.criteria import Baseline, baseline, find_eligible

Cell = str | int | float | None
Ints = NDArray[np.int64]
_RESAMPLES, _GROUPS = 60, 10


@dataclass(frozen=True)
class Source:
    """Of whom the cohort is.

    Attributes:
        origin: `real`, `simulated` or `synthetic`.
        subjects: Patients that twins were learned from; None where nobody has said, or there are no twins.
    """

    origin: str
    subjects: int | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether there are twins of nobody knows how many patients."""
        return self.origin == "synthetic" and self.subjects is None


@dataclass(frozen=True)
class Result:
    """One result of a trial, with all that is uncertain in it."""

    name: str
    precision: Precision


def _exact(value: float) -> Estimate:
    return Estimate(value, 0.0, value, value)


def _risk(study: Study, months: float) -> float:
    """Share of the control arm that has the event within some months, were nobody to leave."""
    pool = study.plan.pool
    return float(1 - np.exp(-pool.hazard.cumulative(months) * np.exp(pool.log_risk)).mean())


def _last_look(study: Study) -> float:
    """Month of the last look, as expected under the alternative; risks in ten groups."""
    plan, ratio = study.plan, study.trial.hazard_ratio
    if plan.changes:
        return float(study.months_of_looks(ratio)[-1])
    control, experimental = (
        Arm(plan.pool.hazard, leaving, plan.pool.risk_groups(_GROUPS, each))
        for leaving, each in zip(plan.dropout.arms, (1.0, ratio), strict=True)
    )
    share = study.trial.allocation_ratio / (1 + study.trial.allocation_ratio)

    def expected(month: float) -> float:
        return float(expected_events([month], (experimental, control), plan.enroll_rate, plan.num_subjects, share)[0])

    found = time_of_events([plan.design.events[-1]], expected, latest=plan.max_months)
    return float(min(found[0], plan.max_months))


def horizon_of(study: Study) -> float:
    """Months up to which the risk of the control arm is told: the least follow-up of a patient who stays."""
    horizon = study.trial.endpoint.horizon_months
    return study.trial.follow_up_months if horizon is None else min(horizon, study.trial.follow_up_months)


def measures_of(study: Study) -> dict[str, Callable[[Study], float]]:
    """What is told of each cohort without simulating trials."""
    months = horizon_of(study)
    return {f"control risk by month {months:g}": lambda each: _risk(each, months), "month of the last look": _last_look}


def _refitted(study: Study, covariates: Baseline, followed: FollowedUp, rows: Ints) -> Study:
    """The trial on some of the eligible, its outcome fitted to them alone."""
    some = Baseline(covariates.subject_id[rows], covariates.names, covariates.values[rows], covariates.sex[rows])
    horizon = study.trial.endpoint.horizon_months
    fitted = fit_outcome(
        some,
        FollowedUp(followed.months[rows], followed.event[rows]),
        strata_of(some.sex),
        ridge=study.trial.ridge,
        horizon_months=horizon,
    )
    return replace(study, plan=replace(study.plan, pool=study.trial.with_effects(fitted.pool)), fitted=fitted)


def source_errors(study: Study, cohort: Cohort, subjects: int, seed: int) -> dict[str, float]:
    """The standard deviation of each measure over resampled patients, the outcome fitted anew to each sample.

    Args:
        study: The trial on the cohort.
        cohort: Its subjects.
        subjects: How many eligible patients the cohort stands for.
        seed: Of the run.
    """
    entry = find_eligible(cohort, study.trial.index, study.trial.criteria).entry
    covariates = baseline(cohort, entry, study.trial.labs)
    followed = follow_up(cohort, entry, study.trial.endpoint)
    found = {}
    for name, measure in measures_of(study).items():

        def statistic(rows: Ints, measure: Callable[[Study], float] = measure) -> float:
            try:
                return measure(_refitted(study, covariates, followed, rows))
            except ConfigError:  # fewer than five events
                return math.nan

        drawn = generator(seed, "resampled patients")
        try:
            found[name] = source_error(statistic, len(entry.day), subjects, drawn, num_resamples=_RESAMPLES)
        except ValueError:  # too few events in most samples: nothing can be said
            found[name] = math.inf
    return found


def precision_results(
    prepared: tuple[Study, Cohort],
    found: Characteristics,
    source: Source,
    others: Sequence[tuple[Study, Characteristics]] = (),
    *,
    spread: Spread = "seeds",
    seed: int = 0,
) -> list[Result]:
    """Each result with its Monte-Carlo error and what the cohort, or the cohorts, leave open.

    Args:
        prepared: The trial on the first cohort, and its subjects.
        found: What was simulated on it, under the first scenario.
        source: Of whom the cohort is.
        others: The same of the other cohorts.
        spread: How cohorts differ.
        seed: Of the run.
    """
    study, cohort = prepared
    if study.fitted is None:
        return []
    count = effective_subjects(study.cohort_size, study.num_eligible, source.subjects)
    errors = source_errors(study, cohort, max(count, 2), seed) if not others or spread == "seeds" else {}
    measures = measures_of(study)
    if not others:
        is_source = source.origin != "synthetic"
        return [
            Result(
                name,
                within_cohort(_exact(measure(study)), errors[name], effective_subjects=count, is_source=is_source),
            )
            for name, measure in measures.items()
        ]
    everybody = [(study, found), *others]
    results = []
    for name, measure in measures.items():
        values = [_exact(measure(each)) for each, _ in everybody]
        error = errors.get(name, 0.0)
        results.append(
            Result(name, across_cohorts(values, spread=spread, source_error=error, effective_subjects=count))
        )
    for name, values in (
        ("power", [each.power for _, each in everybody]),
        ("duration, months", [each.months for _, each in everybody]),
    ):
        results.append(Result(name, across_cohorts(values, spread=spread, effective_subjects=count)))
    return results


def precision_section(results: Sequence[Result], source: Source, study: Study) -> Section | None:
    """The section of the report; None where there is nothing to tell."""
    if not results:
        return None
    rows: list[list[Cell]] = []
    for each in results:
        p = each.precision
        bound = " or wider" if p.is_lower_bound else ""
        interval = f"{p.low:.4g} to {p.high:.4g}{bound}" if math.isfinite(p.total_error) else "unknown"
        errors = [f"{e:.3g}" if math.isfinite(e) else "unknown" for e in (p.monte_carlo_error, p.cohort_error)]
        rows.append([each.name, f"{p.value:.4g}", *errors, interval, p.what])
    columns = ["result", "value", "Monte-Carlo error", "cohort's error", "95 % interval of both", "what is in it"]
    table = Table(columns, rows, "All that is uncertain")
    return Section("How precise this is", [_source_text(source, study, results[0].precision)], [table])


def _source_text(source: Source, study: Study, first: Precision) -> str:
    if source.is_unknown:
        return (
            "Nobody recorded how many patients these twins were learned from. Intervals count every twin as a patient "
            "and are too narrow: set source_subjects."
        )
    if source.origin != "synthetic":
        count = "" if first.effective_subjects is None else f"{first.effective_subjects:,} "
        return f"The {count}eligible subjects are a sample: intervals come from resampling them."
    count = f"{first.effective_subjects or study.num_eligible:,}"
    return (
        f"The twins were learned from {source.subjects:,} patients: {study.cohort_size:,} twins have the precision of "
        f"at most as many, and the {study.num_eligible:,} eligible ones that of {count}. More twins or trials change "
        "nothing of that."
    )


def without_size(results: Sequence[Result]) -> list[Result]:
    """The results without how many subjects they rest on, where that is not told."""
    return [replace(each, precision=replace(each.precision, effective_subjects=None)) for each in results]


def precision_columns(results: Sequence[Result]) -> dict[str, Sequence[object]]:
    """The columns of precision.csv."""
    each = [result.precision for result in results]

    def numbers(name: str) -> list[float | None]:
        return [value if math.isfinite(value) else None for value in (float(getattr(p, name)) for p in each)]

    names = ("value", "monte_carlo_error", "cohort_error", "low", "high", "degrees_of_freedom")
    return {
        "result": [result.name for result in results],
        **{name: numbers(name) for name in names},
        "level": [p.level for p in each],
        "effective_subjects": [p.effective_subjects for p in each],
        "is_lower_bound": [p.is_lower_bound for p in each],
        "contains": [p.what for p in each],
    }
