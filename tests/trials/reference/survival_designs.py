"""Sizes, power and timing of time-to-event designs, and conditional power: R's packages computed by medtwin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.trials.reference import (
    gsdesign2_designs,
    gsdesign2_fixed,
    gsdesign_bounds,
    gsdesign_interim,
    gsdesign_survival,
    lrstat_designs,
    lrstat_inference,
    lrstat_timing,
    rpact_survival,
    rpact_timing,
)
from tests.trials.reference.cases import Case
from tests.trials.reference.evaluate import Environment, Factor, Named, plain, vector


def _members(value: Any) -> Any:
    """A data frame or vector as a list."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(vector(value).tolist())


_GENERAL: dict[str, Callable[..., Any]] = {
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


def _matrix(values: Any, nrow: float, ncol: float, byrow: bool) -> Any:
    rows = int(nrow) if nrow > 1 or ncol <= 1 else len(values) // int(ncol)
    return values.reshape(rows, -1, order="C" if byrow else "F")


_FUNCTIONS = {
    **_GENERAL,
    **rpact_survival.FUNCTIONS,
    **rpact_timing.FUNCTIONS,
    **lrstat_designs.FUNCTIONS,
    **lrstat_timing.FUNCTIONS,
    **lrstat_inference.FUNCTIONS,
    **gsdesign_bounds.FUNCTIONS,
    **gsdesign_survival.FUNCTIONS,
    **gsdesign_interim.FUNCTIONS,
    **gsdesign2_designs.FUNCTIONS,
    **gsdesign2_fixed.FUNCTIONS,
}

_VARIABLES = {**gsdesign_bounds.VARIABLES, **gsdesign2_designs.VARIABLES}


def _answer(case: Case) -> Mapping[str, Any]:
    """What the extract takes out of the result of the call."""
    env = Environment(dict(_VARIABLES), _FUNCTIONS, gsdesign2_designs.NATIVES)
    env.variables["x"] = env.run(case.call)
    found = env.run(case.extract)
    return {name: _flat(value) for name, value in found.items()}


def _flat(value: Any) -> Any:
    return value.labels if isinstance(value, Factor) else value.values if isinstance(value, Named) else value


ANSWERS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "sample_size_survival": _answer,
    "nph_design": _answer,
    "accrual_timing": _answer,
    "conditional_power": _answer,
}
