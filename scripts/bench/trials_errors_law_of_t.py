"""Group-sequential t statistics drawn from their joint law, without patients: what bounds of z do to them in truth.

Given the covariates, information times the estimate has independent increments, and the residual squares gain the
square of the estimate's step and an independent chi-squared rest (Jennison & Turnbull 1997, Sequential Analysis
16:295).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr

Floats = NDArray[np.float64]
Sizes = Sequence[tuple[int, int]]
CHUNK = 20_000


def sequential_z(rng: np.random.Generator, shift: float, information: Floats, df: Sequence[int]) -> Floats:
    """Statistics z of the tail probabilities of t statistics, (trials, looks), for residuals of variance 1.

    Args:
        rng: Draws them.
        shift: The effect's distance from the null.
        information: (trials, looks) 1 / variance of the estimate.
        df: (looks,) of the residuals.
    """
    estimate, squares = np.zeros((2, len(information)))
    before, df_before, z = np.zeros(len(information)), 0, np.empty_like(information)
    for look, degrees in enumerate(df):
        now, old = information[:, look], estimate
        gain = now - before
        estimate = (before * old + gain * shift + np.sqrt(gain) * rng.standard_normal(len(gain))) / now
        if look:
            squares += (estimate - old) ** 2 / (1 / before - 1 / now)
        squares += rng.chisquare(degrees - df_before - (look > 0), len(gain))
        t = estimate * np.sqrt(now * degrees / squares)
        z[:, look] = np.sign(t) * -ndtri(stdtr(degrees, -np.abs(t)))
        before, df_before = now, degrees
    return z


def information_beside_covariate(rng: np.random.Generator, trials: int, sizes: Sizes) -> Floats:
    """Of the arm's effect in an analysis of covariance, (trials, looks), for a normal covariate that is drawn.

    Args:
        rng: Draws its sums and squares.
        trials: How many.
        sizes: (looks,) patients of the arms.
    """
    total, squares, before, found = np.zeros((2, trials)), np.zeros((2, trials)), (0, 0), []
    for now in sizes:
        for arm in range(2):
            more = now[arm] - before[arm]
            gain = math.sqrt(more) * rng.standard_normal(trials)
            total[arm] += gain
            squares[arm] += gain**2 / more + rng.chisquare(more - 1, trials)
        n = np.array(now, dtype=np.float64)[:, None]
        gap = total[0] / now[0] - total[1] / now[1]
        within = (squares - total**2 / n).sum(axis=0)
        found.append(1 / (1 / now[0] + 1 / now[1] + gap**2 / within))
        before = now
    return np.stack(found, axis=1)


def statistics_of_means(
    sizes: Sizes, shift: float, rho: float
) -> Callable[[np.random.Generator, int], dict[str, Floats]]:
    """Draws z of the pooled t, the paired t and the analysis of covariance, (trials, looks) each.

    Args:
        sizes: (looks,) patients of the arms; equal ones make pairs.
        shift: The effect's distance from the null, of values of variance 1.
        rho: Their correlation with the covariate.
    """
    n1, n0 = np.array(sizes, dtype=np.float64).T
    total = [sum(each) for each in sizes]

    def draw(rng: np.random.Generator, trials: int) -> dict[str, Floats]:
        known = np.broadcast_to(n1 * n0 / (n1 + n0), (trials, len(sizes)))
        left = math.sqrt(1 - rho**2)
        found = {
            "pooled t": sequential_z(rng, shift, known, [n - 2 for n in total]),
            "ANCOVA": sequential_z(
                rng, shift / left, information_beside_covariate(rng, trials, sizes), [n - 3 for n in total]
            ),
        }
        if all(a == b for a, b in sizes):
            found["paired t"] = sequential_z(rng, shift, known, [a - 1 for a, _ in sizes])
        return found

    return draw
