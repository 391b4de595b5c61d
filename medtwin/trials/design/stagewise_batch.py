"""Stagewise-adjusted estimates of many trials at once: tables of the limits by the statistic at each look.

The probability that a trial is as extreme as one that stopped at look k with statistic z depends on the effect through
its drift alone, delta = theta sqrt(I_k). A table of delta by z at each look and level serves all trials of a design.

Source: Tsiatis, Rosner & Mehta 1984, Biometrics 40:797; Jennison & Turnbull 2000, Group Sequential Methods, 8.4-8.5.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtri

from medtwin.trials.design.boundaries import Density

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_Z = np.arange(-6.0, 10.01, 0.125)
_DELTA = np.arange(-12.0, 16.01, 0.25)
_SURE = 1e-12


@lru_cache(maxsize=256)
def _table(information: tuple[float, ...], upper: tuple[float, ...], levels: tuple[float, ...]) -> Floats:
    """Drifts to the look, (levels, z), at which P(crossed before, or Z at the look >= z) is each level."""
    t = np.array(information) / information[-1]
    probit = np.full((len(_DELTA), len(_Z)), np.nan)
    for row, drift in enumerate(_DELTA):
        density, before = Density(), 0.0
        for k, bound in enumerate(upper):
            before += density.above(bound, t[k], drift)
            density = density.advance(-np.inf, bound, t[k], drift, t[k + 1] - t[k])
        found = np.array([before + density.above(float(z), 1.0, drift) for z in _Z])
        is_known = (found > _SURE) & (found < 1 - _SURE)
        probit[row, is_known] = ndtri(found[is_known])
    return np.stack([_at_levels(probit[:, column], levels) for column in range(len(_Z))], axis=1)


def _at_levels(probit: Floats, levels: tuple[float, ...]) -> Floats:
    """The drift at each level, from the probits at the drifts of the table."""
    kept = np.flatnonzero(~np.isnan(probit))
    kept = kept[np.flatnonzero(np.diff(probit[kept], prepend=-np.inf) > 0)]
    return np.asarray(PchipInterpolator(probit[kept], _DELTA[kept])(ndtri(np.array(levels))))


def stagewise_drifts(
    look: Ints, z: Floats, information: Floats, upper: Floats, levels: tuple[float, ...] = (0.025, 0.5, 0.975)
) -> Floats:
    """The drift to the look of each trial at which the stagewise probability is each level, (trials, levels).

    Divided by sqrt(I) of the look it is the effect: the limits of the interval, and the median-unbiased estimate at
    level 0.5. The information of the looks before counts relative to the last one's, rounded to hundredths, so that
    trials of slightly different event counts share a table.

    Args:
        look: From 0, at which each trial stopped, (trials,).
        z: The statistic there, (trials,).
        information: On the effect at each look up to there, (trials, looks); what comes later does not matter.
        upper: (looks,) efficacy z bounds.
        levels: Increasing.
    """
    found = np.empty((len(z), len(levels)))
    first = look == 0
    found[first] = z[first, None] + ndtri(np.array(levels))
    for k in np.unique(look[~first]).tolist():
        rows = np.flatnonzero(look == k)
        share = np.clip(np.round(information[rows, :k] / information[rows, k, None], 2), 0.01, 0.99)
        shares, which = np.unique(share, axis=0, return_inverse=True)
        for number, each in enumerate(shares):
            mine = rows[which == number]
            t = np.maximum.accumulate(each + 1e-6 * np.arange(k))
            table = _table((*t.tolist(), 1.0), tuple(upper[:k].tolist()), tuple(levels))
            place = np.clip(z[mine], _Z[0], _Z[-1])
            spline = PchipInterpolator(_Z, table, axis=1)
            found[mine] = spline(place).T + (z[mine] - place)[:, None]
    return found
