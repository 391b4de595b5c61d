#!/usr/bin/env python3
"""Whether gates block a temporal VAE that was over-trained on 500 patients, and twins that are copies of them.

    .venv/bin/python scripts/bench/attacks.py --state FOLDER [--steps 400] [--twins 100] [--write FILE]
    .venv/bin/python scripts/bench/attacks.py --state FOLDER --shipped RUN,TWINS,DATASET [--write FILE]

A hospital of 1,000 patients is made, half of whom are trained on; the rest are the control. What stands in --state is
used again. --shipped adds a run of shipped settings, its twins and its dataset, as in my/vae,my/twins,my/dataset.
Judged are the gates that ask for memory; a whole `medtwin check` asks for more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from head_commit import head_commit

from medtwin.check import Findings, judge, profile_from
from medtwin.check.attacks.canaries import no_canaries
from medtwin.check.attacks.measures import attack_measures
from medtwin.check.attacks.suite import attack
from medtwin.check.copies import copy_rows
from medtwin.check.estimates import Measure
from medtwin.check.gates import exact_interval
from medtwin.check.likelihoods import no_likelihood
from medtwin.check.records import Vocabulary, read_records
from medtwin.config import compose
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.dataset_writer import EventSpill, write_dataset_metadata, write_events
from medtwin.core.files import read_json, write_json, write_manifest
from medtwin.core.output import is_finished
from medtwin.pipelines.check_canaries import measure_canaries
from medtwin.pipelines.check_likelihood import measure_likelihood
from medtwin.pipelines.identifier_scan import known_of, scan_files

Judged: TypeAlias = "tuple[dict[str, str], dict[str, str]]"

OVER = (
    "model=temporal_vae canaries=200 callbacks=none net.dropout=0 net.width=32 data.max_positions=32 "
    "data.tokens_per_group=2048 model.forgetting.events=0 model.forgetting.numbers=0 model.objective.shrinkage=0 "
    "optimizer.lr=6e-3"
)
MEASURES = {
    "attacks.membership": "best membership attack on the twins, area",
    "attacks.membership_worst": "the same of the tenth least like others",
    "attacks.linkability": "linkability, risk",
    "attacks.inference": "inference, risk",
    "attacks.singling_out.several": "singling out by several, risk",
    "likelihood.membership": "membership by the model's likelihood, area",
    "canaries.epsilon": "epsilon by canaries, at least",
    "canaries.exposure": "exposure of canaries, bits beyond those held out",
    "identifiers": "identifiers found",
}
GATES = (
    "copies", "near-copies", "singling-out-several", "linkability", "inference", "membership", "membership-worst",
    "membership-model", "canaries", "identifiers",
)  # fmt: skip
WEEKS_US = 7 * 86_400_000_000


@dataclass
class Bench:
    """The commands of a bench, each run where its output does not stand."""

    state: Path
    said: list[str]

    def run(self, verb: str, out: str, *given: str) -> Path:
        """Runs a verb with out= in the state, unless it is finished."""
        path = self.state / out
        pairs = (one.split("=", 1) for one in given)  # no place of a machine on the page
        words = [f"{key}={Path(value).name if value.startswith('/') else value}" for key, value in pairs]
        self.said.append(" ".join(["medtwin", verb, *words, f"out={out}"]))
        if not is_finished(path):
            command = [sys.executable, "-m", "medtwin", verb, *given, f"out={out}"]
            subprocess.run(command, cwd=self.state, check=verb != "scan")  # a scan that finds something ends with 2
        return path


def copies(source: Path, folder: Path, number: int) -> Path:
    """Twins that are training patients under other ids, their dates moved by whole weeks."""
    if folder.is_dir():
        return folder
    events = open_dataset(source).events("train")
    subjects = np.sort(pc.unique(events["subject_id"]).to_numpy())[:number]
    chosen = events.filter(pc.is_in(events["subject_id"], value_set=pa.array(subjects)))
    row = np.searchsorted(subjects, chosen["subject_id"].to_numpy())
    weeks = np.random.default_rng(0).integers(1, 50, len(subjects))[row] * WEEKS_US
    for name in ("time", "end_time"):
        moved = pc.add(chosen[name].cast(pa.int64()), pa.array(weeks)).cast(pa.timestamp("us"))
        chosen = chosen.set_column(chosen.column_names.index(name), name, moved)
    chosen = chosen.set_column(0, pa.field("subject_id", pa.int64(), nullable=False), pa.array(row + 1))
    for name in ("event_id", "parent_id", "encounter_id"):
        renamed = pc.binary_join_element_wise(chosen[name], pa.scalar("-copy"), "")
        chosen = chosen.set_column(chosen.column_names.index(name), name, renamed)
    spill = EventSpill(folder.with_name(f"{folder.name}-spill"), 1)
    spill.add(chosen)
    write_events(folder, spill.close(), split_of=lambda subject: "train")
    write_dataset_metadata(folder, "copies", "synthetic")
    write_manifest(folder)
    return folder


def judged(real: Dataset, twins: Dataset, run: Path | None, *, canaries: bool, resamples: int) -> Judged:
    """The attacks, the copies, and of a run its likelihood and its canaries, under the gates of `GATES`."""
    vocabulary = Vocabulary()
    parts = (real, ["train"]), (twins, list(twins.splits)), (real, ["tuning", "held_out"])
    train, synthetic, control = (read_records(dataset, vocabulary, names) for dataset, names in parts)
    rows, _ = copy_rows(train, synthetic, control, seed=0)
    measures = [*no_canaries("none planted"), *no_likelihood("no model named")]
    measures += attack_measures(attack(train, synthetic, control, seed=0))
    measures.append(scan_files(twins.path, known_of(real, None)).measure())
    sizes = train.num_subjects, synthetic.num_subjects, control.num_subjects
    found = Findings(*sizes, tuple(measures), copies=tuple(rows))
    if run is not None:
        found = found.with_measures(measure_likelihood(run, real, twins, seed=0, num_resamples=resamples)[0])
    if run is not None and canaries:
        found = found.with_measures(measure_canaries(run, twins, seed=0)[0])
    profile = profile_from(compose("check", ["synthetic=x", "real=x", "gates=public"])["gates"])
    chosen = replace(profile, gates=tuple(gate for gate in profile.gates if gate.name in GATES))
    outcomes = {one.name: one.outcome for one in judge(found, chosen)}
    return {one.name: cell(one) for one in found.measures}, outcomes


def cell(measure: Measure) -> str:
    """A measure with its interval."""
    if measure.estimate is None:
        return "not measured" if measure.applicable else "-"
    one = measure.estimate
    return f"{one.value:.3g} ({one.low:.3g} to {one.high:.3g})"


def page(found: Mapping[str, Judged], said: list[str], counts: str) -> str:
    """The page of results."""
    names = list(found)
    lines = ["# Whether gates block what remembers its patients", ""]
    lines += [f"Made by scripts/bench/attacks.py at {head_commit()}; its docstring says how. The commands:", "", "```"]
    lines += [*said, "```", "", counts, "", f"| measure | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for key, title in MEASURES.items():
        lines.append(f"| {title} | {' | '.join(found[name][0].get(key, '-') for name in names)} |")
    lines += ["", f"The gates of the profile public that ask for memory:\n\n| gate | {' | '.join(names)} |"]
    lines.append("|---" * (len(names) + 1) + "|")
    lines += [f"| {gate} | {' | '.join(found[name][1].get(gate, '-') for name in names)} |" for gate in GATES]
    if "shipped settings" not in found:
        lines += ["", "Shipped settings were not measured for this page (--shipped RUN,TWINS,DATASET adds them)."]
    return "\n".join(lines) + "\n"


def alarms(told: Mapping[str, Any]) -> str:
    """What a scan of clean files found, by kind, with the interval of the share of texts."""
    hits = {one["kind"]: one["hits"] for one in told["found"]}
    total = sum(hits.values())
    low, high = exact_interval(min(total, told["texts"]), told["texts"])
    kinds = ", ".join(f"{kind} {count}" for kind, count in hits.items()) or "none"
    files = sum(told["files"].values())
    looked_for = ", ".join(told["looked_for"])
    return (
        f"\nFalse alarms of the identifier scan on files of clean twins ({files:,} files, {told['texts']:,} texts; "
        f"looked for: {looked_for}, and forms): {total} ({low:.2g} to {high:.2g} of a text). By kind: {kinds}. "
        "That planted identifiers of every kind are found in files of every kind is shown by tests/check/identifiers.\n"
    )


def columns(state: Path, shipped: str | None, resamples: int) -> dict[str, Callable[[], Judged]]:
    """What is judged, by name."""
    real = open_dataset(state / "source")

    def over() -> Judged:
        return judged(real, open_dataset(state / "over_twins"), state / "over", canaries=True, resamples=resamples)

    def copied() -> Judged:
        return judged(real, open_dataset(state / "copies"), None, canaries=False, resamples=resamples)

    found = {"over-trained": over, "copies": copied}
    if shipped:
        run, twins, dataset = map(Path, shipped.split(","))

        def as_shipped() -> Judged:
            return judged(open_dataset(dataset), open_dataset(twins), run, canaries=False, resamples=resamples)

        found["shipped settings"] = as_shipped
    return found


def scanned(bench: Bench, clean: Path) -> str:
    """The scan of files of clean twins for the identifiers of the bench's source."""
    known = "source.private/identifiers.parquet"
    if not (bench.state / known).is_file():
        gather = [sys.executable, "-m", "medtwin", "scan", "source=hospital", "real=source", f"known={known}"]
        subprocess.run(gather, cwd=bench.state, check=True)
    folder = bench.run("scan", "scan_clean", f"files={clean.resolve()}", f"known={known}")
    return alarms(read_json(folder / "identifiers.json"))


def main() -> None:
    """Runs what is missing, and prints or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--twins", type=int, default=100)
    parser.add_argument("--resamples", type=int, default=20)
    parser.add_argument("--shipped")
    parser.add_argument("--clean", type=Path, help="files of twins without identifiers, to count false alarms on")
    parser.add_argument(
        "--only", help="one column of the tables: measure it and keep it; with --write, a page of what is kept"
    )
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    chosen.state.mkdir(parents=True, exist_ok=True)
    bench = Bench(chosen.state, [])
    bench.run("hospital", "hospital", "n=1000", "seed=11")
    bench.run("ingest", "source", "source=hospital", "splits.tuning=0.1", "splits.held_out=0.4")
    bench.run("train", "over", "dataset=source", *OVER.split(), f"trainer.max_steps={chosen.steps}")
    bench.run("generate", "over_twins", "timelines=over", f"n={chosen.twins}")
    copies(chosen.state / "source", chosen.state / "copies", chosen.twins)
    found: dict[str, Judged] = {}
    for name, judge_it in columns(chosen.state, chosen.shipped, chosen.resamples).items():
        kept = chosen.state / f"judged {name}.json"
        if not kept.is_file() and chosen.only in (None, name):
            write_json(kept, {"judged": judge_it()})
        if kept.is_file():
            measures, gates = read_json(kept)["judged"]
            found[name] = measures, gates
    if chosen.only and not chosen.write:
        return
    splits = open_dataset(chosen.state / "source").subject_splits().values()
    learned = sum(one == "train" for one in splits)
    text = page(found, bench.said, f"{learned} patients were trained on; {chosen.twins} twins; value (interval).")
    text += scanned(bench, chosen.clean) if chosen.clean else ""
    if chosen.write:
        chosen.write.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
