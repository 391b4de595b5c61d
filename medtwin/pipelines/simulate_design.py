"""The design in the report of a simulated trial: test, looks, bounds, spending, timing, how bounds are crossed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.pipelines.simulate_findings import Cell, Findings
from medtwin.report import Figure, Section, Table
from medtwin.report.trial_course_plots import spending_plot, timeline_plot
from medtwin.report.trial_plots import bounds_plot
from medtwin.trials import Study, SurvivalTrial
from medtwin.trials.design.group_sequential import hazard_ratio_at_bound
from medtwin.trials.design.spending import Spending, SpendingFunction
from medtwin.trials.engine.assumptions import analytical_exits
from medtwin.trials.engine.summaries import events_by_month
from medtwin.trials.enrolment.factors import as_factors

Floats = NDArray[np.float64]
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
    trial, plan, max_events = study.trial, study.trial.plan, study.plan.design.max_events
    futility = "There are no futility bounds."
    if plan.futility is not None:
        kind = "Binding" if plan.binding else "Non-binding"
        futility = f"{kind} futility bounds spend beta by {_spending(plan.futility)}."
    enrolment = trial.enrolment_months(study.plan.num_subjects)
    text = (
        f"{_test_of(trial)}, one-sided alpha {plan.alpha:g}, power {plan.power:.0%} at a hazard ratio of "
        f"{trial.hazard_ratio:g} (experimental / control), allocation {trial.allocation_ratio:g} : 1 "
        f"{trial.randomisation.description}. Alpha is spent by {_spending(plan.efficacy)}. {futility} "
        f"Schoenfeld's formula asks for {max_events:.1f} events, {plan.inflation:.3f} times those of a trial "
        f"with one look. Enrolment takes {enrolment:.3g} months, the last patient is followed for "
        f"{trial.follow_up_months:g}; the trial ends by month {study.plan.max_months:.4g} at the latest."
    )
    parts: list[Table | Figure] = [_looks(findings), _bounds(study), _bounds_figure(findings), _spending_figure(study)]
    parts.append(_timeline_figure(findings))
    return Section("Design", [text], parts)


def _test_of(trial: SurvivalTrial) -> str:
    strata = [factor.name for factor in as_factors(trial.analysis_strata or ())]
    return f"Log-rank test stratified by {', '.join(strata)}" if strata else "Log-rank test"


def _spending(spending: SpendingFunction) -> str:
    return _SPENDING[spending.kind] if isinstance(spending, Spending) else repr(spending)


def _looks(findings: Findings) -> Table:
    """When looks come: events, and months and patients expected under each truth."""
    study = findings.study
    design = study.plan.design
    months = {scenario.hazard_ratio: study.months_of_looks(scenario.hazard_ratio) for scenario, _ in findings.main}
    rows: list[list[Cell]] = []
    for look, events in enumerate(design.events):
        row: list[Cell] = [look + 1, f"{design.bounds.fractions[look]:.3f}", events]
        for each in months.values():
            enrolled = min(float(study.plan.enroll_rate.cumulative(each[look])), study.plan.num_subjects)
            row += [f"{each[look]:.1f}", f"{enrolled:,.0f}"]
        rows.append(row)
    columns = ["look", "information fraction", "events"]
    for ratio in months:
        columns += [f"month, HR {ratio:g}", f"patients, HR {ratio:g}"]
    return Table(columns, rows, "Looks", "Months and patients randomised by then are expected ones.")


def bound_cells(z: float, events: int, allocation_ratio: float) -> tuple[float, float, float] | None:
    """A bound as z, one-sided p-value and hazard ratio; None where there is none.

    >>> [round(value, 4) for value in bound_cells(1.96, 100, 1.0)]
    [1.96, 0.025, 0.6757]
    """
    if not math.isfinite(z):
        return None
    return z, float(norm.sf(z)), hazard_ratio_at_bound(z, events, allocation_ratio)


def spent_at_looks(study: Study) -> tuple[Floats, Floats | None]:
    """(looks,) alpha spent by each look, and beta; None without futility bounds."""
    plan, fractions = study.trial.plan, study.plan.design.bounds.fractions
    alpha = np.asarray(plan.efficacy.spent(fractions, plan.alpha), dtype=np.float64)
    if plan.futility is None:
        return alpha, None
    return alpha, np.asarray(plan.futility.spent(fractions, 1 - plan.power), dtype=np.float64)


def _bounds(study: Study) -> Table:
    design, ratio = study.plan.design, study.trial.allocation_ratio
    alpha, beta = spent_at_looks(study)
    rows: list[list[Cell]] = []
    for look, events in enumerate(design.events):
        sides = [(design.bounds.efficacy[look], alpha)]
        if beta is not None:
            sides.append((design.bounds.futility[look], beta))
        row: list[Cell] = [look + 1]
        for z, spent in sides:
            cells = bound_cells(float(z), events, ratio)
            row += [None] * 3 if cells is None else [f"{cells[0]:.3f}", f"{cells[1]:.5f}", f"{cells[2]:.3f}"]
            row.append(f"{spent[look]:.5f}")
        rows.append(row)
    columns = ["look", "efficacy z", "one-sided p", "hazard ratio", "alpha spent"]
    if beta is not None:
        columns += ["futility z", "one-sided p", "hazard ratio", "beta spent"]
    note = "The null is rejected where z is at least the bound, p and the hazard ratio at most theirs (Schoenfeld)."
    if beta is not None:
        note += " A trial stops for futility where z is at most the bound."
    return Table(columns, rows, "Bounds", note)


def _bounds_figure(findings: Findings) -> Figure:
    design = findings.study.plan.design
    bounds = design.bounds
    stopping = []
    looks = range(len(design.events))
    for scenario, found in findings.main:
        exits = analytical_exits(findings.study, scenario.hazard_ratio)
        upper = [math.nan for _ in looks] if exits is None else exits.upper.tolist()
        name = f"efficacy, HR {scenario.hazard_ratio:g}"
        stopping.append((name, [found.rejected_at(look).value for look in looks], upper))
        if findings.study.trial.plan.futility is not None:
            low = [math.nan for _ in looks] if exits is None else [*exits.lower[:-1].tolist(), math.nan]
            simulated = [found.futile_at(look).value for look in looks]
            stopping.append((f"futility, HR {scenario.hazard_ratio:g}", simulated, low))
    paths = findings.found[0].stops.z[:_NUM_PATHS]
    drawn = bounds_plot(design.events, bounds.efficacy.tolist(), bounds.futility.tolist(), paths, stopping)
    return Figure(
        drawn,
        "Where trials stop",
        f"Above: the bounds and {len(paths)} trials simulated at a hazard ratio of "
        f"{findings.scenarios[0].hazard_ratio:g}. Below: share of trials that stop at each look, and what numerical "
        "integration says where it says anything.",
        "z bounds by number of events, with simulated trials, and stopping probabilities",
    )


def _spending_figure(study: Study) -> Figure:
    plan, fractions = study.trial.plan, study.plan.design.bounds.fractions
    alpha, beta = spent_at_looks(study)
    fine = np.linspace(1e-3, 1.0, 200)
    looks = np.asarray(fractions, dtype=np.float64)
    curves = [("alpha (efficacy)", fine, np.asarray(plan.efficacy.spent(fine, plan.alpha)), looks, alpha)]
    if plan.futility is not None and beta is not None:
        total = 1 - plan.power
        curves.append(("beta (futility)", fine, np.asarray(plan.futility.spent(fine, total)), looks, beta))
    drawn = spending_plot([(name, x, y, t.tolist(), spent.tolist()) for name, x, y, t, spent in curves])
    return Figure(drawn, "Errors spent", alt="cumulative error spent by information fraction")


def _timeline_figure(findings: Findings) -> Figure:
    study = findings.study
    months = study.months_of_looks(findings.scenarios[0].hazard_ratio)
    last = min(1.1 * max(float(months[-1]), study.trial.enrolment_months(study.plan.num_subjects)),
               max(study.plan.max_months, float(months[-1])))  # fmt: skip
    grid = np.linspace(0.0, last, 121)
    enrolled = np.minimum(study.plan.enroll_rate.cumulative(grid), study.plan.num_subjects)
    events = [
        (f"hazard ratio {scenario.hazard_ratio:g}", events_by_month(study, grid, scenario.hazard_ratio))
        for scenario, _ in findings.main
    ]
    looks = list(zip(study.plan.design.events, months.tolist(), strict=True))
    ratio = findings.scenarios[0].hazard_ratio
    note = f"Expected by calendar month, without early stops; looks under a hazard ratio of {ratio:g}."
    return Figure(
        timeline_plot(grid, enrolled, events, looks), "Patients and events over time", note,
        "patients and events expected by calendar month",
    )  # fmt: skip
