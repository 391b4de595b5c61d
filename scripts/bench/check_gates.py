#!/usr/bin/env python3
"""How often the gates cry wolf: pairs of independent real subsamples, judged as if one of them were twins.

    .venv/bin/python scripts/bench/check_gates.py [--pairs 200] [--patients 500] [--write docs/results/check_gates.md]

The source is physionet2012_meds, found through MEDTWIN_DATA (default ../shared/data). Each pair is a random choice of
patients for the reference, as many others for the twins, and a quarter of as many others for the control. A gate that
fails such a pair is wrong: real patients are what twins should be. Pairs are measured in --workers processes.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from head_commit import head_commit

from medtwin.check import Options, compare_records, judge, profile_from, stratifications_from
from medtwin.check.gates import RULES, exact_interval
from medtwin.check.records import Records, Vocabulary, read_records
from medtwin.config import compose
from medtwin.core.dataset import open_dataset
from medtwin.core.verdict import SHIPPED

ROOT = Path(__file__).resolve().parent.parent.parent
_state: dict[str, object] = {}


def load(data: Path) -> None:
    """Reads all stays, once per process."""
    source = open_dataset(data)
    configs = {name: compose("check", ["synthetic=x", "real=x", f"gates={name}"]) for name in SHIPPED}
    _state["records"] = read_records(source, Vocabulary(), list(source.splits))
    _state["profiles"] = {name: profile_from(config["gates"]) for name, config in configs.items()}
    _state["strata"] = stratifications_from(configs["research"]["strata"])


def one_pair(seed: int, patients: int) -> list[tuple[str, str, str]]:
    """(profile, gate, outcome) of one pair."""
    records = _state["records"]
    assert isinstance(records, Records)
    order = np.random.default_rng(seed).permutation(records.num_subjects)
    real, twins, control = (
        records.take(np.sort(order[start:stop]))
        for start, stop in ((0, patients), (patients, 2 * patients), (2 * patients, 2 * patients + patients // 4))
    )
    found = compare_records(real, twins, control, Options(seed, 50, strata=_state["strata"]))  # type: ignore[arg-type]
    known = {one.name for one in (*found.measures, *found.copies)}
    outcomes = []
    for name, profile in _state["profiles"].items():  # type: ignore[attr-defined]
        gates = tuple(gate for gate in profile.gates if gate.metric in known and gate.metric != RULES)
        judged = judge(found, type(profile)(profile.name, profile.about, profile.unchecked, gates))
        outcomes += [(name, one.name, one.outcome) for one in judged]
    return outcomes


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--patients", type=int, default=500, help="of the reference, and as many twins")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", type=Path, help="write the table to this Markdown file")
    chosen = parser.parse_args()
    data = Path(os.environ.get("MEDTWIN_DATA", ROOT.parent / "shared" / "data")) / "physionet2012_meds"
    os.environ["OMP_NUM_THREADS"] = "1"
    start = time.perf_counter()
    counts: Counter[tuple[str, str, str]] = Counter()
    with ProcessPoolExecutor(chosen.workers, initializer=load, initargs=(data,)) as pool:
        work = pool.map(partial(one_pair, patients=chosen.patients), range(chosen.pairs))
        for number, outcomes in enumerate(work, start=1):
            counts.update(outcomes)
            if number % 20 == 0:
                print(f"{number} pairs, {time.perf_counter() - start:.0f} s", flush=True)
    commit = head_commit()
    settings = f"--pairs {chosen.pairs} --patients {chosen.patients}"
    lines = [
        "# How often the gates cry wolf",
        "",
        f"Command: `.venv/bin/python scripts/bench/check_gates.py {settings} --write FILE` at {commit}:",
        f"{chosen.pairs} pairs of {chosen.patients} and {chosen.patients} real ICU stays of physionet2012, and",
        f"{chosen.patients // 4} more as the control, none of them twice within a pair; 50 resamples.",
        "",
        "A gate that fails such a pair is wrong. Interval: Clopper-Pearson, 95 %. Rules and images have no part",
        "in this: physionet2012 has no images, and the rates of the rules stand in docs/results/plausibility.md.",
        "`encounters` and `usefulness` are not applicable here: the stays have no encounters, and no task was given.",
        "",
        "| gate | " + " | ".join(f"{name}: failed | {name}: unchecked" for name in SHIPPED) + " |",
        "|---|" + "---|" * (2 * len(SHIPPED)),
    ]
    for gate in dict.fromkeys(name for _, name, _ in counts):
        cells = []
        for profile in SHIPPED:
            failed = counts[profile, gate, "failed"]
            low, high = exact_interval(failed, chosen.pairs)
            cells += [f"{failed} ({low:.1%} to {high:.1%})", str(counts[profile, gate, "unchecked"])]
        lines.append(f"| {gate} | " + " | ".join(cells) + " |")
    print("\n".join(lines))
    if chosen.write:
        chosen.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
