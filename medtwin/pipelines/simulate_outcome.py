"""The outcome in the report of a simulated trial: hazard, prognostic score, what few events leave open."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medtwin.pipelines.simulate_disclosure import ToldCohort
from medtwin.pipelines.simulate_findings import Cell, assumption
from medtwin.report import Figure, Section, Table
from medtwin.trials import Study
from medtwin.trials.outcome.prognosis import FittedOutcome


def outcome_section(study: Study, cohort: ToldCohort) -> Section:
    """How often the endpoint occurs, in whom, and what that rests on.

    Args:
        study: The trial on its patients.
        cohort: Its numbers, as far as they may be told.
    """
    trial, pool = study.trial, study.plan.pool
    ends = [f"{start:g}" for start in pool.hazard.starts]
    rows: list[list[Cell]] = [
        [f"{start} to {end}" if end else f"from {start}", f"{100 * 12 * rate:.3g}"]
        for start, end, rate in zip(ends_rounded(ends), [*ends_rounded(ends)[1:], ""], pool.hazard.rates, strict=True)
    ]
    parts: list[Table | Figure] = [Table(["months after entry", "events per 100 patient-years"], rows, "Control arm")]
    counts = "Death counts as an event." if trial.endpoint.death else (
        "Death ends follow-up as if the patient had left: the hazard is that of the endpoint among the living."
    )  # fmt: skip
    if study.fitted is None:
        return Section("Outcome", [f"Assumed: {assumption(study)}. {counts}"], parts)
    fitted = study.fitted
    horizon = trial.endpoint.horizon_months
    beyond = "beyond the record the last piece goes on" if horizon is None else (
        f"whoever left the record alive is taken to be free of the event until month {horizon:g}, the last that counts"
    )  # fmt: skip
    text = (
        f"Endpoint: {trial.endpoint.name}. {counts} {_observed(fitted, cohort)} A piecewise-constant hazard and a "
        f"prognostic score (Cox, ridge penalty {trial.ridge:g}) are fitted to them; {beyond}. The treatment multiplies "
        "every patient's hazard by the same ratio; both arms of a patient use the same draw."
    )
    scores: list[list[Cell]] = [[name, f"{value:+.3f}", f"{math.exp(value):.2f}"] for name, value in
                                fitted.coefficients.items()]  # fmt: skip
    if scores:
        note = "Shrunk towards 0; they rank patients, they do not explain them."
        parts.append(Table(["covariate", "log hazard ratio per SD", "hazard ratio"], scores, "Prognostic score", note))
    parts.append(_sensitivity(study))
    return Section("Outcome", [text], parts)


def _observed(fitted: FittedOutcome, cohort: ToldCohort) -> str:
    if cohort.eligible is None or cohort.events is None:
        return "The endpoint is as eligible subjects have it in the cohort's own record; how many do is not told."
    return (
        f"In the cohort's own record, {cohort.eligible:,} eligible subjects have {cohort.events:,} first events in "
        f"{fitted.person_months / 12:,.0f} patient-years after entry."
    )


def ends_rounded(texts: Sequence[str]) -> list[str]:
    """Numbers as text with at most four digits."""
    return [f"{float(text):.4g}" for text in texts]


def _sensitivity(study: Study) -> Table:
    fitted = study.fitted
    rows: list[list[Cell]] = []
    for name, factor in (
        ("low end of the cohort's rate", fitted.low if fitted else 1.0),
        ("as fitted", 1.0),
        ("high end of the cohort's rate", fitted.high if fitted else 1.0),
    ):
        months = study.months_of_looks(study.trial.hazard_ratio, factor)
        last = f"{months[-1]:.0f}" if months[-1] < study.plan.max_months else f"not by {study.plan.max_months:g}"
        rows.append([name, f"{factor:.2f}", *(f"{month:.0f}" for month in months[:-1]), last])
    columns = ["event rate", "factor", *(f"month of look {look + 1}" for look in range(len(study.plan.design.events)))]
    note = f"Expected under a hazard ratio of {study.trial.hazard_ratio:g}, with the same number of patients."
    return Table(columns, rows, "If the cohort's event rate is not the true one", note)
