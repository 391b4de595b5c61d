"""R's loops, branches and blocks, and its functions of functions, for expressions of the reference cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Environment, Factor, Frame, Named, plain, vector
from tests.trials.reference.rcalls import Call


class _BreakError(Exception):
    """`break`."""


class _NextError(Exception):
    """`next`."""


def block(env: Environment, call: Call) -> Any:
    """`{`: the value of the last line; what is assigned stays."""
    found = None
    for line in call.args:
        found = env.run(line)
    return found


def _items(values: Any) -> list[Any]:
    if isinstance(values, Mapping):
        return list(values.values())
    return values if isinstance(values, list) else vector(values).tolist()


def for_loop(env: Environment, call: Call) -> None:
    """`for (name in values) body`."""
    name, values, body = call.args

    def rounds() -> Iterator[bool]:
        for each in _items(env.run(values)):
            env.variables[name.name] = each
            yield True

    _repeat(env, body, rounds())


def while_loop(env: Environment, call: Call) -> None:
    """`while (condition) body`; `repeat body` has the condition TRUE."""
    condition, body = call.args

    def rounds() -> Iterator[bool]:
        while bool(vector(env.run(condition))[0]):
            yield True

    _repeat(env, body, rounds())


def _repeat(env: Environment, body: Any, rounds: Iterator[bool]) -> None:
    for _ in rounds:
        try:
            env.run(body)
        except _NextError:
            continue
        except _BreakError:
            break


def break_loop(env: Environment, call: Call) -> None:
    """`break`."""
    raise _BreakError


def next_round(env: Environment, call: Call) -> None:
    """`next`."""
    raise _NextError


def local(env: Environment, call: Call) -> Any:
    """`local()`: what is assigned inside is forgotten."""
    return Environment(dict(env.variables), env.functions, env.natives).run(call.args[0])


def switch(env: Environment, call: Call) -> Any:
    """`switch()` by a name, whose empty branches fall through, or by a place."""
    key = env.run(call.args[0])
    if not isinstance(key, str):
        branches = [*call.args[1:], *call.named.values()]
        return env.run(branches[int(key) - 1]) if 1 <= key <= len(branches) else None
    if key in call.named:
        return env.run(call.named[key])
    return env.run(call.args[1]) if len(call.args) > 1 else None


def call_value(env: Environment, call: Call) -> Any:
    """A call of what an expression gives, such as `(function(x) x)(1)`."""
    function = env.run(call.args[0])
    if not callable(function):
        raise NotCoveredError(f"the call of {call.args[0]}")
    return function(
        *(env.run(each) for each in call.args[1:]), **{key: env.run(each) for key, each in call.named.items()}
    )


def _stacked(found: list[Any]) -> Any:
    parts = [vector(each) for each in found]
    return np.column_stack(parts) if len(parts[0]) > 1 else np.concatenate(parts)


def over_margin(values: Any, margin: float, apply: Callable[..., Any], *args: Any) -> Any:
    """`apply()` over the rows (1) or columns (2) of a matrix."""
    matrix = np.asarray(plain(values))
    return _stacked([apply(each, *args) for each in (matrix if margin == 1 else matrix.T)])


def fold(apply: Callable[..., Any], values: Any, init: Any = None, **named: Any) -> Any:
    """`Reduce()`."""
    is_kept = named.pop("accumulate", False)
    if named:
        raise NotCoveredError(f"the arguments {sorted(named)} of Reduce()")
    items = [*([] if init is None else [init]), *_items(values)]
    if not is_kept:
        return reduce(apply, items)
    steps = [items[0]]
    for each in items[1:]:
        steps.append(apply(steps[-1], each))
    return np.concatenate([vector(each) for each in steps])


def call_with(apply: Callable[..., Any], arguments: Any) -> Any:
    """`do.call()`."""
    return apply(**arguments) if isinstance(arguments, Mapping) else apply(*_items(arguments))


def all_combinations(**columns: Any) -> Frame:
    """`expand.grid()`: the first column changes fastest."""
    grids = np.meshgrid(*(vector(each) for each in columns.values()), indexing="ij")
    return Frame({name: grid.ravel(order="F") for name, grid in zip(columns, grids, strict=True)})


def optimise(apply: Callable[..., Any], interval: Any = None, **named: Any) -> dict[str, float]:
    """`optimize()`, to about 1e-9."""
    low, high = vector(interval) if interval is not None else (named.pop("lower"), named.pop("upper"))
    is_maximum = named.pop("maximum", False)
    named.pop("tol", None)
    sign = -1.0 if is_maximum else 1.0

    def objective(at: float) -> float:
        return sign * float(vector(apply(at, **named))[0])

    found = minimize_scalar(objective, bounds=(float(low), float(high)), method="bounded", options={"xatol": 1e-10})
    return {"maximum" if is_maximum else "minimum": float(found.x), "objective": sign * float(found.fun)}


def quantile(values: Any, probs: Any = (0, 0.25, 0.5, 0.75, 1), **named: Any) -> Any:
    """`quantile()` of R's default type."""
    named.pop("names", None)
    keep = vector(values).astype(np.float64)
    keep = keep[~np.isnan(keep)] if named.pop("na.rm", False) else keep
    if named.pop("type", 7) != 7 or named:
        raise NotCoveredError(f"the arguments {sorted(named)} of quantile()")
    return np.quantile(keep, vector(probs))


def sort(values: Any, decreasing: bool = False) -> Any:
    """`sort()`."""
    found = np.sort(vector(values))
    return found[::-1] if decreasing else found


def weighted_mean(values: Any, weights: Any) -> float:
    """`weighted.mean()`."""
    return float(np.average(vector(values).astype(np.float64), weights=vector(weights).astype(np.float64)))


def tabulate(values: Any, nbins: float | None = None) -> Any:
    """`tabulate()` of places from 1."""
    places = (values.codes if isinstance(values, Factor) else vector(values).astype(np.int64) - 1).clip(min=0)
    return np.bincount(places, minlength=int(nbins or 0)).astype(np.float64)


def _places(axis: int) -> Callable[[Any], Any]:
    return lambda values: np.indices(np.shape(plain(values)))[axis] + 1.0


def _drop(values: Any) -> Any:
    """`drop()`: axes of length 1 go."""
    found = np.squeeze(plain(values))
    return found if found.ndim else float(found)


def _as_list(values: Any, apply: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """`lapply()`."""
    found = [apply(each, *args, **named) for each in _items(values)]
    return dict(zip(values, found, strict=True)) if isinstance(values, Mapping) else found


def _flat(values: Any) -> Any:
    """`unlist()`."""
    return np.concatenate([vector(each) for each in _items(values)])


NATIVES: dict[str, Callable[[Environment, Call], Any]] = {
    "{": block,
    "for": for_loop,
    "while": while_loop,
    "break": break_loop,
    "next": next_round,
    "local": local,
    "switch": switch,
    "(call)": call_value,
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "apply": over_margin,
    "lapply": _as_list,
    "Reduce": fold,
    "Filter": lambda apply, values: np.array([each for each in _items(values) if vector(apply(each))[0]]),
    "Map": lambda apply, *columns: [apply(*row) for row in zip(*map(_items, columns), strict=True)],
    "do.call": call_with,
    "expand.grid": all_combinations,
    "optimize": optimise,
    "optimise": optimise,
    "quantile": quantile,
    "sort": sort,
    "range": lambda *values: np.array([min(np.min(vector(v)) for v in values), max(np.max(vector(v)) for v in values)]),
    "weighted.mean": weighted_mean,
    "tabulate": tabulate,
    "row": _places(0),
    "col": _places(1),
    "drop": _drop,
    "det": lambda values: float(np.linalg.det(plain(values))),
    "unlist": _flat,
    "setNames": lambda values, names: Named(vector(values), (vector(names).tolist(),)),
    "identity": lambda value: value,
    "invisible": lambda value: value,
    "%%": lambda a, b: np.mod(plain(a), plain(b)),
    "%/%": lambda a, b: np.floor_divide(plain(a), plain(b)),
    "%o%": lambda a, b: np.multiply.outer(vector(a), vector(b)),
    "sign": lambda values: np.sign(plain(values)),
    "trunc": lambda values: np.trunc(plain(values)),
    "cummax": lambda values: np.maximum.accumulate(vector(values)),
    "cummin": lambda values: np.minimum.accumulate(vector(values)),
    "rowMeans": lambda values: np.asarray(plain(values), dtype=np.float64).mean(axis=1),
    "seq_along": lambda values: np.arange(1.0, len(_items(values)) + 0.5),
}
