"""Random generators that depend on what they are for, never on the order or the number of workers."""

from __future__ import annotations

import hashlib

import numpy as np


def purpose_key(*purpose: str | int) -> tuple[int, ...]:
    """Four 32-bit words that stand for a purpose, the same on every machine and Python."""
    digest = hashlib.blake2b("\x1f".join(map(str, purpose)).encode(), digest_size=16).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """The generator of one purpose, independent of every other purpose under the same seed.

    Args:
        seed: The run's seed, 0 or more.
        purpose: What the numbers are for, such as `"images", subject_index`.

    Raises:
        ValueError: If the seed is negative.

    >>> generator(1, "subject", 7).integers(100) == generator(1, "subject", 7).integers(100)
    np.True_
    """
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed!r}")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *purpose_key(*purpose)])))


def uniform_of(seed: int, *purpose: str | int) -> float:
    """One number in [0, 1) that depends on the seed and the purpose only; for cheap, order-free assignment."""
    text = "\x1f".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") / 2**64
