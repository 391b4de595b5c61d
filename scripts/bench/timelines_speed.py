#!/usr/bin/env python3
"""Ratios of speed and growth of memory, for scripts/bench/timelines.py: each figure from a process of its own.

Training goes through the Trainer, data included, for medtwin's module and for a plain decoder: token embedding,
learned positions, torch's TransformerEncoder under a causal mask, softmax over the vocabulary; of as many parameters,
on the same groups of events. Every figure is of one thread. As a program it is one worker: timelines_speed.py JSON.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch import Callback
from torch import Tensor, nn

from medtwin.config import build, compose, settings
from medtwin.core.dataset import open_dataset
from medtwin.core.files import read_json, write_manifest, write_table
from medtwin.pipelines.runs import TrainSettings, build_module, with_sizes
from medtwin.training.quiet import quiet

SPEED = ("training", "generation", "batch_memory", "data_memory")
ROUNDS = 3
"""Turns of training and of the plain decoder, one after the other; the best of each counts."""
WARM_STEPS, STEPS = 20, 150
MEMORY_STEPS = 25
STAYS = 200
"""Subjects of the smallest dataset whose memory is measured."""
BATCH_SETTING = "data.tokens_per_group"
MAX_MISMATCH = 0.05
NUM_HEADS = 4


class PlainDecoder(LightningModule):
    """A causal transformer over the tokens of each record, the baseline of speed.

    Args:
        num_tokens: Size of the vocabulary.
        num_positions: Events of the longest record.
        width: Of the embedding, a multiple of `NUM_HEADS`.
        num_layers: Blocks.
        optimizer: Factory, the same as medtwin's.
    """

    def __init__(self, num_tokens: int, num_positions: int, width: int, num_layers: int, optimizer: Any) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(num_tokens + 1, width), nn.Embedding(num_positions, width)
        layer = nn.TransformerEncoderLayer(
            width, NUM_HEADS, 4 * width, 0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, num_tokens)
        self.start, self.optimizer_factory = num_tokens, optimizer

    def training_step(self, batch: list[Mapping[str, Tensor]], batch_idx: int) -> Tensor:
        """Mean nats per event of some groups."""
        total, count = torch.zeros(()), 0
        for group in batch:
            token, row = group["event_token"], group["event_row"]
            size = torch.bincount(row)
            place = torch.arange(len(row)) - (torch.cumsum(size, 0) - size)[row]
            longest = int(size.max())
            target = torch.full((len(size), longest), -100)
            target[row, place] = token
            before = torch.full_like(target, self.start)
            before[:, 1:] = target[:, :-1].clamp(min=0)
            x = self.tokens(before) + self.positions(torch.arange(longest))
            mask = nn.Transformer.generate_square_subsequent_mask(longest)
            logits = self.head(self.blocks(x, mask=mask, is_causal=True))
            total = total + nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum")
            count += len(token)
        return total / count

    def configure_optimizers(self) -> Any:
        """The optimizer alone."""
        return self.optimizer_factory(self.parameters())


class Clock(Callback):
    """Counts events and seconds of the steps after the first ones.

    Args:
        warm: Steps that do not count.
    """

    def __init__(self, warm: int) -> None:
        self.warm, self.events, self.seconds, self.cpu_seconds = warm, 0, 0.0, 0.0
        self.start, self.step = (0.0, 0.0), 0

    def on_train_batch_end(self, trainer: Trainer, *words: Any) -> None:
        """Starts after the warm steps; then adds."""
        self.step += 1
        if self.step == self.warm:
            self.start = time.perf_counter(), time.process_time()
        elif self.step > self.warm:
            self.events += num_events(words[2])
            self.seconds, self.cpu_seconds = time.perf_counter() - self.start[0], time.process_time() - self.start[1]


def num_events(batch: Sequence[Mapping[str, Tensor]]) -> int:
    """Events of some groups."""
    return sum(int((group["event_token"] >= 0).sum()) for group in batch)


def trainable(module: nn.Module) -> int:
    """Parameters that learn."""
    return sum(one.numel() for one in module.parameters() if one.requires_grad)


def plain_size(num_tokens: int, num_positions: int, width: int, num_layers: int) -> int:
    """Parameters of a `PlainDecoder`.

    >>> plain_size(10, 6, 8, 2) == trainable(PlainDecoder(10, 6, 8, 2, None))
    True
    """
    block = 12 * width**2 + 13 * width
    ends = (num_tokens + 1 + num_positions) * width + num_tokens * (width + 1) + 2 * width
    return num_layers * block + ends


def plain_shape(num_tokens: int, num_positions: int, parameters: int, num_layers: int) -> tuple[int, int]:
    """Width and blocks of the plain decoder nearest in parameters; blocks are added or left out where width cannot fit.

    Raises:
        ValueError: If none is within 5 %.
    """
    widths = range(2 * NUM_HEADS, 1025, NUM_HEADS)
    layers = sorted(range(1, 13), key=lambda number: abs(number - num_layers))
    for number in layers:
        width = min(widths, key=lambda one: abs(plain_size(num_tokens, num_positions, one, number) - parameters))
        if abs(plain_size(num_tokens, num_positions, width, number) / parameters - 1) <= MAX_MISMATCH:
            return width, number
    raise ValueError(f"no plain decoder has {parameters:,} parameters to within {MAX_MISMATCH:.0%}")


@dataclass(frozen=True)
class Task:
    """One worker's task.

    Attributes:
        what: `ours`, `plain` or `data` (the data alone).
        dataset, cache: The data, and where its sequences are kept.
        words: Overrides of `medtwin train`. warm, steps: Of training.
    """

    what: str
    dataset: str
    cache: str
    words: tuple[str, ...]
    warm: int = WARM_STEPS
    steps: int = STEPS


def work(task: Task) -> dict[str, float]:
    """Trains as the task says; events a second, parameters, and peak memory in GiB before and with training."""
    torch.set_num_threads(1)
    words = [f"dataset={task.dataset}", f"out={task.cache}/run", *task.words]
    chosen = settings(TrainSettings, compose("train", words))
    cache = Path(task.cache)
    cache.mkdir(parents=True, exist_ok=True)
    data: Any = build(chosen.data, "data")
    data.attach(open_dataset(chosen.dataset), seed=0, cache=cache, latents=None)
    filled = with_sizes(chosen, data.sizes)
    ours = build_module({name: getattr(filled, name) for name in ("model", "net", "optimizer")})
    module = ours if task.what == "ours" else _plain(data, filled, trainable(ours))
    before = _peak_gib()
    clock = Clock(task.warm)
    trainer = Trainer(
        max_steps=task.warm + task.steps,
        max_epochs=-1,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        callbacks=[clock],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
        default_root_dir=cache,
    )
    with quiet():
        trainer.fit(module, datamodule=cast(LightningDataModule, data))
    return {
        "events": clock.events,
        "events_per_s": clock.events / clock.seconds,
        "events_per_cpu_s": clock.events / clock.cpu_seconds,
        "parameters": trainable(module),
        "before_gib": before,
        "peak_gib": _peak_gib(),
    }


def _plain(data: Any, filled: TrainSettings, parameters: int) -> PlainDecoder:
    longest, num_tokens = 0, 0
    for batch in data.train_dataloader():
        for group in batch:
            longest = max(longest, int(torch.bincount(group["event_row"]).max()))
            num_tokens = max(num_tokens, int(group["event_token"].max()) + 1)
    width, layers = plain_shape(num_tokens, longest, parameters, int(filled.net.get("num_layers", 2)))
    torch.manual_seed(0)
    return PlainDecoder(num_tokens, longest, width, layers, build(filled.optimizer, "optimizer"))


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _worker(task: Task) -> dict[str, float]:
    """The task in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), json.dumps(task.__dict__)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"failed: {task}\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure_speed(dataset: Path, out: Path, only: Sequence[str], run: Path | None, words: Sequence[str]) -> None:
    """Measures, and writes speed.json beside what other parts left there; a part that is there already is replaced."""
    out.mkdir(parents=True, exist_ok=True)
    folder = out / "speed"
    shutil.rmtree(folder, ignore_errors=True)
    known = read_json(out / "speed.json")["tables"] if (out / "speed.json").is_file() else {}
    parts = {
        "training": lambda: _training(dataset, folder, tuple(words)),
        "generation": lambda: _generation(out, run, folder),
        "batch_memory": lambda: _batch_memory(dataset, folder, tuple(words)),
        "data_memory": lambda: _data_memory(dataset, folder, tuple(words)),
    }
    for name in only:
        title, table = parts[name]()
        known[title] = table
        print(f"{title}\n{json.dumps(table, indent=1)}", flush=True)
        machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
        (out / "speed.json").write_text(json.dumps({"machine": machine, "tables": known}, indent=1))
    shutil.rmtree(folder, ignore_errors=True)


Titled = tuple[str, dict[str, Any]]


def _training(dataset: Path, folder: Path, words: tuple[str, ...]) -> Titled:
    cache = str(folder / "cache")
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    for _ in range(ROUNDS):
        for what, found in runs.items():
            found.append(_worker(Task(what, str(dataset), cache, words)))
    best = {what: max(found, key=lambda one: one["events_per_cpu_s"]) for what, found in runs.items()}
    titles = {"ours": "medtwin", "plain": "plain decoder"}
    rows = [
        [
            titles[what],
            f"{one['parameters']:,.0f}",
            f"{one['events_per_s']:,.0f}",
            f"{one['events_per_cpu_s']:,.0f}",
            f"{one['events_per_cpu_s'] / best['plain']['events_per_cpu_s']:.2f}",
        ]
        for what, one in best.items()
    ]
    header = ["", "parameters that learn", "events a second", "events a CPU second", "ratio (goal 0.85)"]
    return f"Training, data included (best of {ROUNDS} turns)", {"header": header, "rows": rows}


def _generation(out: Path, run: Path | None, folder: Path) -> Titled:
    """The verb on the given run, and what `scores` measured of TabularARGN."""
    rows = []
    peer = [json.loads(path.read_text()) for path in sorted(out.glob("tabular_argn*/seed*/record.json"))]
    speeds = [one["events"] / one["sample"]["cpu_s"] for one in peer]
    base = max(speeds) if speeds else None
    if run is not None:
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "medtwin", "generate", f"timelines={run}", "n=640", f"out={folder / 'twins'}"]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
        events = sum(len(table) for table in open_dataset(folder / "twins").iter_events())
        ratio = "" if base is None else f"{events / cpu / base:.2f}"
        rows.append(["medtwin generate, 640 twins, the whole verb", f"{events:,}", f"{events / cpu:,.0f}", ratio])
    for one, speed in zip(peer, speeds, strict=True):
        rows.append(
            ["TabularARGN, sampling alone", f"{one['events']:,}", f"{speed:,.0f}", "1" if speed == base else ""]
        )
    header = ["", "events", "events a CPU second", "ratio to TabularARGN (goal 2)"]
    return "Generation", {"header": header, "rows": rows}


def _batch_memory(dataset: Path, folder: Path, words: tuple[str, ...]) -> Titled:
    group, name = BATCH_SETTING.split(".")
    base = int(compose("train", ["dataset=x", *words])[group][name])
    rows = []
    for times in (1, 2, 4):
        setting = f"{BATCH_SETTING}={base * times}"
        cache = str(folder / f"batch{times}")
        found = _worker(Task("ours", str(dataset), cache, (*words, setting), 1, MEMORY_STEPS))
        again = _worker(Task("ours", str(dataset), cache, (*words, setting), 1, MEMORY_STEPS))  # the data are there
        step = again["peak_gib"] - again["before_gib"]
        cells = (found["peak_gib"], again["before_gib"], again["peak_gib"], step)
        rows.append([setting, *(f"{one:.3f}" for one in cells)])
    header = [
        "",
        "peak with preparing the data, GiB",
        "before the first step",
        "peak of training",
        "of that, the steps",
    ]
    return "Memory by size of the batch (linear)", {"header": header, "rows": rows}


def _data_memory(dataset: Path, folder: Path, words: tuple[str, ...]) -> Titled:
    rows = []
    for times in (1, 4, 16):
        copy = folder / f"data{times}"
        events = repeat_dataset(dataset, copy, times)
        cache = str(folder / f"cache{times}")
        found = _worker(Task("ours", str(copy), cache, words, 1, MEMORY_STEPS))
        again = _worker(Task("ours", str(copy), cache, words, 1, MEMORY_STEPS))
        cells = (found["peak_gib"], again["before_gib"], again["peak_gib"])
        rows.append([f"{times} shards", f"{times * STAYS:,}", f"{events:,}", *(f"{one:.3f}" for one in cells)])
        shutil.rmtree(copy)
        shutil.rmtree(cache)
    peaks = ["peak with preparing the data, GiB", "before the first step", "peak of training"]
    header = ["train split", "subjects", "events", *peaks]
    return "Memory by size of the data (flat)", {"header": header, "rows": rows}


def repeat_dataset(dataset: Path, folder: Path, times: int) -> int:
    """Writes the first `STAYS` training subjects so many times under new ids, a shard each; returns the events."""
    table = next(open_dataset(dataset).iter_events("train"))
    known = pc.unique(table["subject_id"])[:STAYS]
    chosen = table.filter(pc.is_in(table["subject_id"], value_set=known))
    subjects, events = [], 0
    for number in range(times):
        ids = pc.add(chosen["subject_id"], pa.scalar(number * 10_000_000, pa.int64()))
        shard = chosen.set_column(0, chosen.schema.field(0), ids)
        write_table(folder / "data" / "train" / f"{number:05d}.parquet", shard)
        subjects += pc.unique(ids).to_pylist()
        events += len(shard)
    shutil.copytree(dataset / "metadata", folder / "metadata")
    splits = pa.table(
        {"subject_id": subjects, "split": ["train"] * len(subjects)},
        schema=pa.schema([pa.field("subject_id", pa.int64()), pa.field("split", pa.string())]),
    )
    write_table(folder / "metadata" / "subject_splits.parquet", splits)
    write_manifest(folder)
    return events


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(work(Task(**{**given, "words": tuple(given["words"])}))))
