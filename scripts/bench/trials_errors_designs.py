"""Designs whose errors are measured: fixed and group-sequential ones of two and three looks, as z bounds.

Statistics of a trial are (trials, looks) at FRACTIONS of its patients; each design reads those of its own looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from trials_errors_rates import rejections

from medtwin.trials.design.boundaries import (
    Bounds,
    efficacy_only,
    exit_probabilities,
    haybittle_peto_bounds,
    shaped_bounds,
)
from medtwin.trials.design.group_sequential import GroupSequential
from medtwin.trials.design.spending import Spending

Floats = NDArray[np.float64]
ALPHA, POWER = 0.025, 0.8
FRACTIONS = (1 / 3, 1 / 2, 2 / 3, 1.0)
_TWO, _THREE = (1 / 2, 1.0), (1 / 3, 2 / 3, 1.0)
_SPENDINGS = {
    "O'Brien-Fleming spending": Spending(),
    "Pocock spending": Spending("pocock"),
    "Hwang-Shih-DeCani -4": Spending("hwang_shih_decani", -4.0),
    "Kim-DeMets 3": Spending("kim_demets", 3.0),
}


@dataclass(frozen=True)
class Design:
    """A plan for when to stop.

    Attributes:
        name: In the table. columns: Of the looks in FRACTIONS. bounds: In z.
    """

    name: str
    columns: tuple[int, ...]
    bounds: Bounds

    def rejects(self, z: Floats) -> NDArray[np.bool_]:
        """Whether each trial, (trials, looks), is found better at any look; futility bounds are obeyed."""
        return rejections(z, self.columns, self.bounds.efficacy, self.bounds.futility)

    def probability(self, drift: float) -> float:
        """To reject if the statistic were canonical joint normal with such an expectation at the last look."""
        return exit_probabilities(self.bounds.fractions, self.bounds.efficacy, self.bounds.futility, drift).power


def _columns(looks: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(FRACTIONS.index(each) for each in looks)


def _spending(name: str, looks: tuple[float, ...], *, binding: bool | None = None) -> Design:
    futility = None if binding is None else Spending("hwang_shih_decani", -2.0)
    plan = GroupSequential(ALPHA, POWER, looks, _SPENDINGS[name], futility, bool(binding))
    ending = {None: "", True: ", binding futility", False: ", non-binding futility"}[binding]
    return Design(f"{len(looks)} looks, {name}{ending}", _columns(looks), plan.bounds)


@cache
def designs() -> tuple[Design, ...]:
    """All of them, the fixed one first."""
    z = float(norm.isf(ALPHA))
    found = [Design("fixed", (3,), efficacy_only([1.0], np.array([z]), POWER))]
    for looks in (_TWO, _THREE):
        found += [_spending(name, looks) for name in _SPENDINGS]
        found += [_spending("O'Brien-Fleming spending", looks, binding=binding) for binding in (True, False)]
    shaped = efficacy_only(_THREE, shaped_bounds(_THREE, ALPHA, 0.25), POWER)
    found.append(Design("3 looks, Wang-Tsiatis 0.25", _columns(_THREE), shaped))
    constant = efficacy_only(_THREE, haybittle_peto_bounds(_THREE, ALPHA), POWER)
    return (*found, Design("3 looks, Haybittle-Peto", _columns(_THREE), constant))
