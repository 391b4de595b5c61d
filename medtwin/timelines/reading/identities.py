"""Numbers that follow from each other: which identities the training subjects keep, and how closely.

A filtration rate follows from creatinine, a body mass index from height and weight. Candidates are stated (the rules
that `check` judges by); what counts is whether training subjects keep them, since another laboratory may compute
otherwise. The number of a moment that completes an identity is then drawn within the bounds that the others leave, and
the number before it so that they leave some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.core.formulas import Formula, parse_formula
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR
from medtwin.timelines.reading.scales import Scale
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.vocabulary import Vocabulary

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_MINUTES_PER_HOUR = 60.0
# An identity holds where at most so many of at least so many moments break it; its bounds leave out so many on a side.
_MOST_BROKEN, _LEAST_MOMENTS, _TAIL = 0.001, 30, 0.001
_MOST_ALONE = 0.01  # of the moments at which all but the last are known, so many may go without it
_MOST_KEPT = 20_000  # moments whose numbers are kept, of each identity
_BELOW = 1 - 1e-4  # what is to be below is not equal
_RELATIONS = ("equals", "at-most", "below")
_OF_THE_SUBJECT = {"age", "female"}
_BISECTIONS, _ROUGH, _NEAR = 24, 14, 1e-6  # rough where a number is still to follow


@dataclass(frozen=True)
class Identity:
    """An identity, seen from the number that completes it, or from the one before that.

    Attributes:
        rule: Its name. last: The input that is drawn; all others are known.
        tokens: By input, the tokens that give it.
        within_minutes: By input, how old its latest number may be; 0: said in the same step.
        left, relation, right: The formulas and how they compare.
        tolerance, tolerance_share: By how much they may differ: a number, and a share of the right side.
        ages: Youngest and oldest age of whom it is about, years; None: no end.
        low, high: Least and largest `off` of training subjects; of an inequality: none, and 1.
        follows: An input that is not known yet, and completes the identity in the same step; None: none.
        follows_range: Least and largest number that it may be.
    """

    rule: str
    last: str
    tokens: Mapping[str, tuple[int, ...]]
    within_minutes: Mapping[str, float]
    left: str
    relation: str
    right: str
    tolerance: float
    tolerance_share: float
    ages: tuple[float | None, float | None]
    low: float | None = None
    high: float = 1.0
    follows: str | None = None
    follows_range: tuple[float, float] | None = None

    @cached_property
    def formulas(self) -> tuple[Formula, Formula]:
        """The left and the right side."""
        return parse_formula(self.left), parse_formula(self.right)

    @property
    def others(self) -> tuple[str, ...]:
        """The inputs that are known when the last one is drawn."""
        return tuple(name for name in self.tokens if name not in (self.last, self.follows))

    def about(self, age: Floats, is_female: Floats) -> Bools:
        """Whether it is about subjects of an age, years, and sex (1: female, 0: male, nan: unknown), (n,) each."""
        youngest, oldest = self.ages
        names = self.formulas[0].names | self.formulas[1].names
        about = np.ones(len(age), dtype=bool)
        if youngest is not None:
            about &= age >= youngest
        if oldest is not None:
            about &= age <= oldest
        if "age" in names:
            about &= np.isfinite(age)
        return about & np.isfinite(is_female) if "female" in names else about

    def off(self, values: Mapping[str, Floats]) -> Floats:
        """(left - right) over the tolerance, (n,), or less the tolerance plus 1 where that is 0; above 1 breaks it."""
        left, right = (formula.evaluate(values) for formula in self.formulas)
        slack = self.tolerance + self.tolerance_share * np.abs(right)
        with np.errstate(all="ignore"):
            return np.asarray(np.where(slack > 0, (left - right) / slack, left - right - slack + 1.0))

    def bounds(self, values: Mapping[str, Floats], low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Where between `low` and `high` the last number can lie, (n,) each; as they are where it can nowhere.

        Args:
            values: The other inputs, age (whole years) and female, (n,) each.
            low: The least that it may be otherwise, in its unit.
            high: The most.
        """
        if self.follows is None or self.follows_range is None:
            first, last, side = self._closed(values, low, high)
            can_be = side == 0
        else:  # whatever the number to come, from one end of its range to the other
            (first, last, side), (other_first, other_last, other_side) = (
                self._closed({**values, self.follows: np.full(len(low), end)}, low, high) for end in self.follows_range
            )
            first, last = np.minimum(first, other_first), np.maximum(last, other_last)
            can_be = np.isfinite(side + other_side) & (side * other_side <= 0)
        return np.where(can_be, first, low), np.where(can_be, last, high)

    def _closed(self, values: Mapping[str, Floats], low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
        """Where the last number can lie, and 0; or twice the nearer end, and 1 or -1: too much is off, or too little.

        Of what is unknown or infinite nan.
        """
        at_low, at_high = (self.off({**values, self.last: end}) for end in (low, high))
        rises = at_high > at_low
        least = np.full(len(low), -np.inf if self.low is None else self.low)
        most = np.full(len(low), self.high)
        # Where what is off falls as the last number rises, the largest that is allowed bounds it from below.
        goals = np.stack([np.where(rises, least, most), np.where(rises, most, least)])
        first, last = self._where(values, (low, high), (at_low, at_high), goals)
        side = np.where(
            np.minimum(at_low, at_high) > most, 1.0, np.where(np.maximum(at_low, at_high) < least, -1.0, 0.0)
        )
        return first, last, np.where(np.isfinite(at_low) & np.isfinite(at_high) & (first <= last), side, np.nan)

    def _where(
        self, values: Mapping[str, Floats], ends: tuple[Floats, Floats], at_ends: tuple[Floats, Floats], goals: Floats
    ) -> Floats:
        """The numbers between two ends at which so much (2, n) is off, or the ends that are nearer, (2, n)."""
        rises = at_ends[1] > at_ends[0]
        with np.errstate(all="ignore"):  # most formulas are linear in one number
            share = np.clip((goals - at_ends[0]) / (at_ends[1] - at_ends[0]), 0, 1)
            found = ends[0] + np.nan_to_num(share) * (ends[1] - ends[0])
            miss = np.abs(self.off({**values, self.last: found}) - np.clip(goals, *np.sort(np.stack(at_ends), axis=0)))
        if np.all(~(miss > _NEAR)):
            return found
        low, high = (np.broadcast_to(end, goals.shape) for end in ends)
        for _ in range(_BISECTIONS if self.follows is None else _ROUGH):
            middle = (low + high) / 2
            is_short = (self.off({**values, self.last: middle}) < goals) == rises
            low, high = np.where(is_short, middle, low), np.where(is_short, high, middle)
        return np.asarray((low + high) / 2)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Identity:
        """From JSON values."""
        tokens = {name: tuple(each) for name, each in record["tokens"].items()}
        span = record["follows_range"] and tuple(record["follows_range"])
        return cls(**{**record, "tokens": tokens, "ages": tuple(record["ages"]), "follows_range": span})


@dataclass(frozen=True)
class _Moments:
    """When events (E,) are said: their step, subject and minute."""

    step: Ints
    subject: Ints
    minute: Ints

    def latest(self, rows: Ints, place: Ints, within: float) -> tuple[Ints, Bools]:
        """Index into `place` (ascending) of the last event before each row, (n,), and whether it is recent enough."""
        if not len(place):
            return np.zeros(len(rows), np.int64), np.zeros(len(rows), dtype=bool)
        at = np.searchsorted(place, rows) - 1
        before = place[np.maximum(at, 0)]
        is_near = (self.step[before] == self.step[rows]) | (self.minute[rows] - self.minute[before] <= within)
        return np.maximum(at, 0), (at >= 0) & (self.subject[before] == self.subject[rows]) & is_near

    def follows(self, rows: Ints, place: Ints) -> Bools:
        """Whether an event of `place` (ascending) comes after each row, (n,), in the same step."""
        if not len(place):
            return np.zeros(len(rows), dtype=bool)
        at = np.searchsorted(place, rows, side="right")
        after = place[np.minimum(at, len(place) - 1)]
        return np.asarray((at < len(place)) & (self.step[after] == self.step[rows]))


@dataclass
class _Seen:
    """How one identity is kept.

    Attributes:
        identity: As stated.
        num, num_broken: Moments that complete it, and those that break it. off: How far off the first of them are.
        before: By input, moments at which all others but the last were known, and those that the last did not follow.
    """

    identity: Identity
    num: int = 0
    num_broken: int = 0
    off: list[Floats] = field(default_factory=list)
    before: dict[str, Ints] = field(default_factory=dict)

    def add(self, off: Floats) -> None:
        breaks = self._breaks(off)
        if self.num < _MOST_KEPT:
            self.off.append(off[~breaks])
        self.num += len(off)
        self.num_broken += int(breaks.sum())

    def _breaks(self, off: Floats) -> Bools:
        relation = self.identity.relation
        return np.abs(off) > 1 if relation == "equals" else off > (_BELOW if relation == "below" else 1)

    def kept(self, scales: Sequence[Scale | None]) -> list[Identity]:
        """With its bounds, and as it bounds the number before; empty where too few are known or too many break it."""
        closed = self._closed()
        if closed is None:
            return []
        ends = [
            [float(scale.decode(np.array([end]))[0]) for end in (scale.low, scale.high)]
            for token in closed.tokens[closed.last]
            if (scale := scales[token]) is not None
        ]
        span = (min(low for low, _ in ends), max(high for _, high in ends))
        return [closed] + [
            replace(closed, last=name, follows=closed.last, follows_range=span)
            for name, (num, num_alone) in self.before.items()
            if num >= _LEAST_MOMENTS and num_alone <= _MOST_ALONE * num
        ]

    def _closed(self) -> Identity | None:
        if self.num < _LEAST_MOMENTS or self.num_broken > _MOST_BROKEN * self.num:
            return None
        if self.identity.relation != "equals":
            return replace(self.identity, high=_BELOW if self.identity.relation == "below" else 1.0)
        low, high = np.quantile(np.concatenate(self.off), [_TAIL, 1 - _TAIL])
        return replace(self.identity, low=float(low), high=float(high))


class IdentityCounts:
    """How the training subjects keep stated identities, part by part.

    Args:
        stated: Settings of the rules by name, as in configs/rules/identities.yaml; others than identities are ignored.
        vocabulary: V tokens.
        scales: (V,) of their numbers.
        female: (sexes,) 1, 0 or nan for each value of `Sequences.sex`.
    """

    def __init__(
        self,
        stated: Mapping[str, Mapping[str, Any]],
        vocabulary: Vocabulary,
        scales: Sequence[Scale | None],
        female: Floats,
    ) -> None:
        self._scales, self._female = scales, female
        self._found: list[_Seen] = []
        for name, rule in stated.items():
            if rule.get("kind", "identity") == "identity":
                self._found += [_Seen(one) for one in _seen_from_each(name, rule, vocabulary, scales)]

    def add(self, part: Sequences) -> None:
        """Adds the subjects of a part."""
        if not self._found:
            return
        step = part.step_of_event()
        subject = part.subject_of_step()[step]
        minute = part.minute[step]
        moments, female = _Moments(step, subject, minute), self._female[part.sex[subject]]
        age = part.age_start_years[subject] + (minute - part.start_minute[subject]) / MINUTES_PER_YEAR
        told: dict[tuple[int, ...], tuple[Ints, Floats]] = {}
        for seen in self._found:
            one = seen.identity
            for tokens in one.tokens.values():
                if tokens not in told:
                    told[tokens] = self._told(part, tokens)
            rows, value = told[one.tokens[one.last]]
            values, is_there = {one.last: value}, np.ones(len(rows), dtype=bool)
            for name in one.others:
                place, numbers = told[one.tokens[name]]
                at, is_near = moments.latest(rows, place, one.within_minutes[name])
                is_there &= is_near
                values[name] = numbers[at] if len(place) else np.full(len(rows), np.nan)
            values |= {"age": np.floor(age[rows]), "female": female[rows]}
            is_there &= one.about(age[rows], values["female"])
            off = one.off(values)[is_there]
            seen.add(off[np.isfinite(off)])
            for name in one.others:
                before, _ = told[one.tokens[name]]
                is_open = one.about(age[before], female[before])
                is_open &= ~moments.latest(before, rows, one.within_minutes[one.last])[1]
                for rest in one.others:
                    if rest != name:
                        is_open &= moments.latest(before, told[one.tokens[rest]][0], one.within_minutes[rest])[1]
                is_alone = is_open & ~moments.follows(before, rows)
                counts = np.array([is_open.sum(), is_alone.sum()])
                seen.before[name] = seen.before.get(name, np.zeros(2, np.int64)) + counts

    def _told(self, part: Sequences, tokens: tuple[int, ...]) -> tuple[Ints, Floats]:
        """Places of the events that give an input, ascending, and their numbers in the unit of the source."""
        rows = np.flatnonzero(np.isin(part.token, tokens) & part.has_value)
        values, token = np.full(len(rows), np.nan), part.token[rows]
        for each in tokens:
            if (scale := self._scales[each]) is not None:
                values[token == each] = scale.decode(part.value[rows][token == each].astype(np.float64))
        return rows, values

    def kept(self) -> tuple[Identity, ...]:
        """The identities that training subjects keep, each from every input that may be the last to be said."""
        return tuple(one for seen in self._found for one in seen.kept(self._scales))


def computed_after(stated: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Codes of numbers that are computed from others, and the last code of those, by code system.

    An error in what is computed last is one of its own; were it drawn first, the last of the others would have to
    make up for those of all. What is computed is a side of an equation that is one input.

    Args:
        stated: As for `IdentityCounts`.

    >>> codes = {"index": ["LOINC//39156-5"], "weight": ["LOINC//29463-7"], "height": ["LOINC//8302-2"]}
    >>> inputs = {name: {"codes": each} for name, each in codes.items()}
    >>> computed_after({"rule": {"inputs": inputs, "left": "index", "relation": "equals", "right": "weight / height"}})
    {'LOINC//39156-5': 'LOINC//8302-2'}
    """
    found: dict[str, str] = {}
    for rule in stated.values():
        if (
            rule.get("kind", "identity") != "identity"
            or rule["relation"] != "equals"
            or rule["left"] not in rule["inputs"]
        ):
            continue
        others = [code for name, one in rule["inputs"].items() if name != rule["left"] for code in one["codes"]]
        for code in rule["inputs"][rule["left"]]["codes"]:
            last = max((other for other in others if _system(other) == _system(code)), default=code)
            found[code] = max(last, found.get(code, last))
    return found


def _system(code: str) -> str:
    return code.rpartition("//")[0]


def _seen_from_each(
    name: str, rule: Mapping[str, Any], vocabulary: Vocabulary, scales: Sequence[Scale | None]
) -> list[Identity]:
    """An identity from each of its inputs; none where the vocabulary lacks one."""
    tokens = {
        str(each): tuple(
            index
            for index, (token, scale) in enumerate(zip(vocabulary.tokens, scales, strict=True))
            if scale is not None
            and token.number == "numeric"
            and token.code in one["codes"]
            and (token.unit or "") in one["units"]
        )
        for each, one in rule["inputs"].items()
    }
    _check(name, rule, set(tokens))
    if not all(tokens.values()):
        return []
    within = {str(each): _MINUTES_PER_HOUR * one.get("within_hours", 0.0) for each, one in rule["inputs"].items()}
    youngest, oldest = rule.get("ages") or (None, None)
    return [
        Identity(
            rule=name,
            last=last,
            tokens=tokens,
            within_minutes=within,
            left=str(rule["left"]),
            relation=rule["relation"],
            right=str(rule["right"]),
            tolerance=float(rule.get("tolerance", 0.0)),
            tolerance_share=float(rule.get("tolerance_share", 0.0)),
            ages=(youngest, oldest),
        )
        for last in tokens
    ]


def _check(name: str, rule: Mapping[str, Any], inputs: set[str]) -> None:
    if rule["relation"] not in _RELATIONS:
        raise ConfigError(f"identity {name}: relation must be one of {', '.join(_RELATIONS)}, got {rule['relation']!r}")
    names = parse_formula(str(rule["left"])).names | parse_formula(str(rule["right"])).names
    if unknown := sorted(names - inputs - _OF_THE_SUBJECT):
        raise ConfigError(f"identity {name}: formulas must name inputs, age or female, got {unknown[0]!r}")
