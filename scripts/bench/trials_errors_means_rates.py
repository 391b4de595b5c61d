#!/usr/bin/env python3
"""Type I error and power of every test of means, rates, counts and repeated measures, in every design, by simulation.

    OMP_NUM_THREADS=1 .venv/bin/python scripts/bench/trials_errors_means_rates.py [--trials 100000] [--only REGEX]
        [--seed 1] [--jobs 1] [--state FILE] [--independent 20000] [--write docs/results/trials_errors_means_rates.md]

A row is a law of patients, a test and a design. An error rate must lie within 0.003 of its nominal value (4
Monte-Carlo standard errors with fewer trials), a power within 4 standard errors of what the room's design says. A row
that does not must lie within 4 standard errors of a value that does not come from the batched kernels: an enumeration
of all tables or ranks, an integral, draws from the joint law of t statistics, or R's own functions on R's own patients.
A row that has such a value must agree with it in any case. The exit status is 1 if a row does not hold. Finished
blocks, of R too, are kept in the state file and not simulated again.
"""

from __future__ import annotations

import argparse
import math
import platform
import re
import sys
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import scipy
from head_commit import head_commit
from tqdm import tqdm
from trials_errors_designs import Design, designs
from trials_errors_families import Family, families
from trials_errors_independent import Counts, Independent, from_law, from_r, rejections
from trials_errors_prognosis import prognosis_section
from trials_errors_rates import do_agree, nominal_tolerance, standard_error
from trials_errors_speed import speed_section
from trials_errors_store import Store

from medtwin.core.shards import map_shards

ROOT = Path(__file__).resolve().parent.parent.parent
LEGEND = """\
One-sided alpha 0.025. Looks see the first third, half, two thirds and all of the patients; futility bounds are obeyed.
Trials of a family are the same for all its tests and designs, so that its rows err together.

*Holds*: within 0.003 of the nominal error (4 Monte-Carlo standard errors, ±, of fewer than 100,000 trials), or within 4
standard errors of the power that the room's design says, which is that of a z statistic. Otherwise the large-sample
test or the design's approximation is off, and the simulation has to agree within 4 standard errors with what does not
come from its kernels: *as exact*, an enumeration of all tables or ranks, or an integral; *as law*, t statistics drawn
from their joint law; *as R*, R's own functions on R's own patients. A row with such a value has to agree with it even
where it holds.
"""
BLOCK, ERRORS = 5000, 4.0


@dataclass(frozen=True)
class Row:
    """A measured error rate or power beside what is known of it.

    Attributes:
        expected: By the design. exact: By an enumeration or integral.
        independent: Rate and trials of another programme. source: Which: law or R.
    """

    family: str
    is_null: bool
    test: str
    design: str
    trials: int
    rate: float
    expected: float | None
    exact: float | None = None
    independent: tuple[float, int] | None = None
    source: str = ""

    @property
    def error(self) -> float:
        """Monte-Carlo standard error."""
        return standard_error(self.rate, self.trials)

    @property
    def verdict(self) -> str:
        """Holds, and by what; or MISSES; or a dash where nothing is known."""
        if self.exact is not None and abs(self.rate - self.exact) > ERRORS * self.error:
            return "MISSES"
        if self.independent is not None and not do_agree((self.rate, self.trials), self.independent):
            return "MISSES"
        if self.expected is not None:
            allowed = nominal_tolerance(self.rate, self.trials) if self.is_null else ERRORS * self.error
            if abs(self.rate - self.expected) <= allowed:
                return "holds"
        if self.exact is not None:
            return "as exact"
        if self.independent is not None:
            return f"as {self.source}"
        return "-" if self.expected is None else "MISSES"


def simulate_block(shard: tuple[str, int, int], seed: int) -> tuple[str, int, int, Counts]:
    """Rejections of one block of trials of a family, given its name, the block and its size."""
    name, block, num = shard
    family = next(each for each in families() if each.name == name)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), block])
    with np.errstate(invalid="ignore"):
        return name, block, num, rejections(family.statistics(rng, num))


def totals(store: Store, family: str, blocks: int) -> tuple[int, Counts]:
    """Trials and rejections of the first blocks of a family."""
    sums: dict[str, int] = defaultdict(int)
    trials = 0
    for block in range(blocks):
        num, counts = store.get("block", family, block) or (0, {})
        trials += num
        for key, value in counts.items():
            sums[key] += value
    return trials, dict(sums)


def rows_of(family: Family, trials: int, counts: Counts, others: list[Independent]) -> list[Row]:
    """Rows of a family, by test and design, beside the first of the other programmes that has their test."""
    by_name = {each.name: each for each in designs()}
    found = []
    for key, value in counts.items():
        test, design = key.split("|")
        plan: Design = by_name[design]
        drift = 0.0 if family.is_null else family.drifts.get(test)
        expected = None if drift is None else plan.probability(drift)
        exact = family.exact(test, plan)
        row = Row(family.name, family.is_null, test, design, trials, value / trials, expected, exact)
        other = next((each for each in others if key in each.counts), None)
        if other is not None:
            row = replace(row, independent=(other.counts[key] / other.trials, other.trials), source=other.source)
        found.append(row)
    return found


def measured(args: argparse.Namespace, store: Store) -> list[Row]:
    """All rows; what is missing in the store is simulated first, in R only where a row misses otherwise."""
    chosen = [each for each in families() if re.search(args.only, each.name)]
    num_blocks = math.ceil(args.trials / BLOCK)
    shards = [
        (each.name, block, min(BLOCK, args.trials - block * BLOCK))
        for block in range(num_blocks)  # so that a run that is stopped has something of every family
        for each in chosen
        if store.get("block", each.name, block) is None and not args.as_is
    ]
    work = map_shards(partial(simulate_block, seed=args.seed), shards, num_workers=args.jobs)
    for name, block, num, counts in tqdm(work, total=len(shards), unit="block", disable=not sys.stderr.isatty()):
        store.add([num, counts], "block", name, block)
    rows = []
    for family in chosen:
        trials, counts = totals(store, family.name, num_blocks)
        if not trials:
            continue
        law = from_law(family, store)
        some = rows_of(family, trials, counts, [each for each in (law, from_r(family, 0, store)) if each])
        if any(each.verdict == "MISSES" and each.exact is None for each in some) and args.independent:
            others = law, from_r(family, args.independent, store)
            some = rows_of(family, trials, counts, [each for each in others if each])
        rows += some
    return rows


def table(rows: list[Row]) -> list[str]:
    """Lines of Markdown: a table for each family."""
    lines: list[str] = []
    for name in dict.fromkeys(each.family for each in rows):
        here = [each for each in rows if each.family == name]
        what = "type I error" if here[0].is_null else "power"
        lines += [
            f"### {name}",
            "",
            f"{here[0].trials:,} trials.",
            "",
            f"| test | design | {what} | design says | exact | independent | verdict |",
            "|" + "---|" * 7,
        ]
        for each in here:
            said = "" if each.expected is None else f"{each.expected:.4f}"
            exact = "" if each.exact is None else f"{each.exact:.4f}"
            other = "" if each.independent is None else f"{_with_error(*each.independent)} ({each.source})"
            rate = _with_error(each.rate, each.trials)
            lines.append(f"| {each.test} | {each.design} | {rate} | {said} | {exact} | {other} | {each.verdict} |")
        lines.append("")
    return lines


def _with_error(rate: float, trials: int) -> str:
    return f"{rate:.4f} ± {standard_error(rate, trials):.4f}"


def summary(rows: list[Row]) -> list[str]:
    """How many rows hold, and by what."""
    lines = ["| rows | holds | as exact | as law | as R | nothing to compare | MISSES |", "|" + "---|" * 7]
    for label, here in (
        ("type I error", [r for r in rows if r.is_null]),
        ("power", [r for r in rows if not r.is_null]),
    ):
        number = {v: sum(r.verdict == v for r in here) for v in ("holds", "as exact", "as law", "as R", "-", "MISSES")}
        lines.append(f"| {label}, {len(here)} | " + " | ".join(str(each) for each in number.values()) + " |")
    return lines


def main() -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--only", default="", help="families whose name has this regular expression")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--independent", type=int, default=20_000, help="trials in R where a row misses; 0: none")
    parser.add_argument("--state", type=Path, default=ROOT / "outputs" / "trials_errors_means_rates.jsonl")
    parser.add_argument("--as-is", action="store_true", help="report what the state file has, simulate nothing")
    parser.add_argument("--twins", type=Path, help="dataset of a synthetic cohort, for a score fitted on it")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    if args.trials < 1 or args.jobs < 1 or args.independent < 0:
        parser.error("--trials and --jobs must be 1 or more, --independent 0 or more")
    if not any(re.search(args.only, each.name) for each in families()):
        parser.error(f"--only must fit a family, {args.only!r} fits none of {[each.name for each in families()]}")
    start = time.process_time()
    store = Store(args.state, args.seed)
    rows = measured(args, store)
    scores, scores_hold = ([], True) if args.only else prognosis_section(args.trials, store, args.twins)
    speeds = [] if args.only else speed_section()
    lines = [*summary(rows), "", *scores, *speeds, *table(rows)]
    print("\n".join(lines))
    missed = [each for each in rows if each.verdict == "MISSES"]
    for each in missed:
        print(f"MISSES: {each}", file=sys.stderr)
    print(f"{time.process_time() - start:.0f} s of CPU in this process", file=sys.stderr)
    if args.write:
        args.write.write_text("\n".join([*heading(args), *lines]).rstrip() + "\n")
    return 1 if missed or not scores_hold else 0


def heading(args: argparse.Namespace) -> list[str]:
    """What was run."""
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    return [
        "# Type I error and power of tests of means, rates, counts and repeated measures",
        "",
        "Command: `OMP_NUM_THREADS=1 .venv/bin/python scripts/bench/trials_errors_means_rates.py "
        f"--trials {args.trials} --seed {args.seed} --independent {args.independent} --twins DATASET --write "
        f"docs/results/trials_errors_means_rates.md`, at {head_commit()}, {versions}.",
        "",
        *LEGEND.splitlines(),
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
