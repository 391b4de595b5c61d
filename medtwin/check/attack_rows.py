"""What attacks find: how often each was right, the risk, and how well scores tell who was in training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import binomtest

from medtwin.check.estimates import LEVEL


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
        found = binomtest(self.hits, self.tried).proportion_ci(LEVEL, method="wilson")
        return float(found.low), float(found.high)


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

    @staticmethod
    def unknown(name: str, title: str, reason: str) -> Risk:
        """The risk of an attack that was not tried, and why."""
        none = Attempts(0, 0)
        return Risk(name, title, None, None, None, none, none, reason=reason)


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


@dataclass(frozen=True, slots=True)
class TruePositives:
    """Share of the members who are found at a rate of false positives.

    Attributes:
        false_positives: The rate. rate, low, high: Share of members, with a 95 % interval; None: not estimable.
        reason: Why it is not.
    """

    false_positives: float
    rate: float | None
    low: float | None
    high: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Membership:
    """How well a score tells members from others.

    Attributes:
        name: Of the attack. group: Of people; `everybody`, or who they are.
        num_members, num_others: People behind it.
        area, low, high: Area under the ROC curve with its 95 % interval, 0.5: not at all; None: not estimable.
        found: At each rate of false positives.
        reason: Why there is no area.
    """

    name: str
    group: str
    num_members: int
    num_others: int
    area: float | None
    low: float | None
    high: float | None
    found: tuple[TruePositives, ...]
    reason: str = ""
