"""What an eligibility expression says of subjects on candidate days: true, false, or not evaluable.

The logic is Kleene's strong one (Kleene 1952, section 64): `not evaluable` stands for a truth that the record does not
tell, so `a & b` is false as soon as one is, `a | b` true as soon as one is, whatever the other. With false < not
evaluable < true, `&` is the minimum, `|` the maximum, and `not` the mirror image.

A measure without a value in its window, and a value in a unit of another dimension, are not evaluable, and so are an
unknown birth, sex or race. What happened is taken to be recorded: where no row has the code, it did not occur, and
`count` and `days` are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.population.code_family import CodeFamily
from medtwin.trials.population.cohort import NEVER, Cohort, Records, sort_key
from medtwin.trials.population.criteria import Answer, Candidates, Criterion, Lab, age_years
from medtwin.trials.population.language import RACES, parse
from medtwin.trials.population.measures import COMMON_MEASURES, Measure
from medtwin.trials.population.propositions import (
    And,
    Attribute,
    InRange,
    Not,
    Occurrence,
    OneOf,
    Or,
    Proposition,
    Quantity,
    Series,
    Summary,
    Time,
    codes_of,
    conjuncts,
)
from medtwin.trials.population.units import values_in

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Truths = NDArray[np.int8]
FALSE, NOT_EVALUABLE, TRUE = 0, 1, 2
_BLOCK = 1 << 20  # candidates at a time, which bounds the memory: some hundred bytes each
_BEGINNING = -(1 << 40)  # days before any record
_RACE_WORDS = {code: word for word, code in RACES.items()}


def evaluate(proposition: Proposition, cohort: Cohort, at: Candidates) -> Truths:
    """`FALSE`, `NOT_EVALUABLE` or `TRUE` of each candidate, (candidates,).

    Args:
        proposition: As `parse` gives it.
        cohort: Read with the codes of `codes_of(proposition)`.
        at: Subjects and days, in any order.

    Raises:
        ConfigError: If the cohort knows none of the codes of a measure, or of an occurrence without which the
            proposition cannot hold.
    """
    evaluation = _Evaluation(cohort)
    evaluation.check(proposition, positive=True)
    found = np.empty(len(at.day), dtype=np.int8)
    for start in range(0, len(at.day), _BLOCK):
        block = slice(start, start + _BLOCK)
        found[block] = evaluation.truth(proposition, Candidates(at.subject[block], at.day[block]))
    return found


@dataclass(frozen=True)
class Statement:
    """A proposition as a criterion of eligibility. `name` is for the attrition table; None: the proposition's text."""

    proposition: Proposition
    name: str | None = None

    @property
    def label(self) -> str:
        """What it demands, in words."""
        return self.name or str(self.proposition)

    @property
    def codes(self) -> Sequence[CodeFamily]:
        """The families of codes it needs of the cohort."""
        return codes_of(self.proposition)

    def ask(self, cohort: Cohort, at: Candidates) -> Answer:
        """What it says of each candidate.

        Raises:
            ConfigError: If the cohort has none of the codes without which it cannot hold.
        """
        truth = evaluate(self.proposition, cohort, at)
        return Answer(truth == TRUE, truth == NOT_EVALUABLE)


def statement(text: str, name: str | None = None, measures: Mapping[str, Measure] | None = None) -> Statement:
    """An expression as one criterion.

    Args:
        text: In the language of `medtwin.trials.population.language`.
        name: For the attrition table; None: the expression itself.
        measures: What names of measures stand for, beside the common ones, before which they go.

    Raises:
        EligibilityError: If the text is no expression.
    """
    return Statement(parse(text, {**COMMON_MEASURES, **(measures or {})}), name)


def statements(text: str, measures: Mapping[str, Measure] | None = None) -> list[Statement]:
    """The criteria of an expression, one for each of the propositions that `&` joins in it.

    Args:
        text: In the language of `medtwin.trials.population.language`.
        measures: As in `statement`.

    Raises:
        EligibilityError: If the text is no expression.

    >>> [criterion.label for criterion in statements("age >= 18 & egfr[-90d:] > 30 & no condition(I50)")]
    ['age >= 18', 'egfr[-90d:] > 30 mL/min/{1.73_m2}', 'no condition(I50)']
    """
    return [Statement(part) for part in conjuncts(statement(text, measures=measures).proposition)]


def criteria_of(
    eligibility: Sequence[Criterion | str], labs: Sequence[Lab] = (), measures: Mapping[str, Measure] | None = None
) -> list[Criterion]:
    """The criteria of a trial's eligibility, in order, text as its `statements`.

    Args:
        eligibility: Criteria, or text in the language of `medtwin.trials.population.language`.
        labs: Text may name them as measures.
        measures: As in `statement`; they go before the labs.

    Raises:
        ValueError: If it is no list. EligibilityError: If a text is no expression.
    """
    if isinstance(eligibility, str):
        raise ValueError(f"eligibility must be a list, got {eligibility!r}")
    known = {lab.name: Measure(lab.codes, lab.unit) for lab in labs} | dict(measures or {})
    found: list[Criterion] = []
    for each in eligibility:
        found += statements(each, known) if isinstance(each, str) else [each]
    return found


def _known(holds: Bools) -> Truths:
    return np.where(holds, TRUE, FALSE).astype(np.int8)


@dataclass(frozen=True)
class _Rows:
    """Rows of some codes by subject and day: (rows,) keys of both, and values, nan in another dimension."""

    key: Ints
    value: Floats

    @cached_property
    def new_days(self) -> Ints:
        """(rows + 1,) distinct subjects and days among the rows before each."""
        return np.concatenate([[0], np.cumsum(np.diff(self.key, prepend=-1) != 0)])


@dataclass(frozen=True)
class _Evaluation:
    """Evaluates propositions over a cohort; rows of codes are gathered once."""

    cohort: Cohort
    gathered: dict[Series | Occurrence, _Rows] = field(default_factory=dict)

    def check(self, proposition: Proposition, positive: bool) -> None:
        """Refuses codes that the cohort does not know, where the proposition would then never hold."""
        match proposition:
            case And(parts) | Or(parts):
                for part in parts:
                    self.check(part, positive)
            case Not(inner):
                self.check(inner, not positive)
            case Occurrence(codes=codes) if positive:
                self.cohort.require_known(codes, str(proposition))
            case InRange(quantity=Summary(aggregate, source)) | OneOf(quantity=Summary(aggregate, source)):
                is_counted = aggregate in ("count", "days")
                if not is_counted or bool(_compare(proposition, np.zeros(1))[0]) != positive:
                    self.cohort.require_known(source.codes, str(proposition))

    def truth(self, proposition: Proposition, at: Candidates) -> Truths:
        """(candidates,)."""
        match proposition:
            case And(parts):
                return self._joined(parts, at, decided=FALSE)
            case Or(parts):
                return self._joined(parts, at, decided=TRUE)
            case Not(inner):
                return np.asarray(TRUE - self.truth(inner, at), dtype=np.int8)
            case Attribute(name, values):
                return self._attribute(name, values, at)
            case Occurrence():
                first, last = self._windows(proposition, at)
                return _known(last > first)
            case InRange(quantity) | OneOf(quantity):
                number = self._quantity(quantity, at)
                return np.where(np.isnan(number), NOT_EVALUABLE, _known(_compare(proposition, number))).astype(np.int8)

    def _joined(self, parts: Sequence[Proposition], at: Candidates, decided: int) -> Truths:
        """The minimum (`decided` is FALSE) or maximum; a part is asked only where those before leave it open."""
        found = np.full(len(at.day), TRUE - decided, dtype=np.int8)
        extreme = np.minimum if decided == FALSE else np.maximum
        for part in parts:
            is_open = np.flatnonzero(found != decided)
            if len(is_open) == len(found):
                found = extreme(found, self.truth(part, at))
            elif len(is_open):
                found[is_open] = extreme(found[is_open], self.truth(part, at.where(is_open)))
        return found

    def _attribute(self, name: str, values: tuple[str, ...], at: Candidates) -> Truths:
        recorded = self.cohort.sex if name == "sex" else self.cohort.race
        words, number = np.unique(recorded, return_inverse=True)
        truth = [
            NOT_EVALUABLE if not word else TRUE if _words(word) & set(values) else FALSE for word in words.tolist()
        ]
        return np.array([*truth, NOT_EVALUABLE], dtype=np.int8)[number[at.subject]]

    def _quantity(self, quantity: Quantity, at: Candidates) -> Floats:
        """(candidates,) nan where it cannot be evaluated."""
        match quantity:
            case Time("age"):
                return np.floor(age_years(self.cohort, at))
            case Time("followed"):
                return self._followed(at)
            case Time():
                return self._observed(at)
            case Summary("count", source):
                first, last = self._windows(source, at)
                return (last - first).astype(np.float64)
            case Summary("days", source):
                first, last = self._windows(source, at)
                days = self._rows(source).new_days
                return (days[last] - days[first]).astype(np.float64)
            case Summary(aggregate, source):
                first, last = self._windows(source, at)
                return _summarised(aggregate, self._rows(source).value, first, last)

    def _followed(self, at: Candidates) -> Floats:
        """Days of record after the day; infinite where it ends with death, before 0 for whom is dead on the day."""
        death = self.cohort.death[at.subject]
        days = (self.cohort.last[at.subject] - at.day).astype(np.float64)
        return np.where(death <= at.day, -np.inf, np.where(death != NEVER, np.inf, days))

    def _observed(self, at: Candidates) -> Floats:
        """Days from the first dated row to the day."""
        seen = self.cohort.seen
        first = np.full(len(self.cohort.subject_id), NEVER)
        is_first = np.diff(seen.subject, prepend=-1) != 0
        first[seen.subject[is_first]] = seen.day[is_first]
        start = first[at.subject]
        return np.where(start == NEVER, np.nan, (at.day - np.minimum(start, at.day)).astype(np.float64))

    def _rows(self, source: Series | Occurrence) -> _Rows:
        if source not in self.gathered:
            records: Records = self.cohort.rows_of(source.codes)
            if isinstance(source, Series):
                records = records.take(~np.isnan(records.value))
                value = values_in(records, source.unit)
            else:
                value = np.empty(0)
            self.gathered[source] = _Rows(sort_key(records.subject, records.day), value)
        return self.gathered[source]

    def _windows(self, source: Series | Occurrence, at: Candidates) -> tuple[Ints, Ints]:
        """(candidates,) the first row in each window, and the one after the last."""
        key, window = self._rows(source).key, source.window
        start = np.full(len(at.day), _BEGINNING) if window.start is None else at.day + window.start
        first = np.searchsorted(key, sort_key(at.subject, start), side="left")
        last = np.searchsorted(key, sort_key(at.subject, at.day + window.end), side="right")
        return first, last


def _words(recorded: str) -> set[str]:
    return {_RACE_WORDS.get(word, word.lower() if len(word) > 1 else word) for word in recorded.split("+")}


def _compare(proposition: InRange | OneOf, number: Floats) -> Bools:
    match proposition:
        case OneOf(values=values):
            return np.isin(number, values)
        case InRange(_, low, high, includes_low, includes_high):
            above = number >= low if includes_low else number > low
            below = number <= high if includes_high else number < high
            return np.asarray(above & below)


def _summarised(aggregate: str, value: Floats, first: Ints, last: Ints) -> Floats:
    """One number of the values in each window, (candidates,); nan for an empty one, and where a value is nan.

    Candidates that follow each other often share a window, which is summarised once.
    """
    found = np.full(len(first), np.nan)
    some = np.flatnonzero(last > first)
    if not len(some):
        return found
    first, last = first[some], last[some]
    if aggregate in ("first", "last"):
        found[some] = value[first if aggregate == "first" else last - 1]
        return found
    is_new = (np.diff(first, prepend=-1) != 0) | (np.diff(last, prepend=-1) != 0)
    first, last = first[is_new], last[is_new]
    ufunc = {"min": np.minimum, "max": np.maximum, "mean": np.add}[aggregate]
    ends = np.stack([first, last], axis=1).ravel()
    # a sentinel makes the end of the last row a valid index; every second segment lies between windows and is left out
    numbers = ufunc.reduceat(np.append(value, 0.0), ends)[::2]
    if aggregate == "mean":
        numbers = numbers / (last - first)
    found[some] = numbers[np.cumsum(is_new) - 1]
    return found
