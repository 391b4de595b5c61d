"""A small reader of R calls: enough of the language to take arguments, vectors and formulas out of a reference case.

`parse("getDesignFisher(kMax=2, method='equalAlpha')")` gives a `Call`; `value(node)` computes numbers, vectors (lists)
and text from the arithmetic and the few functions that cases use in their arguments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?L?|\.\d+(?:[eE][-+]?\d+)?)
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<name>[A-Za-z.][\w.]*(?::::?[A-Za-z.][\w.]*)?|`[^`]+`)
    |(?P<mark><-|%in%|%\*%|%%|%/%|%o%|%x%|==|!=|<=|>=|&&|\|\||[-+*/^~:$(){}\[\],;=<>!&|\\]))""",
    re.VERBOSE,
)
_KEYWORDS = ("if", "for", "while", "repeat", "break", "next")
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("<-", "="),
    ("~",),
    ("|", "||"),
    ("&", "&&"),
    ("==", "!=", "<", ">", "<=", ">="),
    ("+", "-"),
    ("*", "/"),
    ("%in%", "%*%", "%%", "%/%", "%o%", "%x%"),
    (":",),
)


class RSyntaxError(ValueError):
    """The text is beyond what this reader knows."""


@dataclass(frozen=True)
class Name:
    """A variable."""

    name: str


@dataclass(frozen=True)
class Call:
    """A function, operator (`+`, `~`, `[`, `$`) or block (`{`) with its arguments; a package prefix is dropped."""

    name: str
    args: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str, position: int | None = None) -> Any:
        """The node of an argument by its name, or by its place among those without; None if it is not given."""
        if name in self.named:
            return self.named[name]
        return self.args[position] if position is not None and position < len(self.args) else None

    def value(self, name: str, default: Any = None, position: int | None = None) -> Any:
        """An argument computed, see `value`."""
        node = self.get(name, position)
        return default if node is None else value(node)


def parse(text: str) -> Any:
    """The tree of one R expression: `Call`, `Name`, float, str or bool.

    Raises:
        RSyntaxError: If it is not understood.

    >>> parse("f(a=1:3, 'x')").named["a"]
    Call(name=':', args=(1.0, 3.0), named={})
    """
    reader = _Reader(_tokens(text))
    tree = reader.expression(0)
    if reader.peek() is not None:
        raise RSyntaxError(f"unexpected {reader.peek()!r} in {text!r}")
    return tree


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise RSyntaxError(f"cannot read {text[at : at + 20]!r}")
        kind = str(match.lastgroup)
        found.append((kind, match.group(kind).strip("`") if kind == "name" else match.group(kind)))
        at = match.end()
        while at < len(text) and text[at].isspace():
            at += 1
    return found


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens, self._at = tokens, 0

    def peek(self) -> str | None:
        if self._at >= len(self._tokens):
            return None
        kind, text = self._tokens[self._at]
        return text if kind == "mark" else f"<{kind}>"

    def _take(self, mark: str | None = None) -> tuple[str, str]:
        if self._at >= len(self._tokens) or (mark is not None and self.peek() != mark):
            raise RSyntaxError(f"expected {mark!r}, got {self.peek()!r}")
        self._at += 1
        return self._tokens[self._at - 1]

    def expression(self, level: int) -> Any:
        if level == len(_LEVELS):
            return self._unary()
        if level == 1 and self.peek() == "~":
            self._take()
            return Call("~", (self.expression(2),))
        left = self.expression(level + 1)
        while self.peek() in _LEVELS[level]:
            mark = self._take()[1]
            left = Call(mark, (left, self.expression(level if mark in ("<-", "=") else level + 1)))
        return left

    def _unary(self) -> Any:
        if self.peek() in ("-", "+", "!"):
            mark = self._take()[1]
            return Call(mark, (self._unary(),))
        left = self._postfix()
        if self.peek() == "^":
            self._take()
            return Call("^", (left, self._unary()))
        return left

    def _postfix(self) -> Any:
        node = self._atom()
        while self.peek() in ("(", "[", "$"):
            mark = self._take()[1]
            if mark == "[" and self.peek() == "[":
                self._take()
                args, named = self._arguments("]")
                self._take("]")
                node = Call("[[", (node, *args), named)
            elif mark == "$":
                node = Call("$", (node, Name(self._take()[1])))
            elif mark == "[":
                args, named = self._arguments("]")
                node = Call("[", (node, *args), named)
            else:
                args, named = self._arguments(")")
                is_named = isinstance(node, Name)
                node = Call(node.name, args, named) if is_named else Call("(call)", (node, *args), named)
        return node

    def _arguments(self, end: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: list[Any] = []
        named: dict[str, Any] = {}
        while self.peek() != end:
            if self.peek() == ",":
                args.append(None)
            else:
                node = self.expression(0)
                if isinstance(node, Call) and node.name == "=":
                    key = node.args[0]
                    named[key if isinstance(key, str) else key.name] = node.args[1]
                else:
                    args.append(node)
            if self.peek() == ",":
                self._take()
                if end == "]" and self.peek() == end:
                    args.append(None)  # x[1, ] is a row of a matrix
        self._take(end)
        return tuple(args), named

    def _atom(self) -> Any:
        if self.peek() == "(":
            self._take()
            node = self.expression(0)
            self._take(")")
            return node
        if self.peek() == "{":
            return self._block()
        kind, text = self._take()
        if text == "\\":
            kind, text = "name", "function"  # the short form of R 4.1
        if kind == "number":
            return float(text.rstrip("L"))
        if kind == "text":
            return text[1:-1]
        if kind != "name":
            raise RSyntaxError(f"unexpected {text!r}")
        if text == "function":
            self._take("(")
            args, named = self._arguments(")")
            return Call("function", (args, named, self.expression(0)))
        if text in _KEYWORDS:
            return self._keyword(text)
        return {"TRUE": True, "FALSE": False}.get(text, Name(re.sub(r".*:", "", text)))

    def _keyword(self, text: str) -> Any:
        if text == "if":
            return self._condition()
        if text in ("break", "next"):
            return Call(text)
        if text == "repeat":
            return Call("while", (True, self.expression(0)))
        self._take("(")
        head = [self.expression(0)]
        if text == "for":
            self._take()
            head.append(self.expression(0))
        self._take(")")
        return Call(text, (*head, self.expression(0)))

    def _condition(self) -> Any:
        self._take("(")
        condition = self.expression(0)
        self._take(")")
        branches = [self.expression(0)]
        if self._at < len(self._tokens) and self._tokens[self._at] == ("name", "else"):
            self._take()
            branches.append(self.expression(0))
        return Call("if", (condition, *branches))

    def _block(self) -> Any:
        self._take("{")
        lines = []
        while self.peek() != "}":
            lines.append(self.expression(0))
            if self.peek() == ";":
                self._take()
        self._take("}")
        return Call("{", tuple(lines))


def value(node: Any) -> Any:
    """What an argument says: a number, text, None, or a list of them; nested lists are the rows of a matrix.

    Raises:
        RSyntaxError: If it names something that is not known here.

    >>> value(parse("c(0, log(2)/12, rep(1, 2))"))
    [0.0, 0.057762265046662105, 1.0, 1.0]
    """
    if isinstance(node, (float, str, bool)) or node is None:
        return node
    if isinstance(node, Name):
        known = {"Inf": math.inf, "NULL": None, "NA": None, "pi": math.pi}
        return known.get(node.name, node.name)
    if node.name in _ARITHMETIC:
        return _spread(_ARITHMETIC[node.name], [value(each) for each in node.args])
    if node.name in _FUNCTIONS:
        return _FUNCTIONS[node.name](node)
    raise RSyntaxError(f"no value for the call {node.name}()")


def _spread(function: Callable[..., float], args: list[Any]) -> Any:
    """A function of numbers on vectors, the shorter recycled."""
    longest = max((len(each) for each in args if isinstance(each, list)), default=None)
    if longest is None:
        return function(*args)
    full = [each if isinstance(each, list) else [each] for each in args]
    return [function(*(each[i % len(each)] for each in full)) for i in range(longest)]


def _minus(a: float, b: float | None = None) -> float:
    return -a if b is None else a - b


_ARITHMETIC: dict[str, Callable[..., float]] = {
    "+": lambda a, b=0.0: a + b,
    "-": _minus,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": lambda a, b: float(a**b),
    "log": math.log,
    "exp": math.exp,
    "sqrt": math.sqrt,
}


def _vector(call: Call) -> list[Any]:
    found: list[Any] = []
    for node in (*call.args, *call.named.values()):
        one = value(node)
        found.extend(one if isinstance(one, list) else [one])
    return found


def _repeat(call: Call) -> list[Any]:
    what = value(call.args[0])
    return (what if isinstance(what, list) else [what]) * int(call.value("times", position=1))


def _sequence(call: Call) -> list[float]:
    low, high = (value(each) for each in call.args[:2])
    if call.name == ":":
        return [low + i for i in range(round(high - low) + 1)]
    step = call.value("by", 1.0, 2)
    return [low + step * i for i in range(math.floor((high - low) / step + 1e-9) + 1)]


def _matrix(call: Call) -> list[list[Any]]:
    cells = value(call.args[0])
    cells = cells if isinstance(cells, list) else [cells]
    rows, columns = call.value("nrow", position=1), call.value("ncol", position=2)
    rows = round(rows if rows is not None else len(cells) / (columns or 1))
    columns = round(columns if columns is not None else len(cells) / rows)
    across, down = (columns, 1) if call.value("byrow", position=3) else (1, rows)
    return [[cells[(i * across + j * down) % len(cells)] for j in range(columns)] for i in range(rows)]


_FUNCTIONS: dict[str, Callable[[Call], Any]] = {
    "c": _vector,
    "list": _vector,
    "rep": _repeat,
    ":": _sequence,
    "seq": _sequence,
    "matrix": _matrix,
}
