"""Progression-free and overall survival of the same patient: a copula with given margins, or an illness-death model.

Both give PFS <= OS for every patient, and turn the same three draws of a patient into its two times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from medtwin.trials.design.hazard import PiecewiseRate

Floats = NDArray[np.float64]
_MOST_THETA = 200.0
_GAUSS = np.polynomial.legendre.leggauss(24)
_STEPS = 80


class JointLaw(Protocol):
    """The law of progression-free and overall survival of patients of one arm."""

    def times(self, first: Floats, second: Floats, uniform: Floats) -> tuple[Floats, Floats]:
        """Months from enrolment to progression or death, and to death, in the shape of the draws.

        Args:
            first: Exponential of mean 1.
            second: Another one, independent of it.
            uniform: In [0, 1).
        """
        ...

    def pfs_survival(self, time: ArrayLike) -> Floats:
        """The share without progression and death by each time, in its shape."""
        ...

    def same_pfs(self, other: JointLaw) -> bool:
        """Whether PFS has the same margin under both laws."""
        ...

    def same_os(self, other: JointLaw) -> bool:
        """Whether OS is known to have the same margin under both laws."""
        ...


@dataclass(frozen=True)
class GumbelPfsOs:
    """PFS and OS with given piecewise-exponential margins, joined by a Gumbel copula of progression and death.

    Time to progression and OS have the joint survival function exp(-(A^theta + B^theta)^(1/theta)), A and B being their
    cumulative hazards, and PFS is the earlier of the two: its cumulative hazard is (A^theta + B^theta)^(1/theta) along
    A(t), B(t). The hazard of progression is solved from it, so that PFS has the margin that is given.

    Attributes:
        pfs, os: Hazards of the margins, per month.
        theta: 1 or more; 1: progression and death are independent until the earlier of them.

    Raises:
        ValueError: If theta is below 1, or no time to progression leads to such margins: death would be more frequent
            than progression or death.

    Source: Gumbel 1960, J Am Stat Assoc 55:698; Nelsen 2006, An Introduction to Copulas, section 4.2.

    >>> law = GumbelPfsOs.of_kendall(PiecewiseRate.of_median(8.0), PiecewiseRate.of_median(18.0), 0.5)
    >>> round(law.theta, 4), round(law.kendall_tau, 4), round(law.progresses, 4)
    (1.307, 0.5, 0.6535)
    """

    pfs: PiecewiseRate
    os: PiecewiseRate
    theta: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.theta <= _MOST_THETA:
            raise ValueError(f"theta must be from 1 to {_MOST_THETA:g}, got {self.theta!r}")
        starts = np.array(sorted({*self.pfs.starts, *self.os.starts}))
        power = self.theta - 1
        of_pfs, of_os = self.pfs.at(starts), self.os.at(starts)
        at_pfs, at_os = self.pfs.cumulative(starts), self.os.cumulative(starts)
        ends = np.append(starts[1:], starts[-1] + 1e9)
        end_pfs, end_os = self.pfs.cumulative(ends), self.os.cumulative(ends)
        # the hazard of progression is of the sign of h_pfs H_pfs^(theta - 1) - h_os H_os^(theta - 1): on a piece H_os /
        # H_pfs is monotone, so that its ends decide; at 0 it is the ratio of the first hazards
        at_pfs[0], at_os[0] = of_pfs[0], of_os[0]
        slack = 1e-9
        for h, d in ((at_pfs, at_os), (end_pfs, end_os)):
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.where(h > 0, d / h, np.where(d > 0, np.inf, 0.0))
            short = of_pfs < of_os * share**power * (1 - slack) - 1e-300
            if short.any():
                month = float(starts[short][0])
                raise ValueError(
                    f"pfs must leave room for progression: from month {month:g} on death is more frequent than "
                    f"progression or death together (hazards {float(of_os[short][0]):g} and "
                    f"{float(of_pfs[short][0]):g} per month, theta {self.theta:g})"
                )

    @staticmethod
    def of_kendall(pfs: PiecewiseRate, os: PiecewiseRate, tau: float) -> GumbelPfsOs:
        """The law in which Kendall's tau of PFS and OS is given.

        With a hazard of death that is rho times that of PFS it is 1 - (1 - rho^theta) / theta, of which the last
        factor's numerator is the share who progress before they die. It is rho where progression and death are
        independent: PFS contains death.

        Args:
            pfs: Hazard of PFS.
            os: Hazard of OS, in the same proportion to it at all times.
            tau: Kendall's tau of a patient's PFS and OS, from rho to below 1.

        Raises:
            ValueError: If the hazards are not proportional, or tau is out of reach.

        Source: tau = 4 E S(PFS, OS) - 1 with the law of `gumbel_exponentials`.
        """
        rho = _proportion(pfs, os)
        if rho is None:
            raise ValueError("os must have hazards proportional to those of pfs for a given tau: give theta instead")
        least = rho
        if not least - 1e-12 <= tau < 1:
            raise ValueError(
                f"tau must be from {least:.4g} (progression and death independent) to below 1, got {tau!r}"
            )
        if _tau(_MOST_THETA, rho) < tau:
            raise ValueError(f"tau must be at most {_tau(_MOST_THETA, rho):.4f}, got {tau!r}")
        if tau <= least:
            return GumbelPfsOs(pfs, os, 1.0)
        return GumbelPfsOs(pfs, os, float(brentq(lambda theta: _tau(theta, rho) - tau, 1.0, _MOST_THETA, xtol=1e-12)))

    @property
    def kendall_tau(self) -> float:
        """Kendall's tau of PFS and OS.

        Raises:
            ValueError: If their hazards are not proportional.
        """
        return _tau(self.theta, self._known_proportion)

    @property
    def progresses(self) -> float:
        """The share of patients who progress before they die.

        Raises:
            ValueError: If the hazards of PFS and OS are not proportional.
        """
        return float(1 - self._known_proportion**self.theta)

    @cached_property
    def _proportion(self) -> float | None:
        return _proportion(self.pfs, self.os)

    @property
    def _known_proportion(self) -> float:
        if self._proportion is None:
            raise ValueError("os must have hazards proportional to those of pfs, got other shapes")
        return self._proportion

    def times(self, first: Floats, second: Floats, uniform: Floats) -> tuple[Floats, Floats]:
        """PFS and OS in months, see `JointLaw`."""
        to_progress, to_die = gumbel_exponentials(self.theta, first, second, uniform)
        os = self.os.time_at(to_die)
        if self._proportion is None:
            progression = self._progression(to_progress)
        else:
            room = self.progresses
            with np.errstate(divide="ignore"):
                progression = self.pfs.time_at(to_progress / np.float64(room) ** (1 / self.theta))
        return np.minimum(progression, os), os

    def _progression(self, amount: Floats) -> Floats:
        """The months at which H_pfs^theta - H_os^theta reaches amount^theta, by Newton's method within brackets."""
        starts = np.array(sorted({*self.pfs.starts, *self.os.starts}))
        goal = amount**self.theta
        low = starts[np.maximum(np.searchsorted(self._risen(starts), goal, side="left") - 1, 0)]
        ends = np.append(starts[1:], np.inf)
        high = ends[np.searchsorted(starts, low, side="right") - 1]
        never = (goal > self._risen(starts[-1:])[0]) & (self.pfs.rates[-1] <= 0)
        is_open = np.isinf(high) & ~never
        high = np.where(is_open, low + 1.0, np.where(never, low, high))
        while (is_open & (self._risen(high) < goal)).any():
            high = np.where(is_open & (self._risen(high) < goal), low + 2 * (high - low), high)
            if high[is_open].max() > 1e12:
                never |= is_open & (self._risen(high) < goal)
                is_open &= ~never
        high = np.where(never, low, high)
        t = 0.5 * (low + high)
        for _ in range(_STEPS):
            value = self._risen(t) - goal
            low, high = np.where(value < 0, t, low), np.where(value < 0, high, t)
            slope = self.theta * (
                self.pfs.at(t) * self.pfs.cumulative(t) ** (self.theta - 1)
                - self.os.at(t) * self.os.cumulative(t) ** (self.theta - 1)
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                step = t - value / slope
            inside = (step > low) & (step < high)
            nearer = np.where(inside, step, 0.5 * (low + high))
            if np.array_equal(nearer, t):
                break
            t = nearer
        return np.where(never, np.inf, t)

    def _risen(self, time: Floats) -> Floats:
        """H_pfs^theta - H_os^theta."""
        return np.asarray(self.pfs.cumulative(time) ** self.theta - self.os.cumulative(time) ** self.theta)

    def pfs_survival(self, time: ArrayLike) -> Floats:
        """The share without progression and death by each time."""
        return np.exp(-self.pfs.cumulative(time))

    def os_survival(self, time: ArrayLike) -> Floats:
        """The share alive by each time."""
        return np.exp(-self.os.cumulative(time))

    def same_pfs(self, other: JointLaw) -> bool:
        """Whether PFS has the same margin."""
        return isinstance(other, GumbelPfsOs) and same_rate(self.pfs, other.pfs)

    def same_os(self, other: JointLaw) -> bool:
        """Whether OS has the same margin."""
        return isinstance(other, GumbelPfsOs) and same_rate(self.os, other.os)


def same_rate(one: PiecewiseRate, other: PiecewiseRate) -> bool:
    """Whether two rates are the same at all times."""
    starts = sorted({*one.starts, *other.starts})
    return bool(np.allclose(one.at(starts), other.at(starts), rtol=1e-12, atol=0))


def _proportion(pfs: PiecewiseRate, os: PiecewiseRate) -> float | None:
    """The hazard of OS over that of PFS; None where it changes."""
    starts = sorted({*pfs.starts, *os.starts})
    of_pfs, of_os = pfs.at(starts), os.at(starts)
    kept = of_pfs > 0
    if (of_os[~kept] > 0).any() or not kept.any():
        return None
    share = of_os[kept] / of_pfs[kept]
    return float(share[0]) if np.ptp(share) <= 1e-12 * share[0] else None


def _tau(theta: float, rho: float) -> float:
    return float(1 - (1 - rho**theta) / theta)


def gumbel_exponentials(theta: float, first: Floats, second: Floats, uniform: Floats) -> tuple[Floats, Floats]:
    """Two exponential variables of mean 1 joined by a Gumbel survival copula, each in the shape of the draws.

    Of x and y with the joint survival function exp(-s), s = (x^theta + y^theta)^(1/theta), the share w = (x / s)^theta
    is uniform and independent of s, and s is the sum of two exponentials with probability 1 / theta, else one: the
    density in s and w is (s + theta - 1) exp(-s) / theta.

    Args:
        theta: 1 or more; Kendall's tau of the two is 1 - 1 / theta.
        first: Exponential of mean 1.
        second: Another one.
        uniform: In [0, 1): decides between the sums, and is the share.

    Source: Lee 1979, J Multivar Anal 9:267; Ghoudi, Khoudraji & Rivest 1998, Can J Stat 26:187.
    """
    if theta == 1:
        return first * 1.0, second * 1.0
    both = 1 / theta
    is_sum = (uniform < both).astype(np.float64)
    # of a sum it is uniform in [0, 1 / theta), else in [1 / theta, 1)
    share = (uniform - both + both * is_sum) * (1 / (1 - both) + (theta - 1 / (1 - both)) * is_sum)
    s = first + second * is_sum
    with np.errstate(divide="ignore"):  # a share of 0 or 1
        return s * np.exp(both * np.log(share)), s * np.exp(both * np.log(1 - share))


@dataclass(frozen=True)
class IllnessDeath:
    """PFS and OS as sojourns in an illness-death model: progression, death without it, death after it.

    PFS ends with the first of progression and death; whoever progresses dies at another hazard from then on.

    Attributes:
        progression, death: Hazards per month since enrolment, without progression.
        death_after_progression: Hazard per month.
        since_progression: Whether its months count from progression (semi-Markov), else from enrolment (Markov).

    Raises:
        ValueError: If nobody ever progresses or dies.

    Source: Fleischer, Gaschler-Markefski & Bluhmki 2009, Stat Med 28:2669; Meller, Beyersmann & Rufibach 2019, Stat Med
    38:2576.

    >>> law = IllnessDeath(*(PiecewiseRate((0.0,), (rate,)) for rate in (0.08, 0.02, 0.06)))
    >>> law.pfs_survival([0.0, 10.0]).round(6).tolist(), law.os_survival([10.0]).round(6).tolist()
    ([1.0, 0.367879], [0.729744])
    """

    progression: PiecewiseRate
    death: PiecewiseRate
    death_after_progression: PiecewiseRate
    since_progression: bool = False

    def __post_init__(self) -> None:
        if max(self.first.rates) <= 0:
            raise ValueError("progression and death must have hazards above 0 at some time, got 0 at all")

    @cached_property
    def first(self) -> PiecewiseRate:
        """The hazard of PFS."""
        return self.progression.plus(self.death)

    def times(self, first: Floats, second: Floats, uniform: Floats) -> tuple[Floats, Floats]:
        """PFS and OS in months, see `JointLaw`."""
        pfs = self.first.time_at(first)
        at = np.where(np.isfinite(pfs), pfs, 0.0)
        is_progression = uniform * self.first.at(at) < self.progression.at(at)
        after = self.death_after_progression
        if self.since_progression:
            os = pfs + after.time_at(second)
        else:
            os = np.maximum(after.time_at(after.cumulative(at) + second), pfs)
        return pfs, np.where(is_progression, os, pfs)

    def pfs_survival(self, time: ArrayLike) -> Floats:
        """The share without progression and death by each time, in its shape."""
        return np.exp(-self.first.cumulative(time))

    def os_survival(self, time: ArrayLike) -> Floats:
        """The share alive by each time, (times,).

        Source: Meller, Beyersmann & Rufibach 2019, section 2.
        """
        return np.array([self._alive(float(t)) for t in np.atleast_1d(np.asarray(time, dtype=np.float64))])

    def _alive(self, time: float) -> float:
        """Those without progression, and those who progressed at u and have lived on."""
        after = self.death_after_progression
        cuts = {0.0, time, *self.first.starts, *after.starts, *(time - start for start in after.starts)}
        edges = np.array(sorted(cut for cut in cuts if 0 <= cut <= time))
        x, w = _GAUSS
        half = 0.5 * np.diff(edges)[:, None]
        u, weight = (half * x + edges[:-1, None] + half).ravel(), (half * w).ravel()
        passed = after.cumulative(time - u) if self.since_progression else after.cumulative(time) - after.cumulative(u)
        entered = self.progression.at(u) * self.pfs_survival(u)
        return math.exp(-float(self.first.cumulative(time))) + float((entered * np.exp(-passed)) @ weight)

    def same_pfs(self, other: JointLaw) -> bool:
        """Whether PFS has the same margin."""
        return isinstance(other, IllnessDeath) and same_rate(self.first, other.first)

    def same_os(self, other: JointLaw) -> bool:
        """Whether OS is known to have the same margin: all three hazards are the same."""
        return (
            isinstance(other, IllnessDeath)
            and self.since_progression == other.since_progression
            and same_rate(self.progression, other.progression)
            and same_rate(self.death, other.death)
            and same_rate(self.death_after_progression, other.death_after_progression)
        )
