"""The tree of an eligibility expression: quantities of a timeline, propositions about them, and their text.

`str()` of a node is its text in the language (`medtwin.trials.population.language`), with windows in days.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from medtwin.trials.population.code_family import DRUG_RESOURCES, CodeFamily

Aggregate = Literal["last", "first", "min", "max", "mean", "count", "days"]
AGGREGATES: tuple[str, ...] = get_args(Aggregate)
Clock = Literal["age", "followed", "observed"]
CLOCKS: tuple[str, ...] = get_args(Clock)
# FHIR types of the rows that a kind of event is found in; empty: of any type.
KINDS: dict[str, tuple[str, ...]] = {
    "condition": ("Condition",),
    "drug": DRUG_RESOURCES,
    "procedure": ("Procedure",),
    "event": (),
}


@dataclass(frozen=True)
class Window:
    """Days relative to the index day, both ends included; `start` None: from the beginning of the record."""

    start: int | None = None
    end: int = 0

    def __post_init__(self) -> None:
        if self.end > 0 or (self.start is not None and self.start > self.end):
            raise ValueError(f"window must start before its end, and end by the index day, got {self!s}")

    def __str__(self) -> str:
        start = "" if self.start is None else f"{self.start}d"
        return f"[{start}:{f'{self.end}d' if self.end else ''}]"

    @property
    def suffix(self) -> str:
        """Its text; empty for the whole record up to the index day."""
        return "" if self == Window() else str(self)


@dataclass(frozen=True)
class Series:
    """Numbers of some codes within a window. `name` is what the language calls them; empty: `value(...)`."""

    codes: tuple[CodeFamily, ...]
    unit: str | None = None
    window: Window = Window()
    name: str = ""

    def __str__(self) -> str:
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.name or f'value({_codes(self.codes)}{unit})'}{self.window.suffix}"


@dataclass(frozen=True)
class Occurrence:
    """As a proposition: any row of some codes stands within a window. In `Summary`: the rows themselves."""

    kind: str
    codes: tuple[CodeFamily, ...]
    window: Window = Window()

    def __str__(self) -> str:
        return f"{self.kind}({_codes(self.codes)}){self.window.suffix}"


@dataclass(frozen=True)
class Summary:
    """One number of a series: its last, first, least, greatest or mean value, or how many rows or days it has."""

    aggregate: Aggregate
    of: Series | Occurrence

    def __str__(self) -> str:
        return str(self.of) if self.aggregate == "last" else f"{self.aggregate}({self.of})"


@dataclass(frozen=True)
class Time:
    """`age` in completed years; `followed`, days of record after the index day; `observed`, days before it."""

    clock: Clock

    def __str__(self) -> str:
        return self.clock


Quantity: TypeAlias = Summary | Time


@dataclass(frozen=True)
class InRange:
    """A quantity lies in a range; infinite: no bound on that side."""

    quantity: Quantity
    low: float = -math.inf
    high: float = math.inf
    includes_low: bool = True
    includes_high: bool = True

    def __str__(self) -> str:
        what, mark = str(self.quantity), _mark(self.quantity)
        if self.low == self.high:
            return f"{what} = {_number(self.low)}{mark}"
        if math.isinf(self.low):
            return f"{what} <{'=' * self.includes_high} {_number(self.high)}{mark}"
        if math.isinf(self.high):
            return f"{what} >{'=' * self.includes_low} {_number(self.low)}{mark}"
        low, high = f"<{'=' * self.includes_low}", f"<{'=' * self.includes_high}"
        return f"{_number(self.low)}{mark} {low} {what} {high} {_number(self.high)}{mark}"


@dataclass(frozen=True)
class OneOf:
    """A quantity is one of some numbers."""

    quantity: Quantity
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.quantity} in {{{', '.join(f'{_number(v)}{_mark(self.quantity)}' for v in self.values)}}}"


@dataclass(frozen=True)
class Attribute:
    """Sex or race is one of some words; whoever is recorded with several races is of each."""

    name: Literal["sex", "race"]
    values: tuple[str, ...]

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.name} = {self.values[0]}"
        return f"{self.name} in {{{', '.join(self.values)}}}"


@dataclass(frozen=True)
class Not:
    """The proposition does not hold."""

    of: Proposition

    def __str__(self) -> str:
        if isinstance(self.of, Occurrence):
            return f"no {self.of}"
        return f"not {_nested(self.of, (And, Or))}"


@dataclass(frozen=True)
class And:
    """All hold."""

    parts: tuple[Proposition, ...]

    def __str__(self) -> str:
        return " & ".join(_nested(part, (And, Or)) for part in self.parts)


@dataclass(frozen=True)
class Or:
    """Any holds."""

    parts: tuple[Proposition, ...]

    def __str__(self) -> str:
        return " | ".join(_nested(part, (And, Or)) for part in self.parts)


Proposition: TypeAlias = InRange | OneOf | Attribute | Occurrence | Not | And | Or


def conjuncts(proposition: Proposition) -> tuple[Proposition, ...]:
    """The propositions that all have to hold: the parts of an `And`, else the proposition itself."""
    return proposition.parts if isinstance(proposition, And) else (proposition,)


def leaves(proposition: Proposition) -> Iterator[Proposition]:
    """Propositions without propositions in them, from left to right."""
    match proposition:
        case And(parts) | Or(parts):
            for part in parts:
                yield from leaves(part)
        case Not(inner):
            yield from leaves(inner)
        case _:
            yield proposition


def codes_of(proposition: Proposition) -> list[CodeFamily]:
    """Every family of codes that it asks for, once, in order."""
    found: dict[CodeFamily, None] = {}
    for leaf in leaves(proposition):
        match leaf:
            case Occurrence(codes=codes):
                found |= dict.fromkeys(codes)
            case InRange(quantity=Summary(of=source)) | OneOf(quantity=Summary(of=source)):
                found |= dict.fromkeys(source.codes)
    return list(found)


def _mark(quantity: Quantity) -> str:
    """What stands after a number: the unit of a duration, and of a named measure."""
    match quantity:
        case Time("age") | Summary("count" | "days"):
            return ""
        case Time():
            return "d"
        case Summary(of=Series(unit=str(unit), name=name)) if name and "(" not in unit:
            return f" {unit}"
        case _:
            return ""


def _nested(part: Proposition, kinds: tuple[type, ...]) -> str:
    return f"({part})" if isinstance(part, kinds) else str(part)


def _codes(codes: tuple[CodeFamily, ...]) -> str:
    return " | ".join(str(code) if set(str(code)).isdisjoint('|,()" ') else f'"{code}"' for code in codes)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
