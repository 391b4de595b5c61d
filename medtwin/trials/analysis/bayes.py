"""Bayesian analysis by conjugate priors and their mixtures: rates, means, event rates; robust MAP priors.

A prior is a mixture of conjugate components, most often of one; a robust meta-analytic-predictive prior has a vague
component among them. Source: Schmidli et al. 2014, Biometrics 70:1023; Gelman et al. 2013, Bayesian Data Analysis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import betaln, gammaln
from scipy.stats import beta, betabinom, gamma, nbinom, norm

from medtwin.trials.analysis.follow_up import Floats, as_level


class Component(Protocol):
    """One conjugate law of a parameter."""

    @property
    def mean(self) -> float:
        """Of the parameter."""
        ...

    @property
    def variance(self) -> float:
        """Of the parameter."""
        ...

    @property
    def support(self) -> tuple[float, float]:
        """Where the parameter can lie."""
        ...

    def density(self, at: Any) -> Any:
        """Of the parameter."""
        ...

    def below(self, at: Any) -> Any:
        """Probability to lie below."""
        ...

    def above(self, at: Any) -> Any:
        """Probability to lie above."""
        ...


@dataclass(frozen=True)
class Beta:
    """Of a rate: a and b count as events and as others seen before.

    Raises:
        ValueError: If one is not positive.
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.b > 0):
            raise ValueError(f"a and b must be above 0, got {self.a!r} and {self.b!r}")

    @property
    def mean(self) -> float:
        """Of the rate."""
        return self.a / (self.a + self.b)

    @property
    def variance(self) -> float:
        """Of the rate."""
        return self.mean * (1 - self.mean) / (self.a + self.b + 1)

    @property
    def support(self) -> tuple[float, float]:
        """0 to 1."""
        return 0.0, 1.0

    def density(self, at: Any) -> Any:
        """Of the rate."""
        return beta.pdf(at, self.a, self.b)

    def below(self, at: Any) -> Any:
        """Probability that the rate is below."""
        return beta.cdf(at, self.a, self.b)

    def above(self, at: Any) -> Any:
        """Probability that the rate is above."""
        return beta.sf(at, self.a, self.b)

    def after(self, events: float, subjects: float) -> tuple[Beta, float]:
        """The posterior, and the logarithm of the probability of what was seen."""
        _check_counts(events, subjects)
        others = subjects - events
        choose = gammaln(subjects + 1) - gammaln(events + 1) - gammaln(others + 1)
        weight = choose + betaln(self.a + events, self.b + others) - betaln(self.a, self.b)
        return Beta(self.a + events, self.b + others), float(weight)

    def predict(self, subjects: int) -> Floats:
        """Probabilities of 0, ..., subjects events to come, (subjects + 1,)."""
        return np.asarray(betabinom.pmf(np.arange(subjects + 1), subjects, self.a, self.b))


@dataclass(frozen=True)
class Normal:
    """Of a mean, of a treatment effect, or of a log hazard ratio.

    Raises:
        ValueError: If the standard deviation is not positive.
    """

    mean: float
    sd: float

    def __post_init__(self) -> None:
        if not self.sd > 0:
            raise ValueError(f"sd must be above 0, got {self.sd!r}")

    @property
    def variance(self) -> float:
        """Of the parameter."""
        return self.sd**2

    @property
    def support(self) -> tuple[float, float]:
        """Everywhere."""
        return -math.inf, math.inf

    def density(self, at: Any) -> Any:
        """Of the parameter."""
        return norm.pdf(at, self.mean, self.sd)

    def below(self, at: Any) -> Any:
        """Probability that it is below."""
        return norm.cdf(at, self.mean, self.sd)

    def above(self, at: Any) -> Any:
        """Probability that it is above."""
        return norm.sf(at, self.mean, self.sd)

    def after(self, estimate: float, standard_error: float) -> tuple[Normal, float]:
        """The posterior, and the logarithm of the density of what was seen."""
        if not standard_error > 0:
            raise ValueError(f"standard_error must be above 0, got {standard_error!r}")
        precision = 1 / self.sd**2 + 1 / standard_error**2
        mean = (self.mean / self.sd**2 + estimate / standard_error**2) / precision
        weight = norm.logpdf(estimate, self.mean, math.hypot(self.sd, standard_error))
        return Normal(mean, precision**-0.5), float(weight)

    def predict(self, standard_error: float) -> Normal:
        """Of an estimate to come with such an error."""
        return Normal(self.mean, math.hypot(self.sd, standard_error))


@dataclass(frozen=True)
class Gamma:
    """Of a rate of events per time: shape counts as events and rate as time seen before.

    Raises:
        ValueError: If one is not positive.
    """

    shape: float
    rate: float

    def __post_init__(self) -> None:
        if not (self.shape > 0 and self.rate > 0):
            raise ValueError(f"shape and rate must be above 0, got {self.shape!r} and {self.rate!r}")

    @property
    def mean(self) -> float:
        """Of the event rate."""
        return self.shape / self.rate

    @property
    def variance(self) -> float:
        """Of the event rate."""
        return self.shape / self.rate**2

    @property
    def support(self) -> tuple[float, float]:
        """Above 0."""
        return 0.0, math.inf

    def density(self, at: Any) -> Any:
        """Of the event rate."""
        return gamma.pdf(at, self.shape, scale=1 / self.rate)

    def below(self, at: Any) -> Any:
        """Probability that the event rate is below."""
        return gamma.cdf(at, self.shape, scale=1 / self.rate)

    def above(self, at: Any) -> Any:
        """Probability that the event rate is above."""
        return gamma.sf(at, self.shape, scale=1 / self.rate)

    def after(self, events: float, time: float) -> tuple[Gamma, float]:
        """The posterior, and the logarithm of the probability of what was seen."""
        if not (events >= 0 and time > 0):
            raise ValueError(f"events must not be negative and time be above 0, got {events!r} and {time!r}")
        share = self.rate / (self.rate + time)
        weight = gammaln(self.shape + events) - gammaln(self.shape) - gammaln(events + 1)
        weight += self.shape * math.log(share) + events * math.log1p(-share)
        return Gamma(self.shape + events, self.rate + time), float(weight)

    def predict(self, time: float, most: int) -> Floats:
        """Probabilities of 0, ..., most events in a time to come, (most + 1,)."""
        return np.asarray(nbinom.pmf(np.arange(most + 1), self.shape, self.rate / (self.rate + time)))


def _check_counts(events: float, subjects: float) -> None:
    if not 0 <= events <= subjects:
        raise ValueError(f"events must be between 0 and subjects, got {events!r} of {subjects!r}")


C = TypeVar("C", Beta, Normal, Gamma)


@dataclass(frozen=True)
class Mixture(Generic[C]):
    """A mixture of conjugate laws of one kind.

    Attributes:
        weights: Of the components, with a sum of 1. components: As many.

    Raises:
        ValueError: If the weights are no shares of 1, or not one for each component.
    """

    weights: tuple[float, ...]
    components: tuple[C, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.components) or not self.weights:
            raise ValueError(f"weights must be one for each of {len(self.components)} components, got {self.weights!r}")
        if min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError(f"weights must be shares of 1, got {self.weights!r}")

    @property
    def mean(self) -> float:
        """Of the parameter."""
        return sum(w * each.mean for w, each in zip(self.weights, self.components, strict=True))

    @property
    def variance(self) -> float:
        """Of the parameter."""
        pairs = zip(self.weights, self.components, strict=True)
        return sum(w * (each.variance + each.mean**2) for w, each in pairs) - self.mean**2

    @property
    def support(self) -> tuple[float, float]:
        """Where the parameter can lie."""
        return self.components[0].support

    def density(self, at: Any) -> Any:
        """Of the parameter."""
        return sum(w * each.density(at) for w, each in zip(self.weights, self.components, strict=True))

    def below(self, at: Any) -> Any:
        """Probability to lie below."""
        return sum(w * each.below(at) for w, each in zip(self.weights, self.components, strict=True))

    def above(self, at: Any) -> Any:
        """Probability to lie above."""
        return sum(w * each.above(at) for w, each in zip(self.weights, self.components, strict=True))

    def after(self, seen: float, size: float) -> Mixture[C]:
        """The posterior mixture.

        Args:
            seen: Events, or the estimate of a mean.
            size: Subjects of a rate, standard error of a mean, or time of events.

        Raises:
            ValueError: If what was seen is impossible.

        >>> Mixture((0.8, 0.2), (Beta(6, 18), Beta(1, 1))).after(9, 20).weights[1].__round__(4)
        0.2101
        """
        found = [each.after(seen, size) for each in self.components]
        logs = np.log(np.maximum(self.weights, 1e-300)) + [weight for _, weight in found]
        weights = np.exp(logs - logs.max())
        shares = tuple((weights / weights.sum()).tolist())
        return Mixture(shares, tuple(law for law, _ in found))

    def quantile(self, probability: float) -> float:
        """Below which the parameter lies with such a probability.

        Raises:
            ValueError: If it does not lie between 0 and 1.
        """
        as_level("probability", probability)
        return quantile(self, probability)


def quantile(law: Component, probability: float) -> float:
    """Below which a parameter lies with such a probability."""
    low, high = law.support
    sd = math.sqrt(law.variance)
    low = low if math.isfinite(low) else law.mean - 40 * sd
    high = high if math.isfinite(high) else law.mean + 40 * sd
    while law.below(high) < probability:
        high += 40 * sd
    return float(brentq(lambda at: law.below(at) - probability, low, high, xtol=1e-14, rtol=1e-13))


def credible_interval(law: Component, level: float = 0.95) -> tuple[float, float]:
    """The limits that leave half of the rest on either side.

    Args:
        law: Of the parameter.
        level: Of the limits.

    Raises:
        ValueError: If the level does not lie between 0 and 1.
    """
    tail = (1 - as_level("level", level)) / 2
    return quantile(law, tail), quantile(law, 1 - tail)


def expectation(law: Component, function: Callable[[float], float]) -> float:
    """Of a smooth, bounded function of the parameter, by adaptive quadrature in pieces about its mean."""
    (low, high), sd = law.support, math.sqrt(law.variance)
    steps = law.mean + sd * np.array([-38.0, -12, -6, -3, -1, 0, 1, 3, 6, 12, 38])
    inner = [float(at) for at in steps if low < at < high]
    ends = [*([low] if math.isfinite(low) else []), *inner, *([high] if math.isfinite(high) else [])]

    def integrand(at: float) -> float:
        return float(function(at) * law.density(at))

    return float(sum(quad(integrand, a, b, epsabs=1e-13, epsrel=1e-11, limit=200)[0] for a, b in pairwise(ends)))


def probability_better(experimental: Component, control: Component, margin: float = 0.0) -> float:
    """The posterior probability that the experimental parameter exceeds the control one by more than a margin.

    Args:
        experimental: Its law.
        control: Its law, independent of the other.
        margin: Of the difference; negative for non-inferiority.

    >>> round(probability_better(Beta(32, 20), Beta(21, 31)), 6)
    0.985571
    """
    return expectation(experimental, lambda at: float(control.below(at - margin)))


def probability_ratio_above(experimental: Component, control: Component, ratio: float) -> float:
    """The posterior probability that the experimental parameter is more than a multiple of the control one.

    Args:
        experimental: Its law.
        control: Its law, independent of the other.
        ratio: Above 0.

    Raises:
        ValueError: If the ratio is not positive.
    """
    if not ratio > 0:
        raise ValueError(f"ratio must be above 0, got {ratio!r}")
    return expectation(experimental, lambda at: float(control.below(at / ratio)))


def assurance(prior: Component, power: Callable[[float], float]) -> float:
    """The probability of success of a trial, its power averaged over a prior of the effect.

    Args:
        prior: Of the effect.
        power: Of the trial for an effect.

    Source: O'Hagan, Stevens & Campbell 2005, Pharm Stat 4:187.
    """
    return expectation(prior, power)


def normal_assurance(prior: Normal, standard_error: float, alpha: float = 0.025, success_above: float = 0.0) -> float:
    """The assurance of a one-sided z test of a normal estimate, in closed form.

    Args:
        prior: Of the effect.
        standard_error: Of the estimate of the trial.
        alpha: One-sided.
        success_above: The effect under the null.

    Raises:
        ValueError: If the standard error is not positive, or alpha no level.
    """
    bound = success_above + float(norm.isf(as_level("alpha", alpha))) * standard_error
    return float(prior.predict(standard_error).above(bound))


def rate_predictive_probability(
    posterior: Beta, to_come: int, success: Callable[[int], bool] | None = None, least_events: int | None = None
) -> float:
    """The probability that a one-arm trial succeeds in the end, given what was seen so far.

    Args:
        posterior: Of the rate.
        to_come: Subjects to come.
        success: Whether so many more events are a success; or
        least_events: from how many on they are.

    Raises:
        ValueError: If not one of success and least_events is given.

    Source: Lee & Liu 2008, Clin Trials 5:93.
    """
    if (success is None) == (least_events is None):
        raise ValueError("success or least_events must be given, not both")
    law = posterior.predict(to_come)
    wins = np.array([success(k) if success else k >= (least_events or 0) for k in range(to_come + 1)])
    return float(law[wins].sum())


def two_arm_predictive_probability(
    experimental: Beta, control: Beta, to_come: tuple[int, int], success: Callable[[int, int], bool]
) -> float:
    """The probability that a two-arm trial of rates succeeds in the end.

    Args:
        experimental: Posterior of its rate.
        control: Posterior of its rate.
        to_come: Subjects to come, experimental and control.
        success: Whether so many more events, experimental and control, are a success.
    """
    laws = [law.predict(n) for law, n in zip((experimental, control), to_come, strict=True)]
    wins = np.array([[success(i, j) for j in range(to_come[1] + 1)] for i in range(to_come[0] + 1)])
    return float(laws[0] @ wins @ laws[1])


def effective_sample_size(law: Component, kind: Literal["beta", "normal", "gamma"], unit_sd: float = 1.0) -> float:
    """Subjects, or time, that a prior is worth by its mean and variance.

    Args:
        law: Of the parameter.
        kind: Of conjugate law whose moments are matched.
        unit_sd: Of one subject's value, for a normal law.

    Raises:
        ValueError: If the kind is not known.

    Source: Morita, Thall & Mueller 2008, Biometrics 64:595, for the moments.
    """
    match kind:
        case "beta":
            return law.mean * (1 - law.mean) / law.variance - 1
        case "normal":
            return unit_sd**2 / law.variance
        case "gamma":
            return law.mean / law.variance
    raise ValueError(f"kind must be beta, normal or gamma, got {kind!r}")


def mixture_of(weights: ArrayLike, a: ArrayLike, b: ArrayLike) -> Mixture[Beta]:
    """A mixture of beta laws from vectors, (components,) each, weights made to sum to 1.

    Args:
        weights: Not negative.
        a: Of the components.
        b: Of the components.

    Raises:
        ValueError: If lengths differ, or a value makes no sense.
    """
    w = np.asarray(weights, dtype=np.float64)
    pairs = zip(np.asarray(a, dtype=np.float64).tolist(), np.asarray(b, dtype=np.float64).tolist(), strict=True)
    return Mixture(tuple((w / w.sum()).tolist()), tuple(Beta(one, other) for one, other in pairs))
