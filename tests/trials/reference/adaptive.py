"""Multiplicity, and adaptive designs and their analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.trials.reference import graphs_of_r, r_base, rpact_analysis, rpact_arms, survival_designs
from tests.trials.reference.cases import Case
from tests.trials.reference.evaluate import Environment

_FUNCTIONS = {**r_base.FUNCTIONS, **rpact_analysis.FUNCTIONS, **rpact_arms.FUNCTIONS, **graphs_of_r.FUNCTIONS}


def _answer(case: Case) -> Mapping[str, Any]:
    """What the extract takes out of the result of the call."""
    return Environment({}, _FUNCTIONS).answer(case.call, case.extract)


def _conditional_power(case: Case) -> Mapping[str, Any]:
    """Of data by stage here, of designs of other packages where those are answered."""
    of_data = any(name in case.raw["r_call"] for name in ("getStageResults", "getAnalysisResults"))
    return _answer(case) if of_data else survival_designs.ANSWERS["conditional_power"](case)


ANSWERS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "multiplicity": _answer,
    "adaptive_analysis": _answer,
    "conditional_power": _conditional_power,
    "multi_arm": _answer,
}
