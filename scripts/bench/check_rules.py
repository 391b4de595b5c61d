#!/usr/bin/env python3
"""How often real data breaks the shipped rules, and how often halves of it fail each other.

    .venv/bin/python scripts/bench/check_rules.py [--out FOLDER] [--write docs/results/plausibility.md]
    .venv/bin/python scripts/bench/check_rules.py --list docs/plausibility.md     only the table of the rules

Public sources are found through MEDTWIN_DATA (default ../shared/data); the embedded hospital is made. FHIR sources are
ingested into the folder first, and taken from there if they are.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medtwin.check.plausibility import RuleCounter, Tally, rule_rows
from medtwin.check.rules import Rule, rules_from
from medtwin.config import compose
from medtwin.core.dataset import open_dataset

ROOT = Path(__file__).resolve().parent.parent.parent
NUM_HALVES = 100
COUNTED = {
    "after-death": "events of the dead",
    "before-birth": "events",
    "not-of-sex": "events with the codes",
    "age-at-onset": "first events, or events, with the codes",
    "duplicate-event": "ids",
    "ends-before-start": "periods",
    "outside-encounter": "events of an encounter",
    "value-range": "numbers in a listed unit",
    "dose-range": "doses in a listed unit",
    "identity": "instants with all numbers",
    "needs-before": "complications",
    "contraindicated": "contraindications",
    "order": "later events",
    "once": "events with the codes",
}


def sources(out: Path) -> dict[str, Path]:
    """Datasets by name."""
    data = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data"))
    _run(out / "hospital", "hospital", "n=400")
    _run(out / "embedded", "ingest", f"source={out / 'hospital'}")
    _run(out / "mimic", "ingest", f"source.fhir={data / 'mimic4_demo_fhir'}")
    _run(out / "synthea", "ingest", f"source.fhir={data / 'synthea_r4' / 'ndjson'}")
    return {
        "MIMIC-IV demo": out / "mimic",
        "PhysioNet 2012": data / "physionet2012_meds",
        "PhysioNet 2019 A": data / "physionet2019_A_meds",
        "Synthea": out / "synthea",
        "embedded hospital": out / "embedded",
    }


def _run(out: Path, *arguments: str) -> None:
    if not out.is_dir():
        command = [sys.executable, "-m", "medtwin", *arguments, f"out={out}"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@dataclass
class Side:
    """The subjects of one half, in place of a counter."""

    tallies: dict[str, Tally]

    def tally(self, rule: Rule) -> Tally:
        """As of a counter."""
        return self.tallies[rule.name]


def half(rules: Sequence[Rule], counter: RuleCounter, counts: Sequence[np.ndarray], chosen: np.ndarray) -> Side:
    """What was counted of some subjects."""
    tallies = {}
    for number, rule in enumerate(rules):
        tallies[rule.name] = Tally(has_both=counter.tally(rule).has_both)
        tallies[rule.name].add_counts(*(side[chosen, number].astype(np.int64) for side in counts))
    return Side(tallies)


def false_alarms(rules: Sequence[Rule], counter: RuleCounter) -> tuple[int, Counter[str]]:
    """In how many of `NUM_HALVES` random halves a rule fails the other half, and which."""
    ids = np.unique(np.concatenate(counter._subjects))
    counts = counter.counts(ids)
    rng = np.random.default_rng(0)
    broken: Counter[str] = Counter()
    failed = 0
    for _ in range(NUM_HALVES):
        order = rng.permutation(len(ids))
        sides = [half(rules, counter, counts, part) for part in np.array_split(order, 2)]
        found = [row.rule for row in rule_rows(rules, *sides) if row.outcome == "broken"]
        broken.update(found)
        failed += bool(found)
    return failed, broken


def cell(tally: Tally) -> str:
    """What was counted, in words."""
    if not tally.applies:
        return f"unknown {tally.unknown:,}" if tally.unknown else ""
    unknown = f", unknown {tally.unknown:,}" if tally.unknown else ""
    if not tally.broken_events:
        return f"0 of {tally.subjects:,}{unknown}"
    shown = f"{tally.broken_subjects:,} of {tally.subjects:,}; {tally.broken_events:,} of {tally.events:,}"
    return f"{shown} ({tally.event_share:.2%}){unknown}"


def listed(rules: Sequence[Rule]) -> str:
    """The rules, as a table."""
    lines = ["| rule | what it says | counted | source |", "|---|---|---|---|"]
    for rule in rules:
        soft = f" **Soft**: {rule.soft}." if rule.soft else ""
        lines.append(f"| {rule.name} | {rule.title}.{soft} | {COUNTED[rule.kind]} | {rule.source} |")
    return "\n".join(lines) + "\n"


def report(rules: Sequence[Rule], out: Path) -> str:
    """The page of results, up to what is written by hand."""
    counters, seconds = {}, {}
    for name, path in sources(out).items():
        start = time.perf_counter()
        counters[name] = RuleCounter(rules)
        num_rows = 0
        for table in open_dataset(path).iter_events():
            counters[name].look(table)
            num_rows += len(table)
        seconds[name] = f"{time.perf_counter() - start:.1f} s for {num_rows:,} rows"
    lines = [
        "# Rules on real data: how often each is broken",
        "",
        "Command: `.venv/bin/python scripts/bench/check_rules.py --write docs/results/plausibility.md`. Every shipped",
        "rule was counted on every source before it was called hard or soft: subjects that break it of those to whom",
        "it applies, then events (share). An empty cell: the rule applies to nobody there. Unknown: in a unit that no",
        "rule lists, or several numbers at once. Synthea and the embedded hospital are simulations: what they break is",
        "their fault, and no reason to call a rule soft.",
        "",
        "| rule | kind | " + " | ".join(counters) + " |",
        "|---|---|" + "---|" * len(counters),
    ]
    for rule in rules:
        cells = " | ".join(cell(one.tally(rule)) for one in counters.values())
        lines.append(f"| {rule.name} | {rule.kind}, {'hard' if rule.is_hard else 'soft'} | {cells} |")
    lines += [
        "",
        "## False alarms",
        "",
        f"Random halves of the subjects of one source, one half against the other, {NUM_HALVES} times: in how many a",
        "rule counts as broken, although both halves are of one law. Less than 5 % are asked for of the soft rules",
        "together.",
        "",
        "| source | subjects | halves with a broken rule | which | counting every rule |",
        "|---|---|---|---|---|",
    ]
    for name, counter in counters.items():
        failed, broken = false_alarms(rules, counter)
        which = ", ".join(f"{rule} ({count})" for rule, count in broken.most_common(4))
        lines.append(f"| {name} | {counter.num_subjects:,} | {failed} of {NUM_HALVES} | {which} | {seconds[name]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to ingest to; a temporary folder without it")
    parser.add_argument("--list", type=Path, help="the page whose table of rules to replace, after `## The rules`")
    parser.add_argument("--write", type=Path, help="the page to replace; its part from `## What was found` on is kept")
    arguments = parser.parse_args()
    rules = rules_from(compose("check", ["synthetic=x", "real=x"])["rules"])
    if arguments.list is not None:
        before = arguments.list.read_text().partition("## The rules\n")
        arguments.list.write_text("".join(before[:2]) + "\n" + listed(rules))
        return
    with tempfile.TemporaryDirectory() as folder:
        text = report(rules, (arguments.out or Path(folder)).resolve())
    if arguments.write is None:
        print(text)
        return
    old = arguments.write.read_text() if arguments.write.is_file() else ""
    kept = old.partition("## What was found")
    arguments.write.write_text(text + ("\n" + kept[1] + kept[2] if kept[1] else ""))


if __name__ == "__main__":
    main()
