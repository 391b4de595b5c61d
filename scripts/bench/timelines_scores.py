"""Scores of synthetic records against real patients that no model saw, for scripts/bench/timelines.py.

`medtwin check` compares twins with the train split of a dataset, so the judge is a dataset whose train split is
held_out and whose held_out split is train: every number is then of twins against unseen patients, and its `control` is
the same number of the training patients, which is the ceiling. Membership is not among check's measures without a
likelihood of the model; it is measured here, alike for every model, by density ratios of neighbours.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from medtwin.check.records import Records, Vocabulary, read_records
from medtwin.check.resample import make_plan
from medtwin.check.summaries import patient_summaries, scaled_summaries, summary_keys, summary_measures
from medtwin.check.times import time_measures
from medtwin.core.codes import BIRTH
from medtwin.core.dataset import open_dataset
from medtwin.core.files import write_manifest, write_table
from medtwin.core.seeds import generator

Floats = NDArray[np.float64]
LEVEL = 0.95
MAX_FPR = 0.01
SMALLEST_DISTANCE = 1e-9
"""What an exact copy counts as."""
NUM_RESAMPLES = 200


@dataclass(frozen=True)
class Score:
    """One number of one synthetic dataset, with its interval.

    Attributes:
        value: None where it could not be measured.
        low, high: 95 % interval over patients.
        ceiling: The same number of the training patients; None where it has none.
        better: `lower` or `higher`.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    ceiling: float | None = None
    better: str = "lower"
    title: str = ""


def write_judge(dataset: Path, folder: Path) -> None:
    """Writes the dataset with train and held_out changed round, without tuning."""
    source = open_dataset(dataset)
    split_of = {"held_out": "train", "train": "held_out"}
    for old, new in split_of.items():
        for number, path in enumerate(source.shards(old)):
            place = folder / "data" / new / f"{number:05d}.parquet"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    (folder / "metadata").mkdir()
    for name in ("codes.parquet", "dataset.json"):
        shutil.copyfile(dataset / "metadata" / name, folder / "metadata" / name)
    splits = {subject: split_of[old] for subject, old in source.subject_splits().items() if old in split_of}
    schema = pa.schema([pa.field("subject_id", pa.int64()), pa.field("split", pa.string())])
    table = pa.table({"subject_id": list(splits), "split": list(splits.values())}, schema=schema)
    write_table(folder / "metadata" / "subject_splits.parquet", table)
    write_manifest(folder)


def first_events(dataset: Path, folder: Path, number: int) -> None:
    """Writes the dataset with the first so many dated events of each record, birth not counted."""
    source = open_dataset(dataset)
    for split, place in source.splits.items():
        for index, table in enumerate(source.iter_events(split)):
            dated = pc.and_(pc.is_valid(table["time"]), pc.not_equal(table["code"], BIRTH)).to_numpy()
            subject = table["subject_id"].to_numpy()
            seen = np.cumsum(dated)
            starts = np.flatnonzero(np.r_[True, subject[1:] != subject[:-1]])
            before = np.repeat(seen[starts] - dated[starts], np.diff(np.r_[starts, len(subject)]))
            kept = table.filter(pa.array(~dated | (seen - before <= number)))
            write_table(folder / place / f"{index:05d}.parquet", kept)
    shutil.copytree(dataset / "metadata", folder / "metadata")
    write_manifest(folder)


def run_check(synthetic: Path, real: Path, out: Path, words: Sequence[str] = ()) -> Mapping[str, Any]:
    """What `medtwin check` finds, findings.json; a finished check is kept.

    Raises:
        SystemExit: If the check fails.
    """
    if not (out / "findings.json").is_file():
        command = [sys.executable, "-m", "medtwin", "check", f"synthetic={synthetic}", f"real={real}", f"out={out}"]
        done = subprocess.run([*command, "images=false", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    found: Mapping[str, Any] = json.loads((out / "findings.json").read_text(encoding="utf-8"))
    return found


def scores_of(findings: Mapping[str, Any]) -> dict[str, Score]:
    """The measures of a check by name, and `prevalence.decile_N` for each tenth of the codes."""
    scores: dict[str, Score] = {}
    for one in findings["measures"]:
        scores[one["name"]] = _score(one["estimate"], one["better"], one["title"])
    for row in findings["deciles"]:
        title = f"Prevalence, tenth {row['decile']} of the codes: mean absolute log ratio"
        scores[f"prevalence.decile_{row['decile']}"] = _score(row["error"], "lower", title)
    return scores


def _score(estimate: Mapping[str, Any] | None, better: str, title: str) -> Score:
    if estimate is None:
        return Score(None, better=better, title=title)
    return Score(estimate["value"], estimate["low"], estimate["high"], estimate["control"], better, title)


def told_from_tuning(dataset: Path, synthetic: Path, seed: int = 0) -> dict[str, Score]:
    """`check`'s classifiers and its measures of time, twins against the tuning patients; the ceiling is train's.

    Tuning comes from where train does; held_out need not.
    """
    real, twins = open_dataset(dataset), open_dataset(synthetic)
    vocabulary = Vocabulary()
    tuning, train = (read_records(real, vocabulary, [split]) for split in ("tuning", "train"))
    made = read_records(twins, vocabulary, list(twins.splits))
    told, _ = summary_measures(tuning, made, train, seed=seed)
    plan = make_plan(tuning.num_subjects, made.num_subjects, train.num_subjects, seed=seed)
    timed, _ = time_measures(tuning, made, train, plan)
    return {
        f"tuning.{one.name}": _score(None if one.estimate is None else asdict(one.estimate), one.better, one.title)
        for one in (*told, *timed)
        if one.name.startswith(("c2st.", "gaps.", "length", "follow_up."))
    }


def membership_scores(dataset: Path, synthetic: Path, seed: int = 0) -> dict[str, Score]:
    """How well somebody who has the twins and the held_out patients tells training patients from those of tuning.

    Two attacks on `patient_summaries`, scaled: nearness to the closest twin, and the ratio of the twins' density to
    that of the held_out patients, by the distance to the nearest of each. Of both the area under the ROC curve and the
    share of training patients found where 1 % of the tuning patients are taken for one. Guessing gives 0.5 and 0.01.
    Not held_out are the ones to be told apart: where they come from elsewhere, as those of physionet2012 do, an
    attack tells where a patient comes from, whatever the twins are.

    Source: van Breugel et al. 2023, AISTATS (DOMIAS); Carlini et al. 2022, IEEE S&P (true positives at few false ones).
    """
    real, twins = open_dataset(dataset), open_dataset(synthetic)
    vocabulary = Vocabulary()
    sides = [read_records(real, vocabulary, [split]) for split in ("train", "tuning", "held_out")]
    sides.append(read_records(twins, vocabulary, list(twins.splits)))
    members, others, reference, made = _points(sides)
    attacks = {
        "nearest": [-_log_distance(side, made) for side in (members, others)],
        "density_ratio": [_log_distance(side, reference) - _log_distance(side, made) for side in (members, others)],
    }
    scores: dict[str, Score] = {}
    for name, (inside, outside) in attacks.items():
        rng = generator(seed, "timelines", "membership", name)
        for what, measure in (("auc", area), ("tpr_at_1_fpr", true_positives)):
            value = measure(inside, outside)
            drawn = np.array([measure(_resampled(inside, rng), _resampled(outside, rng)) for _ in range(NUM_RESAMPLES)])
            low, high = value + np.quantile(drawn - np.median(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            title = f"Membership by {name.replace('_', ' ')}: {'area under ROC' if what == 'auc' else 'TPR at 1 % FPR'}"
            scores[f"membership.{name}.{what}"] = Score(
                value, max(float(low), 0.0), min(float(high), 1.0), None, "lower", title
            )
    return scores


def _points(sides: Sequence[Records]) -> list[Floats]:
    """Points of train, tuning, held_out and the twins, scaled by held_out, which the attacker has."""
    keys = summary_keys(sides[2])
    summaries = [patient_summaries(side, keys) for side in sides]
    return scaled_summaries(summaries, summaries[2])


def _log_distance(points: Floats, cloud: Floats) -> Floats:
    """Logarithm of each point's distance to the nearest of a cloud, (points,)."""
    nearest = np.asarray(cKDTree(cloud).query(points)[0], np.float64)
    return np.asarray(np.log(nearest + SMALLEST_DISTANCE))


def _resampled(values: Floats, rng: np.random.Generator) -> Floats:
    return values[rng.integers(len(values), size=len(values))]


def area(inside: Floats, outside: Floats) -> float:
    """Area under the ROC curve of the scores of members above those of others; ties count half.

    >>> area(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    ordered = np.sort(outside)
    below, upto = (np.searchsorted(ordered, inside, side=side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(outside))


def true_positives(inside: Floats, outside: Floats) -> float:
    """Share of members whose score is above all but 1 % of the others'.

    >>> true_positives(np.array([0.5, 98.5, 99.5, 200.0]), np.arange(1.0, 101.0))
    0.5
    """
    allowed = int(np.floor(MAX_FPR * len(outside)))
    threshold = np.sort(outside)[len(outside) - allowed - 1]
    return float((inside > threshold).mean())


def num_events(folder: Path) -> tuple[int, int]:
    """Subjects and rows of a dataset."""
    tables = [pq.read_table(path, columns=["subject_id"]) for path in open_dataset(folder).shards()]
    return sum(len(table["subject_id"].unique()) for table in tables), sum(len(table) for table in tables)
