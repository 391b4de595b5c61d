#!/usr/bin/env python3
"""Times writing DICOM: slices a second of a CT, by our writer and by plain pydicom, and the lossless encodings.

    .venv/bin/python scripts/bench/dicom_write.py [--slices 300] [--size 256] [--repeat 3] [--folder /tmp]

Every way writes the same slices in a process of its own; a figure is slices per CPU second (user + system, the best of
the repeats), which other work on the machine hardly changes, with that of the wall clock and the peak memory beside it.
"plain pydicom" sets the same attributes on a dataset per slice and calls `dcmwrite`, as most scripts do. Each way is
checked once: its files give back every Hounsfield unit.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom

from medtwin.dicom import Patient, Study, Volume, open_series, synthetic_uid, volume_to_datasets, write_volume
from medtwin.dicom.write import rewrite_file, write_series

PATIENT = Patient("1", "Subject^One", "F", age_years=54.0)
STUDY = Study(
    synthetic_uid("bench", "study"),
    synthetic_uid("bench", "series"),
    "synthetic",
    datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
    body_part="CHEST",
)


def phantom(num_slices: int, size: int) -> Volume:
    """A CT with noise of 20 HU in two cylinders of air: what an encoder meets in a chest."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    body = np.where(np.hypot(rows, 0.8 * columns) < 0.4, 40.0, -1000.0)
    lungs = (np.hypot(rows, columns - 0.17) < 0.13) | (np.hypot(rows, columns + 0.17) < 0.13)
    plane = np.where(lungs, -850.0, body)
    values = np.empty((num_slices, size, size), np.int16)
    for each in values:  # slice by slice: the peak before writing is what the volume takes
        each[:] = np.clip(np.rint(plane + rng.normal(0, 20, plane.shape)), -1024, 3071)
    return Volume(values, "CT", (0.7, 0.7), 1.25)


def plain_pydicom(folder: Path, volume: Volume) -> None:
    """A copy of the header per slice, written element by element to a file."""
    template = next(volume_to_datasets(volume, PATIENT, STUDY))
    del template.PixelData
    folder.mkdir()
    for index, values in enumerate(volume.values):
        dataset = deepcopy(template)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = synthetic_uid(STUDY.series_uid, index)
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = [0.0, 0.0, 1.25 * index]
        dataset.PixelData = (values.astype(np.int32) + 1024).astype(np.uint16).tobytes()
        pydicom.dcmwrite(folder / f"{index:04d}.dcm", dataset, enforce_file_format=True)


def _series(folder: Path, volume: Volume) -> None:
    write_series(folder, volume_to_datasets(volume, PATIENT, STUDY))


def _volume(folder: Path, volume: Volume) -> None:
    write_volume(folder, volume, PATIENT, STUDY)


WAYS: dict[str, Callable[[Path, Volume], None]] = {
    "plain pydicom": plain_pydicom,
    "write_series": _series,
    "write_volume": _volume,
}
SYNTAXES = ("jpeg_ls", "jpeg_2000", "rle")


def encode(folder: Path, syntax: str) -> None:
    """Rewrites the files of `folder/source` as `medtwin export` does, each decoded again and compared."""
    (folder / "out").mkdir()
    for path in sorted((folder / "source").iterdir()):
        if not rewrite_file(path, folder / "out" / path.name, transfer_syntax=syntax):
            raise SystemExit(f"{syntax}: {path.name} was not encoded")


def run(way: str, num_slices: int, size: int, folder: Path) -> None:
    """Times one way and prints its figures as JSON."""
    volume = phantom(num_slices, size)
    if way in SYNTAXES:
        _volume(folder / "source", volume)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    if way in SYNTAXES:
        encode(folder, way)
    else:
        WAYS[way](folder / "out", volume)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if not np.array_equal(open_series(folder / "out").pixels(), volume.values):
        raise SystemExit(f"{way}: the files do not give back the Hounsfield units")
    size_mb = sum(path.stat().st_size for path in (folder / "out").iterdir()) / 1e6
    figures = {"cpu": num_slices / cpu, "wall": num_slices / wall, "MB": size_mb}
    sys.stdout.write(json.dumps({**figures, "added MiB": (peak - base) / 1024}) + "\n")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--way", choices=[*WAYS, *SYNTAXES], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        run(chosen.way, chosen.slices, chosen.size, chosen.folder)
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    sys.stdout.write(f"{chosen.slices} slices of {chosen.size} x {chosen.size}, CT in 12 bits\n")
    sys.stdout.write(f"{'way':<16}{'slices/CPU s':>14}{'slices/s':>10}{'ratio':>8}{'MB':>8}{'added MiB':>11}\n")
    reference = 0.0
    for way in [*WAYS, *SYNTAXES]:
        best: dict[str, float] = {}
        for _ in range(chosen.repeat if way in WAYS else 1):
            folder = Path(tempfile.mkdtemp(dir=chosen.folder))
            try:
                options = ["--way", way, "--slices", str(chosen.slices), "--size", str(chosen.size)]
                command = [sys.executable, __file__, *options, "--folder", str(folder)]
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            finally:
                shutil.rmtree(folder)
            figures = json.loads(done.stdout)
            if not best or figures["cpu"] > best["cpu"]:
                best = figures
        reference = reference or best["cpu"]
        numbers = f"{best['cpu']:>14.0f}{best['wall']:>10.0f}{best['cpu'] / reference:>8.1f}"
        sys.stdout.write(f"{way:<16}{numbers}{best['MB']:>8.1f}{best['added MiB']:>11.1f}\n")


if __name__ == "__main__":
    main()
