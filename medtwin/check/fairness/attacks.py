"""Whether attacks learn more of one group of training patients than of all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.check.attacks.membership import MIN_PEOPLE
from medtwin.check.attacks.suite import NEAREST_TWIN, ByPerson
from medtwin.check.estimates import Measure
from medtwin.check.fairness.frames import group_and_rest
from medtwin.check.fairness.gaps import Gap, worst_gap
from medtwin.check.fairness.groups import ONE_GROUP, Division, divided, too_few
from medtwin.check.fairness.settings import Fairness
from medtwin.check.group_rows import FairnessRow
from medtwin.check.resample import NUM_RESAMPLES, subject_weights
from medtwin.check.scores import auroc
from medtwin.core.seeds import generator

NAME = "fairness.attacks"
TITLE = "What an attack gains of the group of which it gains most, beyond what it gains of all others"

Floats = NDArray[np.float64]
Gained = Callable[[Floats, NDArray[np.bool_], NDArray[np.float32]], Floats]


def no_fair_attacks(reason: str) -> Measure:
    """The measure of a check without attacks."""
    return Measure(NAME, TITLE, None, 0, reason=reason)


def attacks_by_group(
    by_person: ByPerson,
    settings: Fairness,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[Measure, list[FairnessRow]]:
    """What every attack gains in every group, the measure of the worst, and rows.

    Gained is (right of training - right of others) / (1 - right of others) of an attack that is right or wrong, and of
    a score of membership 2 AUROC - 1: 0 of harmless twins, 1 where everybody of the group is found.

    Args:
        by_person: What each attack found of each training patient and of each other one, and their groups.
        settings: The floor, of training patients; of patients whom training did not see `MIN_PEOPLE` are needed.
        seed: Decides the resampling.
        num_resamples: Of patients.
    """
    divisions = divided(by_person.levels)
    scores = {name: pair for name, pair in by_person.scores.items() if name != NEAREST_TWIN}
    rows: list[FairnessRow] = []
    gaps: list[Gap] = []
    if scores:
        people = _People.of(next(iter(scores.values())), num_resamples, seed)
        for division in divisions:
            judged, unjudged = _judged(division, list(scores), settings)
            rows += unjudged
            for name, pair in scores.items():
                found = np.concatenate(pair).astype(np.float64)
                gained = gained_by_hits if name in by_person.hits else gained_by_score
                gaps += _gaps(name, division, judged, people, found, gained)
    rows += [one.row() for one in gaps]
    reason = f"no group has {settings.floor} training patients and {MIN_PEOPLE} others"
    return worst_gap(NAME, TITLE, gaps, reason if divisions else ONE_GROUP, applicable=bool(divisions)), rows


@dataclass(frozen=True)
class _People:
    """Training patients and others in one row, and how often each is drawn."""

    is_train: NDArray[np.bool_]
    weights: NDArray[np.float32]

    @staticmethod
    def of(pair: tuple[Floats, Floats], num_resamples: int, seed: int) -> _People:
        rng = generator(seed, "check", "fairness", "attacks")
        weights = [subject_weights(np.arange(len(side)), num_resamples, rng) for side in pair]
        return _People(np.repeat([True, False], [len(side) for side in pair]), np.hstack(weights))


def _judged(
    division: Division, names: Sequence[str], settings: Fairness
) -> tuple[list[tuple[str, tuple[int, int]]], list[FairnessRow]]:
    """The groups that are large enough, with their sizes, and rows of the others."""
    judged, rows = [], []
    floors, who = (settings.floor, MIN_PEOPLE), ("training patients", "patients whom training did not see")
    for group in division.groups:
        sizes = division.size(group, 0), division.size(group, 1)
        if reason := too_few(division, group, floors, who):
            rows += [FairnessRow(name, division.name, group, *sizes, reason=reason) for name in names]
        else:
            judged.append((group, sizes))
    return judged, rows


def _gaps(
    name: str,
    division: Division,
    judged: Sequence[tuple[str, tuple[int, int]]],
    people: _People,
    found: Floats,
    gained: Gained,
) -> list[Gap]:
    """What one attack gains in each group, beside what it gains of all others."""
    level = np.concatenate(division.levels)
    is_train, weights = people.is_train, people.weights

    def once(truth: NDArray[np.bool_], said: Floats) -> float:
        return float(gained(np.asarray(said), np.asarray(truth, bool), weights[:1, : len(said)])[0])

    gaps = []
    for group, sizes in judged:
        mine = level == group
        value, reference = group_and_rest(once, is_train, found, mine)
        draws, others = (gained(found[who], is_train[who], weights[:, who])[1:] for who in (mine, ~mine))
        noise = max(float(np.nanstd(draws - others)), 1 / (2 * min(sizes)))
        gaps.append(Gap(name, division.name, group, sizes, value, reference, draws, others, noise))
    return gaps


def gained_by_hits(found: Floats, is_train: NDArray[np.bool_], weights: NDArray[np.float32]) -> Floats:
    """(right of training - right of others) / (1 - right of others), (draws,); 0 where others are found as well.

    >>> gained_by_hits(np.array([1.0, 0.0, 0.0, 0.0]), np.array([True, True, False, False]), np.ones((1, 4))).tolist()
    [0.5]
    """
    rates = []
    for side in (is_train, ~is_train):
        total = weights[:, side].sum(axis=1)
        rates.append(weights[:, side] @ found[side] / np.where(total > 0, total, np.nan))
    missed = 1 - rates[1]
    return np.where(missed > 0, (rates[0] - rates[1]) / np.where(missed > 0, missed, 1.0), 0.0)


def gained_by_score(found: Floats, is_train: NDArray[np.bool_], weights: NDArray[np.float32]) -> Floats:
    """2 AUROC - 1 of telling training patients from others, (draws,)."""
    return 2 * auroc(found, is_train, weights) - 1
