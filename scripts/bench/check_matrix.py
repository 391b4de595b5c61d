#!/usr/bin/env python3
"""The matrix of all measures of records and all faults, and what real patients reach against real patients.

    .venv/bin/python scripts/bench/check_matrix.py [--write docs/results/check.md]

First the embedded hospital (no data needed), then physionet2012_meds, found through MEDTWIN_DATA (default
../shared/data). Writes every number with what 95 % of real-versus-real comparisons stay within; what moved is bold.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from head_commit import head_commit

from medtwin.check import Findings, Options, compare_records, stratifications_from
from medtwin.check.image_controls import IMAGE_BREAKS
from medtwin.check.image_findings import compare_images
from medtwin.check.matrix import FRESH, MARGIN, Cell, cells_of, fault_matrix
from medtwin.check.pictures import Picture
from medtwin.check.records import Records, Vocabulary, read_records, tables_to_records
from medtwin.config import compose
from medtwin.core.codes import CHILD_PREFIX
from medtwin.core.dataset import open_dataset
from medtwin.core.events import events_to_table, sort_events
from medtwin.hospital import draw_picture, simulate_hospital
from medtwin.hospital.thorax import Radiograph

SIZE = 64
ROOT = Path(__file__).resolve().parent.parent.parent


def hospital(number: int, seed: int, words: Vocabulary) -> Records:
    """Patients of the embedded hospital."""
    events = (event for record in simulate_hospital(number, seed) for event in record.events)
    table: pa.Table = sort_events(events_to_table(one for one in events if not one.code.startswith(CHILD_PREFIX)))
    return tables_to_records([table], words)


def radiographs(number: int, seed: int) -> list[Picture]:
    """The radiographs of the embedded hospital's patients, averaged down to 64 x 64."""
    found = []
    for record in simulate_hospital(number, seed):
        for order in record.image_orders:
            drawn = draw_picture(order, seed)
            if isinstance(drawn, Radiograph):
                step = drawn.pixels.shape[0] // SIZE
                unit = drawn.pixels.astype(np.float32) / (2**drawn.bits_stored - 1)
                small = unit.reshape(SIZE, step, SIZE, step).mean(axis=(1, 3))
                known = drawn.view, order.sex, order.age_years, order.labels
                subject = seed * 1_000_000 + order.index
                found.append(Picture(subject, f"CR {drawn.view}", small, small.tobytes(), SIZE, *known))
    return found


def image_cells() -> list[Cell]:
    """Every measure of images under every fault."""
    from medtwin.scans.features import random_encoder

    real, fresh, control = (radiographs(number, seed) for number, seed in ((600, 1), (500, 2), (300, 3)))
    broken = {FRESH: fresh}
    broken.update({name: how(fresh, real, np.random.default_rng(0)) for name, how in IMAGE_BREAKS.items()})
    cells: list[Cell] = []
    for name, twins in broken.items():
        one = compare_images(real, twins, control, encode=random_encoder(), seed=0, num_resamples=60)
        cells += cells_of(name, Findings(600, 500, 300, one.measures, copies=one.copies))
    return cells


def brief(value: float | None) -> str:
    """Two digits."""
    return "-" if value is None else f"{value:.2g}"


def table_of(cells: Sequence[Cell]) -> list[str]:
    """The matrix as a table of Markdown."""
    faults = list(dict.fromkeys(cell.fault for cell in cells))
    found = {(cell.measure, cell.fault): cell for cell in cells}
    lines = ["| measure | real vs real | " + " | ".join(faults) + " |", "|---|---|" + "---|" * len(faults)]
    for name in dict.fromkeys(cell.measure for cell in cells):
        row = [found[name, fault] for fault in faults]
        if all(cell.value is None for cell in row):
            continue  # nothing of the kind in this data
        numbers = [f"**{brief(cell.value)}**" if cell.moved else brief(cell.value) for cell in row]
        lines.append(f"| `{name}` | {brief(row[0].baseline_worst)} | " + " | ".join(numbers) + " |")
    return lines


def ceiling_of(findings: Findings) -> list[str]:
    """What one real draw reaches against another, as a table of Markdown."""
    lines = ["| measure | what | value | 95 % interval | halves: mean | halves: 95 % |", "|---|---|---|---|---|---|"]
    for one in findings.measures:
        if (estimate := one.estimate) is None:
            continue  # nothing of the kind in this data
        interval = f"{estimate.low:.3g} to {estimate.high:.3g}"
        numbers = f"{estimate.value:.3g} | {interval} | {estimate.baseline:.3g} | {estimate.baseline_worst:.3g}"
        lines.append(f"| `{one.name}` | {one.title} | {numbers} |")
    return lines


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=1000, help="of physionet2012, on each side of the matrix")
    parser.add_argument("--write", type=Path, help="write the tables to this Markdown file")
    chosen = parser.parse_args()
    strata = stratifications_from(compose("check", ["synthetic=x", "real=x"])["strata"])
    options = Options(0, 60, strata=strata)
    commit = head_commit()
    lines = [
        "# What the measures of `check` see",
        "",
        f"Command: `.venv/bin/python scripts/bench/check_matrix.py --write docs/results/check.md` at {commit}.",
        "",
        "Each column breaks independent real patients in one way (medtwin/check/controls.py) and measures them as if",
        f"they were twins; `{FRESH}` breaks nothing. Lower is better throughout: of measures where more is",
        "better, 1 minus the value stands here. `real vs real`: what 95 % of comparisons of real halves stay within.",
        f"**Bold**: moved, that is beyond {MARGIN} times that. tests/check/test_matrix.py says what must and",
        "what must not.",
        "",
        "## The embedded hospital, 240 and 240 patients",
        "",
    ]
    words = Vocabulary()
    real, fresh, control = (hospital(number, seed, words) for number, seed in ((240, 1), (240, 2), (80, 3)))
    lines += table_of(fault_matrix(real, fresh, control, options))
    lines += ["", "## Radiographs of the embedded hospital (600 and 500 patients), random encoder", ""]
    lines += table_of(image_cells())
    data = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data")) / "physionet2012_meds"
    if data.is_dir():
        source, words = open_dataset(data), Vocabulary()
        train = read_records(source, words, ["train"])
        order = np.random.default_rng(0).permutation(train.num_subjects)
        number = chosen.patients
        bounds = ((0, number), (number, 2 * number), (2 * number, 2 * number + number // 2))
        sides = [train.take(np.sort(order[start:stop])) for start, stop in bounds]
        lines += ["", f"## Real ICU stays (physionet2012, train), {number:,} and {number:,}", ""]
        lines += table_of(fault_matrix(*sides, options))
        held_out = read_records(source, words, ["held_out"])
        lines += [
            "",
            "## The ceiling: real ICU stays against real ICU stays of a second draw",
            "",
            f"physionet2012: train ({train.num_subjects:,} stays) as the reference, held_out",
            f"({held_out.num_subjects:,}) as if they were twins. No generator can be expected to do better. The two",
            "are different draws of hospital stays: lengths and rates differ by more than chance, as the measures say.",
            "",
            *ceiling_of(compare_records(train, held_out, None, Options(0, 200, strata=strata))),
        ]
    print("\n".join(lines))
    if chosen.write:
        chosen.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
