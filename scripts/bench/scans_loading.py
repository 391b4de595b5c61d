"""Does reading images ever hold up training? From DICOM once, then from the cache, beside the step that they are for.

  .venv/bin/python scripts/bench/scans_loading.py --dataset my/cxr [--write docs/results/scans_loading.md]

Each size has a cache of its own, empty at first. The step is that of experiment=scans_64 at that size, with one thread,
after one that is not counted; batches are those of training, balanced and in its order.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time
from pathlib import Path

import torch
from head_commit import head_commit
from pages import said_lines, tell
from scans_speed import step_of

from medtwin.config import build, compose
from medtwin.core.dataset import open_dataset
from medtwin.scans.data import ScanDataModule
from medtwin.scans.module import ScanDiffusionModule

SIZES, BATCH, BATCHES, STEPS = (64, 128, 256), 16, 40, 3


def attached(dataset: Path, size: int, cache: Path) -> tuple[ScanDataModule, float]:
    """The images, and the seconds that reading them took: from DICOM where the cache has none."""
    start = time.perf_counter()
    data = ScanDataModule(batch_size=BATCH, size=size, balance=0.6)
    data.attach(open_dataset(dataset), seed=0, cache=cache)
    return data, time.perf_counter() - start


def seconds_of_a_batch(data: ScanDataModule) -> float:
    """Of a training batch, the mean over `BATCHES`."""
    loader = itertools.chain.from_iterable(data.train_dataloader() for _ in itertools.count())
    start = time.perf_counter()
    for _ in itertools.islice(loader, BATCHES):
        pass
    return (time.perf_counter() - start) / BATCHES


def seconds_of_a_step(data: ScanDataModule, precision: str) -> float:
    """Of a step with a batch that is there already."""
    settings = compose("train", ["experiment=scans_64"])
    net, training = build(settings["net"]), build(settings["model"]["training"])
    module = ScanDiffusionModule(net, torch.optim.AdamW, **data.sizes["model"], rank=48, training=training)
    module.measure(data.images_to_measure())
    step = step_of(module, next(iter(data.train_dataloader())), precision)
    step()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) / STEPS


def page(dataset: Path, known: str = "") -> str:
    """The page as Markdown; `known` is the page as it was, of which what is written by hand stays."""
    torch.set_num_threads(1)
    rows, count = [], 0
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            data, first = attached(dataset, size, Path(folder))
            data, again = attached(dataset, size, Path(folder))
            megabytes = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
            count = sum(data.num_images.values())
            batch, step = seconds_of_a_batch(data), seconds_of_a_step(data, "bf16")
        image = f"{1000 * first / count:.2f} | {1000 * again / count:.2f}"
        rows.append(
            f"| {size} | {image} | {megabytes:.0f} | {1000 * batch:.2f} | {1000 * step:.0f} | {batch / step:.2%} |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = [
        "# Reading images for training",
        "",
        f"Command: `scripts/bench/scans_loading.py` on nih_cxr; commit {head_commit()}; {count} images, batches of "
        f"{BATCH}, one thread, peak memory {peak:.1f} GiB (of the steps at {SIZES[-1]} pixels). Steps in bf16.",
        "",
        *said_lines(known),
        "## Times",
        "",
        "| rows and columns | an image from DICOM, ms | an image that is cached, ms | cache, MB | a batch, ms "
        "| a step, ms | batch of step |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints the page, and writes it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="directory of medtwin ingest, with radiographs")
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file; what it says by hand stays")
    chosen = parser.parse_args()
    tell(lambda known: page(chosen.dataset, known), chosen.write)


if __name__ == "__main__":
    main()
