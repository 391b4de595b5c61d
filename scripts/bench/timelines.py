#!/usr/bin/env python3
"""Compares medtwin's timelines with TabularARGN, PAR and simple laws: the scores of each, and ratios of speed.

    scripts/bench/timelines_peers                       once: the peers' environment
    .venv/bin/python scripts/bench/timelines.py scores --dataset DIR --out DIR [--minutes 10] [--seeds 0 1 2]
    .venv/bin/python scripts/bench/timelines.py speed --dataset DIR --out DIR [--run RUN]
    .venv/bin/python scripts/bench/timelines.py report --out DIR --write docs/results/timelines.md

Every model learns from the train split (tuning decides when it stops), in so many minutes on one thread, and makes as
many records as train has. `medtwin check` scores them against held_out, which none has seen, beside the training
patients themselves (the ceiling) and codes, gaps and numbers drawn each by itself (the floor). What is there already in
--out is kept, and so is the section "What it says" of the page, which is written by hand. Run it on a quiet machine:
budgets are of the wall clock; `--clock cpu` lets the peers count CPU seconds instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from head_commit import head_commit
from pages import read_page, said_in
from timelines_report import page
from timelines_scores import (
    Score,
    first_events,
    membership_scores,
    num_events,
    run_check,
    scores_of,
    told_from_tuning,
    write_judge,
)
from timelines_speed import SPEED, measure_speed
from timelines_tables import (
    KEY,
    Flat,
    copied_events,
    independent_events,
    ranks_to_values,
    to_dataset,
    to_tables,
    values_to_ranks,
)

from medtwin.check.tasks import task_from
from medtwin.config import compose
from medtwin.core.dataset import open_dataset
from medtwin.pipelines.check_utility import measure_utility

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = Path(__file__).resolve().parent
TASK = "icu_mortality_48h"
MAX_DISCRETE = 5000
"""Different training gaps up to which TabularARGN models gaps as classes; beyond, digit by digit."""
PAR_SUBJECTS, PAR_EVENTS = 300, 50
FIRST = PAR_EVENTS
"""Events of each record that the second comparison, which PAR can win, looks at."""


@dataclass(frozen=True)
class Model:
    """One that is compared.

    Attributes:
        title: What the page calls it.
        kind: medtwin (by its verbs), peer (a driver in an environment of its own), or built (drawn here).
        overrides: Of `medtwin train`; `{time}` becomes the limit as DD:HH:MM:SS.
        plan: Settings of a peer.
    """

    title: str
    kind: str
    overrides: tuple[str, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)


LIMITED = ("experiment=physionet2012", "trainer.max_time={time}")
_ARGN = {"peer": "tabular_argn", "model": "MOSTLY_AI/Medium", "window": 100}
_PREPARED = {"gap_encoding": "", "value_encoding": "TABULAR_NUMERIC_BINNED", "values": "ranks"}
"""Gaps as classes and each value as its place among those of its code: kinder than what the engine chooses itself."""
_AUTO = "TABULAR_NUMERIC_AUTO"
_PAR = {"peer": "par", "num_subjects": PAR_SUBJECTS, "num_events": PAR_EVENTS, "values": "numbers"}
MODELS: dict[str, Model] = {
    "medtwin": Model("medtwin", "medtwin", LIMITED),
    "medtwin_no_latent": Model("medtwin without the latent", "medtwin", (*LIMITED, "net.latent_dim=0")),
    "markov": Model("medtwin's Markov chain", "medtwin", ("model=markov",)),
    "marginals": Model("medtwin's independent marginals", "medtwin", ("model=marginals",)),
    "summary_gmm": Model("medtwin's Gaussian mixture on summaries", "medtwin", ("model=summary_gmm",)),
    "summary_gan": Model("medtwin's GAN on summaries", "medtwin", ("model=summary_gan",)),
    "tabular_argn": Model("TabularARGN, medium", "peer", plan={**_ARGN, **_PREPARED}),
    "tabular_argn_small": Model("TabularARGN, small", "peer", plan={**_ARGN, **_PREPARED, "model": "MOSTLY_AI/Small"}),
    "tabular_argn_auto": Model(
        "TabularARGN, medium, encodings of its own choice",
        "peer",
        plan={**_ARGN, "gap_encoding": _AUTO, "value_encoding": _AUTO, "values": "numbers"},
    ),
    "par": Model("PAR", "peer", plan=_PAR),
    "independent": Model("floor: all drawn independently", "built"),
    "copies": Model("copies of training records", "built"),
}
DEFAULT = (
    "medtwin",
    "medtwin_no_latent",
    "markov",
    "tabular_argn",
    "tabular_argn_small",
    "tabular_argn_auto",
    "par",
    "independent",
    "copies",
)


def limit(minutes: float) -> str:
    """A time as Lightning writes it, DD:HH:MM:SS.

    >>> limit(90.5)
    '00:01:30:30'
    """
    hours, seconds = divmod(round(60 * minutes), 3600)
    return f"00:{hours:02d}:{seconds // 60:02d}:{seconds % 60:02d}"


@dataclass(frozen=True)
class Cost:
    """What one process took: seconds of wall clock and CPU, and its peak memory in GiB."""

    wall_s: float
    cpu_s: float
    peak_gib: float


def measured(command: Sequence[str], log: Path) -> Cost:
    """Runs a process on one thread and measures it; its output goes to a file.

    Raises:
        SystemExit: If it fails.
    """
    start = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}\n{log.read_text()[-3000:]}")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


@dataclass(frozen=True)
class Bench:
    """What every model of a comparison shares."""

    dataset: Path
    out: Path
    flat: Flat
    minutes: float
    clock: str
    peers: Path
    task: str | None

    @property
    def num_subjects(self) -> int:
        """As many records as train has."""
        return int((self.flat.context["split"] == "train").sum())

    def make(self, name: str, seed: int) -> dict[str, Any]:
        """Trains and generates, unless it is there; returns what it cost and how it was set."""
        folder = self.out / name / f"seed{seed}"
        record = folder / "record.json"
        if not record.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make = {"medtwin": self._medtwin, "peer": self._peer, "built": self._built}[MODELS[name].kind]
            record.write_text(json.dumps(make(name, seed, folder), indent=1))
        found: dict[str, Any] = json.loads(record.read_text())
        return found

    def _medtwin(self, name: str, seed: int, folder: Path) -> dict[str, Any]:
        words = [word.format(time=limit(self.minutes)) for word in MODELS[name].overrides]
        verb = [sys.executable, "-m", "medtwin"]
        run, twins = folder / "run", folder / "twins"
        train = [*verb, "train", f"dataset={self.dataset}", f"seed={seed}", f"out={run}", *words]
        fit = measured(train, folder / "train.log")
        number = f"n={self.num_subjects}"
        generate = [*verb, "generate", f"timelines={run}", number, f"seed={seed}", f"out={twins}"]
        sample = measured(generate, folder / "generate.log")
        summary = " ".join((folder / "train.log").read_text().strip().splitlines()[-1:])
        return self._record(twins, fit, sample, {"overrides": words, "said": summary.removeprefix(f"{run}: ")})

    def _record(
        self, twins: Path, fit: Cost | None, sample: Cost | None, settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        subjects, rows = num_events(twins)
        costs = {"fit": fit, "sample": sample}
        return {
            **{name: None if cost is None else asdict(cost) for name, cost in costs.items()},
            "subjects": subjects,
            "events": rows,
            "settings": dict(settings),
        }

    def _peer(self, name: str, seed: int, folder: Path) -> dict[str, Any]:
        plan = {**MODELS[name].plan, "seed": seed, "minutes": self.minutes, "clock": self.clock}
        events = self.flat.events
        if plan.get("gap_encoding") == "":
            few = events["gap_minutes"].nunique() <= MAX_DISCRETE
            plan["gap_encoding"] = "TABULAR_NUMERIC_DISCRETE" if few else "TABULAR_NUMERIC_DIGIT"
        if plan["values"] == "ranks":
            codes = events["code"].to_numpy(object)
            events = events.assign(value=values_to_ranks(codes, events["value"].to_numpy(), self.flat.values))
        plan |= {"n": self.num_subjects, "numeric_context": self.flat.numeric_context}
        (folder / "plan.json").write_text(json.dumps(plan, indent=1))
        self.flat.context.to_parquet(folder / "context.parquet")
        events.to_parquet(folder / "events.parquet")
        cost = measured([str(self.peers), str(FOLDER / "timelines_peer_driver.py"), str(folder)], folder / "peer.log")
        context, sampled = (pd.read_parquet(folder / f"sampled_{part}.parquet") for part in ("context", "events"))
        mended = to_dataset(self.flat, context, self._numbers(sampled, plan["values"]), folder / "twins", name)
        timing = json.loads((folder / "timing.json").read_text())
        fit, sample = (Cost(timing[f"{part}_s"], timing[f"{part}_cpu_s"], cost.peak_gib) for part in ("fit", "sample"))
        (folder / "events.parquet").unlink()
        shutil.rmtree(folder / "workspace", ignore_errors=True)
        return self._record(folder / "twins", fit, sample, {**timing["settings"], **mended, "clock": self.clock})

    def _numbers(self, sampled: pd.DataFrame, form: str) -> pd.DataFrame:
        """Sampled events with their values as numbers again, those of one subject together and in order."""
        ordered = sampled.assign(number=sampled.groupby(KEY).cumcount()).sort_values([KEY, "number"], kind="stable")
        if form == "ranks":
            codes = ordered["code"].to_numpy(object)
            ranks = ordered["value"].to_numpy(float, na_value=float("nan"))
            return ordered.assign(value=ranks_to_values(codes, ranks, self.flat.values))
        return ordered

    def _built(self, name: str, seed: int, folder: Path) -> dict[str, Any]:
        draw = {"independent": independent_events, "copies": copied_events}[name]
        context, events = draw(self.flat, self.num_subjects, seed)
        mended = to_dataset(self.flat, context, events, folder / "twins", name)
        return self._record(folder / "twins", None, None, mended)

    def score(self, name: str, seed: int) -> dict[str, Score]:
        """Every score of one synthetic dataset, unless it is there."""
        folder = self.out / name / f"seed{seed}"
        kept = folder / "scores.json"
        if not kept.is_file():
            scores = scores_of(run_check(folder / "twins", self.out / "judge", folder / "check"))
            first_events(folder / "twins", folder / "first", FIRST)
            found = scores_of(run_check(folder / "first", self.out / "judge_first", folder / "check_first"))
            scores |= {f"first.{measure}": one for measure, one in found.items()}
            scores |= told_from_tuning(self.dataset, folder / "twins")
            scores |= membership_scores(self.dataset, folder / "twins")
            scores |= self._use(folder / "twins")
            kept.write_text(json.dumps({measure: asdict(one) for measure, one in scores.items()}, indent=1))
        return {measure: Score(**one) for measure, one in json.loads(kept.read_text()).items()}

    def _use(self, twins: Path) -> dict[str, Score]:
        """AUROC on held_out of classifiers that learned from the twins, beside those that learned from train."""
        if self.task is None:
            return {}
        task = task_from(compose("check", ["synthetic=x", "real=x", f"task={self.task}"])["task"])
        if task is None:
            return {}
        found = measure_utility(open_dataset(self.dataset), [open_dataset(twins)], task)
        scores = {}
        real = {row.model: row.value for row in found.rows if row.arm == "real" and row.score == "auroc"}
        for row in found.rows:
            if row.arm == "twins" and row.score == "auroc":
                title = f"AUROC on held_out, {row.model} learned from the twins"
                scores[f"tstr.{row.model}"] = Score(row.value, row.low, row.high, real[row.model], "higher", title)
        for measure in found.measures:
            if measure.estimate is not None:
                one = measure.estimate
                scores[measure.name] = Score(one.value, one.low, one.high, one.control, measure.better, measure.title)
        return scores


def _scores(chosen: argparse.Namespace) -> None:
    out: Path = chosen.out
    out.mkdir(parents=True, exist_ok=True)
    peers = chosen.envs / "timelines" / "bin" / "python"
    flat = to_tables(open_dataset(chosen.dataset))
    task = None if chosen.task == "none" else chosen.task
    bench = Bench(chosen.dataset, out, flat, chosen.minutes, chosen.clock, peers, task)
    if not (out / "judge").is_dir():
        write_judge(chosen.dataset, out / "judge")
        first_events(out / "judge", out / "judge_first", FIRST)
    for seed in chosen.seeds:
        for name in chosen.models:
            record = bench.make(name, seed)
            scores = bench.score(name, seed)
            shown = ("prevalence.log_ratio", "gaps.ks", "values.ks", "transitions.r2", "c2st.summaries")
            told = ", ".join(f"{one} {scores[one].value:.3f}" for one in shown if scores[one].value is not None)
            print(f"{name} seed {seed}: {record['events']:,} events; {told}", flush=True)
    (out / "about.json").write_text(json.dumps(_about(chosen, bench), indent=1))


def _about(chosen: argparse.Namespace, bench: Bench) -> dict[str, Any]:
    return {
        "dataset": chosen.dataset.name,
        "subjects": bench.num_subjects,
        "minutes": chosen.minutes,
        "clock": chosen.clock,
        "task": bench.task,
        "commit": head_commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "titles": {name: model.title for name, model in MODELS.items()},
        "kinds": {name: model.kind for name, model in MODELS.items()},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    scores, speed, report = (parts.add_parser(name) for name in ("scores", "speed", "report"))
    for part in (scores, speed):
        part.add_argument(
            "--dataset", type=Path, required=True, help="a dataset directory with train, tuning, held_out"
        )
    for part in (scores, speed, report):
        part.add_argument("--out", type=Path, required=True, help="folder of the results")
        part.add_argument("--write", type=Path, help="write the page here")
    scores.add_argument("--minutes", type=float, default=10, help="of training, for each model and seed")
    scores.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what the peers' minutes count")
    scores.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    scores.add_argument("--models", nargs="+", choices=list(MODELS), default=list(DEFAULT))
    scores.add_argument("--task", default=TASK, help="option of the group task, or none")
    scores.add_argument("--envs", type=Path, default=ROOT / ".peers-timelines", help="where timelines_peers put them")
    speed.add_argument("--only", nargs="+", choices=SPEED, default=list(SPEED))
    speed.add_argument("--run", type=Path, help="the finished run whose generation is timed")
    speed.add_argument("--words", nargs="*", default=[], help="overrides of `medtwin train`")
    return parser


def main() -> None:
    """Measures what was asked for, and writes the page."""
    chosen = _parser().parse_args()
    if chosen.part == "scores":
        _scores(chosen)
    elif chosen.part == "speed":
        measure_speed(chosen.dataset, chosen.out, chosen.only, chosen.run, chosen.words)
    said = said_in(read_page(chosen.write))
    text = page(chosen.out, said) if chosen.part == "report" or chosen.write else ""
    if chosen.write:
        chosen.write.write_text(text, encoding="utf-8")
    elif text:
        print(text)


if __name__ == "__main__":
    main()
