"""Cells of few people: whether twins stand where few training patients do more often than other patients would.

A cell is a combination of what others may know of a patient, as in women of 80 and over of one site. Twins that repeat
training patients stand in their rare cells; patients whom training did not see, of the same law, do so by chance only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import LEVEL, Estimate, Measure
from medtwin.check.fairness.frames import interval_around
from medtwin.check.fairness.groups import ONE_GROUP, Division
from medtwin.check.group_rows import SmallCellRow
from medtwin.check.resample import MIN_CONTROL
from medtwin.core.disclosure import SMALLEST_CELL
from medtwin.core.seeds import generator

MOST_KEYS = 3
"""Quasi-identifiers that are combined, besides all of them together."""
NUM_DEALS = 500
NAME = "cells.excess"
TITLE = f"Twins in cells of fewer than {SMALLEST_CELL} training patients, beyond other patients"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def small_cells(divisions: Sequence[Division], *, seed: int, num_resamples: int) -> tuple[Measure, list[SmallCellRow]]:
    """The share of twins in rare cells beyond that of the control, in the combination that is furthest beyond chance.

    Chance deals twins and control anew between the two sides: they are exchangeable where the twins do not depend on
    who was in training.

    Args:
        divisions: The quasi-identifiers, of training patients, twins and control; without a control nothing is said.
        seed: Decides deals and resampling.
        num_resamples: Of twins and of control patients.
    """
    if not divisions:
        return Measure(NAME, TITLE, None, 0, reason=ONE_GROUP, applicable=False), []
    if len(divisions[0].levels) < 3 or len(divisions[0].levels[2]) < MIN_CONTROL:
        return Measure(NAME, TITLE, None, 0, reason=f"needs {MIN_CONTROL} patients whom training did not see"), []
    rng = generator(seed, "check", "small cells")
    num_twins, num_control = (len(divisions[0].levels[side]) for side in (1, 2))
    combined = _combinations(divisions)
    found = [_rare(keys) for keys in combined]
    rare = np.column_stack([is_rare for is_rare, _ in found]).astype(np.float64)  # (twins and control, combinations)
    side = np.repeat([True, False], [num_twins, num_control])
    excess = _excess(rare, side[None])[0]
    deals = _excess(rare, np.stack([rng.permutation(side) for _ in range(NUM_DEALS)]))
    spread = np.maximum(deals.std(axis=0), 1 / (2 * min(num_twins, num_control)))
    drawn = _resampled(rare, side, num_resamples, rng)
    usual = np.quantile(deals, LEVEL, axis=0)
    rows = []
    for number, keys in enumerate(combined):
        shares = float(rare[side, number].mean()), float(rare[~side, number].mean())
        ends = interval_around(float(excess[number]), drawn[:, number])
        name = " x ".join(one.name for one in keys)
        rows.append(SmallCellRow(name, *found[number][1], *shares, float(excess[number]), *ends, float(usual[number])))
    furthest = int((excess / spread).argmax())
    most = float(np.quantile((deals / spread).max(axis=1), LEVEL)) * float(spread[furthest])
    row = rows[furthest]
    estimate = Estimate(row.excess, row.low, row.high, 0.0, most)
    return Measure(NAME, f"{TITLE} ({row.keys})", estimate, len(rows)), rows


def _combinations(divisions: Sequence[Division]) -> list[tuple[Division, ...]]:
    """One, two and three of them together, and all."""
    sizes = range(1, min(MOST_KEYS, len(divisions)) + 1)
    found = [keys for size in sizes for keys in combinations(divisions, size)]
    return found if len(divisions) <= MOST_KEYS else [*found, tuple(divisions)]


def _rare(keys: Sequence[Division]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Who of twins and control stands in a cell of 1 to 10 training patients; the twins' cells, and the small ones."""
    sizes = [len(keys[0].levels[side]) for side in range(3)]
    cell = np.zeros(sum(sizes), np.int64)
    for one in keys:
        _, level = np.unique(np.concatenate(one.levels).astype(str), return_inverse=True)
        _, cell = np.unique(cell * (int(level.max()) + 1) + level, return_inverse=True)
    train, twins = (
        np.bincount(cell[start : start + size], minlength=int(cell.max()) + 1)
        for start, size in ((0, sizes[0]), (sizes[0], sizes[1]))
    )
    few = (train > 0) & (train < SMALLEST_CELL)
    return few[cell[sizes[0] :]], (int((twins > 0).sum()), int(((twins > 0) & (twins < SMALLEST_CELL)).sum()))


def _excess(rare: Floats, side: NDArray[np.bool_]) -> Floats:
    """Share of one side less that of the other, (deals, combinations)."""
    mine = side.astype(np.float64)
    first, second = (part @ rare / part.sum(axis=1, keepdims=True) for part in (mine, 1 - mine))
    return np.asarray(first - second)


def _resampled(rare: Floats, side: NDArray[np.bool_], number: int, rng: np.random.Generator) -> Floats:
    """The excess of resampled twins and control patients, (resamples, combinations)."""
    shares = []
    for part in (rare[side], rare[~side]):
        weights = rng.multinomial(len(part), np.full(len(part), 1 / len(part)), number)
        shares.append(weights @ part / len(part))
    return np.asarray(shares[0] - shares[1])
