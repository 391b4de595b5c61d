"""Large-sample mean and variance of weighted log-rank tests at a calendar time, and what they make of a design.

With n_i(u) patients of arm i expected at risk after u months and hazards h_i(u), the score of the test of the hazard
ratio theta_0 has mean and variance

    U = int w n_1 n_0 / (theta_0 n_1 + n_0) (h_1 - theta_0 h_0) du
    V = int w^2 theta_0 n_1 n_0 / (theta_0 n_1 + n_0)^2 (n_1 h_1 + n_0 h_0) du

(1 experimental, 0 control), summed over strata; U < 0 where the experimental arm does better.

Source: Schoenfeld 1981, Biometrika 68:316; Tsiatis 1982, JASA 77:855; Yung & Liu 2020, Biometrics 76:939.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from medtwin.trials.design.changing_effects import Looks
from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import FollowUp, Stratum, TwoArmSurvival
from medtwin.trials.survival_weights import LOGRANK, FlemingHarrington, SurvivalAt, Weight

Floats = NDArray[np.float64]
Approximation = Literal["asymptotic", "generalized_schoenfeld"]


@dataclass(frozen=True)
class Score:
    """Mean and variance of a weighted log-rank score; z = mean / sqrt(variance) is below 0 for benefit."""

    mean: float
    variance: float

    @property
    def z(self) -> float:
        """E Z of the test, above 0 where the experimental arm does better."""
        return float(-self.mean / np.sqrt(self.variance))


def weighted_score(
    trial: TwoArmSurvival, time: float, weight: Weight = LOGRANK, null_hazard_ratio: float = 1.0
) -> Score:
    """Mean and variance of the score at a calendar month.

    Args:
        trial: Who is followed.
        time: Calendar months.
        weight: Of the events.
        null_hazard_ratio: The hazard ratio that is tested.

    Raises:
        ValueError: If the null hazard ratio is not above 0.
    """
    if not null_hazard_ratio > 0:
        raise ValueError(f"null_hazard_ratio must be above 0, got {null_hazard_ratio!r}")
    mean = variance = 0.0
    for seen, w in _weighted(trial, time, weight):
        (n1, n0), (h1, h0) = seen.at_risk, seen.hazard
        reach = _over(n1 * n0, null_hazard_ratio * n1 + n0)
        mean += float(seen.weight @ (w * reach * (h1 - null_hazard_ratio * h0)))
        share = _over(null_hazard_ratio * reach, null_hazard_ratio * n1 + n0)
        variance += float(seen.weight @ (w**2 * share * (n1 * h1 + n0 * h0)))
    return Score(mean, variance)


def _over(numerator: Floats, denominator: Floats) -> Floats:
    """A ratio that is 0 where nobody is at risk."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _weighted(trial: TwoArmSurvival, time: float, weight: Weight) -> list[tuple[FollowUp, Floats]]:
    """The follow-up of each stratum with the weights at its nodes."""
    return [
        (seen, weight.at(seen, _pooled(trial, stratum)))
        for stratum, seen in enumerate(trial.all_follow_up(time, cuts=weight.cuts))
    ]


def _pooled(trial: TwoArmSurvival, stratum: int) -> SurvivalAt:
    arms, (p1, p0) = trial.strata[stratum].arms, trial.shares
    return lambda u: p1 * arms[0].survival(u) + p0 * arms[1].survival(u)


def log_hazard_ratio(trial: TwoArmSurvival, time: float, weight: Weight = LOGRANK) -> float:
    """The log hazard ratio that a weighted Cox regression estimates at a calendar month: the root of its mean score.

    Source: Schemper, Wakounig & Heinze 2009, Stat Med 28:2473.
    """
    pieces = _weighted(trial, time, weight)

    def score(beta: float) -> float:
        total = 0.0
        for seen, w in pieces:
            (n1, n0), (h1, h0) = seen.at_risk, seen.hazard
            expected = _over(np.exp(beta) * n1, np.exp(beta) * n1 + n0)
            total += float(seen.weight @ (w * (n1 * h1 - expected * (n1 * h1 + n0 * h0))))
        return total

    return float(brentq(score, -10.0, 10.0, xtol=1e-12))


def log_hazard_ratio_variance(trial: TwoArmSurvival, time: float, weight: Weight = LOGRANK) -> float:
    """The robust large-sample variance of the weighted Cox estimate, see `log_hazard_ratio`."""
    beta = log_hazard_ratio(trial, time, weight)
    slope = spread = 0.0
    for seen, w in _weighted(trial, time, weight):
        (n1, n0), (h1, h0) = seen.at_risk, seen.hazard
        share = _over(np.exp(beta) * n1 * n0, (np.exp(beta) * n1 + n0) ** 2)
        slope += float(seen.weight @ (w * share * (n1 * h1 + n0 * h0)))
        spread += float(seen.weight @ (w**2 * share * (n1 * h1 + n0 * h0)))
    return spread / slope**2


def weighted_logrank_looks(
    trial: TwoArmSurvival,
    times: ArrayLike,
    weight: Weight = LOGRANK,
    approximation: Approximation = "asymptotic",
) -> Looks:
    """Effect and information of a weighted log-rank test at calendar months.

    The effect is -U / V with the variance under the alternative; the null information is the variance when the mean of
    the two hazards holds in both arms.

    Args:
        trial: Who is followed.
        times: (looks,) calendar months, increasing.
        weight: Of the events.
        approximation: Of the mean: `asymptotic` as it is; `generalized_schoenfeld` with log(h_1 / h_0) for the
            hazard's difference, as under local alternatives.

    Raises:
        ValueError: If the approximation is not known.
    """
    if approximation not in ("asymptotic", "generalized_schoenfeld"):
        raise ValueError(f"approximation must be asymptotic or generalized_schoenfeld, got {approximation!r}")
    months = np.atleast_1d(np.asarray(times, dtype=np.float64))
    scores = [weighted_score(trial, float(t), weight) for t in months]
    means = [score.mean for score in scores]
    if approximation == "generalized_schoenfeld":
        means = [_local_mean(trial, float(t), weight) for t in months]
    information = np.array([score.variance for score in scores])
    null = with_mean_hazard(trial)
    null_information = np.array([weighted_score(null, float(t), weight).variance for t in months])
    return Looks(-np.array(means) / information, information, null_information)


def with_mean_hazard(trial: TwoArmSurvival) -> TwoArmSurvival:
    """The trial under a null of as many events: the mean of the two hazards in both arms.

    Raises:
        ValueError: If a hazard is not piecewise constant.
    """
    strata = []
    for group in trial.strata:
        experimental, control = group.experimental.hazard, group.control.hazard
        if not isinstance(experimental, PiecewiseRate) or not isinstance(control, PiecewiseRate):
            raise ValueError(f"hazard must be piecewise constant, got {type(control).__name__}")
        mean = experimental.plus(control).scaled(0.5)
        arms = (Arm(mean, group.experimental.dropout_rate), Arm(mean, group.control.dropout_rate))
        strata.append(Stratum(*arms, group.enroll_rate))
    return TwoArmSurvival(tuple(strata), trial.enroll_duration, trial.allocation_ratio, trial.max_follow_up)


def _local_mean(trial: TwoArmSurvival, time: float, weight: Weight) -> float:
    total = 0.0
    for seen, w in _weighted(trial, time, weight):
        (n1, n0), (h1, h0) = seen.at_risk, seen.hazard
        total += float(seen.weight @ (w * _over(n1 * n0, (n1 + n0) ** 2) * np.log(h1 / h0) * (n1 * h1 + n0 * h0)))
    return total


def score_covariance(trial: TwoArmSurvival, time: float, weights: Sequence[FlemingHarrington]) -> Floats:
    """Covariance of the scores of several weights at one calendar month, (weights, weights).

    Source: Karrison 2016, Stata J 16:678.
    """
    pieces = [_weighted(trial, time, weight) for weight in weights]
    found = np.zeros((len(weights), len(weights)))
    if len({weight.cuts for weight in weights}) > 1:
        cuts = sorted({cut for weight in weights for cut in weight.cuts})
        seen_all = trial.all_follow_up(time, cuts=cuts)
        pieces = [[(seen, w.at(seen, _pooled(trial, i))) for i, seen in enumerate(seen_all)] for w in weights]
    for i, left in enumerate(pieces):
        for j, right in enumerate(pieces):
            for (seen, w), (_, v) in zip(left, right, strict=True):
                (n1, n0), (h1, h0) = seen.at_risk, seen.hazard
                found[i, j] += float(seen.weight @ (w * v * _over(n1 * n0, (n1 + n0) ** 2) * (n1 * h1 + n0 * h0)))
    return found
