#!/usr/bin/env python3
"""Benchmarks of images, each printing its own table.

  .venv/bin/python scripts/bench/scans.py samplers [--seeds 5] [--write docs/results/scans_samplers.md]
  .venv/bin/python scripts/bench/scans.py few-steps [--steps 1000] [--seeds 3] [--write docs/results/scans_few_steps.md]
  .venv/bin/python scripts/bench/scans.py volumes [--steps 600] [--minutes 12] [--write docs/results/scans_volumes.md]
  .venv/bin/python scripts/bench/scans.py speed [--turns 8] [--write docs/results/scans_speed.md]

samplers   every sampler with an exact denoiser and no network, beside MONAI's schedulers in the same run
few-steps  the few-step model beside the denoiser that it starts from, on images whose law is known
volumes    a small volume model, on bodies whose geometry is known
speed      a step of training and an image, beside MONAI's network of as many operations
"""

from __future__ import annotations

import argparse
from pathlib import Path

import scans_few_steps
import scans_samplers
import scans_speed
import scans_volumes
from pages import read_page


def main() -> None:
    """Measures what was asked for, prints it, and writes it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["samplers", "few-steps", "volumes", "speed"])
    parser.add_argument("--seeds", type=int, default=5, help="runs with noise of their own")
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--turns", type=int, default=8, help="of each case whose speed is measured")
    parser.add_argument("--minutes", type=float, help="after which training of volumes ends, if its steps have not")
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file; what it says by hand stays")
    chosen = parser.parse_args()
    known = read_page(chosen.write)
    if chosen.part == "samplers":
        text = scans_samplers.page(chosen.seeds, known)
    elif chosen.part == "few-steps":
        text = scans_few_steps.page(chosen.steps, chosen.seeds, known)
    elif chosen.part == "speed":
        text = scans_speed.page(chosen.turns, known)
    else:
        text = scans_volumes.page(chosen.steps, chosen.minutes, known)
    print(text)
    if chosen.write:
        chosen.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
