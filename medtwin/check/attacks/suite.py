"""All attacks on the twins of some records, against a control of real people whom training did not see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medtwin.check.attack_rows import GroupRisk, Membership, Risk
from medtwin.check.attacks.inference import guess, guess_blindly, inference, inference_by_attribute
from medtwin.check.attacks.linkability import blind_links, linkability, links
from medtwin.check.attacks.membership import MIN_PEOPLE, membership, too_few
from medtwin.check.attacks.membership_scores import (
    density_ratio_scores,
    nearest_twin_scores,
    neighbour_ratio_scores,
)
from medtwin.check.attacks.singling_out import singling_out
from medtwin.check.attacks.table import Bools, Floats, Ints, People, Scales, attributes_of, nearest_distances, people_of
from medtwin.check.copies import longest_runs, tokens_of
from medtwin.check.near_copies import rhythm_scores
from medtwin.check.records import Records
from medtwin.check.strata import Stratification
from medtwin.core.disclosure import SMALLEST_CELL
from medtwin.core.seeds import generator

MAX_PEOPLE = 4000
"""People of a side that are attacked; beyond, they are drawn."""
WORST_SHARE = 0.1
NEAREST_TWIN = "nearest twin"
"""Distances to the closest record are told and judged by nothing."""
EVERYBODY = "", "everybody"
WORST = "worst", "the tenth that is least like others"
RARE = "worst", f"with a code that fewer than {SMALLEST_CELL} have"

Group = tuple[str, str]
Scores = tuple[Floats, Floats]
Levels = NDArray[np.object_]
Watch = Callable[[Sequence[str]], Iterable[str]]


@dataclass(frozen=True)
class ByPerson:
    """What attacks find of each person, of train and of control.

    Attributes:
        scores: By attack, (people,) each: larger where more is learned.
        hits: The attacks of which that is the share of guesses that were right.
        levels: The group of each person by division.
    """

    scores: Mapping[str, Scores]
    hits: tuple[str, ...]
    levels: Mapping[str, tuple[Levels, Levels]]


@dataclass(frozen=True)
class AttackFindings:
    """What attacks find.

    Attributes:
        risks: Of singling out, linkability and inference, of everybody.
        by_attribute: Of the inference of each attribute.
        by_group: Of linkability and inference within groups.
        memberships: Of each score in each group of people.
        num_people: Of train, twins and control that took part.
        by_person: What was found of each of them.
    """

    risks: tuple[Risk, ...]
    by_attribute: tuple[Risk, ...]
    by_group: tuple[GroupRisk, ...]
    memberships: tuple[Membership, ...]
    num_people: tuple[int, int, int]
    by_person: ByPerson = field(compare=False)


def group_name(group: Group) -> str:
    """A division and a group of it in one text; `everybody` is of no division."""
    return ": ".join(filter(None, group))


@dataclass(frozen=True)
class _Sides:
    """Train, twins and control, as records and as rows of attributes, and the groups of train and control."""

    records: Sequence[Records]
    people: Sequence[People]
    folds: Sequence[Ints]
    groups: Mapping[Group, tuple[Bools, Bools]]
    levels: Mapping[str, tuple[Levels, Levels]]


def attack(
    train: Records,
    synthetic: Records,
    control: Records,
    *,
    seed: int,
    scores: Mapping[str, Scores] | None = None,
    strata: Sequence[Stratification] = (),
    watch: Watch = lambda stages: stages,
) -> AttackFindings:
    """Every attack.

    Args:
        train: Whom the twins were learned from.
        synthetic: The twins, read with the same vocabulary.
        control: Real people whom training did not see, of the same law.
        seed: Decides draws, guesses and the reference half of the control.
        scores: Further scores of membership by name, larger where it is more likely, that know more than the twins (the
            model, say): of all of train and of all of the control.
        strata: Divisions of people within whose groups attacks are told apart.
        watch: Wraps the names of the stages; a place for a progress bar.

    Raises:
        ValueError: If one of the three holds fewer than `MIN_PEOPLE` people.
    """
    sides, rows = _sides((train, synthetic, control), strata, seed)
    risks: list[Risk] = []
    by_attribute: list[Risk] = []
    by_group: list[GroupRisk] = []
    memberships: list[Membership] = []
    by_person: dict[str, Scores] = {}
    for stage in watch(["singling out", "linkability", "inference", "membership"]):
        if stage == "singling out":
            risks += singling_out(sides.people[0], sides.people[1], sides.people[2], seed=seed)
        elif stage == "linkability":
            found, by_person["linkability"] = _linkability(sides, seed)
            risks.append(found[0].risk)
            by_group += found[1:]
        elif stage == "inference":
            guessed, by_attribute, by_person["inference"] = _inference(sides, seed)
            risks.append(guessed[0].risk)
            by_group += guessed[1:]
        else:
            given = {name: (one[0][rows[0]], one[1][rows[2]]) for name, one in (scores or {}).items()}
            scored = _membership_scores(sides, given)
            memberships = _memberships(sides, scored)
            by_person |= scored
    sizes = len(sides.people[0]), len(sides.people[1]), len(sides.people[2])
    each = ByPerson(by_person, ("linkability", "inference"), sides.levels)
    return AttackFindings(tuple(risks), tuple(by_attribute), tuple(by_group), tuple(memberships), sizes, each)


def _sides(records: Sequence[Records], strata: Sequence[Stratification], seed: int) -> tuple[_Sides, Sequence[Ints]]:
    """Who takes part, and their rows in the records that were given."""
    for name, side in zip(("train", "synthetic", "control"), records, strict=True):
        if side.num_subjects < MIN_PEOPLE:
            raise ValueError(f"{name} must hold at least {MIN_PEOPLE} people, got {side.num_subjects}")
    rng = generator(seed, "check", "attacks", "people")
    rows = [np.sort(rng.permutation(side.num_subjects)[:MAX_PEOPLE]) for side in records]
    chosen = [side.take(which) for side, which in zip(records, rows, strict=True)]
    attributes = attributes_of(records[0])
    people = [people_of(side, attributes) for side in chosen]
    folds = [rng.permutation(len(people[number])) % 2 for number in (0, 2)]
    groups = {EVERYBODY: (np.ones(len(people[0]), bool), np.ones(len(people[2]), bool))}
    groups[WORST] = _furthest(*_with_reference(people, folds, _distance_to_reference))
    groups[RARE] = _with_rare_codes(chosen[0], chosen[2])
    divided = {one.name: (one.levels(chosen[0]), one.levels(chosen[2])) for one in strata}
    for name, levels in divided.items():
        for level in sorted(set(levels[0].tolist()) & set(levels[1].tolist())):
            groups[name, level] = levels[0] == level, levels[1] == level
    return _Sides(chosen, people, folds, groups, divided), rows


def _linkability(sides: _Sides, seed: int) -> tuple[list[GroupRisk], Scores]:
    train, twins, control = sides.people
    linked = [links(side, twins, seed=seed) for side in (train, control)]
    blind = blind_links(len(train), len(twins), seed=seed)
    by_group = [
        GroupRisk(*name, _enough(linkability(linked[0][first], linked[1][second], blind[first]), first, second))
        for name, (first, second) in sides.groups.items()
    ]
    return by_group, (linked[0].astype(np.float64), linked[1].astype(np.float64))


def _inference(sides: _Sides, seed: int) -> tuple[list[GroupRisk], list[Risk], Scores]:
    train, twins, control = sides.people
    guesses = [guess(side, twins) for side in (train, control)]
    blind = guess_blindly(train, twins, seed=seed)
    by_group = []
    for name, (first, second) in sides.groups.items():
        found = inference(guesses[0].take(first), guesses[1].take(second), blind.take(first), seed=seed)
        by_group.append(GroupRisk(*name, _enough(found, first, second)))
    shares = [one.is_right.sum(axis=1) / np.maximum(one.is_known.sum(axis=1), 1) for one in guesses]
    return by_group, inference_by_attribute(guesses[0], guesses[1], blind), (shares[0], shares[1])


def _enough(risk: Risk, train: Bools, control: Bools) -> Risk:
    """The risk, unless it is of few people."""
    sizes = int(train.sum()), int(control.sum())
    if min(sizes) >= MIN_PEOPLE:
        return risk
    return Risk.unknown(risk.name, risk.title, too_few(*sizes))


def _membership_scores(sides: _Sides, given: Mapping[str, Scores]) -> dict[str, Scores]:
    train, twins, control = sides.people
    return {
        NEAREST_TWIN: (nearest_twin_scores(train, twins), nearest_twin_scores(control, twins)),
        "density ratio": _with_reference(sides.people, sides.folds, density_ratio_scores),
        "neighbour ratio": _with_reference(sides.people, sides.folds, neighbour_ratio_scores),
        "rhythms": rhythm_scores(*sides.records),
        "verbatim runs": _run_scores(sides.records),
        **given,
    }


def _memberships(sides: _Sides, found: Mapping[str, Scores]) -> list[Membership]:
    return [
        membership(name, scores[0][chosen[0]], scores[1][chosen[1]], group=group_name(group))
        for name, scores in found.items()
        for group, chosen in sides.groups.items()
    ]


def _with_reference(
    people: Sequence[People], folds: Sequence[Ints], score: Callable[[People, People, People], Floats]
) -> Scores:
    """Scores of train and control that need other real people: the half of the control that is not scored."""
    found = np.zeros(len(people[0])), np.zeros(len(people[2]))
    for fold in (0, 1):
        reference = people[2].take(np.flatnonzero(folds[1] != fold))
        for scores, side, mine in zip(found, (people[0], people[2]), folds, strict=True):
            rows = np.flatnonzero(mine == fold)
            scores[rows] = score(side.take(rows), people[1], reference)
    return found


def _distance_to_reference(people: People, twins: People, reference: People) -> Floats:
    return nearest_distances(people, reference, Scales.of(twins))


def _furthest(train: Floats, control: Floats) -> tuple[Bools, Bools]:
    bound = float(np.quantile(np.concatenate([train, control]), 1 - WORST_SHARE))
    return train >= bound, control >= bound


def _run_scores(sides: Sequence[Records]) -> Scores:
    """The longest verbatim run that each person shares with a twin, as a share of the person's events."""
    twins = tokens_of(sides[1])
    tokens = [tokens_of(sides[number]) for number in (0, 2)]
    runs = [longest_runs(one, twins) / np.maximum(one.length(), 1) for one in tokens]
    return runs[0], runs[1]


def _with_rare_codes(train: Records, control: Records) -> tuple[Bools, Bools]:
    """Who has a code that fewer than `SMALLEST_CELL` people of both sides have."""
    width = len(train.vocabulary.codes)
    has = []
    for side in (train, control):
        counts = side.counts.copy()
        counts.resize((side.num_subjects, width))
        has.append((counts > 0).astype(np.int64))
    bearers = np.asarray(has[0].sum(axis=0)).reshape(-1) + np.asarray(has[1].sum(axis=0)).reshape(-1)
    rare = ((bearers > 0) & (bearers < SMALLEST_CELL)).astype(np.int64)
    first, second = (np.asarray(one @ rare).reshape(-1) > 0 for one in has)
    return first, second
