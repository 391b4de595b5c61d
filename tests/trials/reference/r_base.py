"""The functions of R itself that the answers of all categories share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.trials.reference import r_control, r_laws
from tests.trials.reference.evaluate import Named, plain, vector


def _members(value: Any) -> Any:
    """`as.list()` of a data frame or vector."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(vector(value).tolist())


def _matrix(data: Any, nrow: Any = None, ncol: Any = None, byrow: bool = False, dimnames: Any = None) -> Named:
    """`matrix()`, without the names."""
    cells = vector(data)
    if nrow is None and ncol is None:
        nrow, ncol = len(cells), 1
    rows = int(nrow) if nrow is not None else -(-len(cells) // int(ncol))
    columns = int(ncol) if ncol is not None else -(-len(cells) // rows)
    full = np.resize(cells, rows * columns)
    return Named(full.reshape(rows, columns, order="C" if byrow else "F"), (None, None))


def _diagonal(value: Any = 1.0, nrow: Any = None, ncol: Any = None) -> Any:
    """`diag()`."""
    found = plain(value)
    if nrow is not None:
        return np.eye(int(nrow)) * found
    if np.ndim(found) == 0:
        return np.eye(int(found))
    return np.diag(found)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **r_laws.FUNCTIONS,
    **r_control.FUNCTIONS,
    "&&": lambda a, b: bool(a) and bool(b),
    "||": lambda a, b: bool(a) or bool(b),
    "as.list": _members,
    "unclass": lambda a: a,
    "as.data.frame": lambda a: a,
    "matrix": _matrix,
    "diag": _diagonal,
    "%x%": lambda a, b: np.kron(vector(a), vector(b)),
}
