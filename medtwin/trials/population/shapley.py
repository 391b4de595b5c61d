"""What each criterion of eligibility costs in subjects, by Shapley's value, where several exclude the same ones.

Every subject excluded is shared out among the criteria that exclude it; the value of a criterion is the sum of its
shares. So it is linear in the subjects: resampling patients needs no more than the shares of each pattern of failure.

Source: Shapley 1953; Liu et al. 2021, Nature 592:629 (Trial Pathfinder), who apply it to criteria of eligibility.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.population.failing import Failures, Patterns, patterns_of

Floats = NDArray[np.float64]
MAX_EXACT = 12
_CHUNK = 1 << 22  # cells at a time


@dataclass(frozen=True)
class Shares:
    """How a subject of each pattern is shared out.

    Attributes:
        of_pattern: (patterns, criteria); the sum of a row is 1 where all criteria exclude it, else 0.
        monte_carlo_error: (criteria,) standard error of the values from the orders that were drawn; 0 where exact.
    """

    of_pattern: Floats
    monte_carlo_error: Floats


def shapley(failing: Failures) -> Floats:
    """Shapley's values of the criteria, (criteria,), in subjects excluded; exact, over all subsets.

    They add up to the subjects with a possible day who are not eligible under all criteria.

    Raises:
        ValueError: For more than 12 criteria.
    """
    patterns = patterns_of(failing)
    return np.asarray(patterns.counts @ exact_shares(patterns, len(failing.labels)).of_pattern)


def exact_shares(patterns: Patterns, number: int) -> Shares:
    """The shares over all subsets of the criteria.

    Args:
        patterns: Of failure.
        number: Of criteria.

    Raises:
        ValueError: For more than 12 criteria.
    """
    if number > MAX_EXACT:
        raise ValueError(f"criteria must be at most {MAX_EXACT} for exact values, got {number}")
    subsets = np.arange(1 << number)
    size = np.bitwise_count(subsets)
    weight = np.array([1 / (number * math.comb(number - 1, k)) for k in range(number)] + [0.0])[size]
    gains = np.zeros((len(subsets), number))  # of being admitted under a subset, to the share of a criterion
    for bit in range(number):
        lacks = subsets[subsets >> bit & 1 == 0]
        gains[lacks, bit] = weight[lacks]
        gains[lacks | 1 << bit, bit] = -weight[lacks]
    masks, row = np.unique(patterns.mask, return_inverse=True)
    found = np.zeros((len(patterns.starts), number))
    allowed = (masks[:, None] & subsets) == 0
    ends = np.append(patterns.starts[1:], len(patterns.mask))
    step = max(_CHUNK // len(subsets), 1)
    for first in range(0, len(found), step):
        mine = slice(first, min(first + step, len(found)))
        rows = row[patterns.starts[mine][0] : ends[mine][-1]]
        is_admitted = np.logical_or.reduceat(allowed[rows], patterns.starts[mine] - patterns.starts[mine][0])
        found[mine] = is_admitted @ gains
    return Shares(np.where(np.abs(found) < 1e-12, 0.0, found), np.zeros(number))


def sampled_shares(
    patterns: Patterns, number: int, generator: np.random.Generator, *, num_orders: int = 1000
) -> Shares:
    """The shares estimated from random orders, each with its reverse.

    In an order, a subject is lost at the criterion at which the last of its possible days falls away.

    Args:
        patterns: Of failure.
        number: Of criteria.
        generator: Draws the orders.
        num_orders: How many.

    Raises:
        ValueError: If fewer than two orders are drawn.

    Source: Castro, Gomez & Tejada 2009, Comput Oper Res 36:1726; reversed orders as in Mitchell et al. 2022, J Mach
    Learn Res 23:43.
    """
    if num_orders < 2:
        raise ValueError(f"num_orders must be 2 or more, got {num_orders!r}")
    counts, starts = patterns.counts, patterns.starts
    masks, row = np.unique(patterns.mask, return_inverse=True)
    fails = (masks[:, None] >> np.arange(number) & 1).astype(np.bool_)
    drawn, found, place_of = np.zeros((num_orders, number)), np.zeros((len(starts), number)), np.arange(len(starts))
    for trial in range(num_orders):
        order = generator.permutation(number)
        for each in (order, order[::-1]):
            first_failing = np.where(fails, np.argsort(each), number).min(axis=1)
            lost_at = np.maximum.reduceat(first_failing[row], starts) if len(starts) else np.zeros(0, dtype=np.int64)
            is_lost = lost_at < number
            found[place_of[is_lost], each[lost_at[is_lost]]] += 1
            drawn[trial, each] += np.bincount(lost_at, weights=counts, minlength=number + 1)[:number] / 2
    return Shares(found / (2 * num_orders), drawn.std(axis=0, ddof=1) / math.sqrt(num_orders))
