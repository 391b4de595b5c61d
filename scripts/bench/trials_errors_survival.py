#!/usr/bin/env python3
"""Type I error and power of every survival test in every design, by simulation, beside what theory says of them.

    OMP_NUM_THREADS=1 .venv/bin/python scripts/bench/trials_errors_survival.py [--trials 100000] [--only REGEX]
        [--seed 1] [--jobs 1] [--state FILE] [--independent 50000] [--write docs/results/trials_errors_survival.md]

A row is a law (how patients come, are randomised and fare), a test and a design. An error rate must lie within 0.003 of
its nominal value (4 Monte-Carlo standard errors with fewer trials), a power within 3 Monte-Carlo standard errors of its
large-sample value. A row that does not is simulated again by an independent programme in R
(trials_errors_survival.R: other random numbers, other code), and holds if both agree within 4 standard errors of their
difference. The exit status is 1 if a row holds neither way. Finished work is kept in the state file and not done again.
"""

from __future__ import annotations

import argparse
import math
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from head_commit import head_commit
from tqdm import tqdm
from trials_errors_store import Store
from trials_errors_survival_laws import ACCRUAL_MONTHS, ANNUAL_DROPOUT, LAWS, Law
from trials_errors_survival_page import page
from trials_errors_survival_runs import (
    ENGINE,
    TRIALS_PER_CHUNK,
    Work,
    capped_designs,
    engine_designs,
    engine_row,
    run_work,
    speeds,
)
from trials_errors_survival_tests import (
    HORIZON,
    MODEST,
    Design,
    Row,
    SurvivalTest,
    line_of,
    rows_of,
    rows_of_shapes,
    tests_of,
)
from trials_errors_survival_verdict import Measured

from medtwin.core.shards import map_shards
from medtwin.trials.design.hazard import dropout_rate
from medtwin.trials.enrolment.minimisation import Minimisation
from medtwin.trials.enrolment.randomisation import PermutedBlocks

ROOT = Path(__file__).resolve().parent.parent.parent
INDEPENDENT = Path(__file__).with_suffix(".R")


@dataclass(frozen=True)
class Plan:
    """What is measured under a law: its tests and the engine's designs, with their rows."""

    law: Law
    tests: Sequence[tuple[SurvivalTest, Sequence[Row]]]
    engine: Sequence[tuple[Design, Row]] = ()

    def rows(self) -> list[tuple[str, bool, Row]]:
        """Kind of the test, empty where R has no such design, whether it is in strata, and the row."""
        plain = [(test.kind, test.in_strata, row) for test, rows in self.tests for row in rows]
        return plain + [("logrank" if each.max_months == math.inf else "", False, row) for each, row in self.engine]

    def work(self, seed: int, chunk: int) -> Work:
        """A chunk of its trials."""
        return Work(self.law, self.tests, self.engine, seed, chunk)


def plans_of(law: Law, pattern: str = "") -> list[Plan]:
    """All that is measured under a law and has the pattern in its line."""
    engine = [each for each in engine_designs(law) if re.search(pattern, line_of(law, ENGINE, each))]
    plans = [Plan(law, rows_of(law, pattern), [(design, engine_row(law, design)) for design in engine])]
    if engine_designs(law) and law.is_null:
        logrank = tests_of(law)[0]
        shapes = [row for row in rows_of_shapes(law, logrank) if re.search(pattern, row.key)]
        capped = [each for each in capped_designs() if re.search(pattern, line_of(law, ENGINE, each))]
        plans.append(
            Plan(law, [(logrank, shapes)] if shapes else [], [(each, engine_row(law, each)) for each in capped])
        )
    return [plan for plan in plans if plan.rows()]


def measure(plans: Sequence[Plan], num_trials: int, store: Store, jobs: int = 1) -> list[Measured]:
    """The rates of all rows, of more trials where the store has them; what it has is not done again."""
    chunks = math.ceil(num_trials / TRIALS_PER_CHUNK)
    works = [plan.work(store.seed, chunk) for chunk in range(chunks) for plan in plans]
    missing = [work for work in works if store.get(*work.key) is None]
    bar = tqdm(total=len(works), initial=len(works) - len(missing), unit="k", smoothing=0.05, disable=None)
    with bar:
        for work, hits in zip(missing, map_shards(run_work, missing, num_workers=jobs), strict=True):
            store.add(hits, *work.key)
            bar.set_postfix_str(work.law.name)
            bar.update()
    found = []
    for plan in plans:
        results: list[dict[str, int]] = []
        while (stored := store.get(*plan.work(store.seed, len(results)).key)) is not None:
            results.append(stored)
        trials = len(results) * TRIALS_PER_CHUNK
        for kind, in_strata, row in plan.rows():
            rate = sum(result[row.key] for result in results) / trials
            found.append(Measured(row, plan.law.is_null, kind, in_strata, rate, trials))
    return found


def with_independent(plans: Sequence[Plan], found: Sequence[Measured], num_trials: int, store: Store) -> list[Measured]:
    """The rows with the rates of the independent programme beside those that are not as expected.

    What the store has of at least so many trials is not done again.
    """
    for name, law in {plan.law.name: plan.law for plan in plans}.items():
        astray = [each for each in found if each.row.law == name and not each.is_near and each.kind]
        wanted = [each for each in astray if _independent(each, num_trials, store) is None]
        if wanted and num_trials and not law.changes and shutil.which("Rscript"):
            print(f"{name}: {len(wanted)} rows by the independent programme", flush=True)
            for each, hits in zip(wanted, run_independent(law, wanted, num_trials, store.seed + 1), strict=True):
                store.add([hits, num_trials], "R", repr(each.row))
    return [
        each if each.is_near else replace(each, independent=_independent(each, num_trials, store)) for each in found
    ]


def _independent(each: Measured, least: int, store: Store) -> tuple[float, int] | None:
    """Rate and trials of the independent programme, if the store has at least so many."""
    hits, trials = store.get("R", repr(each.row)) or (0, 0)
    return (hits / trials, trials) if trials >= max(least, 1) else None


def run_independent(law: Law, rows: Sequence[Measured], num_trials: int, seed: int) -> list[int]:
    """How often each row rejects by trials_errors_survival.R.

    Raises:
        RuntimeError: If R fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "law.R"
        path.write_text(_in_r(law, rows, num_trials, seed))
        done = subprocess.run(["Rscript", str(INDEPENDENT), str(path)], capture_output=True, text=True, check=False)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("hits ")]
    if done.returncode or len(lines) != len(rows):
        raise RuntimeError(f"Rscript must print {len(rows)} rows, got {len(lines)}: {done.stderr[-500:]}")
    return [int(line[2]) for line in lines]


def _in_r(law: Law, rows: Sequence[Measured], num_trials: int, seed: int) -> str:
    """The law and the rows as assignments in R."""
    kind = law.randomisation
    word = "blocks" if isinstance(kind, PermutedBlocks) else "minimised" if isinstance(kind, Minimisation) else "simple"
    values = {
        "trials": num_trials,
        "seed": seed,
        "n": law.num_subjects,
        "parts": law.plan.parts,
        "randomisation": f'"{word}"',
        "block": kind.sizes[0] if isinstance(kind, PermutedBlocks) else 0,
        "probability": kind.probability if isinstance(kind, Minimisation) else 0.5,
        "in_strata": "TRUE" if kind.balanced else "FALSE",
        "rate": law.num_subjects / ACCRUAL_MONTHS,
        "risks": np.exp(law.log_risks),
        "hazard": law.control.rates[0],
        "starts": law.hazard_ratio.starts,
        "ratios": law.hazard_ratio.rates,
        "dropout": dropout_rate(ANNUAL_DROPOUT),
        "margin": law.margin,
        "horizon": HORIZON,
        "delay": MODEST.delay,
        "rows": "list(" + ",\n".join(_row_in_r(law, each) for each in rows) + ")",
    }
    return "\n".join(f"{name} <- {_r(value)}" for name, value in values.items()) + "\n"


def _row_in_r(law: Law, found: Measured) -> str:
    row = found.row
    events = [law.events[place] for place in row.places] if max(row.places) < len(law.events) else row.places
    lower = row.lower if row.lower is not None else [-math.inf] * len(row.upper)
    strata = "TRUE" if found.in_strata else "FALSE"
    return (
        f'list(kind = "{found.kind}", strata = {strata}, events = {_r(events)}, upper = {_r(row.upper)}, '
        f"lower = {_r(lower)})"
    )


def _r(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable):
        return "c(" + ", ".join(_r(each) for each in value) + ")"
    number = float(str(value))
    return f"{number:.17g}" if math.isfinite(number) else "-Inf" if number < 0 else "Inf"


def table(found: Sequence[Measured]) -> str:
    """Every row: rate, Monte-Carlo standard error, what is expected, what R finds, verdict."""
    lines = []
    for each in found:
        other = "" if each.independent is None else f"  R {each.independent[0]:.4f}"
        lines.append(
            f"{each.rate:.4f} +-{each.standard_error:.4f}  expected {each.row.expected:.4f}{other}  {each.verdict:5}"
            f"  {each.row.key}"
        )
    return "\n".join(lines)


def finish(plans: Sequence[Plan], options: argparse.Namespace) -> int:
    """Measures, prints, writes the page; 1 if a row holds neither way."""
    store, start = Store(options.state, options.seed), time.process_time()
    found = measure(plans, options.trials, store, options.jobs)
    spent = time.process_time() - start
    found = with_independent(plans, found, options.independent, store)
    print(table(found))
    missed = [each for each in found if each.verdict == "MISS"]
    agreed = sum(each.verdict == "as R" for each in found)
    near = len(found) - agreed - len(missed)
    least = min(each.trials for each in found)
    print(f"{len(found)} rows of {least:,} trials or more: {near} as expected, {agreed} as R finds,", end=" ")
    print(f"{len(missed)} missed")
    print(f"{spent:.0f} s of CPU in this process for what was not in {options.state.name}")
    if options.write:
        laws, tests = list(dict.fromkeys(plan.law for plan in plans)), plans[0].tests
        fast = speeds(plans[0].law, [test for test, _ in tests]) if tests else {}
        options.write.write_text(page(laws, found, said(options), fast))
    return 1 if missed else 0


def said(options: argparse.Namespace) -> str:
    """How the page was made."""
    return (
        "Command: `OMP_NUM_THREADS=1 .venv/bin/python scripts/bench/trials_errors_survival.py "
        f"--trials {options.trials} --seed {options.seed} --independent {options.independent} "
        f"--write docs/results/trials_errors_survival.md`, at {head_commit()}, Python {platform.python_version()}, "
        f"numpy {np.__version__}. Seed {options.seed}; of R {options.seed + 1}."
    )


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000, help="of each row, rounded up to whole thousands")
    parser.add_argument("--only", default="", help="rows whose line 'law | test | design' has this regular expression")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--state", type=Path, default=ROOT / "outputs" / "trials_errors_survival.jsonl")
    parser.add_argument("--independent", type=int, default=50_000, help="trials of R where a row misses; 0: none")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(given)
    if options.trials < 1:
        parser.error(f"--trials must be 1 or more, got {options.trials}")
    return options


def main() -> int:
    """The command."""
    options = arguments()
    plans = [plan for law in LAWS for plan in plans_of(law, options.only)]
    if not plans:
        print(f"--only must fit some row, got {options.only!r}")
        return 2
    return finish(plans, options)


if __name__ == "__main__":
    raise SystemExit(main())
