"""Minimisation: the next patient most likely gets the arm that leaves the margins of all factors most alike.

With n_k(f) patients of arm k so far at the new patient's level of factor f, and weights w_f, the imbalance that arm k
would leave is

    G_k = sum over f of w_f D(n_j(f) + [j = k], j = 1..K),

D being their range, variance or standard deviation. The arm with the least G is given with a high probability, the rest
of which the other arms share evenly; of equally good arms each is the preferred one as often (Pocock & Simon 1975). In
an unequal ratio an arm of r parts stands for r equal arms, among which patients are minimised: every patient then has
the ratio's probabilities before anything is known of the others, which minimising by counts over parts would not give
(Kuznetsova & Tymofyeyev 2012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtwin.trials.enrolment.draws import TrialDraws
from medtwin.trials.enrolment.factors import Factor, as_factors
from medtwin.trials.enrolment.randomisation import assign_in_turn, check_parts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Imbalance = Literal["range", "variance", "standard_deviation"]
_SAME = 1e-9  # sums of the same terms in another order count as equal


@dataclass(frozen=True)
class Minimisation:
    """Pocock and Simon's minimisation, for several arms and any ratio of integers.

    Attributes:
        factors: Whose levels are balanced, one or more.
        weights: Of the factors, above 0; None: all 1.
        imbalance: The measure D of a factor.
        probability: Of the arm with the least imbalance, up to 1 (no chance but between equals). It must be at least
            1 / R, R being the sum of the ratio's parts.

    Raises:
        ValueError: If there is no factor, the weights are not as many or not above 0, the measure is unknown, or the
            probability is not in (0, 1].

    Source: Pocock & Simon 1975, Biometrics 31:103; Kuznetsova & Tymofyeyev 2012, Stat Med 31:701 (unequal ratios).

    >>> two = Minimisation(["sex", "stage"], probability=0.9)
    >>> two.probabilities(np.array([[[4], [2]], [[3], [2]]])).ravel().round(6).tolist()  # G: 2 + 1, 0 + 1
    [0.1, 0.9]
    """

    factors: Sequence[Factor | str]
    weights: Sequence[float] | None = None
    imbalance: Imbalance = "range"
    probability: float = 0.8

    def __post_init__(self) -> None:
        if not self.balanced:
            raise ValueError("factors must be one or more, got none")
        if self.weights is not None and (len(self.weights) != len(self.factors) or not min(self.weights) > 0):
            raise ValueError(f"weights must be {len(self.factors)} numbers above 0, got {list(self.weights)}")
        if self.imbalance not in get_args(Imbalance):
            raise ValueError(f"imbalance must be one of {', '.join(get_args(Imbalance))}, got {self.imbalance!r}")
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability must be in (0, 1], got {self.probability!r}")

    @property
    def balanced(self) -> tuple[Factor, ...]:
        """The factors."""
        return as_factors(self.factors)

    @property
    def description(self) -> str:
        """In words."""
        names = ", ".join(factor.name for factor in self.balanced)
        return f"by minimisation over {names} (probability {self.probability:.3g})"

    def check(self, parts: Sequence[int]) -> int:
        """1.

        Raises:
            ValueError: If the parts are no ratio, or the probability is below that of chance.
        """
        check_parts(parts)
        total = sum(parts) // math.gcd(*parts)
        if self.probability < 1 / total - _SAME:
            raise ValueError(f"probability must be at least 1/{total}, that of chance, got {self.probability!r}")
        return 1

    def assign(self, levels: Ints, parts: Sequence[int], draws: TrialDraws) -> Ints:
        """The arm of each patient, (trials, patients).

        Args:
            levels: (factors, trials, patients), from 0, in order of randomisation.
            parts: Of the allocation ratio, the control's first.
            draws: Of the trials.

        Raises:
            ValueError: If the levels are not those of the factors, or the ratio cannot be had.
        """
        self.check(parts)
        if len(levels) != len(self.factors):
            raise ValueError(f"levels must be of {len(self.factors)} factors, got {len(levels)}")
        equal = np.repeat(np.arange(len(parts)), np.asarray(parts) // math.gcd(*parts))
        uniform = draws.uniform(levels.shape[2], "arm")
        return np.asarray(equal[assign_in_turn(levels, len(equal), uniform, self.probabilities)])

    def probabilities(self, counts: Ints) -> Floats:
        """Of equal arms for the next patient, (arms, trials).

        Args:
            counts: (arms, factors, trials) earlier patients of each arm at the next one's level of each factor.
        """
        total = imbalances(counts, self.imbalance, self.weights)
        least = total.min(axis=0)
        is_best = total <= least + _SAME * (1 + least)
        other = (1 - self.probability) / (len(counts) - 1)
        return np.asarray(other + (self.probability - other) * is_best / is_best.sum(axis=0))


def imbalances(counts: Ints, imbalance: Imbalance = "range", weights: ArrayLike | None = None) -> Floats:
    """G_k, (arms, trials): the weighted imbalance that each of equal arms would leave if the next patient got it.

    Args:
        counts: (arms, factors, trials) earlier patients of each arm at the next one's level of each factor.
        imbalance: The measure of a factor.
        weights: Of the factors; None: all 1.

    >>> imbalances(np.array([[[3]], [[1]], [[2]]])).ravel().tolist()
    [3.0, 1.0, 2.0]
    """
    after = np.array(counts)
    weight = np.ones(counts.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    total = np.empty((len(counts), counts.shape[2]))
    for arm in range(len(counts)):
        after[arm] += 1
        total[arm] = weight @ _measured(after, imbalance)
        after[arm] -= 1
    return total


def _measured(counts: Ints, imbalance: Imbalance) -> Floats:
    """D of each factor, (factors, trials), of patients in each arm, (arms, factors, trials)."""
    if imbalance == "range":
        spread = np.abs(counts[1] - counts[0]) if len(counts) == 2 else counts.max(axis=0) - counts.min(axis=0)
        return np.asarray(spread, dtype=np.float64)
    arms = len(counts)
    variance = (arms * (counts**2).sum(axis=0) - counts.sum(axis=0) ** 2) / (arms * (arms - 1))
    return np.asarray(variance if imbalance == "variance" else np.sqrt(variance))
