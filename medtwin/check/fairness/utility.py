"""Whether a model learned from twins serves every group of test patients as it serves all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import Measure
from medtwin.check.fairness.frames import group_and_rest
from medtwin.check.fairness.gaps import Gap, worst_gap
from medtwin.check.fairness.groups import ONE_GROUP, Division, below_floor
from medtwin.check.fairness.settings import SMALLEST_FLOOR, Fairness
from medtwin.check.group_rows import CALIBRATION, LOST, FairnessRow
from medtwin.check.scores import auroc

NAME = "fairness.utility"
TITLE = "AUROC lost by training on twins in the group that loses most, beyond that of all others"

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Predicted:
    """What models say of the test rows.

    Attributes:
        label: (rows,). subject: Index of the test subject, (rows,).
        real: Probabilities by the model of real subjects, (rows,). twins: By those of twins, one per seed.
        halves: By models of two halves of the real training subjects, several times.
        weights: (1 + resamples, rows), ones in the first row.
        half_scale: Turns a difference between halves into one between samples of these sizes.
    """

    label: Bools
    subject: NDArray[np.int64]
    real: Floats
    twins: Sequence[Floats]
    halves: Sequence[tuple[Floats, Floats]]
    weights: NDArray[np.float32]
    half_scale: float

    def lost(self, rows: Bools) -> Floats:
        """AUROC of the real model less the mean of the twins', among some rows, (1 + resamples,)."""
        label, weights = self.label[rows], self.weights[:, rows]
        twins = np.mean([auroc(one[rows], label, weights) for one in self.twins], axis=0)
        return np.asarray(auroc(self.real[rows], label, weights) - twins)

    def half_lost(self, rows: Bools) -> Floats:
        """The difference between the models of two halves among some rows, scaled, (halves,)."""
        ones = np.ones((1, int(rows.sum())), np.float32)
        scores = [[auroc(one[rows], self.label[rows], ones)[0] for one in pair] for pair in self.halves]
        return np.array([first - second for first, second in scores], np.float64) * self.half_scale

    def pairs(self, rows: Bools) -> float:
        """Harmonic sum of positives and negatives: the variance of an AUROC goes as one over it."""
        positive, negative = int(self.label[rows].sum()), int((~self.label[rows]).sum())
        return positive * negative / (positive + negative)


def no_fair_utility(reason: str, *, applicable: bool = False) -> Measure:
    """The measure of a check without a task, or whose task has too few patients."""
    return Measure(NAME, TITLE, None, 0, reason=reason, applicable=applicable)


def utility_by_group(
    predicted: Predicted | None,
    divisions: Sequence[Division],
    settings: Fairness,
    *,
    reason: str = "",
    applicable: bool = True,
) -> tuple[Measure, list[FairnessRow]]:
    """AUROC lost and calibration in every group, the measure of the group that loses most, and rows.

    What chance explains is how far models of two random halves of the real training subjects differ in a group from how
    far they differ of all others; its size is learned from all groups together: its variance goes as one over the
    harmonic sum of those with and without the outcome.

    Args:
        predicted: Of the classifier that real training data prefer; None: nothing was predicted.
        divisions: Of the test subjects and the twins.
        settings: The floor, of test patients; with and without the outcome `SMALLEST_FLOOR` are needed.
        reason: Why nothing was predicted.
        applicable: Whether it could have been.
    """
    if predicted is None:
        return no_fair_utility(reason or "nothing was predicted", applicable=applicable), []
    rows: list[FairnessRow] = []
    judged: list[tuple[Division, str, Bools]] = []
    for division in divisions:
        level = division.levels[0][predicted.subject]
        for group in division.groups:
            mine = level == group
            if why := _too_few(predicted, mine, settings):
                rows.append(FairnessRow(LOST, division.name, group, *_sizes(predicted, mine), reason=why))
            else:
                judged.append((division, group, mine))
    if not judged:
        why = f"no group has {settings.floor} test patients, {SMALLEST_FLOOR} of them with the outcome, beside as many"
        return no_fair_utility(why if divisions else ONE_GROUP, applicable=bool(divisions)), rows
    variance = np.array([1 / predicted.pairs(mine) + 1 / predicted.pairs(~mine) for _, _, mine in judged])
    between = np.array([predicted.half_lost(mine) - predicted.half_lost(~mine) for _, _, mine in judged])
    spread = float(np.sqrt(np.mean(between**2 / variance[:, None]))) if between.size else np.inf
    gaps = []
    for (division, group, mine), share in zip(judged, variance.tolist(), strict=True):
        sizes = _sizes(predicted, mine)
        noise = max(spread * share**0.5, 1 / (2 * sizes[0]))
        value, reference = _values(predicted, mine)
        draws, others = predicted.lost(mine)[1:], predicted.lost(~mine)[1:]
        gaps.append(Gap(LOST, division.name, group, sizes, value, reference, draws, others, noise))
        rows += [gaps[-1].row(), _calibration(predicted, division.name, group, mine)]
    return worst_gap(NAME, TITLE, gaps, ""), rows


def _values(predicted: Predicted, mine: Bools) -> tuple[float, float]:
    """AUROC lost in a group and of all others."""
    ones = np.ones((1, len(predicted.label)), np.float32)

    def lost(label: NDArray[np.bool_], place: NDArray[np.int64]) -> float:
        truth, rows = np.asarray(label, bool), np.asarray(place)
        of_twins = [auroc(one[rows], truth, ones[:, : len(rows)])[0] for one in predicted.twins]
        return float(auroc(predicted.real[rows], truth, ones[:, : len(rows)])[0] - np.mean(of_twins))

    return group_and_rest(lost, predicted.label, np.arange(len(predicted.label)), mine)


def _calibration(predicted: Predicted, division: str, group: str, mine: Bools) -> FairnessRow:
    """How much further from the observed rate the twins' models are than those of real subjects; told, not gated."""
    weights = predicted.weights[:, mine]
    total = np.maximum(weights.sum(axis=1), 1e-12)
    observed = weights @ predicted.label[mine] / total
    off = [np.abs(weights @ one[mine] / total - observed) for one in (predicted.real, np.mean(predicted.twins, axis=0))]
    one = Gap(
        CALIBRATION,
        division,
        group,
        _sizes(predicted, mine),
        float(off[1][0]),
        float(off[0][0]),
        off[1][1:],
        off[0][1:],
        1,
    )
    return one.row()


def _sizes(predicted: Predicted, mine: Bools) -> tuple[int, int]:
    """Test patients of a group, and those with the outcome."""
    subject = predicted.subject[mine]
    return len(np.unique(subject)), len(np.unique(subject[predicted.label[mine]]))


def _too_few(predicted: Predicted, mine: Bools, settings: Fairness) -> str:
    """Why a group is not held against all others; empty where both are large enough."""
    for who, which in ((mine, ""), (~mine, " who are not of it")):
        if reason := below_floor(_sizes(predicted, who)[0], settings.floor, f"test patients{which}"):
            return reason
        for label, has in ((True, "with"), (False, "without")):
            number = len(np.unique(predicted.subject[who & (predicted.label == label)]))
            if reason := below_floor(number, SMALLEST_FLOOR, f"test patients{which} {has} the outcome"):
                return reason
    return ""
