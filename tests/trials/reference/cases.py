"""The cases of a reference file, and how an answer is judged: |x - ref| <= abs + rel |ref| for every element."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.trials.reference.rcalls import parse


class NotCoveredError(Exception):
    """medtwin does not compute what the case asks for."""


@dataclass(frozen=True)
class Simulated:
    """A simulated answer to a simulated number.

    Attributes:
        value: The answer. error: Standard error of its difference from the reference: of both simulations.
    """

    value: float
    error: float


@dataclass(frozen=True)
class Case:
    """One call of R and what it returned.

    Attributes:
        folder: Where `trial_data/` lies.
        raw: The case as it stands in the file.
    """

    folder: Path
    raw: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Its name."""
        return str(self.raw["id"])

    @property
    def category(self) -> str:
        """What kind of question it is."""
        return str(self.raw["category"])

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The question, said without R."""
        found: Mapping[str, Any] = self.raw["inputs"]
        return found

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The answers of R, by name."""
        found: Mapping[str, Any] = self.raw["outputs"]
        return found

    @cached_property
    def call(self) -> Any:
        """The tree of the R call."""
        return parse(self.raw["r_call"])

    @cached_property
    def extract(self) -> Any:
        """The tree of what was taken out of the result, which the call names x."""
        return parse(self.raw["r_extract"])

    @cached_property
    def data(self) -> dict[str, NDArray[Any]]:
        """The columns of its dataset, see `read_columns`.

        Raises:
            NotCoveredError: If the file is not there.
        """
        path = self.folder / "trial_data" / f"{self.raw['dataset']}.csv"
        if not path.is_file():
            raise NotCoveredError(f"no data at trial_data/{path.name}")
        return read_columns(path)


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of a CSV file: float64 with nan for nothing, or text."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns: dict[str, NDArray[Any]] = {}
    for key in rows[0]:
        cells = [row[key] for row in rows]
        try:
            columns[key] = np.array([float(cell) if cell not in ("", "NA") else np.nan for cell in cells])
        except ValueError:
            columns[key] = np.array(cells)
    return columns


def read_cases(path: Path) -> list[Case]:
    """The cases of a file."""
    return [Case(path.parent, raw) for raw in json.loads(path.read_text())["cases"]]


def agrees(case: Case, name: str, found: Any) -> bool:
    """Whether an answer lies within the tolerance of its case, every element of it."""
    expected = case.outputs[name]
    flat, reference = _flat(found), _flat(expected)
    if len(flat) != len(reference):
        return False
    return all(_close(one, other, case.raw["tolerance"]) for one, other in zip(flat, reference, strict=True))


def _close(found: Any, expected: Any, tolerance: Mapping[str, float]) -> bool:
    if isinstance(found, Simulated):  # four standard errors
        return bool(abs(found.value - float(expected)) <= 4 * found.error)
    if isinstance(expected, str):
        return str(found) == expected
    if expected is None or found is None or not np.isfinite(float(found)):
        return _absent(found) and _absent(expected)
    return bool(abs(float(found) - float(expected)) <= tolerance["abs"] + tolerance["rel"] * abs(float(expected)))


def _absent(value: Any) -> bool:
    return value is None or not np.isfinite(float(value))


def _flat(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [leaf for each in value for leaf in _flat(each)]
    return [value]
