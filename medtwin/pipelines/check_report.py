"""The page of a check: the verdict, what is worst, then timelines, codes, numbers, times, pairs, images and copies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medtwin.check import Findings, GateResult
from medtwin.check.compare import reference_splits
from medtwin.check.findings import Distribution, Measure, ValueRow
from medtwin.check.gates import is_broken
from medtwin.core.dataset import Dataset
from medtwin.core.verdict import Verdict
from medtwin.pipelines.check_timelines import kinds_of, on_one_scale, sample_images, sample_timelines
from medtwin.report import Figure, Page, Score, Scorecard, Section, SideBySide, Table, write_page
from medtwin.report.comparisons import (
    Curves,
    Panel,
    curve_multiples,
    histogram_multiples,
    scatter_plot,
    timeline_plot,
)
from medtwin.report.page import Part, State

NUM_TIMELINES = 3
NUM_IMAGES = 12
NUM_VALUES = 12
NUM_WORST = 12
_STATES: dict[str, State] = {"passed": "good", "failed": "bad", "unchecked": "unknown", "not_applicable": "none"}
_WORDS = {"passed": "passed", "failed": "failed", "unchecked": "unchecked", "not_applicable": "not applicable"}
Cells = list[str | int | float | None]
_ORDER = ("failed", "unchecked", "passed", "not_applicable")


def write_check_report(
    folder: Path,
    findings: Findings,
    results: Sequence[GateResult],
    verdict: Verdict,
    real: Dataset,
    synthetic: Dataset,
    *,
    show_real: bool,
) -> None:
    """Writes report.html.

    Timelines of real patients are never drawn, their images only with `show_real`; simulated patients may be.

    Args:
        folder: Where it goes.
        findings: Of `compare_datasets`, made shareable where the real patients are real.
        results: Of the gates.
        verdict: What follows.
        real: For sample timelines and images.
        synthetic: The same.
        show_real: Whether images of real patients may stand in the report.
    """
    sections = [
        verdict_section(results),
        timelines_section(real, synthetic),
        _images(findings, real, synthetic, show_real=show_real),
        _codes(findings),
        _values(findings),
        _times(findings),
        _pairs(findings),
        _copies(findings),
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


def _images(findings: Findings, real: Dataset, synthetic: Dataset, *, show_real: bool) -> Section | None:
    twins = sample_images(synthetic, list(synthetic.splits), number=NUM_IMAGES, seed=0)
    if twins is None:
        return None
    parts: list[Part] = []
    if real.origin == "simulated" or show_real:
        reference = sample_images(real, reference_splits(real)[0], number=NUM_IMAGES, seed=0)
        if reference is not None:
            parts.append(SideBySide("reference images", reference, "synthetic images", twins))
    note = "" if parts else "Images of real patients are not shown (show_real=true shows them)."
    if not parts:
        parts.append(twins)
    if groups := findings.image_groups:
        panels = [
            Panel(
                f"{one.name} ({one.num_real} real, {one.num_synthetic} synthetic)",
                one.intensities.label,
                one.intensities.support,
                one.intensities.cdf_real,
                one.intensities.cdf_synthetic,
            )
            for one in groups
        ]
        parts.append(Figure(histogram_multiples(panels, columns=min(len(panels), 3)), "Brightness of pixels"))
        curves = [
            Curves(one.name, "cycles per image", "log10 power", one.frequency, one.power_real, one.power_synthetic)
            for one in groups
        ]
        note_of_spectrum = (
            "Left coarse, right fine. A synthetic curve that falls below is too smooth; one that stays above is too "
            "noisy. Larger images were averaged down to the smaller size first."
        )
        parts.append(Figure(curve_multiples(curves), "Sharpness: power by spatial frequency", note_of_spectrum))
    return Section("Images", [note] if note else [], parts)


def _codes(findings: Findings) -> Section:
    rows = [row for row in findings.codes if row.num_real or row.num_synthetic]
    frequent = [i for i, row in enumerate(rows) if row.num_real >= 11]
    worst = sorted(frequent, key=lambda i: -abs(rows[i].log_ratio))[:6]
    scatter = scatter_plot(
        [row.prevalence_real for row in rows],
        [row.prevalence_synthetic for row in rows],
        x_label="share of reference patients with the code",
        y_label="share of twins with the code",
        names={i: _short(rows[i].description, 30) for i in worst},
        limits=(min(0.5 / max(findings.num_real, 1), 0.01), 1.0),
    )
    decile: list[Cells] = [
        [
            row.decile,
            row.num_codes,
            f"{row.smallest_prevalence:.1%} \N{EN DASH} {row.largest_prevalence:.1%}",
            row.error.value,
            _interval(row.error.low, row.error.high),
            row.error.baseline,
        ]
        for row in findings.deciles
    ]
    table: list[Cells] = [
        [
            _short(rows[i].description, 60),
            rows[i].code if rows[i].description != rows[i].code else None,
            f"{rows[i].prevalence_real:.1%}",
            f"{rows[i].prevalence_synthetic:.1%}",
            rows[i].rate_real,
            rows[i].rate_synthetic,
        ]
        for i in sorted(frequent, key=lambda i: -abs(rows[i].log_ratio))[:NUM_WORST]
    ]
    parts: list[Part] = [
        Figure(
            scatter, "Prevalence of every code", "Orange: the frequent codes that are furthest off.", "scatter plot"
        ),
        Table(
            ["code", "", "reference patients", "twins", "events per year, reference", "twins"],
            table,
            "Frequent codes that are furthest off",
            "Of the codes that at least 11 reference patients have; all of them are in tables/codes.csv.",
        ),
        Table(
            ["tenth", "codes", "prevalence", "mean |log ratio|", "interval", "real against real"],
            decile,
            "Error by how common a code is",
            "1: the most common tenth. An error of 0.69 is a factor of 2.",
        ),
    ]
    return Section("Which codes, how often", [_sentence(findings, "codes.missing", "codes.novel")], parts)


def _sentence(findings: Findings, missing: str, novel: str) -> str:
    values = [findings.measure(name).estimate for name in (missing, novel)]
    if None in values:
        return ""
    first, second = (one.value for one in values if one is not None)
    base = [one.baseline for one in values if one is not None]
    return (
        f"{first:.1%} of the reference's codes are borne by no twin (between halves of the reference: {base[0]:.1%}), "
        f"and {second:.1%} of the twins' codes by no reference patient ({base[1]:.1%})."
    )


def _values(findings: Findings) -> Section | None:
    if not findings.values:
        return None
    shown = sorted(findings.values, key=lambda row: -row.num_real)[:NUM_VALUES]
    shown = sorted(shown, key=lambda row: -row.ks.value)
    panels = [
        Panel(
            _bare(row.description, 34), row.unit, row.support, row.cdf_real, row.cdf_synthetic, f"KS {row.ks.value:.2f}"
        )
        for row in shown
    ]
    table: list[Cells] = [
        [
            _short(row.description, 60),
            row.unit,
            row.num_real,
            row.num_synthetic,
            row.ks.value,
            _interval(row.ks.low, row.ks.high),
            row.ks.baseline,
            row.wasserstein.value,
            f"{row.outside:.1%}",
        ]
        for row in findings.values[:NUM_WORST]
    ]
    columns = ["code", "unit", "real values", "synthetic", "KS", "interval", "real against real", "W / IQR", "outside"]
    return Section(
        "Numbers",
        parts=[
            Figure(
                histogram_multiples(panels),
                "The most frequent measurements",
                "Filled: reference. Line: twins. KS: the largest gap of the cumulative curves, 0 to 1; worst first.",
                "small histograms of measurements",
            ),
            Table(columns, table, "Measurements that are furthest off", _value_note(findings.values)),
        ],
    )


def _value_note(rows: Sequence[ValueRow]) -> str:
    return (
        f"{len(rows)} codes with units were compared. W / IQR: Wasserstein distance in real interquartile ranges. "
        "Outside: share of synthetic values beyond the real 0.1\N{EN DASH}99.9 % range."
    )


def _times(findings: Findings) -> Section:
    shown = {one.name: one for one in findings.distributions}
    panels = [
        _panel(shown[name], title, is_log=is_log)
        for name, title, is_log in (
            ("gaps", "From one time to the next", True),
            ("length", "Length of the record", False),
            ("follow_up", "Follow-up", False),
        )
        if name in shown
    ]
    parts: list[Part] = [Figure(histogram_multiples(panels, columns=3, height=2.2), "Gaps and lengths")]
    if (curve := shown.get("survival")) is not None:
        plot = Curves(
            "Survival (Kaplan-Meier)",
            curve.label,
            "share alive",
            [0.0, *curve.support],
            [1.0, *curve.cdf_real],
            [1.0, *curve.cdf_synthetic],
            is_step=True,
            limits=(max(min([*curve.cdf_real, *curve.cdf_synthetic]) - 0.1, 0.0), 1.005),
        )
        parts.append(Figure(curve_multiples([plot], columns=1, height=2.8), "Deaths"))
    rows: list[Cells] = [
        [
            row.band,
            row.num_real if row.num_real is not None else "fewer than 11",
            row.num_synthetic,
            row.events_real,
            row.events_synthetic,
            _rounded(row.years_real),
            _rounded(row.years_synthetic),
        ]
        for row in findings.ages
    ]
    columns = ["age at first event", "reference", "twins", "median events", "twins", "median years", "twins"]
    if rows:
        parts.append(Table(columns, rows, "Length of the record by age"))
    return Section("When", parts=parts)


def _panel(one: Distribution, title: str, *, is_log: bool) -> Panel:
    return Panel(title, one.label, one.support, one.cdf_real, one.cdf_synthetic, is_log=is_log)


def _pairs(findings: Findings) -> Section | None:
    if not findings.pairs:
        return None
    names = {row.code: _short(row.description, 40) for row in findings.codes}
    parts: list[Part] = []
    for kind, title in (("together", "At one time"), ("next", "From one time to the next")):
        rows = [row for row in findings.pairs if row.kind == kind]
        if not rows:
            continue
        figure = scatter_plot(
            [row.real for row in rows],
            [row.synthetic for row in rows],
            x_label="share of the reference's steps",
            y_label="share of the twins' steps",
            limits=(1e-4, 1.0),
        )
        parts.append(Figure(figure, title, f"{len(rows):,} pairs of codes", "scatter plot of pairs"))
    ordered = sorted(findings.pairs, key=lambda row: -abs(row.real - row.synthetic))
    table = [
        [
            {"together": "at one time", "next": "next", "within-subject": "in one patient"}[row.kind],
            names.get(row.first, row.first),
            names.get(row.second, row.second),
            f"{row.real:.2%}",
            f"{row.synthetic:.2%}",
        ]
        for row in [one for one in ordered if one.kind != "within-subject"][:NUM_WORST]
    ]
    if len(parts) == 2 and isinstance(parts[0], Figure) and isinstance(parts[1], Figure):
        parts = [SideBySide(parts[0].title, parts[0], parts[1].title, parts[1])]
    parts.append(Table(["", "code", "code", "reference", "twins"], table, "Pairs that are furthest off"))
    text = "A step is a time at which something happened to a patient. Good twins lie on the diagonal."
    return Section("Which codes belong together", [text], parts)


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
    if not findings.rules:
        return None
    rows: list[Cells] = [
        [
            row.title,
            row.num_synthetic,
            f"{row.share_synthetic:.1%}",
            f"{row.share_real:.1%}",
            "broken" if is_broken(row) else "kept",
            row.source,
        ]
        for row in findings.rules
    ]
    columns = ["rule", "twins that break it", "share", "reference", "", "source"]
    return Section("What must never happen", parts=[Table(columns, rows)])


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
    interval = _interval(estimate.low, estimate.high)
    numbers = (estimate.baseline, estimate.baseline_worst, estimate.control)
    return [one.title, estimate.value, interval, *numbers, one.num_compared]


def _interval(low: float, high: float) -> str:
    return f"{low:.3g} \N{EN DASH} {high:.3g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _bare(text: str, length: int) -> str:
    """A LOINC name without property and system, as clinicians say it: `Creatinine`.

    >>> _bare("Creatinine [Mass/volume] in Serum or Plasma", 34)
    'Creatinine'
    """
    return _short(re.sub(r" \[.*", "", text) or text, length)


def _short(text: str, length: int) -> str:
    plain = re.sub(r" \([a-z/ ]+\)$", "", text)
    return plain if len(plain) <= length else plain[: length - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
