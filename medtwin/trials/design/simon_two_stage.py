"""Simon's two-stage designs of a single arm with a binary outcome: minimax, optimal, and the admissible ones between.

Source: Simon 1989, Control Clin Trials 10:1; Jung, Lee, Kim & George 2004, Stat Med 23:561 (admissible designs).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TwoStageDesign:
    """A design: the arm is given up with at most `r1` responses of `n1` patients, or at most `r` of all `n`.

    Attributes:
        r1, n1: Of the first stage. r, n: Of both.
        alpha, power: Attained, at the uninteresting and the interesting rate.
        expected_n: Patients expected at the uninteresting rate. early_stop: Chance of the first stop there.
        weights: Of the maximum against the expected number of patients, between which no other design is better.
    """

    r1: int
    n1: int
    r: int
    n: int
    alpha: float
    power: float
    expected_n: float
    early_stop: float
    weights: tuple[float, float] = (0.0, 1.0)


def simon_designs(p0: float, p1: float, alpha: float, beta: float, most: int = 110) -> list[TwoStageDesign]:
    """The admissible designs, by patients: the first is minimax, the last optimal.

    Args:
        p0: The rate that is not worth more trials.
        p1: The rate that is.
        alpha: One-sided error at p0.
        beta: Error at p1.
        most: Patients at most.

    Raises:
        ValueError: If the rates or the errors make no sense, or no design has so few patients.

    >>> [(each.r1, each.n1, each.r, each.n) for each in simon_designs(0.1, 0.3, 0.05, 0.2, most=40)]
    [(1, 15, 5, 25), (1, 12, 5, 26), (1, 11, 5, 27), (1, 10, 5, 29)]
    """
    if not 0 < p0 < p1 < 1:
        raise ValueError(f"rates must have 0 < p0 < p1 < 1, got {p0!r} and {p1!r}")
    if not 0 < alpha < 1 or not 0 < beta < 1:
        raise ValueError(f"alpha and beta must be between 0 and 1, got {alpha!r} and {beta!r}")
    laws = _Law(p0, most), _Law(p1, most)
    found = [_best_of_size(n, laws, alpha, 1 - beta) for n in range(2, most + 1)]
    best = [each for each in found if each is not None]
    if not best:
        raise ValueError(f"most must allow for a design, got {most!r}: more patients are needed")
    return _hull(best)


class _Law:
    """Responses of up to so many patients at a rate."""

    def __init__(self, p: float, most: int) -> None:
        self.mass = [binom.pmf(np.arange(n + 1), n, p) for n in range(most + 1)]
        self.at_least = [np.append(np.cumsum(mass[::-1])[::-1], 0.0) for mass in self.mass]

    def rejects(self, n1: int, n: int) -> Floats:
        """The chance of more than r1 responses and more than r of all, (r1 from 0 to n1 - 1, r from 0 to n - 1)."""
        second = n - n1
        needed = np.arange(n)[None, :] + 1 - np.arange(n1 + 1)[:, None]
        joint = self.mass[n1][:, None] * self.at_least[second][np.clip(needed, 0, second + 1)]
        return np.asarray(np.cumsum(joint[::-1], axis=0)[::-1][1:])


def _best_of_size(n: int, laws: tuple[_Law, _Law], alpha: float, least_power: float) -> TwoStageDesign | None:
    """The design of n patients that expects the fewest, if there is one."""
    found: TwoStageDesign | None = None
    for n1 in range(1, n):
        error, power = (law.rejects(n1, n) for law in laws)
        r1, r = np.nonzero((error <= alpha) & (power >= least_power))
        if not len(r1):
            continue
        place = int(np.lexsort((r, -r1))[0])
        here = int(r1[place]), int(r[place])
        stop = float(laws[0].mass[n1][: here[0] + 1].sum())
        expected = n1 + (1 - stop) * (n - n1)
        if found is None or expected < found.expected_n:
            errors = float(error[here]), float(power[here])
            found = TwoStageDesign(here[0], n1, here[1], n, *errors, expected, stop)
    return found


def _hull(designs: list[TwoStageDesign]) -> list[TwoStageDesign]:
    """Those that minimise a weighted mean of maximum and expected patients, with their weights."""
    kept: list[TwoStageDesign] = []
    for each in designs:
        if kept and each.expected_n >= kept[-1].expected_n:
            continue
        while len(kept) > 1 and _indifferent(kept[-2], each) >= _indifferent(kept[-2], kept[-1]):
            kept.pop()
        kept.append(each)
    edges = [1.0, *(_indifferent(one, other) for one, other in pairwise(kept)), 0.0]
    return [replace(each, weights=(low, high)) for each, (high, low) in zip(kept, pairwise(edges), strict=True)]


def _indifferent(one: TwoStageDesign, other: TwoStageDesign) -> float:
    """The weight of the maximum at which both are as good."""
    saved = one.expected_n - other.expected_n
    return saved / (other.n - one.n + saved)
