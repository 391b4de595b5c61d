"""`medtwin check`: twins against what they were learned from -> findings, verdict, report."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from medtwin.check import (
    Findings,
    GateResult,
    Options,
    Profile,
    compare_datasets,
    judge,
    profile_from,
    require_comparable,
    rules_from,
    stratifications_from,
)
from medtwin.check.collapse.lineage import Lineage
from medtwin.check.disclosure import shareable
from medtwin.check.estimates import Distribution
from medtwin.check.fairness.settings import fairness_from
from medtwin.check.schema import VERSION
from medtwin.check.tasks import Task, task_from
from medtwin.check.utility_rows import UtilityFindings
from medtwin.config import compose, settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import ConfigError, DatasetError
from medtwin.core.files import atomic_file, write_json
from medtwin.core.output import writing
from medtwin.core.provenance import Provenance, describe_input, write_provenance
from medtwin.core.verdict import SHIPPED, Verdict, read_verdict, write_verdict
from medtwin.pipelines.check_attack_section import attack_tables
from medtwin.pipelines.check_images import make_encoder
from medtwin.pipelines.check_report import Checked, write_check_report
from medtwin.pipelines.check_utility import measure_utility, utility_tables, without_path
from medtwin.pipelines.identifier_scan import known_of, scan_files, write_hits
from medtwin.pipelines.say import progress, tell, tell_counts
from medtwin.pipelines.sources import fingerprint, public_config, require_outside

MIN_RESAMPLES = 20


@dataclass(frozen=True)
class CheckSettings:
    """The settings of configs/check.yaml; `gates`, `rules` and `strata` None: those that ship with medtwin."""

    synthetic: Path
    real: Path
    out: Path
    seed: int = 0
    resamples: int = 200
    images: bool = True
    attacks: bool = True
    encoder: str = "random"
    timelines: Path | None = None
    scans: Path | None = None
    canaries: Path | None = None
    identifiers: Path | None = None
    show_real: bool = False
    also: tuple[Path, ...] = ()
    anchors: Path | None = None
    generations: tuple[Path, ...] = ()
    task: Mapping[str, Any] | None = None
    gates: Mapping[str, Any] | None = None
    rules: Mapping[str, Any] | None = None
    strata: Mapping[str, Any] | None = None
    fairness: Mapping[str, Any] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.resamples < MIN_RESAMPLES:
            raise ConfigError(f"resamples must be {MIN_RESAMPLES} or more, got {self.resamples}")


@cache
def _shipped(profile: str) -> dict[str, Any]:
    """The configuration as it ships with a profile, as it is: not to be changed. Composing it takes a second."""
    return compose("check", ["synthetic=x", "real=x", f"gates={profile}"])


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    check(settings(CheckSettings, config))


@dataclass(frozen=True)
class _Sides:
    """The datasets of a check: the twins, the reference, twins of other seeds, and where the twins come from."""

    synthetic: Dataset
    real: Dataset
    others: tuple[Dataset, ...]
    lineage: Lineage

    @staticmethod
    def of(chosen: CheckSettings) -> _Sides:
        synthetic, real = open_dataset(chosen.synthetic), open_dataset(chosen.real)
        others = tuple(open_dataset(path) for path in chosen.also)
        sides = _Sides(synthetic, real, others, _lineage(chosen))
        for twins in (sides.synthetic, *sides.others):
            require_comparable(sides.real, twins)
        for dataset in (sides.synthetic, sides.real, *sides.others):
            require_outside(chosen.out, dataset.path)
        if not sides.synthetic.is_finished:
            raise DatasetError(f"synthetic={sides.synthetic.path} has no manifest: a verdict needs a finished dataset")
        return sides

    def state(self) -> dict[str, Any]:
        """What a finished check must be of to be kept."""
        return {
            "synthetic_state": self.synthetic.manifest_hash(),
            "real_state": _state(self.real),
            "also_state": [_state(other) for other in self.others],
            "anchors_state": None if self.lineage.anchors is None else _state(self.lineage.anchors),
            "generations_state": [_state(one) for one in self.lineage.earlier],
        }


def _lineage(chosen: CheckSettings) -> Lineage:
    return Lineage(
        describe_input("synthetic", chosen.synthetic).lineage_depth,
        None if chosen.anchors is None else open_dataset(chosen.anchors),
        tuple(open_dataset(path) for path in chosen.generations),
    )


def check(chosen: CheckSettings) -> Path:
    """Measures, judges and reports, or says that it is there; returns where it is."""
    sides = _Sides.of(chosen)
    given = {"gates": chosen.gates, "rules": chosen.rules, "strata": chosen.strata}
    parts = {name: _shipped("research")[name] if part is None else part for name, part in given.items()}
    profile, task = shipped_profile(parts["gates"]), task_from(chosen.task or {})
    options = _options(chosen, parts)
    config = _recorded(chosen, {**parts, **sides.state(), "fairness": asdict(options.fairness)}, task)
    with writing(chosen.out, config, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        encoder = make_encoder(chosen.encoder, sides.real, seed=chosen.seed) if chosen.images else None
        findings, utility = _measured(chosen, replace(options, encode=encoder, lineage=sides.lineage), task, sides)
        scan = scan_files(sides.synthetic.path, known_of(sides.real, chosen.identifiers))
        findings = findings.with_measures([scan.measure()])
        write_hits(output.path / "tables" / "identifiers.csv", scan)
        results = judge(findings, profile)
        if sides.real.origin == "real":
            findings = shareable(findings)
        outcomes = {one.name: one.outcome for one in results}
        verdict = Verdict(sides.synthetic.manifest_hash(), profile.name, outcomes, profile.unchecked)
        write_verdict(output.path, verdict)
        _write_findings(output.path, findings, utility, results, verdict)
        checked = Checked(findings, utility, results, verdict, sides.real, sides.synthetic)
        write_check_report(output.path, checked, show_real=chosen.show_real)
        if encoder is not None:
            write_json(output.path / "encoder.json", {"name": encoder.name, "sha256": encoder.sha256})
        _write_provenance(output.path, chosen, config, sides)
    _tell_result(chosen.out, results)
    return chosen.out


def _recorded(chosen: CheckSettings, state: Mapping[str, Any], task: Task | None) -> dict[str, Any]:
    """What provenance holds of the settings, and what a finished check must have been made with to be kept."""
    config = {**public_config(chosen), **state}
    config["encoder"] = Path(chosen.encoder).name  # provenance holds no path of a machine
    if Path(chosen.encoder).is_dir():
        config["encoder_state"] = fingerprint(Path(chosen.encoder))
    if task is not None:
        config["task"] = asdict(without_path(task))
    config["timelines_state"] = None if chosen.timelines is None else fingerprint(chosen.timelines)
    if chosen.scans is None:
        del config["scans"]
    else:
        config["scans_state"] = fingerprint(chosen.scans)
    if chosen.canaries is None:
        del config["canaries"]  # checks of before knew none
    else:
        config["canaries_state"] = fingerprint(chosen.canaries)
    if chosen.identifiers is None:
        del config["identifiers"]
    return config


def _options(chosen: CheckSettings, parts: Mapping[str, Any]) -> Options:
    """What is measured, and how; features of images come later."""
    strata = stratifications_from(parts["strata"])
    return Options(
        chosen.seed,
        chosen.resamples,
        rules_from(parts["rules"]),
        strata,
        fairness_from(chosen.fairness, [one.name for one in strata]),
        with_images=chosen.images,
        with_attacks=chosen.attacks,
    )


def _measured(
    chosen: CheckSettings, options: Options, task: Task | None, sides: _Sides
) -> tuple[Findings, UtilityFindings | None]:
    """Everything that is measured, and of a task, if there is one, what it is of use for."""
    findings = compare_datasets(sides.real, sides.synthetic, options, watch=_progress)
    if chosen.timelines is not None:
        findings = _with_likelihood(findings, chosen, sides.real, sides.synthetic)
    if chosen.scans is not None:
        findings = _with_losses(findings, chosen.scans, sides.real, chosen.seed)
    if chosen.canaries is not None:
        findings = _with_canaries(findings, chosen.canaries, sides.synthetic, chosen.seed)
    if task is None:
        return findings, None
    twins = [sides.synthetic, *sides.others]
    utility = measure_utility(sides.real, twins, task, options, watch=_progress)
    return findings.with_measures(utility.measures), utility


def _write_provenance(folder: Path, chosen: CheckSettings, config: Mapping[str, Any], sides: _Sides) -> None:
    inputs = [describe_input("synthetic", sides.synthetic.path), describe_input("real", sides.real.path)]
    if chosen.timelines is not None:
        inputs.append(describe_input("timelines", chosen.timelines))
    if chosen.scans is not None:
        inputs.append(describe_input("scans", chosen.scans))
    if chosen.canaries is not None:
        inputs.append(describe_input("canaries", chosen.canaries))
    inputs += [describe_input("also", other.path) for other in sides.others]
    if sides.lineage.anchors is not None:
        inputs.append(describe_input("anchors", sides.lineage.anchors.path))
    inputs += [describe_input("generations", one.path) for one in sides.lineage.earlier]
    origin = sides.synthetic.origin
    write_provenance(folder, Provenance("check", origin, config, chosen.seed, inputs, inputs[0].lineage_depth))


def _with_likelihood(findings: Findings, chosen: CheckSettings, real: Dataset, synthetic: Dataset) -> Findings:
    from medtwin.pipelines.check_likelihood import measure_likelihood  # loads torch

    assert chosen.timelines is not None
    measures, shown, told = measure_likelihood(
        chosen.timelines, real, synthetic, seed=chosen.seed, num_resamples=chosen.resamples
    )
    return replace(
        findings.with_measures(measures),
        distributions=(*findings.distributions, *shown),
        memberships=(*findings.memberships, told),
    )


def _with_losses(findings: Findings, run: Path, real: Dataset, seed: int) -> Findings:
    from medtwin.pipelines.check_scan_losses import measure_scan_losses  # loads torch

    measure, told = measure_scan_losses(run, real, seed=seed)
    return replace(findings.with_measures([measure]), memberships=(*findings.memberships, told))


def _with_canaries(findings: Findings, run: Path, synthetic: Dataset, seed: int) -> Findings:
    from medtwin.pipelines.check_canaries import measure_canaries  # loads torch

    measures, told = measure_canaries(run, synthetic, seed=seed)
    return replace(findings.with_measures(measures), memberships=(*findings.memberships, *told))


def _progress(stages: Sequence[str]) -> Iterable[str]:
    return progress(stages, "check", total=len(stages), unit="stage")


def shipped_profile(config: Mapping[str, Any]) -> Profile:
    """The profile of a configuration; where it is one that ships with medtwin but changed, its name says so."""
    name = config.get("profile")
    return profile_from(config, _shipped(name)["gates"] if name in SHIPPED else None)


def _state(dataset: Dataset) -> str:
    return dataset.manifest_hash() if dataset.is_finished else fingerprint(dataset.path)


def _write_findings(
    folder: Path,
    findings: Findings,
    utility: UtilityFindings | None,
    results: Sequence[GateResult],
    verdict: Verdict,
) -> None:
    """Writes findings.json and tables/*.csv."""
    record = {
        "version": VERSION,
        "profile": verdict.profile,
        "gates": [asdict(one) for one in results],
        "utility": None if utility is None else utility.to_dict(),
    }
    write_json(folder / "findings.json", {**record, **findings.to_dict()})
    tables: dict[str, Iterable[Any]] = {
        "gates": results,
        "measures": findings.measures,
        "codes": findings.codes,
        "deciles": findings.deciles,
        "values": findings.values,
        "pairs": findings.pairs,
        "ages": findings.ages,
        "strata": findings.strata,
        "kinds": findings.kinds,
        "separators": findings.separators,
        "units": findings.units,
        "within_subjects": findings.within,
        "correlations": findings.correlations,
        "courses": findings.trajectories,
        "missingness": findings.missingness,
        "co_missingness": findings.co_missingness,
        "lags": findings.lags,
        "images": findings.image_groups,
        "image_strata": findings.image_strata,
        "image_labels": findings.image_labels,
        "rules": findings.rules,
        "copies": findings.copies,
        **attack_tables(findings),
        "generations": findings.generations,
        "rare_codes": findings.rare_codes,
        "fairness": findings.fairness,
        "small_cells": findings.small_cells,
    }
    if utility is not None:
        tables.update(utility_tables(utility))
    for name, rows in tables.items():
        _write_csv(folder / "tables" / f"{name}.csv", [row if isinstance(row, dict) else _flat(row) for row in rows])


def _flat(row: Any) -> dict[str, Any]:
    """A row's plain fields; an estimate becomes its value under the field's name, and `name_low` and so on."""
    cells: dict[str, Any] = {}
    for name in row.__dataclass_fields__:
        value = getattr(row, name)
        if is_dataclass(value) and hasattr(value, "baseline_worst"):
            cells.update({name if part == "value" else f"{name}_{part}": v for part, v in asdict(value).items()})  # type: ignore[arg-type]
        elif value is None or isinstance(value, (str, int, float)):
            cells[name] = value
        elif isinstance(value, tuple) and len(value) == 2 and not isinstance(row, Distribution):
            cells.update({f"{name}_real": value[0], f"{name}_synthetic": value[1]})
    return cells


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_file(path, "w") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _tell_result(out: Path, results: Sequence[GateResult]) -> None:
    rows = [
        {
            "gate": one.name,
            "outcome": one.outcome,
            "value": _number(one.value),
            "real vs real": _number(one.baseline),
            "limit": _number(one.limit),
            "why": one.reason,
        }
        for one in results
    ]
    tell_counts(f"{out}:", rows)
    verdict = read_verdict(out)
    refusals = verdict.refusals()
    if refusals:
        tell(f"the {verdict.profile} profile refuses the twins: {', '.join(refusals)}")
    else:
        tell(f"the {verdict.profile} profile lets the twins leave")
    tell(f"look at {out / 'report.html'}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
