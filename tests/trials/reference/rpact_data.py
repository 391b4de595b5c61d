"""Crosswalk of rpact's datasets of stages to medtwin's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.stage_data import LogRankData, MeansData, RatesData, Sample, StageData
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Frame, plain
from tests.trials.reference.signatures import Arguments, numbers

Floats = NDArray[np.float64]
_PREFIX = re.compile(r"(overall|cumulative|cum)(?=[A-Z])")
_COLUMNS = {
    "n": "n",
    "sampleSize": "n",
    "sampleSizes": "n",
    "mean": "means",
    "means": "means",
    "stDev": "sds",
    "stDevs": "sds",
    "event": "events",
    "events": "events",
    "logRank": "z",
    "logRanks": "z",
    "allocationRatio": "ratios",
    "allocationRatios": "ratios",
}


@dataclass(frozen=True)
class Dataset:
    """A getDataset(): its columns by name and arm, from 1; arm 0 where a column has no number."""

    columns: Mapping[tuple[str, int], Floats]
    is_cumulative: bool

    @property
    def arms(self) -> int:
        """How many."""
        return max(1, *(arm for _, arm in self.columns))

    @property
    def kind(self) -> str:
        """means, rates or survival."""
        names = {name for name, _ in self.columns}
        if "means" in names:
            return "means"
        return "survival" if "z" in names else "rates"

    @property
    def stages(self) -> int:
        """How many have data."""
        return max(int(np.isfinite(column).sum()) for column in self.columns.values())

    def column(self, name: str, arm: int, stages: int) -> Floats:
        """A column of an arm, so many stages."""
        found = self.columns.get((name, arm), self.columns.get((name, 0)) if arm == 1 else None)
        if found is None:
            if name == "ratios":
                return np.ones(stages)
            raise NotCoveredError(f"getDataset() without {name} of arm {arm}")
        return found[:stages]


def dataset(*args: Any, **named: Any) -> Dataset:
    """getDataset()."""
    for each in args:
        if not isinstance(each, Frame):
            raise NotCoveredError("an unnamed argument of getDataset()")
        named = {**each, **named}
    columns: dict[tuple[str, int], Floats] = {}
    cumulative = set()
    for key, value in named.items():
        if key in ("stages", "stage"):
            continue
        prefix = _PREFIX.match(key)
        rest = key[prefix.end() :] if prefix else key
        rest = rest[0].lower() + rest[1:] if prefix else rest
        match = re.fullmatch(r"([A-Za-z]+)_?(\d*)", rest)
        if match is None or match[1] not in _COLUMNS:
            raise NotCoveredError(f"the argument {key} of getDataset()")
        columns[_COLUMNS[match[1]], int(match[2] or 0)] = np.array(numbers(plain(value)))
        cumulative.add(prefix is not None)
    if len(cumulative) != 1:
        raise NotCoveredError("getDataset() of stages and of all so far together")
    return Dataset(columns, cumulative.pop())


def by_stage(data: Dataset, name: str, arm: int, stages: int) -> Floats:
    """A column of an arm, of each stage by itself."""
    column = data.column(name, arm, stages)
    return np.diff(column, prepend=0.0) if data.is_cumulative else column


def sample(data: Dataset, arm: int, stages: int) -> Sample:
    """Means of an arm."""
    parts = [data.column(name, arm, stages) for name in ("n", "means", "sds")]
    return Sample.from_cumulative(*parts) if data.is_cumulative else Sample(*parts)


def log_rank(data: Dataset, arm: int, stages: int) -> LogRankData:
    """Log-rank statistics of a comparison."""
    parts = [data.column(name, arm, stages) for name in ("events", "z", "ratios")]
    return LogRankData.from_cumulative(*parts) if data.is_cumulative else LogRankData(*parts)


def stage_data(data: Dataset, stages: int, given: Arguments) -> StageData:
    """The data of one or two arms, so many stages, as the options of an analysis want them tested."""
    if data.kind == "means":
        control = sample(data, 2, stages) if data.arms == 2 else None
        normal, equal = bool(given["normalApproximation"]), bool(given["equalVariances"])
        return MeansData(sample(data, 1, stages), control, equal, normal)
    if data.kind == "survival":
        return log_rank(data, 1, stages)
    columns = [by_stage(data, name, arm, stages) for arm in range(1, data.arms + 1) for name in ("events", "n")]
    exact = not (given["normalApproximation"] is None or bool(given["normalApproximation"]))
    if data.arms == 1:
        return RatesData(columns[0], columns[1], exact=exact)
    return RatesData(columns[0], columns[1], columns[2], columns[3], exact)
