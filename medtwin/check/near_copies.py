"""Near copies: twins whose course is that of one real subject, although values, dates or single events differ.

A record is a set of rhythms: after which gaps each code comes again, without values. What two records share of the rare
ones says how much of the one was taken from the other, even where events are missing between them.
Source: Broder 1997, On the resemblance and containment of documents (containment of sets of short runs).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medtwin.check.findings import CopyRow
from medtwin.check.hashes import GOLDEN, Hashes, mix
from medtwin.check.records import US_PER_HOUR, Records
from medtwin.core.seeds import generator

WIDTH = 0.03
"""Gaps are told apart where they differ by 3 %: a quarter of an hour in eight hours, eleven days in a year."""
MAX_BEARERS = 20
"""Rhythms that more real subjects have are what everybody has, and say nothing of a copy. (It also bounds the cost.)"""
MIN_RHYTHMS = 30
"""Rare rhythms that a record must have to be looked at."""
NEXT = 3
"""The nearest of the others is set against the third nearest."""
MARGIN = 1.5
QUANTILE = 0.99
LEAST = 0.25
"""A near copy is `MARGIN` times closer to one real subject than 99 % of real subjects are, and a quarter at least."""
TOLERATED = 0.01
"""Share of near copies that chance explains: of 200 pairs of real draws one had more (docs/results/check_gates.md)."""
NUM_HALVES = 3
BLOCK = 500

Floats = NDArray[np.float64]


def runs_of(records: Records) -> tuple[Hashes, NDArray[np.int64]]:
    """The distinct rhythms of each subject as hashes, and whose they are, (rhythms,) each, by subject.

    A rhythm is a code with two gaps in a row from one time that the subject has it to the next, each to `WIDTH`: moved
    dates and other values change none of them, and an event that is left out changes three.
    """
    steps = records.steps
    subject, time, code = steps.subject[steps.step], steps.time_us[steps.step], records.code[steps.event]
    order = np.lexsort((time, code, subject))
    subject, time, code = subject[order], time[order], code[order]
    is_new = np.ones(len(time), bool)
    is_new[1:] = (np.diff(time) != 0) | (np.diff(code) != 0) | (np.diff(subject) != 0)
    subject, time, code = subject[is_new], time[is_new], code[is_new]
    inside = (subject[2:] == subject[:-2]) & (code[2:] == code[:-2])
    size = np.rint(np.log(np.maximum(np.diff(time), 1) / US_PER_HOUR) / WIDTH).astype(np.int64)
    value = mix(code[2:][inside].astype(np.uint64))
    for gap in (size[:-1][inside], size[1:][inside]):
        value = mix(value ^ mix(gap.astype(np.uint64) + GOLDEN))
    whose = subject[2:][inside]
    order = np.lexsort((value, whose))
    value, whose = value[order], whose[order]
    is_new = np.ones(len(value), bool)
    is_new[1:] = (value[1:] != value[:-1]) | (whose[1:] != whose[:-1])
    return value[is_new], whose[is_new]


def closeness(of: sparse.csr_array, among: sparse.csr_array) -> Floats:
    """How much more of the rare rhythms of each record one other record has than the rest, (records of the first,).

    The share that the nearest of the others has, less the share that the third nearest has: a regular course is shared
    with many, a copied one with its source, even where the source stands in the data twice. Rare rhythms weigh by the
    logarithm of how rare they are among the others. NaN where a record has fewer of them than `MIN_RHYTHMS`.

    Args:
        of: (records, rhythms) 1 where a record has a rhythm.
        among: The same of the others.
    """
    bearers = np.asarray(among.sum(axis=0)).ravel()
    rare = bearers <= MAX_BEARERS
    weight = np.where(rare, np.log((among.shape[0] + 1) / (bearers + 1)), 0.0)
    num_rare = np.asarray(of @ rare.astype(np.float32)[:, None]).ravel()
    total = np.asarray(of @ weight[:, None]).ravel()
    columns = np.flatnonzero(rare & (bearers > 0))
    weighted = sparse.csr_array(of.multiply(weight[None, :]))[:, columns]
    known = sparse.csr_array(among[:, columns].T)
    found = np.zeros(of.shape[0])
    for start in range(0, of.shape[0], BLOCK):
        shared = np.zeros((len(found[start : start + BLOCK]), among.shape[0] + NEXT))
        shared[:, NEXT:] = (weighted[start : start + BLOCK] @ known).toarray()
        top = np.partition(shared, -NEXT, axis=1)[:, -NEXT:]
        found[start : start + BLOCK] = top.max(axis=1) - top.min(axis=1)
    return np.where(num_rare >= MIN_RHYTHMS, found / np.maximum(total, 1e-12), np.nan)


def near_copy_row(real: Records, synthetic: Records, control: Records | None, *, seed: int) -> CopyRow:
    """Twins that are near copies of a real subject, beside what real subjects are of each other."""
    sides = [runs_of(side) for side in (real, synthetic, control) if side is not None]
    counts = [side.num_subjects for side in (real, synthetic, control) if side is not None]
    matrices = _matrices(sides, counts)
    scores = closeness(matrices[1], matrices[0])
    ordinary = _ordinary(matrices, seed)
    limit = max(LEAST, MARGIN * float(np.quantile(ordinary, QUANTILE)) if len(ordinary) else 0.0)
    checked = ~np.isnan(scores) if limit < 1 else np.zeros(len(scores), bool)
    copied = scores[checked] > limit
    detail = (
        "share of the rare rhythms (gaps after which a code comes again, no values) that one real subject has "
        "and others have not"
        if limit < 1
        else "real subjects are so alike in their course that a near copy could not be told"
    )
    return CopyRow(
        "copies.near",
        "Twins that follow the course of one real subject",
        limit,
        int(copied.sum()),
        int(checked.sum()),
        float(copied.mean()) if len(copied) else 0.0,
        float(np.mean(ordinary > limit)) if len(ordinary) else 0.0,
        detail,
        TOLERATED,
    )


def rhythm_scores(real: Records, synthetic: Records, control: Records) -> tuple[Floats, Floats]:
    """Closeness of real subjects to the twins, (real subjects,) and (control subjects,); 0 of too few rhythms."""
    sides = [runs_of(side) for side in (real, synthetic, control)]
    matrices = _matrices(sides, [side.num_subjects for side in (real, synthetic, control)])
    first, second = (np.nan_to_num(closeness(matrices[number], matrices[1])) for number in (0, 2))
    return first, second


def _matrices(sides: list[tuple[Hashes, NDArray[np.int64]]], counts: list[int]) -> list[sparse.csr_array]:
    """(records, rhythms) of each side, over the rhythms that any of them has."""
    _, number = np.unique(np.concatenate([runs for runs, _ in sides]), return_inverse=True)
    width = int(number.max(initial=-1)) + 1
    found, start = [], 0
    for (runs, whose), count in zip(sides, counts, strict=True):
        columns = number[start : start + len(runs)]
        start += len(runs)
        ones = np.ones(len(runs), np.float32)
        found.append(sparse.csr_array(sparse.coo_array((ones, (whose, columns)), shape=(count, width))))
    return found


def _ordinary(matrices: list[sparse.csr_array], seed: int) -> Floats:
    """What real subjects share with others: halves against each other, control against train."""
    rng = generator(seed, "check", "near copies")
    real = matrices[0]
    scores = []
    for _ in range(NUM_HALVES):
        order = rng.permutation(real.shape[0])
        half = len(order) // 2
        scores.append(closeness(real[np.sort(order[:half])], real[np.sort(order[half:])]))
    if len(matrices) > 2:
        scores.append(closeness(matrices[2], real))
    found = np.concatenate(scores)
    return found[~np.isnan(found)]
