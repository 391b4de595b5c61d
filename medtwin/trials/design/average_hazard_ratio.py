"""Designs for a log-rank test under hazards that are not proportional, by the average hazard ratio.

Follow-up is cut where the hazard ratio changes; in piece m, d_1m and d_0m events are expected in either arm. The log of
the average hazard ratio is sum d_m log(HR_m) / sum d_m over pieces and strata; the information on it is sum of
1 / (1 / d_1m + 1 / d_0m) under the alternative, and d p (1 - p) under the null, p the experimental share.

Source: Mukhopadhyay et al. 2020, Contemp Clin Trials 95:106058; Schemper, Wakounig & Heinze 2009, Stat Med 28:2473.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtwin.trials.design.changing_effects import Looks
from medtwin.trials.design.survival_size import information_per_event
from medtwin.trials.design.two_arm_survival import FollowUp, TwoArmSurvival

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """What is expected in one stratum while one hazard ratio holds.

    Attributes:
        stratum: Its place. start: Month of follow-up from which the hazard ratio holds.
        hazard_ratio: Experimental / control.
        events: Experimental, control.
    """

    stratum: int
    start: float
    hazard_ratio: float
    events: tuple[float, float]

    @property
    def total(self) -> float:
        """Events of both arms."""
        return sum(self.events)

    @property
    def information(self) -> float:
        """1 / Var of the log ratio of two Poisson rates."""
        experimental, control = self.events
        return experimental * control / self.total if self.total > 0 else 0.0


@dataclass(frozen=True)
class AverageHazardRatio:
    """The average hazard ratio at a calendar month.

    Attributes:
        time: Calendar months. pieces: What it is made of. allocation_ratio: Experimental : control.
    """

    time: float
    pieces: tuple[Piece, ...]
    allocation_ratio: float

    @property
    def events(self) -> float:
        """Expected events of both arms."""
        return sum(piece.total for piece in self.pieces)

    @property
    def log_hazard_ratio(self) -> float:
        """The log of the geometric mean of the hazard ratios, weighted by events."""
        return float(sum(piece.total * np.log(piece.hazard_ratio) for piece in self.pieces) / self.events)

    @property
    def hazard_ratio(self) -> float:
        """The average hazard ratio."""
        return float(np.exp(self.log_hazard_ratio))

    @property
    def information(self) -> float:
        """On the log hazard ratio under the alternative."""
        return sum(piece.information for piece in self.pieces)

    @property
    def null_information(self) -> float:
        """On the log hazard ratio under the null."""
        return self.events * information_per_event(self.allocation_ratio)


def average_hazard_ratio(trial: TwoArmSurvival, time: float) -> AverageHazardRatio:
    """The average hazard ratio at a calendar month.

    Args:
        trial: Two arms with piecewise-constant hazards.
        time: Calendar months, above 0.

    Raises:
        ValueError: If the time is not above 0.

    >>> from medtwin.trials.design.hazard import PiecewiseRate
    >>> from medtwin.trials.design.timing import Arm
    >>> from medtwin.trials.design.two_arm_survival import Stratum
    >>> control, treated = PiecewiseRate((0.0,), (0.1,)), PiecewiseRate((0.0,), (0.07,))
    >>> trial = TwoArmSurvival([Stratum(Arm(treated), Arm(control), PiecewiseRate((0.0,), (10.0,)))], 12.0)
    >>> round(average_hazard_ratio(trial, 24.0).hazard_ratio, 6)
    0.7
    """
    if not time > 0:
        raise ValueError(f"time must be above 0, got {time!r}")
    pieces: list[Piece] = []
    for stratum, seen in enumerate(trial.all_follow_up(time)):
        starts = sorted({start for arm in trial.strata[stratum].arms for start in arm.hazard.starts})
        pieces += _pieces(stratum, starts, seen)
    return AverageHazardRatio(time, tuple(pieces), trial.allocation_ratio)


def _pieces(stratum: int, starts: list[float], seen: FollowUp) -> list[Piece]:
    events = seen.events
    place = np.searchsorted(starts, seen.time, side="right") - 1
    found = []
    for m, start in enumerate(starts):
        inside = place == m
        if inside.any():
            first = int(np.flatnonzero(inside)[0])
            ratio = float(seen.hazard[0, first] / seen.hazard[1, first])
            experimental, control = events[:, inside].sum(axis=1)
            found.append(Piece(stratum, start, ratio, (float(experimental), float(control))))
    return found


def average_hazard_ratio_looks(trial: TwoArmSurvival, times: ArrayLike) -> Looks:
    """Effect (-log average hazard ratio) and information at calendar months, (looks,)."""
    found = [average_hazard_ratio(trial, float(t)) for t in np.atleast_1d(np.asarray(times, dtype=np.float64))]
    return Looks(
        -np.array([each.log_hazard_ratio for each in found]),
        np.array([each.information for each in found]),
        np.array([each.null_information for each in found]),
    )
