"""The numbers in the report of a simulated trial, unrounded, for report.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medtwin import __version__
from medtwin.pipelines.simulate_design import bound_cells, spent_at_looks
from medtwin.pipelines.simulate_findings import Findings
from medtwin.pipelines.simulate_representation import represented
from medtwin.pipelines.simulate_results import analytical_power
from medtwin.pipelines.simulate_what_if import what_if_record
from medtwin.trials.engine.summaries import distributions, estimates_by_stop


def report_numbers(findings: Findings) -> dict[str, Any]:
    """What report.html shows, as JSON values: each estimate with its Monte-Carlo error and interval.

    Time is in months, log hazard ratios are natural, shares are between 0 and 1; what is infinite or unknown is null.
    """
    study = findings.study
    trial, design = study.trial, study.plan.design
    numbers = {
        "title": trial.title,
        "made_with": f"medtwin {__version__}",
        "seed": findings.seed,
        "patients_drawn_from": findings.origin,
        "remarks": [*([findings.banner] if findings.banner else []), *findings.remarks],
        "design": {
            "endpoint": trial.endpoint.name,
            "alpha": trial.plan.alpha,
            "power": trial.plan.power,
            "hazard_ratio": trial.hazard_ratio,
            "allocation_ratio": trial.allocation_ratio,
            "num_subjects": study.plan.num_subjects,
            "max_events": design.max_events,
            "inflation": trial.plan.inflation,
            "max_months": study.plan.max_months,
        },
        "looks": _looks(findings),
        "cohort": {name: getattr(findings.cohort, name) for name in ("subjects", "eligible", "events")},
        "attrition": [asdict(row) for row in findings.cohort.attrition],
        "what_if": what_if_record(findings.what_if),
        "representation": [asdict(row) for row in represented(findings)],
        "characteristics": [asdict(line) for line in findings.lines],
        "power_curve": [
            {
                "hazard_ratio": scenario.hazard_ratio,
                "power": asdict(found.power),
                "analytical": analytical_power(study, scenario.hazard_ratio),
                "num_trials": found.num_trials,
            }
            for scenario, found in zip(findings.scenarios, findings.found, strict=True)
            if scenario.obeys_futility
        ],
        "estimates_by_stop": {s.name: [asdict(row) for row in estimates_by_stop(found)] for s, found in findings.main},
        "distributions": {s.name: [asdict(each) for each in distributions(found)] for s, found in findings.main},
        "disposition": {"num_trials": findings.enrolled.num_trials, "arms": findings.enrolled.disposition},
    }
    return {name: json_value(value) for name, value in numbers.items()}


def _looks(findings: Findings) -> list[dict[str, Any]]:
    study = findings.study
    design = study.plan.design
    alpha, beta = spent_at_looks(study)
    months = {s.name: study.months_of_looks(s.hazard_ratio) for s, _ in findings.main}
    rows = []
    for look, events in enumerate(design.events):
        row: dict[str, Any] = {
            "look": look + 1,
            "information_fraction": design.bounds.fractions[look],
            "events": events,
            "expected_month": {name: float(each[look]) for name, each in months.items()},
            "alpha_spent": float(alpha[look]),
            "beta_spent": None if beta is None else float(beta[look]),
        }
        for side, z in (("efficacy", design.bounds.efficacy[look]), ("futility", design.bounds.futility[look])):
            cells = bound_cells(float(z), events, study.trial.allocation_ratio)
            row[side] = None if cells is None else dict(zip(("z", "p", "hazard_ratio"), cells, strict=True))
        rows.append(row)
    return rows


def json_value(value: Any) -> Any:
    """A value as JSON has it: seven significant digits, null for what is not finite, names for keys."""
    if isinstance(value, Mapping):
        return {f"{key:g}" if isinstance(key, float) else str(key): json_value(each) for key, each in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return value
    if isinstance(value, Sequence):
        return [json_value(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return json_value(asdict(value))
    if isinstance(value, int):
        return value
    number = float(value)
    return float(f"{number:.7g}") if math.isfinite(number) else None
