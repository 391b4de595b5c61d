"""Two-sided group-sequential tests that may also stop because neither side can be shown: bounds with an inner wedge.

At look k the null is rejected where |Z_k| >= b_k and accepted where |Z_k| <= a_k; the trial goes on between. The bounds
meet at the last look.

Source: Jennison & Turnbull 2000, Group Sequential Methods, chapter 5; Pampallona & Tsiatis 1994, J Stat Plan Inference
42:19; spending of beta: Kim & DeMets 1992, Stat Med 11:1391.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from medtwin.trials.design.boundaries import Density, drift_of_power, fractions, upper_bound
from medtwin.trials.design.spending import SpendingFunction

Floats = NDArray[np.float64]
_FAR = 8.0  # standard deviations: bounds lie closer


@dataclass(frozen=True)
class WedgeExits:
    """Probability of stopping at each look above the upper bound, below the lower one, within the wedge; (looks,)."""

    upper: Floats
    lower: Floats
    wedge: Floats


@dataclass(frozen=True)
class WedgeBounds:
    """The bounds of a two-sided test with an inner wedge.

    Attributes:
        fractions: (looks,) information fractions.
        efficacy: (looks,) bounds of |Z|, at or above: the null is rejected.
        wedge: (looks,) bounds of |Z|, at or below: it is accepted; nan for none. The last is the last of efficacy.
        drift: E Z at the last look under the alternative that has the wanted power.
        binding: Whether alpha is only kept if the trial stops in the wedge.
    """

    fractions: Floats
    efficacy: Floats
    wedge: Floats
    drift: float
    binding: bool = False

    def exits(self, drift: float) -> WedgeExits:
        """The probabilities of stopping under a drift."""
        return wedge_exits(self.fractions, self.efficacy, self.wedge, drift)


def wedge_exits(information: ArrayLike, efficacy: ArrayLike, wedge: ArrayLike, drift: float) -> WedgeExits:
    """Where a two-sided trial with an inner wedge stops.

    Args:
        information: (looks,) information, increasing.
        efficacy: (looks,) bounds of |Z| for rejection.
        wedge: (looks,) bounds of |Z| for acceptance, nan for none.
        drift: E Z at the last look.

    Raises:
        ValueError: If information does not increase, or a wedge is negative or above its efficacy bound.

    >>> exits = wedge_exits([0.5, 1.0], [2.9626, 1.9686], [np.nan, 1.9686], 0.0)
    >>> round(float(exits.upper.sum() + exits.lower.sum()), 4), round(float(exits.wedge[1]), 4)
    (0.05, 0.95)
    """
    t = fractions(information)
    b, a = np.asarray(efficacy, dtype=np.float64), np.asarray(wedge, dtype=np.float64)
    if b.shape != t.shape or a.shape != t.shape:
        raise ValueError(f"bounds must be one per look, got {b.size} and {a.size} for {t.size} looks")
    if (a < 0).any() or (a > b).any():
        raise ValueError("a wedge must lie between 0 and the efficacy bound of its look")
    density, found = Density(), np.zeros((3, len(t)))
    for k, now in enumerate(t):
        found[:, k] = _leaving(density, b[k], a[k], now, drift)
        if k + 1 < len(t):
            density = _between(density, b[k], a[k], (now, t[k + 1] - now), drift)
    return WedgeExits(*found)


def _leaving(density: Density, efficacy: float, wedge: float, now: float, drift: float) -> tuple[float, float, float]:
    inside = 0.0 if np.isnan(wedge) else _within(density, wedge, now, drift)
    return density.above(efficacy, now, drift), density.below(-efficacy, now, drift), inside


def _between(density: Density, efficacy: float, wedge: float, times: tuple[float, float], drift: float) -> Density:
    """The density at the next look between the bounds, on both sides of the wedge."""
    now, step = times
    if np.isnan(wedge):
        return density.advance(-efficacy, efficacy, now, drift, step)
    sides = [density.advance(*ends, now, drift, step) for ends in ((-efficacy, -wedge), (wedge, efficacy))]
    return Density(now, np.concatenate([s.nodes for s in sides]), np.concatenate([s.mass for s in sides]))


def pampallona_tsiatis_wedge(
    t: ArrayLike, alpha: float, beta: float, shapes: tuple[float, float], *, binding: bool = False
) -> WedgeBounds:
    """Bounds c1 t^(shape - 1/2) and a wedge drift t^(1/2) - c0 t^(shape - 1/2), where that is above 0.

    Args:
        t: (looks,) information fractions.
        alpha: Two-sided type I error.
        beta: Type II error.
        shapes: Of the efficacy bounds and of the wedge.
        binding: Whether alpha counts on stops in the wedge.

    Raises:
        ValueError: If no bounds have these errors.
    """
    fraction = fractions(t)
    outer, inner = (fraction ** (shape - 0.5) for shape in shapes)

    def at(c1: float, c0: float) -> tuple[Floats, Floats, float]:
        efficacy, drift = c1 * outer, c1 + c0
        wedge = np.minimum(drift * np.sqrt(fraction) - c0 * inner, efficacy)
        wedge[-1] = efficacy[-1]
        return efficacy, np.where(wedge > 0, wedge, np.nan), drift

    def constant(c0: float) -> float:
        def excess(c1: float) -> float:
            efficacy, wedge, _ = at(c1, c0)
            return _rejects(fraction, efficacy, wedge if binding else _none(len(fraction)), 0.0) - alpha

        return float(brentq(excess, max(0.1, float(norm.isf(alpha / 2)) - 1.5), _FAR, xtol=1e-11))

    def excess_power(c0: float) -> float:
        efficacy, wedge, drift = at(constant(c0), c0)
        return float(wedge_exits(fraction, efficacy, wedge, drift).upper.sum()) - (1 - beta)

    if excess_power(0.01) > 0 or excess_power(_FAR) < 0:
        raise ValueError(f"no bounds have the errors {alpha!r} and {beta!r}")
    c0 = float(brentq(excess_power, 0.01, _FAR, xtol=1e-10))
    return WedgeBounds(fraction, *at(constant(c0), c0), binding)


def _none(looks: int) -> Floats:
    return np.full(looks, np.nan)


def _rejects(t: Floats, efficacy: Floats, wedge: Floats, drift: float) -> float:
    exits = wedge_exits(t, efficacy, wedge, drift)
    return float(exits.upper.sum() + exits.lower.sum())


def spending_wedge(
    t: ArrayLike,
    alpha: float,
    beta: float,
    spending: tuple[SpendingFunction, SpendingFunction],
    *,
    binding: bool = False,
    spend_all: bool = True,
) -> WedgeBounds:
    """Bounds that spend alpha on both sides under the null, and beta in the wedge under the alternative.

    There is no wedge at the first looks at which even a one-sided futility bound would lie below 0.

    Args:
        t: (looks,) information fractions.
        alpha: Two-sided type I error.
        beta: Type II error.
        spending: Of alpha / 2, of beta.
        binding: Alpha is spent counting on stops in the wedge.
        spend_all: Whether the looks with a wedge spend what those without would have, in proportion.

    Raises:
        ValueError: If no drift up to 20 has the power 1 - beta.
    """
    fraction = fractions(t)
    alphas = np.diff(spending[0].spent(fraction, alpha / 2), prepend=0.0)
    planned = np.asarray(spending[1].spent(fraction, beta), dtype=np.float64)

    def at(drift: float) -> tuple[Floats, Floats, float]:
        """The bounds under a drift, and how much more than beta the last look would miss."""
        efficacy, wedge = np.full(len(fraction), np.inf), _none(len(fraction))
        null = alternative = Density()
        skipped, missed = 0.0, 0.0
        for k, now in enumerate(fraction):
            efficacy[k] = max(upper_bound(null, now, alphas[k]), 0.0)
            scale = beta / (beta - skipped) if spend_all else 1.0
            target = (planned[k] - skipped) * scale - missed
            if k + 1 == len(fraction):
                wedge[k] = efficacy[k]
                return efficacy, wedge, _within(alternative, efficacy[k], now, drift) - (beta - missed)
            wedge[k] = min(_wedge(alternative, now, drift, target), efficacy[k])
            if np.isnan(wedge[k]):
                skipped = planned[k] if spend_all and not missed else skipped
            else:
                missed += target
            times = now, fraction[k + 1] - now
            null = _between(null, efficacy[k], wedge[k] if binding else np.nan, times, 0.0)
            alternative = _between(alternative, efficacy[k], wedge[k], times, drift)
        raise AssertionError("the last look returns")

    drift = drift_of_power(lambda d: -at(d)[2], least=0.1)
    efficacy, wedge, _ = at(drift)
    return WedgeBounds(fraction, efficacy, wedge, drift, binding)


def _within(density: Density, bound: float, now: float, drift: float) -> float:
    return density.below(bound, now, drift) - density.below(-bound, now, drift)


def _wedge(density: Density, now: float, drift: float, spend: float) -> float:
    """The wedge that is entered with a probability; nan where half the line below 0 would be entered more often."""
    if spend <= 0 or density.below(0.0, now, drift) >= spend:
        return np.nan
    high = float(drift * np.sqrt(now) + _FAR)
    if _within(density, high, now, drift) <= spend:
        return high
    return float(brentq(lambda a: _within(density, a, now, drift) - spend, 0.0, high, xtol=1e-12))
