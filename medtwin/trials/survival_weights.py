"""Weights of the log-rank test: one object for its large-sample design and for the data of a trial.

A weight is called with an event table (`medtwin.trials.analysis.logrank`) for the weights of its rows, and asked `at`
the follow-up that a design expects (`medtwin.trials.design.two_arm_survival`) for those at its nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SurvivalAt = Callable[[Floats], Floats]


class Table(Protocol):
    """What a weight takes from an event table; rows in order of stratum and time."""

    @property
    def time(self) -> Floats:
        """(rows,) event times."""

    @property
    def stratum(self) -> Ints:
        """(rows,) number of the stratum."""

    @property
    def at_risk(self) -> Ints:
        """(rows, groups) subjects at risk just before."""

    @property
    def survival(self) -> Floats:
        """(rows,) pooled survival of the stratum just before."""

    @property
    def strata(self) -> tuple[Any, ...]:
        """Levels of the strata."""


class Expected(Protocol):
    """What a weight takes from the expected follow-up of a stratum."""

    @property
    def time(self) -> Floats:
        """(nodes,) months of follow-up."""

    @property
    def at_risk(self) -> Floats:
        """(2, nodes) patients still followed."""


@dataclass(frozen=True)
class FlemingHarrington:
    """S^rho (1 - S)^gamma of the pooled survival function S of the stratum; (0, 0) is the log-rank test.

    Attributes:
        rho: 0 or more; weighs early events up.
        gamma: 0 or more; weighs late events up.
        tau: Months after which the weight no longer changes; inf: it changes to the end.

    Raises:
        ValueError: If an exponent is negative or infinite, or tau not above 0.

    Source: Harrington & Fleming 1982, Biometrika 69:553.
    """

    rho: float = 0.0
    gamma: float = 0.0
    tau: float = math.inf

    def __post_init__(self) -> None:
        for name, value in (("rho", self.rho), ("gamma", self.gamma)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more, got {value!r}")
        if not self.tau > 0:
            raise ValueError(f"tau must be above 0, got {self.tau!r}")

    def __call__(self, table: Table) -> Floats:
        """The weights of the rows, (rows,), by the survival just before; past tau by that at the last event within."""
        survival = table.survival if self.tau == math.inf else np.maximum(table.survival, _lowest(table, self.tau))
        return np.asarray(survival**self.rho * (1 - survival) ** self.gamma)

    @property
    def cuts(self) -> tuple[float, ...]:
        """Months at which the weight has a kink."""
        return _kink(self.tau)

    def at(self, seen: Expected, pooled: SurvivalAt) -> Floats:
        """The weight at the nodes of follow-up, (nodes,)."""
        survival = pooled(np.minimum(seen.time, self.tau))
        return np.asarray(survival**self.rho * (1.0 - survival) ** self.gamma)


@dataclass(frozen=True)
class MagirrBurman:
    """1 / S, S the pooled survival function of the stratum, growing until `delay` and no further than `max_weight`.

    The modestly weighted test: later events weigh more, yet none weighs less than an earlier one.

    Attributes:
        delay: Months after which the weight no longer grows, 0 or more; inf: it grows to the end.
        max_weight: Its largest value, 1 or more.

    Raises:
        ValueError: For a negative delay, or a largest weight below 1.

    Source: Magirr & Burman 2019, Stat Med 38:3782; the largest weight is Magirr's, 2021, Pharm Stat 20:512.
    """

    delay: float = math.inf
    max_weight: float = math.inf

    def __post_init__(self) -> None:
        if not self.delay >= 0:
            raise ValueError(f"delay must be 0 or more, got {self.delay!r}")
        if not self.max_weight >= 1:
            raise ValueError(f"max_weight must be 1 or more, got {self.max_weight!r}")

    def __call__(self, table: Table) -> Floats:
        """The weights of the rows, (rows,); after the delay that of the last event within it."""
        return np.asarray(np.minimum(1 / np.maximum(table.survival, _lowest(table, self.delay)), self.max_weight))

    @property
    def cuts(self) -> tuple[float, ...]:
        """Months at which the weight has a kink."""
        return _kink(self.delay)

    def at(self, seen: Expected, pooled: SurvivalAt) -> Floats:
        """The weight at the nodes of follow-up, (nodes,)."""
        return np.asarray(np.minimum(1.0 / pooled(np.minimum(seen.time, self.delay)), self.max_weight))


@dataclass(frozen=True)
class EarlyZero:
    """0 before the end of the early period and 1 from then on.

    Attributes:
        early_period: Months, 0 or more.

    Raises:
        ValueError: For a negative period.

    Source: Xu, Zhen, Park & Zhu 2017, Stat Med 36:592.
    """

    early_period: float

    def __post_init__(self) -> None:
        if not self.early_period >= 0:
            raise ValueError(f"early_period must be 0 or more, got {self.early_period!r}")

    def __call__(self, table: Table) -> Floats:
        """The weights of the rows, (rows,)."""
        return (table.time >= self.early_period).astype(np.float64)

    @property
    def cuts(self) -> tuple[float, ...]:
        """Months at which the weight jumps."""
        return _kink(self.early_period)

    def at(self, seen: Expected, pooled: SurvivalAt) -> Floats:
        """The weight at the nodes of follow-up, (nodes,)."""
        return (seen.time >= self.early_period).astype(np.float64)


@dataclass(frozen=True)
class AtRiskPower:
    """The share of the stratum still at risk to a power: 1 is Gehan & Breslow's weight, 1/2 Tarone & Ware's.

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

    def __call__(self, table: Table) -> Floats:
        """The weights of the rows, (rows,); 1 at the first event of the stratum."""
        at_risk = table.at_risk.sum(axis=1)
        most = np.zeros(len(table.strata), dtype=np.int64)
        np.maximum.at(most, table.stratum, at_risk)
        return np.asarray((at_risk / most[table.stratum]) ** self.power)

    @property
    def cuts(self) -> tuple[float, ...]:
        """It has no kinks of its own."""
        return ()

    def at(self, seen: Expected, pooled: SurvivalAt) -> Floats:
        """The weight at the nodes of follow-up, (nodes,)."""
        at_risk = seen.at_risk.sum(axis=0)
        return np.asarray((at_risk / at_risk.max()) ** self.power)


Weight = FlemingHarrington | MagirrBurman | EarlyZero | AtRiskPower
LOGRANK = FlemingHarrington()


def _kink(month: float) -> tuple[float, ...]:
    return (month,) if 0 < month < math.inf else ()


def _lowest(table: Table, until: float) -> Floats:
    """The survival just before the last event up to a time in the stratum of each row, 1 without any, (rows,)."""
    lowest = np.ones(len(table.strata))
    early = table.time <= until
    np.minimum.at(lowest, table.stratum[early], table.survival[early])
    return lowest[table.stratum]
