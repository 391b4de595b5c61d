"""An analysis of a real trial by medtwin, and what R 4.2.2 said of it."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.kaplan_meier import kaplan_meier

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Compared:
    """A question to a trial.

    Attributes:
        name: Of the trial and the question.
        r_call: What was run in R, where d is the table that the module names.
        r: What it gave, to 10 digits.
        found: The same by medtwin, of the folder of the public data sets.
        tolerance: Relative, or absolute for numbers below 1.
    """

    name: str
    r_call: str
    r: Sequence[float]
    found: Callable[[Path], Sequence[float]]
    tolerance: float = 1e-6

    def worst(self, folder: Path) -> float:
        """The largest difference, over the number of R where that is above 1."""
        ours, theirs = np.asarray(self.found(folder), dtype=np.float64), np.asarray(self.r, dtype=np.float64)
        if ours.shape != theirs.shape:
            raise ValueError(f"{self.name} must give {theirs.shape} numbers, got {ours.shape}")
        return float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1)))


@cache
def table(path: Path) -> Columns:
    """The columns of a CSV file, packed or not: float64 with nan for nothing, or text."""
    packed = path.read_bytes()
    text = (gzip.decompress(packed) if path.suffix == ".gz" else packed).decode()
    records = list(csv.DictReader(io.StringIO(text, newline="")))
    columns: Columns = {}
    for key in records[0]:
        cells = [record[key] for record in records]
        try:
            columns[key] = np.array([float(cell) if cell not in ("", "NA") else np.nan for cell in cells])
        except ValueError:
            columns[key] = np.array(cells)
    return columns


def rows(columns: Columns, keep: NDArray[np.bool_]) -> Columns:
    """Some of the rows."""
    return {name: column[keep] for name, column in columns.items()}


def dummies(values: NDArray[Any], levels: Sequence[Any]) -> NDArray[np.float64]:
    """A column of 0 and 1 for each level, (rows, levels)."""
    return np.column_stack([values == level for level in levels]).astype(np.float64)


def survival_by_arm(
    time: NDArray[Any], event: NDArray[Any], arm: NDArray[Any], arms: Sequence[Any], at: float
) -> list[float]:
    """Kaplan-Meier estimates of the arms at a time, then their standard errors."""
    curves = [kaplan_meier(time[arm == each], event[arm == each]) for each in arms]
    errors = [float(each.step(each.standard_error, [at], before=0.0)[0]) for each in curves]
    return [*(float(each.at([at])[0]) for each in curves), *errors]
