"""The scores of models of real subjects, of twins and of both, beside the ceiling and the floor: a row for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medtwin.check.classifiers import Fitted
from medtwin.check.resample import subject_weights
from medtwin.check.scores import SCORES, Summary, summarise
from medtwin.check.utility_rows import UtilityRow
from medtwin.check.utility_sides import Side
from medtwin.core.seeds import generator

LOST = ("auroc", "auprc")
"""Scores between 0 and 1 of which it is measured how much is lost by training on twins."""

Floats = NDArray[np.float64]


class Arms:
    """The scores of one classifier's arms."""

    def __init__(self, task: str, model: str, label: NDArray[np.bool_], weights: NDArray[np.float32]) -> None:
        self._task, self._model, self._label, self._weights = task, model, label, weights
        self.draws: dict[str, dict[str, Floats]] = {}
        self.rows: list[UtilityRow] = []

    def add(
        self, arm: str, title: str, predicted: Sequence[Floats], trained_on: Sequence[Side], *, against: str = ""
    ) -> None:
        """An arm tested on the real test subjects: the probabilities of each of its fits."""
        draws = {
            score: np.stack([of(one, self._label, self._weights) for one in predicted]) for score, of in SCORES.items()
        }
        self._store(arm, title, draws, trained_on, against)

    def add_reverse(self, arm: str, title: str, ceiling: Fitted, twins: Sequence[Side], train: Side, seed: int) -> None:
        """The model of real subjects, tested on each set of twins."""
        draws: dict[str, list[Floats]] = {score: [] for score in SCORES}
        for number, side in enumerate(twins):
            rng = generator(seed, "utility", "reverse", number)
            weights = subject_weights(side.subject, len(self._weights) - 1, rng)
            predicted = ceiling.predict(side.features)
            for score, of in SCORES.items():
                draws[score].append(of(predicted, side.label, weights))
        self._store(arm, title, {score: np.stack(some) for score, some in draws.items()}, [train], "")

    def _store(self, arm: str, title: str, draws: dict[str, Floats], trained_on: Sequence[Side], against: str) -> None:
        self.draws[arm] = draws
        counts = np.mean([side.counts for side in trained_on], axis=0).round()
        num_subjects, num_rows, num_positive = (int(count) for count in counts)
        for score, mine in draws.items():
            summary = summarise(mine)
            difference = summarise(mine - self.draws[against][score]) if against else None
            self.rows.append(
                UtilityRow(
                    self._task,
                    arm,
                    title,
                    self._model,
                    score,
                    *_parts(summary, at_most=1.0 if score in LOST else np.inf),
                    None if summary is None else summary.between,
                    against,
                    *_parts(difference),
                    num_subjects,
                    num_rows,
                    num_positive,
                    len(mine),
                )
            )


def _parts(summary: Summary | None, *, at_most: float = np.inf) -> tuple[float | None, float | None, float | None]:
    """Value and limits; of what lies between 0 and 1 by definition, the limits do."""
    if summary is None:
        return None, None, None
    if np.isinf(at_most):
        return summary.value, summary.low, summary.high
    return summary.value, max(summary.low, 0.0), min(summary.high, at_most)
