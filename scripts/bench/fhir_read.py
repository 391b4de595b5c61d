#!/usr/bin/env python3
"""Times `medtwin ingest` of a folder of FHIR NDJSON beside what merely parses the same files.

    OMP_NUM_THREADS=1 .venv/bin/python scripts/bench/fhir_read.py [--source DIR] [--runs 3] [--every 100]

Three things, in CPU seconds (user and system; the best of the runs, taken in turn, so that a busy machine slows all):

  ingest   `medtwin ingest` from the start of the process to the finished dataset, with its peak memory
  orjson   streaming gunzip (zlib of the standard library) and orjson.loads of every line
  models   the same parsing, and fhir.resources.R4B model_validate of every 100th resource of each type, times a hundred

The source is the MIMIC-IV demo, found through MEDTWIN_DATA (default ../shared/data).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parent.parent.parent


def files_of(source: Path) -> list[Path]:
    """The NDJSON files below a folder."""
    return sorted(path for path in source.rglob("*") if path.name.removesuffix(".gz").endswith(".ndjson"))


def lines_of(files: list[Path]) -> Iterator[bytes]:
    """Their lines."""
    for path in files:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield from file


def cpu_seconds() -> float:
    """What this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def parse_all(files: list[Path]) -> tuple[float, int]:
    """CPU seconds and number of resources of streaming gunzip and orjson.loads."""
    began, number = cpu_seconds(), 0
    for line in lines_of(files):
        orjson.loads(line)
        number += 1
    return cpu_seconds() - began, number


def validate_sample(files: list[Path], every: int) -> float:
    """CPU seconds that fhir.resources.R4B would take for all, from every so manieth resource of each type."""
    from fhir.resources.R4B import get_fhir_model_class

    seen: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    sampled: Counter[str] = Counter()
    for line in lines_of(files):
        document: dict[str, Any] = orjson.loads(line)
        kind = document["resourceType"]
        seen[kind] += 1
        if seen[kind] % every == 1:
            model = get_fhir_model_class(kind)
            began = cpu_seconds()
            model.model_validate(document)
            if sampled[kind] or seen[kind] > every:  # the first one of a type builds its model
                seconds[kind] += cpu_seconds() - began  # type: ignore[assignment]
                sampled[kind] += 1
    return sum(seconds[kind] / max(sampled[kind], 1) * seen[kind] for kind in seen)


def ingest(source: Path, workers: int) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak GiB of the verb in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "medtwin", "ingest", f"source.fhir={source}", f"out={folder}/d"]
        began = time.perf_counter()
        process = subprocess.Popen([*command, f"workers={workers}"], cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"failed: {' '.join(command)}")
        counts = json.loads(Path(folder, "d", "counts.json").read_bytes())
        assert sum(counts["read"].values()) > 0
        return usage.ru_utime + usage.ru_stime, time.perf_counter() - began, usage.ru_maxrss / 2**20


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="a folder of FHIR NDJSON; default: the MIMIC-IV demo")
    parser.add_argument("--runs", type=int, default=3, help="how often each is run; the best counts (default 3)")
    parser.add_argument("--every", type=int, default=100, help="fhir.resources validates one in so many (default 100)")
    parser.add_argument("--workers", type=int, default=1, help="processes that ingest uses (default 1)")
    chosen = parser.parse_args()
    # fhir.py beside this file is not the package of that name.
    sys.path = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
    data = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data"))
    source = chosen.source or data / "mimic4_demo_fhir"
    files = files_of(source)
    if not files:
        parser.error(f"no .ndjson or .ndjson.gz below {source}")
    read, plain, models = [], [], []
    number = 0
    for _ in range(chosen.runs):
        read.append(ingest(source, chosen.workers))
        seconds, number = parse_all(files)
        plain.append(seconds)
        models.append(validate_sample(files, chosen.every))
    best = min(read)
    sys.stdout.write(f"{source.name}: {number:,} resources, best of {chosen.runs}\n")
    sys.stdout.write(f"{'':30}{'CPU s':>8}{'resources/s':>14}{'ingest takes':>14}{'peak GiB':>10}\n")
    rows = (
        (f"medtwin ingest, workers={chosen.workers}", best[0], f"{best[2]:.2f}"),
        ("gunzip + orjson.loads", min(plain), ""),
        ("... + fhir.resources.R4B", min(plain) + min(models), ""),
    )
    for name, seconds, peak in rows:
        ratio = f"{best[0] / seconds:.2f} x"
        sys.stdout.write(f"{name:30}{seconds:8.2f}{number / seconds:14,.0f}{ratio:>14}{peak:>10}\n")


if __name__ == "__main__":
    main()
