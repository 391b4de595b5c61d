"""The section of a check's page about fairness: how groups of patients fare, and who stands in cells of few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from medtwin.check import Findings
from medtwin.check.group_rows import CALIBRATION, LOST, OF_RECORDS, OF_SOURCE, OF_TARGET, OF_TWINS, FairnessRow
from medtwin.pipelines.report_text import FEW, Cells, interval, percent
from medtwin.report import Section, Table
from medtwin.report.page import Part

_WHAT = {
    OF_SOURCE: "Shares, against the source",
    OF_TARGET: "Shares, against the stated population",
    OF_RECORDS: "Records: standardised difference of twins from patients of the group",
    LOST: "AUROC lost by training on twins, in test patients",
    CALIBRATION: "Calibration: predicted less observed risk, of models of twins",
}


def fairness_section(findings: Findings, of_task: Sequence[FairnessRow] = ()) -> Section | None:
    """How each group fares by each metric, and cells of few people; None where patients are not divided.

    Args:
        findings: With rows of shares, records and attacks.
        of_task: Rows of a task, where there was one.
    """
    rows = [*findings.fairness, *of_task]
    if not rows and not findings.small_cells:
        return None
    parts: list[Part] = []
    silent: list[str] = []
    named = [row.division for row in findings.strata], [row.division for row in rows]
    divisions = list(dict.fromkeys([*named[0], *named[1]]))
    for metric in dict.fromkeys(row.metric for row in rows):
        chosen = [row for row in rows if row.metric == metric]
        chosen.sort(key=lambda row: (divisions.index(row.division), row.group))
        title, judged = _WHAT.get(metric, f"Attack: {metric}"), [row for row in chosen if not row.reason]
        unjudged = _unjudged([row for row in chosen if row.reason])
        if judged:
            parts.append(Table(_columns(metric), [_cells(row) for row in judged], title, unjudged))
        else:
            silent.append(f"{title}: {unjudged[0].lower()}{unjudged[1:]}")
    if findings.small_cells:
        note = (
            "Cells: what several things that others may know of a patient are together. Small: 1 to 10 twins. In rare "
            "ones: in a cell that 1 to 10 training patients have. Usual: what 95 % of deals of twins and control "
            "patients between the two sides stay within."
        )
        columns = ["by", "cells", "small", "twins in rare ones", "others", "excess", "interval", "usual"]
        cells: list[Cells] = [
            [
                row.keys,
                row.num_cells,
                row.num_small,
                percent(row.twins),
                percent(row.control),
                percent(row.excess),
                interval(row.low, row.high),
                percent(row.usual),
            ]
            for row in findings.small_cells
        ]
        parts.append(Table(columns, cells, "Cells of few people", note))
    text = (
        "Each group is held against all patients who are not of it, or its share against what it should be. Worse by: "
        "how much worse the group fares, with its interval from resampled patients. Groups that are too small to judge "
        "are counted here; their sizes are in tables/fairness.csv."
    )
    return Section("Does every group fare alike?", [text, *silent], parts)


def _unjudged(rows: Sequence[FairnessRow]) -> str:
    """How many groups are not judged, and why, in a sentence; empty of none."""
    if not rows:
        return ""
    counts = Counter(row.reason.removeprefix("not judged: ") for row in rows)
    told = "; ".join(f"{number}: {reason}" if len(counts) > 1 else reason for reason, number in counts.most_common())
    return f"Not judged: {len(rows)} group{'s' * (len(rows) > 1)} ({told})."


def _columns(metric: str) -> list[str]:
    if metric in OF_TWINS:
        sizes, others = ["patients", "twins"], "all others" if metric == OF_RECORDS else "should be"
    elif metric in (LOST, CALIBRATION):
        sizes, others = ["test patients", "with the outcome"], "all others" if metric == LOST else "model of real"
    else:
        sizes, others = ["training patients", "others"], "all others"
    return ["", "group", *sizes, "value", "interval", others, "worse by", "interval"]


def _cells(row: FairnessRow) -> Cells:
    sizes: Cells = [FEW if count is None else count for count in (row.num_patients, row.num_others)]
    return [
        row.division,
        row.group,
        *sizes,
        row.value,
        _ends(row.low, row.high),
        row.reference,
        row.gap,
        _ends(row.gap_low, row.gap_high),
    ]


def _ends(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else interval(low, high)
