#!/usr/bin/env python3
"""Times `medtwin check` on real ICU stays: wall and CPU seconds and peak memory by number of patients.

    .venv/bin/python scripts/bench/check.py [--sizes 1000 2000 4000 8000] [--write docs/results/check_cost.md]

The source is physionet2012_meds (8,000 stays), found through MEDTWIN_DATA (default ../shared/data). Half of its stays
are the reference, a quarter of as many others the control that attacks need, and the rest stand for the twins; a size
that takes stays more than once is a cost like any other but no sensible comparison. Each size is one `medtwin check` in
a process of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from head_commit import head_commit

from medtwin.core.dataset import open_dataset
from medtwin.core.dataset_writer import EventSpill, write_dataset_metadata, write_events
from medtwin.core.files import write_manifest

ROOT = Path(__file__).resolve().parent.parent.parent


def measure(arguments: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak GiB of one medtwin command, in a process of its own."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "medtwin", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: medtwin {' '.join(arguments)}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def first_stays(stays: pa.Table, number: int) -> pa.Table:
    """So many stays, some of them repeatedly under other ids if there are too few."""
    subjects = stays["subject_id"].to_numpy()
    known = np.unique(subjects)
    parts = []
    for turn, start in enumerate(range(0, number, len(known))):
        chosen = stays.filter(pa.array(np.isin(subjects, known[: number - start])))
        ids = pa.array(chosen["subject_id"].to_numpy() + turn * 10_000_000, pa.int64())
        parts.append(chosen.set_column(0, chosen.schema.field(0), ids))
    return pa.concat_tables(parts)


def write_stays(folder: Path, origin: str, train: pa.Table, held_out: pa.Table | None = None) -> int:
    """A finished dataset of some stays; returns its events of the train split."""
    spill = EventSpill(folder.with_name(folder.name + "-spill"), 4)
    spill.add(train)
    others = set() if held_out is None else set(held_out["subject_id"].unique().to_pylist())
    if held_out is not None:
        spill.add(held_out)
    write_events(folder, spill.close(), split_of=lambda one: "held_out" if one in others else "train")
    write_dataset_metadata(folder, "bench", origin)
    write_manifest(folder)
    return len(train)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 4000, 8000], help="patients of each side")
    parser.add_argument("--task", default="icu_mortality_48h", help="a task of configs/task")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--write", type=Path, help="write the table to this Markdown file")
    chosen = parser.parse_args()
    data = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data")) / "physionet2012_meds"
    source = open_dataset(data)
    halves = pa.concat_tables([source.events("train"), source.events("tuning")]), source.events("held_out")
    unseen = np.unique(halves[1]["subject_id"].to_numpy())
    commit = head_commit()
    lines = [
        "# What a check costs",
        "",
        f"Command: `.venv/bin/python scripts/bench/check.py --write docs/results/check_cost.md`, at {commit},",
        f"on {os.cpu_count()} cores; real ICU stays (physionet2012) on both sides, a quarter as many for the control;",
        f"attacks, groups, collapse, the task {chosen.task}, {chosen.resamples} resamples, no images.",
        "",
        "| patients | events of each side | wall s | CPU s | peak GiB | wall s per 1,000 patients |",
        "|---|---|---|---|---|---|",
    ]
    folder = Path(tempfile.mkdtemp(prefix="medtwin-bench-"))
    try:
        for size in chosen.sizes:
            sides = [folder / f"{name}{size}" for name in ("real", "twins")]
            is_control = pa.array(np.isin(halves[1]["subject_id"].to_numpy(), unseen[-(size // 4) :]))
            others, control = (halves[1].filter(mask) for mask in (pc.invert(is_control), is_control))
            events = [
                write_stays(sides[0], "real", first_stays(halves[0], size), control),
                write_stays(sides[1], "synthetic", first_stays(others, size)),
            ]
            arguments = ["check", f"synthetic={sides[1]}", f"real={sides[0]}", f"out={folder / f'check{size}'}"]
            arguments += [f"task={chosen.task}", f"resamples={chosen.resamples}"]
            wall, cpu, peak = measure(arguments)
            counts = f"{events[0] / 1e6:.2f} and {events[1] / 1e6:.2f} million"
            lines.append(
                f"| {size:,} x {size:,} | {counts} | {wall:.0f} | {cpu:.0f} | {peak:.2f} | {wall / size * 1000:.1f} |"
            )
            print(lines[-1], flush=True)
    finally:
        shutil.rmtree(folder)
    if chosen.write:
        chosen.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
