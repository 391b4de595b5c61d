"""The page of a trial simulated by its statistic, or whose endpoint is read once: design, patients, characteristics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.core.files import write_json
from medtwin.pipelines.simulate_disclosure import ToldCohort
from medtwin.pipelines.simulate_findings import Cell, shown
from medtwin.pipelines.simulate_patients import attrition_table
from medtwin.pipelines.simulate_what_if import ToldWhatIf, what_if_record, what_if_section
from medtwin.report import Figure, Page, Section, Table, write_page
from medtwin.report.markdown import write_markdown
from medtwin.report.page import State
from medtwin.report.trial_course_plots import distribution_plot
from medtwin.report.trial_plots import bounds_plot, curve_plot, flow_plot
from medtwin.trials.design.boundaries import Bounds
from medtwin.trials.engine.response_scenarios import EffectLine
from medtwin.trials.engine.tasks import POWER_CURVE

Floats = NDArray[np.float64]
_NUM_PATHS = 40
_AMOUNTS = ("events at stop", "outcomes at stop", "subjects at stop", "duration, months")


@dataclass(frozen=True)
class Told:
    """All that the page tells.

    Attributes:
        title, lead: Of the page. remarks: What a reader must know first. design: The design in words.
        endpoint: The endpoint in words. limits: What the trial cannot say.
        effect: What an effect is called: `hazard ratio` or `difference`.
        information: What information is called: `events` or `outcomes`. counts: (looks,) of it.
        bounds: At the planned information. effect_at: The effect that a z bound with a count stands for.
        months: (looks,) expected. num_subjects: Patients in a trial.
        lines: Every operating characteristic.
        durations: Name of a scenario to the months of its trials, (trials,); empty for none.
        paths: (trials, looks) statistics of some trials of the alternative.
        cohort: Its numbers, as far as they may be told.
        banner: What the check of the cohort says. state: How badly.
        extra: Further sections. scores: How well the difference is estimated, as records.
        what_if: What each criterion of eligibility costs; None without a cohort.
    """

    title: str
    lead: str
    design: str
    endpoint: str
    limits: Sequence[str]
    effect: str
    information: str
    counts: Sequence[int]
    bounds: Bounds
    effect_at: Callable[[float, int], float]
    months: Floats
    num_subjects: int
    lines: Sequence[EffectLine]
    paths: Floats
    durations: Mapping[str, Floats] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    cohort: ToldCohort = field(default_factory=ToldCohort)
    banner: str = ""
    state: State = "none"
    extra: Sequence[Section] = ()
    what_if: ToldWhatIf | None = None
    scores: Sequence[Mapping[str, Any]] = ()

    @property
    def main(self) -> list[EffectLine]:
        """Power and type I error, as far as they are simulated."""
        found = (self.of(name) for name in ("alternative", "null"))
        return [next(each for each in lines if each.look is None) for lines in found if lines]

    def of(self, scenario: str) -> list[EffectLine]:
        """The lines of a scenario."""
        return [line for line in self.lines if line.scenario == scenario]


def write_told(path: Path, told: Told) -> None:
    """Writes report.html, and beside it report.md with its figures and report.json.

    Args:
        path: Of the page.
        told: What it tells.
    """
    page = _page(told)
    write_page(path, page)
    write_markdown(path.with_suffix(".md"), page)
    write_json(path.with_suffix(".json"), _numbers(told))


def _page(told: Told) -> Page:
    sections = [Section("Read this first", told.remarks)] if told.remarks else []
    sections.append(_design(told))
    if told.cohort.attrition:
        sections.append(_patients(told))
    if told.what_if is not None:
        sections.append(what_if_section(told.what_if))
    sections += [Section("Endpoint", [told.endpoint]), _characteristics(told), _curve(told)]
    if told.durations:
        sections.append(_durations(told))
    sections += [*told.extra, Section("What this cannot say", told.limits)]
    summary = [
        ("patients in a trial", f"{told.num_subjects:,}"),
        (f"{told.information} at the last look", f"{told.counts[-1]:,}"),
        *(
            ("type I error", f"{line.estimate.value:.2%}")
            if line.characteristic.endswith("type I error")
            else (f"power at a {told.effect} of {line.effect:g}", f"{line.estimate.value:.1%}")
            for line in told.main
        ),
        ("trials simulated", f"{told.main[0].num_trials:,}"),
    ]
    return Page(told.title, told.lead, sections, summary, told.banner, told.state)


def _design(told: Told) -> Section:
    rows: list[list[Cell]] = []
    for look, (count, z, low) in enumerate(
        zip(told.counts, told.bounds.efficacy.tolist(), told.bounds.futility.tolist(), strict=True)
    ):
        rows.append(
            [
                look + 1,
                f"{told.bounds.fractions[look]:.3f}",
                count,
                f"{told.months[look]:.1f}",
                _bound(z),
                _bound(told.effect_at(z, count)),
                _bound(low),
            ]
        )
    columns = [
        "look",
        "information",
        told.information,
        "expected month",
        "efficacy z",
        f"as a {told.effect}",
        "futility z",
    ]
    return Section("Design", [told.design], [Table(columns, rows, "Bounds as planned"), _stopping(told)])


def _bound(value: float) -> str | None:
    return f"{value:.3f}" if math.isfinite(value) else None


def _stopping(told: Told) -> Figure:
    stopping = []
    for name in ("alternative", "null"):
        for what in ("rejected at look", "futile at look"):
            found = [line for line in told.of(name) if line.characteristic == what]
            if found:
                gap = [math.nan] * (len(told.counts) - len(found))
                theory = [math.nan if line.analytical is None else line.analytical for line in found]
                simulated = [line.estimate.value for line in found]
                label = f"{what.split()[0]}, {name}"
                stopping.append((label, [*simulated, *gap], [*theory, *gap]))
    drawn = bounds_plot(
        told.counts,
        told.bounds.efficacy.tolist(),
        told.bounds.futility.tolist(),
        told.paths[:_NUM_PATHS],
        stopping,
        information=told.information,
    )
    note = "Above: the bounds and some trials under the alternative. Below: share of trials that stop at each look."
    return Figure(drawn, "Where trials stop", note, "z bounds, with simulated trials, and stopping probabilities")


def _patients(told: Told) -> Section:
    steps = [(row.criterion, row.remaining, row.excluded, row.not_evaluable) for row in told.cohort.attrition]
    figure = Figure(flow_plot(steps), "Flow of subjects", alt="subjects remaining after each criterion of eligibility")
    return Section("Who may take part", parts=[figure, attrition_table(told.cohort)])


def _characteristics(told: Told) -> Section:
    parts = []
    for name in dict.fromkeys(line.scenario for line in told.lines):
        if name == POWER_CURVE:
            continue
        lines = told.of(name)
        rows: list[list[Cell]] = []
        for line in lines:
            digits, e = 1 if line.characteristic.endswith(_AMOUNTS) else 4, line.estimate
            interval = "\N{EN DASH}" if math.isnan(e.low) else f"{e.low:,.{digits}f} to {e.high:,.{digits}f}"
            theory = None if line.analytical is None else f"{line.analytical:,.{digits}f}"
            what = f"{line.characteristic} {line.look}" if line.look else line.characteristic
            rows.append([what, shown(e, digits), interval, theory])
        title = f"Under a {told.effect} of {lines[0].effect:g} ({name})"
        columns = ["", "simulated ± Monte-Carlo error", "95 % interval", "analytical"]
        parts.append(Table(columns, rows, title, f"{lines[0].num_trials:,} trials."))
    text = "Bias is the mean estimate at the stop less the true effect: trials that stop early overestimate."
    return Section("Operating characteristics", [text], parts)


def _curve(told: Told) -> Section:
    lines = [
        line
        for line in told.lines
        if line.characteristic in ("power", "type I error") and line.scenario in ("alternative", "null", POWER_CURVE)
    ]
    lines.sort(key=lambda line: line.effect)
    x = np.array([line.effect for line in lines])
    estimates = np.array([line.estimate.value for line in lines])
    intervals = np.array([[line.estimate.low, line.estimate.high] for line in lines])
    theory = np.array([math.nan if line.analytical is None else line.analytical for line in lines])
    labels = (f"true {told.effect}", "probability of rejecting the null")
    drawn = curve_plot(x, estimates, intervals, (x, theory), labels=labels)
    note = "Every effect is tried on the same trials with the same draws."
    rows: list[list[Cell]] = [
        [f"{line.effect:.4g}", shown(line.estimate, 4), None if line.analytical is None else f"{line.analytical:.4f}"]
        for line in lines
    ]
    table = Table([told.effect, "simulated ± Monte-Carlo error", "analytical"], rows)
    return Section("Power", parts=[Figure(drawn, f"Power by {told.effect}", note, labels[1]), table])


def _durations(told: Told) -> Section:
    rows: list[list[Cell]] = []
    for name, months in told.durations.items():
        low, middle, high = np.quantile(months, [0.05, 0.5, 0.95])
        rows.append([name, f"{middle:.1f}", f"{low:.1f} to {high:.1f}"])
    label = "calendar months from the first patient to the decision"
    drawn = distribution_plot([(label, list(told.durations.items()))])
    figure = Figure(drawn, alt="distribution of the duration of the trial")
    return Section("How long it takes", parts=[figure, Table(["", "median months", "5th to 95th percentile"], rows)])


def _numbers(told: Told) -> dict[str, object]:
    """The page's numbers, for machines."""

    def number(value: float | None) -> float | None:
        return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")

    return {
        "title": told.title,
        "effect": told.effect,
        "information": told.information,
        "num_subjects": told.num_subjects,
        "looks": [
            {"information": count, "month": number(month), "efficacy_z": number(z), "futility_z": number(low)}
            for count, month, z, low in zip(
                told.counts,
                told.months.tolist(),
                told.bounds.efficacy.tolist(),
                told.bounds.futility.tolist(),
                strict=True,
            )
        ],
        "scores": list(told.scores),
        "what_if": what_if_record(told.what_if),
        "operating_characteristics": [
            {
                "scenario": line.scenario,
                "effect": number(line.effect),
                "characteristic": line.characteristic,
                "look": line.look,
                "estimate": number(line.estimate.value),
                "mc_standard_error": number(line.estimate.standard_error),
                "low": number(line.estimate.low),
                "high": number(line.estimate.high),
                "analytical": number(line.analytical),
                "num_trials": line.num_trials,
            }
            for line in told.lines
        ],
    }
