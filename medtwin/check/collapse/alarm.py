"""When generations of twins have become worse than the first: a bound on what chance explains."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats

from medtwin.check.collapse.jackknife import NUM_GROUPS, Jackknifed

ALPHA = 0.05
"""Probability of any false alarm, however many generations follow."""


@dataclass(frozen=True, slots=True)
class Change:
    """By how much a generation is worse than the first, what it may be, and whether it is more."""

    value: float
    limit: float
    alarm: bool


def level_of(generation: int) -> float:
    """Level of the test of a generation, 2 or later, against the first: together at most `ALPHA`, however many follow.

    >>> level_of(2), round(sum(level_of(g) for g in range(2, 1000)), 3)
    (0.025, 0.05)
    """
    if generation < 2:
        raise ValueError(f"generation must be 2 or more, got {generation!r}")
    return ALPHA / (generation * (generation - 1))


def change(first: Jackknifed, later: Jackknifed, generation: int) -> Change:
    """The change of a number that should not rise, and whether that is more than chance.

    The limit is Student's t at the level of this generation times the standard error of the difference. Generations
    that are each learned from all data before, real ones included, add little to the error of the first: they stay
    within it (Gerstgrasser et al. 2024, arXiv 2404.01413); those that are learned from the one before add the same
    again and again.

    Args:
        first: The number of the first generation.
        later: The same of a later one.
        generation: Of the later one, 2 or more.

    Raises:
        ValueError: If the generation is not 2 or more.
    """
    difference = later.minus(first)
    limit = float(stats.t.isf(level_of(generation), NUM_GROUPS - 1)) * difference.standard_error
    return Change(difference.value, limit, difference.value > limit)
