"""`medtwin compare`: several designs under several scenarios, simulated on the same patients with the same draws."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from medtwin.config import compose, quote_override, settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import ConfigError
from medtwin.core.files import write_json, write_table
from medtwin.core.output import writing
from medtwin.core.provenance import Provenance, describe_input, write_provenance
from medtwin.core.shards import map_shards
from medtwin.pipelines.compare_report import Compared, comparison_numbers, comparison_page
from medtwin.pipelines.export_settings import Override
from medtwin.pipelines.say import progress, tell
from medtwin.pipelines.simulate import source_state
from medtwin.pipelines.simulate_settings import any_trial, built_assumptions
from medtwin.pipelines.simulate_trust import cohort_verdict
from medtwin.pipelines.sources import public_config, require_outside
from medtwin.report import write_page
from medtwin.report.markdown import write_markdown
from medtwin.trials import Assumptions, ResponseTrial, SurvivalTrial, prepare, prepare_responses, read_cohort
from medtwin.trials.engine.comparison import (
    REJECTED,
    AnyStudy,
    Comparison,
    comparison_of,
    grid_tasks,
    measured,
    run_grid_task,
    settings_of,
)


@dataclass(frozen=True)
class CompareSettings:
    """The settings of configs/compare.yaml.

    Attributes:
        designs: Names of trials; or name to overrides of `base`, a text of key=value pairs or a list of them.
        scenarios: Names of scenarios; or name to overrides, such as `scenario.hazard_ratio=0.8`.
        base: The trial from which `designs` start where they are overrides.
        override: Why a cohort that failed its check is simulated all the same.
    """

    cohort: Path | None
    designs: Any
    scenarios: Any
    out: Path
    base: str = "two_arm_survival"
    num_trials: int = 1000
    seed: int = 0
    workers: int = 1
    check: Path | None = None
    overwrite: bool = False
    override: Override = field(default_factory=Override)

    def __post_init__(self) -> None:
        for name in ("num_trials", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        for name in ("designs", "scenarios"):
            _named(getattr(self, name), name, "")


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    compare(settings(CompareSettings, config))


def compare(chosen: CompareSettings) -> Path:
    """Simulates the grid, or says that it is done; returns where it is.

    Raises:
        MedtwinError: If a design or a scenario cannot be, or the output cannot be written.
    """
    dataset = open_dataset(chosen.cohort) if chosen.cohort is not None else None
    if dataset is not None:
        require_outside(chosen.out, dataset.path)
    banner, state = cohort_verdict(dataset, chosen.check, chosen.override.reason)
    designs, scenarios = _designs(chosen), _scenarios(chosen)
    config = {**public_config(chosen), "source_state": source_state(dataset)}
    with writing(chosen.out, config, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        grid = settings_of(_studies(designs, dataset, chosen.seed), scenarios, chosen.num_trials)
        tasks = grid_tasks(grid, chosen.seed)
        results = map_shards(run_grid_task, tasks, num_workers=chosen.workers)
        found = comparison_of(grid, progress(results, "trials", total=len(tasks), unit="task"))
        origin = dataset.origin if dataset is not None else "simulated"
        compared = Compared(found, scenarios, chosen.seed, origin, banner, state)
        write_comparison(output.path, compared)
        inputs = [describe_input("cohort", dataset.path)] if dataset is not None else []
        depth = max((each.lineage_depth for each in inputs), default=0)
        write_provenance(output.path, Provenance("compare", origin, config, chosen.seed, inputs, depth))
    _tell_result(chosen.out, found)
    return chosen.out


def write_comparison(folder: Path, compared: Compared) -> None:
    """Writes report.html, report.md with its figures, comparison.json, grid.parquet and differences.parquet."""
    page = comparison_page(compared)
    write_page(folder / "report.html", page)
    write_markdown(folder / "report.md", page)
    write_json(folder / "comparison.json", comparison_numbers(compared))
    write_table(folder / "grid.parquet", _table([asdict(line) for line in compared.comparison.lines()]))
    pairs = [{**asdict(pair), "error_ratio": pair.error_ratio} for pair in compared.comparison.differences()]
    if pairs:
        write_table(folder / "differences.parquet", _table(pairs))


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows as a table, the parts of an estimate in columns of their own."""
    return pa.Table.from_pylist([{**row.pop("estimate"), **row} for row in rows])


def overrides_of(value: Any, path: str) -> list[str]:
    """The overrides that a text of key=value pairs, or a list of them, states; none of nothing.

    Raises:
        ConfigError: If one is no pair.

    >>> overrides_of("trial.plan.looks=[1.0] trial.hazard_ratio=0.8", "designs.one")
    ['trial.plan.looks=[1.0]', 'trial.hazard_ratio=0.8']
    """
    words = shlex.split(value) if isinstance(value, str) else list(value or ())
    if wrong := [word for word in words if not isinstance(word, str) or "=" not in word]:
        raise ConfigError(f"{path} must be key=value pairs, as in 'trial.plan.looks=[1.0]', got {wrong[0]!r}")
    return [quote_override(word) for word in words]


def _named(given: Any, setting: str, key: str) -> dict[str, list[str]]:
    """Name to overrides, of a list of names or a group of overrides.

    Args:
        given: As configured.
        setting: What it is.
        key: The group whose options names of a list are.
    """
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping) and given:
        return {str(name): overrides_of(value, f"{setting}.{name}") for name, value in given.items()}
    is_list = isinstance(given, Sequence) and len(given) > 0
    if not is_list or not all(isinstance(name, str) and name for name in given):
        raise ConfigError(f"{setting} must be a list of names, or a group of overrides by name, got {given!r}")
    if len(set(given)) < len(given):
        raise ConfigError(f"{setting} must have different names, got {list(given)}")
    return {name: [f"{key}={name}"] for name in given}


def _designs(chosen: CompareSettings) -> dict[str, SurvivalTrial | ResponseTrial]:
    found: dict[str, SurvivalTrial | ResponseTrial] = {}
    for name, overrides in _named(chosen.designs, "designs", "trial").items():
        config = compose("simulate", ["cohort=null", f"trial={chosen.base}", *overrides])
        found[name] = any_trial(config["trial"], f"designs.{name}")
    return found


def _scenarios(chosen: CompareSettings) -> dict[str, Assumptions]:
    return {
        name: built_assumptions(compose("simulate", ["cohort=null", *overrides])["scenario"], f"scenarios.{name}")
        for name, overrides in _named(chosen.scenarios, "scenarios", "scenario").items()
    }


def _studies(
    designs: Mapping[str, SurvivalTrial | ResponseTrial], dataset: Dataset | None, seed: int
) -> dict[str, AnyStudy]:
    """Every design on its patients."""
    cohort = None
    if dataset is not None:
        codes = list(dict.fromkeys(code for trial in designs.values() for code in trial.codes()))
        shards = progress(dataset.iter_events(), "cohort", total=len(dataset.shards()), unit="shard")
        cohort = read_cohort(shards, dataset.codes(), codes)
    found: dict[str, AnyStudy] = {}
    for name, trial in designs.items():
        try:
            if isinstance(trial, ResponseTrial):
                found[name] = prepare_responses(trial, cohort)
            else:
                found[name] = prepare(trial, cohort, seed)
        except ConfigError as error:
            raise ConfigError(f"designs.{name}: {error}") from error
    return found


def _tell_result(out: Path, found: Comparison) -> None:
    size = f"{len(found.designs)} designs in {len(found.scenarios)} scenarios"
    tell(f"{out}: {size}, {found.found[0].num_trials:,} trials of each")
    width = max(len(name) for name in found.designs)
    for scenario in found.scenarios:
        tell(f"  {scenario}")
        for design in found.designs:
            each = found.of(design, scenario)
            count = float(measured(each.stops)[found.information].mean())
            tell(
                f"    {design:<{width}}  {REJECTED} {each.power.value:.4f} ± {each.power.standard_error:.4f}, "
                f"{each.months.value:.1f} months, {each.subjects.value:,.0f} patients, {count:,.0f} {found.information}"
            )
    tell(f"  {out / 'report.html'}")
