"""Group-sequential bounds by recursive numerical integration, and the probabilities of crossing them.

The statistics Z_1..Z_K at information I_1 < .. < I_K are canonical joint normal: E Z_k = theta sqrt(I_k) and
Cov(Z_j, Z_k) = sqrt(I_j / I_k). With fractions t_k = I_k / I_K, the drift is theta sqrt(I_K).

Source: Armitage, McPherson & Rowe 1969, J R Stat Soc A 132:235; Jennison & Turnbull 2000, Group Sequential Methods,
chapters 3 and 19. The density between the bounds is carried on Gauss-Legendre nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import norm

from medtwin.trials.design.spending import SpendingFunction

Floats = NDArray[np.float64]
_TAIL = 8.0  # standard deviations beyond which the density is dropped: 6e-16 on each side
_MOST_DRIFT = 20.0  # a power that needs more is not looked for
_MIN_STEP = 1e-3  # of the last information: closer looks would need more nodes than they are worth


@dataclass(frozen=True)
class Density:
    """The sub-density of Z_k on "not stopped at look k", on nodes with weights; or the start, before any look."""

    information: float = 0.0
    nodes: Floats = field(default_factory=lambda: np.zeros(1))
    mass: Floats = field(default_factory=lambda: np.ones(1))

    def above(self, bound: float, information: float, drift: float) -> float:
        """P(not stopped so far, next Z above `bound`)."""
        return float(self.mass @ ndtr(-self._standardised(np.array([bound]), information, drift)[0]))

    def below(self, bound: float, information: float, drift: float) -> float:
        """P(not stopped so far, next Z below `bound`)."""
        return float(self.mass @ ndtr(self._standardised(np.array([bound]), information, drift)[0]))

    def advance(self, lower: float, upper: float, information: float, drift: float, next_step: float) -> Density:
        """The density at the next look on (lower, upper).

        Args:
            lower: Lower bound at that look, may be -inf.
            upper: Upper bound, may be inf.
            information: Information fraction of that look.
            drift: theta sqrt(I_K).
            next_step: Information from that look to the one after it; the nodes must resolve it.
        """
        centre = drift * np.sqrt(information)
        low, high = max(lower, min(centre, 0.0) - _TAIL), min(upper, max(centre, 0.0) + _TAIL)
        step = min(information - self.information, next_step)
        count = max(64, int(np.ceil(2.5 * (high - low) / np.sqrt(step / information))))
        x, w = _legendre(count)
        nodes = 0.5 * (high - low) * x + 0.5 * (high + low)
        scale = np.sqrt(information / (information - self.information))
        density = scale * (_normal_pdf(self._standardised(nodes, information, drift)) @ self.mass)
        return Density(information, nodes, density * w * 0.5 * (high - low))

    def _standardised(self, z: Floats, information: float, drift: float) -> Floats:
        """The increment that leads to each z from each node, standardised, (z, nodes)."""
        step = information - self.information
        expected = self.nodes * np.sqrt(self.information) + drift * step
        return np.asarray((z[:, None] * np.sqrt(information) - expected) / np.sqrt(step))


@cache
def _legendre(count: int) -> tuple[Floats, Floats]:
    x, w = np.polynomial.legendre.leggauss(count)
    return x, w


def _normal_pdf(x: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi))


@dataclass(frozen=True)
class Exits:
    """Probability of first crossing the upper and the lower bound at each look, both (looks,)."""

    upper: Floats
    lower: Floats

    @property
    def power(self) -> float:
        """P(the upper bound is crossed at any look)."""
        return float(self.upper.sum())

    def expected(self, amounts: ArrayLike) -> float:
        """The mean of an amount (events, patients, information) at the stop, (looks,) amounts at the looks."""
        stop = self.upper + self.lower
        stop[-1] = 1.0 - stop[:-1].sum()
        return float(stop @ np.asarray(amounts, dtype=np.float64))


def exit_probabilities(information: ArrayLike, upper: ArrayLike, lower: ArrayLike | None, drift: float) -> Exits:
    """Where a trial stops: the probabilities of first crossing each bound.

    Args:
        information: (looks,) information, increasing, in any unit.
        upper: (looks,) z bounds; inf where there is none.
        lower: (looks,) z bounds, -inf or None where there are none.
        drift: E Z at the last look.

    Raises:
        ValueError: If information does not increase, or a lower bound is above its upper bound.

    >>> exits = exit_probabilities([0.5, 1.0], [2.9626, 1.9686], None, 0.0)
    >>> round(exits.power, 4)
    0.025
    """
    t = fractions(information)
    b = np.asarray(upper, dtype=np.float64)
    a = np.full(len(t), -np.inf) if lower is None else np.asarray(lower, dtype=np.float64)
    if b.shape != t.shape or a.shape != t.shape:
        raise ValueError(f"bounds must be one per look, got {b.size} and {a.size} for {t.size} looks")
    if (a > b).any():
        raise ValueError("a lower bound must not be above the upper bound of its look")
    density = Density()
    up, down = np.zeros(len(t)), np.zeros(len(t))
    for k in range(len(t)):
        up[k], down[k] = density.above(b[k], t[k], drift), density.below(a[k], t[k], drift)
        if k + 1 < len(t):
            density = density.advance(a[k], b[k], t[k], drift, t[k + 1] - t[k])
    return Exits(up, down)


def fractions(information: ArrayLike) -> Floats:
    """Information as fractions of the last look.

    Raises:
        ValueError: If it is empty, not positive, or does not increase by a thousandth of the last at each look.
    """
    values = np.atleast_1d(np.asarray(information, dtype=np.float64))
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or values[0] <= 0:
        raise ValueError(f"information must be positive numbers, one per look, got {values.tolist()}")
    t = np.asarray(values / values[-1])
    if len(t) > 1 and np.diff(t).min() < _MIN_STEP:
        raise ValueError(f"information must increase from look to look, got {values.tolist()}")
    return t


def _solve(function: Callable[[float], float], low: float, high: float) -> float:
    """The root of a monotone function; an end of the bracket where the function does not change its sign in it."""
    at_low, at_high = function(low), function(high)
    if at_low == 0 or np.sign(at_low) == np.sign(at_high):
        return low if abs(at_low) <= abs(at_high) else high
    return float(brentq(function, low, high, xtol=1e-12, rtol=1e-14))


def spending_bounds(
    information: ArrayLike,
    alpha: float,
    spending: SpendingFunction,
    *,
    spent_at: ArrayLike | None = None,
    lower: ArrayLike | None = None,
    two_sided: bool = False,
) -> Floats:
    """Upper z bounds, (looks,), that spend `alpha` as the function says.

    Args:
        information: (looks,) information at the looks, planned or observed, in any unit; it sets the correlations.
        alpha: One-sided error in all; with `two_sided`, of both sides together.
        spending: The spending function.
        spent_at: (looks,) the fractions at which the function is read; None: the information fractions. Observed
            information over planned maximum, with 1 at the last look, spends the rest there (over- and underrunning).
        lower: (looks,) binding futility z bounds, of which the last is not used; None: non-binding, or none.
        two_sided: Symmetric bounds, each side spending alpha / 2.

    Raises:
        ValueError: If information does not increase or the spending decreases.
    """
    t = fractions(information)
    at = t if spent_at is None else np.asarray(spent_at, dtype=np.float64)
    one_sided = alpha / 2 if two_sided else alpha
    cumulative = spending.spent(at, one_sided)
    return cumulative_bounds(t, cumulative, lower=lower, two_sided=two_sided)


def cumulative_bounds(
    information: ArrayLike, cumulative: ArrayLike, *, lower: ArrayLike | None = None, two_sided: bool = False
) -> Floats:
    """Upper z bounds, (looks,), by which the given one-sided error has been spent at each look.

    Args:
        information: (looks,) information.
        cumulative: (looks,) error spent by each look, not decreasing.
        lower: (looks,) binding futility z bounds.
        two_sided: Symmetric bounds, each side spending `cumulative`.

    Raises:
        ValueError: If information does not increase or the spending decreases.
    """
    t = fractions(information)
    spends = np.diff(np.asarray(cumulative, dtype=np.float64), prepend=0.0)
    if (spends < 0).any():
        raise ValueError("the error spent must not decrease from look to look")
    a = np.full(len(t), -np.inf) if lower is None else np.asarray(lower, dtype=np.float64)
    bounds = np.full(len(t), np.inf)
    density = Density()
    for k, spend in enumerate(spends):
        bounds[k] = upper_bound(density, t[k], spend)
        if k + 1 < len(t):
            low = -bounds[k] if two_sided else a[k]
            density = density.advance(low, bounds[k], t[k], 0.0, t[k + 1] - t[k])
    return bounds


def upper_bound(density: Density, information: float, spend: float) -> float:
    """The z bound that is first crossed at this look with probability `spend` under the null; inf for none."""
    if spend <= density.above(_TAIL, information, 0.0):
        return np.inf
    return _solve(lambda z: density.above(z, information, 0.0) - spend, -_TAIL, _TAIL)


def shaped_bounds(
    information: ArrayLike, alpha: float, delta: float, *, lower: ArrayLike | None = None, two_sided: bool = False
) -> Floats:
    """Wang & Tsiatis' bounds c t^(delta - 1/2), (looks,): delta 0 is O'Brien & Fleming, delta 1/2 Pocock.

    Args:
        information: (looks,) information.
        alpha: One-sided error; with `two_sided`, of both sides together.
        delta: The shape.
        lower: (looks,) binding futility z bounds, of which the last is not used; None: non-binding, or none.
        two_sided: Symmetric bounds.

    Raises:
        ValueError: If binding futility bounds are asked for on both sides, or lie above the bounds.

    Source: Wang & Tsiatis 1987, Biometrics 43:193.
    """
    t = fractions(information)
    shape = t ** (delta - 0.5)
    target = alpha / 2 if two_sided else alpha

    futility = _binding(lower, len(t), two_sided=two_sided)

    def excess(c: float) -> float:
        return exit_probabilities(t, c * shape, -c * shape if two_sided else futility, 0.0).power - target

    return np.asarray(_solve(excess, float(norm.isf(target)) * 0.5, _TAIL) * shape)


def _binding(lower: ArrayLike | None, looks: int, *, two_sided: bool) -> Floats | None:
    """Binding futility bounds, none at the last look."""
    if lower is None:
        return None
    if two_sided:
        raise ValueError("binding futility bounds are of a one-sided test")
    found = np.array(lower, dtype=np.float64)
    if found.shape != (looks,):
        raise ValueError(f"lower must be one bound per look, got {found.size} for {looks} looks")
    found[-1] = -np.inf
    return found


def haybittle_peto_bounds(
    information: ArrayLike,
    alpha: float,
    early: float = 3.0,
    *,
    lower: ArrayLike | None = None,
    two_sided: bool = False,
) -> Floats:
    """Haybittle & Peto's bounds, (looks,): `early` at every look but the last, which spends the rest of alpha.

    Args:
        information: (looks,) information.
        alpha: One-sided error; with `two_sided`, of both sides together.
        early: The bound of the early looks, inf for none.
        lower: (looks,) binding futility z bounds, of which the last is not used.
        two_sided: Symmetric bounds.

    Raises:
        ValueError: If binding futility bounds are asked for on both sides, or lie above the bounds.

    Source: Haybittle 1971, Br J Radiol 44:793.
    """
    t = fractions(information)
    target = alpha / 2 if two_sided else alpha

    futility = _binding(lower, len(t), two_sided=two_sided)

    def bounds(last: float) -> Floats:
        return np.concatenate([np.full(len(t) - 1, early), [last]])

    def excess(last: float) -> float:
        return exit_probabilities(t, bounds(last), -bounds(last) if two_sided else futility, 0.0).power - target

    return bounds(_solve(excess, 0.0, _TAIL))


@dataclass(frozen=True)
class Bounds:
    """The bounds of a group-sequential test.

    Attributes:
        fractions: (looks,) information fractions.
        efficacy: (looks,) z bounds; at or above: the null is rejected.
        futility: (looks,) z bounds, -inf for none; at or below: stopped. The last equals the last efficacy bound.
        drift: E Z at the last look under the alternative that has the wanted power.
        binding: Whether alpha is only kept if the trial stops at its futility bounds.
    """

    fractions: Floats
    efficacy: Floats
    futility: Floats
    drift: float
    binding: bool = False

    def exits(self, drift: float) -> Exits:
        """The probabilities of stopping under a drift, futility bounds obeyed."""
        return exit_probabilities(self.fractions, self.efficacy, self.futility, drift)


def efficacy_only(t: ArrayLike, efficacy: ArrayLike, power: float) -> Bounds:
    """Bounds without futility, with the drift that has the wanted power."""
    return with_futility(t, efficacy, np.full(np.atleast_1d(np.asarray(t)).size, -np.inf), power)


def with_futility(t: ArrayLike, efficacy: ArrayLike, futility: ArrayLike, power: float) -> Bounds:
    """Bounds with futility z bounds as given, with the drift that has the wanted power when they are obeyed.

    Raises:
        ValueError: If no drift up to 20 has the power.
    """
    fraction, upper = fractions(t), np.asarray(efficacy, dtype=np.float64)
    lower = np.asarray(futility, dtype=np.float64).copy()
    lower[-1] = upper[-1]
    drift = drift_of_power(lambda d: exit_probabilities(fraction, upper, lower, d).power - power)
    return Bounds(fraction, upper, lower, drift)


def spending_both(
    t: ArrayLike,
    alpha: float,
    beta: float,
    spending: tuple[SpendingFunction, SpendingFunction],
    *,
    binding: bool = False,
) -> Bounds:
    """Bounds that spend alpha under the null and beta under the alternative; they meet at the last look.

    Args:
        t: (looks,) information fractions.
        alpha: One-sided type I error.
        beta: Type II error.
        spending: Of alpha, of beta.
        binding: Alpha is spent counting on the futility stops; else as if there were none.

    Raises:
        ValueError: If no drift up to 20 has the power 1 - beta.

    Source: Pampallona, Tsiatis & Kim 2001, Drug Inf J 35:1113.
    """
    fraction = fractions(t)
    alphas = np.diff(spending[0].spent(fraction, alpha), prepend=0.0)
    betas = np.diff(spending[1].spent(fraction, beta), prepend=0.0)

    def at(drift: float) -> tuple[Floats, Floats, float]:
        """The bounds under a drift, and how much more than beta the last look would miss."""
        upper, lower = np.full(len(fraction), np.inf), np.full(len(fraction), -np.inf)
        null = alternative = Density()
        for k, (a, b) in enumerate(zip(alphas, betas, strict=True)):
            now = fraction[k]
            upper[k] = upper_bound(null, now, a)
            if k + 1 == len(fraction):
                lower[k] = upper[k]
                return upper, lower, alternative.below(upper[k], now, drift) - b
            lower[k] = min(lower_bound(alternative, now, drift, b), upper[k])
            step = fraction[k + 1] - now
            null = null.advance(lower[k] if binding else -np.inf, upper[k], now, 0.0, step)
            alternative = alternative.advance(lower[k], upper[k], now, drift, step)
        raise AssertionError("the last look returns")

    drift = drift_of_power(lambda d: -at(d)[2])
    upper, lower, _ = at(drift)
    return Bounds(fraction, upper, lower, drift, binding)


def pampallona_tsiatis_bounds(
    t: ArrayLike, alpha: float, beta: float, shapes: tuple[float, float], *, binding: bool = False
) -> Bounds:
    """Efficacy bounds c1 t^(shape - 1/2) and futility bounds drift t^(1/2) - c0 t^(shape - 1/2) that meet at the end.

    Args:
        t: (looks,) information fractions.
        alpha: One-sided type I error.
        beta: Type II error.
        shapes: Of the efficacy and of the futility bounds; 0 is like O'Brien & Fleming, 1/2 like Pocock.
        binding: Whether alpha counts on the futility stops.

    Raises:
        ValueError: If no bounds have these errors.

    Source: Pampallona & Tsiatis 1994, J Stat Plan Inference 42:19.
    """
    fraction = fractions(t)
    upper_shape, lower_shape = (fraction ** (shape - 0.5) for shape in shapes)

    def at(c1: float, c0: float) -> tuple[Floats, Floats, float]:
        upper = c1 * upper_shape
        lower = np.minimum((c1 + c0) * np.sqrt(fraction) - c0 * lower_shape, upper)
        lower[-1] = upper[-1]
        return upper, lower, c1 + c0

    def efficacy_constant(c0: float) -> float:
        def excess(c1: float) -> float:
            upper, lower, _ = at(c1, c0)
            return exit_probabilities(fraction, upper, lower if binding else None, 0.0).power - alpha

        return _solve(excess, max(0.0, float(norm.isf(alpha)) - 1.5), _TAIL)

    def missed(c0: float) -> float:
        upper, lower, drift = at(efficacy_constant(c0), c0)
        return exit_probabilities(fraction, upper, lower, drift).power - (1 - beta)

    if missed(0.01) > 0 or missed(_TAIL) < 0:
        raise ValueError(f"no bounds have the errors {alpha!r} and {beta!r}")
    c0 = float(brentq(missed, 0.01, _TAIL, xtol=1e-10))
    return Bounds(fraction, *at(efficacy_constant(c0), c0), binding)


def lower_bound(density: Density, information: float, drift: float, spend: float) -> float:
    """The z bound that the statistic is first below at this look with probability `spend` under a drift; -inf: none."""
    if spend <= 0:
        return -np.inf
    centre = drift * np.sqrt(information)
    return _solve(lambda z: density.below(z, information, drift) - spend, min(0.0, centre) - _TAIL, centre + _TAIL)


def drift_of_power(excess: Callable[[float], float], least: float = 0.0) -> float:
    """The drift, from `least` to 20, at which an excess of power that increases with it is 0.

    Raises:
        ValueError: If there is none.
    """
    if excess(least) > 0 or excess(_MOST_DRIFT) < 0:
        raise ValueError("power must be above alpha and reachable: ask for less, or for other bounds")
    return float(brentq(excess, least, _MOST_DRIFT, xtol=1e-10))


def fixed_drift(alpha: float, power: float) -> float:
    """The drift at which one look at one-sided alpha has the power: z_alpha + z_beta."""
    return float(norm.isf(alpha) + norm.ppf(power))


def inflation(bounds: Bounds, alpha: float, power: float) -> float:
    """Maximal information relative to a trial with one look, same one-sided alpha and power."""
    return (bounds.drift / fixed_drift(alpha, power)) ** 2


def observed_bounds(
    planned_maximum: float, observed: Sequence[float], alpha: float, spending: SpendingFunction, *, is_final: bool
) -> Floats:
    """Efficacy z bounds, (looks so far,), at the information that was observed.

    Args:
        planned_maximum: Information at which all of alpha is to be spent.
        observed: Information at each look so far.
        alpha: One-sided error.
        spending: The spending function.
        is_final: Whether the last of them is the last look: then it spends whatever is left, even if information fell
            short of the plan.

    Raises:
        ValueError: If the information does not increase.

    Source: Lan & DeMets 1989, Biometrics 45:1017.
    """
    at = np.minimum(np.asarray(observed, dtype=np.float64) / planned_maximum, 1.0)
    if is_final:
        at[-1] = 1.0
    return spending_bounds(observed, alpha, spending, spent_at=at)
