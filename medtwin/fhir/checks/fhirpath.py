"""The part of FHIRPath that the invariants of FHIR R4 use, as a syntax tree.

Source of the grammar: FHIRPath N1 (hl7.org/fhirpath/N1), section 12. Left out, since no invariant has them: indexers,
arithmetic but `+` and `-`, quantities and date literals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

_TOKENS = re.compile(
    r"\s*(?:(?P<string>'(?:\\.|[^'\\])*')|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)|`(?P<quoted>[^`]+)`"
    r"|(?P<variable>[%$]\w+)|(?P<operator><=|>=|!=|[=<>|&+\-().,{}]))"
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}
# Binary operators from the loosest to the tightest.
_LEVELS = (
    ("implies",),
    ("or", "xor"),
    ("and",),
    ("in", "contains"),
    ("=", "!="),
    ("<", ">", "<=", ">="),
    ("|",),
    ("is", "as"),
    ("+", "-", "&"),
)


class FhirPathError(ValueError):
    """An expression outside of the part that is understood here."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, a number or a truth value."""

    value: str | float | bool


@dataclass(frozen=True, slots=True)
class Variable:
    """`$this`, or an environment variable such as `%resource`."""

    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """A child element: `base.name`; of the focus where there is no base."""

    base: Node | None
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function: `base.name(arguments)`."""

    base: Node | None
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two expressions; of `is` and `as` the right one is a `Member` that names a type."""

    operator: str
    left: Node
    right: Node


Node: TypeAlias = Literal | Variable | Member | Call | Binary


@cache
def parse(expression: str) -> Node:
    """The syntax tree of an expression.

    Raises:
        FhirPathError: If it is not of the understood part.

    >>> parse("value.empty()")
    Call(base=Member(base=None, name='value'), name='empty', arguments=())
    """
    parser = _Parser(expression)
    tree = parser.binary(0)
    if parser.token is not None:
        raise FhirPathError(f"expression must end after {parser.position} tokens: {expression}")
    return tree


class _Parser:
    def __init__(self, expression: str) -> None:
        self._text = expression
        self._tokens = list(_tokens(expression))
        self.position = 0

    @property
    def token(self) -> tuple[str, str] | None:
        return self._tokens[self.position] if self.position < len(self._tokens) else None

    def _take(self) -> tuple[str, str]:
        token = self.token
        if token is None:
            raise FhirPathError(f"expression must not end so early: {self._text}")
        self.position += 1
        return token

    def _is(self, text: str) -> bool:
        return self.token in (("operator", text), ("name", text))

    def _expect(self, text: str) -> None:
        if self._take()[1] != text:
            raise FhirPathError(f"expression must have {text!r} at token {self.position}: {self._text}")

    def binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._postfix()
        left = self.binary(level + 1)
        while any(self._is(operator) for operator in _LEVELS[level]):
            operator = self._take()[1]
            left = Binary(operator, left, self.binary(level + 1))
        return left

    def _postfix(self) -> Node:
        node = self._primary()
        while self._is("."):
            self._take()
            node = self._member(node)
        return node

    def _primary(self) -> Node:
        kind, text = self._take()
        if kind == "string":
            return Literal(_unescape(text[1:-1]))
        if kind == "number":
            return Literal(float(text) if "." in text else int(text))
        if kind == "variable":
            return Variable(text)
        if text in ("true", "false"):
            return Literal(text == "true")
        if text == "(":
            node = self.binary(0)
            self._expect(")")
            return node
        if kind in ("name", "quoted"):
            self.position -= 1
            return self._member(None)
        raise FhirPathError(f"expression must not have {text!r} at token {self.position}: {self._text}")

    def _member(self, base: Node | None) -> Node:
        kind, name = self._take()
        if kind not in ("name", "quoted"):
            raise FhirPathError(f"expression must have a name at token {self.position}: {self._text}")
        if not self._is("(") or kind == "quoted":
            return Member(base, name)
        self._take()
        arguments: list[Node] = []
        while not self._is(")"):
            if arguments:
                self._expect(",")
            arguments.append(self.binary(0))
        self._take()
        return base if name == "trace" and base is not None else Call(base, name, tuple(arguments))


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKENS.match(text, at)
        if match is None or match.lastgroup is None:
            raise FhirPathError(f"expression cannot be read from character {at}: {text}")
        tokens.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    return tokens


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(1)), text)
