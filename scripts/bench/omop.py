#!/usr/bin/env python3
"""Times a dataset to OMOP CDM 5.4 and back: rows a CPU second and peak memory, each step in a process of its own.

    .venv/bin/python scripts/bench/omop.py [--dataset DIR ...] [--repeat 3]

Without --dataset: physionet2012_meds (3.3 million rows), found through MEDTWIN_DATA (default ../shared/data). The best
of some runs counts, because the machine is shared.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def write(dataset: str, folder: str) -> int:
    """Writes the tables; returns the rows of the dataset."""
    from medtwin.core.dataset import open_dataset
    from medtwin.omop import Books, OmopOptions, export_omop

    rows = 0
    for step in export_omop(open_dataset(dataset), Path(folder), OmopOptions()):
        rows = step.event_rows if isinstance(step, Books) else rows
    return rows


def database(folder: str, path: str) -> int:
    """Makes the DuckDB file; returns 0."""
    from medtwin.omop import write_database

    write_database(Path(folder), Path(path))
    return 0


def read(folder: str) -> int:
    """Reads the tables as events; returns the rows of the tables."""
    from medtwin.core.pseudonyms import Pseudonyms
    from medtwin.core.sources import Ledger
    from medtwin.pipelines.ingest_omop import omop_reader

    ledger = Ledger()
    for _ in omop_reader(Path(folder), Pseudonyms(b"k" * 32), ledger, None).tables():
        pass
    return ledger.read.total()


def meds(dataset: str, folder: str) -> int:
    """Writes a plain MEDS dataset; returns its rows."""
    from medtwin.core.dataset import open_dataset
    from medtwin.core.output import Output
    from medtwin.pipelines.export_meds import write_meds
    from medtwin.pipelines.export_settings import ExportSettings

    chosen = ExportSettings(dataset=Path(dataset), out=Path(folder), to="meds")
    return write_meds(open_dataset(dataset), chosen, Output(Path(folder), resumed=False))["rows"]


STEPS = {"write": write, "database": database, "read": read, "meds": meds}


def measure(step: str, *arguments: str) -> tuple[int, float, float]:
    """Rows, CPU seconds and peak MiB of one step in a process of its own."""
    command = [sys.executable, __file__, "--step", step, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    rows, seconds, mebibytes = done.stdout.split()[-3:]
    return int(rows), float(seconds), float(mebibytes)


def bench(dataset: Path, repeat: int) -> None:
    """Prints a line per step."""
    with tempfile.TemporaryDirectory() as scratch:
        steps = {
            "write": lambda at: measure("write", str(dataset), f"{scratch}/omop{at}"),
            "database": lambda at: measure("database", f"{scratch}/omop0", f"{scratch}/cdm{at}.duckdb"),
            "read": lambda at: measure("read", f"{scratch}/omop0"),
            "meds": lambda at: measure("meds", str(dataset), f"{scratch}/meds{at}"),
        }
        for name, run in steps.items():
            runs = [run(at) for at in range(repeat)]
            rows, seconds, _ = min(runs, key=lambda one: one[1])
            peak = max(one[2] for one in runs)
            rate = f"{rows / seconds:,.0f} rows/s" if rows else ""
            print(f"{dataset.name:20} {name:9} {rows:>10,} rows {seconds:7.1f} CPU s {peak:7.0f} MiB  {rate}")


def main() -> None:
    """Runs one step, or all of them for each dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, nargs="*")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.step:
        rows = STEPS[chosen.step[0]](*chosen.step[1:])
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(rows, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
        return
    data = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data"))
    for dataset in chosen.dataset or [data / "physionet2012_meds"]:
        bench(dataset, chosen.repeat)


if __name__ == "__main__":
    main()
