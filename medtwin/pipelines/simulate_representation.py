"""Who is represented, in the report of a simulated trial: groups in the cohort, among the eligible, and enrolled."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from medtwin.pipelines.simulate_findings import Cell, Findings
from medtwin.report import Figure, Table
from medtwin.report.trial_course_plots import representation_plot
from medtwin.trials import Cohort, Study
from medtwin.trials.engine.enrolled import Spread
from medtwin.trials.population.attrition import Division, GroupRow, demographics
from medtwin.trials.population.cohort import NEVER
from medtwin.trials.population.criteria import DAYS_PER_YEAR


@dataclass(frozen=True)
class Represented:
    """A group of subjects.

    Attributes:
        division: Sex, age or race. group: Which.
        cohort, eligible: Subjects. cohort_share, eligible_share: Of all.
        enrolled: Share of the patients of simulated trials; None where it is not told.
    """

    division: str
    group: str
    cohort: int
    eligible: int
    cohort_share: float
    eligible_share: float
    enrolled: Spread | None


def pool_divisions(study: Study, cohort: Cohort, told: Collection[str]) -> dict[str, Division]:
    """The divisions of the subjects from whom patients are drawn.

    Args:
        study: The trial on the cohort.
        cohort: Of the study.
        told: Divisions that may be told.
    """
    covariates = study.plan.pool.baseline
    if covariates is None:
        return {}
    order = np.argsort(cohort.subject_id, kind="stable")
    rows = order[np.searchsorted(cohort.subject_id, covariates.subject_id, sorter=order)]
    day, birth = cohort.last.copy(), cohort.birth[rows]
    age = covariates.values[:, list(covariates.names).index("age_years")]
    is_known = (birth != NEVER) & ~np.isnan(age)
    day[rows[is_known]] = birth[is_known] + np.round(age[is_known] * DAYS_PER_YEAR).astype(np.int64)
    divisions = demographics(cohort, day)
    return {name: Division(each.labels, each.number[rows]) for name, each in divisions.items() if name in told}


def represented(findings: Findings) -> list[Represented]:
    """Every group that anybody of the cohort belongs to, from the first and the last row of its attrition."""
    ends: dict[tuple[str, str], tuple[GroupRow, GroupRow]] = {}
    for row in findings.cohort.groups:
        first, _ = ends.get((row.division, row.group), (row, row))
        ends[row.division, row.group] = first, row
    total, eligible = (
        {name: sum(pair[last].remaining for (each, _), pair in ends.items() if each == name) for name, _ in ends}
        for last in (0, 1)
    )
    shares = findings.enrolled.representation
    return [
        Represented(
            division,
            group,
            first.remaining,
            last.remaining,
            first.remaining / total[division],
            last.remaining / eligible[division],
            shares.get(division, {}).get(group),
        )
        for (division, group), (first, last) in ends.items()
        if first.remaining
    ]


def representation_parts(findings: Findings) -> Sequence[Table | Figure]:
    """The table and the plot; nothing where there are no groups to tell of."""
    found = represented(findings)
    if not found:
        return []
    rows: list[list[Cell]] = []
    for each in found:
        row: list[Cell] = [each.division, each.group]
        row += [f"{each.cohort:,} ({each.cohort_share:.1%})", f"{each.eligible:,} ({each.eligible_share:.1%})"]
        spread = each.enrolled
        row.append(None if spread is None else f"{spread.mean.value:.1%} ({spread.low:.1%} to {spread.high:.1%})")
        rows.append(row)
    note = (
        "Age is that on the day of entry, of the others on the last day on which they might have entered. Enrolled: "
        f"mean share of a trial's patients, and between what 90 % of {findings.enrolled.num_trials:,} simulated trials "
        "lie; patients are drawn from the eligible alike, so that their mean is that of the eligible."
    )
    columns = ["", "group", "of the cohort", "of the eligible", "enrolled (90 % of trials)"]
    drawn = [
        (e.division, e.group, e.cohort_share, e.eligible_share, e.enrolled.mean.value, e.enrolled.low, e.enrolled.high)
        for e in found
        if e.enrolled is not None
    ]
    parts: list[Table | Figure] = [Table(columns, rows, "Who is represented", note)]
    if drawn:
        alt = "share of each group in the cohort, among the eligible and in simulated trials"
        parts.append(Figure(representation_plot(drawn), "Representation", alt=alt))
    return parts
