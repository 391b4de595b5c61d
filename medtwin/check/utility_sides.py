"""What a model is trained on or tested with: labelled features of some subjects, and whether they are enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.check.task_features import Matrix
from medtwin.core.disclosure import SMALLEST_CELL

MIN_OF_CLASS = SMALLEST_CELL
"""Subjects with, and without, the outcome that training and test data need."""


@dataclass(frozen=True)
class Side:
    """Labelled features of some subjects.

    Attributes:
        features: (rows, columns). label: (rows,). subject: (rows,) ascending.
    """

    features: Matrix
    label: NDArray[np.bool_]
    subject: NDArray[np.int64]

    def rows(self, index: NDArray[Any]) -> Side:
        """Some of the rows."""
        return Side(self.features[index], self.label[index], self.subject[index])

    def of_subjects(self, chosen: NDArray[np.int64]) -> Side:
        """The rows of some subjects."""
        return self.rows(np.isin(self.subject, chosen))

    @property
    def subjects(self) -> NDArray[np.int64]:
        """Those with a row."""
        return np.unique(self.subject)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Subjects, rows and positive rows."""
        return np.array([len(self.subjects), len(self.label), self.label.sum()])

    def lacks(self) -> str:
        """What it has too little of to train or test with; empty where nothing."""
        positive = len(np.unique(self.subject[self.label]))
        negative = len(np.unique(self.subject[~self.label]))
        for number, which in ((positive, "with"), (negative, "without")):
            if number < MIN_OF_CLASS:
                return f"{number} eligible subjects {which} the outcome ({MIN_OF_CLASS} are needed)"
        return ""


def stack(first: Side, second: Side) -> Side:
    """The rows of both; their subjects stay apart."""
    away = int(first.subject.max(initial=-1)) + 1
    return Side(
        np.vstack([first.features, second.features]),
        np.r_[first.label, second.label],
        np.r_[first.subject, second.subject + away],
    )
