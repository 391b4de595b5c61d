"""What came out, in the report of a simulated trial: operating characteristics, power, durations, one trial."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medtwin.pipelines.simulate_findings import Cell, Findings, shown
from medtwin.report import Figure, Section, Table
from medtwin.report.trial_course_plots import distribution_plot
from medtwin.report.trial_plots import curve_plot, survival_plot
from medtwin.trials import Study
from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.engine.assumptions import analytical_exits
from medtwin.trials.engine.summaries import QUANTILES, distributions, estimates_by_stop
from medtwin.trials.engine.tasks import POWER_CURVE

Floats = NDArray[np.float64]
_MIN_AT_RISK = 10  # in an arm: beyond that a single event halves the curve


def characteristics_section(findings: Findings) -> Section:
    """Every operating characteristic beside its analytical value, a table for each scenario."""
    parts = []
    for scenario in findings.scenarios:
        if scenario.name == POWER_CURVE:
            continue
        rows: list[list[Cell]] = []
        for line in findings.lines:
            if line.scenario == scenario.name:
                digits = 1 if line.characteristic in ("events at stop", "subjects at stop", "duration, months") else 4
                e = line.estimate
                interval = "\N{EN DASH}" if math.isnan(e.low) else f"{e.low:,.{digits}f} to {e.high:,.{digits}f}"
                theory = None if line.analytical is None else f"{line.analytical:,.{digits}f}"
                what = f"{line.characteristic} {line.look}" if line.look else line.characteristic
                rows.append([what, shown(e, digits), interval, theory])
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


def analytical_power(study: Study, hazard_ratio: float) -> float | None:
    """The probability of rejecting, by numerical integration; None where that says nothing of the scenario."""
    exits = analytical_exits(study, hazard_ratio)
    return None if exits is None else exits.power


def power_section(findings: Findings) -> Section:
    """The power curve."""
    study = findings.study
    chosen = [
        (scenario.hazard_ratio, found.power)
        for scenario, found in zip(findings.scenarios, findings.found, strict=True)
        if scenario.obeys_futility
    ]
    x = np.array([ratio for ratio, _ in chosen])
    estimates = np.array([power.value for _, power in chosen])
    intervals = np.array([[power.low, power.high] for _, power in chosen])
    fine = np.linspace(x.min(), 1.0, 40)
    powers = [analytical_power(study, float(ratio)) for ratio in fine]
    smooth = np.array([math.nan if power is None else power for power in powers])
    labels = ("true hazard ratio", "probability of rejecting the null")
    drawn = curve_plot(x, estimates, intervals, (fine, smooth), labels=labels)
    note = "Every hazard ratio is tried on the same patients with the same draws."
    figure = Figure(drawn, "Power by hazard ratio", note, "power by true hazard ratio, simulated and analytical")
    rows: list[list[Cell]] = [
        [
            f"{scenario.hazard_ratio:.3f}",
            shown(found.power, 4),
            f"{found.power.low:.4f} to {found.power.high:.4f}",
            None if (theory := analytical_power(study, scenario.hazard_ratio)) is None else f"{theory:.4f}",
            found.num_trials,
        ]
        for scenario, found in sorted(
            zip(findings.scenarios, findings.found, strict=True), key=lambda pair: pair[0].hazard_ratio
        )
        if scenario.obeys_futility
    ]
    columns = ["true hazard ratio", "simulated ± Monte-Carlo error", "95 % interval", "analytical", "trials"]
    table = Table(columns, rows)
    return Section("Power", parts=[figure, table] if len(rows) > 1 else [table])


def stops_section(findings: Findings) -> Section:
    """What trials find that stop early and late: their estimates beside those of trials that never stop early."""
    rows: list[list[Cell]] = []
    for scenario, found in findings.main:
        for each in estimates_by_stop(found):
            e = each.log_hazard_ratio
            ratio = "\N{EN DASH}" if math.isnan(e.value) else f"{math.exp(e.value):.3f}"
            interval = "\N{EN DASH}" if math.isnan(e.low) else f"{math.exp(e.low):.3f} to {math.exp(e.high):.3f}"
            share = shown(each.share, 4)
            rows.append([f"{scenario.hazard_ratio:g}", each.look, each.outcome, share, ratio, interval])
    without = {
        line.scenario: math.exp(line.estimate.value)
        for line in findings.lines
        if line.characteristic == "log hazard ratio without early stops"
    }
    told = " and ".join(f"{without[s.name]:.3f} under {s.hazard_ratio:g}" for s, _ in findings.main)
    text = (
        "A trial that stops early does so because its estimate is extreme. The table has the geometric mean of the "
        "estimated hazard ratios of trials that ended alike; trials that never stop early estimate "
        f"{told} on average. Do not take the estimate of a trial that stopped early at its face value."
    )
    columns = ["hazard ratio", "look", "outcome", "share of trials", "mean estimate", "95 % interval"]
    return Section("Estimates by where trials stop", [text], [Table(columns, rows)])


def distributions_section(findings: Findings) -> Section:
    """How long trials take, how many patients they enrol, how many events they see."""
    rows: list[list[Cell]] = []
    for scenario, found in findings.main:
        for each in distributions(found):
            digits = 1 if each.name.endswith("months") else 0
            middle = each.quantiles[0.5]
            row: list[Cell] = [f"{each.name}, HR {scenario.hazard_ratio:g}", shown(each.mean, 1)]
            row += [f"{each.quantiles[q].value:,.{digits}f}" for q in QUANTILES]
            row.append(f"{middle.low:,.{digits}f} to {middle.high:,.{digits}f}")
            rows.append(row)
    columns = ["", "mean ± Monte-Carlo error", "5 %", "25 %", "median", "75 %", "95 %", "95 % interval of the median"]
    note = "Quantiles over the trials; the interval of the median is from order statistics."
    panels: list[tuple[str, list[tuple[str, Floats]]]] = [
        ("calendar months from the first possible patient to the decision", []),
        ("patients randomised by the decision", []),
        ("events by the decision", []),
    ]
    for scenario, found in findings.main:
        stops = found.stops
        values = (stops.months, stops.subjects.astype(np.float64), stops.events.astype(np.float64))
        for (_, groups), each_values in zip(panels, values, strict=True):
            groups.append((f"hazard ratio {scenario.hazard_ratio:g}", each_values))
    figure = Figure(
        distribution_plot(panels), "Distributions", alt="distributions of duration, patients and events of the trials"
    )
    return Section("How long it takes, and how many", parts=[Table(columns, rows, "Quantiles", note), figure])


def example_section(findings: Findings) -> Section:
    """The first simulated trial."""
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
        f"{math.exp(stops.log_hazard_ratio[0]):.2f} where {findings.scenarios[0].hazard_ratio:g} is true. "
        + ("" if findings.origin == "real" else "Its patients are in patients.csv, with both potential outcomes.")
    )
    drawn = survival_plot(curves, counts, ticks)
    note = f"Kaplan-Meier curves with pointwise 95 % limits (log-log), drawn while {_MIN_AT_RISK} are at risk."
    return Section("One trial", [text], [Figure(drawn, note=note, alt="survival by arm in one simulated trial")])


def _ticks(last: float) -> Floats:
    step = next(step for step in (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 96) if last / step <= 8 or step == 96)
    return np.asarray(np.arange(0, math.ceil(last / step) + 1) * float(step))
