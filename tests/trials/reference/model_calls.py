"""What R's model functions take from a call: response, design, offset, new data; and the data frames of the cases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.data_frames import data_frames
from tests.trials.reference.evaluate import (
    Environment,
    Factor,
    Formula,
    Frame,
    Named,
    as_factor,
    is_missing,
    plain,
    vector,
)
from tests.trials.reference.model_frame import Estimable, ModelFrame, model_frame
from tests.trials.reference.rcalls import Call, Name


def variables(folder: Path) -> dict[str, Any]:
    """The data frames by R's names."""
    return dict(data_frames(folder))


def whole_column(value: Any, size: int) -> Any:
    """A column of a data frame, one value repeated."""
    if isinstance(value, Factor):
        return value.take(np.zeros(size, dtype=np.int64)) if len(value) == 1 else value
    found = vector(value)
    return np.full(size, found[0]) if len(found) == 1 else found


def transform(env: Environment, call: Call) -> Frame:
    """`transform()` of a data frame."""
    frame: Frame = env.run(call.args[0])
    inner = env.within(frame)
    columns = {name: whole_column(inner.run(each), len(frame)) for name, each in call.named.items()}
    return Frame({**frame, **columns})


def assign(env: Environment, call: Call) -> Any:
    """`<-` to a name, a column of a frame, or a part of a matrix or vector."""
    target, value = call.args[0], env.run(call.args[1])
    if isinstance(target, Name):
        env.variables[target.name] = value
        return value
    holder = target.args[0]
    if not isinstance(holder, Name) or target.name not in ("$", "[", "[["):
        raise NotCoveredError(f"assignment to {target}")
    old = env.variables[holder.name]
    keys = [target.args[1].name] if target.name == "$" else [env.run(each) for each in target.args[1:]]
    if isinstance(old, Frame):
        if not isinstance(keys[-1], str) or any(each is not None for each in keys[:-1]):
            raise NotCoveredError("assignment to rows of a data frame")
        env.variables[holder.name] = Frame({**old, keys[-1]: whole_column(value, len(old))})
        return value
    values = np.array(plain(old))
    values[tuple(_place(key, old, axis) for axis, key in enumerate(keys))] = plain(value)
    env.variables[holder.name] = Named(values, old.names) if isinstance(old, Named) else values
    return value


def _place(key: Any, holder: Any, axis: int) -> Any:
    if key is None:
        return slice(None)
    wanted = vector(key)
    if wanted.dtype.kind == "b":
        return wanted
    if wanted.dtype.kind == "U":
        return [list(holder.names[axis]).index(each) for each in wanted.tolist()]
    return wanted.astype(np.int64) - 1


@dataclass(frozen=True)
class Response:
    """The left side of a formula: (rows,) or (rows, columns) numbers."""

    columns: NDArray[np.float64]

    def rows(self, keep: NDArray[np.bool_]) -> Response:
        """Some of the rows."""
        return Response(self.columns[keep])

    @property
    def numbers(self) -> NDArray[np.float64]:
        """As one column."""
        if self.columns.ndim > 1:
            raise NotCoveredError("a response of several columns")
        return self.columns


def response(env: Environment, call: Call) -> Response:
    """The value of a left side; of a factor whether it is another level than the first."""
    value = env.run(call.args[0])
    if isinstance(value, Factor):
        return Response((value.codes > 0).astype(np.float64))
    return Response(np.asarray(plain(value), dtype=np.float64))


@dataclass(frozen=True)
class Design:
    """A regression as R reads it.

    Attributes:
        frame: With the variables of the formula. formula: Without offsets.
        names: Of the columns. kept: Which of them are estimable. offset: (rows,).
    """

    frame: ModelFrame
    formula: Formula
    offsets: tuple[Any, ...]
    names: list[str]
    kept: Estimable
    x: NDArray[np.float64]
    offset: NDArray[np.float64]
    has_intercept: bool = True

    @property
    def y(self) -> Response:
        """The left side."""
        found: Response = self.frame.response
        return found

    def with_data(self, env: Environment, data: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Estimable columns, (rows, columns), and offset, (rows,), at other data, with the levels of this design."""
        for name in self.frame.variables:
            if name.startswith(("poly(", "scale(")):
                raise NotCoveredError(f"other data for {name}")
        frame = model_frame(env, Formula(None, self.formula.right), data)
        known = {name: _levels(each) for name, each in self.frame.variables.items()}
        recoded = {
            name: each if known[name] is None else as_factor(_labels(each), list(known[name] or ()))
            for name, each in frame.variables.items()
        }
        whole = replace(frame, variables=recoded)
        x = whole.matrix(intercept=self.has_intercept, is_full=not self.has_intercept)[0]
        return x[:, np.insert(self.kept.columns, 0, True)], _offset(env, data, self.offsets, frame.rows)


def _levels(variable: Any) -> tuple[str, ...] | None:
    if isinstance(variable, Factor):
        return variable.levels
    return as_factor(variable).levels if plain(variable).dtype.kind == "U" else None


def _labels(variable: Any) -> Any:
    return variable.labels if isinstance(variable, Factor) else variable


def _split(node: Any) -> tuple[list[Any], list[Call]]:
    """The terms of a sum, and the offsets among them; a 0 is a term that takes the intercept out."""
    if isinstance(node, Call) and node.name == "+" and len(node.args) == 2:
        left, right = _split(node.args[0]), _split(node.args[1])
        return left[0] + right[0], left[1] + right[1]
    if isinstance(node, Call) and node.name == "-" and len(node.args) == 2 and node.args[1] == 1.0:
        kept, offsets = _split(node.args[0])
        return [*kept, 0.0], offsets
    return ([], [node]) if isinstance(node, Call) and node.name == "offset" else ([node], [])


def _all_columns(node: Any, data: Frame | None, left: Any) -> Any:
    """A right side in which `.` are the columns of the frame that the left side does not name."""
    if node == Name("."):
        if data is None:
            raise NotCoveredError("a . in a formula without data")
        return sum_of([Name(each) for each in data if each not in _names(left)])
    if isinstance(node, Call) and node.name in ("+", "-", "*", ":", "^"):
        return Call(node.name, tuple(_all_columns(each, data, left) for each in node.args))
    return node


def _names(node: Any) -> set[str]:
    if isinstance(node, Name):
        return {node.name}
    return set().union(*(_names(each) for each in node.args)) if isinstance(node, Call) else set()


def terms_of(node: Any) -> list[Any]:
    """The terms of a sum."""
    return _split(node)[0]


def sum_of(terms: list[Any]) -> Any:
    """A sum of terms, 1 of none."""
    found: Any = terms[0] if terms else 1.0
    for each in terms[1:]:
        found = Call("+", (found, each))
    return found


def _offset(env: Environment, data: Frame | None, offsets: tuple[Any, ...], rows: Any) -> NDArray[np.float64]:
    inner = env if data is None else env.within(data)
    total = np.zeros(int(rows.sum()))
    for each in offsets:
        total = total + np.broadcast_to(np.asarray(plain(inner.run(each)), dtype=np.float64), rows.shape)[rows]
    return total


def design(
    env: Environment, formula: Formula, data: Frame | None, subset: Any = None, more: tuple[Any, ...] = ()
) -> Design:
    """The regression of a formula in a data frame, rows without anything missing.

    Args:
        env: Where names are looked up.
        formula: Of the regression.
        data: The frame.
        subset: Condition on its rows, not evaluated.
        more: Other variables that must be there, not evaluated, and the offset.
    """
    kept, offsets = _split(_all_columns(formula.right, data, formula.left))
    has_intercept = 0.0 not in kept
    kept = [each for each in kept if each not in (0.0, 1.0)]
    inner = env if data is None else env.within(data)
    there = None
    for each in more:
        full = ~is_missing(inner.run(each))
        there = full if there is None else there & full
    plain_formula = Formula(Call("response", (formula.left,)), sum_of(kept))
    if there is not None and data is not None and not there.all():
        if subset is not None:
            raise NotCoveredError("a subset with missing values elsewhere")
        data = data.rows(there)
    natives = {**env.natives, "response": response}
    frame = model_frame(Environment(env.variables, env.functions, natives), plain_formula, data, subset)
    if frame.cluster is not None or frame.strata is not None:
        raise NotCoveredError("strata or clusters of this regression")
    x, names = frame.matrix(intercept=has_intercept, is_full=not has_intercept)
    estimable = Estimable.of(x[:, 1:], x[:, 0])
    columns = np.insert(estimable.columns, 0, True)
    nodes = tuple(each.args[0] for each in offsets)
    offset = _offset(env, data, nodes, frame.rows)
    return Design(frame, plain_formula, nodes, names, estimable, x[:, columns], offset, has_intercept)


def column(env: Environment, node: Any, data: Frame | None, rows: Any) -> Any:
    """A variable at the kept rows."""
    value = (env if data is None else env.within(data)).run(node)
    return value.take(rows) if isinstance(value, Factor) else vector(value)[rows]
