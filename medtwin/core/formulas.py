"""Formulas that stand in rules as text: parsed once, to arithmetic over named arrays and nothing else."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError

Floats = NDArray[np.float64]
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    "min": (np.minimum, 2),
    "max": (np.maximum, 2),
    "exp": (np.exp, 1),
    "log": (np.log, 1),
    "sqrt": (np.sqrt, 1),
    "abs": (np.abs, 1),
}


@dataclass(frozen=True)
class Formula:
    """Arithmetic over named numbers: `+ - * / **`, brackets, and the functions min, max, exp, log, sqrt, abs.

    Attributes:
        text: As it stands in the rule. names: The names in it.

    >>> formula = parse_formula("weight / (height / 100) ** 2")
    >>> sorted(formula.names), formula.evaluate({"weight": np.array([81.0]), "height": np.array([180.0])}).tolist()
    (['height', 'weight'], [25.0])
    """

    text: str
    names: frozenset[str]
    _tree: ast.expr

    def evaluate(self, values: Mapping[str, Floats]) -> Floats:
        """The formula's value for each element, float64; NaN or infinite where it has none."""
        with np.errstate(all="ignore"):
            return np.asarray(_value(self._tree, values), np.float64)


def parse_formula(text: str) -> Formula:
    """A formula from its text.

    Raises:
        ConfigError: If it is anything but arithmetic.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"formula must be arithmetic such as 'weight / height ** 2', got {text!r}") from error
    names: set[str] = set()
    _check(tree, names, text)
    return Formula(text, frozenset(names), tree)


def _check(node: ast.expr, names: set[str], text: str) -> None:
    """Refuses whatever is not arithmetic; notes the names."""
    parts: list[ast.expr] = []
    if isinstance(node, ast.Name):
        names.add(node.id)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        parts = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        parts = [node.operand]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and _is_known_call(node):
        parts = node.args
    elif not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
        allowed = f"+ - * / ** and {', '.join(_FUNCTIONS)}"
        raise ConfigError(f"formula must hold only numbers, names, {allowed}, got {text!r}")
    for part in parts:
        _check(part, names, text)


def _is_known_call(node: ast.Call) -> bool:
    known = _FUNCTIONS.get(node.func.id) if isinstance(node.func, ast.Name) else None
    return known is not None and len(node.args) == known[1] and not node.keywords


def _value(node: ast.expr, values: Mapping[str, Floats]) -> Any:
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.Constant):
        return np.float64(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp):
        return -_value(node.operand, values)
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, values), _value(node.right, values))
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    return _FUNCTIONS[node.func.id][0](*(_value(part, values) for part in node.args))
