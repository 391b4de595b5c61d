"""Weights of event times for weighted log-rank tests; each is called with an event table and gives (rows,)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from medtwin.trials.analysis.follow_up import Floats
from medtwin.trials.analysis.logrank import EventTable


@dataclass(frozen=True)
class FlemingHarrington:
    """S(t-)^rho (1 - S(t-))^gamma, S the pooled survival of the stratum: (0, 0) is the log-rank test.

    Raises:
        ValueError: For a negative exponent.

    Source: Harrington & Fleming 1982; Fleming & Harrington 1991, chapter 7.
    """

    rho: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("rho", self.rho), ("gamma", self.gamma)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more, got {value!r}")

    def __call__(self, table: EventTable) -> Floats:
        """The weights."""
        return np.asarray(table.survival**self.rho * (1 - table.survival) ** self.gamma)


@dataclass(frozen=True)
class MagirrBurman:
    """1 / S(t-), S the pooled survival of the stratum, growing until `delay` and no further than `max_weight`.

    The modestly weighted test: later events weigh more, yet none weighs less than an earlier one. After the delay the
    weight stays at that of the last event within it.

    Raises:
        ValueError: For a negative delay, or a largest weight below 1.

    Source: Magirr & Burman 2019; the largest weight is Magirr 2021's.
    """

    delay: float = math.inf
    max_weight: float = math.inf

    def __post_init__(self) -> None:
        if not self.delay >= 0:
            raise ValueError(f"delay must be 0 or more, got {self.delay!r}")
        if not self.max_weight >= 1:
            raise ValueError(f"max_weight must be 1 or more, got {self.max_weight!r}")

    def __call__(self, table: EventTable) -> Floats:
        """The weights."""
        inverse = 1 / table.survival
        cap = np.ones(len(table.strata))
        early = table.time <= self.delay
        np.maximum.at(cap, table.stratum[early], inverse[early])
        return np.minimum(inverse, np.minimum(cap, self.max_weight)[table.stratum])


@dataclass(frozen=True)
class EarlyZero:
    """0 before the end of the early period and 1 from then on.

    Raises:
        ValueError: For a negative period.

    Source: Xu et al. 2017.
    """

    early_period: float

    def __post_init__(self) -> None:
        if not self.early_period >= 0:
            raise ValueError(f"early_period must be 0 or more, got {self.early_period!r}")

    def __call__(self, table: EventTable) -> Floats:
        """The weights."""
        return (table.time >= self.early_period).astype(np.float64)
