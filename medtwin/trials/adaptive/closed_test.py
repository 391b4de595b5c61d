"""Closed tests of several treatment arms against one control in a trial with stages.

At each stage every intersection of nulls has a p value of the arms in it that still take part; the stages' p values of
an intersection are combined like those of one hypothesis. An arm's null is rejected where all intersections that hold
it are. A single-step test of all arms gives intervals.

Source: Bauer & Kieser 1999, Stat Med 18:1833; Hommel 2001, Biometrical Journal 43:581; Koenig et al. 2008, Stat Med
27:1612; Wassmer & Brannath 2016, Group Sequential and Confirmatory Adaptive Designs in Clinical Trials, chapter 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from medtwin.trials.adaptive.combined_tests import CombinedTest, falling_root
from medtwin.trials.analysis.multiplicity import intersections, truncated_p_value
from medtwin.trials.analysis.stage_data import LogRankData, RatesData, Sample
from medtwin.trials.design.dunnett import dunnett_p_value, many_to_one_correlation

Floats = NDArray[np.float64]
Variance = Literal["overall_pooled", "pairwise_pooled", "not_pooled"]
Intersection = Literal["dunnett", "bonferroni", "simes", "sidak", "hierarchical"]


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of arms with the control at one stage, each (arms,), nan for arms that do not take part.

    Attributes:
        p_values: One-sided. z: The statistics.
        ratios: Sizes of the arms relative to the control's.
        degrees_of_freedom: Of a variance estimate that all statistics share; None: they are normal.
    """

    p_values: Floats
    z: Floats
    ratios: Floats
    degrees_of_freedom: float | None = None


class ArmsData(Protocol):
    """Data by stage of several arms and a control."""

    @property
    def arms(self) -> int:
        """How many, without the control."""

    @property
    def stages(self) -> int:
        """How many there are."""

    @property
    def mirrored(self) -> ArmsData:
        """The same with the effects' signs turned, so that smaller effects become larger ones."""

    @property
    def search(self) -> tuple[float, float]:
        """Between which effects limits are looked for."""

    def compare(self, stage: int, theta: float) -> Comparisons:
        """Against the nulls that each effect is theta, of a stage, from 0, by itself."""


@dataclass(frozen=True)
class ArmsOfMeans:
    """Means of several arms and a control; an arm's samples may end before the control's.

    Attributes:
        arms_by_stage: Of each arm. control: The control.
        variance: `overall_pooled` over all arms of a stage, `pairwise_pooled`, or `not_pooled` (Welch).
        normal: Whether p values are of the normal law.
    """

    arms_by_stage: Sequence[Sample]
    control: Sample
    variance: Variance = "overall_pooled"
    normal: bool = False

    @property
    def arms(self) -> int:
        """How many, without the control."""
        return len(self.arms_by_stage)

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.control.n)

    @property
    def mirrored(self) -> ArmsOfMeans:
        """With the sign of all values turned."""
        arms = [Sample(each.n, -each.mean, each.sd) for each in self.arms_by_stage]
        control = Sample(self.control.n, -self.control.mean, self.control.sd)
        return ArmsOfMeans(arms, control, self.variance, self.normal)

    @property
    def search(self) -> tuple[float, float]:
        """All differences of stages' means, and 40 standard deviations beyond."""
        means = np.concatenate([each.mean for each in (*self.arms_by_stage, self.control)])
        wide = 40 * max(float(each.sd.max()) for each in (*self.arms_by_stage, self.control))
        return float(means.min() - means.max() - wide), float(means.max() - means.min() + wide)

    def compare(self, stage: int, theta: float) -> Comparisons:
        """Against the nulls that each difference is theta."""
        n0, mean0, sd0 = (float(part[stage]) for part in (self.control.n, self.control.mean, self.control.sd))
        n, mean, sd = (_column(self.arms_by_stage, name, stage) for name in ("n", "mean", "sd"))
        everyone, spread = np.append(n, n0), np.append(sd, sd0)
        total = float(np.nansum(everyone - 1))
        error, df = self._error(
            n, sd, (n0, sd0), math.sqrt(float(np.nansum((everyone - 1) * spread**2)) / total), total
        )
        z = (mean - mean0 - theta) / error
        p = norm.sf(z) if self.normal else t.sf(z, df)
        shared = None if self.normal or self.variance != "overall_pooled" else total
        return Comparisons(np.where(np.isnan(z), np.nan, p), z, n / n0, shared)

    def _error(
        self, n: Floats, sd: Floats, control: tuple[float, float], pooled: float, total: float
    ) -> tuple[Floats, Floats]:
        """Standard errors and degrees of freedom."""
        n0, sd0 = control
        if self.variance == "overall_pooled":
            return pooled * np.sqrt(1 / n + 1 / n0), np.full(len(n), total)
        if self.variance == "pairwise_pooled":
            variance = ((n - 1) * sd**2 + (n0 - 1) * sd0**2) / (n + n0 - 2)
            return np.sqrt(variance * (1 / n + 1 / n0)), n + n0 - 2
        v, v0 = sd**2 / n, sd0**2 / n0
        return np.sqrt(v + v0), (v + v0) ** 2 / (v**2 / (n - 1) + v0**2 / (n0 - 1))


def _column(arms: Sequence[object], name: str, stage: int) -> Floats:
    """A part of each arm at a stage, nan where it has ended."""
    parts = [getattr(arm, name) for arm in arms]
    return np.array([part[stage] if stage < len(part) else np.nan for part in parts], dtype=np.float64)


@dataclass(frozen=True)
class ArmsOfRates:
    """Events of several arms and a control.

    Attributes:
        arms_by_stage: One-arm data of each arm. control: Of the control.
        exact: Whether p values of no difference are Fisher's.
    """

    arms_by_stage: Sequence[RatesData]
    control: RatesData
    exact: bool = False

    @property
    def arms(self) -> int:
        """How many, without the control."""
        return len(self.arms_by_stage)

    @property
    def stages(self) -> int:
        """How many there are."""
        return self.control.stages

    @property
    def mirrored(self) -> ArmsOfRates:
        """Of the patients without the event."""
        arms, control = (
            [RatesData(each.n - each.events, each.n) for each in group]
            for group in (self.arms_by_stage, [self.control])
        )
        return ArmsOfRates(arms, control[0], self.exact)

    @property
    def search(self) -> tuple[float, float]:
        """All differences."""
        return -1 + 1e-9, 1 - 1e-9

    def compare(self, stage: int, theta: float) -> Comparisons:
        """Against the nulls that each difference is theta."""
        e0, n0 = float(self.control.events[stage]), float(self.control.n[stage])
        events, n = (_column(self.arms_by_stage, name, stage) for name in ("events", "n"))
        p = np.full(len(n), np.nan)
        for i in np.flatnonzero(~np.isnan(n)):
            pair = RatesData(events[i], n[i], np.array([e0]), np.array([n0]), exact=self.exact)
            p[i] = pair.p_values(theta)[0]
        return Comparisons(p, np.asarray(norm.isf(p)), n / n0)


@dataclass(frozen=True)
class ArmsOfEvents:
    """Log-rank statistics of several arms, each against the control; the effects are log hazard ratios.

    Attributes:
        arms_by_stage: Of each comparison.
    """

    arms_by_stage: Sequence[LogRankData]

    @property
    def arms(self) -> int:
        """How many, without the control."""
        return len(self.arms_by_stage)

    @property
    def stages(self) -> int:
        """How many there are."""
        return max(each.stages for each in self.arms_by_stage)

    @property
    def mirrored(self) -> ArmsOfEvents:
        """With the effects minus the log hazard ratios."""
        return ArmsOfEvents([each.mirrored for each in self.arms_by_stage])

    @property
    def search(self) -> tuple[float, float]:
        """That of all comparisons."""
        ends = [each.search for each in self.arms_by_stage]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def compare(self, stage: int, theta: float) -> Comparisons:
        """Against the nulls that each log hazard ratio is theta."""
        p = np.array([arm.p_values(theta)[stage] if stage < arm.stages else np.nan for arm in self.arms_by_stage])
        return Comparisons(p, np.asarray(norm.isf(p)), _column(self.arms_by_stage, "allocation_ratio", stage))


def intersection_p_value(found: Comparisons, members: NDArray[np.bool_], test: Intersection) -> float:
    """The p value of the intersection of arms' nulls at a stage; nan if none of them takes part.

    Args:
        found: The comparisons of the stage.
        members: Which arms, (arms,).
        test: `dunnett` takes the correlation through the control; `hierarchical` is the first arm's p value.

    Raises:
        ValueError: If the test is unknown, or Dunnett's with statistics of different degrees of freedom.
    """
    there = members & ~np.isnan(found.p_values)
    if not there.any():
        return math.nan
    match test:
        case "dunnett":
            return _of_least(found, there, int(np.argmax(np.where(there, found.z, -np.inf))), test)
        case "bonferroni" | "sidak":
            return _of_least(found, there, int(np.argmin(np.where(there, found.p_values, np.inf))), test)
        case "simes":
            return truncated_p_value(found.p_values[there], int(there.sum()), 1.0)
        case "hierarchical":
            first = int(np.flatnonzero(members)[0])
            return float(found.p_values[first]) if there[first] else 1.0
    raise ValueError(f"test must be dunnett, bonferroni, simes, sidak or hierarchical, got {test!r}")


def _of_least(found: Comparisons, there: NDArray[np.bool_], arm: int, test: Intersection) -> float:
    """The p value of the intersection of arms' nulls if an arm has the largest statistic of theirs."""
    p, size = float(found.p_values[arm]), int(there.sum())
    if size == 1 or test == "hierarchical":
        return p
    if test == "dunnett":
        rho = many_to_one_correlation(found.ratios[there])
        return dunnett_p_value(float(found.z[arm]), rho, found.degrees_of_freedom)
    return float(-np.expm1(size * np.log1p(-p))) if test == "sidak" else min(1.0, size * p)


@dataclass(frozen=True)
class ClosedTest:
    """The closed combination test of several arms.

    Attributes:
        test: That combines the stages of each intersection: inverse normal or Fisher's.
        data: By stage. null: The effect under the nulls.
        intersection: The test of intersections at a stage.
    """

    test: CombinedTest
    data: ArmsData
    null: float = 0.0
    intersection: Intersection = "dunnett"

    @cached_property
    def members(self) -> NDArray[np.bool_]:
        """Arms of each intersection, (intersections, arms), that of all first."""
        return intersections(self.data.arms)

    @cached_property
    def comparisons(self) -> list[Comparisons]:
        """Of each stage, against the nulls."""
        return [self.data.compare(k, self.null) for k in range(self.data.stages)]

    @cached_property
    def stage_p_values(self) -> Floats:
        """Of each intersection at each stage, (intersections, stages)."""
        return np.array(
            [[intersection_p_value(each, row, self.intersection) for each in self.comparisons] for row in self.members]
        )

    def data_p_values(self, arm: int) -> Floats:
        """An arm's own p values, (stages,), nan once it has ended."""
        return np.array([each.p_values[arm] for each in self.comparisons])

    @cached_property
    def statistics(self) -> Floats:
        """Combined statistics of each intersection at each look, (intersections, stages), nan once it has ended."""
        found = np.full(self.stage_p_values.shape, np.nan)
        for row, p in zip(found, self.stage_p_values, strict=True):
            known = int((~np.isnan(p)).sum())
            if known:
                row[:known] = self.test.combine(p[:known])
        return found

    @property
    def arm_statistics(self) -> Floats:
        """The least statistic of the intersections that hold an arm, (arms, stages); nan once it has ended."""
        separate = np.array([self.data_p_values(arm) for arm in range(self.data.arms)])
        least = np.array(
            [np.where(self.members[:, [arm]], self.statistics, np.inf).min(axis=0) for arm in range(self.data.arms)]
        )
        return np.where(np.isnan(separate), np.nan, least)

    @property
    def rejected(self) -> NDArray[np.bool_]:
        """Whether each arm's null has been rejected by each look so far, (arms, stages)."""
        with np.errstate(invalid="ignore"):
            crossed = self.arm_statistics >= self.test.critical[: self.data.stages]
        return np.asarray(np.logical_or.accumulate(crossed, axis=1))

    @property
    def repeated_p_values(self) -> Floats:
        """Of each arm at each look so far, (arms, stages), one-sided and at most 1/2; nan once it has ended."""
        return self._each(self.test.repeated_p_value)

    @property
    def conditional_errors(self) -> Floats:
        """P(rejection at a later look) under the null of each arm given each look so far, (arms, stages)."""
        last = self.test.looks
        return self._each(lambda k, statistic: math.nan if k == last else self.test.conditional_error(k, statistic))

    def _each(self, function: Callable[[int, float], float]) -> Floats:
        return np.array(
            [
                [math.nan if math.isnan(each) else function(k + 1, float(each)) for k, each in enumerate(row)]
                for row in self.arm_statistics
            ]
        )

    def single_step_p_values(self, theta: float) -> Floats:
        """Of each arm at each stage, adjusted for all arms of the stage at once, (arms, stages)."""
        found = np.full((self.data.arms, self.data.stages), np.nan)
        for k in range(self.data.stages):
            stage = self.data.compare(k, theta)
            for arm in np.flatnonzero(~np.isnan(stage.p_values)):
                found[arm, k] = _of_least(stage, ~np.isnan(stage.p_values), int(arm), self.intersection)
        return found

    def repeated_interval(self, arm: int) -> tuple[Floats, Floats]:
        """Limits of an arm's effect, arms from 0, at each look so far, both (stages,), by single-step tests."""
        mirrored = ClosedTest(self.test, self.data.mirrored, -self.null, self.intersection)
        return self._lower_limits(arm), -mirrored._lower_limits(arm)

    def _lower_limits(self, arm: int) -> Floats:
        def limit(look: int) -> float:
            def excess(theta: float) -> float:
                p = self.single_step_p_values(theta)[arm, : look + 1]
                return float(self.test.combine(p)[look] - self.test.critical[look])

            return falling_root(excess, self.data.search, xtol=1e-9)

        return np.array([math.nan if math.isnan(p) else limit(k) for k, p in enumerate(self.data_p_values(arm))])
