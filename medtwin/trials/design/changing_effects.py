"""Group-sequential tests of an effect that is not the same at every look, as under hazards that are not proportional.

Z_k is normal with mean theta_k sqrt(I_k), and Cov(Z_j, Z_k) = sqrt(I_j / I_k): Z_k less its mean is the canonical null
process. Where the variance under the alternative is not that under the null, Z_k is studentised with the null
information I0_k and a bound b_k on it is b_k sqrt(I_k / I0_k) for the statistic of unit variance.

Source: Zhao, Zhang, Yang & Anderson 2023, arXiv:2310.00475; Jennison & Turnbull 2000, Group Sequential Methods, 3.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from medtwin.trials.design.boundaries import Density, Exits, cumulative_bounds, exit_probabilities, fractions

Floats = NDArray[np.float64]
NullVariance = Literal["every_look", "first_look", "no_look"]
_NEVER = 30.0  # standard deviations: a bound beyond is not reached


@dataclass(frozen=True)
class Looks:
    """What is known at each look of a trial, under one alternative.

    Attributes:
        effect: (looks,) theta, above 0 where the experimental arm does better.
        information: (looks,) 1 / Var(theta-hat) under the alternative.
        null_information: (looks,) the same under the null, which studentises the test.

    Raises:
        ValueError: If they are not as many, or information does not increase.
    """

    effect: Floats
    information: Floats
    null_information: Floats

    def __post_init__(self) -> None:
        if not self.effect.shape == self.information.shape == self.null_information.shape:
            sizes = [self.effect.size, self.information.size, self.null_information.size]
            raise ValueError(f"effect and information must be as many as the looks, got {sizes!r}")
        fractions(self.information)
        fractions(self.null_information)

    @property
    def means(self) -> Floats:
        """(looks,) E Z under the alternative, Z of unit variance there."""
        return np.asarray(self.effect * np.sqrt(self.information))

    @property
    def bound_scale(self) -> Floats:
        """(looks,) what a bound on the studentised statistic is multiplied with."""
        return np.sqrt(self.information / self.null_information)

    def scaled(self, factor: float) -> Looks:
        """The same trial with so many times the patients."""
        return Looks(self.effect, self.information * factor, self.null_information * factor)


def exits_with_means(information: ArrayLike, upper: ArrayLike, lower: ArrayLike | None, means: ArrayLike) -> Exits:
    """Where a trial stops if E Z_k is as given at each look; for a constant effect see `exit_probabilities`.

    Args:
        information: (looks,) information, increasing, in any unit.
        upper: (looks,) z bounds.
        lower: (looks,) z bounds; None: none.
        means: (looks,) E Z.

    >>> exits = exits_with_means([1.0, 2.0], [2.9626, 1.9686], None, [1.0, 2.0**0.5])
    >>> round(exits.power, 4) == round(exit_probabilities([1.0, 2.0], [2.9626, 1.9686], None, 2.0**0.5).power, 4)
    True
    """
    shift = np.asarray(means, dtype=np.float64)
    low = None if lower is None else np.asarray(lower, dtype=np.float64) - shift
    return exit_probabilities(information, np.asarray(upper, dtype=np.float64) - shift, low, 0.0)


def stopping(
    looks: Looks, upper: ArrayLike, lower: ArrayLike | None = None, null_variance: NullVariance = "every_look"
) -> Exits:
    """Where a trial stops under its alternative.

    Args:
        looks: The trial.
        upper: (looks,) z bounds.
        lower: (looks,) z bounds; None: none.
        null_variance: Where the statistic that meets the bounds is studentised by the null information: at
            `every_look`; at `no_look` (its variance is 1 under the alternative); or at the `first_look`, whose
            probabilities are so computed while the later ones are those of `no_look`, as gsDesign2 1.1 does it.

    Raises:
        ValueError: If null_variance is not known.
    """
    if null_variance not in ("every_look", "first_look", "no_look"):
        raise ValueError(f"null_variance must be every_look, first_look or no_look, got {null_variance!r}")
    up, scale = np.asarray(upper, dtype=np.float64), looks.bound_scale
    low = np.full(len(up), -np.inf) if lower is None else np.asarray(lower, dtype=np.float64)
    scaled = exits_with_means(looks.information, up * scale, low * scale, looks.means)
    if null_variance == "every_look":
        return scaled
    plain = exits_with_means(looks.information, up, low, looks.means)
    if null_variance == "first_look":
        plain.upper[0], plain.lower[0] = scaled.upper[0], scaled.lower[0]
    return plain


def stopping_under_null(looks: Looks, upper: ArrayLike, lower: ArrayLike | None = None) -> Exits:
    """Where a trial stops if there is no effect."""
    return exit_probabilities(looks.null_information, upper, lower, 0.0)


def futility_bounds(
    information: ArrayLike,
    upper: ArrayLike,
    means: ArrayLike,
    cumulative: ArrayLike,
    tested: Sequence[bool] | None = None,
) -> Floats:
    """Lower z bounds, (looks,), by which the given type II error has been spent at each look.

    Args:
        information: (looks,) information.
        upper: (looks,) efficacy z bounds; no lower bound is set above one.
        means: (looks,) E Z under which the error is spent.
        cumulative: (looks,) type II error spent by each look, not decreasing.
        tested: (looks,) whether the look has a lower bound; what others would spend, the next one spends.

    Raises:
        ValueError: If the error spent decreases.
    """
    t, shift = fractions(information), np.asarray(means, dtype=np.float64)
    top = np.asarray(upper, dtype=np.float64)
    at_look = np.ones(len(t), dtype=bool) if tested is None else np.asarray(tested, dtype=bool)
    wanted = np.asarray(cumulative, dtype=np.float64)
    if (np.diff(wanted, prepend=0.0) < -1e-12).any():
        raise ValueError("the error spent must not decrease from look to look")
    bounds, density, spent = np.full(len(t), -np.inf), Density(), 0.0
    for k in range(len(t)):
        if at_look[k] and wanted[k] - spent > 0:
            bounds[k] = min(_quantile_below(density, t[k], wanted[k] - spent) + shift[k], top[k])
            spent = wanted[k]
        if k + 1 < len(t):
            density = density.advance(bounds[k] - shift[k], top[k] - shift[k], t[k], 0.0, t[k + 1] - t[k])
    return bounds


def null_spending_bounds(
    information: ArrayLike, upper_spent: ArrayLike, lower_spent: ArrayLike, *, binding: bool = False
) -> tuple[Floats, Floats]:
    """Upper and lower z bounds, both (looks,), that both spend an error under the null.

    Args:
        information: (looks,) information.
        upper_spent: (looks,) type I error spent above by each look.
        lower_spent: (looks,) error spent below by each look.
        binding: Whether the upper bounds count on stopping at the lower ones.
    """
    none = np.zeros(np.size(upper_spent))
    return both_bounds(
        information,
        upper_spent,
        lambda upper: futility_bounds(information, upper, none, lower_spent),
        binding=binding,
    )


def both_bounds(
    information: ArrayLike, upper_spent: ArrayLike, lower_of: Callable[[Floats], Floats], *, binding: bool = False
) -> tuple[Floats, Floats]:
    """Upper and lower z bounds, both (looks,), that are found in turn until neither changes where they are binding.

    Args:
        information: (looks,) information.
        upper_spent: (looks,) type I error spent above by each look.
        lower_of: The lower bounds for given upper ones.
        binding: Whether the upper bounds count on stopping at the lower ones.
    """
    upper = cumulative_bounds(information, upper_spent)
    lower = lower_of(upper)
    for _ in range(100 if binding else 0):
        before = upper
        upper = cumulative_bounds(information, upper_spent, lower=lower)
        lower = lower_of(upper)
        finite = np.isfinite(upper)
        if np.abs(upper[finite] - before[finite]).max(initial=0.0) < 1e-11:
            break
    return upper, lower


def own_futility_bounds(
    information: ArrayLike, upper: ArrayLike, means: ArrayLike, spent: Callable[[float], ArrayLike]
) -> tuple[Floats, float]:
    """Lower z bounds, (looks,), that spend the type II error which the trial has with them, and that error.

    Args:
        information: (looks,) information.
        upper: (looks,) efficacy z bounds; the last bounds meet.
        means: (looks,) E Z under which the error is spent.
        spent: The cumulative error, (looks,), of a total.

    Raises:
        ValueError: If no total does.
    """
    top = np.asarray(upper, dtype=np.float64)

    def bounds(beta: float) -> Floats:
        lower = futility_bounds(information, top, means, spent(beta))
        lower[-1] = top[-1]
        return lower

    def excess(beta: float) -> float:
        return exits_with_means(information, top, bounds(beta), means).power - (1 - beta)

    low, high = 1e-6, 1 - 1e-6
    if excess(low) > 0 or excess(high) < 0:
        raise ValueError("power must be such that its complement can be spent on futility bounds")
    beta = float(brentq(excess, low, high, xtol=1e-12))
    return bounds(beta), beta


def _quantile_below(density: Density, information: float, spend: float) -> float:
    """The z below which a process without drift is first found at this look with the given probability."""
    if density.below(_NEVER, information, 0.0) <= spend:
        return _NEVER
    return float(brentq(lambda z: density.below(z, information, 0.0) - spend, -_NEVER, _NEVER, xtol=1e-11))


def scale_for_power(looks: Looks, power: float, power_at: Callable[[Looks], float]) -> float:
    """The factor on the patients at which a trial has the power; information is proportional to patients.

    Args:
        looks: The trial, at any number of patients.
        power: Wanted.
        power_at: Of the trial at another number of patients, bounds and all.

    Raises:
        ValueError: If the power is not reached with a million times the patients.
    """
    low, high = 1.0, 1.0
    while power_at(looks.scaled(high)) < power:
        low, high = high, high * 2.0
        if high > 1e6:
            raise ValueError(f"power must be within reach of more patients, got {power!r}")
    while power_at(looks.scaled(low)) > power:
        low /= 2.0
        if low < 1e-6:
            raise ValueError(f"power must be above what few patients have, got {power!r}")
    if low == high:
        return low
    return float(brentq(lambda factor: power_at(looks.scaled(factor)) - power, low, high, xtol=1e-9 * high, rtol=1e-12))
