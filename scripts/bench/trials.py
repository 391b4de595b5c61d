#!/usr/bin/env python3
"""Times the trial engine side by side with its peers: trials per CPU second of one core, agreement of power, memory.

    OMP_NUM_THREADS=1 .venv/bin/python scripts/bench/trials.py [--write docs/results/trials.md]

The design: 450 patients, 1:1, enrolled over 12 months, median 12 months in the control arm, hazard ratio 0.7, 5 % a
year leave either arm, log-rank looks at 151 and 301 events with O'Brien-Fleming-type spending. The works of Python take
turns, before rpact's and after them (where Rscript finds it); the least CPU time of each counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from head_commit import head_commit

from medtwin.core.shards import map_shards
from medtwin.trials.analysis.survival_batch import (
    cox_log_hazard_ratio_continuous,
    logrank_z,
    logrank_z_continuous,
    order_continuous,
    risk_sets,
)
from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.engine.batch import (
    BLOCK,
    Characteristics,
    Stops,
    TrialPlan,
    course_of,
    draw_patients,
    run_block,
    run_trials,
    snapshot,
)
from medtwin.trials.engine.scenarios import BLOCKS_PER_TASK, Scenario, Task, characteristics_of, run_task
from medtwin.trials.enrolment.accrual import RampedAccrual
from medtwin.trials.enrolment.adherence import Dropout
from medtwin.trials.enrolment.randomisation import PermutedBlocks
from medtwin.trials.outcome.prognosis import PatientPool

HAZARD_RATIO, NUM_SUBJECTS, SEED, TURNS = 0.7, 450, 1, 3
TOGETHER = BLOCKS_PER_TASK * BLOCK
RPACT = """
suppressMessages(library(rpact))
design <- getDesignGroupSequential(kMax = 2, informationRates = c(151 / 301, 1), alpha = 0.025, sided = 1,
                                   typeOfDesign = "asOF")
run <- function(n) getSimulationSurvival(design, lambda2 = log(2) / 12, hazardRatio = 0.7, directionUpper = FALSE,
    plannedEvents = c(151, 301), maxNumberOfSubjects = 450, accrualTime = c(0, 12), dropoutRate1 = 0.05,
    dropoutRate2 = 0.05, dropoutTime = 12, maxNumberOfIterations = n, seed = 1)
invisible(run(100))
best <- Inf
for (turn in 1:TURNS) {
  start <- proc.time(); found <- run(10000); used <- proc.time() - start
  best <- min(best, used[["user.self"]] + used[["sys.self"]])
}
cat(as.character(packageVersion("rpact")), best / 10000, found$overallReject, "\\n")
"""


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds of CPU for each trial, and the power found over some trials, if any."""

    what: str
    seconds: float
    power: float | None = None
    num_trials: int = 0


def plan_of() -> TrialPlan:
    """The trial."""
    design = SurvivalDesign(GroupSequential(looks=(0.5, 1.0), power=0.87), HAZARD_RATIO)
    pool = PatientPool(np.zeros(1), np.zeros(1, dtype=np.int64), PiecewiseRate.of_median(12.0))
    accrual = RampedAccrual(12.0).of_size(NUM_SUBJECTS)
    return TrialPlan(design, pool, NUM_SUBJECTS, accrual, Dropout.of_share(0.05), 1000.0, PermutedBlocks(4))


def least_seconds(works: dict[str, tuple[Callable[[int], object], int]], calls: int) -> list[Row]:
    """The least CPU seconds per trial of each work, which take turns; a work is a function of a number and its trials.

    Args:
        works: By name: what to call, and how many trials a call is.
        calls: In each of the turns, of the works with a block of trials or more; others are called once.
    """
    best = dict.fromkeys(works, math.inf)
    for turn in range(TURNS * 3):
        for name, (work, trials) in works.items():
            repeats = calls if trials >= BLOCK else 1
            start = time.process_time()
            for call in range(repeats):
                work(turn * calls + call)
            best[name] = min(best[name], (time.process_time() - start) / (repeats * trials))
    return [Row(name, seconds) for name, seconds in best.items()]


def one_by_one(time_at_risk: np.ndarray, event: np.ndarray, arm: np.ndarray) -> float:
    """The log-rank z of one trial as a plain programme finds it: numpy over the patients of that trial alone."""
    return float(logrank_z(risk_sets(time_at_risk[None], event[None], arm[None]))[0])


def task_of(plan: TrialPlan, number: int) -> Task:
    """The trials that `medtwin simulate` works on at a time."""
    first = number * BLOCKS_PER_TASK
    return Task(plan, SEED, tuple(range(first, first + BLOCKS_PER_TASK)), [Scenario("one", HAZARD_RATIO, 10**9)])


def kernels(plan: TrialPlan) -> list[Row]:
    """The engine and its parts, and the loops over trials that they replace."""
    patients = draw_patients(plan, SEED, 0)
    course = course_of(plan, patients, HAZARD_RATIO)
    months = np.sort(course.calendar, axis=1)[:, plan.design.events[-1] - 1]
    data, arm = snapshot(course, np.arange(BLOCK), months), patients.arm
    together = draw_patients(plan, SEED, 0, num_blocks=BLOCKS_PER_TASK)
    ordered, some = order_continuous(data.time, data.event, arm), 10
    works: dict[str, tuple[Callable[[int], object], int]] = {
        "engine: draw, two looks, Cox estimate": (lambda i: run_task(task_of(plan, i)), TOGETHER),
        "draws alone": (
            lambda i: draw_patients(plan, SEED, i * BLOCKS_PER_TASK, num_blocks=BLOCKS_PER_TASK),
            TOGETHER,
        ),
        "two looks and Cox estimate alone": (lambda _: run_trials(plan, together, HAZARD_RATIO), TOGETHER),
        "log-rank z, sort included": (
            lambda _: logrank_z_continuous(order_continuous(data.time, data.event, arm)),
            BLOCK,
        ),
        "log-rank z, ties allowed": (lambda _: logrank_z(risk_sets(data.time, data.event, arm)), BLOCK),
        "log-rank z, ties allowed, trial by trial": (
            lambda _: [one_by_one(data.time[row], data.event[row], arm[row]) for row in range(some)],
            some,
        ),
        "Cox estimate, after the sort": (lambda _: cox_log_hazard_ratio_continuous(ordered), BLOCK),
    }
    if importlib.util.find_spec("statsmodels") is None:
        print("statsmodels is not installed: its survdiff is left out")
    else:
        survdiff = importlib.import_module("statsmodels.duration.survfunc").survdiff
        works["statsmodels survdiff"] = (
            lambda _: [survdiff(data.time[row], data.event[row].astype(int), arm[row]) for row in range(some)],
            some,
        )
    return least_seconds(works, 4)


def power_of(plan: TrialPlan, num_trials: int) -> float:
    """The share of trials that reject."""
    blocks = range(num_trials // BLOCK)
    return Characteristics(
        HAZARD_RATIO, Stops.join([run_block(plan, SEED, block, HAZARD_RATIO) for block in blocks])
    ).power.value


def rpact() -> Row | None:
    """The simulation by rpact of the same design; None without Rscript or the package."""
    if shutil.which("Rscript") is None:
        return None
    script = RPACT.replace("TURNS", str(TURNS))
    done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    version, seconds, power = done.stdout.split()[-3:]
    return Row(f"rpact {version} getSimulationSurvival, two looks", float(seconds), float(power), 10_000)


@dataclass(frozen=True)
class Grid:
    """What a grid of scenarios took: wall and CPU seconds, peak MiB of the largest process."""

    wall: float
    cpu: float
    peak: float


def grid(plan: TrialPlan, num_scenarios: int, num_trials: int, num_workers: int) -> Grid:
    """A grid of hazard ratios, all on the same patients, by the process pool that `medtwin simulate` uses."""
    ratios = np.linspace(0.5, 1.0, num_scenarios)
    scenarios = [Scenario("grid", float(ratio), num_trials) for ratio in ratios]
    blocks, each = range(num_trials // BLOCK), BLOCKS_PER_TASK
    tasks = [Task(plan, SEED, tuple(blocks[start : start + each]), scenarios) for start in blocks[::each]]
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    start = time.perf_counter()
    found = characteristics_of(scenarios, map_shards(run_task, tasks, num_workers=num_workers))
    wall = time.perf_counter() - start
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    powers = [each.power.value for each in found]
    if powers != sorted(powers, reverse=True):
        raise SystemExit(f"powers must fall with the hazard ratio, got {powers}")
    cpu = sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True))
    return Grid(wall, cpu, max(usage.ru_maxrss for usage in after) / 1024)


def report(rows: list[Row], power: tuple[float, float, int], plan: TrialPlan, made: Grid, load: float) -> list[str]:
    """The page."""
    ours, (found, theirs, num_trials) = rows[0].seconds, power
    lines = [
        "# How fast trials are simulated",
        "",
        "Command: `OMP_NUM_THREADS=1 .venv/bin/python scripts/bench/trials.py --write docs/results/trials.md`, at",
        f"{head_commit()}, on {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}.",
        f"Load average {load:.1f} when it began: above the number of cores, other work slowed everything here alike.",
        "",
        "450 patients, 1:1, 12 months of accrual, control median 12 months, hazard ratio 0.7, 5 % a year drop out;",
        f"looks at {plan.design.events[0]} and {plan.design.events[1]} events, O'Brien-Fleming-type spending.",
        f"CPU time of one core, least of {TURNS} turns or more.",
        "",
        "| what | us per trial | trials per CPU second | times the engine's time |",
        "|---|---|---|---|",
    ]
    lines += [f"| {r.what} | {r.seconds * 1e6:.1f} | {1 / r.seconds:,.0f} | {r.seconds / ours:.2f} |" for r in rows]
    error = math.sqrt(2 * found * (1 - found) / num_trials)
    exits = plan.design.bounds.exits(plan.design.drift(HAZARD_RATIO))
    lines += ["", f"Power: {found:.4f} of {num_trials:,} trials; the design's normal theory {exits.power:.4f}."]
    if not math.isnan(theirs):
        distance = abs(found - theirs) / error
        lines.append(f"rpact's {theirs:.4f} of as many: {distance:.1f} standard errors of the difference away.")
    lines += [
        "",
        f"A grid of 20 hazard ratios x 10,000 trials on 2 processes: {made.wall:.1f} s of wall time,",
        f"{made.cpu:.1f} s of CPU ({200_000 / made.cpu:,.0f} trials per CPU second, the same patients under all",
        f"ratios, start of the processes included); the largest process took {made.peak:.0f} MiB at its peak.",
    ]
    return lines


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file")
    chosen = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("OMP_NUM_THREADS must be 1: figures are those of one core")
    load, plan, num_trials = os.getloadavg()[0], plan_of(), 10_000
    rows, peer = kernels(plan), rpact()
    again = kernels(plan)
    rows = [replace(a, seconds=min(a.seconds, b.seconds)) for a, b in zip(rows, again, strict=True)]
    found = power_of(plan, num_trials)
    rows += [peer] if peer is not None else []
    power = (found, peer.power if peer is not None and peer.power is not None else math.nan, num_trials)
    lines = report(rows, power, plan, grid(plan, 20, num_trials, 2), load)
    print("\n".join(lines))
    if chosen.write:
        chosen.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
