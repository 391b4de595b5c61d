"""The page of a simulated trial: what to know first, design, patients, outcome, operating characteristics."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medtwin.core.files import write_json
from medtwin.pipelines.simulate_design import design_section
from medtwin.pipelines.simulate_disclosure import shown_count
from medtwin.pipelines.simulate_findings import Findings, assumption
from medtwin.pipelines.simulate_numbers import report_numbers
from medtwin.pipelines.simulate_outcome import outcome_section
from medtwin.pipelines.simulate_patients import flow_section, patients_section
from medtwin.pipelines.simulate_results import (
    characteristics_section,
    distributions_section,
    example_section,
    power_section,
    stops_section,
)
from medtwin.pipelines.simulate_what_if import what_if_section
from medtwin.report import Page, Section, write_page
from medtwin.report.markdown import write_markdown
from medtwin.trials import Study
from medtwin.trials.enrolment.effect_over_time import EffectFrom

_SMALL_POOL = 500


def write_trial_report(path: Path, findings: Findings) -> None:
    """Writes report.html of a simulated trial, and beside it report.md with its figures and report.json.

    Args:
        path: Of the page.
        findings: What it tells.
    """
    page = trial_page(findings)
    write_page(path, page)
    write_markdown(path.with_suffix(".md"), page)
    write_json(path.with_suffix(".json"), report_numbers(findings))


def trial_page(findings: Findings) -> Page:
    """The page of a simulated trial."""
    study, main = findings.study, findings.found[0]
    trial = study.trial
    who = {
        "real": "Patients are drawn from a real cohort; their treatment and outcomes are simulated.",
        "simulated": "Patients are simulated; so are their treatment and outcomes.",
        "synthetic": "Patients are drawn from synthetic twins; their treatment and outcomes are simulated.",
    }[findings.origin]
    sections: list[Section | None] = [_first(findings), design_section(findings)]
    if study.attrition:
        sections.append(patients_section(findings))
    if findings.what_if is not None:
        sections.append(what_if_section(findings.what_if))
    sections += [
        outcome_section(study, findings.cohort),
        characteristics_section(findings),
        power_section(findings),
        stops_section(findings),
        distributions_section(findings),
        flow_section(findings),
    ]
    sections += [*findings.trust, example_section(findings), _limits(study)]
    summary = [
        (
            "eligible subjects",
            f"{shown_count(findings.cohort.eligible)}, of {shown_count(findings.cohort.subjects)}"
            if study.attrition
            else "parametric",
        ),
        ("patients in a trial", f"{study.plan.num_subjects:,}"),
        ("events wanted", f"{study.plan.design.events[-1]:,}"),
        *(
            ("type I error", f"{found.power.value:.2%}")
            if scenario.hazard_ratio == 1
            else (f"power at HR {scenario.hazard_ratio:g}", f"{found.power.value:.1%}")
            for scenario, found in findings.main
        ),
        ("median duration", f"{np.median(main.stops.months):.0f} months"),
    ]
    lead = f"A two-arm group-sequential trial; endpoint: {trial.endpoint.name}. {who}"
    parts = [section for section in sections if section is not None]
    return Page(trial.title, lead, parts, summary, findings.banner, findings.state)


def _first(findings: Findings) -> Section | None:
    study = findings.study
    paragraphs = list(findings.remarks)
    if study.attrition and study.fitted is None:
        paragraphs.append(
            f"The endpoint occurs {_times(findings.cohort.events)} among the eligible subjects, too rarely to estimate "
            f"a rate. The outcome is therefore assumed, not read from the cohort: {assumption(study)}."
        )
    if not study.attrition:
        paragraphs.append(
            f"There is no cohort: patients are parametric, and the outcome is assumed: {assumption(study)}."
        )
    if not findings.cohort.is_whole:
        paragraphs.append(
            f"The patients are real: counts of fewer than {findings.cohort.smallest} of them, and such as would give "
            "one away, are not told (smallest_cell=1 tells them)."
        )
    if study.attrition and findings.cohort.eligible is not None and study.num_eligible < _SMALL_POOL:
        repeats = study.plan.num_subjects / study.num_eligible
        paragraphs.append(
            f"Only {study.num_eligible:,} subjects are eligible. Each simulated trial draws its "
            f"{study.plan.num_subjects:,} patients from them with replacement, so that each stands for "
            f"{repeats:.1f} patients on average. Their outcomes are drawn anew each time."
        )
    if study.fitted is not None:
        low, high = study.fitted.low, study.fitted.high
        shown_events = "the" if findings.cohort.events is None else f"{findings.cohort.events}"
        paragraphs.append(
            f"More simulated trials make the Monte-Carlo errors smaller, but not what {shown_events} events in the "
            f"cohort leave open: the rate of the endpoint may be {low:.2f} to {high:.2f} times the one used here "
            "(95 % interval). What that does to the trial stands under Outcome."
        )
    return Section("Read this first", paragraphs) if paragraphs else None


def _times(count: int | None) -> str:
    return "few times" if count is None else {0: "not once", 1: "once"}.get(count, f"{count} times")


def _truth_of(study: Study) -> str:
    """What was taken to be true of all patients."""
    changes = study.plan.changes
    effect = "The effect changes over time as stated" if any(isinstance(c, EffectFrom) for c in changes) else (
        "Hazards are proportional"
    )  # fmt: skip
    treatment = "everyone receives the arm they were given"
    if any(not isinstance(change, EffectFrom) for change in changes):
        effect, treatment = "Hazards are proportional while treatment lasts", "who changes treatment is stated"
    return f"{effect}, patients leave at random, and {treatment}."


def _limits(study: Study) -> Section:
    paragraphs = [
        "The effect of treatment is put in, not found: the trial says how often a design would detect it, never "
        "whether a treatment works.",
        _truth_of(study),
    ]
    if study.attrition:
        paragraphs.append(
            "The cohort decides who takes part and how often the endpoint occurs. If it is synthetic, the model that "
            "made it decides that too; its own error is not in the intervals. A subject's record is taken to end for "
            "reasons that have nothing to do with the endpoint; where it ends with a discharge, set "
            "trial.endpoint.horizon_months."
        )
    return Section("What this cannot say", paragraphs)
