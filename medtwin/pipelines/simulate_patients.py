"""The patients in the report of a simulated trial: who is eligible, who is represented."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medtwin.pipelines.simulate_findings import Cell
from medtwin.report import Figure, Section, Table
from medtwin.report.trial_plots import flow_plot
from medtwin.trials import Study
from medtwin.trials.population.attrition import GroupRow


def patients_section(study: Study, groups: Sequence[GroupRow]) -> Section:
    """Who of the cohort is eligible, and whom they represent."""
    steps = [(row.criterion, row.remaining, row.excluded, row.not_evaluable) for row in study.attrition]
    # a box names whom the next step excludes, so the flow pairs each row with the exclusions that led to it
    figure = Figure(flow_plot(steps), "Flow of subjects", alt="subjects remaining after each criterion of eligibility")
    rows: list[list[Cell]] = [
        [row.criterion, row.assessed, row.fails, row.not_evaluable, row.remaining] for row in study.attrition
    ]
    columns = ["criterion", "assessed", "not met", "not evaluable", "remaining"]
    parts: list[Table | Figure] = [figure, Table(columns, rows, "Attrition")]
    if groups:
        parts.append(_representation(groups))
    if (covariates := study.plan.pool.baseline) is not None:
        table: list[list[Cell]] = []
        for name, values in zip(covariates.names, covariates.values.T, strict=True):
            known = values[~np.isnan(values)]
            if name == "is_female":
                table.append(["women", f"{known.mean():.1%}" if len(known) else None, len(values) - len(known)])
            elif len(known):
                low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
                table.append([name, f"{middle:.4g} ({low:.4g} to {high:.4g})", len(values) - len(known)])
            else:
                table.append([name, None, len(values)])
        note = "A missing value is replaced by the median in the prognostic score."
        parts.append(Table(["covariate", "median (quartiles)", "missing"], table, "Eligible subjects at entry", note))
    text = (
        "Criteria are asked in this order on every possible day of entry; a subject enters on the first day on which "
        "all hold. A criterion that cannot be evaluated does not hold; a subject counts as not evaluable where it is "
        "excluded by a criterion that could not be evaluated on one of the days that were left."
    )
    return Section("Patients", [text], parts)


def _representation(groups: Sequence[GroupRow]) -> Table:
    """Each group's share of the cohort and of the eligible, from the first and the last row of its attrition."""
    ends: dict[tuple[str, str], tuple[GroupRow, GroupRow]] = {}
    for row in groups:
        first, _ = ends.get((row.division, row.group), (row, row))
        ends[row.division, row.group] = first, row
    total, eligible = (
        {name: sum(pair[last].remaining for (each, _), pair in ends.items() if each == name) for name, _ in ends}
        for last in (0, 1)
    )
    rows: list[list[Cell]] = [
        [
            division,
            group,
            f"{first.remaining:,} ({first.remaining / total[division]:.1%})",
            f"{last.remaining:,} ({last.remaining / eligible[division]:.1%})",
        ]
        for (division, group), (first, last) in ends.items()
        if first.remaining
    ]
    note = "Age is that on the day of entry, of the others on the last day on which they might have entered."
    return Table(["", "", "of the cohort", "of the eligible"], rows, "Who is represented", note)
