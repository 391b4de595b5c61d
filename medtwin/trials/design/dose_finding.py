"""Designs that look for the highest tolerable dose by rules: 3 + 3, and the Bayesian optimal interval design."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, binom

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ThreePlusThree:
    """The 3 + 3 design without steps down: up with 0 of 3, or 1 of 6; the dose below the last is chosen.

    Attributes:
        toxicity: (doses,) probabilities of a dose-limiting toxicity.

    Raises:
        ValueError: If they are no probabilities.

    Source: Storer 1989, Biometrics 45:925.

    >>> ThreePlusThree([0.05, 0.4]).chosen.round(4).tolist()
    [0.0266, 0.6723, 0.3011]
    """

    toxicity: Sequence[float]

    def __post_init__(self) -> None:
        if not len(self.toxicity) or not all(0 <= each <= 1 for each in self.toxicity):
            raise ValueError(f"toxicity must be probabilities from 0 to 1, got {list(self.toxicity)}")

    @cached_property
    def escalates(self) -> Floats:
        """The chance of going up from each dose, (doses,)."""
        p = np.asarray(self.toxicity, dtype=np.float64)
        return np.asarray(binom.pmf(0, 3, p) + binom.pmf(1, 3, p) * binom.pmf(0, 3, p))

    @cached_property
    def chosen(self) -> Floats:
        """The chance that no dose, or each one, is chosen, (1 + doses,)."""
        reached = np.concatenate([[1.0], np.cumprod(self.escalates)])
        return np.append(reached[:-1] * (1 - self.escalates), reached[-1])


@dataclass(frozen=True)
class IntervalDesign:
    """The Bayesian optimal interval (BOIN) design.

    Attributes:
        target: Rate of dose-limiting toxicities.
        low, high: Rates that call for a step up and down; None: 0.6 and 1.4 times the target.
        too_toxic: Posterior probability, under a uniform prior, of a rate above the target at which a dose is given up.
        num_to_judge: Patients of a dose from whom on it may be given up.

    Raises:
        ValueError: If the rates do not surround the target, or the probability is none.

    Source: Liu & Yuan 2015, J R Stat Soc C 64:507.

    >>> design = IntervalDesign(0.3)
    >>> round(design.escalate_below, 3), round(design.de_escalate_above, 3)
    (0.236, 0.359)
    """

    target: float
    low: float | None = None
    high: float | None = None
    too_toxic: float = 0.95
    num_to_judge: int = 3

    def __post_init__(self) -> None:
        low, high = self._rates
        if not 0 < low < self.target < high < 1:
            raise ValueError(f"rates must have 0 < low < target < high < 1, got {low!r}, {self.target!r}, {high!r}")
        if not 0 < self.too_toxic < 1:
            raise ValueError(f"too_toxic must be between 0 and 1, got {self.too_toxic!r}")

    @property
    def _rates(self) -> tuple[float, float]:
        low = 0.6 * self.target if self.low is None else self.low
        return low, 1.4 * self.target if self.high is None else self.high

    @property
    def escalate_below(self) -> float:
        """The observed rate at or below which the next cohort has the next dose."""
        low, t = self._rates[0], self.target
        return math.log((1 - low) / (1 - t)) / math.log(t * (1 - low) / (low * (1 - t)))

    @property
    def de_escalate_above(self) -> float:
        """The observed rate at or above which the next cohort has the dose below."""
        high, t = self._rates[1], self.target
        return math.log((1 - t) / (1 - high)) / math.log(high * (1 - t) / (t * (1 - high)))

    def boundaries(self, patients: ArrayLike) -> tuple[Ints, Ints, Ints]:
        """Toxicities at most for a step up, at least for one down, at least to give a dose up; (numbers,) each.

        Args:
            patients: (numbers,) treated at a dose. Where no number of toxicities gives it up: one more than there are.
        """
        n = np.atleast_1d(np.asarray(patients, dtype=np.int64))
        up = np.floor(self.escalate_below * n + 1e-9).astype(np.int64)
        down = np.ceil(self.de_escalate_above * n - 1e-9).astype(np.int64)
        given_up = np.array([self._given_up(int(each)) for each in n], dtype=np.int64)
        return up, down, given_up

    def _given_up(self, patients: int) -> int:
        if patients < self.num_to_judge:
            return patients + 1
        y = np.arange(patients + 1)
        is_toxic = beta.sf(self.target, 1 + y, 1 + patients - y) > self.too_toxic
        return int(np.argmax(is_toxic)) if is_toxic.any() else patients + 1
