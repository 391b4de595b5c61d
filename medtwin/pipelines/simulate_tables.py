"""The tables of `medtwin simulate`: operating characteristics, bounds, attrition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
from scipy.stats import norm

from medtwin.core.files import atomic_file
from medtwin.pipelines.simulate_disclosure import ToldCohort
from medtwin.trials import Study
from medtwin.trials.design.group_sequential import hazard_ratio_at_bound
from medtwin.trials.engine.batch import Characteristics
from medtwin.trials.engine.scenarios import Line, Scenario


def write_tables(
    folder: Path,
    study: Study,
    scenarios: Sequence[Scenario],
    found: Sequence[Characteristics],
    lines: Sequence[Line],
    cohort: ToldCohort,
) -> None:
    """Writes the tables of a trial of times to an event.

    Args:
        folder: Of the output.
        study: The trial on its patients.
        scenarios: That were simulated.
        found: With what result.
        lines: Every operating characteristic.
        cohort: Its attrition, as far as it may be told.
    """
    write_csv(folder / "operating_characteristics.csv", _line_columns(lines))
    write_attrition(folder, cohort)
    write_csv(folder / "boundaries.csv", boundary_columns(study, scenarios, found))


def write_attrition(folder: Path, cohort: ToldCohort) -> None:
    """Writes attrition.csv and attrition_by_group.csv; what is not told is empty."""
    names: tuple[str, ...] = ("criterion", "assessed", "fails", "not_evaluable", "remaining", "excluded")
    write_csv(folder / "attrition.csv", {name: [getattr(row, name) for row in cohort.attrition] for name in names})
    names = ("division", "group", "criterion", "assessed", "fails", "not_evaluable", "remaining")
    columns = {name: [getattr(row, name) for row in cohort.groups] for name in names}
    write_csv(folder / "attrition_by_group.csv", columns)


def _line_columns(lines: Sequence[Line]) -> dict[str, Sequence[object]]:
    def numbers(name: str) -> list[float | None]:
        return [number(getattr(line.estimate, name)) for line in lines]

    return {
        "scenario": [line.scenario for line in lines],
        "hazard_ratio": [round(line.hazard_ratio, 6) for line in lines],
        "characteristic": [line.characteristic for line in lines],
        "look": [line.look for line in lines],
        "estimate": numbers("value"),
        "mc_standard_error": numbers("standard_error"),
        "low": numbers("low"),
        "high": numbers("high"),
        "level": [line.estimate.level for line in lines],
        "analytical": [None if line.analytical is None else number(line.analytical) for line in lines],
        "num_trials": [line.num_trials for line in lines],
    }


def boundary_columns(
    study: Study, scenarios: Sequence[Scenario], found: Sequence[Characteristics]
) -> dict[str, Sequence[object]]:
    """The bounds, and how often each is crossed first: column to values, one per look."""
    design = study.plan.design
    looks, ratio = range(len(design.events)), design.allocation_ratio
    bounds = design.bounds
    columns: dict[str, Sequence[object]] = {
        "look": [look + 1 for look in looks],
        "information_fraction": [number(t) for t in bounds.fractions],
        "events": list(design.events),
        "expected_month": [number(month) for month in study.months_of_looks(study.trial.hazard_ratio)],
        "efficacy_z": [number(z) for z in bounds.efficacy],
        "futility_z": [number(z) for z in bounds.futility],
        "efficacy_hazard_ratio": [
            number(hazard_ratio_at_bound(z, d, ratio)) for z, d in zip(bounds.efficacy, design.events, strict=True)
        ],
        "futility_hazard_ratio": [
            number(hazard_ratio_at_bound(z, d, ratio)) for z, d in zip(bounds.futility, design.events, strict=True)
        ],
        "efficacy_p": [number(float(norm.sf(z))) for z in bounds.efficacy],
        "futility_p": [number(float(norm.sf(z))) if math.isfinite(z) else None for z in bounds.futility],
        "alpha_spent": [number(a) for a in study.trial.plan.efficacy.spent(bounds.fractions, study.trial.plan.alpha)],
    }
    for scenario, each in zip(scenarios[:2], found[:2], strict=True):
        columns[f"rejected_{scenario.name}"] = [number(each.rejected_at(look).value) for look in looks]
        columns[f"futile_{scenario.name}"] = [number(each.futile_at(look).value) for look in looks]
    return columns


def number(value: float) -> float | None:
    """Seven significant digits; None for what is no number, such as the bound of a look without one."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def write_csv(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Writes columns of equal length as CSV."""
    with atomic_file(path, "wb") as file:
        pa_csv.write_csv(pa.table({name: pa.array(list(values)) for name, values in columns.items()}), file)
