#!/usr/bin/env python3
"""Times writing FHIR from a dataset: events to resources, checking them, serialising them, and all of it in files.

    .venv/bin/python scripts/bench/fhir_write.py DATASET... [--profile us-core-6.1] [--workers 2] [--repeat 2]

A dataset is what `medtwin ingest source.fhir=...` makes of the MIMIC-IV demo or of Synthea. Every figure comes from a
process of its own and is given per CPU second (user + system, the best of the repeats), which other work on the machine
hardly changes; "files" is the whole of it as `medtwin export` does it, in parts by worker, and is given per wall second
and CPU second, with the memory of the largest process.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from medtwin.core.dataset import open_dataset
from medtwin.core.images import table_to_images
from medtwin.core.shards import map_shards
from medtwin.fhir.export import Shard, Written, join_parts, split_shard, write_shard
from medtwin.fhir.validate import Validation
from medtwin.fhir.write import table_to_resources
from medtwin.fhir.writing.context import ExportContext

STAGES = ("write", "check", "serialise")


@dataclass(frozen=True)
class Task:
    """A dataset and how it is to be written."""

    dataset: Path
    profile: Any
    stage: str


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    """User and system seconds so far."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def peak_mib() -> float:
    """Peak memory of the largest of this process and its finished children."""
    sizes = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(sizes) / 1024


def check(resources: list[dict[str, Any]]) -> dict[str, int]:
    """The findings of the layers that run on every resource, by rule."""
    book = Validation(layers=("schema", "rules"))
    for each in resources:
        book.add(each)
    return {f"{key[1]} ({key[2]})": count for key, count in book.counts.items()}


def run_stage(task: Task) -> tuple[int, float, float]:
    """Resources, CPU seconds of the stage alone, and peak MiB."""
    pa.set_cpu_count(1)
    number, spent = 0, 0.0
    for resources in _subjects(task):
        number += len(resources)
        start = cpu_seconds()
        if task.stage == "check":
            check(resources)
        elif task.stage == "serialise":
            for each in resources:
                orjson.dumps(each)
        spent += cpu_seconds() - start
    if task.stage == "write":
        start = cpu_seconds()
        for _ in _subjects(task):
            pass
        spent = cpu_seconds() - start
    return number, spent, peak_mib()


def _subjects(task: Task) -> Iterator[list[dict[str, Any]]]:
    dataset = open_dataset(task.dataset)
    context = ExportContext(dataset.origin, profile=task.profile)
    for table in dataset.iter_events():
        for subject in table_to_resources(table, context=context):
            yield subject.resources


def run_files(task: Task, num_workers: int) -> tuple[Written, float, float, float]:
    """What was written, wall and CPU seconds, and the peak MiB of the largest process."""
    dataset = open_dataset(task.dataset)
    context = ExportContext(dataset.origin, profile=task.profile)
    images = tuple(table_to_images(dataset.images()))
    folder = Path(tempfile.mkdtemp(prefix="medtwin-bench-"))
    try:
        start, before = time.perf_counter(), _all_cpu()
        pieces = [piece for path in dataset.shards() for piece in split_shard(path)]
        shards = [Shard(at, piece, folder, context, images, check=check) for at, piece in enumerate(pieces)]
        total = Written()
        for part in map_shards(write_shard, shards, num_workers=num_workers):
            total.add(part)
        join_parts(folder)
        return total, time.perf_counter() - start, _all_cpu() - before, peak_mib()
    finally:
        shutil.rmtree(folder)


def _all_cpu() -> float:
    return cpu_seconds() + cpu_seconds(resource.RUSAGE_CHILDREN)


def _in_process(function: Any, *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Prints a table for each dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--profile", default="r4")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    chosen = parser.parse_args()
    for path in chosen.datasets:
        print(f"{path} ({chosen.profile})")
        print("| stage | resources | resources per CPU second | peak MiB |\n|---|---:|---:|---:|")
        for stage in STAGES:
            runs = [_in_process(run_stage, Task(path, chosen.profile, stage)) for _ in range(chosen.repeat)]
            number, spent, peak = min(runs, key=lambda run: run[1])
            print(f"| {stage} | {number:,} | {number / spent:,.0f} | {peak:,.0f} |", flush=True)
        for workers in dict.fromkeys((1, chosen.workers)):
            task = Task(path, chosen.profile, "files")
            runs = [_in_process(run_files, task, workers) for _ in range(chosen.repeat)]
            total, wall, spent, peak = min(runs, key=lambda run: run[2])
            number = total.written.total()
            rates = f"{number / spent:,.0f}, wall {number / wall:,.0f}"
            print(f"| files, {workers} worker(s) | {number:,} | {rates} | {peak:,.0f} |", flush=True)
        print(f"declared: {dict(total.declared)}\nnot carried: {dict(total.not_carried)}\nflags: {dict(total.flags)}")
        print(f"found: {dict(total.found)}")


if __name__ == "__main__":
    main()
