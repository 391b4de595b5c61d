"""Efficacy bounds of many trials, each at the information that its own looks have.

The recursion of `medtwin.trials.design.boundaries`, with the trials as one more axis; equal sequences of looks are
solved once. They agree with it to 1e-9.

Source: Armitage, McPherson & Rowe 1969, J R Stat Soc A 132:235; Lan & DeMets 1983, Biometrika 70:659.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from medtwin.trials.design.spending import SpendingFunction

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
MIN_STEP = 1e-3
"""Of the planned information: a look that the next one does not exceed by it is replaced by that one."""
_TAIL = 8.0
_AT_ONCE = 2**21  # numbers in an array of one step
_NEWTON = 20
_ENOUGH = 1e-7  # of a step: Newton's error is of the order of its square


@dataclass
class SpendingBounds:
    """Bounds that spend an error as a function of information; what was solved is kept.

    Attributes:
        spending: The function. planned: Information at which all is spent; what lies beyond it spends nothing.
    """

    spending: SpendingFunction
    planned: float
    _solved: dict[tuple[float, ...], float] = field(default_factory=dict, repr=False)

    def last(self, alpha: float, information: Floats, is_final: Bools) -> Floats:
        """The bound at the latest look, (trials,); inf where nothing is to be spent.

        Args:
            alpha: One-sided error in all.
            information: (looks so far, trials), nan at looks that a trial did not have, but for the latest.
            is_final: (trials,) whether the latest look spends the rest.

        Raises:
            ValueError: If information decreases, or is not above 0 at the latest look.
        """
        kept = self._kept(information)
        columns = np.vstack([np.where(kept, information, -1.0), is_final]).T.tolist()
        names = [(alpha, *column) for column in columns]
        missing = [name for name in dict.fromkeys(names) if name not in self._solved]
        if missing:
            asked = np.array(missing).T[1:]
            found = self._solve(alpha, np.where(asked[:-1] < 0, np.nan, asked[:-1]), asked[-1] > 0)
            self._solved |= dict(zip(missing, found.tolist(), strict=True))
        return np.array([self._solved[name] for name in names])

    def _kept(self, information: Floats) -> Bools:
        """Looks that are not replaced by a later one."""
        kept = ~np.isnan(information)
        after = information[-1].copy()
        if not kept[-1].all() or (after <= 0).any():
            raise ValueError("information must be above 0 at the latest look")
        for look in range(len(information) - 2, -1, -1):
            here = kept[look]
            if (information[look][here] > after[here] * (1 + 1e-12)).any():
                raise ValueError("information must not decrease from look to look")
            with np.errstate(invalid="ignore"):
                kept[look] = here & (after - information[look] >= MIN_STEP * self.planned)
            after = np.where(kept[look], information[look], after)
        return kept

    def _solve(self, alpha: float, information: Floats, is_final: Bools) -> Floats:
        """The latest bounds of distinct sequences, nan at looks without."""
        bounds = np.empty(information.shape[1])
        has = ~np.isnan(information)
        for pattern in np.unique(has, axis=1).T:
            here = (has == pattern[:, None]).all(axis=0)
            seen = information[pattern][:, here]
            at = np.minimum(seen / self.planned, 1.0)
            at[-1, is_final[here]] = 1.0
            spends = np.diff(self.spending.spent(at, alpha), axis=0, prepend=0.0)
            bounds[here] = _last_bound(seen, np.maximum(spends, 0.0))
        return bounds


@lru_cache(maxsize=32)
def _legendre(count: int) -> tuple[Floats, Floats]:
    return np.polynomial.legendre.leggauss(count)


def _last_bound(information: Floats, spends: Floats) -> Floats:
    """The bound at the last of (looks, cases) information, given the error of each look, (cases,)."""
    looks, cases = information.shape
    counts = _num_nodes(information)
    found = np.empty(cases)
    for count in np.unique(counts):
        here = np.flatnonzero(counts == count)
        size = int(count) if looks < 3 else int(count) ** 2
        for part in np.array_split(here, -(-len(here) * size // _AT_ONCE)):
            found[part] = _recursion(information[:, part], spends[:, part], int(count))
    return found


def _num_nodes(information: Floats) -> NDArray[np.int64]:
    """Nodes that resolve the smallest step of each case, a multiple of 16 from 48 on."""
    if len(information) == 1:
        return np.full(information.shape[1], 48)
    steps = np.diff(information, axis=0, prepend=0.0)
    narrow = np.minimum(steps[:-1], steps[1:]) / information[:-1]
    wanted = 2.2 * _TAIL / np.sqrt(narrow.min(axis=0))
    return np.asarray(16 * np.ceil(np.maximum(wanted, 48.0) / 16), dtype=np.int64)


def _recursion(information: Floats, spends: Floats, count: int) -> Floats:
    x, w = _legendre(count)
    looks, cases = information.shape
    nodes, mass, before = np.zeros((cases, 1)), np.ones((cases, 1)), np.zeros(cases)
    bound = np.full(cases, np.inf)
    for look in range(looks):
        now = information[look]
        step = np.sqrt(now - before)[:, None]
        drift = nodes * np.sqrt(before)[:, None]
        bound = _crossed(spends[look], mass, drift, step, np.sqrt(now)[:, None])
        if look + 1 == looks:
            return bound
        high = np.minimum(bound, _TAIL)[:, None]
        z = 0.5 * (high + _TAIL) * x + 0.5 * (high - _TAIL)
        score = (z * np.sqrt(now)[:, None])[:, :, None] - drift[:, None, :]
        score /= step[:, :, None]
        np.square(score, out=score)
        score *= -0.5
        np.exp(score, out=score)
        density = np.einsum("cij,cj->ci", score, mass) * (np.sqrt(now)[:, None] / step / np.sqrt(2 * np.pi))
        mass, nodes, before = density * w * 0.5 * (high + _TAIL), z, now
    return bound


def _crossed(spend: Floats, mass: Floats, drift: Floats, step: Floats, scale: Floats) -> Floats:
    """The z above which each case lies with the chance that is spent, by Newton's method on its logarithm.

    The logarithm of the tail is concave in z: each step ends at or above the root.
    """

    def standardised(z: Floats) -> Floats:
        return np.asarray((z[:, None] * scale - drift) / step)

    most = np.full(len(spend), _TAIL)
    is_spent = spend > np.einsum("cj,cj->c", mass, ndtr(-standardised(most)))
    goal = np.where(is_spent, spend, 0.5)
    z = -ndtri(goal)
    for _ in range(_NEWTON):
        at = standardised(z)
        tail = np.einsum("cj,cj->c", mass, ndtr(-at))
        slope = np.einsum("cj,cj->c", mass, np.exp(-0.5 * at**2)) * (scale / step / np.sqrt(2 * np.pi))[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            move = np.where((tail > 0) & (slope > 0), tail / slope * np.log(tail / goal), 0.0)
        z = np.clip(z + move, -_TAIL, _TAIL)
        if np.abs(move).max(initial=0.0) < _ENOUGH:
            break
    return np.where(is_spent, z, np.inf)
