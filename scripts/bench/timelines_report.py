"""The page of scripts/bench/timelines.py: tables of scores and of speed, from what it left in a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pages import SAID
from timelines_scores import Score

OURS = "medtwin"
FLOOR, COPIES = "independent", "copies"
FAMILIES: Mapping[str, Sequence[tuple[str, str]]] = {
    "Which codes: prevalence by frequency": (
        ("prevalence.log_ratio", "all, log ratio"),
        ("prevalence.r2", "R2"),
        ("prevalence.decile_1", "commonest tenth"),
        ("prevalence.decile_4", "4th tenth"),
        ("prevalence.decile_7", "7th tenth"),
        ("prevalence.decile_10", "rarest tenth"),
        ("rate.log_ratio", "events a year, log ratio"),
    ),
    "When and how much": (
        ("gaps.ks", "gap KS"),
        ("length.ks", "length KS"),
        ("length_by_age.log_ratio", "length by age, log ratio"),
        ("follow_up.ks", "follow-up KS"),
        ("mortality.difference", "share that dies, difference"),
        ("tuning.gaps.ks", "against tuning: gap KS"),
        ("tuning.length.ks", "length KS"),
    ),
    "Numbers": (
        ("values.ks", "value KS by code"),
        ("values.autocorrelation", "memory within a record, error"),
        ("lab_correlation.between_error", "correlation between patients, error"),
        ("trajectories.error", "courses around events, error"),
    ),
    "Order": (
        ("transitions.r2", "lag-1 transition R2"),
        ("transitions.log_ratio", "lag 1, log ratio"),
        ("transitions.lags", "lags 2 to 5, log ratio"),
        ("together.r2", "at one time, R2"),
    ),
    "Missingness": (
        ("missingness.error", "never measured, error"),
        ("co_missingness.error", "missing together, error"),
    ),
    "Told apart by a classifier (AUC, 0.5 is best)": (
        ("c2st.summaries", "summaries"),
        ("c2st.sequences", "sequences"),
        ("tuning.c2st.summaries", "from tuning: summaries"),
        ("tuning.c2st.sequences", "from tuning: sequences"),
    ),
    "Death in hospital predicted 48 hours after admission: learned from twins, tested on held_out": (
        ("tstr.boosting", "AUROC, boosting"),
        ("tstr.logistic", "AUROC, logistic"),
    ),
    "Membership (training patients told from those of tuning; guessing: 0.5 and 0.01)": (
        ("membership.nearest.auc", "nearest twin, AUC"),
        ("membership.nearest.tpr_at_1_fpr", "TPR at 1 % FPR"),
        ("membership.density_ratio.auc", "density ratio, AUC"),
        ("membership.density_ratio.tpr_at_1_fpr", "TPR at 1 % FPR"),
    ),
}
DEMANDED = (
    *(("prevalence.decile_" + str(tenth), f"prevalence, tenth {tenth}: log ratio") for tenth in range(1, 11)),
    ("gaps.ks", "gap KS"),
    ("values.ks", "value KS by code"),
    ("transitions.r2", "lag-1 transition R2"),
    ("length.ks", "length KS"),
    ("tuning.length.ks", "length KS against tuning"),
    ("missingness.error", "missingness error"),
    ("c2st.summaries", "C2ST AUC, summaries"),
    ("c2st.sequences", "C2ST AUC, sequences"),
    ("tstr.boosting", "TSTR mortality AUROC, boosting"),
    ("tstr.logistic", "TSTR mortality AUROC, logistic"),
    ("membership.nearest.tpr_at_1_fpr", "membership by nearest twin, TPR at 1 % FPR"),
    ("membership.density_ratio.tpr_at_1_fpr", "membership by density ratio, TPR at 1 % FPR"),
)
"""What issue 7 asks for: each is a row of the table that says who is ahead."""


@dataclass(frozen=True)
class Seeds:
    """One score of one model over its seeds.

    Attributes:
        mean: Over seeds. low, high: Means of the ends of the seeds' 95 % intervals over patients.
        least, most: Over seeds. number: Of seeds.
        ceiling: Of the training patients, or None. better: `lower` or `higher`.
    """

    mean: float
    low: float
    high: float
    least: float
    most: float
    number: int
    ceiling: float | None
    better: str


def over_seeds(scores: Sequence[Score]) -> Seeds | None:
    """One score over seeds; None where none was measured.

    >>> over_seeds([Score(0.1, 0.0, 0.2, 0.05), Score(0.3, 0.2, 0.4, 0.05)]).mean
    0.2
    """
    known = [one for one in scores if one.value is not None]
    if not known:
        return None
    values = [float(one.value) for one in known if one.value is not None]
    lows = [one.low if one.low is not None else one.value for one in known]
    highs = [one.high if one.high is not None else one.value for one in known]
    ceilings = [one.ceiling for one in known if one.ceiling is not None]
    return Seeds(
        float(np.mean(values)),
        float(np.mean(np.array(lows, float))),
        float(np.mean(np.array(highs, float))),
        min(values),
        max(values),
        len(values),
        float(np.mean(ceilings)) if ceilings else None,
        known[0].better,
    )


def verdict(ours: Seeds, theirs: Seeds) -> str:
    """`ahead`, `even` or `behind`: even where the difference is within what patients and seeds move it.

    The margin is the root of the summed squares of both half intervals; a spread of seeds wider than an interval takes
    its place.

    >>> a, b = Seeds(0.1, 0.08, 0.12, 0.1, 0.1, 3, None, "lower"), Seeds(0.2, 0.18, 0.22, 0.2, 0.2, 3, None, "lower")
    >>> verdict(a, b), verdict(b, a), verdict(a, a)
    ('ahead', 'behind', 'even')
    """
    halves = [max(one.high - one.low, one.most - one.least) / 2 for one in (ours, theirs)]
    gain = theirs.mean - ours.mean if ours.better == "lower" else ours.mean - theirs.mean
    if abs(gain) <= math.hypot(*halves):
        return "even"
    return "ahead" if gain > 0 else "behind"


Table = Mapping[str, Mapping[str, Seeds]]


def read_scores(out: Path) -> tuple[dict[str, dict[str, Seeds]], dict[str, list[dict[str, Any]]]]:
    """Scores over seeds, and the records of what was run, by model."""
    table: dict[str, dict[str, Seeds]] = {}
    records: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out.glob("*/seed*/scores.json")):
        name = path.parent.parent.name
        records.setdefault(name, []).append(json.loads((path.parent / "record.json").read_text()))
    for name in records:
        runs = [json.loads(path.read_text()) for path in sorted(out.glob(f"{name}/seed*/scores.json"))]
        found = {}
        for measure in runs[0]:
            seeds = over_seeds([Score(**run[measure]) for run in runs if measure in run])
            if seeds is not None:
                found[measure] = seeds
        table[name] = found
    return table, records


def _cell(one: Seeds | None) -> str:
    if one is None:
        return ""
    text = f"{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})"
    return text if one.number == 1 else f"{text} [{one.least:.3f}, {one.most:.3f}]"


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _ceiling(table: Table, measure: str) -> str:
    known = [one[measure].ceiling for one in table.values() if measure in one and one[measure].ceiling is not None]
    return f"{float(np.mean([one for one in known if one is not None])):.3f}" if known else ""


def family_tables(table: Table, titles: Mapping[str, str], prefix: str = "") -> list[str]:
    """One table per family: a row for each model, the training patients first."""
    lines: list[str] = []
    for family, measures in FAMILIES.items():
        shown = [one for one in measures if any(prefix + one[0] in scores for scores in table.values())]
        if not shown:
            continue
        rows = [["training patients", *(_ceiling(table, prefix + name) for name, _ in shown)]]
        for model, scores in table.items():
            rows.append([titles.get(model, model), *(_cell(scores.get(prefix + name)) for name, _ in shown)])
        lines += [f"### {family}", "", *_rows(["", *(title for _, title in shown)], rows)]
    return lines


def ahead_table(table: Table, titles: Mapping[str, str], peers: Sequence[str], prefix: str = "") -> list[str]:
    """Who is ahead on what issue 7 asks for: medtwin beside the best of the peers."""
    rows = []
    for measure, title in DEMANDED:
        name = prefix + measure
        ours = table.get(OURS, {}).get(name)
        rivals = {peer: table[peer][name] for peer in peers if name in table.get(peer, {})}
        if ours is None or not rivals:
            continue
        sign = 1 if ours.better == "lower" else -1
        best = min(rivals, key=lambda peer: sign * rivals[peer].mean)
        floor = table.get(FLOOR, {}).get(name)
        rows.append(
            [
                title,
                _cell(ours),
                f"{_cell(rivals[best])} {titles.get(best, best)}",
                _ceiling(table, name),
                "" if floor is None else f"{floor.mean:.3f}",
                verdict(ours, rivals[best]),
            ]
        )
    return _rows(["measure", "medtwin", "best peer", "training patients", "floor", "medtwin is"], rows) if rows else []


def cost_table(records: Mapping[str, Sequence[Mapping[str, Any]]], titles: Mapping[str, str]) -> list[str]:
    """What training and generating took; means over seeds."""
    rows = []
    for name, runs in records.items():
        if runs[0]["fit"] is None:
            continue
        cells = [titles.get(name, name)]
        for part in ("fit", "sample"):
            cells += [f"{np.mean([run[part][what] for run in runs]):,.0f}" for what in ("wall_s", "cpu_s")]
        cells.append(f"{max(run[part]['peak_gib'] for run in runs for part in ('fit', 'sample')):.2f}")
        speed = np.mean([run["events"] / run["sample"]["cpu_s"] for run in runs])
        rows.append([*cells, f"{speed:,.0f}", f"{np.mean([run['events'] / run['subjects'] for run in runs]):.0f}"])
    header = [
        "",
        "train wall s",
        "CPU s",
        "generate wall s",
        "CPU s",
        "peak GiB",
        "events per CPU s",
        "events a record",
    ]
    return _rows(header, rows)


def _settings(records: Mapping[str, Sequence[Mapping[str, Any]]], titles: Mapping[str, str]) -> list[str]:
    lines = []
    for name, runs in records.items():
        told = json.dumps(runs[0]["settings"], ensure_ascii=False)
        lines.append(f"- {titles.get(name, name)}, seed 0: `{told}`")
    return [*lines, ""]


def page(out: Path, said: str = "") -> str:
    """The page as Markdown.

    Args:
        out: The folder of `scores` and of `speed`.
        said: What the section that is written by hand says.
    """
    lines = ["# Timelines beside their peers", ""]
    if said:
        lines += [SAID, "", said, ""]
    if (out / "about.json").is_file():
        lines += _score_lines(out)
    if (out / "speed.json").is_file():
        found = json.loads((out / "speed.json").read_text())
        lines += ["## Speed and memory", "", f"One thread, one run side by side, {found['machine']}.", ""]
        for title, table in found["tables"].items():
            lines += [f"### {title}", "", *_rows(table["header"], table["rows"])]
    return "\n".join(lines).rstrip() + "\n"


def _score_lines(out: Path) -> list[str]:
    about = json.loads((out / "about.json").read_text())
    table, records = read_scores(out)
    titles = about["titles"]
    peers = [name for name in table if about["kinds"].get(name) == "peer"]
    return [
        f"Command: `scripts/bench/timelines.py scores`, at {about['commit']}; {about['machine']}; dataset "
        f"{about['dataset']}, {about['subjects']:,} training patients and as many twins; {about['minutes']:g} minutes "
        f"for each model and seed ({about['clock']} clock), one thread.",
        "",
        "Each number is of twins against held_out, patients that nothing has seen; (95 % interval over patients), "
        "[least and most over seeds]. Training patients: the same number of the training patients, the ceiling. Floor: "
        "number of events, codes, gaps and values drawn each by itself. R2 and AUROC: higher is better; else: lower.",
        "",
        "PAR learned from 300 stays of 50 events because of its cost; the last tables are of the first 50 events.",
        "",
        "## Who is ahead",
        "",
        *ahead_table(table, titles, peers),
        "Even: the difference is within the intervals of both, or the spread of seeds.",
        "",
        "## Cost",
        "",
        *cost_table(records, titles),
        "## Scores",
        "",
        *family_tables(table, titles),
        "## The first 50 events of each record",
        "",
        *ahead_table(table, titles, peers, "first."),
        *family_tables(table, titles, "first."),
        "## Settings",
        "",
        *_settings(records, titles),
    ]
