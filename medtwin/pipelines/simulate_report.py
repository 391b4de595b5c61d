"""The page of a simulated trial: what to know first, design, patients, outcome, operating characteristics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medtwin.report import Figure, Page, Section, Table, write_page
from medtwin.report.page import State
from medtwin.report.trial_plots import bounds_plot, curve_plot, flow_plot, histogram_plot, survival_plot
from medtwin.trials import Study, SurvivalTrial
from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.design.boundaries import exit_probabilities
from medtwin.trials.design.group_sequential import hazard_ratio_at_bound
from medtwin.trials.design.spending import Spending, SpendingFunction
from medtwin.trials.engine.batch import Characteristics, Estimate
from medtwin.trials.engine.scenarios import Line, Scenario
from medtwin.trials.enrolment.factors import as_factors
from medtwin.trials.population.attrition import GroupRow

Floats = NDArray[np.float64]
Cell = str | int | float | None
_NUM_PATHS = 40
_SMALL_POOL = 500
_MIN_AT_RISK = 10  # in an arm: beyond that a single event halves the curve
_SPENDING = {
    "obrien_fleming": "Lan and DeMets' function of the O'Brien-Fleming type",
    "pocock": "Lan and DeMets' function of the Pocock type",
    "hwang_shih_decani": "Hwang, Shih and DeCani's function",
    "kim_demets": "Kim and DeMets' power function",
}


@dataclass(frozen=True)
class Findings:
    """All that the page tells.

    Attributes:
        study: The trial on its patients. scenarios: What was simulated. found: With what result, in the same order.
        lines: Every operating characteristic. example: The patient table of one trial.
        origin: Of the cohort. remarks: What a reader must know first.
        banner: What the check of the cohort says, empty for nothing. state: How badly.
        groups: The attrition by sex, age and race, as far as it may be told.
    """

    study: Study
    scenarios: Sequence[Scenario]
    found: Sequence[Characteristics]
    lines: Sequence[Line]
    example: Mapping[str, Sequence[object]]
    origin: str
    remarks: Sequence[str] = ()
    banner: str = ""
    state: State = "none"
    groups: Sequence[GroupRow] = ()


def write_trial_report(path: Path, findings: Findings) -> None:
    """Writes report.html of a simulated trial."""
    study, alternative, null = findings.study, findings.found[0], findings.found[1]
    trial = study.trial
    who = {
        "real": "Patients are drawn from a real cohort; their treatment and outcomes are simulated.",
        "simulated": "Patients are simulated; so are their treatment and outcomes.",
        "synthetic": "Patients are drawn from synthetic twins; their treatment and outcomes are simulated.",
    }[findings.origin]
    sections: list[Section | None] = [_first(findings), _design(findings)]
    if study.attrition:
        sections.append(_patients(study, findings.groups))
    sections += [_outcome(study), _characteristics(findings), _curve(findings), _durations(findings)]
    sections += [_example(findings), _limits(study)]
    summary = [
        ("eligible subjects", f"{study.num_eligible:,} of {study.cohort_size:,}" if study.attrition else "parametric"),
        ("patients in a trial", f"{study.plan.num_subjects:,}"),
        ("events wanted", f"{study.plan.design.events[-1]:,}"),
        (f"power at HR {trial.hazard_ratio:g}", f"{alternative.power.value:.1%}"),
        ("type I error", f"{null.power.value:.2%}"),
        ("median duration", f"{np.median(alternative.stops.months):.0f} months"),
    ]
    lead = f"A two-arm group-sequential trial; endpoint: {trial.endpoint.name}. {who}"
    parts = [section for section in sections if section is not None]
    write_page(path, Page(trial.title, lead, parts, summary, findings.banner, findings.state))


def _first(findings: Findings) -> Section | None:
    study = findings.study
    paragraphs = list(findings.remarks)
    if study.attrition and study.fitted is None:
        paragraphs.append(
            f"The endpoint occurs {_times(study.num_events)} among the eligible subjects, too rarely to estimate a "
            f"rate. The outcome is therefore assumed, not read from the cohort: {_assumption(study)}."
        )
    if not study.attrition:
        paragraphs.append(
            f"There is no cohort: patients are parametric, and the outcome is assumed: {_assumption(study)}."
        )
    if study.attrition and study.num_eligible < _SMALL_POOL:
        repeats = study.plan.num_subjects / study.num_eligible
        paragraphs.append(
            f"Only {study.num_eligible:,} subjects are eligible. Each simulated trial draws its "
            f"{study.plan.num_subjects:,} patients from them with replacement, so that each stands for "
            f"{repeats:.1f} patients on average. Their outcomes are drawn anew each time."
        )
    if study.fitted is not None:
        low, high = study.fitted.low, study.fitted.high
        paragraphs.append(
            f"More simulated trials make the Monte-Carlo errors smaller, but not what {study.num_events} events in the "
            f"cohort leave open: the rate of the endpoint may be {low:.2f} to {high:.2f} times the one used here "
            "(95 % interval). What that does to the trial stands under Outcome."
        )
    return Section("Read this first", paragraphs) if paragraphs else None


def _times(count: int) -> str:
    return {0: "not once", 1: "once"}.get(count, f"{count} times")


def _assumption(study: Study) -> str:
    assumed = study.trial.assumed
    if assumed is None:
        return "none"
    spread = f", log hazards with standard deviation {assumed.prognostic_sd:g}" if assumed.prognostic_sd else ""
    return f"median {assumed.control_median_months:g} months to the event in the control arm{spread}"


def _test_of(trial: SurvivalTrial) -> str:
    strata = [factor.name for factor in as_factors(trial.analysis_strata or ())]
    return f"Log-rank test stratified by {', '.join(strata)}" if strata else "Log-rank test"


def _spending(spending: SpendingFunction) -> str:
    return _SPENDING[spending.kind] if isinstance(spending, Spending) else repr(spending)


def _design(findings: Findings) -> Section:
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


def _patients(study: Study, groups: Sequence[GroupRow]) -> Section:
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


def _outcome(study: Study) -> Section:
    trial, pool = study.trial, study.plan.pool
    ends = [f"{start:g}" for start in pool.hazard.starts]
    rows: list[list[Cell]] = [
        [f"{start} to {end}" if end else f"from {start}", f"{100 * 12 * rate:.3g}"]
        for start, end, rate in zip(ends_rounded(ends), [*ends_rounded(ends)[1:], ""], pool.hazard.rates, strict=True)
    ]
    parts: list[Table | Figure] = [Table(["months after entry", "events per 100 patient-years"], rows, "Control arm")]
    counts = "Death counts as an event." if trial.endpoint.death else (
        "Death ends follow-up as if the patient had left: the hazard is that of the endpoint among the living."
    )  # fmt: skip
    if study.fitted is None:
        return Section("Outcome", [f"Assumed: {_assumption(study)}. {counts}"], parts)
    fitted = study.fitted
    horizon = trial.endpoint.horizon_months
    beyond = "beyond the record the last piece goes on" if horizon is None else (
        f"whoever left the record alive is taken to be free of the event until month {horizon:g}, the last that counts"
    )  # fmt: skip
    text = (
        f"Endpoint: {trial.endpoint.name}. {counts} In the cohort's own record, {study.num_eligible:,} eligible "
        f"subjects have {fitted.num_events:,} first events in {fitted.person_months / 12:,.0f} patient-years after "
        "entry. A piecewise-constant hazard and a prognostic score (Cox, ridge penalty "
        f"{trial.ridge:g}) are fitted to them; {beyond}. The treatment multiplies every patient's hazard by the same "
        "ratio; both arms of a patient use the same draw."
    )
    scores: list[list[Cell]] = [[name, f"{value:+.3f}", f"{math.exp(value):.2f}"] for name, value in
                                fitted.coefficients.items()]  # fmt: skip
    if scores:
        note = "Shrunk towards 0; they rank patients, they do not explain them."
        parts.append(Table(["covariate", "log hazard ratio per SD", "hazard ratio"], scores, "Prognostic score", note))
    parts.append(_sensitivity(study))
    return Section("Outcome", [text], parts)


def ends_rounded(texts: Sequence[str]) -> list[str]:
    """Numbers as text with at most four digits."""
    return [f"{float(text):.4g}" for text in texts]


def _sensitivity(study: Study) -> Table:
    fitted = study.fitted
    rows: list[list[Cell]] = []
    for name, factor in (
        ("low end of the cohort's rate", fitted.low if fitted else 1.0),
        ("as fitted", 1.0),
        ("high end of the cohort's rate", fitted.high if fitted else 1.0),
    ):
        months = study.months_of_looks(study.trial.hazard_ratio, factor)
        last = f"{months[-1]:.0f}" if months[-1] < study.plan.max_months else f"not by {study.plan.max_months:g}"
        rows.append([name, f"{factor:.2f}", *(f"{month:.0f}" for month in months[:-1]), last])
    columns = ["event rate", "factor", *(f"month of look {look + 1}" for look in range(len(study.plan.design.events)))]
    note = f"Expected under a hazard ratio of {study.trial.hazard_ratio:g}, with the same number of patients."
    return Table(columns, rows, "If the cohort's event rate is not the true one", note)


def _shown(estimate: Estimate, digits: int) -> str:
    if math.isnan(estimate.value):
        return "\N{EN DASH}"
    return f"{estimate.value:.{digits}f} ± {estimate.standard_error:.{digits}f}"


def _characteristics(findings: Findings) -> Section:
    parts = []
    for scenario in findings.scenarios:
        if scenario.name == "power curve":
            continue
        rows: list[list[Cell]] = []
        for line in findings.lines:
            if line.scenario == scenario.name:
                digits = 1 if line.characteristic in ("events at stop", "subjects at stop", "duration, months") else 4
                e = line.estimate
                interval = "\N{EN DASH}" if math.isnan(e.low) else f"{e.low:.{digits}f} to {e.high:.{digits}f}"
                theory = None if line.analytical is None else f"{line.analytical:.{digits}f}"
                what = f"{line.characteristic} {line.look}" if line.look else line.characteristic
                rows.append([what, _shown(e, digits), interval, theory])
        title = f"Under a hazard ratio of {scenario.hazard_ratio:g} ({scenario.name})"
        columns = ["", "simulated ± Monte-Carlo error", "95 % interval", "analytical"]
        parts.append(Table(columns, rows, title, f"{scenario.num_trials:,} trials."))
    text = (
        "Analytical values come from numerical integration of the canonical joint normal distribution with "
        "Schoenfeld's drift at the hazard ratio of each patient. They take all risks as alike. Where risks differ, "
        "those at high risk leave the control arm first and a Cox model sees less of an effect than each patient has: "
        "trials without early stops, in which every patient is given both arms, say how much less. Bias is the mean "
        "estimate at the stop less theirs: trials that stop early overestimate."
    )
    return Section("Operating characteristics", [text], parts)


def _curve(findings: Findings) -> Section:
    design = findings.study.plan.design
    chosen = [
        (scenario.hazard_ratio, found.power)
        for scenario, found in zip(findings.scenarios, findings.found, strict=True)
        if scenario.obeys_futility
    ]
    x = np.array([ratio for ratio, _ in chosen])
    estimates = np.array([power.value for _, power in chosen])
    intervals = np.array([[power.low, power.high] for _, power in chosen])
    fine = np.linspace(x.min(), 1.0, 60)
    bounds = design.bounds
    smooth = np.array(
        [
            exit_probabilities(bounds.fractions, bounds.efficacy, bounds.futility, design.drift(ratio)).power
            for ratio in fine
        ]
    )
    labels = ("true hazard ratio", "probability of rejecting the null")
    drawn = curve_plot(x, estimates, intervals, (fine, smooth), labels=labels)
    note = "Every hazard ratio is tried on the same patients with the same draws."
    figure = Figure(drawn, "Power by hazard ratio", note, "power by true hazard ratio, simulated and analytical")
    return Section("Power", parts=[figure])


def _durations(findings: Findings) -> Section:
    groups = [
        (f"hazard ratio {scenario.hazard_ratio:g}", found.stops.months)
        for scenario, found in zip(findings.scenarios[:2], findings.found[:2], strict=True)
    ]
    rows: list[list[Cell]] = []
    for (name, months), found in zip(groups, findings.found[:2], strict=True):
        low, middle, high = np.quantile(months, [0.05, 0.5, 0.95])
        subjects = float(np.median(found.stops.subjects))
        rows.append([name, f"{middle:.1f}", f"{low:.1f} to {high:.1f}", f"{subjects:,.0f}"])
    columns = ["", "median months", "5th to 95th percentile", "median patients enrolled"]
    drawn = histogram_plot(groups, x_label="calendar months from the first patient to the decision")
    figure = Figure(drawn, alt="distribution of the duration of the trial")
    return Section("How long it takes", parts=[figure, Table(columns, rows)])


def _example(findings: Findings) -> Section:
    example = findings.example
    time = np.array(example["months_at_risk"], dtype=np.float64)
    event = np.array(example["event"], dtype=np.bool_)
    arms = np.array(example["arm"], dtype=np.str_)
    horizon = findings.study.trial.endpoint.horizon_months
    ticks = _ticks(min(float(time.max(initial=1.0)), math.inf if horizon is None else 1.2 * horizon))
    curves, counts = [], []
    for name in ("control", "experimental"):
        here = arms == name
        curve = kaplan_meier(time[here], event[here])
        last = float(np.sort(time[here])[-_MIN_AT_RISK:].min(initial=math.inf)) if here.any() else 0.0
        shown = curve.time <= last
        survival, low, high = (
            np.append(values[shown], values[shown][-1:] if shown.any() else 1.0)
            for values in (curve.survival, curve.low, curve.high)
        )
        curves.append((name, np.append(curve.time[shown], last), survival, low, high))
        counts.append([int((time[here] >= tick).sum()) for tick in ticks])
    stops = findings.found[0].stops
    outcome = "rejected the null" if stops.is_rejected[0] else "stopped for futility" if stops.is_futile[0] else (
        "did not reject the null")  # fmt: skip
    z = stops.z[0][stops.look[0]]
    text = (
        f"The first simulated trial {outcome} at look {stops.look[0] + 1}, after {stops.months[0]:.1f} months, "
        f"{stops.events[0]:,} events and {len(time):,} patients: z = {z:.2f}, estimated hazard ratio "
        f"{math.exp(stops.log_hazard_ratio[0]):.2f} where {findings.study.trial.hazard_ratio:g} is true. "
        + ("" if findings.origin == "real" else "Its patients are in patients.csv, with both potential outcomes.")
    )
    drawn = survival_plot(curves, counts, ticks)
    note = f"Kaplan-Meier curves with pointwise 95 % limits (log-log), drawn while {_MIN_AT_RISK} are at risk."
    return Section("One trial", [text], [Figure(drawn, note=note, alt="survival by arm in one simulated trial")])


def _ticks(last: float) -> Floats:
    step = next(step for step in (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 96) if last / step <= 8 or step == 96)
    return np.asarray(np.arange(0, math.ceil(last / step) + 1) * float(step))


def _limits(study: Study) -> Section:
    paragraphs = [
        "The effect of treatment is put in, not found: the trial says how often a design would detect it, never "
        "whether a treatment works.",
        "Hazards are proportional, patients leave at random, and everyone receives the arm they were given.",
    ]
    if study.attrition:
        paragraphs.append(
            "The cohort decides who takes part and how often the endpoint occurs. If it is synthetic, the model that "
            "made it decides that too; its own error is not in the intervals. A subject's record is taken to end for "
            "reasons that have nothing to do with the endpoint; where it ends with a discharge, set "
            "trial.endpoint.horizon_months."
        )
    return Section("What this cannot say", paragraphs)
