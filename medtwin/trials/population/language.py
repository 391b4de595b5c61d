"""Eligibility as a small language over timelines: from text to a tree of propositions.

    age >= 18 & egfr[-90d:] > 30 & no condition(I50)[-365d:]

Grammar (docs/trials.md explains each line):

    any        = all {("|" | "or") all}
    all        = one {("&" | "and") one}
    one        = ("not" | "!") one | "no" occurrence | "(" any ")" | occurrence | test
    occurrence = ("condition" | "drug" | "procedure" | "event") "(" code {"|" code} ")" [window]
    test       = ("sex" | "race") (("=" | "!=") word | "in" "{" word {"," word} "}")
               | quantity ("in" "{" number {"," number} "}" | relation number)
               | number relation quantity [relation number]
    quantity   = "age" | "followed" | "observed" | series | aggregate "(" (series | occurrence) ")"
    series     = (name | "value" "(" code {"|" code} ["," unit] ")") [window]
    window     = "[" [offset] ":" [offset] "]"
    offset     = ["-"] number ("d" | "w" | "m" | "y")
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeVar, cast

from medtwin.core.units import convert, to_ucum
from medtwin.trials.population.code_family import CodeFamily
from medtwin.trials.population.cohort import CONVERTED_DIGITS
from medtwin.trials.population.measures import COMMON_MEASURES, Measure
from medtwin.trials.population.propositions import (
    AGGREGATES,
    CLOCKS,
    KINDS,
    Aggregate,
    And,
    Attribute,
    Clock,
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
    Window,
)
from medtwin.trials.population.tokens import Token, refuse, tokenise

_Item = TypeVar("_Item")
_DEEPEST = 100
# A month is a twelfth of a year of 365.25 days (docs/trials.md).
DAYS = {"d": 1.0, "w": 7.0, "m": 365.25 / 12, "y": 365.25}
SEXES = {"F": "F", "M": "M", "female": "F", "male": "M"}
# Source: OMB 1997 standards, in the codes of CDC Race and Ethnicity 1.2; `other` is CDC's 2131-1.
RACES = {
    "american_indian": "1002-5",
    "asian": "2028-9",
    "black": "2054-5",
    "pacific_islander": "2076-8",
    "white": "2106-3",
    "other": "2131-1",
}
_WORDS: Mapping[str, Mapping[str, str]] = {
    "sex": SEXES,
    "race": {name: name for name in RACES} | {code: name for name, code in RACES.items()},
}
_RELATIONS = ("<", "<=", ">", ">=", "=", "!=")
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_LOGIC = {"&": "&", "and": "&", "|": "|", "or": "|", "!": "not", "not": "not"}
_RESERVED = ("sex", "race", "value", "in", "and", "or", "not", "no", *KINDS, *CLOCKS, *AGGREGATES)


def parse(text: str, measures: Mapping[str, Measure] = COMMON_MEASURES) -> Proposition:
    """The proposition that a text states.

    Args:
        text: In the language above.
        measures: What names of measures stand for.

    Raises:
        EligibilityError: If the text is no proposition; it names the column, what was expected and what was perhaps
            meant.
        ValueError: If a measure has the name of a word of the language.

    >>> str(parse("18 <= age <= 75 and hba1c[-1y:] < 10 %"))
    '18 <= age <= 75 & hba1c[-365d:] < 10 %'
    >>> str(parse("not (sex = female | drug(C09*)[-30d:])"))
    'not (sex = F | drug(C09*)[-30d:])'
    """
    if taken := sorted(set(measures) & set(_RESERVED)):
        raise ValueError(f"measures must not be named like a word of the language, got {', '.join(taken)}")
    line = " ".join(text.splitlines())
    parser = _Parser(line, tokenise(line), measures)
    found = parser.any()
    parser.finish()
    return found


@dataclass
class _Parser:
    """Recursive descent, a method per line of the grammar."""

    text: str
    tokens: list[Token]
    measures: Mapping[str, Measure]
    place: int = 0
    depth: int = 0

    @property
    def here(self) -> Token:
        return self.tokens[self.place]

    def take(self) -> Token:
        self.place += 1
        return self.tokens[self.place - 1]

    def is_sign(self, *signs: str) -> bool:
        return self.here.kind == "sign" and self.here.text in signs

    def is_word(self, *words: str) -> bool:
        return self.here.kind == "word" and self.here.text in words

    def logic(self) -> str:
        """`&`, `|` or `not`, however it is written; empty for anything else."""
        return _LOGIC.get(self.here.text, "") if self.here.kind in ("sign", "word") else ""

    def fail(self, expected: str, token: Token | None = None, near: Iterable[str] = ()) -> NoReturn:
        """Refuses the token."""
        at = self.here if token is None else token
        close = difflib.get_close_matches(at.text, list(near), n=3, cutoff=0.6) if at.kind == "word" else []
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        refuse(f"expected {expected}, got {at.shown}{hint}", self.text, at.start)

    def sign(self, sign: str, why: str) -> Token:
        if not self.is_sign(sign):
            self.fail(f"{sign!r} {why}")
        return self.take()

    def finish(self) -> None:
        if self.here.kind != "end":
            self.fail("'&', '|' or the end", near=("and", "or"))

    def any(self) -> Proposition:
        return self.joined("|", self.all, Or)

    def all(self) -> Proposition:
        return self.joined("&", self.one, And)

    def joined(
        self,
        sign: str,
        part: Callable[[], Proposition],
        make: Callable[[tuple[Proposition, ...]], And | Or],
    ) -> Proposition:
        parts = [part()]
        while self.logic() == sign:
            self.take()
            parts.append(part())
        if len(parts) == 1:
            return parts[0]
        kind = And if sign == "&" else Or
        return make(tuple(each for one in parts for each in (one.parts if isinstance(one, kind) else (one,))))

    def one(self) -> Proposition:
        if self.logic() == "not":
            self.take()
            return Not(self.deeper(self.one))
        if self.is_word("no"):
            self.take()
            if not self.is_word(*KINDS):
                self.fail(f"{_listed(KINDS)} after 'no' (write 'not' before anything else)", near=KINDS)
            return Not(self.occurrence())
        if self.is_sign("("):
            self.take()
            inner = self.deeper(self.any)
            self.sign(")", "to close the parenthesis")
            return inner
        if self.is_word(*KINDS):
            return self.occurrence()
        if self.is_word("sex", "race"):
            return self.attribute()
        return self.test()

    def deeper(self, part: Callable[[], Proposition]) -> Proposition:
        self.depth += 1
        if self.depth > _DEEPEST:
            self.fail(f"at most {_DEEPEST} parentheses and negations within each other")
        found = part()
        self.depth -= 1
        return found

    def occurrence(self) -> Occurrence:
        kind = self.take().text
        codes, _ = self.codes(kind, KINDS[kind])
        return Occurrence(kind, codes, self.window())

    def codes(self, word: str, resources: tuple[str, ...]) -> tuple[tuple[CodeFamily, ...], str | None]:
        self.sign("(", f"and codes after {word!r}")
        found = [self.code(resources)]
        while self.is_sign("|"):
            self.take()
            found.append(self.code(resources))
        unit = None
        if self.is_sign(",") and word == "value":
            self.take()
            unit = self.ucum(self.here.text, self.here)
            self.take()
        self.sign(")", "or '|' and another code after a code" if unit is None else "after the unit")
        return tuple(dict.fromkeys(found)), unit

    def code(self, resources: tuple[str, ...]) -> CodeFamily:
        if self.here.kind != "code":
            self.fail("a code, such as I50 or SNOMED//44054006")
        token = self.take()
        try:
            return CodeFamily(token.text, resources)
        except ValueError:
            self.fail("a code with a '*' at most at its end", token)

    def ucum(self, text: str, token: Token) -> str:
        return to_ucum(text) or self.fail("a UCUM unit, such as mg/dL", token)

    def attribute(self) -> Proposition:
        name = cast("Literal['sex', 'race']", self.take().text)
        if self.is_word("in"):
            self.take()
            return Attribute(name, tuple(dict.fromkeys(self.braces(lambda: self.value_of(name)))))
        if not self.is_sign("=", "!="):
            self.fail(f"'=', '!=' or 'in' after {name!r}")
        is_not = self.take().text == "!="
        found = Attribute(name, (self.value_of(name),))
        return Not(found) if is_not else found

    def value_of(self, name: str) -> str:
        words = _WORDS[name]
        if self.here.kind != "word" or self.here.text not in words:
            self.fail(f"{_listed(words)}", near=words)
        return words[self.take().text]

    def braces(self, item: Callable[[], _Item]) -> list[_Item]:
        self.sign("{", "and a list after 'in'")
        found = [item()]
        while self.is_sign(","):
            self.take()
            found.append(item())
        self.sign("}", "or ',' after an item of the list")
        return found

    def test(self) -> Proposition:
        if self.here.kind == "number" or self.is_sign("-", "+"):
            return self.range()
        quantity = self.quantity()
        if self.is_word("in"):
            self.take()
            quantity, values = self.numbers(quantity)
            return OneOf(quantity, values)
        relation = self.relation(f"after {quantity!s}")
        quantity, value = self.number(quantity)
        return _compared(quantity, relation.text, value)

    def range(self) -> Proposition:
        """`18 <= age <= 75` or `18 <= age`: the number is read again once the quantity says in what unit it counts."""
        start = self.place
        self.skip_number()
        lower = self.relation("after the number")
        quantity = self.quantity()
        end = self.place
        self.place = start
        quantity, low = self.number(quantity)
        self.place = end
        if lower.text in ("=", "!=") or not self.is_sign(*_RELATIONS):
            return _compared(quantity, _MIRRORED.get(lower.text, lower.text), low)
        upper = self.relation("")
        if upper.text[0] != lower.text[0]:
            self.fail(f"'{lower.text[0]}' or '{lower.text[0]}=', as on the other side", upper)
        last = self.here
        quantity, high = self.number(quantity)
        ends = (lower.text, low), (upper.text, high)
        (left, low), (right, high) = ends if lower.text[0] == "<" else ends[::-1]
        if low > high or (low == high and "=" not in left + right):
            self.fail("a bound that leaves room for the range", last)
        return InRange(quantity, low, high, "=" in left, "=" in right)

    def relation(self, where: str) -> Token:
        if not self.is_sign(*_RELATIONS):
            self.fail(f"a comparison (<, <=, >, >=, =, !=) {where}".rstrip(), near=("in",))
        return self.take()

    def skip_number(self) -> None:
        while self.is_sign("-", "+"):
            self.take()
        if self.here.kind != "number":
            self.fail("a number")
        self.take()

    def numbers(self, quantity: Quantity) -> tuple[Quantity, tuple[float, ...]]:
        def item() -> float:
            nonlocal quantity
            quantity, value = self.number(quantity)
            return value

        values = self.braces(item)
        return quantity, tuple(dict.fromkeys(values))

    def number(self, quantity: Quantity) -> tuple[Quantity, float]:
        """A number in the unit of the quantity; a series without a unit takes that of the number."""
        negative = self.is_sign("-")
        start = self.place + self.is_sign("-", "+")
        self.skip_number()
        if self.place != start + 1:
            self.fail("a number", self.tokens[start])
        token = self.tokens[start]
        value = (-1.0 if negative else 1.0) * float(token.text)
        if not math.isfinite(value):
            self.fail("a finite number", token)
        if isinstance(quantity, Time):
            return quantity, self.duration(quantity, value, token)
        if not token.unit:
            return quantity, value
        source = quantity.of
        if isinstance(source, Occurrence) or quantity.aggregate in ("count", "days"):
            self.fail("a count without a unit", token)
        unit = self.ucum(token.unit, token)
        assert isinstance(source, Series)
        if source.unit is None:
            return Summary(quantity.aggregate, Series(source.codes, unit, source.window)), value
        try:
            return quantity, float(f"{convert(value, unit, source.unit):.{CONVERTED_DIGITS}g}")
        except ValueError:
            self.fail(f"a unit that can be converted to {source.unit}", token)

    def duration(self, quantity: Time, value: float, token: Token) -> float:
        """Years of age, which are completed ones; days of the other clocks."""
        if quantity.clock == "age":
            if token.unit not in ("", "y"):
                self.fail("an age in years", token)
            return value
        if token.unit not in DAYS:
            self.fail(f"a duration in {_listed(DAYS)}, such as 365d", token)
        return value * DAYS[token.unit]

    def quantity(self) -> Quantity:
        if self.is_word(*CLOCKS):
            return Time(cast("Clock", self.take().text))
        if self.is_word(*AGGREGATES):
            return self.summary()
        return Summary("last", self.series())

    def summary(self) -> Summary:
        token = self.take()
        aggregate = cast("Aggregate", token.text)
        self.sign("(", f"after {aggregate!r}")
        source: Series | Occurrence
        if self.is_word(*KINDS):
            if aggregate not in ("count", "days"):
                self.fail("a measure: events have no value; count(...) and days(...) count them")
            source = self.occurrence()
        else:
            source = self.series()
        self.sign(")", f"to close {aggregate!r}")
        return Summary(aggregate, source)

    def series(self) -> Series:
        token = self.here
        known = (*self.measures, *_RESERVED)
        if token.kind != "word":
            self.fail("a criterion" if token.kind == "end" else "a measure, age, sex, race, followed or condition(...)")
        self.take()
        if token.text == "value":
            codes, unit = self.codes("value", ())
            return Series(codes, unit, self.window())
        if token.text not in self.measures:
            self.fail("a measure, age, sex, race, followed or condition(...)", token, known)
        measure = self.measures[token.text]
        codes = tuple(CodeFamily(code) for code in measure.codes)
        return Series(codes, measure.unit, self.window(), token.text)

    def window(self) -> Window:
        if not self.is_sign("["):
            return Window()
        opening = self.take()
        start = None if self.is_sign(":") else self.offset(math.ceil)
        self.sign(":", "between the ends of the window")
        end = 0 if self.is_sign("]") else self.offset(math.floor)
        self.sign("]", "to close the window")
        if end > 0 or (start is not None and start > 0):
            refuse(
                "expected a window up to the index day: what comes after it cannot decide who enters (followed >= ... "
                "asks for follow-up)",
                self.text,
                opening.start,
            )
        if start is not None and start > end:
            refuse("expected a window that starts before its end, such as [-2y:-30d]", self.text, opening.start)
        return Window(start, end)

    def offset(self, rounded: Callable[[float], int]) -> int:
        """Days from the index day. Parts of a day are left out of the window."""
        sign = -1 if self.is_sign("-") else 1
        if self.is_sign("-", "+"):
            self.take()
        if self.here.kind != "number":
            self.fail("a duration, such as 90d")
        token = self.take()
        if token.unit not in DAYS and float(token.text):
            hint = "; the resolution is the day" if token.unit in ("h", "min", "s") else ""
            self.fail(f"a unit of time after {token.text} ({_listed(DAYS)}{hint})", token)
        return rounded(sign * float(token.text) * DAYS.get(token.unit, 1.0))


def _compared(quantity: Quantity, relation: str, value: float) -> Proposition:
    match relation:
        case "=":
            return InRange(quantity, value, value)
        case "!=":
            return Not(InRange(quantity, value, value))
        case "<" | "<=":
            return InRange(quantity, high=value, includes_high="=" in relation)
        case _:
            return InRange(quantity, low=value, includes_low="=" in relation)


def _listed(words: Mapping[str, object]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"
