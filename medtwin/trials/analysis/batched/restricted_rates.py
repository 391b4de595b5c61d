"""Rates under a null of many trials at once: `medtwin.trials.restricted_rates` over arrays."""

from __future__ import annotations

import numpy as np

from medtwin.trials.analysis.follow_up import Floats
from medtwin.trials.restricted_rates import Scale


def restricted_rates(
    experimental: Floats, control: Floats, null: Floats, *, scale: Scale, allocation_ratio: Floats
) -> tuple[Floats, Floats]:
    """Maximum-likelihood estimates of two rates under a null, experimental and control, in one shape.

    Args:
        experimental: Observed rate.
        control: Observed rate.
        null: Difference experimental - control, ratio, or odds ratio under the null.
        scale: Which of them.
        allocation_ratio: Experimental : control.

    Raises:
        ValueError: If the null is impossible or the scale not known.

    Source: Miettinen & Nurminen 1985, Stat Med 4:213; in closed form Farrington & Manning 1990, Stat Med 9:1447.
    """
    p1, p2, value = np.asarray(experimental), np.asarray(control), np.asarray(null)
    match scale:
        case "difference":
            if not (np.abs(value) < 1).all():
                raise ValueError("null must be a difference between -1 and 1, got another")
            return _of_difference(p1, p2, value, 1 / allocation_ratio)
        case "ratio" | "odds_ratio":
            if not (value > 0).all():
                raise ValueError(f"null must be a {scale} above 0, got another")
            if scale == "ratio":
                return _of_ratio(p1, p2, value, 1 / allocation_ratio)
            return _of_odds_ratio(p1, p2, value, allocation_ratio)
    raise ValueError(f"scale must be difference, ratio or odds_ratio, got {scale!r}")


def _of_difference(p1: Floats, p2: Floats, delta: Floats, theta: Floats) -> tuple[Floats, Floats]:
    """The root of Farrington and Manning's cubic; theta is control : experimental."""
    a = 1 + theta
    b = -(1 + theta + p1 + theta * p2 + delta * (theta + 2))
    c = delta**2 + delta * (2 * p1 + theta + 1) + p1 + theta * p2
    d = -p1 * delta * (1 + delta)
    v = (b / (3 * a)) ** 3 - b * c / (6 * a**2) + d / (2 * a)
    u = np.copysign(np.sqrt(np.maximum((b / (3 * a)) ** 2 - c / (3 * a), 0.0)), v)
    cosine = np.where(u != 0, v / np.where(u != 0, u, 1.0) ** 3, 1.0)
    w = (np.pi + np.arccos(np.clip(cosine, -1.0, 1.0))) / 3
    first = 2 * u * np.cos(w) - b / (3 * a)
    return np.clip(first, 0.0, 1.0), np.clip(first - delta, 0.0, 1.0)


def _of_ratio(p1: Floats, p2: Floats, ratio: Floats, theta: Floats) -> tuple[Floats, Floats]:
    a = 1 + theta
    b = -(ratio * (1 + theta * p2) + theta + p1)
    c = ratio * (p1 + theta * p2)
    first = (-b - np.sqrt(np.maximum(b**2 - 4 * a * c, 0.0))) / (2 * a)
    return first, first / ratio


def _of_odds_ratio(p1: Floats, p2: Floats, ratio: Floats, allocation_ratio: Floats) -> tuple[Floats, Floats]:
    """The control rate at which both arms have as many events as observed, of a quadratic."""
    share = allocation_ratio / (1 + allocation_ratio)
    pooled = share * p1 + (1 - share) * p2
    a = (1 - share) * (ratio - 1)
    b = share * ratio + (1 - share) - pooled * (ratio - 1)
    root = np.sqrt(b**2 + 4 * a * pooled)
    control = 2 * pooled / (b + root)  # the same root of a c^2 + b c = pooled, also where a is 0
    return ratio * control / (1 + control * (ratio - 1)), control
