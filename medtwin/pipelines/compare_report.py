"""The page of designs side by side: designs, scenarios, and a table, a plot and paired differences of each number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medtwin import __version__
from medtwin.core.provenance import Origin
from medtwin.pipelines.simulate_disclosure import told_cohort
from medtwin.pipelines.simulate_findings import Cell, shown
from medtwin.pipelines.simulate_numbers import json_value
from medtwin.report import Figure, Page, Section, Table
from medtwin.report.comparison_plots import Panel, Point, grid_plot
from medtwin.report.page import State
from medtwin.trials import Assumptions
from medtwin.trials.engine.assumptions import DifferencePrior, EffectPrior
from medtwin.trials.engine.batch import Estimate
from medtwin.trials.engine.comparison import EVENTS, SHARES, AnyStudy, Comparison, GridLine, Paired
from medtwin.trials.engine.summaries import distributions
from medtwin.trials.engine.survival_trial import Study

_LABELS = {
    "null rejected": "probability of rejecting the null",
    "stopped for futility": "probability of stopping for futility",
    "duration, months": "mean calendar months to the decision",
    "patients enrolled": "mean patients randomised by the decision",
    "events": "mean events by the decision",
    "outcomes": "mean outcomes by the decision",
    "difference at stop": "mean difference estimated at the stop",
    "log hazard ratio at stop": "mean log hazard ratio estimated at the stop",
}


@dataclass(frozen=True)
class Compared:
    """All that the page tells.

    Attributes:
        comparison: What was simulated. scenarios: Name to what is true. seed: Of the run. origin: Of the cohort.
        banner: What the check of the cohort says, empty for nothing. state: How badly.
    """

    comparison: Comparison
    scenarios: Mapping[str, Assumptions]
    seed: int
    origin: Origin
    banner: str = ""
    state: State = "none"

    @property
    def studies(self) -> dict[str, AnyStudy]:
        """Each design, as of the first scenario."""
        return {each.design: each.study for each in reversed(self.comparison.settings)}

    @property
    def effect(self) -> str:
        """What the effect of the designs' endpoint is called."""
        return "hazard ratio" if self.comparison.information == EVENTS else "difference"


def comparison_page(compared: Compared) -> Page:
    """The page of a comparison."""
    found = compared.comparison
    lines, differences = found.lines(), found.differences()
    has_futility = any(each.trial.plan.futility is not None for each in compared.studies.values())
    measures = [name for name in found.measures if name != "stopped for futility" or has_futility]
    sections = [_designs(compared), _scenarios(compared)]
    sections += [_measure(compared, name, lines, differences) for name in measures]
    sections += [_quantiles(compared), _limits(compared)]
    trials = found.found[0].num_trials
    lead = (
        f"{len(found.designs)} designs in {len(found.scenarios)} scenarios, {trials:,} trials of each. Patient j of "
        "trial i is the same, with the same draws, whatever the design and the scenario: differences are taken trial "
        "by trial."
    )
    sizes = {"designs": len(found.designs), "scenarios": len(found.scenarios), "trials of each": trials}
    summary = [(name, f"{size:,}") for name, size in sizes.items()]
    return Page("Designs side by side", lead, sections, summary, compared.banner, compared.state)


def _designs(compared: Compared) -> Section:
    rows: list[list[Cell]] = []
    for name in compared.comparison.designs:
        study = compared.studies[name]
        trial, design = study.trial, study.plan.design
        rows.append(
            [
                name,
                f"{trial.plan.alpha:g}",
                f"{trial.plan.power:g}",
                f"{_planned_effect(study):g}",
                " ".join(f"{count:,}" for count in _counts(study)),
                study.plan.num_subjects,
                " ".join(f"{z:.3f}" for z in design.bounds.efficacy),
                " ".join(f"{z:.3f}" if math.isfinite(z) else "\N{EN DASH}" for z in design.bounds.futility)
                if trial.plan.futility is not None
                else None,
                f"{study.plan.max_months:.4g}" if math.isfinite(study.plan.max_months) else "when all are read",
            ]
        )
    planned = "for HR" if compared.effect == "hazard ratio" else "for a difference of"
    looks = f"{compared.comparison.information} at looks"
    columns = ["design", "alpha", "power", planned, looks, "patients", "efficacy z", "futility z"]
    first = compared.comparison.designs[0]
    text = f"As planned, one-sided alpha. Differences are to {first!r}, the first."
    return Section("Designs", [text], [Table([*columns, "last month"], rows)])


def _planned_effect(study: AnyStudy) -> float:
    return study.trial.hazard_ratio if isinstance(study, Study) else study.plan.design.response.effect


def _counts(study: AnyStudy) -> Sequence[int]:
    return study.plan.design.events if isinstance(study, Study) else study.plan.design.outcomes


def _scenarios(compared: Compared) -> Section:
    rows: list[list[Cell]] = []
    effect = compared.effect
    for name, truth in compared.scenarios.items():
        told = "; ".join(truth.describe()) or "all as planned"
        setting = next(each for each in compared.comparison.settings if each.scenario == name)
        is_ratio = effect == "hazard ratio"
        mean = np.exp(np.log(setting.effects).mean()) if is_ratio else setting.effects.mean()
        middle = f"{float(mean):.3g}"
        if isinstance(truth.hazard_ratio, EffectPrior) or isinstance(truth.difference, DifferencePrior):
            middle = f"median {middle}"
        rows.append([name, middle, told])
    text = (
        "A scenario changes what is true; looks, bounds, numbers of patients and last months stay as planned. A "
        f"{effect} that a scenario leaves open is the one that {compared.comparison.designs[0]!r} was planned for. "
        f"Where the {effect} has a prior, the probability of rejecting is assurance."
    )
    return Section("Scenarios", [text], [Table(["scenario", effect, "what is true"], rows)])


def _measure(compared: Compared, name: str, lines: list[GridLine], differences: list[Paired]) -> Section:
    """A number of every design in every scenario: plot, table, paired differences."""
    found = compared.comparison
    digits = 4 if name in SHARES or name.endswith("at stop") else 1
    mine = {(line.scenario, line.design): line for line in lines if line.characteristic == name}
    pairs = {(pair.scenario, pair.design): pair for pair in differences if pair.characteristic == name}
    rows: list[list[Cell]] = []
    for scenario in found.scenarios:
        rows.append([scenario, *(shown(mine[scenario, design].estimate, digits) for design in found.designs)])
    parts: list[Table | Figure] = [_figure(found, name, mine, pairs), Table(["", *found.designs], rows, _LABELS[name])]
    theory: list[list[Cell]] = []
    for scenario in found.scenarios:
        values = [mine[scenario, design].analytical for design in found.designs]
        if any(value is not None for value in values):
            theory.append([scenario, *(None if value is None else f"{value:.{digits}f}" for value in values)])
    if theory:
        note = "By numerical integration, all risks alike; nothing where there is no formula for the scenario."
        parts.append(Table(["", *found.designs], theory, "Analytical values", note))
    if pairs:
        reference, *others = found.designs
        told: list[list[Cell]] = []
        for scenario in found.scenarios:
            for design in others:
                pair = pairs[scenario, design]
                e = pair.estimate
                interval = "\N{EN DASH}" if math.isnan(e.low) else f"{e.low:,.{digits}f} to {e.high:,.{digits}f}"
                ratio = None if math.isnan(pair.error_ratio) else f"{pair.error_ratio:.2f}"
                told.append([scenario, design, shown(e, digits), interval, ratio])
        note = "The last column is the Monte-Carlo error over what it would be, had each design patients of its own."
        columns = ["", "design", "difference ± Monte-Carlo error", "95 % interval", "error / independent"]
        parts.append(Table(columns, told, f"Difference to {reference}", note))
    return Section(_LABELS[name][0].upper() + _LABELS[name][1:], parts=parts)


def _figure(
    found: Comparison, measure: str, mine: dict[tuple[str, str], GridLine], pairs: dict[tuple[str, str], Paired]
) -> Figure:
    def points(estimates: Sequence[Estimate]) -> list[Point]:
        return [(each.value, each.low, each.high) for each in estimates]

    reference, *others = found.designs
    values = {name: points([mine[scenario, name].estimate for scenario in found.scenarios]) for name in found.designs}
    panels = [Panel(_LABELS[measure], values)]
    if others:
        apart = {name: points([pairs[scenario, name].estimate for scenario in found.scenarios]) for name in others}
        panels.append(Panel(f"difference to {reference}", apart, 0.0))
    note = "Lines are 95 % Monte-Carlo intervals."
    return Figure(grid_plot(found.scenarios, panels), note=note, alt=f"{_LABELS[measure]}, by scenario and design")


def _quantiles(compared: Compared) -> Section:
    found = compared.comparison
    rows: list[list[Cell]] = []
    for setting, each in zip(found.settings, found.found, strict=True):
        row: list[Cell] = [setting.scenario, setting.design]
        for spread in distributions(each):
            digits = 1 if spread.name.endswith("months") else 0
            low, middle, high = (f"{spread.quantiles[q].value:,.{digits}f}" for q in (0.05, 0.5, 0.95))
            row.append(f"{middle} ({low} to {high})")
        rows.append(row)
    columns = ["", "design", "months to the decision", "patients randomised", found.information]
    return Section("Between what trials lie", ["Median (5 % to 95 % of the trials)."], [Table(columns, rows)])


def _limits(compared: Compared) -> Section:
    paragraphs = [
        "The effect of treatment is put in, not found. Monte-Carlo errors say how far more trials would move a number, "
        "not how far the scenarios are true.",
        "Many differences are told: of those that are none, one in twenty lies outside its 95 % interval.",
    ]
    told = [told_cohort(study, compared.origin).eligible for study in compared.studies.values() if study.attrition]
    sizes = {size for size in told if size is not None}
    if sizes:
        paragraphs.append(
            f"Patients are drawn with replacement from {min(sizes):,} eligible subjects of the cohort"
            + (f" to {max(sizes):,}, which differ between designs: so do the patients" if len(sizes) > 1 else "")
            + ". What the cohort leaves open is in no interval; `medtwin simulate` says how much that is."
        )
    return Section("What this cannot say", paragraphs)


def comparison_numbers(compared: Compared) -> dict[str, Any]:
    """What the page shows, unrounded, as JSON values."""
    found = compared.comparison
    numbers = {
        "made_with": f"medtwin {__version__}",
        "seed": compared.seed,
        "num_trials": found.found[0].num_trials,
        "patients_drawn_from": compared.origin,
        "remarks": [compared.banner] if compared.banner else [],
        "designs": [
            {
                "name": name,
                "title": study.trial.title,
                "alpha": study.trial.plan.alpha,
                "power": study.trial.plan.power,
                compared.effect.replace(" ", "_"): _planned_effect(study),
                found.information: list(_counts(study)),
                "num_subjects": study.plan.num_subjects,
                "efficacy_z": study.plan.design.bounds.efficacy.tolist(),
                "futility_z": study.plan.design.bounds.futility.tolist(),
                "max_months": study.plan.max_months,
            }
            for name, study in ((name, compared.studies[name]) for name in found.designs)
        ],
        "scenarios": [{"name": name, "what": truth.describe()} for name, truth in compared.scenarios.items()],
        "grid": [asdict(line) for line in found.lines()],
        "differences": [{**asdict(pair), "error_ratio": pair.error_ratio} for pair in found.differences()],
        "distributions": [
            {"design": setting.design, "scenario": setting.scenario, "of": [asdict(x) for x in distributions(each)]}
            for setting, each in zip(found.settings, found.found, strict=True)
        ],
    }
    return {name: json_value(value) for name, value in numbers.items()}
