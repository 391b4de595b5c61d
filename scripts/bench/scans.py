#!/usr/bin/env python3
"""Benchmarks of images, each printing its own table.

  .venv/bin/python scripts/bench/scans.py samplers [--seeds 5] [--write docs/results/scans_samplers.md]

samplers   every sampler with an exact denoiser and no network, beside MONAI's schedulers in the same run
"""

from __future__ import annotations

import argparse
from pathlib import Path

import scans_samplers


def main() -> None:
    """Measures what was asked for, prints it, and writes it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["samplers"])
    parser.add_argument("--seeds", type=int, default=5, help="runs with noise of their own")
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file; what it says by hand stays")
    chosen = parser.parse_args()
    known = chosen.write.read_text(encoding="utf-8") if chosen.write and chosen.write.is_file() else ""
    text = scans_samplers.page(chosen.seeds, known)
    print(text)
    if chosen.write:
        chosen.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
