"""Group-sequential designs, and sizes and power for means and rates: R's packages computed by medtwin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.trials.reference import gsdesign_bounds, lrstat_bounds, lrstat_sizes, r_base, rpact_designs, stats_power
from tests.trials.reference.cases import Case
from tests.trials.reference.evaluate import Environment

_FUNCTIONS = {
    **r_base.FUNCTIONS,
    **rpact_designs.FUNCTIONS,
    **gsdesign_bounds.FUNCTIONS,
    **stats_power.FUNCTIONS,
    **lrstat_bounds.FUNCTIONS,
    **lrstat_sizes.FUNCTIONS,
}


def _answer(case: Case) -> Mapping[str, Any]:
    """What the extract takes out of the result of the call."""
    return Environment(dict(gsdesign_bounds.VARIABLES), _FUNCTIONS).answer(case.call, case.extract)


ANSWERS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "gs_boundary": _answer,
    "gs_futility": _answer,
    "gs_characteristics": _answer,
    "sample_size_means": _answer,
    "sample_size_rates": _answer,
    "power_fixed": _answer,
    "power_gs": _answer,
    "other_designs": _answer,
}
