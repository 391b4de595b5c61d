#!/usr/bin/env python3
"""Times the layers of FHIR validation side by side, in one run: resources a second a core, start time, peak memory.

    .venv/bin/python scripts/bench/fhir_validate.py [--number 20000] [--strict strict.schema.json] [--write FILE.md]

The resources are Synthea's and MIMIC-IV demo's, found through MEDTWIN_DATA (default ../shared/data): Observations
alone, and an even draw over all types. The figures are CPU seconds (user and system) of the best of several rounds
over parsed resources. `--strict` names another JSON schema of FHIR R4 to compare with (definitions under `definitions`,
a type's under its name), run by the same library. Models are timed on 500 resources.
"""

from __future__ import annotations

import argparse
import gzip
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson

from medtwin.fhir.checks.chronology import Chronology
from medtwin.fhir.checks.models import check_models
from medtwin.fhir.checks.rules import check_rules
from medtwin.fhir.checks.schema import check_schema
from medtwin.fhir.checks.walk import Visit
from medtwin.fhir.validate import ReferenceBook, Validation, validate_resource

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data"))
SOURCES = {"Synthea": "synthea_r4/ndjson/*.ndjson.gz", "MIMIC-IV demo": "mimic4_demo_fhir/*/*.ndjson.gz"}
Resources = list[dict[str, Any]]


def cpu_seconds() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def load(pattern: str, number: int, kind: str | None) -> Resources:
    """An even draw of so many resources: of one type, or of all."""
    found: Resources = []
    for path in sorted(DATA.glob(pattern)):
        if kind is None or kind in path.name:
            found += (orjson.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines())
    return found[:: max(1, len(found) // number)][:number]


def seconds(check: Callable[[dict[str, Any]], Any], resources: Resources) -> float:
    """CPU seconds for one pass over some resources."""
    start = cpu_seconds()
    for each in resources:
        check(each)
    return cpu_seconds() - start


def rates(made: dict[str, Callable[[dict[str, Any]], Any]], resources: Resources, rounds: int = 7) -> dict[str, float]:
    """Resources a second of each check, best of some rounds; the checks take turns, so that a busy moment hits all."""
    best = dict.fromkeys(made, float("inf"))
    for _ in range(rounds):
        for name, check in made.items():
            best[name] = min(best[name], seconds(check, resources))
    return {name: len(resources) / each for name, each in best.items()}


def strict_check(path: Path) -> Callable[[dict[str, Any]], Any]:
    """The check of another schema, compiled for each type as it comes."""
    schema = orjson.loads(path.read_bytes())
    validators: dict[str, Any] = {}

    def check(each: dict[str, Any]) -> bool:
        kind = each["resourceType"]
        if kind not in validators:
            whole = {"$schema": schema["$schema"], "definitions": schema["definitions"]}
            whole["allOf"] = [{"$ref": f"#/definitions/{kind}"}]
            validators[kind] = jsonschema_rs.Draft7Validator(whole, pattern_options=jsonschema_rs.RegexOptions())
        return bool(validators[kind].is_valid(each))

    return check


def checks(strict: Path | None) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """What is timed, by name."""
    validation = Validation()
    validation.book = ReferenceBook()
    chronology = Chronology()
    made: dict[str, Callable[[dict[str, Any]], Any]] = {
        "schema": check_schema,
        "rules": lambda each: check_rules(Visit(each, each)),
        "schema + rules": lambda each: validate_resource(each, ("schema", "rules")),
        "the same, counted, with references": validation.add,
        "chronology": chronology.check,
    }
    if strict is not None:
        made["another schema"] = strict_check(strict)
    return made


def start_seconds(kind: str) -> float:
    """CPU seconds of a new process that checks one resource, less those of one that only imports the layers."""
    code = "from medtwin.fhir.validate import validate_resource\n"
    first = code + f"validate_resource({{'resourceType': {kind!r}}}, ('schema', 'rules'))\n"
    return _process_seconds(first) - _process_seconds(code)


def _process_seconds(code: str) -> float:
    best = float("inf")
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def peak_mib() -> float:
    """Peak memory of a process that validates MIMIC-IV demo as the verb does."""
    code = "\n".join(
        [
            "import sys",
            "from medtwin.pipelines.validate import main",
            "main({'fhir': sys.argv[1]})",
            "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])",
        ]
    )
    folder = str(DATA / "mimic4_demo_fhir" / "fhir")
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) / 1024


def measure(number: int, strict: Path | None) -> list[str]:
    """The figures as lines of Markdown."""
    sets = {
        f"{name}, {kind or 'all types'}": load(pattern, number, kind)
        for name, pattern in SOURCES.items()
        for kind in ("Observation", None)
    }
    made = checks(strict)
    models = {"models (fhir.resources.R4B)": lambda each: list(check_models(each))}
    found = [rates(made, each) | rates(models, each[:: max(1, number // 500)], 2) for each in sets.values()]
    lines = ["| resources/s/core | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for name in found[0]:
        lines.append(f"| {name} | " + " | ".join(f"{each[name]:,.0f}" for each in found) + " |")
    lines.append("")
    lines.append(f"Resources in each set: {', '.join(f'{len(each):,}' for each in sets.values())}.")
    lines.append(f"Peak memory of `medtwin validate` over MIMIC-IV demo: {peak_mib():,.0f} MiB.")
    first = ", ".join(f"{kind} {start_seconds(kind):.2f} s" for kind in ("Observation", "Patient", "Bundle"))
    lines.append(f"CPU seconds from import to the first finding (tables, compilation): {first}.")
    return lines


def main() -> None:
    """Prints the figures, and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=20_000)
    parser.add_argument("--strict", type=Path)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    # fhir.py beside this file is not the package of that name.
    sys.path = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
    lines = measure(options.number, options.strict)
    print("\n".join(lines))
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
