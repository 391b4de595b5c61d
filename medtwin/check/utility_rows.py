"""What the utility protocol finds: scores of arms, importances, hazard ratios; plain rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from medtwin.check.estimates import Measure
from medtwin.check.group_rows import FairnessRow
from medtwin.check.tasks import LabelAgreement, Task
from medtwin.core.disclosure import is_small


@dataclass(frozen=True, slots=True)
class UtilityRow:
    """One score of one arm.

    Attributes:
        task: Its name.
        arm: What it was trained on and tested on, a stable name. title: The same in words.
        model: The classifier. score: The score.
        value, low, high: The score and its interval, over patients and fits; None where there is none.
        between: Standard deviation between the fits (generator seeds, permutations); None where there is one fit.
        against: The arm that `difference` is relative to, on the same test patients; empty where there is none.
        difference, difference_low, difference_high: This arm minus that one.
        num_subjects, num_rows, num_positive: Of the training data; means over the fits.
        num_fits: How many models.
    """

    task: str
    arm: str
    title: str
    model: str
    score: str
    value: float | None
    low: float | None
    high: float | None
    between: float | None
    against: str
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    num_subjects: int
    num_rows: int
    num_positive: int
    num_fits: int


@dataclass(frozen=True, slots=True)
class SideRow:
    """What a task finds on one side.

    Attributes:
        num_subjects: All. num_eligible: Those with a prediction time. num_rows: Prediction times. num_positive: With a
            true label.
        no_anchor, record_over, already_happened, unknown, not_drawn: See `Excluded`; None: 1 to 10 real ones.
    """

    task: str
    side: str
    num_subjects: int | None
    num_eligible: int | None
    num_rows: int | None
    num_positive: int | None
    no_anchor: int | None
    record_over: int | None
    already_happened: int | None
    unknown: int | None
    not_drawn: int | None


@dataclass(frozen=True, slots=True)
class ImportanceRow:
    """How much AUROC on real test subjects falls when what a code says is dealt anew among them.

    Attributes:
        code: The code, or `age`, or `time`.
        real: By the model of real subjects. synthetic: By that of twins; mean over generator seeds.
    """

    task: str
    code: str
    real: float
    synthetic: float


@dataclass(frozen=True, slots=True)
class HazardRow:
    """A covariate's log hazard ratio on both sides, per real standard deviation.

    Attributes:
        difference: Synthetic minus real over the standard error of that difference.
        overlap: Mean share of either interval that the other covers, below 0 where they are apart.
        reason: Why there are no numbers.
    """

    task: str
    covariate: str
    real: float | None
    real_low: float | None
    real_high: float | None
    synthetic: float | None
    synthetic_low: float | None
    synthetic_high: float | None
    difference: float | None
    overlap: float | None
    reason: str = ""


@dataclass(frozen=True)
class UtilityFindings:
    """What was measured of one task.

    Attributes:
        rows: Scores of every arm. measures: What a gate may judge.
        best: The classifier that real training data prefer by cross-validation; the measures are of it.
        agreement: The rule against the label file; None where there is no file.
        notes: What a reader must know of this run.
        reason: Why nothing, or nothing of twins, was measured.
        groups: What is lost within groups of test subjects.
    """

    task: Task
    rows: tuple[UtilityRow, ...]
    measures: tuple[Measure, ...]
    importances: tuple[ImportanceRow, ...]
    hazards: tuple[HazardRow, ...]
    sides: tuple[SideRow, ...]
    best: str = ""
    agreement: LabelAgreement | None = None
    notes: tuple[str, ...] = ()
    reason: str = ""
    groups: tuple[FairnessRow, ...] = ()

    def row(self, arm: str, score: str = "auroc", model: str = "") -> UtilityRow:
        """The row of an arm, a score and a model (the best one where none is named).

        Raises:
            KeyError: If there is none.
        """
        for one in self.rows:
            if (one.arm, one.score, one.model) == (arm, score, model or self.best):
                return one
        raise KeyError(f"there is no row {arm!r}, {score!r}, {model or self.best!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def shareable_sides(sides: Sequence[SideRow]) -> tuple[SideRow, ...]:
    """The rows without counts of 1 to 10 real subjects or times (None instead)."""
    shared = []
    for side in sides:
        counts = {one.name: getattr(side, one.name) for one in fields(side) if one.name not in ("task", "side")}
        small: dict[str, Any] = {name: None for name, count in counts.items() if count is not None and is_small(count)}
        shared.append(replace(side, **small) if side.side.startswith("real") else side)
    return tuple(shared)
