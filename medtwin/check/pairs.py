"""Which codes stand together and which follow each other: at one time, in one subject, from one time to the next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.check.codes import unexplained_share
from medtwin.check.findings import Measure, PairRow
from medtwin.check.records import Records
from medtwin.check.resample import Plan, Sums, compare

MAX_CODES = 100
"""Codes considered: those that most real subjects have at some time."""
MAX_PAIRS = 2000
"""Pairs considered of each kind: the most frequent real ones."""
MIN_SUBJECTS = 11
"""Real subjects in whom a pair must occur."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """Which of the chosen codes stand in which step, (steps, codes), and whose step it is, (steps,)."""

    present: Bools
    subject: Ints
    num_subjects: int

    @property
    def starts(self) -> Ints:
        """First step of every subject that has one."""
        return np.flatnonzero(np.r_[True, self.subject[1:] != self.subject[:-1]]) if len(self.subject) else self.subject


def make_grid(records: Records, codes: Ints) -> Grid:
    """The steps of some subjects, for some codes."""
    steps = records.steps
    column = np.full(len(records.vocabulary.codes), -1)
    column[codes] = np.arange(len(codes))
    which = column[records.code[steps.event]]
    present = np.zeros((len(steps.subject), len(codes)), dtype=bool)
    present[steps.step[which >= 0], which[which >= 0]] = True
    return Grid(present, steps.subject, records.num_subjects)


def pair_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan
) -> tuple[list[Measure], list[PairRow]]:
    """R2 and errors of the three kinds of pairs, and their rows."""
    codes = _common_codes(real)
    grids = [make_grid(side, codes) for side in (real, synthetic, control) if side is not None]
    names = [real.vocabulary.names[code] for code in codes]
    measures: list[Measure] = []
    rows: list[PairRow] = []
    kinds = (("together", _together), ("within-subject", _within_subject), ("next", _follow))
    titles = {
        "together": "Pairs of codes at one time",
        "within-subject": "Pairs of codes in one subject",
        "next": "Pairs of codes from one time to the next",
    }
    for kind, count in kinds:
        family = {"together": "together", "within-subject": "within_subject", "next": "transitions"}[kind]
        pairs = _frequent_pairs(grids[0], kind)
        features = [count(grid, pairs) for grid in grids]
        kept = np.flatnonzero((features[0][:, :-1] > 0).sum(axis=0) >= MIN_SUBJECTS)
        if len(kept) < 2:
            reason = f"fewer than 2 pairs occur in {MIN_SUBJECTS} real subjects"
            measures.append(Measure(f"{family}.log_ratio", titles[kind], None, len(kept), reason=reason))
            continue
        columns = np.append(kept, len(pairs))
        features = [one[:, columns] for one in features]
        measures += _measures(family, titles[kind], features, plan)
        shares = [_shares(one.sum(axis=0, keepdims=True, dtype=np.float64))[0] for one in features[:2]]
        rows += [
            PairRow(kind, names[a], names[b], float(first), float(second))  # type: ignore[arg-type]
            for (a, b), first, second in zip(pairs[kept], *shares, strict=True)
        ]
    return measures, rows


def _measures(family: str, title: str, features: list[NDArray[np.float32]], plan: Plan) -> list[Measure]:
    third = features[2] if len(features) > 2 else None

    def log_ratio(first: Sums, second: Sums) -> Floats:
        ratio = np.log(_smooth_shares(second) / _smooth_shares(first))
        return np.asarray(np.abs(ratio).mean(axis=1))

    def error(first: Sums, second: Sums) -> Floats:
        return np.asarray(np.abs(_shares(first) - _shares(second)).mean(axis=1))

    def unexplained(first: Sums, second: Sums) -> Floats:
        return unexplained_share(_shares(first), _shares(second))

    num_pairs = features[0].shape[1] - 1
    two = (features[0], features[1], third)
    return [
        Measure(
            f"{family}.log_ratio",
            f"{title}: mean absolute log ratio",
            compare(plan, *two, log_ratio).estimate(plan),
            num_pairs,
        ),
        Measure(
            f"{family}.error", f"{title}: mean absolute error", compare(plan, *two, error).estimate(plan), num_pairs
        ),
        Measure(
            f"{family}.r2",
            f"{title}: R\N{SUPERSCRIPT TWO}",
            compare(plan, *two, unexplained).estimate(plan, power=2).complement(),
            num_pairs,
            "higher",
        ),
    ]


def _shares(sums: Sums) -> Floats:
    return np.asarray(sums[:, :-1] / np.maximum(sums[:, -1:], 1))


def _smooth_shares(sums: Sums) -> Floats:
    return np.asarray((sums[:, :-1] + 0.5) / (sums[:, -1:] + 1))


def _common_codes(real: Records) -> Ints:
    """The dated codes that most real subjects have, at most `MAX_CODES`."""
    steps = real.steps
    num_codes = len(real.vocabulary.codes)
    once = np.unique(real.subject[steps.event] * num_codes + real.code[steps.event]) % num_codes
    count = np.bincount(once, minlength=num_codes)
    order = np.argsort(-count, kind="stable")[:MAX_CODES]
    return np.sort(order[count[order] > 0])


def _frequent_pairs(grid: Grid, kind: str) -> Ints:
    """The pairs (first, second) that occur in most steps or subjects, (pairs, 2), at most `MAX_PAIRS`."""
    if kind == "within-subject":
        seen = np.minimum(_by_subject(grid, grid.present), 1).astype(np.float32)
        first, second = seen, seen
    elif kind == "together":
        first = second = grid.present.astype(np.float32)
    else:
        before, after = _lagged(grid)
        first, second = before.astype(np.float32), after.astype(np.float32)
    count = first.T @ second
    if kind != "next":
        count = np.triu(count, 1)
    order = np.argsort(-count, axis=None, kind="stable")[:MAX_PAIRS]
    order = order[count.ravel()[order] > 0]
    return np.column_stack(np.unravel_index(order, count.shape))


def _lagged(grid: Grid) -> tuple[Bools, Bools]:
    same = grid.subject[1:] == grid.subject[:-1]
    return grid.present[:-1][same], grid.present[1:][same]


def _by_subject(grid: Grid, steps: Bools) -> NDArray[np.float32]:
    """Sums over the steps of each subject, (subjects, columns)."""
    sums = np.zeros((grid.num_subjects, steps.shape[1]), np.float32)
    if len(steps):
        sums[grid.subject[grid.starts]] = np.add.reduceat(steps, grid.starts, axis=0, dtype=np.float32)
    return sums


def _together(grid: Grid, pairs: Ints) -> NDArray[np.float32]:
    """Steps of each subject with both codes, (subjects, pairs); the last column counts the steps."""
    columns = grid.present.T.copy()
    return _count(grid, (columns[a] & columns[b] for a, b in pairs), len(pairs))


def _follow(grid: Grid, pairs: Ints) -> NDArray[np.float32]:
    """Steps of each subject with the first code whose next step has the second; the last column counts the steps."""
    same = np.r_[grid.subject[1:] == grid.subject[:-1], False] if len(grid.subject) else np.zeros(0, bool)
    before = (grid.present & same[:, None]).T.copy()
    after = np.roll(grid.present, -1, axis=0).T.copy()
    return _count(grid, (before[a] & after[b] for a, b in pairs), len(pairs))


def _count(grid: Grid, hits: Iterable[Bools], num_pairs: int) -> NDArray[np.float32]:
    features = np.zeros((grid.num_subjects, num_pairs + 1), np.float32)
    if not len(grid.subject):
        return features
    whose = grid.subject[grid.starts]
    for number, hit in enumerate(hits):
        features[whose, number] = np.add.reduceat(hit, grid.starts, dtype=np.int64)
    features[:, -1] = np.bincount(grid.subject, minlength=grid.num_subjects)
    return features


def _within_subject(grid: Grid, pairs: Ints) -> NDArray[np.float32]:
    """Whether each subject has both codes at some time, (subjects, pairs); the last column is 1."""
    seen = _by_subject(grid, grid.present) > 0
    both = seen[:, pairs[:, 0]] & seen[:, pairs[:, 1]]
    return np.column_stack([both, np.ones(grid.num_subjects)]).astype(np.float32)
