"""Two rates that come as near as they can to those observed while their difference or ratio is what a null says."""

from __future__ import annotations

import math
from typing import Literal

Scale = Literal["difference", "ratio", "odds_ratio"]


def restricted_rates(
    rates: tuple[float, float], null: float, *, scale: Scale = "difference", allocation_ratio: float = 1.0
) -> tuple[float, float]:
    """Maximum-likelihood estimates of two rates under a null, (experimental, control).

    Args:
        rates: Experimental, control; observed or assumed.
        null: Difference experimental - control, ratio experimental / control, or odds ratio under the null.
        scale: Which of them.
        allocation_ratio: Experimental : control.

    Raises:
        ValueError: If the rates are no shares, the null is impossible or the allocation ratio not positive.

    Source: Miettinen & Nurminen 1985, Stat Med 4:213; in closed form Farrington & Manning 1990, Stat Med 9:1447.

    >>> [round(rate, 4) for rate in restricted_rates((0.3, 0.25), 0.8, scale="ratio", allocation_ratio=2)]
    [0.2593, 0.3242]
    """
    if not all(0 <= rate <= 1 for rate in rates):
        raise ValueError(f"rates must be between 0 and 1, got {rates!r}")
    if not allocation_ratio > 0:
        raise ValueError(f"allocation_ratio must be above 0, got {allocation_ratio!r}")
    match scale:
        case "difference":
            return _of_difference(rates, null, 1 / allocation_ratio)
        case "ratio":
            return _of_ratio(rates, null, 1 / allocation_ratio)
        case "odds_ratio":
            return _of_odds_ratio(rates, null, allocation_ratio)
    raise ValueError(f"scale must be difference, ratio or odds_ratio, got {scale!r}")


def _of_difference(rates: tuple[float, float], delta: float, theta: float) -> tuple[float, float]:
    """The root of Farrington and Manning's cubic; theta is control : experimental."""
    if not -1 < delta < 1:
        raise ValueError(f"null must be a difference between -1 and 1, got {delta!r}")
    p1, p2 = rates
    a = 1 + theta
    b = -(1 + theta + p1 + theta * p2 + delta * (theta + 2))
    c = delta**2 + delta * (2 * p1 + theta + 1) + p1 + theta * p2
    d = -p1 * delta * (1 + delta)
    v = (b / (3 * a)) ** 3 - b * c / (6 * a**2) + d / (2 * a)
    u = math.copysign(math.sqrt(max((b / (3 * a)) ** 2 - c / (3 * a), 0.0)), v)
    w = (math.pi + math.acos(min(max(v / u**3, -1.0), 1.0) if u else 0.0)) / 3
    first = 2 * u * math.cos(w) - b / (3 * a)
    return min(max(first, 0.0), 1.0), min(max(first - delta, 0.0), 1.0)


def _of_ratio(rates: tuple[float, float], ratio: float, theta: float) -> tuple[float, float]:
    if not ratio > 0:
        raise ValueError(f"null must be a ratio above 0, got {ratio!r}")
    p1, p2 = rates
    a = 1 + theta
    b = -(ratio * (1 + theta * p2) + theta + p1)
    c = ratio * (p1 + theta * p2)
    first = (-b - math.sqrt(max(b**2 - 4 * a * c, 0.0))) / (2 * a)
    return first, first / ratio


def _of_odds_ratio(rates: tuple[float, float], ratio: float, allocation_ratio: float) -> tuple[float, float]:
    """The control rate at which both arms have as many events as observed, of a quadratic."""
    if not ratio > 0:
        raise ValueError(f"null must be an odds ratio above 0, got {ratio!r}")
    share = allocation_ratio / (1 + allocation_ratio)
    pooled = share * rates[0] + (1 - share) * rates[1]
    if ratio == 1:
        return pooled, pooled
    a = (1 - share) * (ratio - 1)
    b = share * ratio + (1 - share) - pooled * (ratio - 1)
    control = (-b + math.sqrt(b**2 + 4 * a * pooled)) / (2 * a)
    return ratio * control / (1 + control * (ratio - 1)), control
