"""How many events are still to come: projected from a fitted model of times, with the uncertainty of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medtwin.trials.analysis.follow_up import Floats, as_covariates, as_level
from medtwin.trials.analysis.kaplan_meier import SurvivalCurve
from medtwin.trials.analysis.parametric import (
    ON_TIME,
    Family,
    ParametricModel,
    error_at,
    log_survival,
    parametric_model,
)

_STRONG = 8.0
_FAMILIES: tuple[Family, ...] = ("exponential", "weibull", "lognormal", "loglogistic")


@dataclass(frozen=True)
class EventProjection:
    """Events that are expected to be seen.

    Attributes:
        counts: (draws,) numbers drawn.
    """

    counts: Floats

    @property
    def expected(self) -> float:
        """Mean number."""
        return float(self.counts.mean())

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Between which the number lies with this probability.

        Raises:
            ValueError: If the level does not lie between 0 and 1.
        """
        outside = (1 - as_level("level", level)) / 2
        low, high = np.quantile(self.counts, [outside, 1 - outside])
        return float(low), float(high)


@dataclass(frozen=True)
class FamiliesProjection:
    """Events that are expected to be seen where the family of the times is uncertain.

    The times are of one family, not of a mixture: a mixture's quantiles lie too far inside those of the family whose
    numbers are the lowest, or the highest. So the limits are those that hold under every family that the data leave.

    Attributes:
        projections: By each family that the data leave, with its weight among them.
    """

    projections: Sequence[tuple[EventProjection, float]]

    @property
    def expected(self) -> float:
        """Mean number, over the families by weight."""
        return sum(weight * each.expected for each, weight in self.projections)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Between which the number lies with at least this probability, whichever of the families is the true one.

        Raises:
            ValueError: If the level does not lie between 0 and 1.
        """
        lows, highs = zip(*(each.interval(level) for each, _ in self.projections), strict=True)
        return min(lows), max(highs)


def most_likely_model(time: ArrayLike, event: ArrayLike, covariates: ArrayLike | None = None) -> ParametricModel:
    """The model of least AIC (Akaike 1974) among the families of times on the scale of the logarithm.

    Beyond what has been seen the families part: a projection in time rests on this choice more than on the
    parameters, whose uncertainty is all that the interval of one family knows (`project_over_families` knows of both).

    Args:
        time: (subjects,) time to event or censoring, above 0.
        event: (subjects,) whether it is an event.
        covariates: (subjects, covariates).

    Raises:
        ValueError: For data that make no sense, see `parametric_model`.
    """
    return max(weighed_models(time, event, covariates), key=lambda each: each[1])[0]


def weighed_models(
    time: ArrayLike, event: ArrayLike, covariates: ArrayLike | None = None
) -> list[tuple[ParametricModel, float]]:
    """The models of the families of times on the scale of the logarithm, each with its Akaike weight; they sum to 1.

    Args:
        time: (subjects,) time to event or censoring, above 0.
        event: (subjects,) whether it is an event.
        covariates: (subjects, covariates).

    Raises:
        ValueError: For data that make no sense, see `parametric_model`.

    Source: Buckland, Burnham & Augustin 1997, Biometrics 53:603.
    """
    models = [parametric_model(time, event, covariates, family=family) for family in _FAMILIES]
    aic = np.array([2 * len(model.covariance) - 2 * model.log_likelihood for model in models])
    weights = np.exp((aic.min() - aic) / 2)
    return list(zip(models, (weights / weights.sum()).tolist(), strict=True))


def project_events(
    model: ParametricModel,
    seen_until: ArrayLike,
    censoring: SurvivalCurve,
    rng: np.random.Generator,
    *,
    until: ArrayLike | None = None,
    covariates: ArrayLike | None = None,
    draws: int = 1000,
) -> EventProjection:
    """The number of events among subjects who have none yet.

    Every draw takes parameters from their large-sample law, then a time of event and a time of censoring for every
    subject, each given that it lies beyond what has been seen.

    Args:
        model: Fitted to times on the scale of the logarithm.
        seen_until: (subjects,) times up to which each is known to be without event and under observation; 0 at the
            start.
        censoring: Kaplan-Meier curve of being under observation, that is of censoring as the event.
        rng: What draws.
        until: (subjects,) or one time at which each one's observation ends at the latest.
        covariates: (subjects, covariates) as in the model.
        draws: How many numbers are drawn.

    Raises:
        ValueError: For a family of times on their own scale, or arguments that do not fit each other.

    Source: Bagiella & Heitjan 2001, Stat Med 20:2055 (prediction of the number of events); the law of the parameters
    is the normal one of maximum likelihood.
    """
    if model.family in ON_TIME:
        raise ValueError(f"model.family must be one of times on the scale of the logarithm, got {model.family!r}")
    if not draws > 0:
        raise ValueError(f"draws must be above 0, got {draws!r}")
    start = np.asarray(seen_until, dtype=np.float64)
    if start.ndim != 1 or not (np.isfinite(start) & (start >= 0)).all():
        raise ValueError("seen_until must be a vector of times from 0 on, one for each subject")
    last = np.broadcast_to(np.inf if until is None else np.asarray(until, dtype=np.float64), start.shape)
    num = len(start)
    x = np.ones((num, 1))
    if covariates is not None:
        x = np.hstack([x, as_covariates(covariates, num)])
    if x.shape[1] != len(model.coefficients):
        raise ValueError(f"covariates must be the {len(model.coefficients) - 1} of the model, got {x.shape[1] - 1}")
    counts = np.empty(draws)
    for draw in range(draws):
        coefficients, scale = _parameters(model, rng)
        time = _times_beyond(model.family, x @ coefficients, scale, start, rng)
        counts[draw] = (time <= np.minimum(_observed_beyond(censoring, start, rng), last)).sum()
    return EventProjection(counts)


def project_over_families(
    models: Sequence[tuple[ParametricModel, float]],
    seen_until: ArrayLike,
    censoring: SurvivalCurve,
    rng: np.random.Generator,
    *,
    until: ArrayLike | None = None,
    covariates: ArrayLike | None = None,
    draws: int = 1000,
) -> FamiliesProjection:
    """As `project_events`, by every family that the data leave: the family is uncertain too.

    The data speak strongly against a family whose weight is less than an eighth of the greatest; it is left out.

    Args:
        models: With weights that sum to 1, see `weighed_models`.
        seen_until: (subjects,), see `project_events`.
        censoring: See `project_events`.
        rng: What draws.
        until: See `project_events`.
        covariates: See `project_events`.
        draws: How many numbers are drawn of each family.

    Raises:
        ValueError: If weights are negative or do not sum to 1, or as of `project_events`.

    Source: Royall 1997, Statistical Evidence, chapter 1 (a ratio of 8 as strong evidence).
    """
    weights = np.array([weight for _, weight in models])
    if not len(weights) or (weights < 0).any() or not abs(weights.sum() - 1) < 1e-9:
        raise ValueError(f"models must have weights from 0 on that sum to 1, got {weights.tolist()}")
    kept = [(model, weight) for model, weight in models if weight * _STRONG >= weights.max()]
    total = sum(weight for _, weight in kept)
    found = [
        project_events(model, seen_until, censoring, rng, until=until, covariates=covariates, draws=draws)
        for model, _ in kept
    ]
    return FamiliesProjection([(each, weight / total) for each, (_, weight) in zip(found, kept, strict=True)])


def _parameters(model: ParametricModel, rng: np.random.Generator) -> tuple[Floats, float]:
    """Coefficients and scale drawn from the normal law of their estimates."""
    num = len(model.coefficients)
    shift = rng.multivariate_normal(np.zeros(len(model.covariance)), model.covariance, method="cholesky")
    scale = model.scale * np.exp(shift[num]) if len(shift) > num else model.scale
    return model.coefficients + shift[:num], float(scale)


def _times_beyond(family: Family, location: Floats, scale: float, start: Floats, rng: np.random.Generator) -> Floats:
    """Times to event, (subjects,), given that each is beyond `start`."""
    with np.errstate(divide="ignore"):
        survived = log_survival(family, (np.log(start) - location) / scale)
    later = survived + np.log1p(-rng.random(len(start)))
    return np.asarray(np.exp(location + scale * error_at(family, later)))


def _observed_beyond(censoring: SurvivalCurve, start: Floats, rng: np.random.Generator) -> Floats:
    """Times of censoring, (subjects,), given that each is not before `start`; the last one where the curve ends."""
    under = censoring.step(censoring.survival, start, before=1.0)
    wanted = under * (1 - rng.random(len(start)))
    place = np.searchsorted(-censoring.survival, -wanted, side="left")
    return np.asarray(np.maximum(censoring.time[np.minimum(place, len(censoring.time) - 1)], start))
