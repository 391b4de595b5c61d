"""Weights of the log-rank test as functions of follow-up, for its large-sample design."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.two_arm_survival import FollowUp

Floats = NDArray[np.float64]
SurvivalAt = Callable[[Floats], Floats]


@dataclass(frozen=True)
class FlemingHarrington:
    """S(u)^rho (1 - S(u))^gamma of the pooled survival function S; (0, 0) is the log-rank test.

    Attributes:
        rho: 0 or more; weighs early events up.
        gamma: 0 or more; weighs late events up.
        tau: Months after which the weight no longer changes.

    Raises:
        ValueError: If a parameter is negative or tau not above 0.

    Source: Fleming & Harrington 1991, Counting Processes and Survival Analysis, chapter 7.
    """

    rho: float = 0.0
    gamma: float = 0.0
    tau: float = np.inf

    def __post_init__(self) -> None:
        for name in ("rho", "gamma"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)!r}")
        if not self.tau > 0:
            raise ValueError(f"tau must be above 0, got {self.tau!r}")

    @property
    def cuts(self) -> tuple[float, ...]:
        """Months at which the weight has a kink."""
        return (self.tau,) if np.isfinite(self.tau) else ()

    def at(self, seen: FollowUp, pooled: SurvivalAt) -> Floats:
        """The weight at the nodes of follow-up, (nodes,)."""
        survival = pooled(np.minimum(seen.time, self.tau))
        return np.asarray(survival**self.rho * (1.0 - survival) ** self.gamma)


@dataclass(frozen=True)
class MagirrBurman:
    """min(1 / S(min(u, tau)), max_weight), S the pooled survival function: modestly weighted log-rank.

    Attributes:
        tau: Months after which the weight no longer grows; inf: it grows to the end.
        max_weight: Its largest value.

    Raises:
        ValueError: If tau or max_weight is not above 0.

    Source: Magirr & Burman 2019, Stat Med 38:3782; Magirr 2021, Pharm Stat 20:512.
    """

    tau: float = np.inf
    max_weight: float = np.inf

    def __post_init__(self) -> None:
        for name in ("tau", "max_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")

    @property
    def cuts(self) -> tuple[float, ...]:
        """Months at which the weight has a kink."""
        return (self.tau,) if np.isfinite(self.tau) else ()

    def at(self, seen: FollowUp, pooled: SurvivalAt) -> Floats:
        """The weight at the nodes of follow-up, (nodes,)."""
        return np.asarray(np.minimum(1.0 / pooled(np.minimum(seen.time, self.tau)), self.max_weight))


@dataclass(frozen=True)
class AtRiskPower:
    """The share still at risk to a power: 1 is Gehan & Breslow's weight, 1/2 Tarone & Ware's.

    Attributes:
        power: 0 or more.

    Raises:
        ValueError: If it is negative.

    Source: Tarone & Ware 1977, Biometrika 64:156.
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        if not self.power >= 0:
            raise ValueError(f"power must be 0 or more, got {self.power!r}")

    @property
    def cuts(self) -> tuple[float, ...]:
        """It has no kinks of its own."""
        return ()

    def at(self, seen: FollowUp, pooled: SurvivalAt) -> Floats:
        """The weight at the nodes of follow-up, (nodes,)."""
        return np.asarray((seen.at_risk.sum(axis=0) / seen.at_risk.sum(axis=0).max()) ** self.power)


Weight = FlemingHarrington | MagirrBurman | AtRiskPower
LOGRANK = FlemingHarrington()
