"""Evaluates R expressions of reference cases on data frames: what prepares the data, and what reads a result.

Vectors are numpy arrays, lists and data frames dicts; `Named` is a vector or matrix with names, `Factor` one with
levels. A function that is not known raises `NotCoveredError` with its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.rcalls import Call, Name


class Frame(dict[str, Any]):
    """A data frame: columns of one length by name."""

    def rows(self, keep: NDArray[Any]) -> Frame:
        """Some of the rows."""
        return Frame({name: _take(column, keep) for name, column in self.items()})

    def __len__(self) -> int:
        return next((len(column) for column in self.values()), 0)


@dataclass(frozen=True)
class Factor:
    """Codes from 0, -1 for nothing, of ordered levels."""

    codes: NDArray[np.int64]
    levels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def labels(self) -> NDArray[Any]:
        """The level of each, as text."""
        return np.array([*self.levels, ""])[self.codes]

    def take(self, keep: NDArray[Any]) -> Factor:
        """Some of them; the levels stay."""
        return Factor(self.codes[keep], self.levels)


@dataclass(frozen=True)
class Named:
    """A vector or matrix with the names of its axes."""

    values: NDArray[Any]
    names: tuple[Sequence[str] | None, ...]


@dataclass(frozen=True)
class Formula:
    """A formula, not evaluated."""

    left: Any
    right: Any


@dataclass
class Environment:
    """Variables and functions; `natives` get the environment and the call, `functions` evaluated arguments."""

    variables: dict[str, Any]
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    natives: Mapping[str, Callable[[Environment, Call], Any]] = field(default_factory=dict)

    def within(self, frame: Mapping[str, Any]) -> Environment:
        """The same where the columns of a frame come first."""
        return Environment({**self.variables, **frame}, self.functions, self.natives)

    def run(self, node: Any) -> Any:
        """The value of a tree."""
        if node is None or isinstance(node, (float, bool, str)):
            return node
        if isinstance(node, Name):
            return self._look_up(node.name)
        if callable(self.variables.get(node.name)):
            named = {key: self.run(each) for key, each in node.named.items()}
            return self.variables[node.name](*(self.run(each) for each in node.args), **named)
        if node.name in self.natives:
            return self.natives[node.name](self, node)
        if node.name in _SPECIAL:
            return _SPECIAL[node.name](self, node)
        args = [self.run(each) for each in node.args]
        named = {key: self.run(each) for key, each in node.named.items()}
        found = self.functions.get(node.name) or _FUNCTIONS.get(node.name)
        if found is None:
            raise NotCoveredError(f"the R function {node.name}()")
        return found(*args, **named)

    def answer(self, call: Any, extract: Any) -> dict[str, Any]:
        """What the extract, which knows the result of the call as x, takes out of it: values by name.

        Raises:
            NotCoveredError: If the extract gives no names.
        """
        self.variables["x"] = self.run(call)
        found = self.run(extract)
        if not isinstance(found, Mapping):
            raise NotCoveredError("an extract that names no outputs")
        return {name: plain(value) for name, value in found.items()}

    def _look_up(self, name: str) -> Any:
        constants = {"NA": np.nan, "Inf": np.inf, "NULL": None, "pi": np.pi, "T": True, "F": False}
        if name in self.variables:
            return self.variables[name]
        if name in constants:
            return constants[name]
        if name in self.functions or name in _FUNCTIONS:
            return self.functions.get(name) or _FUNCTIONS[name]
        raise NotCoveredError(f"the R variable {name}")


def _take(column: Any, keep: NDArray[Any]) -> Any:
    return column.take(keep) if isinstance(column, Factor) else np.asarray(column)[keep]


def plain(value: Any) -> Any:
    """Without names and levels: an array, or what it is."""
    if isinstance(value, Named):
        return value.values
    return value.labels if isinstance(value, Factor) else value


def vector(value: Any) -> NDArray[Any]:
    """As a vector."""
    return np.atleast_1d(np.asarray(plain(value)))


def is_missing(column: Any) -> NDArray[np.bool_]:
    """Where a column, or a row of a matrix, has nothing."""
    if isinstance(column, Factor):
        return column.codes < 0
    values = vector(column)
    missing = values == "" if values.dtype.kind == "U" else np.isnan(values.astype(np.float64))
    return np.asarray(missing.reshape(len(values), -1).any(axis=1))


def as_factor(value: Any, levels: Any = None) -> Factor:
    """A factor, levels in order of their values unless given."""
    if isinstance(value, Factor) and levels is None:
        there = [i for i in range(len(value.levels)) if (value.codes == i).any()]
        return as_factor(value.labels, [value.levels[i] for i in there])
    raw = vector(value)
    if levels is None:
        levels = sorted({each for each in raw.tolist() if each != "" and each == each})
    names = [_text(each) for each in vector(levels).tolist()]
    place = {name: i for i, name in enumerate(names)}
    return Factor(np.array([place.get(_text(each), -1) for each in raw.tolist()], dtype=np.int64), tuple(names))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    return f"{value:.15g}" if isinstance(value, (int, float)) else str(value)


def _assign(env: Environment, node: Call) -> Any:
    target, value = node.args[0], env.run(node.args[1])
    if isinstance(target, Call) and target.name == "$":
        frame = Frame(env.variables[target.args[0].name])
        size = len(frame)
        if isinstance(value, Factor) and len(value) == 1:
            value = value.take(np.zeros(size, dtype=np.int64))
        is_scalar = not isinstance(value, Factor) and np.ndim(plain(value)) == 0
        frame[target.args[1].name] = np.full(size, value) if is_scalar else value
        env.variables[target.args[0].name] = frame
    elif isinstance(target, Name):
        env.variables[target.name] = value
    else:
        raise NotCoveredError(f"assignment to {target}")
    return value


def _block(env: Environment, node: Call) -> Any:
    inner = Environment(dict(env.variables), env.functions, env.natives)
    found = None
    for line in node.args:
        found = inner.run(line)
    return found


def _condition(env: Environment, node: Call) -> Any:
    if env.run(node.args[0]):
        return env.run(node.args[1])
    return env.run(node.args[2]) if len(node.args) > 2 else None


def _member(env: Environment, node: Call) -> Any:
    holder, name = env.run(node.args[0]), node.args[1].name
    if not isinstance(holder, Mapping) or name not in holder:
        raise NotCoveredError(f"the component ${name}")
    return holder[name]


def _formula(env: Environment, node: Call) -> Formula:
    return Formula(node.args[0], node.args[1]) if len(node.args) == 2 else Formula(None, node.args[0])


def _subset(env: Environment, node: Call) -> Frame:
    frame: Frame = env.run(node.args[0])
    keep = env.within(frame).run(node.get("subset", 1))
    if "select" in node.named:
        raise NotCoveredError("the argument select of subset()")
    return frame.rows(_truth(keep))


def _truth(values: Any) -> NDArray[np.bool_]:
    found = vector(values)
    return found if found.dtype.kind == "b" else np.nan_to_num(found.astype(np.float64)) != 0


def _transform(env: Environment, node: Call) -> Frame:
    frame = env.run(node.args[0])
    inner = env.within(frame)
    return Frame({**frame, **{name: inner.run(each) for name, each in node.named.items()}})


def _with(env: Environment, node: Call) -> Any:
    return env.within(env.run(node.args[0])).run(node.args[1])


def _index(env: Environment, node: Call) -> Any:
    holder = env.run(node.args[0])
    keys = [env.run(each) for each in node.args[1:]]
    if node.named and set(node.named) != {"drop"}:
        raise NotCoveredError(f"the arguments {sorted(node.named)} of [")
    if isinstance(holder, Frame):
        return _frame_index(holder, keys)
    if isinstance(holder, dict):
        return {name: holder[name] for name in vector(keys[0]).tolist()}
    if isinstance(holder, Factor):
        return holder.take(_places(keys[0], len(holder), None))
    named = holder if isinstance(holder, Named) else Named(vector(holder), (None,) * max(np.ndim(holder), 1))
    values, names = named.values, list(named.names)
    if len(keys) == 1 and values.ndim > 1:
        values, names = values.reshape(-1, order="F"), [None]
    for axis, key in enumerate(keys):
        if key is not None:
            places = _places(key, values.shape[axis], names[axis])
            values = np.take(values, np.flatnonzero(places) if places.dtype == bool else places, axis=axis)
            names[axis] = None if names[axis] is None else list(np.array(names[axis])[places])
    dropped = [i for i in range(values.ndim) if values.shape[i] == 1 and values.ndim > 1]
    kept = tuple(name for i, name in enumerate(names) if i not in dropped) or (None,)
    return Named(np.atleast_1d(values.squeeze(tuple(dropped))), kept[: max(values.ndim - len(dropped), 1)])


def _frame_index(frame: Frame, keys: list[Any]) -> Any:
    columns = keys[-1]
    chosen = frame if len(keys) < 2 or keys[0] is None else frame.rows(_places(keys[0], len(frame), None))
    if columns is None:
        return chosen
    names = [list(chosen)[int(each) - 1] if not isinstance(each, str) else each for each in vector(columns).tolist()]
    return chosen[names[0]] if len(names) == 1 and len(keys) == 2 else Frame({name: chosen[name] for name in names})


def _places(key: Any, size: int, names: Sequence[str] | None) -> NDArray[Any]:
    """Places from 0, or a mask, of an index."""
    wanted = vector(key)
    if wanted.dtype.kind == "U":
        if names is None:
            raise NotCoveredError(f"the name {key} of what has none")
        return np.array([list(names).index(each) for each in wanted.tolist()])
    if wanted.dtype.kind == "b":
        return wanted.reshape(-1, order="F")
    whole = wanted.astype(np.int64)
    return np.setdiff1d(np.arange(size), -whole - 1) if (whole < 0).all() else whole - 1


def _element(env: Environment, node: Call) -> Any:
    holder, key = env.run(node.args[0]), env.run(node.args[1])
    if isinstance(holder, Mapping):
        return holder[key] if isinstance(key, str) else list(holder.values())[int(key) - 1]
    if isinstance(holder, list):
        return holder[int(key) - 1]
    return _index(env, node)


def _list(*args: Any, **named: Any) -> Any:
    return named if named else list(args)


def _combine(*args: Any, **named: Any) -> Any:
    parts = [vector(each) for each in (*args, *named.values()) if each is not None]
    values = np.concatenate(parts) if parts else np.zeros(0)
    return Named(values, (list(named),)) if named and not args and len(named) == len(values) else values


def _pairwise(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*args: Any) -> Any:
        names = next((each.names for each in args if isinstance(each, Named)), None)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = function(*(plain(each) for each in args))
        return Named(found, names) if names is not None and np.shape(found) else found

    return apply


def _compare(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(one: Any, other: Any) -> Any:
        a, b = plain(one), plain(other)
        if np.asarray(a).dtype.kind == "U" and np.asarray(b).dtype.kind != "U":
            b = np.array([_text(each) for each in np.atleast_1d(b).tolist()])
            b = b[0] if len(b) == 1 else b
        return function(a, b)

    return apply


def as_number(value: Any) -> Any:
    raw = value.codes + 1.0 if isinstance(value, Factor) else plain(value)
    return np.asarray(raw, dtype=np.float64) if np.ndim(raw) else float(raw)


def _integer(value: Any) -> Any:
    return np.trunc(as_number(value))


def _choose(test: Any, yes: Any, no: Any) -> Any:
    return np.where(_truth(test), plain(yes), plain(no))


def _member_of(values: Any, table: Any) -> Any:
    found = vector(values)
    wanted = vector(table)
    return np.isin(found, wanted if found.dtype.kind == wanted.dtype.kind else wanted.astype(found.dtype))


def _bind_columns(*args: Any, **named: Any) -> Named:
    parts: list[NDArray[Any]] = []
    names: list[str] = []
    for name, value in (*(("", each) for each in args), *named.items()):
        if isinstance(value, Frame):
            parts += [as_number(column) for column in value.values()]
            names += list(value)
        else:
            values = np.asarray(plain(value), dtype=np.float64)
            parts += list(values.T) if values.ndim == 2 else [values]
            names += [""] * values.shape[1] if values.ndim == 2 else [name]
    return Named(np.column_stack(np.broadcast_arrays(*parts)), (None, names))


def _data_frame(*args: Any, **named: Any) -> Frame:
    frame = Frame()
    for each in args:
        frame.update(each)
    size = max(
        (len(vector(each)) for each in (*frame.values(), *named.values()) if not isinstance(each, bool)), default=0
    )
    named.pop("stringsAsFactors", None)
    for name, value in named.items():
        frame[name] = np.full(size, value) if not isinstance(value, Factor) and np.ndim(plain(value)) == 0 else value
    return frame


def _factor(values: Any, levels: Any = None, labels: Any = None) -> Factor:
    found = as_factor(values, levels)
    return found if labels is None else Factor(found.codes, tuple(str(each) for each in vector(labels).tolist()))


def _relevel(values: Any, ref: str) -> Factor:
    found = values if isinstance(values, Factor) else as_factor(values)
    return as_factor(found.labels, [ref, *(each for each in found.levels if each != ref)])


def _interaction(*parts: Any) -> NDArray[Any]:
    return np.array([" ".join(map(_text, row)) for row in zip(*(vector(each).tolist() for each in parts), strict=True)])


def _transpose(value: Any) -> Any:
    named = value if isinstance(value, Named) else Named(np.atleast_2d(value), (None, None))
    if named.values.ndim == 1:
        return Named(named.values[None, :], (None, named.names[0]))
    return Named(named.values.T, named.names[::-1])


def _as_matrix(value: Any) -> Named:
    if isinstance(value, Frame):
        return _bind_columns(value)
    named = value if isinstance(value, Named) else Named(vector(value), (None,))
    return named if named.values.ndim == 2 else Named(named.values[:, None], (named.names[0], None))


def _dimensions(value: Any) -> Any:
    values = plain(value)
    return np.array(values.shape) if isinstance(values, np.ndarray) and values.ndim > 1 else None


def _unname(value: Any) -> Any:
    if isinstance(value, Mapping):
        return list(value.values())
    return plain(value)


def _names(value: Any) -> Any:
    return np.array(list(value)) if isinstance(value, Mapping) else np.array(value.names[0])


def _drop_missing(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*args: Any, **named: Any) -> Any:
        values = np.concatenate([vector(each).reshape(-1).astype(np.float64) for each in args])
        return float(function(values[~np.isnan(values)] if named.get("na.rm") else values))

    return apply


_SPECIAL: dict[str, Callable[[Environment, Call], Any]] = {
    "<-": _assign,
    "=": _assign,
    "{": _block,
    "if": _condition,
    "$": _member,
    "~": _formula,
    "subset": _subset,
    "with": _with,
    "transform": _transform,
    "[": _index,
    "[[": _element,
}

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "list": _list,
    "c": _combine,
    "+": _pairwise(lambda a, b=0.0: a + b),
    "-": _pairwise(lambda a, b=None: -a if b is None else a - b),
    "*": _pairwise(np.multiply),
    "/": _pairwise(np.true_divide),
    "^": _pairwise(np.power),
    "exp": _pairwise(np.exp),
    "log": _pairwise(np.log),
    "sqrt": _pairwise(np.sqrt),
    "abs": _pairwise(np.abs),
    "head": lambda a, n=6: vector(a)[: int(n)],
    "tail": lambda a, n=6: vector(a)[-int(n) :],
    "pmin": _pairwise(np.minimum),
    "pmax": _pairwise(np.maximum),
    "==": _compare(lambda a, b: a == b),
    "!=": _compare(lambda a, b: a != b),
    "<": _compare(lambda a, b: a < b),
    ">": _compare(lambda a, b: a > b),
    "<=": _compare(lambda a, b: a <= b),
    ">=": _compare(lambda a, b: a >= b),
    "&": lambda a, b: _truth(a) & _truth(b),
    "|": lambda a, b: _truth(a) | _truth(b),
    "!": lambda a: ~_truth(a),
    "%in%": _member_of,
    ":": lambda a, b: np.arange(a, b + 0.5),
    "I": lambda a: a,
    "is.na": lambda a: is_missing(a),
    "ifelse": _choose,
    "as.integer": _integer,
    "as.numeric": as_number,
    "as.double": as_number,
    "as.logical": _truth,
    "as.character": lambda a: vector(a) if a is not None else np.zeros(0),
    "as.vector": lambda a: np.asarray(plain(a)).reshape(-1, order="F"),
    "factor": _factor,
    "as.factor": _factor,
    "relevel": _relevel,
    "interaction": _interaction,
    "cbind": _bind_columns,
    "data.frame": _data_frame,
    "nrow": lambda a: len(a) if isinstance(a, Frame) else plain(a).shape[0],
    "length": lambda a: len(a) if isinstance(a, (Mapping, list, Factor)) else len(vector(a)),
    "names": _names,
    "unname": _unname,
    "t": _transpose,
    "as.matrix": _as_matrix,
    "is.matrix": lambda a: np.ndim(plain(a)) == 2,
    "is.null": lambda a: a is None,
    "dim": _dimensions,
    "diff": lambda a: np.diff(vector(a)),
    "cumsum": lambda a: np.cumsum(vector(a)),
    "rev": lambda a: vector(a)[::-1],
    "rowSums": lambda a: plain(a).sum(axis=1),
    "colSums": lambda a: plain(a).sum(axis=0),
    "sum": _drop_missing(np.sum),
    "mean": _drop_missing(np.mean),
    "median": _drop_missing(np.median),
    "min": _drop_missing(np.min),
    "max": _drop_missing(np.max),
}
