"""Designs that compare survival functions at a milestone, or their restricted means up to it.

The Kaplan-Meier estimate S_i(tau) has the large-sample variance S_i(tau)^2 int_0^tau h_i / n_i du, and the restricted
mean mu_i(tau) the variance int_0^tau A_i(u)^2 h_i / n_i du with A_i(u) = int_u^tau S_i, where n_i(u) patients are
expected at risk. Strata are weighed by their share of the patients.

Source: Yung & Liu 2020, Biometrics 76:939; Royston & Parmar 2013, BMC Med Res Methodol 13:152.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.timing import Arm, follow_up_nodes
from medtwin.trials.design.two_arm_survival import FollowUp, TwoArmSurvival

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ArmSummaries:
    """An estimate in either arm and its variance, all (2,): experimental, control."""

    values: Floats
    variances: Floats

    @property
    def difference(self) -> float:
        """Experimental less control."""
        return float(self.values[0] - self.values[1])

    @property
    def information(self) -> float:
        """1 / variance of the difference."""
        return float(1.0 / self.variances.sum())


def milestone_survival(trial: TwoArmSurvival, time: float, milestone: float) -> ArmSummaries:
    """Survival at a milestone, in either arm, as the Kaplan-Meier estimate finds it at a calendar month.

    Args:
        trial: Who is followed.
        time: Calendar months, above the milestone.
        milestone: Months of follow-up.

    Raises:
        ValueError: If nobody can have been followed that long.
    """

    def values(arm: Arm, seen: FollowUp) -> tuple[float, Floats]:
        reached = float(arm.survival(milestone))
        return reached, np.full(len(seen.time), reached)

    return _by_arm(trial, time, milestone, values)


def restricted_mean(trial: TwoArmSurvival, time: float, milestone: float) -> ArmSummaries:
    """Restricted mean survival, in either arm, as it is estimated at a calendar month; see `milestone_survival`."""

    def values(arm: Arm, seen: FollowUp) -> tuple[float, Floats]:
        edges = sorted({0.0, milestone, *(start for start in arm.hazard.starts if start < milestone)})
        total = sum(_area(arm, low, high) for low, high in pairwise(edges))
        later = np.array(
            [_area(arm, u, *_next(edges, u)) + sum(_area(arm, *each) for each in _after(edges, u)) for u in seen.time]
        )
        return total, later

    return _by_arm(trial, time, milestone, values)


def _next(edges: list[float], u: float) -> tuple[float]:
    return (min(edge for edge in edges if edge >= u),)


def _after(edges: list[float], u: float) -> list[tuple[float, float]]:
    return [(low, high) for low, high in pairwise(edges) if low >= u]


def _area(arm: Arm, low: float, high: float) -> float:
    """The integral of the survival function."""
    u, weight = follow_up_nodes([low, high]) if high > low else (np.zeros(0), np.zeros(0))
    return float(weight @ arm.survival(u))


def _by_arm(
    trial: TwoArmSurvival, time: float, milestone: float, values: Callable[[Arm, FollowUp], tuple[float, Floats]]
) -> ArmSummaries:
    if not 0 < milestone < min(time, trial.max_follow_up * (1 + 1e-12)):
        raise ValueError(f"milestone must be above 0 and below the follow-up of the first patient, got {milestone!r}")
    means, variances = np.zeros(2), np.zeros(2)
    for group, seen in zip(trial.strata, trial.all_follow_up(time, until=milestone), strict=True):
        for i, arm in enumerate(group.arms):
            value, influence = values(arm, seen)
            means[i] += seen.share * value
            variances[i] += seen.share**2 * float(seen.weight @ (influence**2 * seen.hazard[i] / seen.at_risk[i]))
    return ArmSummaries(means, variances)
