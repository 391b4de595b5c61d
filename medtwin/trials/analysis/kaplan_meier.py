"""Survival curves of one group with their limits, quantiles and cumulative hazards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from medtwin.trials.analysis.follow_up import Floats, FollowUp, Ints, as_level, follow_up, values_at
from medtwin.trials.analysis.results import Interval

Limits = Literal["log", "log-log", "plain", "logit", "arcsin"]
HazardTies = Literal["nelson_aalen", "fleming_harrington"]


@dataclass(frozen=True)
class SurvivalCurve:
    """A survival curve, a step at each event time, from 1 at time 0; arrays are (steps,).

    Attributes:
        time: Event times. events: Events at each. at_risk: Subjects at risk just before each.
        survival: After each. low, high: Its limits. standard_error: Of survival, nan where it is 0.
        cumulative_hazard: After each. hazard_error: Its standard error.
        level: Of the limits.
    """

    time: Floats
    survival: Floats
    low: Floats
    high: Floats
    at_risk: Ints
    standard_error: Floats
    level: float
    events: Ints
    cumulative_hazard: Floats
    hazard_error: Floats

    def at(self, times: ArrayLike) -> Floats:
        """Survival at each time."""
        return self.step(self.survival, times, before=1.0)

    def step(self, values: Floats, times: ArrayLike, *, before: float) -> Floats:
        """One of the columns at each time, and `before` ahead of the first event."""
        return values_at(self.time, values, times, before=before)

    def quantile(self, share: float = 0.5) -> Interval:
        """The time by which `share` of the subjects had the event; nan where the curve or a limit does not come so low.

        Limits are where those of survival cross 1 - share (Brookmeyer & Crowley 1982). A curve that lies at 1 - share
        from one event to the next has its quantile halfway between them.

        Raises:
            ValueError: If the share does not lie between 0 and 1.
        """
        as_level("share", share)
        curves = [np.where(self.survival > 0, each, np.nan) for each in (self.low, self.high)]
        found = [_crossing(self.time, each, 1 - share) for each in (self.survival, *curves)]
        return Interval(found[0], found[1], found[2], self.level)


def _crossing(time: Floats, curve: Floats, height: float) -> float:
    """The first time at which a falling curve lies at or below a height; halfway along a step that lies on it."""
    close = 1e-8
    below = np.flatnonzero(curve < height + close)
    if not len(below):
        return float("nan")
    first = below[0]
    later = np.flatnonzero(curve < height - close)
    if abs(curve[first] - height) < close and len(later):
        return float((time[first] + time[later[0]]) / 2)
    return float(time[first])


@dataclass(frozen=True)
class _Steps:
    time: Floats
    events: Ints
    at_risk: Ints


def _steps(seen: FollowUp) -> _Steps:
    time, events = np.unique(seen.time[seen.event], return_counts=True)
    return _Steps(time, events, seen.at_risk(time))


def kaplan_meier(
    time: ArrayLike,
    event: ArrayLike,
    *,
    entry: ArrayLike | None = None,
    level: float = 0.95,
    limits: Limits = "log-log",
) -> SurvivalCurve:
    """The Kaplan-Meier curve of one group with Greenwood's standard error; its hazard is Nelson and Aalen's.

    Args:
        time: (subjects,) time to event or censoring.
        event: (subjects,) whether it is an event.
        entry: (subjects,) start of observation where it is late; a subject is at risk in (entry, time].
        level: Of the limits at each time.
        limits: The scale on which they are symmetric.

    Raises:
        ValueError: For times, events, a level or a scale that make no sense.

    Source: Kaplan & Meier 1958; Greenwood 1926; limits as in Kalbfleisch & Prentice 2002, section 1.4.

    >>> kaplan_meier([1, 2, 3, 3], [1, 0, 1, 0]).survival
    array([0.75 , 0.375])
    """
    steps = _steps(follow_up(time, event, entry))
    d, n = steps.events, steps.at_risk
    survival = np.asarray(np.cumprod(1 - d / n), dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_variance = np.cumsum(d / (n * (n - d)))
    return _curve(steps, survival, log_variance, np.cumsum(d / n), np.cumsum(d / n**2), (level, limits))


def nelson_aalen(
    time: ArrayLike,
    event: ArrayLike,
    *,
    entry: ArrayLike | None = None,
    level: float = 0.95,
    limits: Limits = "log-log",
    ties: HazardTies = "nelson_aalen",
) -> SurvivalCurve:
    """The cumulative hazard of one group, and the survival curve exp(-hazard) that belongs to it.

    Args:
        time: (subjects,) time to event or censoring.
        event: (subjects,) whether it is an event.
        entry: (subjects,) start of observation where it is late; a subject is at risk in (entry, time].
        level: Of the limits at each time.
        limits: The scale on which they are symmetric.
        ties: Tied events at one instant (Nelson & Aalen), or one after another (Fleming & Harrington).

    Raises:
        ValueError: For times, events, a level, a scale or ties that make no sense.

    Source: Aalen 1978; Fleming & Harrington 1984.

    >>> nelson_aalen([1, 2, 3, 3], [1, 0, 1, 0]).cumulative_hazard
    array([0.25, 0.75])
    """
    if ties not in get_args(HazardTies):
        raise ValueError(f"ties must be one of {get_args(HazardTies)}, got {ties!r}")
    steps = _steps(follow_up(time, event, entry))
    d, n = steps.events, steps.at_risk
    if ties == "nelson_aalen":
        hazard, variance = d / n, d / n**2
    else:
        left = [m - np.arange(e) for m, e in zip(n, d, strict=True)]
        hazard = np.array([(1 / each).sum() for each in left])
        variance = np.array([(1.0 / each**2).sum() for each in left])
    cumulative, spread = np.cumsum(hazard), np.cumsum(variance)
    return _curve(steps, np.exp(-cumulative), spread, cumulative, spread, (level, limits))


def _curve(
    steps: _Steps,
    survival: Floats,
    log_variance: Floats,
    hazard: Floats,
    hazard_variance: Floats,
    asked: tuple[float, Limits],
) -> SurvivalCurve:
    level, limits = asked
    is_zero = survival == 0
    sd_log = np.where(is_zero, np.nan, np.sqrt(np.where(is_zero, 0.0, log_variance)))
    low, high = survival_limits(survival, sd_log, level=level, limits=limits)
    return SurvivalCurve(
        time=steps.time,
        survival=survival,
        low=np.where(is_zero, 0.0, low),
        high=np.where(is_zero, 0.0, high),
        at_risk=steps.at_risk,
        standard_error=survival * sd_log,
        level=level,
        events=steps.events,
        cumulative_hazard=hazard,
        hazard_error=np.sqrt(hazard_variance),
    )


def survival_limits(survival: Floats, sd_log: Floats, *, level: float, limits: Limits) -> tuple[Floats, Floats]:
    """Limits of survival from the standard error of its logarithm, arrays of one shape, within [0, 1].

    Raises:
        ValueError: If the level does not lie between 0 and 1, or the scale is not known.
    """
    as_level("level", level)
    if limits not in get_args(Limits):
        raise ValueError(f"limits must be one of {get_args(Limits)}, got {limits!r}")
    half = norm.ppf(0.5 + level / 2) * sd_log
    with np.errstate(divide="ignore", invalid="ignore"):
        if limits == "plain":
            low, high = survival * (1 - half), survival * (1 + half)
        elif limits == "log":
            low, high = survival * np.exp(-half), survival * np.exp(half)
        elif limits == "log-log":
            swing = np.where(survival < 1, half / np.log(survival), 0.0)
            low, high = survival ** np.exp(-swing), survival ** np.exp(swing)
        elif limits == "logit":
            odds, swing = survival / (1 - survival), np.where(survival < 1, half / (1 - survival), 0.0)
            low, high = 1 / (1 + np.exp(swing) / odds), 1 / (1 + np.exp(-swing) / odds)
        else:
            angle = np.arcsin(np.sqrt(survival))
            swing = np.where(survival < 1, half / 2 * np.sqrt(survival / (1 - survival)), 0.0)
            low = np.sin(np.maximum(angle - swing, 0.0)) ** 2
            high = np.sin(np.minimum(angle + swing, np.pi / 2)) ** 2
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
