"""Combination tests of stagewise p values: Fisher's product test in several stages, and weights of the inverse normal.

Fisher's product is T_k = p_1^w_1 .. p_k^w_k with w_j = sqrt((t_j - t_(j-1)) / t_1): the null is rejected at stage k if
T_k <= c_k, the trial stops for futility if p_k > alpha0_k. On the scale S_k = -log T_k, a sum of independent
exponential variables of means w_j under the null, the density of S_k where the trial goes on is carried from stage to
stage as a polynomial on each piece between its kinks.

Source: Bauer & Koehne 1994, Biometrics 50:1029; Wassmer 1999, Biometrical Journal 41:279; Wassmer & Brannath 2016,
Group Sequential and Confirmatory Adaptive Designs in Clinical Trials, chapter 6; Lehmacher & Wassmer 1999, Biometrics
55:1286.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm
from scipy.optimize import brentq
from scipy.stats import gamma

from medtwin.trials.design.boundaries import fractions

Floats = NDArray[np.float64]
FisherMethod = Literal["equal_alpha", "full_alpha", "no_interaction", "user_defined_alpha"]
_DEGREE = 24  # of the polynomials; products of exponentials on pieces of a few units
_NODES = np.cos((np.arange(_DEGREE + 1) + 0.5) * np.pi / (_DEGREE + 1))
_TRANSFORM = np.linalg.inv(chebyshev.chebvander(_NODES, _DEGREE))
_SMALLEST = 1e-30  # product below which no bound is looked for
_LONGEST = 4.0  # pieces are cut to this length


def inverse_normal_weights(information: ArrayLike) -> Floats:
    """Weights of the stages' z statistics, (stages,), squares summing to 1: roots of their share of the information."""
    return np.asarray(np.sqrt(np.diff(fractions(information), prepend=0.0)))


def inverse_normal(z: ArrayLike, weights: ArrayLike) -> Floats:
    """The combined z statistic at each stage, (stages so far,), of those of the stages."""
    scores = np.asarray(z, dtype=np.float64)
    w = np.asarray(weights, dtype=np.float64)[: len(scores)]
    return np.asarray(np.cumsum(w * scores) / np.sqrt(np.cumsum(w * w)))


def fisher_weights(information: ArrayLike) -> Floats:
    """Exponents of the stages' p values, (stages,), that of the first being 1."""
    t = fractions(information)
    return np.asarray(np.sqrt(np.diff(t, prepend=0.0) / t[0]))


@dataclass(frozen=True)
class _Piece:
    """A density on [low, high], as the coefficients of a Chebyshev series."""

    low: float
    high: float
    series: Floats

    @property
    def nodes(self) -> Floats:
        """The nodes of the series."""
        return np.asarray(0.5 * (self.high - self.low) * _NODES + 0.5 * (self.high + self.low), dtype=np.float64)

    def up_to(self, s: ArrayLike, weight: float) -> Floats:
        """The integral of the density times exp(u / weight) from the low end to s."""
        half = 0.5 * (self.high - self.low)
        values = np.asarray(chebyshev.chebval(_NODES, self.series) * np.exp(self.nodes / weight), dtype=np.float64)
        integral = chebyshev.chebint(_series(values), lbnd=-1, scl=half)
        return np.asarray(chebyshev.chebval((np.asarray(s) - 0.5 * (self.low + self.high)) / half, integral))


def _series(values: Floats) -> Floats:
    """The Chebyshev series through values at the nodes."""
    return np.asarray(_TRANSFORM @ values)


@dataclass(frozen=True)
class _Sum:
    """The density of S_k where the trial goes on: no pieces for the start at 0, before the first stage."""

    pieces: tuple[_Piece, ...] = ()

    def beyond(self, bound: float, weight: float) -> float:
        """P(S_(k+1) >= bound) for a next p value of an exponent."""
        if not self.pieces:
            return math.exp(-max(bound, 0.0) / weight)
        total = 0.0
        for piece in self.pieces:
            cut = min(max(bound, piece.low), piece.high)
            total += float(piece.up_to(cut, weight)) * math.exp(-bound / weight)
            total += float(piece.up_to(piece.high, math.inf) - piece.up_to(cut, math.inf))
        return total

    def bound(self, probability: float, weight: float) -> float:
        """The bound that S_(k+1) reaches with a probability."""
        longest = -math.log(_SMALLEST)
        return float(brentq(lambda s: math.log(self.beyond(s, weight) / probability), 0.0, longest, xtol=1e-13))

    @property
    def total(self) -> float:
        """P(the trial goes on)."""
        return sum(float(piece.up_to(piece.high, math.inf)) for piece in self.pieces) if self.pieces else 1.0

    def advance(self, bound: float, weight: float, least: float) -> _Sum:
        """The density of the next sum below a bound, with a next -w log p of at least `least`.

        On a piece moved by `least` it is exp(-s / w) / w times the integral of exp(u / w) up to s - least.
        """
        pieces: list[_Piece] = []
        before, end = (0.0, 0.0) if self.pieces else (1.0, 0.0)
        for piece in self.pieces:
            pieces += _pieces(piece.low + least, min(piece.high + least, bound), weight, least, (before, piece))
            before += float(piece.up_to(piece.high, weight))
            end = piece.high
        return _Sum((*pieces, *_pieces(end + least, bound, weight, least, (before, None))))


def _pieces(low: float, high: float, weight: float, least: float, source: tuple[float, _Piece | None]) -> list[_Piece]:
    """The next density between two ends, from the integral before a piece and on it."""
    before, piece = source
    if high <= low:
        return []
    cuts = np.linspace(low, high, max(1, math.ceil((high - low) / _LONGEST)) + 1)
    found = []
    for left, right in pairwise(cuts.tolist()):
        s = 0.5 * (right - left) * _NODES + 0.5 * (right + left)
        inside = piece.up_to(s - least, weight) if piece is not None else 0.0
        found.append(_Piece(left, right, _series(np.exp(-s / weight) / weight * (before + inside))))
    return found


@dataclass(frozen=True)
class FisherDesign:
    """Fisher's product test in several stages.

    Attributes:
        information: (stages,) information fractions; they give the exponents of the p values.
        critical: (stages,) the null is rejected where the product is at or below.
        futility: (stages - 1,) p values above which the trial stops; 1: none.
        binding: Whether alpha is only kept if those stops are obeyed.

    Raises:
        ValueError: If the parts do not fit one another.
    """

    information: Floats
    critical: Floats
    futility: Floats
    binding: bool = False

    def __post_init__(self) -> None:
        if len(self.critical) != len(self.information) or len(self.futility) != len(self.information) - 1:
            raise ValueError(
                f"critical and futility must be one per stage, the last without futility, got {len(self.critical)} "
                f"and {len(self.futility)} for {len(self.information)} stages"
            )

    @cached_property
    def weights(self) -> Floats:
        """Exponents of the p values, (stages,)."""
        return fisher_weights(self.information)

    @property
    def alpha_spent(self) -> Floats:
        """P(rejection by each stage) under the null, (stages,); futility counts where it binds."""
        spent, state = np.zeros(len(self.critical)), _Sum()
        for k, (critical, weight) in enumerate(zip(self.critical, self.weights, strict=True)):
            bound = -math.log(critical) if critical > 0 else math.inf
            spent[k] = state.beyond(bound, weight) if math.isfinite(bound) else 0.0
            if k + 1 < len(self.critical):
                least = -weight * math.log(self.futility[k]) if self.binding else 0.0
                state = state.advance(min(bound, -math.log(_SMALLEST)), weight, least)
        return np.asarray(np.cumsum(spent))

    @property
    def stage_levels(self) -> Floats:
        """P(T_k <= c_k) under the null of each stage by itself, (stages,)."""
        return np.array([product_level(c, self.weights[: k + 1]) for k, c in enumerate(self.critical)])

    def products(self, p_values: ArrayLike) -> Floats:
        """The products T_k of the stages so far, (stages so far,)."""
        p = np.asarray(p_values, dtype=np.float64)
        return np.asarray(np.cumprod(p ** self.weights[: len(p)]))

    def conditional_error(self, stage: int, product: float) -> float:
        """P(rejection at a later stage) under the null given the product at a stage, futility not counted.

        Args:
            stage: From 1, before the last.
            product: T_k there.
        """
        if product <= self.critical[stage - 1]:
            return 1.0
        start, total, state = -math.log(product), 0.0, _Sum()
        for k in range(stage, len(self.critical)):
            bound, weight = -math.log(self.critical[k]) - start, float(self.weights[k])
            if bound <= 0:
                return total + state.total
            total += state.beyond(bound, weight)
            least = -weight * math.log(self.futility[k]) if self.binding and k + 1 < len(self.critical) else 0.0
            state = state.advance(bound, weight, least)
        return total

    def stagewise_p_value(self, stage: int, product: float) -> float:
        """The p value of a trial that ended at a stage, outcomes ordered by stage and there by the product.

        Args:
            stage: From 1, where it ended.
            product: T_k there.
        """
        critical = np.append(self.critical[: stage - 1], product)
        reached = FisherDesign(self.information[:stage], critical, self.futility[: stage - 1], self.binding)
        return float(reached.alpha_spent[-1])


def product_level(critical: float, weights: ArrayLike) -> float:
    """P(p_1^w_1 .. p_k^w_k <= critical) under the null.

    Minus its logarithm passes exponential phases of means w_j one after the other.
    """
    w = np.asarray(weights, dtype=np.float64)
    if np.allclose(w, w[0]):
        return float(gamma.sf(-math.log(critical) / w[0], len(w)))
    generator = np.diag(-1 / w) + np.diag(1 / w[:-1], k=1)
    return float(expm(-math.log(critical) * generator)[0].sum())


def product_bound(level: float, weights: ArrayLike) -> float:
    """The product that is undercut with probability `level` under the null."""
    w = np.asarray(weights, dtype=np.float64)
    if np.allclose(w, w[0]):
        return math.exp(-w[0] * float(gamma.isf(level, len(w))))

    def excess(s: float) -> float:
        return math.log(product_level(math.exp(-s), w) / level)

    return math.exp(-brentq(excess, 0.0, -math.log(_SMALLEST), xtol=1e-12))


def fisher_design(
    information: ArrayLike,
    alpha: float = 0.025,
    method: FisherMethod = "equal_alpha",
    *,
    futility: ArrayLike | None = None,
    binding: bool = False,
    spent: ArrayLike | None = None,
) -> FisherDesign:
    """Fisher's product test of level alpha in several stages.

    Args:
        information: (stages,) information at the ends of the stages, in any unit.
        alpha: One-sided error.
        method: `equal_alpha`: the same level at each stage; `full_alpha`: the last stage is at level alpha, the others
            at the same level, of what stops for futility leave; `no_interaction`: the last stage is at level alpha, and
            those between it and the first at c_(k+1) / alpha0_k^(1 / w_(k+1)); `user_defined_alpha`: as `spent` says.
        futility: (stages - 1,) p values above which the trial stops; None: none.
        binding: Whether the level may count on those stops.
        spent: (stages,) error spent by each stage, of `user_defined_alpha`.

    Raises:
        ValueError: If alpha is no one-sided level, the futility p values do not fit, or no bounds exist.

    Source: Bauer & Koehne 1994; Wassmer 1999, sections 2 and 3.

    >>> fisher_design([0.5, 1.0]).critical.round(6).tolist()
    [0.015788, 0.002221]
    """
    t = fractions(information)
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be one-sided, between 0 and 0.5, got {alpha!r}")
    stops = np.ones(len(t) - 1) if futility is None else np.atleast_1d(np.asarray(futility, dtype=np.float64))
    if len(stops) != len(t) - 1 or (stops <= 0).any() or (stops > 1).any():
        raise ValueError(f"futility must be p values of all stages but the last, got {futility!r}")
    binds = binding and bool((stops < 1).any())
    if len(t) == 1:
        return FisherDesign(t, np.array([alpha]), stops, binds)
    match method:
        case "equal_alpha":
            critical = _equal_alpha(t, alpha, stops, binds)
        case "full_alpha":
            critical = _full_alpha(t, alpha, stops, binds)
        case "no_interaction":
            critical = _no_interaction(t, alpha, stops, binds)
        case "user_defined_alpha":
            critical = _user_defined(t, spent, stops, binds)
        case _:
            raise ValueError(f"method must be a known one, got {method!r}")
    return FisherDesign(t, critical, stops, binds)


def _solve_total(bounds: Callable[[float], Floats], t: Floats, alpha: float, stops: Floats, binds: bool) -> Floats:
    """Bounds of a level, increasing in it, that spend alpha in all."""

    def excess(log_level: float) -> float:
        design = FisherDesign(t, bounds(math.exp(log_level)), stops, binds)
        return math.log(float(design.alpha_spent[-1]) / alpha)

    low, high = math.log(alpha) - 15.0, math.log(alpha)
    if excess(low) > 0 or excess(high) < 0:
        raise ValueError(f"no bounds of level {alpha!r} exist: let fewer trials stop for futility, or none bindingly")
    return bounds(math.exp(brentq(excess, low, high, xtol=1e-13)))


def _equal_alpha(t: Floats, alpha: float, stops: Floats, binds: bool) -> Floats:
    w = fisher_weights(t)

    def bounds(level: float) -> Floats:
        return np.array([product_bound(level, w[: k + 1]) for k in range(len(w))])

    return _solve_total(bounds, t, alpha, stops, binds)


def _full_alpha(t: Floats, alpha: float, stops: Floats, binds: bool) -> Floats:
    w = fisher_weights(t)
    last = product_bound(alpha, w)
    if not binds:
        return np.full(len(t), last)

    def bounds(level: float) -> Floats:
        return np.array([*(product_bound(level, w[: k + 1]) for k in range(len(w) - 1)), last])

    return _solve_total(bounds, t, alpha, stops, binds)


def _no_interaction(t: Floats, alpha: float, stops: Floats, binds: bool) -> Floats:
    if len(t) < 3 or not binds:
        raise ValueError(f"no_interaction must have three stages or more and binding futility, got {len(t)} stages")
    w = fisher_weights(t)
    later = [product_bound(alpha, w)]
    for k in range(len(t) - 2, 0, -1):
        later.insert(0, later[0] / stops[k] ** (1 / w[k + 1]))
    return _solve_total(lambda level: np.array([level, *later]), t, alpha, stops, binds)


def _user_defined(t: Floats, spent: ArrayLike | None, stops: Floats, binds: bool) -> Floats:
    cumulative = np.zeros(0) if spent is None else np.asarray(spent, dtype=np.float64)
    if cumulative.shape != t.shape or (np.diff(cumulative, prepend=0.0) < 0).any() or not cumulative[-1] < 1:
        raise ValueError(f"spent must be one error per stage, not decreasing, got {spent!r}")
    w, state, critical = fisher_weights(t), _Sum(), np.zeros(len(t))
    for k, spend in enumerate(np.diff(cumulative, prepend=0.0)):
        bound, weight = -math.log(_SMALLEST), float(w[k])
        if spend > 0:
            bound = state.bound(float(spend), weight)
            critical[k] = math.exp(-bound)
        state = state.advance(bound, weight, -weight * math.log(stops[k]) if binds and k + 1 < len(t) else 0.0)
    return critical
