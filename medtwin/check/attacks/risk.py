"""How much better an attack does on people whom the twins were learned from than on people whom they were not."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import norm

from medtwin.check.estimates import LEVEL

MOST_SCALE = 10.0
"""A control that is smaller by more than this says nothing of the training subjects."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often an attack was tried, and how often it was right.

    Attributes:
        hits, tried: Both 0 or more.

    Raises:
        ValueError: If there are more hits than attempts, or a negative number.
    """

    hits: int
    tried: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.tried:
            raise ValueError(f"hits must be between 0 and tried={self.tried}, got {self.hits!r}")

    @property
    def rate(self) -> float:
        """Share that was right; NaN of none."""
        return self.hits / self.tried if self.tried else math.nan

    def wilson(self) -> tuple[float, float]:
        """The 95 % interval of the rate; 0 and 1 of none. Source: Wilson 1927, J Am Stat Assoc 22:209.

        >>> [round(end, 4) for end in Attempts(0, 100).wilson()]
        [0.0, 0.037]
        """
        if not self.tried:
            return 0.0, 1.0
        n, p, z = self.tried, self.rate, float(norm.ppf((1 + LEVEL) / 2))
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        low, high = (0.0 if self.hits == 0 else middle - half), (1.0 if self.hits == n else middle + half)
        return max(low, 0.0), min(high, 1.0)


@dataclass(frozen=True, slots=True)
class Risk:
    """What an attack gains from the twins.

    Attributes:
        name, title: Of the attack.
        risk: Share of the training subjects whom the attack finds, of those whom it would not find were the twins
            learned from others; 0 of harmless twins, 1 where everybody is found, negative by chance. None: not
            estimable.
        low, high: Its 95 % interval.
        train, control, naive: Attempts on training subjects, on as many others, and with guesses that do not look at
            the twins.
        scale: By which the risk was multiplied, because the attack was tried on a part of the training subjects.
        reason: Why there is no risk.
    """

    name: str
    title: str
    risk: float | None
    low: float | None
    high: float | None
    train: Attempts
    control: Attempts
    naive: Attempts | None = None
    scale: float = 1.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GroupRisk:
    """A risk within a group of people.

    Attributes:
        division: Of people, as in `sex`; `worst` of those who are least like others and of those with rare codes.
        group: As in `F`.
        risk: Within it.
    """

    division: str
    group: str
    risk: Risk


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
    (0.3, 0.21, 0.396)
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
