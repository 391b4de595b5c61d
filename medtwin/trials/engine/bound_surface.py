"""Bounds recomputed at random information, for millions of trials: exact on Chebyshev nodes, interpolated between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray

from medtwin.trials.design.group_sequential import GroupSequential
from medtwin.trials.design.monitoring import MIN_STEP, Monitoring, bounds_at_looks

Floats = NDArray[np.float64]
TOLERANCE = 1e-5
"""Largest error of an interpolated z bound; it moves a type I error of 0.025 by less than 1e-6."""
_Polynomial = list[tuple[tuple[int, ...], float]]
"""Chebyshev degrees in the information of each look, and the coefficient."""
_ORDERS = (5, 7, 9, 12)
_NUM_PROBES = 12


@dataclass(frozen=True)
class InformationRange:
    """Between which the information at each look lies, all values equally likely, looks independent of each other.

    Attributes:
        low, high: (looks,) fractions of the planned maximum; the last may be below 1 (under-running) and above it
            (over-running). Equal ones leave nothing to chance.

    Raises:
        ValueError: If a range is empty, two of them meet, or an early look may reach the planned maximum.
    """

    low: Sequence[float]
    high: Sequence[float]

    def __post_init__(self) -> None:
        low, high = np.asarray(self.low, dtype=np.float64), np.asarray(self.high, dtype=np.float64)
        if low.ndim != 1 or not len(low) or low.shape != high.shape:
            raise ValueError(f"low and high must be one number per look each, got {low.tolist()}, {high.tolist()}")
        if not (np.isfinite(high).all() and (low > 0).all() and (low <= high).all()):
            raise ValueError(f"ranges must have 0 < low <= high, got {low.tolist()} to {high.tolist()}")
        if (low[1:] < high[:-1] + MIN_STEP).any():
            raise ValueError(
                f"ranges of looks must lie {MIN_STEP:g} apart so that information grows, "
                f"got {low.tolist()} to {high.tolist()}"
            )
        if (high[:-1] >= 1).any():
            raise ValueError(f"looks before the last must stay below the planned maximum 1, got high {high.tolist()}")

    @property
    def num_looks(self) -> int:
        """Looks."""
        return len(self.low)

    def at(self, shares: Floats) -> Floats:
        """The information, in the shape of `shares`, (looks, ...) numbers in [0, 1]."""
        low, high = (np.asarray(each, dtype=np.float64) for each in (self.low, self.high))
        shape = (-1, *(1 for _ in shares.shape[1:]))
        return np.asarray(low.reshape(shape) + (high - low).reshape(shape) * shares)


@dataclass(frozen=True)
class BoundSurface:
    """The bounds of a plan as functions of the information at all looks so far.

    Attributes:
        plan: Errors and how they are spent. ranges: Where information lies.
        drift: E Z at the planned maximum under the alternative, at which beta is spent.

    Raises:
        ValueError: On first use, if a bound is infinite in a part of the ranges only, or 12 nodes are not enough.

    Source: Trefethen 2013, Approximation Theory and Approximation Practice, chapters 4 and 8.
    """

    plan: GroupSequential
    ranges: InformationRange
    drift: float

    def efficacy(self, look: int, information: Floats) -> Floats:
        """Efficacy z bounds at a look, (trials,), given (looks so far, trials) information."""
        return self._at(self._polynomials[0][look], information)

    def futility(self, look: int, information: Floats) -> Floats:
        """Futility z bounds at a look, (trials,), -inf for none; the last look's are the efficacy bounds."""
        return self._at(self._polynomials[1][look], information)

    @cached_property
    def _polynomials(self) -> tuple[list[_Polynomial], list[_Polynomial]]:
        """Of the efficacy and the futility bounds of each look, on as few nodes as are exact enough."""
        for order in _ORDERS:
            found = self._fitted(order)
            if self._error(found) < TOLERANCE:
                return found
        raise ValueError(
            f"ranges must be narrower for bounds that vary so, got {self.ranges.low} to {self.ranges.high}"
        )

    def _fitted(self, order: int) -> tuple[list[_Polynomial], list[_Polynomial]]:
        sizes = [order if high > low else 1 for low, high in zip(self.ranges.low, self.ranges.high, strict=True)]
        states = [Monitoring(self.plan, self.drift)]
        upper: list[_Polynomial] = []
        lower: list[_Polynomial] = []
        for look, (low, high) in enumerate(zip(self.ranges.low, self.ranges.high, strict=True)):
            nodes = 0.5 * (low + high) + 0.5 * (high - low) * _nodes(sizes[look])
            is_final = look + 1 == self.ranges.num_looks
            states = [state.after(float(node), is_final=is_final) for state in states for node in nodes]
            shape = tuple(sizes[: look + 1])
            upper.append(self._interpolant(look, np.array([state.efficacy[-1] for state in states]).reshape(shape)))
            lower.append(self._interpolant(look, np.array([state.futility[-1] for state in states]).reshape(shape)))
        return upper, lower

    def _interpolant(self, look: int, values: Floats) -> _Polynomial:
        """Through (nodes, ...) bounds of a look; a constant for a bound that is infinite everywhere."""
        if np.isinf(values).all():
            return [((0,) * values.ndim, float(values.flat[0]))]
        if np.isinf(values).any():
            raise ValueError(
                f"look {look + 1} has a bound in a part of its range only, "
                f"{self.ranges.low[look]:g} to {self.ranges.high[look]:g}: let it come later"
            )
        for axis, size in enumerate(values.shape):
            inverse = np.linalg.inv(chebvander(_nodes(size), size - 1))
            values = np.moveaxis(np.tensordot(inverse, values, axes=(1, axis)), 0, axis)
        order = np.argsort(np.abs(values), axis=None)
        is_needed = np.cumsum(np.abs(values).flat[order]) > TOLERANCE / 10
        kept = order[is_needed] if is_needed.any() else order[-1:]
        degrees = np.stack(np.unravel_index(np.sort(kept), values.shape), axis=1)
        return [(tuple(map(int, each)), float(values[tuple(each)])) for each in degrees]

    def _at(self, polynomial: _Polynomial, information: Floats) -> Floats:
        """The value, (trials,), at (looks so far, trials) information."""
        value = np.zeros(information.shape[1])
        most = np.max([degrees for degrees, _ in polynomial], axis=0)
        basis = [self._chebyshev(look, information[look], degree) for look, degree in enumerate(most.tolist())]
        for degrees, coefficient in polynomial:
            factors = [basis[look][degree] for look, degree in enumerate(degrees) if degree]
            if not factors:
                value += coefficient
                continue
            term = coefficient * factors[0]
            for factor in factors[1:]:
                term *= factor
            value += term
        return value

    def _chebyshev(self, look: int, information: Floats, degree: int) -> list[Floats]:
        """The polynomials up to a degree at a look's information on (-1, 1), (trials,) each; that of degree 0 is 1."""
        found = [np.ones(1)]
        if degree:
            low, high = self.ranges.low[look], self.ranges.high[look]
            found.append((2 * information - (low + high)) / (high - low))
        for _ in range(degree - 1):
            found.append(2 * found[1] * found[-1] - found[-2])
        return found

    def _error(self, polynomials: tuple[list[_Polynomial], list[_Polynomial]]) -> float:
        """The largest error of a bound at points between the nodes."""
        looks = np.arange(1, self.ranges.num_looks + 1)
        shares = (np.arange(1, _NUM_PROBES + 1) * np.sqrt(_PRIMES[looks - 1])[:, None]) % 1.0
        points, worst = self.ranges.at(shares), 0.0
        for point in points.T:
            exact = bounds_at_looks(self.plan, point.tolist(), self.drift)
            for look in looks.tolist():
                seen = point[:look, None]
                for found, wanted in zip(polynomials, (exact.efficacy, exact.futility), strict=True):
                    value = float(self._at(found[look - 1], seen)[0])
                    if value != wanted[look - 1]:
                        worst = max(worst, abs(value - wanted[look - 1]))
        return worst if math.isfinite(worst) else math.inf


_PRIMES = np.array([2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0, 29.0])


def _nodes(count: int) -> Floats:
    """Chebyshev points of the first kind in (-1, 1), (count,)."""
    return np.asarray(np.cos(np.pi * (np.arange(count) + 0.5) / count))
