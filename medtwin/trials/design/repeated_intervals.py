"""p values, estimates and confidence intervals of group-sequential trials, adapted in their course or not.

The repeated interval at a look inverts the group-sequential test whatever the trial does later; the stagewise interval
orders outcomes by when and how far the bound was crossed and is for a trial that has stopped.

Source: Jennison & Turnbull 2000, Group Sequential Methods, 8.4-8.5 and chapter 9; Jennison & Turnbull 1989, J R Stat
Soc B 51:305; Tsiatis, Rosner & Mehta 1984, Biometrics 40:797; Mehta et al. 2007, Stat Med 26:5422; Gao, Liu & Mehta
2013, Stat Med 32:3991.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from medtwin.trials.design.boundaries import Density, exit_probabilities, fractions
from medtwin.trials.design.conditional_power import Remainder, remainder

Floats = NDArray[np.float64]
BoundsAt = Callable[[float], Floats]
_WIDE = 8.0  # standard errors around an estimate in which limits are looked for


@dataclass(frozen=True)
class SequentialInference:
    """What a group-sequential trial says of an effect.

    Attributes:
        p_value: One-sided, of no effect against benefit.
        estimate: The effect that is rejected against benefit with p = 1/2: median-unbiased for the stagewise ordering,
            conservative for the repeated test.
        level: Of the interval. lower: Limit. upper: Limit.
    """

    p_value: float
    estimate: float
    level: float
    lower: float
    upper: float


def repeated_inference(
    look: int, z: float, information: ArrayLike, bounds_at: BoundsAt, alpha: float = 0.025
) -> SequentialInference:
    """The repeated p value and confidence interval at a look.

    Args:
        look: From 1.
        z: The statistic there.
        information: (looks so far,) information on the effect.
        bounds_at: The efficacy z bounds, (looks so far,), of the test with a one-sided alpha.
        alpha: One-sided; the interval has level 1 - 2 alpha.

    Raises:
        ValueError: If alpha is not one-sided.
    """
    _check_alpha(alpha)
    total = float(np.asarray(information, dtype=np.float64)[look - 1])
    critical, half = (float(bounds_at(level)[look - 1]) for level in (alpha, 0.5))
    p_value = _solve_level(lambda level: float(bounds_at(level)[look - 1]) - z)
    estimate, lower, upper = (float((z - bound) / np.sqrt(total)) for bound in (half, critical, -critical))
    return SequentialInference(p_value, estimate, 1 - 2 * alpha, lower, upper)


def _solve_level(excess: Callable[[float], float]) -> float:
    """The alpha at which a bound, decreasing in it, is met."""
    low, high = 1e-8, 0.9999
    if excess(low) < 0:
        return low
    return high if excess(high) > 0 else float(brentq(excess, low, high, xtol=1e-12, rtol=1e-10))


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be one-sided, between 0 and 0.5, got {alpha!r}")


def stagewise_probability(look: int, z: float, information: ArrayLike, upper: ArrayLike, theta: float) -> float:
    """P(the upper bound is crossed before the look, or Z is at least z there) under an effect.

    Args:
        look: From 1, where the trial stopped.
        z: The statistic there.
        information: (looks,) information on the effect.
        upper: (looks,) efficacy z bounds; that of the look itself does not matter.
        theta: The effect.
    """
    total = np.asarray(information, dtype=np.float64)[:look]
    bounds = np.asarray(upper, dtype=np.float64)[:look].copy()
    bounds[-1] = z
    return exit_probabilities(total, bounds, None, theta * np.sqrt(total[-1])).power


def stagewise_inference(
    look: int, z: float, information: ArrayLike, upper: ArrayLike, alpha: float = 0.025
) -> SequentialInference:
    """The p value, median-unbiased estimate and interval of a trial that stopped at a look, by stagewise ordering.

    Args:
        look: From 1, where the trial stopped.
        z: The statistic there.
        information: (looks,) information on the effect.
        upper: (looks,) efficacy z bounds.
        alpha: One-sided; the interval has level 1 - 2 alpha.

    Raises:
        ValueError: If alpha is not one-sided.
    """
    total = np.asarray(information, dtype=np.float64)
    return _invert(lambda theta: stagewise_probability(look, z, total, upper, theta), z, float(total[look - 1]), alpha)


def _invert(probability: Callable[[float], float], z: float, information: float, alpha: float) -> SequentialInference:
    """The p value, estimate and limits from a probability that increases with the effect."""
    _check_alpha(alpha)
    spread = 1 / np.sqrt(information)

    def root(level: float) -> float:
        low, high = (z - _WIDE) * spread, (z + _WIDE) * spread
        return float(brentq(lambda theta: probability(theta) - level, low, high, xtol=1e-11 * spread))

    return SequentialInference(probability(0.0), root(0.5), 1 - 2 * alpha, root(alpha), root(1 - alpha))


@dataclass(frozen=True)
class AdaptedTrial:
    """A group-sequential trial whose rest was replaced, at a look, by a second trial with the same conditional error.

    Attributes:
        look: From 1, where it was adapted. z: The statistic there.
        information: (looks,) as planned. upper: (looks,) efficacy z bounds as planned.
        new_look: From 1, of the second trial, where it ended. new_z: Of the second trial's own data there.
        new_information: (second looks,) of the second trial's own data.
    """

    look: int
    z: float
    information: Floats
    upper: Floats
    new_look: int
    new_z: float
    new_information: Floats

    @property
    def rest(self) -> Remainder:
        """What was planned after the look."""
        return remainder(self.look, self.z, self.information, self.upper)

    @property
    def conditional_error(self) -> float:
        """P(rejection in what was planned after the look) under no effect."""
        return self.rest.power(0.0)

    def backward_image(self, new_upper: Floats, theta: float) -> tuple[int, float]:
        """The look and statistic of the planned trial that are as extreme, given the look, as what came instead.

        Args:
            new_upper: (second looks,) efficacy z bounds of the second trial.
            theta: The effect under which "extreme" is judged.
        """
        target = stagewise_probability(self.new_look, self.new_z, self.new_information, new_upper, theta)
        rest = self.rest
        crossed = rest.exits(theta).upper
        before = 0.0
        last = len(crossed) - 1
        for k in range(last + 1):
            if k == last or before + crossed[k] >= target:
                z = _first_crossing(rest, k, target - before, theta)
                total = self.information[self.look + k]
                known = self.information[self.look - 1]
                own = z * np.sqrt(rest.information[k]) + self.z * np.sqrt(known)
                return self.look + k + 1, float(own / np.sqrt(total))
            before += crossed[k]
        raise AssertionError("the last look returns")

    def inference(self, new_upper: Floats, alpha: float = 0.025) -> SequentialInference:
        """The p value, median-unbiased estimate and interval by the backward image.

        Args:
            new_upper: (second looks,) efficacy z bounds of the second trial.
            alpha: One-sided; the interval has level 1 - 2 alpha.
        """

        def probability(theta: float) -> float:
            look, z = self.backward_image(new_upper, theta)
            return stagewise_probability(look, z, self.information, self.upper, theta)

        known = float(self.information[self.look - 1])
        total = known + float(self.new_information[self.new_look - 1])
        new = float(self.new_information[self.new_look - 1])
        z = (self.z * np.sqrt(known) + self.new_z * np.sqrt(new)) / np.sqrt(total)
        return _invert(probability, float(z), total, alpha)

    def repeated_inference(
        self, bounds_at: BoundsAt, new_bounds_at: BoundsAt, alpha: float = 0.025
    ) -> SequentialInference:
        """The repeated p value, conservative estimate and interval at the second trial's look.

        Args:
            bounds_at: The efficacy z bounds, (looks,), of the planned test with a one-sided alpha.
            new_bounds_at: Those of the second trial, (second looks,), with a conditional error.
            alpha: One-sided; the interval has level 1 - 2 alpha.

        Source: Mehta et al. 2007, Stat Med 26:5422.
        """
        _check_alpha(alpha)
        known, new = self.information[self.look - 1], self.new_information[self.new_look - 1]

        def excess(theta: float, level: float, sign: float = 1.0) -> float:
            """How far the second trial's statistic is from the bound that tests an effect; `sign` -1 from above."""
            z = sign * (self.z - theta * np.sqrt(known))
            error = remainder(self.look, z, self.information, bounds_at(level)).power(0.0)
            bound = new_bounds_at(float(np.clip(error, 1e-12, 1 - 1e-9)))[self.new_look - 1]
            return float(bound - sign * (self.new_z - theta * np.sqrt(new)))

        total = known + new
        centre = (self.z * np.sqrt(known) + self.new_z * np.sqrt(new)) / total
        low, high = (float(centre + side * _WIDE / np.sqrt(total)) for side in (-1.0, 1.0))

        def root(level: float, sign: float = 1.0) -> float:
            return float(brentq(lambda theta: excess(theta, level, sign), low, high, xtol=1e-10 * (high - low)))

        p_value = _solve_level(lambda level: excess(0.0, level))
        return SequentialInference(p_value, root(0.5), 1 - 2 * alpha, root(alpha), root(alpha, -1.0))


def _first_crossing(rest: Remainder, look: int, probability: float, theta: float) -> float:
    """The z above which the rest of a trial is first found at a look, from 0, with the given probability."""
    t = fractions(rest.information)
    drift = theta * float(np.sqrt(rest.information[-1]))
    density = Density()
    for k in range(look):
        density = density.advance(-np.inf, float(rest.upper[k]), t[k], drift, t[k + 1] - t[k])
    centre = drift * np.sqrt(t[look])
    low, high = centre - 12.0, centre + 12.0
    if density.above(low, t[look], drift) <= probability:
        return float(low)
    if density.above(high, t[look], drift) >= probability:
        return float(high)
    return float(brentq(lambda z: density.above(z, t[look], drift) - probability, low, high, xtol=1e-12))
