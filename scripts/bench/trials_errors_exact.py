"""Values beside the simulated ones that do not come from the batched kernels: enumerations, integrals, scipy's tests.

Statistics of counts are those of the room's functions of one trial, of scipy's hypergeometric law, or written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import binom, hypergeom, nct, norm, t
from trials_errors_designs import ALPHA, Design

from medtwin.trials.analysis.rates import miettinen_nurminen_test
from medtwin.trials.restricted_rates import Scale

Floats = NDArray[np.float64]
CountsZ = Callable[[int, int, int, int], float]


def _score(scale: Scale, null: float | None, *, corrected: bool = True) -> CountsZ:
    def z(x1: int, n1: int, x0: int, n0: int) -> float:
        if scale == "odds_ratio" and x1 + x0 in (0, n1 + n0):
            return 0.0
        return miettinen_nurminen_test((x1, x0), (n1, n0), null, scale=scale, bias_corrected=corrected).z

    return z


def _pearson(continuity: bool) -> CountsZ:
    def z(x1: int, n1: int, x0: int, n0: int) -> float:
        if x1 + x0 in (0, n1 + n0):
            return 0.0
        total, cross = n1 + n0, x1 * (n0 - x0) - x0 * (n1 - x1)
        short = max(abs(cross) - total / 2 * continuity, 0.0)
        margins = n1 * n0 * (x1 + x0) * (total - x1 - x0)
        return math.copysign(short * math.sqrt(total / margins), cross)

    return z


def _wald(null: float) -> CountsZ:
    def z(x1: int, n1: int, x0: int, n0: int) -> float:
        p, q = x1 / n1, x0 / n0
        spread = p * (1 - p) / n1 + q * (1 - q) / n0
        return (p - q - null) / math.sqrt(spread) if spread > 0 else math.nan

    return z


def _log_ratio(null: float, *, odds: bool) -> CountsZ:
    def z(x1: int, n1: int, x0: int, n0: int) -> float:
        cells = (x1, x0, n1 - x1, n0 - x0)
        if min(cells[:2]) == 0 or (odds and min(cells) == 0):
            return math.nan
        p, q = x1 / n1, x0 / n0
        if odds:
            return (math.log(p / (1 - p) / (q / (1 - q))) - math.log(null)) / math.sqrt(sum(1 / c for c in cells))
        spread = (1 - p) / x1 + (1 - q) / x0
        return (math.log(p / q) - math.log(null)) / math.sqrt(spread) if spread > 0 else math.nan

    return z


def counts_z(test: str, null: dict[str, float]) -> CountsZ:
    """The one-sided statistic of a test of counts; null: of the scales, difference 0 and ratios 1 where not given."""
    difference, ratio, odds = null.get("difference", 0.0), null.get("ratio", 1.0), null.get("odds_ratio", 1.0)
    return {
        "risk difference, Wald": _wald(difference),
        "Miettinen-Nurminen difference": _score("difference", difference),
        "Farrington-Manning difference": _score("difference", difference, corrected=False),
        "Miettinen-Nurminen ratio": _score("ratio", ratio),
        "Miettinen-Nurminen odds ratio": _score("odds_ratio", odds),
        "log ratio, Wald": _log_ratio(ratio, odds=False),
        "log odds ratio, Wald": _log_ratio(odds, odds=True),
        "Pearson": _pearson(False),
        "Pearson, Yates": _pearson(True),
    }[test]


@cache
def _grid(test: str, null: tuple[tuple[str, float], ...], n1: int, n0: int) -> Floats:
    if test == "Fisher, one-sided":
        x1, x0 = np.arange(n1 + 1)[:, None], np.arange(n0 + 1)
        return np.asarray(norm.isf(hypergeom.sf(x1 - 1, n1 + n0, x1 + x0, n1)))
    z = counts_z(test, dict(null))
    with np.errstate(divide="ignore"):
        return np.array([[z(a, n1, b, n0) for b in range(n0 + 1)] for a in range(n1 + 1)])


def exact_counts(
    test: str, null: dict[str, float], rates: tuple[float, float], sizes: tuple[tuple[int, int], ...], design: Design
) -> float:
    """The probability to reject, over all tables of all looks.

    Args:
        test: Of `counts_z`.
        null: Of the scales.
        rates: True ones, experimental and control.
        sizes: Patients of the arms at FRACTIONS.
        design: Its bounds are used as they are.
    """
    mass, before, power = np.ones((1, 1)), (0, 0), 0.0
    for column, upper, lower in zip(design.columns, design.bounds.efficacy, design.bounds.futility, strict=True):
        now = sizes[column]
        steps = []
        for old, new, rate in zip(before, now, rates, strict=True):
            gain = np.arange(new + 1) - np.arange(old + 1)[:, None]
            steps.append(binom.pmf(gain, new - old, rate))
        mass = steps[0].T @ mass @ steps[1]
        z = _grid(test, tuple(sorted(null.items())), *now)
        above = z >= upper
        power += float(mass[above].sum())
        mass = np.where(above | (z <= lower), 0.0, mass)
        before = now
    return power


def exact_t(noncentrality: float, df: float) -> float:
    """Power of a one-sided t test at ALPHA."""
    return float(nct.sf(t.isf(ALPHA, df), df, noncentrality))


def exact_ancova(effect: float, residual_sd: float, n1: int, n0: int) -> float:
    """Power of the analysis of covariance with one normal covariate, over the covariate's imbalance between the arms.

    The variance of the arm's coefficient is inflated by 1 + s^2 / (N - 2), s a t statistic of the covariate.
    """
    total, spread = n1 + n0, residual_sd * math.sqrt(1 / n1 + 1 / n0)

    def part(s: float) -> float:
        return exact_t(effect / (spread * math.sqrt(1 + s * s / (total - 2))), total - 3) * float(t.pdf(s, total - 2))

    return float(2 * quad(part, 0, 12, limit=200)[0])


def exact_rank_sum(n1: int, n0: int, *, continuity: bool) -> float:
    """Type I error of the normal approximation of the rank-sum test without ties: over all ranks, by counting."""
    ways = [np.zeros(n1 * n0 + 1) for _ in range(n1 + 1)]  # subsets of so many ranks by Mann and Whitney's count
    ways[0][0] = 1.0
    for rank in range(n1 + n0):
        for size in range(min(rank + 1, n1), 0, -1):
            shift = rank - (size - 1)  # of the other group below it
            if shift <= n0:
                ways[size][shift:] += ways[size - 1][: n1 * n0 + 1 - shift]
    law = ways[n1] / math.comb(n1 + n0, n1)
    z = (np.arange(n1 * n0 + 1) - n1 * n0 / 2 - 0.5 * continuity) / math.sqrt(n1 * n0 * (n1 + n0 + 1) / 12)
    return float(law[z >= norm.isf(ALPHA)].sum())
