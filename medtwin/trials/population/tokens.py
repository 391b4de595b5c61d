"""Words, numbers, codes and signs of an eligibility expression, each with its place in the text."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

from medtwin.core.errors import ConfigError

TokenKind = Literal["word", "number", "code", "unit", "sign", "end"]
# What is followed by codes in parentheses.
CODED = frozenset({"condition", "drug", "procedure", "event", "value"})

_SPACE = re.compile(r"\s*")
_RACE = re.compile(r"\d{4}-\d\b")
_NUMBER = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
# After a number: UCUM without spaces, none of which is a word of the language.
_WORDS = "and|or|in|no|not|age|sex|race|followed|observed|condition|drug|procedure|event|value"
_UNIT = re.compile(
    rf"(?!(?:{_WORDS})\b)"
    r"(?=10[*^]\d|[A-Za-z%/\[{])(?:[A-Za-z0-9%/*'^.]|\[[^\[\]\s:]+\]|\{[^{}\s]*\})+",
    re.ASCII,
)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_QUOTED = re.compile(r'"([^"]*)"')
_SIGN = re.compile(r"<=|>=|!=|==|[<>=&|!()\[\]{}:,+-]|≤|≥|≠")
_CODE = re.compile(r'[^\s|,()"]+')
_SAME = {"==": "=", "≤": "<=", "≥": ">=", "≠": "!="}


class EligibilityError(ConfigError):
    """An expression that is none; the message shows the place. `column` counts from 1."""

    def __init__(self, message: str, text: str, column: int) -> None:
        self.column = column
        super().__init__(f"eligibility, column {column}: {message}\n  {text}\n  {' ' * (column - 1)}^")


@dataclass(frozen=True)
class Token:
    """A piece of the text; `start` counts from 0. `unit` is what stands right after a number, empty for nothing."""

    kind: TokenKind
    text: str
    start: int
    unit: str = ""

    @property
    def shown(self) -> str:
        """For messages."""
        return "the end" if self.kind == "end" else repr(self.text + (f" {self.unit}" if self.unit else ""))


def tokenise(text: str) -> list[Token]:
    """The tokens of an expression, the last of kind `end`.

    Raises:
        EligibilityError: If a character belongs to no token, or parentheses of codes do not end.

    >>> [token.text for token in tokenise("egfr[-90d:] > 30 & no condition(I50 | I11.0)")]
    ['egfr', '[', '-', '90', ':', ']', '>', '30', '&', 'no', 'condition', '(', 'I50', '|', 'I11.0', ')', '']
    """
    return list(_tokens(text))


def _tokens(text: str) -> Iterator[Token]:
    place, before = 0, ""
    while True:
        place = _skip(text, place)
        if place == len(text):
            yield Token("end", "", place)
            return
        if text[place] == "(" and before in CODED:
            yield Token("sign", "(", place)
            place = yield from _coded(text, place + 1)
            before = ""
            continue
        token, place = _next(text, place)
        before = token.text if token.kind == "word" else ""
        yield token


def _next(text: str, place: int) -> tuple[Token, int]:
    """The token at a place, and where it ends."""
    if found := _QUOTED.match(text, place) or _RACE.match(text, place):
        return Token("word", found[found.lastindex or 0], place), found.end()
    if found := _NUMBER.match(text, place):
        unit = _UNIT.match(text, _skip(text, found.end()))
        end = unit.end() if unit else found.end()
        return Token("number", found[0], place, unit[0] if unit else ""), end
    if found := _WORD.match(text, place):
        return Token("word", found[0], place), found.end()
    if found := _SIGN.match(text, place):
        return Token("sign", _SAME.get(found[0], found[0]), place), found.end()
    refuse(f"{text[place]!r} has no meaning here", text, place)


def _coded(text: str, place: int) -> Generator[Token, None, int]:
    """Codes, `|` and the unit up to the closing parenthesis, which is the last; returns the place after it."""
    while True:
        place = _skip(text, place)
        if place == len(text):
            refuse("expected ')' after the codes, got the end", text, place)
        if text[place] in "|),":
            yield Token("sign", text[place], place)
            place += 1
            if text[place - 1] == ")":
                return place
            if text[place - 1] == ",":
                place = yield from _unit(text, _skip(text, place))
        elif found := _QUOTED.match(text, place) or _CODE.match(text, place):
            yield Token("code", found[found.lastindex or 0], place)
            place = found.end()
        else:
            refuse(f"expected a code, got {text[place]!r}", text, place)


def _unit(text: str, place: int) -> Generator[Token, None, int]:
    """A UCUM unit, which may have parentheses of its own; returns the place of the closing one."""
    depth, end = 0, place
    while end < len(text) and (depth or text[end] != ")"):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    yield Token("unit", text[place:end].strip(), place)
    return end


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def refuse(message: str, text: str, start: int) -> NoReturn:
    """Raises.

    Raises:
        EligibilityError: Always; `start` counts from 0.
    """
    raise EligibilityError(message, text, start + 1)
