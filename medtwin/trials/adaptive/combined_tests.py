"""Tests of one hypothesis over the stages of a trial: group-sequential, inverse normal, Fisher's product.

Each turns data by stage into one statistic per look, larger where the data speak against the null, and rejects where it
reaches its critical value.

Source: Wassmer & Brannath 2016, Group Sequential and Confirmatory Adaptive Designs in Clinical Trials, chapters 2, 6
and 7; Lehmacher & Wassmer 1999, Biometrics 55:1286; Bauer & Koehne 1994, Biometrics 50:1029; Mueller & Schaefer 2001,
Biometrics 57:886.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import norm

from medtwin.trials.analysis.stage_data import StageData
from medtwin.trials.design.changing_effects import exits_with_means
from medtwin.trials.design.combination import FisherDesign, inverse_normal, inverse_normal_weights
from medtwin.trials.design.conditional_power import Remainder, remainder

Floats = NDArray[np.float64]
_SMALLEST_ALPHA, _LARGEST_ALPHA = 1e-10, 0.5 - 1e-9


class CombinedTest(Protocol):
    """A test of one hypothesis over several looks."""

    @property
    def alpha(self) -> float:
        """One-sided."""

    @property
    def binding(self) -> bool:
        """Whether the level counts on stops for futility."""

    @property
    def looks(self) -> int:
        """How many are planned."""

    @property
    def critical(self) -> Floats:
        """Of the statistic, (looks,)."""

    @property
    def binding_futility(self) -> Floats | None:
        """(looks - 1,) values of the statistic below which the null is kept for good; None: none."""

    def statistics(self, data: StageData, theta: float) -> Floats:
        """Against the null that the effect is theta, (stages,)."""

    def combine(self, p_values: ArrayLike) -> Floats:
        """The statistics of stages' p values, (stages,)."""

    def futile(self, data: StageData, theta: float) -> NDArray[np.bool_]:
        """Whether each stage's data stop the trial, (stages,)."""

    def repeated_p_value(self, look: int, statistic: float) -> float:
        """The least alpha at which a look rejects, at most 1/2; nan if its bound does not depend on alpha."""

    def conditional_error(self, look: int, statistic: float) -> float:
        """P(rejection at a later look) under the null."""

    def conditional_power(self, look: int, statistic: float, drifts: ArrayLike) -> Floats:
        """P(rejection by each later look), (later,), for expectations of the later stages' own z, (later,)."""

    def final_p_value(self, look: int, statistic: float) -> float:
        """Of a trial that ended at a look, by stagewise ordering."""


def root_of_level(excess: Callable[[float], float]) -> float:
    """The alpha at which a falling function is 0, at most 1/2."""
    if excess(_LARGEST_ALPHA) >= 0:
        return 0.5
    if excess(_SMALLEST_ALPHA) <= 0:
        return _SMALLEST_ALPHA
    return math.exp(
        brentq(lambda level: excess(math.exp(level)), math.log(_SMALLEST_ALPHA), math.log(_LARGEST_ALPHA), xtol=1e-11)
    )


def falling_root(function: Callable[[float], float], bracket: tuple[float, float], *, xtol: float = 1e-12) -> float:
    """The root of a falling function; an end of the bracket if it has none."""
    low, high = bracket
    if function(low) <= 0:
        return low
    return high if function(high) >= 0 else float(brentq(function, low, high, xtol=xtol))


@dataclass(frozen=True)
class GroupSequentialTest:
    """The z statistic of all data so far at each look.

    Attributes:
        fractions: (looks,) planned information fractions.
        bounds_at: The efficacy z bounds, (looks,), of the test with a one-sided alpha; None if there is one test only.
        alpha: One-sided.
        bounds: (looks,) efficacy z bounds; empty: those of `bounds_at` for alpha.
        futility: (looks - 1,) z bounds, -inf for none; empty: none.
        binding: Whether the efficacy bounds count on them.
        two_sided: Whether it also rejects at minus the bounds; p values are then of both sides.

    Raises:
        ValueError: If alpha is not one-sided, or there is nothing to take bounds from.
    """

    fractions: Floats
    bounds_at: Callable[[float], Floats] | None
    alpha: float = 0.025
    bounds: Floats = field(default_factory=lambda: np.zeros(0))
    futility: Floats = field(default_factory=lambda: np.zeros(0))
    binding: bool = False
    two_sided: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha must be one-sided, between 0 and 0.5, got {self.alpha!r}")
        if self.bounds_at is None and not len(self.bounds):
            raise ValueError("bounds must be given where alpha is spent by hand")

    @property
    def looks(self) -> int:
        """How many are planned."""
        return len(self.fractions)

    @cached_property
    def critical(self) -> Floats:
        """The efficacy z bounds, (looks,)."""
        if len(self.bounds) or self.bounds_at is None:
            return self.bounds
        return self.bounds_at(self.alpha)

    @property
    def binding_futility(self) -> Floats | None:
        """(looks - 1,) z bounds."""
        return self.futility if self.binding and len(self.futility) else None

    def statistics(self, data: StageData, theta: float) -> Floats:
        """Of the data so far, (stages,)."""
        return np.asarray(norm.isf(data.cumulative_p_values(theta)))

    def combine(self, p_values: ArrayLike) -> Floats:
        """The statistics if the p values are of stages that weigh as planned, (stages,)."""
        return inverse_normal(norm.isf(np.asarray(p_values, dtype=np.float64)), self.weights)

    def futile(self, data: StageData, theta: float) -> NDArray[np.bool_]:
        """Whether z is below the futility bound, (stages,)."""
        z = self.statistics(data, theta)
        bounds = np.append(self.futility if len(self.futility) else np.full(self.looks - 1, -np.inf), -np.inf)
        return np.asarray(z < bounds[: len(z)])

    @property
    def weights(self) -> Floats:
        """Of the stages, (looks,), squares summing to 1."""
        return inverse_normal_weights(self.fractions)

    def repeated_p_value(self, look: int, statistic: float) -> float:
        """The least alpha, of both sides if two-sided, with a bound at or below the statistic."""
        at = self.bounds_at
        if at is None or at(0.4)[look - 1] == at(0.1)[look - 1]:
            return math.nan
        one_sided = root_of_level(lambda alpha: float(at(alpha)[look - 1]) - statistic)
        return min(2 * one_sided, 0.5) if self.two_sided else one_sided

    def _rest(self, look: int, statistic: float) -> Remainder:
        """The later looks' own statistic."""
        lower = np.full(self.looks, -np.inf)
        if self.two_sided:
            lower = -self.critical
        elif self.binding_futility is not None:
            lower[:-1] = self.binding_futility
        return remainder(look, statistic, self.fractions, self.critical, lower)

    def conditional_error(self, look: int, statistic: float) -> float:
        """P(rejection at a later look) under the null, on either side if two-sided."""
        exits = self._rest(look, statistic).exits(0.0)
        return exits.power + (float(exits.lower.sum()) if self.two_sided else 0.0)

    def conditional_power(self, look: int, statistic: float, drifts: ArrayLike) -> Floats:
        """P(rejection for benefit by each later look), (later,)."""
        rest = self._rest(look, statistic)
        w = self.weights[look:]
        means = np.cumsum(w * np.asarray(drifts, dtype=np.float64)) / np.sqrt(np.cumsum(w * w))
        return np.asarray(np.cumsum(exits_with_means(rest.information, rest.upper, rest.lower, means).upper))

    def final_p_value(self, look: int, statistic: float) -> float:
        """Of a trial that ended at a look, by stagewise ordering; twice that of one side if two-sided."""
        one_sided = self.stagewise_probability(look, statistic, np.zeros(look))
        return min(2 * one_sided, 1.0) if self.two_sided else one_sided

    def stagewise_probability(self, look: int, statistic: float, means: ArrayLike) -> float:
        """P(the bound is crossed before a look, or the statistic is as large there) for E of the statistics."""
        upper = self.critical[:look].copy()
        upper[-1] = statistic
        lower = None
        if self.binding_futility is not None and look > 1:
            lower = np.append(self.binding_futility[: look - 1], -np.inf)
        return exits_with_means(self.fractions[:look], upper, lower, means).power

    def means(self, data: StageData, theta: float, look: int) -> Floats:
        """E of the statistics up to a look, (look,), for an effect of theta standard deviations."""
        return np.asarray(
            theta * np.sqrt(self.fractions[:look] / self.fractions[look - 1] * data.cumulative_sizes[look - 1])
        )


@dataclass(frozen=True)
class InverseNormalTest(GroupSequentialTest):
    """The z statistics of the stages, combined with weights fixed in advance, at each look."""

    def statistics(self, data: StageData, theta: float) -> Floats:
        """Combined z of the stages, (stages,)."""
        return self.combine(data.p_values(theta))

    def means(self, data: StageData, theta: float, look: int) -> Floats:
        """E of the statistics up to a look, (look,), for an effect of theta standard deviations."""
        return inverse_normal(theta * np.sqrt(data.sizes[:look]), self.weights)


@dataclass(frozen=True)
class FisherTest:
    """Fisher's product of the stages' p values; the statistic is minus its logarithm.

    Attributes:
        design: The bounds.
        design_at: The design of the same kind with another alpha; None if there is one only.
        alpha: One-sided.
    """

    design: FisherDesign
    design_at: Callable[[float], FisherDesign] | None
    alpha: float = 0.025

    @property
    def looks(self) -> int:
        """How many are planned."""
        return len(self.design.critical)

    @property
    def binding(self) -> bool:
        """Whether the level counts on stops for futility."""
        return self.design.binding

    @property
    def critical(self) -> Floats:
        """Minus the logarithm of the critical products, (looks,)."""
        return np.asarray(-np.log(self.design.critical))

    @property
    def binding_futility(self) -> Floats | None:
        """None: futility is of the stages' p values, not of the product."""
        return None

    def statistics(self, data: StageData, theta: float) -> Floats:
        """Minus the logarithm of the products, (stages,)."""
        return self.combine(data.p_values(theta))

    def combine(self, p_values: ArrayLike) -> Floats:
        """Minus the logarithm of the products, (stages,)."""
        p = np.maximum(np.asarray(p_values, dtype=np.float64), 1e-300)
        return np.asarray(-np.cumsum(self.design.weights[: len(p)] * np.log(p)))

    def futile(self, data: StageData, theta: float) -> NDArray[np.bool_]:
        """Whether the stage's own p value is above its futility bound, (stages,)."""
        p = data.p_values(theta)
        return np.asarray(p > np.append(self.design.futility, 1.0)[: len(p)])

    def repeated_p_value(self, look: int, statistic: float) -> float:
        """The least alpha with a critical product at or above the one found."""
        at = self.design_at
        if at is None:
            return math.nan
        if look == 1 and self.looks == 1:
            return math.exp(-statistic)

        def excess(alpha: float) -> float:
            return -math.log(at(alpha).critical[look - 1]) - statistic

        return root_of_level(excess)

    def conditional_error(self, look: int, statistic: float) -> float:
        """P(rejection at a later look) under the null."""
        return self.design.conditional_error(look, math.exp(-statistic))

    def conditional_power(self, look: int, statistic: float, drifts: ArrayLike) -> Floats:
        """P(rejection by each later look), (later,), integrated over the stages' z statistics."""
        x, w = np.polynomial.legendre.leggauss(48)
        later = np.asarray(drifts, dtype=np.float64)
        sums, mass, found, total = np.array([statistic]), np.ones(1), [], 0.0
        for i, drift in enumerate(later):
            k = look + i
            need = np.maximum(self.critical[k] - sums, 0.0) / self.design.weights[k]
            bound = norm.isf(np.exp(-need))
            total += float(mass @ ndtr(drift - bound))
            found.append(total)
            if i + 1 == len(later):
                break
            low = np.full(len(sums), drift - 8.5)
            high = np.clip(bound, low, drift + 8.5)
            z = 0.5 * (high - low)[:, None] * x + 0.5 * (high + low)[:, None]
            mass = (mass[:, None] * w * 0.5 * (high - low)[:, None] * norm.pdf(z - drift)).ravel()
            sums = (sums[:, None] - self.design.weights[k] * norm.logsf(z)).ravel()
        return np.array(found)

    def final_p_value(self, look: int, statistic: float) -> float:
        """Of a trial that ended at a look, by stagewise ordering."""
        return self.design.stagewise_p_value(look, math.exp(-statistic))
