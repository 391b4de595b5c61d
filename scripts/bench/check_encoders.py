#!/usr/bin/env python3
"""What the encoders of images see of real radiographs, and how often an image is called a copy that is none.

    .venv/bin/python scripts/bench/check_encoders.py [--write docs/results/encoders.md]

The source is nih_cxr, found through MEDTWIN_DATA (default ../shared/data). Half of its patients are the reference, from
which encoders learn; a third stand for the twins, the rest is the control; other draws of patients are for the copies.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from head_commit import head_commit
from pages import read_page, said_lines

from medtwin.check.image_controls import IMAGE_BREAKS
from medtwin.check.image_copies import image_copies
from medtwin.check.image_findings import compare_images
from medtwin.check.matrix import FRESH, has_moved
from medtwin.check.pictures import Picture, read_pictures, stacked
from medtwin.core.dataset import open_dataset
from medtwin.pipelines.check_images import make_encoder
from medtwin.scans.features import contrastive_encoder, random_encoder

ROOT = Path(__file__).resolve().parent.parent.parent
MEASURES = ("images.frechet", "images.kid", "images.coverage", "images.c2st", "images.tstr", "images.adherence")
SIZE = 64
SPLITS = ("train", "tuning", "held_out")
"""The reference, what stands for twins, and the control."""


def three_parts(pictures: Sequence[Picture], seed: int) -> list[list[Picture]]:
    """Half, a third and a sixth of the patients."""
    subjects = np.unique([one.subject_id for one in pictures])
    order = np.random.default_rng(seed).permutation(subjects)
    bounds = np.cumsum([0, len(order) // 2, len(order) // 3, len(order)])
    parts = [set(order[start:stop].tolist()) for start, stop in pairwise(bounds)]
    return [[one for one in pictures if one.subject_id in part] for part in parts]


def _medtwin(*given: str) -> None:
    subprocess.run([sys.executable, "-m", "medtwin", *given], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10, help="of patients, for the copies")
    parser.add_argument("--write", type=Path, help="write the tables to this Markdown file")
    chosen = parser.parse_args()
    known = read_page(chosen.write)
    data = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data")) / "nih_cxr"
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"source.images={data / 'png256'}", f"source.labels={data / 'labels.csv'}", "labels=nih_cxr"]
        _medtwin("ingest", *settings, "splits.tuning=0.333", "splits.held_out=0.167", f"out={folder}/nih")
        dataset = open_dataset(Path(folder) / "nih")
        real, fresh, control = (list(read_pictures(dataset, [split], seed=0)) for split in SPLITS)
        last = ("callbacks.early_stopping=null", "callbacks.checkpoints.monitor=null")  # nothing chosen by "twins"
        _medtwin(
            "train", "model=scan_encoder", f"dataset={folder}/nih", f"data.size={SIZE}", *last, f"out={folder}/run"
        )
        learned = make_encoder(f"{folder}/run", dataset, seed=0)
    assert learned is not None
    pictures = [*real, *fresh, *control]
    encoders = {
        "random": random_encoder(),
        "contrastive": contrastive_encoder(stacked(real, SIZE), seed=0),
        "scan_encoder": learned,
    }
    sides = {FRESH: fresh}
    sides.update({name: how(fresh, real, np.random.default_rng(0)) for name, how in IMAGE_BREAKS.items()})
    lines = [
        "# What the encoders of images see",
        "",
        "Command: `.venv/bin/python scripts/bench/check_encoders.py --write docs/results/encoders.md`",
        f"at {head_commit()}. NIH radiographs: {len(real)} as the reference, {len(fresh)} others in the place of",
        f"twins, {len(control)} as the control. Value / what 95 % of comparisons of real halves stay within (of",
        "coverage, 1 minus both); **bold**: beyond 1.5 times that. An area under ROC of 0.5 is chance.",
        "",
        *said_lines(known),
        "## Breaks, and what each measure says of them",
        "",
        "| encoder | measure | " + " | ".join(sides) + " |",
        "|---|---|" + "---|" * len(sides),
    ]
    for encoder, encode in encoders.items():
        cells: dict[str, list[str]] = {name: [] for name in MEASURES}
        for twins in sides.values():
            found = compare_images(real, twins, control, encode=encode, seed=0, num_resamples=40)
            measures = {one.name: one for one in found.measures}
            for name in MEASURES:
                estimate, better = measures[name].estimate, measures[name].better
                if estimate is not None and better == "higher":
                    estimate = estimate.complement()
                text = "-" if estimate is None else f"{estimate.value:.2g} / {estimate.baseline_worst:.2g}"
                is_beyond = estimate is not None and has_moved(estimate)
                cells[name].append(f"**{text}**" if is_beyond else text)
        lines += [f"| {encoder} | `{name}` | " + " | ".join(row) + " |" for name, row in cells.items()]
    counts = [image_copies(*three_parts(pictures, 200 + number), seed=number)[0] for number in range(chosen.draws)]
    called, looked = sum(row.num_copies for row in counts), sum(row.num_checked for row in counts)
    most = max(row.share for row in counts)
    lines += [
        "",
        f"Images of real patients that `copies.images_near` calls copies of others', over {chosen.draws} draws of",
        f"patients that had no part in setting its limit: {called} of {looked:,}, at most {most:.1%} of one draw.",
    ]
    print("\n".join(lines))
    if chosen.write:
        chosen.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
