#!/usr/bin/env python3
"""Collapse over generations: twins that are learned from twins alone raise the alarm, accumulating real data does not.

    .venv/bin/python scripts/bench/collapse.py [--patients 150] [--seeds 2] [--write docs/results/collapse.md]

Sources: the embedded hospital, simulated here, and physionet2012_meds, found through MEDTWIN_DATA (default
../shared/data). The generator is a first-order Markov chain (collapse_chain.py), learned anew in every generation:
from the generation before alone (replace), or from the real patients and all generations (accumulate). Independent real
draws in the place of generations say how often the alarm is false.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from collapse_chain import RecordChain, join
from head_commit import head_commit

from medtwin.check.collapse.alarm import change
from medtwin.check.collapse.perplexity import ANCHOR, costs
from medtwin.check.collapse.suite import collapse
from medtwin.check.collapse_rows import GenerationRow
from medtwin.check.gates import exact_interval
from medtwin.check.records import Records, Vocabulary, read_records, tables_to_records
from medtwin.core.dataset import open_dataset
from medtwin.core.events import events_to_table, sort_events
from medtwin.hospital import simulate_hospital

ROOT = Path(__file__).resolve().parent.parent.parent
NUM_HOSPITAL = 1300
GENERATIONS = {"replace": 6, "accumulate": 15}
SHOWN = (1, 2, 3, 4, 5, 6, 10, 15)
NUM_ANCHORS = 500
DRAWN, DRAWS_LENGTH = 100, 10
"""Patients of an independent draw, and how many stand in the place of generations."""
SOURCES = ("embedded hospital", "physionet2012")


def load(source: str, data: Path) -> Records:
    """All patients of a source."""
    if source == "physionet2012":
        dataset = open_dataset(data / "physionet2012_meds")
        return read_records(dataset, Vocabulary(), list(dataset.splits))
    events = (event for record in simulate_hospital(NUM_HOSPITAL, 1) for event in record.events)
    return tables_to_records([sort_events(events_to_table(events))], Vocabulary())


@dataclass(frozen=True)
class Loop:
    """One loop of generations, and what was found of it."""

    how: str
    seed: int
    rows: tuple[GenerationRow, ...]


def loop(everybody: Records, how: str, patients: int, seed: int) -> Loop:
    """Makes the generations and measures them."""
    rng = np.random.default_rng([seed, patients])
    order = rng.permutation(everybody.num_subjects)
    real = everybody.take(order[: 2 * patients])
    anchors = everybody.take(order[2 * patients : 2 * patients + NUM_ANCHORS])
    learned, made = [real.take(np.arange(patients))], []
    for _ in range(GENERATIONS[how]):
        made.append(RecordChain(join(learned)).draw(patients, rng))
        learned = [made[-1]] if how == "replace" else [*learned, made[-1]]
    return Loop(how, seed, collapse(real, made[-1], anchors, made[:-1], seed=seed).generations)


def false_alarms(everybody: Records, number: int) -> tuple[int, int]:
    """How many series of independent real draws raise the anchor alarm, and how many series there are."""
    raised = 0
    for seed in range(number):
        rng = np.random.default_rng([seed, 7])
        order = rng.permutation(everybody.num_subjects)
        parts = [everybody.take(order[i * DRAWN : (i + 1) * DRAWN]) for i in range(3 + DRAWS_LENGTH)]
        found = costs(join(parts[:2]), parts[2], parts[3:], rng)
        series = [one[ANCHOR] for one in found.generations]
        raised += any(change(series[0], one, place).alarm for place, one in enumerate(series[1:], start=2))
    return raised, number


def work(source: str, data: Path, patients: int, seeds: int, draws: int) -> tuple[list[Loop], tuple[int, int]]:
    """Everything of one source."""
    everybody = load(source, data)
    loops = []
    for seed in range(seeds):
        for how in GENERATIONS:
            loops.append(loop(everybody, how, patients, seed))
            print(f"{source}, {how}, seed {seed}: {time.process_time():.0f} s of CPU", flush=True)
    return loops, false_alarms(everybody, draws)


def section(source: str, loops: list[Loop], false: tuple[int, int]) -> list[str]:
    """The page's part about one source."""
    lines = [f"## {source}", ""]
    low, high = exact_interval(*false)
    lines += [
        f"Independent real draws ({DRAWN} patients each, {DRAWS_LENGTH} in the place of generations): {false[0]} of "
        f"{false[1]} series raise the anchor alarm ({low:.1%} to {high:.1%}).",
        "",
    ]
    for how in GENERATIONS:
        mine = [one for one in loops if one.how == how]
        names = list(dict.fromkeys(row.measure for row in mine[0].rows))
        lines += [f"### {how}", "", "| generation | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for generation in (0, *(one for one in SHOWN if one <= GENERATIONS[how])):
            cells = [_cell(mine, name, generation) for name in names]
            lines.append(f"| {generation or 'real'} | " + " | ".join(cells) + " |")
        firsts = [f"{name}: {_first_alarms(mine, name)}" for name in names]
        lines += ["", f"First generation with an alarm, by seed: {'; '.join(firsts)}.", ""]
    return lines


def _cell(loops: list[Loop], name: str, generation: int) -> str:
    """The mean over seeds, the mean of the intervals' ends, and how many seeds raise an alarm."""
    rows = [row for one in loops for row in one.rows if row.measure == name and row.generation == generation]
    value, low, high = (float(np.mean([getattr(row, part) for row in rows])) for part in ("value", "low", "high"))
    alarms = sum(row.alarm for row in rows)
    return f"{value:.3g} ({low:.3g} to {high:.3g})" + (f", **{alarms}/{len(rows)}**" if alarms else "")


def _first_alarms(loops: list[Loop], name: str) -> str:
    found = [[row.generation for row in one.rows if row.measure == name and row.alarm] for one in loops]
    return ", ".join(str(min(one)) if one else "none" for one in found)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=150, help="that the first generation is learned from")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--draws", type=int, default=30, help="series of independent real draws")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file")
    chosen = parser.parse_args()
    data = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data"))
    commit, start = head_commit(), time.perf_counter()
    measure = partial(work, data=data, patients=chosen.patients, seeds=chosen.seeds, draws=chosen.draws)
    with ProcessPoolExecutor(chosen.workers) as pool:
        found = dict(zip(SOURCES, pool.map(measure, SOURCES), strict=True))
    settings = f"--patients {chosen.patients} --seeds {chosen.seeds} --draws {chosen.draws}"
    lines = [
        "# Collapse over generations",
        "",
        f"Command: `.venv/bin/python scripts/bench/collapse.py {settings} --write FILE` at {commit}.",
        f"Each generation has {chosen.patients} twins of a first-order Markov chain: learned from the generation",
        f"before alone (replace), or from the {chosen.patients} real patients and all generations before (accumulate).",
        f"Anchors: {NUM_ANCHORS} other real patients. Mean over seeds of the value and of the ends of its 95 %",
        "interval, from leaving out patients in twenty groups; bold: seeds in which the generation is worse than the",
        "first beyond chance. `real`: other real patients in the place of twins. Perplexities and entropy are of",
        "tokens (a fact, a code with the fifth that its number lies in, a time), under check's own model: they say",
        "nothing but by comparison.",
        "",
    ]
    for source, (loops, false) in found.items():
        lines += section(source, loops, false)
    print("\n".join(lines))
    print(f"{time.perf_counter() - start:.0f} s")
    if chosen.write:
        chosen.write.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
