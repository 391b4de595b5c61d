"""By how much groups may be short of their share by chance, all of them together; and which is furthest beyond that."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import LEVEL

NUM_DEALS = 2000
LEAST = 0.1
"""Part of a share below which what chance explains counts as this: a large group that surely lacks a little is not
further short than a small one that lacks half."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def usual_shortfalls(
    real: NDArray[np.bool_], synthetic: NDArray[np.bool_], floor: int, rng: np.random.Generator
) -> Floats:
    """The part of its share that each group may lack by chance, (groups,): 95 % of deals stay within for all together.

    The people of both sides are dealt anew between them, and of every deal those groups count that have `floor` people
    on the first side, as they do of what is observed. So chance has its part in which groups are judged, too: a group
    that just reaches the floor has more than its share there as a rule, and less among others of the same law.

    Args:
        real: Whether people of the reference are of each group, (people, groups).
        synthetic: The same of the twins.
        floor: People of the reference from which on a group is judged.
        rng: Decides the deals.

    Source: Westfall & Young 1993, Resampling-Based Multiple Testing, chapter 2: the largest of standardised statistics
        over permutations (max T).
    """
    sizes = len(real), len(synthetic)
    kinds, number = np.unique(np.vstack([real, synthetic]), axis=0, return_counts=True)
    dealt = rng.multivariate_hypergeometric(number, sizes[0], NUM_DEALS, method="marginals") @ kinds.astype(np.int64)
    pooled = number @ kinds
    shares = dealt / sizes[0], (pooled - dealt) / sizes[1]
    noise = _noise(pooled / sum(sizes)) * np.sqrt(1 / sizes[0] + 1 / sizes[1])
    times = np.where(dealt >= floor, (shares[0] - shares[1]) / noise, 0.0).max(axis=1)
    return np.asarray(_within(times) * noise / np.maximum(real.mean(axis=0), 1e-12))


def usual_shortfalls_of(shares: Floats, drawn: Floats, num_twins: int) -> Floats:
    """The same of people drawn from a population of these shares, (groups,).

    Args:
        shares: Of the groups in the population, above 0, (groups,).
        drawn: Of people drawn from it, (draws, groups).
        num_twins: How many people each draw has.
    """
    noise = _noise(shares) / np.sqrt(num_twins)
    return np.asarray(_within(((shares - drawn) / noise).max(axis=1)) * noise / shares)


def furthest(missing: Floats, usual: Floats) -> int:
    """The group that lacks the most times what chance explains, or `LEAST` where that is less.

    Args:
        missing: Part of its share that each group lacks, (groups,).
        usual: What it may lack by chance, (groups,).

    >>> furthest(np.array([0.06, 0.5]), np.array([0.02, 0.3]))
    1
    """
    return int((missing / np.maximum(usual, LEAST)).argmax())


def _noise(shares: Floats) -> Floats:
    """Standard deviation of one person's membership; above 0 where everybody is of the group, who cannot be short."""
    return np.sqrt(np.maximum(shares * (1 - shares), 1e-12))


def _within(times: Floats) -> float:
    return max(float(np.quantile(times, LEVEL)), 0.0) + 1e-9  # of equals none is beyond
