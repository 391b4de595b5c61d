"""What is found of groups of patients: how each fares beside the others, and who stands in cells of few people."""

from __future__ import annotations

from dataclasses import dataclass

OF_SOURCE, OF_TARGET, OF_RECORDS = "share of the source", "share of the target", "records"
LOST, CALIBRATION = "AUROC lost", "calibration"
OF_TWINS = (OF_SOURCE, OF_TARGET, OF_RECORDS)
"""Metrics of the twins of a group, beside its patients; of all others both numbers are of real people."""


@dataclass(frozen=True, slots=True)
class FairnessRow:
    """How one group of patients fares by one metric.

    Attributes:
        metric: One of `OF_TWINS`, `LOST`, `CALIBRATION`, or the name of an attack.
        division, group: As in `sex` and `F`.
        num_patients: Real people of the group behind it: of the reference, of an attack training patients, of utility
            test patients. None: 1 to 10 real ones, who are not told of, nor a group that would give them away.
        num_others: Beside them: twins of the group; of an attack patients whom training did not see, of utility test
            patients with the outcome. None: as above.
        value, low, high: The metric in the group, with its 95 % interval; None where it is not judged.
        reference: The same of all others; of a share, what it is held against; of calibration, that of a model of real
            patients.
        gap, gap_low, gap_high: How much worse the group fares, positive being worse: of a share the part of it that is
            missing, else the value less the reference.
        reason: Why the group is not judged; empty where it is.
    """

    metric: str
    division: str
    group: str
    num_patients: int | None
    num_others: int | None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reference: float | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SmallCellRow:
    """Cells of some quasi-identifiers together, as in women of 80 and over of one site.

    Attributes:
        keys: The divisions, as in `age x sex`.
        num_cells: Cells with a twin in them. num_small: Of them, those with 1 to 10 twins.
        twins: Share of twins who stand in a cell with 1 to 10 training patients. control: The same of patients whom
            training did not see.
        excess, low, high: The former less the latter, with its 95 % interval.
        usual: What 95 % of deals of the same people between the two sides stay within.
    """

    keys: str
    num_cells: int
    num_small: int
    twins: float
    control: float
    excess: float
    low: float
    high: float
    usual: float
