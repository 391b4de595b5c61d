"""Group-sequential designs of trials with an endpoint that is read once: outcomes at each look, bounds, drift."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from scipy.optimize import brentq
from scipy.stats import norm

from medtwin.trials.design.boundaries import Bounds
from medtwin.trials.design.group_sequential import GroupSequential
from medtwin.trials.design.means import MeansTest
from medtwin.trials.design.monitoring import MIN_STEP, Monitoring
from medtwin.trials.design.rates import RatesTest
from medtwin.trials.engine.exact_rates import score_test_mean
from medtwin.trials.outcome.response import BinaryResponse, ContinuousResponse, Response

_MOST_BOUND = 8.0
"""Of z: one that lies further out is no bound."""
MIN_OUTCOMES = 10
"""Outcomes that the first look must have: tests of fewer are not what the design takes them for."""


@dataclass(frozen=True)
class Superiority:
    """The null: the experimental arm is no better."""

    margin: float = field(default=0.0, init=False)

    @property
    def description(self) -> str:
        """In words."""
        return "superiority"


@dataclass(frozen=True)
class NonInferiority:
    """The null: the experimental arm is worse by the margin or more.

    Attributes:
        margin: Above 0, in the unit of the endpoint, or of rates.

    Raises:
        ValueError: If it is not above 0.
    """

    margin: float

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf:
            raise ValueError(
                f"margin must be above 0, got {self.margin!r}: without one the trial tests superiority "
                "(medtwin.trials.Superiority)"
            )

    @property
    def description(self) -> str:
        """In words."""
        return f"non-inferiority with a margin of {self.margin:g}"


Hypothesis = Superiority | NonInferiority


@dataclass(frozen=True)
class ResponseDesign:
    """A group-sequential design whose information is the number of patients with an outcome.

    Attributes:
        plan: Looks, errors, power. response: The endpoint. hypothesis: The null.
        explained: Share of the variance within arms that the analysis takes away; of a continuous endpoint.
        allocation_ratio: Experimental : control.
        fixed: Outcomes at the last look; None: as many as the power needs.
        num_covariates: For which the analysis adjusts.

    Raises:
        ValueError: If the alternative does not lie on the better side of the null, or the null is impossible.
    """

    plan: GroupSequential
    response: Response
    hypothesis: Hypothesis = field(default_factory=Superiority)
    explained: float = 0.0
    allocation_ratio: float = 1.0
    fixed: int | None = None
    num_covariates: int = 0

    def __post_init__(self) -> None:
        if not self.sign * (self.response.effect - self.null) > 0:
            better = "above" if self.sign > 0 else "below"
            raise ValueError(
                f"effect must lie {better} that of the null, {self.null:g}, where "
                f"{'higher' if self.sign > 0 else 'lower'} is better, got {self.response.effect!r}"
            )
        self.response.check_effect(self.null)
        if self.fixed is not None and self.fixed < 1:
            raise ValueError(f"outcomes must be 1 or more, got {self.fixed!r}")

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if self.response.higher_is_better else -1

    @property
    def null(self) -> float:
        """Difference under the null, experimental less control."""
        return -self.sign * self.hypothesis.margin if self.hypothesis.margin else 0.0

    def test(self, effect: float) -> MeansTest | RatesTest:
        """The test of the endpoint under a true difference."""
        if isinstance(self.response, BinaryResponse):
            rates = self.response.control + effect, self.response.control
            return RatesTest(*rates, self.null, allocation_ratio=self.allocation_ratio)
        if not isinstance(self.response, ContinuousResponse):
            raise TypeError(f"response must be continuous or binary, got {type(self.response).__name__}")
        sd = self.response.sd * math.sqrt(1 - self.explained)
        ratio, covariates = self.allocation_ratio, self.num_covariates
        return MeansTest(effect, sd, self.null, allocation_ratio=ratio, num_covariates=covariates)

    def drift_at(self, effect: float, outcomes: float) -> float:
        """E Z with so many outcomes under a true difference; positive favours the experimental arm."""
        return self._mean(effect, outcomes, self.plan.alpha)

    def mean_at_bound(self, effect: float, outcomes: float, bound: float) -> float:
        """The mean of a normal statistic that crosses a bound as often as the test with so many outcomes.

        Of rates without covariates all tables are counted; the design itself rests on the normal approximation.
        """
        if abs(bound) >= _MOST_BOUND:
            return self.drift_at(effect, outcomes)
        counted = self._mean_of_tables(effect, outcomes, bound)
        return self._mean(effect, outcomes, float(norm.sf(bound))) if counted is None else counted

    def futility_shift(self, effect: float, outcomes: float, efficacy: float, futility: float) -> float:
        """What is added to a futility bound where the statistic has the mean that suits the efficacy bound.

        A statistic of that mean lies below the bound so moved as often as the test lies below the bound itself.
        """
        if abs(futility) >= _MOST_BOUND:
            return 0.0
        return self.mean_at_bound(effect, outcomes, efficacy) - self.mean_at_bound(effect, outcomes, futility)

    def _mean_of_tables(self, effect: float, outcomes: float, bound: float) -> float | None:
        """`mean_at_bound` of rates without covariates; None of others, and where next to all or no tables cross."""
        if not isinstance(self.response, BinaryResponse) or self.num_covariates:
            return None
        rates = self.response.control + effect, self.response.control
        good = rates if self.sign > 0 else (1 - rates[0], 1 - rates[1])
        return score_test_mean(good, round(outcomes), self.allocation_ratio, self.sign * self.null, bound)

    def _mean(self, effect: float, outcomes: float, alpha: float) -> float:
        return 0.0 if effect == self.null else self.sign * self.test(effect).drift(outcomes, alpha)

    @cached_property
    def max_outcomes(self) -> float:
        """Outcomes at the last look, fractional, with which the alternative has the power.

        Raises:
            ValueError: If no number up to a billion is enough.
        """
        if self.fixed is not None:
            return float(self.fixed)
        wanted, high = self.plan.bounds.drift, 8.0

        def excess(outcomes: float) -> float:
            return self.drift_at(self.response.effect, outcomes) - wanted

        while excess(high) < 0:
            high *= 2
            if high > 1e9:
                raise ValueError(f"effect must be further from the null, got {self.response.effect!r}")
        return high if high == 8.0 else float(brentq(excess, high / 2, high, xtol=1e-9))

    @cached_property
    def outcomes(self) -> tuple[int, ...]:
        """Whole outcomes at each look, rounded up.

        Raises:
            ValueError: If two looks fall on the same number, or the first has fewer than 10.
        """
        counts = tuple(math.ceil(self.max_outcomes * t - 1e-9) for t in self.plan.looks)
        if len(set(counts)) < len(counts):
            raise ValueError(f"looks must be an outcome apart, got {list(counts)} outcomes")
        if counts[0] < MIN_OUTCOMES:
            raise ValueError(f"looks must have {MIN_OUTCOMES} outcomes or more, got {list(counts)}")
        return counts

    @cached_property
    def bounds(self) -> Bounds:
        """The bounds at whole outcomes."""
        return self.plan.bounds_at(tuple(n / self.outcomes[-1] for n in self.outcomes))

    def drift(self, effect: float) -> float:
        """E Z at the planned last look under a true difference."""
        return self.drift_at(effect, self.outcomes[-1])

    def last_bound(self, look: int, outcomes: int) -> float:
        """The efficacy bound of a last look, counted from 0, at the outcomes that it has; inf where none are new."""
        key = look, outcomes
        if key not in self._last_bounds:
            past = [n / self.outcomes[-1] for n in self.outcomes[:look]]
            now = outcomes / self.outcomes[-1]
            if now < (past[-1] if past else 0.0) + MIN_STEP:
                return math.inf
            state = Monitoring(self.plan, self.bounds.drift)
            for fraction in past:
                state = state.after(fraction)
            self._last_bounds[key] = state.after(now, is_final=True).efficacy[-1]
        return self._last_bounds[key]

    @cached_property
    def _last_bounds(self) -> dict[tuple[int, int], float]:
        return {}
