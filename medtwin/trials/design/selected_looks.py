"""Bounds that are tested at some looks only, and bounds for harm below those for futility.

A look without a bound spends nothing; the next one with a bound spends what the function says by then, so that alpha
is kept whichever looks are left out. A bound for harm spends an error of its own under the null and ignores the
futility stops; a trial below it stops for harm, one between it and the futility bound for futility.

Source: Anderson 2026, gsDesign, the articles "Selective bound testing at interim analyses" and "Futility and harm
bounds for overall survival monitoring".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtwin.trials.design.boundaries import Bounds, Density, drift_of_power, exit_probabilities, fractions
from medtwin.trials.design.changing_effects import both_bounds, futility_bounds
from medtwin.trials.design.spending import SpendingFunction

Floats = NDArray[np.float64]


def spent_where_tested(cumulative: ArrayLike, tested: Sequence[bool]) -> Floats:
    """The error spent by each look, (looks,), if only some of them test.

    Args:
        cumulative: (looks,) what would be spent if all did.
        tested: (looks,) whether a look does.

    Raises:
        ValueError: If they are not as many.

    >>> spent_where_tested([0.001, 0.01, 0.025], [False, True, True]).tolist()
    [0.0, 0.01, 0.025]
    """
    wanted, at_look = np.asarray(cumulative, dtype=np.float64), np.asarray(tested, dtype=bool)
    if wanted.shape != at_look.shape:
        raise ValueError(f"tested must be one per look, got {at_look.size} for {wanted.size} looks")
    return np.maximum.accumulate(np.where(at_look, wanted, 0.0))


@dataclass(frozen=True)
class TestedLooks:
    """Which looks test what, all (looks,).

    Attributes:
        efficacy: The last must. futility: At least one.

    Raises:
        ValueError: If they are not as many, or the last look tests no efficacy.
    """

    __test__ = False  # not a class of tests

    efficacy: Sequence[bool]
    futility: Sequence[bool]

    def __post_init__(self) -> None:
        if len(self.efficacy) != len(self.futility):
            sizes = len(self.efficacy), len(self.futility)
            raise ValueError(f"efficacy and futility must be one per look, got {sizes!r}")
        if not self.efficacy[-1]:
            raise ValueError("efficacy must be tested at the last look")


def selected_spending_both(
    t: ArrayLike,
    alpha: float,
    beta: float,
    spending: tuple[SpendingFunction, SpendingFunction],
    tested: TestedLooks,
    *,
    binding: bool = False,
) -> Bounds:
    """Bounds at some looks that spend alpha under the null and beta under the alternative; see `spending_both`.

    Args:
        t: (looks,) information fractions.
        alpha: One-sided type I error.
        beta: Type II error.
        spending: Of alpha, of beta.
        tested: Which looks have which bound. Without a futility bound at the last look, less than beta is spent on
            futility before, and the rest is missed at the end.
        binding: Alpha counts on the futility stops.

    Raises:
        ValueError: If no drift up to 20 has the power 1 - beta.
    """
    fraction = fractions(t)
    alphas = spent_where_tested(spending[0].spent(fraction, alpha), tested.efficacy)
    betas = spent_where_tested(spending[1].spent(fraction, beta), tested.futility)

    def at(drift: float) -> tuple[Floats, Floats]:
        means = drift * np.sqrt(fraction)
        upper, lower = both_bounds(
            fraction,
            alphas,
            lambda upper: futility_bounds(fraction, upper, means, betas, tested.futility),
            binding=binding,
        )
        if tested.futility[-1]:
            lower[-1] = upper[-1]
        return upper, lower

    def excess(drift: float) -> float:
        return exit_probabilities(fraction, *at(drift), drift).power - (1 - beta)

    drift = drift_of_power(excess)
    upper, lower = at(drift)
    return Bounds(fraction, upper, lower, drift, binding)


def harm_bounds(information: ArrayLike, upper: ArrayLike, lower: ArrayLike, cumulative: ArrayLike) -> Floats:
    """Lower z bounds, (looks,), that spend an error under the null, no higher than the futility bounds.

    Args:
        information: (looks,) information.
        upper: (looks,) efficacy z bounds.
        lower: (looks,) futility z bounds, -inf where there are none.
        cumulative: (looks,) error spent by each look on harm.
    """
    free = futility_bounds(information, upper, np.zeros(np.size(upper)), cumulative)
    futility = np.asarray(lower, dtype=np.float64)
    return np.where(np.isfinite(futility), np.minimum(free, futility), free)


@dataclass(frozen=True)
class HarmExits:
    """Probabilities of first stopping at each look for efficacy, futility and harm, all (looks,)."""

    upper: Floats
    futility: Floats
    harm: Floats


def exits_with_harm(
    information: ArrayLike, upper: ArrayLike, lower: ArrayLike, harm: ArrayLike, drift: float
) -> HarmExits:
    """Where and why a trial stops.

    Args:
        information: (looks,) information.
        upper: (looks,) efficacy z bounds; inf where there are none.
        lower: (looks,) futility z bounds; -inf where there are none.
        harm: (looks,) harm z bounds; -inf where there are none.
        drift: E Z at the last look.

    >>> exits = exits_with_harm([1.0], [1.96], [0.0], [-1.0], 0.0)
    >>> [round(float(each[0]), 3) for each in (exits.upper, exits.futility, exits.harm)]
    [0.025, 0.341, 0.159]
    """
    t, top, low = fractions(information), np.asarray(upper, dtype=np.float64), np.asarray(lower, dtype=np.float64)
    worst = np.asarray(harm, dtype=np.float64)
    stop = np.maximum(low, worst)
    density, found = Density(), np.zeros((3, len(t)))
    for k in range(len(t)):
        below = density.below(worst[k], t[k], drift)
        found[:, k] = density.above(top[k], t[k], drift), density.below(stop[k], t[k], drift) - below, below
        if k + 1 < len(t):
            density = density.advance(stop[k], top[k], t[k], drift, t[k + 1] - t[k])
    return HarmExits(*found)
