"""`medtwin check`: twins against what they were learned from -> findings, verdict, report."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from medtwin.check import Findings, GateResult, compare_datasets, gates_from, judge, require_comparable, rules_from
from medtwin.check.disclosure import shareable
from medtwin.config import compose, settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import ConfigError, DatasetError
from medtwin.core.files import atomic_file, write_json
from medtwin.core.output import writing
from medtwin.core.provenance import Provenance, describe_input, write_provenance
from medtwin.core.verdict import ALLOWED, Verdict, read_verdict, write_verdict
from medtwin.pipelines.check_report import write_check_report
from medtwin.pipelines.say import progress, tell, tell_counts
from medtwin.pipelines.sources import fingerprint, public_config, require_outside

MIN_RESAMPLES = 20


@dataclass(frozen=True)
class CheckSettings:
    """The settings of configs/check.yaml; `gates` and `rules` None: those that ship with medtwin."""

    synthetic: Path
    real: Path
    out: Path
    profile: str = "research"
    seed: int = 0
    resamples: int = 200
    images: bool = True
    show_real: bool = False
    gates: Mapping[str, Any] | None = None
    rules: Mapping[str, Any] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.profile not in ALLOWED:
            raise ConfigError(f"profile must be one of {', '.join(ALLOWED)}, got {self.profile!r}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.resamples < MIN_RESAMPLES:
            raise ConfigError(f"resamples must be {MIN_RESAMPLES} or more, got {self.resamples}")


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    check(settings(CheckSettings, config))


def check(chosen: CheckSettings) -> Path:
    """Measures, judges and reports, or says that it is there; returns where it is."""
    synthetic, real = open_dataset(chosen.synthetic), open_dataset(chosen.real)
    require_comparable(real, synthetic)
    for dataset in (synthetic, real):
        require_outside(chosen.out, dataset.path)
    if not synthetic.is_finished:
        raise DatasetError(f"synthetic={synthetic.path} has no manifest: a verdict needs a finished dataset")
    shipped = compose("check", ["synthetic=x", "real=x"]) if chosen.gates is None or chosen.rules is None else {}
    gate_config = chosen.gates if chosen.gates is not None else shipped["gates"]
    rule_config = chosen.rules if chosen.rules is not None else shipped["rules"]
    gates, rules = gates_from(gate_config), rules_from(rule_config)
    config = {**public_config(chosen), "gates": gate_config, "rules": rule_config}
    config.update(synthetic_state=synthetic.manifest_hash(), real_state=_state(real))
    with writing(chosen.out, config, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        findings = compare_datasets(
            real,
            synthetic,
            seed=chosen.seed,
            rules=rules,
            num_resamples=chosen.resamples,
            with_images=chosen.images,
            watch=lambda stages: progress(stages, "check", total=len(stages), unit="stage"),
        )
        results = judge(findings, gates, chosen.profile)
        if real.origin == "real":
            findings = shareable(findings)
        verdict = Verdict(synthetic.manifest_hash(), chosen.profile, {one.name: one.outcome for one in results})
        write_verdict(output.path, verdict)
        _write_findings(output.path, findings, results, verdict)
        write_check_report(output.path, findings, results, verdict, real, synthetic, show_real=chosen.show_real)
        inputs = [describe_input("synthetic", synthetic.path), describe_input("real", real.path)]
        record = Provenance("check", synthetic.origin, config, chosen.seed, inputs, inputs[0].lineage_depth)
        write_provenance(output.path, record)
    _tell_result(chosen.out, results)
    return chosen.out


def _state(dataset: Dataset) -> str:
    return dataset.manifest_hash() if dataset.is_finished else fingerprint(dataset.path)


def _write_findings(folder: Path, findings: Findings, results: Sequence[GateResult], verdict: Verdict) -> None:
    """Writes findings.json and tables/*.csv."""
    record = {"version": 1, "profile": verdict.profile, "gates": [asdict(one) for one in results]}
    write_json(folder / "findings.json", {**record, **findings.to_dict()})
    tables: dict[str, Iterable[Any]] = {
        "gates": results,
        "measures": findings.measures,
        "codes": findings.codes,
        "deciles": findings.deciles,
        "values": findings.values,
        "pairs": findings.pairs,
        "ages": findings.ages,
        "images": findings.image_groups,
        "rules": findings.rules,
        "copies": findings.copies,
    }
    for name, rows in tables.items():
        _write_csv(folder / "tables" / f"{name}.csv", [_flat(row) for row in rows])


def _flat(row: Any) -> dict[str, Any]:
    """A row's plain fields; an estimate becomes its value under the field's name, and `name_low` and so on."""
    cells: dict[str, Any] = {}
    for name in row.__dataclass_fields__:
        value = getattr(row, name)
        if is_dataclass(value) and hasattr(value, "baseline_worst"):
            cells.update({name if part == "value" else f"{name}_{part}": v for part, v in asdict(value).items()})  # type: ignore[arg-type]
        elif value is None or isinstance(value, (str, int, float)):
            cells[name] = value
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
