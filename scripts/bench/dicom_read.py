#!/usr/bin/env python3
"""Times reading of DICOM beside MONAI's readers and pydicom, on one core.

    OMP_NUM_THREADS=1 .venv/bin/python scripts/bench/dicom_read.py [--runs 7] [--files 2000]

  load     a CT series of 48 x 512 x 512 of our writer: list the folder, sort, decode, rescale to float32; beside
           MONAI's ITKReader and PydicomReader on the same folder (both return the same values)
  scan     the headers of a folder of CT files, all checks of `read_folder` included; beside pydicom's
           `dcmread(stop_before_pixels=True)` of the same files with no check and no value used

Each loader runs in a process of its own, in turn with the others; the best CPU time (user and system) of all runs
counts, and the peak memory is that of the process above what it had before it loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPE = (48, 512, 512)


def write_samples(folder: Path, files: int) -> None:
    """A CT series, and a folder of files with the same header and 64 x 64 pixels."""
    from medtwin.dicom import Patient, Study, Volume, volume_to_datasets, write_series

    rng = np.random.default_rng(0)
    for name, shape in (("series", SHAPE), ("many", (files, 64, 64))):
        values = rng.integers(-1000, 2000, shape).astype(np.float32)
        volume = Volume(values, "CT", pixel_spacing_mm=(0.7, 0.7), slice_spacing_mm=1.5)
        study = Study("2.25.1", f"2.25.{len(name)}", "simulated", body_part="CHEST")
        write_series(folder / name, volume_to_datasets(volume, Patient("p"), study))


def load_ours(folder: Path) -> Any:
    """`open_series` and its pixels."""
    from medtwin.dicom import open_series

    return open_series(folder).pixels()


def load_itk(folder: Path) -> Any:
    """MONAI's ITKReader."""
    from monai.data.image_reader import ITKReader

    reader = ITKReader()
    return reader.get_data(reader.read(str(folder)))[0]


def load_pydicom(folder: Path) -> Any:
    """MONAI's PydicomReader."""
    from monai.data.image_reader import PydicomReader

    reader = PydicomReader()
    return reader.get_data(reader.read(str(folder)))[0]


def scan_ours(folder: Path) -> Any:
    """`read_folder`."""
    from medtwin.core.sources import Ledger
    from medtwin.dicom import read_folder

    (series,) = read_folder(folder, Ledger())
    return np.zeros(len(series.instances))


def scan_pydicom(folder: Path) -> Any:
    """The same headers parsed by pydicom."""
    import pydicom

    return np.array([len(pydicom.dcmread(path, stop_before_pixels=True)) for path in sorted(folder.iterdir())])


LOADERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "medtwin": ("series", load_ours),
    "MONAI ITKReader": ("series", load_itk),
    "MONAI PydicomReader": ("series", load_pydicom),
    "medtwin read_folder": ("many", scan_ours),
    "pydicom dcmread": ("many", scan_pydicom),
}


def kib(status: Path, field: str) -> int:
    """A size in /proc/self/status."""
    return int(next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:")).split()[1])


def measure(name: str, folder: Path) -> dict[str, float]:
    """CPU seconds of the second of two calls, peak MiB above the start, and the sum of the values."""
    where, load = LOADERS[name]
    warnings.simplefilter("ignore")
    tiny = folder / "tiny"
    if where == "series":
        load(tiny)  # imports, and whatever a library sets up once
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (Linux)
    before = kib(status, "VmRSS")
    best, total = float("inf"), 0.0
    for _ in range(2):
        values = None  # the memory of the run before is given back first
        began = time.process_time()
        values = load(folder / where)
        best = min(best, time.process_time() - began)
        total = float(np.sum(values, dtype=np.float64))
    peak = (kib(status, "VmHWM") - before) / 1024
    return {"seconds": best, "peak_mib": peak, "sum": total}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="processes for each loader; the best counts (default 7)")
    parser.add_argument("--files", type=int, default=2000, help="files of the header scan (default 2000)")
    parser.add_argument("--one", nargs=2, metavar=("LOADER", "FOLDER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    sys.path = [str(ROOT), *(place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent)]
    if chosen.one:
        sys.stdout.write(json.dumps(measure(chosen.one[0], Path(chosen.one[1]))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_samples(folder, chosen.files)
        (folder / "tiny").mkdir()
        for path in sorted((folder / "series").iterdir())[:2]:
            (folder / "tiny" / path.name).write_bytes(path.read_bytes())
        report(run_all(folder, chosen.runs), chosen.files)


def run_all(folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """The best run of each loader."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in LOADERS}
    for _ in range(runs):
        for name in LOADERS:
            command = [sys.executable, __file__, "--one", name, str(folder)]
            done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    return {name: min(found, key=lambda one: one["seconds"]) for name, found in results.items()}


def report(best: dict[str, dict[str, float]], files: int) -> None:
    """Prints the two tables."""
    ours = best["medtwin"]
    sys.stdout.write(f"{'load 48 x 512 x 512 CT':28}{'CPU ms':>9}{'ratio':>8}{'peak MiB':>10}{'sum of values':>18}\n")
    for name, result in best.items():
        if LOADERS[name][0] == "series":
            ratio = result["seconds"] / ours["seconds"]
            row = (
                f"{name:28}{result['seconds'] * 1e3:9.1f}{ratio:8.2f}{result['peak_mib']:10.0f}{result['sum']:18.0f}\n"
            )
            sys.stdout.write(row)
    sys.stdout.write(f"\n{f'scan {files:,} headers':28}{'files/s':>9}\n")
    for name, result in best.items():
        if LOADERS[name][0] == "many":
            sys.stdout.write(f"{name:28}{files / result['seconds']:9,.0f}\n")


if __name__ == "__main__":
    main()
