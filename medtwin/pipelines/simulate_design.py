"""The design in the report of a simulated trial: test, looks, bounds, how they are crossed."""

from __future__ import annotations

import math

from medtwin.pipelines.simulate_findings import Cell, Findings
from medtwin.report import Figure, Section, Table
from medtwin.report.trial_plots import bounds_plot
from medtwin.trials import SurvivalTrial
from medtwin.trials.design.group_sequential import hazard_ratio_at_bound
from medtwin.trials.design.spending import Spending, SpendingFunction
from medtwin.trials.enrolment.factors import as_factors

_NUM_PATHS = 40
_SPENDING = {
    "obrien_fleming": "Lan and DeMets' function of the O'Brien-Fleming type",
    "pocock": "Lan and DeMets' function of the Pocock type",
    "hwang_shih_decani": "Hwang, Shih and DeCani's function",
    "kim_demets": "Kim and DeMets' power function",
}


def design_section(findings: Findings) -> Section:
    """The test, its errors, its bounds, and where trials stop."""
    study = findings.study
    trial, design, bounds = study.trial, study.plan.design, study.plan.design.bounds
    plan = trial.plan
    futility = "There are no futility bounds."
    if plan.futility is not None:
        kind = "Binding" if plan.binding else "Non-binding"
        futility = f"{kind} futility bounds spend beta by {_spending(plan.futility)}."
    enrolment = trial.enrolment_months(study.plan.num_subjects)
    text = (
        f"{_test_of(trial)}, one-sided alpha {plan.alpha:g}, power {plan.power:.0%} at a hazard ratio of "
        f"{trial.hazard_ratio:g} (experimental / control), allocation {trial.allocation_ratio:g} : 1 "
        f"{trial.randomisation.description}. Alpha is spent by {_spending(plan.efficacy)}. {futility} "
        f"Schoenfeld's formula asks for {design.max_events:.1f} events, {plan.inflation:.3f} times those of a trial "
        f"with one look. Enrolment takes {enrolment:.3g} months, the last patient is followed for "
        f"{trial.follow_up_months:g}; the trial ends by month {study.plan.max_months:.4g} at the latest."
    )
    months = study.months_of_looks(trial.hazard_ratio)
    rows: list[list[Cell]] = [
        [
            look + 1,
            f"{bounds.fractions[look]:.3f}",
            events,
            f"{months[look]:.1f}",
            f"{bounds.efficacy[look]:.3f}",
            f"{hazard_ratio_at_bound(bounds.efficacy[look], events, trial.allocation_ratio):.3f}",
            f"{bounds.futility[look]:.3f}" if math.isfinite(bounds.futility[look]) else None,
        ]
        for look, events in enumerate(design.events)
    ]
    columns = ["look", "information", "events", "expected month", "efficacy z", "as a hazard ratio", "futility z"]
    return Section("Design", [text], [Table(columns, rows, "Bounds"), _bounds_figure(findings)])


def _test_of(trial: SurvivalTrial) -> str:
    strata = [factor.name for factor in as_factors(trial.analysis_strata or ())]
    return f"Log-rank test stratified by {', '.join(strata)}" if strata else "Log-rank test"


def _spending(spending: SpendingFunction) -> str:
    return _SPENDING[spending.kind] if isinstance(spending, Spending) else repr(spending)


def _bounds_figure(findings: Findings) -> Figure:
    design = findings.study.plan.design
    bounds = design.bounds
    stopping = []
    looks = range(len(design.events))
    for scenario, found in zip(findings.scenarios[:2], findings.found[:2], strict=True):
        exits = bounds.exits(design.drift(scenario.hazard_ratio))
        name = f"efficacy, HR {scenario.hazard_ratio:g}"
        stopping.append((name, [found.rejected_at(look).value for look in looks], exits.upper.tolist()))
        if findings.study.trial.plan.futility is not None:
            low = [*exits.lower[:-1].tolist(), math.nan]
            simulated = [found.futile_at(look).value for look in looks]
            stopping.append((f"futility, HR {scenario.hazard_ratio:g}", simulated, low))
    paths = findings.found[0].stops.z[:_NUM_PATHS]
    drawn = bounds_plot(design.events, bounds.efficacy.tolist(), bounds.futility.tolist(), paths, stopping)
    return Figure(
        drawn,
        "Where trials stop",
        f"Above: the bounds and {len(paths)} trials simulated at a hazard ratio of "
        f"{findings.study.trial.hazard_ratio:g}. Below: share of trials that stop at each look, and what numerical "
        "integration says.",
        "z bounds by number of events, with simulated trials, and stopping probabilities",
    )
