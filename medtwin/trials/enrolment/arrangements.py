"""The orders in which a block may hold its arms: a permuted block is one of them, all being equally likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def num_arrangements(block_size: int, parts: Sequence[int]) -> int:
    """In how many orders a block may hold its arms.

    Args:
        block_size: A multiple of the sum of the parts.
        parts: Of the allocation ratio.

    >>> num_arrangements(6, (1, 2))
    15
    """
    unit = sum(parts)
    return math.factorial(block_size) // math.prod(math.factorial(part * block_size // unit) for part in parts)


@lru_cache(maxsize=64)
def arrangements(counts: tuple[int, ...]) -> Ints:
    """All orders of a block with so many patients of each arm, (arrangements, block).

    >>> arrangements((1, 2)).tolist()
    [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    """
    if sum(counts) == 0:
        return np.zeros((1, 0), dtype=np.int64)
    made = []
    for arm, count in enumerate(counts):
        if count:
            rest = arrangements((*counts[:arm], count - 1, *counts[arm + 1 :]))
            made.append(np.hstack([np.full((len(rest), 1), arm, dtype=np.int64), rest]))
    found = np.concatenate(made)
    found.setflags(write=False)
    return found
