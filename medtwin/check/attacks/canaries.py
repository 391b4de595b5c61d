"""Canaries: made-up people of whom a coin decided who is trained on; how many coins can be told bounds the leak.

Half of the canaries, each by a coin of its own, stand in the training data. Whoever scores all of them and guesses the
coins of the most and the least likely ones is right half of the time where nothing leaks. Training that is
epsilon-differentially private bounds how often a guess can be right, hence the guesses bound epsilon from below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom

from medtwin.check.attack_rows import Membership
from medtwin.check.attacks.membership import membership
from medtwin.check.estimates import LEVEL

MAX_EPSILON = 20.0
MIN_CANARIES = 20

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CanaryAudit:
    """What the coins that were told say.

    Attributes:
        epsilon_low: The privacy loss epsilon is at least that, with 95 % confidence; 0 where nothing was told.
        epsilon_most: The most that so many guesses could ever show.
        guesses, right: Coins that were guessed, and rightly.
        told: How well scores tell the canaries in training from the others.
    """

    epsilon_low: float
    epsilon_most: float
    guesses: int
    right: int
    told: Membership


def audit(scores: Floats, is_member: Bools, *, num_guesses: int | None = None) -> CanaryAudit:
    """The lower bound of epsilon that one training run shows.

    Bounds by several numbers of guesses would need a correction; the number is chosen beforehand.

    Args:
        scores: Of each canary, (canaries,), larger where training on it is more likely.
        is_member: Whether its coin put it into training, (canaries,).
        num_guesses: How many of the most likely, and of the least likely, are guessed: half of them each; None: a fifth
            of all canaries.

    Raises:
        ValueError: If the shapes differ, there are fewer than `MIN_CANARIES`, or more guesses than canaries.

    Source: Steinke, Nasr & Jagielski 2023, NeurIPS, Privacy Auditing with One (1) Training Run, theorem 5.2 with
    delta = 0.
    """
    if scores.shape != is_member.shape or scores.ndim != 1 or len(scores) < MIN_CANARIES:
        raise ValueError(
            f"scores and is_member must be of at least {MIN_CANARIES} canaries, got {scores.shape}, {is_member.shape}"
        )
    wanted = len(scores) // 5 if num_guesses is None else num_guesses
    if not 2 <= wanted <= len(scores):
        raise ValueError(f"num_guesses must be between 2 and {len(scores)} canaries, got {wanted!r}")
    half = wanted // 2
    order = np.argsort(scores, kind="stable")
    right = int(is_member[order[-half:]].sum() + (~is_member[order[:half]]).sum())
    told = membership("canaries", scores[is_member], scores[~is_member])
    return CanaryAudit(epsilon_bound(2 * half, right), epsilon_bound(2 * half, 2 * half), 2 * half, right, told)


def epsilon_bound(guesses: int, right: int, *, level: float = LEVEL) -> float:
    """The least epsilon under which so many right guesses are not too many, at most `MAX_EPSILON`.

    Args:
        guesses: 1 or more.
        right: Between 0 and the guesses.
        level: Confidence, one-sided.

    >>> epsilon_bound(100, 50), round(epsilon_bound(100, 100), 2)
    (0.0, 3.49)
    """
    if not 0 <= right <= guesses or guesses < 1:
        raise ValueError(f"right must be between 0 and guesses={guesses}, got {right!r}")

    def excess(epsilon: float) -> float:
        return float(binom.sf(right - 1, guesses, 1 / (1 + math.exp(-epsilon)))) - (1 - level)

    if excess(0.0) > 0:
        return 0.0
    return float(brentq(excess, 0.0, MAX_EPSILON)) if excess(MAX_EPSILON) > 0 else MAX_EPSILON
