"""The page of a check: the verdict, what is worst, then everything that was measured, family by family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medtwin.check import Findings, GateResult
from medtwin.check.compare import reference_splits
from medtwin.check.estimates import Measure
from medtwin.check.findings import RuleRow
from medtwin.check.gates import is_broken
from medtwin.check.matrix import MARGIN
from medtwin.check.utility_rows import UtilityFindings
from medtwin.core.dataset import Dataset
from medtwin.core.verdict import Verdict
from medtwin.pipelines.check_attack_section import attacks_section
from medtwin.pipelines.check_collapse_section import collapse_section
from medtwin.pipelines.check_group_section import fairness_section
from medtwin.pipelines.check_image_section import images_section
from medtwin.pipelines.check_sections import (
    codes_section,
    pairs_section,
    separators_section,
    strata_section,
    times_section,
    values_section,
)
from medtwin.pipelines.check_structure import courses_section, structure_section
from medtwin.pipelines.check_timelines import kinds_of, on_one_scale, sample_timelines
from medtwin.pipelines.check_utility import utility_section
from medtwin.pipelines.report_text import Cells, interval_of, percent
from medtwin.report import Figure, Page, Score, Scorecard, Section, SideBySide, Table, write_page
from medtwin.report.comparisons import timeline_plot
from medtwin.report.page import Part, State

NUM_TIMELINES = 3
NUM_WORST = 10
NEGLIGIBLE = 0.005
"""A share or distance below this is nothing to report, where real patients differ by nothing at all."""
_STATES: dict[str, State] = {"passed": "good", "failed": "bad", "unchecked": "unknown", "not_applicable": "none"}
_WORDS = {"passed": "passed", "failed": "failed", "unchecked": "unchecked", "not_applicable": "not applicable"}
_RULE_WORDS = {
    "broken": "broken",
    "kept": "kept",
    "untested": "untested, as no twin has what they are about",
    "not_applicable": "not applicable to either side",
}
_ORDER = ("failed", "unchecked", "passed", "not_applicable")


@dataclass(frozen=True)
class Checked:
    """What a check found, and what it was of.

    Attributes:
        findings: Of `compare_datasets`, made shareable where the real patients are real. utility: Of a task, if any.
        results: Of the gates. verdict: What follows. real, synthetic: For sample timelines and images.
    """

    findings: Findings
    utility: UtilityFindings | None
    results: Sequence[GateResult]
    verdict: Verdict
    real: Dataset
    synthetic: Dataset


def write_check_report(folder: Path, checked: Checked, *, show_real: bool) -> None:
    """Writes report.html.

    Timelines of real patients are never drawn, their images only with `show_real`; simulated patients may be.

    Args:
        folder: Where it goes.
        checked: What it tells.
        show_real: Whether images of real patients may stand in the report.
    """
    findings, verdict, results = checked.findings, checked.verdict, checked.results
    real, synthetic = checked.real, checked.synthetic
    descriptions = {row.code: row.description for row in findings.codes}
    sections = [
        verdict_section(results),
        _worst(findings),
        None if checked.utility is None else utility_section(checked.utility, descriptions),
        timelines_section(real, synthetic),
        images_section(findings, real, synthetic, show_real=show_real),
        codes_section(findings),
        values_section(findings),
        times_section(findings),
        pairs_section(findings),
        structure_section(findings),
        courses_section(findings),
        separators_section(findings),
        strata_section(findings),
        fairness_section(findings, () if checked.utility is None else checked.utility.groups),
        _copies(findings),
        attacks_section(findings),
        collapse_section(findings),
        _rules(findings),
        _all_measures(findings),
    ]
    refusals = verdict.refusals()
    allowed = (
        "The twins may be used under this profile."
        if not refusals
        else f"Refused under this profile: {', '.join(refusals)}."
    )
    page = Page(
        "How good are these twins?",
        f"{findings.num_synthetic:,} synthetic patients against the {findings.num_real:,} that they were learned from. "
        "Every number stands beside what real patients reach against each other, because no two samples are alike.",
        [section for section in sections if section is not None],
        _summary(findings, results, verdict),
        banner=f"Profile {verdict.profile}: {_count(results)}. {allowed}",
        state="bad" if refusals else "good",
    )
    write_page(folder / "report.html", page)


def _count(results: Sequence[GateResult]) -> str:
    counts = [(name, sum(one.outcome == name for one in results)) for name in ("passed", "failed", "unchecked")]
    return ", ".join(f"{number} {name}" for name, number in counts if number) or "no gate applies"


def _summary(findings: Findings, results: Sequence[GateResult], verdict: Verdict) -> list[tuple[str, str]]:
    copies = sum(row.num_copies for row in findings.copies if row.name.startswith("copies"))
    broken = sum(is_broken(rule) for rule in findings.rules)
    cards = [
        ("twins", f"{findings.num_synthetic:,}"),
        ("reference patients", f"{findings.num_real:,}"),
        ("control patients", f"{findings.num_control:,}"),
        ("copies found", f"{copies:,}"),
        ("rules broken", f"{broken} of {len(findings.rules)}"),
    ]
    if findings.num_images[1]:
        cards.append(("synthetic images", f"{findings.num_images[1]:,}"))
    return cards


def verdict_section(results: Sequence[GateResult]) -> Section:
    """The gates, each with its value, baseline, interval and limit; what failed first."""
    ordered = sorted(results, key=lambda one: _ORDER.index(one.outcome))
    scores = [
        Score(
            one.title,
            _STATES[one.outcome],
            _WORDS[one.outcome],
            one.value,
            one.baseline,
            one.limit,
            None if one.low is None or one.high is None else (one.low, one.high),
            one.reason,
        )
        for one in ordered
    ]
    note = (
        "Each bar runs from 0; the dark line is the limit, the grey line what random halves of the real patients "
        "differ by at these sample sizes. Brackets: 95 % intervals from resampling whole patients."
    )
    return Section("Verdict", parts=[Scorecard(scores, note=note)])


def timelines_section(real: Dataset, synthetic: Dataset) -> Section:
    """Sample timelines of twins, beside simulated patients; those of real patients are never drawn."""
    kinds = kinds_of(real, synthetic)
    number = NUM_TIMELINES if real.origin == "simulated" else 2 * NUM_TIMELINES
    twins = sample_timelines(synthetic, list(synthetic.splits), number=number, seed=0, kinds=kinds, who="twin")
    marks = "One mark per event; named: conditions and procedures, where there is room."
    if real.origin != "simulated":
        halves = [on_one_scale(twins[:NUM_TIMELINES]), on_one_scale(twins[NUM_TIMELINES:])]
        figures = [Figure(timeline_plot(lines, unit=unit), alt="timelines of twins") for lines, unit in halves if lines]
        text = f"{marks} Timelines of real patients are not drawn: this page may leave the house."
        if len(figures) < 2:
            return Section("Timelines of twins", [text], figures)
        return Section("Timelines of twins", [text], [SideBySide("shorter", figures[0], "longer", figures[1])])
    others = sample_timelines(real, reference_splits(real)[0], number=NUM_TIMELINES, seed=0, kinds=kinds, who="patient")
    lines, unit = on_one_scale([*others, *twins])
    left = Figure(timeline_plot(lines[: len(others)], unit=unit), alt="timelines of simulated patients")
    right = Figure(timeline_plot(lines[len(others) :], unit=unit), alt="timelines of twins")
    text = f"{marks} The patients on the left are simulated too: nobody here ever lived."
    return Section("Timelines", [text], [SideBySide("reference patients", left, "twins", right)])


def _worst(findings: Findings) -> Section | None:
    """The measures that are the most times what real patients differ by."""
    found = []
    for one in findings.measures:
        if one.estimate is not None:
            estimate = one.estimate.complement() if one.better == "higher" else one.estimate
            if estimate.value > max(MARGIN * estimate.baseline_worst, NEGLIGIBLE):
                found.append((estimate.value / max(estimate.baseline_worst, 1e-9), one, estimate))
    if not found:
        text = f"No measure is beyond {MARGIN:g} times what 95 % of comparisons among real patients stay within."
        return Section("What is furthest off", [text])
    ordered = sorted(found, key=lambda item: -item[0])
    rows: list[Cells] = [
        [one.title, _times(ratio), estimate.value, interval_of(estimate), estimate.baseline_worst]
        for ratio, one, estimate in ordered[:NUM_WORST]
    ]
    text = (
        f"{len(found)} of {len(findings.measures)} measures are beyond {MARGIN:g} times what 95 % of comparisons among "
        "real patients stay within. Enough patients show any difference: whether it matters is for the verdict to say."
    )
    columns = ["measure", "beyond chance", "value", "interval", "95 % of real within"]
    note = "Of measures where more is better, what is missing to 1."
    return Section("What is furthest off", [text], [Table(columns, rows, note=note)])


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 1000 else "never so in real ones"


def _copies(findings: Findings) -> Section:
    table: list[Cells] = [
        [row.title, row.num_copies, row.num_checked, f"{row.baseline:.1%}", row.detail] for row in findings.copies
    ]
    notes: list[Cells] = [[name, value] for name, value in findings.notes.items()]
    return Section(
        "Copies",
        ["A twin that repeats a real patient's record is a disclosure, and a duplicate twin adds no information."],
        [
            Table(["what", "found", "looked at", "among real ones", ""], table),
            Table(
                ["", ""],
                notes,
                "For information",
                "Distances to the closest record are a description; they show no privacy, and no gate looks at them.",
            ),
        ],
    )


def _rules(findings: Findings) -> Section | None:
    """The rules that are broken, then those that are kept, and how many could not be tested."""
    if not findings.rules:
        return None
    counts = {outcome: sum(row.outcome == outcome for row in findings.rules) for outcome in _RULE_WORDS}
    told = ", ".join(f"{number} {_RULE_WORDS[outcome]}" for outcome, number in counts.items() if number)
    parts: list[Part] = []
    for outcome, title in (("broken", "Broken"), ("kept", "Kept")):
        rows = sorted(
            (row for row in findings.rules if row.outcome == outcome),
            key=lambda row: -(row.event_shares[1] - (row.event_shares[0] or 0.0)),
        )
        if rows:
            columns = [
                "rule",
                "twins that break it",
                "",
                "reference",
                "",
                "of events",
                "reference",
                "allowed",
                "source",
            ]
            note = "May: the share of twins that chance explains, given the reference." if outcome == "broken" else ""
            parts.append(Table(columns, [_rule_row(row) for row in rows], title, note))
    text = (
        f"{len(findings.rules)} rules: {told}. A rule that no real patient breaks may be broken by no twin; one "
        "that real patients break, as records are kept by people, by no more twins than chance explains."
    )
    return Section("What must never happen", [text], parts)


def _rule_row(row: RuleRow) -> Cells:
    return [
        row.title,
        row.num_synthetic,
        f"of {row.applicable[1]:,}",
        "few, or few do not" if row.num_real is None else row.num_real,
        "of few" if row.applicable[0] is None else f"of {row.applicable[0]:,}",
        percent(row.event_shares[1]),
        None if row.event_shares[0] is None else percent(row.event_shares[0]),
        percent(row.real_share_high),
        row.source,
    ]


def _all_measures(findings: Findings) -> Section:
    rows = [_measure_row(one) for one in findings.measures]
    columns = ["measure", "value", "interval", "real against real", "95 % of real within", "control", "compared"]
    return Section(
        "Every measure",
        [
            "Interval: 95 %, percentiles of a bootstrap over whole patients on both sides, centred on the value. Real "
            "against real: random halves of the reference, scaled to these sample sizes. Control: real patients that "
            "training did not see, against the reference. The tables are in tables/, everything in findings.json."
        ],
        [Table(columns, rows)],
    )


def _measure_row(one: Measure) -> Cells:
    if one.estimate is None:
        return [one.title, None, one.reason, None, None, None, one.num_compared]
    estimate = one.estimate
    numbers = (estimate.baseline, estimate.baseline_worst, estimate.control)
    return [one.title, estimate.value, interval_of(estimate), *numbers, one.num_compared]
