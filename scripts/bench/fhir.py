#!/usr/bin/env python3
"""Runs every benchmark of FHIR, one after the other, on one machine: read, validate, write, send.

    .venv/bin/python scripts/bench/fhir.py [--only read write ...] [--runs 2]

  read      fhir_read.py: `medtwin ingest` of the MIMIC-IV demo, beside parsing alone and beside fhir.resources
  validate  fhir_validate.py: resources a second of each layer
  write     fhir_write.py: events to checked and serialised resources, on the dataset that it ingests first
  send      fhir_send.py: to the test server, by preset (needs scripts/peers)

Each prints its own table with CPU seconds and peak memory; the data are found through MEDTWIN_DATA (default
../shared/data).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
DATA = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data"))
PARTS = ("read", "validate", "write", "send")


def run(script: str, *words: str) -> None:
    """Runs one benchmark; its output is ours."""
    print(f"\n## {script}\n", flush=True)
    subprocess.run([sys.executable, str(FOLDER / script), *words], check=True)


def write(runs: int) -> None:
    """Ingests the MIMIC-IV demo, then times writing it."""
    with tempfile.TemporaryDirectory(prefix="medtwin-bench-") as scratch:
        dataset = Path(scratch) / "dataset"
        words = ["ingest", f"source.fhir={DATA / 'mimic4_demo_fhir'}", f"out={dataset}"]
        subprocess.run([sys.executable, "-m", "medtwin", *words], check=True, stdout=subprocess.DEVNULL)
        run("fhir_write.py", str(dataset), "--repeat", str(runs))


def main() -> None:
    """Runs the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--runs", type=int, default=2, help="repeats, of which the best counts")
    chosen = parser.parse_args()
    if "read" in chosen.only:
        run("fhir_read.py", "--runs", str(chosen.runs))
    if "validate" in chosen.only:
        run("fhir_validate.py")
    if "write" in chosen.only:
        write(chosen.runs)
    if "send" in chosen.only:
        run("fhir_send.py")


if __name__ == "__main__":
    main()
