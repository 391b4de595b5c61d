#!/usr/bin/env python3
"""Times sending CT images to Orthanc by C-STORE and STOW-RS, asking it for them, and fetching them again.

    .venv/bin/python scripts/bench/dicom_send.py [--slices 200] [--size 256]

Orthanc (scripts/peers) runs on this machine, so its work is in the wall clock and not in the CPU seconds of the sender.
It is emptied before each way. After each it must hold every image, and what is fetched must have the pixels that were
sent.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from medtwin.core.sources import Ledger  # noqa: E402
from medtwin.dicom import Patient, Study, Volume, read_folder, synthetic_uid, write_volume  # noqa: E402
from medtwin.dicom.network import PacsSettings, Sender, WebSource, fetch_studies, files_below  # noqa: E402
from tests.servers.orthanc import AET, running_orthanc  # noqa: E402


def cpu_seconds() -> float:
    """What this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def write_objects(folder: Path, num_slices: int, size: int) -> None:
    """A CT series of noise."""
    values = np.random.default_rng(0).integers(-1000, 2000, (num_slices, size, size)).astype(np.float32)
    volume = Volume(values, "CT", pixel_spacing_mm=(0.7, 0.7), slice_spacing_mm=1.5)
    study = Study(synthetic_uid("bench", 1), synthetic_uid("bench", 2), "synthetic", body_part="CHEST")
    write_volume(folder, volume, Patient("1"), study)


def tell(what: str, count: int, began: tuple[float, float]) -> None:
    """Prints a line of the table."""
    wall, cpu = time.perf_counter() - began[0], cpu_seconds() - began[1]
    print(f"| {what} | {count} | {wall:.2f} | {count / wall:.0f} | {cpu:.2f} |", flush=True)


def main() -> None:
    """Sends, asks and fetches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--size", type=int, default=256)
    chosen = parser.parse_args()
    print("| way | instances | wall s | instances/s | CPU s of the sender |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="medtwin-bench-") as scratch, running_orthanc() as orthanc:
        folder = Path(scratch)
        write_objects(folder / "sent", chosen.slices, chosen.size)
        pacs = PacsSettings(url=orthanc.base, host="127.0.0.1", port=orthanc.port, called_aet=AET)
        for way, name in (("dimse", "C-STORE"), ("dicomweb", "STOW-RS")):
            orthanc.empty()
            began = time.perf_counter(), cpu_seconds()
            with Sender(files_below(folder / "sent"), pacs, way, folder / f"{way}.jsonl") as sender:
                list(sender.steps())
                tell(name, chosen.slices, began)
                began = time.perf_counter(), cpu_seconds()
                list(sender.verify())
                tell("C-FIND" if way == "dimse" else "QIDO-RS", chosen.slices, began)
            if orthanc.count() != chosen.slices:
                raise SystemExit(f"{name}: Orthanc holds {orthanc.count()} of {chosen.slices} images")
        began = time.perf_counter(), cpu_seconds()
        fetch_studies(WebSource(url=orthanc.base), folder / "got", Ledger())
        tell("WADO-RS", chosen.slices, began)
        sent, got = (read_folder(folder / name, Ledger())[0].pixels() for name in ("sent", "got"))
        if not np.array_equal(sent, got):
            raise SystemExit("the images that were fetched are not those that were sent")


if __name__ == "__main__":
    main()
