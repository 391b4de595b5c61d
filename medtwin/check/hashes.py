"""64-bit hashes as arrays: what copies, sequences and draws are looked up by."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Hashes: TypeAlias = "NDArray[np.uint64]"
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""An odd number without structure, 2^64 over the golden ratio: to multiply or to step by."""


def mix(word: Hashes) -> Hashes:
    """A bijection of 64-bit words in which every bit of the input moves half of the output.

    Source: Steele, Lea & Flood 2014, OOPSLA (the finaliser of SplitMix64).
    """
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(word ^ (word >> np.uint64(31)))
