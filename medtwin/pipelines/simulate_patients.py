"""The patients in the report of a simulated trial: who is eligible, who is represented."""

from __future__ import annotations

import numpy as np

from medtwin.pipelines.simulate_disclosure import ToldCohort
from medtwin.pipelines.simulate_findings import Cell, Findings
from medtwin.pipelines.simulate_representation import representation_parts
from medtwin.report import Figure, Section, Table
from medtwin.report.trial_plots import flow_plot
from medtwin.trials.engine.enrolled import ARMS, STATES


def patients_section(findings: Findings) -> Section:
    """Who of the cohort is eligible, and whom they represent."""
    study = findings.study
    told = findings.cohort
    steps = [(row.criterion, row.remaining, row.excluded, row.not_evaluable) for row in told.attrition]
    # a box names whom the next step excludes, so the flow pairs each row with the exclusions that led to it
    figure = Figure(flow_plot(steps), "Flow of subjects", alt="subjects remaining after each criterion of eligibility")
    parts: list[Table | Figure] = [figure, attrition_table(told)]
    parts += representation_parts(findings)
    if (covariates := study.plan.pool.baseline) is not None:
        table: list[list[Cell]] = []
        for name, values in zip(covariates.names, covariates.values.T, strict=True):
            known = values[~np.isnan(values)]
            missing = told.part(len(values) - len(known), len(values))
            if missing is None or not len(known):
                table.append([name, None, missing])
            elif name == "is_female":
                is_told = not told.tells_few(int(known.sum()), len(known))
                table.append(["women", f"{known.mean():.1%}" if is_told else None, missing])
            else:
                low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
                table.append([name, f"{middle:.4g} ({low:.4g} to {high:.4g})", missing])
        note = "A missing value is replaced by the median in the prognostic score."
        parts.append(Table(["covariate", "median (quartiles)", "missing"], table, "Eligible subjects at entry", note))
    text = (
        "Criteria are asked in this order on every possible day of entry; a subject enters on the first day on which "
        "all hold. A criterion that cannot be evaluated does not hold; a subject counts as not evaluable where it is "
        "excluded by a criterion that could not be evaluated on one of the days that were left."
    )
    return Section("Who may take part", [text], parts)


def attrition_table(cohort: ToldCohort) -> Table:
    """The attrition as a table; a dash where a number is not told."""
    rows: list[list[Cell]] = [
        [row.criterion, row.assessed, row.fails, row.not_evaluable, row.remaining] for row in cohort.attrition
    ]
    note = "" if cohort.is_whole else (
        f"A dash: the number, or what it gives away of others, is of fewer than {cohort.smallest} real people."
    )  # fmt: skip
    return Table(["criterion", "assessed", "not met", "not evaluable", "remaining"], rows, "Attrition", note)


def flow_section(findings: Findings) -> Section:
    """What becomes of a trial's patients by arm, up to the analysis that ends it."""
    study, enrolled = findings.study, findings.enrolled
    failure = study.plan.accrual.screening.failure
    text = (
        f"Patients of {enrolled.num_trials:,} simulated trials at a hazard ratio of "
        f"{findings.scenarios[0].hazard_ratio:g}, as of the analysis at which each ended: mean, and between what 90 % "
        "of the trials lie."
    )
    if failure:
        text += f" A share of {failure:.0%} fails screening: {1 / (1 - failure):.2f} are screened for each of them."
    rows: list[list[Cell]] = []
    for state in STATES:
        if state == "changed treatment" and not study.plan.changes:
            continue
        cells = [enrolled.disposition[arm][state] for arm in ARMS]
        rows.append([state, *(f"{each.mean.value:,.1f} ({each.low:,.0f} to {each.high:,.0f})" for each in cells)])
    return Section("Patients in a trial", [text], [Table(["", *ARMS], rows, "Disposition")])
