"""Crosswalk of lrstat's spending functions and getBound() to medtwin's bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.design.boundaries import cumulative_bounds, shaped_bounds
from medtwin.trials.design.selected_looks import spent_where_tested
from medtwin.trials.design.spending import Spending
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.rpact_bounds import AnySpending, UserSpending
from tests.trials.reference.signatures import Arguments, bound, flags, is_missing, numbers

Floats = NDArray[np.float64]


def lrstat_spending(kind: str, parameter: Any, user: Any) -> AnySpending:
    """Of lrstat's names."""
    named: dict[str, tuple[str, bool]] = {
        "sfOF": ("obrien_fleming", False),
        "sfP": ("pocock", False),
        "sfKD": ("kim_demets", True),
        "sfHSD": ("hwang_shih_decani", True),
    }
    if kind == "user":
        return UserSpending(tuple(numbers(user)))
    if kind not in named:
        raise NotCoveredError(f"the spending {kind!r}")
    ours, parametric = named[kind]
    return Spending(ours, float(parameter) if parametric else None)  # type: ignore[arg-type]


def lrstat_bounds(
    given: Mapping[str, Any], rates: Floats, alpha: float, suffix: str = "", tested: Any = None
) -> Floats:
    """Efficacy bounds at information rates for an alpha, of lrstat's typeAlphaSpending and its parameters."""
    kind, parameter = given["typeAlphaSpending" + suffix], given["parameterAlphaSpending" + suffix]
    at = rates if is_missing(given.get("spendingTime" + suffix)) else np.array(numbers(given["spendingTime" + suffix]))
    looks = looks_tested(tested, len(rates))
    shapes = {"OF": 0.0, "P": 0.5}
    if kind in (*shapes, "WT"):
        if not all(looks):
            raise NotCoveredError(f"efficacyStopping with {kind}")
        return shaped_bounds(rates, alpha, shapes.get(kind, parameter if kind == "WT" else 0.0))
    if kind == "none":
        return np.array([np.inf] * (len(rates) - 1) + [norm.isf(alpha)])
    spending = lrstat_spending(kind, parameter, given.get("userAlphaSpending"))
    return cumulative_bounds(rates, spent_where_tested(spending.spent(at, alpha), looks))


def looks_tested(given: Any, looks: int) -> list[bool]:
    """Which looks have a bound, of efficacyStopping or futilityStopping."""
    return flags(True if is_missing(given) else given, looks)


def _get_bound(given: Arguments) -> Floats:
    looks = len(numbers(given["informationRates"])) if is_missing(given["k"]) else int(given["k"])
    missing = is_missing(given["informationRates"])
    rates = np.arange(1, looks + 1) / looks if missing else np.array(numbers(given["informationRates"]))[:looks]
    return lrstat_bounds(given, rates, float(given["alpha"]), tested=given["efficacyStopping"])


_BOUND: Arguments = {
    "k": None,
    "informationRates": None,
    "alpha": 0.025,
    "typeAlphaSpending": "sfOF",
    "parameterAlphaSpending": None,
    "userAlphaSpending": None,
    "spendingTime": None,
    "efficacyStopping": None,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {"getBound": bound("getBound", _BOUND, _get_bound)}
