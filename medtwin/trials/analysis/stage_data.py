"""Summary data of a trial by stage, and the tests of them: means, rates and log-rank statistics.

A stage's data are those of the patients (or events) that came since the stage before. Each class tests the null that
an effect equals `theta` against larger effects, of each stage by itself and of all stages so far together.

Source: Wassmer & Brannath 2016, Group Sequential and Confirmatory Adaptive Designs in Clinical Trials, chapter 5;
Farrington & Manning 1990, Stat Med 9:1447 (two rates); Schoenfeld 1981, Biometrika 68:316 (log-rank).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import binom, hypergeom, norm, t

from medtwin.trials.restricted_rates import restricted_rates

Floats = NDArray[np.float64]


class StageData(Protocol):
    """Data by stage on one effect."""

    @property
    def stages(self) -> int:
        """How many there are."""

    @property
    def mirrored(self) -> StageData:
        """The same with the effect's sign turned, so that smaller effects become larger ones."""

    @property
    def search(self) -> tuple[float, float]:
        """Between which effects limits are looked for."""

    def p_values(self, theta: float) -> Floats:
        """One-sided p values of each stage by itself, (stages,)."""

    def cumulative_p_values(self, theta: float) -> Floats:
        """One-sided p values of all stages so far, (stages,)."""

    @property
    def effects(self) -> Floats:
        """Estimates from all stages so far, (stages,)."""

    @property
    def sizes(self) -> Floats:
        """Effective size of each stage by itself, (stages,): information on the effect over one unit's scale."""

    @property
    def cumulative_sizes(self) -> Floats:
        """Effective size of all stages so far, (stages,)."""

    @property
    def scales(self) -> Floats:
        """What turns an effect of one standard deviation into the effect, from all stages so far, (stages,)."""

    def score_limit(self, look: int, z: float) -> float:
        """The effect that lies z standard errors below the estimate of all stages up to a look, from 1."""


def _pooled(n: Floats, mean: Floats, sd: Floats) -> tuple[Floats, Floats, Floats]:
    """Cumulative numbers, means and standard deviations."""
    total = np.cumsum(n)
    means = np.cumsum(n * mean) / total
    squares = np.cumsum((n - 1) * sd**2 + n * mean**2) - total * means**2
    return total, means, np.sqrt(np.maximum(squares, 0.0) / (total - 1))


def _columns(name: str, *parts: ArrayLike) -> list[Floats]:
    found = [np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in parts]
    if any(each.ndim != 1 or each.shape != found[0].shape or not np.isfinite(each).all() for each in found):
        raise ValueError(f"{name} must have one number per stage in each part, got {[each.tolist() for each in found]}")
    return found


@dataclass(frozen=True)
class Sample:
    """Numbers, means and standard deviations of an arm by stage, each (stages,).

    Raises:
        ValueError: If they differ in length, a stage has fewer than two patients, or a deviation is not positive.
    """

    n: Floats
    mean: Floats
    sd: Floats

    def __post_init__(self) -> None:
        for name, part in zip(("n", "mean", "sd"), _columns("a sample", self.n, self.mean, self.sd), strict=True):
            object.__setattr__(self, name, part)
        if (self.n < 2).any() or (self.sd <= 0).any():
            raise ValueError(f"a sample must have n of 2 or more and sd above 0, got {self.n}, {self.sd}")

    @property
    def cumulative(self) -> tuple[Floats, Floats, Floats]:
        """Numbers, means and deviations of all stages so far."""
        return _pooled(self.n, self.mean, self.sd)

    @classmethod
    def from_cumulative(cls, n: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Sample:
        """The stages from what had been seen by the end of each."""
        total, means, sds = _columns("a sample", n, mean, sd)
        size = np.diff(total, prepend=0.0)
        own = np.diff(total * means, prepend=0.0) / size
        squares = np.diff((total - 1) * sds**2 + total * means**2, prepend=0.0)
        return cls(size, own, np.sqrt((squares - size * own**2) / (size - 1)))


@dataclass(frozen=True)
class MeansData:
    """Means by stage: of one arm, or the difference experimental - control.

    Attributes:
        experimental: The arm, or the experimental one. control: The other, None for one arm.
        equal_variances: Whether the t test pools the variances; else Welch's.
        normal: Whether p values are of the normal law.
    """

    experimental: Sample
    control: Sample | None = None
    equal_variances: bool = True
    normal: bool = False

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.experimental.n)

    @property
    def mirrored(self) -> MeansData:
        """With the sign of all values turned."""
        turned = [
            None if each is None else Sample(each.n, -each.mean, each.sd) for each in (self.experimental, self.control)
        ]
        return MeansData(turned[0] or self.experimental, turned[1], self.equal_variances, self.normal)

    @property
    def search(self) -> tuple[float, float]:
        """40 standard errors around the stages' estimates."""
        _, effect, error, _ = self._test(False)
        return float((effect - 40 * error).min()), float((effect + 40 * error).max())

    def _test(self, cumulative: bool) -> tuple[Floats, Floats, Floats, Floats]:
        """Effective sizes, estimates, their standard errors and degrees of freedom."""

        def parts(arm: Sample) -> tuple[Floats, Floats, Floats]:
            return arm.cumulative if cumulative else (arm.n, arm.mean, arm.sd)

        n1, mean1, sd1 = parts(self.experimental)
        if self.control is None:
            return n1, mean1, sd1 / np.sqrt(n1), n1 - 1
        n2, mean2, sd2 = parts(self.control)
        size, effect = n1 * n2 / (n1 + n2), mean1 - mean2
        if self.equal_variances:
            pooled = ((n1 - 1) * sd1**2 + (n2 - 1) * sd2**2) / (n1 + n2 - 2)
            return size, effect, np.sqrt(pooled / size), n1 + n2 - 2
        v1, v2 = sd1**2 / n1, sd2**2 / n2
        return size, effect, np.sqrt(v1 + v2), (v1 + v2) ** 2 / (v1**2 / (n1 - 1) + v2**2 / (n2 - 1))

    def _p_values(self, theta: float, cumulative: bool) -> Floats:
        _, effect, error, df = self._test(cumulative)
        z = (effect - theta) / error
        return np.asarray(norm.sf(z) if self.normal else t.sf(z, df))

    def p_values(self, theta: float) -> Floats:
        """One-sided p values of each stage, (stages,), of t or z tests."""
        return self._p_values(theta, False)

    def cumulative_p_values(self, theta: float) -> Floats:
        """One-sided p values of all stages so far, (stages,)."""
        return self._p_values(theta, True)

    @property
    def effects(self) -> Floats:
        """Means or their differences from all stages so far, (stages,)."""
        return self._test(True)[1]

    @property
    def sizes(self) -> Floats:
        """n, or n1 n2 / (n1 + n2), of each stage, (stages,)."""
        return self._test(False)[0]

    @property
    def cumulative_sizes(self) -> Floats:
        """The same of all stages so far, (stages,)."""
        return self._test(True)[0]

    @property
    def scales(self) -> Floats:
        """The standard deviation, pooled over arms, (stages,)."""
        _, _, sd1 = self.experimental.cumulative
        if self.control is None:
            return sd1
        (n1, _, _), (n2, _, sd2) = self.experimental.cumulative, self.control.cumulative
        return np.asarray(np.sqrt(((n1 - 1) * sd1**2 + (n2 - 1) * sd2**2) / (n1 + n2 - 2)))

    def score_limit(self, look: int, z: float) -> float:
        """The estimate less z standard errors, from the pooled deviation."""
        k = look - 1
        return float(self.effects[k] - z * self.scales[k] / math.sqrt(self.cumulative_sizes[k]))


@dataclass(frozen=True)
class RatesData:
    """Events of patients by stage: of one arm, or the difference of rates experimental - control.

    Attributes:
        events, n: Of the arm, or the experimental one, (stages,).
        control_events, control_n: Of the other, None for one arm.
        exact: Whether p values are exact: binomial, or Fisher's of no difference; others are of the score test.

    Raises:
        ValueError: If there are more events than patients, or the parts differ in length.
    """

    events: Floats
    n: Floats
    control_events: Floats | None = None
    control_n: Floats | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        names = ["events", "n"] + (["control_events", "control_n"] if self.control_n is not None else [])
        parts = _columns("rates", *(getattr(self, name) for name in names))
        for name, part in zip(names, parts, strict=True):
            object.__setattr__(self, name, part)
        for events, n in zip(parts[::2], parts[1::2], strict=True):
            if (events < 0).any() or (events > n).any() or (n <= 0).any():
                raise ValueError(f"events must be between 0 and n, got {events.tolist()} of {n.tolist()}")

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.n)

    @property
    def mirrored(self) -> RatesData:
        """Of the patients without the event; the effect of one arm is then minus its rate."""
        if self.control_events is None or self.control_n is None:
            return _MirroredRate(self.n - self.events, self.n, exact=self.exact)
        return RatesData(self.n - self.events, self.n, self.control_n - self.control_events, self.control_n, self.exact)

    @property
    def search(self) -> tuple[float, float]:
        """All differences, or rates."""
        edge = 1e-9
        return (edge if self.control_n is None else -1 + edge), 1 - edge

    def p_values(self, theta: float) -> Floats:
        """One-sided p values of each stage, (stages,)."""
        return self._p_values(theta, self._counts(False))

    def cumulative_p_values(self, theta: float) -> Floats:
        """One-sided p values of all stages so far, (stages,)."""
        return self._p_values(theta, self._counts(True))

    def _counts(self, cumulative: bool) -> tuple[Floats, ...]:
        counts = [self.events, self.n]
        if self.control_events is not None and self.control_n is not None:
            counts += [self.control_events, self.control_n]
        return tuple(np.cumsum(each) if cumulative else each for each in counts)

    def _p_values(self, theta: float, counts: tuple[Floats, ...]) -> Floats:
        if not self.exact or (self.control_n is not None and theta != 0):
            return np.asarray(norm.sf([_score(theta, *row) for row in zip(*counts, strict=True)]))
        if self.control_n is None:
            return np.asarray(binom.sf(counts[0] - 1, counts[1], theta))
        e1, n1, e2, n2 = counts
        return np.asarray(hypergeom.sf(e1 - 1, n1 + n2, e1 + e2, n1))

    @property
    def effects(self) -> Floats:
        """Rates or their differences from all stages so far, (stages,)."""
        e1, n1, *other = self._counts(True)
        return np.asarray(e1 / n1 - (other[0] / other[1] if other else 0.0))

    def _sizes(self, cumulative: bool) -> Floats:
        _, n1, *other = self._counts(cumulative)
        return np.asarray(n1 * other[1] / (n1 + other[1]) if other else n1)

    @property
    def sizes(self) -> Floats:
        """n, or n1 n2 / (n1 + n2), of each stage, (stages,)."""
        return self._sizes(False)

    @property
    def cumulative_sizes(self) -> Floats:
        """The same of all stages so far, (stages,)."""
        return self._sizes(True)

    @property
    def scales(self) -> Floats:
        """The standard deviation of one patient's outcome at the observed rates, (stages,)."""
        e1, n1, *other = self._counts(True)
        p1 = e1 / n1
        if not other:
            return np.asarray(np.sqrt(p1 * (1 - p1)))
        p2, r = other[0] / other[1], n1 / other[1]
        return np.asarray(np.sqrt((p1 * (1 - p1) + r * p2 * (1 - p2)) / (1 + r)))

    def score_limit(self, look: int, z: float) -> float:
        """The difference, or rate, whose score statistic is z: Wilson's, or Farrington & Manning's limit."""
        row = [float(each[look - 1]) for each in self._counts(True)]
        low, high = self.search

        def excess(at: float) -> float:
            return _score(at, *row) - z

        if excess(low) < 0 or excess(high) > 0:
            return low if excess(low) < 0 else high
        return float(brentq(excess, low, high, xtol=1e-12))


def _score(theta: float, e1: float, n1: float, e2: float = math.nan, n2: float = math.nan) -> float:
    """The z statistic, its variance that of the null."""
    p1 = e1 / n1
    if math.isnan(n2):
        return (p1 - theta) / math.sqrt(theta * (1 - theta) / n1)
    p2 = e2 / n2
    if theta == 0:
        pooled = (e1 + e2) / (n1 + n2)
        null = (pooled, pooled)
    else:
        null = restricted_rates((p1, p2), theta, allocation_ratio=n1 / n2)
    variance = null[0] * (1 - null[0]) / n1 + null[1] * (1 - null[1]) / n2
    if variance <= 0:
        return math.copysign(math.inf, p1 - p2 - theta) if p1 - p2 != theta else 0.0
    return (p1 - p2 - theta) / math.sqrt(variance)


class _MirroredRate(RatesData):
    """One arm's share without the event, whose effect is minus the rate with it."""

    @property
    def search(self) -> tuple[float, float]:
        return -1 + 1e-9, -1e-9

    def p_values(self, theta: float) -> Floats:
        return super().p_values(1 + theta)

    def cumulative_p_values(self, theta: float) -> Floats:
        return super().cumulative_p_values(1 + theta)

    @property
    def effects(self) -> Floats:
        return super().effects - 1

    @property
    def mirrored(self) -> RatesData:
        return RatesData(self.n - self.events, self.n, exact=self.exact)

    def score_limit(self, look: int, z: float) -> float:
        return -RatesData(self.n - self.events, self.n).score_limit(look, -z)


@dataclass(frozen=True)
class LogRankData:
    """Events and log-rank z statistics of the increments by stage; the effect is the log hazard ratio.

    Attributes:
        events: (stages,). z: (stages,), above 0 where the hazard of the first arm is larger.
        allocation_ratio: Patients of the first arm to the second, (stages,).

    Raises:
        ValueError: If the parts differ in length, or events or ratios are not above 0.
    """

    events: Floats
    z: Floats
    allocation_ratio: Floats

    def __post_init__(self) -> None:
        names = ("events", "z", "allocation_ratio")
        for name, part in zip(
            names, _columns("log-rank data", self.events, self.z, self.allocation_ratio), strict=True
        ):
            object.__setattr__(self, name, part)
        if (self.events <= 0).any() or (self.allocation_ratio <= 0).any():
            raise ValueError(
                f"events and allocation_ratio must be above 0, got {self.events.tolist()}, "
                f"{self.allocation_ratio.tolist()}"
            )

    @classmethod
    def from_cumulative(cls, events: ArrayLike, z: ArrayLike, allocation_ratio: ArrayLike) -> LogRankData:
        """The increments from what had been seen by the end of each stage."""
        total, score, ratio = _columns("log-rank data", events, z, allocation_ratio)
        own = np.diff(total, prepend=0.0)
        increments = np.diff(np.sqrt(total) * score, prepend=0.0) / np.sqrt(own)
        return cls(own, increments, np.diff(total * ratio, prepend=0.0) / own)

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.events)

    @property
    def mirrored(self) -> LogRankData:
        """With the arms exchanged in sign: the effect is minus the log hazard ratio."""
        return LogRankData(self.events, -self.z, self.allocation_ratio)

    @property
    def search(self) -> tuple[float, float]:
        """40 standard errors around the stages' estimates."""
        root = np.sqrt(self.events) / _spread(self.allocation_ratio)
        return float(((self.z - 40) / root).min()), float(((self.z + 40) / root).max())

    @property
    def _cumulative(self) -> tuple[Floats, Floats, Floats]:
        total = np.cumsum(self.events)
        z = np.cumsum(np.sqrt(self.events) * self.z) / np.sqrt(total)
        return total, z, np.cumsum(self.events * self.allocation_ratio) / total

    def p_values(self, theta: float) -> Floats:
        """One-sided p values of each stage, (stages,)."""
        return np.asarray(norm.sf(self.z - theta * np.sqrt(self.events) / _spread(self.allocation_ratio)))

    def cumulative_p_values(self, theta: float) -> Floats:
        """One-sided p values of all stages so far, (stages,)."""
        total, z, ratio = self._cumulative
        return np.asarray(norm.sf(z - theta * np.sqrt(total) / _spread(ratio)))

    @property
    def effects(self) -> Floats:
        """Log hazard ratios from all stages so far, (stages,)."""
        total, z, ratio = self._cumulative
        return np.asarray(z * _spread(ratio) / np.sqrt(total))

    @property
    def sizes(self) -> Floats:
        """Events of each stage, (stages,)."""
        return self.events

    @property
    def cumulative_sizes(self) -> Floats:
        """Events so far, (stages,)."""
        return np.asarray(np.cumsum(self.events))

    @property
    def scales(self) -> Floats:
        """(1 + r) / sqrt(r) of the allocation so far, (stages,)."""
        return _spread(self._cumulative[2])

    def score_limit(self, look: int, z: float) -> float:
        """The estimate less z standard errors."""
        k = look - 1
        return float(self.effects[k] - z * self.scales[k] / math.sqrt(self.cumulative_sizes[k]))


def _spread(ratio: Floats) -> Floats:
    return np.asarray((1 + ratio) / np.sqrt(ratio))
