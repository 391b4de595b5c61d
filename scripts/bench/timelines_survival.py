"""How long twins are followed, and when they are first diagnosed: Kaplan-Meier curves beside those of their source.

    .venv/bin/python scripts/bench/timelines_survival.py --real my/dataset --twins my/twins [--write page.md]

Follow-up: years from the first event of a record to its last. First diagnoses: years from the first event to the first
Condition of each of the most frequent codes, censored at the last event. The distance of two curves is their largest
gap up to where 5 % of the source's patients are left at risk, with a 95 % interval over resampled patients of both
sides. `half` is one half of the source against the other, the distance that chance alone makes at that size; `hurried`
is the source with all its times divided by 1.5, which must stand out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from timelines_truth_measures import Interval, shifted

from medtwin.core.codes import BIRTH, NEGATED_PREFIX
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.seeds import generator
from medtwin.trials.analysis.kaplan_meier import kaplan_meier

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
DAYS_PER_YEAR = 365.25
LEFT = 0.05
NUM_RESAMPLES = 200
HURRY = 1.5
COLUMNS = ["subject_id", "time", "code", "resource", "parent_id"]


@dataclass(frozen=True)
class Times:
    """Years from the first event of each subject until something happens, (n,), and whether it did or was censored."""

    years: Floats
    happens: Bools

    def __len__(self) -> int:
        return len(self.years)

    def of(self, rows: NDArray[np.int64]) -> Times:
        """Those of some subjects."""
        return Times(self.years[rows], self.happens[rows])


def read(dataset: Dataset, splits: Sequence[str]) -> pd.DataFrame:
    """The dated events of some splits, in years since the first of each subject."""
    parts = [table.select(COLUMNS).to_pandas() for split in splits for table in dataset.iter_events(split)]
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["time"].notna() & frame["parent_id"].isna() & (frame["code"] != BIRTH)]
    first = frame.groupby("subject_id")["time"].transform("min")
    return frame.assign(years=(frame["time"] - first).dt.total_seconds() / 86_400 / DAYS_PER_YEAR)


def follow_up(frame: pd.DataFrame) -> Times:
    """Until the last event; nobody is censored."""
    years = frame.groupby("subject_id")["years"].max().to_numpy()
    return Times(years, np.ones(len(years), dtype=bool))


def first_diagnosis(frame: pd.DataFrame, code: str) -> Times:
    """Until the first Condition of a code."""
    last = frame.groupby("subject_id")["years"].max()
    mine = frame[(frame["resource"] == "Condition") & (frame["code"] == code)]
    onset = mine.groupby("subject_id")["years"].min().reindex(last.index)
    return Times(onset.fillna(last).to_numpy(), onset.notna().to_numpy())


def most_frequent(frame: pd.DataFrame, number: int) -> list[str]:
    """Codes of the Conditions that most subjects have."""
    rows = frame[(frame["resource"] == "Condition") & ~frame["code"].str.startswith(NEGATED_PREFIX)]
    return rows.groupby("code")["subject_id"].nunique().sort_values(ascending=False).index[:number].tolist()


def gap(one: Times, other: Times, most: float) -> float:
    """Largest distance of two Kaplan-Meier curves up to a time.

    >>> early, late = (Times(np.array(years, float), np.ones(2, bool)) for years in ([1, 2], [2, 3]))
    >>> gap(early, late, 5.0), gap(early, early, 5.0), gap(early, late, 0.5)
    (0.5, 0.0, 0.0)
    """
    curves = [kaplan_meier(each.years, each.happens) for each in (one, other)]
    times = np.unique(np.concatenate([[0.0], *(curve.time for curve in curves)]))
    first, second = (curve.at(times[times <= most]) for curve in curves)
    return float(np.abs(first - second).max())


def distance(one: Times, other: Times, most: float, seed: int) -> Interval:
    """`gap` with its interval."""
    rng = generator(seed, "survival", len(one), len(other))
    draws = [gap(one, other, most)]
    for _ in range(NUM_RESAMPLES):
        sides = (side.of(rng.integers(len(side), size=len(side))) for side in (one, other))
        draws.append(gap(*sides, most))
    return shifted(np.array(draws))


def halves(times: Times, seed: int) -> tuple[Times, Times]:
    """The subjects in two halves."""
    order = generator(seed, "halves", len(times)).permutation(len(times))
    return times.of(order[::2]), times.of(order[1::2])


def row(name: str, real: Times, twins: Times, seed: int) -> str:
    """One line of the table."""
    most = float(np.quantile(real.years, 1 - LEFT))
    found = distance(real, twins, most, seed)
    cells = [
        name,
        f"{real.happens.mean():.1%}",
        f"{twins.happens.mean():.1%}",
        f"{found.value:.3f} ({max(found.low, 0):.3f} to {found.high:.3f})",
        f"{gap(*halves(real, seed), most):.3f}",
        f"{gap(real, Times(real.years / HURRY, real.happens), most):.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def page(real: pd.DataFrame, twins: pd.DataFrame, chosen: argparse.Namespace) -> str:
    """The table."""
    laws: dict[str, Callable[[pd.DataFrame], Times]] = {"years of follow-up": follow_up}
    for code in most_frequent(real, chosen.codes):
        laws[code] = partial(first_diagnosis, code=code)
    lines = [
        f"{real['subject_id'].nunique():,} patients of the source, {twins['subject_id'].nunique():,} twins.\n",
        "| until | source | twins | gap of the curves (95 %) | half | hurried |",
        "|---|---|---|---|---|---|",
        *(row(name, law(real), law(twins), chosen.seed) for name, law in laws.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--real", type=Path, required=True, help="the dataset that the twins were learned from")
    parser.add_argument("--twins", type=Path, required=True)
    parser.add_argument("--split", default="train", help="of the source")
    parser.add_argument("--codes", type=int, default=12, help="so many most frequent Conditions")
    parser.add_argument("--seed", type=int, default=0, help="decides the resamples")
    parser.add_argument("--write", type=Path, help="write the table to this Markdown file")
    chosen = parser.parse_args()
    source, made = open_dataset(chosen.real), open_dataset(chosen.twins)
    text = page(read(source, [chosen.split]), read(made, list(made.splits)), chosen)
    print(text)
    if chosen.write:
        chosen.write.write_text(text)


if __name__ == "__main__":
    main()
