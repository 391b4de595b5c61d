#!/usr/bin/env python3
"""How often the gates cry wolf: independent real subsamples, judged as if one of them were twins.

    .venv/bin/python scripts/bench/gates_calibration.py --data DATASET --state FOLDER [--write PAGE]

Each pair is a random choice of patients for the reference, as many others for the twins, and half as many others for
the control. A gate that fails such a pair is wrong: real patients are what twins should be. Told are each gate and all
gates of a profile together. What was measured is kept in FOLDER, part by part and pair by pair: a run that is broken
off goes on, and what was kept is judged anew, whatever the bounds are now.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gates_calibration_page as page
import numpy as np
from head_commit import head_commit
from numpy.typing import NDArray

from medtwin.check import Options, profile_from, rules_from, stratifications_from
from medtwin.check.attacks.measures import attack_measures
from medtwin.check.attacks.suite import attack
from medtwin.check.compare import STAGES, Comparison
from medtwin.check.fairness.attacks import attacks_by_group
from medtwin.check.plausibility import RuleCounter, Tally, rule_rows
from medtwin.check.records import Records, Vocabulary, read_records
from medtwin.check.resample import make_plan
from medtwin.check.rule_measures import rule_measures
from medtwin.check.rules import Rule
from medtwin.check.tasks import Task, task_from
from medtwin.check.utility import utility_findings
from medtwin.config import compose
from medtwin.core.dataset import open_dataset
from medtwin.core.verdict import SHIPPED

APART = ("classifiers", "groups", "fairness")
"""Stages that are parts of their own."""


@dataclass(frozen=True)
class Source:
    """The real patients, what is measured of them, and how many are drawn."""

    records: Records
    counter: RuleCounter
    rules: Sequence[Rule]
    task: Task | None
    options: Options
    num_patients: int

    def pair(self, number: int) -> Comparison:
        """The sides of a pair: reference, twins, control, nobody twice."""
        n = self.num_patients
        order = np.random.default_rng(number).permutation(self.records.num_subjects)
        sides = [
            self.records.take(np.sort(order[start:stop]))
            for start, stop in ((0, n), (n, 2 * n), (2 * n, 2 * n + n // 2))
        ]
        options = Options(number, self.options.num_resamples, strata=self.options.strata)
        plan = make_plan(n, n, n // 2, seed=number, num_resamples=options.num_resamples)
        return Comparison(sides[0], sides[1], sides[2], plan, options, {})


class Subset(RuleCounter):
    """What a counter of rules counted of some of its subjects."""

    def __init__(self, whole: RuleCounter, subjects: NDArray[np.int64]) -> None:
        super().__init__(whole.rules, len(subjects))
        self._whole, self._own = whole, whole.counts(subjects)

    def tally(self, rule: Rule) -> Tally:
        """Of one rule."""
        column = [one.name for one in self.rules].index(rule.name)
        events, broken = (part[:, column].astype(np.int64) for part in self._own)
        tally = Tally(has_both=self._whole.tally(rule).has_both and bool(events.any()))
        tally.add_counts(events, broken)
        return tally

    def counts(self, subjects: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Of every rule and some subjects, as the whole counter has it."""
        return self._whole.counts(subjects)


def of_stages(names: Sequence[str]) -> Callable[[Source, Comparison], dict[str, Any]]:
    """The measures and copies of some stages of `compare`."""

    def measured(_: Source, one: Comparison) -> dict[str, Any]:
        found = [STAGES[name](one) for name in names]
        return {
            "measures": [measure for parts in found for measure in parts.get("measures", [])],
            "copies": [row for parts in found for row in parts.get("copies", [])],
        }

    return measured


def of_rules(source: Source, one: Comparison) -> dict[str, Any]:
    """What is not possible, and what does not happen."""
    assert one.control is not None
    subjects = one.real.subjects, one.synthetic.subjects, one.control.subjects
    real, twins, control = (Subset(source.counter, ids) for ids in subjects)
    measures = rule_measures(source.rules, (real, twins, control), subjects, one.plan)
    return {"measures": measures, "rules": rule_rows(source.rules, real, twins)}


def of_attacks(_: Source, one: Comparison) -> dict[str, Any]:
    """What attacks gain."""
    assert one.control is not None
    options = one.options
    found = attack(one.real, one.synthetic, one.control, seed=options.seed, strata=options.strata)
    by_group = attacks_by_group(
        found.by_person, options.fairness, seed=options.seed, num_resamples=options.num_resamples
    )
    return {"measures": [*attack_measures(found), by_group[0]]}


def of_utility(source: Source, one: Comparison) -> dict[str, Any]:
    """What a model of the task loses; tested on the control."""
    if source.task is None or one.control is None:
        return {"measures": []}
    found = utility_findings(source.task, (one.real, one.control), [one.synthetic], one.options)
    return {"measures": found.measures}


PARTS: dict[str, Callable[[Source, Comparison], dict[str, Any]]] = {
    "records": of_stages([name for name in STAGES if name not in APART]),
    "rules": of_rules,
    "fairness": of_stages(["fairness"]),
    "attacks": of_attacks,
    "groups": of_stages(["groups"]),
    "classifiers": of_stages(["classifiers"]),
    "utility": of_utility,
}


def read_source(data: Path, task: str, num_patients: int, num_resamples: int) -> tuple[Source, dict[str, Any]]:
    """All patients of a dataset, and what tells this measurement from another one."""
    dataset = open_dataset(data)
    config = compose("check", ["synthetic=x", "real=x", f"task={task}"])
    rules = rules_from(config["rules"])
    counter = RuleCounter(rules)
    records = read_records(dataset, Vocabulary(), list(dataset.splits), look=counter.look)
    options = Options(0, num_resamples, strata=stratifications_from(config["strata"]))
    settings = {"data": dataset.manifest_hash(), "task": task, "patients": num_patients, "resamples": num_resamples}
    return Source(records, counter, rules, task_from(config["task"]), options, num_patients), settings


def measure(source: Source, state: Path, parts: Sequence[str], num_pairs: int) -> None:
    """Measures what the state lacks, part after part; a line of JSON per pair is appended when it is done."""
    start = time.process_time()
    for part in parts:
        done = page.read_part(state, part)
        for number in (one for one in range(num_pairs) if one not in done):
            found = {
                name: [asdict(row) for row in rows] for name, rows in PARTS[part](source, source.pair(number)).items()
            }
            with (state / f"{part}.jsonl").open("a") as file:
                file.write(json.dumps({"pair": number, **found}) + "\n")
            if (number + 1) % 20 == 0:
                print(f"{part}: {number + 1} pairs, {time.process_time() - start:.0f} CPU seconds", flush=True)


def main() -> None:
    """Measures what is missing, and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a finished dataset of real or simulated patients")
    parser.add_argument("--state", type=Path, required=True, help="folder for what was measured; made if missing")
    parser.add_argument("--task", default="none", help="a task of configs/task")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--patients", type=int, default=200, help="of the reference, and as many twins")
    parser.add_argument("--resamples", type=int, default=50)
    parser.add_argument(
        "--parts", nargs="*", choices=PARTS, default=list(PARTS), help="what to measure, and to tell of"
    )
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file")
    chosen = parser.parse_args()
    chosen.state.mkdir(parents=True, exist_ok=True)
    source, settings = read_source(chosen.data, chosen.task, chosen.patients, chosen.resamples)
    page.keep_settings(chosen.state, settings)
    measure(source, chosen.state, chosen.parts, chosen.pairs)
    profiles = {
        name: profile_from(compose("check", ["synthetic=x", "real=x", f"gates={name}"])["gates"]) for name in SHIPPED
    }
    command = f"--task {chosen.task} --pairs {chosen.pairs} --patients {chosen.patients} --resamples {chosen.resamples}"
    run = page.Run(command, head_commit(), chosen.patients)
    text = page.calibration_page(chosen.state, chosen.parts, profiles, run)
    print(text)
    if chosen.write:
        chosen.write.write_text(text)


if __name__ == "__main__":
    main()
