"""Sizes, power and timing of time-to-event designs, and conditional power: R's packages computed by medtwin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.trials.reference import (
    gsdesign2_designs,
    gsdesign2_fixed,
    gsdesign_bounds,
    gsdesign_interim,
    gsdesign_survival,
    lrstat_bounds,
    lrstat_designs,
    lrstat_inference,
    lrstat_timing,
    r_base,
    rpact_survival,
    rpact_timing,
)
from tests.trials.reference.cases import Case
from tests.trials.reference.evaluate import Environment

_FUNCTIONS = {
    **r_base.FUNCTIONS,
    **rpact_survival.FUNCTIONS,
    **rpact_timing.FUNCTIONS,
    **lrstat_bounds.FUNCTIONS,
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
    return Environment(dict(_VARIABLES), _FUNCTIONS, gsdesign2_designs.NATIVES).answer(case.call, case.extract)


ANSWERS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "sample_size_survival": _answer,
    "nph_design": _answer,
    "accrual_timing": _answer,
    "conditional_power": _answer,
}
