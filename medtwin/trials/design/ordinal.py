"""The Wilcoxon test of two arms whose outcome is one of a few ordered categories: power and patients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.normal_tests import NormalTest

Floats = NDArray[np.float64]
_SLACK = 1e-9  # of a sum of shares


@dataclass(frozen=True)
class OrdinalTest(NormalTest):
    """A Wilcoxon rank-sum test, its variance estimated under the null.

    Attributes:
        experimental, control: Shares of the categories under the alternative, in their order; each adds up to 1.
        allocation_ratio: Experimental : control.

    Raises:
        ValueError: If they are not as many, or no shares that add up to 1.

    Source: Zhao, Rahardja & Qu 2008, Stat Med 27:462; with midranks as scores, Whitehead 1993, Stat Med 12:2257.

    >>> test = OrdinalTest((0.55, 0.30, 0.10, 0.05), (0.214, 0.344, 0.251, 0.191))
    >>> round(test.subjects(0.025, 0.9), 2)
    66.32
    """

    experimental: Sequence[float]
    control: Sequence[float]
    allocation_ratio: float = 1.0

    def __post_init__(self) -> None:
        if len(self.experimental) != len(self.control) or len(self.control) < 2:
            sizes = len(self.experimental), len(self.control)
            raise ValueError(f"experimental and control must have the same two or more categories, got {sizes!r}")
        for name in ("experimental", "control"):
            shares = np.asarray(getattr(self, name), dtype=np.float64)
            if (shares < 0).any() or abs(shares.sum() - 1) > _SLACK:
                raise ValueError(f"{name} must be shares that add up to 1, got {getattr(self, name)!r}")
        if not self.allocation_ratio > 0:
            raise ValueError(f"allocation_ratio must be above 0, got {self.allocation_ratio!r}")

    @property
    def _arms(self) -> tuple[tuple[float, Floats], tuple[float, Floats]]:
        """The share of the patients and those of the categories, of each arm."""
        share = self.allocation_ratio / (1 + self.allocation_ratio)
        return (share, np.asarray(self.experimental)), (1 - share, np.asarray(self.control))

    @property
    def midranks(self) -> Floats:
        """(categories,) mean rank of a category among all patients, as a share of them."""
        (first, p1), (second, p2) = self._arms
        together = first * p1 + second * p2
        return np.asarray(np.cumsum(together) - together / 2)

    @property
    def effect(self) -> float:
        """The difference of the mean midranks; above 0 where the experimental arm has the higher categories."""
        return float(self.midranks @ (np.asarray(self.experimental) - np.asarray(self.control)))

    def _spread(self, shares: Floats) -> float:
        return float(self.midranks**2 @ shares - (self.midranks @ shares) ** 2)

    @property
    def deviation(self) -> float:
        """Standard deviation of the effect for one patient in all, under the alternative."""
        return math.sqrt(sum(self._spread(shares) / arm for arm, shares in self._arms))

    @property
    def null_deviation(self) -> float:
        """The same if both arms have the shares of all patients together."""
        (first, p1), (second, p2) = self._arms
        return math.sqrt(self._spread(first * p1 + second * p2) * (1 / first + 1 / second))
