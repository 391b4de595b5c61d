#!/usr/bin/env python3
"""Runs every benchmark of DICOM, one after the other, on one machine: read, write, send.

    .venv/bin/python scripts/bench/dicom.py [--only read write send] [--runs 5]

  read   dicom_read.py: a CT series and the headers of a folder, beside MONAI's readers (ITKReader needs medtwin[bench])
         and pydicom
  write  dicom_write.py: slices a second beside plain pydicom, and the lossless encodings
  send   dicom_send.py: C-STORE, STOW-RS, QIDO-RS and WADO-RS with Orthanc (needs scripts/peers)

Each prints its own table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PARTS = ("read", "write", "send")


def run(script: str, *words: str) -> None:
    """Runs one benchmark on one thread; its output is ours."""
    print(f"\n## {script}\n", flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    subprocess.run([sys.executable, str(FOLDER / script), *words], check=True, env=environment)


def main() -> None:
    """Runs the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--runs", type=int, default=5, help="repeats, of which the best counts")
    chosen = parser.parse_args()
    words = {"read": ("--runs", str(chosen.runs)), "write": ("--repeat", str(chosen.runs)), "send": ()}
    for part in chosen.only:
        run(f"dicom_{part}.py", *words[part])


if __name__ == "__main__":
    main()
