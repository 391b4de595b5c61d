"""Rates over time: piecewise-constant ones of events, dropout and enrolment, and Weibull hazards. Time is in months."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
DAYS_PER_MONTH = 365.25 / 12


@dataclass(frozen=True)
class PiecewiseRate:
    """A rate per month that is constant between cuts; the last one holds for ever.

    Attributes:
        starts: (pieces,) month at which each piece begins, the first 0, increasing.
        rates: (pieces,) rate per month in each, 0 or more.

    Raises:
        ValueError: If they do not match, do not increase, or a rate is negative.

    >>> rate = PiecewiseRate((0.0, 6.0), (0.1, 0.2))
    >>> rate.cumulative([6.0, 10.0]).round(6).tolist(), rate.time_at([0.6, 1.4]).round(6).tolist()
    ([0.6, 1.4], [6.0, 10.0])
    """

    starts: Sequence[float]
    rates: Sequence[float]

    def __post_init__(self) -> None:
        if not len(self.starts) or len(self.starts) != len(self.rates):
            raise ValueError(f"starts and rates must be as many, got {len(self.starts)} and {len(self.rates)}")
        if self.starts[0] != 0 or (np.diff(self.starts) <= 0).any():
            raise ValueError(f"starts must begin with 0 and increase, got {list(self.starts)}")
        if min(self.rates) < 0:
            raise ValueError(f"rates must be 0 or more, got {list(self.rates)}")

    @cached_property
    def _knots(self) -> tuple[Floats, Floats]:
        starts, rates = np.asarray(self.starts, dtype=np.float64), np.asarray(self.rates, dtype=np.float64)
        return starts, np.concatenate([[0.0], np.cumsum(np.diff(starts) * rates[:-1])])

    def at(self, time: ArrayLike) -> Floats:
        """The rate at each time."""
        index = np.searchsorted(self._knots[0], np.asarray(time, dtype=np.float64), side="right") - 1
        return np.asarray(self.rates, dtype=np.float64)[np.maximum(index, 0)]

    def cumulative(self, time: ArrayLike) -> Floats:
        """The integral of the rate from 0 to each time; 0 before 0."""
        t = np.maximum(np.asarray(time, dtype=np.float64), 0.0)
        starts, totals = self._knots
        index = np.searchsorted(starts, t, side="right") - 1
        return totals[index] + (t - starts[index]) * np.asarray(self.rates, dtype=np.float64)[index]

    def time_at(self, amount: ArrayLike) -> Floats:
        """The time by which the integral reaches each amount; inf where it never does."""
        a = np.asarray(amount, dtype=np.float64)
        starts, totals = self._knots
        rates = np.asarray(self.rates, dtype=np.float64)
        if len(starts) == 1:
            return a / rates[0] if rates[0] > 0 else np.where(a > 0, np.inf, 0.0)
        index = np.maximum(np.searchsorted(totals, a, side="left") - 1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            beyond = (a - totals[index]) / rates[index]
        return np.asarray(starts[index] + np.where(a > totals[index], beyond, 0.0))

    def scaled(self, factor: float) -> PiecewiseRate:
        """The same with every rate multiplied."""
        return PiecewiseRate(tuple(self.starts), tuple(factor * rate for rate in self.rates))

    def plus(self, other: PiecewiseRate) -> PiecewiseRate:
        """The sum of two rates."""
        starts = tuple(sorted({*self.starts, *other.starts}))
        return PiecewiseRate(starts, tuple((self.at(starts) + other.at(starts)).tolist()))

    @staticmethod
    def of_median(median_months: float) -> PiecewiseRate:
        """The constant hazard with this median time.

        Raises:
            ValueError: If the median is not positive.
        """
        if not median_months > 0:
            raise ValueError(f"median_months must be above 0, got {median_months!r}")
        return PiecewiseRate((0.0,), (float(np.log(2) / median_months),))


@dataclass(frozen=True)
class WeibullHazard:
    """The hazard of the survival function exp(-(rate t)^shape).

    Attributes:
        rate: Per month, above 0.
        shape: Above 0; 1 is a constant hazard.

    Raises:
        ValueError: If either is not above 0.

    >>> WeibullHazard(0.1, 2.0).cumulative([10.0, 20.0]).round(6).tolist()
    [1.0, 4.0]
    """

    rate: float
    shape: float

    def __post_init__(self) -> None:
        for name in ("rate", "shape"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")

    @property
    def starts(self) -> tuple[float, ...]:
        """It has one piece."""
        return (0.0,)

    def at(self, time: ArrayLike) -> Floats:
        """The hazard at each time above 0."""
        t = np.asarray(time, dtype=np.float64)
        return np.asarray(self.shape * self.rate * (self.rate * t) ** (self.shape - 1.0))

    def cumulative(self, time: ArrayLike) -> Floats:
        """The integral of the hazard from 0 to each time; 0 before 0."""
        return np.asarray((self.rate * np.maximum(np.asarray(time, dtype=np.float64), 0.0)) ** self.shape)

    def time_at(self, amount: ArrayLike) -> Floats:
        """The time by which the integral reaches each amount."""
        return np.asarray(np.asarray(amount, dtype=np.float64) ** (1.0 / self.shape) / self.rate)

    def scaled(self, factor: float) -> WeibullHazard:
        """The same with the hazard multiplied at all times."""
        return WeibullHazard(self.rate * factor ** (1.0 / self.shape), self.shape)


def dropout_rate(share: float, months: float = 12.0) -> float:
    """The monthly hazard at which a share of the patients, without an event, drops out within some months.

    Raises:
        ValueError: If the share is not in [0, 1).

    >>> round(dropout_rate(0.05), 6)
    0.004274
    """
    if not 0 <= share < 1:
        raise ValueError(f"dropout must be a share from 0 to below 1, got {share!r}")
    return float(-np.log1p(-share) / months)
