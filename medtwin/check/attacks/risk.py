"""How much better an attack does on people whom the twins were learned from than on people whom they were not."""

from __future__ import annotations

import math

from medtwin.check.attack_rows import Attempts, Risk

MOST_SCALE = 10.0
"""A control that is smaller by more than this says nothing of the training subjects."""


def excess_risk(
    name: str, title: str, train: Attempts, control: Attempts, *, naive: Attempts | None = None, scale: float = 1.0
) -> Risk:
    """The risk (train - control) / (1 - control) with its interval.

    The interval is of a ratio of two independent proportions, of those that the attack does not find, out of the Wilson
    intervals of both.

    Args:
        name: Of the attack.
        title: In words.
        train: Attempts on training subjects, at least 1.
        control: Attempts on real subjects that training did not see, at least 1.
        naive: Attempts without looking at the twins.
        scale: Training subjects over those on whom it was tried, 1 or more, where an attempt finds only those.

    Source: Giomi, Boenisch, Wehmeyer & Tasnadi 2023, Proc Priv Enhanc Technol 2023(2):312 (the risk); Newcombe 2016,
    Stat Methods Med Res 25:1774 (the interval).

    >>> one = excess_risk("x", "", Attempts(30, 100), Attempts(0, 100))
    >>> round(one.risk, 3), round(one.low, 3), round(one.high, 3)
    (0.3, 0.214, 0.396)
    """
    if not train.tried or not control.tried:
        return Risk(name, title, None, None, None, train, control, naive, scale, "nothing could be tried")
    missed, missed_control = 1 - train.rate, 1 - control.rate
    if missed_control == 0:
        return Risk(name, title, None, None, None, train, control, naive, scale, "it finds everybody without the twins")
    low, high = train.wilson()
    low_control, high_control = control.wilson()
    ends = _ratio_interval((missed, 1 - high, 1 - low), (missed_control, 1 - high_control, 1 - low_control))
    risk, lowest, highest = (min((1 - one) * scale, 1.0) for one in (missed / missed_control, ends[1], ends[0]))
    return Risk(name, title, risk, lowest, highest, train, control, naive, scale)


def _ratio_interval(above: tuple[float, float, float], below: tuple[float, float, float]) -> tuple[float, float]:
    """The interval of a ratio, each part given as estimate, low and high."""
    (p, p_low, p_high), (q, q_low, q_high) = above, below
    product = p * q
    low = _root(product, p_low * q_high * (2 * p - p_low) * (2 * q - q_high), -1) / (q_high * (2 * q - q_high))
    lowest = q_low * (2 * q - q_low)
    if lowest <= 0:
        return low, math.inf
    return low, _root(product, p_high * q_low * (2 * p - p_high) * (2 * q - q_low), 1) / lowest


def _root(middle: float, product: float, sign: int) -> float:
    return middle + sign * math.sqrt(max(middle**2 - product, 0.0))
