"""R's functions of vectors, lists and matrices that the answers for designs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.trials.reference.evaluate import plain, vector


def _members(value: Any) -> Any:
    """A data frame or vector as a list."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(vector(value).tolist())


def _matrix(values: Any, nrow: float, ncol: float, byrow: bool) -> Any:
    rows = int(nrow) if nrow > 1 or ncol <= 1 else len(values) // int(ncol)
    return values.reshape(rows, -1, order="C" if byrow else "F")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "&&": lambda a, b: bool(a) and bool(b),
    "||": lambda a, b: bool(a) or bool(b),
    "all": lambda *a: bool(np.all([np.all(plain(each)) for each in a])),
    "any": lambda *a: bool(np.any([np.any(plain(each)) for each in a])),
    "as.list": _members,
    "unclass": lambda a: a,
    "round": lambda a, digits=0.0: np.round(plain(a), int(digits)),
    "ceiling": lambda a: np.ceil(plain(a)),
    "floor": lambda a: np.floor(plain(a)),
    "rep": lambda a, times=1.0, each=1.0: np.tile(np.repeat(vector(a), int(each)), int(times)),
    "unlist": lambda a: np.concatenate([vector(each) for each in (a.values() if isinstance(a, Mapping) else a)]),
    "as.data.frame": lambda a: a,
    "apply": lambda a, margin, f: plain(a).sum(axis=0 if margin == 2 else 1),
    "%*%": lambda a, b: np.asarray(plain(a)) @ np.asarray(plain(b)),
    "matrix": lambda a, nrow=1.0, ncol=1.0, byrow=False: _matrix(vector(a), nrow, ncol, byrow),
}
