"""What the data of a trial with stages say at its looks: decisions, p values, intervals, and the power that is left.

Repeated p values and intervals hold at any look, whatever is done later; the final ones are for a trial that has
stopped as its bounds say, and order outcomes by the look at which it stopped.

Source: Wassmer & Brannath 2016, Group Sequential and Confirmatory Adaptive Designs in Clinical Trials, chapters 4 and
8; Jennison & Turnbull 1989, J R Stat Soc B 51:305; Tsiatis, Rosner & Mehta 1984, Biometrics 40:797; Brannath, Posch &
Bauer 2002, J Am Stat Assoc 97:236.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from medtwin.trials.adaptive.combined_tests import CombinedTest, GroupSequentialTest, falling_root
from medtwin.trials.analysis.stage_data import StageData

Floats = NDArray[np.float64]
Action = Literal["continue", "reject and stop", "accept and stop", "reject", "accept"]


@dataclass(frozen=True)
class FinalInference:
    """What a trial that has stopped says of the effect.

    Attributes:
        look: From 1, at which it stopped. p_value: One-sided.
        estimate: Median-unbiased. lower, upper: Limits of level 1 - 2 alpha.
    """

    look: int
    p_value: float
    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class TrialAnalysis:
    """The analysis of one effect in a trial with stages.

    Attributes:
        test: The test.
        data: By stage, those so far; larger effects are the alternative, see `StageData.mirrored`.
        null: The effect under the null.

    Raises:
        ValueError: If there are more stages of data than looks of the test.
    """

    test: CombinedTest
    data: StageData
    null: float = 0.0

    def __post_init__(self) -> None:
        if self.data.stages > self.test.looks:
            raise ValueError(f"data must be of at most {self.test.looks} stages, got {self.data.stages}")

    @cached_property
    def statistics(self) -> Floats:
        """At each look so far, (stages,)."""
        return self.test.statistics(self.data, self.null)

    @property
    def actions(self) -> list[Action]:
        """What the bounds say at each look so far."""
        futile = self.test.futile(self.data, self.null)
        found: list[Action] = []
        for k, statistic in enumerate(self.statistics):
            rejects = statistic >= self.test.critical[k]
            if k + 1 == self.test.looks:
                found.append("reject" if rejects else "accept")
            elif rejects:
                found.append("reject and stop")
            else:
                found.append("accept and stop" if futile[k] else "continue")
        return found

    @property
    def final_look(self) -> int | None:
        """The look, from 1, at which the trial stopped; None if it goes on."""
        return next((k + 1 for k, action in enumerate(self.actions) if action != "continue"), None)

    @property
    def conditional_errors(self) -> Floats:
        """P(rejection at a later look) under the null, given each look so far, (looks,): nan elsewhere and at the last.

        It is 0 from a look on whose data stop the trial for binding futility.
        """
        found = np.full(self.test.looks, np.nan)
        futile = np.logical_or.accumulate(self.test.futile(self.data, self.null)) & self.test.binding
        for k, statistic in enumerate(self.statistics[: self.test.looks - 1]):
            found[k] = 0.0 if futile[k] else self.test.conditional_error(k + 1, float(statistic))
        return found

    def conditional_power(self, effect: float, planned: ArrayLike) -> Floats:
        """P(rejection by each later look) given the data, (later,).

        Args:
            effect: In standard deviations from the null, see `StageData.scales`.
            planned: Effective sizes of the later stages, (later,), see `StageData.sizes`.

        Raises:
            ValueError: If there is not one size for each later stage.
        """
        sizes = np.atleast_1d(np.asarray(planned, dtype=np.float64))
        look = self.data.stages
        if len(sizes) != self.test.looks - look or (sizes <= 0).any():
            raise ValueError(f"planned must be {self.test.looks - look} sizes above 0, got {planned!r}")
        return self.test.conditional_power(look, float(self.statistics[-1]), effect * np.sqrt(sizes))

    @property
    def repeated_p_values(self) -> Floats:
        """Of each look so far, one-sided and at most 1/2, (stages,)."""
        return np.array([self.test.repeated_p_value(k + 1, float(each)) for k, each in enumerate(self.statistics)])

    @property
    def repeated_interval(self) -> tuple[Floats, Floats]:
        """Limits at each look so far, both (stages,), jointly of level 1 - 2 alpha."""
        stages = range(self.data.stages)
        mirrored = self.data.mirrored
        lower = np.array([_repeated_limit(self.test, self.data, k, futility=True) for k in stages])
        upper = np.array([-_repeated_limit(self.test, mirrored, k, futility=False) for k in stages])
        return lower, upper

    @property
    def final_p_value(self) -> float:
        """By stagewise ordering; nan if the trial goes on."""
        look = self.final_look
        return math.nan if look is None else self.test.final_p_value(look, float(self.statistics[look - 1]))

    def final_inference(self) -> FinalInference | None:
        """Estimate and interval by stagewise ordering; None if the trial goes on.

        A trial that stopped at its first look has the fixed-sample interval. Elsewhere the standardised effect is found
        for which an outcome as extreme has probability 1/2, alpha and 1 - alpha, on the scale of its normal statistic,
        and turned into the effect by the observed standard deviation.

        Raises:
            ValueError: If it stopped later and the test is not of z statistics.
        """
        look = self.final_look
        if look is None:
            return None
        p_value = self.final_p_value
        quantile = float(norm.isf(self.test.alpha))
        if look == 1:
            estimate = float(self.data.effects[0])
            lower, upper = (self.data.score_limit(1, z) for z in (quantile, -quantile))
            return FinalInference(1, p_value, estimate, lower, upper)
        if not isinstance(self.test, GroupSequentialTest):
            raise ValueError("test must be of z statistics for a final interval after the first look")
        test, z = self.test, float(self.statistics[look - 1])

        def standardised(level: float) -> float:
            def excess(theta: float) -> float:
                return test.stagewise_probability(look, z, test.means(self.data, theta, look)) - level

            centre = z / math.sqrt(self.data.cumulative_sizes[look - 1])
            width = 9.0 / math.sqrt(self.data.cumulative_sizes[look - 1])
            return float(brentq(excess, centre - width, centre + width, xtol=1e-12))

        scale = float(self.data.scales[look - 1])
        estimate, lower, upper = (
            self.null + scale * standardised(level) for level in (0.5, self.test.alpha, 1 - self.test.alpha)
        )
        return FinalInference(look, p_value, estimate, lower, upper)


def _repeated_limit(test: CombinedTest, data: StageData, stage: int, *, futility: bool) -> float:
    """The largest effect below which every effect is rejected at a look; binding futility of earlier looks counts."""
    if not np.isfinite(test.critical[stage]):
        return -math.inf

    def limit(look: int, bound: float) -> float:
        return falling_root(lambda theta: float(test.statistics(data, theta)[look] - bound), data.search)

    limits = [limit(stage, float(test.critical[stage]))]
    bounds = test.binding_futility
    if futility and bounds is not None:
        limits += [limit(k, float(bounds[k])) for k in range(stage) if np.isfinite(bounds[k])]
    return min(limits)
