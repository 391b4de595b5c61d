"""The sections of a check's page about what lies behind the marginals: correlations, courses, what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from medtwin.check import Findings
from medtwin.check.findings import CorrelationRow, TrajectoryRow, WithinRow
from medtwin.pipelines.report_text import Cells, bare, percent, rounded, short
from medtwin.report import Figure, Section, Table
from medtwin.report.comparisons import Curves, agreement_plot, curve_multiples
from medtwin.report.page import Part

NUM_WORST = 10
NUM_COURSES = 9
MIN_POINTS = 3
_KINDS = {
    "between": "Between patients",
    "day": "Within a patient, from day to day",
    "time": "Within a patient, at one time",
}
_UNITS = {"subject": "patient", "day": "day", "encounter": "encounter"}


def structure_section(findings: Findings) -> Section | None:
    """Correlations of numbers, their memory within a patient, and which are missing, and together."""
    parts: list[Part] = []
    names = {row.code: bare(row.description, 34) for row in findings.values}
    if groups := _correlation_groups(findings.correlations):
        figure = agreement_plot(groups, limits=(-1.05, 1.05))
        note = "Rank correlations of every two measurements that enough patients have. Good twins lie on the diagonal."
        parts.append(Figure(figure, "How two numbers go together", note, "real against synthetic correlations"))
        parts.append(_correlation_table(findings.correlations, names))
    if findings.within:
        parts.append(_within_table(findings.within))
    phi = [row for row in findings.co_missingness if row.real is not None and row.synthetic is not None]
    if phi:
        both = {
            f"In one {_UNITS[kind]}": (
                [row.real for row in phi if row.kind == kind and row.real is not None],
                [row.synthetic for row in phi if row.kind == kind and row.synthetic is not None],
            )
            for kind in dict.fromkeys(row.kind for row in phi)
        }
        note = (
            "Phi coefficient of whether two measurements were made: 1 always together, 0 by chance, below 0 rather not."
        )
        parts.append(Figure(agreement_plot(both, limits=(-1.05, 1.05)), "What is measured together", note))
    if findings.missingness:
        parts.append(_missing_table(findings))
    if not parts:
        return None
    text = "Distributions may be right one by one while nothing fits together: this is what fits together."
    return Section("How numbers hang together", [text], parts)


def _correlation_groups(rows: Sequence[CorrelationRow]) -> dict[str, tuple[list[float], list[float]]]:
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        if row.real is not None and row.synthetic is not None:
            real, synthetic = groups.setdefault(_KINDS[row.kind], ([], []))
            real.append(row.real)
            synthetic.append(row.synthetic)
    return groups


def _correlation_table(rows: Sequence[CorrelationRow], names: dict[str, str]) -> Table:
    defined = [(row, row.real, row.synthetic) for row in rows if row.real is not None and row.synthetic is not None]
    worst = sorted(defined, key=lambda item: -abs(item[1] - item[2]))[:NUM_WORST]
    table: list[Cells] = [
        [
            names.get(row.first, row.first),
            names.get(row.second, row.second),
            _KINDS[row.kind].lower(),
            rounded(real),
            rounded(synthetic),
            row.num_real,
        ]
        for row, real, synthetic in worst
    ]
    return Table(["", "", "", "reference", "twins", "patients"], table, "Correlations that are furthest off")


def _within_table(rows: Sequence[WithinRow]) -> Table:
    table: list[Cells] = [
        [
            bare(row.description, 44),
            row.unit,
            rounded(row.autocorrelation_real),
            rounded(row.autocorrelation_synthetic),
            rounded(row.within_share_real),
            rounded(row.within_share_synthetic),
        ]
        for row in rows[:NUM_WORST]
    ]
    note = (
        "Memory: how alike two numbers in a row are, beyond chance; 0 where their order is arbitrary, 1 where they do "
        "not change. Within: the share of the variance that lies within patients rather than between them."
    )
    columns = ["", "unit", "memory", "twins", "within", "twins"]
    return Table(columns, table, "Numbers of one patient over time, furthest off first", note)


def _missing_table(findings: Findings) -> Table:
    worst = sorted(findings.missingness, key=lambda row: -abs(row.real - row.synthetic))[:NUM_WORST]
    table: list[Cells] = [
        [bare(row.description, 44), _UNITS[row.kind], percent(row.real), percent(row.synthetic)] for row in worst
    ]
    return Table(["", "per", "reference", "twins"], table, "Share without a number, furthest off first")


def courses_section(findings: Findings) -> Section | None:
    """Mean courses of measurements before and after index events."""
    courses: dict[tuple[str, str, str], list[TrajectoryRow]] = {}
    for row in findings.trajectories:
        if row.code and row.real is not None and row.synthetic is not None:
            courses.setdefault((row.index, row.code, row.unit), []).append(row)
    long = [rows for rows in courses.values() if len(rows) >= MIN_POINTS]
    if not long:
        return None
    shown = sorted(long, key=lambda rows: -sum(row.num_real for row in rows))[:NUM_COURSES]
    panels = [_course(rows) for rows in shown]
    text = (
        "Mean of a measurement in stretches of time before and after an event, for the courses that most patients have."
    )
    note = "Means over patients of each patient's mean; the 1 % of values at either end are pulled in."
    return Section(
        "Courses", [text], [Figure(curve_multiples(panels, height=2.1), "", note, "courses of measurements")]
    )


def _course(rows: Sequence[TrajectoryRow]) -> Curves:
    first = rows[0]
    size, unit = (24.0, "days") if max(abs(row.hours) for row in rows) > 72 else (1.0, "hours")
    event = "the first event" if first.index == "start" else short(first.index_description, 26)
    ordered = sorted(rows, key=lambda row: row.hours)
    return Curves(
        f"{bare(first.description, 22)}, {first.unit}" if first.unit else bare(first.description, 30),
        f"{unit} from {event}",
        "",
        [row.hours / size for row in ordered],
        [row.real for row in ordered if row.real is not None],
        [row.synthetic for row in ordered if row.synthetic is not None],
    )
