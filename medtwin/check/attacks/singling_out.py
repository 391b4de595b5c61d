"""Singling out: whether what is unique among the twins is true of exactly one real person.

Predicates are not independent of each other: a person who is unlike all others is singled out by many of them. The
interval is therefore from resampling people, not predicates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.stats import norm

from medtwin.check.attack_rows import Attempts, Risk
from medtwin.check.attacks.risk import MOST_SCALE, excess_risk
from medtwin.check.attacks.table import Bools, Floats, Ints, People
from medtwin.check.estimates import LEVEL
from medtwin.core.seeds import generator

TITLES = {
    "singling_out.one": "A value that one twin alone has, or an extreme one, is true of exactly one patient",
    "singling_out.several": "What a few attributes say of one twin alone is true of exactly one patient",
}
NUM_COLUMNS = 16
"""Attributes of a predicate of several: so many that hardly anybody matches by chance, which makes the risk precise."""
MAX_TRIES = 20
"""Predicates of several attributes that are made for each that is asked for, most being true of many twins."""
NUM_HALVES = 200
"""Halves of the people behind an interval."""

Operator = Literal["is", "at most", "at least"]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on one attribute; a value that is NaN asks for those of whom it is unknown."""

    column: int
    operator: Operator
    value: float

    def holds(self, people: People) -> Bools:
        """Of whom it holds, (people,)."""
        values = people.values[:, self.column]
        if np.isnan(self.value):
            return np.asarray(np.isnan(values))
        if self.operator == "is":
            return np.asarray(values == self.value)
        return np.asarray(values <= self.value if self.operator == "at most" else values >= self.value)


Predicate = tuple[Condition, ...]


def num_matches(predicate: Predicate, people: People) -> int:
    """Of how many people all conditions hold."""
    return int(matches_of([predicate], people).sum())


def singling_out(
    train: People,
    synthetic: People,
    control: People,
    *,
    seed: int,
    num_attacks: int = 2000,
    num_columns: int = NUM_COLUMNS,
) -> list[Risk]:
    """The risks of predicates of one attribute and of several.

    Of how many people a predicate holds depends on how many there are. Where train is larger than the control, as many
    of train are drawn, among whom only their share of the copied ones can be found, and the risk is scaled up by it; of
    several attributes that is a lower estimate where most of train is copied.

    The interval is the wider one of two: of independent predicates (`excess_risk`), and of people, by how much the risk
    scatters over random halves of both sides and resampled twins.

    Args:
        train: Whom the twins were learned from.
        synthetic: The twins.
        control: Others of the same law.
        seed: Decides who is drawn, and the predicates.
        num_attacks: Predicates of each kind at most.
        num_columns: Attributes of a predicate of several.

    Source: Giomi et al. 2023, Proc Priv Enhanc Technol 2023(2):312, section 5.1; Cohen & Nissim 2020, Proc Natl
    Acad Sci 117:8344. Half-samples: McCarthy 1969, Rev Int Stat Inst 37:239.
    """
    rng = generator(seed, "check", "attacks", "singling out")
    size = min(len(train), len(control))
    scale = len(train) / size if size else np.inf
    if scale > MOST_SCALE:
        reason = f"{len(train)} training subjects against {len(control)} of the control: too few of these"
        return [Risk.unknown(name, title, reason) for name, title in TITLES.items()]
    sides = [side.take(np.sort(rng.permutation(len(side))[:size])) for side in (train, control)]
    one = univariate_predicates(synthetic, rng, num_attacks)
    several = multivariate_predicates(synthetic, rng, num_attacks, num_columns)
    blind = [_naive(synthetic, rng, width, num_attacks) for width in (1, num_columns)]
    found = []
    for (name, title), predicates, naive in zip(TITLES.items(), (one, several), blind, strict=True):
        matches = [matches_of(predicates, side) for side in sides]
        hits = [_hits(each) for each in matches]
        risk = excess_risk(name, title, *hits, naive=_hits(matches_of(naive, sides[0])), scale=scale)
        twins = matches_of(predicates, synthetic).argmax(axis=1)
        found.append(_widened(risk, matches, twins, rng))
    return found


def matches_of(predicates: list[Predicate], people: People) -> Bools:
    """Of whom each predicate holds, (predicates, people)."""
    found = np.zeros((len(predicates), len(people)), bool)
    for row, predicate in zip(found, predicates, strict=True):
        np.logical_and.reduce([one.holds(people) for one in predicate], out=row)
    return found


def _hits(matches: Bools) -> Attempts:
    return Attempts(int((matches.sum(axis=1) == 1).sum()), len(matches))


def _widened(risk: Risk, matches: list[Bools], twins: Ints, rng: np.random.Generator) -> Risk:
    """The risk with an interval that is wide enough for the people that there are."""
    if risk.risk is None or risk.low is None or risk.high is None:
        return risk
    rates = [_half_rates(each, twins, rng) for each in matches]
    kept = rates[1] < 1
    gains = risk.scale * (rates[0][kept] - rates[1][kept]) / (1 - rates[1][kept])
    reach = float(norm.ppf((1 + LEVEL) / 2)) * float(np.std(gains))
    return replace(risk, low=min(risk.low, risk.risk - reach), high=min(max(risk.high, risk.risk + reach), 1.0))


def _half_rates(matches: Bools, twins: Ints, rng: np.random.Generator) -> Floats:
    """Share of the predicates that single out one of a half of the people, (halves,), the twins drawn with return."""
    people = matches.shape[1]
    chosen = np.zeros((people, NUM_HALVES), np.float32)
    for column in range(NUM_HALVES):
        chosen[rng.permutation(people)[: people // 2], column] = 1
    is_hit = np.rint(matches.astype(np.float32) @ chosen) == 1
    _, twin = np.unique(twins, return_inverse=True)
    number = int(twin.max()) + 1
    weights = rng.multinomial(number, np.full(number, 1 / number), NUM_HALVES)[:, twin].T
    return np.asarray((is_hit * weights).sum(axis=0) / np.maximum(weights.sum(axis=0), 1), np.float64)


def univariate_predicates(synthetic: People, rng: np.random.Generator, num: int) -> list[Predicate]:
    """At most so many predicates of one attribute that hold of exactly one twin, drawn from all of them."""
    found: list[Predicate] = []
    for column in range(len(synthetic.names)):
        values = synthetic.values[:, column]
        known = values[~np.isnan(values)]
        if len(values) - len(known) == 1:
            found.append((Condition(column, "is", np.nan),))
        if not len(known):
            continue
        single, count = np.unique(known, return_counts=True)
        found += [(Condition(column, "is", value),) for value in single[count == 1].tolist()]
        if not synthetic.is_category[column]:
            ends: tuple[tuple[Operator, float, int], ...] = (
                ("at most", float(single[0]), int(count[0])),
                ("at least", float(single[-1]), int(count[-1])),
            )
            found += [(Condition(column, operator, value),) for operator, value, times in ends if times == 1]
    return [found[i] for i in rng.permutation(len(found))[:num]]


def multivariate_predicates(synthetic: People, rng: np.random.Generator, num: int, num_columns: int) -> list[Predicate]:
    """At most so many predicates of several attributes of one twin that hold of no other.

    Of a number above the median, at least that much; of another, at most; of a category, that one.
    """
    width = min(num_columns, len(synthetic.names))
    middle = _medians(synthetic)
    found: dict[Predicate, None] = {}
    for _ in range(MAX_TRIES * num):
        if len(found) == num or not len(synthetic):
            break
        row = int(rng.integers(len(synthetic)))
        columns = rng.choice(len(synthetic.names), size=width, replace=False)
        predicate = tuple(_condition(synthetic, row, column, middle) for column in sorted(columns.tolist()))
        if predicate not in found and num_matches(predicate, synthetic) == 1:
            found[predicate] = None
    return list(found)


def _medians(people: People) -> Floats:
    """The median of the known values of each attribute, (attributes,); NaN of none."""
    columns = (column[~np.isnan(column)] for column in people.values.T)
    return np.array([np.median(known) if len(known) else np.nan for known in columns])


def _condition(people: People, row: int, column: int, middle: Floats) -> Condition:
    value = float(people.values[row, column])
    if np.isnan(value):
        return Condition(column, "is", np.nan)
    if people.is_category[column]:
        return Condition(column, "is", value)
    return Condition(column, "at least" if value > middle[column] else "at most", value)


def _naive(synthetic: People, rng: np.random.Generator, width: int, num: int) -> list[Predicate]:
    """Predicates that know the range of each attribute only."""
    columns = min(width, len(synthetic.names))
    found: list[Predicate] = []
    operators: tuple[Operator, Operator] = ("at most", "at least")
    for _ in range(num):
        conditions = []
        for column in rng.choice(len(synthetic.names), size=columns, replace=False).tolist():
            known = synthetic.values[:, column]
            known = known[~np.isnan(known)]
            if not len(known):
                conditions.append(Condition(column, "is", np.nan))
            elif synthetic.is_category[column]:
                conditions.append(Condition(column, "is", float(rng.choice(np.unique(known)))))
            else:
                value = float(rng.uniform(known.min(), known.max()))
                conditions.append(Condition(column, operators[int(rng.integers(2))], value))
        found.append(tuple(conditions))
    return found
