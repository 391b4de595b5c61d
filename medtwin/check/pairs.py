"""Which codes stand together and which follow each other: at one time, in one encounter or subject, times apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medtwin.check.codes import unexplained_share
from medtwin.check.estimates import Measure
from medtwin.check.findings import LagRow, PairRow
from medtwin.check.records import Records
from medtwin.check.resample import Draws, Plan, Sums, average, compare
from medtwin.core.codes import BIRTH

MAX_CODES = 100
"""Codes considered: those that most real subjects have at some time."""
MAX_PAIRS = 2000
"""Pairs considered of each kind: the most frequent real ones."""
MIN_SUBJECTS = 11
"""Real subjects in whom a pair must occur."""
LAGS = (1, 2, 3, 4, 5)
"""How many times apart two codes may stand; the measure over lags leaves out the first, which is `transitions`."""

_BLOCK = 1 << 16
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Kind: TypeAlias = Literal["together", "within-subject", "next", "encounter"]
_FAMILIES: dict[Kind, tuple[str, str]] = {
    "together": ("together", "Pairs of codes at one time"),
    "within-subject": ("within_subject", "Pairs of codes in one subject"),
    "next": ("transitions", "Pairs of codes from one time to the next"),
    "encounter": ("encounter", "Pairs of codes in one encounter"),
}


@dataclass(frozen=True)
class Grid:
    """Which of the chosen codes stand in which step, (steps, codes), and whose step it is, (steps,), ascending."""

    present: Bools
    subject: Ints
    num_subjects: int

    @property
    def starts(self) -> Ints:
        """First step of every subject that has one."""
        return np.flatnonzero(np.r_[True, self.subject[1:] != self.subject[:-1]]) if len(self.subject) else self.subject

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Each subject that has a step, and its rows of `present` as numbers, (steps, codes)."""
        starts = self.starts
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(self.subject)], strict=False):
            yield int(self.subject[start]), self.present[start:stop].astype(np.float32)


def make_grid(records: Records, codes: Ints) -> Grid:
    """The steps of some subjects, for some codes."""
    steps = records.steps
    return _grid(records, codes, steps.event, steps.step, steps.subject)


def make_encounter_grid(records: Records, codes: Ints) -> Grid:
    """The encounters of some subjects in the place of their steps, for some codes."""
    event = _in_encounters(records)
    event = event[np.lexsort((records.encounter[event], records.subject[event]))]
    subject, encounter = records.subject[event], records.encounter[event]
    is_new = np.ones(len(event), dtype=bool)
    is_new[1:] = (subject[1:] != subject[:-1]) | (encounter[1:] != encounter[:-1])
    return _grid(records, codes, event, np.cumsum(is_new) - 1, subject[is_new])


def _grid(records: Records, codes: Ints, event: Ints, step: Ints, subject: Ints) -> Grid:
    column = np.full(len(records.vocabulary.codes), -1)
    column[codes] = np.arange(len(codes))
    which = column[records.code[event]]
    present = np.zeros((len(subject), len(codes)), dtype=bool)
    present[step[which >= 0], which[which >= 0]] = True
    return Grid(present, subject, records.num_subjects)


def _in_encounters(records: Records) -> Ints:
    """Rows of the events that belong to an encounter, dated or not."""
    return np.flatnonzero((records.encounter >= 0) & (records.code != records.vocabulary.codes.get(BIRTH, -1)))


def pair_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan
) -> tuple[list[Measure], list[PairRow]]:
    """R2 and errors of the pairs at one time, in one subject and from one time to the next, and their rows."""
    codes = _common_codes(real, real.steps.event)
    grids = [make_grid(side, codes) for side in (real, synthetic, control) if side is not None]
    names = [real.vocabulary.names[code] for code in codes]
    measures: list[Measure] = []
    rows: list[PairRow] = []
    kinds: tuple[Kind, ...] = ("together", "within-subject", "next")
    for kind in kinds:
        found = _kind_measures(kind, grids, names, plan)
        measures += found[0]
        rows += found[1]
    return measures, rows


def encounter_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan
) -> tuple[list[Measure], list[PairRow]]:
    """R2 and errors of the pairs of codes in one encounter, and their rows.

    An encounter without a code considered counts as one; events outside of encounters do not. Not applicable where the
    real subjects have no encounters; where only the twins have none, each pair is as rare as can be.
    """
    family, title = _FAMILIES["encounter"]
    event = _in_encounters(real)
    if not len(event):
        reason = "the real events belong to no encounters"
        return [Measure(f"{family}.log_ratio", title, None, 0, reason=reason, applicable=False)], []
    codes = _common_codes(real, event)
    grids = [make_encounter_grid(side, codes) for side in (real, synthetic, control) if side is not None]
    return _kind_measures("encounter", grids, [real.vocabulary.names[code] for code in codes], plan)


def lag_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan
) -> tuple[list[Measure], list[LagRow]]:
    """The error of the pairs of codes that stand 2 to 5 times apart, and one row for each lag from 1 on.

    A model that only knows what comes next keeps `transitions` and loses these. The measure is the mean over lags of
    the mean absolute log ratio over pairs; of each lag the most frequent real pairs are considered.
    """
    name, title = "transitions.lags", f"Pairs of codes 2 to {LAGS[-1]} times apart: mean absolute log ratio"
    codes = _common_codes(real, real.steps.event)
    grids = [make_grid(side, codes) for side in (real, synthetic, control) if side is not None]
    draws: list[Draws] = []
    rows: list[LagRow] = []
    for lag in LAGS:
        pairs, features = _paired("next", grids, lag)
        if len(pairs) < 2:
            continue
        drawn = _log_ratio_draws(features, plan)
        rows.append(LagRow(lag, len(pairs), drawn.estimate(plan)))
        if lag > 1:
            draws.append(drawn)
    if not draws:
        reason = f"fewer than 2 pairs of codes 2 times apart occur in {MIN_SUBJECTS} real subjects"
        return [Measure(name, title, None, 0, reason=reason, applicable=_has_three_steps(grids[0]))], rows
    return [
        Measure(name, title, average(draws).estimate(plan), sum(row.num_pairs for row in rows if row.lag > 1))
    ], rows


def _has_three_steps(grid: Grid) -> bool:
    return bool((np.bincount(grid.subject, minlength=1) >= 3).any())


def _paired(kind: Kind, grids: Sequence[Grid], lag: int = 1) -> tuple[Ints, list[NDArray[np.float32]]]:
    """The frequent pairs, (pairs, 2), that enough real subjects have, and the features of all sides."""
    pairs = _frequent_pairs(grids[0], kind, lag)
    features = [_features(kind, grid, pairs, lag) for grid in grids]
    kept = np.flatnonzero((features[0][:, :-1] > 0).sum(axis=0) >= MIN_SUBJECTS)
    columns = np.append(kept, len(pairs))
    return pairs[kept], [one[:, columns] for one in features]


def _features(kind: Kind, grid: Grid, pairs: Ints, lag: int) -> NDArray[np.float32]:
    if kind == "within-subject":
        return _within_subject(grid, pairs)
    return _follow(grid, pairs, lag) if kind == "next" else _together(grid, pairs)


def _kind_measures(
    kind: Kind, grids: Sequence[Grid], names: Sequence[str], plan: Plan
) -> tuple[list[Measure], list[PairRow]]:
    family, title = _FAMILIES[kind]
    pairs, features = _paired(kind, grids)
    if len(pairs) < 2:
        reason = f"fewer than 2 pairs occur in {MIN_SUBJECTS} real subjects"
        return [Measure(f"{family}.log_ratio", title, None, len(pairs), reason=reason)], []
    shares = [_shares(one.sum(axis=0, keepdims=True, dtype=np.float64))[0] for one in features[:2]]
    rows = [
        PairRow(kind, names[a], names[b], float(first), float(second))
        for (a, b), first, second in zip(pairs, *shares, strict=True)
    ]
    return _measures(family, title, features, plan), rows


def _log_ratio_draws(features: Sequence[NDArray[np.float32]], plan: Plan) -> Draws:
    """Mean absolute log ratio of the shares of steps, over pairs."""

    def distance(first: Sums, second: Sums) -> Floats:
        ratio = np.log(_smooth_shares(second, first) / _smooth_shares(first, second))
        return np.asarray(np.abs(ratio).mean(axis=1))

    return compare(plan, features[0], features[1], features[2] if len(features) > 2 else None, distance)


def _measures(family: str, title: str, features: Sequence[NDArray[np.float32]], plan: Plan) -> list[Measure]:
    def error(first: Sums, second: Sums) -> Floats:
        return np.asarray(np.abs(_shares(first) - _shares(second)).mean(axis=1))

    def unexplained(first: Sums, second: Sums) -> Floats:
        return unexplained_share(_shares(first), _shares(second))

    num_pairs = features[0].shape[1] - 1
    sides = (features[0], features[1], features[2] if len(features) > 2 else None)
    return [
        Measure(
            f"{family}.log_ratio",
            f"{title}: mean absolute log ratio",
            _log_ratio_draws(features, plan).estimate(plan),
            num_pairs,
        ),
        Measure(
            f"{family}.error", f"{title}: mean absolute error", compare(plan, *sides, error).estimate(plan), num_pairs
        ),
        Measure(
            f"{family}.r2",
            f"{title}: R\N{SUPERSCRIPT TWO}",
            compare(plan, *sides, unexplained).estimate(plan, power=2).complement(),
            num_pairs,
            "higher",
        ),
    ]


def _shares(sums: Sums) -> Floats:
    return np.asarray(sums[:, :-1] / np.maximum(sums[:, -1:], 1))


def _smooth_shares(sums: Sums, other: Sums) -> Floats:
    """Shares with half a step added; a side without steps counts as half a pair in as many steps as the other has."""
    total = np.where(sums[:, -1:] > 0, sums[:, -1:], other[:, -1:])
    return np.asarray((sums[:, :-1] + 0.5) / (total + 1))


def _common_codes(real: Records, event: Ints) -> Ints:
    """The codes that most real subjects have among some events, at most `MAX_CODES`."""
    num_codes = len(real.vocabulary.codes)
    once = np.unique(real.subject[event] * num_codes + real.code[event]) % max(num_codes, 1)
    count = np.bincount(once, minlength=num_codes)
    order = np.argsort(-count, kind="stable")[:MAX_CODES]
    return np.sort(order[count[order] > 0])


def _frequent_pairs(grid: Grid, kind: Kind, lag: int = 1) -> Ints:
    """The pairs (first, second) that occur in most steps or subjects, (pairs, 2), at most `MAX_PAIRS`."""
    if kind == "within-subject":
        seen = _seen(grid).astype(np.float32)
        count = np.asarray(seen.T @ seen, np.float64)
    else:
        count = _pair_counts(grid, lag if kind == "next" else 0)
    if kind != "next":
        count = np.triu(count, 1)
    order = np.argsort(-count, axis=None, kind="stable")[:MAX_PAIRS]
    order = order[count.ravel()[order] > 0]
    return np.column_stack(np.unravel_index(order, count.shape))


def _pair_counts(grid: Grid, lag: int) -> Floats:
    """Steps with the first code whose step `lag` later, of the same subject, has the second, (codes, codes)."""
    num_codes = grid.present.shape[1]
    count = np.zeros((num_codes, num_codes))
    for start in range(0, len(grid.subject) - lag, _BLOCK):
        stop = min(start + _BLOCK, len(grid.subject) - lag)
        same = grid.subject[start:stop] == grid.subject[start + lag : stop + lag]
        before = grid.present[start:stop][same].astype(np.float32)
        after = grid.present[start + lag : stop + lag][same].astype(np.float32)
        count += before.T @ after
    return count


def _seen(grid: Grid) -> Bools:
    """Which codes a subject has at some time, (subjects, codes)."""
    seen = np.zeros((grid.num_subjects, grid.present.shape[1]), dtype=bool)
    if len(grid.subject):
        starts = grid.starts
        seen[grid.subject[starts]] = np.logical_or.reduceat(grid.present, starts, axis=0)
    return seen


def _together(grid: Grid, pairs: Ints) -> NDArray[np.float32]:
    """Steps of each subject with both codes, (subjects, pairs); the last column counts the steps."""
    return _count(grid, pairs, 0)


def _follow(grid: Grid, pairs: Ints, lag: int = 1) -> NDArray[np.float32]:
    """Steps of each subject with the first code whose step `lag` later has the second; the last counts the steps."""
    return _count(grid, pairs, lag)


def _count(grid: Grid, pairs: Ints, lag: int) -> NDArray[np.float32]:
    """One small matrix product per subject: the time goes with the steps, whatever the number of pairs."""
    num_codes, num_pairs = grid.present.shape[1], len(pairs)
    features = np.zeros((grid.num_subjects, num_pairs + 1), np.float32)
    cell = pairs[:, 0] * num_codes + pairs[:, 1]
    for subject, present in grid.blocks():
        if len(present) > lag:
            counts = present[: len(present) - lag].T @ present[lag:]
            features[subject, :-1] = counts.ravel()[cell]
    features[:, -1] = np.bincount(grid.subject, minlength=grid.num_subjects)
    return features


def _within_subject(grid: Grid, pairs: Ints) -> NDArray[np.float32]:
    """Whether each subject has both codes at some time, (subjects, pairs); the last column is 1."""
    seen = _seen(grid)
    both = seen[:, pairs[:, 0]] & seen[:, pairs[:, 1]]
    return np.column_stack([both, np.ones(grid.num_subjects)]).astype(np.float32)
