"""Rare codes, counted: which of them twins have less often than chance explains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from medtwin.check.collapse.jackknife import Jackknifed, group_weights
from medtwin.check.collapse_rows import RareRow
from medtwin.check.records import Records
from medtwin.core.disclosure import SMALLEST_CELL

RARE = 0.1
"""A code is rare where at most this share of patients and twins together have it."""
ALPHA = 0.05

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def bearers(records: Records, num_codes: int) -> Ints:
    """How many subjects have each code, (codes,)."""
    once = np.unique(records.subject * num_codes + records.code)
    return np.bincount(once % num_codes, minlength=num_codes).astype(np.int64)


def fewer(have: Ints, total: int, other_have: Ints, other_total: int) -> Floats:
    """One-sided p of Fisher's exact test, (tests,): that the others have it no less often.

    Args:
        have: How many of the first side have it, (tests,).
        total: Of how many.
        other_have: How many of the others do, (tests,).
        other_total: Of how many.

    Source: Fisher 1935, J R Stat Soc 98:39.

    >>> fewer(np.array([8]), 8, np.array([0]), 8).round(7).tolist()
    [7.77e-05]
    """
    return np.asarray(hypergeom.cdf(other_have, total + other_total, have + other_have, other_total))


def adjusted_by_holm(p: Floats) -> Floats:
    """P values adjusted so that any rejection at a level is false with at most that probability, (tests,).

    Source: Holm 1979, Scand J Stat 6:65.

    >>> adjusted_by_holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    found = np.empty(len(p))
    found[order] = np.minimum(steps, 1.0)
    return found


def is_testable(sums: Ints, total: int, other_total: int) -> NDArray[np.bool_]:
    """Which codes could be found lost at all, (codes,): had none of the others it, p would be small enough.

    That goes by how many of both sides together have a code, which says nothing of who has it. Those that cannot be
    found need not be adjusted for.

    Args:
        sums: How many of both sides have each code, (codes,).
        total: How many there are of the first side.
        other_total: Of the others.

    Source: Tarone 1990, Biometrics 46:515.
    """
    fewest = np.maximum(sums - total, 0)
    least = fewer(sums - fewest, total, fewest, other_total)
    number = 1
    while (least <= ALPHA / number).sum() > number:
        number += 1
    return np.asarray(least <= ALPHA / number)


def rare_rows(real: Records, synthetic: Records) -> list[RareRow]:
    """Every rare code that can be tested, those that are lost first.

    Rare is what at most the share `RARE` of both sides together have, and at least `SMALLEST_CELL` subjects do.

    Args:
        real: The reference.
        synthetic: The twins, of the same vocabulary.
    """
    names = real.vocabulary.names
    totals = real.num_subjects, synthetic.num_subjects
    have, twins_have = (bearers(side, len(names)) for side in (real, synthetic))
    sums = have + twins_have
    codes = np.flatnonzero((sums >= SMALLEST_CELL) & (sums <= RARE * sum(totals)))
    codes = codes[is_testable(sums[codes], *totals)]
    have, twins_have = have[codes], twins_have[codes]
    p = fewer(have, totals[0], twins_have, totals[1])
    columns = have.tolist(), twins_have.tolist(), p.tolist(), adjusted_by_holm(p).tolist()
    rows = [
        RareRow(names[code], a, totals[0], b, totals[1], one, adjusted, adjusted <= ALPHA)
        for code, a, b, one, adjusted in zip(codes.tolist(), *columns, strict=True)
    ]
    return sorted(rows, key=lambda row: (row.adjusted, row.code))


def shares_kept(real: Records, generations: Sequence[Records]) -> list[Jackknifed]:
    """Rare codes per twin over rare codes per real subject: 1 where twins have as many, 0 where they have none.

    Rare is here what real subjects say: at most the share `RARE` of them, and at least `SMALLEST_CELL`, have it.

    Args:
        real: The reference.
        generations: Of twins, of the same vocabulary, subjects in random order.

    Returns:
        The share of each generation; empty where no code is rare.
    """
    num_codes = len(real.vocabulary.codes)
    have = bearers(real, num_codes)
    is_rare = (have >= SMALLEST_CELL) & (have <= RARE * real.num_subjects)
    if not is_rare.any():
        return []
    expected = have[is_rare].sum() / real.num_subjects
    found = []
    for twins in generations:
        once = np.unique(twins.subject * num_codes + twins.code)
        rare = np.bincount((once // num_codes)[is_rare[once % num_codes]], minlength=twins.num_subjects)
        weights = group_weights(twins.num_subjects)
        found.append(Jackknifed.of(weights @ rare / weights.sum(axis=1) / expected))
    return found


def num_lost(first: Records, later: Records, level: float) -> int:
    """How many rare codes a later generation has less often than the first, at a level over all of them."""
    return sum(row.adjusted <= level for row in rare_rows(first, later))
