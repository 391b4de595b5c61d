#!/usr/bin/env python3
"""How often the gate `image-memory` cries wolf, and how much a model must remember to fail it.

    .venv/bin/python scripts/bench/scans_memory.py [--draws 20] [--write docs/results/scans_memory.md]

nih_cxr, found through MEDTWIN_DATA (default ../shared/data). In each draw half of the patients are the training images,
a sixth the control that the check sees, and a third stand for twins. Some of these images are then remembered: each is
half a training image and half itself, of which the search for copies finds some.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from head_commit import head_commit
from pages import said_lines, tell
from scans_copies import draw, read

from medtwin.check import profile_from
from medtwin.check.estimates import Estimate
from medtwin.check.gates import Gate, exact_interval, limit_of
from medtwin.check.image_copies import image_copies
from medtwin.check.image_features import encode_sides
from medtwin.check.image_memory import image_memory
from medtwin.check.pictures import Picture, resample
from medtwin.config import compose
from medtwin.core.verdict import SHIPPED
from medtwin.scans.features import random_encoder

SIZE, KEPT = 64, 0.5
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Of the images that stand for twins, those that are remembered."""


def remembered(
    others: Sequence[Picture], training: Sequence[Picture], share: float, rng: np.random.Generator
) -> list[Picture]:
    """The others, a share of them mixed with a training image of the same view each."""
    made = list(others)
    for place in rng.permutation(len(made))[: round(share * len(made))].tolist():
        alike = [one for one in training if one.view == made[place].view]
        source = alike[rng.integers(len(alike))]
        pixels = (KEPT * source.pixels + (1 - KEPT) * made[place].pixels).astype(np.float32)
        made[place] = replace(made[place], pixels=pixels, digest=pixels.tobytes())
    return made


def measure(pictures: Sequence[Picture], share: float, seed: int) -> tuple[Estimate, float]:
    """What image-memory says of a draw, and the share that the search for copies calls copies."""
    training, others, control = draw(pictures, seed)
    made = remembered(others, training, share, np.random.default_rng([seed, round(1000 * share)]))
    encoded = encode_sides(random_encoder(), training, made, control)
    found = image_memory(training, made, control, encoded, seed=seed, num_resamples=20)[0].estimate
    assert found is not None
    return found, image_copies(training, made, control, seed=seed)[0].share


def gates() -> dict[str, Gate]:
    """The gate in each profile that ships."""
    profiles = {
        name: profile_from(compose("check", ["synthetic=x", "real=x", f"gates={name}"])["gates"]) for name in SHIPPED
    }
    return {name: next(one for one in each.gates if one.name == "image-memory") for name, each in profiles.items()}


def page(num_draws: int, known: str = "") -> str:
    """The page as Markdown; `known` is the page as it was, of which what is written by hand stays."""
    start, judges = time.process_time(), gates()
    pictures = [replace(one, pixels=resample(one.pixels, SIZE), size=SIZE) for one in read("nih_cxr")]
    rows = []
    for share in SHARES:
        found = [measure(pictures, share, seed) for seed in range(num_draws)]
        values = [one.value for one, _ in found]
        cells = [
            f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})",
            f"{np.mean([one.baseline_worst for one, _ in found]):.2f}",
            *(_failed(gate, [one for one, _ in found]) for gate in judges.values()),
            f"{max(copies for _, copies in found):.1%}",
        ]
        rows.append(f"| {share:.0%} | {' | '.join(cells)} |")
    heads = " | ".join(f"{name}: failed" for name in judges)
    lines = [
        "# What image-memory sees",
        "",
        f"Command: `scripts/bench/scans_memory.py --draws {num_draws}`; commit {head_commit()}; "
        f"{time.process_time() - start:.0f} s of CPU. nih_cxr, {len(pictures)} images of {SIZE} x {SIZE} pixels; "
        f"{num_draws} draws of patients. Remembered images are {KEPT:.0%} a training image of another patient. Memory: "
        "mean (least to most); what chance does at most, the mean; how often each profile's gate fails, with its 95 % "
        "interval (Clopper-Pearson); most images of a draw that the search for copies calls copies.",
        "",
        *said_lines(known),
        "## By the share of images that are remembered",
        "",
        f"| remembered | memory | by chance | {heads} | copies |",
        f"|---|---|---|{'---|' * len(judges)}---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def _failed(gate: Gate, found: Sequence[Estimate]) -> str:
    hits = sum(not one.value <= limit_of(gate, one) for one in found)
    low, high = exact_interval(hits, len(found))
    return f"{hits / len(found):.0%} ({low:.0%} to {high:.0%})"


def main() -> None:
    """Measures, prints the page, and writes it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20, help="of patients, for each share")
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file; what it says by hand stays")
    chosen = parser.parse_args()
    tell(lambda known: page(chosen.draws, known), chosen.write)


if __name__ == "__main__":
    main()
