"""Crosswalk of rpact's spending functions and group-sequential designs to medtwin's bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from medtwin.trials.design.boundaries import (
    Bounds,
    Exits,
    cumulative_bounds,
    efficacy_only,
    exit_probabilities,
    fixed_drift,
    haybittle_peto_bounds,
    pampallona_tsiatis_bounds,
    shaped_bounds,
    spending_both,
    with_futility,
)
from medtwin.trials.design.inner_wedge import WedgeBounds, pampallona_tsiatis_wedge, spending_wedge
from medtwin.trials.design.optimal_shape import Criterion, optimal_shape
from medtwin.trials.design.spending import Spending
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.signatures import is_missing, numbers

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UserSpending:
    """Error spent by each look as the user says, in place of a function of information."""

    cumulative: tuple[float, ...]

    def spent(self, fraction: Any, total: float) -> Floats:
        """The error spent at the looks."""
        return np.asarray(self.cumulative)[: np.size(fraction)]


AnySpending = Spending | UserSpending


@dataclass(frozen=True)
class Stops:
    """Where a design stops, (looks,): for the upper side, for the lower side of two, for futility."""

    upper: Floats
    lower: Floats
    futility: Floats

    @property
    def reject(self) -> Floats:
        """For either side."""
        return self.upper + self.lower

    @property
    def exits(self) -> Exits:
        """Up, or down for whatever reason."""
        return Exits(self.upper, self.lower + self.futility)

    @property
    def towards(self) -> Stops:
        """Without rejections for the lower side of two."""
        return Stops(self.upper, np.zeros_like(self.lower), self.futility)

    @property
    def by_stage(self) -> dict[str, Any]:
        """rpact's names of them; what happens at the last look but rejection is not a stop."""
        futility = self.futility[:-1]
        return {
            "rejectPerStage": self.reject,
            "futilityPerStage": futility,
            "futilityStop": futility.sum(),
            "earlyStop": self.reject[:-1].sum() + futility.sum(),
            "overallReject": self.reject.sum(),
        }


@dataclass(frozen=True)
class RpactDesign:
    """A getDesignGroupSequential() of rpact.

    Attributes:
        bounds: At the information rates. alpha: As given. beta: As given. sided: 1 or 2.
        wedge: Of a two-sided design that also stops because neither side can be shown.
    """

    bounds: Bounds
    alpha: float
    beta: float
    sided: int
    wedge: WedgeBounds | None = None

    @property
    def one_sided_alpha(self) -> float:
        """Of one side."""
        return self.alpha / self.sided

    @property
    def inflation(self) -> float:
        """Maximal information over that of a fixed design."""
        return float((self.bounds.drift / fixed_drift(self.one_sided_alpha, 1 - self.beta)) ** 2)

    def stops(self, drift: float) -> Stops:
        """Where it stops under a drift; at the last look there is no futility."""
        if self.wedge is not None:
            exits = self.wedge.exits(drift)
            return Stops(exits.upper, exits.lower, np.append(exits.wedge[:-1], 0.0))
        lower = self.bounds.futility.copy()
        if self.sided == 1:
            lower[-1] = -np.inf
        return self._stops(lower, drift)

    @property
    def null_stops(self) -> Stops:
        """Where it stops under the null; futility bounds count where they bind."""
        if self.wedge is not None and self.bounds.binding:
            return self.stops(0.0)
        return self._stops(self.bounds.futility if self.bounds.binding or self.sided == 2 else None, 0.0)

    def _stops(self, lower: Floats | None, drift: float) -> Stops:
        exits = exit_probabilities(self.bounds.fractions, self.bounds.efficacy, lower, drift)
        nothing = np.zeros(len(exits.lower))
        return Stops(exits.upper, *((exits.lower, nothing) if self.sided == 2 else (nothing, exits.lower)))


RPACT_DESIGN: dict[str, Any] = {
    "kMax": None,
    "alpha": None,
    "beta": 0.2,
    "sided": 1.0,
    "informationRates": None,
    "futilityBounds": None,
    "typeOfDesign": "OF",
    "deltaWT": 0.0,
    "deltaPT1": 0.0,
    "deltaPT0": 0.0,
    "optimizationCriterion": "ASNH1",
    "gammaA": None,
    "typeBetaSpending": "none",
    "userAlphaSpending": None,
    "userBetaSpending": None,
    "gammaB": None,
    "betaAdjustment": None,
    "bindingFutility": False,
    "constantBoundsHP": 3.0,
    "twoSidedPower": False,
    "tolerance": 1e-8,
}
_CRITERIA: dict[str, Criterion] = {
    "ASNH1": "alternative",
    "ASNIFH1": "alternative_and_maximum",
    "ASNsum": "null_half_alternative",
}
_RPACT_ALPHA = {
    "asOF": ("obrien_fleming", False),
    "asP": ("pocock", False),
    "asKD": ("kim_demets", True),
    "asHSD": ("hwang_shih_decani", True),
}


def _rpact_spending(kind: str, gamma: Any, user: Any, prefix: str) -> AnySpending:
    name = "as" + kind[2:]
    if kind == f"{prefix}User":
        return UserSpending(tuple(numbers(user)))
    if name not in _RPACT_ALPHA:
        raise NotCoveredError(f"the design {kind!r}")
    ours, parametric = _RPACT_ALPHA[name]
    return Spending(ours, float(gamma) if parametric else None)  # type: ignore[arg-type]


def _late_spending(t: list[float], alpha: float) -> UserSpending:
    """Everything at the last look."""
    return UserSpending((0.0,) * (len(t) - 1) + (alpha,))


def _information_rates(given: Mapping[str, Any]) -> list[float]:
    if not is_missing(given["informationRates"]):
        return numbers(given["informationRates"])
    user = given["userAlphaSpending"]
    looks = 3 if is_missing(given["kMax"]) else int(given["kMax"])
    if is_missing(given["kMax"]) and not is_missing(user):
        looks = len(numbers(user))
    return [(k + 1) / looks for k in range(looks)]


def rpact_design(given: Mapping[str, Any]) -> RpactDesign:
    """The bounds of a getDesignGroupSequential()."""
    alpha = 0.025 if is_missing(given["alpha"]) else float(given["alpha"])
    beta, sided, t = float(given["beta"]), int(given["sided"]), _information_rates(given)
    if given["typeOfDesign"] == "PT":
        shapes = float(given["deltaPT1"]), float(given["deltaPT0"])
        if sided == 2:
            wedge = pampallona_tsiatis_wedge(t, alpha, beta, shapes, binding=bool(given["bindingFutility"]))
            return _with_wedge(wedge, alpha, beta)
        bounds = pampallona_tsiatis_bounds(t, alpha, beta, shapes, binding=bool(given["bindingFutility"]))
        return RpactDesign(bounds, alpha, beta, sided)
    if given["typeBetaSpending"] != "none":
        return _with_beta_spending(given, t, alpha, beta, sided)
    return _without_beta_spending(given, t, alpha, beta, sided)


def _with_beta_spending(given: Mapping[str, Any], t: list[float], alpha: float, beta: float, sided: int) -> RpactDesign:
    one_sided: AnySpending = _late_spending(t, alpha / sided)
    if given["typeOfDesign"] != "noEarlyEfficacy":
        one_sided = _rpact_spending(given["typeOfDesign"], given["gammaA"], given["userAlphaSpending"], "as")
    spending = one_sided, _rpact_spending(given["typeBetaSpending"], given["gammaB"], given["userBetaSpending"], "bs")
    # rpact lets futility bind only where alpha is spent before the end.
    binding = bool(given["bindingFutility"]) and given["typeOfDesign"] != "noEarlyEfficacy"
    if sided == 2:
        if isinstance(one_sided, UserSpending):
            raise NotCoveredError("beta spending of a two-sided design with userAlphaSpending")
        spend_all = is_missing(given["betaAdjustment"]) or bool(given["betaAdjustment"])
        wedge = spending_wedge(t, alpha, beta, spending, binding=binding, spend_all=spend_all)  # type: ignore[arg-type]
        return _with_wedge(wedge, alpha, beta)
    both = spending_both(t, alpha, beta, spending, binding=binding)  # type: ignore[arg-type]
    return RpactDesign(both, alpha, beta, sided)


def _with_wedge(wedge: WedgeBounds, alpha: float, beta: float) -> RpactDesign:
    """Sized by the rejections of the right side alone; the wedge leaves those of both sides 1 - beta."""
    drift = brentq(lambda d: float(wedge.exits(d).upper.sum()) - (1 - beta), 0.1, 20.0, xtol=1e-11)
    bounds = Bounds(wedge.fractions, wedge.efficacy, -wedge.efficacy, float(drift), wedge.binding)
    return RpactDesign(bounds, alpha, beta, 2, wedge)


def _without_beta_spending(
    given: Mapping[str, Any], t: list[float], alpha: float, beta: float, sided: int
) -> RpactDesign:
    lower = None
    if not is_missing(given["futilityBounds"]) and len(t) > 1:
        lower = [*(bound if bound > -6 else -np.inf for bound in numbers(given["futilityBounds"])), -np.inf]
    binding = lower if given["bindingFutility"] else None
    upper = _rpact_upper(given, np.array(t), alpha, sided, binding)
    if sided == 2:
        if lower is not None:
            raise NotCoveredError("futilityBounds of a two-sided design")
        both = bool(given["twoSidedPower"])
        return RpactDesign(symmetric_bounds(t, upper, 1 - beta, both_sides=both), alpha, beta, sided)
    if len(t) > 1 and lower is not None:
        bounds = with_futility(t, upper, lower, 1 - beta)
        bounds = Bounds(bounds.fractions, upper, bounds.futility, bounds.drift, bool(given["bindingFutility"]))
        return RpactDesign(bounds, alpha, beta, sided)
    return RpactDesign(efficacy_only(t, upper, 1 - beta), alpha, beta, sided)


def symmetric_bounds(t: ArrayLike, upper: Floats, power: float, *, both_sides: bool = False) -> Bounds:
    """A two-sided design of so much power, counted on the upper side or on both."""

    def excess(drift: float) -> float:
        exits = exit_probabilities(t, upper, -upper, drift)
        return exits.power + both_sides * float(exits.lower.sum()) - power

    drift = float(brentq(excess, 0.0, 20.0, xtol=1e-11))
    return Bounds(np.asarray(t, dtype=np.float64), upper, -upper, drift)


def _rpact_upper(given: Mapping[str, Any], t: Floats, alpha: float, sided: int, lower: Any) -> Floats:
    kind, two = given["typeOfDesign"], sided == 2
    one = alpha / sided
    if len(t) == 1:
        return np.array([norm.isf(one)])
    shapes = {"OF": 0.0, "P": 0.5, "WT": float(given["deltaWT"] or 0.0)}
    if kind == "WToptimum":
        # rpact rounds the shape to three digits.
        best = optimal_shape(
            t, alpha, 1 - float(given["beta"]), _CRITERIA[given["optimizationCriterion"]], two_sided=two
        )
        return shaped_bounds(t, alpha, round(best, 3), lower=lower, two_sided=two)
    if kind in shapes:
        return shaped_bounds(t, alpha, shapes[kind], lower=lower, two_sided=two)
    if kind == "HP":
        return haybittle_peto_bounds(t, alpha, float(given["constantBoundsHP"]), lower=lower, two_sided=two)
    if kind == "noEarlyEfficacy":
        return haybittle_peto_bounds(t, alpha, np.inf, lower=lower, two_sided=two)
    spending = _rpact_spending(kind, given["gammaA"], given["userAlphaSpending"], "as")
    if isinstance(spending, UserSpending):
        spending = UserSpending(tuple(each / sided for each in spending.cumulative))
    return cumulative_bounds(t, spending.spent(t, one), lower=lower, two_sided=two)


def design_of(given: Mapping[str, Any]) -> RpactDesign:
    """The design that a function is given, or the fixed one of its alpha, beta and sides.

    Raises:
        NotCoveredError: If what is given is no getDesignGroupSequential().
    """
    value = given["design"]
    if is_missing(value):
        own = {name: given[name] for name in RPACT_DESIGN if not is_missing(given.get(name))}
        return rpact_design({**RPACT_DESIGN, "kMax": 1.0, **own})
    if isinstance(value, Mapping) and isinstance(value.get("_design"), RpactDesign):
        found: RpactDesign = value["_design"]
        return found
    raise NotCoveredError("a design that is no getDesignGroupSequential()")
